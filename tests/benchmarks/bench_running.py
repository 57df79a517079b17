"""The whole stack on a free machine: how soon it works, what it costs idle, what a cycle with nothing to do costs.

Run with ``.venv/bin/python -m tests.benchmarks.bench_running``. A fresh home with one file in its inbox: the time from
`kontor up` to the first run's first word in the ledger; `kontor status`; the time from a file's arrival to its run;
memory (each process's proportional share) and processor of the idle stack; and every scheduled deployment once, one
after another as a worker takes them. Processor time of the cycle is that of the whole machine, so nothing else may run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from configs.settings import PROJECT_ROOT, Settings
from tasks import database
from tasks.errors import KontorError
from tasks.local_stack import remove_postgres
from tests.benchmarks.working import machine, show
from tests.end_to_end.test_up import _ask as ask
from tests.ledgers import item, write_csv

KONTOR = [sys.executable, "-m", "flows.cli"]
FIRST = datetime.now(UTC).date() - timedelta(weeks=4)  # no list may speak of a day to come
IDLE_SECONDS = 60.0
LONGEST = 300.0


def _environment(home: Path) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "KONTOR_"))}
    return {**inherited, "KONTOR_HOME": str(home), "NO_COLOR": "1"}


def _kontor(home: Path, *arguments: str) -> None:
    command, environment = [*KONTOR, *arguments], _environment(home)
    subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, check=True, timeout=LONGEST)


@contextmanager
def _standing(home: Path) -> Iterator[int]:
    """`kontor up` in a process of its own for a ``with`` block; its process number."""
    with (home / "up.txt").open("wb") as said:
        process = subprocess.Popen(
            [*KONTOR, "up"], cwd=PROJECT_ROOT, env=_environment(home), stdout=said, stderr=said, start_new_session=True
        )
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            _kontor(home, "down")
            remove_postgres(home)


def _until(holds: Callable[[], object], what: Callable[[], object] | str, pause: float = 0.05) -> float:
    """Seconds until it holds.

    Raises:
        SystemExit: it does not in five minutes; says what was waited for.
    """
    begun = time.perf_counter()
    while not holds():
        if time.perf_counter() - begun > LONGEST:
            raise SystemExit(f"not within five minutes: {what if isinstance(what, str) else what()}")
        time.sleep(pause)
    return time.perf_counter() - begun


def _runs(home: Path, flow: str = "payment_sync") -> list[str]:
    """The states of the flow's runs; none while there is no database yet."""
    try:
        with database.engine_for(Settings(home=home), database.FLOWS).connect() as connection:
            found = connection.scalars(text("select state from ops.run_ledger where flow = :flow"), {"flow": flow})
            return list(found)
    except (DBAPIError, KontorError):
        return []


def _drop(home: Path, week: int) -> None:
    day = FIRST + timedelta(weeks=week)
    path = write_csv(home / f"open_items_{day}.csv", [item("1001", f"A-{week}", "10.00", day + timedelta(days=14))])
    (home / "inbox").mkdir(exist_ok=True)
    shutil.move(path, home / "inbox" / path.name)


def _family(supervisor: int, home: Path) -> list[Any]:
    """Every process of the stack: supervisor, companions, servers and what they have started."""
    first = [psutil.Process(supervisor), *(p for p in psutil.process_iter() if str(home) in " ".join(_words(p)))]
    return list({p.pid: p for one in first for p in (one, *one.children(recursive=True))}.values())


def _words(process: Any) -> list[str]:
    try:
        return [process.name(), *process.cmdline()]
    except psutil.Error:
        return []


def _what(process: Any) -> str:
    said = " ".join(_words(process))
    names = {
        "uvicorn": "Prefect's server", "postgres": "PostgreSQL", "pg_receivewal": "receiver of the write-ahead log",
        "commands.receiving": "receiver of the write-ahead log", "commands.watching": "inbox watcher",
        "commands.returning": "reader of returned mails", "worker": "worker", "cell_host": "readers of files",
    }  # fmt: skip
    return next((name for mark, name in names.items() if mark in said), "supervisor")


def _used(processes: list[Any]) -> dict[str, list[float]]:
    """Megabytes and processor seconds so far, by what a process is."""
    found: dict[str, list[float]] = {}
    for process in processes:
        try:
            cpu, memory = process.cpu_times(), process.memory_full_info().pss / 1e6
        except psutil.Error:
            continue
        held = found.setdefault(_what(process), [0.0, 0.0])
        held[0] += memory
        held[1] += cpu.user + cpu.system
    return found


def _idle(supervisor: int, home: Path) -> list[tuple[object, ...]]:
    before = _used(_family(supervisor, home))
    time.sleep(IDLE_SECONDS)
    after = _used(_family(supervisor, home))
    rows: list[tuple[object, ...]] = [
        (name, f"{held[0]:.0f}", f"{100 * (held[1] - before.get(name, [0.0, held[1]])[1]) / IDLE_SECONDS:.1f}")
        for name, held in sorted(after.items(), key=lambda pair: -pair[1][0])
    ]
    return [*rows, ("together", f"{sum(held[0] for held in after.values()):.0f}", "")]


def _cycle(home: Path) -> list[tuple[object, ...]]:
    """Every scheduled deployment once with nothing to do; seconds by the ledger, and of the whole."""
    deployments = [d for d in ask(home, "deployments/filter") if d["schedules"]]
    before, begun, busy = _newest(home), time.perf_counter(), _busy()
    wanted = {ask(home, f"deployments/{d['id']}/create_flow_run")["id"] for d in deployments}
    over = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}
    asked = {"id": {"any_": list(wanted)}, "state": over}

    def states() -> dict[str, str]:
        """How each of the runs stands."""
        runs = ask(home, "flow_runs/filter", flow_runs={"id": {"any_": list(wanted)}})
        return {run["name"]: run["state_name"] for run in runs}

    _until(lambda: ask(home, "flow_runs/count", flow_runs=asked) == len(wanted), states, 0.5)
    took, used = time.perf_counter() - begun, _busy() - busy
    with database.engine_for(Settings(home=home), database.FLOWS).connect() as connection:
        rows: list[tuple[object, ...]] = [
            (row.flow, row.state, f"{row.seconds:.1f}")
            for row in connection.execute(
                text(
                    "select flow, state, extract(epoch from ended_at - started_at) as seconds from ops.run_ledger"
                    " where run_id > :before order by 3 desc"
                ),
                {"before": before},
            )
        ]
    return [*rows, ("all of it", f"{used:.0f} s of processor time", f"{took:.0f}")]


def _newest(home: Path) -> int:
    with database.engine_for(Settings(home=home), database.FLOWS).connect() as connection:
        return int(connection.scalar(text("select coalesce(max(run_id), 0) from ops.run_ledger")) or 0)


def _busy() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


def main() -> None:
    """Measure all of it once and print the tables."""
    home = Path(tempfile.mkdtemp(prefix="kontor-run-"))
    home.chmod(0o755)
    try:
        _drop(home, 0)
        begun = time.perf_counter()
        with _standing(home) as supervisor:
            _until((home / "up" / "ready").exists, "all stands")
            ready = time.perf_counter() - begun
            _until(lambda: _runs(home), "the first run's first word")
            first = time.perf_counter() - begun
            _until(lambda: _runs(home) == ["done"], "the first run's end")
            rows: list[tuple[object, ...]] = [("`kontor up` in a fresh home until all stands", f"{ready:.1f}")]
            rows.append(("until the first run's first word, of a file that lay there", f"{first:.1f}"))
            rows += _asked(home)
            show(f"How soon; {machine()}", ("what", "seconds"), rows)
            time.sleep(30)
            show(f"Idle; {machine()}", ("process", "MB", "hundredths of a processor"), _idle(supervisor, home))
            show(f"A cycle with nothing to do; {machine()}", ("flow", "state", "seconds"), _cycle(home))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _asked(home: Path) -> Iterator[tuple[object, ...]]:
    status = []
    for _ in range(5):
        begun = time.perf_counter()
        _kontor(home, "status")
        status.append(time.perf_counter() - begun)
    yield "`kontor status`, the command as a whole, best and worst of five", f"{min(status):.2f}, {max(status):.2f}"
    arrivals = []
    for week in (1, 2, 3):
        known = len(_runs(home))
        _drop(home, week)
        arrivals.append(_until(lambda known=known: len(_runs(home)) > known, "a run of the file"))  # type: ignore[misc]
        _until(lambda: set(_runs(home)) == {"done"}, "the end of the file's run")
    yield "a file in the inbox to its run's first word, each of three", ", ".join(f"{one:.1f}" for one in arrivals)


if __name__ == "__main__":
    main()
