"""configs/prefect.yaml deploys every flow, each as its flow can be run, and a flow that is broken stops the deploy."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.workers.process import ProcessJobConfiguration

from configs.settings import PROJECT_ROOT, Settings
from flows.commands.automations import followed_flows
from flows.commands.catching_up import rule_of
from flows.commands.deploying import DEPLOYMENTS, read_deployments
from flows.commands.pools import IN_IMAGE, QUEUES, PoolKind, job_template, pool_name
from flows.commands.running import known_flows
from tasks.errors import BadInput
from tasks.watch.schedules import time_limits


def _entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(DEPLOYMENTS.read_text("utf-8"))["deployments"]
    return found


def test_every_flow_has_a_deployment_of_its_name() -> None:
    """File, flow, deployment and runbook share one name; nothing is deployed that is no flow."""
    names = [entry["name"] for entry in _entries()]
    assert len(names) >= 4
    assert sorted(names) == known_flows()
    for entry in _entries():
        assert entry["entrypoint"] == f"flows/{entry['name']}.py:{entry['name']}"
        assert f"docs/runbooks/{entry['name']}.md" in entry["description"]
        assert (PROJECT_ROOT / "docs" / "runbooks" / f"{entry['name']}.md").is_file()


def test_every_deployment_fits_its_flow() -> None:
    """Schedules' parameters pass the flow's own checks; form, queue, zone and tags are there."""
    deployments = read_deployments(Settings(business_timezone="Europe/Oslo"))
    assert len(deployments) == len(_entries())
    slugs = [s.slug for d in deployments for s in d.described["schedules"]]
    assert len(slugs) == len(set(slugs))
    assert all(re.fullmatch(r"[a-z0-9-]+", slug) for slug in slugs)
    for deployment in deployments:
        described = deployment.described
        assert deployment.queue in QUEUES
        assert described["parameter_openapi_schema"]["properties"], deployment.name
        assert described["concurrency_limit"] == 1
        tags = described["tags"]
        assert any(tag.startswith("owner:") for tag in tags), deployment.name
        assert any(re.fullmatch("tier:[123]", tag) for tag in tags), deployment.name
        assert set(followed_flows(tags)) <= {other.name for other in deployments} - {deployment.name}
        for item in described["schedules"]:
            assert item.schedule.timezone == "Europe/Oslo"
            assert any(tag.startswith("catchup:") for tag in tags), deployment.name
            assert rule_of(tags).rule in ("skip", "latest", "all")


def test_every_deployment_says_how_long_a_run_may_last() -> None:
    """The limit is a tag beside the others; a plan of minutes is not given days, and a backfill is not cut short."""
    limits = time_limits(DEPLOYMENTS.read_text("utf-8"))
    assert set(limits) == {entry["name"] for entry in _entries()}
    assert all(
        timedelta(minutes=10) <= limit <= timedelta(hours=12) for name, limit in limits.items() if name != "backfill"
    )
    assert limits["backfill"] > timedelta(days=1)
    assert time_limits("deployments: [{name: a, tags: ['limit:90m']}, {name: b, tags: ['limit:soon']}]") == {
        "a": timedelta(minutes=90)
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"entrypoint": "flows/no_such_flow.py:no_such_flow"}, "ModuleNotFoundError"),
        ({"parameters": {"parameters": {"dry_run": "perhaps"}}}, "do not fit its flow"),
        ({"work_pool": {"name": "kontor", "work_queue_name": "lively"}}, "queues live, mail, backfill"),
    ],
)
def test_a_wrong_entry_is_named_and_nothing_is_deployed(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A flow that cannot be imported, parameters it does not take, a queue that is none: before any server is asked."""
    document = yaml.safe_load(DEPLOYMENTS.read_text("utf-8"))
    document["deployments"][1] |= change
    document["deployments"][1].pop("schedules", None) if "parameters" in change else None
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(BadInput, match="nothing was changed") as refused:
        read_deployments(Settings(), file)
    assert said in refused.value.message
    assert document["deployments"][1]["name"] in refused.value.message


def test_forms_show_fields_in_the_order_of_their_model() -> None:
    """The form of a backfill begins with flow and period; every field of every form says its place."""
    forms = {d.name: d.described["parameter_openapi_schema"]["definitions"] for d in read_deployments(Settings())}
    asked = forms["backfill"]["BackfillParameters"]["properties"]
    first = sorted(asked, key=lambda name: int(asked[name]["position"]))[:3]
    assert first == ["flow", "from_day", "to_day"]
    fields = [
        field for form in forms.values() for model in form.values() for field in model.get("properties", {}).values()
    ]
    assert len(fields) > 40
    assert all("position" in field for field in fields)


class _DockerJob(ProcessJobConfiguration):
    """What Prefect's worker for containers reads of a job; its package is not needed to fill the template in."""

    image: str
    image_pull_policy: str
    networks: list[str]
    auto_remove: bool
    volumes: list[str]
    mem_limit: str
    privileged: bool


class _KubernetesJob(ProcessJobConfiguration):
    """What Prefect's worker for clusters reads of a job."""

    namespace: str
    job_manifest: dict[str, Any]


def _filled(configuration: Any, kind: PoolKind, **values: object) -> Any:
    """The job that Prefect makes of a template and a deployment's values; no server is asked."""
    run = {"name": "kontor-run", "command": "prefect flow-run execute"}
    return asyncio.run(configuration.from_template_and_values(job_template(kind), run | values, client=object()))


@pytest.mark.parametrize(
    ("kind", "configuration"),
    [
        (PoolKind.process, ProcessJobConfiguration),
        (PoolKind.docker, _DockerJob),
        (PoolKind.kubernetes, _KubernetesJob),
    ],
)
def test_job_templates_are_filled_in_by_prefect(kind: PoolKind, configuration: type[ProcessJobConfiguration]) -> None:
    """Prefect accepts each template, fills it with the pool's own values and a deployment's, and leaves no gap."""
    template = job_template(kind)
    WorkPoolCreate(name=pool_name(kind), type=str(kind), base_job_template=template)
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    made = _filled(configuration, kind, env={"KONTOR_HOME": "/home/kontor/data"})
    said = made.model_dump_json()
    assert "{{" not in said
    assert made.env == {"KONTOR_HOME": "/home/kontor/data"}
    assert "password" not in said.lower()


def test_a_cluster_job_runs_the_image_with_its_home_and_settings() -> None:
    """The manifest names image, volume and secret, runs as nobody special, and is tried by nobody but Kontor again."""
    made = _filled(_KubernetesJob, PoolKind.kubernetes)
    job = made.job_manifest
    assert (job["apiVersion"], job["kind"], job["spec"]["backoffLimit"]) == ("batch/v1", "Job", 0)
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "kontor:latest"
    assert container["args"] == "prefect flow-run execute"
    assert container["envFrom"] == [{"secretRef": {"name": "kontor-settings"}}]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["restartPolicy"] == "Never"


def test_deployments_of_containers_find_the_code_in_the_image() -> None:
    """Deployed for containers, every run starts in the image's folder and in the pool of its kind."""
    for deployment in read_deployments(Settings(), kind=PoolKind.docker):
        assert deployment.described["work_pool_name"] == "kontor-docker"
        [pull] = deployment.described["pull_steps"]
        assert next(iter(pull.values())) == {"directory": IN_IMAGE}
    said = (PROJECT_ROOT / "configs" / "service" / "Containerfile").read_text("utf-8")
    assert f"WORKDIR {IN_IMAGE}" in said
    assert f"PATH={IN_IMAGE}/.venv/bin:" in said
