"""Every row's fate: applied, set aside as a harmless copy, or quarantined with all its reasons.

Casting has said which cells give no value; here follow the contract's checks in one pass over the staged rows, rows
that claim one key, and rows whose customer is unknown. Fates stand in the temporary table ``row_fate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from data_contracts.tables import metadata
from tasks.erasures.keys import ErasureKey
from tasks.erasures.suppression_store import anybody_erased, erased_rows, withhold_names
from tasks.erasures.terms import ERASED
from tasks.feeds.casting import CastTable
from tasks.feeds.contracts import FeedContract, RowCheck
from tasks.feeds.outcomes import StagedFile
from tasks.feeds.raw_table import RawTable, raw_rows
from tasks.feeds.staging_store import copy_frame

ITEM_KEY_COLUMN = {"staged_items": "invoice_number", "staged_products": "part_key"}


SQL_TYPES = {
    "text": "text",
    "code": "text",
    "date": "date",
    "money": "numeric(19,4)",
    "quantity": "numeric(19,4)",
    "rate": "numeric(28,10)",
    "integer": "integer",
    "boolean": "boolean",
}


def judge_rows(
    connection: Connection,
    staged: StagedFile,
    contract: FeedContract,
    raw: RawTable,
    cast: CastTable,
    erasure_key: ErasureKey | None = None,
) -> int:
    """Decide every row's fate and quarantine the bad ones with all their reasons; return the rows warned about."""
    warned = decide_fates(connection, staged, contract, raw, cast)
    _quarantine(connection, staged, raw, set_erased_aside(connection, staged, erasure_key))
    return warned


def decide_fates(
    connection: Connection, staged: StagedFile, contract: FeedContract, raw: RawTable, cast: CastTable
) -> int:
    """Write every row's fate and all its reasons into ``row_fate``; return the rows warned about."""
    reasons = [_reason_of_problem(row) for row in cast.problems.to_dict("records")]
    rows = _with_check_columns(connection, staged, contract, cast.frame)
    failures = _failed_checks(connection, rows, staged.as_of, contract.checks)
    reasons += [_reason_of_check(failure, raw) for failure in failures if failure.check.severity == "error"]
    if _keys_repeat(cast.frame, contract):
        collisions, spare = _key_collisions(connection, staged, contract, raw)
        if contract.duplicate_rows == "keep_last":
            # The last row alone speaks for its item, also where an earlier one of them cannot be read.
            reasons = [reason for reason in reasons if reason["row_number"] not in spare]
        reasons += collisions
    if staged.feed == "organizations":
        reasons += _blocked_duplicates(connection, staged, raw)
    if contract.no_overlap is not None and set(contract.no_overlap) & set(raw.columns):
        reasons += _overlaps(connection, staged, contract, raw)
    awaiting = [] if _creates_customers(contract, staged) else _unknown_customers(connection, staged, raw)
    if staged.feed == "contacts":
        # Whether the customer is there yet must not decide it, or the order of files would.
        reasons += _companions(connection, staged, raw, {int(reason["row_number"]) for reason in reasons})
    reasons += awaiting
    _write_fates(connection, reasons, {int(reason["row_number"]) for reason in awaiting})
    return len({failure.row_number for failure in failures if failure.check.severity == "warn"})


Reason = dict[str, Any]


def _reason_of_problem(problem: Mapping[Any, Any]) -> Reason:
    return {
        "row_number": int(problem["row_number"]),
        "column_name": str(problem["column_name"]),
        "cell": str(problem["cell"]),
        "raw_value": None if problem["raw_value"] is None else str(problem["raw_value"]),
        "code": str(problem["code"]),
        "reason": str(problem["reason"]),
    }


@dataclass(frozen=True)
class FailedCheck:
    """A row that does not hold to a check, with the values of the check's columns."""

    row_number: int
    check: RowCheck
    values: Mapping[str, str | None]


def _with_check_columns(connection: Connection, staged: StagedFile, contract: FeedContract, frame: pd.DataFrame) -> str:
    """The rows to check as a FROM clause: the staged columns, and beside them those that only a check reads."""
    kinds = {column.name: column.kind for column in contract.columns if not _is_staged(staged, column.name)}
    if not kinds:
        return staged.staging
    columns = ", ".join(f"{name} {SQL_TYPES[kind]}" for name, kind in kinds.items())
    connection.exec_driver_sql("drop table if exists pg_temp.check_only")
    connection.exec_driver_sql(f"create temporary table check_only (row_number integer, {columns}) on commit drop")
    copy_frame(connection, "check_only", frame[["row_number", *kinds]])
    return f"{staged.staging} join check_only using (row_number)"


def _failed_checks(connection: Connection, rows: str, as_of: date, checks: Sequence[RowCheck]) -> list[FailedCheck]:
    """Run all checks of the contract in one pass; a check whose value is unknown holds."""
    if not checks:
        return []
    # A colon in a check is the check's own, as in '10:30' or a cast; it names no parameter of ours.
    sqls = [check.sql.replace(":", "\\:") for check in checks]
    flags = ", ".join(f"coalesce(not ({sql}), false) as check_{place}" for place, sql in enumerate(sqls))
    columns = sorted({column for check in checks for column in check.columns})
    values = ", ".join(f"{column}::text as {column}" for column in columns)
    found = connection.execute(
        text(
            f"select * from (select row_number, {flags}, {values}"
            f" from (select *, cast(:as_of as date) as as_of from {rows}) s) judged"
            f" where {' or '.join(f'check_{place}' for place in range(len(checks)))} order by row_number"
        ),
        {"as_of": as_of},
    ).mappings()
    return [
        FailedCheck(row["row_number"], check, {column: row[column] for column in check.columns})
        for row in found
        for place, check in enumerate(checks)
        if row[f"check_{place}"]
    ]


def _reason_of_check(failure: FailedCheck, raw: RawTable) -> Reason:
    column = failure.check.columns[-1]
    return {
        "row_number": failure.row_number,
        "column_name": column,
        "cell": raw.cell(column, failure.row_number),
        "raw_value": failure.values[column],
        "code": failure.check.name,
        "reason": failure.check.reason.format_map({name: value or "nothing" for name, value in failure.values.items()}),
    }


def _keys_repeat(frame: pd.DataFrame, contract: FeedContract) -> bool:
    """Whether two rows may claim one key; told in memory in a tenth of the time in which the server finds which."""
    columns = pa.Table.from_pandas(frame[list(contract.key)], preserve_index=False)
    texts = [
        column if name in contract.needed_key else pc.fill_null(column, "")
        for name in contract.key
        for column in [columns[name].cast(pa.string())]
    ]
    joined = pc.binary_join_element_wise(*texts, "\x1f")
    return bool(pc.count_distinct(joined, mode="only_valid").as_py() < len(joined) - joined.null_count)


def _key_collisions(
    connection: Connection, staged: StagedFile, contract: FeedContract, raw: RawTable
) -> tuple[list[Reason], set[int]]:
    """Rows of this file that claim the same key, each with the other's address, and the copies that are set aside."""
    key = ", ".join(contract.key)
    present = " and ".join(f"{column} is not null" for column in contract.needed_key)
    same = _same_key("s", "r", contract)
    content = (
        f"md5(row({', '.join(column.name for column in contract.columns if _is_staged(staged, column.name))})::text)"
    )
    groups = connection.execute(
        text(
            # Contents are compared within the few keys that repeat, not computed for every row.
            f"with repeated as (select {key} from {staged.staging} where {present} group by {key} having count(*) > 1)"
            f" select array_agg(row_number order by row_number) as rows, count(distinct {content}) as contents"
            f" from (select s.* from {staged.staging} s join repeated r on {same}) s group by {key} order by 1"
        )
    ).all()
    reasons: list[Reason] = []
    spare: list[int] = []
    for group in groups:
        keep = _kept_of_group(contract, list(group.rows), int(group.contents))
        if keep is None:
            reasons += [_collision(raw, contract, row, group.rows) for row in group.rows]
        else:
            spare += [row for row in group.rows if row != keep]
    _set_aside(connection, spare)
    return reasons, set(spare)


def _same_key(one: str, other: str, contract: FeedContract, without: Sequence[str] = ()) -> str:
    """The condition that two rows claim one key; what must be filled comes as an equality that can be hashed."""
    return " and ".join(
        f"{one}.{name} = {other}.{name}"
        if name in contract.needed_key
        else f"{one}.{name} is not distinct from {other}.{name}"
        for name in contract.key
        if name not in without
    )


def _overlaps(connection: Connection, staged: StagedFile, contract: FeedContract, raw: RawTable) -> list[Reason]:
    """Rows of this file that say two things of one day: their periods overlap while the rest of their key is the same.

    The last day belongs to the period; no first day means always, no last day until further notice.
    """
    if contract.no_overlap is None:
        return []
    first, last = contract.no_overlap
    same = _same_key("a", "b", contract, (first, last))
    rows = connection.execute(
        text(
            f"select a.row_number, array_agg(b.row_number order by b.row_number) as others from {staged.staging} a"
            f" join {staged.staging} b on {same} and b.row_number <> a.row_number"
            f" and coalesce(a.{first}, '-infinity') <= coalesce(b.{last}, 'infinity')"
            f" and coalesce(b.{first}, '-infinity') <= coalesce(a.{last}, 'infinity')"
            f" and a.{first} is distinct from b.{first}"
            f" group by a.row_number order by 1"
        )
    ).all()
    names = " and ".join(contract.origin(name) for name in contract.key if name not in (first, last))
    return [
        {
            "row_number": row.row_number,
            "column_name": first,
            "cell": raw.cell(first, row.row_number),
            "raw_value": None,
            "code": "overlap",
            "reason": f"its period overlaps that of the same {names} in"
            f" {', '.join(raw.cell(first, other) for other in row.others)}",
        }
        for row in rows
    ]


def _is_staged(staged: StagedFile, column: str) -> bool:
    return column in metadata.tables[staged.staging].columns


def _kept_of_group(contract: FeedContract, rows: Sequence[int], contents: int) -> int | None:
    """The one row of a colliding group that stands, or None where a person must decide."""
    if contract.duplicate_rows == "keep_last":
        return rows[-1]
    if contract.duplicate_rows == "identical" and contents == 1:
        return rows[0]
    return None


def _collision(raw: RawTable, contract: FeedContract, row: int, rows: Sequence[int]) -> Reason:
    names = [contract.origin(name) for name in contract.key]
    column = names[-1]
    others = ", ".join(raw.cell(column, other) for other in rows if other != row)
    return {
        "row_number": row,
        "column_name": column,
        "cell": raw.cell(column, row),
        "raw_value": None,
        "code": "duplicate_key",
        "reason": f"the same {' and '.join(names)} also stands in {others}; only one of them can be right",
    }


def _set_aside(connection: Connection, rows: Sequence[int]) -> None:
    connection.execute(
        text(
            "insert into row_fate (row_number, fate) select r, 'superseded' from unnest(cast(:rows as integer[])) r"
            " on conflict do nothing"
        ),
        {"rows": list(rows)},
    )


def _creates_customers(contract: FeedContract, staged: StagedFile) -> bool:
    """Whether no row has to wait for its customer: it brings it along, or speaks of none."""
    return (
        contract.feed == "organizations"
        or contract.missing_customer == "create"
        or not _is_staged(staged, "customer_number")
    )


def _unknown_customers(connection: Connection, staged: StagedFile, raw: RawTable) -> list[Reason]:
    """Rows whose customer is not there yet; they wait in quarantine. A copy that was set aside does not wait too."""
    if not connection.scalar(text("select exists (select from unknown_customer)")):
        return []
    rows = connection.execute(
        text(
            "select s.row_number, s.customer_number"
            f" from {staged.staging} s join unknown_customer using (customer_number)"
            " where not exists (select from row_fate f where f.row_number = s.row_number) order by 1"
        )
    ).all()
    return [
        {
            "row_number": row.row_number,
            "column_name": "customer_number",
            "cell": raw.cell("customer_number", row.row_number),
            "raw_value": row.customer_number,
            "code": "unknown_customer",
            "reason": "no customer has this number yet; the row is taken in by itself when the customer arrives",
        }
        for row in rows
    ]


def _blocked_duplicates(connection: Connection, staged: StagedFile, raw: RawTable) -> list[Reason]:
    """New customers who look like one that is there, or like an earlier row, where a rule says that this blocks."""
    from tasks.matching.import_store import find_blocked  # half a second that no other feed should wait for

    return [
        {
            "row_number": found.row_number,
            "column_name": found.column,
            "cell": raw.cell(found.column, found.row_number),
            "raw_value": None,
            "code": "duplicate_customer",
            "reason": f"looks like {found.other} ({found.score:.0%} by rule {found.rule_id}); correct what is wrong, or"
            " give the row up and use the customer that is there",
        }
        for found in find_blocked(connection, staged.as_of)
    ]


def _companions(connection: Connection, staged: StagedFile, raw: RawTable, bad: set[int]) -> list[Reason]:
    """The good rows of contacts of whom another row is bad: taken in alone they would say that its role has ended."""
    if not bad:
        return []
    who = "lower(coalesce({0}.email, concat_ws(' ', {0}.first_name, {0}.last_name)))"
    rows = connection.execute(
        text(
            f"select good.row_number, min(ill.row_number) as other from {staged.staging} good"
            f" join {staged.staging} ill on ill.customer_number = good.customer_number"
            f" and {who.format('ill')} = {who.format('good')}"
            " where ill.row_number = any(:bad) and good.row_number <> all(:bad) group by 1 order by 1"
        ),
        {"bad": sorted(bad)},
    ).all()
    return [
        {
            "row_number": row.row_number,
            "column_name": "roles",
            "cell": raw.cell("roles", row.row_number),
            "raw_value": None,
            "code": "companion",
            "reason": f"row {row.other} of the same contact cannot be used; a contact's rows are taken in together",
        }
        for row in rows
    ]


def _write_fates(connection: Connection, reasons: Sequence[Reason], awaiting: set[int]) -> None:
    by_row: dict[int, list[Reason]] = {}
    for reason in reasons:
        by_row.setdefault(int(reason["row_number"]), []).append(reason)
    if not by_row:
        return
    connection.execute(
        text(
            "insert into row_fate (row_number, fate, reasons, awaits_customer)"
            " select r.row_number, 'quarantined', r.reasons, r.awaits_customer"
            " from jsonb_to_recordset(:rows) as r(row_number integer, reasons jsonb, awaits_customer boolean)"
            " on conflict (row_number) do update set fate = 'quarantined', reasons = excluded.reasons,"
            " awaits_customer = excluded.awaits_customer"
        ).bindparams(bindparam("rows", type_=JSONB)),
        {
            "rows": [
                {
                    "row_number": row,
                    "reasons": [{k: v for k, v in reason.items() if k != "row_number"} for reason in found],
                    # A row that is wrong in another way too must be corrected; its customer alone does not mend it.
                    "awaits_customer": row in awaiting and len(found) == 1,
                }
                for row, found in by_row.items()
            ]
        },
    )


@dataclass(frozen=True)
class SetAside:
    """What is withheld of those who asked to be erased: whole ``rows`` by number, and ``names`` of customers by row."""

    rows: frozenset[int] = frozenset()
    names: Mapping[int, str] = field(default_factory=dict)

    def cells_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A raw row as it may be kept in quarantine."""
        if row["row_number"] in self.rows:
            return {**row, "cells": {}}
        name = self.names.get(row["row_number"], "").casefold()
        cells = {k: ERASED if name and v.strip().casefold() == name else v for k, v in row["cells"].items()}
        return {**row, "cells": cells}


def set_erased_aside(connection: Connection, staged: StagedFile, key: ErasureKey | None) -> SetAside:
    """Quarantine the rows of people who asked to be erased, with that reason alone; returns what is withheld.

    Whatever else is wrong with such a row would quote it. Run after :func:`decide_fates`, also when a corrected row
    comes back: correcting is no way around it.
    """
    if key is None or not anybody_erased(connection):
        return SetAside()
    names = withhold_names(connection, staged.staging, key) if _is_staged(staged, "customer_name") else {}
    rows = erased_rows(connection, staged.feed, staged.staging, key)
    _write_fates(connection, [{"row_number": row, **_ERASED_REASON} for row in rows], set())
    return SetAside(frozenset(rows), names)


_ERASED_REASON: Reason = {
    "column_name": "customer_number",
    "cell": "",
    "raw_value": None,
    "code": "erased",
    "reason": "this person asked to be erased; the row's content is withheld, its sender must stop sending it",
}


def _quarantine(connection: Connection, staged: StagedFile, raw: RawTable, aside: SetAside) -> None:
    rows = connection.scalars(text("select row_number from row_fate where fate = 'quarantined' order by 1")).all()
    if not rows:
        return
    item = ITEM_KEY_COLUMN.get(staged.staging.removeprefix("landing."))
    key = f"s.{item}" if item else "null::text"
    customer = "s.customer_number" if _is_staged(staged, "customer_number") else "null::text"
    connection.execute(
        text(
            "insert into landing.quarantined_rows (feed_file_id, row_number, customer_number, item_key, cells,"
            " staged, reasons, awaits_customer)"
            f" select :feed_file_id, f.row_number, {customer}, {key}, r.cells,"
            f" case when f.row_number = any(:erased) then jsonb_build_object('customer_number', {customer})"
            " else to_jsonb(s) end, f.reasons,"
            f" f.awaits_customer from row_fate f join {staged.staging} s using (row_number)"
            " join jsonb_to_recordset(:rows) as r(row_number integer, cells jsonb) using (row_number)"
            " where f.fate = 'quarantined'"
        ).bindparams(bindparam("rows", type_=JSONB)),
        {
            "feed_file_id": staged.feed_file_id,
            "rows": [aside.cells_of(row) for row in raw_rows(raw, rows)],
            "erased": list(aside.rows),
        },
    )


def count_fates(connection: Connection) -> dict[str, int]:
    """How many rows are quarantined or set aside, by fate; rows without a fate are applied."""
    rows = connection.execute(text("select fate, count(*) from row_fate group by fate")).all()
    return {fate: int(count) for fate, count in rows}
