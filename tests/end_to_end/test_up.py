"""`kontor up`: everything stands, a file that arrives is taken in, what is killed stands again, and all of it goes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text

from configs.settings import PROJECT_ROOT, Settings
from tasks import database
from tasks.local_stack import remove_postgres
from tasks.standing import find_supervisor
from tests.ledgers import item, write_csv

KONTOR = [sys.executable, "-m", "flows.cli"]


def _run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "KONTOR_"))}
    environment = {**inherited, "KONTOR_HOME": str(home), "NO_COLOR": "1"}
    return subprocess.run(
        [*KONTOR, *arguments],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _until(what: str, holds: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen in {seconds:.0f} s")
        time.sleep(0.2)


def _companions(supervisor: int) -> dict[str, int]:
    """Process numbers of the worker and the watcher of a supervisor."""
    found = {}
    for child in psutil.Process(supervisor).children():
        try:
            words = child.cmdline()
        except psutil.Error:  # it is just going
            continue
        if "worker" in words:
            found["worker"] = child.pid
        elif "flows.commands.watching" in words:
            found["inbox"] = child.pid
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own with a short path, taken down at the end."""
    folder = Path(tempfile.mkdtemp(prefix="kontor-up-"))
    folder.chmod(0o755)
    yield folder
    _run(folder, "down")
    remove_postgres(folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_up_stands_whatever_is_killed(home: Path, tmp_path: Path) -> None:
    """A file is taken in seconds after it arrived; worker and supervisor killed outright stand again; down ends all."""
    came_up = _run(home, "up", "--detach")
    assert came_up.returncode == 0, came_up.stderr
    supervisor = find_supervisor(home)
    assert supervisor is not None

    path = write_csv(tmp_path / "open_items_2026-11-16.csv", [item("1001", "A-1", "10.00", _day("2026-12-01"))])
    shutil.copy(path, home / "inbox" / path.name)
    _until("the file's run", lambda: _files(home) == ["open_items_2026-11-16.csv"])
    _until("the file's way to the archive", lambda: not list((home / "inbox").iterdir()))

    worker = _companions(supervisor)["worker"]
    os.kill(worker, signal.SIGKILL)
    _until("another worker", lambda: _companions(supervisor).get("worker") not in (None, worker))

    again = _run(home, "up")
    assert again.returncode == 3
    assert "Kontor is up already" in again.stderr

    companions = _companions(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    _until("the end of the orphans", lambda: not any(_lives(pid) for pid in companions.values()))
    assert find_supervisor(home) is None
    assert _run(home, "up", "--detach").returncode == 0

    down = _run(home, "down")
    assert down.stdout.count("stopped") == 3, down.stdout
    assert find_supervisor(home) is None


def _day(text_: str) -> date:

    return date.fromisoformat(text_)


def _files(home: Path) -> list[str]:
    with database.engine_for(Settings(home=home), database.FLOWS).connect() as connection:
        return list(connection.scalars(text("select file_name from landing.feed_files where state <> 'refused'")))


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
