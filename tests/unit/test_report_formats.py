"""Reports as CSV, JSON, workbook, page and plain text: exact, harmless, self-contained."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tasks.reports.formats import FORMULA_STARTS, as_csv, as_json, harmless
from tasks.reports.pages import as_html
from tasks.reports.rows import Column, Report, json_rows, money_text, printable, totals_by_currency
from tasks.reports.terminal import print_report
from tasks.reports.workbook import as_workbook

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)

COLUMNS = (
    Column("customer_number", "text"),
    Column("customer_name", "text"),
    Column("due_on", "date"),
    Column("currency", "text"),
    Column("open_amount", "money"),
    Column("days_overdue", "integer"),
    Column("disputed", "boolean"),
    Column("payer_class", "text"),
)


def _report(*rows: tuple[object, ...], name: str = "overdue_invoices") -> Report:
    return Report(name, date(2026, 3, 2), COLUMNS, rows)


def _row(name: str = "Родопа АД", amount: Decimal = Decimal("1234.5000"), currency: str = "EUR") -> tuple[object, ...]:
    return ("001035", name, date(2026, 2, 1), currency, amount, 29, False, "disloyal")


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("100.0000", "EUR", "100.00"),
        ("100.0000", "JPY", "100"),
        ("1.2345", "EUR", "1.2345"),
        ("-0.5", "BGN", "-0.50"),
        ("1.500", "KWD", "1.500"),
        ("1E+3", "EUR", "1000.00"),
        ("123456789012345.6700", None, "123456789012345.67"),
    ],
)
def test_money_keeps_every_digit_and_drops_idle_zeros(amount: str, currency: str | None, text: str) -> None:
    """Money as text is exact and has at least the digits of its currency."""
    assert money_text(Decimal(amount), currency) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**14), max_value=10**14))
def test_money_as_text_is_the_same_money(amount: Decimal) -> None:
    """Reading the text back gives the amount that was written."""
    assert Decimal(money_text(amount, "EUR")) == amount


def test_json_has_the_views_columns_as_keys() -> None:
    """JSON is an array of objects in the order of the view: money as text, days ISO 8601, Cyrillic as it is."""
    report = _report(_row())
    assert json.loads(as_json(report)) == [
        {
            "customer_number": "001035",
            "customer_name": "Родопа АД",
            "due_on": "2026-02-01",
            "currency": "EUR",
            "open_amount": "1234.50",
            "days_overdue": 29,
            "disputed": False,
            "payer_class": "disloyal",
        }
    ]
    assert "Родопа" in as_json(report)
    assert json.loads(as_json(_report())) == []


def test_money_inside_a_card_is_tidied_too() -> None:
    """A card's amounts lose the database's idle zeros; an invoice number that looks like one does not change."""
    card = {
        "balance": {"EUR": {"open": "100.0000", "overdue": "0.0000"}},
        "open_items": [{"invoice_number": "77.1000", "open_amount": "1.2345", "amount": "2.5000"}],
    }
    report = Report("organization_card", None, (Column("card", "json"),), ((card,),))
    assert json_rows(report)[0]["card"] == {
        "balance": {"EUR": {"open": "100.00", "overdue": "0.00"}},
        "open_items": [{"invoice_number": "77.1000", "open_amount": "1.2345", "amount": "2.50"}],
    }


@given(st.text())
def test_nothing_exported_begins_like_a_formula(text: str) -> None:
    """A cell of text never begins with what a spreadsheet runs, and only such cells are changed."""
    made = harmless(text)
    assert not made.startswith(FORMULA_STARTS)
    assert made in (text, f"'{text}")
    assert (made == text) == (not text.startswith(FORMULA_STARTS))


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_csv_neutralises_text_and_leaves_numbers(start: str) -> None:
    """A name that begins like a formula gets an apostrophe; a negative amount stays a number."""
    text = as_csv(_report(_row(f"{start}HYPERLINK(1)", Decimal("-12.5000"))))
    header, row = csv.reader(io.StringIO(text, newline=""))
    assert header == [column.name for column in COLUMNS]
    assert row[1] == f"'{start}HYPERLINK(1)"
    assert row[4] == "-12.50"
    assert row[6:] == ["false", "disloyal"]


def test_a_workbook_holds_numbers_dates_and_harmless_text() -> None:
    """Money is a number in its currency's format, a day is a day, a formula is text, and the header stays in view."""
    content = as_workbook(_report(_row("=1+1"), _row("+359", Decimal("-5"), "JPY")), now=NOW)
    sheet = openpyxl.load_workbook(io.BytesIO(content)).active
    assert sheet is not None
    assert [cell.value for cell in sheet[1]] == [column.name for column in COLUMNS]
    assert sheet["B2"].value == "'=1+1"
    assert sheet["B2"].data_type == "s"
    assert sheet["B3"].value == "'+359"
    assert sheet["A2"].value == "001035"
    assert sheet["C2"].value == datetime(2026, 2, 1)  # noqa: DTZ001  a day in a workbook has no zone
    assert (sheet["E2"].value, sheet["E2"].number_format) == (1234.5, "#,##0.00")
    assert (sheet["E3"].value, sheet["E3"].number_format) == (-5, "#,##0")
    assert sheet.freeze_panes == "A2"
    assert sheet.auto_filter.ref == "A1:H3"
    assert sheet.title == "Overdue invoices"


def test_an_empty_report_is_still_a_workbook_with_its_header() -> None:
    """No row is no error in any form."""
    sheet = openpyxl.load_workbook(io.BytesIO(as_workbook(_report(), now=NOW))).active
    assert sheet is not None
    assert sheet.max_row == 1
    assert as_csv(_report()).count("\n") == 1
    assert "0 rows" in as_html(_report())


def test_a_page_needs_nothing_from_outside_and_runs_nothing() -> None:
    """The page has no script, link or picture; a tag in a name stays text; the payer's colour has its word."""
    page = as_html(_report(_row("<script>alert(1)</script> & Co")))
    assert not re.search(r"<(script|link|img|iframe)|https?://|url\(|@import|javascript:", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Co" in page
    assert "● disloyal (red)" in page
    assert "EUR 1,234.50" in page
    assert "default-src 'none'" in page


def _printed(report: Report, *, terminal: bool, width: int = 120) -> str:
    stream = io.StringIO()
    print_report(Console(file=stream, force_terminal=terminal, width=width, highlight=False, _environ={}), report)
    return stream.getvalue()


def test_a_pipe_gets_plain_whole_lines() -> None:
    """Outside of a terminal there is no colour code, every column is there, and no line is broken or cut."""
    name = "А" * 300
    lines = _printed(_report(_row(name)), terminal=False, width=40).splitlines()
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)
    assert name in lines[2]
    assert lines[0].split() == [column.name for column in COLUMNS]


def test_a_terminal_gets_colour_and_the_word_for_it() -> None:
    """On a terminal a payer class is coloured, named in words, and amounts are summed per currency."""
    shown = _printed(_report(_row(), _row(amount=Decimal("0.50")), _row(currency="NOK")), terminal=True, width=160)
    assert "\x1b[31m" in shown
    assert "disloyal (red)" in shown
    assert "EUR 1,235.00" in shown
    assert "NOK 1,234.50" in shown
    assert "3 rows" in shown


@given(st.text())
def test_no_cell_can_steer_the_terminal(text: str) -> None:
    """Escape sequences and line breaks of a file never reach the terminal."""
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)


def test_sums_never_cross_currencies() -> None:
    """Totals are per currency, in the order of the codes."""
    report = _report(_row(), _row(currency="NOK"), _row())
    assert totals_by_currency(report, "open_amount") == {"EUR": Decimal("2469.0000"), "NOK": Decimal("1234.5000")}
    assert totals_by_currency(report, "no_such_column") == {}
