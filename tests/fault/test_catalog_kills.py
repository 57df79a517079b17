"""catalog_upsert killed at any instant of a delivery: what is seen is whole files; the next run makes good for it.

Real processes and real SIGKILL; the instants come from a seed that every failure prints. ``make campaign`` tries many
of them; a plain run kills a single import (``test_catalog_faults.py``). Figures stand in ``docs/reliability.md``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from configs.settings import Settings
from tests.catalogues import product, state
from tests.conftest import CAMPAIGN_FACTOR, empty_database
from tests.deliveries import files_in, put, unsettled
from tests.ledgers import Books
from tests.nursery import KILLED, Ended
from tests.stage import Stage

SEEDS = range(1 * CAMPAIGN_FACTOR)
SEEDS_PER_DELIVERY = 15
MOST_KILLS = 5  # of one run; then it is left to end
FILE_SECONDS = 0.3  # what one of the files takes, roughly
PRODUCTS = 400

State = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Known:
    """A delivery, and what the database holds after none, one, two … of its files in the order of the flow."""

    files: Mapping[str, bytes]
    after: list[State]
    seconds: float


_KNOWN: dict[int, Known] = {}


@dataclass
class Toll:
    """How many files were in, and for how many seconds, when a run was killed."""

    seed: int
    instants: list[str] = field(default_factory=list)


def deliver(number: int) -> dict[str, bytes]:
    """Complete lists, one of them corrected, changes of one day, a supplier's XML and rates; some rows unreadable."""
    chance = random.Random(f"catalogue delivery {number}")

    def rows(left_out: int = 0, share: float = 1) -> list[dict[str, object]]:
        chosen = [n for n in range(left_out, PRODUCTS) if chance.random() < share]
        return [
            product(
                f"P-{n:04}",
                customer_price="dear" if chance.random() < 0.01 else f"{100 + n + chance.choice((0, 0, 1.5))}",
                dealer_price=f"{80 + n}",
                stock=chance.randrange(50),
            )
            for n in chosen
        ]

    rates: list[dict[str, object]] = [
        {"base": "EUR", "quote": "SEK", "rated_on": f"2026-03-0{day}", "rate": f"11.{day}"} for day in range(1, 5)
    ]
    articles = "".join(
        f'<ARTICLE mode="new"><SUPPLIER_AID>B{n}</SUPPLIER_AID><ARTICLE_PRICE_DETAILS><ARTICLE_PRICE price_type="nrp">'
        f"<PRICE_AMOUNT>{n}.5</PRICE_AMOUNT><PRICE_CURRENCY>EUR</PRICE_CURRENCY></ARTICLE_PRICE>"
        "</ARTICLE_PRICE_DETAILS></ARTICLE>"
        for n in range(50)
    )
    return {
        "catalog_2026-03-02.csv": _csv(rows()),
        "catalog_2026-03-09.csv": _csv(rows(left_out=9)),
        "catalog_2026-03-09_r2.csv": _csv(rows(left_out=12)),
        "catalog_delta_2026-03-04_0900.csv": _csv(rows(share=0.2)),
        "catalog_delta_2026-03-04_1000.csv": _csv(rows(share=0.2)),
        "catalog_delta_2026-03-10.csv": _csv(rows(share=0.1)),
        "bmecat_2026-03-03.xml": f"<BMECAT><T_NEW_CATALOG>{articles}</T_NEW_CATALOG></BMECAT>".encode(),
        "currency_rates_2026-03-04.csv": _csv(rates),
    }


def _csv(rows: list[dict[str, object]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def known_states(stage: Stage, seed: int) -> Known:
    """Run a seed's delivery undisturbed, then its files one by one in the same order; leaves the stage empty."""
    number = seed // SEEDS_PER_DELIVERY
    if number not in _KNOWN:
        files, books = deliver(number), Books(stage.settings)
        _put_all(stage.settings, files)
        ended = stage.processes.start_flow("catalog_upsert").wait()
        assert ended.code == 0, ended.said
        final = state(books)
        assert all(final[name] for name in ("products", "prices", "stock", "rates")), final
        taken = books.read("select file_name, contract, as_of, revision from landing.feed_files order by feed_file_id")
        assert len(taken) == len(files)
        empty_database(stage.settings)
        after = [state(books)]
        for row in taken:
            path = put(stage.settings.home / "delivered", row["file_name"], files[row["file_name"]])
            books.take_in(path, row["contract"], row["as_of"])
            after.append(state(books))
        assert after[-1] == final
        _KNOWN[number] = Known(files, after, ended.seconds)
        stage.clear()
    return _KNOWN[number]


def _put_all(settings: Settings, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        put(settings.inbox_path, name, data)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_run_leaves_whole_files_and_the_next_one_the_rest(empty_stage: Stage, seed: int) -> None:
    """After every kill the catalogue is that of the files taken in so far, no file is lost, and the end is the same."""
    stage, toll = empty_stage, Toll(seed)
    known = known_states(stage, seed)
    _put_all(stage.settings, known.files)
    ended = _run_until_it_survives(stage, known, toll)
    assert ended.code == 0, (toll, ended.said)
    assert state(Books(stage.settings)) == known.after[-1], toll
    left = unsettled(stage.settings)
    assert (left["inbox"], left["parts"], left["runs"]) == ([], [], []), toll
    print(toll)


def _run_until_it_survives(stage: Stage, known: Known, toll: Toll) -> Ended:
    chance = random.Random(f"catalogue kills {toll.seed}")
    for _ in range(MOST_KILLS):
        before = files_in(stage.settings)
        files = chance.randint(0, len(known.files) - before)
        delay = chance.uniform(0, FILE_SECONDS if files else 0.8 * known.seconds)
        child = stage.processes.start_flow("catalog_upsert")
        while child.is_alive and files_in(stage.settings) < before + files:
            time.sleep(0.01)
        time.sleep(delay)
        child.kill()
        ended = child.wait()
        if ended.code != KILLED:
            return ended
        toll.instants.append(f"{before + files}+{delay:.2f}s")
        books = Books(stage.settings)
        assert state(books) == known.after[files_in(stage.settings)], toll
        assert lost_files(stage.settings, known.files) == [], toll
    return stage.processes.start_flow("catalog_upsert").wait()


def lost_files(settings: Settings, files: Mapping[str, bytes]) -> list[str]:
    """Files that are whole neither in the inbox nor in the archive."""
    kept = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in (settings.inbox_path, settings.home / "archive")
        if folder.is_dir()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    return [name for name, data in files.items() if hashlib.sha256(data).hexdigest() not in kept]
