"""What is known of a customer on a day, as plain values: the whole of what a decision about a reminder may use.

Money is Decimal beside its currency; days are dates; a level is a stage's place, 0 upcoming to 3 final, -1 for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import NamedTuple


class Item(NamedTuple):
    """One open item and what was ever written about it.

    ``open_amount`` is what is left to pay, negative for a credit. ``level``, ``sequence`` and ``reminded_on`` are those
    of the highest reservation that stands; ``unknown`` says that nobody knows whether its last mail arrived.
    """

    invoice_id: int
    source: str
    is_credit: bool
    due_on: date
    currency: str
    open_amount: Decimal
    disputed: bool
    level: int = -1
    sequence: int = 0
    reminded_on: date | None = None
    unknown: bool = False


class Contact(NamedTuple):
    """A person in a role on the day; ``suppressed`` says why this address gets no mail, empty where it does."""

    contact_id: int
    email: str
    language: str
    role: str
    suppressed: str = ""


class Hold(NamedTuple):
    """What a person or a law holds back, for the customer or one item; ``until`` is its last day, None: until released.

    One that has run out is a fact too where it was a promise: ``until`` then lies before the day.
    """

    hold_id: int
    kind: str
    invoice_id: int | None
    until: date | None
    reason: str


class Customer(NamedTuple):
    """A customer who has something open, with everything a decision needs.

    ``mailed_on`` are the days of the latest mails, newest first; ``waiting`` is the day of a mail still in the queue.
    """

    organization_id: int
    customer_number: str
    country: str
    segment: str
    payer_class: str
    language: str
    owner: str
    items: tuple[Item, ...]
    contacts: tuple[Contact, ...] = ()
    holds: tuple[Hold, ...] = ()
    unmatched: Mapping[str, Decimal] = {}
    mailed_on: tuple[date, ...] = ()
    waiting: date | None = None
