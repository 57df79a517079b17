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
    assert [product[name] for name in ("name", "unit", "gtin", "category")] == [
        'Apple MacBook Pro 13"', "BX", "8712670911213", "Hardware / Notebook / Mac",
    ]  # fmt: skip
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
    held = "select unit, kind, min_quantity, amount, valid_from, valid_to from report.prices('2001-03-01') order by 3"
    before = books.read(held)
    again = books.take_in(folder / "olivere_bmecat12_update_prices.golden.xml", "bmecat_update")
    assert (again.rows_read, again.inserted) == (2, 0)
    assert books.read(held) == before
    assert [row["unit"] for row in before] == ["BX", "BX"]
    assert books.read("select * from report.price_changes") == []


def test_prices_in_two_currencies_stand_side_by_side(books: Books, real_data: Path) -> None:
    """Three products at 10.50 euro and 7.30 pounds each, in a namespace and with CDATA."""
    path = real_data / "catalog" / "bmecat" / "naugrimm_document_without_null_values.xml"
    outcome = books.take_in(path, "bmecat", date(2026, 1, 1))
    assert (outcome.inserted, outcome.as_of) == (6, date(2026, 1, 1))
    assert {(row[2], row[7]) for row in prices(books)} == {("EUR", Decimal("10.5")), ("GBP", Decimal("7.3"))}
    assert {row["category"] for row in products(books).values()} == {"B"}
    assert len(products(books)) == 3


def test_a_catalogue_of_the_least_that_is_allowed_is_read(books: Books, real_data: Path) -> None:
    """One whose classification is blank, and one without anything to sell, which is refused and discontinues none."""
    folder = real_data / "catalog" / "bmecat"
    blank = folder / "olivere_bmecat2005_new_catalog_with_blank_classification_system.golden.xml"
    assert books.take_in(blank, "bmecat").inserted == 2
    assert [row["category"] for row in products(books).values()] == [None]
    empty = books.take_in(folder / "naugrimm_minimal_valid_document.xml", "bmecat", date(2026, 1, 1))
    assert empty.state == "refused"
    assert {row["discontinued_on"] for row in products(books).values()} == {None}


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


def _catalogue(path: Path, inside: str, transaction: str = "T_NEW_CATALOG") -> Path:
    head = "<HEADER><CATALOG><CURRENCY>EUR</CURRENCY></CATALOG></HEADER>"
    end = transaction.split()[0]
    path.write_text(f"<BMECAT>{head}<{transaction}>{inside}</{end}></BMECAT>", encoding="utf-8")
    return path


def _article(number: str, *prices_said: tuple[str, object, str]) -> str:
    """An article with prices: type, amount, and whatever else stands in them."""
    said = "".join(
        f'<ARTICLE_PRICE price_type="{kind}"><PRICE_AMOUNT>{amount}</PRICE_AMOUNT>{more}</ARTICLE_PRICE>'
        for kind, amount, more in prices_said
    )
    details = f"<ARTICLE_PRICE_DETAILS>{said}</ARTICLE_PRICE_DETAILS>"
    return f'<ARTICLE mode="update"><SUPPLIER_AID>{number}</SUPPLIER_AID>{details}</ARTICLE>'


def test_products_stand_in_the_groups_that_the_catalogue_ties_them_to(books: Books, tmp_path: Path) -> None:
    """The path below the root, said after the products; changes leave it, and a tree in a circle ends."""
    tree = [("1", "Catalogue", "", "root"), ("2", "Cables", "1", "node"), ("3", "Copper", "2", "leaf")]
    tree += [("4", "Egg", "5", "node"), ("5", "Hen", "4", "leaf")]
    groups = "".join(
        f'<CATALOG_STRUCTURE type="{kind}"><GROUP_ID>{number}</GROUP_ID><GROUP_NAME>{name}</GROUP_NAME>'
        f"<PARENT_ID>{parent}</PARENT_ID></CATALOG_STRUCTURE>"
        for number, name, parent, kind in tree
    )
    ties = "".join(
        f"<ARTICLE_TO_CATALOGGROUP_MAP><ART_ID>{article}</ART_ID><CATALOG_GROUP_ID>{group}</CATALOG_GROUP_ID>"
        "</ARTICLE_TO_CATALOGGROUP_MAP>"
        for article, group in (("A", "3"), ("A", "2"), ("B", "5"), ("C", "9"))
    )
    articles = "".join(_article(number, ("nrp", 10, "")) for number in "ABCD")
    inside = f"<CATALOG_GROUP_SYSTEM>{groups}</CATALOG_GROUP_SYSTEM>{articles}{ties}"
    assert books.take_in(_catalogue(tmp_path / "bmecat_2026-01-01.xml", inside), "bmecat").inserted == 4
    expected = {"A": "Cables / Copper", "B": "Egg / Hen", "C": None, "D": None}
    assert {number: row["category"] for number, row in products(books).items()} == expected
    changes = _catalogue(tmp_path / "bmecat_update_2026-01-02.xml", articles + ties, "T_UPDATE_PRODUCTS")
    assert books.take_in(changes, "bmecat_update").state == "applied"
    assert {number: row["category"] for number, row in products(books).items()} == expected


def test_updates_of_one_day_follow_each_other_by_their_own_count(books: Books, tmp_path: Path) -> None:
    """The update that more updates came before is the later one, although it was written and arrived first."""
    for before, amount in ((10, "12"), (9, "11")):
        path = tmp_path / f"{before}" / "bmecat_update_2026-01-02.xml"
        path.parent.mkdir()
        transaction = f'T_UPDATE_PRICES prev_version="{before}"'
        _catalogue(path, _article("A", ("nrp", amount, "")), transaction)
        assert books.take_in(path, "bmecat_update").state == "applied"
    assert [row[7] for row in prices(books)] == [Decimal(12)]


def test_no_amount_of_a_product_is_dropped_in_silence(books: Books, tmp_path: Path) -> None:
    """Of types for one column the first named counts, product by product; two amounts of one type wait for a person."""
    inside = _article("A", ("net_list", 9, ""), ("nrp", 10, ""), ("net_customer", 5, ""))
    inside += _article("B", ("gros_list", 8, ""))
    inside += _article(
        "C", *(("nrp", amount, f"<TERRITORY>{land}</TERRITORY>") for amount, land in ((7, "DE"), (6, "AT")))
    )
    outcome = books.take_in(_catalogue(tmp_path / "bmecat_2026-01-01.xml", inside), "bmecat")
    assert (outcome.rows_read, outcome.inserted, outcome.quarantined) == (4, 2, 2)
    assert [(row[0], row[1], row[7]) for row in prices(books)] == [
        ("A", "customer", Decimal(10)),
        ("A", "dealer", Decimal(5)),
        ("B", "customer", Decimal(8)),
    ]
    waiting = books.read("select row_number, column_name from report.quarantine order by 1")
    assert [row["row_number"] for row in waiting] == [3, 4]


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
