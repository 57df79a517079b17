"""The rules a new installation starts with: rows of ``configs/rules/*.csv``, one file per table of schema ``rules``.

They fill a table only while it is empty. From then on the table is the truth: what someone decided there is never
overwritten, not even by a newer version of the file.
"""

from __future__ import annotations

import csv
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Column, Connection, Integer, Numeric, Table, func, insert, select
from sqlalchemy.dialects.postgresql import Range

from configs.settings import PROJECT_ROOT
from data_contracts.tables import metadata
from tasks.errors import BadInput

SEEDS = PROJECT_ROOT / "configs" / "rules"


def seed_rules(connection: Connection, folder: Path = SEEDS) -> dict[str, int]:
    """Fill every rule table that is empty from its file, as the owner; return the rows inserted per table.

    Raises:
        BadInput: a file names no table, or a row cannot be read; nothing is inserted.
    """
    seeds = {table: read_seeds(path, table) for path, table in _seed_tables(folder)}
    return {table.name: _seed(connection, table, rows) for table, rows in seeds.items()}


def _seed_tables(folder: Path) -> list[tuple[Path, Table]]:
    paths = sorted(folder.glob("*.csv"))
    unknown = [path.name for path in paths if f"rules.{path.stem}" not in metadata.tables]
    if unknown:
        raise BadInput(
            f"{', '.join(unknown)} in {folder.name} names no table of schema rules.",
            hint="Name each file after its table, as in payer_class.csv.",
        )
    return [(path, metadata.tables[f"rules.{path.stem}"]) for path in paths]


def _seed(connection: Connection, table: Table, rows: list[dict[str, object]]) -> int:
    # Two upgrades at once must not both find the table empty.
    connection.exec_driver_sql(f"lock table rules.{table.name} in share row exclusive mode")
    if not rows or connection.scalar(select(func.count()).select_from(table)):
        return 0
    connection.execute(insert(table), rows)
    return len(rows)


def read_seeds(path: Path, table: Table) -> list[dict[str, object]]:
    """The rows of a seed file as values for ``table``; ``valid_from`` and ``valid_to`` (last day) become ``valid``.

    An empty ``valid_from`` means always until now, an empty ``valid_to`` means until further notice.

    Raises:
        BadInput: naming the file, line and column of every cell that does not fit its column.
    """
    with path.open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle))
    wrong: list[str] = []
    rows = [_row(table, line, number, wrong) for number, line in enumerate(lines, start=2)]
    if wrong:
        raise BadInput(
            f"{path.name} cannot be read:" + "".join(f"\n  - {reason}" for reason in wrong),
            hint="Correct these cells; the columns are those of the table of the same name.",
        )
    return rows


def _row(table: Table, line: dict[str, str], number: int, wrong: list[str]) -> dict[str, object]:
    values: dict[str, object] = {"valid": _validity(line, number, wrong)}
    if None in line or None in line.values():
        wrong.append(f"line {number} has not as many cells as there are headings; quote a cell that holds a comma")
        return values
    for name, cell in line.items():
        if name in ("valid_from", "valid_to"):
            continue
        if name not in table.columns:
            wrong.append(f"line {number}: table {table.name} has no column {name}")
            continue
        try:
            values[name] = _value(table.columns[name], cell)
        except (ValueError, InvalidOperation):
            wrong.append(f"line {number}, {name}: {cell!r} is not a value of type {table.columns[name].type}")
    return values


def _value(column: Column[Any], cell: str) -> object:
    kind = column.type
    if cell == "" and column.nullable:
        return None
    if isinstance(kind, Boolean):
        return ("false", "true").index(cell) == 1
    if isinstance(kind, Integer):
        return int(cell)
    if isinstance(kind, Numeric):
        return Decimal(cell)
    if cell.strip() == "":
        raise ValueError(cell)
    return cell


def _validity(line: dict[str, str], number: int, wrong: list[str]) -> Range[date] | None:
    try:
        first, last = (date.fromisoformat(cell) if cell else None for cell in (line["valid_from"], line["valid_to"]))
    except (KeyError, ValueError):
        wrong.append(f"line {number}: valid_from and valid_to must be there, each a date such as 2026-01-31 or empty")
        return None
    return Range(first, last + timedelta(days=1) if last else None)
