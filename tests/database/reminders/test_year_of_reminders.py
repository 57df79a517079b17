"""The weekly ledgers of 2012, reminded on each working day as if every mail were sent, against counts written down.

``KONTOR_UPDATE_GOLDEN=1`` writes the counts anew; the difference is then read, and the reasoning in the file with it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from configs.settings import PROJECT_ROOT, Settings
from tasks.payments.class_trial import try_classes
from tasks.reminders.facts_store import fetch_customers, fetch_freshness, scope_of
from tasks.reminders.plan import Decision
from tasks.reminders.rules_store import RuleShelf
from tasks.reminders.simulation import Mail, Played
from tasks.reminders.simulation_store import Spans, simulate, working_weekdays
from tests.ledgers import Books
from tests.reminding import CALENDAR, shipped_rows

GOLDEN = PROJECT_ROOT / "tests" / "golden" / "reminders-2012.json"
YEAR = working_weekdays(date(2012, 1, 2), date(2012, 12, 31))


@pytest.fixture
def books(kontor_settings: Settings, real_data: Path) -> Books:
    """The customers, contacts and 53 ledgers of 2012."""
    books, folder = Books(kontor_settings), real_data / "receivables"
    books.take_in(folder / "customers.xlsx", "organizations", date(2012, 1, 1))
    books.take_in(folder / "contacts.xlsx", "contacts", date(2012, 1, 1))
    for path in sorted((folder / "weekly-2012").glob("*.xlsx")):
        books.take_in(path, "open_items")
    books.classify()
    return books


def _play(connection: Connection) -> tuple[list[Mail], Counter[str]]:
    """Every mail of the year, each checked against what its day's ledger and contacts say."""
    shelf, played, decisions = RuleShelf(connection), Played(), Counter[str]()
    for day in YEAR:
        rules = shelf.on(day)
        customers = list(fetch_customers(connection, scope_of(rules, day, as_it_stands=False)))
        made = played.play(customers, rules, CALENDAR, day, fetch_freshness(connection, day))
        decisions.update(f"{decision.decision} {decision.reason_code}" for decision in made)
        _check_day(connection, day, made)
    return played.mails, decisions


def _check_day(connection: Connection, day: date, made: list[Decision]) -> None:
    """One decision per customer with something overdue; its items in that week's ledger, its person in the role."""
    overdue = set(connection.scalars(text(_OVERDUE_CUSTOMERS), {"day": day}))
    decided = [decision.organization_id for decision in made]
    assert len(decided) == len(set(decided))
    assert overdue <= set(decided)
    reminded = [item.invoice_id for decision in made for item in decision.reserved]
    listed = set(connection.scalars(text(_LISTED), {"day": day}))
    assert set(reminded) <= listed
    for decision in made:
        if decision.contact_id is not None:
            assert connection.scalar(text(_IN_ROLE), {"contact": decision.contact_id, "day": day})


# Straight from the states that the week's file left, without the functions that the plan reads through.
_LISTED = """
with week as (select max(as_of) as day from landing.feed_files where feed = 'open_items' and as_of <= :day),
states as (
    select invoice_id, listed_from, listed_until, disputed from crm.invoices
    union all select invoice_id, listed_from, listed_until, disputed from crm.invoice_states)
select invoice_id from states, week
where listed_from <= week.day and (listed_until is null or listed_until > week.day) and not disputed
"""
_OVERDUE_CUSTOMERS = """
select distinct o.organization_id from report.overdue_invoices(:day) i
join crm.organizations o on o.customer_number = i.customer_number
"""
_IN_ROLE = "select exists (select from crm.contact_roles where contact_id = :contact and valid @> cast(:day as date))"


def _counts(mails: list[Mail], decisions: Counter[str]) -> dict[str, Any]:
    return {
        "mails": len(mails),
        "customers": len({mail.organization_id for mail in mails}),
        "by stage": dict(sorted(Counter(mail.stage for mail in mails).items())),
        "by language": dict(sorted(Counter(mail.language for mail in mails).items())),
        "by month": dict(sorted(Counter(f"{mail.day:%Y-%m}" for mail in mails).items())),
        "steps": dict(sorted(Counter(stage for mail in mails for _, stage, _ in mail.items).items())),
        "decisions": dict(sorted(decisions.items())),
    }


def test_a_year_of_reminders_is_right_and_comes_to_the_counts_that_were_written_down(books: Books) -> None:
    """None for an item not in its week's ledger, none to an ended role, none twice; and the counts are known ones."""
    with books.engine.connect() as connection:
        mails, decisions = _play(connection)
    steps = [step for mail in mails for step in mail.items]
    assert len(steps) == len(set(steps)) > 200
    counts = _counts(mails, decisions)
    kept = json.loads(GOLDEN.read_text("utf-8"))
    if os.environ.get("KONTOR_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(kept | {"counts": counts}, ensure_ascii=False, indent=2) + "\n", "utf-8")
        pytest.fail(f"{GOLDEN.name} was written anew; read the difference")
    assert counts == kept["counts"]
    _check_simulation(books)


def _check_simulation(books: Books) -> None:
    """A draft without notices beforehand: fewer mails for some, none moved for the others, and nothing is kept."""
    draft = {"reminder_stage": [row for row in shipped_rows()["reminder_stage"] if row["stage"] != "upcoming"]}
    quarter = working_weekdays(date(2012, 4, 2), date(2012, 6, 29))
    with books.engine.connect() as connection:
        before, after, differences = simulate(connection, quarter, draft)
    assert len(after) < len(before)
    assert not [mail for mail in after if mail.stage == "upcoming"]
    assert "fewer" in {difference.change for difference in differences}
    assert sum(d.mails - d.mails_proposed for d in differences) == len(before) - len(after)
    assert books.read("select 1 from ops.reminder_decisions union all select 1 from outbox.reminders") == []
    _check_classes(books, quarter[:20])


def _check_classes(books: Books, days: list[date]) -> None:
    """A draft of payer classes that calls everyone disloyal: they climb that ladder, and no class has changed."""
    rule = dict.fromkeys(("rule_id", "author", "reason"), "") | {
        "version": 1, "rank": 1, "payer_class": "disloyal", "metric": "always", "operator": ">=", "threshold": 0,
        "window_months": 12, "minimum_evidence": 0, "weighting": "count", "leave_out_disputed": True, "hysteresis": 0,
    }  # fmt: skip
    classes = "select * from ops.payer_class_history order by 1, 2"
    as_it_was = books.read(classes)
    with books.engine.connect() as connection:
        spans = try_classes(connection, [rule], days[0])
        before, after, _ = simulate(connection, days, {}, classes=Spans(spans))
    assert {span.payer_class for span in spans if span.until is None} == {"disloyal"}
    assert before
    assert before != after
    assert books.read(classes) == as_it_was
