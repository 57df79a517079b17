"""configs/prefect.yaml deploys every flow, each as its flow can be run, and a flow that is broken stops the deploy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.settings import PROJECT_ROOT, Settings
from flows.commands.catching_up import rule_of
from flows.commands.deploying import DEPLOYMENTS, QUEUES, read_deployments
from flows.commands.running import known_flows
from tasks.errors import BadInput


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
        for item in described["schedules"]:
            assert item.schedule.timezone == "Europe/Oslo"
            assert any(tag.startswith("catchup:") for tag in tags), deployment.name
            assert rule_of(tags).rule in ("skip", "latest", "all")


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
