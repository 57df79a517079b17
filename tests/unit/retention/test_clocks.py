"""When a record may go: boundary days worked out by hand, and the horizon against the definition for any day."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.retention.clocks import Period, horizon, last_day_kept, may_go_from
from tests.conftest import CAMPAIGN_FACTOR

DAYS = st.dates(date(1990, 1, 1), date(2090, 12, 31))
PERIODS = st.builds(
    Period,
    months=st.integers(0, 360),
    days=st.integers(0, 800),
    from_year_end=st.booleans(),
)


@pytest.mark.parametrize(
    ("started", "period", "kept", "goes"),
    [
        (date(2024, 2, 29), Period(24), date(2026, 2, 28), date(2026, 3, 1)),
        (date(2024, 2, 29), Period(48), date(2028, 2, 29), date(2028, 3, 1)),
        (date(2025, 12, 31), Period(2), date(2026, 2, 28), date(2026, 3, 1)),
        (date(2026, 1, 31), Period(1), date(2026, 2, 28), date(2026, 3, 1)),
        (date(2026, 1, 31), Period(0, 30), date(2026, 3, 2), date(2026, 3, 3)),
        (date(2026, 8, 31), Period(1), date(2026, 9, 30), date(2026, 10, 1)),
        (date(2015, 1, 1), Period(120, from_year_end=True), date(2025, 12, 31), date(2026, 1, 1)),
        (date(2015, 12, 31), Period(120, from_year_end=True), date(2025, 12, 31), date(2026, 1, 1)),
        (date(2016, 1, 1), Period(120, from_year_end=True), date(2026, 12, 31), date(2027, 1, 1)),
        (date(2026, 5, 5), Period(), date(2026, 5, 5), date(2026, 5, 6)),
    ],
)
def test_boundary_days(started: date, period: Period, kept: date, goes: date) -> None:
    """Leap days, ends of months and years: the last day is kept in full, the record may go on the next."""
    assert last_day_kept(started, period) == kept
    assert may_go_from(started, period) == goes
    assert horizon(kept, period) < started
    assert horizon(goes, period) >= started


@settings(max_examples=300 * CAMPAIGN_FACTOR)
@given(started=DAYS, as_of=DAYS, period=PERIODS)
def test_the_horizon_says_what_the_definition_says(started: date, as_of: date, period: Period) -> None:
    """A record is due on a day if and only if its clock started on or before that day's horizon."""
    assert (last_day_kept(started, period) < as_of) == (started <= horizon(as_of, period))


@settings(max_examples=100 * CAMPAIGN_FACTOR)
@given(as_of=DAYS, period=PERIODS)
def test_the_horizon_never_goes_back(as_of: date, period: Period) -> None:
    """What was due yesterday is due today."""
    assert horizon(as_of, period) <= horizon(as_of + timedelta(days=1), period)
