"""Catalogues that others wrote: every figure is counted from the file by other means than the ones under test."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from configs.settings import Settings
from tasks.feeds.casting import cast_table
from tasks.feeds.contracts import load_contract
from tasks.feeds.reading import read_table
from tests.catalogues import DAY, catalog_contract, prices, products
from tests.ledgers import Books, write_csv


@pytest.fixture
def books(kontor_settings: Settings) -> Books:
    """An empty database."""
    return Books(kontor_settings)


@pytest.fixture
def catalogues(real_data: Path) -> Path:
    """The folder of real catalogues."""
    return real_data / "catalog"


def test_the_swedish_list_has_its_sums_and_units(books: Books, catalogues: Path) -> None:
    """26 products, list 10,460.80 and net 7,186.36 kronor, in metres, pieces, packages and pairs."""
    path = catalogues / "nordic" / "demo_grossisten_prislista.csv"
    outcome = books.take_in(path, "swedish_price_list", DAY)
    assert (outcome.inserted, outcome.quarantined) == (26, 0)
    sums = books.read("select sum(customer_price) as list, sum(dealer_price) as net from report.catalog")
    assert sums == [{"list": Decimal("10460.80"), "net": Decimal("7186.36")}]
    units = books.read("select unit, count(*) as products from report.catalog group by 1 order by 1")
    assert {row["unit"]: row["products"] for row in units} == {"C62": 18, "MTR": 5, "PK": 2, "PR": 1}


def test_a_month_of_shop_lines_is_read_to_the_last_line_and_penny(catalogues: Path) -> None:
    """Lines, invoices, credit notes, customers, codes with and without regard to capitals: as counted by others."""
    contract = load_contract("shop_lines")
    raws = [read_table(path, contract) for path in sorted((catalogues / "online-retail").glob("2010-12-*.csv"))]
    month = pd.concat([cast_table(raw, contract).frame for raw in raws])
    whole = [raw.frame.join(raw.other).drop(columns="row_number") for raw in raws]
    amounts = [q * p for q, p in zip(month["quantity"], month["customer_price"], strict=True)]
    credit = month["invoice_number"].str.startswith("C")
    codes, customers = month["part_number"], month["customer_number"]
    assert (len(month), month["invoice_number"].nunique(), sum(amounts)) == (42_481, 2_025, Decimal("748957.02"))
    assert month["invoice_number"][credit].nunique() == 326
    assert sum(amount for amount, is_credit in zip(amounts, credit, strict=True) if is_credit) == Decimal("-74789.12")
    assert (customers.nunique(), int(customers.isna().sum())) == (948, 15_631)
    assert (codes.nunique(), codes.str.upper().nunique(), month["part_key"].nunique()) == (2_822, 2_762, 2_762)
    assert (int((month["customer_price"] == 0).sum()), int(pd.concat(whole).duplicated().sum())) == (273, 500)


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.campaign)])
def test_a_month_of_shop_lines_becomes_a_catalogue(books: Books, catalogues: Path, every: int) -> None:
    """A month, or four days of it: the last line of a day with a price counts; capitals make no other product."""
    last: dict[str, tuple[str, Decimal]] = {}
    rows = free = free_at_last = 0
    files = sorted((catalogues / "online-retail").glob("2010-12-*.csv"))
    for path in files[::every]:
        day = date.fromisoformat(path.stem)
        outcome = books.take_in(path, "shop_lines", day, accepted_guards=("prices_jumped",), reason="discounts")
        assert outcome.state == "applied", outcome.reasons
        with path.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
        of_day = {line["StockCode"].upper(): (line["StockCode"], Decimal(line["UnitPrice"] or 0)) for line in lines}
        rows, free = rows + len(lines), free + sum(Decimal(line["UnitPrice"] or 0) == 0 for line in lines)
        free_at_last += outcome.quarantined
        assert outcome.rows_read == len(lines)
        assert outcome.quarantined == sum(price == 0 for _, price in of_day.values())
        last |= {key: item for key, item in of_day.items() if item[1] > 0}
    assert (rows, free) == ((42_481, 273) if every == 1 else (7_395, 84))
    assert 0 < free_at_last < free
    assert len(last) < 2_762  # of the 2,762 codes some never had a price
    shown = books.read("select part_number, customer_price from report.catalog(:day)", day=date(2010, 12, 31))
    assert {row["part_number"].upper(): row["customer_price"] for row in shown} == {
        key: price for key, (_, price) in last.items()
    }
    assert {row["part_number"] for row in shown} == {code for code, _ in last.values()}


def test_price_histories_keep_their_periods_and_rates_their_days(
    books: Books, catalogues: Path, tmp_path: Path
) -> None:
    """504 part numbers, 293 with a price history of which 195 are open-ended, 14 currency pairs."""
    folder = catalogues / "adventureworks"
    numbers = {row[0]: row for row in _tabbed(folder / "Product.csv")}
    listed = [
        {"part_number": row[2], "name": row[1], "customer_price": row[9], "currency": "USD"} for row in numbers.values()
    ]
    assert len(listed) == 504
    history = [
        {
            "part_number": numbers[row[0]][2],
            "valid_from": row[1][:10],
            "valid_to": row[2][:10],
            "customer_price": row[3],
            "currency": "USD",
        }
        for row in _tabbed(folder / "ProductListPriceHistory.csv")
    ]
    contract = catalog_contract(tmp_path, keys=("currency", "valid_from"), mode="records")
    outcome = books.take_in(write_csv(tmp_path / "history.csv", history), contract, date(2025, 1, 1))
    assert (outcome.rows_read, outcome.inserted, outcome.quarantined) == (395, 395, 0)
    held = prices(books)
    assert len({row[0] for row in held}) == 293
    assert len([row for row in held if row[6] is None]) == 195
    assert _days_of(held) == _days_of_rows(history)
    assert books.take_in(write_csv(tmp_path / "again.csv", history), contract, date(2025, 1, 8)).unchanged == 395
    full = books.take_in(write_csv(tmp_path / "list.csv", listed), "catalog", date(2025, 2, 1))
    assert (full.inserted, full.updated + full.unchanged) == (504 - 293, 293)
    sums = books.read("select count(*) as products, sum(customer_price) as prices from report.catalog('2025-02-01')")
    assert sums == [{"products": 504, "prices": sum(Decimal(row[9]) for row in numbers.values())}]
    assert sums[0]["prices"].quantize(Decimal("0.01")) == Decimal("221087.79")
    rates = [
        {"base": row[2], "quote": row[3], "rated_on": row[1][:10], "rate": row[5]}
        for row in _tabbed(folder / "CurrencyRate.csv")
    ]
    taken = books.take_in(write_csv(tmp_path / "rates.csv", rates), "currency_rates", date(2025, 6, 1))
    assert (taken.rows_read, taken.inserted, taken.quarantined) == (13_532, 13_532, 0)
    assert books.read("select count(distinct (base, quote)) as pairs from crm.currency_rates") == [{"pairs": 14}]


def _tabbed(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text("utf-8").splitlines()]


def _days_of(held: list[tuple[object, ...]]) -> dict[tuple[object, date], object]:
    """What holds on the first and the last day of every month of the history."""
    days = [date(2022, 5, 30) + timedelta(days=n) for n in range(0, 1000, 10)]
    return {
        (row[0], day): row[7]
        for row in held
        for day in days
        if row[5] <= day and (row[6] is None or day < row[6])  # type: ignore[operator]
    }


def _days_of_rows(rows: list[dict[str, str]]) -> dict[tuple[object, date], object]:
    days = [date(2022, 5, 30) + timedelta(days=n) for n in range(0, 1000, 10)]
    return {
        (row["part_number"], day): Decimal(row["customer_price"])
        for row in rows
        for day in days
        if date.fromisoformat(row["valid_from"]) <= day <= date.fromisoformat(row["valid_to"] or "9999-12-31")
    }


@pytest.mark.parametrize("name", ["apparel", "home-and-garden", "jewelery"])
def test_variants_below_their_product_inherit_its_title(books: Books, catalogues: Path, name: str) -> None:
    """Every row with a price is a variant under its own number and name; rows of pictures are none."""
    path = catalogues / "shopify" / f"{name}.csv"
    outcome = books.take_in(path, "shopify_products", DAY)
    expected = dict(_variants(path))
    assert expected
    assert (outcome.rows_read, outcome.inserted, outcome.quarantined) == (len(expected), len(expected), 0)
    found = books.read("select part_number, name, customer_price, category, stock, status from report.catalog")
    assert {row.pop("part_number"): tuple(row.values()) for row in found} == expected


def _variants(path: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    titles: dict[str, tuple[str, str | None]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            handle = row["Handle"]
            if row["Title"]:
                titles[handle] = (row["Title"], row["Type"] or None)
            if not row["Variant Price"]:
                continue
            options = [row[f"Option{n} Value"] for n in (1, 2, 3)]
            options = [option for option in options if option and option != "Default Title"]
            title, kind = titles[handle]
            number = row["Variant SKU"] or "/".join([handle, *options])
            stock = Decimal(row["Variant Inventory Qty"])
            yield number, (", ".join([title, *options]), Decimal(row["Variant Price"]), kind, stock, "active")


def test_a_whole_small_shop_is_taken_in(books: Books, catalogues: Path, tmp_path: Path) -> None:
    """77 products with prices and stock; four prices that are no exact decimals wait in quarantine, none is rounded."""
    values = r"(\d+), '(.*)', \d+, \d+, '(.*)', ([\d.]+), (\d+), \d+, \d+, (\d)"
    statement = re.compile(rf"^INSERT INTO products VALUES \({values}\);")
    text = (catalogues / "northwind" / "northwind.sql").read_text("utf-8")
    shop = [found.groups() for line in text.splitlines() if (found := statement.match(line))]
    rows = [
        {
            "Product no": number,
            "Product name": name.replace("''", "'"),
            "Description": size.replace("''", "'"),
            "Unit price": price,
            "Units in stock": stock,
            "Status": "discontinued" if gone == "1" else "active",
            "Currency": "USD",
        }
        for number, name, size, price, stock, gone in shop
    ]
    assert len(rows) == 77
    noise = Decimal("0.000001")  # of binary fractions; what differs by more may be meant
    cents = {row[0]: Decimal(row[3]).quantize(Decimal("0.0001")) for row in shop}
    exact = [row for row in shop if abs(Decimal(row[3]) - cents[row[0]]) < noise]
    outcome = books.take_in(write_csv(tmp_path / "shop.csv", rows), "catalog", DAY)
    assert (outcome.inserted, outcome.quarantined) == (len(exact), 77 - len(exact)) == (73, 4)
    reasons = {row["reason"] for row in books.read("select reason from report.quarantine")}
    assert reasons == {"customer_price has more than 4 decimals"}
    gone = sum(row["status"] == "discontinued" for row in products(books).values())
    assert gone == sum(row[5] == "1" for row in exact)
    sums = books.read("select sum(customer_price) as prices, sum(stock) as stock from report.catalog")
    assert sums == [{"prices": sum(cents[row[0]] for row in exact), "stock": sum(int(row[4]) for row in exact)}]


def test_products_below_a_heading_take_its_group(books: Books, tmp_path: Path) -> None:
    """Headings over groups of rows become the category of the rows below them; they are no products."""
    path = tmp_path / "grouped.csv"
    path.write_text(
        "Part number,Name,Price,Currency\nLamps,,,\nL1,Lamp,10,EUR\nL2,Lamp two,11,EUR\nCables,,,\nC1,Cable,2,EUR\n",
        encoding="utf-8",
    )
    contract = catalog_contract(tmp_path, contract={"groupHeadings": "category"})
    outcome = books.take_in(path, contract, DAY)
    assert (outcome.rows_read, outcome.inserted) == (3, 3)
    assert {p: row["category"] for p, row in products(books).items()} == {"L1": "Lamps", "L2": "Lamps", "C1": "Cables"}
