"""Candidate rules tried out before they hold: what would be due by them, beside what is due by the rules in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import Range

from tasks.retention.plan_store import Rules, plan_items, read_schema
from tasks.retention.planning import Item, is_wide
from tasks.retention.policies import Policy, check


@dataclass(frozen=True)
class Trial:
    """One rule before and after: rows due and held by the rules in force and by the candidates; None: no such rule."""

    rule_id: str
    entity: str
    due: int | None
    due_proposed: int | None
    held: int | None
    held_proposed: int | None
    needs_approval: bool

    @property
    def more(self) -> int:
        """How many rows more are due by the candidates; fewer where it is below zero."""
        return (self.due_proposed or 0) - (self.due or 0)


def policies_of(rows: Sequence[Mapping[str, Any]], on: date | None = None) -> list[Policy]:
    """Rows of a set of rules, as a draft or a file has them, as policies in the order in which they are applied.

    Those that hold ``on`` a day; without one the last version of each.
    """
    names = [field.name for field in fields(Policy)]
    held = [row for row in sorted(rows, key=_begins) if on is None or _holds(row.get("valid"), on)]
    last = {row["rule_id"]: Policy(**{name: row[name] for name in names}) for row in held}
    return sorted(last.values(), key=lambda rule: rule.position)


def _begins(row: Mapping[str, Any]) -> date:
    valid: Range[date] | None = row.get("valid")
    return (valid.lower if valid else None) or date.min


def _holds(valid: Range[date] | None, on: date) -> bool:
    return valid is None or ((valid.lower or on) <= on and (valid.upper is None or valid.upper > on))


def check_candidates(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse candidates that are not sound, as every plan would once they hold.

    Raises:
        Refused: naming everything that is wrong.
    """
    check(policies_of(rows), read_schema(connection))


def try_out(connection: Connection, rules: Rules, candidates: Sequence[Policy]) -> list[Trial]:
    """Every rule of either set with what it lets go of on the day of ``rules``; reads only.

    Raises:
        Refused: the candidates are not sound.
    """
    check(candidates, read_schema(connection))
    before = {item.rule_id: item for item in plan_items(connection, rules)}
    proposed = replace(rules, policies=tuple(candidates))
    after = {item.rule_id: item for item in plan_items(connection, proposed)}
    return [_trial(rule_id, before.get(rule_id), after.get(rule_id), proposed) for rule_id in {**before, **after}]


def _trial(rule_id: str, before: Item | None, after: Item | None, proposed: Rules) -> Trial:
    shown = after or before
    return Trial(
        rule_id=rule_id,
        entity=shown.entity if shown else "",
        due=before.due if before else None,
        due_proposed=after.due if after else None,
        held=before.held if before else None,
        held_proposed=after.held if after else None,
        needs_approval=after is not None and is_wide(after, proposed.policy(rule_id)),
    )
