"""Prefect's automations, put into force with the deployments: what the server does by itself upon its own events.

    a run's heartbeat stops    its state becomes Crashed, because its process or its machine is gone
    files have been taken in   the deployments tagged ``after:<that flow>`` are started, each once

A state in Prefect is a picture: the run ledger and its lock say what became of the work, and run_watch, which looks at
them every quarter of an hour, tells the engineers and starts what may be started again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.events.schemas.automations import AutomationCore

_OURS = "kontor: "
HEARTBEAT_LOST = f"{_OURS}a run's heartbeat stopped"
SILENCE = timedelta(seconds=90)  # three heartbeats

# Whatever a run says of itself, beside its heartbeat, ends the wait for the next one.
_SIGNS = ("heartbeat", "Completed", "Failed", "Crashed", "Cancelled", "Cancelling", "Paused", "Suspended", "Scheduled")


def heartbeat_lost(silence: timedelta = SILENCE) -> AutomationCore:
    """The automation that gives a run a true state once its heartbeat has stopped for ``silence``.

    A run that sends none (``without_heartbeat``) is never touched: the wait begins with the first one.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return AutomationCore(
        name=HEARTBEAT_LOST,
        description="A run whose process is gone stands as running no longer. Runbook: docs/runbooks/run_watch.md",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={f"prefect.flow-run.{sign}" for sign in _SIGNS},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                message="Its heartbeat stopped: its process or its machine is gone. Kontor's run ledger decides.",
            )
        ],
    )


def files_taken_in(flow: str, name: str, deployment_id: UUID) -> AutomationCore:
    """The automation that starts a deployment each time that files of ``flow`` have been taken in and committed.

    A dry run and the windows of a backfill tell of no files. What runs already is not started beside itself: the
    deployment's own limit says what becomes of a second run.
    """
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return AutomationCore(
        name=f"{_OURS}{name} after {flow}",
        description=f"What {flow} has taken in is worked on by {name} at once. Runbook: docs/runbooks/{name}.md",
        trigger=EventTrigger(
            expect={"kontor.files.taken-in"},
            match=ResourceSpecification({"prefect.resource.id": [f"kontor.flow.{flow}"]}),
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[RunDeployment(source="selected", deployment_id=deployment_id, parameters=None, job_variables=None)],
    )


def followed_flows(tags: Sequence[str]) -> list[str]:
    """The flows after which a deployment with these tags is started."""
    return [tag.removeprefix("after:") for tag in tags if tag.startswith("after:")]


async def ensure_automations(client: Any, followers: Sequence[tuple[str, str, UUID]]) -> None:
    """Make each automation, or set the one of its name to what is here; ``followers`` as of :func:`files_taken_in`.

    One of ours that is wanted no longer is removed.
    """
    from prefect.client.schemas.sorting import AutomationSort

    wanted_now = (heartbeat_lost(), *(files_taken_in(*follower) for follower in followers))
    names = {wanted.name for wanted in wanted_now}
    # Every option is given: the server takes no null for those that are left out.
    for standing in await client.read_automations(sort=AutomationSort.NAME_ASC, limit=200):
        if standing.name.startswith(_OURS) and standing.name not in names:
            await client.delete_automation(standing.id)
    for wanted in wanted_now:
        standing = await client.read_automations_by_name(wanted.name)
        if not standing:
            await client.create_automation(wanted)
            continue
        await client.update_automation(standing[0].id, wanted)
        for double in standing[1:]:
            await client.delete_automation(double.id)
