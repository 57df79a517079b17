"""Reads the rules of reminders that are in force on a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, literal, select

from data_contracts.tables import metadata
from tasks.reminders.rulebook import RULE_TABLES, RuleBook, make_rulebook


def fetch_rulebook(
    connection: Connection, as_of: date, drafts: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> RuleBook:
    """The rule book of that day; a table named in ``drafts`` speaks by the rows given there instead of its own."""
    given = drafts or {}
    return make_rulebook({name: given.get(name) or _in_force(connection, name, as_of) for name in RULE_TABLES})


def _in_force(connection: Connection, name: str, as_of: date) -> Sequence[Mapping[str, Any]]:
    table = metadata.tables[f"rules.{name}"]
    rows = connection.execute(select(table).where(table.c.valid.contains(literal(as_of))))
    return [dict(row) for row in rows.mappings()]
