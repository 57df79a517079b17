"""A scheduler of Dask's with two workers, threads of this process: it starts at once and is reached by its address."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def a_cluster(workers: int = 2) -> Iterator[str]:
    """The address of a scheduler on loopback for a ``with`` block."""
    from distributed import LocalCluster

    options: dict[str, Any] = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "processes": False,
        "protocol": "tcp://",
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "memory_limit": 0,
    }
    with LocalCluster(**options) as cluster:  # type: ignore[no-untyped-call]
        yield str(cluster.scheduler_address)


def die(*_anything: object) -> None:
    """End the process without a word, as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
