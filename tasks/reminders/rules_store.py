"""Reads the rules of reminders: those in force on a day, or a shelf of all of them from which days are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, literal, select

from data_contracts.tables import metadata
from tasks.reminders.rulebook import RULE_TABLES, WHOLE_TABLES, RuleBook, make_rulebook

Drafts = Mapping[str, Sequence[Mapping[str, Any]]]


def fetch_rulebook(connection: Connection, as_of: date) -> RuleBook:
    """The rule book of that day."""
    return make_rulebook(
        {name: _rows(connection, name, None if name in WHOLE_TABLES else as_of) for name in RULE_TABLES}
    )


def _rows(connection: Connection, name: str, as_of: date | None) -> list[Mapping[str, Any]]:
    table = metadata.tables[f"rules.{name}"]
    query = select(table) if as_of is None else select(table).where(table.c.valid.contains(literal(as_of)))
    return [dict(row) for row in connection.execute(query).mappings()]


class RuleShelf:
    """Every version of every rule, read once; a table named in ``drafts`` speaks by those rows on every day."""

    def __init__(self, connection: Connection, drafts: Drafts | None = None) -> None:
        self._drafts = drafts or {}
        self._rows = {name: _rows(connection, name, None) for name in RULE_TABLES if name not in self._drafts}
        self._books: dict[tuple[object, ...], RuleBook] = {}

    def on(self, day: date) -> RuleBook:
        """The rule book of that day; days under the same rules share one."""
        held = {
            name: [row for row in rows if name in WHOLE_TABLES or row["valid"].contains(day)]
            for name, rows in self._rows.items()
        }
        key = tuple((name, row["rule_id"], row["version"]) for name, rows in held.items() for row in rows)
        if key not in self._books:
            self._books[key] = make_rulebook({**held, **self._drafts})
        return self._books[key]
