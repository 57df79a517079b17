"""Catalogues whose import is killed, or that arrive two at once: what is seen is whole, before or after."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from configs.settings import Settings
from tasks import ledger
from tasks.catalog.steps import CATALOG_FEEDS
from tasks.feeds.contracts import load_contract
from tasks.feeds.intake import Given, InboxFile, take_in_file
from tests.catalogues import DAY, product, state
from tests.conftest import CAMPAIGN_FACTOR
from tests.ledgers import TODAY, Books, write_csv
from tests.nursery import KILLED, Child
from tests.stage import Stage

WEEK = timedelta(weeks=1)
PRODUCTS = 600
GONE = 20


def _list(path: Path, first: int, dearer: float) -> Path:
    """A complete list from a product on; six of seven prices as in every other one, the seventh as asked."""
    rows = [
        product(f"P{n:04}", customer_price=n + (10 if n % 7 else 10 + dearer), stock=n % 9)
        for n in range(first, PRODUCTS)
    ]
    return write_csv(path, rows)


@pytest.mark.parametrize("seed", range(1 * CAMPAIGN_FACTOR))
def test_a_killed_import_leaves_the_catalogue_as_it_was_or_as_it_should_be(
    empty_stage: Stage, tmp_path: Path, seed: int
) -> None:
    """SIGKILL at an instant of the seed's: what is seen is one of the two whole states, and the next run makes up."""
    books, processes = Books(empty_stage.settings), empty_stage.processes
    first = _list(tmp_path / "catalog_2026-03-02.csv", 0, 0)
    undisturbed = processes.start_flow("catalog_upsert", files=[str(first)]).wait()
    assert undisturbed.code == 0, undisturbed.said
    before = state(books)
    path = str(_list(tmp_path / "catalog_2026-03-09.csv", GONE, 0.5))
    child = processes.start_flow("catalog_upsert", files=[path])
    _wait_for_its_run(books, child)
    time.sleep(random.Random(f"killed {seed}").uniform(0, _seconds_of_the_first_run(books)))
    child.kill()
    killed = child.wait().code == KILLED
    seen = state(books)
    again = processes.start_flow("catalog_upsert", files=[path]).wait()
    assert again.code == 0, again.said
    after = state(books)
    assert seen in (before, after), seed
    assert seen == after or killed
    files = books.read("select state, count(*) as files from landing.feed_files group by 1")
    assert files == [{"state": "applied", "files": 2}]
    gone = sum(row["discontinued_on"] is not None for row in after["products"])
    assert (len(after["products"]), gone) == (PRODUCTS, GONE)
    print(f"seed {seed}: {'killed' if killed else 'had ended'}, {'before' if seen == before else 'after'}")


def _wait_for_its_run(books: Books, child: Child) -> None:
    """Return when the second run is under way; until then a process does nothing that could be half-done."""
    while child.is_alive and books.read("select count(*) as runs from ops.run_ledger") != [{"runs": 2}]:
        time.sleep(0.01)


def _seconds_of_the_first_run(books: Books) -> float:
    took = books.read("select extract(epoch from ended_at - started_at) as took from ops.run_ledger order by run_id")
    return float(took[0]["took"])


def test_two_files_at_once_leave_what_one_after_the_other_leaves(kontor_settings: Settings, tmp_path: Path) -> None:
    """A complete catalogue and changes of a later day taken in by two runs at the same time, three times over."""
    books = Books(kontor_settings)
    complete = [product(f"P{n}", customer_price=10 + n, stock=1) for n in range(300)]
    changes = [product(f"P{n}", customer_price=11 + n, stock=2) for n in range(100, 400)]
    states = []
    for round_number in range(3):
        day = DAY + (round_number * 2 - 8) * WEEK
        files = [
            (write_csv(tmp_path / f"full_{round_number}.csv", complete), "catalog", day),
            (write_csv(tmp_path / f"delta_{round_number}.csv", changes), "catalog_delta", day + WEEK),
        ]
        threads = [threading.Thread(target=_take_in, args=(books, *file)) for file in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        states.append(state(books))
    assert [len(found["products"]) for found in states] == [400, 400, 400]
    held = books.read("select sum(amount) as prices from report.prices(:day)", day=DAY)
    assert held == [{"prices": sum(10 + n for n in range(100)) + sum(11 + n for n in range(100, 400))}]
    assert books.read("select count(*) as files from landing.feed_files where state = 'applied'") == [{"files": 6}]


@pytest.mark.parametrize(
    "names", [("catalog_2026-03-02.csv", "catalog_delta_2026-03-03.csv"), ("catalog_2026-03-02.csv",) * 2]
)
def test_two_runs_of_the_flow_at_once_take_every_file_in_once(
    empty_stage: Stage, tmp_path: Path, names: tuple[str, str]
) -> None:
    """Two whole processes, each given a file, or both the same: one is told of the other, or finds its work done."""
    rows = {
        "catalog_2026-03-02.csv": [product(f"P{n}", customer_price=10 + n, stock=1) for n in range(300)],
        "catalog_delta_2026-03-03.csv": [product(f"P{n}", customer_price=11 + n, stock=2) for n in range(200, 400)],
    }
    paths = [write_csv(tmp_path / name, rows[name]) for name in names]
    children = [empty_stage.processes.start_flow("catalog_upsert", files=[str(path)]) for path in paths]
    ends = [child.wait() for child in children]
    assert sorted(end.code for end in ends) in ([0, 0], [0, 3]), [end.said for end in ends]
    for path, end in zip(paths, ends, strict=True):
        if end.code == 3:
            assert "catalog_upsert run " in end.said
            again = empty_stage.processes.start_flow("catalog_upsert", files=[str(path)]).wait()
            assert again.code == 0, again.said
    books = Books(empty_stage.settings)
    taken = books.read(
        "select file_name, state, inserted + updated + unchanged as rows from landing.feed_files order by 1"
    )
    assert [tuple(row.values()) for row in taken] == [(name, "applied", len(rows[name])) for name in sorted(set(names))]
    amounts = {f"P{n}": Decimal(10 + n) for n in range(300)}
    if len(set(names)) > 1:
        amounts |= {f"P{n}": Decimal(11 + n) for n in range(200, 400)}
    held = books.read("select part_number, customer_price from report.catalog")
    assert {row["part_number"]: row["customer_price"] for row in held} == amounts


def _take_in(books: Books, path: Path, contract: str, as_of: object) -> None:
    with ledger.open_run(
        books.engine, f"test {contract}", as_of=TODAY, dry_run=False, prefect_run_id=None, actor="test"
    ) as run:
        take_in_file(
            books.engine,
            InboxFile(path, load_contract(contract)),
            given=Given(TODAY, as_of),  # type: ignore[arg-type]
            run_id=run.run_id,
            apply=CATALOG_FEEDS["catalog"],
        )
