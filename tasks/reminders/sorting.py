"""A customer's items by what they are on the day: overdue, due for a step, held back, falling due soon, or a credit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from tasks.reminders import wording
from tasks.reminders.calendar import Calendar
from tasks.reminders.facts import Customer, Hold, Item
from tasks.reminders.once import Once
from tasks.reminders.rulebook import Stage
from tasks.reminders.stages import Step, find_step

ZERO = Decimal(0)
# The gravest first: it is the one named where several stand.
GRAVITY = ("legal_hold", "do_not_remind", "unmatched_money", "promise_to_pay", "dispute", "unknown")


class Sorted(NamedTuple):
    """Items by what they are; ``waiting`` is overdue with no step due.

    Sums per currency, which are never added together: ``credits`` positive, ``owed`` what is due of every overdue item
    that nothing holds back and of what is noticed beforehand, ``overdue_sums`` of all that is overdue.
    """

    overdue: list[Item]
    steps: list[tuple[Item, Step]]
    held: list[tuple[Item, str, date | None]]
    waiting: list[Item]
    due_soon: list[Item]
    credits: dict[str, Decimal]
    credit_ids: list[int]
    owed: dict[str, Decimal]
    overdue_sums: dict[str, Decimal]


class DaySteps:
    """Steps that items are due for on one day, for one ladder and country; each is worked out once and then known.

    What an item is due for follows from its due date and what was said of it, so a million items come to a few
    hundred answers.
    """

    def __init__(self, ladder: Sequence[Stage], calendar: Calendar, country: str, as_of: date) -> None:
        self._ladder, self._calendar, self._country, self._as_of = ladder, calendar, country, as_of
        self._known: dict[tuple[date, int, int, date | None], Step | None] = {}
        #: Of items of which nothing was said yet: their due date alone decides, and most items are such.
        self.untouched: Mapping[date, Step | None] = Once(self._first_of)

    def of(self, item: Item) -> Step | None:
        """The step that this item is due for; None where there is none today."""
        key = (item.due_on, item.level, item.sequence, item.reminded_on)
        if key not in self._known:
            self._known[key] = self._find(item)
        return self._known[key]

    def _first_of(self, due_on: date) -> Step | None:
        return self._find(Item(0, "", False, due_on, "", ZERO, False))

    def _find(self, item: Item) -> Step | None:
        late = self._calendar.next_working_day(self._country, item.due_on) < self._as_of
        return find_step(self._calendar, self._country, self._ladder, item, self._as_of, late)


def sort_items(customer: Customer, steps: DaySteps, as_of: date, soon: date) -> Sorted:
    """Every item of the customer in its place; an item held back is in ``held`` and in no other but ``overdue``.

    ``soon`` is the last day that counts as falling due soon. A million items pass here: sums are made on the way.
    """
    found = Sorted([], [], [], [], [], {}, [], {}, {})
    overdue, taken, waiting, owed, sums = found.overdue, found.steps, found.waiting, found.owed, found.overdue_sums
    untouched, holds = steps.untouched, _item_holds(customer.holds, as_of) if customer.holds else {}
    for item in customer.items:
        _, _, is_credit, due_on, currency, amount, disputed, level, _, _, unknown = item
        if is_credit or amount <= ZERO:
            _add_credit(found, item)
            continue
        late = due_on < as_of
        if late:
            overdue.append(item)
            sums[currency] = sums[currency] + amount if currency in sums else amount
        if (disputed or unknown or holds) and (held := _held(item, holds)) is not None:
            found.held.append(held)
            continue
        step = untouched[due_on] if level < 0 else steps.of(item)
        if step is not None:
            taken.append((item, step))
        elif late:
            waiting.append(item)
        else:
            if due_on <= soon:
                found.due_soon.append(item)
            continue
        owed[currency] = owed[currency] + amount if currency in owed else amount
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
    """The last day of the newest promise that has passed with something that it spoke of still open; None without one.

    A promise about the customer as a whole speaks of what was due by its last day. One that a newer promise stands in
    for is not told any more.
    """
    promises = [hold for hold in customer.holds if hold.kind == "promise_to_pay" and hold.until is not None]
    anew = {hold.invoice_id for hold in promises if _stands(hold, as_of)}
    if None in anew:
        return None
    owed = {item.invoice_id: item.due_on for item in customer.items if item.open_amount > ZERO and not item.is_credit}
    return max(
        (
            hold.until
            for hold in promises
            if hold.until is not None and hold.until < as_of and any(
                due_on <= hold.until if hold.invoice_id is None else invoice_id == hold.invoice_id
                for invoice_id, due_on in owed.items()
                if invoice_id not in anew
            )
        ),
        default=None,
    )  # fmt: skip


def as_texts(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    """Sums as JSON keeps them exactly: text, by currency."""
    if len(amounts) == 1:
        return {currency: wording.digits(currency, amount) for currency, amount in amounts.items()}
    return {currency: wording.digits(currency, amounts[currency]) for currency in sorted(amounts)}
