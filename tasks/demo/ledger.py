"""A made-up ledger: what was invoiced, in part paid, disputed, credited and settled, day by day.

Each item carries its whole life, so that every weekly file is a cut of the same story and never contradicts
another: an item is listed from its issue to the day before it is settled. The rate of invoicing is chosen so
that some 350 items are open on any Monday and about a fifth of the open money is overdue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from random import Random

from tasks.demo.customers import Customer

FIRST_DAY = date(2025, 9, 1)
LAST_DAY = date(2026, 11, 16)
MONDAYS = tuple(date(2026, 8, 31) + timedelta(weeks=week) for week in range(12))

_CENT = Decimal("0.01")
_UNITS_PER_EURO = {"EUR": 1, "PLN": 4, "NOK": 11, "SEK": 11}
_SIZE = {"retail": 1, "dealer": 2, "wholesale": 3, "public": 2}
_SLIPPED_ON = date(2026, 8, 17)


@dataclass(frozen=True)
class Item:
    """One invoice or credit note and everything that will happen to it.

    ``settled_on`` is the first day on which it is no longer open. ``unsettled`` is a stretch of days (first, last)
    on which it was wrongly taken for settled, because a payment came and was called back.
    """

    customer: Customer
    number: str
    document_type: str
    issued_on: date
    due_on: date
    amount: Decimal
    settled_on: date
    part_paid_on: date | None = None
    part_paid: Decimal = Decimal(0)
    disputed: tuple[date, date] | None = None
    promise: tuple[date, date] | None = None
    unsettled: tuple[date, date] | None = None
    credits: str | None = field(default=None, kw_only=True)

    def is_open(self, day: date) -> bool:
        """Whether the ledger lists the item at the end of ``day``."""
        return self.issued_on <= day < self.settled_on and not _within(day, self.unsettled)

    def open_amount(self, day: date) -> Decimal:
        """What remains to be paid at the end of ``day``, in the item's currency; negative for a credit note."""
        if self.part_paid_on is not None and self.part_paid_on <= day:
            return self.amount - self.part_paid
        return self.amount

    def is_disputed(self, day: date) -> bool:
        """Whether the customer contests the item on ``day``."""
        return _within(day, self.disputed)

    def promised_until(self, day: date) -> date | None:
        """The day by which the customer has promised to pay, as far as that is known on ``day``."""
        return self.promise[1] if self.promise is not None and self.promise[0] <= day else None


def _within(day: date, stretch: tuple[date, date] | None) -> bool:
    return stretch is not None and stretch[0] <= day <= stretch[1]


def make_ledger(rng: Random, customers: list[Customer]) -> list[Item]:
    """Every item of every customer in the order of issue, numbered in that order."""
    drafts = [item for customer in customers for item in _items_of(rng, customer)]
    drafts.sort(key=lambda item: (item.issued_on, item.customer.number, item.due_on))
    numbered = [replace(item, number=f"{100_480_007 + index:010d}") for index, item in enumerate(drafts)]
    return _with_reopened(numbered + list(_credit_notes(rng, numbered)))


def _items_of(rng: Random, customer: Customer) -> Iterator[Item]:
    for issued_on in _issue_days(rng, customer):
        yield _item(rng, customer, issued_on)


def _issue_days(rng: Random, customer: Customer) -> list[date]:
    """Working days on which ``customer`` was invoiced; a new one has two invoices, both of this autumn."""
    if customer.habit == "new":
        first = _working_day(date(2026, 9, 7) + timedelta(days=customer.position % 40))
        return [first, _working_day(first + timedelta(days=rng.randrange(18, 29)))]
    days = []
    day = FIRST_DAY + timedelta(days=rng.randrange(11))
    while day <= LAST_DAY:
        days.append(_working_day(day))
        day += timedelta(days=rng.randrange(5, 18))
    return [issued_on for issued_on in days if issued_on <= LAST_DAY]


def _item(rng: Random, customer: Customer, issued_on: date) -> Item:
    due_on = issued_on + timedelta(days=customer.terms_days)
    amount = _amount(rng, customer)
    item = Item(
        customer=customer,
        number="",
        document_type="invoice",
        issued_on=issued_on,
        due_on=due_on,
        amount=amount,
        settled_on=_working_day(due_on + timedelta(days=_days_late(rng, customer.habit, issued_on))),
    )
    chance = rng.random()
    if chance < 0.025:
        return _disputed(rng, item)
    if chance < 0.075 and (item.settled_on - item.due_on).days > 3:
        return _paid_in_part(rng, item)
    if chance < 0.30 and (item.settled_on - item.due_on).days > 20:
        return _promised(rng, item)
    return item


def _amount(rng: Random, customer: Customer) -> Decimal:
    """Many small invoices and a few large ones: the square of an even draw."""
    root = rng.randrange(40, 260)
    cents = root * root * _SIZE[customer.segment] * _UNITS_PER_EURO[customer.currency] + rng.randrange(100)
    return (Decimal(cents) / 20).quantize(_CENT)


def _days_late(rng: Random, habit: str, issued_on: date) -> int:
    match habit:
        case "hesitant":
            return rng.randrange(6, 15)
        case "disloyal":
            return rng.randrange(40, 76)
        case "slipping" if issued_on >= _SLIPPED_ON:
            return rng.randrange(24, 40)
    return rng.randrange(-7, 1)


def _disputed(rng: Random, item: Item) -> Item:
    """The customer contests the goods soon after the invoice and pays when that is settled, 20 to 45 days late."""
    since = item.issued_on + timedelta(days=rng.randrange(3, 10))
    until = item.due_on + timedelta(days=rng.randrange(18, 40))
    return replace(item, disputed=(since, until), settled_on=_working_day(until + timedelta(days=4)))


def _paid_in_part(rng: Random, item: Item) -> Item:
    part = (item.amount * rng.choice((25, 40, 50, 60)) / 100).quantize(_CENT)
    return replace(item, part_paid_on=_working_day(item.due_on), part_paid=part)


def _promised(rng: Random, item: Item) -> Item:
    """The customer promises a day some time after the due date; the disloyal do not always keep it."""
    since = item.due_on + timedelta(days=rng.randrange(8, 15))
    return replace(item, promise=(since, _working_day(since + timedelta(days=rng.randrange(7, 15)))))


def _credit_notes(rng: Random, invoices: list[Item]) -> Iterator[Item]:
    """About three in a hundred invoices are credited in part, some days later; both are settled together."""
    counter = 0
    for invoice in invoices:
        issued_on = _working_day(invoice.issued_on + timedelta(days=rng.randrange(4, 11)))
        if rng.random() >= 0.035 or invoice.part_paid or issued_on >= invoice.settled_on or issued_on > LAST_DAY:
            continue
        counter += 1
        yield replace(
            invoice,
            number=f"{200_031_000 + counter:010d}",
            document_type="credit_note",
            issued_on=issued_on,
            due_on=issued_on,
            amount=-(invoice.amount * rng.choice((8, 10, 15, 30)) / 100).quantize(_CENT),
            disputed=None,
            promise=None,
            credits=invoice.number,
        )


def _with_reopened(items: list[Item]) -> list[Item]:
    """Two payments that were called back: the item is gone from one Monday's file and back in the next."""
    gaps = {"hesitant": (date(2026, 9, 23), date(2026, 9, 30)), "disloyal": (date(2026, 10, 21), date(2026, 10, 29))}
    result = []
    for item in items:
        gap = gaps.get(item.customer.habit)
        if gap is not None and _can_reopen(item, gap):
            item = replace(item, unsettled=gap, settled_on=max(item.settled_on, _working_day(gap[1] + timedelta(21))))
            del gaps[item.customer.habit]
        result.append(item)
    return result


def _can_reopen(item: Item, gap: tuple[date, date]) -> bool:
    plain = item.document_type == "invoice" and not item.part_paid and item.disputed is None and item.promise is None
    return plain and item.issued_on < gap[0] - timedelta(days=21) and gap[0] - timedelta(7) < item.settled_on <= gap[1]


def _working_day(day: date) -> date:
    """``day``, or the Monday after it when it falls on a weekend."""
    return day + timedelta(days=7 - day.weekday()) if day.weekday() > 4 else day
