"""BMEcat 1.2 and 2005 are read as catalogues; what only looks like one, or attacks its reader, is refused in words."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from configs.settings import Settings
from tasks.errors import FileRefused
from tasks.feeds.confined import read_confined
from tasks.feeds.contracts import load_contract
from tests.catalogues import prices, products
from tests.ledgers import Books

GENERATED = date(2000, 10, 24)


@pytest.fixture
def books(kontor_settings: Settings) -> Books:
    """An empty database."""
    return Books(kontor_settings)


@pytest.mark.parametrize("version", ["bmecat12", "bmecat2005"])
def test_both_versions_say_the_same_of_the_same_product(books: Books, real_data: Path, version: str) -> None:
    """One product with two prices by quantity, per box of six, for half a year; its day stands in the file."""
    path = real_data / "catalog" / "bmecat" / f"olivere_{version}_new_catalog.golden.xml"
    outcome = books.take_in(path, "bmecat")
    assert (outcome.as_of, outcome.rows_read, outcome.inserted) == (GENERATED, 2, 2)
    product = products(books)["1000"]
    assert [product[name] for name in ("name", "unit", "gtin")] == ['Apple MacBook Pro 13"', "BX", "8712670911213"]
    first, last = date(2001, 1, 1), date(2001, 8, 1)
    assert [row[1:] for row in prices(books)] == [
        ("dealer", "EUR", "BX", 1, first, last, Decimal("1499.5")),
        ("dealer", "EUR", "BX", 100, first, last, Decimal("1300.9")),
    ]
    packed = books.read("select unit, parts, holds from crm.product_units")
    assert packed == [{"unit": "C62", "parts": 6, "holds": 1}]
    asked = "select amount, converted from report.price_list('dealer', 'EUR', 'C62', :pieces, '2001-03-01')"
    assert books.read(asked, pieces=5) == []  # less than a box
    per_piece = {Decimal(6): Decimal("249.9167"), Decimal(600): Decimal("216.8167")}
    for pieces, amount in per_piece.items():
        assert books.read(asked, pieces=pieces) == [{"amount": amount, "converted": True}]


def test_an_update_changes_and_deletes_and_is_no_complete_catalogue(books: Books, real_data: Path) -> None:
    """Mode delete discontinues; taken for a complete catalogue an update is refused before it discontinues the rest."""
    folder = real_data / "catalog" / "bmecat"
    update = folder / "olivere_bmecat12_update_products.golden.xml"
    refused = books.take_in(update, "bmecat")
    assert refused.state == "refused"
    assert "holds changes only (T_UPDATE_PRODUCTS)" in refused.reasons[0]
    outcome = books.take_in(update, "bmecat_update")
    assert (outcome.inserted, outcome.quarantined) == (3, 0)
    assert {p: row["status"] for p, row in products(books).items()} == {"1000": "active", "2000": "discontinued"}
    before = prices(books)
    again = books.take_in(folder / "olivere_bmecat12_update_prices.golden.xml", "bmecat_update")
    assert (again.rows_read, again.inserted, again.updated) == (2, 0, 0)
    assert prices(books) == before


def test_prices_in_two_currencies_stand_side_by_side(books: Books, real_data: Path) -> None:
    """Three products at 10.50 euro and 7.30 pounds each, in a namespace and with CDATA."""
    path = real_data / "catalog" / "bmecat" / "naugrimm_document_without_null_values.xml"
    outcome = books.take_in(path, "bmecat", date(2026, 1, 1))
    assert (outcome.inserted, outcome.as_of) == (6, date(2026, 1, 1))
    assert {(row[2], row[7]) for row in prices(books)} == {("EUR", Decimal("10.5")), ("GBP", Decimal("7.3"))}
    assert len(products(books)) == 3


_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
HOSTILE = {
    "laughs": f'<!DOCTYPE BMECAT [<!ENTITY l0 "ha">{_LAUGHS}]><BMECAT><HEADER>&l11;</HEADER></BMECAT>',
    "outside": '<!DOCTYPE BMECAT [<!ENTITY x SYSTEM "file:///etc/passwd">]><BMECAT>&x;</BMECAT>',
    "parameter": '<!DOCTYPE BMECAT [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]><BMECAT/>',
    "deep": "<BMECAT>" + "<A>" * 100_000,
    "other": "<?xml version='1.0'?><html><body/></html>",
    "half": "<BMECAT><T_NEW_CATALOG><PRODUCT><SUPPLIER_PID>1",
    "none": "<BMECAT><T_NEW_CATALOG/></BMECAT>",
    "text": "Part number;Name",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_catalogue_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    """Entities, outer files, endless nesting, other XML, a file cut off, one without products: named, not followed."""
    path = tmp_path / f"bmecat_{name}.xml"
    path.write_text(HOSTILE[name], encoding="utf-8")
    with pytest.raises(FileRefused) as refusal:
        read_confined(path, load_contract("bmecat"))
    assert "root:" not in str(refusal.value)


_PERIODS = """<BMECAT><HEADER><CATALOG><CURRENCY>EUR</CURRENCY></CATALOG></HEADER><T_NEW_CATALOG>
<ARTICLE><SUPPLIER_AID>A</SUPPLIER_AID><ARTICLE_DETAILS><DESCRIPTION_SHORT>Cable</DESCRIPTION_SHORT></ARTICLE_DETAILS>
<ARTICLE_ORDER_DETAILS><ORDER_UNIT>RO</ORDER_UNIT><CONTENT_UNIT>MTR</CONTENT_UNIT><NO_CU_PER_OU>50</NO_CU_PER_OU>
</ARTICLE_ORDER_DETAILS>{details}</ARTICLE>
<ARTICLE><SUPPLIER_AID>B</SUPPLIER_AID><ARTICLE_ORDER_DETAILS><ORDER_UNIT>C62</ORDER_UNIT>
<CONTENT_UNIT>C62</CONTENT_UNIT></ARTICLE_ORDER_DETAILS></ARTICLE></T_NEW_CATALOG></BMECAT>"""
_DETAILS = """<ARTICLE_PRICE_DETAILS><DATETIME type="valid_start_date"><DATE>{first}</DATE></DATETIME>
<DATETIME type="valid_end_date"><DATE>{last}</DATE></DATETIME>{prices}</ARTICLE_PRICE_DETAILS>"""
_PRICE = """<ARTICLE_PRICE price_type="{kind}"><PRICE_AMOUNT>{amount}</PRICE_AMOUNT><PRICE_CURRENCY>{currency}
</PRICE_CURRENCY><LOWER_BOUND>{least}</LOWER_BOUND></ARTICLE_PRICE>"""


def test_kinds_currencies_quantities_and_periods_of_one_product_stand_side_by_side(
    books: Books, tmp_path: Path
) -> None:
    """Two half-years with prices for customers and dealers, in euro and kronor, from one roll and from ten."""
    halves = [(date(2026, 1, 1), date(2026, 6, 30), 100), (date(2026, 7, 1), date(2026, 12, 31), 110)]
    details = ""
    for first, last, amount in halves:
        prices_of = [
            _PRICE.format(kind=kind, amount=amount - less - (5 if least > 1 else 0), currency=currency, least=least)
            for kind, less in (("nrp", 0), ("net_customer", 20))
            for currency in ("EUR", "SEK")
            for least in (1, 10)
        ]
        details += _DETAILS.format(first=first, last=last, prices="".join(prices_of))
    path = tmp_path / "bmecat_2026-01-01.xml"
    path.write_text(_PERIODS.format(details=details), encoding="utf-8")
    outcome = books.take_in(path, "bmecat")
    assert (outcome.rows_read, outcome.inserted, outcome.quarantined) == (9, 9, 0)
    assert prices(books) == [
        ("A", kind, currency, "RO", least, first, last + timedelta(days=1), amount - less - (5 if least > 1 else 0))
        for kind, less in (("customer", 0), ("dealer", 20))
        for currency in ("EUR", "SEK")
        for least in (1, 10)
        for first, last, amount in halves
    ]
    assert books.read("select unit, parts, holds from crm.product_units") == [{"unit": "MTR", "parts": 50, "holds": 1}]


def test_a_price_is_that_of_one_order_unit(tmp_path: Path) -> None:
    """An amount per hundred with a factor becomes the price of one; what is no number is left for the contract."""
    path = tmp_path / "bmecat.xml"
    path.write_text(
        "<BMECAT><HEADER><CATALOG><CURRENCY>SEK</CURRENCY></CATALOG></HEADER><T_NEW_CATALOG>"
        "<PRODUCT><SUPPLIER_PID>A</SUPPLIER_PID><PRODUCT_ORDER_DETAILS><ORDER_UNIT>MTR</ORDER_UNIT>"
        "<PRICE_QUANTITY>100</PRICE_QUANTITY></PRODUCT_ORDER_DETAILS><PRODUCT_PRICE_DETAILS>"
        '<PRODUCT_PRICE price_type="nrp"><PRICE_AMOUNT>1250</PRICE_AMOUNT><PRICE_FACTOR>0.9</PRICE_FACTOR>'
        "</PRODUCT_PRICE></PRODUCT_PRICE_DETAILS></PRODUCT></T_NEW_CATALOG></BMECAT>",
        encoding="utf-8",
    )
    raw = read_confined(path, load_contract("bmecat"))
    row = raw.frame.iloc[0]
    assert [row[name] for name in ("part_number", "unit", "currency", "customer_price")] == ["A", "MTR", "SEK", "11.25"]
