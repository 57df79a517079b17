"""A year of weekly ledgers by backfill, beside the same imports by a plain loop, with Prefect's engine in both.

Run with ``.venv/bin/python -m tests.benchmarks.bench_backfill [--weeks N] [--items N] [--rounds N]``. Each way runs in
a process of its own and begins with an empty database that knows the customers; the loop calls the flow
``payment_sync`` for one file after another, as a shell's loop over ``kontor import`` would if starting cost nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

from configs.settings import PROJECT_ROOT, Settings
from tasks.database import OWNER, engine_for, prefect_database_url
from tasks.prefect_server import prefect_environment, start_prefect, stop_prefect
from tests.benchmarks.ledger_files import KEEPING_PACE, day_of, write_customers, write_week
from tests.benchmarks.working import Clock, machine, own_server, show, take_in
from tests.conftest import empty_database

FIRST_DAY = date(2025, 1, 6)

# The loop, and backfills by how many windows they have in hand at once.
WAYS = {"loop": 0, "backfill, 1 at once": 1, "backfill, 2 at once": 2, "backfill, 3 at once": 3}


def _work(way: str, folder: Path) -> None:
    """Do it one way in this process and print the seconds; loading what it needs is not counted."""
    from datetime import UTC, datetime

    from configs.settings import load_settings
    from flows.backfill import backfill
    from flows.payment_sync import payment_sync
    from tasks.backfills.parameters import BackfillInstruction, BackfillParameters
    from tasks.feeds.confined import warm_up
    from tasks.feeds.parameters import FeedInstruction, FeedParameters
    from tasks.instructions import keep_instruction
    from tasks.steps import without_heartbeat

    paths = sorted(folder.glob("*.csv"))

    def keep(flow: str, said: BackfillInstruction | FeedInstruction) -> object:
        with engine_for(load_settings()).begin() as connection:
            return keep_instruction(connection, flow, said, actor="bench", now=datetime.now(UTC))

    warm_up()
    with without_heartbeat():
        began = time.perf_counter()
        if way == "loop":
            for path in paths:
                said = keep("payment_sync", FeedInstruction(files=(str(path),), contract="open_items"))
                payment_sync(FeedParameters.model_validate({"instruction": said}))
        else:
            said = keep("backfill", BackfillInstruction(source_folder=str(folder), reason="a benchmark"))
            days = {"from_day": day_of(0, FIRST_DAY), "to_day": day_of(len(paths), FIRST_DAY) - timedelta(days=1)}
            more = {"concurrency": WAYS[way], "instruction": said, "live": True}
            backfill(BackfillParameters.model_validate({**days, **more}))
        print(json.dumps(time.perf_counter() - began))


def _child(way: str, folder: Path, environment: Mapping[str, str]) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.bench_backfill", "--way", way, "--folder", str(folder)]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr[-4000:])
    return float(json.loads(done.stdout.splitlines()[-1]))


def _begin_anew(settings: Settings, customers: Path) -> None:
    empty_database(settings)
    take_in(settings, customers, "organizations", day_of(0, FIRST_DAY) - timedelta(days=1))
    with engine_for(settings, OWNER).begin() as connection:
        connection.exec_driver_sql("analyze crm.organizations")


def main() -> None:
    """Measure every way in turn and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        _work(chosen.way, chosen.folder)
        return
    clock = Clock()
    with own_server() as settings:
        folder = settings.home / "weeks"
        folder.mkdir()
        customers = write_customers(settings.home / "customers.csv", 50_000)
        for week in range(chosen.weeks):
            name = f"open_items_{day_of(week, FIRST_DAY)}.csv"
            write_week(folder / name, week, chosen.items, first_day=FIRST_DAY, new_per_week=KEEPING_PACE)
        server = start_prefect(settings.home, database_url=prefect_database_url(settings))
        environment = {**prefect_environment(server, settings.home), "KONTOR_HOME": str(settings.home)}
        try:
            for _ in range(chosen.rounds):
                for way in WAYS:
                    _begin_anew(settings, customers)
                    clock.seconds.setdefault(way, []).append(_child(way, folder, environment))
        finally:
            stop_prefect(settings.home)
    rows = [[way, f"{clock.least(way):.1f}", f"{clock.least(way) / clock.least('loop'):.2f}"] for way in WAYS]
    title = f"{chosen.weeks} weeks of {chosen.items:,} items, {chosen.rounds} round(s), {machine()}"
    show(title, ["way", "seconds", "ratio"], rows)


if __name__ == "__main__":
    main()
