"""A check of the data, a merge and its undoing, killed at any instant: all of it is there or nothing, and it goes on.

Real processes and real SIGKILL; the instants come from a seed that every failure prints. A plain run tries a few, a
campaign (``make campaign``) many.
"""

from __future__ import annotations

import random
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tasks import database
from tasks.quality.duplicates_store import note_duplicates
from tests.conftest import CAMPAIGN_FACTOR
from tests.ledgers import Books, item, write_csv
from tests.nursery import KILLED, Child
from tests.stage import Stage

DAY = date(2026, 3, 2)
SEEDS = range(1 * CAMPAIGN_FACTOR)
FIRMS: list[dict[str, object]] = [
    {"customer_number": "1", "name": "Витоша Дистрибуция ЕООД", "country": "BG", "vat_number": "", "owner": ""},
    {"customer_number": "2", "name": "VITOSHA DISTRIBUTSIYA", "country": "", "vat_number": "", "owner": "petar"},
    {"customer_number": "3", "name": "Nordlys AS", "country": "NO", "vat_number": "1", "owner": "rosen"},
]

_INCIDENTS = (
    "select i.rule_id, i.record_key, i.state, i.owner, i.reason, i.first_seen, i.last_seen, i.occurrences, i.money,"
    " (select count(*) from ops.quality_incident_events e where e.incident_id = i.incident_id) as events"
    " from ops.quality_incidents i order by 1, 2"
)
_MERGES = "select kept_id, merged_id, values_before, moved, undone_at is null as stands from ops.duplicate_merges"
_PAIRS = "select pair_id, decision, merged from report.duplicates order by 1"


def _fill(stage: Stage, folder: Path) -> Books:
    """Three customers with gaps, of whom two are one firm and owe something."""
    books = Books(stage.settings)
    books.take_in(write_csv(folder / "organizations.csv", FIRMS), "organizations", DAY)
    items = [item("1", "A", "100.00", DAY), item("2", "B", "50.00", DAY), item("3", "C", "7.00", DAY)]
    books.take_in(write_csv(folder / "items.csv", items), "open_items", DAY)
    books.classify()
    return books


def _killed(child: Child, seconds: float) -> bool:
    """Kill it after that time; whether it was still under way."""
    time.sleep(seconds)
    child.kill()
    return child.wait().code == KILLED


@pytest.mark.parametrize("seed", SEEDS)
def test_a_check_killed_at_any_instant_leaves_all_incidents_or_none(
    empty_stage: Stage, tmp_path: Path, seed: int
) -> None:
    """Whatever a dead run left, the next one ends with what an undisturbed one finds, each incident opened once."""
    chance, toll = random.Random(f"quality {seed}"), []
    books = _fill(empty_stage, tmp_path)
    undisturbed = empty_stage.processes.start_flow("data_quality", as_of=DAY.isoformat()).wait()
    assert undisturbed.code == 0, undisturbed.said
    expected = books.read(_INCIDENTS)
    pairs = books.read(_PAIRS)
    assert len(expected) > 5
    assert len(pairs) == 1
    empty_stage.clear()
    _fill(empty_stage, tmp_path)
    for _ in range(2 if CAMPAIGN_FACTOR == 1 else 5):
        seconds = chance.uniform(0.05, 1) * undisturbed.seconds
        child = empty_stage.processes.start_flow("data_quality", as_of=DAY.isoformat())
        if _killed(child, seconds):
            toll.append(f"{seconds:.2f}")
        assert books.read(_INCIDENTS) in ([], expected), (seed, toll)
        assert books.read(_PAIRS) in ([], pairs), (seed, toll)
    ended = empty_stage.processes.start_flow("data_quality", as_of=DAY.isoformat()).wait()
    assert ended.code == 0, (seed, toll, ended.said)
    assert books.read(_INCIDENTS) == expected, (seed, toll)
    assert books.read(_PAIRS) == pairs, (seed, toll)
    results = books.read("select run_id, count(*) as rules from ops.quality_results group by run_id")
    assert len({row["rules"] for row in results}) == 1, (seed, toll, results)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_merge_and_its_undoing_killed_at_any_instant_are_done_or_not(
    empty_stage: Stage, tmp_path: Path, seed: int
) -> None:
    """After each kill the customers are as before or as after it, never between; the command then ends the work."""
    chance, toll = random.Random(f"merge {seed}"), []
    books = _fill(empty_stage, tmp_path)
    with database.engine_for(empty_stage.settings).begin() as connection:
        note_duplicates(connection, None, DAY, everything=True)
    [pair] = books.read(_PAIRS)
    number = str(pair["pair_id"])

    def seen() -> tuple[Any, ...]:
        stands = [row for row in books.read(_MERGES) if row["stands"]]
        return books.state(), books.read(_PAIRS), [(row["kept_id"], row["merged_id"]) for row in stands]

    apart = seen()
    for command in (("merge", number, "--reason", "one firm", "--live"), ("undo", number, "--live")):
        before = seen()
        for _ in range(2):
            child = empty_stage.processes.start("duplicates", *command)
            seconds = chance.uniform(0.05, 0.9)
            if not _killed(child, seconds):
                break
            toll.append(f"{command[0]} {seconds:.2f}")
            if seen() != before:
                break
        if seen() == before:
            ended = empty_stage.processes.run("duplicates", *command)
            assert ended.code == 0, (seed, toll, ended.said)
        [now] = books.read(_PAIRS)
        assert now["merged"] is (command[0] == "merge"), (seed, toll)
        owed = {row["invoice_number"]: row["customer_number"] for row in books.open_on(DAY)}
        assert owed["B"] == ("1" if now["merged"] else "2"), (seed, toll)
    books.classify()
    assert seen() == apart, (seed, toll)
