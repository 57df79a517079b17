"""Tables that are kept by months: the months ahead are made in time, and one whose rows may all go is dropped at once.

Each such table is partitioned by the instant of its rows (UTC); what falls into no month that was made lies in the
partition ``…_other`` and goes by pages like any other row. History is kept by months too, but none of them is ever
dropped: its chain is verified through the entries, of which only the values go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from tasks.erasures.store import mirror
from tasks.retention.batches_store import Purge, Told, begin, entry_of, note
from tasks.retention.planning import Item
from tasks.retention.selection import Selection

# Tables of which a month may be dropped, with the column that they are kept by; ops.drop_month knows the same ones.
DROPPABLE: Mapping[str, str] = {"outbox.deliveries": "at", "ops.egress_log": "at"}
MONTHS_AHEAD = 2


@dataclass(frozen=True)
class Month:
    """One month of a table: the partition's name, the first day, and the first day of the next one (UTC)."""

    partition: str
    first: date
    next: date


def prepare_months(connection: Connection, today: date) -> int:
    """Make the months from today's on that are missing, and return how many were made; twice is once.

    A month that begins while rows of it lie in ``…_other`` is not made: those rows stay where they are.

    Raises:
        OperationalError: a table could not be had for two seconds; nothing was made, and two months are left to try.
    """
    connection.execute(text("select set_config('lock_timeout', '2s', true)"))
    made = connection.scalar(
        text("select ops.prepare_months(cast(:today as date), :ahead)"), {"today": today, "ahead": MONTHS_AHEAD}
    )
    return int(made or 0)


def past_months(connection: Connection, table: str, through: date) -> list[Month]:
    """The months of a table that end on or before a day, oldest first."""
    rows = connection.execute(text(_MONTHS), {"table": table, "through": through}).all()
    return [Month(row.partition, row.first, row.next) for row in rows]


# The partition of a month is named for it (ops.prepare_months).
_MONTHS = """
select partition, first, (first + interval '1 month')::date as next
from (select i.inhrelid::regclass::text as partition, to_date(right(c.relname, 7), 'YYYY_MM') as first
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = cast(:table as regclass) and c.relname ~ '_[0-9]{4}_[0-9]{2}$') m
where (first + interval '1 month')::date - 1 <= cast(:through as date)
order by first
"""


def drop_due_months(purge: Purge, item: Item, selection: Selection, told: Told) -> int:
    """Drop every month of which each row is due and free of holds, and return the rows that went.

    A month's rows are looked at without a lock first; then again while nobody can write to it or place a hold, and it
    is dropped in the same transaction. Whoever reads the table waits for the dropping alone. A month whose lock could
    not be had in time is left to the pages.
    """
    with purge.engine.connect() as connection:
        through = item.horizon + timedelta(days=1)  # a day of the business time zone may end in the next one of UTC
        months = past_months(connection, item.entity, through)
        whole = [month for month in months if not _has_more(connection, item, selection, month)]
    if whole:
        _announce(purge, item)
    gone = 0
    for month in whole:
        rows = _drop(purge, item, selection, month, item.allowed - item.done - gone)
        told(rows)
        gone += rows
    return gone


def _announce(purge: Purge, item: Item) -> None:
    line = purge.ledger.append([entry_of(purge, item, [])])
    with purge.engine.begin() as connection:
        mirror(connection, line)


def _within(item: Item, month: Month) -> tuple[str, dict[str, object]]:
    column = DROPPABLE[item.entity]
    sql = f"r.{column} >= cast(:first as timestamp) at time zone 'UTC'"
    sql += f" and r.{column} < cast(:next as timestamp) at time zone 'UTC'"
    return sql, {"first": month.first, "next": month.next}


def _has_more(connection: Connection, item: Item, selection: Selection, month: Month) -> bool:
    """Whether some row of the month may not go; looks no further than the first one."""
    within, days = _within(item, month)
    statement = (
        f"select exists (select from {item.entity} r where {within} and not coalesce({selection.condition}, false))"
    )
    return bool(connection.scalar(text(statement), {**selection.bound, **days}))


def _drop(purge: Purge, item: Item, selection: Selection, month: Month, allowed: int) -> int:
    within, days = _within(item, month)
    counted = text(
        f"select count(*) as rows, count(*) filter (where not coalesce({selection.condition}, false)) as stays"
        f" from {item.entity} r where {within}"
    )
    try:
        with purge.engine.begin() as connection:
            begin(connection, purge)
            connection.execute(text("select ops.hold_month(cast(:name as regclass))"), {"name": month.partition})
            found = connection.execute(counted, {**selection.bound, **days}).one()
            if found.stays or found.rows > allowed:
                return 0
            note(connection, purge, item, found.rows, 0)
            connection.execute(text("select ops.drop_month(cast(:name as regclass))"), {"name": month.partition})
            return int(found.rows)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        return 0
