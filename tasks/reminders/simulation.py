"""What rules would have done over days that have passed: each day planned in turn, every mail taken as sent.

Two sets of rules are played on the same facts; what differs is told customer by customer. Nothing real is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from tasks.reminders.calendar import Calendar
from tasks.reminders.facts import Customer, Item
from tasks.reminders.plan import Decision, plan_reminders
from tasks.reminders.rulebook import LEVEL, RuleBook


@dataclass(frozen=True)
class Mail:
    """A mail that would have gone out; ``items`` are its steps as invoice id, stage and sequence."""

    day: date
    organization_id: int
    stage: str
    sequence: int
    recipient_email: str
    language: str
    items: tuple[tuple[int, str, int], ...]


@dataclass(frozen=True)
class Difference:
    """How one customer would have fared under other rules: more, fewer, earlier, later or other mail."""

    organization_id: int
    change: str
    mails: int
    mails_proposed: int
    details: str


class Played:
    """The days played so far under one set of rules: what was said of each item, and when each customer had mail."""

    def __init__(self) -> None:
        self._steps: dict[int, tuple[int, int, date]] = {}
        self._mailed: dict[int, tuple[date, ...]] = {}
        self.mails: list[Mail] = []

    def play(
        self, customers: Iterable[Customer], rules: RuleBook, calendar: Calendar, day: date, fresh: Mapping[str, date]
    ) -> list[Decision]:
        """Plan one day on top of the days before, take every mail as sent, and return the day's decisions."""
        decisions = list(plan_reminders(map(self._remembered, customers), rules, calendar, day, fresh))
        for decision in decisions:
            if decision.decision == "remind":
                self._send(decision, day)
        return decisions

    def _remembered(self, customer: Customer) -> Customer:
        mailed = self._mailed.get(customer.organization_id)
        if mailed is None:
            return customer
        items = tuple(map(self._said, customer.items))
        return customer._replace(items=items, mailed_on=mailed + customer.mailed_on)

    def _said(self, item: Item) -> Item:
        step = self._steps.get(item.invoice_id)
        return item if step is None else item._replace(level=step[0], sequence=step[1], reminded_on=step[2])

    def _send(self, decision: Decision, day: date) -> None:
        for item in decision.reserved:
            self._steps[item.invoice_id] = (LEVEL[item.stage], item.sequence, day)
        self._mailed[decision.organization_id] = (day, *self._mailed.get(decision.organization_id, ()))
        self.mails.append(
            Mail(
                day,
                decision.organization_id,
                decision.stage or "",
                decision.sequence or 0,
                decision.recipient_email or "",
                decision.language or "",
                tuple((item.invoice_id, item.stage, item.sequence) for item in decision.reserved),
            )
        )


def compare_mails(before: Sequence[Mail], after: Sequence[Mail]) -> list[Difference]:
    """Customers whose mail differs, by id. More and fewer are told before earlier and later, those before other."""
    left, right = _by_customer(before), _by_customer(after)
    found = (_difference(key, left.get(key, []), right.get(key, [])) for key in sorted(left.keys() | right.keys()))
    return [difference for difference in found if difference is not None]


def _by_customer(mails: Sequence[Mail]) -> dict[int, list[Mail]]:
    ordered = sorted(mails, key=lambda mail: (mail.organization_id, mail.day))
    return {key: list(group) for key, group in groupby(ordered, key=lambda mail: mail.organization_id)}


def _difference(organization_id: int, before: Sequence[Mail], after: Sequence[Mail]) -> Difference | None:
    change = _kind(before, after)
    if change is None:
        return None
    details = f"{_told(before)} -> {_told(after)}"
    return Difference(organization_id, change, len(before), len(after), details)


def _kind(before: Sequence[Mail], after: Sequence[Mail]) -> str | None:
    if len(before) != len(after):
        return "more" if len(after) > len(before) else "fewer"
    if list(before) == list(after):
        return None
    moved = [(new.day - old.day).days for old, new in zip(before, after, strict=True)]
    if any(moved) and all(days <= 0 for days in moved):
        return "earlier"
    if any(moved) and all(days >= 0 for days in moved):
        return "later"
    return "other"


def _told(mails: Sequence[Mail]) -> str:
    return ", ".join(f"{mail.stage} {mail.day}" for mail in mails) or "none"


def count_changes(differences: Iterable[Difference]) -> Iterator[tuple[str, int]]:
    """Customers per kind of change, in the order in which a person reads them."""
    kinds = [difference.change for difference in differences]
    for kind in ("more", "fewer", "earlier", "later", "other"):
        yield kind, kinds.count(kind)
