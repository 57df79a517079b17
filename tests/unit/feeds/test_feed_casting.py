"""Casting: a value or a reason for every cell; money exact, dates by the contract, credit notes negative."""

from __future__ import annotations

import csv
import datetime as dt
import zipfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.feeds.casting import CastTable, ControlTotal, cast_table, control_totals
from tasks.feeds.cells import number_text, tagged, tagged_array
from tasks.feeds.contracts import Column, Dialect, FeedContract, load_contract
from tasks.feeds.dates import parse_date
from tasks.feeds.raw_table import raw_rows
from tasks.feeds.reading import read_table
from tasks.feeds.values import Failure, parse_money, parser_for
from tests.unit.feeds.conftest import HEADER, Extend, WriteText, WriteWorkbook

COMMA = ";".join
OPEN_ITEMS = load_contract("open_items")  # once: the same contract for every example of a property


@pytest.fixture(scope="module")
def open_items() -> FeedContract:
    """The contract of the weekly list."""
    return load_contract("open_items")


def cast(path: Path, contract: FeedContract) -> CastTable:
    """Read and cast a file."""
    return cast_table(read_table(path, contract), contract)


def values(table: CastTable, name: str) -> list[Any]:
    """The column as Python values, None for null."""
    return [None if pd.isna(value) else value for value in table.frame[name]]


def problems(table: CastTable) -> list[tuple[int, str, str]]:
    """(row, column, code) of every problem."""
    found = table.problems[["row_number", "column_name", "code"]]
    return [(int(row), str(column), str(code)) for row, column, code in found.itertuples(index=False)]


def test_the_frame_has_every_column_of_the_contract_in_order(write_text: WriteText, open_items: FeedContract) -> None:
    """Columns that the file leaves out are there with their defaults, typed, and the row number comes last."""
    table = cast(write_text(COMMA(HEADER), "C1;0012;31.01.2026;EUR;1 250,50"), open_items)
    assert tuple(table.frame.columns) == (*open_items.column_names, "row_number")
    types = {name: str(kind) for name, kind in table.frame.dtypes.items()}
    assert types["amount"] == "decimal128(19, 4)[pyarrow]"
    assert types["due_date"] == "date32[day][pyarrow]"
    assert types["disputed"] == "bool[pyarrow]"
    row = table.frame.iloc[0]
    assert (row.amount, row.open_amount, row.document_type, row.disputed) == (
        Decimal("1250.5"), Decimal("1250.5"), "invoice", False,
    )  # fmt: skip
    assert (row.invoice_number, row.due_date) == ("0012", dt.date(2026, 1, 31))
    assert problems(table) == []


def test_a_workbook_number_never_meets_the_rules_for_text(write_workbook: WriteWorkbook, extend: Extend) -> None:
    """Under a decimal comma the number 1.234 is 1.234 and the text "1.234" is 1234."""
    contract = extend("open_items", dialect={"decimal": ","})
    rows = [["C1", "F1", dt.date(2026, 1, 31), "EUR", 1.234], ["C1", "F2", dt.date(2026, 1, 31), "EUR", "1.234"]]
    assert values(cast(write_workbook([HEADER, *rows]), contract), "amount") == [Decimal("1.234"), Decimal(1234)]


def test_codes_arrive_as_they_are(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """Leading zeros, 1E5 and NA stay; a number in a code column shows no decimals; a date there has lost the code."""
    codes: list[Any] = ["0012", "1E5", "NA", 3819986935.0, " A-1 ", "140105686.0", dt.date(2026, 3, 5)]
    rows = [["C1", code, dt.date(2026, 1, 31), "EUR", 1] for code in codes]
    table = cast(write_workbook([HEADER, *rows]), open_items)
    assert values(table, "invoice_number") == ["0012", "1E5", "NA", "3819986935", "A-1", "140105686.0", None]
    assert problems(table) == [(8, "invoice_number", "code_became_date")]


def test_ids_that_became_floats_can_be_repaired(write_text: WriteText, extend: Extend) -> None:
    """With integralFloat strip, 2960623488.0 is the document 2960623488; 12.50 is left alone."""
    contract = extend("open_items", columns={"invoice_number": {"integralFloat": "strip"}})
    path = write_text(COMMA(HEADER), "C1;2960623488.0;31.01.2026;EUR;1", "C1;12.50;31.01.2026;EUR;1")
    assert values(cast(path, contract), "invoice_number") == ["2960623488", "12.50"]


def test_what_a_spreadsheet_shows_is_what_is_stored(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """Binary noise behind the fifteenth digit is not money."""
    rows = [
        ["C1", f"F{n}", dt.date(2026, 1, 31), "EUR", number]
        for n, number in enumerate([6455.190000000001, 0.1 + 0.2, -0.0])
    ]
    table = cast(write_workbook([HEADER, *rows]), open_items)
    assert values(table, "amount") == [Decimal("6455.19"), Decimal("0.3"), Decimal(0)]


def repack(path: Path, sheet: Mapping[bytes, bytes]) -> Path:
    """The workbook with words of its sheets and strings replaced, for what no spreadsheet program would write."""
    with zipfile.ZipFile(path) as package:
        parts = {name: package.read(name) for name in package.namelist()}
    with zipfile.ZipFile(path, "w") as package:
        for name, content in parts.items():
            for old, new in sheet.items():
                content = content.replace(old, new)
            package.writestr(name, content)
    return path


@pytest.mark.parametrize("stored", [b"nan", b"inf", b"-inf", b"1e999"])
@pytest.mark.parametrize("with_word", [False, True])
def test_a_number_that_is_none_is_a_problem_of_its_cell(
    write_workbook: WriteWorkbook, open_items: FeedContract, stored: bytes, with_word: bool
) -> None:
    """A stored nan or infinity is the spreadsheet's #NUM!, in a column of numbers and in a mixed one."""
    rows: list[Any] = [["C1", "F1", "2026-01-31", "EUR", 77777.5], ["C1", "F2", "2026-01-31", "EUR", 2.5]]
    path = write_workbook([HEADER, *rows, *([["C1", "F3", "2026-01-31", "EUR", "3"]] if with_word else [])])
    table = cast(repack(path, {b"77777.5": stored}), open_items)
    assert ("amount", "cell_error", "#NUM!") in [
        (row.column_name, row.code, row.raw_value) for row in table.problems.itertuples() if row.row_number == 2
    ]
    assert values(table, "amount")[1] == Decimal("2.5")


def test_a_nul_in_a_text_is_a_problem_and_never_kept(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """An escaped NUL makes its cell a problem in any kind of column; what is kept for people has it replaced."""
    header = [*HEADER, "Customer name", "Remark"]
    rows = [["CzzzC", "FzzzF", "zzz2026-01-31", "EzzzUR", "1zzz", "Nzzz", "Rzzz"], ["Total zzz", "", "", "", 0]]
    path = repack(write_workbook([header, ["C1", "F1", "2026-01-31", "EUR", 1, "N"], *rows]), {b"zzz": b"_x0000_"})
    raw = read_table(path, open_items)
    table = cast_table(raw, open_items)
    assert {(row.column_name, row.code) for row in table.problems.itertuples() if row.row_number == 3} >= {
        (name, "not_text")
        for name in ("customer_number", "invoice_number", "due_date", "currency", "amount", "customer_name")
    }
    kept = [str(raw_rows(raw, [3])), str(raw.totals), str(table.problems["raw_value"].tolist())]
    assert not any("\\x00" in text or "\0" in text for text in kept)
    assert raw_rows(raw, [3])[0]["cells"]["Customer number"] == "C\ufffdC"  # type: ignore[index]
    assert not any("\0" in str(cell) for name in table.frame for cell in table.frame[name])


@pytest.mark.parametrize(
    ("text", "decimal", "expected"),
    [
        ("1518,44", ",", "1518.44"),
        ("1\u00a0518,44", "auto", "1518.44"),
        ("1\u2009518,44 kr", "auto", "1518.44"),
        ("1'518.44", "auto", "1518.44"),
        ("1’518.44", ".", "1518.44"),
        ("12 500,00 kr.", ",", "12500"),
        ("$1,234.50", "auto", "1234.50"),
        ("€ 1.234,50", "auto", "1234.50"),
        ("1 234,50 zł", "auto", "1234.50"),
        ("100 лв.", "auto", "100"),
        ("EUR 5.20", "auto", "5.20"),
        ("5,20 nok", "auto", "5.20"),
        ("-5,20 PLN", "auto", "-5.20"),
        ("7 zl", "auto", "7"),
        ("500,-", "auto", "500"),
        ("(500,00)", "auto", "-500"),
        ("($1,234.50)", ".", "-1234.50"),
        ("615-", "auto", "-615"),
        ("−615,10", "auto", "-615.10"),
        ("+7", "auto", "7"),
        ("-€5,00", "auto", "-5"),
        (".5", ".", "0.5"),
        ("1.234.567", "auto", "1234567"),
        ("1234.567", "auto", "1234.567"),
        ("0,125", "auto", "0.125"),
        ("1.234", ",", "1234"),
        ("1,234", ".", "1234"),
        ("1.234", ".", "1.234"),
    ],
)
def test_amounts_as_people_write_them(text: str, decimal: str, expected: str) -> None:
    """Spaces, apostrophes, currency signs, brackets and minus signs wherever they stand give one exact number."""
    assert parse_money(text, decimal) == Decimal(expected)


@pytest.mark.parametrize(
    ("text", "decimal", "code"),
    [
        ("1.234", "auto", "ambiguous_number"),
        ("1,234", "auto", "ambiguous_number"),
        ("12 345.6.7", "auto", "not_a_number"),
        ("1,2,3", "auto", "not_a_number"),
        ("1E5", "auto", "not_a_number"),
        ("12 34", "auto", "not_a_number"),
        ("abc", "auto", "not_a_number"),
        ("EUR", "auto", "not_a_number"),
        ("-", "auto", "not_a_number"),
        ("1518,44", ".", "not_a_number"),
        ("10%", "auto", "not_a_number"),
        ("٣٤", "auto", "not_a_number"),
        ("5 tys", "auto", "not_a_number"),
        ("5 mln", "auto", "not_a_number"),
        ("5 Mio", "auto", "not_a_number"),
        ("12 max", "auto", "not_a_number"),
        ("7 szt", "auto", "not_a_number"),
        ("pcs 7", "auto", "not_a_number"),
        ("(-500,00)", "auto", "not_a_number"),
        ("(500,00-)", "auto", "not_a_number"),
        ("(+500,00)", "auto", "not_a_number"),
        ("--500", "auto", "not_a_number"),
        ("-500-", "auto", "not_a_number"),
        ("+500-", "auto", "not_a_number"),
        ("-€ -5", "auto", "not_a_number"),
    ],
)
def test_amounts_that_could_mean_anything_are_refused(text: str, decimal: str, code: str) -> None:
    """What could be read in two ways, or in none, is a reason and never a guess."""
    found = parse_money(text, decimal)
    assert isinstance(found, Failure)
    assert found.code == code


@given(st.decimals(-(10**14), 10**14, places=2), st.sampled_from([",", ".", "auto"]))
def test_every_amount_with_two_decimals_is_read_back_exactly(amount: Decimal, decimal: str) -> None:
    """Written with the contract's mark and thousands apart, an amount comes back as the same Decimal."""
    mark = "," if decimal == "," else "."
    plain = f"{amount:,.2f}".replace(",", " ").replace(".", mark)
    assert parse_money(plain, decimal) == amount
    column = Column("amount", "money", "Amount")
    assert parser_for(column, Dialect(decimal=decimal))(plain.replace(" ", "")) == amount


NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(-(10**12), 10**12))
CELLS = st.one_of(NUMBERS, st.text(max_size=5), st.booleans(), st.dates(), st.none())


@given(st.lists(CELLS, max_size=30))
def test_a_column_of_cells_is_marked_like_each_cell_alone(cells: list[Any]) -> None:
    """The quick way for whole columns gives what the plain way gives cell by cell."""
    stored = ["" if cell is None else cell for cell in cells]
    assert tagged_array(stored).to_pylist() == [tagged(cell) for cell in stored]
    for kind in (str, float, dt.date):
        alike = [cell for cell in stored if type(cell) is kind]
        assert tagged_array(alike).to_pylist() == [tagged(cell) for cell in alike]


@given(st.floats(min_value=-1e14, max_value=1e14, allow_nan=False))
def test_numbers_keep_fifteen_digits(value: float) -> None:
    """The text of a stored number is plain decimal and equals the number to fifteen significant digits."""
    text = number_text(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=1e-14, abs=1e-19)


def test_noise_of_floats_in_text_needs_the_contract(
    write_text: WriteText, extend: Extend, open_items: FeedContract
) -> None:
    """More than four decimals are a problem; with a scale, float noise is rounded and true decimals stay a problem."""
    rows = [f"C1;F{n};31.01.2026;EUR;{text}" for n, text in enumerate(["2309.7899999999995", "2309.78912"])]
    path = write_text(COMMA(HEADER), *rows)
    strict = cast(path, open_items)
    assert [code for _, _, code in problems(strict)] == ["too_precise", "too_precise"]
    table = cast(path, extend("open_items", columns={"amount": {"scale": 2}}))
    assert values(table, "amount") == [Decimal("2309.79"), None]
    assert problems(table) == [(3, "amount", "too_precise")]


def test_amounts_too_large_for_the_ledger_are_refused(write_text: WriteText, open_items: FeedContract) -> None:
    """Fifteen digits before the mark are the most."""
    path = write_text(COMMA(HEADER), "C1;F1;31.01.2026;EUR;999999999999999", "C1;F2;31.01.2026;EUR;1000000000000000")
    assert problems(cast(path, open_items)) == [(3, "amount", "too_large")]


@pytest.mark.parametrize(
    ("text", "formats", "expected"),
    [
        ("2026-03-05", (), dt.date(2026, 3, 5)),
        ("2020-03-30 00:00:00.000000000", (), dt.date(2020, 3, 30)),
        ("2020-04-20T23:59:59+02:00", (), dt.date(2020, 4, 20)),
        ("05.03.2026", ("dd.mm.yyyy",), dt.date(2026, 3, 5)),
        ("5.3.2026 г.", ("dd.mm.yyyy",), dt.date(2026, 3, 5)),
        ("3/5/2026", ("d/m/yyyy",), dt.date(2026, 5, 3)),
        ("3/5/2026", ("m/d/yyyy",), dt.date(2026, 3, 5)),
        ("30-Mar-2026", ("dd-MMM-yyyy",), dt.date(2026, 3, 30)),
        ("5 март 2026", ("d MMM yyyy",), dt.date(2026, 3, 5)),
        ("5 marca 2026", ("d MMM yyyy",), dt.date(2026, 3, 5)),
        ("5 maj 2026", ("d MMM yyyy",), dt.date(2026, 5, 5)),
        ("2026/03/05", ("yyyy/mm/dd",), dt.date(2026, 3, 5)),
        ("20260305", ("yyyymmdd",), dt.date(2026, 3, 5)),
        ("050326", ("ddmmyy",), dt.date(2026, 3, 5)),
        ("01/30/2026", ("d/m/yyyy", "m/d/yyyy"), dt.date(2026, 1, 30)),
    ],
)
def test_dates_by_the_formats_of_the_contract(text: str, formats: tuple[str, ...], expected: dt.date) -> None:
    """ISO is always understood; everything else only by a format that the contract names."""
    assert parse_date(text, formats) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("31.09.2026", "not a day of the calendar"),
        ("29.02.2025", "not a day of the calendar"),
        ("05.03.0206", "has the year 206, expected 1990 to 2100"),
        ("01.01.2101", "has the year 2101"),
        ("3/5/2026", "not a date in any of the formats"),
        ("00:00.0", "not a date in any of the formats"),
        ("05.03.26", "not a date in any of the formats"),
        ("5 foo 2026", "names no month"),
    ],
)
def test_dates_that_are_none_say_why(text: str, reason: str) -> None:
    """Impossible days, years out of range and formats that nobody named are reasons in words."""
    found = parse_date(text, ("dd.mm.yyyy", "d MMM yyyy"))
    assert isinstance(found, str)
    assert reason in found


@given(
    st.dates(dt.date(1990, 1, 1), dt.date(2100, 12, 31)),
    st.sampled_from(["dd.mm.yyyy", "m/d/yyyy", "yyyymmdd", "dd-MMM-yyyy"]),
)
def test_every_date_is_read_back(day: dt.date, written: str) -> None:
    """A date written in a format of the contract is that date."""
    short = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[day.month - 1]
    texts = {
        "dd.mm.yyyy": f"{day:%d.%m.%Y}",
        "m/d/yyyy": f"{day.month}/{day.day}/{day.year}",
        "yyyymmdd": f"{day:%Y%m%d}",
        "dd-MMM-yyyy": f"{day:%d}-{short}-{day:%Y}",
    }
    assert parse_date(texts[written], (written,)) == day


def test_day_numbers_only_by_contract(write_workbook: WriteWorkbook, open_items: FeedContract, extend: Extend) -> None:
    """43046.6 in a date column is a problem, unless the contract says that the sender writes day numbers."""
    path = write_workbook([HEADER, ["C1", "F1", 43046.647809294, "EUR", 1], ["C1", "F2", "43046", "EUR", 1]])
    assert [code for _, _, code in problems(cast(path, open_items))] == ["not_a_date", "not_a_date"]
    table = cast(path, extend("open_items", dialect={"excelSerialDates": True}))
    assert values(table, "due_date") == [dt.date(2017, 11, 7)] * 2


def test_an_error_is_no_blank(write_text: WriteText, open_items: FeedContract) -> None:
    """An error where a value counts is a problem and takes no default; in a remark it costs the remark only."""
    header = COMMA([*HEADER, "Open amount", "Disputed", "Note"])
    table = cast(
        write_text(header, "C1;F1;31.01.2026;EUR;10;#N/A;;#REF!", "C1;F2;31.01.2026;EUR;10;;#VALUE!;x"), open_items
    )
    assert problems(table) == [(2, "open_amount", "cell_error"), (3, "disputed", "cell_error")]
    assert values(table, "open_amount") == [None, Decimal(10)]
    assert values(table, "note") == [None, "x"]


def test_a_blank_in_an_old_workbook_takes_no_place(write_text: WriteText, open_items: FeedContract) -> None:
    """Where the format cannot tell an error from a blank, the amount is not put in the open amount's place."""
    raw = read_table(write_text(COMMA([*HEADER, "Open amount"]), "C1;F1;31.01.2026;EUR;10;"), open_items)
    blind = type(raw)(**{**raw.__dict__, "tells_errors": False})
    assert problems(cast_table(blind, open_items)) == [(2, "open_amount", "blank_or_error")]


def test_missing_values_are_named_by_cell(write_text: WriteText, open_items: FeedContract) -> None:
    """A blank required cell is a problem with its address; a required column that is defaulted is none."""
    table = cast(write_text(COMMA(HEADER), " ;F1;31.01.2026;EUR;1", "C1;F1;31.01.2026;EUR;"), open_items)
    assert [tuple(row) for row in table.problems[["row_number", "cell", "code", "reason"]].itertuples(index=False)] == [
        (2, "A2", "missing", "customer_number is required and blank"),
        (3, "E3", "missing", "amount is required and blank"),
        (3, "row 3", "missing", "open_amount is required and blank"),
    ]


def test_reasons_carry_no_content(write_text: WriteText, open_items: FeedContract) -> None:
    """The raw text stands in its own column; the reason speaks of the column and the rule."""
    table = cast(write_text(COMMA(HEADER), "C1;F1;31.09.2026;EUR;Ivan Petrov"), open_items)
    rows = {row.column_name: row for row in table.problems.itertuples()}
    assert rows["amount"].raw_value == "Ivan Petrov"
    assert rows["amount"].reason == "amount is not an amount"
    assert rows["due_date"].reason == "due_date is not a day of the calendar (read as dd.mm.yyyy)"
    assert "open_amount" not in rows


def test_a_ragged_row_has_one_reason(write_text: WriteText, open_items: FeedContract) -> None:
    """A row whose cells cannot be told apart is named once, with what was found and expected."""
    table = cast(write_text(COMMA(HEADER), "C1;F1", "C1;F2;31.01.2026;EUR;1"), open_items)
    assert list(table.problems["reason"]) == ["the row has 2 cells, the header has 5"]
    assert list(table.frame["row_number"]) == [2, 3]


CREDIT = ("Customer number", "Invoice number", "Document type", "Due date", "Currency", "Amount", "Open amount")


def test_credit_notes_are_negative(write_text: WriteText, open_items: FeedContract) -> None:
    """However it is written, a credit note is kept as credit_note with negative amounts; invoices stay positive."""
    rows = ["C;1;Credit memo;31.01.2026;EUR;100;40", "C;2;Кредитно известие;31.01.2026;EUR;-100;-40",
            "C;3;;31.01.2026;EUR;-5;", "C;4;Faktura VAT;31.01.2026;EUR;7;7", "C;5;FKOR;31.01.2026;EUR;0;0"]  # fmt: skip
    table = cast(write_text(COMMA(CREDIT), *rows), open_items)
    assert values(table, "document_type") == ["credit_note"] * 3 + ["invoice", "credit_note"]
    assert values(table, "amount") == [Decimal(n) for n in (-100, -100, -5, 7, 0)]
    assert values(table, "open_amount") == [Decimal(n) for n in (-40, -40, -5, 7, 0)]


def test_a_sender_may_have_negative_invoices(write_text: WriteText, extend: Extend) -> None:
    """With negativeIsCreditNote false the sign stays and so does the type."""
    path = write_text(COMMA(CREDIT), "C;1;;31.01.2026;EUR;-5;")
    table = cast(path, extend("open_items", negativeIsCreditNote=False))
    assert (values(table, "document_type"), values(table, "amount")) == (["invoice"], [Decimal(-5)])


YES_NO: dict[str, bool | None] = dict.fromkeys(["Yes", "да", "TAK", "Ja", "x", "1"], True)
YES_NO |= dict.fromkeys(["no", "Не", "nie", "Nei", "nej", "0", ""], False) | dict.fromkeys(["maybe", "yes?"])


@pytest.mark.parametrize(("word", "expected"), YES_NO.items())
def test_yes_and_no_in_five_languages(
    write_text: WriteText, open_items: FeedContract, word: str, expected: bool | None
) -> None:
    """Yes and no are understood in the five languages; blank is no; anything else is a problem."""
    table = cast(write_text(COMMA([*HEADER, "Disputed"]), f"C1;F1;31.01.2026;EUR;1;{word}"), open_items)
    assert values(table, "disputed") == [expected]


CURRENCIES = {"eur": "EUR", "€": "EUR", "лв.": "BGN", "zł": "PLN", "SEK": "SEK", "kr": None, "EURO?": None, "XYZ": None}


@pytest.mark.parametrize(("text", "expected"), CURRENCIES.items())
def test_currencies(write_text: WriteText, open_items: FeedContract, text: str, expected: str | None) -> None:
    """Codes and signs that mean one currency are understood; kr, which means three, is a problem."""
    table = cast(write_text(COMMA(HEADER), f"C1;F1;31.01.2026;{text};1"), open_items)
    assert values(table, "currency") == [expected]


def test_what_is_open(write_text: WriteText, open_items: FeedContract) -> None:
    """The remainder wins over the amount; without one it is the amount less what has been paid; else the amount."""
    polish = "Kod klienta;Numer faktury;Termin płatności;Waluta;Kwota brutto;Kwota do zapłaty;Zapłacono"
    given_remainder = write_text(polish, "1;F1;31.01.2026;PLN;100;30;50")
    assert values(cast(given_remainder, open_items), "open_amount") == [Decimal(30)]
    paid = write_text(
        COMMA([*HEADER, "Paid"]),
        "C1;F1;31.01.2026;EUR;100;25,50",
        "C1;F2;31.01.2026;EUR;100;",
        "C1;F3;31.01.2026;EUR;100;?",
    )
    table = cast(paid, open_items)
    assert values(table, "open_amount") == [Decimal("74.5"), Decimal(100), None]
    assert problems(table) == [(4, "paid_amount", "not_a_number")]
    only_balance = write_text("Customer number;Invoice number;Due date;Currency;Balance", "C1;F1;31.01.2026;EUR;12,5")
    assert values(cast(only_balance, open_items), "amount") == [Decimal("12.5")]


def test_a_settled_row_was_open_with_its_amount(write_text: WriteText) -> None:
    """In a ledger the open amount of a settled row is its amount; of an open one it is what remains."""
    header = COMMA([*HEADER, "Paid", "Settled date"])
    table = cast(
        write_text(header, "C1;F1;31.01.2026;EUR;100;100;05.02.2026", "C1;F2;31.01.2026;EUR;100;60;"),
        load_contract("settled_items"),
    )
    assert values(table, "open_amount") == [Decimal(100), Decimal(40)]
    assert values(table, "settled_date") == [dt.date(2026, 2, 5), None]


def test_a_constant_beats_the_file(write_text: WriteText, extend: Extend) -> None:
    """What the contract fixes is not asked of the file."""
    contract = extend("open_items", columns={"currency": {"constant": "NOK"}})
    assert values(cast(write_text(COMMA(HEADER), "C1;F1;31.01.2026;???;1"), contract), "currency") == ["NOK"]


def test_control_totals(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """The totals row is cast by the same rules, for comparing with the sum of the rows."""
    path = write_workbook([HEADER, ["C1", "F1", "31.01.2026", "EUR", 1.5], ["Total", "", "", "", 6455.190000000001]])
    raw = read_table(path, open_items)
    assert control_totals(raw, open_items) == [ControlTotal(3, None, {"amount": Decimal("6455.19")})]


def test_a_totals_row_per_currency(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """A currency in its own cell or beside the marker says what a totals row sums; it is no row of data."""
    rows: list[list[object]] = [
        [*HEADER],
        ["C1", "F1", "31.01.2026", "EUR", 1.5],
        ["C1", "F2", "31.01.2026", "NOK", 20],
        ["Total", "", "", "EUR", 1.5],
        ["Sum NOK", "", "", "", 20],
    ]
    raw = read_table(write_workbook(rows), open_items)
    assert len(raw.frame) == 2
    assert control_totals(raw, open_items) == [
        ControlTotal(4, "EUR", {"amount": Decimal("1.5")}),
        ControlTotal(5, "NOK", {"amount": Decimal("20")}),
    ]


def test_organisations_understand_names_of_countries(write_text: WriteText) -> None:
    """Country, language and terms are understood as people write them, and out-of-range terms are a problem."""
    path = write_text(
        "Kundenr;Navn;Land;Språk;Betalingsfrist",
        "1;A;Норвегия;norsk;30",
        "2;B;Polska;bg;-1",
        "3;C;se;Swedish;14.0",
        "4;D;Atlantis;;x",
    )
    table = cast(path, load_contract("organizations"))
    assert values(table, "country") == ["NO", "PL", "SE", None]
    assert values(table, "language") == ["nb", "bg", "sv", None]
    assert values(table, "payment_terms_days") == [30, None, 14, None]
    assert problems(table) == [(3, "payment_terms_days", "too_small"), (5, "country", "not_in_list"),
                               (5, "payment_terms_days", "not_a_whole_number")]  # fmt: skip


def test_roles_of_contacts(write_text: WriteText) -> None:
    """Several roles in one cell, in any of the five languages, become canonical words separated by semicolons."""
    path = write_text(
        "Customer number,E-mail,Roles,Valid from",
        "1,a@example.com,Плащания / manager,2026-01-01",
        '2,not an address,"payments, payment",',
    )
    table = cast(path, load_contract("contacts"))
    assert values(table, "roles") == ["payments;manager", "payments"]
    assert problems(table) == [(3, "email", "pattern")]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10), min_size=8, max_size=8))
def test_no_text_can_stop_casting(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    """Whatever stands in the cells, each required one gives a value or a problem, and the row is still there."""
    path = tmp_path_factory.mktemp("any") / "x.csv"
    header = [
        "Customer number",
        "Invoice number",
        "Invoice date",
        "Due date",
        "Currency",
        "Amount",
        "Open amount",
        "Disputed",
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
            [header, ["K", "1", "", "2026-01-01", "EUR", "1", "1", ""], cells]
        )
    contract = OPEN_ITEMS
    raw = read_table(path, contract)
    table = cast_table(raw, contract)
    assert len(table.frame) == len(raw.frame)
    faulty = {(row.row_number, row.column_name) for row in table.problems.itertuples()}
    for column in contract.columns:
        if column.required:
            for number, value in zip(table.frame["row_number"], table.frame[column.name], strict=True):
                explained = (number, column.name) in faulty or (
                    column.default_from and (number, column.default_from) in faulty
                )
                assert not pd.isna(value) or explained


def test_the_quick_way_and_the_plain_way_agree(write_text: WriteText, open_items: FeedContract) -> None:
    """The vectorised rules give what the rules for one cell give, for every kind of text at the edge."""
    texts = [
        "1",
        "-1",
        "1.5",
        "1.25",
        "1.2345",
        "1.234",
        "1,5",
        "123456789012345",
        "1234567890123456",
        "",
        " 1 ",
        "1.",
        ".1",
        "--1",
        "+1",
    ]
    for decimal in ("auto", ".", ","):
        column, dialect = Column("amount", "money", "Amount"), Dialect(decimal=decimal)
        contract = type(open_items)(**{**open_items.__dict__, "dialect": dialect})
        path = write_text(COMMA(HEADER), *[f"C;{n};2026-01-01;EUR;{text}" for n, text in enumerate(texts)])
        parse = parser_for(column, dialect)
        expected = [None if isinstance(parse(text), Failure) else parse(text) for text in texts]
        assert values(cast(path, contract), "amount") == expected


def test_problems_keep_their_types_when_there_are_none(write_text: WriteText, open_items: FeedContract) -> None:
    """An empty problems frame has the same columns and types as a full one."""
    table = cast(write_text(COMMA(HEADER), "C1;F1;31.01.2026;EUR;1"), open_items)
    assert list(table.problems.columns) == ["row_number", "column_name", "cell", "raw_value", "code", "reason"]
    assert table.problems["row_number"].dtype == pd.ArrowDtype(pa.int32())
