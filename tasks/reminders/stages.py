"""Which step of its ladder an item is due for, worked out from facts each time, never counted up.

A day is never compared for equality: a step is due from its day on until it was taken, so a missed day, week or month
is caught up by what the rule says of missed steps.

    ladder: first 3 working days, second 14 days, final 30 days after the due date; nobody was at work for a month.
    Due Monday 2 April 2012, back on Wednesday 2 May: first (5 April), second (16 April) and final (2 May) are due.
      spread    first goes out today, second when the policy's days between two mails have passed, then final
      latest    final goes out today; the steps before it are stepped over
      skip      a step is let go once its day is more than ``missed_after_days`` past; here only final is young
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

from tasks.reminders.calendar import Calendar
from tasks.reminders.facts import Item
from tasks.reminders.rulebook import LEVEL, Stage

_UPCOMING = LEVEL["upcoming"]


class Step(NamedTuple):
    """A step that an item is due for; ``sequence`` counts the repeats of a stage, 1 for the first."""

    rule: Stage
    sequence: int


def due_day(calendar: Calendar, country: str, due_on: date) -> date:
    """The day on which a payment due on ``due_on`` can be expected: the next working day of the payer's country."""
    return calendar.next_working_day(country, due_on)


def step_day(calendar: Calendar, country: str, due_on: date, rule: Stage) -> date:
    """The first day on which an item due on ``due_on`` is due for this stage."""
    start = calendar.shift(country, due_day(calendar, country, due_on), rule.offset_days, rule.offset_unit)
    return start + timedelta(days=rule.grace_days)


def find_step(
    calendar: Calendar, country: str, ladder: Sequence[Stage], item: Item, as_of: date, overdue: bool
) -> Step | None:
    """The step that this item is due for on that day, None where there is nothing to say of it.

    Levels only rise and sequences only count up, whatever the ladder was before.
    """
    if not overdue:
        return _upcoming(calendar, country, ladder, item, as_of)
    chosen: Stage | None = None
    for rule in ladder:
        if rule.level <= max(item.level, _UPCOMING):
            continue
        day = step_day(calendar, country, item.due_on, rule)
        if day > as_of:
            break
        if rule.missed == "skip" and (as_of - day).days > rule.missed_after_days:
            continue
        # A stage that must not be stepped over is taken before any later one.
        if chosen is None or chosen.missed == "latest":
            chosen = rule
    if chosen is not None:
        return Step(chosen, 1)
    return _repeat(ladder, item, as_of)


def _upcoming(calendar: Calendar, country: str, ladder: Sequence[Stage], item: Item, as_of: date) -> Step | None:
    for rule in ladder:
        if rule.level == _UPCOMING and item.level < _UPCOMING:
            day = step_day(calendar, country, item.due_on, rule)
            late = rule.missed == "skip" and (as_of - day).days > rule.missed_after_days
            return Step(rule, 1) if day <= as_of and not late else None
    return None


def _repeat(ladder: Sequence[Stage], item: Item, as_of: date) -> Step | None:
    """The same stage once more, where its rule repeats it and its days have passed."""
    rule = _repeated(ladder, item)
    if rule is None or item.reminded_on is None or rule.repeat_days is None:
        return None
    return Step(rule, item.sequence + 1) if as_of >= item.reminded_on + timedelta(days=rule.repeat_days) else None


def _repeated(ladder: Sequence[Stage], item: Item) -> Stage | None:
    """The rule by which the item's stage may be taken once more; None where it may not."""
    for rule in ladder:
        if rule.level == item.level > _UPCOMING and item.sequence < rule.maximum_count:
            return rule
    return None


def next_step_day(
    calendar: Calendar, country: str, ladder: Sequence[Stage], item: Item, as_of: date
) -> tuple[date, str] | None:
    """The next day on which something will be due for this item, and its stage; None where the ladder has ended."""
    for rule in ladder:
        if rule.level > max(item.level, _UPCOMING):
            day = step_day(calendar, country, item.due_on, rule)
            if day > as_of:
                return day, rule.stage
    again = _repeated(ladder, item)
    if again is None or again.repeat_days is None or item.reminded_on is None:
        return None
    return item.reminded_on + timedelta(days=again.repeat_days), again.stage
