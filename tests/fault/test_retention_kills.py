"""A purge killed at random points, two at once, a hold placed in its midst, and an erasure killed at random points.

Always: nothing held is touched, nothing due is left after the next run, and whoever is gone stands in the ledger.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from sqlalchemy import text

from tasks import database
from tasks.erasures.keys import key_of
from tasks.erasures.traces_store import blind_scan
from tasks.history.store import verify_history
from tasks.local_stack import start_postgres
from tasks.retention.holds_store import place_hold
from tests.conftest import CAMPAIGN_FACTOR
from tests.fault.test_kills import kill_server
from tests.histories import register_file
from tests.nursery import KILLED, Child
from tests.retentions import Office
from tests.stage import Stage

AS_OF = "2026-11-20"
FIRMS = 40
CONTACTS = 60 if CAMPAIGN_FACTOR == 1 else 240  # a campaign has more of a plan to kill before it is done
NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)


@pytest.fixture
def office(empty_stage: Stage) -> Office:
    """Forty firms of sixty contacts that nobody has spoken of for years, and as many old rows of quarantine."""
    made = Office(empty_stage.settings)
    made.begin()
    _fill(made)
    return made


def _fill(office: Office, *, after: int = 0) -> None:
    """The firms where they are missing, and for each that many contacts, numbered from ``after`` on."""
    with database.engine_for(office.settings, database.OWNER).begin() as connection:
        file = {"file": register_file(connection), "firms": FIRMS, "after": after, "contacts": CONTACTS}
        connection.execute(
            text(
                "insert into crm.organizations (customer_number, name, seen_as_of, feed_file_id)"
                " select 'C' || n, 'Firm ' || n, '2020-01-01', :file from generate_series(1, :firms) n"
                " on conflict (customer_number) do nothing"
            ),
            file,
        )
        connection.execute(
            text(
                "insert into crm.contacts (organization_id, contact_key, first_name, email, seen_as_of, feed_file_id)"
                " select organization_id, 'p' || n || '@example.com', 'Person ' || n, customer_number || 'p' || n"
                " || '@example.com', '2020-01-01', :file from crm.organizations,"
                " generate_series(:after + 1, :after + :contacts) n"
            ),
            file,
        )
        connection.execute(
            text(
                "insert into landing.quarantined_rows (feed_file_id, row_number, customer_number, cells, staged,"
                " reasons, state, quarantined_at, resolved_at) select :file, n, 'C' || (1 + n % :firms), '{}', '{}',"
                " '[]', 'rejected', '2020-01-01', '2020-01-02' from generate_series(1, :firms * :contacts) n"
            ),
            file,
        )


def _hold(office: Office, customer: str) -> None:
    with office.erasing() as connection:
        subject: UUID = connection.execute(
            text("select external_id from crm.organizations where customer_number = :n"), {"n": customer}
        ).scalar_one()
        place_hold(
            connection,
            office.ledger,
            entity="crm.organizations",
            subject=subject,
            case_number="C 1/26",
            reason="claim",
            author="counsel",
            review_on=date(2027, 1, 1),
            now=NOW,
        )


def _plan(office: Office, stage: Stage) -> int:
    ended = stage.processes.start_flow("retention_purge", as_of=AS_OF).wait()
    assert ended.code == 0, ended.said
    return int(office.read("select max(plan_id) as n from ops.retention_plans")[0]["n"])


def _apply(stage: Stage, plan: int) -> float:
    ended = stage.processes.start_flow("retention_purge", plan_id=plan, dry_run=False, approved_by="second").wait()
    assert ended.code == 0, ended.said
    return float(ended.seconds)


def _wait_for_work(office: Office, child: Child) -> None:
    """Wait until the process has written to the ledger or has ended: from here on a kill meets it at work."""
    before = office.ledger.path.stat().st_size
    while child.is_alive and office.ledger.path.stat().st_size == before:
        time.sleep(0.002)


def _contacts(office: Office, customer: str = "%") -> set[str]:
    rows = office.read(
        "select c.external_id::text as id from crm.contacts c join crm.organizations using (organization_id)"
        " where customer_number like :n",
        n=customer,
    )
    return {row["id"] for row in rows}


def _in_ledger(office: Office) -> set[str]:
    return {str(s.external_id) for line in office.ledger.in_force() for s in line.subjects if s.external_id}


def _check_end(office: Office, everybody: set[str], held: set[str]) -> None:
    """Only who is held is left, with history whole, and everybody who is gone stands in the ledger and its copy."""
    assert _contacts(office) == held
    assert everybody - held <= _in_ledger(office)
    assert not held & _in_ledger(office)
    left = office.read("select distinct customer_number from landing.quarantined_rows")
    assert left == [{"customer_number": "C7"}]
    with office.erasing() as connection:
        assert verify_history(connection, []).breaks == ()
    mirrored = {row["sequence"] for row in office.read("select sequence from ops.erasure_ledger")}
    assert {line.sequence for line in office.ledger.in_force()} <= mirrored


@dataclass
class Series:
    """Kills of one purge after another: when a plan is done there is a new one, about as many people again."""

    office: Office
    stage: Stage
    everybody: set[str]
    held: set[str]
    plan: int
    plans: int = 1
    kills: int = 0

    def open_plan(self) -> int:
        """The plan that is still to be carried out; a new one where the last is done."""
        if _state(self.office, self.plan) == "applied":
            _fill(self.office, after=CONTACTS * self.plans)
            self.everybody |= _contacts(self.office)
            self.held |= _contacts(self.office, "C7")
            self.plan, self.plans = _plan(self.office, self.stage), self.plans + 1
        return self.plan

    def begin(self) -> Child:
        """A purge that has begun to destroy, or has ended."""
        child = self.stage.processes.start_flow(
            "retention_purge", plan_id=self.open_plan(), dry_run=False, approved_by="second"
        )
        _wait_for_work(self.office, child)
        return child

    def check(self) -> None:
        """Who is held is there, and whoever is gone has a line that was written before; the next run voids the rest."""
        there = _contacts(self.office)
        assert self.held <= there
        assert self.everybody - there <= _in_ledger(self.office)

    def end(self) -> None:
        """Carry the last plan out and make another one: nothing due is left."""
        if _state(self.office, self.plan) != "applied":
            _apply(self.stage, self.plan)
        _apply(self.stage, _plan(self.office, self.stage))
        _check_end(self.office, self.everybody, self.held)


def _state(office: Office, plan: int) -> str:
    return str(office.read("select state from ops.retention_plans where plan_id = :p", p=plan)[0]["state"])


@pytest.fixture
def series(office: Office, stage: Stage) -> Series:
    """A plan about everybody, of whom those of one firm are held."""
    _hold(office, "C7")
    return Series(office, stage, _contacts(office), _contacts(office, "C7"), _plan(office, stage))


def test_a_purge_killed_at_random_points_loses_nothing_and_spares_who_is_held(series: Series) -> None:
    """Killed again and again, at points spread over the length of a whole run, then run to its end."""
    chance = random.Random(8)
    while series.kills < 2 * CAMPAIGN_FACTOR:
        child = series.begin()
        time.sleep(chance.uniform(0, 0.1))
        child.kill()
        ended = child.wait()
        assert ended.code in (KILLED, 0), ended.said
        series.kills += ended.code == KILLED
        series.check()
    series.end()
    print(f"{series.kills} purges killed at work, over {series.plans} plans, {len(series.everybody):,} people")


@pytest.mark.campaign
def test_a_database_server_that_dies_under_a_purge_loses_no_proof(series: Series) -> None:
    """What the crash loses of the last batches is there again and due; whoever is gone stands in the ledger."""
    chance = random.Random(10)
    while series.kills < 2 * CAMPAIGN_FACTOR:
        child = series.begin()
        time.sleep(chance.uniform(0, 0.1))
        kill_server(series.stage.settings)
        series.kills += child.wait().code != 0
        start_postgres(series.stage.settings.home)
        series.check()
    series.end()
    print(f"{series.kills} purges whose server was killed, over {series.plans} plans, {len(series.everybody):,} people")


def test_two_purges_at_once_and_a_hold_in_their_midst(office: Office, stage: Stage) -> None:
    """One of two is told that the other is running; a hold placed while it works keeps whoever is still there."""
    _hold(office, "C7")
    everybody = _contacts(office)
    plan = _plan(office, stage)
    purges = [
        stage.processes.start_flow("retention_purge", plan_id=plan, dry_run=False, approved_by="second")
        for _ in range(2)
    ]
    while purges[0].is_alive and len(_contacts(office)) == len(everybody):
        time.sleep(0.01)
    _hold(office, f"C{FIRMS}")
    late = _contacts(office, f"C{FIRMS}")  # the hold stands: who is here now must stay
    codes = sorted(child.wait().code for child in purges)
    assert codes[0] == 0
    assert codes[1] in (0, 3)
    assert _contacts(office, f"C{FIRMS}") == late
    assert not late & _in_ledger(office)
    assert everybody - _contacts(office) <= _in_ledger(office)
    with office.erasing() as connection:
        connection.execute(
            text(
                "update ops.legal_holds set released_at = now(), released_by = 'x', release_reason = 'x'"
                " where hold_id = (select max(hold_id) from ops.legal_holds)"
            )
        )
    _apply(stage, _plan(office, stage))
    _check_end(office, everybody, _contacts(office, "C7"))


def test_an_erasure_killed_at_random_points_is_finished_by_the_same_command(office: Office, stage: Stage) -> None:
    """Whatever the kill left, the next try finds and erases the rest; a search by hash finds nobody."""
    chance = random.Random(9)
    report = office.settings.home / "reports"
    report.mkdir(exist_ok=True)
    kills = 0
    for number in range(2 * CAMPAIGN_FACTOR):
        customer = f"C{1 + number % FIRMS}"
        address = f"{customer}p{1 + number // FIRMS}@example.com"
        (report / f"{number}.csv").write_text(f"no;mail\n{customer};{address}\nC4;other@example.com\n")
        arguments = ("erase", address, "--live", "--yes", "--reason", "asked by letter")
        child = stage.processes.start(*arguments)
        time.sleep(chance.uniform(0.1, 1.0))
        child.kill()
        killed = child.wait()
        assert killed.code in (KILLED, 0), killed.said
        kills += killed.code == KILLED
        ended = stage.processes.run(*arguments)
        assert ended.code == 0, ended.said
        assert office.read("select count(*) as n from crm.contacts where email = :e", e=address) == [{"n": 0}]
        assert (report / f"{number}.csv").read_text() == f"no;mail\n{customer};\nC4;other@example.com\n"
    with office.erasing() as connection:
        assert blind_scan(connection, key_of(office.settings.home)) == {}
    assert kills
    print(f"{kills} of {2 * CAMPAIGN_FACTOR} erasures killed before their end")
