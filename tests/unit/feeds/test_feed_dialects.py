"""What a contract says of a sender's way of writing: quotes, code pages, currencies, and words it may not use."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path

import pytest

from tasks.errors import BadInput, FileRefused
from tasks.feeds.casting import cast_table
from tasks.feeds.contracts import load_contract
from tasks.feeds.reading import read_table
from tests.unit.feeds.conftest import Extend

HEADINGS = "customer_number;customer_name;invoice_number;due_date;currency;amount"


@pytest.mark.parametrize(
    ("dialect", "cell", "name"),
    [
        ({}, '"Al; ""X"""', 'Al; "X"'),
        ({"quote": "'"}, "'Al; \"X\"'", 'Al; "X"'),
        ({"quote": "'"}, "'it''s; so'", "it's; so"),
        ({"quote": "none"}, '"Al', '"Al'),
        ({"escape": "\\"}, '"Al; \\"X\\""', 'Al; "X"'),
        ({"quote": "none", "escape": "\\"}, "Al\\; X", "Al; X"),
        ({"skipInitialSpace": True}, '  "Al; X"', "Al; X"),
        ({"skipInitialSpace": True}, '  "two\nlines"', "two\nlines"),
    ],
)
def test_a_contract_says_how_cells_are_quoted(
    tmp_path: Path, extend: Extend, dialect: dict[str, object], cell: str, name: str
) -> None:
    """Quote, escape and blanks after a delimiter are read as the contract has them, rows around them stay whole."""
    contract = extend("open_items", dialect={"delimiter": ";", **dialect})
    rows = [f"1;{cell};A-{n};2026-01-31;EUR;{n}.50" for n in range(3)]
    path = tmp_path / "open_items_2026-01-01.csv"
    path.write_text("\n".join([HEADINGS, *rows, ""]), encoding="utf-8")
    raw = read_table(path, contract)
    cast = cast_table(raw, contract)
    assert list(raw.frame["customer_name"]) == [name] * 3
    assert list(raw.frame["row_number"]) == [2, 3, 4]
    assert [str(value) for value in cast.frame["amount"]] == ["0.5000", "1.5000", "2.5000"]


def test_rows_of_a_wrong_width_are_told_in_an_unusual_dialect_too(tmp_path: Path, extend: Extend) -> None:
    """A row with a cell too many has its problem, one after a blank line keeps its number, an open quote is refused."""
    contract = extend("open_items", dialect={"delimiter": ";", "quote": "'"})
    path = tmp_path / "open_items_2026-01-01.csv"
    path.write_text(f"{HEADINGS}\n1;Al;A;2026-01-31;EUR;1\n\n1;Al;B;2026-01-31;EUR;1;x\n", encoding="utf-8")
    cast = cast_table(read_table(path, contract), contract)
    assert list(cast.frame["row_number"]) == [2, 4]
    assert list(cast.problems["code"]) == ["ragged"]
    path.write_text(f"{HEADINGS}\n1;'Al;A;2026-01-31;EUR;1\n", encoding="utf-8")
    with pytest.raises(FileRefused, match="cannot be told apart"):
        read_table(path, contract)


@pytest.mark.parametrize("value", ["", "''", 1, " ", True])
def test_a_quote_is_one_character(extend: Extend, value: object) -> None:
    """Anything but one character, or none, is refused with the contract."""
    with pytest.raises(BadInput, match="one character, or none"):
        extend("open_items", dialect={"quote": value})


@pytest.mark.parametrize(
    ("encoding", "headings", "named"),
    [
        ("windows-1251", "Клиент №;Фактура №;Падеж;Валута;Сума", "windows-1251 (Bulgarian and others). Save"),
        ("windows-1250", "Numer klienta;Numer faktury;Termin płatności;Waluta;Kwota", "windows-1250 (Polish"),
        ("windows-1252", "Kundenummer;Fakturanummer;Förfallodatum;Valuta;Belopp", "windows-1252 (Norwegian"),
    ],
)
def test_a_code_page_that_no_contract_names_is_told(tmp_path: Path, encoding: str, headings: str, named: str) -> None:
    """A CSV as Windows programs write it is refused with the code page under which its headings are known."""
    path = tmp_path / "open_items_2026-01-01.csv"
    path.write_bytes(f"{headings}\n1;A;2026-01-31;EUR;1\n".encode(encoding))
    contract = load_contract("open_items")
    contract = dataclasses.replace(contract, dialect=dataclasses.replace(contract.dialect, encodings=("utf-8",)))
    with pytest.raises(FileRefused) as refused:
        read_table(path, contract)
    assert named in refused.value.hint
    assert f"dialect: {{encodings: [{encoding}]}}" in refused.value.hint or " or " in refused.value.hint
    with_page = dataclasses.replace(contract, dialect=dataclasses.replace(contract.dialect, encodings=(encoding,)))
    assert len(read_table(path, with_page).frame) == 1


@pytest.mark.parametrize(
    ("amount", "currency", "wrong"),
    [
        ("€ 10.00", "EUR", None),
        ("€ 10.00", "SEK", "EUR"),
        ("10.00 kr", "NOK", None),
        ("10.00 kr", "SEK", None),
        ("10.00 kr", "EUR", "SEK or NOK or DKK or ISK"),
        ("$10.00", "CAD", None),
        ("$10.00", "EUR", "USD or CAD"),
        ("USD 10.00", "CAD", "USD"),
        ("10.00 zł", "EUR", "PLN"),
        ("10.00", "EUR", None),
        ("(10.00)", "EUR", None),
    ],
)
def test_an_amount_in_another_currency_than_its_rows_is_a_problem(
    tmp_path: Path, amount: str, currency: str, wrong: str | None
) -> None:
    """An amount that names a currency which the row's cannot be waits in quarantine: one of the two is wrong."""
    contract = load_contract("open_items")
    path = tmp_path / "open_items_2026-01-01.csv"
    path.write_text(f"{HEADINGS}\n1;Al;A;2026-01-31;{currency};{amount}\n1;Al;B;2026-01-31;{currency};7\n", "utf-8")
    cast = cast_table(read_table(path, contract), contract)
    told = [tuple(map(str, row)) for row in cast.problems[["code", "cell", "reason"]].to_numpy()]
    if wrong is None:
        assert told == []
        assert abs(Decimal(cast.frame["amount"][0])) == 10
    else:
        [(code, cell, reason)] = told
        assert (code, cell) == ("other_currency", "F2")
        assert wrong in reason
        assert f"the row's currency is {currency}" in reason


@pytest.mark.parametrize("name", ["order", "user", "row_number", "as_of", "select"])
def test_a_column_is_not_called_like_a_word_of_sql(extend: Extend, name: str) -> None:
    """A name that means something else where checks are made is refused with the contract, not with a file."""
    with pytest.raises(BadInput, match="means something else"):
        extend("open_items", columns={name: {"kind": "text", "staged": False}})


def test_a_real_binary_workbook_is_read_through_a_small_contract(real_data: Path, extend: Extend) -> None:
    """A table of an .xlsb that Excel wrote: every row, numbers as numbers, the right one of eleven sheets."""
    path = real_data / "spreadsheets" / "workbooks" / "sheetjs" / "AutoFilter.xlsb"
    contract = extend(
        "organizations",
        columns={
            "customer_number": {"aliases": ["Format"]},
            "name": {"aliases": ["Notes"], "defaultFrom": "customer_number"},
            "segment": {"aliases": ["Library"]},
            "payment_terms_days": {"aliases": ["Importance"]},
        },
        dialect={"sheet": "No Filter"},
    )
    raw = read_table(path, contract)
    cast = cast_table(raw, contract)
    assert (raw.sheet, raw.header_row) == ("No Filter", 1)
    rows = cast.frame[["customer_number", "name", "segment", "payment_terms_days"]].to_dict("records")
    assert len(rows) == 21
    assert list(rows[0].values()) == [
        "XLSX (Excel 2007+)",
        "Strict Open XML Spreadsheet, Excel Workbook",
        "js-xlsx",
        1,
    ]
    assert sum(row["payment_terms_days"] for row in rows) == 51
    # The format does not tell a blank from an error, so six blank notes do not become names by default.
    blank = {rows[number - 2]["customer_number"] for number in cast.problems["row_number"]}
    assert blank == {"XML Data", "XLW (4.0)", "DIF", "SYLK", "DBF", "ODS"}
    assert set(cast.problems["column_name"]) == {"name"}
