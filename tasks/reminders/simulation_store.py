"""Plays rules over days of the stored past: reads each day's facts once, keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta

from sqlalchemy import Connection, text

from tasks.errors import UsageError
from tasks.reminders.calendar import Calendar
from tasks.reminders.facts_store import fetch_customers, fetch_freshness, scope_of
from tasks.reminders.rules_store import Drafts, RuleShelf
from tasks.reminders.simulation import Difference, Mail, Played, compare_mails

_SATURDAY = 5


def working_weekdays(first: date, last: date) -> list[date]:
    """Monday to Friday of the period; holidays of each customer's country are left to the plan."""
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [day for day in days if day.weekday() < _SATURDAY]


def newest_ledger_day(connection: Connection) -> date:
    """The newest day that any ledger has spoken about.

    Raises:
        UsageError: none has come yet, so there is no past to play.
    """
    found: date | None = connection.scalar(
        text("select max(as_of) from landing.feed_files where state = 'applied' and feed in"
             " ('open_items', 'settled_items')")
    )  # fmt: skip
    if found is None:
        raise UsageError(
            "No ledger has been taken in, so there is no past to play.", hint="`kontor import FILE` first."
        )
    return found


def simulate(
    connection: Connection, days: Sequence[date], drafts: Drafts, advance: Callable[[], None] = lambda: None
) -> tuple[list[Mail], list[Mail], list[Difference]]:
    """The mails of these days under the rules in force and under ``drafts`` (rows by table), and who is affected.

    Both begin with the reminders that had really been planned before the first day. ``advance`` is called per day.
    """
    calendar, in_force, proposed = Calendar(), Played(), Played()
    shelf, other_shelf = RuleShelf(connection), RuleShelf(connection, drafts)
    for day in days:
        rules, other = shelf.on(day), other_shelf.on(day)
        wider = max((scope_of(book, day) for book in (rules, other)), key=lambda scope: scope.due_until)
        scope = replace(wider, as_it_stands=False, reserved_before=days[0])
        customers, fresh = list(fetch_customers(connection, scope)), fetch_freshness(connection, day)
        in_force.play(customers, rules, calendar, day, fresh)
        proposed.play(customers, other, calendar, day, fresh)
        advance()
    return in_force.mails, proposed.mails, compare_mails(in_force.mails, proposed.mails)
