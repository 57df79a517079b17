"""A period cut into windows, and which of them are run."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.backfills.windows import (
    MOST_WINDOWS,
    Every,
    Input,
    PlannedWindow,
    Reprocess,
    Window,
    cut_windows,
    estimate_seconds,
    in_order,
    plan_window,
    refuse_period,
)
from tasks.errors import Refused, UsageError

TODAY = date(2026, 11, 20)
DAYS = st.dates(date(1999, 1, 1), date(2030, 12, 31))


def _file(state: str, day: date = date(2012, 1, 2)) -> Input:
    return Input("/inbox/a.xlsx", "0" * 64, "open_items", day, state)


def test_weeks_are_counted_from_the_first_day_asked_for() -> None:
    """The last window is as short as the period leaves it."""
    windows = cut_windows(date(2012, 1, 2), date(2012, 1, 18), Every.week)
    assert windows == [
        Window(1, date(2012, 1, 2), date(2012, 1, 8)),
        Window(2, date(2012, 1, 9), date(2012, 1, 15)),
        Window(3, date(2012, 1, 16), date(2012, 1, 18)),
    ]


def test_months_follow_the_calendar() -> None:
    """A leap February ends on the 29th, December before New Year."""
    windows = cut_windows(date(2011, 12, 15), date(2012, 3, 1), Every.month)
    assert [(w.from_on.isoformat(), w.to_on.isoformat()) for w in windows] == [
        ("2011-12-15", "2011-12-31"),
        ("2012-01-01", "2012-01-31"),
        ("2012-02-01", "2012-02-29"),
        ("2012-03-01", "2012-03-01"),
    ]


@given(DAYS, st.integers(0, 800), st.sampled_from(Every))
def test_windows_cover_every_day_once(first: date, length: int, every: Every) -> None:
    """Whatever the period, its windows follow on each other without a gap or an overlap."""
    last = first + timedelta(days=length)
    windows = cut_windows(first, last, every)
    assert windows[0].from_on == first
    assert windows[-1].to_on == last
    for one, following in pairwise(windows):
        assert following.from_on == one.to_on + timedelta(days=1)
        assert following.number == one.number + 1


def test_a_window_of_excluded_days_only_is_left_out() -> None:
    """Excluding one day of a week keeps the week; excluding a whole one does not."""
    week = [date(2012, 1, 9) + timedelta(days=n) for n in range(7)]
    assert len(cut_windows(date(2012, 1, 2), date(2012, 1, 22), Every.week, week)) == 2
    assert len(cut_windows(date(2012, 1, 2), date(2012, 1, 22), Every.week, week[:6])) == 3
    with pytest.raises(UsageError, match="Every day of the period is excluded"):
        cut_windows(date(2012, 1, 9), date(2012, 1, 15), Every.week, week)


def test_a_period_that_makes_no_sense_is_refused_in_words() -> None:
    """Backwards, far too many windows, in the future, or let go of by rule."""
    with pytest.raises(UsageError, match="before it begins"):
        cut_windows(date(2012, 1, 2), date(2012, 1, 1), Every.day)
    with pytest.raises(UsageError, match=f"at most {MOST_WINDOWS}"):
        cut_windows(date(2000, 1, 1), date(2020, 1, 1), Every.day)
    ahead = cut_windows(TODAY, TODAY + timedelta(days=1), Every.day)
    with pytest.raises(Refused, match="The period ends on 2026-11-21; today is 2026-11-20"):
        refuse_period(ahead, today=TODAY, purged_through=None)
    old = cut_windows(date(2012, 1, 2), date(2012, 1, 8), Every.week)
    with pytest.raises(Refused, match="data through 2012-01-02 have been let go of"):
        refuse_period(old, today=TODAY, purged_through=date(2012, 1, 2))
    refuse_period(old, today=TODAY, purged_through=date(2012, 1, 1))


@pytest.mark.parametrize(
    ("states", "former", "reprocess", "runs"),
    [
        ((), None, Reprocess.all, False),
        (("new",), None, Reprocess.missing, True),
        (("applied",), "done", Reprocess.missing, False),
        (("applied", "refused"), "failed", Reprocess.missing, True),
        (("applied",), "done", Reprocess.failed, False),
        (("applied",), "failed", Reprocess.failed, True),
        (("refused",), None, Reprocess.failed, True),
        (("applied",), "done", Reprocess.all, True),
    ],
)
def test_what_is_run_depends_on_what_is_in_and_what_was_asked(
    states: tuple[str, ...], former: str | None, reprocess: Reprocess, runs: bool
) -> None:
    """Missing, failed and all, for a flow that reads files."""
    window = Window(1, date(2012, 1, 2), date(2012, 1, 8))
    planned = plan_window(
        window, [_file(state) for state in states], former=former, reads_files=True, reprocess=reprocess
    )
    assert planned.runs is runs
    assert planned.why


def test_a_flow_without_files_is_run_unless_it_was_done() -> None:
    """Its windows are days alone."""
    window = Window(1, date(2012, 1, 2), date(2012, 1, 8))
    ends = [None, "failed", "done"]
    planned = [plan_window(window, [], former=end, reads_files=False, reprocess=Reprocess.missing) for end in ends]
    assert [one.runs for one in planned] == [True, True, False]


def test_the_estimate_is_the_median_of_past_runs_for_each_window() -> None:
    """Windows that are not run take no time, and where nothing ever ran nothing is promised."""
    windows = [
        PlannedWindow(Window(n, date(2012, 1, n), date(2012, 1, n)), (), None, runs=n != 2, why="") for n in (1, 2, 3)
    ]
    assert estimate_seconds(windows, [1.0, 2.0, 90.0]) == 4.0
    assert estimate_seconds(windows, []) is None
    assert [w.window.number for w in in_order(windows, newest_first=True)] == [3, 1]
