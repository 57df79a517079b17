"""Which class each customer would have had on past days under other rules; what was decided really stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from psycopg.types.range import Range
from sqlalchemy import Connection, column, insert, table, text

from data_contracts.tables import metadata
from tasks.payments.classes import classify


class ClassSpan(NamedTuple):
    """A class from ``first`` on until the day before ``until`` (None: until further notice)."""

    organization_id: int
    payer_class: str
    first: date
    until: date | None


def try_classes(connection: Connection, rows: Sequence[Mapping[str, Any]], since: date) -> list[ClassSpan]:
    """The classes from ``since`` on, had these rows of ``rules.payer_class`` been in force on every day of it.

    Decided by the statements that decide really, from the last day with a file before ``since``, in a savepoint that is
    taken back: no other session sees any of it, and a payment run that comes meanwhile waits for its end.
    """
    first = connection.scalar(text(_LAST_DECIDED), {"since": since}) or since
    draft = table("payer_class_draft", *(column(c.name, c.type) for c in metadata.tables["rules.payer_class"].columns))
    trial = connection.begin_nested()
    try:
        connection.execute(text(_DRAFT))
        connection.execute(insert(draft), [{**row, "valid": Range()} for row in rows])
        classify(connection, first, rules="payer_class_draft")
        found = connection.execute(text(_SPANS), {"since": since}).all()
    finally:
        trial.rollback()
    return [ClassSpan(*row) for row in found]


_LAST_DECIDED = """
select max(as_of) from landing.feed_files
where state = 'applied' and feed in ('open_items', 'settled_items') and as_of <= :since
"""
_DRAFT = "create temporary table payer_class_draft (like rules.payer_class including identity) on commit drop"
_SPANS = """
select organization_id, payer_class, valid_from, valid_until from ops.payer_class_history
where valid_until is null or valid_until > :since
order by organization_id, valid_from
"""
