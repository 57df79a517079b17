"""What the rules say on one day to customers of one kind: looked up once per kind, not once per customer.

A kind is a segment, a country and a payer class; a customer whom a rule names by number is a kind of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import NamedTuple

from tasks.reminders import wording
from tasks.reminders.calendar import Calendar
from tasks.reminders.facts import Customer
from tasks.reminders.fees import may_claim
from tasks.reminders.once import Once
from tasks.reminders.rulebook import Policy, Route, RuleBook, Stage
from tasks.reminders.sorting import DaySteps

_Kind = tuple[str, str, str, str]  # segment, country, payer class, and the number where a rule names it


class Terms(NamedTuple):
    """What holds for such customers on the day.

    ``soon`` is the last day that counts as falling due soon; ``stale`` says of a source of items why it is too old to
    be believed, None where it is fresh; ``least`` is the least sum worth a mail, by currency; ``claims`` says of a
    stage whether a letter of it may show what the law lets us claim.
    """

    policy: Policy | None
    ladder: tuple[Stage, ...]
    steps: DaySteps
    soon: date
    works_today: bool
    stale: Mapping[str, str | None]
    least: Mapping[str, Decimal]
    routes: Mapping[str, tuple[Route, ...]]
    claims: Mapping[str, bool]


class AllTerms:
    """The terms of every kind of customer under the same rules, calendar and day.

    ``fresh`` names the newest day that each source of items has spoken about.
    """

    def __init__(self, rules: RuleBook, calendar: Calendar, as_of: date, fresh: Mapping[str, date]) -> None:
        self._rules, self._calendar, self._as_of, self._fresh = rules, calendar, as_of, fresh
        self._named = {policy.customer_number for policy in rules.policies}
        self._named |= {route.customer_number for route in rules.routes}
        self._kinds: Once[_Kind, Terms] = Once(self._find)
        self._steps: Once[tuple[str, str], DaySteps] = Once(self._steps_of)
        self._stale: Once[str, Once[str, str | None]] = Once(self._stale_in)

    def of(self, customer: Customer) -> Terms:
        """What holds for this customer."""
        number = customer.customer_number
        named = number if number in self._named else ""
        return self._kinds[customer.segment, customer.country, customer.payer_class, named]

    def _find(self, kind: _Kind) -> Terms:
        segment, country, _, number = kind
        rules, policy = self._rules, self._rules.policy_for(*kind)
        ladder = policy.ladder if policy is not None else ""
        return Terms(
            policy=policy,
            ladder=rules.stages.get(ladder, ()),
            steps=self._steps[ladder, country],
            soon=self._as_of + timedelta(days=policy.due_soon_days if policy is not None else 0),
            works_today=self._calendar.is_working_day(country, self._as_of),
            stale=self._stale[country],
            least=Once(lambda currency: rules.minimum(ladder, currency)),
            routes=Once(lambda stage: rules.routes_for(segment, country, number, stage)),
            claims=Once(lambda stage: stage != "upcoming" and may_claim(rules, country, stage)),
        )

    def _steps_of(self, of: tuple[str, str]) -> DaySteps:
        ladder, country = of
        return DaySteps(self._rules.stages.get(ladder, ()), self._calendar, country, self._as_of)

    def _stale_in(self, country: str) -> Once[str, str | None]:
        return Once(lambda source: self._why_stale(country, source))

    def _why_stale(self, country: str, source: str) -> str | None:
        limit = self._rules.limit("stale_data", country)
        age = self.age_of(source)
        if limit is None or (age is not None and age <= limit.threshold):
            return None
        told = f"is {age} days old (allowed {wording.number(limit.threshold)})" if age is not None else "never came"
        return f"The newest ledger of {source} {told}; what it calls open may have been paid."

    def age_of(self, source: str) -> int | None:
        """How many days ago the source last spoke; None where it never did."""
        newest = self._fresh.get(source)
        return (self._as_of - newest).days if newest is not None else None
