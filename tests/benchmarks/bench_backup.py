"""Backups and restores beside a plain copy of the data directory that is brought to disk, in one run on one server.

``.venv/bin/python -m tests.benchmarks.bench_backup [MEGABYTES]`` fills a database with the real schema to about that
size (default 1000), then measures, each as a ratio to the copy:

copy              cp -r of the data directory of a stopped server, then sync: what nobody can go below
full              a full backup, encrypted, compressed, fingerprinted, to a folder of the same disk
incremental       the same after 2 % of the rows were changed, those that were added last
scattered         the same after every fiftieth row was changed, so that nearly every page was: read whole, and each
                  page written once more, because the first reader of a changed row notes on its page that it stands
restore           laid out, recovered, open
verified restore  restore_check with every look
pg_dump -Fc       beside them, with its default compression
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from configs.settings import Settings
from tasks import database
from tasks.backups.checking import check_backup
from tasks.backups.engine import Wanted
from tasks.backups.programs import ENVIRONMENT, ask, connect, scalar, where
from tasks.backups.restoring import restore
from tasks.backups.scratch import clear
from tasks.local_stack import find_postgres, remove_postgres, start_postgres, stop_postgres
from tests.backup_site import Site, fill, site_at

T = TypeVar("T")

_ITEMS = """
insert into crm.invoices (organization_id, source, invoice_number, document_type, issued_on, due_on, currency, amount,
                          open_amount, disputed, listed_from, feed_file_id)
select 1 + n %% 50000, 'books', 'I' || n, 'invoice', '2026-01-01', '2026-02-01', 'EUR', 100 + n %% 977, 100 + n %% 977,
       false, '2026-01-05', (select min(feed_file_id) from landing.feed_files)
from generate_series(cast(%s as integer), cast(%s as integer)) n
"""

_CHANGE = "update crm.invoices set open_amount = open_amount - 1 where "


def main() -> None:
    """Measure and print one line a way."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    home = Path(tempfile.mkdtemp(prefix="kontor-bench-", dir=os.environ.get("KONTOR_BENCH_FOLDER")))
    home.chmod(0o755)
    try:
        _measure(home, wanted)
    finally:
        clear(home / "copy")
        remove_postgres(home)
        shutil.rmtree(home, ignore_errors=True)


def _measure(home: Path, wanted: int) -> None:
    settings = Settings(home=home)
    database.prepare(settings)
    site = site_at(settings, home / "backups", home / "keys" / "backup")
    megabytes = _grow(site, wanted)
    print(f"database of {megabytes:,.0f} MB")
    # The first copy warms the file cache for all that follow; the second counts.
    plain = min(_timed(lambda: _copy(home)), _timed(lambda: _copy(home)))
    server = start_postgres(home)
    print(f"{'copy':<18} {plain:6.1f} s   1.0")
    full = _line("full", plain, lambda: site.engine.take(datetime.now(UTC), "full", None))
    with connect(server) as connection:
        ask(connection, _CHANGE + "invoice_id > (select max(invoice_id) * 0.98 from crm.invoices)")
        ask(connection, "checkpoint")
    later = _line("incremental", plain, lambda: site.engine.take(datetime.now(UTC), "incremental", full))
    wanted_full = Wanted((full,), point=full.point)
    _line("restore", plain, lambda: restore(site.engine, wanted_full, home / "copy"))
    clear(home / "copy")
    _line("verified restore", plain, lambda: _check(site, full.label))
    _line("restore, full and incremental", plain, lambda: _restore_both(site, home, full.label, later.label))
    _line("pg_dump -Fc", plain, lambda: _dump(home))
    server = find_postgres(home) or start_postgres(home)
    with connect(server) as connection:
        ask(connection, _CHANGE + "invoice_id % 50 = 0")
        ask(connection, "checkpoint")
    _line("scattered", plain, lambda: site.engine.take(datetime.now(UTC), "incremental", later))
    print(f"stored: full {full.stored_bytes / 1e6:,.0f} MB, incremental {later.stored_bytes / 1e6:,.0f} MB")


def _restore_both(site: Site, home: Path, full: str, later: str) -> None:
    chain = site.catalogue.chain(later)
    if [manifest.label for manifest in chain] != [full, later]:
        raise SystemExit("the chain is another")
    restore(site.engine, Wanted(chain, point=chain[-1].point), home / "copy")
    clear(home / "copy")


def _grow(site: Site, wanted: int) -> float:
    """Insert invoices until the databases have about this many MB; returns how many they have."""
    fill(site.settings, 50_000)
    place = 0
    with connect(site.server) as connection:
        while (size := float(scalar(connection, "select sum(pg_database_size(oid)) / 1e6 from pg_database"))) < wanted:
            ask(connection, _ITEMS, place + 1, place + 200_000)
            place += 200_000
        ask(connection, "vacuum analyze")
        ask(connection, "checkpoint")
    return size


def _copy(home: Path) -> None:
    """What the ratios are to: the stopped server's data directory, copied and brought to disk."""
    stop_postgres(home)
    data, there = (home / "postgres" / "data").resolve(), home / "plain"
    subprocess.run(["cp", "-r", str(data), str(there)], check=True)
    for folder, _, names in os.walk(there):
        for name in names:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    shutil.rmtree(there)


def _check(site: Site, label: str) -> None:
    verdict = check_backup(site.engine, site.catalogue, label, now=datetime.now(UTC), planted="row_changed")
    if not verdict.passed:
        raise SystemExit(f"the backup did not pass: {[f for f in verdict.findings if not f.passed]}")


def _dump(home: Path) -> None:
    server = find_postgres(home) or start_postgres(home)
    command = [
        str(server.programs_dir / "pg_dump"),
        *where(server),
        "--format=custom",
        f"--file={home / 'dump'}",
        "kontor",
    ]
    subprocess.run(command, check=True, env=ENVIRONMENT)
    (home / "dump").unlink()


def _timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def _line(name: str, plain: float, work: Callable[[], T]) -> T:
    begun = time.monotonic()
    result = work()
    took = time.monotonic() - begun
    print(f"{name:<18} {took:6.1f} s {took / plain:5.1f}", flush=True)
    return result


if __name__ == "__main__":
    main()
