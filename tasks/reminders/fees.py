"""What the law of the customer's country lets us claim for late payment: shown in a letter at most, never booked.

    interest   per item and rate period: what is open x (reference rate + margin) / 100 x days / 365, rounded half up to
               the currency's places; from the day after the due date through the day of the letter. A day without a
               known rate means no figure at all: a guess in a letter would be a false claim.
    fee        per item or per letter, the row with the highest ``claim_from`` that the item reaches; a bound in one
               currency says nothing of items in another, so those get the row that begins at nothing.

Source: directive 2011/7/EU, articles 3 and 6; the national sources stand in each row's ``legal_source``.

    Germany, 1,000.00 EUR due 1 June 2025, letter of 1 August 2025: 29 days of June at 2.27 + 9 points and 32 days from
    1 July at 1.27 + 9 points are 8.954… + 9.003… = 17.96 EUR; and 40.00 EUR.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from tasks.reminders import wording
from tasks.reminders.facts import Item
from tasks.reminders.rulebook import ANY, LEVEL, FeeRule, Rate, RuleBook

_YEAR = Decimal(365)
_HUNDRED = Decimal(100)


class Claim(NamedTuple):
    """One claim that may be shown: its sum in its currency, and the law it stands on."""

    kind: str
    currency: str
    amount: Decimal
    legal_source: str
    rule_id: str
    rule_version: int


def find_claims(rules: RuleBook, country: str, stage: str, items: Sequence[Item], as_of: date) -> list[Claim]:
    """The claims that a letter of this stage may show beside these overdue items, fees before interest."""
    shown = _shown(rules, country, stage)
    fees = [rule for rule in shown if rule.kind == "fee"]
    interest = next((rule for rule in shown if rule.kind == "interest"), None)
    claims = _fees(fees, items, as_of)
    if interest is not None and interest.shown:
        claims += _interest(interest, rules.rates, items, as_of)
    return claims


def may_claim(rules: RuleBook, country: str, stage: str) -> bool:
    """Whether a letter of this stage to this country may show any claim at all."""
    return bool(_shown(rules, country, stage))


def _shown(rules: RuleBook, country: str, stage: str) -> list[FeeRule]:
    return [rule for rule in _of_country(rules.fees, country) if LEVEL[stage] >= LEVEL[rule.from_stage]]


def _of_country(fees: Iterable[FeeRule], country: str) -> list[FeeRule]:
    """The rules of the country; only where it has none those for every country.

    What may not be shown is left out; the rule book shows nothing that stands on a source nobody has confirmed.
    """
    own = [rule for rule in fees if rule.country == country] or [rule for rule in fees if rule.country == ANY]
    return [rule for rule in own if rule.shown]


def _late_enough(rule: FeeRule, item: Item, as_of: date) -> bool:
    return (as_of - item.due_on).days >= rule.from_days_overdue


def _fees(fees: Sequence[FeeRule], items: Sequence[Item], as_of: date) -> list[Claim]:
    counts: dict[str, int] = {}
    for item in items:
        reached = [rule for rule in fees if _late_enough(rule, item, as_of) and _reaches(rule, item)]
        if reached:
            best = max(reached, key=lambda rule: (rule.claim_from, rule.rule_id))
            counts[best.rule_id] = 1 if best.per == "mail" else counts.get(best.rule_id, 0) + 1
    return [
        Claim("fee", rule.fee_currency, rule.fee_amount * counts[rule.rule_id], rule.legal_source, rule.rule_id,
              rule.version)
        for rule in fees
        if rule.rule_id in counts and rule.fee_amount is not None and rule.fee_currency is not None
    ]  # fmt: skip


def _reaches(rule: FeeRule, item: Item) -> bool:
    if rule.claim_from == 0:
        return True
    return item.currency == rule.claim_currency and item.open_amount >= rule.claim_from


def _interest(rule: FeeRule, rates: Sequence[Rate], items: Sequence[Item], as_of: date) -> list[Claim]:
    known = [rate for rate in rates if rate.rate_name == rule.rate_name]
    sums: dict[str, Decimal] = {}
    for item in items:
        if not _late_enough(rule, item, as_of):
            continue
        grown = interest_of(item.open_amount, item.due_on, as_of, known, rule.margin_percent or Decimal(0))
        if grown is None:
            return []
        rounded = grown.quantize(wording.smallest(item.currency), ROUND_HALF_UP)
        sums[item.currency] = sums.get(item.currency, Decimal(0)) + rounded
    return [
        Claim("interest", currency, amount, rule.legal_source, rule.rule_id, rule.version)
        for currency, amount in sorted(sums.items())
        if amount > 0
    ]


def interest_of(
    amount: Decimal, due_on: date, as_of: date, rates: Sequence[Rate], margin_percent: Decimal
) -> Decimal | None:
    """The interest from the day after ``due_on`` through ``as_of``, not rounded; None where a day has no rate."""
    day, total = due_on + timedelta(days=1), Decimal(0)
    while day <= as_of:
        rate = next((r for r in rates if (r.first or day) <= day <= (r.last or day)), None)
        if rate is None:
            return None
        last = min(rate.last or as_of, as_of)
        days = Decimal((last - day).days + 1)
        total += amount * (rate.percent + margin_percent) / _HUNDRED * days / _YEAR
        day = last + timedelta(days=1)
    return total
