"""Prefect's automations, put into force with the deployments: what the server does by itself upon its own events.

    a run's heartbeat stops    its state becomes Crashed, because its process or its machine is gone

A state in Prefect is a picture: the run ledger and its lock say what became of the work, and run_watch, which looks at
them every quarter of an hour, tells the engineers and starts what may be started again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

HEARTBEAT_LOST = "kontor: a run's heartbeat stopped"
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


async def ensure_automations(client: Any) -> None:
    """Make each automation, or set the one of its name to what is here."""
    for wanted in (heartbeat_lost(),):
        standing = await client.read_automations_by_name(wanted.name)
        if not standing:
            await client.create_automation(wanted)
            continue
        await client.update_automation(standing[0].id, wanted)
        for double in standing[1:]:
            await client.delete_automation(double.id)
