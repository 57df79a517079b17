"""When each flow is due, from the deployments' own file: pure, with the zone and the times as arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import yaml
from cronsim import CronSim

MOST_TIMES = 2000
_LIMIT = re.compile(r"limit:(?P<count>\d+)(?P<unit>[mh])")


@dataclass(frozen=True)
class Scheduled:
    """A flow that runs by itself: its cron expression in the business time zone, and how much hangs on it (tier)."""

    flow: str
    slug: str
    cron: str
    tier: int


def read_schedules(document: str) -> list[Scheduled]:
    """The schedules of a ``prefect.yaml``, given as its text; paused ones are left out."""
    entries = yaml.safe_load(document)["deployments"]
    return [
        Scheduled(entry["name"], item["slug"], item["cron"], _tier(entry.get("tags", [])))
        for entry in entries
        for item in entry.get("schedules", [])
        if item.get("active", True)
    ]


def _tier(tags: list[str]) -> int:
    return next((int(tag.removeprefix("tier:")) for tag in tags if tag.startswith("tier:")), 3)


def next_runs(schedules: Sequence[Scheduled], zone: ZoneInfo, now: datetime, most: int) -> list[tuple[datetime, str]]:
    """The instants in UTC at which flows are due next, within a week, each schedule once, soonest first."""
    week = now + timedelta(days=7)
    found = ((next(_due(one.cron, zone, now, week), None), one.flow) for one in schedules)
    return sorted((due, flow) for due, flow in found if due is not None)[:most]


def time_limits(document: str) -> dict[str, timedelta]:
    """How long a run of each flow may last by its tag ``limit:<count><m|h>``; a flow without one has no limit."""
    found = {}
    for entry in yaml.safe_load(document)["deployments"]:
        for tag in entry.get("tags", []):
            match = _LIMIT.fullmatch(tag)
            if match is not None:
                minutes = int(match["count"]) * (60 if match["unit"] == "h" else 1)
                found[str(entry["name"])] = timedelta(minutes=minutes)
    return found


def due_times(cron: str, zone: ZoneInfo, *, after: datetime, until: datetime) -> list[datetime]:
    """The instants in UTC at which the expression is due, after the one and up to the other instant, oldest first.

    Daylight saving as Debian's cron has it: what falls into the hour that is skipped runs right after it, what falls
    into the hour that comes twice runs once.
    """
    return list(_due(cron, zone, after, until))


def _due(cron: str, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[datetime]:
    for number, moment in enumerate(CronSim(cron, after.astimezone(zone))):
        instant = moment.astimezone(UTC)
        if instant > until or number >= MOST_TIMES:
            return
        yield instant
