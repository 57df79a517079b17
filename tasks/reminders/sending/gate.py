"""The last look before a mail leaves: go, wait, or never, and why. Pure; the facts are read under lock.

It asks the facts again and shares no code with the plan, so that a mistake made there is not made twice. Reasons begin
with a code and a colon, because finance counts them: ``paid: left the ledger``.

    stale_data        wait     the newest ledger is older than the rule allows: nobody is reminded on a guess
    contact_changed   never    the person has left, has another address, or no longer holds a role that is written to
    suppressed        never    the address returned mail, or its owner asked for none
    class_changed     never    another policy speaks of the customer now
    legal_hold, …     never    a person or a law holds the customer back
    paid, disputed …  item     it leaves the digest; a mail of which nothing is left never goes
    credited          items    open credits and unmatched money cover what is due in their currency
    lower_tone        never    the items that set the tone are gone; the next plan finds the right one

A mail that never goes gives its reservations back, so the next plan decides anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple

from tasks.reminders import wording

_ZERO = Decimal(0)
_RANK: Mapping[str, int] = {"upcoming": 0, "first": 1, "second": 2, "final": 3}


class Reserved(NamedTuple):
    """An item that the mail speaks of, as it was when it was planned."""

    invoice_id: int
    stage: str
    sequence: int
    currency: str
    open_amount: Decimal
    due_on: date


class OpenItem(NamedTuple):
    """An item of the customer that is open now; ``open_amount`` is negative for a credit."""

    invoice_id: int
    invoice_number: str
    source: str
    is_credit: bool
    issued_on: date | None
    due_on: date
    currency: str
    amount: Decimal
    open_amount: Decimal
    disputed: bool


class Hold(NamedTuple):
    """What holds the customer (no invoice) or an item back on this day."""

    kind: str
    invoice_id: int | None


class Person(NamedTuple):
    """The contact as they are now; ``roles`` are the ones held on this day."""

    contact_id: int
    email: str
    first_name: str
    last_name: str
    roles: frozenset[str]


@dataclass(frozen=True)
class Queued:
    """A mail that waits, with what was reserved for it."""

    reminder_id: int
    organization_id: int
    stage: str
    policy: str | None
    recipient_email: str
    items: tuple[Reserved, ...]


@dataclass(frozen=True)
class Facts:
    """What is true of one customer now; days are business days.

    ``policy`` is the rule that speaks of the customer now and ``reminds`` whether it wants reminders at all.
    ``routed_roles`` are the roles that mails of this stage may go to. ``fresh`` names the newest day each source of
    items has spoken of. ``unresolved`` are items whose earlier mail may or may not have arrived.
    """

    items: Mapping[int, OpenItem]
    person: Person | None
    routed_roles: frozenset[str]
    policy: str | None
    reminds: bool
    minimums: Mapping[str, Decimal]
    fresh: Mapping[str, date]
    greatest_age_days: Decimal | None
    holds: tuple[Hold, ...] = ()
    suppressed: str | None = None
    unresolved: frozenset[int] = frozenset()
    unmatched: Mapping[str, Decimal] | None = None


class Released(NamedTuple):
    """An item that leaves the digest, and why."""

    invoice_id: int
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What becomes of a mail: ``go`` with the items ``kept``, ``wait`` for another run, or ``never``."""

    reminder_id: int
    action: Literal["go", "wait", "never"]
    reason: str = ""
    kept: tuple[OpenItem, ...] = ()
    released: tuple[Released, ...] = ()


def judge(mail: Queued, facts: Facts, day: date, data_day: date | None = None) -> Verdict:
    """The verdict on one mail on this day; the age of the data is counted up to ``data_day``, by default this day."""
    waits = _stale(mail, facts, data_day or day)
    if waits:
        return Verdict(mail.reminder_id, "wait", waits)
    never = _whole(mail, facts)
    if never:
        return _never(mail, never)
    released = {item.invoice_id: reason for item in mail.items if (reason := _gone(item, facts, day))}
    kept = [facts.items[item.invoice_id] for item in mail.items if item.invoice_id not in released]
    covered = _covered(kept, facts, day)
    released |= {item.invoice_id: covered[item.currency] for item in kept if item.currency in covered}
    kept = [item for item in kept if item.currency not in covered]
    if not kept:
        return _never(mail, _together(released.values()))
    stages = {item.invoice_id: item.stage for item in mail.items}
    if max(_RANK[stages[item.invoice_id]] for item in kept) < _RANK[mail.stage]:
        return _never(mail, f"lower_tone: what was left did not call for a {mail.stage} reminder", released)
    told = tuple(Released(invoice_id, reason) for invoice_id, reason in sorted(released.items()))
    return Verdict(mail.reminder_id, "go", kept=tuple(kept), released=told)


def _never(mail: Queued, reason: str, released: Mapping[int, str] | None = None) -> Verdict:
    """A mail that will not go; items without a reason of their own share the mail's."""
    own = released or {}
    told = tuple(Released(item.invoice_id, own.get(item.invoice_id, reason)) for item in mail.items)
    return Verdict(mail.reminder_id, "never", reason, released=told)


def _stale(mail: Queued, facts: Facts, day: date) -> str:
    if facts.greatest_age_days is None:
        return ""
    sources = {facts.items[item.invoice_id].source for item in mail.items if item.invoice_id in facts.items}
    for source in sorted(sources):
        newest = facts.fresh.get(source)
        if newest is None or (day - newest).days > facts.greatest_age_days:
            age = f"{(day - newest).days} days old" if newest else "of no day"
            allowed = wording.number(facts.greatest_age_days)
            return f"stale_data: the newest ledger of {source} is {age} (allowed {allowed})"
    return ""


def _whole(mail: Queued, facts: Facts) -> str:
    """Why the mail as a whole may not go; empty where it may."""
    person = facts.person
    if person is None or person.email.strip().lower() != mail.recipient_email.strip().lower():
        return "contact_changed: the contact is gone or has another address"
    if not person.roles & facts.routed_roles:
        return "contact_changed: the contact no longer holds a role that is written to"
    if facts.suppressed:
        return f"suppressed: nothing is sent to this address ({facts.suppressed})"
    if facts.policy is None or not facts.reminds:
        return "class_changed: no policy reminds this customer now"
    if mail.policy is not None and facts.policy != mail.policy:
        return f"class_changed: policy {facts.policy} speaks of the customer now, {mail.policy} did"
    kinds = sorted(hold.kind for hold in facts.holds if hold.invoice_id is None)
    return f"{kinds[0]}: the customer is held back" if kinds else ""


def _gone(item: Reserved, facts: Facts, day: date) -> str:
    """Why an item leaves the digest; empty where it stays.

    Due on 5 March: a notice beforehand may still leave on the 5th, a reminder from the 6th on.
    """
    now = facts.items.get(item.invoice_id)
    if now is None or now.open_amount <= 0:
        return "paid: it is no longer open"
    if item.invoice_id in facts.unresolved:
        return "unknown: an earlier mail about it may have arrived; a person resolves it first"
    if now.disputed:
        return "disputed: the ledger says so"
    held = sorted(hold.kind for hold in facts.holds if hold.invoice_id == item.invoice_id)
    if held:
        return f"{held[0]}: it is held back"
    if now.currency != item.currency:
        return "changed: its currency is another now"
    if item.stage == "upcoming":
        return "overdue: the day it was to be a notice for has passed" if now.due_on < day else ""
    return "changed: it is not overdue any more" if now.due_on >= day else ""


def _covered(kept: Iterable[OpenItem], facts: Facts, day: date) -> dict[str, str]:
    """The currencies in which nothing worth a mail is left, with the reason.

    What is due is everything overdue and undisputed together with what the mail speaks of, because open credits and
    money that came in may be meant for any of it.
    """
    due: dict[str, Decimal] = {}
    speaking = {item.invoice_id for item in kept}
    currencies = {facts.items[invoice_id].currency for invoice_id in speaking}
    credit: dict[str, Decimal] = {}
    for item in facts.items.values():
        if item.is_credit or item.open_amount < 0:
            credit[item.currency] = credit.get(item.currency, _ZERO) - item.open_amount
        elif item.invoice_id in speaking or (item.due_on < day and not item.disputed):
            due[item.currency] = due.get(item.currency, _ZERO) + item.open_amount
    return {
        currency: reason
        for currency in currencies
        if (reason := _too_little(currency, due[currency], credit.get(currency, _ZERO), facts))
    }


def _too_little(currency: str, due: Decimal, credit: Decimal, facts: Facts) -> str:
    left = due - credit
    if left <= 0:
        return "credited: open credits cover what is due"
    if (facts.unmatched or {}).get(currency, _ZERO) >= left:
        return "unmatched_money: money that came in and is not matched yet may cover it"
    return "below_minimum: less is due than is worth a mail" if left < facts.minimums.get(currency, _ZERO) else ""


def _together(reasons: Iterable[str]) -> str:
    """One reason for a mail of which nothing is left: the one that most items have; of equals the first by name."""
    counted: dict[str, int] = {}
    for reason in reasons:
        counted[reason] = counted.get(reason, 0) + 1
    return min(counted, key=lambda reason: (-counted[reason], reason))
