"""Money received: taken in by its contract, matched in any order, and taken off what reminders ask for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from configs.settings import Settings
from tasks.payments.receipts_store import match_payments
from tests.database.test_real_senders import contract
from tests.ledgers import TODAY, Books, item, write_csv
from tests.outbox import fill_queue

DAY = date(2026, 3, 2)
LISTED = date(2024, 9, 18)  # before the first of the real collections, so that none is known to the list


@pytest.fixture
def books(kontor_settings: Settings) -> Books:
    """An empty database to take files into."""
    return Books(kontor_settings)


def paid(customer: str, invoice: str, amount: object, day: date = DAY, **more: object) -> dict[str, object]:
    """A row of a file of payments."""
    row = {"customer_number": customer, "payment_number": "", "invoice_number": invoice, "received_date": day}
    return row | {"currency": "EUR", "amount": amount, "note": ""} | more


def balances(books: Books, day: date) -> dict[str, Decimal]:
    """What is left to pay per invoice on a day."""
    rows = books.read("select invoice_number, open_amount from crm.balances_at(:day) order by 1", day=day)
    return {row["invoice_number"]: row["open_amount"] for row in rows}


def unmatched(books: Books, day: date) -> Mapping[str, Decimal]:
    """Money that nobody knows what it pays, per currency."""
    return {row["currency"]: row["amount"] for row in books.read("select * from crm.unmatched_money_at(:d)", d=day)}


@pytest.mark.parametrize("collections_first", [False, True])
def test_a_real_workbook_of_collections_pays_its_invoices(
    books: Books, real_data: Path, collections_first: bool
) -> None:
    """The figures worked out elsewhere: 109 open, 92 overdue on 30 September 2025, in either order of arrival."""
    folder, last = real_data / "receivables" / "receivables-xlsx", date(2025, 12, 31)
    books.take_in(folder / "customers.xlsx", contract("receivables_customers"), LISTED)
    files = [("invoices.xlsx", "receivables_invoices", LISTED), ("collections.xlsx", "receivables_collections", last)]
    outcomes = {}
    for name, sender, day in reversed(files) if collections_first else files:
        outcomes[name] = books.take_in(folder / name, contract(sender), day)
    assert {name: (made.inserted, made.quarantined) for name, made in outcomes.items()} == {
        "invoices.xlsx": (180, 0), "collections.xlsx": (97, 0),
    }  # fmt: skip
    with books.engine.begin() as connection:
        assert match_payments(connection) == (97 if collections_first else 0)
    [found] = books.read(
        "select count(*) as items, sum(open_amount) as money, count(*) filter (where due_on < :day) as late,"
        " sum(open_amount) filter (where due_on < :day) as late_money from crm.balances_at(:day)",
        day=date(2025, 9, 30),
    )
    assert tuple(found.values()) == (109, Decimal(27655620), 92, Decimal(23384141))
    assert books.read("select sum(amount) as money from crm.allocations") == [{"money": Decimal(23627709)}]
    again = books.take_in(folder / "collections.xlsx", contract("receivables_collections"), last + timedelta(days=1))
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, 97)


def test_the_newest_word_about_a_payment_wins(books: Books, tmp_path: Path) -> None:
    """A correction takes the old match back; an older file that comes late changes nothing; a second row supersedes."""
    books.customers(tmp_path, ["C-1"])
    rows = [item("C-1", "A", 100, DAY), item("C-1", "B", 100, DAY)]
    books.take_in(write_csv(tmp_path / "items.csv", rows), "open_items", DAY)
    first, later, sent = DAY + timedelta(days=1), DAY + timedelta(days=3), {}
    for day, invoice, amount in ((first, "A", 30), (later, "B", 40), (first + timedelta(days=1), "A", 50)):
        row = paid("C-1", invoice, amount, first, payment_number="P-1")
        sent[day] = books.take_in(write_csv(tmp_path / f"payments_{day}.csv", [row]), "payments", day)
    assert [(made.inserted, made.updated, made.superseded) for made in sent.values()] == [
        (1, 0, 0), (0, 1, 0), (0, 0, 1),
    ]  # fmt: skip
    assert balances(books, later) == {"A": 100, "B": 60}
    twice = [paid("C-1", "A", 5, later, payment_number="P-2"), paid("C-1", "A", 6, first, payment_number="P-2")]
    made = books.take_in(write_csv(tmp_path / "payments_twice.csv", twice), "payments", later)
    assert (made.inserted, made.superseded) == (1, 1)
    assert balances(books, later)["A"] == 94
    # From the next list on accounting knows it, whatever it says.
    rows.append(item("C-1", "C", 10, DAY))
    books.take_in(write_csv(tmp_path / "next.csv", rows), "open_items", DAY + timedelta(days=7))
    assert balances(books, DAY + timedelta(days=7)) == {"A": 100, "B": 100, "C": 10}


def test_what_pays_nothing_known_stays_unmatched(books: Books, tmp_path: Path) -> None:
    """No invoice, one nobody knows or one in another currency: the money is kept and shown, and matched to nothing."""
    books.customers(tmp_path, ["C-1"])
    books.take_in(write_csv(tmp_path / "items.csv", [item("C-1", "A", 100, DAY)]), "open_items", DAY)
    day = DAY + timedelta(days=1)
    rows = [
        paid("C-1", "", 10, day, payment_number="P-1"),
        paid("C-1", "Z", 20, day),
        paid("C-1", "A", 7, day, currency="SEK"),
        paid("C-1", "A", -5, day),
        paid("C-1", "", 5, day),
        paid("C-9", "A", 5, day),
    ]
    made = books.take_in(write_csv(tmp_path / "payments.csv", rows), "payments", day)
    assert (made.rows_read, made.inserted, made.quarantined) == (6, 3, 3)
    assert unmatched(books, day) == {"EUR": 30, "SEK": 7}
    assert balances(books, day) == {"A": 100}
    books.customers(tmp_path, ["C-9"], day)
    assert books.replay() == 1


def test_a_payment_takes_its_reminder_out_of_the_queue(kontor_settings: Settings, tmp_path: Path) -> None:
    """The mail about what is paid now is cancelled by the import itself, with the file in the reason."""
    queue = fill_queue(kontor_settings, 2, items=1)
    books = Books(kontor_settings)
    [owed] = queue.rows("select open_amount from crm.invoices where invoice_number = 'C-1/1'")
    queue.change("update landing.feed_files set as_of = :day", day=TODAY - timedelta(days=1))
    row = paid("C-1", "C-1/1", owed["open_amount"], TODAY)
    books.take_in(write_csv(tmp_path / "payments.csv", [row]), "payments", TODAY)
    assert queue.states() == {"cancelled": 1, "planned": 1}
    [mail] = queue.rows("select state_reason from outbox.reminders where state = 'cancelled'")
    assert mail["state_reason"].startswith("paid: not open any more in payments as of")
