"""What stands out in finance's report: changes, debtors, notices, and how it is laid out."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.reports.charts import aging_picture, trend_picture
from tasks.reports.finance import (
    BUCKETS,
    Change,
    Day,
    Debtor,
    Dso,
    FinanceReport,
    Quarantined,
    Totals,
    TrendPoint,
    aging_shares,
    notices,
    outcomes_of,
    overdue_share,
)
from tasks.reports.finance_page import cid_sources, data_sources, render
from tasks.reports.finance_words import LANGUAGES, Words
from tasks.reports.finance_workbook import finance_workbook, sheet_name
from tasks.reports.rows import Column, Report

pytestmark = pytest.mark.filterwarnings("ignore:.*extension is not supported:UserWarning")

DAY = date(2026, 3, 2)
NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
FORMULA = "=HYPERLINK(1)"
TAG = "<b>Co</b> & Søn"

_SHAPES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "overdue_invoices": (
        ("customer_number", "text"), ("customer_name", "text"), ("invoice_number", "text"), ("issued_on", "date"),
        ("due_on", "date"), ("days_overdue", "integer"), ("currency", "text"), ("open_amount", "money"),
        ("payer_class", "text"),
    ),
    "aging": (
        ("customer_number", "text"), ("customer_name", "text"), ("currency", "text"),
        *((name, "money") for name in BUCKETS), ("total", "money"),
    ),
    "payer_classes": (("customer_number", "text"), ("payer_class", "text"), ("reason", "text")),
    "payer_class_changes": (
        ("customer_number", "text"), ("customer_name", "text"), ("class_before", "text"), ("payer_class", "text"),
        ("reason", "text"),
    ),
    "reminder_outcomes": (
        ("customer_number", "text"), ("state", "text"), ("state_reason", "text"), ("currency", "text"),
        ("open_amount", "money"), ("reminder_id", "integer"), ("reason_code", "text"),
    ),
    "reminders_withheld": (
        ("customer_number", "text"), ("decision", "text"), ("reason_code", "text"), ("reason", "text"),
    ),
    "tasks_waiting": (
        ("customer_number", "text"), ("customer_name", "text"), ("kind", "text"), ("owner", "text"),
        ("details", "text"),
    ),
    "quarantine": (("file_name", "text"), ("reason", "text")),
}  # fmt: skip

_ROWS: Mapping[str, tuple[tuple[object, ...], ...]] = {
    "overdue_invoices": (
        ("001", FORMULA, "A1", DAY, DAY - timedelta(40), 40, "EUR", Decimal("100.5"), "disloyal"),
        ("001", FORMULA, "A2", DAY, DAY - timedelta(2), 2, "EUR", Decimal("50"), "disloyal"),
        ("002", TAG, "B1", DAY, DAY - timedelta(1), 1, "JPY", Decimal("9000"), "strict"),
        ("003", "Big", "C1", DAY, DAY - timedelta(1), 1, "EUR", Decimal("900"), "unrated"),
    ),
    "aging": (
        ("001", FORMULA, "EUR", *map(Decimal, ("0", "50", "100.5", "0", "0")), Decimal("150.5")),
        ("003", "Big", "EUR", *map(Decimal, ("99.5", "900", "0", "0", "0")), Decimal("999.5")),
        ("002", TAG, "JPY", *map(Decimal, ("0", "9000", "0", "0", "0")), Decimal("9000")),
    ),
    "payer_class_changes": (("002", TAG, "hesitant", "strict", "pays on time"),),
    "reminder_outcomes": (
        ("001", "sent", None, "EUR", Decimal("10"), 1, None),
        ("001", "sent", None, "NOK", Decimal("20"), 1, None),
        ("002", "cancelled", "paid: left the list of 1 May", "EUR", Decimal("5"), 2, "paid"),
        ("002", "cancelled", "paid: left the list of 8 May", "EUR", Decimal("6"), 4, "paid"),
        ("003", "unknown", "no answer", "EUR", Decimal("7"), 3, "unknown"),
    ),
    "tasks_waiting": (("004", TAG, "no_contact", None, "nobody holds the payments role"),),
}


def _table(name: str) -> Report:
    columns = _SHAPES["overdue_invoices" if name == "due_soon" else name]
    made = tuple(Column(column, kind) for column, kind in columns)  # type: ignore[arg-type]
    return Report(name, DAY, made, _ROWS.get(name, ()))


def _report() -> FinanceReport:
    euro = Totals(
        "EUR", 4, Decimal("1150"), 3, 2, Decimal("1050.5"), 2, Decimal("950"),
        not_due=Decimal("99.5"), days_1_30=Decimal("950"), days_31_60=Decimal("100.5"),
    )  # fmt: skip
    yen = Totals("JPY", 1, Decimal("9000"), 1, 1, Decimal("9000"), days_1_30=Decimal("9000"))
    dso = {"EUR": Dso("EUR", 90, Decimal("3000"), Decimal("34.5"), Decimal("3"), Decimal("31.5"))}
    aside = (Quarantined(None, 2, Decimal(0), 2),)
    tables = {name: _table(name) for name in (*_SHAPES, "due_soon")}
    return FinanceReport(
        now=Day(DAY, {"EUR": euro, "JPY": yen}, dso, {"strict": 1, "disloyal": 1}, aside),
        before=Day(DAY - timedelta(7), {"EUR": replace(euro, overdue_amount=Decimal("1000"))}, {}, {}, ()),
        changes_since=DAY - timedelta(7),
        trend=tuple(TrendPoint(DAY - timedelta(7 * back), "EUR", Decimal(back)) for back in range(3)),
        tables=tables,
        newest_lists={"accounting": DAY},
        debtors={
            "EUR": [Debtor("001", FORMULA, "EUR", Decimal("150.5"), 2, 40, "disloyal")],
            "JPY": [Debtor("002", TAG, "JPY", Decimal("9000"), 1, 1, "strict")],
        },
    )


def test_a_change_is_told_in_money_and_as_a_part() -> None:
    """1,000 to 1,120 is 120 and 12 per cent; from nothing there is no part."""
    assert (Change(Decimal(1120), Decimal(1000)).difference, Change(Decimal(1120), Decimal(1000)).share) == (
        Decimal(120),
        Decimal("0.12"),
    )
    assert Change(Decimal(5), Decimal(0)).share is None


def test_the_overdue_share_leaves_credit_notes_out() -> None:
    """Of claims of 1,000 with 250 overdue a quarter is overdue, however much credit stands beside them."""
    totals = Totals("EUR", open_amount=Decimal(900), credit_amount=Decimal(-100), overdue_amount=Decimal(250))
    assert overdue_share(totals) == Decimal("0.25")
    assert overdue_share(Totals("EUR")) is None


@given(st.lists(st.decimals(-(10**6), 10**6, places=2), min_size=5, max_size=5))
def test_shares_are_parts_of_one(amounts: list[Decimal]) -> None:
    """Shares lie between 0 and 1 and sum to 1 where anything is owed; what credit pushes below zero counts nothing."""
    shares = aging_shares(Totals("EUR", **dict(zip(BUCKETS, amounts, strict=True))))  # type: ignore[arg-type]
    assert all(0 <= share <= 1 for share in shares)
    whole = Decimal(1) if any(amount > 0 for amount in amounts) else Decimal(0)
    assert abs(sum(shares, Decimal(0)) - whole) < Decimal("1e-20")


def test_a_mail_about_two_currencies_is_one_mail() -> None:
    """Reminders are counted by the code of their reason, as mails and money per currency; the unknown ones first."""
    found = outcomes_of(_table("reminder_outcomes"))
    assert [(item.state, item.reason, item.mails, dict(item.amounts)) for item in found] == [
        ("unknown", "unknown", 1, {"EUR": Decimal(7)}),
        ("cancelled", "paid", 2, {"EUR": Decimal(11)}),
        ("sent", "", 1, {"EUR": Decimal(10), "NOK": Decimal(20)}),
    ]


@pytest.mark.parametrize(("days", "told"), [(0, False), (8, False), (9, True)])
def test_old_lists_are_told_before_the_figures(days: int, told: bool) -> None:
    """A list of Monday is fresh through Tuesday a week later; after that the report says so in red."""
    report = replace(_report(), newest_lists={"accounting": DAY - timedelta(days)})
    assert ("notice_old" in [item.key for item in notices(report)]) == told


def test_what_needs_a_person_is_told_first() -> None:
    """Unknown mails are red; tasks and quarantine yellow; without any list the report says that it knows nothing."""
    assert [(item.colour, item.key) for item in notices(_report())] == [
        ("red", "notice_unknown"),
        ("yellow", "notice_tasks"),
        ("yellow", "notice_quarantine"),
    ]
    assert notices(replace(_report(), newest_lists={}))[0].key == "notice_no_list"


# --- the mail, the page and the text ----------------------------------------------------------------------------------


class _Tags(HTMLParser):
    """Collects tags with their attributes and checks that what opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_mail_is_whole_in_every_language_and_asks_for_nothing(language: str) -> None:
    """Every tag is closed, pictures travel with the mail and have words, nothing is fetched, no name becomes a tag."""
    mail = render(_report(), Words(language), cid_sources())
    tags = _Tags(mail.html)
    assert tags.open == []
    pictures = [attributes for tag, attributes in tags.found if tag == "img"]
    assert [str(picture["src"]) for picture in pictures] == ["cid:aging@kontor", "cid:trend@kontor"]
    assert all(picture["alt"] for picture in pictures)
    assert not re.search(r"https?://|<script|<link|@import|url\(", mail.html)
    assert "<b>Co" not in mail.html
    assert "&lt;b&gt;Co&lt;/b&gt;" in mail.html
    assert TAG in mail.text
    assert "{" not in mail.text
    assert "EUR" in mail.subject


def test_a_page_carries_its_pictures_and_a_missing_one_is_left_out() -> None:
    """On its own the page holds its pictures as data; where there is nothing to draw no empty frame stands."""
    page = render(_report(), Words("en"), data_sources({"aging": b"png", "trend": b""})).html
    assert page.count("<img") == 1
    assert 'src="data:image/png;base64,cG5n"' in page


def test_pictures_are_drawn_where_there_is_something_to_draw() -> None:
    """Both pictures are PNG and the same each time; without figures there is none."""
    report, words = _report(), Words("bg")
    for draw in (aging_picture, trend_picture):
        png = draw(report, words)
        assert png.startswith(b"\x89PNG")
        assert draw(report, words) == png
    empty = replace(report, now=replace(report.now, totals={}), before=replace(report.before, totals={}), trend=())
    assert (aging_picture(empty, words), trend_picture(empty, words)) == (b"", b"")


# --- the workbook -----------------------------------------------------------------------------------------------------


def test_a_list_that_goes_on_says_so_and_its_sums_are_numbers() -> None:
    """Where a sheet ends before its list does, the line below it says where all rows are, and nothing sums the part."""
    made = _report()
    part = replace(made.tables["overdue_invoices"], more=True)
    report = replace(made, tables={**made.tables, "overdue_invoices": part})
    book = openpyxl.load_workbook(io.BytesIO(finance_workbook(report, Words("en"), now=NOW)))
    sheet = book[sheet_name("Overdue")]
    assert sheet.cell(len(part.rows) + 3, 1).value == (
        "The first 4 rows. All of them: kontor report overdue-invoices --format csv"
    )
    formulas = [str(cell.value) for row in book["Key figures"].iter_rows() for cell in row]
    assert [text for text in formulas if text.startswith("=SUMIFS(Overdue")] == []
    assert [text for text in formulas if text.startswith("=SUMIFS(Aging")]


def test_the_workbook_has_real_tables_charts_and_formulas_that_agree() -> None:
    """Lists are tables, the summary's sums formulas over them; headers stay in view; charts are native."""
    content = finance_workbook(_report(), Words("en"), now=NOW)
    book, values = (
        openpyxl.load_workbook(io.BytesIO(content)),
        openpyxl.load_workbook(io.BytesIO(content), data_only=True),
    )
    assert {name for sheet in book for name in sheet.tables} == {
        "Overdue", "Aging", "ClassChanges", "Reminders", "Tasks",
    }  # fmt: skip
    overdue = book["Overdue"]
    assert overdue.tables["Overdue"].ref == "A1:I5"
    assert overdue.freeze_panes == "C2"
    summary = book["Key figures"]
    assert len(summary._charts) == 2  # one for aging, one for the currency that was overdue
    formulas = [cell for row in summary.iter_rows() for cell in row if str(cell.value).startswith("=SUMIFS(")]
    assert len(formulas) == 2 * (2 + 6)
    assert values["Key figures"][formulas[1].coordinate].value == pytest.approx(1050.5)
    assert [sheet.page_setup.orientation for sheet in book] == ["landscape"] * len(book.sheetnames)


def test_nothing_in_the_workbook_is_run() -> None:
    """A name that begins like a formula is text behind an apostrophe; yen have no digits, euros two."""
    sheet = openpyxl.load_workbook(io.BytesIO(finance_workbook(_report(), Words("en"), now=NOW)))["Overdue"]
    assert (sheet["B2"].value, sheet["B2"].data_type) == (f"'{FORMULA}", "s")
    formats = {sheet.cell(line, 7).value: sheet.cell(line, 8).number_format for line in range(2, 6)}
    assert formats == {"EUR": "#,##0.00", "JPY": "#,##0"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_makes_a_workbook_with_names_that_excel_takes(language: str) -> None:
    """Sheet names are distinct, short and free of refused signs in every language."""
    book = openpyxl.load_workbook(io.BytesIO(finance_workbook(_report(), Words(language), now=NOW)))
    assert len(set(book.sheetnames)) == len(book.sheetnames) == 10
    assert all(name == sheet_name(name) for name in book.sheetnames)
