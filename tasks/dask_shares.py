"""Shares that workers of Dask take, reached or started by Prefect's Dask runner.

The runner brings the cluster, its client and its end. A share goes there as a plain function and not as a task of
Prefect's: it is part of a step that stands in a snapshot or under locks, its worker needs no way to Prefect's server,
and nothing of its arguments or result comes near Prefect's records. Workers have Kontor installed, of the same version.

A cluster of one's own (``local``) speaks TLS with keys made for it, because whoever may speak to a scheduler may run
code: it listens on loopback, shows no pages, and keeps what it holds in memory. What a worker does ends with its
process; a share on a standing cluster goes on when the run is killed, and finds the ledger's row closed (sending) or
its snapshot gone (deciding).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar, cast

from tasks.errors import DependencyDown, KontorError, UsageError
from tasks.steps import guarded

P = ParamSpec("P")
R = TypeVar("R")

_ANSWER_SECONDS = 10  # for a scheduler to answer, and for its first worker to be there
_LOOK_EVERY_SECONDS = 5.0  # whether any worker is left
_KEYS = ("ca-file", "client.cert", "client.key")
_QUIET = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.nanny.http.routes": [],
    "logging.distributed": "error",
    "distributed.scheduler.allowed-failures": 0,  # a share whose worker died is told of, not tried again elsewhere
}


@contextmanager
def reach_dask(address: str, workers: int) -> Iterator[DaskHelpers]:
    """Who takes shares during a ``with`` block: workers of the scheduler at ``address``, or so many started for it.

    Raises:
        UsageError: the packages are not installed, or TLS has no certificates.
        DependencyDown: no scheduler answers there, or it has no worker.
    """
    prefect_dask, distributed, dask = _packages()
    if address.startswith("tls:"):
        _require_keys(dask)
    # They tell of every connection, and of pages that are not there.
    for name in ("distributed", "distributed.scheduler", "prefect.task_runner.dask"):
        logging.getLogger(name).setLevel(logging.ERROR)
    local = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "security": True,
        "dashboard_address": "127.0.0.1:0",
        "memory_limit": 0,  # none: beyond one a worker would write what it holds to disk
        "silence_logs": logging.ERROR,
    }
    chosen = {"cluster_class": distributed.LocalCluster, "cluster_kwargs": local} if address == "local" else {}
    where = chosen or {"address": address, "client_kwargs": {"timeout": _ANSWER_SECONDS}}
    with dask.config.set(_QUIET), prefect_dask.DaskTaskRunner(**where) as runner:
        try:
            client = runner.client  # made or reached when first asked for
            client.wait_for_workers(1, timeout=_ANSWER_SECONDS)
        except OSError as error:  # a time-out is one
            raise DependencyDown(
                f"Dask's scheduler at {address} does not answer or has no worker ({type(error).__name__});"
                " nothing was shared out.",
                hint="Start `dask scheduler` and `dask worker` there, or unset KONTOR_DASK: processes do the same.",
            ) from None
        yield DaskHelpers(client)


def _require_keys(dask: ModuleType) -> None:
    if not all(dask.config.get(f"distributed.comm.tls.{name}", None) for name in _KEYS):
        raise UsageError(
            "KONTOR_DASK asks for TLS, but Dask's configuration does not name authority, certificate and key.",
            hint="Set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT and …__CLIENT__KEY to files (PEM).",
        )


def _packages() -> tuple[ModuleType, ModuleType, ModuleType]:
    try:
        prefect_dask, distributed, dask = map(import_module, ("prefect_dask", "distributed", "dask"))
    except ModuleNotFoundError as error:
        raise UsageError(
            f"KONTOR_DASK is set, but the package {error.name} is not installed: nothing would be shared out.",
            hint="Install Kontor with its extra `dask`, or unset KONTOR_DASK: KONTOR_PROCESSES does the same here.",
        ) from None
    return prefect_dask, distributed, dask


@dataclass(frozen=True)
class DaskHelpers:
    """The workers of one cluster, as a client sees them."""

    client: Any

    def start(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> DaskShare[R]:
        """Begin the work at whichever worker is free."""
        return DaskShare(self.client, self.client.submit(do_share, work, args, kwargs, pure=False))


def do_share(
    work: Callable[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[R | None, KontorError | None]:
    """What a worker does: the work's result, or its error without data, which Dask would otherwise log as it is."""
    try:
        return guarded(work)(*args, **kwargs), None
    except KontorError as error:
        return None, error


@dataclass(frozen=True)
class DaskShare(Generic[R]):
    """Work under way at a worker."""

    client: Any
    future: Any

    def result(self) -> R:
        """Wait for its end and return what it returned.

        Raises:
            DependencyDown: its worker or the scheduler went before it could say how it ended.
            UsageError: worker or scheduler know nothing of Kontor, or have another version.
            KontorError: as the work raised it, without data of the database's.
        """
        distributed = import_module("distributed")
        try:
            result, failure = self._wait()
        except (distributed.scheduler.KilledWorker, distributed.client.CancelledError, asyncio.CancelledError, OSError):
            self.give_up()  # nor is it begun anew when a worker comes back
            raise DependencyDown(
                "A worker of Dask's that did a share of the work went away before it was done.",
                hint="What it had committed stands. See the worker's log for its last words, then run the flow again.",
            ) from None
        except (ImportError, RuntimeError) as error:  # what Dask says when a function cannot be made there again
            raise UsageError(
                f"Dask's scheduler or a worker of it can make nothing of Kontor's work ({type(error).__name__}).",
                hint="Start both where this version of Kontor is installed with its extra `dask`.",
            ) from None
        if failure is not None:
            raise failure
        return cast(R, result)

    def _wait(self) -> tuple[R | None, KontorError | None]:
        """As long as there is a worker: a scheduler without one would wait for the next for ever."""
        while self.client.nthreads():
            with suppress(TimeoutError):
                return cast(tuple[R | None, KontorError | None], self.future.result(timeout=_LOOK_EVERY_SECONDS))
        raise ConnectionError

    def give_up(self) -> None:
        """Let it not begin any more; what runs is not awaited."""
        self.future.cancel()
