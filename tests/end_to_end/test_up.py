"""`kontor up`: everything stands, a file that arrives is taken in, what is killed stands again, and all of it goes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text

from configs.settings import PROJECT_ROOT, Settings
from flows.commands.automations import HEARTBEAT_LOST
from tasks import database
from tasks.local_stack import remove_postgres
from tasks.prefect_server import expected_prefect
from tasks.standing import find_supervisor
from tests.ledgers import item, write_csv

KONTOR = [sys.executable, "-m", "flows.cli"]
FOLLOWED = ("payment_sync", "customer_import")


def _run(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "KONTOR_"))}
    environment = {**inherited, "KONTOR_HOME": str(home), "NO_COLOR": "1", **more}
    return subprocess.run(
        [*KONTOR, *arguments],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _until(what: str, holds: Callable[[], object], seconds: float = 180.0) -> None:
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


def test_up_takes_in_what_arrives_whatever_is_killed_and_goes(home: Path, tmp_path: Path) -> None:
    """A file is taken in seconds after it came; a killed worker stands again, a killed supervisor leaves no orphans."""
    came_up = _run(home, "up", "--detach")
    assert came_up.returncode == 0, came_up.stderr
    assert re.search(r"Prefect +http://127\.0\.0\.1:\d+", came_up.stdout)
    supervisor = find_supervisor(home)
    assert supervisor is not None

    automations = {automation["name"] for automation in _ask(home, "automations/filter")}
    assert automations == {HEARTBEAT_LOST, *(f"kontor: data_quality after {flow}" for flow in FOLLOWED)}
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    _until("the scheduler's plan", lambda: _ask(home, "flow_runs/count", **scheduled) >= 10)

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
    # A child that it was about to start keeps its lock for as long as that takes.
    _until("the end of its lock", lambda: find_supervisor(home) is None, 10)

    down = _run(home, "down")
    assert down.stdout.count("stopped") == 2, down.stdout


@pytest.mark.campaign
def test_what_was_killed_outright_stands_again_and_goes_when_told_to(home: Path) -> None:
    """Where the supervisor was killed `kontor up` finds the servers and puts the rest beside them; down ends all."""
    assert _run(home, "up", "--detach").returncode == 0
    supervisor = find_supervisor(home)
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    assert _run(home, "up", "--detach").returncode == 0

    down = _run(home, "down")
    assert down.stdout.count("stopped") == 3, down.stdout
    assert find_supervisor(home) is None


@pytest.mark.campaign
def test_what_a_killed_worker_leaves_is_closed_and_done_again(home: Path, tmp_path: Path) -> None:
    """Worker and run killed outright: Prefect's own rule closes the run, the watcher speaks, the work is done again."""
    tell = {"KONTOR_ENGINEER_EMAILS": "ops@example.org", "KONTOR_MAIL_FROM": "kontor@example.org"}
    assert _run(home, "up", "--detach").returncode == 0
    supervisor = find_supervisor(home)
    assert supervisor is not None
    path = write_csv(tmp_path / "open_items_2026-11-16.csv", [item("1001", "A-1", "10.00", _day("2026-12-01"))])
    with database.engine_for(Settings(home=home), database.OWNER).connect() as connection:
        connection.execute(text("lock table crm.invoices in access exclusive mode"))
        shutil.copy(path, home / "inbox" / path.name)
        _until("the file's run", lambda: _runs(home, "payment_sync"))
        _until("its heartbeat", lambda: _heartbeats(home, _runs(home, "payment_sync")[0][0]))
        worker = psutil.Process(_companions(supervisor)["worker"])
        for process in [worker, *worker.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        connection.rollback()
    [(run, _, _)] = _runs(home, "payment_sync")
    _until("the end of the zombie", lambda: _prefect_state(home, run) == "CRASHED", 240)

    watched = _run(home, "run", "run_watch", **tell)
    assert watched.returncode == 0, watched.stderr
    assert _runs(home, "payment_sync")[0][1] == "abandoned"
    assert len(list((home / "outbox").rglob("*.eml"))) == 1
    _until("the file's second run", lambda: _files(home) == ["open_items_2026-11-16.csv"])
    _until("its end", lambda: [state for _, state, _ in _runs(home, "payment_sync")] == ["abandoned", "done"])


_PAST_RUNS = """
insert into ops.run_ledger (flow, actor, as_of, dry_run, state, host, process_id, started_at, ended_at)
select flow, 'test', current_date, false, 'done', 'test', 1, at, at
from (select key as flow, now() - make_interval(days => value::int) as at
      from jsonb_each_text(cast(:before as jsonb))) planted
"""


@pytest.mark.campaign
def test_missed_runs_are_made_up_for_as_their_deployment_says(home: Path) -> None:
    """After days without anybody up: one run where the rule is the latest, none where it is to skip or never ran."""
    assert _run(home, "db", "upgrade").returncode == 0
    before = {"payment_sync": 6, "customer_import": 3, "privacy_report": 30, "restore_check": 20}
    with database.engine_for(Settings(home=home), database.OWNER).begin() as connection:
        connection.execute(text(_PAST_RUNS), {"before": json.dumps(before)})
    assert _run(home, "up", "--detach").returncode == 0
    made_up = _ask(home, "flow_runs/filter", flow_runs={"tags": {"all_": ["catch-up"]}}, limit=50)
    names = {run["flow_id"] for run in made_up}
    flows = {found["id"]: found["name"] for found in _ask(home, "flows/filter") if found["id"] in names}
    assert sorted(flows[run["flow_id"]] for run in made_up) == ["customer_import", "payment_sync", "privacy_report"]


def _runs(home: Path, flow: str) -> list[tuple[str, str, int]]:
    with database.engine_for(Settings(home=home), database.FLOWS).connect() as connection:
        rows = connection.execute(
            text("select prefect_run_id::text, state, run_id from ops.run_ledger where flow = :flow order by run_id"),
            {"flow": flow},
        )
        return [(row[0], row[1], row[2]) for row in rows]


def _ask(home: Path, path: str, **question: object) -> Any:
    server = expected_prefect(home)  # a busy machine's server may take longer to answer than find_prefect waits
    assert server is not None
    body, kind = json.dumps(question).encode(), {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{server.api_url}/{path}", data=body, headers=kind)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def _prefect_state(home: Path, run: str) -> str:
    [found] = _ask(home, "flow_runs/filter", flow_runs={"id": {"any_": [run]}})
    return str(found["state_type"])


def _heartbeats(home: Path, run: str) -> int:
    """How many heartbeats of a run have arrived; Prefect's rule sees those runs alone of which one has."""
    day = timedelta(days=1)
    wanted = {
        "occurred": {"since": (datetime.now(UTC) - day).isoformat(), "until": (datetime.now(UTC) + day).isoformat()},
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
    }
    return int(_ask(home, "events/filter", filter=wanted)["total"])


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
