"""What is done about runs that fell due while nothing was running: declared per deployment, decided here at the start.

Prefect would start every missed run at once and in no order. So those are cancelled, and what the deployment's tag
``catchup:<rule>:<greatest age>`` says is done instead:

    skip     nothing; the next scheduled run does the work
    latest   one run for the newest missed time
    all      one run for each missed time, oldest first

Example: ``catchup:latest:7d``, hourly, off from Friday evening to Monday 9:30: one run, for Monday 9:00.
What was missed is counted from the newest run that the run ledger knows, not from what Prefect remembers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from configs.settings import Settings
    from flows.commands.deploying import Deployment

Rule = Literal["skip", "latest", "all"]
MOST_RUNS = 100
LOOK_BACK = timedelta(days=35)
_TAG = re.compile(r"catchup:(?P<rule>skip|latest|all)(?::(?P<count>\d+)(?P<unit>[hd]))?")


@dataclass(frozen=True)
class CatchUp:
    """What a deployment wants done about missed runs, and how old one may be at most."""

    rule: Rule
    greatest_age: timedelta


def rule_of(tags: Sequence[str]) -> CatchUp:
    """The rule that the tags declare; ``skip`` where none does."""
    for tag in tags:
        match = _TAG.fullmatch(tag)
        if match is not None:
            hours = int(match["count"] or 24) * (24 if match["unit"] == "d" else 1)
            rule: Rule = "skip" if match["rule"] == "skip" else "all" if match["rule"] == "all" else "latest"
            return CatchUp(rule, timedelta(hours=hours))
    return CatchUp("skip", timedelta(0))


def to_make_up(missed: Sequence[datetime], wanted: CatchUp, now: datetime) -> list[datetime]:
    """The missed times that get a run, oldest first: pure, by the deployment's rule."""
    young = sorted(moment for moment in missed if now - moment <= wanted.greatest_age)
    if wanted.rule == "skip" or not young:
        return []
    return young[-1:] if wanted.rule == "latest" else young[-MOST_RUNS:]


def catch_up(settings: Settings, deployments: Sequence[Deployment]) -> list[str]:
    """Cancel what Prefect has queued for past times, start what the rules want, and say what was done, line by line."""
    import asyncio

    now = datetime.now(UTC)
    newest = _newest_starts(settings)
    return asyncio.run(_catch_up(deployments, newest, now))


def _newest_starts(settings: Settings) -> dict[str, datetime]:
    from sqlalchemy import text

    from tasks.stack import connected

    with connected(settings) as connection:
        rows = connection.execute(text("select flow, max(started_at) from ops.run_ledger group by flow")).all()
    return {row[0]: row[1] for row in rows}


async def _catch_up(deployments: Sequence[Deployment], newest: dict[str, datetime], now: datetime) -> list[str]:
    from prefect.client.orchestration import get_client

    said = []
    async with get_client() as client:
        for deployment in deployments:
            known = await client.read_deployment_by_name(f"{deployment.name}/{deployment.name}")
            cancelled = await _cancel_late(client, known.id, now)
            missed = _missed(deployment, newest.get(deployment.name), now)
            made_up = to_make_up(missed, rule_of(deployment.described["tags"]), now)
            for _ in made_up:
                await client.create_flow_run_from_deployment(known.id, tags=["catch-up"])
            if missed or cancelled:
                said.append(f"{deployment.name}: {len(missed)} runs were missed, {len(made_up)} made up for.")
    return said


def _missed(deployment: Deployment, since: datetime | None, now: datetime) -> list[datetime]:
    """The times at which the deployment should have run after ``since``; none for a flow that has never run."""
    from tasks.watch.schedules import due_times

    if since is None:
        return []
    after = max(since, now - LOOK_BACK)
    found: set[datetime] = set()
    for item in deployment.described["schedules"]:
        if item.active:
            zone = ZoneInfo(item.schedule.timezone)
            found |= set(due_times(item.schedule.cron, zone, after=after, until=now))
    return sorted(found)


async def _cancel_late(client: Any, deployment_id: Any, now: datetime) -> int:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.states import Cancelled

    late = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=now),
    )
    runs = await client.read_flow_runs(
        flow_run_filter=late, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=200, offset=0
    )
    waiting = [run for run in runs if run.auto_scheduled]
    for run in waiting:
        await client.set_flow_run_state(
            run.id, Cancelled(message="missed; see the deployment's catch-up rule"), force=True
        )
    return len(waiting)
