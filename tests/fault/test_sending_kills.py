"""Reminders while processes are killed, connections cut, the database restarted, the clock moved and payments booked.

Real processes, real SIGKILL, a mail server that counts what it has taken. What must hold, whatever happened:

    sent <= delivered <= sent + unknown        by Message-ID, counted at the server
    each Message-ID is delivered once, each invoice's stage in one delivered mail
    no mail speaks of an invoice whose settlement was committed before the mail's gate

Every seed is one of two stories. *Now*: each run finds the business day in another place of the world, where it may be
yesterday or tomorrow. *Spring*: runs for days of March and April 2026, over the change to summer time, the end of the
month and weekends, told that they may send, with up to three stages of each invoice. A plain run tries both once, a
campaign (``make campaign``) many; every failure prints its seed.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from tasks import database
from tasks.database import FLOWS, engine_for
from tasks.local_stack import start_postgres
from tasks.reminders.calendar import Calendar
from tests.conftest import CAMPAIGN_FACTOR
from tests.fault.test_kills import kill_server
from tests.nursery import Child
from tests.outbox import Queue, make_customers
from tests.smtp_server import Behaviour, FaultyServer, faulty_server
from tests.stage import Stage

SEEDS = range(2 * CAMPAIGN_FACTOR)
CUSTOMERS = 24
MOST_KILLS = 2 if CAMPAIGN_FACTOR == 1 else 4
# 26 hours apart: whatever the time, it is another day in the first than in the last.
PLACES = ("Etc/GMT+12", "Europe/Sofia", "Pacific/Kiritimati")
# Summer time began on 29 March 2026; the 21st, 22nd, 28th, 29th, 4th and 5th are weekends.
SPRING = tuple(date(2026, 3, 20) + timedelta(days=n) for n in (0, 1, 7, 8, 9, 10, 11, 12, 14, 17, 18, 19))
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


def start(stage: Stage, server: FaultyServer, place: Mapping[str, str] | None = None, /, **parameters: object) -> Child:
    """Start a run that plans and sends, in a process of its own."""
    environment = {
        "KONTOR_MAIL_MODE": "live",
        "KONTOR_MAIL_FROM": "Kontor <office@kontor.example>",
        "KONTOR_SMTP_URL": server.plain_url,
        "KONTOR_SMTP_TIMEOUT_SECONDS": "5",
        "KONTOR_SMTP_ANSWER_TIMEOUT_SECONDS": "5",
        **(place or {}),
    }
    given = {"dry_run": False, "any_hour": True} | parameters
    return stage.processes.start_flow("overdue_reminders", environment, **given)


@dataclass
class Story:
    """What one seed does: where it stands, which days its runs are for, and what became of it so far."""

    stage: Stage
    queue: Queue
    server: FaultyServer
    chance: random.Random
    days: list[date]
    told: str
    settled: dict[str, datetime] = field(default_factory=dict)

    def start(self) -> Child:
        """Start the next run: for the next day of spring, or for today somewhere in the world."""
        if not self.days:
            place = {"KONTOR_BUSINESS_TIMEZONE": self.chance.choice(PLACES)}
            return start(self.stage, self.server, place)
        day = self.days.pop(0) if len(self.days) > 1 else self.days[0]
        return start(self.stage, self.server, as_of=str(day), allow_past=True)

    def settle_one(self, among: tuple[int, int] = (1, CUSTOMERS)) -> None:
        """Book a payment: an invoice leaves the ledger; the instant kept lies after the commit."""
        number = f"C-{self.chance.randint(*among)}/{self.chance.randint(1, 2)}"
        self.queue.change(
            "update crm.invoices set listed_until = :day where invoice_number = :number",
            day=self.queue.day - timedelta(days=2),
            number=number,
        )
        self.settled.setdefault(number, self.queue.rows("select clock_timestamp() as now")[0]["now"])

    def disturb(self) -> None:
        """Start a run, wait for a random moment of it, and kill it, cut it off, kill the database or run beside it.

        A moment is a number of mails and a little time after them; with none it falls among starting and planning.
        """
        child, chance = self.start(), self.chance
        before, mails = len(self.server.taken), chance.randint(-3, 12)
        delay = chance.uniform(0.1, 5) if mails <= 0 else chance.uniform(0, 0.1)
        while child.is_alive and len(self.server.taken) < before + mails:
            time.sleep(0.005)
        time.sleep(delay)
        what = chance.choices(("killed", "cut", "restarted", "beside"), (5, 2, 2, 2))[0]
        self.told += f" {what}@{len(self.server.taken)}"
        if what == "restarted":
            kill_server(self.stage.settings)
        elif what == "cut":
            with engine_for(self.queue.settings, FLOWS).connect() as connection:
                connection.execute(text(_CUT))
        elif what == "beside":
            beside = self.start().wait()
            # 3: told that it is not alone; otherwise the other had ended before it looked, or the server spoke.
            assert beside.code in (0, 3, 5, 6), (self.told, beside.said)
        if what in ("killed", "beside"):
            child.kill()
        ended = child.wait()
        self.told += f":{ended.code}"
        start_postgres(self.queue.settings.home)  # up, and left in whatever place of the world it was


_CUT = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%overdue%'"


def assert_true_to_the_server(queue: Queue, server: FaultyServer, settled: dict[str, datetime], told: str) -> None:
    """What stands in the database agrees with what the server has, as the module says."""
    rows = queue.rows(
        "select r.message_id, r.state, r.claimed_at, r.reminder_id,"
        " array(select v.invoice_number || ' ' || i.stage || i.sequence"
        "       from outbox.reminder_items i join crm.invoices v using (invoice_id)"
        "       where i.reminder_id = r.reminder_id and i.released_at is null) as steps from outbox.reminders r"
    )
    by_id = {row["message_id"]: row for row in rows if row["message_id"]}
    ids = [taken.message_id.strip() for taken in server.taken]
    states = Counter(row["state"] for row in rows)
    assert len(ids) == len(set(ids)), told
    assert states["sending"] == 0, told
    assert states["sent"] <= len(ids) <= states["sent"] + states["unknown"], (told, states)
    assert {one for one, row in by_id.items() if row["state"] == "sent"} <= set(ids), told
    spoken = Counter(step for one in ids for step in by_id[one]["steps"])
    assert all(count == 1 for count in spoken.values()), (told, spoken)
    for taken in server.taken:
        body = taken.message.get_body(("plain",))
        said = body.get_content() if body is not None else ""
        gate = by_id[taken.message_id.strip()]["claimed_at"]
        late = [number for number, instant in settled.items() if instant < gate and f" {number}," in said]
        assert late == [], told


@pytest.fixture
def worn_stage(empty_stage: Stage) -> Iterator[Stage]:
    """The empty stage, put back in its place of the world afterwards."""
    yield empty_stage
    database.prepare(empty_stage.settings)


@pytest.mark.parametrize("seed", SEEDS)
def test_reminders_killed_at_any_instant_reach_nobody_twice(worn_stage: Stage, seed: int) -> None:
    """Runs are disturbed while the server misbehaves and payments come in; then one ends, and one more."""
    stage, chance, spring = worn_stage, random.Random(f"sending {seed}"), seed % 2 == 1
    queue = make_customers(stage.settings, CUSTOMERS, country="BG" if spring else working_country(stage))
    days = sorted(chance.sample(SPRING, MOST_KILLS + 1)) if spring else []
    if spring:
        move_to_spring(queue)
    with faulty_server() as server:
        server.delay_seconds = 0.02
        server.behave = lambda _line: chance.choice(_MOODS)
        story = Story(stage, queue, server, chance, days, f"seed {seed}:")
        for _ in range(MOST_KILLS):
            story.settle_one()
            story.disturb()
        server.behave = lambda _line: Behaviour.TAKE
        ended = story.start().wait()
        assert ended.code in (0, 6), (story.told, ended.said)
        assert_true_to_the_server(queue, server, story.settled, story.told)
        if spring or CAMPAIGN_FACTOR > 1:
            return_and_compare(story, last=str(story.days[-1]) if spring else None)
    print(story.told, len(server.taken), "delivered", flush=True)


def return_and_compare(story: Story, last: str | None) -> None:
    """Once more for the same day, twice at home: the second of two leaves every mail as it is.

    What was settled since is open by the facts of a past day: each time its mail is planned and cancelled at the gate.
    """
    more = {"as_of": last, "allow_past": True} if last else {}
    assert start(story.stage, story.server, **more).wait().code in (0, 6), story.told
    before = story.queue.rows(_STANDING), len(story.server.taken)
    assert start(story.stage, story.server, **more).wait().code in (0, 6), story.told
    after = story.queue.rows(_STANDING), len(story.server.taken)
    assert after == before, story.told
    assert_true_to_the_server(story.queue, story.server, story.settled, story.told)


_STANDING = "select * from outbox.reminders where state <> 'cancelled' order by 1"


def move_to_spring(queue: Queue) -> None:
    """The same customers with invoices of that spring, and a ledger for every week of it."""
    queue.change(
        "update crm.invoices set listed_from = date '2026-02-01', issued_on = date '2026-01-15',"
        " due_on = date '2026-02-26' + mod(invoice_id, 5)::integer * 4"
    )
    queue.change(
        "insert into landing.feed_files (file_name, sha256, byte_size, contract, contract_version, contract_sha256,"
        " feed, source, mode, as_of, state, run_id)"
        " select 'week.csv', md5(random()::text), 1, f.contract, '1', '', f.feed, f.source, f.mode,"
        " date '2026-03-02' + 7 * n, 'applied', f.run_id from landing.feed_files f, generate_series(0, 6) n"
    )


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
