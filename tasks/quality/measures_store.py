"""Figures of every table, kept per day: rows, share of gaps per column, sums of money per currency.

They are measured in one statement a table and, where the contract names sums, one more. What is not as usual becomes
a failing record of the table's rule ``…_as_usual``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from tasks.quality.anomalies import judge
from tasks.quality.checks_store import Result, rows_of
from tasks.quality.contracts import Rule, TableContract

_DAYS_OF_HISTORY = 400
_SHARE = Decimal("0.000001")


def measure_table(connection: Connection, contract: TableContract, as_of: date) -> dict[str, Decimal] | None:
    """The figures of a table as of a day by name, such as ``rows``, ``gaps.vat_number`` or ``sum.open_amount.EUR``.

    None where the table cannot be read as its contract says; its rules say so already.
    """
    savepoint = connection.begin_nested()
    try:
        found = _measured(connection, contract, as_of)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        savepoint.rollback()
        return None
    savepoint.commit()
    return found


def _measured(connection: Connection, contract: TableContract, as_of: date) -> dict[str, Decimal]:
    rows = rows_of(contract)
    given = {"as_of": as_of} if ":as_of" in rows else {}
    gaps = [column.name for column in contract.columns if not column.required and _is_row_column(contract, column.name)]
    counted = "".join(f", count({name}) as {name}" for name in gaps)
    row = connection.execute(text(f"select count(*) as row_count{counted} from ({rows}) r"), given).mappings().one()
    total = Decimal(row["row_count"])
    found = {"rows": total}
    if total:
        found |= {f"gaps.{name}": ((total - row[name]) / total).quantize(_SHARE) for name in gaps}
    for amount, by in contract.sums.items():
        sums = connection.execute(
            text(f"select {by} as part, sum({amount}) as total from ({rows}) r group by 1"), given
        )
        found |= {f"sum.{amount}.{item.part}": Decimal(item.total or 0) for item in sums}
    return found


def _is_row_column(contract: TableContract, name: str) -> bool:
    return not contract.rows or f".{name}" in contract.rows


def keep_measures(
    connection: Connection, run_id: int, contract: TableContract, as_of: date, figures: Mapping[str, Decimal]
) -> None:
    """Keep the day's figures; a second run of the same day puts its own in their place."""
    rows = [
        {"contract": contract.name, "measure": name, "as_of": as_of, "value": value, "run_id": run_id}
        for name, value in figures.items()
    ]
    connection.execute(text(_KEEP), rows)


_KEEP = """
insert into ops.quality_measures as m (contract, measure, as_of, value, run_id)
values (:contract, :measure, :as_of, :value, :run_id)
on conflict (contract, measure, as_of) do update set value = excluded.value, run_id = excluded.run_id
where m.value is distinct from excluded.value
"""


def judge_measures(
    connection: Connection, contract: TableContract, as_of: date, figures: Mapping[str, Decimal]
) -> Result | None:
    """Compare the figures with earlier days and add what is unusual to ``failing_record``; None without such a rule."""
    rule = next((item for item in contract.rules if item.kind == "usual"), None)
    if rule is None:
        return None
    history = _history(connection, contract.name, as_of)
    limit = rule.threshold if rule.threshold is not None else Decimal(6)
    unusual = [
        found for name, value in figures.items() if (found := judge(name, value, history.get(name, {}), as_of, limit))
    ]
    for found in unusual:
        reason = f"{found.measure} is {found.value:f}; on {found.days} such days before it was around {found.usual:f}"
        connection.execute(
            text("insert into failing_record (rule_id, record_key, reason) values (:rule_id, :record_key, :reason)"),
            {"rule_id": rule.rule_id, "record_key": f"{contract.table} {found.measure}", "reason": reason},
        )
    return _result(contract, rule, len(figures), len(unusual))


def _result(contract: TableContract, rule: Rule, figures: int, unusual: int) -> Result:
    result = Result(contract.name, contract.table, rule, "pass", figures, unusual)
    return replace(result, state="fail") if unusual else result


def _history(connection: Connection, contract: str, as_of: date) -> dict[str, dict[date, Decimal]]:
    rows = connection.execute(
        text(
            "select measure, as_of, value from ops.quality_measures where contract = :contract"
            " and as_of < :as_of and as_of >= cast(:as_of as date) - :days"
        ),
        {"contract": contract, "as_of": as_of, "days": _DAYS_OF_HISTORY},
    )
    history: dict[str, dict[date, Decimal]] = {}
    for row in rows:
        history.setdefault(row.measure, {})[row.as_of] = Decimal(row.value)
    return history
