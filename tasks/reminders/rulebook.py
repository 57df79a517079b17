"""The rules of reminders that are in force on one day, as plain values, and which of them speaks of a customer.

A rule book is made of the rows of schema ``rules`` (or of a draft of them); it knows no database and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, TypeVar

ANY = "*"
STAGES = ("upcoming", "first", "second", "final")
LEVEL: Mapping[str, int] = {stage: level for level, stage in enumerate(STAGES)}

# How a source begins that nobody has looked up yet: what stands on it is kept and listed, and shown in no letter.
UNCONFIRMED = "to be confirmed"


def is_confirmed(source: str) -> bool:
    """Whether somebody has looked the source up; one that begins with ``to be confirmed`` waits for it."""
    return not source.strip().lower().startswith(UNCONFIRMED)


@dataclass(frozen=True, slots=True)
class Policy:
    """Which ladder a customer climbs; the row of the lowest rank that matches decides."""

    rule_id: str
    version: int
    rank: int
    segment: str
    country: str
    payer_class: str
    customer_number: str
    remind: bool
    ladder: str
    grace_days: int
    minimum_days_between: int
    due_soon_days: int
    default_language: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a ladder; days are counted from the due date."""

    rule_id: str
    version: int
    ladder: str
    stage: str
    offset_days: int
    offset_unit: str
    grace_days: int
    maximum_count: int
    repeat_days: int | None
    missed: str
    missed_after_days: int
    template: str
    cc: str | None
    attachment: str
    needs_approval: bool

    @property
    def level(self) -> int:
        """Its place among all stages: 0 upcoming to 3 final."""
        return LEVEL[self.stage]


@dataclass(frozen=True, slots=True)
class Minimum:
    """The least sum per currency that is worth a mail."""

    rule_id: str
    version: int
    ladder: str
    currency: str
    minimum_amount: Decimal


@dataclass(frozen=True, slots=True)
class Route:
    """A role that is written to, if nobody of a lower rank is there."""

    rule_id: str
    version: int
    rank: int
    segment: str
    country: str
    customer_number: str
    stage: str
    role: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound: ``customer_cap``, ``stale_data``, ``blast_radius`` or ``blast_floor``."""

    rule_id: str
    version: int
    guard: str
    country: str
    threshold: Decimal
    minimum_evidence: int
    window_days: int | None


@dataclass(frozen=True, slots=True)
class SendWindow:
    """When mail to a country may leave, in its own time: ``HH:MM`` to ``HH:MM`` of ``time_zone``."""

    rule_id: str
    version: int
    country: str
    time_zone: str
    opens_at: str
    closes_at: str


@dataclass(frozen=True, slots=True)
class FeeRule:
    """What the law of a country lets a creditor claim of an overdue item, or of a reminder; never booked."""

    rule_id: str
    version: int
    country: str
    kind: str
    per: str
    from_stage: str
    from_days_overdue: int
    claim_from: Decimal
    claim_currency: str | None
    fee_amount: Decimal | None
    fee_currency: str | None
    rate_name: str | None
    margin_percent: Decimal | None
    shown: bool
    legal_source: str


@dataclass(frozen=True, slots=True)
class Rate:
    """A reference rate in points per year, from ``first`` through ``last``; None: since ever, until further notice."""

    rate_name: str
    percent: Decimal
    first: date | None
    last: date | None


Rule = TypeVar("Rule", Policy, Stage, Minimum, Route, Limit, SendWindow, FeeRule)


@dataclass(frozen=True)
class RuleBook:
    """All rules of one day; ``stages`` by ladder in the order in which they are climbed."""

    policies: tuple[Policy, ...]
    stages: Mapping[str, tuple[Stage, ...]]
    minimums: Mapping[tuple[str, str], Decimal]
    routes: tuple[Route, ...]
    limits: Mapping[tuple[str, str], Limit]
    windows: Mapping[str, SendWindow]
    fees: tuple[FeeRule, ...] = ()
    rates: tuple[Rate, ...] = ()

    def policy_for(self, segment: str, country: str, payer_class: str, customer_number: str) -> Policy | None:
        """The policy that decides for such a customer; None where no row matches."""
        for policy in self.policies:
            if (
                policy.segment in (ANY, segment)
                and policy.country in (ANY, country)
                and policy.payer_class in (ANY, payer_class)
                and policy.customer_number in (ANY, customer_number)
            ):
                return policy
        return None

    def minimum(self, ladder: str, currency: str) -> Decimal:
        """The least sum of this currency that is worth a mail on this ladder; zero where no row says."""
        found = self.minimums.get((ladder, currency))
        return self.minimums.get((ANY, currency), Decimal(0)) if found is None else found

    def limit(self, guard: str, country: str = ANY) -> Limit | None:
        """The bound for this country, else the one for all; None where there is none."""
        return self.limits.get((guard, country)) or self.limits.get((guard, ANY))

    def window(self, country: str) -> SendWindow | None:
        """When mail to this country may leave; None: at any time."""
        return self.windows.get(country) or self.windows.get(ANY)

    def routes_for(self, segment: str, country: str, customer_number: str, stage: str) -> tuple[Route, ...]:
        """The roles to try for such a customer at this stage, best first."""
        return tuple(
            route
            for route in self.routes
            if route.segment in (ANY, segment)
            and route.country in (ANY, country)
            and route.customer_number in (ANY, customer_number)
            and route.stage in (ANY, stage)
        )


def make_rulebook(rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> RuleBook:
    """The rule book that rows of the tables of schema ``rules``, given by table name, amount to."""
    stages: dict[str, list[Stage]] = {}
    for stage in _rules(Stage, rows.get("reminder_stage", ())):
        stages.setdefault(stage.ladder, []).append(stage)
    return RuleBook(
        policies=tuple(sorted(_rules(Policy, rows.get("reminder_policy", ())), key=lambda rule: rule.rank)),
        stages={ladder: tuple(sorted(steps, key=lambda step: step.level)) for ladder, steps in stages.items()},
        minimums={
            (rule.ladder, rule.currency): rule.minimum_amount
            for rule in _rules(Minimum, rows.get("reminder_minimum", ()))
        },
        routes=tuple(sorted(_rules(Route, rows.get("contact_routing", ())), key=lambda rule: rule.rank)),
        limits={(rule.guard, rule.country): rule for rule in _rules(Limit, rows.get("reminder_limit", ()))},
        windows={rule.country: rule for rule in _rules(SendWindow, rows.get("send_window", ()))},
        fees=tuple(sorted(map(_fee, rows.get("fee_rule", ())), key=lambda rule: rule.rule_id)),
        rates=tuple(_rate(row) for row in rows.get("reference_rate", ()) if is_confirmed(row["source"])),
    )


def _fee(row: Mapping[str, Any]) -> FeeRule:
    """The rule of a fee; one on a source that nobody has confirmed is there, and shown nowhere."""
    [rule] = _rules(FeeRule, [row])
    return replace(rule, shown=rule.shown and is_confirmed(rule.legal_source))


def _rate(row: Mapping[str, Any]) -> Rate:
    upper: date | None = row["valid"].upper
    return Rate(row["rate_name"], row["percent"], row["valid"].lower, upper - timedelta(days=1) if upper else None)


def _rules(kind: type[Rule], rows: Iterable[Mapping[str, Any]]) -> Sequence[Rule]:
    names = [field.name for field in fields(kind)]
    return [kind(**{name: row[name] for name in names}) for row in rows]


RULE_TABLES = (
    "reminder_policy",
    "reminder_stage",
    "reminder_minimum",
    "contact_routing",
    "reminder_limit",
    "send_window",
    "fee_rule",
    "reference_rate",
)
# Dated facts: a letter of today reckons with the rates of past months too.
WHOLE_TABLES = frozenset({"reference_rate"})
