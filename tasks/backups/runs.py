"""What flows and commands do with backups, in terms of the settings: open the engine, survey, take, check, prune."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy import Engine as Database
from sqlalchemy.exc import SQLAlchemyError

from configs.settings import Settings
from tasks.backups import keys, store
from tasks.backups.catalogue import Catalogue
from tasks.backups.checking import check_backup, faults_for
from tasks.backups.core_engine import CoreEngine
from tasks.backups.engine import Engine
from tasks.backups.expiry import CLOCKS_DIFFER, Plan
from tasks.backups.manifest import FULL, INCREMENTAL, Manifest, Verdict, label_for
from tasks.backups.pgbackrest import driver_for
from tasks.backups.pgbackrest_engine import PgBackRestEngine
from tasks.backups.pruning import clear_leftovers, delete_backups, plan_prune
from tasks.backups.targets import open_target
from tasks.backups.wal import forget_wal, segment_of
from tasks.errors import KontorError, Locked, Refused, UsageError

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """What kind of backup is to be made, on what, and why."""

    kind: str
    base: Manifest | None
    reason: str


def open_engine(settings: Settings) -> Engine:
    """The engine that the settings describe; raises as :func:`open_target`."""
    target, ring = open_target(settings), keys.keyring(settings.home, settings.backup_identity)
    if settings.backup_engine == "pgbackrest":
        return PgBackRestEngine(settings, target, ring, driver_for(settings))
    return CoreEngine(settings, target, ring)


def survey(engine: Engine) -> Catalogue:
    """What there is now, as far as this machine's signers vouch for it."""
    return engine.survey()


def tidy(database: Database, engine: Engine, catalogue: Catalogue, run_id: int, now: datetime) -> dict[str, int]:
    """Bring the database's mirror to the target and delete what killed runs left; returns counts."""
    with database.begin() as connection:
        ours = list(connection.scalars(text("select label from ops.backups")))
        counts = store.reconcile(connection, catalogue, run_id, now)
    gone = clear_leftovers(engine.target, catalogue, ours, now)
    swept = engine.housekeep(catalogue, now)
    return {**counts, "leftovers": len(gone), "swept": swept, "damaged": len(catalogue.damaged)}


def choose(engine: Engine, catalogue: Catalogue, policy: store.Policy, wanted: str, now: datetime) -> Choice:
    """Full or incremental: as asked, else by the rule and by what there is to build on.

    An incremental one builds on the newest backup that has not failed its check, so that the next one of an evening is
    not stopped by a check that is still to come. After a restore the first one is full, because the history is another.
    """
    failed = {label for label, verdict in catalogue.verdicts.items() if not verdict.passed}
    able = [m for m in catalogue.backups if m.label not in failed and engine.knows(m)]
    base = able[-1] if able and engine.continues(able[-1]) else None
    if wanted == FULL:
        return Choice(FULL, None, "asked for")
    if base is None:
        if wanted == INCREMENTAL:
            raise Refused("There is nothing that an incremental backup could continue.", hint="Take --kind full.")
        return Choice(FULL, None, "there is nothing to build on")
    if wanted == INCREMENTAL:
        return Choice(INCREMENTAL, base, "asked for")
    fulls = [manifest for manifest in catalogue.backups if manifest.kind == FULL]
    if not fulls or now - fulls[-1].started >= timedelta(days=policy.full_every_days):
        return Choice(FULL, None, f"a full one is due every {policy.full_every_days} days")
    if fulls[-1].started > now + CLOCKS_DIFFER:
        return Choice(FULL, None, "the newest full one is of a time that has not come: a clock was moved")
    return Choice(INCREMENTAL, base, "the newest full one is recent enough")


def take(database: Database, engine: Engine, choice: Choice, run_id: int, now: datetime) -> Manifest:
    """Make the backup and return its manifest; the mirror says that it is under way, and what became of it.

    Raises what the engine raises, also where database or target cannot be told any more: a kill looks the same to the
    next run, which notes the backup as abandoned and takes its files away.
    """
    label = label_for(now, choice.kind)
    base = choice.base.label if choice.base is not None else None
    with database.begin() as connection:
        store.open_backup(connection, label, choice.kind, base, engine.name, run_id)
    try:
        manifest = engine.take(now, choice.kind, choice.base)
    except (KontorError, psycopg.Error, OSError) as error:
        with suppress(SQLAlchemyError), database.begin() as connection:
            store.fail_backup(connection, label, type(error).__name__)
        with suppress(KontorError):
            engine.target.remove_folder(label)
        raise
    mirror(database, engine, run_id, now)
    return manifest


def mirror(database: Database, engine: Engine, run_id: int, now: datetime) -> dict[str, int]:
    """Bring the database's mirror to what the target holds; returns counts."""
    with database.begin() as connection:
        return store.reconcile(connection, survey(engine), run_id, now)


def check(
    database: Database,
    engine: Engine,
    label: str | None,
    run_id: int,
    now: datetime,
    planted: str | None = None,
    progress: Progress = lambda _: None,
) -> Verdict:
    """Check a backup (default: the newest), write the verdict down, and return it.

    Raises:
        UsageError: there is no such backup, or no such fault.
    """
    faults = faults_for(engine)
    if planted is not None and planted not in faults:
        raise UsageError(f"There is no fault {planted}.", hint=f"Choose one of: {', '.join(faults)}.")
    catalogue = survey(engine)
    if not catalogue.backups:
        raise UsageError("There is no backup yet.", hint="Make one: `kontor run backup`.")
    verdict = check_backup(
        engine, catalogue, label or catalogue.backups[-1].label, now=now, planted=planted, progress=progress
    )
    mirror(database, engine, run_id, now)
    return verdict


def prune_plan(database: Database, engine: Engine, policy: store.Policy, now: datetime) -> Plan:
    """Which backups stay by the rule, each with its reasons, and which may go."""
    with database.begin() as connection:
        holds = store.standing_holds(connection)
    return plan_prune(survey(engine), policy, holds, now)


def prune(database: Database, engine: Engine, policy: store.Policy, now: datetime, *, live: bool) -> list[str]:
    """Delete what the rule no longer keeps and return the labels; without ``live`` only say which."""
    goes = list(prune_plan(database, engine, policy, now).goes)
    if not live or not goes:
        return goes
    catalogue = survey(engine)
    delete_backups(engine.target, catalogue, goes)
    by_label = {manifest.label: manifest for manifest in catalogue.backups}
    engine.forget([by_label[label] for label in goes])
    _forget_wal(engine)
    with database.begin() as connection:
        store.note_pruned(connection, goes)
        store.forget_beats(connection, now - timedelta(days=policy.recovery_window_days + 1))
    return goes


def _forget_wal(engine: Engine) -> None:
    """Delete the shipped WAL from before the oldest backup that is left: nothing could be recovered with it."""
    left = survey(engine).backups
    if left:
        needed = (segment_of(manifest.start_lsn, manifest.timeline) for manifest in left)
        forget_wal(engine.target, min(needed, key=lambda segment: segment[8:]))  # its place, whatever the clock said


def policy_on(connection: Connection, day: date) -> store.Policy:
    """The rule in force on a day."""
    return store.read_policy(connection, day)


@contextmanager
def one_at_a_time(database: Database) -> Iterator[None]:
    """Hold the lock that backup, restore_check, prune and restore share, for a ``with`` block.

    They share slots, the scratch folder and the target, whichever flow they are.

    Raises:
        Locked: another one is under way.
    """
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # closing it really ends the session, and the lock with it
        if not connection.scalar(text("select pg_try_advisory_lock(hashtext('kontor backups'))")):
            raise Locked(
                "Another backup, check or prune is under way. Nothing was changed.",
                holder="",
                hint="Wait for it to end (`kontor status` shows it), then run the command again.",
            )
        yield
        if not connection.invalidated:
            connection.execute(text("select pg_advisory_unlock(hashtext('kontor backups'))"))
