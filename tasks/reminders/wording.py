"""Reasons in words: what a decision says of itself, with sums, days and rules, and without a person's name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import date
from decimal import Decimal

from babel.numbers import get_currency_precision

_ORDINAL = {"upcoming": "Notice before the due date", "first": "First reminder", "second": "Second reminder"}

HOLD_WORDS: Mapping[str, str] = {
    "legal_hold": "A legal hold stands on this customer",
    "do_not_remind": "Somebody decided that this customer is not reminded",
    "unmatched_money": "Money of this customer has not been matched yet",
    "promise_to_pay": "The customer promised to pay",
    "dispute": "Disputed",
    "unknown": "Nobody knows whether the last mail arrived; a person resolves it first",
}


@functools.lru_cache(maxsize=512)
def smallest(currency: str) -> Decimal:
    """The smallest sum that the currency knows, such as 0.01; 1 for yen."""
    return Decimal(1).scaleb(-get_currency_precision(currency))


def money(currency: str, amount: Decimal) -> str:
    """A sum with its currency, such as ``EUR 1,310.50``; further places are kept where they count."""
    plain = digits(currency, amount)
    return f"{currency} {plain}" if len(plain) <= _UNGROUPED else f"{currency} {Decimal(plain):,f}"


_UNGROUPED = len("999.99")


def digits(currency: str, amount: Decimal) -> str:
    """The same sum as digits alone, such as ``1310.50``: how JSON keeps it exactly."""
    rounded = amount.quantize(smallest(currency))
    # With that few places digits are all that comes out; a sum of more places may come out as 1E-8.
    return str(rounded) if rounded == amount else f"{amount.normalize():f}"


def number(value: Decimal) -> str:
    """A bound or a median without the places that a table keeps: ``10``, ``2.5``."""
    return f"{value.normalize():f}"


def sums(amounts: Mapping[str, Decimal]) -> str:
    """Sums of several currencies side by side, by currency; they are never added up."""
    return ", ".join([money(currency, amounts[currency]) for currency in sorted(amounts)])


def items(count: int) -> str:
    """``1 item`` or ``3 items``."""
    return f"{count} item" if count == 1 else f"{count} items"


def tone(stage: str, sequence: int) -> str:
    """What this mail is, such as ``Second reminder`` or ``Final reminder, repeat 2``."""
    name = _ORDINAL.get(stage, "Final reminder")
    return name if sequence == 1 else f"{name}, repeat {sequence}"


def held(kind: str, until: date | None, count: int | None = None) -> str:
    """Why something is held, and until when."""
    words = HOLD_WORDS.get(kind, kind)
    reach = f" until {until} inclusive" if until is not None else ""
    return f"{words}{reach}" + ("" if count is None else f" ({items(count)})")
