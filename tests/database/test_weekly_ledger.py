"""A year of real weekly workbooks: the same database in any order, equal to figures computed elsewhere."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from configs.settings import Settings
from tests.ledgers import Books

BEFORE = date(2011, 12, 1)


def _take_in_year(books: Books, real_data: Path, files: list[Path]) -> None:
    folder = real_data / "receivables"
    books.take_in(folder / "customers.xlsx", "organizations", BEFORE)
    books.take_in(folder / "contacts.xlsx", "contacts", BEFORE)
    for path in files:
        books.take_in(path, "open_items")
    books.classify()


def _figures(rows: list[dict[str, Any]]) -> dict[str, object]:
    """The figures of one day in the form of ``expected.json``."""
    sums: dict[str, dict[str, Decimal]] = {"open": defaultdict(Decimal), "overdue": defaultdict(Decimal)}
    late = [row for row in rows if row["days_overdue"] > 0]
    for name, chosen in (("open", rows), ("overdue", late)):
        for row in chosen:
            sums[name][row["currency"]] += row["open_amount"]
    text = {name: {currency: f"{total:.2f}" for currency, total in found.items()} for name, found in sums.items()}
    return {
        "rows": len(rows),
        "overdue_invoices": len(late),
        "overdue_customers": len({row["customer_number"] for row in late}),
        "disputed": sum(row["disputed"] for row in rows),
        "max_days_overdue": max((row["days_overdue"] for row in rows), default=0),
        **text,
    }


def _weeks(real_data: Path) -> list[Path]:
    return sorted((real_data / "receivables" / "weekly-2012").glob("*.xlsx"))


@pytest.fixture(scope="module")
def in_order() -> dict[str, Any]:
    """The state that the files leave in the order of their dates, filled by the first test that takes them in."""
    return {}


def _orders(weeks: list[Path]) -> dict[str, list[Path]]:
    shuffled = weeks * 2
    random.Random(2012).shuffle(shuffled)
    return {"as dated": weeks, "reversed": weeks[::-1], "shuffled, each twice": shuffled}


@pytest.mark.parametrize(
    "order",
    [
        pytest.param("as dated", marks=pytest.mark.campaign),
        pytest.param("reversed", marks=pytest.mark.campaign),
        "shuffled, each twice",
    ],
)
def test_every_monday_of_the_year_reads_as_computed_elsewhere(
    order: str, kontor_settings: Settings, real_data: Path, in_order: dict[str, Any]
) -> None:
    """All 53 workbooks in this order leave the expected figures for every Monday, and the same rows as in any other."""
    books = Books(kontor_settings)
    weeks = _weeks(real_data)
    assert len(weeks) == 53
    _take_in_year(books, real_data, _orders(weeks)[order])

    expected = json.loads((real_data / "receivables" / "weekly-2012" / "expected.json").read_text("utf-8"))
    assert {day: _figures(books.open_on(date.fromisoformat(day))) for day in expected} == expected

    state = books.state()
    assert state["quarantine"] == []
    assert len(state["classes"]) > 50
    assert in_order.setdefault("state", state) == state


def test_a_year_taken_in_again_changes_nothing(kontor_settings: Settings, real_data: Path) -> None:
    """The same files a second time are recognised by their content, also under another name."""
    books = Books(kontor_settings)
    weeks = _weeks(real_data)[:6]
    _take_in_year(books, real_data, weeks)
    before = books.state()
    outcomes = [books.take_in(path, "open_items") for path in weeks]
    assert {outcome.state for outcome in outcomes} == {"known"}
    books.classify()
    assert books.state() == before
