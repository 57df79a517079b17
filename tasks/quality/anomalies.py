"""Is today's figure as usual? Median and spread of comparable days before, robust against what was odd then. Pure.

Figures of a back office have a week and a month in them: Mondays bring the ledger, the first week brings the invoices.
So a day is compared with days of its own weekday in its own week of the month where there are enough of them, else with
its own weekday, else with all days; and where even those are too few, nothing is said.

    history of Mondays: 1000, 1010, 990, 1005, 995, 1000, 1010, 1000    median 1000, spread 7.4 (1.4826 × MAD 5)
    today, a Monday: 1030     distance 4.0 spreads: as usual
    today, a Monday:  700     distance 40 spreads: not as usual

The factor 1.4826 makes the median absolute deviation of a normal distribution its standard deviation (Rousseeuw and
Croux 1993). A figure that never moved has no spread; then one part in a thousand of it stands in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from statistics import median

ENOUGH = 8
_TO_SIGMA = Decimal("1.4826")
_LEAST_SPREAD = Decimal("0.001")


@dataclass(frozen=True)
class Unusual:
    """A figure that is not as usual: what it is, what it usually is, and how many spreads lie between."""

    measure: str
    value: Decimal
    usual: Decimal
    spreads: Decimal
    days: int


def week_of_month(day: date) -> int:
    """1 for the 1st to 7th of a month, 2 for the 8th to 14th, and so on."""
    return (day.day - 1) // 7 + 1


def comparable(history: Mapping[date, Decimal], day: date) -> Sequence[Decimal]:
    """The earlier figures that ``day`` may be compared with, the closest kind of day that has enough; else none."""
    earlier = {when: value for when, value in history.items() if when < day}
    same_weekday = {when: value for when, value in earlier.items() if when.weekday() == day.weekday()}
    same_week = [value for when, value in same_weekday.items() if week_of_month(when) == week_of_month(day)]
    for values in (same_week, list(same_weekday.values()), list(earlier.values())):
        if len(values) >= ENOUGH:
            return values
    return ()


def judge(measure: str, value: Decimal, history: Mapping[date, Decimal], day: date, limit: Decimal) -> Unusual | None:
    """Return what is unusual about a figure, None where it is as usual or there is not enough history.

    ``limit`` is in spreads; exactly at the limit is as usual.
    """
    values = comparable(history, day)
    if not values:
        return None
    middle = median(values)
    deviation = median([abs(item - middle) for item in values])
    spread = max(deviation * _TO_SIGMA, abs(middle) * _LEAST_SPREAD, _LEAST_SPREAD)
    distance = abs(value - middle) / spread
    return Unusual(measure, value, middle, distance, len(values)) if distance > limit else None
