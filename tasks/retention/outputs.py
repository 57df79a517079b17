"""What Kontor writes beside its database and lets go of again: files under KONTOR_HOME.

Rules speak of them as of tables (``files.held_mail``). The clock of a file is the day on which it was written, in the
business time zone. Prefect's record of runs is let go of by Prefect's own server (tasks/prefect_server.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

# Below KONTOR_HOME; of two folders that lie in each other a file belongs to the inner one.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "files.held_mail": ("outbox/held",),
    "files.returned_mail": ("bounces",),
    "files.reports": ("reports",),
    "files.data_docs": ("reports/data_quality",),
    "files.exports": ("outputs",),
    "files.archive": ("archive",),
    "files.logs": ("logs",),
}

# The one column and the clock that rules may name.
CONTENTS = "contents"
CLOCKS: Mapping[str, str] = dict.fromkeys(FOLDERS, "written")


def is_output(entity: str) -> bool:
    """Whether a rule speaks of an output and not of a table."""
    return entity in CLOCKS


def files_of(home: Path, entity: str) -> Iterator[Path]:
    """The files of one output, in order; links are left out, and what lies outside KONTOR_HOME through one."""
    root = home.resolve()
    inner = [home / folder for name, folders in FOLDERS.items() if name != entity for folder in folders]
    for folder in (home / name for name in FOLDERS[entity]):
        others = [other for other in inner if other.is_relative_to(folder)]
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or any(path.is_relative_to(other) for other in others):
                continue
            if path.resolve().is_relative_to(root):
                yield path
