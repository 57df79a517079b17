"""When a record may go: the day its clock started, a period, and the last day on which it is kept.

A period of months ends with the same day of the month, or with the month's last day where that day is missing; the last
day is kept in full (Regulation (EEC, Euratom) No 1182/71, Article 3(2)(c) and (4)). With ``from_year_end`` the period
begins when the calendar year ends, as bookkeeping laws have it.

    started     period               kept through   may go from
    2024-02-29  24 months            2026-02-28     2026-03-01
    2025-12-31  2 months             2026-02-28     2026-03-01
    2026-01-31  30 days              2026-03-02     2026-03-03
    2015-03-10  120 months, year end 2025-12-31     2026-01-01
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date, timedelta

_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Period:
    """How long something is kept once its clock has started."""

    months: int = 0
    days: int = 0
    from_year_end: bool = False


def last_day_kept(started: date, period: Period) -> date:
    """The last day on which a record is kept whose clock started on that day.

    Raises:
        OverflowError: the day lies behind the last one that a calendar has.
    """
    begin = date(started.year, 12, 31) if period.from_year_end else started
    month = begin.year * 12 + begin.month - 1 + period.months
    year, place = divmod(month, 12)
    if year > date.max.year:
        raise OverflowError("the period ends behind the year 9999")
    day = min(begin.day, calendar.monthrange(year, place + 1)[1])
    return date(year, place + 1, day) + timedelta(days=period.days)


def may_go_from(started: date, period: Period) -> date:
    """The first day on which the record is due."""
    return last_day_kept(started, period) + _ONE_DAY


def horizon(as_of: date, period: Period) -> date:
    """The latest day on which a clock may have started for its record to be due on ``as_of``.

    So the database compares one column with one day: due are the records whose clock started on or before it.
    """
    if period.from_year_end:
        year = as_of.year - period.months // 12 + 1
        while not _is_due(date(year, 12, 31), as_of, period):
            year -= 1
        return date(year, 12, 31)
    guess = _months_back(as_of - timedelta(days=period.days), period.months)
    while _is_due(guess + _ONE_DAY, as_of, period):
        guess += _ONE_DAY
    while not _is_due(guess, as_of, period):
        guess -= _ONE_DAY
    return guess


def _is_due(started: date, as_of: date, period: Period) -> bool:
    return last_day_kept(started, period) < as_of


def _months_back(day: date, months: int) -> date:
    year, place = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, place + 1, min(day.day, calendar.monthrange(year, place + 1)[1]))
