"""Reads a day's facts and decides about them in one snapshot of the database, by several helpers where told to.

Each decides about customers of its own. What helps only reads, so that it may be killed at any moment: its
share is then decided about here. A plan is the same however many there are.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from itertools import pairwise

from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks.database import engine_for
from tasks.errors import DependencyDown
from tasks.reminders.calendar import Calendar
from tasks.reminders.drafts import DraftPlan, draft_plan
from tasks.reminders.facts_store import fetch_customers, fetch_freshness, scope_of
from tasks.reminders.plan import Decision, plan_reminders
from tasks.reminders.rulebook import RuleBook
from tasks.reminders.rules_store import fetch_rulebook
from tasks.side_by_side import sharing_out

# Below this a second process takes longer to begin than it spares.
_WORTH_SHARING = 20_000
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
    connection: Connection, as_of: date, settings: Settings, *, worth_sharing: int = _WORTH_SHARING
) -> DraftPlan:
    """The decisions of a day about all customers, ready to be kept; nothing is.

    ``connection`` stands in a transaction that reads one snapshot (REPEATABLE READ). From ``worth_sharing`` customers
    on as many helpers decide as the settings allow, all of them in that snapshot.
    """
    own, *others = _bounds(connection, settings.shares, worth_sharing)
    if not others:
        return draft_share(connection, as_of)
    snapshot = str(connection.scalar(text("select pg_export_snapshot()")))
    with sharing_out(settings) as helpers:
        shares = [(helpers.start(draft_apart, settings, snapshot, as_of, *bound), bound) for bound in others]
        try:
            draft = draft_share(connection, as_of, *own)
            for share, bound in shares:
                try:
                    draft.extend(share.result())
                except DependencyDown as lost:  # killed: nothing of it is lost but time
                    logging.getLogger("kontor").warning("share_lost %s", lost)
                    draft.extend(draft_share(connection, as_of, *bound))
        finally:
            for share, _ in shares:
                share.give_up()
    return draft


def draft_apart(settings: Settings, snapshot: str, as_of: date, lowest: int, highest: int) -> DraftPlan:
    """A share of another process's plan, in the snapshot that it holds."""
    engine = engine_for(settings, purpose="kontor overdue_reminders")
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        # A snapshot's name takes no parameter, and is made of hexadecimal digits and dashes alone.
        connection.execute(text(f"set transaction snapshot '{snapshot}'"))
        return draft_share(connection, as_of, lowest, highest)


def draft_share(connection: Connection, as_of: date, lowest: int = 0, highest: int = _HIGHEST) -> DraftPlan:
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


def _bounds(connection: Connection, shares: int, worth_sharing: int) -> list[tuple[int, int]]:
    """The lowest and highest id of each share; the first is a little larger, because the others begin later."""
    if shares == 1:
        return [(0, _HIGHEST)]
    parts = [(place + 0.06) / (shares + 0.06) for place in range(1, shares)]
    count, edges = connection.execute(text(_EDGES), {"parts": parts}).one()
    if count < worth_sharing:
        return [(0, _HIGHEST)]
    return [(lowest, upper - 1) for lowest, upper in pairwise([0, *edges, _HIGHEST])]


_EDGES = """
select count(*), percentile_disc(cast(:parts as double precision[])) within group (order by organization_id)
from crm.organizations
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
