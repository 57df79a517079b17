"""Accounting's own totals beside what is stored: to the cent on the day it came, and ever after."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import text

from configs.settings import Settings
from tasks import database
from tasks.quality.checks_store import check_table, create_failing
from tasks.quality.contracts import load_table_contract
from tests.ledgers import OPEN_ITEM_HEADINGS, Books, item, write_csv

DAY = date(2026, 3, 2)


def _ledger(folder: Path, total: str) -> Path:
    """Three items, of which one is a credit note and one waits for its customer, and what they add up to."""
    rows: list[dict[str, object]] = [
        item("1", "A", "100.00", DAY),
        item("1", "C", "-30.00", DAY, document_type="credit_note"),
        item("nobody", "B", "50.25", DAY),
        {**dict.fromkeys(OPEN_ITEM_HEADINGS, ""), "invoice_number": "Total", "currency": "EUR", "open_amount": total},
    ]
    return write_csv(folder / "items.csv", rows)


def _told(settings: Settings, day: date) -> list[tuple[str, str]]:
    """What fails the rule as of a day; everything is asked so that an error would be seen too."""
    with database.engine_for(settings).connect() as connection:
        create_failing(connection)
        results = check_table(connection, load_table_contract("ledger_totals"), day)
        assert {result.state for result in results} <= {"pass", "fail"}
        return [(row.record_key, row.reason) for row in connection.execute(text("select * from failing_record"))]


def _stated(books: Books) -> Any:
    return books.read("select stated from landing.feed_files where feed = 'open_items'")[0]["stated"]


def test_what_is_stored_of_a_ledger_keeps_to_its_own_total(kontor_settings: Settings, tmp_path: Path) -> None:
    """Credit notes deduct, a waiting row counts; money changed behind the ledger's back is told to the cent."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["1"])
    outcome = books.take_in(_ledger(tmp_path, "120.25"), "open_items", DAY)
    assert (outcome.state, outcome.quarantined) == ("applied", 1)
    assert _stated(books) == [{"column": "open_amount", "currency": "EUR", "amount": "120.25"}]
    assert _told(books.settings, DAY - timedelta(days=1)) == []
    assert _told(books.settings, DAY) == []
    with database.engine_for(books.settings, database.OWNER).begin() as connection:
        connection.execute(text("update crm.invoices set open_amount = 99.98 where invoice_number = 'A'"))
    [(key, reason)] = _told(books.settings, DAY)
    assert key.endswith("/ open_amount / EUR")
    assert reason == f"the ledger of {DAY} says 120.25 EUR in open_amount; stored are {Decimal('120.2300')}"


def test_a_total_that_counts_credit_notes_as_positive_agrees_too(kontor_settings: Settings, tmp_path: Path) -> None:
    """Some ledgers print credit notes without a sign; the guard takes such a total, and so does the rule."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["1"])
    assert books.take_in(_ledger(tmp_path, "180.25"), "open_items", DAY).state == "applied"
    assert _told(books.settings, DAY) == []


def test_a_difference_that_a_person_let_pass_stays_an_incident(kontor_settings: Settings, tmp_path: Path) -> None:
    """Overruling the guard takes the file in; that it does not add up goes on being said."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["1"])
    assert books.take_in(_ledger(tmp_path, "500.00"), "open_items", DAY).state == "refused"
    outcome = books.take_in(
        _ledger(tmp_path, "500.00"), "open_items", DAY, accepted_guards=frozenset({"totals_row"}), reason="sent by mail"
    )
    assert outcome.state == "applied"
    [(_, reason)] = _told(books.settings, DAY)
    assert "says 500.00 EUR" in reason
