"""The memory of runs: one row per run in ``ops.run_ledger``, one lock per flow.

The lock is a session-level advisory lock on a connection of its own: it dies with the process, so a killed run
never blocks the next one. Whoever gets the lock marks the runs that died without a word as abandoned.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from tasks.errors import Locked, PartlyDone


@dataclass
class Run:
    """One run of one flow; ``counts`` is what it reports at its end, numbers only."""

    run_id: int
    flow: str
    as_of: date
    dry_run: bool
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, counts: Mapping[str, int]) -> None:
        """Add to the counts that the ledger keeps."""
        for name, value in counts.items():
            self.counts[name] = self.counts.get(name, 0) + value


# The backfill that this process's runs belong to; a scheduled run waits for such a run instead of giving up.
_backfill: ContextVar[int | None] = ContextVar("backfill", default=None)


@contextmanager
def working_for_backfill(backfill_id: int) -> Iterator[None]:
    """Mark the runs that are opened inside a ``with`` block as windows of a backfill."""
    token = _backfill.set(backfill_id)
    try:
        yield
    finally:
        _backfill.reset(token)


def in_backfill() -> bool:
    """Whether this process is at work on a window of a backfill."""
    return _backfill.get() is not None


@contextmanager
def open_run(
    engine: Engine, flow: str, *, as_of: date, dry_run: bool, prefect_run_id: UUID | None, actor: str
) -> Iterator[Run]:
    """Hold the flow's lock and its ledger row for the length of a ``with`` block.

    The row ends as done, partly_done (on :class:`PartlyDone`) or failed; a process that is killed leaves it
    running, and the next run of the flow marks it abandoned.

    Raises:
        Locked: another run of this flow is under way; the text says which.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as lock:
        lock.detach()  # so that leaving the block really closes the session, and the lock with it, on every path
        _take_lock(lock, flow)
        _abandon_dead_runs(lock, flow)
        run = Run(_insert(lock, flow, as_of, dry_run, prefect_run_id, actor), flow, as_of, dry_run)
        _name_session(lock, run)
        try:
            yield run
        except BaseException as error:
            _close_after_error(lock, run, error)
            raise
        _close(lock, run, "done", None)
        _release_lock(lock, flow)


def _take_lock(lock: Connection, flow: str) -> None:
    """Take the flow's lock; a holder that is just going is waited for, a working one is named."""
    key = {"flow": f"kontor flow {flow}"}
    waiting_until = time.monotonic() + _WINDOW_PATIENCE_SECONDS
    attempts = 0
    while attempts < _LOCK_ATTEMPTS:
        if lock.scalar(text("select pg_try_advisory_lock(hashtext(:flow))"), key):
            return
        holder = lock.scalar(text(_LOCK_HOLDER), key)
        window = holder is not None and _IN_BACKFILL in str(holder)
        if window and _backfill.get() is None and time.monotonic() < waiting_until:
            time.sleep(_LOCK_PAUSE_SECONDS)  # a window is short, and between two of them the lock is free
            continue
        if holder is not None:
            raise Locked(
                f"{flow} is already running ({holder}). Nothing was changed.",
                holder=str(holder),
                hint="Wait for it to end (`kontor status` shows it), then run the command again.",
            )
        attempts += 1
        time.sleep(_LOCK_PAUSE_SECONDS)
    raise Locked(
        f"{flow} is already running; its holder could not be named. Nothing was changed.",
        holder="",
        hint="Run the command again in a moment.",
    )


def _release_lock(lock: Connection, flow: str) -> None:
    """Give the lock back at once: the server notices a closed session only a moment later."""
    if lock.invalidated:
        return  # the session is gone, and the lock with it
    lock.execute(text("select pg_advisory_unlock(hashtext(:flow))"), {"flow": f"kontor flow {flow}"})


# A session that has closed its run, or has not named itself yet, does not count as a holder.
_LOCK_ATTEMPTS = 40
_LOCK_PAUSE_SECONDS = 0.05
_WINDOW_PATIENCE_SECONDS = 300.0
_IN_BACKFILL = " in backfill "
_LOCK_HOLDER = """
select a.application_name || ', since ' || to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS TZ')
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.objsubid = 1
  and l.classid::bigint = case when hashtext(:flow) < 0 then 4294967295 else 0 end
  and l.objid::bigint = hashtext(:flow)::bigint & 4294967295
  and a.application_name like '% run % pid %'
  and exists (select from ops.run_ledger r
              where r.state = 'running'
                and r.run_id = split_part(split_part(a.application_name, ' run ', 2), ' ', 1)::bigint)
"""


def _abandon_dead_runs(lock: Connection, flow: str) -> None:
    lock.execute(
        text(
            "update ops.run_ledger set state = 'abandoned', ended_at = now(), error_code = 'killed'"
            " where flow = :flow and state = 'running'"
        ),
        {"flow": flow},
    )


def _insert(lock: Connection, flow: str, as_of: date, dry_run: bool, prefect_run_id: UUID | None, actor: str) -> int:
    return int(
        lock.execute(
            text(
                "insert into ops.run_ledger (flow, prefect_run_id, actor, as_of, dry_run, host, process_id)"
                " values (:flow, :prefect_run_id, :actor, :as_of, :dry_run, :host, :process_id) returning run_id"
            ),
            {
                "flow": flow,
                "prefect_run_id": prefect_run_id,
                "actor": actor,
                "as_of": as_of,
                "dry_run": dry_run,
                "host": socket.gethostname(),
                "process_id": os.getpid(),
            },
        ).scalar_one()
    )


def _name_session(lock: Connection, run: Run) -> None:
    backfill = _backfill.get()
    window = "" if backfill is None else f"{_IN_BACKFILL}{backfill}"
    lock.execute(
        text("select set_config('application_name', :name, false)"),
        {"name": f"{run.flow} run {run.run_id} pid {os.getpid()}{window}"},
    )


def _close(lock: Connection, run: Run, state: str, error_code: str | None) -> None:
    statement = text(
        "update ops.run_ledger set state = :state, ended_at = now(), counts = :counts, error_code = :error_code"
        " where run_id = :run_id"
    ).bindparams(bindparam("counts", type_=JSONB))
    values = {"state": state, "counts": run.counts, "error_code": error_code, "run_id": run.run_id}
    try:
        lock.execute(statement, values)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        # The server was away meanwhile and the lock's session with it; the steps went on when it was back.
        with lock.engine.connect() as another, another.begin():
            another.execute(statement, values)


def _close_after_error(lock: Connection, run: Run, error: BaseException) -> None:
    state = "partly_done" if isinstance(error, PartlyDone) else "failed"
    try:
        _close(lock, run, state, type(error).__name__)
        _release_lock(lock, run.flow)
    except DBAPIError:
        # The database went away with the run: the row stays "running" and the next run marks it abandoned.
        lock.invalidate()
