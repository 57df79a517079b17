"""A dry run tells what a catalogue would change, field by field, in a table and a workbook, and changes nothing."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

from python_calamine import CalamineWorkbook

from configs.settings import Settings
from tasks import ledger
from tasks.catalog.difference import FileDifference, as_workbook, shown_rows
from tasks.catalog.measures_store import measure_catalog
from tasks.catalog.store import apply_catalog
from tasks.feeds.contracts import load_contract
from tasks.feeds.intake import Given, InboxFile, take_in_file
from tasks.feeds.outcomes import Braked
from tests.catalogues import DAY, full, product, state
from tests.ledgers import TODAY, Books, write_csv


def _dry_run(books: Books, path: Path, as_of: date) -> FileDifference:
    differences: list[FileDifference] = []
    apply = Braked(partial(apply_catalog, differences=differences), measure_catalog)
    with ledger.open_run(books.engine, "test", as_of=TODAY, dry_run=True, prefect_run_id=None, actor="test") as run:
        given = Given(TODAY, as_of, dry_run=True)
        take_in_file(
            books.engine, InboxFile(path, load_contract("catalog")), given=given, run_id=run.run_id, apply=apply
        )
    return differences[0]


def test_a_dry_run_names_every_change_and_keeps_none(kontor_settings: Settings, tmp_path: Path) -> None:
    """New, changed with old and new value, discontinued and quarantined; formulas are made harmless in the workbook."""
    books = Books(kontor_settings)
    rows = [product(part, customer_price="10", stock=5) for part in ("A", "B", "C", "D")]
    full(books, tmp_path, rows)
    before = state(books)
    changed = [
        product("A", customer_price="12.5", stock=5),
        {**product("B", customer_price="10", stock=4), "name": "=1+1"},
        product("E", customer_price="3", stock=1),
        product("D", customer_price="dear", stock=1),
    ]
    found = _dry_run(books, write_csv(tmp_path / "next.csv", changed), DAY + timedelta(weeks=1))
    assert state(books) == before
    assert found.totals == {"added": 1, "changed": 3, "quarantined": 1, "discontinued": 1}
    assert [row["part_number"] for row in found.added] == ["E"]
    assert [tuple(row.values()) for row in found.changed] == [
        ("A", "Product A", "customer price EUR", "10", "12.5", DAY + timedelta(weeks=1), Decimal("25.0")),
        ("B", "Product B", "name", "Product B", "=1+1", None, None),
        ("B", "Product B", "stock", "5", "4", None, None),
    ]
    assert [row["part_number"] for row in found.discontinued] == ["C"]
    assert [row["column_name"] for row in found.quarantined] == ["customer_price"]
    assert [row["what"] for row in shown_rows(found)] == ["new", *["changed"] * 3, "discontinued", "quarantined"]
    book = CalamineWorkbook.from_filelike(io.BytesIO(as_workbook(found, now=datetime(2026, 11, 22, tzinfo=UTC))))
    assert book.sheet_names == ["Totals", "New", "Changed", "Discontinued", "Quarantined"]
    cells = book.get_sheet_by_name("Changed").to_python()
    assert cells[0] == ["part number", "name", "field", "old", "new", "from day", "percent"]
    assert cells[1][:5] == ["A", "Product A", "customer price EUR", 10, 12.5]
    assert cells[2][:5] == ["B", "Product B", "name", "Product B", "'=1+1"]
    assert book.get_sheet_by_name("Totals").to_python()[1] == ["products that are new", 1]
    assert book.get_sheet_by_name("New").to_python()[1][0] == "E"
    assert Decimal(str(book.get_sheet_by_name("New").to_python()[1][3])) == 3


def test_packages_and_products_that_come_back_are_changes(kontor_settings: Settings, tmp_path: Path) -> None:
    """How much a package holds, and that a discontinued product is listed again, are told like fields."""
    books = Books(kontor_settings)
    box = {"content_unit": "st", "content_quantity": 6, "pack_unit": "", "pack_quantity": ""}
    full(books, tmp_path, [product("A", unit="box", **box), *(product(f"X{n}") for n in range(10))])
    full(books, tmp_path, [product(f"X{n}") for n in range(10)], DAY + timedelta(weeks=1))
    again = product("A", unit="box", **box) | {"content_quantity": 5, "pack_unit": "pallet", "pack_quantity": 40}
    rows = [again, *(product(f"X{n}") for n in range(10))]
    headings = list(again)
    found = _dry_run(books, write_csv(tmp_path / "next.csv", rows, headings), DAY + timedelta(weeks=2))
    assert [(row["field"], row["old"], row["new"]) for row in found.changed] == [
        ("discontinued", str(DAY + timedelta(weeks=1)), None),
        ("one C62 holds", "0.1667", "0.2"),
        ("one PF holds", None, "40"),
    ]


def test_a_price_without_a_unit_takes_the_place_of_one_per_the_products_own(
    kontor_settings: Settings, tmp_path: Path
) -> None:
    """One change of price is told as one, with the old and the new amount; the same amount is none."""
    books = Books(kontor_settings)
    full(books, tmp_path, [product(part, unit="st", customer_price="10") for part in ("A", "B")])
    rows = [{"part_number": part, "currency": "EUR", "customer_price": price} for part, price in (("A", 12), ("B", 10))]
    found = _dry_run(books, write_csv(tmp_path / "next.csv", rows), DAY + timedelta(weeks=1))
    assert [(row["part_number"], row["field"], row["old"], row["new"]) for row in found.changed] == [
        ("A", "customer price EUR C62", "10", "12"),
    ]


def test_a_dry_run_of_what_is_held_already_changes_nothing(kontor_settings: Settings, tmp_path: Path) -> None:
    """The same rows of a later day: every list is empty."""
    books = Books(kontor_settings)
    rows = [product("A", customer_price="10", promo_price="8", promo_from=DAY, promo_to=DAY + timedelta(days=30))]
    full(books, tmp_path, rows)
    found = _dry_run(books, write_csv(tmp_path / "next.csv", rows), DAY + timedelta(weeks=1))
    assert found.totals == {"added": 0, "changed": 0, "quarantined": 0, "discontinued": 0}
