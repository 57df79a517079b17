"""Where runs are started and killed: a prepared home, its servers, and a nursery of processes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from configs.settings import Settings
from tests.conftest import empty_database
from tests.nursery import Nursery


@dataclass(frozen=True)
class Stage:
    """A prepared home and the processes that work on it; ``processes`` reports to the Prefect server of that home."""

    settings: Settings
    processes: Nursery

    def clear(self) -> None:
        """Forget every file and every row, so that the next history begins anew."""
        empty_database(self.settings)
        for folder in (self.settings.inbox_path, self.settings.home / "archive"):
            shutil.rmtree(folder, ignore_errors=True)
