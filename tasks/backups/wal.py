"""The write-ahead log between backups: received as it is written, shipped to the target, laid out again for a restore.

``pg_receivewal --synchronous`` writes what the server has written, as it is written, to ``KONTOR_HOME/wal``; a slot
lets the server keep what the receiver has not got, up to ``KONTOR_BACKUP_WAL_LIMIT_MB``. Each finished segment (16 MB)
goes to the target as ``wal/<segment>.zst.age`` with a signed record beside it, written last. A restore to an instant
takes a backup from before it and then, one after the other, the segments on the target and those that are still here;
where one is missing it goes no further.

When the receiver was away for longer than the limit allows, the slot is lost and begins anew: the instants in between
can only be reached through a backup that was made after them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from psycopg import sql
from pyrage import x25519

from configs.settings import Settings
from tasks.backups import keys, streams
from tasks.backups.manifest import Manifest, Segment, read_segment, sign
from tasks.backups.programs import ask, connect, scalar, where
from tasks.backups.targets import WAL, Target
from tasks.errors import BadInput, DependencyDown
from tasks.local_stack import LocalPostgres

if TYPE_CHECKING:
    from tasks.backups.core_engine import CoreEngine

SLOT = "kontor_receiver"
SUFFIX = ".zst.age"
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_PER_NUMBER = 0x100  # segments of 16 MB in each of the log's 4 GB numbers


def wal_folder(settings: Settings) -> Path:
    """Where received WAL lies until it is shipped."""
    return settings.home / "wal"


# --- receiving ----------------------------------------------------------------------------------------------------


def prepare_slot(server: LocalPostgres, limit_mb: int) -> bool:
    """See to it that the receiver's slot is there and limited; True when it began anew, so that WAL may be missing."""
    with connect(server, "postgres") as connection:
        # A receiver whose keeper was killed; it ends when its connection does.
        ask(
            connection,
            "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = %s and active",
            SLOT,
        )
        ask(connection, sql.SQL("alter system set max_slot_wal_keep_size = {}").format(sql.Literal(f"{limit_mb}MB")))
        ask(connection, "select pg_reload_conf()")
        state = scalar(connection, "select wal_status from pg_replication_slots where slot_name = %s", SLOT)
        if state not in (None, "lost"):
            return False
        if state == "lost":
            ask(connection, "select pg_drop_replication_slot(%s)", SLOT)
        ask(connection, "select pg_create_physical_replication_slot(%s, true)", SLOT)
        return True


def receiver_command(server: LocalPostgres, folder: Path) -> list[str]:
    """The command that receives WAL into ``folder`` until it is told to stop."""
    program = str(server.programs_dir / "pg_receivewal")
    return [program, *where(server), f"--directory={folder}", f"--slot={SLOT}", "--synchronous", "--no-loop"]


def beat(server: LocalPostgres) -> None:
    """Write a beat, by which a recovery to an instant can be proven."""
    with connect(server) as connection:
        ask(connection, "insert into ops.heartbeats default values")


def finish_segment(server: LocalPostgres) -> None:
    """Let the server begin a new segment, so that the present one can be shipped."""
    with connect(server, "postgres") as connection:
        ask(connection, "select pg_switch_wal()")


# --- shipping -----------------------------------------------------------------------------------------------------


def ship(engine: CoreEngine, now: datetime) -> int:
    """Bring every finished segment to the target and return how many; harmless to repeat.

    The newest finished one stays here too, because the receiver goes on from it.

    Raises:
        DependencyDown: the target cannot be written to; what is not there stays here.
    """
    folder = wal_folder(engine.settings)
    finished = sorted(path for path in folder.glob("*") if _SEGMENT.fullmatch(path.name)) if folder.is_dir() else []
    if not finished:
        return 0
    there = set(engine.target.names(WAL))
    key, recipients = keys.read_signing_key(engine.ring), keys.read_recipients(engine.ring)
    shipped = 0
    for path in finished:
        if f"{path.name}.json" not in there:
            with path.open("rb") as source, engine.target.writing(f"{WAL}/{path.name}{SUFFIX}") as sink:
                artefact = streams.seal_stream(path.name + SUFFIX, source, sink, recipients)
            completed = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
            segment = Segment(path.name, now.isoformat(), completed, artefact)
            engine.target.put(f"{WAL}/{path.name}.json", sign(segment, key))
            shipped += 1
    for path in finished[:-1]:
        path.unlink()
    return shipped


def forget_wal(target: Target, oldest_needed: str) -> int:
    """Delete shipped segments that no remaining backup needs, the record first; returns how many.

    ``oldest_needed`` is the first segment that the oldest backup needs. Other timelines are compared by their place.
    """
    gone = 0
    for name in target.names(WAL):
        segment = name.split(".")[0]
        if _SEGMENT.fullmatch(segment) and segment[8:] < oldest_needed[8:] and name.endswith(".json"):
            target.remove(f"{WAL}/{name}")
            target.remove(f"{WAL}/{segment}{SUFFIX}")
            gone += 1
    return gone


# --- laying out -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Supply:
    """Where WAL can be had from: the target with what opens and vouches for it, and this machine's own folder."""

    target: Target
    signers: list[Ed25519PublicKey]
    identities: list[x25519.Identity]
    local: Path


def segment_of(lsn: str, timeline: int) -> str:
    """The name of the segment that holds a position, for segments of 16 MB."""
    high, low = (int(part, 16) for part in lsn.split("/"))
    return f"{timeline:08X}{high:08X}{low >> 24:08X}"


def following(segment: str) -> Iterator[str]:
    """The names of the segments behind this one, in order."""
    timeline, number, part = segment[:8], int(segment[8:16], 16), int(segment[16:], 16)
    while True:
        part += 1
        if part == _PER_NUMBER:
            number, part = number + 1, 0
        yield f"{timeline}{number:08X}{part:08X}"


def lay_out_wal(supply: Supply, manifest: Manifest, folder: Path, until: datetime | None) -> datetime:
    """Put what follows a backup's own WAL into ``folder``, up to ``until`` (None: all there is).

    Returns the instant up to which there is WAL. A segment is laid down only when it is, byte for byte, what was
    signed, and nothing behind a missing or damaged one is.

    Raises:
        BadInput: ``until`` lies behind the last instant for which there is WAL.
    """
    reached = manifest.point_time
    for name in following(segment_of(manifest.point_lsn, manifest.timeline)):
        completed = _fetch(supply, name, folder / name)
        if completed is None:
            break
        reached = max(reached, completed)
        if until is not None and reached > until:
            return reached
    if until is not None and reached < until:
        raise BadInput(
            f"There is WAL up to {reached.isoformat(timespec='seconds')} only, not to"
            f" {until.isoformat(timespec='seconds')}; nothing was changed.",
            hint="Restore to an earlier instant, or to `--to latest`.",
        )
    return reached


def _fetch(supply: Supply, name: str, path: Path) -> datetime | None:
    """Lay down one segment and return when it was complete; None when it is nowhere to be had whole."""
    for there in (supply.local / name, supply.local / f"{name}.partial"):
        with suppress(FileNotFoundError):
            shutil.copyfile(there, path)
            return datetime.fromtimestamp(there.stat().st_mtime, UTC)
    if not supply.target.exists(f"{WAL}/{name}.json"):
        return None
    try:
        segment = read_segment(supply.target.get(f"{WAL}/{name}.json"), supply.signers, f"{WAL}/{name}.json")
        if segment.name != name:
            return None
        with supply.target.reading(f"{WAL}/{name}{SUFFIX}") as source, path.open("wb") as sink:
            streams.open_stream(segment.artefact, source, sink, supply.identities)
    except (BadInput, DependencyDown):
        path.unlink(missing_ok=True)
        return None
    return datetime.fromisoformat(segment.completed_at)


def set_aside(settings: Settings, label: str) -> Path | None:
    """Move received WAL out of the way of a restored database, which begins another timeline; returns where to."""
    folder = wal_folder(settings)
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    aside = folder.with_name(f"wal.before-{label}")
    number = 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"wal.before-{label}.{number}")
    folder.rename(aside)
    return aside
