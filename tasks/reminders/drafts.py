"""Decisions as lines of COPY's text format, and what they come to: how a plan travels to the database.

The columns are those of the work tables in :mod:`tasks.reminders.plan_store`. Hundreds of thousands of decisions are
kept as a few blocks of bytes, which one process can hand to another.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date

from tasks.reminders.plan import Decision

_DECISIONS_A_BLOCK = 5_000


@dataclass
class DraftPlan:
    """What was decided on a day: ``decisions`` and ``items`` as blocks of lines, and how often each reason came."""

    decisions: list[bytes] = field(default_factory=list)
    items: list[bytes] = field(default_factory=list)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)

    def extend(self, other: DraftPlan) -> None:
        """Take in what was decided about customers of higher ids."""
        self.decisions += other.decisions
        self.items += other.items
        self.reasons += other.reasons


def draft_plan(decisions: Iterable[Decision]) -> DraftPlan:
    """The decisions as one draft, in the order given; they come and go one by one."""
    draft = DraftPlan()
    lines: list[str] = []
    items: list[str] = []
    reasons: list[tuple[str, str]] = []
    for decision in decisions:
        lines.append(_line(decision))
        reasons.append((decision.decision, decision.reason_code))
        if decision.reserved:
            items += _item_lines(decision)
        if len(lines) == _DECISIONS_A_BLOCK:
            _close_block(draft, lines, items, reasons)
    _close_block(draft, lines, items, reasons)
    return draft


def _close_block(draft: DraftPlan, lines: list[str], items: list[str], reasons: list[tuple[str, str]]) -> None:
    if lines:
        draft.decisions.append("".join(lines).encode())
    if items:
        draft.items.append("".join(items).encode())
    draft.reasons.update(reasons)
    for kept in (lines, items, reasons):
        kept.clear()


_to_json = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL = "\\N"


def _as_is(value: str) -> str:
    return value


def _escaped(value: str) -> str:
    """A text as COPY's text format writes it."""
    return value if value is _NULL else value.translate(_ESCAPED)


def _line(d: Decision) -> str:
    figures = _to_json(d.figures)
    free = (
        f"{d.reason}{figures}{d.recipient_reason}{d.recipient_email}{d.cc}{d.owner}{d.template}{d.language}{d.rule_id}"
    )
    # Almost no line holds anything to escape; one look at all of its texts is cheaper than escaping each.
    escape = _as_is if free.isprintable() and "\\" not in free else _escaped
    ids = ",".join(map(str, d.invoice_ids))
    version = _NULL if d.rule_version is None else d.rule_version
    rule, owner = escape(d.rule_id or _NULL), escape(d.owner or _NULL)
    if d.stage is None:  # no mail: stage to language, template, copy and attachment are empty
        return (
            f"{d.organization_id}\t{d.decision}\t\\N\t\\N\t{escape(d.reason)}\t{d.reason_code}\t\\N\t\\N\t\\N\t\\N"
            f"\t{{{ids}}}\t{rule}\t{version}\t{escape(figures)}\t\\N\t\\N\tnone\tf\t{owner}\n"
        )
    return (
        f"{d.organization_id}\t{d.decision}\t{d.stage}\t{d.sequence}\t{escape(d.reason)}\t{d.reason_code}"
        f"\t{d.contact_id}\t{escape(d.recipient_email or _NULL)}\t{escape(d.recipient_reason or _NULL)}"
        f"\t{escape(d.language or _NULL)}\t{{{ids}}}\t{rule}\t{version}\t{escape(figures)}"
        f"\t{escape(d.template or _NULL)}\t{escape(d.cc or _NULL)}\t{d.attachment}"
        f"\t{'t' if d.needs_approval else 'f'}\t{owner}\n"
    )


_DAYS: dict[date, str] = {}


def _day(day: date) -> str:
    found = _DAYS.get(day)
    if found is None:
        found = _DAYS[day] = day.isoformat()
    return found


def _item_lines(d: Decision) -> Iterator[str]:
    organization = d.organization_id
    for invoice_id, stage, sequence, currency, amount, due_on in d.reserved:
        yield f"{organization}\t{invoice_id}\t{stage}\t{sequence}\t{currency}\t{amount}\t{_day(due_on)}\n"
