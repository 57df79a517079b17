"""A past period cut into windows, and which of them a backfill runs: pure, with the days as arguments.

A window is a stretch of days, both ends included. Weeks are counted from the first day asked for, months follow the
calendar. Example: 2012-01-02 to 2012-01-18 by week gives 01-02…01-08, 01-09…01-15 and the short 01-16…01-18.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from statistics import median

from tasks.errors import Refused, UsageError

MOST_WINDOWS = 4000
_DAY = timedelta(days=1)


class Every(StrEnum):
    """How long a window is."""

    day = "day"
    week = "week"
    month = "month"


class Reprocess(StrEnum):
    """Which windows are run: those with something still missing, also those that failed, or all of them."""

    missing = "missing"
    failed = "failed"
    all = "all"


@dataclass(frozen=True)
class Window:
    """One stretch of days; ``number`` counts from 1 in the order of the calendar."""

    number: int
    from_on: date
    to_on: date

    def holds(self, day: date) -> bool:
        """Whether the day lies in the window."""
        return self.from_on <= day <= self.to_on


@dataclass(frozen=True)
class Input:
    """A file that speaks of a day; ``state`` is applied, superseded, refused or new (never seen)."""

    path: str
    sha256: str
    contract: str
    as_of: date
    state: str


@dataclass(frozen=True)
class PlannedWindow:
    """What a window would do: the files it would run, those that are in already, and whether it is run at all."""

    window: Window
    inputs: tuple[Input, ...]
    former: str | None
    runs: bool
    why: str


def cut_windows(from_on: date, to_on: date, every: Every, excluded: Sequence[date] = ()) -> list[Window]:
    """Return the windows from the first to the last day, in order; those of which every day is excluded are left out.

    Raises:
        UsageError: the period ends before it begins, or has more than ``MOST_WINDOWS`` windows.
    """
    if to_on < from_on:
        raise UsageError(
            f"The period ends on {to_on}, before it begins on {from_on}.", hint="Give --from and --to the other way."
        )
    left_out = set(excluded)
    kept = [
        (first, last) for first, last in _stretches(from_on, to_on, every) if not _all_excluded(first, last, left_out)
    ]
    if not kept:
        raise UsageError("Every day of the period is excluded.", hint="Exclude fewer days.")
    if len(kept) > MOST_WINDOWS:
        raise UsageError(
            f"The period has {len(kept)} windows; at most {MOST_WINDOWS} are run at once.",
            hint="Choose longer windows or a shorter period.",
        )
    return [Window(number, first, last) for number, (first, last) in enumerate(kept, start=1)]


def _stretches(from_on: date, to_on: date, every: Every) -> Iterator[tuple[date, date]]:
    first = from_on
    while first <= to_on:
        last = min(_last_day(first, every), to_on)
        yield first, last
        if last == date.max:
            return
        first = last + _DAY


def _last_day(first: date, every: Every) -> date:
    if every is Every.day:
        return first
    if every is Every.week:
        return first + 6 * _DAY
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return following - _DAY


def _all_excluded(first: date, last: date, excluded: set[date]) -> bool:
    return all(first + n * _DAY in excluded for n in range((last - first).days + 1))


def refuse_period(windows: Sequence[Window], *, today: date, purged_through: date | None) -> None:
    """Stop a period that cannot be run again.

    Raises:
        Refused: it reaches beyond today, or to days whose data have been let go of.
    """
    last, first = windows[-1].to_on, windows[0].from_on
    if last > today:
        raise Refused(
            f"The period ends on {last}; today is {today}. Nothing was changed.",
            hint=f"A backfill looks back: end it on {today} or before.",
        )
    if purged_through is not None and first <= purged_through:
        raise Refused(
            f"The period begins on {first}, but data through {purged_through} have been let go of by rule. A backfill"
            " would bring them back. Nothing was changed.",
            hint=f"Begin it on {purged_through + _DAY} or later.",
        )


def plan_window(
    window: Window, inputs: Sequence[Input], *, former: str | None, reads_files: bool, reprocess: Reprocess
) -> PlannedWindow:
    """Decide whether a window is run, and why; ``former`` is how an earlier run of it ended, if there was one."""
    runs, why = _decide(inputs, former, reads_files=reads_files, reprocess=reprocess)
    return PlannedWindow(window, tuple(inputs), former, runs, why)


def _decide(
    inputs: Sequence[Input], former: str | None, *, reads_files: bool, reprocess: Reprocess
) -> tuple[bool, str]:
    if reads_files and not inputs:
        return False, "no file speaks of these days"
    if reprocess is Reprocess.all:
        return True, "everything is to be run again"
    if reprocess is Reprocess.failed:
        failed = former == "failed" or any(item.state == "refused" for item in inputs)
        return failed, "it failed before" if failed else "it has not failed"
    missing = [item for item in inputs if item.state in ("new", "refused")]
    if reads_files:
        return bool(missing), f"{len(missing)} not taken in yet" if missing else "all of it is in already"
    return former != "done", "it was done before" if former == "done" else "it has not been done"


def in_order(windows: Sequence[PlannedWindow], *, newest_first: bool) -> list[PlannedWindow]:
    """The windows that are run, in the order in which they are."""
    return sorted((w for w in windows if w.runs), key=lambda w: w.window.number, reverse=newest_first)


def estimate_seconds(windows: Sequence[PlannedWindow], past_seconds: Sequence[float]) -> float | None:
    """How long the windows that run will take, by the median of past runs; None where there is no past run."""
    if not past_seconds:
        return None
    return median(past_seconds) * sum(w.runs for w in windows)
