"""What the benchmarks share: a server of their own, a run to load in, clocks, memory, and tables of figures."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
from sqlalchemy import Connection

from configs.settings import Settings
from tasks.catalog.steps import CATALOG_FEEDS
from tasks.customers.steps import CUSTOMER_FEEDS
from tasks.database import engine_for, prepare
from tasks.errors import Refused
from tasks.feeds.contracts import FeedContract, load_contract
from tasks.feeds.intake import Given, InboxFile, take_in_file
from tasks.feeds.outcomes import FileOutcome
from tasks.ledger import open_run
from tasks.local_stack import remove_postgres
from tasks.payments.steps import PAYMENT_FEEDS

T = TypeVar("T")
TODAY = date(2026, 11, 20)


@contextmanager
def own_server() -> Iterator[Settings]:
    """Settings of an embedded database of this benchmark, removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="kontor-bench-"))
    home.chmod(0o755)
    settings = Settings(home=home)
    try:
        prepare(settings)
        yield settings
    finally:
        remove_postgres(home)
        shutil.rmtree(home, ignore_errors=True)


def take_in(settings: Settings, path: Path, contract: str, as_of: date) -> FileOutcome:
    """Take one file in as the flows do: read confined, checked, guarded, applied, committed.

    Raises:
        Refused: the file was not applied; a benchmark of a refusal measures nothing.
    """
    engine = engine_for(settings)
    feed = _contract(contract)
    with open_run(engine, "bench", as_of=as_of, dry_run=False, prefect_run_id=None, actor="bench") as run:
        outcome = take_in_file(
            engine,
            InboxFile(path, feed),
            given=Given(TODAY, as_of),
            run_id=run.run_id,
            apply={**CUSTOMER_FEEDS, **PAYMENT_FEEDS, **CATALOG_FEEDS}[feed.feed],
        )
    if outcome.state != "applied":
        raise Refused(f"{path.name} was {outcome.state}: {'; '.join(outcome.reasons)}", hint="Mend the benchmark.")
    return outcome


@functools.cache
def _contract(name: str) -> FeedContract:
    return load_contract(name)  # validating one takes a moment and is done once a run, not once a file


def driver_of(connection: Connection) -> Any:
    """The driver's own connection under this one."""
    return connection.connection.driver_connection


@dataclass
class Clock:
    """The seconds that the pieces of work took, by name; compared by the least of each."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, name: str, work: Callable[[], T]) -> T:
        """Do the work and keep how long it took."""
        began = time.perf_counter()
        result = work()
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)
        return result

    def least(self, name: str) -> float:
        """The shortest time the work took: the one that the neighbours on the machine disturbed least."""
        return min(self.seconds[name])


class PeakMemory:
    """The most memory that this process and its readers held at once inside a ``with`` block, in MB.

    Sampled: pages that a reader shares with its host count twice, the server's do not count.
    """

    def __enter__(self) -> PeakMemory:
        self.megabytes = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        own = psutil.Process()
        while not self._over.wait(0.02):
            held = sum(_resident(process) for process in (own, *_readers(own)))
            self.megabytes = max(self.megabytes, held / 1e6)


def _readers(own: Any) -> list[Any]:
    try:
        return [child for child in own.children(recursive=True) if "postgres" not in child.name()]
    except psutil.NoSuchProcess:
        return []


def _resident(process: Any) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def processor_seconds(*roots: int) -> float:
    """The seconds that processors spent on these processes, on all that they started, and on what of it has ended.

    Unlike the clock it says little of the neighbours on the machine; two processors at work count twice.
    """
    everybody = {process.pid: process for root in roots for process in _family(root)}
    return sum(map(_spent, everybody.values()))


def postmaster_of(home: Path) -> int:
    """The process id of the embedded server under this folder."""
    return int((home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])


def _family(root: int) -> list[Any]:
    try:
        own = psutil.Process(root)
        return [own, *own.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _spent(process: Any) -> float:
    try:
        return float(sum(process.cpu_times()[:4]))  # its own, and of those that it started and saw end
    except psutil.NoSuchProcess:
        return 0.0


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown, as it stands in ``docs/performance.md``."""
    print(f"\n{title}\n\n| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)


def machine() -> str:
    """The processors and the load of this machine in words."""
    return f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
