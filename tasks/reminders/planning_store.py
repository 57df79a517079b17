"""Reads a day's facts and decides about them in one snapshot of the database, in two processes where that is faster."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date

from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks.reminders.calendar import Calendar
from tasks.reminders.drafts import DraftPlan, draft_plan
from tasks.reminders.facts_store import fetch_customers, fetch_freshness, scope_of
from tasks.reminders.plan import Decision, plan_reminders
from tasks.reminders.planning_helper import Share, helping
from tasks.reminders.rulebook import RuleBook
from tasks.reminders.rules_store import fetch_rulebook

# Below this a second process takes longer to begin than it spares.
_WORTH_A_HELPER = 20_000
_HIGHEST = 2**62


def decide_on(
    connection: Connection,
    as_of: date,
    *,
    as_it_stands: bool = True,
    customer_number: str | None = None,
) -> tuple[list[Decision], RuleBook]:
    """The decisions of a day by customer id, about one customer or all, and the rules they were made by."""
    rules = fetch_rulebook(connection, as_of)
    return list(_decide(connection, rules, as_of, as_it_stands=as_it_stands, customer_number=customer_number)), rules


def draft_day(
    connection: Connection, as_of: date, settings: Settings, *, worth_a_helper: int = _WORTH_A_HELPER
) -> DraftPlan:
    """The decisions of a day about all customers, ready to be kept; nothing is.

    ``connection`` stands in a transaction that reads one snapshot (REPEATABLE READ). From ``worth_a_helper`` customers
    on a second process decides about the upper half of them, in the same snapshot.
    """
    count, middle = connection.execute(text(_MIDDLE)).one()
    if count < worth_a_helper:
        return draft_share(connection, as_of)
    snapshot = str(connection.scalar(text("select pg_export_snapshot()")))
    with helping(Share(settings, snapshot, as_of, middle)) as answer:
        draft = draft_share(connection, as_of, highest=middle - 1)
        draft.extend(answer() or draft_share(connection, as_of, lowest=middle))
    return draft


def draft_share(connection: Connection, as_of: date, *, lowest: int = 0, highest: int = _HIGHEST) -> DraftPlan:
    """The same about the customers with these ids, in this process alone."""
    with _no_search_for_cycles():
        return draft_plan(_decide(connection, fetch_rulebook(connection, as_of), as_of, lowest, highest))


def _decide(
    connection: Connection,
    rules: RuleBook,
    as_of: date,
    lowest: int = 0,
    highest: int = _HIGHEST,
    *,
    as_it_stands: bool = True,
    customer_number: str | None = None,
) -> Iterator[Decision]:
    scope = scope_of(rules, as_of, as_it_stands=as_it_stands, customer_number=customer_number)
    customers = fetch_customers(connection, replace(scope, lowest=lowest, highest=highest))
    return plan_reminders(customers, rules, Calendar(), as_of, fetch_freshness(connection, as_of))


# The helper gets a little less, because it begins later.
_MIDDLE = """
select count(*), coalesce(percentile_disc(0.53) within group (order by organization_id), 0) from crm.organizations
"""


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Let millions of small tuples, none of which is part of a cycle, be made without being looked through each time.

    It spares a third of the pass. What others made cyclic meanwhile is collected afterwards.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
