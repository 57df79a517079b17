"""Decides about a plan of what goes: whether a second person must agree, and whether it still fits what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from tasks.errors import Refused
from tasks.retention.policies import Policy

PLAN_LIFETIME = timedelta(days=7)
LARGEST_DRIFT = Decimal("0.05")
_SPARE_ROWS = 10


@dataclass(frozen=True)
class Item:
    """What one rule lets go: ``due`` rows by its horizon, ``held`` ones that stay, of ``stored`` in the table."""

    position: int
    rule_id: str
    rule_version: int
    entity: str
    action: str
    strategy: str
    horizon: date
    stored: int
    due: int
    held: int
    sample_ids: tuple[int, ...] = ()
    estimated_bytes: int = 0
    done: int = 0
    reached: int = 0
    ended_at: datetime | None = None

    @property
    def allowed(self) -> int:
        """The most rows that may go by it: what goes makes other rows due, and those belong to the next plan."""
        return int(self.due * (1 + LARGEST_DRIFT)) + _SPARE_ROWS


@dataclass(frozen=True)
class Plan:
    """What a purge may do, and nothing else."""

    plan_id: int
    as_of: date
    policies_sha256: str
    state: str
    needs_approval: bool
    made_by: str
    made_at: datetime
    approved_by: str | None
    items: tuple[Item, ...]

    @property
    def due(self) -> int:
        """Rows that go."""
        return sum(item.due for item in self.items)


FEW = Decimal("0.02")  # of a table's rows
LARGE = 20_000  # rows


def way_of(policy: Policy, *, is_person: bool, has_months: bool, stored: int, due: int) -> str:
    """How an item is carried out, by what is in the table: ``keyset``, ``months``, ``rows`` or ``pages``.

    People one by one, each in the ledger. A table that is kept by months loses whole months. Of a large table few rows
    are looked up; where more go, every page is visited once.
    """
    if is_person:
        return "keyset"
    if has_months and policy.action == "delete":
        return "months"
    return "rows" if stored >= LARGE and due <= FEW * stored else "pages"


def is_wide(item: Item, policy: Policy) -> bool:
    """Whether an item reaches so far that a second person must agree: above the rule's share and its few free rows."""
    return item.due > policy.always_allowed and item.due > policy.largest_share * item.stored


def check_applicable(plan: Plan, *, policies_sha256: str, now: datetime) -> None:
    """Refuse a plan that was applied, withdrawn, not approved, made under other rules or too long ago.

    Raises:
        Refused: with what to do instead.
    """
    anew = "Make a new plan with `kontor retention preview`."
    if plan.state in ("applied", "withdrawn"):
        raise Refused(f"Plan {plan.plan_id} is {plan.state} already. Nothing was changed.", hint=anew)
    if plan.policies_sha256 != policies_sha256:
        raise Refused(f"Plan {plan.plan_id} was made under other rules. Nothing was changed.", hint=anew)
    if plan.state == "applying":
        return  # what was begun is finished, however long it took to come back to it
    if now - plan.made_at > PLAN_LIFETIME:
        age = (now - plan.made_at).days
        raise Refused(
            f"Plan {plan.plan_id} is {age} days old; {PLAN_LIFETIME.days} are allowed. Nothing was changed.", hint=anew
        )
    if plan.needs_approval and plan.approved_by is None:
        raise Refused(
            f"Plan {plan.plan_id} lets go of more than a rule allows without a second person. Nothing was changed.",
            hint=f"Somebody other than who made it looks at it and runs `kontor retention approve {plan.plan_id}`.",
        )


def check_drift(plan: Plan, now_due: Sequence[tuple[Item, int]]) -> None:
    """Refuse where more rows are due than were planned and shown: somebody agreed to the plan, not to those.

    Raises:
        Refused: naming each rule with both counts.
    """
    grown = [f"{item.rule_id}: {due} rows, {item.due} planned" for item, due in now_due if due > item.allowed]
    if grown:
        raise Refused(
            f"More is due than plan {plan.plan_id} says ({LARGEST_DRIFT:.0%} are allowed). Nothing was changed."
            + "".join(f"\n  - {line}" for line in grown),
            hint="Make a new plan with `kontor retention preview` and look at what has changed.",
        )
