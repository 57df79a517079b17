"""`kontor deploy`: the deployments of configs/prefect.yaml put into force on Prefect's server, all of them or none.

Every flow is loaded before anything is written: one that cannot be imported stops the whole, so that a server never
stands with half of the old and half of the new. Deploying twice changes nothing: slugs keep schedules the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.pools import POOL, QUEUES, PoolKind, code_folder, ensure_pool, pool_name
from flows.commands.screen import AsList, ListFormat, out, say, settings_in_force

if TYPE_CHECKING:
    from configs.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
_TRACING = "flows.commands.tracing.begin"  # by name: Prefect imports it in the run's own process
DEPLOYMENTS = ROOT / "configs" / "prefect.yaml"


@dataclass(frozen=True)
class Deployment:
    """One entry of the file: its name, and the keyword arguments with which the server is told of it."""

    name: str
    entrypoint: str
    queue: str
    described: Mapping[str, Any]


def deploy(
    file: Annotated[
        Path | None, typer.Option("--file", exists=True, dir_okay=False, help="Default: configs/prefect.yaml.")
    ] = None,
    pool: Annotated[PoolKind, typer.Option("--pool", help="Where runs are started; see docs/scaling.md.")] = (
        PoolKind.process
    ),
    form: AsList = ListFormat.table,
) -> None:
    """Put the deployments of configs/prefect.yaml into force: schedules, forms, queues. All of them, or none."""
    from tasks.reports.terminal import print_table
    from tasks.stack import ensure_database, ensure_prefect

    settings = settings_in_force()
    ensure_database(settings, say)
    ensure_prefect(settings, say)
    made = put_into_force(settings, file or DEPLOYMENTS, pool)
    rows = [{"deployment": d.name, "queue": d.queue, "schedules": schedules_text(d)} for d in made]
    if form is ListFormat.json:
        import json

        out().file.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return
    print_table(out(), ["deployment", "queue", "when"], [list(row.values()) for row in rows], [False] * 3)


def schedules_text(deployment: Deployment) -> str:
    """When the deployment runs by itself, as cron expressions with their zone; a dash where only people start it."""
    found = [f"{s.schedule.cron} ({s.schedule.timezone})" for s in deployment.described["schedules"]]
    return ", ".join(found) or "–"


def put_into_force(settings: Settings, file: Path = DEPLOYMENTS, kind: PoolKind = PoolKind.process) -> list[Deployment]:
    """Tell the server that ``PREFECT_API_URL`` names of every deployment in the file, of its pool and of the
    automations; returns the deployments.

    A deployment of our pool that the file no longer has is removed, with its schedules.

    Raises:
        BadInput: an entry is wrong or its flow cannot be imported; every one is named and nothing was changed.
    """
    import asyncio

    deployments = read_deployments(settings, file, kind)
    asyncio.run(_apply(deployments, kind))
    return deployments


# --- reading ----------------------------------------------------------------------------------------------------------


def read_deployments(
    settings: Settings, file: Path = DEPLOYMENTS, kind: PoolKind = PoolKind.process
) -> list[Deployment]:
    """The deployments of the file, each checked against the flow that it names; needs no server."""
    import yaml
    from prefect.utilities.templating import apply_values

    from tasks.errors import BadInput

    os.environ["KONTOR_PROJECT_ROOT"] = code_folder(kind)
    os.environ["KONTOR_BUSINESS_TIMEZONE"] = settings.business_timezone
    document = apply_values(yaml.safe_load(file.read_text("utf-8")), {})
    wrong: list[str] = []
    pull = [*document["pull"], *([{_TRACING: {}}] if settings.traces_url else [])]
    made = [_checked(entry, pull, kind, wrong) for entry in document["deployments"]]
    if wrong:
        raise BadInput(
            f"{file.name} cannot be put into force; nothing was changed."
            + "".join(f"\n  - {reason}" for reason in wrong),
            hint="Correct these entries or the flows they name; then `kontor deploy` again.",
        )
    return [deployment for deployment in made if deployment is not None]


def _checked(entry: Mapping[str, Any], pull: Sequence[Any], kind: PoolKind, wrong: list[str]) -> Deployment | None:
    from prefect.exceptions import PrefectException

    try:
        flow = _flow_at(str(entry["entrypoint"]))
        for given in _ways_it_starts_by_itself(entry):
            flow.validate_parameters(given)
        return _described(entry, flow, pull, kind)
    except (ImportError, SyntaxError, AttributeError, KeyError, NameError, TypeError, ValueError) as error:
        wrong.append(f"{entry.get('name')}: {type(error).__name__}: {error}")
    except PrefectException as error:
        wrong.append(f"{entry.get('name')}: its parameters do not fit its flow: {error}")
    return None


def _ways_it_starts_by_itself(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters of every schedule, and those of the entry; a flow that people start may want more than that."""
    own = entry.get("parameters") or {}
    scheduled = [{**own, **(item.get("parameters") or {})} for item in entry.get("schedules", [])]
    return scheduled or ([own] if own else [])


def _flow_at(entrypoint: str) -> Any:
    """The flow object that an entry point such as ``flows/payment_sync.py:payment_sync`` names."""
    import importlib

    path, _, attribute = entrypoint.partition(":")
    module = path.removesuffix(".py").replace("/", ".")
    flow = getattr(importlib.import_module(module), attribute)
    if not (ROOT / path).is_file():
        raise ImportError(f"{path} is no file")
    return flow


def _described(entry: Mapping[str, Any], flow: Any, pull: Sequence[Any], kind: PoolKind) -> Deployment:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule

    limit, pool = entry.get("concurrency_limit"), entry["work_pool"]
    if pool["name"] != POOL or pool["work_queue_name"] not in QUEUES:
        raise ValueError(f"work_pool {pool} is not {POOL} with one of the queues {', '.join(QUEUES)}")
    schedules = [
        DeploymentScheduleCreate(
            schedule=CronSchedule(cron=item["cron"], timezone=item["timezone"]),
            slug=item["slug"],
            active=item.get("active", True),
            parameters=item.get("parameters") or {},
        )
        for item in entry.get("schedules", [])
    ]
    described = {
        "name": entry["name"],
        "description": entry["description"],
        "tags": [*entry.get("tags", []), POOL],
        "entrypoint": entry["entrypoint"],
        "parameters": entry.get("parameters") or {},
        "parameter_openapi_schema": _in_order(flow.parameters.model_dump(exclude_unset=True)),
        "enforce_parameter_schema": True,
        "work_pool_name": pool_name(kind),
        "work_queue_name": pool["work_queue_name"],
        "pull_steps": list(pull),
        "schedules": schedules,
        "concurrency_limit": limit["limit"] if limit else None,
        "concurrency_options": ConcurrencyOptions(collision_strategy=limit["collision_strategy"]) if limit else None,
    }
    return Deployment(entry["name"], entry["entrypoint"], pool["work_queue_name"], described)


def _in_order(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with every field's place in its model: the server keeps JSON sorted by the length of its keys."""
    for definition in schema.get("definitions", {}).values():
        for place, field in enumerate(definition.get("properties", {}).values()):
            field["position"] = place
    return schema


# --- telling the server -----------------------------------------------------------------------------------------------


async def _apply(deployments: Sequence[Deployment], kind: PoolKind) -> None:
    from prefect.client.orchestration import get_client

    from flows.commands.automations import ensure_automations, followed_flows

    followers = []
    async with get_client() as client:
        await ensure_pool(client, kind)
        for deployment in deployments:
            flow_id = await client.create_flow_from_name(deployment.name)
            made = await client.create_deployment(flow_id=flow_id, **deployment.described)
            after = followed_flows(deployment.described["tags"])
            followers += [(flow, deployment.name, made) for flow in after]
        await _remove_others(client, {deployment.name for deployment in deployments})
        await ensure_automations(client, followers)


async def _remove_others(client: Any, kept: set[str]) -> None:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.client.schemas.sorting import DeploymentSort

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[POOL]))
    # Every option is given: the server takes no null for those that are left out.
    for standing in await client.read_deployments(
        deployment_filter=ours, sort=DeploymentSort.NAME_ASC, limit=200, offset=0
    ):
        if standing.name not in kept:
            await client.delete_deployment(standing.id)
