"""How old is too old: the age of a feed judged in days, in a word and a colour."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rhythm:
    """How often a feed is expected: fresh through ``fresh_days``, late through ``late_days``, stale after that."""

    fresh_days: int
    late_days: int


@dataclass(frozen=True)
class Judgement:
    """A feed's age in a word (fresh, late, stale, never) and its colour (green, yellow, red)."""

    word: str
    colour: str


# Accounting sends every Monday; a Monday's file that comes on Tuesday is not late yet. Master data comes on demand.
_WEEKLY = Rhythm(8, 15)
_ON_DEMAND = Rhythm(92, 366)
RHYTHMS = {"open_items": _WEEKLY}


def judge_age(feed: str, age_days: int | None) -> Judgement:
    """The judgement of a feed whose newest day lies ``age_days`` back; None where nothing has ever been taken in.

    A weekly feed of Monday 2 March: fresh through Tuesday 10 March (8 days), late through 17 March, stale from then on.
    """
    if age_days is None:
        return Judgement("never", "red")
    rhythm = RHYTHMS.get(feed, _ON_DEMAND)
    if age_days <= rhythm.fresh_days:
        return Judgement("fresh", "green")
    return Judgement("late", "yellow") if age_days <= rhythm.late_days else Judgement("stale", "red")
