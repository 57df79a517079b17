"""Catalogues become products, prices with validity, stock and packages; what is left out is discontinued, not lost."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import xlsxwriter

from configs.settings import Settings
from tests.catalogues import DAY, catalog_contract, delta, full, prices, product, products, state
from tests.corrections import correct, held, reject
from tests.ledgers import Books, write_csv

WEEK = timedelta(weeks=1)


@pytest.fixture
def books(kontor_settings: Settings) -> Books:
    """An empty database."""
    return Books(kontor_settings)


def test_the_polish_list_is_inserted_once_and_a_second_run_changes_nothing(books: Books, real_data: Path) -> None:
    """5,000 products with two prices and a stock each; the same file of another day changes none of them."""
    path = real_data / "catalog" / "poland-electrical-wholesale" / "price_list_first_5000.xlsx"
    first = books.take_in(path, "polish_price_list", DAY)
    assert (first.rows_read, first.inserted, first.quarantined) == (5000, 5000, 0)
    before = state(books)
    again = books.take_in(path, "polish_price_list", DAY + WEEK)
    assert (again.unchanged, again.inserted, again.updated, again.settled) == (5000, 0, 0, 0)
    after = state(books)
    assert {row["true_on"] for row in after.pop("known_stock")} == {DAY + WEEK}
    assert {row["true_on"] for row in before.pop("known_stock")} == {DAY}
    assert after == before
    counts = [len(before[name]) for name in ("products", "prices", "stock")]
    assert counts == [5000, 10000, 5000]
    figures = books.read(
        "select count(*) filter (where length(gtin) = 13) as thirteen,"
        " count(*) filter (where gtin like '0%') as padded,"
        " count(*) filter (where not crm.gtin_is_right(gtin)) as wrong,"
        " count(*) filter (where part_number ~ '^[0-9]+$') as digits,"
        " count(*) filter (where part_number like '0%') as zeros from crm.products"
    )[0]
    assert figures == _expected_of_the_polish_list(path)


def _expected_of_the_polish_list(path: Path) -> dict[str, int]:
    """The same figures counted from the cells, by the standard library alone."""
    from python_calamine import CalamineWorkbook

    rows = CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python()[1:]
    numbers, gtins = [str(row[0]) for row in rows], [str(row[8]).zfill(13) for row in rows]
    right = [sum(int(d) * (3 if place % 2 else 1) for place, d in enumerate(reversed(g))) % 10 == 0 for g in gtins]
    return {
        "thirteen": len(gtins),
        "padded": sum(g.startswith("0") for g in gtins),
        "wrong": right.count(False),
        "digits": sum(n.isdigit() for n in numbers),
        "zeros": sum(n.startswith("0") for n in numbers),
    }


def test_numbers_match_without_case_spaces_and_dashes_and_stay_as_sent(books: Books, tmp_path: Path) -> None:
    """``ab-12 c`` updates ``AB12C``; leading zeros make another product, and an all-digit number stays a text."""
    full(books, tmp_path, [product("AB12C"), product("007"), product("7")])
    outcome = delta(books, tmp_path, [product("ab-12 c", name="Renamed")], DAY + WEEK)
    assert (outcome.updated, outcome.inserted) == (1, 0)
    assert {p: row["name"] for p, row in products(books).items()} == {
        "ab-12 c": "Renamed",
        "007": "Product 007",
        "7": "Product 7",
    }


def test_two_rows_of_one_number_are_both_quarantined_with_each_others_address(books: Books, tmp_path: Path) -> None:
    """The file says which rows collide, also where they are written differently."""
    outcome = full(books, tmp_path, [product("A-1"), product("B"), product("a 1")])
    assert (outcome.inserted, outcome.quarantined) == (1, 2)
    found = books.read("select cell, column_name, reason from report.quarantine order by row_number")
    assert [(row["cell"], row["column_name"]) for row in found] == [("A2", "part_number"), ("A4", "part_number")]
    assert ["A4" in found[0]["reason"], "A2" in found[1]["reason"]] == [True, True]


def test_a_changed_price_ends_the_old_one_on_the_day_of_the_file(books: Books, tmp_path: Path) -> None:
    """The timeline has both prices; a blank price in a file that has the column ends it."""
    full(books, tmp_path, [product("A", customer_price="10.00", dealer_price="8.00")])
    full(books, tmp_path, [product("A", customer_price="12.50", dealer_price="8.00")], DAY + WEEK)
    full(books, tmp_path, [product("A", customer_price="", dealer_price="8.00")], DAY + 2 * WEEK)
    one = Decimal("1.0000")
    assert prices(books) == [
        ("A", "customer", "EUR", "", one, DAY, DAY + WEEK, Decimal("10.0000")),
        ("A", "customer", "EUR", "", one, DAY + WEEK, DAY + 2 * WEEK, Decimal("12.5000")),
        ("A", "dealer", "EUR", "", one, DAY, None, Decimal("8.0000")),
    ]
    changes = books.read("select kind, changed_on, old_amount, new_amount, percent from report.price_changes")
    assert [tuple(row.values()) for row in changes] == [
        ("customer", DAY + WEEK, Decimal("10"), Decimal("12.5"), Decimal("25.00"))
    ]


def test_a_file_that_comes_late_is_laid_beneath_the_newer_ones(books: Books, tmp_path: Path) -> None:
    """The file of the second week arrives last; what the third confirmed in silence holds again from its day on."""
    for place in (0, 2, 1):
        amount = "11.00" if place == 1 else "10.00"
        full(books, tmp_path, [product("A", customer_price=amount, stock=place)], DAY + place * WEEK)
    days = [DAY, DAY + WEEK, DAY + 2 * WEEK, None]
    assert [row[5:] for row in prices(books)] == [
        (days[0], days[1], Decimal("10.0000")),
        (days[1], days[2], Decimal("11.0000")),
        (days[2], days[3], Decimal("10.0000")),
    ]
    assert state(books)["known_stock"][0]["quantity"] == 2


def test_what_a_complete_file_leaves_out_is_discontinued_and_comes_back(books: Books, tmp_path: Path) -> None:
    """Discontinued with the day, never deleted; a row in quarantine still lists its product; a delta takes it back."""
    full(books, tmp_path, [product("A"), product("B"), product("C", customer_price="1")])
    outcome = full(books, tmp_path, [product("A"), product("C", customer_price="much")], DAY + WEEK)
    assert (outcome.settled, outcome.quarantined) == (1, 1)
    gone = {p: row["discontinued_on"] for p, row in products(books).items()}
    assert gone == {"A": None, "B": DAY + WEEK, "C": None}
    shown = books.read("select part_number, status from report.catalog order by 1")
    assert [tuple(row.values()) for row in shown] == [("A", "active"), ("B", "discontinued"), ("C", "active")]
    back = delta(books, tmp_path, [product("B")], DAY + 2 * WEEK)
    assert back.updated == 1
    assert products(books)["B"]["discontinued_on"] is None


def test_prices_by_quantity_unit_and_currency_come_in_several_rows(books: Books, tmp_path: Path) -> None:
    """A contract with more columns in its key reads several rows of one product; equal keys still collide."""
    contract = catalog_contract(tmp_path, keys=("currency", "unit", "min_quantity", "warehouse"))
    rows = [
        product("A", unit="st", min_quantity=1, customer_price="10", warehouse="N", stock=3),
        product("A", unit="st", min_quantity=100, customer_price="9", warehouse="N", stock=3),
        product("A", unit="förp", min_quantity=1, customer_price="95", warehouse="N", stock=3),
        product("A", unit="st", min_quantity=1, customer_price="110", warehouse="S", stock=4) | {"currency": "SEK"},
        product("B", unit="st", min_quantity=1, customer_price="1", warehouse="", stock=1),
        product("b", unit="szt.", min_quantity=1, customer_price="2", warehouse="", stock=1),
    ]
    outcome = books.take_in(write_csv(tmp_path / "list.csv", rows), contract, DAY)
    assert (outcome.inserted, outcome.quarantined) == (4, 2)
    assert [(row[2], row[3], row[4], row[7]) for row in prices(books)] == [
        ("EUR", "C62", 1, 10),
        ("EUR", "C62", 100, 9),
        ("EUR", "PK", 1, 95),
        ("SEK", "C62", 1, 110),
    ]
    assert [(row["warehouse"], row["quantity"]) for row in state(books)["stock"]] == [("N", 3), ("S", 4)]
    again = books.take_in(write_csv(tmp_path / "list.csv", rows), contract, DAY + WEEK)
    assert (again.unchanged, again.updated) == (4, 0)


def test_promotions_begin_and_end_on_their_days(books: Books, tmp_path: Path) -> None:
    """A promotion that lies ahead holds on its days only, and a file that no longer names it takes it back."""
    first, last = DAY + timedelta(days=10), DAY + timedelta(days=20)
    row = product("A", customer_price="10", promo_price="7", promo_from=first, promo_to=last)
    full(books, tmp_path, [row])
    assert [r[5:] for r in prices(books) if r[1] == "promo"] == [(first, last + timedelta(days=1), Decimal(7))]
    on = "select promo_price from report.catalog(:day)"
    found = [books.read(on, day=day)[0]["promo_price"] for day in (first - timedelta(days=1), first, last)]
    assert found == [None, Decimal(7), Decimal(7)]
    assert books.read(on, day=last + timedelta(days=1))[0]["promo_price"] is None
    full(books, tmp_path, [row | {"promo_price": "", "promo_from": "", "promo_to": ""}], DAY + WEEK)
    assert [r for r in prices(books) if r[1] == "promo"] == []


def test_the_database_itself_refuses_prices_that_overlap(books: Books, tmp_path: Path) -> None:
    """Whoever writes a second price for a day that has one is refused, however it is written."""
    from sqlalchemy import text
    from sqlalchemy.exc import IntegrityError

    from tasks.database import OWNER, engine_for

    full(books, tmp_path, [product("A", customer_price="10")])
    statement = text(
        "insert into crm.product_prices select product_id, kind, currency, unit, min_quantity, :day, null, 11,"
        " feed_file_id from crm.product_prices"
    )
    with engine_for(books.settings, OWNER).begin() as connection, pytest.raises(IntegrityError, match="hold on"):
        connection.execute(statement, {"day": date(2026, 12, 1)})


def test_warnings_keep_the_row_and_errors_set_it_aside(books: Books, tmp_path: Path) -> None:
    """Ladder, negative stock, zero prices and check digits warn; a price without currency is quarantined."""
    rows = [
        product("A", customer_price="5", dealer_price="6", promo_price="", stock=1, gtin="4006381333931"),
        product("B", customer_price="5", dealer_price="4", promo_price="4.5", stock=-2, gtin="4006381333932"),
        product("C", customer_price="5", dealer_price="", promo_price="6", stock="", gtin="") | {"currency": ""},
        product("D", customer_price="-1", dealer_price="", promo_price="", stock="", gtin=""),
    ]
    outcome = full(books, tmp_path, rows)
    assert (outcome.inserted, outcome.warned, outcome.quarantined) == (2, 3, 2)
    ladder = books.read("select part_number from report.price_ladder order by 1")
    assert [row["part_number"] for row in ladder] == ["A", "B"]
    shown = books.read("select part_number, gtin_is_right, stock from report.catalog order by 1")
    assert [tuple(row.values()) for row in shown] == [("A", True, 1), ("B", False, -2)]


def test_stock_by_warehouse_and_prices_by_quantity_come_alone(books: Books, tmp_path: Path) -> None:
    """A row per warehouse, a row per currency and quantity, by contracts that come with Kontor; the rest stays."""
    full(books, tmp_path, [product("A", unit="st", customer_price=10, stock=1), product("B", unit="st")])
    stock = [{"part_number": "A", "warehouse": place, "stock": n} for n, place in enumerate(("N", "S", "N"))]
    stock += [{"part_number": "B", "warehouse": place, "stock": n} for n, place in enumerate(("N", "S"), 5)]
    outcome = books.take_in(write_csv(tmp_path / "stock_2026-11-03_0930.csv", stock), "catalog_stock")
    assert (outcome.updated, outcome.quarantined) == (3, 2)
    shown = books.read("select part_number, warehouse, quantity, true_on, written_at from report.stock order by 1, 2")
    assert [tuple(row.values())[:4] for row in shown] == [
        ("A", "", 1, DAY),
        ("A", "S", 1, DAY + timedelta(days=1)),
        ("B", "N", 5, DAY + timedelta(days=1)),
        ("B", "S", 6, DAY + timedelta(days=1)),
    ]
    assert all(row["written_at"].date() >= date(2026, 1, 1) for row in shown)
    said = [
        {"part_number": "A", "currency": currency, "unit": "st", "min_quantity": least, "customer_price": amount}
        for currency, least, amount in (("EUR", 1, 11), ("EUR", 10, 9), ("SEK", 1, 120))
    ]
    outcome = books.take_in(write_csv(tmp_path / "prices_2026-11-04.csv", said), "catalog_prices")
    assert (outcome.updated, outcome.quarantined) == (3, 0)
    held = books.read("select currency, min_quantity, amount from report.prices('2026-11-04') order by 1, 2")
    assert [tuple(row.values()) for row in held] == [("EUR", 1, 11), ("EUR", 10, 9), ("SEK", 1, 120)]
    assert {number: row["name"] for number, row in products(books).items()} == {"A": "Product A", "B": "Product B"}


def test_a_number_that_lost_digits_is_no_part_number(books: Books, tmp_path: Path) -> None:
    """Sixteen digits stored as a number wait in quarantine; fifteen, and sixteen stored as text, are right."""
    path = tmp_path / "catalog_2026-11-02.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        numbers = ["Part number", 123456789012345, 1234567890123456, "1234567890123456", 12345678901234567890]
        sheet.write_column(0, 0, numbers)
        sheet.write_column(0, 1, ["Name", *"abcd"])
    outcome = books.take_in(path, "catalog")
    assert (outcome.inserted, outcome.quarantined) == (2, 2)
    assert sorted(products(books)) == ["123456789012345", "1234567890123456"]
    assert {row["reason"].split(",")[0] for row in books.read("select reason from report.quarantine")} == {
        "part_number is a number of more digits than a spreadsheet keeps"
    }


def test_the_ladder_holds_at_every_quantity_and_across_ways_to_write_a_unit(books: Books, tmp_path: Path) -> None:
    """A dealer who takes ten is held against the customer's price for ten; a blank unit is the product's own."""
    contract = catalog_contract(tmp_path, keys=("min_quantity",), mode="records")
    rows = [
        product("TEN", unit="st", min_quantity=1, customer_price=20, dealer_price=15),
        product("TEN", unit="st", min_quantity=10, customer_price=12, dealer_price=""),
        product("FINE", unit="st", min_quantity=1, customer_price=20, dealer_price=15),
        product("FINE", unit="st", min_quantity=10, customer_price=16, dealer_price=""),
        product("UNIT", unit="st", min_quantity=1, customer_price=20, dealer_price=15),
    ]
    books.take_in(write_csv(tmp_path / "list.csv", rows), contract, DAY)
    alone = {"part_number": "UNIT", "currency": "EUR", "dealer_price": 21}
    assert delta(books, tmp_path, [alone], DAY + WEEK).state == "applied"
    found = books.read("select part_number, unit, min_quantity, customer_price, dealer_price from report.price_ladder")
    assert sorted(tuple(row.values()) for row in found) == [
        ("TEN", "C62", Decimal(10), Decimal(12), Decimal(15)),
        ("UNIT", "C62", Decimal(1), Decimal(20), Decimal(21)),
    ]


def test_corrected_rows_come_in_beneath_newer_files_and_rejected_ones_were_never_listed(
    books: Books, tmp_path: Path
) -> None:
    """A corrected price holds up to the newer file's; a product whose row is given up is gone since that list."""
    a, b, c = (product(part, customer_price="10", stock="") for part in ("A", "B", "C"))
    full(books, tmp_path, [a, b, c])
    full(books, tmp_path, [a | {"customer_price": "dear"}, b | {"stock": "many"}, c], DAY + WEEK)
    full(books, tmp_path, [a | {"customer_price": "14"}, b | {"stock": "lots"}, c], DAY + 2 * WEEK)
    waiting = {(row.as_of, row.row_number): row for row in held(books)}
    still = correct(books, waiting[DAY + WEEK, 2], customer_price="very dear")
    assert (still.taken_in, len(still.still_wrong)) == (0, 1)
    done = correct(books, held(books)[0], customer_price="12")
    assert (done.taken_in, done.still_wrong) == (1, ())
    assert [row[5:] for row in prices(books) if row[0] == "A"] == [
        (DAY, DAY + WEEK, Decimal(10)),
        (DAY + WEEK, DAY + 2 * WEEK, Decimal(12)),
        (DAY + 2 * WEEK, None, Decimal(14)),
    ]
    assert products(books)["B"]["discontinued_on"] is None
    reject(books, waiting[DAY + 2 * WEEK, 3], "it is no longer made")
    assert products(books)["B"]["discontinued_on"] == DAY + 2 * WEEK
    counts = books.read(
        "select bool_and(rows_read = inserted + updated + unchanged + quarantined + superseded) as whole"
        " from landing.feed_files"
    )
    assert counts == [{"whole": True}]
