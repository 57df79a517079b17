"""The weekly letter to an owner: what of theirs is incomplete, stale or wrong, the most pressing first. Pure.

A letter lists numbers, not names: whoever reads it finds the customer by its number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

from tasks.letters import Letter, Mailbox, message_id, one_line
from tasks.quality.pages import Row, at_stake, owners_page

_LISTED = 40


def week_of(day: date) -> date:
    """The Monday of the day's week: an owner is written to once for each."""
    return day - timedelta(days=day.weekday())


def mailboxes_of(owner: str, teams: Mapping[str, Sequence[Mailbox]]) -> tuple[Mailbox, ...]:
    """Whom a letter to this owner goes to: a team's mailboxes, or the owner where that is an address; else nobody."""
    known = tuple(teams.get(owner, ()))
    if known or "@" not in owner:
        return known
    return (Mailbox(owner.strip()),)


def nudge(
    owner: str,
    to: Sequence[Mailbox],
    sender: str,
    as_of: date,
    rows: Sequence[Row],
    solved: Sequence[Row],
    now: datetime,
) -> Letter:
    """The letter, the same for the same owner and week but for what it lists."""
    overdue = sum(1 for row in rows if isinstance(row["due_on"], date) and row["due_on"] < as_of)
    subject = f"{len(rows)} records to complete or correct" + (f", {overdue} overdue" if overdue else "")
    return Letter(
        to=tuple(to),
        subject=one_line(subject),
        text=_text(as_of, rows, solved),
        html=owners_page(owner, as_of, rows, solved),
        message_id=message_id(sender, "quality", week_of(as_of).isoformat(), owner),
        dated=now,
    )


def _text(as_of: date, rows: Sequence[Row], solved: Sequence[Row]) -> str:
    lines = [f"Open on {as_of}: {len(rows)}. Solved in the week before: {len(solved)}."]
    stake = at_stake(rows)
    if stake:
        lines.append("Open money they touch: " + ", ".join(f"{code} {amount:.2f}" for code, amount in stake.items()))
    lines.append("")
    for row in rows[:_LISTED]:
        who = row["customer_number"] or row["record_key"]
        lines.append(f"- {who}: {row['reason']} (due {row['due_on']}, incident {row['incident_id']})")
    if len(rows) > _LISTED:
        lines.append(f"and {len(rows) - _LISTED} more")
    lines += ["", "They close by themselves once the data are right."]
    return "\n".join(lines) + "\n"
