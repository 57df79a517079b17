"""A payment that is booked takes its mail out of the queue in the same transaction, and says why."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from configs.settings import Settings
from tasks import ledger
from tasks.database import FLOWS, engine_for
from tasks.feeds.contracts import load_contract
from tasks.feeds.intake import Given, InboxFile, take_in_file
from tasks.payments.steps import PAYMENT_FEEDS
from tasks.reminders.sending.queue_store import take_batch
from tests.ledgers import item, write_csv
from tests.outbox import Queue, clock, fill_queue


def take_in(queue: Queue, path: Path, contract: str = "open_items") -> str:
    """Take a file of today in, as payment_sync does; returns its outcome's state."""
    engine, feed = engine_for(queue.settings, FLOWS), load_contract(contract)
    with ledger.open_run(engine, "test", as_of=queue.day, dry_run=False, prefect_run_id=None, actor="test") as run:
        outcome = take_in_file(
            engine,
            InboxFile(path, feed),
            given=Given(queue.day, queue.day),
            run_id=run.run_id,
            apply=PAYMENT_FEEDS[feed.feed],
        )
    return outcome.state


def list_of(queue: Queue, folder: Path, *numbers: str) -> Path:
    """A list of today in which only these invoices are open."""
    rows = queue.rows("select * from crm.invoices where invoice_number = any(:numbers)", numbers=list(numbers))
    kept = [
        item(row["invoice_number"].partition("/")[0], row["invoice_number"], row["open_amount"], row["due_on"])
        for row in rows
    ]
    return write_csv(folder / "open_items.csv", kept)


def test_a_paid_invoice_leaves_the_queue_with_the_file_that_says_so(kontor_settings: Settings, tmp_path: Path) -> None:
    """Of three mails one has nothing left and is cancelled, one shrinks, one stays; each with the file's word."""
    queue = fill_queue(kontor_settings, 3, items=2)
    assert take_in(queue, list_of(queue, tmp_path, "C-2/2", "C-3/1", "C-3/2")) == "applied"
    rows = queue.rows("select reminder_id, state, state_reason from outbox.reminders order by 1")
    reason = f"paid: not open any more in open_items as of {queue.day} (file 2)"
    assert rows == [
        {"reminder_id": 1, "state": "cancelled", "state_reason": reason},
        {"reminder_id": 2, "state": "planned", "state_reason": None},
        {"reminder_id": 3, "state": "planned", "state_reason": None},
    ]
    released = queue.rows(
        "select v.invoice_number, i.release_reason from outbox.reminder_items i join crm.invoices v using (invoice_id)"
        " where i.released_at is not null order by 1"
    )
    assert released == [{"invoice_number": n, "release_reason": reason} for n in ("C-1/1", "C-1/2", "C-2/1")]
    same_transaction = queue.rows(
        "select count(distinct t) as transactions"
        " from (select xmin::text as t from outbox.reminders where reminder_id = 1"
        " union all select xmin::text from crm.invoices where invoice_number = 'C-1/1') x"
    )
    assert same_transaction == [{"transactions": 1}]
    [shown] = queue.rows("select state, reason_code, invoice_numbers from report.reminders where reminder_id = 1")
    assert shown == {"state": "cancelled", "reason_code": "paid", "invoice_numbers": ["C-1/1", "C-1/2"]}


def test_a_file_that_is_refused_or_tried_cancels_nothing(kontor_settings: Settings, tmp_path: Path) -> None:
    """What is not applied settles nothing, so its mails stay."""
    queue = fill_queue(kontor_settings, 2, items=1)
    path = tmp_path / "open_items.csv"
    path.write_text("customer_number,invoice_number\nC-1,C-1/1\n")
    assert take_in(queue, path) == "refused"
    assert queue.states() == {"planned": 2}


def test_a_mail_that_is_being_sent_is_left_to_its_sender(kontor_settings: Settings, tmp_path: Path) -> None:
    """Its gate came first: the settlement neither cancels it nor takes its items."""
    queue = fill_queue(kontor_settings, 2, items=1)
    with engine_for(kontor_settings, FLOWS).begin() as connection:
        given = {"day": queue.day, "now": clock(), "size": 1, "passed": [], "any_hour": True}
        batch = take_batch(connection, queue.claim, message_id_of=lambda n, _: f"<{n}@x>", **given)  # type: ignore[arg-type]
        assert [mail.reminder_id for mail in batch.cleared] == [1]
    assert take_in(queue, list_of(queue, tmp_path, "C-2/1")) == "applied"
    assert queue.states() == {"sending": 1, "planned": 1}
    with engine_for(kontor_settings, FLOWS).connect() as connection:
        assert connection.scalar(text("select count(*) from outbox.reminder_items where released_at is not null")) == 0
