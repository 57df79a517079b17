"""Reminders killed at any point of planning, gate, sending and recording: one kill a seed, twenty seeds a world.

The process that runs ``overdue_reminders`` counts its own steps through the code that matters (every call and return
in planning, sending, the mail connection and the database driver) and ends itself with SIGKILL at a step drawn from
the seed: no handler, no farewell, nothing flushed. Each seed brings a few new customers with overdue items, and finds
what the run before it left lying, so that each cleans up after the one before. Payments
are booked in between, the mail server misbehaves, the business day moves between places of the world, and now and then
the database is killed too. What must hold is what :mod:`tests.fault.test_sending_kills` says.
"""

from __future__ import annotations

import random
from collections import Counter

from tasks.local_stack import start_postgres
from tests.conftest import CAMPAIGN_FACTOR
from tests.fault.test_kills import kill_server
from tests.fault.test_sending_kills import Story, assert_true_to_the_server, start, working_country
from tests.nursery import KILLED
from tests.outbox import add_customers, make_customers
from tests.smtp_server import Behaviour, FaultyServer, faulty_server
from tests.stage import Stage

SEEDS = 4 if CAMPAIGN_FACTOR == 1 else 20 * CAMPAIGN_FACTOR
CUSTOMERS = 3
# An undisturbed run counts 35,000 to 55,000 steps, the latter half of them from the gate on.
LAST_STEP = 60_000
PLACES = ("Etc/GMT+12", "Europe/Sofia", "Pacific/Kiritimati")
_MOODS = [
    *[Behaviour.TAKE] * 20,
    Behaviour.DROP_AFTER_CONTENT,
    Behaviour.GARBAGE_AFTER_CONTENT,
    Behaviour.DEFER,
    Behaviour.DROP_AT_DATA,
    Behaviour.REFUSE_CONTENT,
]
SEEDS_A_WORLD, _KILL_SERVER_EVERY = 20, 97


def test_a_run_that_ends_at_any_step_reaches_nobody_twice(empty_stage: Stage) -> None:
    """Seed after seed a run is killed at a step of its own; the database always agrees with what was delivered."""
    ends, states, delivered = Counter[int](), Counter[str](), 0
    for first in range(0, SEEDS, SEEDS_A_WORLD):
        empty_stage.clear()
        with faulty_server() as server:
            story = _live_through(empty_stage, server, range(first, min(first + SEEDS_A_WORLD, SEEDS)), ends)
            assert_true_to_the_server(story.queue, server, story.settled, story.told)
            states.update(story.queue.states())
            delivered += len(server.taken)
        print(f"{sum(ends.values())} seeds, ends {dict(ends)}, {delivered} delivered, {dict(states)}", flush=True)
    assert ends[KILLED] >= SEEDS // 4, ends


def _live_through(stage: Stage, server: FaultyServer, seeds: range, ends: Counter[int]) -> Story:
    """One world: a run that is killed for each of these seeds, and one at the end that is not."""
    country, chance = working_country(stage), random.Random()
    queue = make_customers(stage.settings, CUSTOMERS, country=country)
    story = Story(stage, queue, server, chance, [], f"seeds {seeds.start} to {seeds.stop - 1}")
    server.behave = lambda _line: chance.choice(_MOODS)
    for place, seed in enumerate(seeds):
        chance.seed(f"point {seed}")
        if place:
            add_customers(queue, 1 + CUSTOMERS * place, CUSTOMERS, country=country)
        story.settle_one(among=(1 + max(0, CUSTOMERS * (place - 3)), CUSTOMERS * (place + 1)))
        child = start(
            stage,
            server,
            {
                "KONTOR_BUSINESS_TIMEZONE": chance.choice(PLACES),
                "KONTOR_TEST_LAST_STEP": str(chance.randint(1, LAST_STEP)),
            },
        )
        if seed % _KILL_SERVER_EVERY == _KILL_SERVER_EVERY - 1:
            kill_server(stage.settings)
        ends[child.wait().code] += 1
        start_postgres(queue.settings.home)
        assert len(server.ids()) == len(set(server.ids())), seed
    server.behave = lambda _line: Behaviour.TAKE
    ended = start(stage, server).wait()
    assert ended.code in (0, 6), ended.said
    return story
