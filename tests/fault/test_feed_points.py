"""Files taken in by runs that are killed at any step of theirs: many kills a delivery, each at a step of its own seed.

The process counts its own steps through the work and the database driver (every call and return) and ends itself with
SIGKILL at one drawn from the seed. Each run goes on with what the one before left; after every kill what is seen is
whole, no file is lost, and in the end the database equals that of runs which nobody killed. ``test_kills.py`` and
``test_catalog_kills.py`` kill the same runs from outside, at instants and not at steps. ``make campaign`` tries
hundreds; figures stand in ``docs/reliability.md``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.catalogues import state as catalogue
from tests.conftest import CAMPAIGN_FACTOR
from tests.deliveries import HEALED, Delivery, deliver, faults, files_in, lost_files, put, unsettled
from tests.fault import test_catalog_kills as catalogues
from tests.fault import test_kills as lists
from tests.ledgers import Books
from tests.nursery import KILLED
from tests.stage import Stage

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.campaign]

KILLS = 4 * CAMPAIGN_FACTOR  # of each kind of run
DELIVERIES_ALIKE = 8  # what a delivery leaves undisturbed is found out once
KILLS_OF_A_RUN = 6  # then it is left to end

Look = Callable[[], list[str]]


@dataclass
class Toll:
    """How many runs were killed, by seeds that count on from one to the next, and how many deliveries they took."""

    seeds: Iterator[int] = field(default_factory=count)
    kills: int = 0
    deliveries: int = 0
    steps: dict[str, int] = field(default_factory=dict)

    def next_delivery(self) -> int | None:
        """The number of the next delivery, none when enough were killed."""
        if self.kills >= KILLS:
            return None
        self.deliveries += 1
        return (self.deliveries - 1) // DELIVERIES_ALIKE

    def count_steps(self, stage: Stage, flow: str, **parameters: object) -> None:
        """Run a flow undisturbed and keep how many steps it took, the most of all such runs."""
        ended = stage.processes.start_flow(flow, {"KONTOR_TEST_LAST_STEP": "0"}, **parameters).wait()
        assert ended.code == 0, ended.said
        found = re.search(r"^steps: (\d+)$", ended.said, re.MULTILINE)
        assert found is not None, ended.said
        self.steps[flow] = max(self.steps.get(flow, 0), int(found[1]))

    def run_until_it_survives(self, stage: Stage, flow: str, look: Look, **parameters: object) -> None:
        """Start the flow, each time killed at a step of the next seed, until it ends by itself; look after each."""
        for _ in range(KILLS_OF_A_RUN):
            seed = next(self.seeds)
            last = random.Random(f"{flow} {seed}").randint(1, self.steps[flow])
            ended = stage.processes.start_flow(flow, {"KONTOR_TEST_LAST_STEP": str(last)}, **parameters).wait()
            if ended.code != KILLED:
                assert ended.code == 0, (flow, seed, ended.said)
                return
            self.kills += 1
            assert look() == [], (flow, seed, last)
        ended = stage.processes.start_flow(flow, **parameters).wait()
        assert ended.code == 0, (flow, ended.said)

    def __str__(self) -> str:
        return f"{self.kills} kills in {self.deliveries} deliveries, steps of a whole run: {self.steps}"


def test_customers_and_lists_are_whole_whatever_step_a_run_ends_at(empty_stage: Stage) -> None:
    """customer_import, payment_sync and the replay of what waited, killed at steps of theirs until they survive."""
    stage, toll = empty_stage, Toll()
    for phase, (flow, _) in enumerate(deliver(0).phases):
        deliver(0).put(stage.settings.inbox_path, phase)
        toll.count_steps(stage, flow)
    stage.clear()
    while (number := toll.next_delivery()) is not None:
        known = lists.undisturbed(stage, number * lists.SEEDS_PER_DELIVERY)
        for phase, (flow, _) in enumerate(known.delivery.phases):
            known.delivery.put(stage.settings.inbox_path, phase)
            toll.run_until_it_survives(stage, flow, partial(_wrong_lists, stage, known.delivery, phase))
        lists.assert_healed(stage, known, lists.Toll(number))
        stage.clear()
        print(toll, flush=True)
    assert toll.kills >= KILLS


def test_a_catalogue_is_whole_whatever_step_a_run_ends_at(empty_stage: Stage) -> None:
    """catalog_upsert, killed at steps of its own until it survives, shows the files taken in so far and no others."""
    stage, toll = empty_stage, Toll()
    _fill(stage, catalogues.deliver(0))
    toll.count_steps(stage, "catalog_upsert")
    stage.clear()
    while (number := toll.next_delivery()) is not None:
        known = catalogues.known_states(stage, number * catalogues.SEEDS_PER_DELIVERY)
        _fill(stage, known.files)
        toll.run_until_it_survives(stage, "catalog_upsert", partial(_wrong_catalogue, stage, known))
        assert catalogue(Books(stage.settings)) == known.after[-1]
        left = unsettled(stage.settings)
        assert (left["inbox"], left["parts"], left["runs"]) == ([], [], [])
        stage.clear()
        print(toll, flush=True)
    assert toll.kills >= KILLS


def test_corrections_are_whole_whatever_step_their_replay_ends_at(empty_stage: Stage, tmp_path: Path) -> None:
    """quarantine_replay, killed at steps of its own until it survives, corrects each file whole or not at all."""
    stage, toll = empty_stage, Toll()
    book = lists.corrected_workbook(stage, deliver(0), tmp_path)
    toll.count_steps(stage, "quarantine_replay", workbook=str(book))
    stage.clear()
    while (number := toll.next_delivery()) is not None:
        known = lists.undisturbed_replay(stage, number * lists.SEEDS_PER_DELIVERY, tmp_path)
        book = lists.corrected_workbook(stage, deliver(number), tmp_path)
        toll.run_until_it_survives(stage, "quarantine_replay", partial(_half_corrected, stage), workbook=str(book))
        assert lists.corrected_state(stage) == known.state
        assert unsettled(stage.settings) == HEALED
        stage.clear()
        print(toll, flush=True)
    assert toll.kills >= KILLS


def _wrong_lists(stage: Stage, delivery: Delivery, phase: int) -> list[str]:
    return [*faults(stage.settings, delivery), *lost_files(stage.settings, delivery, phase)]


def _wrong_catalogue(stage: Stage, known: catalogues.Known) -> list[str]:
    found, expected = catalogue(Books(stage.settings)), known.after[files_in(stage.settings)]
    wrong = [name for name, rows in expected.items() if rows != found[name]]
    return [*wrong, *catalogues.lost_files(stage.settings, known.files)]


def _half_corrected(stage: Stage) -> list[str]:
    return [str(row["feed_file_id"]) for row in Books(stage.settings).read(lists.HALF_CORRECTED)]


def _fill(stage: Stage, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        put(stage.settings.inbox_path, name, data)
