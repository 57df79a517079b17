"""Reads a day's facts and decides about them in one snapshot of the database."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from sqlalchemy import Connection, Engine

from tasks.reminders.calendar import Calendar
from tasks.reminders.facts_store import fetch_customers, fetch_freshness, scope_of
from tasks.reminders.plan import Decision, plan_reminders
from tasks.reminders.rulebook import RuleBook
from tasks.reminders.rules_store import fetch_rulebook


def decide_day(engine: Engine, as_of: date) -> tuple[list[Decision], RuleBook]:
    """The decisions of a day by customer id, and the rules they were made by; nothing is kept."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        return decide_on(connection, as_of)


def decide_on(
    connection: Connection,
    as_of: date,
    *,
    as_it_stands: bool = True,
    customer_number: str | None = None,
) -> tuple[list[Decision], RuleBook]:
    """The same on a connection of the caller's, for one customer or all."""
    rules = fetch_rulebook(connection, as_of)
    scope = scope_of(rules, as_of, as_it_stands=as_it_stands, customer_number=customer_number)
    fresh = fetch_freshness(connection, as_of)
    with _no_search_for_cycles():
        return list(plan_reminders(fetch_customers(connection, scope), rules, Calendar(), as_of, fresh)), rules


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
