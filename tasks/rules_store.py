"""Every table of schema ``rules`` in the same way: read, exported, proposed as a draft, put into force, looked back on.

A rule is never edited. Putting a draft into force closes the old version on the day before and opens the new one, with
author and reason; only a version that has not begun yet is taken away, since nobody has decided by it. Until then a
draft changes nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, Range
from sqlalchemy.exc import IntegrityError

from data_contracts.tables import metadata
from tasks.errors import BadInput, Refused, UsageError
from tasks.rule_sets import (
    DATED_FACTS,
    Change,
    Row,
    begins_on,
    by_rule,
    compare,
    content_columns,
    find_faults,
    find_gaps,
    from_day_on,
    last_day,
)
from tasks.rules import read_seeds

_NEEDED = {"rule_id", "version", "valid", "author", "reason"}


@dataclass(frozen=True)
class Draft:
    """A proposal for one table, as complete as the table's export; ``state`` is draft until it is settled."""

    draft_id: int
    table: str
    state: str
    author: str
    reason: str
    imported_at: datetime
    rows: tuple[Row, ...]


def rule_tables() -> dict[str, Table]:
    """The tables of rules by name: those of schema ``rules`` whose rows have versions, days, an author and a reason."""
    found = {table.name: table for table in metadata.tables.values() if table.schema == "rules"}
    return {name: table for name, table in sorted(found.items()) if set(table.columns.keys()) >= _NEEDED}


def rule_table(name: str) -> Table:
    """The table of rules of that name, hyphens and underscores alike; UsageError names those there are."""
    found = rule_tables().get(name.strip().lower().replace("-", "_"))
    if found is None:
        raise UsageError(f"There are no rules called {name!r}.", hint=f"Choose one of: {', '.join(rule_tables())}.")
    return found


def fetch_rules(connection: Connection, table: Table, as_of: date | None = None) -> list[Row]:
    """The rows in force on that day, or all there ever were, by rule and version."""
    query = select(table).order_by(table.c.rule_id, table.c.version)
    if as_of is not None:
        query = query.where(table.c.valid.contains(literal(as_of)))
    return [dict(row) for row in connection.execute(query).mappings()]


def current_set(connection: Connection, table: Table, day: date) -> list[Row]:
    """What the table says from that day on; of dated facts such as rates, what it says of every day."""
    rows = fetch_rules(connection, table)
    return rows if table.name in DATED_FACTS else [row for row in rows if not _over(row, day)]


def _over(row: Row, day: date) -> bool:
    return row["valid"].upper is not None and row["valid"].upper <= day


# --- export and import ------------------------------------------------------------------------------------------------


def as_csv(table: Table, rows: Sequence[Row]) -> str:
    """The rows as the text of a CSV file that :func:`import_draft` and a new installation read back."""
    names = ["rule_id", "version", *(n for n in content_columns(table) if n != "rule_id")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, "valid_from", "valid_to", "author", "reason"])
    for row in rows:
        days = [row["valid"].lower, last_day(row)]
        writer.writerow([_cell(value) for value in (*(row[n] for n in names), *days, row["author"], row["reason"])])
    return buffer.getvalue()


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case Decimal():
            return f"{value.normalize():f}"
        case _:
            return str(value)


def read_draft(connection: Connection, path: Path, table: Table) -> list[Row]:
    """The rows of a proposed set, checked cell by cell, by the table's own constraints, and as a whole.

    Raises:
        BadInput: naming every cell that cannot be read, every row the table would refuse, every gap, overlap and
            unreachable row.
    """
    rows: list[Row] = [dict(row) for row in read_seeds(path, table)]
    wrong = [] if rows else ["the file has no rules"]
    wrong += _refused_rows(connection, table, rows)
    others = {name: _newest_proposal(connection, other) for name, other in rule_tables().items()}
    today: date = connection.scalar(text("select ops.business_today()"))
    wrong += [] if wrong else find_faults(table, rows, others, begins_on(rows, today))
    if wrong:
        raise BadInput(
            f"{path.name} cannot be a set of {table.name}:" + "".join(f"\n  - {reason}" for reason in wrong),
            hint=f"Correct it and import it again; `kontor rules export {table.name}` shows what holds now.",
        )
    return rows


def _refused_rows(connection: Connection, table: Table, rows: Sequence[Row]) -> list[str]:
    """Rows that a constraint of the table refuses, by rule and constraint; tried on a copy that is thrown away."""
    refused = []
    columns = {name for row in rows for name in row}
    trial = Table(
        "rules_on_trial", table.metadata.__class__(), *(c._copy() for c in table.columns if c.name in columns)
    )
    connection.exec_driver_sql("drop table if exists pg_temp.rules_on_trial")
    connection.exec_driver_sql(
        f"create temporary table rules_on_trial (like rules.{table.name} including defaults including constraints)"
    )
    connection.exec_driver_sql(f"alter table rules_on_trial alter column {_key(table)} drop not null")
    for row in rows:
        try:
            with connection.begin_nested():
                connection.execute(insert(trial), [row])
        except IntegrityError as error:
            named = getattr(getattr(error.orig, "diag", None), "constraint_name", None) or "not null"
            refused.append(f"{row['rule_id']}: the table's constraint {named} does not allow it")
    connection.exec_driver_sql("drop table pg_temp.rules_on_trial")
    return refused


def _key(table: Table) -> str:
    return next(iter(table.primary_key.columns)).name


def import_draft(
    connection: Connection, table: Table, rows: Sequence[Row], *, author: str, reason: str, now: datetime
) -> int:
    """Keep a proposed set as the table's draft and return its id; an earlier draft of the table is replaced by it."""
    if not reason.strip():
        raise UsageError("A draft needs a reason.", hint="Add --reason 'what it is to achieve'.")
    _settle(connection, table.name, "replaced", author, now)
    statement = text(
        "insert into rules.drafts (table_name, rows, author, reason, imported_at)"
        " values (:table_name, :rows, :author, :reason, :now) returning draft_id"
    ).bindparams(bindparam("rows", type_=JSONB))
    values = {"table_name": table.name, "author": author, "reason": reason.strip(), "now": now}
    return int(connection.execute(statement, {**values, "rows": [_as_json(row) for row in rows]}).scalar_one())


def _settle(
    connection: Connection, table_name: str, state: str, author: str, now: datetime, valid_from: date | None = None
) -> None:
    connection.execute(
        text(
            "update rules.drafts set state = :state, settled_at = :now, settled_by = :author, valid_from = :valid_from"
            " where table_name = :table_name and state = 'draft'"
        ),
        {"state": state, "now": now, "author": author, "valid_from": valid_from, "table_name": table_name},
    )


def _as_json(row: Row) -> dict[str, object]:
    plain = {name: _json(value) for name, value in row.items() if name != "valid"}
    return {**plain, "valid_from": _json(row["valid"].lower), "valid_to": _json(last_day(row))}


def _json(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def fetch_drafts(connection: Connection, state: str | None = "draft") -> list[Draft]:
    """The drafts in that state, or all, newest first."""
    rows = connection.execute(
        text(
            "select * from rules.drafts where cast(:state as text) is null or state = :state"
            " order by imported_at desc, draft_id desc"
        ),
        {"state": state},
    )
    known = rule_tables()
    return [
        Draft(
            row.draft_id,
            row.table_name,
            row.state,
            row.author,
            row.reason,
            row.imported_at,
            tuple(_from_json(known[row.table_name], cells) for cells in row.rows),
        )
        for row in rows
        if row.table_name in known
    ]


def fetch_draft(connection: Connection, table: Table) -> Draft:
    """The draft of this table; UsageError where there is none."""
    found = next((draft for draft in fetch_drafts(connection) if draft.table == table.name), None)
    if found is None:
        raise UsageError(
            f"There is no draft of {table.name}.",
            hint=f"`kontor rules export {table.name} --out FILE`, edit it, `kontor rules import {table.name} FILE`.",
        )
    return found


def _from_json(table: Table, cells: Mapping[str, Any]) -> Row:
    first, last = cells["valid_from"], cells["valid_to"]
    row: dict[str, Any] = {
        name: Decimal(value) if value is not None and "NUMERIC" in str(table.columns[name].type) else value
        for name, value in cells.items()
        if name not in ("valid_from", "valid_to")
    }
    end = date.fromordinal(date.fromisoformat(last).toordinal() + 1) if last else None
    return {**row, "valid": Range(date.fromisoformat(first) if first else None, end)}


def _newest_proposal(connection: Connection, table: Table) -> Sequence[Row]:
    """The table's draft where it has one, else what stands in it until further notice."""
    draft = next((draft for draft in fetch_drafts(connection) if draft.table == table.name), None)
    if draft is not None:
        return draft.rows
    return [row for row in fetch_rules(connection, table) if row["valid"].upper is None]


# --- into force -------------------------------------------------------------------------------------------------------


def activate(
    connection: Connection, table: Table, day: date, *, author: str, reason: str, today: date, now: datetime
) -> list[Change]:
    """Put the table's draft into force from ``day`` on and return what changed; works in the caller's transaction.

    Raises:
        UsageError: there is no draft, no reason, or the day has passed.
        Refused: a rule that would change began on that very day, a fact of the past would change, or with what is in
            force in the other tables the set would leave customers or days without a rule.
    """
    if not reason.strip():
        raise UsageError("Rules do not change without a reason.", hint="Add --reason 'why they change'.")
    if day < today:
        raise UsageError(f"{day} has passed; what was decided by then stays.", hint="Give a day from today on.")
    connection.exec_driver_sql(f"lock table rules.{table.name} in share row exclusive mode")
    draft = fetch_draft(connection, table)
    current = fetch_rules(connection, table)
    _require_no_gap(connection, table, draft.rows, day)
    changes = compare(table, current, draft.rows, day)
    standing = by_rule(current)
    for change in changes:
        _close(connection, table, standing.get(change.rule_id, []), draft.rows, change, day, today)
    for change in changes:
        _open(connection, table, standing.get(change.rule_id, []), draft.rows, change, day, author, reason.strip())
    _settle(connection, table.name, "activated", author, now, day)
    return changes


def _require_no_gap(connection: Connection, table: Table, rows: Sequence[Row], day: date) -> None:
    """Together with what is in force beside it the set leaves no customer and no day without a rule."""
    beside = {name: from_day_on(fetch_rules(connection, other), day) for name, other in rule_tables().items()}
    gaps = find_gaps(table, rows, beside, day)
    if gaps:
        raise Refused(
            f"From {day} on this set of {table.name} would leave a gap:" + "".join(f"\n  - {gap}" for gap in gaps),
            hint="Correct the days, or activate what it needs first; what it makes needless comes last.",
        )


def _close(
    connection: Connection, table: Table, rows: Sequence[Row], proposed: Sequence[Row], change: Change, day: date,
    today: date,
) -> None:  # fmt: skip
    if change.kind == "new":
        return
    own = [row for row in proposed if row["rule_id"] == change.rule_id]
    if table.name in DATED_FACTS and _past(rows, today) != _past(own, today):
        raise Refused(
            f"{change.rule_id} held in the past and cannot be changed; letters were written by it.",
            hint="Leave its row as it was exported, and add a row for the days to come.",
        )
    for row in rows:
        if _over(row, day):
            continue
        begins = row["valid"].lower
        if begins is not None and begins > today and begins >= day:
            connection.execute(delete(table).where(table.c[_key(table)] == row[_key(table)]))
        elif begins is not None and begins >= day:
            raise Refused(
                f"{change.rule_id} version {row['version']} began on {begins}; it may have been decided by already.",
                hint=f"Activate from the day after: --from {date.fromordinal(day.toordinal() + 1)}.",
            )
        else:
            connection.execute(
                update(table).where(table.c[_key(table)] == row[_key(table)]).values(valid=Range(begins, day))
            )


def _past(rows: Sequence[Row], today: date) -> list[tuple[object, ...]]:
    return sorted(
        (str(row["valid"].lower), str(row["valid"].upper), str(row.get("percent")))
        for row in rows
        if row["valid"].upper is not None and row["valid"].upper <= today
    )


def _open(
    connection: Connection, table: Table, rows: Sequence[Row], proposed: Sequence[Row], change: Change, day: date,
    author: str, reason: str,
) -> None:  # fmt: skip
    own = [row for row in proposed if row["rule_id"] == change.rule_id]
    since = date.min if change.kind == "new" and table.name in DATED_FACTS else day
    version = max((int(row["version"]) for row in rows), default=0)
    for row in from_day_on(own, since):
        version += 1
        begins = None if row["valid"].lower == date.min else row["valid"].lower
        values = {name: row[name] for name in content_columns(table) if name in row}
        period = Range(begins, row["valid"].upper)
        connection.execute(
            insert(table), [{**values, "version": version, "valid": period, "author": author, "reason": reason}]
        )
