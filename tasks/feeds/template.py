"""The workbook that a sender fills in: headings, cell formats, drop-downs, and a sheet that explains every column."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import xlsxwriter

from tasks.feeds.contracts import Column, FeedContract

ROWS_PREPARED = 5000
_CREATED = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - a fixed time, so that one contract always gives the same bytes
_LONGEST_LIST = 255  # characters that a spreadsheet takes for a drop-down written out
_NUMBER_FORMATS = {"date": "yyyy-mm-dd", "money": "#,##0.00", "integer": "0", "text": "@", "code": "@", "boolean": "@"}
_EXAMPLES = {"date": "2026-01-31", "money": "1250.00", "integer": "30", "boolean": "yes"}
_SAYS = {
    "date": "a date cell, or text such as 2026-01-31",
    "money": "a number cell; at most 4 decimals",
    "integer": "a whole number",
    "boolean": "yes or no",
    "code": "text, exactly as it is; leading zeros count",
    "text": "text",
}


def write_template(contract: FeedContract, path: Path) -> None:
    """Write an .xlsx that this contract reads: a sheet to fill in and one that explains; replaces an existing file."""
    with xlsxwriter.Workbook(str(path)) as workbook:
        workbook.set_properties({"title": contract.name, "comments": contract.description, "created": _CREATED})
        _fill_in_sheet(workbook, contract)
        _explaining_sheet(workbook, contract)


def _columns(contract: FeedContract) -> list[Column]:
    """Return the columns that a sender is asked for: not those that the contract fixes or that only serve sums."""
    return [column for column in contract.columns if column.constant is None and column.staged]


def _fill_in_sheet(workbook: Any, contract: FeedContract) -> None:
    sheet = workbook.add_worksheet(contract.feed[:31])
    must = workbook.add_format({"bold": True, "bg_color": "#DDEBF7", "bottom": 1, "text_wrap": True})
    may = workbook.add_format({"bg_color": "#F2F2F2", "bottom": 1, "text_wrap": True})
    formats = {kind: workbook.add_format({"num_format": text}) for kind, text in _NUMBER_FORMATS.items()}
    for position, column in enumerate(_columns(contract)):
        sheet.set_column(position, position, max(14, len(column.heading) + 2), formats[column.kind])
        sheet.write_string(0, position, column.heading, must if _is_needed(column) else may)
        rule = _validation(column)
        if rule is not None:
            sheet.data_validation(1, position, ROWS_PREPARED, position, rule)
    sheet.freeze_panes(1, 0)


def _is_needed(column: Column) -> bool:
    return column.heading_required or (column.required and column.default is None and column.default_from is None)


def _validation(column: Column) -> dict[str, Any] | None:
    choices = ["yes", "no"] if column.kind == "boolean" else list(column.allowed)
    if choices and len(",".join(choices)) <= _LONGEST_LIST:
        return {
            "validate": "list",
            "source": choices,
            "error_title": column.heading[:32],
            "error_message": _says(column)[:255],
        }
    return None


def _explaining_sheet(workbook: Any, contract: FeedContract) -> None:
    sheet = workbook.add_worksheet("Explanations")
    bold = workbook.add_format({"bold": True, "bottom": 1})
    wrap = workbook.add_format({"text_wrap": True, "valign": "top"})
    headings = ("Column", "Needed", "What it says", "How to write it", "Example", "Also known as")
    for position, (heading, width) in enumerate(zip(headings, (22, 10, 50, 40, 16, 60), strict=True)):
        sheet.set_column(position, position, width)
        sheet.write_string(0, position, heading, bold)
    for row, column in enumerate(_columns(contract), start=1):
        also = ", ".join(column.aliases[:12])
        needed = "yes" if _is_needed(column) else "no"
        texts = (column.heading, needed, column.description, _says(column), _example(column), also)
        for position, text in enumerate(texts):
            sheet.write_string(row, position, text, wrap)
    sheet.freeze_panes(1, 1)


def _says(column: Column) -> str:
    words = [_SAYS[column.kind]]
    if column.allowed:
        words.append(f"one of {', '.join(column.allowed)}")
    if column.code_list:
        words.append(f"a code of the list {column.code_list}")
    if column.max_length:
        words.append(f"at most {column.max_length} characters")
    if column.default is not None:
        words.append(f"blank means {column.default}")
    if column.default_from is not None and not _is_needed(column):
        words.append(f"blank means the same as {column.default_from}")
    return "; ".join(words)


def _example(column: Column) -> str:
    lists = {"iso4217": "EUR", "iso3166": "BG", "iso639": "bg"}
    if column.allowed:
        return column.allowed[0]
    return lists.get(column.code_list or "", _EXAMPLES.get(column.kind, ""))
