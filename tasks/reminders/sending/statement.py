"""A statement as a workbook: every open item of the digest, with a total per currency.

Texts are written as texts: an invoice number such as ``=1+1`` or ``@SUM(A1)`` is shown and never calculated.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import xlsxwriter
from babel.numbers import get_currency_precision

from tasks.letters import one_line
from tasks.reminders.sending.gate import OpenItem
from tasks.reminders.sending.templates import Words


def statement(items: Sequence[OpenItem], words: Words, day: date) -> bytes:
    """The workbook as bytes; the same items on the same day give the same bytes.

    Columns: number, issued, due, days overdue, currency, amount, open. Amounts are numbers with the places of their
    currency; a spreadsheet keeps 15 digits of them.
    """
    stream = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(stream, options) as book:
        book.set_properties({"created": _fixed(day)})
        sheet = book.add_worksheet(words.sheet[:31])
        bold, days = book.add_format({"bold": True}), book.add_format({"num_format": "yyyy-mm-dd"})
        money = {item.currency: book.add_format({"num_format": _places(item.currency)}) for item in items}
        headings = (words.document, words.issued, words.due, words.overdue_by, words.currency, words.amount, words.open)
        for column, heading in enumerate(headings):
            sheet.write_string(0, column, heading, bold)
        for row, item in enumerate(items, start=1):
            sheet.write_string(row, 0, _harmless(item.invoice_number))
            if item.issued_on is not None:
                sheet.write_datetime(row, 1, item.issued_on, days)
            sheet.write_datetime(row, 2, item.due_on, days)
            if item.due_on < day and item.open_amount > 0:
                sheet.write_number(row, 3, (day - item.due_on).days)
            sheet.write_string(row, 4, item.currency)
            sheet.write_number(row, 5, float(item.amount), money[item.currency])
            sheet.write_number(row, 6, float(item.open_amount), money[item.currency])
        for place, (currency, amount) in enumerate(totals(items), start=len(items) + 2):
            sheet.write_string(place, 0, words.total, bold)
            sheet.write_string(place, 4, currency, bold)
            sheet.write_number(
                place, 6, float(amount), book.add_format({"bold": True, "num_format": _places(currency)})
            )
        sheet.set_column(0, 0, 22)
        sheet.set_column(1, 6, 13)
        sheet.freeze_panes(1, 0)
    return stream.getvalue()


def _harmless(number: str) -> str:
    """The number as text that stays text, also when the sheet is saved as CSV and opened again."""
    shown = one_line(number, 60)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown


def _places(currency: str) -> str:
    places = get_currency_precision(currency)
    return "#,##0" + ("." + "0" * places if places else "")


def totals(items: Sequence[OpenItem]) -> list[tuple[str, Decimal]]:
    """What is open per currency, by currency; sums of different currencies are never added."""
    sums: dict[str, Decimal] = {}
    for item in items:
        sums[item.currency] = sums.get(item.currency, Decimal(0)) + item.open_amount
    return sorted(sums.items())


def _fixed(day: date) -> object:
    from datetime import datetime

    return datetime(day.year, day.month, day.day)  # noqa: DTZ001  workbooks know no zones
