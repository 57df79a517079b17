"""A past period run again: killed, paused, cancelled or failing on the way, it ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks import database
from tasks.prefect_server import find_prefect, start_prefect
from tasks.stack import prefect_options
from tests.conftest import CAMPAIGN_FACTOR
from tests.fault.test_kills import kill_server
from tests.ledgers import Books
from tests.nursery import KILLED, Child, Ended
from tests.stage import Stage

FIRST, LAST = date(2012, 1, 2), date(2012, 1, 22)
WEEKS = 3
MANY = 30  # so many that a person has time to pause it
WAYS = ("database", "prefect", "driver", "database", "prefect", "nobody")
SEEDS = range(1 * CAMPAIGN_FACTOR)
LONGEST = 900.0


def _request(source: Path, **more: Any) -> dict[str, Any]:
    asked = {
        "flow": "payment_sync",
        "from_day": str(FIRST),
        "to_day": str(LAST),
        "source_folder": str(source),
        "reason": "the weeks before Kontor",
        "live": True,
    }
    return asked | more


def _backfill(stage: Stage, **parameters: Any) -> Ended:
    return stage.processes.start_flow("backfill", **parameters).wait()


def _windows(books: Books) -> list[tuple[int, str]]:
    rows = books.read("select window_number, state from ops.backfill_windows order by 1")
    return [(row["window_number"], row["state"]) for row in rows]


@pytest.fixture
def books(empty_stage: Stage, real_data: Path) -> Books:
    """Books that know the customers and nothing else."""
    made = Books(empty_stage.settings)
    made.take_in(real_data / "receivables" / "customers.xlsx", "organizations", date(2012, 1, 1))
    return made


@pytest.fixture(scope="module")
def source(real_data: Path) -> Path:
    """The folder of real weekly ledgers."""
    return real_data / "receivables" / "weekly-2012"


def test_a_backfill_equals_the_same_imports_one_by_one(stage: Stage, books: Books, source: Path) -> None:
    """Weeks by backfill leave the database that the same imports leave; asked again, nothing is left to run."""
    for path in sorted(source.glob("*.xlsx"))[:WEEKS]:
        books.take_in(path, "open_items")
    books.classify()
    by_hand = books.state()
    stage.clear()
    books.take_in(source.parent / "customers.xlsx", "organizations", date(2012, 1, 1))

    planned = _backfill(stage, **_request(source, live=False))
    assert planned.code == 0, planned.said
    assert books.read("select 1 from ops.backfills") == []

    ended = _backfill(stage, **_request(source))
    assert ended.code == 0, ended.said
    assert books.state() == by_hand
    assert _windows(books) == [(n, "done") for n in range(1, WEEKS + 1)]
    figures = books.read("select state, figures_before, figures_after from report.backfills")
    assert figures[0]["state"] == "done"
    assert figures[0]["figures_before"]["files applied"] == 1
    assert figures[0]["figures_after"]["files applied"] == 1 + WEEKS

    again = _backfill(stage, **_request(source))
    assert again.code == 0, again.said
    assert books.state() == by_hand
    assert {state for _, state in _windows(books)} == {"done", "skipped"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_driver_is_gone_on_with(stage: Stage, books: Books, source: Path, seed: int) -> None:
    """Killed at random instants, the backfill ends as the undisturbed one: each week in once, no window left."""
    chance = random.Random(f"backfill {seed}")
    parameters = _request(source)
    kills = 0
    for _ in range(2):
        child = stage.processes.start_flow("backfill", **parameters)
        goal = chance.randint(0, WEEKS)
        while child.is_alive and sum(state == "done" for _, state in _windows(books)) < goal:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.3))
        child.kill()
        ended = child.wait()
        kept = books.read("select backfill_id, state from ops.backfills")
        if kept:
            parameters = {"backfill_id": kept[0]["backfill_id"], "live": True}
        if ended.code != KILLED or (kept and kept[0]["state"] == "done"):
            break
        kills += 1
    state = books.read("select state from ops.backfills")
    if not state or state[0]["state"] != "done":
        ended = _backfill(stage, **parameters)
        assert ended.code == 0, ended.said
    assert _windows(books) == [(n, "done") for n in range(1, WEEKS + 1)]
    files = books.read("select as_of, count(*) from landing.feed_files where feed = 'open_items' group by 1 order by 1")
    assert [row["count"] for row in files] == [1] * WEEKS
    assert books.read("select state from ops.backfills") == [{"state": "done"}]
    print(f"backfill seed {seed}: {kills} kills")


@pytest.mark.campaign
def test_a_year_killed_in_every_way_ends_as_the_undisturbed_one(stage: Stage, books: Books, source: Path) -> None:
    """Driver, database and Prefect's server killed in turn during 2012: the year ends as 53 imports one by one."""
    for path in sorted(source.glob("*.xlsx")):
        books.take_in(path, "open_items")
    books.classify()
    by_hand = books.state()
    stage.clear()
    books.take_in(source.parent / "customers.xlsx", "organizations", date(2012, 1, 1))

    chance = random.Random("a year")
    first = stage.processes.start_flow("backfill", **_request(source, to_day="2012-12-31"))
    ended, kills = _disturb(stage, books, first, "driver", chance), ["driver"]
    while books.read("select state from ops.backfills") != [{"state": "done"}]:
        way = WAYS[min(len(kills), len(WAYS)) - 1]
        child = stage.processes.start("backfill", "resume", "1", "--live")
        ended = _disturb(stage, books, child, way, chance)
        kills.append(way)
        assert len(kills) < 12, (kills, ended.said)
    assert books.state() == by_hand
    assert {state for _, state in _windows(books)} == {"done"}
    assert books.read("select count(*) from outbox.reminders") == [{"count": 0}]
    assert books.read("select flow from report.runs where state = 'running'") == []
    assert {"driver", "database", "prefect"} <= set(kills)
    print(kills)


def _disturb(stage: Stage, books: Books, child: Child, way: str, chance: random.Random) -> Ended:
    """Let some windows pass, kill whoever ``way`` says, put up again what was killed, and say how the driver ended."""
    goal = _done(books) + chance.randint(2, 6)
    while child.is_alive and (way == "nobody" or _done(books) < goal):
        time.sleep(0.05)
    time.sleep(chance.uniform(0, 0.3))
    if way == "driver":
        child.kill()
    elif way == "database":
        kill_server(stage.settings)
    elif way == "prefect":
        server = find_prefect(stage.settings.home)
        if server is not None:
            os.killpg(server.pid, signal.SIGKILL)
        _put_up(stage)  # as `kontor up` does within seconds
    ended = child.wait(LONGEST)
    _put_up(stage)
    return ended


def _put_up(stage: Stage) -> None:
    database.prepare(stage.settings)
    url, options = database.prefect_database_url(stage.settings), prefect_options(stage.settings)
    start_prefect(stage.settings.home, database_url=url, options=options)


def _done(books: Books) -> int:
    return sum(state == "done" for _, state in _windows(books))


@pytest.mark.campaign
def test_two_backfills_of_the_same_days_are_refused_and_a_paused_one_waits(
    stage: Stage, books: Books, source: Path
) -> None:
    """A person pauses it: it stops after the window under way, blocks another of those days, and resumes."""
    asked = _request(source, to_day=str(FIRST + timedelta(weeks=MANY) - timedelta(days=1)))
    child = stage.processes.start_flow("backfill", **asked)
    while child.is_alive and not any(state == "done" for _, state in _windows(books)):
        time.sleep(0.02)
    paused = stage.processes.run("backfill", "pause", "1")
    assert paused.code == 0, paused.said
    ended = child.wait()
    assert ended.code == 0, ended.said
    states = [state for _, state in _windows(books)]
    assert {"done", "waiting"} == set(states)
    assert books.read("select state from ops.backfills") == [{"state": "paused"}]

    other = _backfill(stage, **asked)
    assert other.code == 3, other.said
    assert "Backfill 1 of payment_sync covers some of the days" in other.said

    ended = _backfill(stage, backfill_id=1, live=True)
    assert ended.code == 0, ended.said
    assert _windows(books) == [(n, "done") for n in range(1, MANY + 1)]


@pytest.mark.campaign
def test_a_window_that_fails_stops_no_other_and_is_tried_again(
    stage: Stage, books: Books, source: Path, tmp_path: Path
) -> None:
    """A broken file fails its week; the rest is done, and once the file is mended the failed week runs by itself."""
    for path in sorted(source.glob("*.xlsx"))[:WEEKS]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    middle = sorted(tmp_path.glob("*.xlsx"))[1]
    good = middle.read_bytes()
    middle.write_bytes(sorted(tmp_path.glob("*.xlsx"))[2].read_bytes())  # its title says another day than its name

    ended = _backfill(stage, **_request(tmp_path))
    states = dict(_windows(books))
    assert states[2] in ("skipped", "failed"), ended.said
    assert {state for number, state in states.items() if number != 2} == {"done"}

    middle.write_bytes(good)
    ended = _backfill(stage, **_request(tmp_path))
    assert ended.code == 0, ended.said
    files = books.read("select count(*) from landing.feed_files where feed = 'open_items' and state = 'applied'")
    assert files == [{"count": WEEKS}]


def test_a_cancelled_backfill_cannot_be_resumed(stage: Stage, books: Books, source: Path) -> None:
    """What its windows did stays; going on with it is refused in words."""
    ended = _backfill(stage, **_request(source, to_day=str(FIRST)))
    assert ended.code == 0, ended.said
    refused = stage.processes.run("backfill", "cancel", "1")
    assert refused.code == 3
    assert "Backfill 1 is done" in refused.said


def test_a_backfill_of_reminders_and_reports_keeps_no_mail(stage: Stage, books: Books, source: Path) -> None:
    """Over a past month reminders are decided dry and finance's report is written as files: no mail is kept."""
    for path in sorted(source.glob("*.xlsx"))[:WEEKS]:
        books.take_in(path, "open_items")
    for flow in ("overdue_reminders", "finance_report"):
        ended = _backfill(stage, flow=flow, from_day=str(FIRST), to_day=str(LAST), every="month", reason="x", live=True)
        assert ended.code == 0, ended.said
    assert books.read("select count(*) from outbox.reminders") == [{"count": 0}]
    assert books.read("select count(*) from ops.reminder_decisions") == [{"count": 0}]
    runs = books.read(
        "select flow, as_of, dry_run from ops.run_ledger where flow <> 'backfill' and flow <> 'test' order by 1"
    )
    assert runs == [{"flow": flow, "as_of": LAST, "dry_run": True} for flow in ("finance_report", "overdue_reminders")]
    assert list((stage.settings.home / "reports" / "finance").rglob("*2012-01-22*"))
