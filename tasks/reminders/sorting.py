"""A customer's items by what they are on the day: overdue, due for a step, held back, falling due soon, or a credit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import NamedTuple

from tasks.reminders import wording
from tasks.reminders.calendar import Calendar
from tasks.reminders.facts import Customer, Hold, Item
from tasks.reminders.rulebook import Stage
from tasks.reminders.stages import Step, find_step

ZERO = Decimal(0)
# The gravest first: it is the one named where several stand.
GRAVITY = ("legal_hold", "do_not_remind", "unmatched_money", "promise_to_pay", "dispute", "unknown")


class Sorted(NamedTuple):
    """Items by what they are; ``credits`` are sums per currency, positive. ``waiting`` is overdue with no step due."""

    overdue: list[Item]
    steps: list[tuple[Item, Step]]
    held: list[tuple[Item, str, date | None]]
    waiting: list[Item]
    due_soon: list[Item]
    credits: dict[str, Decimal]
    credit_ids: list[int]


class DaySteps:
    """Steps that items are due for on one day, for one ladder and country; each is worked out once and then known.

    What an item is due for follows from its due date and what was said of it, so a million items come to a few
    hundred answers.
    """

    def __init__(self, ladder: Sequence[Stage], calendar: Calendar, country: str, as_of: date) -> None:
        self._ladder, self._calendar, self._country, self._as_of = ladder, calendar, country, as_of
        self._known: dict[tuple[date, int, int, date | None], Step | None] = {}

    def of(self, item: Item) -> Step | None:
        """The step that this item is due for; None where there is none today."""
        key = (item.due_on, item.level, item.sequence, item.reminded_on)
        try:
            return self._known[key]
        except KeyError:
            late = self._calendar.next_working_day(self._country, item.due_on) < self._as_of
            step = find_step(self._calendar, self._country, self._ladder, item, self._as_of, late)
            self._known[key] = step
            return step


def sort_items(customer: Customer, steps: DaySteps, as_of: date, due_soon_days: int) -> Sorted:
    """Every item of the customer in its place; an item held back is in ``held`` and in no other but ``overdue``."""
    found = Sorted([], [], [], [], [], {}, [])
    soon = as_of + timedelta(days=due_soon_days)
    holds = _item_holds(customer.holds, as_of) if customer.holds else None
    for item in customer.items:
        if item.is_credit or item.open_amount <= 0:
            _add_credit(found, item)
            continue
        overdue = item.due_on < as_of
        if overdue:
            found.overdue.append(item)
        if item.disputed or item.unknown or holds:
            held = _held(item, holds or {})
            if held is not None:
                found.held.append(held)
                continue
        step = steps.of(item)
        if step is not None:
            found.steps.append((item, step))
        elif overdue:
            found.waiting.append(item)
        elif item.due_on <= soon:
            found.due_soon.append(item)
    return found


def _held(item: Item, holds: Mapping[int, Hold]) -> tuple[Item, str, date | None] | None:
    """The item with what holds it back and until when; None where nothing does."""
    hold = holds.get(item.invoice_id)
    if hold is not None:
        return item, hold.kind, hold.until
    kind = "dispute" if item.disputed else "unknown" if item.unknown else None
    return (item, kind, None) if kind is not None else None


def _add_credit(found: Sorted, item: Item) -> None:
    if item.open_amount:
        found.credits[item.currency] = found.credits.get(item.currency, ZERO) - item.open_amount
        found.credit_ids.append(item.invoice_id)


def _item_holds(holds: Iterable[Hold], as_of: date) -> dict[int, Hold]:
    standing = [hold for hold in holds if hold.invoice_id is not None and _stands(hold, as_of)]
    standing.sort(key=lambda hold: (-GRAVITY.index(hold.kind), hold.hold_id))
    return {hold.invoice_id: hold for hold in standing if hold.invoice_id is not None}


def customer_hold(holds: Iterable[Hold], as_of: date) -> Hold | None:
    """The gravest hold on the customer as a whole that stands on the day; None where there is none."""
    standing = [hold for hold in holds if hold.invoice_id is None and _stands(hold, as_of)]
    return min(standing, key=lambda hold: (GRAVITY.index(hold.kind), hold.hold_id), default=None)


def _stands(hold: Hold, as_of: date) -> bool:
    return hold.until is None or hold.until >= as_of


def broken_promise(customer: Customer, as_of: date) -> date | None:
    """The last day of the newest promise that has passed with its items still open; None where there is none."""
    still_open = {item.invoice_id for item in customer.items}
    return max(
        (
            hold.until
            for hold in customer.holds
            if hold.kind == "promise_to_pay" and hold.until is not None and hold.until < as_of
            and (hold.invoice_id is None or hold.invoice_id in still_open)
        ),
        default=None,
    )  # fmt: skip


def owed(found: Sorted) -> dict[str, Decimal]:
    """What is due per currency: every overdue item that nothing holds back, and what is noticed beforehand."""
    return sum_open([item for item, _ in found.steps] + found.waiting)


def sum_open(items: Iterable[Item]) -> dict[str, Decimal]:
    """What is left to pay per currency; currencies are never added together."""
    sums: dict[str, Decimal] = {}
    for item in items:
        sums[item.currency] = sums.get(item.currency, ZERO) + item.open_amount
    return sums


def as_texts(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    """Sums as JSON keeps them exactly: text, by currency."""
    return {currency: wording.digits(currency, amounts[currency]) for currency in sorted(amounts)}
