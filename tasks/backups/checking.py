"""A backup is what has been restored: restore it to a scratch server, look at everything, and try the looks themselves.

The order, cheapest and most telling first: digests of every artefact, the restore by the very function that an operator
uses, PostgreSQL's own list of files, a recovery to a random instant between two beats, a recovery to the restore point,
every look at the running copy, the erasures applied twice, one planted fault that must be caught, and the pages of the
stopped copy. The scratch server is removed in any case; what a killed check left is removed by the next one.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from configs.settings import Settings
from tasks.backups import faults, inspection, keys
from tasks.backups.catalogue import Catalogue
from tasks.backups.engine import Engine, Wanted
from tasks.backups.inspection import LOOKS, Scratch
from tasks.backups.manifest import Beat, Finding, Manifest, Verdict, sha256, sign
from tasks.backups.programs import connect, scalar
from tasks.backups.restoring import apply_erasures, ledgers_for, restore, start_recovered, write_recovery
from tasks.backups.scratch import own_scratch
from tasks.backups.sealing import OWN_FILES
from tasks.backups.source import between
from tasks.backups.streams import check_digest
from tasks.backups.targets import CHECK, MANIFEST
from tasks.errors import BadInput, DependencyDown, KontorError
from tasks.local_stack import programs_folder, stop_postgres

Progress = Callable[[str], None]

# Faults outside a running server, and what must catch them.
IN_FOLDER = ("backup_label_missing", "file_missing")
BEFORE = ("artefact_flipped", "artefact_cut", "manifest_changed", *IN_FOLDER)
AFTER = ("page_damaged",)
EVERY_FAULT = (*BEFORE, *(fault.name for fault in faults.RUNNING), *AFTER)


def faults_for(engine: Engine) -> tuple[str, ...]:
    """The faults that the check of this engine's backups can be tried with."""
    return tuple(fault for fault in EVERY_FAULT if engine.lists_files or fault not in IN_FOLDER)


@dataclass
class _Work:
    """A check under way: what it found so far."""

    engine: Engine
    chain: tuple[Manifest, ...]
    home: Path
    chance: random.Random
    planted: str
    progress: Progress
    findings: list[Finding] = field(default_factory=list)
    instant: datetime | None = None
    caught: bool = False
    restore_seconds: float = 0.0

    @property
    def manifest(self) -> Manifest:
        """The backup that is checked; what it builds on stands before it in ``chain``."""
        return self.chain[-1]

    def note(self, finding: Finding) -> None:
        """Add a finding to the verdict and tell it."""
        self.progress(f"{finding.name}: {'right' if finding.passed else 'WRONG'} ({finding.said})")
        self.findings.append(finding)


def check_backup(
    engine: Engine,
    catalogue: Catalogue,
    label: str,
    *,
    now: datetime,
    planted: str | None = None,
    progress: Progress = lambda _: None,
) -> Verdict:
    """Restore a backup to a scratch server, look at everything, sign the verdict beside it, and return it.

    ``planted`` names the fault to plant; by default the label and the time choose one of :data:`EVERY_FAULT`. What is
    wrong with the backup is in the verdict; an error means that the check itself could not be made.

    Raises:
        Refused: the private key is not here, or the programs are of another version.
        DependencyDown: the target cannot be read.
        Locked: another check or drill is under way.
    """
    begun = time.monotonic()
    chain = catalogue.chain(label)
    chance = random.Random(f"{label} {now.isoformat()}")
    keys.must_open(engine.ring, [manifest.recipients for manifest in chain])
    with own_scratch(engine.settings, "check") as home:
        work = _Work(engine, chain, home, chance, planted or chance.choice(faults_for(engine)), progress)
        try:
            _look_at_all(work)
        except (BadInput, DependencyDown) as error:
            work.note(Finding("restore", False, error.message.splitlines()[0][:300]))
    content = engine.target.get(f"{label}/{MANIFEST}")
    verdict = Verdict(
        label=label,
        manifest_sha256=sha256(content),
        checked_at=now.isoformat(),
        findings=tuple(work.findings),
        instant=work.instant.isoformat() if work.instant else None,
        planted=work.planted,
        planted_caught=work.caught,
        restore_seconds=round(work.restore_seconds, 3),
        total_seconds=round(time.monotonic() - begun, 3),
    )
    engine.target.put(f"{label}/{CHECK}", sign(verdict, keys.read_signing_key(engine.ring)))
    return verdict


def check_digests(engine: Engine, chain: Sequence[Manifest]) -> Finding:
    """Whether every artefact of the backups is, byte for byte, what was signed; needs no private key."""
    wrong, size = [], 0
    for manifest in chain:
        for artefact in manifest.artefacts:
            try:
                with engine.target.reading(f"{manifest.label}/{artefact.name}") as source:
                    check_digest(artefact, source)
            except (BadInput, DependencyDown) as error:
                wrong.append(error.message)
            size += artefact.size
    return Finding("digests", not wrong, "; ".join(wrong)[:300] or f"{size:,} bytes are what was signed")


def _look_at_all(work: _Work) -> None:
    digests = check_digests(work.engine, work.chain)
    work.note(digests)
    if not digests.passed:
        return  # nothing is restored from bytes that are not what was signed
    store = work.engine.look_at_store()
    if store is not None:
        work.note(store)
        if not store.passed:
            return
    _plant_before(work)
    scratch = _restored(work)
    for name, look in LOOKS.items():
        work.note(_looked(name, look, scratch))
    work.note(_erasures(work, scratch))
    _plant_running(work, scratch)
    stop_postgres(work.home)
    data = (work.home / "postgres" / "data").resolve()
    work.note(inspection.pages(programs_folder(), data))
    if work.planted == "page_damaged":
        faults.flip_in_file(faults.largest_table(data), work.chance)
        work.caught = not inspection.pages(programs_folder(), data).passed


def _looked(name: str, look: inspection.Look, scratch: Scratch) -> Finding:
    """A look whose statement the copy refuses (a table is gone, a page cannot be read) has found something wrong."""
    import psycopg
    from sqlalchemy.exc import DBAPIError

    try:
        return look(scratch)
    except (psycopg.Error, DBAPIError) as error:
        return Finding(name, False, f"the copy refused a statement ({type(error).__name__})")


def _restored(work: _Work) -> Scratch:
    """The copy, restored as an operator would, once to an instant and then on to the restore point."""
    settings = work.engine.settings.model_copy(update={"home": work.home, "database_url": None})
    first, second = _beats(work)
    work.instant = between(first, second)
    begun = time.monotonic()

    def look(folder: Path) -> None:
        """What can be seen of the laid-out folder before any server has touched it."""
        work.note(work.engine.look_at_folder(folder))
        _plant_in_folder(work, folder)

    paused = restore(
        work.engine, Wanted(work.chain, instant=work.instant, pause=True), work.home, sealed=False, look=look
    )
    with connect(paused.server) as connection:
        newest = scalar(connection, "select max(heartbeat_id) from ops.heartbeats")
    said = f"recovered to {work.instant.isoformat()}: newest beat {newest}, expected {first.heartbeat_id}"
    work.note(Finding("instant", newest == first.heartbeat_id, said))
    stop_postgres(work.home)
    _go_on(work, paused.server.data_dir)
    server = start_recovered(work.home, paused=False)
    work.restore_seconds = time.monotonic() - begun
    work.note(Finding("recovery", True, f"recovered to the restore point in {work.restore_seconds:.1f} s"))
    return Scratch(settings, server, work.manifest)


def _beats(work: _Work) -> tuple[Beat, Beat]:
    beats = work.manifest.beats
    if len(beats) < 2:
        raise BadInput("The backup has no beats to recover between.", hint="Take another one.")
    place = work.chance.randrange(len(beats) - 1)
    return beats[place], beats[place + 1]


def _go_on(work: _Work, data: Path) -> None:
    """Let the paused copy go on to the restore point at its next start."""
    write_recovery(data, Wanted(work.chain, point=work.manifest.point), work.engine.restore_command)


def _erasures(work: _Work, scratch: Scratch) -> Finding:
    """The erasure ledger can be applied to the copy, and applying it again finds nobody left to erase."""
    settings = scratch.settings
    try:
        home = work.engine.settings
        work.engine.unpack_home(work.manifest, settings.home / "files")
        with ledgers_for(home, None, None, home.home) as ledgers:
            first = apply_erasures(_with_key(settings, home), scratch.server, ledgers)
            second = apply_erasures(_with_key(settings, home), scratch.server, ledgers)
    except KontorError as error:
        return Finding("erasures", False, error.message[:300])
    changed = {name: count for name, count in second.items() if count and name not in ("lines", "subjects")}
    said = f"{first.get('subjects', 0)} erased subjects applied again, nobody left"
    return Finding("erasures", not changed, "a second replay changed something" if changed else said)


def _with_key(scratch: Settings, home: Settings) -> Settings:
    """The copy's settings with the erasure key of the home in reach."""
    source, target = home.home / "keys" / "erasure.key", scratch.home / "keys" / "erasure.key"
    if source.exists() and not target.exists():
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy2(source, target)
    return scratch


# --- the planted fault ---------------------------------------------------------------------------------------------


def _plant_before(work: _Work) -> None:
    """Plant a fault in a copy of the smallest artefact, or of the manifest, and see that it is caught."""
    from io import BytesIO

    from tasks.backups.manifest import read_manifest

    if work.planted not in ("artefact_flipped", "artefact_cut", "manifest_changed"):
        return
    label, signers = work.manifest.label, keys.read_signers(work.engine.ring)
    try:
        if work.planted == "manifest_changed":
            content = work.engine.target.get(f"{label}/{MANIFEST}")
            read_manifest(faults.flip(content, work.chance), signers, "the copy")
            return
        content = work.engine.target.get(f"{label}/{OWN_FILES}")
        broken = faults.flip(content, work.chance) if work.planted == "artefact_flipped" else content[:-1]
        check_digest(work.manifest.artefact(OWN_FILES), BytesIO(broken))
    except BadInput:
        work.caught = True


def _plant_in_folder(work: _Work, folder: Path) -> None:
    """Take a file away from the laid-out copy, see that the list of files misses it, and put it back."""
    if work.planted not in IN_FOLDER:
        return
    victim = folder / "backup_label" if work.planted == "backup_label_missing" else faults.largest_table(folder)
    aside = folder.with_name(f"{folder.name}.aside")
    victim.rename(aside)
    try:
        work.caught = not work.engine.look_at_folder(folder).passed
    finally:
        aside.rename(victim)


def _plant_running(work: _Work, scratch: Scratch) -> None:
    for fault in faults.RUNNING:
        if fault.name == work.planted:
            fault.plant(scratch)
            work.caught = not _looked(fault.look, LOOKS[fault.look], scratch).passed


def summary_of(verdict: Verdict) -> Verdict:
    """The verdict without what was right in detail, for a log."""
    return replace(verdict, findings=tuple(finding for finding in verdict.findings if not finding.passed))
