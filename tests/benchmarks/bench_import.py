"""A week's ledger taken in, beside the floor and a peer, and at several sizes. Every claim is a ratio in one run.

Run with ``.venv/bin/python -m tests.benchmarks.bench_import [--items N …] [--rounds N] [--history WEEKS]``. Each round
takes the next week's file, 5 % of which differ from the week before, through the floor, through Kontor and, where dlt
can be imported, through dlt's merge in both its ways, one after the other on one server; the least of each is compared.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from configs.settings import Settings
from tasks.database import OWNER, engine_for
from tasks.feeds.confined import warm_up
from tests.benchmarks import peer
from tests.benchmarks.floor import create_floor, load_floor
from tests.benchmarks.ledger_files import day_of, write_customers, write_week
from tests.benchmarks.working import Clock, PeakMemory, machine, own_server, show, take_in

SIZES = (10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Figures:
    """What the rounds of one size took, and the most memory that the import held."""

    items: int
    clock: Clock
    peak_megabytes: float

    def rows(self) -> list[tuple[str, ...]]:
        """One line per way of loading: items, way, seconds, ratio to the floor."""
        floor = self.clock.least("floor")
        return [
            (f"{self.items:,}", name, f"{self.clock.least(name):.2f}", f"{self.clock.least(name) / floor:.2f}")
            for name in self.clock.seconds
        ]


def measure(settings: Settings, items: int, rounds: int, history: int) -> Figures:
    """Load the first weeks everywhere, then let the ways take turns with the following ones."""
    folder = settings.home / "bench"
    folder.mkdir(exist_ok=True)
    clock = Clock()
    take_in(settings, write_customers(folder / "customers.csv"), "organizations", day_of(0))
    with engine_for(settings, OWNER).begin() as connection:
        create_floor(connection)
    first = write_week(folder / "open_items_0.csv", 0, items)
    _floor(settings, first, 0)
    for strategy in peer.strategies():
        peer.load_peer(settings, first, strategy)
    with PeakMemory() as peak:
        take_in(settings, first, "open_items", day_of(0))
    for week in range(1, history + 1):
        take_in(settings, write_week(folder / "past.csv", week, items), "open_items", day_of(week))
    for week in range(history + 1, history + rounds + 1):
        _round(settings, clock, write_week(folder / f"open_items_{week}.csv", week, items), week)
    return Figures(items, clock, peak.megabytes)


def _round(settings: Settings, clock: Clock, path: Path, week: int) -> None:
    _settle(settings)
    clock.measure("floor", partial(_floor, settings, path, week))
    clock.measure("import", partial(take_in, settings, path, "open_items", day_of(week)))
    for strategy in peer.strategies():
        clock.measure(f"dlt, {strategy}", partial(peer.load_peer, settings, path, strategy))
    print({name: [round(second, 2) for second in seconds] for name, seconds in clock.seconds.items()}, flush=True)


def _floor(settings: Settings, path: Path, week: int) -> None:
    with engine_for(settings, OWNER).begin() as connection:
        load_floor(connection, path, day_of(week))


def _settle(settings: Settings) -> None:
    """Let neither side meet the other's dirt: dead rows swept, figures current."""
    engine = engine_for(settings, OWNER).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("vacuum analyze crm.invoices")
        connection.exec_driver_sql("vacuum analyze bench.floor_invoices")


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--history", type=int, default=0, help="weeks taken in before the first that is measured")
    chosen = parser.parse_args()
    if not peer.is_there():
        print("dlt is not installed, so there is no peer to compare with: see docs/performance.md for how to add it.")
    warm_up()
    rows: list[tuple[str, ...]] = []
    for items in chosen.items:
        with own_server() as settings:
            figures = measure(settings, items, chosen.rounds, chosen.history)
        rows += figures.rows()
        print(f"{items:,} items: at most {figures.peak_megabytes:.0f} MB held")
    title = f"A week's ledger, 5 % changed, after {chosen.history + 1} earlier ones; {machine()}"
    show(title, ("items", "way", "seconds", "ratio to the floor"), rows)


if __name__ == "__main__":
    main()
