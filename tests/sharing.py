"""Who does what among the workers of a test session: which files go together to one, and what comes first.

Two workers share the files. What takes a quarter of a minute to come up (the stage's servers, the demo, a heavy
library) is wanted once a session and not once a worker, so the files that stand on the same go to the same worker.
"""

from __future__ import annotations

import functools
from typing import Any

from configs.settings import PROJECT_ROOT

TOGETHER = {
    "tests/end_to_end/test_cli.py": "demo",
    "tests/end_to_end/test_tutorial.py": "demo",
    "tests/database/test_quality.py": "stage",  # as its runs there do, they load Great Expectations
    "tests/database/test_quality_engines.py": "stage",
    "tests/database/test_duplicates.py": "matching",
    "tests/unit/test_matching.py": "matching",
}
# What takes longest, so that no worker begins one of them when the other has nothing left to do. After them come
# the folders whose tests wait for other processes, and last those that only compute.
LONGEST = (
    "stage",
    "demo",
    "tests/fault/test_local_stack_faults.py",
    "tests/end_to_end/test_up.py",
    "tests/end_to_end/test_prefect_server.py",
    "tests/database/test_any_order.py",
    "tests/database/test_corrections.py",
    "tests/database/test_guards.py",
)
FIRST_FOLDERS = ("end_to_end", "fault", "database")
_STANDS_ON_THE_STAGE = "from tests.stage import Stage"


@functools.cache
def group_of(file: str) -> str:
    """The files that go to one worker with this one, by a name; its own path where it goes by itself."""
    path = PROJECT_ROOT / file
    if path.is_file() and _STANDS_ON_THE_STAGE in path.read_text("utf-8"):
        return "stage"
    return TOGETHER.get(file, file)


def place_of(file: str) -> int:
    """Where a file's tests come in the order of a session."""
    group, folder = group_of(file), file.split("/")[1]
    if group in LONGEST:
        return LONGEST.index(group)
    return len(LONGEST) + (FIRST_FOLDERS.index(folder) if folder in FIRST_FOLDERS else len(FIRST_FOLDERS))


def scheduler(config: Any, log: Any) -> Any:
    """xdist's scheduler by files, but for those that go together; its marks for groups are lost on pytest 9."""
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class _Together(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.split("::")[0])

    return _Together(config, log)
