"""What reports answer is what the rule about lists and ledgers says, however little of it they read."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks import database
from tasks.reports.store import read_report

FIRST = date(2026, 3, 2)
DAYS = [FIRST + timedelta(days) for days in range(-1, 38, 3)]
LISTS = {"both": [FIRST + timedelta(7 * week) for week in range(5)], "lists": [FIRST, FIRST + timedelta(21)]}
LEDGERS = {"both": FIRST + timedelta(18), "ledger": FIRST + timedelta(9)}
Row = dict[str, Any]


def _world(seed: int) -> dict[str, list[Row]]:
    """Customers, and invoices of three senders: one with lists and a ledger, one with either alone."""
    chance = random.Random(seed)
    world: dict[str, list[Row]] = defaultdict(list)
    for number in range(1, 181):
        source = chance.choice(("both", "lists", "ledger"))
        invoice = {"invoice_id": number, "customer": f"C{number % 7}", "source": source, "number": f"I{number:03}"}
        world["invoices"].append(invoice)
        days = iter(sorted(chance.sample(LISTS.get(source, []), chance.randint(0, len(LISTS.get(source, []))))))
        for since in days:
            until = next(days, None)
            world["states"].append({**invoice, **_content(chance), "listed_from": since, "listed_until": until})
        if source in LEDGERS and chance.random() < 0.8:
            said_on = LEDGERS[source]
            settled = None if chance.random() < 0.4 else said_on - timedelta(chance.randint(0, 12))
            world["ledger"].append({**invoice, **_content(chance), "as_of": said_on, "settled_on": settled})
    return world


def _content(chance: random.Random) -> Row:
    due = FIRST + timedelta(chance.randint(-60, 30))
    kind = chance.choice(("invoice", "invoice", "credit_note"))
    return {
        "document_type": kind,
        "issued_on": chance.choice((None, due - timedelta(30))),
        "due_on": due,
        "amount": chance.randint(1, 50) * (1 if kind == "invoice" else -1),
        "disputed": chance.random() < 0.1,
    }


def _open_by_the_rule(world: dict[str, list[Row]], day: date) -> set[tuple[str, int]]:
    """Number and amount of what is open: told from the words of ``crm.open_items_at``, one invoice at a time."""
    entries = {row["invoice_id"]: row for row in world["ledger"]}
    found = set()
    for invoice in world["invoices"]:
        states = [s for s in world["states"] if s["invoice_id"] == invoice["invoice_id"] and s["listed_from"] <= day]
        newest = max(states, key=lambda s: s["listed_from"], default=None)
        listed = newest if newest and (newest["listed_until"] is None or newest["listed_until"] > day) else None
        entry = entries.get(invoice["invoice_id"])
        list_on = max((on for on in LISTS.get(invoice["source"], []) if on <= day), default=None)
        if entry is not None and (day <= entry["as_of"] or list_on is None or list_on <= entry["as_of"]):
            began = min(entry["issued_on"] or entry["due_on"], entry["as_of"])
            if began <= day and (entry["settled_on"] is None or entry["settled_on"] > day):
                found.add((invoice["number"], (listed or entry)["amount"]))
        elif listed is not None:
            found.add((invoice["number"], listed["amount"]))
    return found


def _keep(connection: Connection, world: dict[str, list[Row]]) -> None:
    run_id = connection.scalar(
        text(
            "insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id)"
            " values ('test', 'test', :day, false, 'test', 1) returning run_id"
        ),
        {"day": FIRST},
    )
    for source, days in (*LISTS.items(), *((source, [day]) for source, day in LEDGERS.items())):
        feed, mode = ("open_items", "snapshot") if days is LISTS.get(source) else ("settled_items", "ledger")
        rows = [{"feed": feed, "mode": mode, "source": source, "day": day, "run_id": run_id} for day in days]
        connection.execute(text(_FILE), rows)
    connection.execute(text(_CUSTOMERS))
    current = {s["invoice_id"]: s for s in sorted(world["states"], key=lambda s: s["listed_from"])}
    nothing = {"listed_from": None, "listed_until": None}
    blank = {"document_type": "invoice", "issued_on": None, "due_on": FIRST, "amount": 1, "disputed": False, **nothing}
    connection.execute(text(_INVOICE), [blank | i | current.get(i["invoice_id"], {}) for i in world["invoices"]])
    connection.execute(text(_STATE), [s for s in world["states"] if s is not current[s["invoice_id"]]])
    connection.execute(text(_ENTRY), world["ledger"])
    connection.execute(text(_REMINDED), {"run_id": run_id})


_FILE = """
insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode, file_name, sha256,
                                byte_size, as_of, state, run_id)
values ('test', '1', 'test', :feed, :source, :mode, 'file', cast(:day as text) || :feed || :source, 1, :day, 'applied',
        :run_id)
"""
_CUSTOMERS = """
insert into crm.organizations (customer_number, name, seen_as_of, feed_file_id)
select 'C' || n, 'Customer ' || n, '2026-03-02', (select min(feed_file_id) from landing.feed_files)
from generate_series(0, 6) n
"""
_CONTENT = (
    "document_type, issued_on, due_on, currency, amount, open_amount, disputed, feed_file_id",
    """:document_type, :issued_on, :due_on, 'EUR', :amount, :amount, :disputed,
    (select min(feed_file_id) from landing.feed_files)""",
)
_INVOICE = f"""
insert into crm.invoices (invoice_id, organization_id, source, invoice_number, listed_from, listed_until, {_CONTENT[0]})
overriding system value
select :invoice_id, organization_id, :source, :number, :listed_from, :listed_until, {_CONTENT[1]}
from crm.organizations where customer_number = :customer
"""
_STATE = f"""
insert into crm.invoice_states (invoice_id, listed_from, listed_until, {_CONTENT[0]})
values (:invoice_id, :listed_from, :listed_until, {_CONTENT[1]})
"""
_ENTRY = f"""
insert into crm.ledger_entries (invoice_id, as_of, settled_on, {_CONTENT[0]})
values (:invoice_id, :as_of, :settled_on, {_CONTENT[1]})
"""
# A mail a week, four in all, to every customer with each of their invoices at the next stage.
_REMINDED = """
with decided as (
    insert into ops.reminder_decisions (run_id, as_of, organization_id, decision, reason, reason_code)
    select :run_id, cast('2026-03-02' as date) + 7 * week, organization_id, 'hold', 'test', 'test'
    from crm.organizations, generate_series(0, 3) week
    returning decision_id, organization_id, as_of
), mails as (
    insert into outbox.reminders (run_id, decision_id, organization_id, as_of, stage, state, recipient_email,
                                  recipient_reason, language, template, rule_id, rule_version, sent_at)
    select :run_id, decision_id, organization_id, as_of,
           (array['upcoming', 'first', 'second', 'final'])[1 + (as_of - '2026-03-02') / 7], 'sent', 'a@example.com',
           'test', 'en', 'reminder', 'test', 1, as_of + interval '9 hours'
    from decided returning reminder_id, organization_id, stage
)
insert into outbox.reminder_items (reminder_id, invoice_id, stage, sequence, currency, open_amount, due_on)
select m.reminder_id, i.invoice_id, m.stage, 1, 'EUR', 1, i.due_on
from mails m join crm.invoices i using (organization_id) where i.invoice_id % 3 <> 0
"""


@pytest.fixture(params=(1, 2))
def world(request: pytest.FixtureRequest, kontor_settings: Settings) -> dict[str, list[Row]]:
    """A made-up world, kept in the database."""
    made = _world(request.param)
    with database.engine_for(kontor_settings, database.OWNER).begin() as connection:
        _keep(connection, made)
    return made


def test_what_is_open_on_any_day_follows_from_lists_and_ledgers(
    world: dict[str, list[Row]], kontor_settings: Settings
) -> None:
    """On each of thirteen days the items that read as open are those that the rule gives, with their amounts."""
    sizes = set()
    with database.engine_for(kontor_settings, database.OWNER).connect() as connection:
        for day in DAYS:
            rows = connection.execute(
                text("select invoice_number, cast(open_amount as integer) from crm.open_items_at(:day)"), {"day": day}
            )
            found = [(row[0], row[1]) for row in rows]
            assert len(found) == len(set(found))
            assert set(found) == _open_by_the_rule(world, day), day
            sizes.add(len(found))
    assert len(sizes) > 5


def test_a_part_of_a_report_is_what_the_whole_says(world: dict[str, list[Row]], kontor_settings: Settings) -> None:
    """The first rows, one customer's rows, and both at once are those of the whole report, reminders included."""
    assert world
    with database.engine_for(kontor_settings, database.OWNER).connect() as connection:
        for name in ("open_invoices", "overdue_invoices", "settled_invoices", "organization_card"):
            for day in (DAYS[4], DAYS[-1], None):
                whole = read_report(connection, name, as_of=day)
                assert len(whole.rows) > 3
                first = read_report(connection, name, as_of=day, limit=3)
                assert (first.rows, first.more, first.columns) == (whole.rows[:3], True, whole.columns)
                assert read_report(connection, name, as_of=day, limit=len(whole.rows)) == whole
                theirs = tuple(row for row in whole.rows if "C3" in row)
                assert theirs
                assert read_report(connection, name, as_of=day, customer="C3").rows == theirs
                assert read_report(connection, name, as_of=day, customer="C3", limit=1).rows == theirs[:1]
        reminded = read_report(connection, "open_invoices", as_of=DAYS[6]).records()
        assert {row["last_stage"] for row in reminded} == {"second", None}


def test_sums_per_currency_are_those_of_the_items(world: dict[str, list[Row]], kontor_settings: Settings) -> None:
    """The one line of finance's totals adds up and counts what the list of open invoices says, item by item."""
    assert world
    with database.engine_for(kontor_settings, database.OWNER).connect() as connection:
        for day in DAYS[1:]:
            items = read_report(connection, "open_invoices", as_of=day).records()
            late = [row for row in items if row["days_overdue"] and row["open_amount"] > 0]  # type: ignore[operator]
            (line,) = read_report(connection, "finance_totals", as_of=day).records()
            assert line["open_invoices"] == len(items)
            assert line["open_amount"] == sum(row["open_amount"] for row in items)  # type: ignore[misc]
            assert line["overdue_invoices"] == len(late)
            assert line["overdue_customers"] == len({row["customer_number"] for row in late})
            assert line["oldest_days_overdue"] == max(row["days_overdue"] for row in late)  # type: ignore[type-var]
