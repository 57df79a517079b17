"""The brake on a run: far more mails than runs planned before means that something upstream is wrong.

earlier runs planned 40, 55, 48, 60 and 52 mails; their median is 52; the rule allows 3 times as many: 156.
A run of 157 stops for a person; so does none of 50 or fewer, whatever the median says (``blast_floor``).
With fewer earlier runs than the rule's evidence there is nothing to compare with, and nothing stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from statistics import median

from tasks.reminders import wording
from tasks.reminders.rulebook import RuleBook


def check_brake(rules: RuleBook, planned: int, earlier: Sequence[int]) -> str | None:
    """Why this many mails must not leave by themselves, measured beside allowed; None where they may.

    ``earlier`` are the mails of each earlier run in the rule's window that planned at least one.
    """
    multiple, floor = rules.limit("blast_radius"), rules.limit("blast_floor")
    if multiple is None or len(earlier) < max(multiple.minimum_evidence, 1):
        return None
    usual = Decimal(str(median(earlier)))
    allowed = max(usual * multiple.threshold, floor.threshold if floor is not None else Decimal(0))
    if planned <= allowed:
        return None
    most, times, median_words = map(wording.number, (allowed, multiple.threshold, usual))
    return (
        f"{planned} mails are planned; {most} are allowed without a person's word"
        f" ({times} times the median of {median_words} over {len(earlier)} earlier runs)"
    )
