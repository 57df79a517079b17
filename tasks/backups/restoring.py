"""From a backup to a running server: lay out, recover, open; and what a restored database must go through before use.

A restored database is sealed: nobody but the superuser may connect until :func:`release` has

1. applied the erasure ledger again (who was erased since the backup is erased in it too) and re-read the legal holds,
2. set every sequence past what may have been used since,
3. held back every mail that was waiting to leave, until a person releases it, and noted the restore in the ledger of
   runs, so that what is planned next waits for a person too: what was sent after the backup is not known in it.

Each of the three is harmless to repeat; killed between them, ``kontor backup release`` goes on.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from os import getpid
from pathlib import Path
from socket import gethostname
from typing import Any
from zoneinfo import ZoneInfo

from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from configs.settings import Settings
from tasks.backups.engine import Engine, Wanted
from tasks.backups.keys import write_private
from tasks.backups.manifest import Manifest
from tasks.backups.programs import Session, ask, connect, scalar
from tasks.backups.shipping import unpack_shipped_home
from tasks.database import RETENTION, database_url
from tasks.erasures.keys import key_of
from tasks.erasures.ledger_file import ErasureLedger, ledger_of, longest_ledger
from tasks.erasures.replay_store import replay
from tasks.errors import DependencyDown, Refused
from tasks.local_stack import (
    LocalPostgres,
    adopt_restored,
    find_postgres,
    is_sealed,
    make_restore_folder,
    start_postgres,
    unseal,
)

SEQUENCE_MARGIN = 1_000_000
HELD_REASON = "held by a restore: a person releases it after looking whether it had left already"
_RECOVERY = (
    "restore_command",
    "recovery_target_time",
    "recovery_target_name",
    "recovery_target_action",
    "recovery_target_timeline",
    "synchronous_standby_names",
)
_NOTE_RESTORE = """
insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id, state, ended_at)
values ('restore', 'kontor backup', %s, false, %s, %s, 'done', now())
"""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Restored:
    """A database that was restored: its server, where the former one is kept, and how long it took."""

    server: LocalPostgres
    former: Path | None
    seconds: float


@dataclass(frozen=True)
class Released:
    """What a restored database went through before it was opened."""

    erased: dict[str, int]
    sequences: int
    held_mails: int


def restore(
    engine: Engine,
    wanted: Wanted,
    home: Path,
    *,
    sealed: bool = True,
    look: Callable[[Path], None] | None = None,
    before_replacing: Callable[[], None] | None = None,
    progress: Progress = lambda _: None,
) -> Restored:
    """Restore into ``home`` and return its server, recovered and open, or paused where that is wanted.

    A database that is there is stopped only when the new one is laid out, and kept beside it. ``look`` is shown the
    laid-out folder before any server has touched it; ``before_replacing`` may still refuse.

    Raises:
        BadInput: an artefact is not what was signed; what was there goes on as it was.
        DependencyDown: the recovery did not reach what was asked for; the former database is named in the text.
    """
    begun = time.monotonic()
    fresh = make_restore_folder(home)
    try:
        progress(f"Laying out {wanted.newest.label}…")
        engine.lay_out(wanted, fresh)
        if look is not None:
            look(fresh)
        write_recovery(fresh, wanted, engine.restore_command)
        if before_replacing is not None:
            before_replacing()
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    former = adopt_restored(home, fresh, keep_as=wanted.newest.label, sealed=sealed)
    progress("Recovering…")
    server = _recovered(home, wanted, engine.restore_command)
    return Restored(server, former, time.monotonic() - begun)


def _recovered(home: Path, wanted: Wanted, restore_command: str) -> LocalPostgres:
    """The server, recovered as wanted.

    PostgreSQL stops at the first commit behind an instant and takes it for an error when there is none: all WAL up to
    the instant was there (the engine saw to that), so the end of it is what was asked for.
    """
    try:
        return start_recovered(home, paused=wanted.pause)
    except DependencyDown:
        if wanted.instant is None or wanted.pause:
            raise
    write_recovery((home / "postgres" / "data").resolve(), Wanted(wanted.chain), restore_command)
    return start_recovered(home, paused=False)


def write_recovery(folder: Path, wanted: Wanted, restore_command: str) -> None:
    """Say in the data folder how far to recover; what an earlier call said there is replaced.

    ``restore_command`` fetches WAL that does not lie in ``pg_wal``; ``false`` where there is nowhere to fetch any from.
    """
    lines = {
        "restore_command": restore_command,
        "recovery_target_action": "pause" if wanted.pause else "promote",
        "recovery_target_timeline": "current",  # what was written after an earlier restore is not this history
        "synchronous_standby_names": "",  # nobody follows the restored one yet, and commits must not wait for it
    }
    if wanted.instant is not None:
        lines["recovery_target_time"] = wanted.instant.isoformat()
    elif wanted.point is not None:
        lines["recovery_target_name"] = wanted.point
    path = folder / "postgresql.auto.conf"
    kept = [line for line in path.read_text("utf-8").splitlines() if line.split("=")[0].strip() not in _RECOVERY]
    kept += [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in lines.items()]
    path.write_text("\n".join(kept) + "\n", "utf-8")  # in place: it stays the server's account's
    (folder / "recovery.signal").touch(mode=0o600)


def start_recovered(home: Path, *, paused: bool, timeout_seconds: float = 3_600.0) -> LocalPostgres:
    """Start the server of ``home`` and return it once its recovery has come to where it should.

    Raises:
        DependencyDown: it ended before; the text has the server's own words.
    """
    server = start_postgres(home, timeout_seconds=timeout_seconds)
    deadline = time.monotonic() + timeout_seconds
    while True:
        if find_postgres(home) is None:
            raise DependencyDown(
                "The recovery ended before it reached what was asked for.",
                hint="The WAL up to there is not all in the backups; restore to an earlier instant.",
            )
        if _has_arrived(server, paused=paused):
            break
        if time.monotonic() > deadline:
            raise DependencyDown("The recovery is not done in time; it goes on.", hint="Look at the server's log.")
        time.sleep(0.05)
    if not paused:
        _forget_recovery(server)
    return server


def _has_arrived(server: LocalPostgres, *, paused: bool) -> bool:
    try:
        with connect(server, "postgres") as connection:
            if not paused:
                return not scalar(connection, "select pg_is_in_recovery()")
            return bool(scalar(connection, "select pg_get_wal_replay_pause_state() = 'paused'"))
    except DependencyDown:
        return False


def _forget_recovery(server: LocalPostgres) -> None:
    with connect(server, "postgres") as connection:
        for name in _RECOVERY:
            ask(connection, sql.SQL("alter system reset {}").format(sql.Identifier(name)))
        ask(connection, "select pg_reload_conf()")


# --- before anybody may use it ------------------------------------------------------------------------------------


def release(settings: Settings, ledgers: list[ErasureLedger], *, margin: int = SEQUENCE_MARGIN) -> Released:
    """Make a restored database fit for use and open it to everybody; returns what was done.

    ``ledgers`` are all copies of the erasure ledger that can be found; the one that goes furthest is applied.

    Raises:
        Refused: it is not sealed, or copies of the ledger contradict each other.
        BadInput: the ledger is broken; the database stays sealed.
    """
    if not is_sealed(settings.home):
        raise Refused("This database waits for no release: it is open already.", hint="Nothing is to be done.")
    server = start_recovered(settings.home, paused=False)
    erased = apply_erasures(settings, server, ledgers)
    _go_on_with(settings.home, longest_ledger(ledgers) if ledgers else ledger_of(settings.home))
    with connect(server) as connection:
        sequences = advance_sequences(server, margin)
        held = hold_mails(server)
        # What was running when the backup was made is running no more.
        ask(
            connection,
            "update ops.run_ledger set state = 'abandoned', ended_at = now(), error_code = 'restored'"
            " where state = 'running'",
        )
        today = datetime.now(ZoneInfo(settings.business_timezone)).date()
        ask(connection, _NOTE_RESTORE, today, gethostname(), getpid())
        ask(connection, "analyze")
    unseal(settings.home)
    return Released(erased, sequences, held)


def apply_erasures(settings: Settings, server: LocalPostgres, ledgers: list[ErasureLedger]) -> dict[str, int]:
    """Apply the erasure ledger to a restored database, working as the role that alone may erase; returns counts."""
    ledger = longest_ledger(ledgers) if ledgers else ledger_of(settings.home)
    key = key_of(settings.home)
    # A sealed database admits the superuser only, who then takes the role's place.
    url = database_url(settings, server.superuser)
    engine = create_engine(url, poolclass=NullPool, connect_args={"options": f"-c timezone=UTC -c role={RETENTION}"})
    return replay(engine, ledger, key)


def _go_on_with(home: Path, ledger: ErasureLedger) -> None:
    """Let the home's own ledger be the one that was applied, so that what is erased from now on is added behind it."""
    own = ledger_of(home).path
    if ledger.path != own:  # of copies that go equally far the home's own is the one that is applied
        own.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(own, ledger.path.read_bytes())


@contextmanager
def ledgers_for(
    settings: Settings, engine: Engine | None, newest: Manifest | None, origin: Path
) -> Iterator[list[ErasureLedger]]:
    """Every copy of the erasure ledger: this home's own, that of ``origin``, those with the newest backup and the WAL.

    For a ``with`` block, at whose end what was unpacked is gone again: it holds the key of the hashes. Where this home
    has no ledger or no key of its own the first copy is put in its place: hashes were made with it.
    """
    found = [ledger_of(settings.home)]
    if origin != settings.home:
        found += _taken_over(settings.home, origin)
    with tempfile.TemporaryDirectory(prefix="kontor-home-") as folder:
        if engine is not None and newest is not None:
            beside, shipped = Path(folder) / "beside", Path(folder) / "shipped"
            shipped.mkdir()
            engine.unpack_home(newest, beside)
            unpack_shipped_home(engine, shipped)
            found += [*_taken_over(settings.home, shipped), *_taken_over(settings.home, beside)]
        yield found


def _taken_over(home: Path, other: Path) -> list[ErasureLedger]:
    """The ledger of another home, if it has one; what ``home`` lacks of ledger and key is copied from there."""
    for name in ("keys/erasure.key", str(ledger_of(home).path.relative_to(home))):
        if (other / name).exists() and not (home / name).exists():
            (home / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy2(other / name, home / name)
    return [ledger_of(other)] if ledger_of(other).path.exists() else []


_SEQUENCES = """
select s.oid::regclass::text, n.nspname, t.relname, a.attname
from pg_class s
join pg_depend d on d.objid = s.oid and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
join pg_class t on t.oid = d.refobjid
join pg_namespace n on n.oid = t.relnamespace
join pg_attribute a on a.attrelid = t.oid and a.attnum = d.refobjsubid
where s.relkind = 'S' and n.nspname !~ '^pg_'
order by 1
"""


def owned_sequences(connection: Session) -> list[tuple[Any, ...]]:
    """Every sequence that numbers a column: its name, schema, table and column."""
    return ask(connection, _SEQUENCES)


def advance_sequences(server: LocalPostgres, margin: int) -> int:
    """Set every sequence ``margin`` past its newest number and past every number in use; returns how many.

    What was numbered between the backup and now may stand in mails and exports; none of it may mean another row. A
    sequence that is as far already (a second release) is left alone.
    """
    moved = 0
    with connect(server) as connection:
        for sequence, schema, table, column in owned_sequences(connection):
            highest = sql.SQL("select coalesce(max({}), 0) from {}").format(
                sql.Identifier(column), sql.Identifier(schema, table)
            )
            used = int(scalar(connection, highest))
            last = int(scalar(connection, "select coalesce(pg_sequence_last_value(%s::regclass), 0)", sequence))
            if last < used + margin:
                ask(connection, "select setval(%s::regclass, %s)", sequence, max(last, used) + margin)
                moved += 1
    return moved


def hold_mails(server: LocalPostgres) -> int:
    """Hold every mail that had not left when the backup was made, and return how many.

    One that was on its way then may have arrived: it becomes ``unknown``, which is for a person to settle.
    """
    held = (
        "update outbox.reminders set state_reason = %s, updated_at = now(),"
        " state = case state when 'sending' then 'unknown' else 'held' end"
        " where state in ('planned', 'approved', 'deferred', 'sending') returning reminder_id"
    )
    with connect(server) as connection:
        if not scalar(connection, "select to_regclass('outbox.reminders') is not null"):
            return 0
        return len(ask(connection, held, HELD_REASON))


def lost_since(server: LocalPostgres | None, instant: datetime) -> dict[str, int]:
    """What the present database has that one restored to ``instant`` will not: runs and files by their time."""
    if server is None:
        return {}
    questions = {
        "runs": "select count(*) from ops.run_ledger where started_at > %s",
        "files": "select count(*) from landing.feed_files where received_at > %s",
        "reminders": "select count(*) from outbox.reminders where planned_at > %s",
    }
    with connect(server) as connection:
        return {name: int(scalar(connection, question, instant)) for name, question in questions.items()}
