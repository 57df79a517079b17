"""The memory of backfills in ``ops.backfills`` and ``ops.backfill_windows``: it, not Prefect, says what is done.

Every change is one short transaction. A driver that is killed leaves its window ``running``; the next driver, which
holds the lock that the dead one lost, sets it back to ``waiting`` and runs it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from tasks.backfills.windows import Every, PlannedWindow, Reprocess, Window
from tasks.errors import Refused, UsageError

UNFINISHED = ("waiting", "running", "paused")


@dataclass(frozen=True)
class Request:
    """What was asked for: a flow's period, how it is cut, which windows, in which order, and why."""

    flow: str
    from_on: date
    to_on: date
    every: Every
    reprocess: Reprocess
    reason: str
    requested_by: str
    excluded_days: tuple[date, ...] = ()
    newest_first: bool = False
    source_folder: str | None = None
    concurrency: int = 2
    runs_apart: bool = False


@dataclass(frozen=True)
class Backfill:
    """A request that was kept, with its number and state."""

    backfill_id: int
    request: Request
    state: str


def overlapping(connection: Connection, request: Request) -> int | None:
    """The number of an unfinished backfill of the same flow that covers one of these days, or None."""
    found = connection.scalar(
        text(
            "select backfill_id from ops.backfills where flow = :flow and state in ('waiting', 'running', 'paused')"
            " and period && daterange(:from_on, :to_on, '[]') order by 1 limit 1"
        ),
        {"flow": request.flow, "from_on": request.from_on, "to_on": request.to_on},
    )
    return None if found is None else int(found)


def create_backfill(
    connection: Connection, request: Request, windows: Sequence[PlannedWindow], figures: Mapping[str, object]
) -> int:
    """Keep a request with its windows and return its number; windows that are not run stand as skipped.

    Raises:
        Refused: an unfinished backfill of the flow covers some of these days.
    """
    try:
        number = int(connection.execute(_INSERT, _values(request) | {"figures": dict(figures)}).scalar_one())
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) != "23P01":
            raise
        raise refusal_of_overlap(request, None) from None
    connection.execute(
        text(
            "insert into ops.backfill_windows (backfill_id, window_number, from_on, to_on, state)"
            " select :backfill_id, * from unnest(cast(:numbers as int[]), cast(:firsts as date[]),"
            " cast(:lasts as date[]), cast(:states as text[]))"
        ),
        {
            "backfill_id": number,
            "numbers": [w.window.number for w in windows],
            "firsts": [w.window.from_on for w in windows],
            "lasts": [w.window.to_on for w in windows],
            "states": ["waiting" if w.runs else "skipped" for w in windows],
        },
    )
    return number


def refusal_of_overlap(request: Request, number: int | None) -> Refused:
    """The error for a period that another backfill has under way."""
    other = f"Backfill {number}" if number is not None else "Another backfill"
    return Refused(
        f"{other} of {request.flow} covers some of the days from {request.from_on} to {request.to_on} and is not"
        " finished. Nothing was changed.",
        hint="See it with `kontor backfill status`; resume it, or cancel it before you begin another.",
    )


_INSERT = text(
    "insert into ops.backfills (flow, period, every, excluded_days, newest_first, concurrency, runs_apart, reprocess,"
    " source_folder, reason, requested_by, figures_before)"
    " values (:flow, daterange(:from_on, :to_on, '[]'), :every, :excluded_days, :newest_first, :concurrency,"
    " :runs_apart, :reprocess, :source_folder, :reason, :requested_by, :figures) returning backfill_id"
).bindparams(bindparam("figures", type_=JSONB))


def _values(request: Request) -> dict[str, object]:
    return {
        "flow": request.flow,
        "from_on": request.from_on,
        "to_on": request.to_on,
        "every": str(request.every),
        "excluded_days": list(request.excluded_days),
        "newest_first": request.newest_first,
        "concurrency": request.concurrency,
        "runs_apart": request.runs_apart,
        "reprocess": str(request.reprocess),
        "source_folder": request.source_folder,
        "reason": request.reason,
        "requested_by": request.requested_by,
    }


def fetch_backfill(connection: Connection, backfill_id: int) -> Backfill:
    """The backfill of that number; UsageError where there is none."""
    row = connection.execute(
        text("select * from ops.backfills where backfill_id = :number"), {"number": backfill_id}
    ).one_or_none()
    if row is None:
        raise UsageError(f"There is no backfill {backfill_id}.", hint="`kontor backfill status` lists them.")
    request = Request(
        row.flow,
        row.period.lower,
        row.period.upper - timedelta(days=1),
        Every(row.every),
        Reprocess(row.reprocess),
        row.reason,
        row.requested_by,
        tuple(row.excluded_days),
        row.newest_first,
        row.source_folder,
        row.concurrency,
        row.runs_apart,
    )
    return Backfill(row.backfill_id, request, row.state)


def change_state(connection: Connection, backfill_id: int, wanted: str, allowed: Sequence[str]) -> None:
    """Set a backfill's state where it is one of ``allowed``.

    Raises:
        UsageError: there is none of that number.
        Refused: it is in another state, which is named.
    """
    standing = fetch_backfill(connection, backfill_id).state
    changed = connection.execute(
        text(
            "update ops.backfills set state = :wanted,"
            " ended_at = case when :wanted in ('cancelled', 'done', 'failed') then now() end"
            " where backfill_id = :number and state = any(:allowed)"
        ),
        {"wanted": wanted, "number": backfill_id, "allowed": list(allowed)},
    ).rowcount
    if not changed:
        raise Refused(
            f"Backfill {backfill_id} is {standing}; only one that is {' or '.join(allowed)} can become {wanted}."
            " Nothing was changed.",
            hint=f"Look at it with `kontor backfill status {backfill_id}`.",
        )


def cancel_backfill_of(connection: Connection, prefect_run_id: UUID) -> int | None:
    """Cancel the backfill that this run of Prefect's was driving, its driver being dead; returns its number, if any."""
    found: int | None = connection.scalar(
        text(
            "update ops.backfills b set state = 'cancelled', ended_at = now() where b.state = 'running' and exists"
            " (select from ops.backfill_windows w join ops.run_ledger r using (run_id)"
            " where w.backfill_id = b.backfill_id and r.prefect_run_id = :prefect_run_id) returning b.backfill_id"
        ),
        {"prefect_run_id": prefect_run_id},
    )
    if found is not None:
        release_dead_windows(connection, found)
    return found


def state_of(connection: Connection, backfill_id: int) -> str:
    """The state a backfill is in now, which a person may have changed meanwhile."""
    return fetch_backfill(connection, backfill_id).state


def release_dead_windows(connection: Connection, backfill_id: int) -> int:
    """Set windows that a killed driver left running back to waiting; only for the holder of the driver's lock."""
    return connection.execute(
        text(
            "update ops.backfill_windows set state = 'waiting', error_code = 'killed'"
            " where backfill_id = :number and state = 'running'"
        ),
        {"number": backfill_id},
    ).rowcount


def reopen_failed(connection: Connection, backfill_id: int) -> int:
    """Set windows that failed back to waiting, so that the next driver tries them again; returns how many."""
    return connection.execute(
        text(
            "update ops.backfill_windows set state = 'waiting', ended_at = null"
            " where backfill_id = :number and state = 'failed'"
        ),
        {"number": backfill_id},
    ).rowcount


def waiting_windows(connection: Connection, backfill: Backfill) -> list[Window]:
    """The windows that have not been run, in the order in which they are to be."""
    rows = connection.execute(
        text(
            "select window_number, from_on, to_on from ops.backfill_windows"
            " where backfill_id = :number and state = 'waiting' order by window_number"
        ),
        {"number": backfill.backfill_id},
    )
    windows = [Window(*row) for row in rows]
    return windows[::-1] if backfill.request.newest_first else windows


def begin_window(connection: Connection, backfill_id: int, number: int, run_id: int) -> None:
    """Mark a window as under way, in a transaction of its own before its work begins."""
    connection.execute(
        text(
            "update ops.backfill_windows set state = 'running', attempts = attempts + 1, started_at = now(),"
            " ended_at = null, error_code = null, run_id = :run_id"
            " where backfill_id = :backfill_id and window_number = :number"
        ),
        {"backfill_id": backfill_id, "number": number, "run_id": run_id},
    )


def end_window(
    connection: Connection, backfill_id: int, number: int, *, state: str, counts: Mapping[str, int], error: str | None
) -> None:
    """Record how a window ended; a kill before this makes the window run again, which changes nothing more."""
    connection.execute(
        text(
            "update ops.backfill_windows set state = :state, counts = :counts, error_code = :error, ended_at = now()"
            " where backfill_id = :backfill_id and window_number = :number"
        ).bindparams(bindparam("counts", type_=JSONB)),
        {"backfill_id": backfill_id, "number": number, "state": state, "counts": dict(counts), "error": error},
    )


def close_backfill(connection: Connection, backfill_id: int, figures: Mapping[str, object]) -> str:
    """Close a backfill of which no window waits any more and return its state; a paused or cancelled one stays so."""
    return str(
        connection.execute(
            text(_CLOSE).bindparams(bindparam("figures", type_=JSONB)),
            {"number": backfill_id, "figures": dict(figures)},
        ).scalar_one()
    )


_CLOSE = """
with left_over as (
    select count(*) filter (where state in ('waiting', 'running')) as waiting,
           count(*) filter (where state = 'failed') as failed
    from ops.backfill_windows where backfill_id = :number
)
update ops.backfills b
set figures_after = :figures,
    state = case when b.state <> 'running' or l.waiting > 0 then b.state
                 when l.failed > 0 then 'failed' else 'done' end,
    ended_at = case when b.state = 'cancelled' then b.ended_at
                    when b.state = 'running' and l.waiting = 0 then now() end
from left_over l
where b.backfill_id = :number
returning b.state
"""


def former_ends(connection: Connection, flow: str) -> dict[tuple[date, date], str]:
    """How the newest run of each window of a flow ended, by its first and last day: done or failed."""
    rows = connection.execute(
        text(
            "select distinct on (w.from_on, w.to_on) w.from_on, w.to_on, w.state from ops.backfill_windows w"
            " join ops.backfills b using (backfill_id) where b.flow = :flow and w.state in ('done', 'failed')"
            " order by w.from_on, w.to_on, w.ended_at desc"
        ),
        {"flow": flow},
    )
    return {(row.from_on, row.to_on): row.state for row in rows}


def purged_through(connection: Connection, entities: Sequence[str]) -> date | None:
    """The last day of which records of these tables have been deleted by rule; None where none have."""
    horizon: date | None = connection.scalar(
        text(
            "select max(i.horizon) from ops.retention_plan_items i"
            " where i.action = 'delete' and i.done > 0 and i.entity = any(:entities)"
        ),
        {"entities": list(entities)},
    )
    return None if horizon is None else horizon - timedelta(days=1)


def past_seconds(connection: Connection, flow: str) -> list[float]:
    """How long the newest hundred finished runs of a flow took."""
    return [
        float(seconds)
        for seconds in connection.scalars(
            text(
                "select extract(epoch from ended_at - started_at) from ops.run_ledger"
                " where flow = :flow and state = 'done' order by run_id desc limit 100"
            ),
            {"flow": flow},
        )
    ]


def fetch_figures(connection: Connection) -> dict[str, object]:
    """The sums that a backfill may move, as text and numbers: open items and money per currency, quarantine, files."""
    counts = connection.execute(text(_COUNTS)).mappings().one()
    sums = connection.execute(text(_OPEN_SUMS)).all()
    return dict(counts) | {f"open {row.currency}": str(row.total) for row in sums}


_COUNTS = """
select (select count(*) from landing.feed_files where state = 'applied')::integer as "files applied",
       (select count(*) from landing.quarantined_rows where state = 'open')::integer as "rows in quarantine",
       (select count(*) from crm.organizations)::integer as "customers",
       (select count(*) from crm.invoices)::integer as "invoices known",
       (select count(*) from crm.open_items_at(ops.business_today()))::integer as "items open"
"""

_OPEN_SUMS = """
select currency, sum(open_amount) as total from crm.open_items_at(ops.business_today()) group by currency order by 1
"""
