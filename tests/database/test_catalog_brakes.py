"""A catalogue that looks cut off, or whose prices jumped, is refused with the likely cause and can be accepted."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from configs.settings import Settings
from tests.catalogues import DAY, delta, full, prices, product, products, state
from tests.ledgers import Books, write_csv

WEEK = timedelta(weeks=1)


@pytest.fixture
def books(kontor_settings: Settings, tmp_path: Path) -> Books:
    """A catalogue of 40 products at 10.00 to 49.00 euro."""
    filled = Books(kontor_settings)
    full(filled, tmp_path, _rows(1))
    return filled


def _rows(factor: Any, count: int = 40, of: int = 40) -> list[dict[str, object]]:
    """Rows in which ``of`` of ``count`` prices are multiplied."""
    by = Decimal(str(factor))
    return [product(f"P{n:02}", customer_price=(10 + n) * (by if n < of else 1)) for n in range(count)]


def test_a_list_that_lost_many_products_is_refused_and_can_be_accepted(books: Books, tmp_path: Path) -> None:
    """A fifth gone passes, more is refused with the counts; a person's word and reason are kept with the file."""
    refused = full(books, tmp_path, _rows(1, count=31), DAY + WEEK)
    assert refused.state == "refused"
    assert "9 of the 40 products of catalog_2026-11-02.csv" in refused.reasons[0]
    assert "--accept-guard products_vanished" in refused.hint
    assert {row["discontinued_on"] for row in products(books).values()} == {None}
    said = {"accepted_guards": ("products_vanished",), "reason": "the winter goods are gone"}
    accepted = full(books, tmp_path, _rows(1, count=31), DAY + WEEK, **said)
    assert (accepted.state, accepted.settled, accepted.overruled) == ("applied", 9, ("products_vanished",))
    kept = books.read("select guards from landing.feed_files where state = 'applied' order by as_of desc limit 1")
    verdict = next(v for v in kept[0]["guards"] if v["guard"] == "products_vanished")
    assert verdict["overruled_because"] == "the winter goods are gone"
    fifth = full(books, tmp_path, _rows(1, count=31)[:25], DAY + 2 * WEEK)
    assert (fifth.state, fifth.settled) == ("applied", 6)


def test_prices_without_a_unit_are_held_against_those_per_the_products_own(books: Books, tmp_path: Path) -> None:
    """A list of prices alone need not repeat the unit: what slipped is refused, what rose is one change of price."""
    rows = [row | {"unit": "st"} for row in _rows(1)]
    full(books, tmp_path, rows, DAY + WEEK)
    alone = [{"part_number": f"P{n:02}", "currency": "EUR", "customer_price": 100 * (10 + n)} for n in range(12)]
    refused = delta(books, tmp_path, alone, DAY + 2 * WEEK)
    assert refused.state == "refused"
    assert refused.reasons[0].startswith("prices_scaled: 12 of 12 changed prices")
    risen = [row | {"customer_price": 11 + n} for n, row in enumerate(alone)]
    assert delta(books, tmp_path, risen, DAY + 2 * WEEK).state == "applied"
    changes = books.read("select unit, old_amount, new_amount from report.price_changes order by old_amount")
    assert [tuple(row.values()) for row in changes] == [("C62", 10 + n, 11 + n) for n in range(12)]


@pytest.mark.parametrize(("factor", "cause"), [("100", "slipped"), ("0.1", "slipped"), ("1.95583", "from EUR to BGN")])
def test_prices_that_share_a_suspicious_factor_are_refused_with_its_cause(
    books: Books, tmp_path: Path, factor: str, cause: str
) -> None:
    """A lost decimal mark and a currency conversion are named; nothing of the file is applied."""
    rate = {"base": "EUR", "quote": "BGN", "rated_on": DAY, "rate": "1.95583"}
    books.take_in(write_csv(tmp_path / "currency_rates.csv", [rate]), "currency_rates", DAY)
    before = state(books)
    rows = _rows(1)
    for row in rows[:12]:
        row["customer_price"] = (Decimal(str(row["customer_price"])) * Decimal(factor)).quantize(Decimal("0.01"))
    refused = delta(books, tmp_path, rows, DAY + WEEK)
    assert refused.state == "refused"
    assert refused.reasons[0].startswith("prices_scaled: 12 of 12 changed prices")
    assert cause in refused.reasons[0]
    assert state(books) == before


def test_an_ordinary_price_rise_passes_and_jumps_without_a_pattern_do_not(books: Books, tmp_path: Path) -> None:
    """Five per cent on everything is one factor and no mistake; three prices doubled or so are too many of forty."""
    assert full(books, tmp_path, _rows("1.05"), DAY + WEEK).state == "applied"
    rows = _rows("1.05")
    for row, price in zip(rows, ("31.11", "37.5", "29.01"), strict=False):
        row["customer_price"] = price
    refused = full(books, tmp_path, rows, DAY + 2 * WEEK)
    assert refused.state == "refused"
    assert (
        "3 of 40 known prices changed by more than 50 %, such as part number P00 from 10.5 to 31.11 in row 2"
        in (refused.reasons[0])
    )
    assert len(prices(books)) == 80


def test_the_price_asked_for_is_found_or_converted(books: Books, tmp_path: Path) -> None:
    """By kind, quantity, unit, currency and day; packages, units and rates convert; promotions win on their days."""
    rate = {"base": "EUR", "quote": "SEK", "rated_on": DAY, "rate": "11.5"}
    books.take_in(write_csv(tmp_path / "currency_rates.csv", [rate]), "currency_rates", DAY)
    row = product("CABLE", unit="m", customer_price="2.00", dealer_price="1.50", pack_unit="rulle", pack_quantity=100)
    promo = {"promo_price": "1.80", "promo_from": DAY + WEEK, "promo_to": DAY + WEEK}
    delta(books, tmp_path, [row | promo])

    def price(kind: str, currency: str, unit: str | None, quantity: int, day: Any = DAY) -> tuple[Any, ...]:
        found = books.read(
            "select amount, promotional, converted from report.price_list(:kind, :currency, :unit, :quantity, :day)"
            " where part_number = 'CABLE'",
            kind=kind, currency=currency, unit=unit, quantity=quantity, day=day,
        )  # fmt: skip
        return tuple(found[0].values()) if found else ()

    assert price("customer", "EUR", None, 1) == (Decimal("2"), False, False)
    assert price("dealer", "EUR", "MTR", 1) == (Decimal("1.5"), False, False)
    assert price("customer", "EUR", "RO", 1) == (Decimal("200"), False, True)
    assert price("customer", "SEK", "KMT", 1) == (Decimal("23000"), False, True)
    assert price("customer", "EUR", None, 1, DAY + WEEK) == (Decimal("1.8"), True, False)
    assert price("customer", "EUR", None, 1, DAY + WEEK + timedelta(days=1)) == (Decimal("2"), False, False)
    assert price("customer", "JPY", None, 1) == ()
    assert price("customer", "EUR", "CMT", 50) == ()
    assert price("customer", "EUR", "CMT", 100) == (Decimal("0.02"), False, True)


def test_a_price_per_box_is_given_from_a_boxful_of_pieces_on(books: Books, tmp_path: Path) -> None:
    """Twelve pieces are one box, although a twelfth has no exact decimals; eleven are none."""
    box = product("NAIL", unit="box", customer_price="6", content_unit="st", content_quantity=12)
    assert delta(books, tmp_path, [box]).state == "applied"
    asked = "select amount from report.price_list('customer', 'EUR', 'C62', :pieces, :day) where part_number = 'NAIL'"
    assert [books.read(asked, pieces=n, day=DAY) for n in (11, 12)] == [[], [{"amount": Decimal("0.5")}]]
