"""What the fault tests share: a database, Prefect's server beside it, and a nursery of processes to kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from configs.settings import Settings
from tasks.database import prefect_database_url
from tasks.prefect_server import prefect_environment, start_prefect, stop_prefect
from tests.fault_stage import Stage
from tests.nursery import nursery


@pytest.fixture(scope="session")
def stage(prepared: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stage of all fault tests of this run; Prefect's server takes seconds to come up."""
    server = start_prefect(prepared.home, database_url=prefect_database_url(prepared))
    environment = {**prefect_environment(server, prepared.home), "KONTOR_HOME": str(prepared.home)}
    try:
        with nursery(environment, tmp_path_factory.mktemp("nursery")) as processes:
            yield Stage(prepared, processes)
    finally:
        stop_prefect(prepared.home, timeout_seconds=10)


@pytest.fixture
def empty_stage(stage: Stage) -> Stage:
    """The stage without any file or row."""
    stage.clear()
    return stage
