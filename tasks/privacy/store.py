"""What is known of a month of data protection, and which letters have been written: reads views, reserves letters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from tasks.erasures.ledger_file import ErasureLedger
from tasks.privacy.month import Month, Row

LOOKED_BACK_DAYS = 7


def read_month(connection: Connection, ledger: ErasureLedger, first: date, last: date, *, today: date) -> Month:
    """Everything the report about these days shows; what is due and held is as it stands now."""
    days = {"first": first, "last": last, "today": today}
    return Month(
        first=first,
        last=last,
        rules=_rows(connection, _RULES, days),
        requests=_rows(connection, _REQUESTS, days),
        holds=_rows(connection, _HOLDS, days)[0],
        exports=read_exports(connection, first, last),
        unusual=read_unusual(connection, first, last),
        ledger=_ledger(connection, ledger),
    )


def read_exports(connection: Connection, first: date, last: date) -> list[dict[str, Any]]:
    """Who exported what with personal data on these days: actor, what, format, exports, rows."""
    return _rows(connection, _EXPORTS, {"first": first, "last": last})


def read_unusual(connection: Connection, first: date, last: date) -> list[dict[str, Any]]:
    """The days among these on which far more was exported than usual: day, exports, rows."""
    statement = (
        "select day, exports, rows from report.egress where unusual and day between :first and :last order by day"
    )
    return _rows(connection, statement, {"first": first, "last": last})


def reserve_letter(connection: Connection, kind: str, day: date, run_id: int, now: datetime) -> bool:
    """Mark a letter as about to leave, and say whether it had not left before; the caller commits first, then sends."""
    made = connection.execute(
        text(
            "insert into ops.privacy_letters (kind, day, run_id, at) values (:kind, :day, :run_id, :now)"
            " on conflict (kind, day) do nothing returning true"
        ),
        {"kind": kind, "day": day, "run_id": run_id, "now": now},
    )
    return made.first() is not None


def release_letter(connection: Connection, kind: str, day: date) -> None:
    """Take a reservation back: the letter certainly did not leave, the next run may send it."""
    connection.execute(
        text("delete from ops.privacy_letters where kind = :kind and day = :day"), {"kind": kind, "day": day}
    )


def _rows(connection: Connection, statement: str, bound: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(text(statement), bound).mappings()]


def _ledger(connection: Connection, ledger: ErasureLedger) -> Row:
    copied: Sequence[Any] = connection.execute(text("select sequence, line_sha256 from ops.erasure_ledger")).all()
    lines = {line.sequence: line for line in ledger.read()}
    strange = sum(row.sequence not in lines or lines[row.sequence].hash != row.line_sha256 for row in copied)
    return {"lines": len(lines), "subjects": sum(len(line.subjects) for line in lines.values()), "strange": strange}


_RULES = """
select r.rule_id, r.entity, coalesce(g.gone, 0)::bigint as gone, r.due, r.held, r.overdue, r.open_through,
       r.closed_through
from report.retention r
left join (
    select i.rule_id, sum(i.done) as gone from ops.retention_plan_items i
    join ops.retention_plans p using (plan_id)
    where (coalesce(i.ended_at, p.ended_at) at time zone 'UTC')::date between :first and :last
    group by i.rule_id
) g on g.rule_id = r.rule_id
where r.due > 0 or r.held > 0 or r.overdue > 0 or g.gone > 0
order by r.overdue desc, r.rule_id
"""

# A month is what GDPR Art. 12(3) allows for an answer.
_REQUESTS = """
select state, count(*) filter (where (received_at at time zone 'UTC')::date between :first and :last) as received,
       count(*) filter (where state <> 'erased' and (received_at + interval '1 month') at time zone 'UTC' < :today)
           as late
from ops.erasure_requests
group by state order by state
"""

_HOLDS = """
select count(*) filter (where released_at is null) as standing,
       count(*) filter (where (placed_at at time zone 'UTC')::date between :first and :last) as placed,
       count(*) filter (where (released_at at time zone 'UTC')::date between :first and :last) as released,
       count(*) filter (where released_at is null and review_on <= :today) as to_review
from ops.legal_holds
"""

_EXPORTS = """
select actor, what, format, count(*) as exports, sum(row_count)::bigint as rows
from ops.egress_log
where personal_columns <> '{}' and (at at time zone 'UTC')::date between :first and :last
group by actor, what, format order by rows desc, actor, what, format
"""
