"""Working days by country: public holidays of `holidays`, weekends of it or, where it has none, of Babel's territory.

A country that neither knows, and a customer without one, works from Monday to Friday.

    due on Saturday 3 March in Bulgaria     3 March is Liberation Day as well; the due date counts as Monday 5 March
    one working day after Thursday 5 April 2012 in Poland     Friday the 6th: Good Friday is no holiday there
    the same in Norway                                        Tuesday the 10th: the 6th and Easter Monday are
"""

from __future__ import annotations

from collections.abc import Container
from datetime import date, timedelta
from typing import Any

import holidays
from babel import Locale, UnknownLocaleError

_DAY = timedelta(days=1)
_SATURDAY_AND_SUNDAY = frozenset((5, 6))


class Calendar:
    """Answers about working days; each answer is worked out once, so a million items cost a few thousand answers."""

    def __init__(self) -> None:
        self._weekends: dict[str, Container[int]] = {}
        self._holidays: dict[str, Any] = {}
        self._working: dict[tuple[str, date], bool] = {}
        self._next: dict[tuple[str, date], date] = {}
        self._shifted: dict[tuple[str, date, int], date] = {}

    def is_working_day(self, country: str, day: date) -> bool:
        """Whether people of this country (ISO 3166 alpha-2, ``""`` where unknown) work on that day."""
        key = (country, day)
        known = self._working.get(key)
        if known is None:
            if country not in self._weekends:
                self._learn(country)
            known = day.weekday() not in self._weekends[country] and day not in self._holidays[country]
            self._working[key] = known
        return known

    def next_working_day(self, country: str, day: date) -> date:
        """The day itself where it is a working day, else the next one that is."""
        key = (country, day)
        found = self._next.get(key)
        if found is None:
            found = day
            while not self.is_working_day(country, found):
                found += _DAY
            self._next[key] = found
        return found

    def shift(self, country: str, day: date, days: int, unit: str) -> date:
        """The day so many ``calendar`` or ``working`` days later, or earlier where ``days`` is negative."""
        if unit == "calendar":
            return day + timedelta(days=days)
        key = (country, day, days)
        found = self._shifted.get(key)
        if found is None:
            found = self._shifted[key] = self._walk(country, day, days)
        return found

    def _walk(self, country: str, day: date, days: int) -> date:
        step, left = (_DAY if days > 0 else -_DAY), abs(days)
        while left:
            day += step
            left -= self.is_working_day(country, day)
        return day

    def _learn(self, country: str) -> None:
        try:
            known: Any = holidays.country_holidays(country) if country else {}
        except NotImplementedError:
            known = {}
        self._holidays[country] = known
        self._weekends[country] = getattr(known, "weekend", None) or _weekend_of(country)


def _weekend_of(country: str) -> Container[int]:
    if not country:
        return _SATURDAY_AND_SUNDAY
    try:
        territory = Locale.parse(f"und_{country}")
    except (UnknownLocaleError, ValueError):
        return _SATURDAY_AND_SUNDAY
    first, last = territory.weekend_start, territory.weekend_end
    return frozenset(day % 7 for day in range(first, last + (1 if last >= first else 8)))
