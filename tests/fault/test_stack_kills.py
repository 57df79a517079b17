"""The real stack with two workers, whose parts are killed in turn during a cycle and a backfill of a year."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from configs.settings import PROJECT_ROOT, Settings
from tasks.prefect_server import expected_prefect, find_prefect, prefect_environment
from tasks.standing import find_supervisor
from tests.end_to_end.test_up import _ask, _companions, _run, _until, home
from tests.fault.test_kills import kill_server
from tests.ledgers import Books
from tests.stage import Stage

__all__ = ["home"]
pytestmark = pytest.mark.campaign

TOLD = {"KONTOR_ENGINEER_EMAILS": "ops@example.org", "KONTOR_MAIL_FROM": "kontor@example.org"}
YEAR = {"flow": "payment_sync", "from_day": "2012-01-02", "to_day": "2012-12-31", "because": "an audit", "live": True}
TURNS = ("first worker", "server", "database", "second worker", "server", "database")
LONGEST = 1_200.0
SECOND = ("--no-prompt", "worker", "start", "--pool", "kontor", "--type", "process", "--limit", "3")


def _archive(home: Path, files: list[Path]) -> None:
    """Put the files where a backfill looks, named as Kontor names what it has taken in."""
    folder = home / "archive" / "open_items"
    folder.mkdir(parents=True)
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        shutil.copy(path, folder / f"{path.stem.removeprefix('open_items_')}_{digest}_{path.name}")


@contextmanager
def _second_worker(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another worker of the same pool, as a second machine would have it, for a ``with`` block."""
    server = expected_prefect(home)
    assert server is not None
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "KONTOR_"))}
    more = {"KONTOR_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT), "PREFECT_WORKER_QUERY_SECONDS": "2", **TOLD}
    with (home / "logs" / "second.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", *SECOND],
            cwd=PROJECT_ROOT,
            env={**own, **prefect_environment(server, home), **more},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield worker
        finally:
            _kill_family(worker.pid)
            worker.wait(20)


def _kill_family(pid: int) -> None:
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _kill(who: str, home: Path, second: subprocess.Popen[bytes]) -> None:
    """SIGKILL: a worker with the runs it has started, Prefect's server, or the database with all its processes."""
    if who == "first worker":
        supervisor = find_supervisor(home)
        assert supervisor is not None
        _kill_family(_companions(supervisor)["worker"])
    elif who == "second worker":
        _kill_family(second.pid)
    elif who == "server":
        server = expected_prefect(home)
        if server is not None:
            os.killpg(server.pid, signal.SIGKILL)
    else:
        kill_server(Settings(home=home))


def _windows(books: Books) -> dict[str, int]:
    rows = books.read("select state, count(*) from ops.backfill_windows group by state")
    return {row["state"]: row["count"] for row in rows}


def _start(home: Path, name: str, **parameters: object) -> None:
    [found] = [d for d in _ask(home, "deployments/filter") if d["name"] == name]
    _ask(
        home, f"deployments/{found['id']}/create_flow_run", parameters={"parameters": parameters} if parameters else {}
    )


def _watch_until_done(home: Path, books: Books) -> None:
    """Look at the runs as the clock would, only more often, until the backfill has ended."""
    deadline = time.monotonic() + LONGEST
    while books.read("select state from ops.backfills") != [{"state": "done"}]:
        assert time.monotonic() < deadline, (_windows(books), books.read("select flow, state from report.runs"))
        _run(home, "run", "run_watch", **TOLD)
        time.sleep(5)


def test_a_year_and_a_cycle_with_two_workers_survive_the_death_of_every_part(
    home: Path, empty_stage: Stage, real_data: Path
) -> None:
    """Workers, server and database killed in turn: the year ends as its imports one by one, and nothing is stuck."""
    receivables, known = real_data / "receivables", Books(empty_stage.settings)
    weeks = sorted((receivables / "weekly-2012").glob("*.xlsx"))
    known.take_in(receivables / "customers.xlsx", "organizations", date(2012, 1, 1))
    for path in weeks:
        known.take_in(path, "open_items")
    known.classify()

    assert _run(home, "up", "--detach", **TOLD).returncode == 0
    customers = str(receivables / "customers.xlsx")
    taken = _run(home, "import", customers, "--contract", "organizations", "--as-of", "2012-01-01")
    assert taken.returncode == 0, taken.stderr
    _archive(home, weeks)
    books, chance = Books(Settings(home=home)), random.Random("every part")
    with _second_worker(home) as second:
        _start(home, "backfill", **YEAR)
        for deployment in _ask(home, "deployments/filter"):
            if deployment["schedules"]:
                _start(home, deployment["name"])
        _until("the first windows", lambda: _windows(books).get("done", 0) >= 3, 240)
        for who in TURNS:
            _kill(who, home, second)
            time.sleep(chance.uniform(5, 15))
        _until("the servers", lambda: find_prefect(home) is not None)
        _watch_until_done(home, books)
        _until("the end of every run", lambda: not _under_way(home, books), 600)

    assert books.state() == known.state()
    assert _windows(books) == {"done": len(weeks)}
    assert books.read("select count(*) from outbox.reminders") == [{"count": 0}]
    assert books.read("select count(*) > 0 as spoke from ops.alerts where told_at is not null") == [{"spoke": True}]
    assert list((home / "outbox").rglob("*.eml"))


def _under_way(home: Path, books: Books) -> list[str]:
    """What stands as running, in our ledger or in Prefect; the watcher's own look is not asked about."""
    _run(home, "run", "run_watch", **TOLD)
    rows = books.read("select flow from report.runs where state = 'running' and flow <> 'run_watch'")
    busy = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}
    theirs = [run["name"] for run in _ask(home, "flow_runs/filter", limit=50, **busy)]
    return [row["flow"] for row in rows] + [name for name in theirs if "run_watch" not in name]


def test_what_came_in_starts_what_follows_and_a_cancelled_backfill_is_over(home: Path, real_data: Path) -> None:
    """Files taken in start data_quality by an event; a backfill cancelled in Prefect is cancelled and stays so."""
    receivables, books = real_data / "receivables", Books(Settings(home=home))
    assert _run(home, "up", "--detach", **TOLD).returncode == 0
    shutil.copy(receivables / "customers.xlsx", home / "inbox" / "organizations_2012-01-01.xlsx")
    _until("the checks that follow", lambda: _states(books, "data_quality"), 240)
    assert _states(books, "customer_import")[0] == "done"

    _archive(home, sorted((receivables / "weekly-2012").glob("*.xlsx")))
    _start(home, "backfill", **YEAR)
    _until("the first window", lambda: _windows(books).get("done", 0) >= 1, 240)
    [run] = [row["id"] for row in books.read(_DRIVER)]
    _ask(home, f"flow_runs/{run}/set_state", state={"type": "CANCELLING"}, force=False)
    _until("the end of the backfill", lambda: books.read("select state from ops.backfills") == [{"state": "cancelled"}])
    assert _windows(books).get("running", 0) == 0
    for _ in range(2):
        _run(home, "run", "run_watch", **TOLD)
    assert _states(books, "backfill") == ["failed"]
    assert books.read("select state from ops.backfills") == [{"state": "cancelled"}]


_DRIVER = "select prefect_run_id::text as id from ops.run_ledger where flow = 'backfill'"


def _states(books: Books, flow: str) -> list[str]:
    rows = books.read("select state from ops.run_ledger where flow = :flow order by run_id", flow=flow)
    return [row["state"] for row in rows]
