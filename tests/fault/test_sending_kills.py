"""Reminders while processes are killed, connections cut and payments booked: nobody hears twice or of what is paid.

Real processes, real SIGKILL, a mail server that counts what it has taken. What must hold, whatever happened:

    sent <= delivered <= sent + unknown        by Message-ID, counted at the server
    each Message-ID is delivered once, each invoice's stage in one delivered mail
    no mail speaks of an invoice whose settlement was committed before the mail's gate

A plain run tries one seed, a campaign (``make campaign``) many; every failure prints its seed.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from tasks.database import FLOWS, engine_for
from tasks.reminders.calendar import Calendar
from tests.conftest import CAMPAIGN_FACTOR
from tests.nursery import Child
from tests.outbox import Queue, make_customers
from tests.smtp_server import Behaviour, FaultyServer, faulty_server
from tests.stage import Stage

pytestmark = pytest.mark.xdist_group("faults")

SEEDS = range(1 * CAMPAIGN_FACTOR)
CUSTOMERS = 24
MOST_KILLS = 2 if CAMPAIGN_FACTOR == 1 else 5
# In turn: mostly the server behaves, a little slowly so that there is time to be killed in.
_MOODS = [
    *[Behaviour.LATE] * 14,
    Behaviour.DROP_AFTER_CONTENT,
    Behaviour.DEFER,
    Behaviour.DEFER_CONTENT,
    Behaviour.BUSY,
]


def working_country(stage: Stage, *, days_ago: int = 0) -> str:
    """A country in which people work today, or worked so many days ago, because nobody else is reminded."""
    today = datetime.now(ZoneInfo(stage.settings.business_timezone)).date()
    calendar, day = Calendar(), today - timedelta(days=days_ago)
    return next(code for code in ("BG", "SE", "SA", "BN", "IR", "NP", "IL") if calendar.is_working_day(code, day))


def start(stage: Stage, server: FaultyServer, **parameters: object) -> Child:
    """Start a run that plans and sends, in a process of its own."""
    environment = {
        "KONTOR_MAIL_MODE": "live",
        "KONTOR_MAIL_FROM": "Kontor <office@kontor.example>",
        "KONTOR_SMTP_URL": server.plain_url,
        "KONTOR_SMTP_TIMEOUT_SECONDS": "5",
        "KONTOR_SMTP_ANSWER_TIMEOUT_SECONDS": "5",
    }
    given = {"dry_run": False, "any_hour": True} | parameters
    return stage.processes.start_flow("overdue_reminders", environment, **given)


def settle_one(queue: Queue, chance: random.Random) -> tuple[str, datetime]:
    """Book a payment: an invoice leaves the ledger; returns its number and an instant after the commit."""
    number = f"C-{chance.randint(1, CUSTOMERS)}/{chance.randint(1, 2)}"
    queue.change(
        "update crm.invoices set listed_until = :day where invoice_number = :number", day=queue.day, number=number
    )
    return number, queue.rows("select clock_timestamp() as now")[0]["now"]


def disturb(queue: Queue, child: Child, server: FaultyServer, chance: random.Random) -> str:
    """Wait for a random moment of a run, then kill it or cut its connections; returns what was done."""
    goal, delay = len(server.taken) + chance.randint(0, 6), chance.uniform(0, 0.15)
    deadline = time.monotonic() + chance.uniform(0.2, 4)
    while child.is_alive and len(server.taken) < goal and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay)
    if chance.random() < 0.3:
        with engine_for(queue.settings, FLOWS).connect() as connection:
            connection.execute(text(_CUT))
        child.wait()
        return "cut"
    child.kill()
    child.wait()
    return "killed"


_CUT = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%overdue%'"


def assert_true_to_the_server(queue: Queue, server: FaultyServer, settled: dict[str, datetime], told: str) -> None:
    """What stands in the database agrees with what the server has, as the module says."""
    rows = queue.rows(
        "select r.message_id, r.state, r.claimed_at, r.reminder_id,"
        " array(select v.invoice_number from outbox.reminder_items i join crm.invoices v using (invoice_id)"
        "       where i.reminder_id = r.reminder_id and i.released_at is null) as numbers from outbox.reminders r"
    )
    by_id = {row["message_id"]: row for row in rows if row["message_id"]}
    ids = [taken.message_id.strip() for taken in server.taken]
    states = Counter(row["state"] for row in rows)
    assert len(ids) == len(set(ids)), told
    assert states["sending"] == 0, told
    assert states["sent"] <= len(ids) <= states["sent"] + states["unknown"], (told, states)
    assert {one for one, row in by_id.items() if row["state"] == "sent"} <= set(ids), told
    spoken = Counter(number for one in ids for number in by_id[one]["numbers"])
    assert all(count == 1 for count in spoken.values()), (told, spoken)
    for taken in server.taken:
        body = taken.message.get_body(("plain",))
        said = body.get_content() if body is not None else ""
        gate = by_id[taken.message_id.strip()]["claimed_at"]
        late = [number for number, instant in settled.items() if instant < gate and f" {number}," in said]
        assert late == [], told


@pytest.mark.parametrize("seed", SEEDS)
def test_reminders_killed_at_any_instant_reach_nobody_twice(empty_stage: Stage, seed: int) -> None:
    """Runs are killed and cut while the server misbehaves and payments come in; then one ends, and one more."""
    stage, chance, told = empty_stage, random.Random(f"sending {seed}"), f"seed {seed}:"
    queue = make_customers(stage.settings, CUSTOMERS, country=working_country(stage))
    settled: dict[str, datetime] = {}
    with faulty_server() as server:
        server.delay_seconds = 0.02
        server.behave = lambda _line: chance.choice(_MOODS)
        for _ in range(MOST_KILLS):
            number, instant = settle_one(queue, chance)
            settled.setdefault(number, instant)
            told += " " + disturb(queue, start(stage, server), server, chance)
        server.behave = lambda _line: Behaviour.TAKE
        ended = start(stage, server).wait()
        assert ended.code in (0, 6), (told, ended.said)
        assert_true_to_the_server(queue, server, settled, told)
        before = queue.rows("select * from outbox.reminders order by 1"), len(server.taken)
        again = start(stage, server).wait()
        assert again.code in (0, 6), (told, again.said)
        assert (queue.rows("select * from outbox.reminders order by 1"), len(server.taken)) == before, told
    print(told, before[1], "delivered")


def test_two_runs_at_once_are_one(empty_stage: Stage) -> None:
    """The second is refused while the first works; each customer hears once."""
    queue = make_customers(empty_stage.settings, 6, country=working_country(empty_stage))
    with faulty_server() as server:
        server.behave, server.delay_seconds = lambda _line: Behaviour.LATE, 0.3
        first = start(empty_stage, server)
        while not server.taken and first.is_alive:
            time.sleep(0.01)
        second = start(empty_stage, server).wait()
        ended = first.wait()
        assert (ended.code, second.code) == (0, 3), (ended.said, second.said)
        assert_true_to_the_server(queue, server, {}, "two runs")
        assert queue.states() == {"sent": 6}


def test_a_run_for_a_past_day_sends_only_when_told_both_words(empty_stage: Stage) -> None:
    """Live alone cancels what it planned for yesterday, allow_past alone keeps nothing; both together send."""
    country = working_country(empty_stage, days_ago=1)
    queue = make_customers(empty_stage.settings, 3, country=country)
    past = {"as_of": str(queue.day - timedelta(days=1))}
    with faulty_server() as server:
        assert start(empty_stage, server, **past).wait().code == 0
        assert (queue.states(), len(server.taken)) == ({"cancelled": 3}, 0)
        assert start(empty_stage, server, **past, dry_run=True, allow_past=True).wait().code == 0
        assert (queue.states(), len(server.taken)) == ({"cancelled": 3}, 0)
        ended = start(empty_stage, server, **past, allow_past=True).wait()
        assert (ended.code, queue.states(), len(server.taken)) == (0, {"cancelled": 3, "sent": 3}, 3), ended.said
