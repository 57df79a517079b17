"""What history costs: an import of 100,000 organisations and 200,000 contacts with its triggers and without them.

Both imports are whole ones: read from CSV, cast, staged, merged. The ratio is of one run on one server: without, with,
with, without, each on emptied tables. Then: sealing all entries, verifying them, one customer's history, and erasing
1,000 contacts.

Run with ``.venv/bin/python -m tests.benchmarks.bench_history [CUSTOMERS]``. It starts an embedded database of its own
under a temporary folder and removes it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import text

from configs.settings import Settings
from tasks.database import FLOWS, OWNER, RETENTION, engine_for, prepare
from tasks.history.store import erase_values, read_changes, seal_history, verify_history
from tasks.local_stack import stop_postgres
from tests.ledgers import Books, write_csv

CUSTOMERS = 100_000
T = TypeVar("T")


def _files(folder: Path, customers: int) -> tuple[Path, Path]:
    organizations = write_csv(
        folder / "organizations.csv",
        [
            {
                "customer_number": f"B{n:07}", "name": f"Фирма {n} ООД", "country": "BG", "language": "bg",
                "currency": "EUR", "payment_terms_days": 30, "segment": "retail", "owner": f"owner{n % 40}",
            }
            for n in range(customers)
        ],
    )  # fmt: skip
    contacts = write_csv(
        folder / "contacts.csv",
        [
            {
                "customer_number": f"B{n // 2:07}", "first_name": "Ясен", "last_name": f"Петров {n}",
                "email": f"person{n}@example.com", "phone": f"+359 88 {n:07}", "language": "bg",
            }
            for n in range(2 * customers)
        ],
    )  # fmt: skip
    return organizations, contacts


def _timed(label: str, act: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = act()
    seconds = time.perf_counter() - began
    print(f"{label}: {seconds:.1f} s", flush=True)
    return seconds, result


def _empty(settings: Settings, *, recorded: bool) -> None:
    """Empty the tables, unrecorded, and switch the triggers on or off."""
    with engine_for(settings, OWNER).begin() as connection:
        for table in ("organizations", "contacts", "contact_roles"):
            connection.execute(text(f"alter table crm.{table} disable trigger user"))
        connection.execute(text("truncate crm.organizations, landing.feed_files cascade"))
        for table in ("organizations", "contacts", "contact_roles") if recorded else ():
            for event in ("insert", "update", "delete", "truncate"):
                connection.execute(text(f"alter table crm.{table} enable always trigger record_{event}"))


def _import(settings: Settings, files: tuple[Path, Path], *, recorded: bool) -> float:
    _empty(settings, recorded=recorded)
    books = Books(settings)
    day = date(2026, 11, 16)

    def both() -> None:
        books.take_in(files[0], "organizations", day)
        books.take_in(files[1], "contacts", day)

    return _timed(f"import {'with' if recorded else 'without'} history", both)[0]


def _compare(settings: Settings, files: tuple[Path, Path]) -> None:
    seconds = {True: 0.0, False: 0.0}
    for recorded in (False, True, True, False):
        seconds[recorded] += _import(settings, files, recorded=recorded)
    print(f"ratio with / without history: {seconds[True] / seconds[False]:.2f}", flush=True)


def _measure_reading(settings: Settings) -> None:
    _empty(settings, recorded=True)
    with engine_for(settings, OWNER).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("analyze history.change_log"))
    with engine_for(settings, FLOWS).begin() as connection:
        _, sealed = _timed("seal", lambda: seal_history(connection, now=datetime.now(UTC), actor="bench"))
    with engine_for(settings, FLOWS).begin() as connection:
        beside = [engine_for(settings, FLOWS).connect() for _ in range((os.cpu_count() or 1) - 1)]
        seconds, found = _timed("verify", lambda: verify_history(connection, beside=beside))
        print(f"{sealed.entries:,} entries sealed; verified {found.entries / seconds:,.0f} a second; {found.breaks=}")
        _timed("history of one customer", lambda: read_changes(connection, "B0000777"))
    with engine_for(settings, RETENTION).begin() as connection:
        people = list(
            connection.scalars(
                text(
                    "select record_id from history.change_log where table_name = 'contacts'"
                    " order by entry_id desc limit 1000"
                )
            )
        )
        _timed("erase 1,000 contacts", lambda: erase_values(connection, "contacts", people))


def main() -> None:
    """Print the seconds and the ratio."""
    home = Path(tempfile.mkdtemp(prefix="kontor-bench-"))
    settings = Settings(home=home)
    try:
        prepare(settings)
        files = _files(home, int(sys.argv[1]) if len(sys.argv) > 1 else CUSTOMERS)
        _compare(settings, files)
        _measure_reading(settings)
    finally:
        stop_postgres(home)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
