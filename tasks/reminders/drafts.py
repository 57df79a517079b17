"""Decisions as lines of COPY's text format, and what they come to: how a plan travels to the database.

The columns are those of the work tables in :mod:`tasks.reminders.plan_store`. Hundreds of thousands of decisions are
kept as a few blocks of bytes, which one process can hand to another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

import orjson

from tasks.reminders.once import Once
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


_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL = "\\N"


def _line(d: Decision) -> str:
    figures = orjson.dumps(d.figures).decode()
    version = _NULL if d.rule_version is None else d.rule_version
    ids = ",".join(map(str, d.invoice_ids))
    if d.stage is None:  # no mail: stage to language, template, copy and attachment are empty
        reason, figures, rule, owner = _cells(d.reason, figures, d.rule_id, d.owner)
        return (
            f"{d.organization_id}\t{d.decision}\t\\N\t\\N\t{reason}\t{d.reason_code}\t\\N\t\\N\t\\N\t\\N"
            f"\t{{{ids}}}\t{rule}\t{version}\t{figures}\t\\N\t\\N\tnone\tf\t{owner}\n"
        )
    reason, figures, rule, owner, email, because, language, template, cc = _cells(
        d.reason, figures, d.rule_id, d.owner, d.recipient_email, d.recipient_reason, d.language, d.template, d.cc
    )
    return (
        f"{d.organization_id}\t{d.decision}\t{d.stage}\t{d.sequence}\t{reason}\t{d.reason_code}"
        f"\t{d.contact_id}\t{email}\t{because}\t{language}\t{{{ids}}}\t{rule}\t{version}\t{figures}"
        f"\t{template}\t{cc}\t{d.attachment}\t{'t' if d.needs_approval else 'f'}\t{owner}\n"
    )


def _cells(*texts: str | None) -> list[str]:
    """The texts as COPY's text format writes them; an empty one is NULL.

    Almost none holds anything to escape, and one look at all of them together is cheaper than escaping each.
    """
    together = "".join(filter(None, texts))
    if together.isprintable() and "\\" not in together:
        return [text or _NULL for text in texts]
    return [text.translate(_ESCAPED) if text else _NULL for text in texts]


_day = Once(date.isoformat)


def _item_lines(d: Decision) -> list[str]:
    organization = d.organization_id
    return [
        f"{organization}\t{invoice_id}\t{stage}\t{sequence}\t{currency}\t{amount!s}\t{_day[due_on]}\n"
        for invoice_id, stage, sequence, currency, amount, due_on in d.reserved
    ]
