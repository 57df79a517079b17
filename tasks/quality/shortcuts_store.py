"""What a pass over a table need not find out row by row, gathered before it: values that repeat, values that are right.

A value that stands twice is looked for once and not by each process of the pass. Of a column that holds few different
values, such as a currency, those that keep their pattern are recognised instead of matched: matching one costs as much
as all other rules of a row together. Both are bound to the statement and never written into it, because they may be
personal; what cannot be gathered is asked, or refused, in the pass itself. Orphans are looked for in a list made once
where it is short: a look-up that depends on the row keeps PostgreSQL from letting several processes search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from tasks.quality.contracts import Rule

_FEW_REPEATED = 10_000
_FEW_RIGHT = 40
_SAMPLED = 10_000
_LARGE = 100_000  # rows, as the planner knows them; of fewer a sample costs more than it spares
_SHORT = 200_000  # rows of a table whose keys fit into the least memory that a list may take


def gather(connection: Connection, table: str, rows: str, rules: Sequence[Rule], as_of: date) -> dict[str, list[str]]:
    """The texts for each rule that can be asked more quickly with them, by rule; ``rows`` is the query to be judged.

    A rule of references to a short table stands there with none.
    """
    short = [
        rule for rule in rules if rule.kind == "references" and 0 <= _rows_known(connection, rule.references) <= _SHORT
    ]
    found = _repeated(connection, rows, rules, as_of) | _right(connection, table, rows, rules, as_of)
    return found | {rule.rule_id: [] for rule in short}


def bound(rule_id: str) -> str:
    """The name under which a rule's texts are bound."""
    return f"gathered_{rule_id}"


def quicker(rule: Rule, condition: str) -> str:
    """SQL that is true of the same rows of ``r`` as ``condition``, by the rule's gathered texts."""
    values = f"cast(:{bound(rule.rule_id)} as text[])"
    if rule.kind == "references":
        name, listed = rule.columns[0], rule.references
        return f"(r.{name} is not null and r.{name} not in (select {name} from {listed} where {name} is not null))"
    if rule.kind == "unique" and len(rule.columns) == 1:
        return f"r.{rule.columns[0]} = any({values})"
    if rule.kind == "unique":
        here = ", ".join(f"r.{name}" for name in rule.columns)
        present = " and ".join(f"r.{name} is not null" for name in rule.columns)
        return f"({present} and row({here})::text = any({values}))"
    return f"(r.{rule.columns[0]} <> all({values}) and {condition})"


def _repeated(connection: Connection, rows: str, rules: Sequence[Rule], as_of: date) -> dict[str, list[str]]:
    """The keys that stand more than once, each as PostgreSQL writes it; of numbers one may be written in two ways."""
    found = {}
    for rule in rules:
        if rule.kind == "unique":
            names = ", ".join(rule.columns)
            key = names if len(rule.columns) == 1 else f"row({names})::text"
            present = " and ".join(f"{name} is not null" for name in rule.columns)
            statement = (
                f"select {key} as key, {names} from ({rows}) u where {present} group by {names}"
                f" having count(*) > 1 limit {_FEW_REPEATED + 1}"
            )
            answer = _asked(connection, statement, as_of)
            if answer is not None and len(answer) <= _FEW_REPEATED and all(_is_plain(row) for row in answer):
                found[rule.rule_id] = [str(row[0]) for row in answer]
    return found


def _is_plain(values: Sequence[object]) -> bool:
    return isinstance(values[0], str) and all(isinstance(value, str | int | date) for value in values)


def _right(connection: Connection, table: str, rows: str, rules: Sequence[Rule], as_of: date) -> dict[str, list[str]]:
    matched = [rule for rule in rules if rule.kind == "pattern"]
    if not matched or _rows_known(connection, table) < _LARGE:
        return {}
    names = sorted({rule.columns[0] for rule in matched})
    sample = _asked(connection, f"select {', '.join(names)} from ({rows}) u limit {_SAMPLED}", as_of)
    found = {}
    for rule in matched if sample else ():
        values = sorted({row[names.index(rule.columns[0])] for row in sample or ()} - {None}, key=str)
        if 0 < len(values) <= _FEW_RIGHT and _are_texts(values):
            keep = connection.scalars(
                text("select v from unnest(cast(:values as text[])) v where v ~ :pattern"),
                {"values": values, "pattern": rule.pattern},
            )
            found[rule.rule_id] = list(keep)
    return found


def _rows_known(connection: Connection, table: str) -> float:
    """How many rows the planner takes a table for; -1 where it knows nothing of it."""
    known = connection.scalar(text("select reltuples from pg_class where oid = to_regclass(:table)"), {"table": table})
    return float(-1 if known is None else known)


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _asked(connection: Connection, statement: str, as_of: date) -> Sequence[Any] | None:
    """The rows of a statement, in a savepoint; None where the server refuses it: the pass says why."""
    savepoint = connection.begin_nested()
    given: Mapping[str, date] = {"as_of": as_of} if ":as_of" in statement else {}
    try:
        rows = connection.execute(text(statement), given).all()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        savepoint.rollback()
        return None
    savepoint.commit()
    return rows
