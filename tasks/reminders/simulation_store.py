"""Plays rules over days of the stored past: reads each day's facts once, keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date, timedelta

from sqlalchemy import Connection, text

from tasks.errors import UsageError
from tasks.reminders.calendar import Calendar
from tasks.reminders.facts import Customer
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


class Spans:
    """The payer classes that customers would have had under other rules, by day."""

    def __init__(self, spans: Iterable[tuple[int, str, date, date | None]]) -> None:
        self._of: dict[int, list[tuple[str, date, date | None]]] = {}
        for organization_id, payer_class, first, until in spans:
            self._of.setdefault(organization_id, []).append((payer_class, first, until))

    def on(self, customer: Customer, day: date) -> Customer:
        """The customer with the class of that day; without any it is unrated."""
        held = self._of.get(customer.organization_id, ())
        found = next(
            (name for name, first, until in held if first <= day and (until is None or day < until)), "unrated"
        )
        return customer._replace(payer_class=found)


def simulate(
    connection: Connection,
    days: Sequence[date],
    drafts: Drafts,
    advance: Callable[[], None] = lambda: None,
    classes: Spans | None = None,
) -> tuple[list[Mail], list[Mail], list[Difference]]:
    """The mails of these days under the rules in force and under ``drafts`` (rows by table), and who is affected.

    Both begin with the reminders that had really been planned before the first day. With ``classes`` the customers have
    those under the drafts, else the ones they really had. ``advance`` is called per day.
    """
    calendar, in_force, proposed = Calendar(), Played(), Played()
    shelf, other_shelf = RuleShelf(connection), RuleShelf(connection, drafts)
    for day in days:
        rules, other = shelf.on(day), other_shelf.on(day)
        wider = max((scope_of(book, day) for book in (rules, other)), key=lambda scope: scope.due_until)
        scope = replace(wider, as_it_stands=False, reserved_before=days[0])
        customers, fresh = list(fetch_customers(connection, scope)), fetch_freshness(connection, day)
        in_force.play(customers, rules, calendar, day, fresh)
        classed = customers if classes is None else [classes.on(customer, day) for customer in customers]
        proposed.play(classed, other, calendar, day, fresh)
        advance()
    return in_force.mails, proposed.mails, compare_mails(in_force.mails, proposed.mails)
