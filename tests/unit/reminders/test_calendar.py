"""Working days: weekends and public holidays of each country, and what is not known."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.reminders.calendar import Calendar

CALENDAR = Calendar()
COUNTRIES = ["BG", "PL", "NO", "SE", "DE", "EG", "", "XX"]


@pytest.mark.parametrize(
    ("country", "day", "expected"),
    [
        ("BG", date(2012, 3, 2), date(2012, 3, 2)),
        ("BG", date(2012, 3, 3), date(2012, 3, 5)),  # Liberation Day, on a Saturday
        ("NO", date(2012, 4, 5), date(2012, 4, 10)),  # Maundy Thursday to Easter Monday
        ("PL", date(2012, 4, 6), date(2012, 4, 6)),  # Good Friday is a working day in Poland
        ("PL", date(2012, 4, 7), date(2012, 4, 10)),
        ("EG", date(2012, 3, 2), date(2012, 3, 4)),  # a weekend of Friday and Saturday
        ("", date(2012, 12, 25), date(2012, 12, 25)),  # nobody knows where: Monday to Friday
        ("XX", date(2012, 3, 3), date(2012, 3, 5)),
    ],
)
def test_the_next_working_day_is_that_of_the_country(country: str, day: date, expected: date) -> None:
    """A day off moves to the next day on which people of that country work."""
    assert CALENDAR.next_working_day(country, day) == expected


def test_working_days_are_walked_in_both_directions() -> None:
    """Days off between are not counted, forwards and backwards; calendar days are."""
    assert CALENDAR.shift("NO", date(2012, 4, 4), 1, "working") == date(2012, 4, 10)
    assert CALENDAR.shift("NO", date(2012, 4, 10), -1, "working") == date(2012, 4, 4)
    assert CALENDAR.shift("NO", date(2012, 4, 4), 1, "calendar") == date(2012, 4, 5)


@given(
    country=st.sampled_from(COUNTRIES),
    day=st.dates(date(2000, 1, 1), date(2035, 12, 31)),
    days=st.integers(-15, 15),
)
def test_a_shift_by_working_days_ends_on_one_and_is_undone_by_its_opposite(country: str, day: date, days: int) -> None:
    """From a working day, so many working days there and back lead to the same day, not far off."""
    start = CALENDAR.next_working_day(country, day)
    there = CALENDAR.shift(country, start, days, "working")
    assert CALENDAR.is_working_day(country, there)
    assert CALENDAR.shift(country, there, -days, "working") == start
    assert abs(there - start) <= timedelta(days=3 * abs(days) + 14)
