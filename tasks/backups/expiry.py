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

A backup that is not good counts for none of the others, and what has not passed for as long as ``unproven`` does not
cover it goes: what cannot be restored protects nobody. The last good one never goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


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
    """Say of every backup whether it stays and why.

    ``holds`` are the instants at which standing legal holds were placed.
    """
    ordered = sorted(backups, key=lambda held: (held.at, held.label))
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
    for held in ordered:
        if not good or held.at > good[-1].at:
            keep(held, "unproven")
    _keep_bases(ordered, reasons)
    goes = [held.label for held in reversed(ordered) if held.label not in reasons]
    return Plan({label: tuple(why) for label, why in reasons.items()}, tuple(goes))


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
