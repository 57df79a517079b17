"""Writes rows the way accounting's programs do: titles above, totals below, in English or in Bulgarian.

The same rows give the same bytes: the workbook's creation date is fixed and its ZIP entries carry none.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from tasks.demo.dirt import Cell, ErrorCell
from tasks.demo.names import COMPANY, plain_latin

_CREATED = datetime(2026, 8, 31, 7, 30)  # noqa: DTZ001  a workbook's own date has no zone

HEADINGS: dict[str, dict[str, str]] = {
    "en": {
        "customer_number": "Customer number",
        "customer_name": "Customer name",
        "invoice_number": "Invoice number",
        "document_type": "Document type",
        "issue_date": "Invoice date",
        "due_date": "Due date",
        "currency": "Currency",
        "amount": "Amount",
        "open_amount": "Open amount",
        "disputed": "Disputed",
        "note": "Note",
        "settled_date": "Settled date",
        "name": "Name",
        "country": "Country",
        "language": "Language",
        "vat_number": "VAT number",
        "payment_terms_days": "Payment terms days",
        "segment": "Segment",
        "owner": "Owner",
        "first_name": "First name",
        "last_name": "Last name",
        "email": "E-mail",
        "phone": "Phone",
        "roles": "Roles",
        "valid_from": "Valid from",
        "valid_to": "Valid to",
    },
    "bg": {
        "customer_number": "Клиентски номер",
        "customer_name": "Клиент",
        "invoice_number": "Фактура №",
        "document_type": "Вид документ",
        "issue_date": "Дата на издаване",
        "due_date": "Падеж",
        "currency": "Валута",
        "amount": "Сума",
        "open_amount": "Остава",
        "disputed": "Спорна",
        "note": "Бележка",
    },
}
_VALUES = {
    "en": {"invoice": "Invoice", "credit_note": "Credit note"},
    "bg": {"invoice": "Фактура", "credit_note": "Кредитно известие", "yes": "да"},
}
_TOTAL = {"en": "Total", "bg": "Общо"}
_WIDTHS = {"customer_name": 34, "name": 34, "document_type": 18, "note": 30, "email": 40}


@dataclass(frozen=True)
class Layout:
    """How one file looks; ``titles`` stand above the headings, one empty row between them and the headings."""

    columns: tuple[str, ...]
    language: str = "en"
    titles: tuple[str, ...] = ()
    sheet: str = "Sheet1"
    headings: Mapping[str, str] = field(default_factory=dict)
    date_format: str = "yyyy-mm-dd"
    hidden_sheet: bool = False
    empty_rows_after: int = 0

    @property
    def header_row(self) -> int:
        """The row of the headings, counted from 1."""
        return len(self.titles) + 2 if self.titles else 1

    def heading(self, column: str) -> str:
        """The heading of ``column`` in this file."""
        return self.headings.get(column) or HEADINGS[self.language][column]

    def shown(self, value: Cell) -> Cell:
        """``value`` as this file's language writes it: document types and yes."""
        return _VALUES[self.language].get(value, value) if isinstance(value, str) else value


Cells = Sequence[Mapping[str, Cell]]
Totals = Mapping[str, tuple[Decimal, Decimal]]
"""By currency: the sum of the amounts and of the open amounts."""


def write_workbook(path: Path, layout: Layout, rows: Cells, totals: Totals | None = None) -> None:
    """Writes ``rows`` to an Excel file at ``path``; text stays text, money is a number with two decimals."""
    with xlsxwriter.Workbook(str(path)) as workbook:
        workbook.set_properties({"created": _CREATED, "company": plain_latin(COMPANY)})
        formats = {
            "money": workbook.add_format({"num_format": "#,##0.00"}),
            "date": workbook.add_format({"num_format": layout.date_format}),
            "bold": workbook.add_format({"bold": True, "text_wrap": True}),
        }
        if layout.hidden_sheet:
            _write_hidden(workbook.add_worksheet("Calc"), rows)
        sheet = workbook.add_worksheet(layout.sheet)
        sheet.activate()
        sheet.set_first_sheet()
        _write_table(sheet, formats, layout, rows, totals or {})


def _write_hidden(sheet: Worksheet, rows: Cells) -> None:
    """A helper sheet that somebody forgot: the same headings, old figures, hidden, in front."""
    sheet.hide()
    sheet.write_row(0, 0, [HEADINGS["en"][column] for column in ("customer_number", "invoice_number", "open_amount")])
    for index, row in enumerate(rows[:20], start=1):
        sheet.write_row(index, 0, [row["customer_number"], row["invoice_number"], 1])


def _write_table(sheet: Worksheet, formats: Mapping[str, Format], layout: Layout, rows: Cells, totals: Totals) -> None:
    for index, title in enumerate(layout.titles):
        sheet.write_string(index, 0, title, formats["bold"])
    for column, name in enumerate(layout.columns):
        sheet.set_column(column, column, _WIDTHS.get(name, 14))
        sheet.write_string(layout.header_row - 1, column, layout.heading(name), formats["bold"])
    place = layout.header_row
    for row in rows:
        for column, name in enumerate(layout.columns):
            _write_cell(sheet, formats, place, column, layout.shown(row[name]))
        place += 1
    for values in _total_rows(layout, totals):
        for column, value in enumerate(values):
            _write_cell(sheet, formats, place, column, value)
        place += 1
    for empty in range(place, place + layout.empty_rows_after):
        sheet.write_blank(empty, 0, None, formats["money"])


def _write_cell(sheet: Worksheet, formats: Mapping[str, Format], row: int, column: int, value: Cell) -> None:
    match value:
        case None:
            return
        case ErrorCell():
            sheet.write_formula(row, column, "=NA()", None, str(value))
        case str():
            sheet.write_string(row, column, value)
        case Decimal():
            sheet.write_number(row, column, value, formats["money"])
        case int():
            sheet.write_number(row, column, value)
        case date():
            sheet.write_datetime(row, column, value, formats["date"])


def _total_rows(layout: Layout, totals: Totals) -> list[list[Cell]]:
    """One totals row per currency: money of two currencies is never added up."""
    rows: list[list[Cell]] = []
    for currency, (amount, open_amount) in sorted(totals.items()):
        known: dict[str, Cell] = {"amount": amount, "open_amount": open_amount}
        rows.append([f"{_TOTAL[layout.language]} {currency}", *(known.get(name) for name in layout.columns[1:])])
    return rows


def write_csv(
    path: Path, layout: Layout, rows: Cells, totals: Totals | None = None, *, encoding: str = "utf-8-sig"
) -> None:
    """Writes ``rows`` as semicolon-separated text at ``path``: dates dd.mm.yyyy in Bulgarian, ISO else; decimal commas.

    A letter that ``encoding`` lacks is spelled in plain Latin, as old export programs do.
    """
    lines: list[list[str]] = [[title] for title in layout.titles]
    lines += [[layout.heading(name) for name in layout.columns]]
    lines += [[_as_text(layout, layout.shown(row[name])) for name in layout.columns] for row in rows]
    lines += [[_as_text(layout, value) for value in values] for values in _total_rows(layout, totals or {})]
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=";").writerows([_encodable(text, encoding) for text in line] for line in lines)


def _as_text(layout: Layout, value: Cell) -> str:
    match value:
        case None:
            return ""
        case Decimal():
            return f"{value:.2f}".replace(".", ",")
        case date():
            return f"{value:%d.%m.%Y}" if layout.language == "bg" else value.isoformat()
    return str(value)


def _encodable(text: str, encoding: str) -> str:
    """``text`` with each letter that ``encoding`` lacks spelled in plain Latin."""
    return "".join(c if _can_encode(c, encoding) else plain_latin(c) for c in text)


def _can_encode(letter: str, encoding: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
