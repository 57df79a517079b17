"""A report as an Excel workbook: header, frozen panes, filter, number formats; money cells are numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import xlsxwriter
from babel.numbers import get_currency_precision

from tasks.reports.catalogue import reading_of
from tasks.reports.formats import harmless, is_numeric
from tasks.reports.rows import Column, Report, currency_of, json_value

_WIDEST = 60
_CELL_LIMIT = 32_767  # characters in a cell, set by Excel
_SAMPLE = 2_000


def as_workbook(report: Report, *, now: datetime) -> bytes:
    """The bytes of an .xlsx file with one sheet; ``now`` is written as the time of making.

    Text that a spreadsheet would run as a formula gets an apostrophe in front. Dates are dates, money is a number in
    the format of its currency; Excel keeps 15 digits.
    """
    title = reading_of(report.name).title
    with new_workbook(title, now=now) as (out, book):
        sheet = book.add_worksheet(title[:31])
        _write_header(book, sheet, report)
        write_rows(Formats(book), sheet, report)
        _arrange(sheet, report)
    return out.getvalue()


@contextmanager
def new_workbook(title: str, *, now: datetime) -> Iterator[tuple[io.BytesIO, Any]]:
    """A workbook in memory for a ``with`` block, in which no text can become a formula or a link; whole after it."""
    out = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    book = xlsxwriter.Workbook(out, {**options, "remove_timezone": True})
    book.set_properties({"title": title, "created": now.replace(tzinfo=None)})
    yield out, book
    book.close()


class Formats:
    """The workbook's formats, each made once."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._made: dict[tuple[tuple[str, object], ...], Any] = {}

    def styled(self, **properties: object) -> Any:
        """The format with these properties of xlsxwriter's."""
        key = tuple(sorted(properties.items()))
        if key not in self._made:
            self._made[key] = self._book.add_format(properties)
        return self._made[key]

    def number(self, pattern: str) -> Any:
        """The format with this number pattern."""
        return self.styled(num_format=pattern, valign="top")

    def money(self, currency: str | None) -> Any:
        """The format of an amount in this currency."""
        digits = get_currency_precision(currency) if currency else 2
        return self.number("#,##0" + ("." + "0" * digits if digits else ""))


def _write_header(book: Any, sheet: Any, report: Report) -> None:
    bold = {"bold": True, "bg_color": "#E8ECF2", "bottom": 1, "valign": "top", "text_wrap": True}
    left, right = book.add_format(bold), book.add_format({**bold, "align": "right"})
    for place, column in enumerate(report.columns):
        sheet.write_string(0, place, column.name, right if is_numeric(column) else left)


def write_rows(formats: Formats, sheet: Any, report: Report, *, first_line: int = 1) -> None:
    """Write the cells of a report below its header: money as numbers of its currency, days as days, text harmless."""
    for line, record in enumerate(report.records(), start=first_line):
        currency = currency_of(record)
        for place, column in enumerate(report.columns):
            _write_cell(formats, sheet, line, place, column, record[column.name], currency)


def _write_cell(
    formats: Formats, sheet: Any, line: int, place: int, column: Column, value: object, currency: str | None
) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(line, place, value)
    elif isinstance(value, Decimal):
        sheet.write_number(line, place, value, formats.money(currency))
    elif isinstance(value, int):
        sheet.write_number(line, place, value, formats.number("0"))
    elif column.kind == "date":
        sheet.write_datetime(line, place, value, formats.number("yyyy-mm-dd"))
    elif column.kind == "instant":
        sheet.write_datetime(line, place, value, formats.number("yyyy-mm-dd hh:mm"))
    else:
        sheet.write_string(line, place, harmless(_text(value))[:_CELL_LIMIT])


def _text(value: object) -> str:
    return json.dumps(json_value(value), ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def widen(sheet: Any, report: Report, *, room: int = 2) -> None:
    """Make the columns as wide as what stands in them; ``room`` in characters is for what stands beside a heading."""
    for place, column in enumerate(report.columns):
        longest = max((_length(column, row[place]) for row in report.rows[:_SAMPLE]), default=0)
        sheet.set_column(place, place, min(max(longest + 2, len(column.name) + room), _WIDEST))


def _arrange(sheet: Any, report: Report) -> None:
    widen(sheet, report)
    sheet.freeze_panes(1, 0)
    if report.columns:
        sheet.autofilter(0, 0, len(report.rows), len(report.columns) - 1)


def _length(column: Column, value: object) -> int:
    if value is None:
        return 0
    if column.kind in ("date", "instant"):
        return 10 if column.kind == "date" else 16
    return len(f"{value:,.2f}") if isinstance(value, Decimal) else min(len(_text(value)), _WIDEST)
