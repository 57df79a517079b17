"""Price lists as people lay them out: several sheets, banners, merged headings, groups, variants below their parent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter

from configs.settings import Settings
from tasks.feeds.contracts import load_contract
from tasks.feeds.corrections import CorrectedRow
from tests.catalogues import DAY, catalog_contract, products
from tests.corrections import held, settle
from tests.ledgers import Books

Rows = Sequence[Sequence[object]]


@pytest.fixture
def books(kontor_settings: Settings) -> Books:
    """An empty database."""
    return Books(kontor_settings)


def _workbook(path: Path, sheets: dict[str, Rows], merged: Sequence[tuple[str, str]] = ()) -> Path:
    """Write sheets of rows; ``merged`` are ranges such as ("Lamps", "C3:E3"), whose text stands in their first cell."""
    with xlsxwriter.Workbook(path) as book:
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for number, row in enumerate(rows):
                for place, cell in enumerate(row):
                    if cell != "":
                        sheet.write(number, place, cell)
            for of, cells in merged:
                if of == name:
                    first = rows[int(cells[1:].split(":")[0]) - 1][ord(cells[0]) - 65]
                    sheet.merge_range(cells, first)
    return path


LAMPS: Rows = [
    ["ACME GmbH · price list as of 2026-11-02"],
    [],
    ["Part number", "Name", "Price", "", "", "Currency"],
    ["", "", "Customer", "Dealer", "Promotional", ""],
    ["Desk lamps"],
    ["L-1", "Desk lamp", 10, 8, 7, "EUR"],
    ["L-2", "Reading lamp", 20, 16, "", "EUR"],
    ["Wall lamps"],
    ["L-3", "Spot", 30, 24, "", "EUR"],
]
CABLES: Rows = [
    ["Cables and wire"],
    ["Name", "Part number", "Currency", "Price", "", "Stock"],
    ["", "", "", "Dealer", "Customer", ""],
    ["By the metre"],
    ["Cable", "C-1", "EUR", 1.5, 2, 100],
    ["Cable, red", "l 1", "EUR", 1.5, 2, 40],
    ["Wire", "C-2", "EUR", 0.5, "dear", 7],
]
MERGED = [("Lamps", "C3:E3"), ("Lamps", "A3:A4"), ("Lamps", "B3:B4"), ("Lamps", "F3:F4"), ("Cables", "D2:E2")]
TOGETHER: dict[str, Any] = {
    "contract": {"groupHeadings": "category", "dialect": {"sheetsTogether": True, "headerRows": 2}}
}


def test_sheets_with_banners_merged_headings_and_groups_are_one_catalogue(books: Books, tmp_path: Path) -> None:
    """Two sheets in different orders under two-row headings; a number on both is quarantined with either address."""
    path = _workbook(
        tmp_path / "list.xlsx",
        {"Read me": [["Prices net of tax"], ["Price", "see the next sheets"]], "Lamps": LAMPS, "Cables": CABLES},
        MERGED,
    )
    contract = catalog_contract(tmp_path, **TOGETHER)
    outcome = books.take_in(path, contract)
    assert (outcome.as_of, outcome.rows_read, outcome.inserted, outcome.quarantined) == (DAY, 6, 3, 3)
    assert "sheet 'Read me' has no headings of sender and was not read" in outcome.remarks
    found = books.read(
        "select part_number, category, customer_price, dealer_price, promo_price, stock from report.catalog"
    )
    shown = {row.pop("part_number"): tuple(row.values()) for row in found}
    assert shown == {
        "L-2": ("Desk lamps", Decimal(20), Decimal(16), None, None),
        "L-3": ("Wall lamps", Decimal(30), Decimal(24), None, None),
        "C-1": ("By the metre", Decimal(2), Decimal("1.5"), None, Decimal(100)),
    }
    waiting = {row["cell"]: row for row in books.read("select cell, reason, raw_value from report.quarantine")}
    assert sorted(waiting) == ["'Cables'!B6", "'Cables'!E7", "'Lamps'!A6"]
    assert "'Cables'!B6" in waiting["'Lamps'!A6"]["reason"]
    assert "'Lamps'!A6" in waiting["'Cables'!B6"]["reason"]
    dear = held(books)[-1]
    for price, taken_in in (("very dear", 0), ("3", 1)):
        settled = settle(
            books, [dear], [CorrectedRow(dear.row_id, 0, {"customer_price": price})], load_contract(contract)
        )
        assert settled.taken_in == taken_in
        dear = held(books)[-1]
        assert [reason["cell"] for reason in dear.reasons] == (["'Cables'!B6"] if taken_in else ["'Cables'!E7"])
    assert products(books)["C-2"]["category"] == "By the metre"


def test_a_sheet_without_a_required_heading_refuses_the_workbook(books: Books, tmp_path: Path) -> None:
    """What that sheet lists would otherwise count as gone; the sheet and the heading are named."""
    broken: Rows = [["Name", "Price", "Currency"], ["Cable", 2, "EUR"]]
    good: Rows = [["Part number", "Name", "Price", "Currency"], ["L-1", "Lamp", 10, "EUR"]]
    path = _workbook(tmp_path / "list.xlsx", {"Lamps": good, "Cables": broken})
    contract = catalog_contract(tmp_path, contract={"dialect": {"sheetsTogether": True}})
    outcome = books.take_in(path, contract, DAY)
    assert outcome.state == "refused"
    assert any("part_number not found" in reason for reason in outcome.reasons)
    assert any("of sheet 'Cables'" in reason for reason in outcome.reasons)


def test_the_name_of_a_sheet_may_be_its_category(books: Books, tmp_path: Path) -> None:
    """Where the contract says so, products take the name of the sheet they stand on; another day changes nothing."""
    head = ["Part number", "Price", "Currency"]
    sheets: dict[str, Rows] = {
        "Lamps": [head, ["L-1", 10, "EUR"]],
        "Empty": [head],
        "Cables": [head, ["C-1", 2, "EUR"]],
    }
    contract = catalog_contract(tmp_path, contract={"sheetNames": "category", "dialect": {"sheetsTogether": True}})
    path = _workbook(tmp_path / "list.xlsx", sheets)
    assert books.take_in(path, contract, DAY).inserted == 2
    assert {p: row["category"] for p, row in products(books).items()} == {"L-1": "Lamps", "C-1": "Cables"}
    assert books.take_in(path, contract, date(2026, 11, 9)).unchanged == 2


def test_variants_take_from_the_parent_row_above_them(books: Books, tmp_path: Path) -> None:
    """A parent row of several cells but no price lends its name and group to the rows below, and is no product."""
    rows: Rows = [
        ["Part number", "Name", "Category", "Size", "Price", "Currency"],
        ["T-100", "T-shirt", "Clothes", "", "", ""],
        ["T-100-S", "", "", "S", 10, "EUR"],
        ["T-100-M", "", "", "M", 11, "EUR"],
        ["M-7", "Mug", "Kitchen", "", 5, "EUR"],
        ["TOTAL 7", "Gear oil", "", "", 9, "EUR"],
        ["Total", "", "", "", 35, ""],
    ]
    above = {"fillDown": "*"}
    contract = catalog_contract(tmp_path, contract={"rowsNeed": ["customer_price"]}, name=above, category=above)
    outcome = books.take_in(_workbook(tmp_path / "list.xlsx", {"Shirts": rows}), contract, DAY)
    assert (outcome.rows_read, outcome.inserted) == (4, 4)
    assert {p: (row["name"], row["category"]) for p, row in products(books).items()} == {
        "T-100-S": ("T-shirt", "Clothes"),
        "T-100-M": ("T-shirt", "Clothes"),
        "M-7": ("Mug", "Kitchen"),
        "TOTAL 7": ("Gear oil", "Kitchen"),
    }
