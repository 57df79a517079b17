"""Which backups stay and which may go, by the rule in force. Pure: it deletes nothing.

A backup stays when any of these holds, and its reasons are told:

window    it is needed to recover to an instant of the recovery window: every good one in it, and the newest good one
          before it. Example: window of 14 days on 30 June 12:00 begins on 16 June 12:00; the good backup of 15 June
          stays, because 16 June 12:01 is recovered from it; the one of 14 June is not needed for that.
daily     the newest good one of one of the last ``keep_daily`` days that have one; weekly and monthly likewise
          (ISO weeks and calendar months, in UTC)
minimum   it is among the newest ``minimum_good`` good ones
hold      it is the newest good one that was made before a standing legal hold was placed: it alone shows the data
          as they stood when somebody asked to keep them; where there is none, the oldest good one behind it
base      an incremental one that stays is built on it
unproven  it is younger than the newest good one, so its check is still to come; or there is no good one at all

clock     its time has not come yet: as long as the clock is behind the newest backup, nothing is let go by time

A backup that is not good counts for none of the others, and what has not passed for as long as ``unproven`` does not
cover it goes: what cannot be restored protects nobody. The last good one never goes.

Backups come in the order in which they were made. Where the clock was wrong for a while their times are not in that
order; those that do not fit between the others are taken to be of the time of the one before. Example: made on 1, 2 and
3 June, then with the clock on 9 May, then on 5 June: the fourth is taken to be of 3 June.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

CLOCKS_DIFFER = timedelta(days=1)  # the clocks of two machines, and the time that a run takes, are within this


@dataclass(frozen=True)
class Held:
    """A backup as the rule sees it: its instant, what it builds on, and whether its newest check passed."""

    label: str
    at: datetime
    base: str | None
    good: bool


@dataclass(frozen=True)
class Keep:
    """How much to keep."""

    recovery_window_days: int
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    minimum_good: int


@dataclass(frozen=True)
class Plan:
    """Reasons per backup that stays, and the labels that may go, dependants before what they build on."""

    stays: Mapping[str, tuple[str, ...]]
    goes: tuple[str, ...]


def classify(backups: Sequence[Held], rule: Keep, holds: Sequence[datetime], now: datetime) -> Plan:
    """Say of every backup whether it stays and why; ``backups`` are in the order in which they were made.

    ``holds`` are the instants at which standing legal holds were placed.
    """
    ordered = _straightened(backups)
    good = [held for held in ordered if held.good]
    reasons: dict[str, list[str]] = {}

    def keep(held: Held | None, why: str) -> None:
        """Let a backup stay for one more reason; nothing happens where there is none to keep."""
        if held is not None and why not in reasons.setdefault(held.label, []):
            reasons[held.label].append(why)

    for held in _window(good, now - timedelta(days=rule.recovery_window_days)):
        keep(held, "window")
    for why, name, count in _calendar(rule):
        for held in _newest_of_each(good, name)[:count]:
            keep(held, why)
    for held in good[-rule.minimum_good :]:
        keep(held, "minimum")
    for placed in holds:
        keep(_newest_before(good, placed) or next(iter(good), None), "hold")
    for held in ordered[ordered.index(good[-1]) + 1 if good else 0 :]:
        keep(held, "unproven")
    for held in ordered if ordered and ordered[-1].at > now + CLOCKS_DIFFER else ():
        keep(held, "clock")
    _keep_bases(ordered, reasons)
    goes = [held.label for held in reversed(ordered) if held.label not in reasons]
    return Plan({label: tuple(why) for label, why in reasons.items()}, tuple(goes))


def _straightened(backups: Sequence[Held]) -> list[Held]:
    """The backups with times that never go back: the longest row in order is believed, the later one of equals."""
    lengths: list[int] = []
    before: list[int | None] = []
    for place, held in enumerate(backups):
        fits = [earlier for earlier in range(place) if backups[earlier].at <= held.at]
        nearest = max(fits, key=lambda earlier: (lengths[earlier], earlier), default=None)
        before.append(nearest)
        lengths.append(1 if nearest is None else lengths[nearest] + 1)
    believed = set()
    last = max(range(len(backups)), key=lambda place: (lengths[place], backups[place].at), default=None)
    while last is not None:
        believed.add(last)
        last = before[last]
    times = [held.at if place in believed else None for place, held in enumerate(backups)]
    time = next((at for at in times if at is not None), None)  # what comes before the first of them is of its time
    straight = []
    for held, at in zip(backups, times, strict=True):
        time = at or time
        straight.append(replace(held, at=time or held.at))
    return straight


def _window(good: Sequence[Held], since: datetime) -> list[Held]:
    before = _newest_before(good, since)
    return [held for held in good if held.at >= since] + ([before] if before is not None else [])


def _newest_before(good: Sequence[Held], instant: datetime) -> Held | None:
    earlier = [held for held in good if held.at <= instant]
    return earlier[-1] if earlier else None


def _calendar(rule: Keep) -> list[tuple[str, Callable[[datetime], tuple[int, ...]], int]]:
    return [
        ("daily", lambda at: (at.year, at.month, at.day), rule.keep_daily),
        ("weekly", lambda at: (at.isocalendar().year, at.isocalendar().week), rule.keep_weekly),
        ("monthly", lambda at: (at.year, at.month), rule.keep_monthly),
    ]


def _newest_of_each(good: Sequence[Held], name: Callable[[datetime], tuple[int, ...]]) -> list[Held]:
    """The newest of each day, week or month, newest first."""
    newest = {name(held.at.astimezone(UTC)): held for held in good}  # later ones replace earlier ones
    return sorted(newest.values(), key=lambda held: held.at, reverse=True)


def _keep_bases(ordered: Sequence[Held], reasons: dict[str, list[str]]) -> None:
    """What a staying backup builds on stays too; newest first, so that one pass goes down each chain."""
    for held in reversed(ordered):
        if held.label in reasons and held.base is not None and "base" not in reasons.setdefault(held.base, []):
            reasons[held.base].append("base")
