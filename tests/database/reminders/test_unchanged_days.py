"""A second run of a day: nothing is decided again while nothing has changed, everything as soon as something has."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks import ledger
from tasks.database import OWNER, engine_for
from tasks.reminders import facts_store, planning_store
from tasks.reminders.day_state_store import (
    FACT_TABLES,
    PARTLY,
    DayState,
    fetch_state,
    fetch_unchanged,
    is_untold,
    keep_state,
    note_told,
)
from tasks.reminders.drafts import DraftPlan
from tasks.reminders.plan_store import save_plan
from tasks.reminders.planning_store import draft_day
from tasks.reminders.rulebook import RULE_TABLES
from tests.conftest import CAMPAIGN_FACTOR
from tests.dask_cluster import a_cluster, die
from tests.ledgers import Books, item, write_csv

DAY = date(2012, 6, 4)  # a Monday
CUSTOMERS = [str(number) for number in range(1, 9)]

# Each is a fact that a decision may follow from; every one must be noticed.
CHANGES = {
    "paid": "update crm.invoices set listed_until = greatest('2012-06-04', listed_from + 1) where invoice_id ="
    " (select max(invoice_id) from crm.invoices where listed_until is null)",
    "sum": "update crm.invoices set open_amount = open_amount - 1 where invoice_number = 'A2' and open_amount > 2",
    "disputed": "update crm.invoices set disputed = not disputed where invoice_number = 'A3'",
    "money": "insert into crm.payments (organization_id, source, payment_number, received_on, currency, amount)"
    " select organization_id, 'bank', gen_random_uuid(), '2012-06-04', 'EUR', 30 from crm.organizations"
    " where customer_number = '4'",
    "matched": "insert into crm.allocations (payment_id, invoice_id, amount, allocated_on)"
    " select p.payment_id, i.invoice_id, 1, '2012-06-04' from crm.payments p, crm.invoices i"
    " where i.invoice_number = 'A5' order by p.payment_id desc limit 1 on conflict do nothing",
    "hold": "insert into ops.reminder_holds (kind, organization_id, valid, author, reason)"
    " select 'promise_to_pay', organization_id, '[2012-06-01,2012-06-20)', 'test', 'test' from crm.organizations"
    " where customer_number = '6'",
    "released": "update ops.reminder_holds set released_at = '2012-06-02', released_by = 'test', release_reason = 'x'"
    " where released_at is null",
    "person": "update crm.contacts set email = 'new' || email where contact_key = (select min(contact_key)"
    " from crm.contacts where length(email) < 60)",
    "role": "delete from crm.contact_roles where contact_role_id = (select max(contact_role_id)"
    " from crm.contact_roles)",
    "language": "update crm.organizations set language = case language when 'bg' then 'pl' else 'bg' end"
    " where customer_number = '7'",
    "class": "update ops.payer_class_history set payer_class = case payer_class when 'strict' then 'disloyal'"
    " else 'strict' end where organization_id = (select min(organization_id) from ops.payer_class_history)",
    "bounced": "insert into outbox.suppressions (email, kind, reason) select lower(email), 'hard_bounce', 'test'"
    " from crm.contacts where contact_key = (select max(contact_key) from crm.contacts) on conflict do nothing",
    "rule": "update rules.reminder_policy set grace_days = 3 - grace_days where rule_id = (select min(rule_id)"
    " from rules.reminder_policy)",
    "cancelled": "update outbox.reminders set state = 'cancelled', state_reason = 'test' where reminder_id ="
    " (select max(reminder_id) from outbox.reminders where state <> 'cancelled')",
    "task closed": "update ops.reminder_tasks set closed_at = now(), closed_by = 'somebody', close_reason = 'x'"
    " where closed_at is null",
}
# What a run does to the mails of its own day, and what others do to things that no decision follows from.
WITHOUT_MEANING = {
    "sent": "update outbox.reminders set state = 'sent', sent_at = now() where as_of = '2012-06-04'",
    "answered": "insert into outbox.deliveries (reminder_id, attempt, recipient_email, outcome, at, mode)"
    " select reminder_id, 1, recipient_email, 'sent', now(), 'live' from outbox.reminders",
    "catalog": "insert into landing.feed_files (file_name, sha256, byte_size, contract, contract_version,"
    " contract_sha256, feed, source, mode, as_of, state, run_id) select 'c.csv', 'c', 1, 'c', '1', '', 'catalog', 's',"
    " mode, '2012-06-04', 'applied', run_id from landing.feed_files limit 1",
    "looked at": "select * from crm.invoices for update",
}
_RELEASE = (
    "update outbox.reminder_items i set released_at = now(), release_reason = 'test' from outbox.reminders r"
    " where r.reminder_id = i.reminder_id and r.state = 'cancelled' and i.released_at is null"
)


@pytest.fixture
def books(kontor_settings: Settings, tmp_path: Path) -> Iterator[Books]:
    """Eight customers who owe, six of whom have somebody to write to; one with an item in dispute, one with a class."""
    books = Books(kontor_settings)
    books.customers(tmp_path, CUSTOMERS)
    people = [{"customer_number": n, "email": f"pay{n}@example.com", "roles": "payments"} for n in CUSTOMERS[:6]]
    books.take_in(write_csv(tmp_path / "people.csv", people), "contacts", date(2020, 1, 1))
    rows = [item(n, f"A{n}", "100.00", DAY - timedelta(days=5 + 6 * int(n))) for n in CUSTOMERS]
    rows += [item("1", "B1", "70.00", DAY - timedelta(days=3)), item("2", "B2", "7.00", DAY, disputed="yes")]
    books.take_in(write_csv(tmp_path / "open.csv", rows), "open_items", DAY)
    change(
        books,
        "insert into ops.payer_class_history (organization_id, valid_from, payer_class, rule_id, rule_version, figures,"
        " reason) select organization_id, '2012-01-01', 'strict', 'test', 1, '{}', 'test' from crm.organizations"
        " where customer_number = '3'",
    )
    rules = books.read("select rule_id, grace_days from rules.reminder_policy where rule_id = (select min(rule_id)"
                       " from rules.reminder_policy)")  # fmt: skip
    yield books
    for rule in rules:
        with engine_for(books.settings, OWNER).begin() as connection:
            connection.execute(
                text("update rules.reminder_policy set grace_days = :grace_days where rule_id = :rule_id"), rule
            )


def change(books: Books, statement: str) -> None:
    """Change the database as its owner, and give back what a cancelled mail had reserved."""
    with engine_for(books.settings, OWNER).begin() as connection:
        connection.execute(text(statement))
        connection.execute(text(_RELEASE))


def look(books: Books, day: date, *, processes: int = 1, dask: str | None = None) -> tuple[DayState, DraftPlan]:
    """The state of a day and what would be decided on it, in one snapshot."""
    settings = books.settings.model_copy(update={"processes": processes, "dask": dask})
    with books.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        return fetch_state(connection, day), draft_day(connection, day, settings, worth_sharing=0)


def stands(books: Books, day: date) -> bool:
    """Whether the plan of a day stands."""
    with books.engine.connect() as connection:
        return fetch_unchanged(connection, day, fetch_state(connection, day)) is not None


def run_on(books: Books, day: date) -> dict[str, int]:
    """Plan a day whether its plan stands or not, and return what was written."""
    state, draft = look(books, day)
    with ledger.open_run(
        books.engine, "overdue_reminders", as_of=day, dry_run=False, prefect_run_id=None, actor="test"
    ) as run:
        with books.engine.begin() as connection:
            written = save_plan(connection, run.run_id, day, draft)
            keep_state(connection, run.run_id, day, state, draft.reasons)
        return {name: count for name, count in written.items() if name != "decided" and count}


def _stands_after(connection: Connection, statement: str) -> bool:
    """Whether the day's plan stands after a change, which is then taken back."""
    with connection.begin() as transaction:
        connection.execute(text(statement))
        unchanged = fetch_unchanged(connection, DAY, fetch_state(connection, DAY)) is not None
        transaction.rollback()
    return unchanged


def test_finance_is_owed_a_list_until_it_had_one_whichever_run_planned_the_mails(books: Books) -> None:
    """A run that died before it told leaves it to the next; told once it is enough, until further mails are planned."""

    def untold() -> bool:
        with books.engine.connect() as connection:
            return is_untold(connection, DAY)

    assert not untold()
    run_on(books, DAY)
    assert untold()
    with books.engine.begin() as connection:
        note_told(connection, DAY, datetime(2012, 6, 4, 9, tzinfo=UTC))
    run_on(books, DAY)
    assert not untold()
    change(books, CHANGES["cancelled"])
    assert run_on(books, DAY)["planned"] == 1
    assert untold()
    change(books, "update outbox.reminders set state = 'sent', sent_at = now() where state = 'planned'")
    assert not untold()


def test_any_fact_that_changes_has_the_day_decided_again(books: Books) -> None:
    """A plan stands for its own day until a fact, a rule or a mail of another day changes; and not a moment longer."""
    change(books, CHANGES["hold"])
    change(books, CHANGES["money"])
    assert not stands(books, DAY)
    assert run_on(books, DAY)["recorded"] == len(CUSTOMERS)
    assert stands(books, DAY)
    assert not stands(books, DAY + timedelta(days=1))
    with engine_for(books.settings, OWNER).connect() as connection:
        assert {name: _stands_after(connection, statement) for name, statement in CHANGES.items()} == dict.fromkeys(
            CHANGES, False
        )
        assert {
            name: _stands_after(connection, statement) for name, statement in WITHOUT_MEANING.items()
        } == dict.fromkeys(WITHOUT_MEANING, True)


@pytest.mark.parametrize("seed", range(CAMPAIGN_FACTOR))
def test_a_run_that_may_skip_leaves_nothing_to_one_that_may_not(books: Books, seed: int) -> None:
    """Whatever changes between runs of a few days, in any order: where a plan stands, deciding anew adds nothing."""
    chance = random.Random(f"unchanged {seed}")
    day, stood = DAY, 0
    run_on(books, day)
    for _ in range(14):
        for name in chance.sample(sorted(CHANGES), chance.randint(0, 2)):
            change(books, CHANGES[name])
        if chance.random() < 0.3:
            change(books, "update outbox.reminders set state = 'sent', sent_at = now() where state = 'planned'")
            day += timedelta(days=chance.randint(0, 3))
        standing = stands(books, day)
        written = run_on(books, day)
        assert not (standing and written), (seed, day, written)
        stood += standing
    assert stood, seed


def test_the_sums_are_of_every_table_that_facts_are_read_from(books: Books) -> None:
    """What the statements read, as PostgreSQL plans them, is what is summed up: no table less, none more."""
    read: set[str] = {f"rules.{name}" for name in RULE_TABLES}
    values = {"as_of": DAY, "due_until": DAY, "as_it_stands": True, "lowest": 0, "highest": 9, "customer_number": None,
              "reserved_before": DAY}  # fmt: skip
    with books.engine.connect() as connection:
        for statement in (facts_store._ITEMS, facts_store._SIDES, facts_store._CONTACTS):
            query = facts_store._with_literals(statement, values)
            _collect(connection.exec_driver_sql(f"explain (format json, verbose) {query}").scalar_one(), read)
        newest = "explain (format json, verbose) select * from crm.freshness_at('2012-06-04')"
        _collect(connection.exec_driver_sql(newest).scalar_one(), read)
    assert read == set(FACT_TABLES) | set(PARTLY)


def _collect(plan: Any, found: set[str]) -> None:
    """Add the tables that a plan reads, wherever in it."""
    if isinstance(plan, list):
        for part in plan:
            _collect(part, found)
    elif isinstance(plan, dict):
        if "Relation Name" in plan:
            found.add(f"{plan['Schema']}.{plan['Relation Name']}")
        _collect(list(plan.values()), found)


def test_helpers_make_no_difference_and_neither_does_losing_them(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several processes decide what one decides; where the others are killed, the first makes up for them."""
    alone = look(books, DAY)[1]
    together = look(books, DAY, processes=2)[1]
    doomed = tmp_path / "doomed"
    doomed.write_text("#!/bin/sh\ncat > /dev/null\nkill -9 $$\n")
    doomed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(doomed))
    bereft = look(books, DAY, processes=3)[1]
    assert (len(together.decisions), len(bereft.decisions)) == (2, 3)  # a block of each share
    for draft in (together, bereft):
        assert b"".join(draft.decisions) == b"".join(alone.decisions)
        assert b"".join(draft.items) == b"".join(alone.items)
        assert draft.reasons == alone.reasons


def test_workers_of_dask_make_no_difference(books: Books) -> None:
    """What a scheduler's workers decide is what one process decides, in blocks of their own."""
    alone = look(books, DAY)[1]
    with a_cluster() as address:
        together = look(books, DAY, processes=3, dask=address)[1]
    assert len(together.decisions) == 3
    _assert_same(together, alone)


@pytest.mark.campaign
def test_workers_of_a_cluster_of_its_own_make_no_difference_and_neither_does_killing_one(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Processes started for the step decide the same; one that is killed is told of, and its share decided here."""
    alone = look(books, DAY)[1]
    _assert_same(look(books, DAY, processes=2, dask="local")[1], alone)
    monkeypatch.setattr(planning_store, "draft_apart", die)
    bereft = look(books, DAY, processes=2, dask="local")[1]
    assert len(bereft.decisions) == 2
    _assert_same(bereft, alone)
    assert "share_lost A worker of Dask's" in caplog.text


def _assert_same(draft: DraftPlan, alone: DraftPlan) -> None:
    assert alone.decisions
    assert b"".join(draft.decisions) == b"".join(alone.decisions)
    assert b"".join(draft.items) == b"".join(alone.items)
    assert draft.reasons == alone.reasons
