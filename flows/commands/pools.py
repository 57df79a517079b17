"""Where runs are started: in processes, in containers or in a cluster, each a work pool with its job template.

A template in ``configs/work_pools`` is Prefect's own format: what a job looks like, and which parts of it may be set in
the pool's page. Secrets are in none of them: a run finds its settings in a mounted file or a secret of the cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "configs" / "work_pools"
POOL = "kontor"
IN_IMAGE = "/home/kontor/app"  # where configs/service/Containerfile puts the code

# The first queue is served first. A backfill never takes more than one of the worker's places.
QUEUES: Mapping[str, tuple[int, int | None]] = {"live": (1, None), "mail": (2, 1), "backfill": (3, 1)}


class PoolKind(StrEnum):
    """What a run is started as."""

    process = "process"
    docker = "docker"
    kubernetes = "kubernetes"


def pool_name(kind: PoolKind) -> str:
    """The pool's name: one of each kind, because Prefect changes the kind of no pool that exists."""
    return POOL if kind is PoolKind.process else f"{POOL}-{kind}"


def code_folder(kind: PoolKind) -> str:
    """Where a run of this pool finds the code."""
    return str(ROOT) if kind is PoolKind.process else IN_IMAGE


def job_template(kind: PoolKind) -> dict[str, Any]:
    """The base job template that is shipped for this kind of pool."""
    template: dict[str, Any] = json.loads((TEMPLATES / f"{kind}.json").read_text("utf-8"))
    return template


async def ensure_pool(client: Any, kind: PoolKind) -> None:
    """Make the pool of this kind with its queues, or set an existing one to what is shipped."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    pool = pool_name(kind)
    made = WorkPoolCreate(name=pool, type=str(kind), base_job_template=job_template(kind))
    await client.create_work_pool(made, overwrite=True)
    for name, (priority, limit) in QUEUES.items():
        try:
            await client.create_work_queue(name=name, priority=priority, concurrency_limit=limit, work_pool_name=pool)
        except ObjectAlreadyExists:
            queue = await client.read_work_queue_by_name(name, work_pool_name=pool)
            await client.update_work_queue(queue.id, priority=priority, concurrency_limit=limit)
