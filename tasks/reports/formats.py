"""A report as CSV or JSON, and its cells as a person reads them. Pure: nothing read, nothing written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from decimal import Decimal

from tasks.artifacts import cell_text, money
from tasks.reports.rows import Column, Report, currency_of, json_rows, json_value, printable

# A spreadsheet takes a cell that begins so for a formula, also when it opens a CSV file.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def harmless(text: str) -> str:
    """The text with an apostrophe in front where a spreadsheet would otherwise run it as a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def as_json(report: Report) -> str:
    """One array of objects whose keys are the view's columns; money as text, dates ISO 8601."""
    return json.dumps(json_rows(report), ensure_ascii=False, indent=2) + "\n"


def as_csv(report: Report) -> str:
    """Comma-separated text with a header; text cells that a spreadsheet would run are neutralised, numbers are not."""
    lines = [_csv_line(report.names)]
    for record in report.records():
        currency = currency_of(record)
        lines.append(_csv_line([_csv_cell(value, currency) for value in record.values()]))
    return "".join(lines)


def _csv_line(cells: Sequence[object]) -> str:
    """One record; a carriage return inside a cell is quoted only while the line's end holds one too."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return f"{out.getvalue()[:-2]}\n"


def _csv_cell(value: object, currency: str | None) -> object:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return harmless(value)
        case dict() | list():
            return harmless(json.dumps(json_value(value), ensure_ascii=False))
        case _:
            return json_value(value, currency)


def shown(column: Column, value: object, currency: str | None) -> str:
    """A cell as a person reads it, on one line: money with separators, dates ISO, a dash for nothing."""
    if isinstance(value, Decimal):
        return money(value, currency or "XXX")[4:]
    if isinstance(value, dict | list):
        return printable(json.dumps(json_value(value), ensure_ascii=False))
    if column.kind == "instant" and value is not None:
        return f"{cell_text(value)[:16]}Z"  # to the minute, in UTC
    if isinstance(value, int) and not isinstance(value, bool) and column.name.endswith("_id"):
        return str(value)
    return printable(cell_text(value))


def is_numeric(column: Column) -> bool:
    """Whether the column's cells stand at the right."""
    return column.kind in ("money", "integer")
