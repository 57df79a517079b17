"""Plans that are kept: decisions, mails and reservations in the database, once, and again after a second run."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from configs.settings import Settings
from tasks import ledger
from tasks.reminders.drafts import DraftPlan
from tasks.reminders.holds_store import NewHold, insert_hold, release_hold
from tasks.reminders.plan_store import save_plan, why_braked
from tasks.reminders.planning_store import draft_day
from tasks.reminders.preview_store import explain, preview
from tasks.reminders.rules_store import fetch_rulebook
from tasks.reminders.sending.outbox_store import approve, awaiting_approval
from tests.ledgers import TODAY, Books, item, write_csv

DAY = date(2012, 6, 4)  # a Monday
TODAY_NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SENT = "update outbox.reminders set state = 'sent', sent_at = now()"


@pytest.fixture
def books(kontor_settings: Settings, tmp_path: Path) -> Books:
    """Two customers with a payments contact each, one without; items long overdue, one disputed, one not yet due."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["1", "2", "3"])
    people = [
        {"customer_number": number, "email": f"pay{number}@example.com", "roles": "payments", "valid_to": until}
        for number, until in (("1", ""), ("2", ""), ("3", "2012-06-03"))
    ]
    books.take_in(write_csv(tmp_path / "people.csv", people), "contacts", date(2020, 1, 1))
    rows = [
        item("1", "A1", "100.00", DAY - timedelta(days=20)),
        item("1", "A2", "50.00", DAY - timedelta(days=3)),
        item("2", "B1", "70.00", DAY - timedelta(days=20), disputed="yes"),
        item("3", "C1", "70.00", DAY - timedelta(days=20)),
        item("3", "C2", "70.00", DAY + timedelta(days=20)),
    ]
    books.take_in(write_csv(tmp_path / "open.csv", rows), "open_items", DAY)
    return books


def run_on(books: Books, day: date, brake: str | None = None) -> dict[str, int]:
    """Plan and keep a day as the flow does."""
    with ledger.open_run(
        books.engine, "overdue_reminders", as_of=day, dry_run=False, prefect_run_id=None, actor="test"
    ) as run:
        draft = draft_of(books, day)
        with books.engine.begin() as connection:
            return save_plan(connection, run.run_id, day, draft, brake=brake)


def draft_of(books: Books, day: date) -> DraftPlan:
    """What would be decided on a day, as a run reads it."""
    with books.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        return draft_day(connection, day, books.settings)


def kept(books: Books) -> dict[str, list[dict[str, Any]]]:
    """Everything that a plan writes."""
    return {
        "decisions": books.read(
            "select o.customer_number, d.as_of, d.decision, d.stage, d.reason_code, d.recipient_email"
            " from ops.reminder_decisions d join crm.organizations o using (organization_id) order by decision_id"
        ),
        "mails": books.read(
            "select o.customer_number, m.as_of, m.stage, m.sequence, m.state, m.recipient_email, m.language,"
            " m.template, m.needs_approval, m.state_reason"
            " from outbox.reminders m join crm.organizations o using (organization_id) order by reminder_id"
        ),
        "items": books.read(
            "select i.invoice_number, r.stage, r.sequence, r.currency, r.open_amount::text, r.due_on, r.released_at"
            " from outbox.reminder_items r join crm.invoices i using (invoice_id) order by reminder_id, invoice_number"
        ),
        "tasks": books.read("select kind, as_of, closed_at is null as open from ops.reminder_tasks order by task_id"),
    }


def test_a_day_is_kept_once(books: Books) -> None:
    """Each customer with something overdue has its decision, mails reserve their items, a second run writes nothing."""
    assert run_on(books, DAY) == {
        "decided": 3,
        "recorded": 3,
        "planned": 1,
        "reserved": 1,
        "tasks_opened": 1,
        "tasks_closed": 0,
    }
    after = kept(books)
    assert [(row["customer_number"], row["decision"], row["reason_code"]) for row in after["decisions"]] == [
        ("1", "remind", "first"),
        ("2", "hold", "dispute"),
        ("3", "task", "no_contact"),
    ]
    assert after["mails"] == [
        {
            "customer_number": "1",
            "as_of": DAY,
            "stage": "first",
            "sequence": 1,
            "state": "planned",
            "recipient_email": "pay1@example.com",
            "language": "en",
            "template": "first",
            "needs_approval": False,
            "state_reason": None,
        }
    ]
    assert [(row["invoice_number"], row["stage"], row["open_amount"]) for row in after["items"]] == [
        ("A1", "first", "100.0000")
    ]
    assert after["tasks"] == [{"kind": "no_contact", "as_of": DAY, "open": True}]
    again = run_on(books, DAY)
    assert {name: count for name, count in again.items() if name != "decided"} == dict.fromkeys(
        ("recorded", "planned", "reserved", "tasks_opened", "tasks_closed"), 0
    )
    assert kept(books) == after


def test_a_waiting_mail_blocks_and_a_sent_one_counts(books: Books) -> None:
    """While a mail waits nothing more is planned; once it is sent, the next step comes, and no stage comes twice."""
    run_on(books, DAY)
    assert run_on(books, DAY + timedelta(days=8))["planned"] == 0
    assert kept(books)["decisions"][-3]["reason_code"] == "queued"
    with books.engine.begin() as connection:
        connection.execute(text(SENT))
    assert run_on(books, DAY + timedelta(days=8))["planned"] == 1
    steps = [(row["invoice_number"], row["stage"]) for row in kept(books)["items"]]
    assert steps == [("A1", "first"), ("A1", "second"), ("A2", "first")]


def test_a_run_for_an_earlier_day_lets_people_rest_from_later_mails(books: Books) -> None:
    """Whoever was written to on the 12th gets no mail from a run for the 5th, though a further step is due then."""
    run_on(books, DAY + timedelta(days=8))
    assert run_on(books, DAY + timedelta(days=1))["planned"] == 0
    assert kept(books)["decisions"][-3]["reason_code"] == "queued"
    with books.engine.begin() as connection:
        connection.execute(text(SENT))
    assert run_on(books, DAY + timedelta(days=1))["planned"] == 0
    assert kept(books)["decisions"][-1]["reason_code"] == "resting"


def test_reports_name_the_last_reminder_that_was_sent(books: Books) -> None:
    """An item's last stage and its instant are those of a mail the server took; a planned one says nothing yet."""
    query = "select invoice_number, last_stage, last_reminded_at is not null as told from report.overdue_invoices(:day)"
    run_on(books, DAY)
    assert {row["last_stage"] for row in books.read(query, day=DAY)} == {None}
    with books.engine.begin() as connection:
        connection.execute(text(SENT))
    found = {row["invoice_number"]: (row["last_stage"], row["told"]) for row in books.read(query, day=DAY)}
    assert found == {"A1": ("first", True), "A2": (None, False), "B1": (None, False), "C1": (None, False)}


def test_a_cancelled_mail_leaves_its_step_open(books: Books) -> None:
    """A mail that was cancelled before it left gives its items back; the same day plans it anew."""
    run_on(books, DAY)
    with books.engine.begin() as connection:
        connection.execute(text("update outbox.reminders set state = 'cancelled', state_reason = 'test'"))
        connection.execute(text("update outbox.reminder_items set released_at = now(), release_reason = 'test'"))
    assert run_on(books, DAY)["planned"] == 1
    assert [(row["stage"], row["released_at"] is None) for row in kept(books)["items"]] == [
        ("first", False),
        ("first", True),
    ]


def test_the_database_refuses_a_stage_that_was_reserved(books: Books) -> None:
    """A plan made from old facts cannot reserve a step again: the whole transaction fails and nothing of it is kept."""
    with ledger.open_run(
        books.engine, "overdue_reminders", as_of=DAY, dry_run=False, prefect_run_id=None, actor="test"
    ) as run:
        old = draft_of(books, DAY)
        with books.engine.begin() as connection:
            save_plan(connection, run.run_id, DAY, old)
        before = kept(books)
        later = DAY + timedelta(days=1)
        with pytest.raises(IntegrityError, match="reminder_items_once_key"), books.engine.begin() as connection:
            save_plan(connection, run.run_id, later, old)
    assert kept(books) == before


def test_of_two_plans_at_once_one_is_kept(books: Books) -> None:
    """The second waits for the first to commit and is then refused as a whole: every mail and step stands once."""
    plan = draft_of(books, DAY)

    def late(run_id: int) -> str:
        try:
            with books.engine.begin() as connection:
                save_plan(connection, run_id, DAY, plan)
        except IntegrityError:
            return "refused"
        return "kept"

    with (
        ledger.open_run(books.engine, "one", as_of=DAY, dry_run=False, prefect_run_id=None, actor="test") as run,
        ThreadPoolExecutor(1) as other,
    ):
        with books.engine.begin() as connection:
            save_plan(connection, run.run_id, DAY, plan)
            second = other.submit(late, run.run_id)
            wait_until_blocked(books)
        assert second.result(30) == "refused"
    after = kept(books)
    assert (len(after["mails"]), len(after["items"]), len(after["decisions"]), len(after["tasks"])) == (1, 1, 3, 1)


def wait_until_blocked(books: Books) -> None:
    """Return as soon as a session waits for another's lock."""
    for _ in range(600):
        if books.read("select 1 from pg_locks where not granted"):
            return
        time.sleep(0.05)
    raise TimeoutError("nobody waits")


def test_after_a_restore_everything_planned_waits_until_a_person_has_looked(books: Books) -> None:
    """What was sent after the backup is not known in it; an approval after the restore lifts the brake."""
    with books.engine.begin() as connection:
        rules = fetch_rulebook(connection, DAY)
        assert why_braked(connection, rules, 1, DAY) is None
    run_on(books, DAY)
    with books.engine.begin() as connection:
        approve = text("update outbox.reminders set approved_by = 'a person', approved_at = now()")
        connection.execute(approve)
    with books.engine.begin() as connection:
        connection.execute(
            text(
                "insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id, state, ended_at)"
                " values ('restore', 'test', current_date, false, 'test', 1, 'done', now())"
            )
        )
        told = why_braked(connection, rules, 1, DAY)
        assert told is not None
        assert "was restored at" in told
        assert why_braked(connection, rules, 0, DAY) is None
    with books.engine.begin() as connection:
        connection.execute(approve)
        assert why_braked(connection, rules, 1, DAY) is None


def test_a_braked_run_waits_for_a_person(books: Books) -> None:
    """With the brake every mail is planned, needs approval and says why."""
    run_on(books, DAY, brake="too many")
    assert [(row["state"], row["needs_approval"], row["state_reason"]) for row in kept(books)["mails"]] == [
        ("planned", True, "too many")
    ]


def tasks_of(books: Books) -> list[tuple[str | None, str, str | None, str | None]]:
    """Every task: customer, kind, owner, and who closed it."""
    rows = books.read("select customer_number, kind, owner, closed_by from report.reminder_tasks order by task_id")
    return [(row["customer_number"], row["kind"], row["owner"], row["closed_by"]) for row in rows]


def test_a_brake_asks_finance_and_is_answered_by_who_lets_the_mails_go(books: Books) -> None:
    """One task stands however often it is run; approving the last mail closes it in the same transaction."""
    run_on(books, DAY, brake="too many")
    run_on(books, DAY)
    assert tasks_of(books) == [("3", "no_contact", None, None), (None, "brake", "finance", None)]
    [details] = books.read("select details from ops.reminder_tasks where kind = 'brake'")
    assert details == {"details": "too many. The mails of 2012-06-04 wait for a person."}
    with books.engine.begin() as connection:
        assert approve(connection, awaiting_approval(connection), author="Ida", now=TODAY_NOON)
    assert tasks_of(books)[1] == (None, "brake", "finance", "Ida")


def test_a_broken_promise_is_told_to_the_owner_until_it_is_paid(books: Books, tmp_path: Path) -> None:
    """Kept apart from the reminder itself, told once, and closed by the plan after the newest list drops the item."""
    with books.engine.begin() as connection:
        connection.execute(text("update crm.organizations set owner = 'Olga' where customer_number = '1'"))
        promise = NewHold("promise_to_pay", "1", DAY - timedelta(days=9), "test", "said so", until=DAY)
        insert_hold(connection, promise)
    run_on(books, DAY)
    assert [kind for _, kind, *_ in tasks_of(books)] == ["no_contact"]
    for days in (1, 1, 2):
        run_on(books, DAY + timedelta(days=days))
    assert tasks_of(books)[1:] == [("1", "broken_promise", "Olga", None)]
    run_on(books, DAY)
    rows = [item("3", "C1", "70.00", DAY - timedelta(days=20)), item("3", "C2", "70.00", DAY + timedelta(days=20))]
    books.take_in(write_csv(tmp_path / "next.csv", rows), "open_items", DAY + timedelta(days=3))
    run_on(books, DAY + timedelta(days=3))
    assert tasks_of(books)[1:] == [("1", "broken_promise", "Olga", "overdue_reminders")]


def test_old_ledgers_are_told_to_finance_once_until_a_newer_one_comes(books: Books, tmp_path: Path) -> None:
    """Nobody is reminded on a guess; one task says how many customers and why, and goes with the next list."""
    for days in (30, 31):
        assert run_on(books, DAY + timedelta(days=days))["planned"] == 0
    [told] = books.read("select organization_id, owner, details, closed_at from ops.reminder_tasks")
    assert (told["organization_id"], told["owner"], told["closed_at"]) == (None, "finance", None)
    assert told["details"].startswith(
        "3 customers are not reminded. The newest ledger of accounting is 30 days old (allowed 10)"
    )
    rows = [item("3", "C1", "70.00", DAY - timedelta(days=20))]
    books.take_in(write_csv(tmp_path / "next.csv", rows), "open_items", DAY + timedelta(days=32))
    run_on(books, DAY + timedelta(days=32))
    assert tasks_of(books) == [
        (None, "stale_data", "finance", "overdue_reminders"),
        ("3", "no_contact", None, None),
    ]
    rows = [item("9", "Z1", "70.00", DAY + timedelta(days=99))]
    books.take_in(write_csv(tmp_path / "last.csv", rows), "open_items", DAY + timedelta(days=33))
    run_on(books, DAY + timedelta(days=33))
    assert tasks_of(books)[1] == ("3", "no_contact", None, "overdue_reminders")


def test_received_money_lowers_what_is_due(books: Books) -> None:
    """A payment matched after the newest list is taken off at once; an earlier one is in the list already."""
    pay = (
        "insert into crm.payments (organization_id, source, payment_number, received_on, currency, amount)"
        " select organization_id, 'bank', :number, :day, 'EUR', :amount from crm.organizations"
        " where customer_number = '1' returning payment_id"
    )
    match = (
        "insert into crm.allocations (payment_id, invoice_id, amount, allocated_on)"
        " select :payment_id, invoice_id, :amount, :day from crm.invoices where invoice_number = :invoice"
    )
    with books.engine.begin() as connection:
        early = connection.scalar(text(pay), {"number": "P0", "day": DAY, "amount": 10})
        connection.execute(text(match), {"payment_id": early, "amount": 10, "day": DAY, "invoice": "A1"})
    day = DAY + timedelta(days=1)
    before = preview_of(books, day)
    assert before["figures"]["overdue"] == {"EUR": "150.00"}
    with books.engine.begin() as connection:
        payment = connection.scalar(text(pay), {"number": "P1", "day": day, "amount": 100})
        connection.execute(text(match), {"payment_id": payment, "amount": 40, "day": day, "invoice": "A1"})
    held = preview_of(books, day)
    assert (held["decision"], held["figures"]["overdue"]) == ("remind", {"EUR": "110.00"})
    assert held["figures"]["unmatched"] == {"EUR": "60.00"}
    with books.engine.begin() as connection:
        connection.execute(text(match), {"payment_id": payment, "amount": 60, "day": day, "invoice": "A2"})
    assert preview_of(books, day)["figures"]["overdue"] == {"EUR": "60.00"}


def preview_of(books: Books, day: date, number: str = "1") -> dict[str, Any]:
    """What would be decided about one customer."""
    with books.engine.connect() as connection:
        return preview(connection, day, day, customer_number=number)[0]


def test_holds_are_put_and_released(books: Books) -> None:
    """A hold of one invoice leaves the other in the mail; released, it is history."""
    with books.engine.begin() as connection:
        hold = insert_hold(connection, NewHold("dispute", "1", DAY, "test", "wrong price", invoice_number="A1"))
    found = preview_of(books, DAY)
    assert (found["decision"], found["reason_code"]) == ("nothing", "nothing_due")
    with books.engine.begin() as connection:
        release_hold(connection, hold, author="test", reason="settled", now=TODAY_NOON)
    assert preview_of(books, DAY)["decision"] == "nothing"
    assert preview_of(books, TODAY)["reason_code"] == "stale_data"


def test_explain_reads_what_was_kept(books: Books) -> None:
    """What a run decided is told as it was kept, also after facts have moved on; before it, what it would decide."""
    with books.engine.connect() as connection:
        before = explain(connection, "1", DAY, DAY)
    run_on(books, DAY)
    with books.engine.begin() as connection:
        connection.execute(text(SENT))
    with books.engine.connect() as connection:
        after = explain(connection, "1", DAY, DAY)
    assert [row["kept"] for row in (*before, *after)] == [False, True]
    shared = set(before[0]) & set(after[0]) - {"kept"}
    assert {name: before[0][name] for name in shared} == {name: after[0][name] for name in shared}
    assert before[0]["invoice_numbers"] == ["A1"]
