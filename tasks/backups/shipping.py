"""The erasure ledger between backups: it goes to the target with the WAL, so that no erasure is lost with the machine.

    <target>/wal/home-<size>.tar.zst.age, .json     what a backup holds of KONTOR_HOME; the signed record last

The ledger is only ever added to, so the copy of the longest one is the newest. The one before goes when it is there.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tasks.backups import keys
from tasks.backups.engine import Engine
from tasks.backups.manifest import Segment, read_segment, sign
from tasks.backups.sealing import seal_home, unpack_file
from tasks.backups.targets import WAL
from tasks.erasures.ledger_file import ledger_of
from tasks.errors import BadInput

_COPY, _RECORD, _FILE = "home-", ".json", ".tar.zst.age"


def ship_home(engine: Engine, now: datetime) -> bool:
    """Bring the erasure ledger to the target where it has grown; returns whether it had. Harmless to repeat.

    A longer one on the target is never replaced: this home was restored from before it, and has not taken it over yet.

    Raises:
        DependencyDown: the target cannot be written to; the copy before is still there.
    """
    ledger = ledger_of(engine.settings.home).path
    if not ledger.exists():
        return False
    name = f"{_COPY}{ledger.stat().st_size:015d}"
    before = [file for file in engine.target.names(WAL) if file.startswith(_COPY)]
    if any(file.endswith(_RECORD) and file >= name for file in before):
        return False
    artefact = seal_home(engine.settings.home, engine.target, engine.ring, WAL, name + _FILE)
    record = Segment(name, now.isoformat(), now.isoformat(), artefact)
    engine.target.put(f"{WAL}/{name}{_RECORD}", sign(record, keys.read_signing_key(engine.ring)))
    for file in sorted(before):  # ".json" before ".tar.zst.age": the record before what it speaks of
        engine.target.remove(f"{WAL}/{file}")
    return True


def unpack_shipped_home(engine: Engine, folder: Path) -> bool:
    """Write the newest copy that can be believed into a folder; False where there is none.

    Raises:
        DependencyDown: the target cannot be read.
        Refused: the private key is not here.
    """
    identities, signers = keys.read_identities(engine.ring), keys.read_signers(engine.ring)
    records = [file for file in engine.target.names(WAL) if file.startswith(_COPY) and file.endswith(_RECORD)]
    for file in sorted(records, reverse=True):
        try:
            record = read_segment(engine.target.get(f"{WAL}/{file}"), signers, f"{WAL}/{file}")
            unpack_file(engine.target, f"{WAL}/{record.artefact.name}", record.artefact, folder, identities)
        except BadInput:
            continue
        return True
    return False
