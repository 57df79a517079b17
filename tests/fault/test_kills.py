"""Killed at any instant, again and again: nothing half-done is ever seen, and the next run makes good for it.

Real processes and real SIGKILL. The instants come from a seed that every failure prints; a plain run tries a few
seeds, a campaign (``make campaign``) hundreds. Figures of campaigns stand in ``docs/reliability.md``.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text

from configs.settings import Settings
from tasks import database
from tasks.local_stack import find_postgres, remove_postgres
from tests.conftest import CAMPAIGN_FACTOR
from tests.corrections import export, fill_in, held
from tests.deliveries import HEALED, Delivery, deliver, faults, files_in, lost_files, put, unsettled
from tests.ledgers import Books
from tests.nursery import KILLED, Child, Ended
from tests.stage import Stage

RUN_SEEDS = range(1 * CAMPAIGN_FACTOR)
PREFECT_SEEDS = range(1 + CAMPAIGN_FACTOR // 20)
REPLAY_SEEDS = range(1 * CAMPAIGN_FACTOR)
SERVER_SEEDS = range(1 * CAMPAIGN_FACTOR)
PREPARE_SEEDS = range(1 + CAMPAIGN_FACTOR // 4)
SEEDS_PER_DELIVERY = 15  # the undisturbed run of a delivery is needed once
MOST_KILLS = 1 if CAMPAIGN_FACTOR == 1 else 6  # of one run; then it is left to end
FILE_SECONDS = 0.25  # what a small file takes, roughly; a kill falls within this time after a file was taken in

Start = Callable[[str], Child]
State = dict[str, list[dict[str, Any]]]


@dataclass
class Undisturbed:
    """What a delivery leaves when nobody kills anything, and how long each of its runs takes."""

    delivery: Delivery
    state: State
    seconds: list[float]


@dataclass
class Toll:
    """What was killed: process ids, and how many files were in and for how many seconds when it happened."""

    seed: int
    killed: list[int] = field(default_factory=list)
    instants: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"seed {self.seed}: {len(self.instants)} kills ({', '.join(self.instants)})"


_UNDISTURBED: dict[int, Undisturbed] = {}


def undisturbed(stage: Stage, seed: int) -> Undisturbed:
    """Run a seed's delivery without any kill, once; leaves the stage empty."""
    number = seed // SEEDS_PER_DELIVERY
    if number not in _UNDISTURBED:
        delivery, seconds = deliver(number), []
        for phase, (flow, _) in enumerate(delivery.phases):
            delivery.put(stage.settings.inbox_path, phase)
            ended = stage.processes.start_flow(flow).wait()
            assert ended.code == 0, ended.said
            seconds.append(ended.seconds)
        assert unsettled(stage.settings) == HEALED
        assert faults(stage.settings, delivery) == []
        state = Books(stage.settings).state()
        # No delivery sends a ledger twice for one day, so there is no earlier word of one to keep.
        found = {name: len(rows) for name, rows in state.items() if name != "earlier_ledgers"}
        assert all(found.values()), found
        _UNDISTURBED[number] = Undisturbed(delivery, state, seconds)
        stage.clear()
    return _UNDISTURBED[number]


def run_until_it_survives(stage: Stage, phase: int, known: Undisturbed, toll: Toll, start: Start, most: int) -> Ended:
    """Start a phase's flow and kill it at a random instant until it ends by itself; look around after each kill.

    An instant is a number of files to be taken in by this run and a time after that, so that it falls among the work
    however busy the machine is; with no file it falls anywhere between the start and the first file.
    """
    chance = random.Random(f"kills {toll.seed} {phase}")
    flow, _ = known.delivery.phases[phase]
    goal = sum(len(files) for _, files in known.delivery.phases[: phase + 1])
    for _ in range(most):
        before = files_in(stage.settings)
        files = chance.randint(0, goal - before)
        delay = chance.uniform(0, FILE_SECONDS if files else 0.8 * known.seconds[phase])
        child = start(flow)
        while child.is_alive and files_in(stage.settings) < before + files:
            time.sleep(0.03)
        time.sleep(delay)
        child.kill()
        ended = child.wait()
        if ended.code != KILLED:
            return ended
        toll.killed.append(child.pid)
        toll.instants.append(f"{flow} {before + files}+{delay:.2f}s")
        assert faults(stage.settings, known.delivery) == [], toll
        assert lost_files(stage.settings, known.delivery, phase) == [], toll
    return start(flow).wait()


def assert_healed(stage: Stage, known: Undisturbed, toll: Toll) -> None:
    """Everything is as if nobody had killed anything, and every dead run is known as such."""
    assert unsettled(stage.settings) == HEALED, toll
    assert faults(stage.settings, known.delivery) == [], toll
    assert Books(stage.settings).state() == known.state, toll
    with database.engine_for(stage.settings).connect() as connection:
        states = connection.execute(
            text("select process_id, state from ops.run_ledger where process_id = any(:killed)"),
            {"killed": toll.killed},
        ).all()
    # One that was killed after its last word stands as done.
    assert {state for _, state in states} <= {"abandoned", "done"}, toll


@pytest.mark.parametrize("seed", RUN_SEEDS)
def test_runs_killed_at_any_instant_leave_what_undisturbed_ones_leave(empty_stage: Stage, seed: int) -> None:
    """customer_import, payment_sync and the replay of what waited, each killed until it survives."""
    stage, toll = empty_stage, Toll(seed)
    known = undisturbed(stage, seed)
    for phase in range(len(known.delivery.phases)):
        known.delivery.put(stage.settings.inbox_path, phase)
        ended = run_until_it_survives(stage, phase, known, toll, stage.processes.start_flow, MOST_KILLS)
        assert ended.code == 0, (toll, ended.said)
    assert_healed(stage, known, toll)
    print(toll)


@pytest.mark.parametrize("seed", PREFECT_SEEDS)
def test_runs_under_prefect_killed_at_any_instant_heal_too(empty_stage: Stage, seed: int) -> None:
    """`kontor run payment_sync` as it is, with Prefect's engine and server, killed twice and then left to end."""
    stage, toll = empty_stage, Toll(seed)
    known = undisturbed(stage, seed)
    for phase, (flow, _) in enumerate(known.delivery.phases):
        known.delivery.put(stage.settings.inbox_path, phase)
        if flow == "payment_sync":
            ended = run_until_it_survives(stage, phase, known, toll, lambda flow: stage.processes.start("run", flow), 2)
        else:
            ended = stage.processes.start_flow(flow).wait()
        assert ended.code == 0, (toll, ended.said)
    assert_healed(stage, known, toll)
    print(toll)


@dataclass
class Corrected:
    """What a delivery's corrections leave when nobody kills their replay, and how long that takes."""

    state: State
    seconds: float


_CORRECTED: dict[int, Corrected] = {}


def corrected_workbook(stage: Stage, delivery: Delivery, folder: Path) -> Path:
    """Take a delivery in and return the workbook of what waits, every amount in it corrected."""
    books = Books(stage.settings)
    for _, files in delivery.phases:
        for name, data in files.items():
            contract = name.replace("-", "_").partition("_20")[0]
            books.take_in(put(folder, name, data), contract)
    books.replay()
    books.classify()
    rows = held(books)
    amounts = {row.row_id: f"{1000 + 10 * row.row_number}.50" for row in rows}
    book = export(rows, folder / "corrections.xlsx")
    fill_in(book, {row_id: {"amount": amount, "open_amount": amount} for row_id, amount in amounts.items()})
    return book


def undisturbed_replay(stage: Stage, seed: int, folder: Path) -> Corrected:
    """Replay a seed's corrections without any kill, once; leaves the stage empty."""
    number = seed // SEEDS_PER_DELIVERY
    if number not in _CORRECTED:
        book = corrected_workbook(stage, deliver(number), folder)
        ended = stage.processes.start_flow("quarantine_replay", workbook=str(book)).wait()
        assert ended.code == 0, ended.said
        state = corrected_state(stage)
        assert len({row["sha256"] for row in state["corrections"]}) > 1
        assert {row["state"] for row in state["corrections"]} == {"corrected"}
        _CORRECTED[number] = Corrected(state, ended.seconds)
        stage.clear()
    return _CORRECTED[number]


def corrected_state(stage: Stage) -> State:
    """The whole of the database, and who corrected what."""
    books = Books(stage.settings)
    return {**books.state(), "corrections": books.read(_CORRECTIONS)}


@pytest.mark.parametrize("seed", REPLAY_SEEDS)
def test_a_replay_of_corrections_killed_at_any_instant_heals(empty_stage: Stage, seed: int, tmp_path: Path) -> None:
    """quarantine_replay killed until it survives: each file is corrected whole or not at all, and all are in the end.

    What was corrected stands there once, however often the workbook was given back.
    """
    stage, toll, chance = empty_stage, Toll(seed), random.Random(f"replay {seed}")
    known = undisturbed_replay(stage, seed, tmp_path)
    book = str(corrected_workbook(stage, deliver(seed // SEEDS_PER_DELIVERY), tmp_path))
    for _ in range(MOST_KILLS):
        child = stage.processes.start_flow("quarantine_replay", workbook=book)
        wait_for_corrections(stage, child, chance, known)
        child.kill()
        if child.wait().code != KILLED:
            break
        toll.killed.append(child.pid)
        toll.instants.append(f"{len(Books(stage.settings).read(_CORRECTIONS))} corrections kept")
        assert Books(stage.settings).read(HALF_CORRECTED) == [], toll
    ended = stage.processes.start_flow("quarantine_replay", workbook=book).wait()
    assert ended.code == 0, (toll, ended.said)
    assert corrected_state(stage) == known.state, toll
    assert unsettled(stage.settings) == HEALED, toll
    print(toll)


def wait_for_corrections(stage: Stage, child: Child, chance: random.Random, known: Corrected) -> None:
    """Wait for a random instant: some more files corrected and a moment after, or anywhere before the first."""
    goal = len({row["sha256"] for row in known.state["corrections"]})
    before = _files_corrected(stage)
    files = chance.randint(0, goal - before)
    delay = chance.uniform(0, FILE_SECONDS if files else 0.8 * known.seconds)
    while child.is_alive and _files_corrected(stage) < before + files:
        time.sleep(0.03)
    time.sleep(delay)


def _files_corrected(stage: Stage) -> int:
    return len({row["sha256"] for row in Books(stage.settings).read(_CORRECTIONS)})


_CORRECTIONS = """
select f.sha256, q.row_number, q.state, c.outcome, c.column_name, c.old_value, c.new_value
from landing.corrections c join landing.quarantined_rows q using (quarantined_row_id)
join landing.feed_files f using (feed_file_id) order by 1, 2, 5
"""
# Counts that do not add up, or a file of which some rows are corrected and others wait.
HALF_CORRECTED = """
select f.feed_file_id from landing.feed_files f
where f.state = 'applied' and (
    f.rows_read <> f.inserted + f.updated + f.unchanged + f.quarantined + f.superseded
    or f.quarantined <> (select count(*) from landing.quarantined_rows q
                         where q.feed_file_id = f.feed_file_id and q.state in ('open', 'rejected'))
    or (select count(distinct q.state) from landing.quarantined_rows q
        where q.feed_file_id = f.feed_file_id and q.state in ('open', 'corrected')) > 1)
"""


def kill_server(settings: Settings) -> None:
    """SIGKILL to the database server and every process of it, at once."""
    server = find_postgres(settings.home)
    if server is None:
        raise AssertionError("the server is not running")
    postmaster = psutil.Process(int((server.data_dir / "postmaster.pid").read_text().splitlines()[0]))
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=20)


@pytest.mark.parametrize("seed", SERVER_SEEDS)
def test_a_database_killed_under_a_run_is_told_in_words_and_healed(empty_stage: Stage, seed: int) -> None:
    """The run ends as one whose dependency is down; the next run starts the server, which recovers, and goes on."""
    stage, toll = empty_stage, Toll(seed)
    known = undisturbed(stage, seed)
    chance = random.Random(f"server {seed}")
    for phase, (flow, _) in enumerate(known.delivery.phases):
        known.delivery.put(stage.settings.inbox_path, phase)
        child = stage.processes.start_flow(flow)
        instant = chance.uniform(0.05, 1)
        time.sleep(instant * known.seconds[phase])
        kill_server(stage.settings)
        toll.instants.append(f"{instant:.2f}")
        ended = child.wait()
        # 0: it had finished, or the server was restarted by the run itself, which had not come that far yet.
        assert ended.code in (0, 5), (toll, ended.code, ended.said)
        database.prepare(stage.settings)
        assert faults(stage.settings, known.delivery) == [], toll
        assert lost_files(stage.settings, known.delivery, phase) == [], toll
        ended = stage.processes.start_flow(flow).wait()
        assert ended.code == 0, (toll, ended.said)
    assert_healed(stage, known, toll)
    print(toll)


@pytest.fixture
def fresh_home() -> Iterator[Path]:
    """An empty KONTOR_HOME with a short path; its server is removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="kontor-fresh-"))
    home.chmod(0o755)
    yield home
    remove_postgres(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("seed", PREPARE_SEEDS)
@pytest.mark.campaign
def test_a_set_up_killed_at_any_instant_is_finished_by_the_next(stage: Stage, fresh_home: Path, seed: int) -> None:
    """Server, roles, databases, schema: `kontor db upgrade` in a fresh home, killed three times, then left to end."""
    chance, toll = random.Random(f"set-up {seed}"), Toll(seed)
    here = {"KONTOR_HOME": str(fresh_home)}
    for _ in range(3):
        instant = chance.uniform(0.1, 4)
        child = stage.processes.start("db", "upgrade", **here)
        time.sleep(instant)
        child.kill()
        if child.wait().code == KILLED:
            toll.instants.append(f"{instant:.2f}")
    ended = stage.processes.run("db", "upgrade", **here)
    assert ended.code == 0, (toll, ended.said)
    assert _schema(Settings(home=fresh_home)) == _schema(stage.settings), toll
    print(toll)


def _schema(settings: Settings) -> list[tuple[Any, ...]]:
    """Every relation, column, function, constraint and right of the database, and how many rules there are."""
    with database.engine_for(settings, database.OWNER).connect() as connection:
        found = [tuple(row) for row in connection.execute(text(_OBJECTS))]
    assert len(found) > 200
    return found


_OBJECTS = """
select n.nspname, c.relname, a.attname, a.atttypid::regtype::text, a.attnotnull::text, c.relacl::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname in ('crm', 'landing', 'ops', 'rules', 'history', 'report', 'outbox')
union all
select n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), p.prosrc, p.prosecdef::text, p.proacl::text
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('crm', 'landing', 'ops', 'rules', 'history', 'report', 'outbox')
union all
select n.nspname, r.conname, r.conrelid::regclass::text, pg_get_constraintdef(r.oid), r.convalidated::text, null
from pg_constraint r join pg_namespace n on n.oid = r.connamespace
where n.nspname in ('crm', 'landing', 'ops', 'rules', 'history', 'outbox')
union all
select 'rules', 'quality_threshold', rule_id, version::text, null, null from rules.quality_threshold
union all
select 'ops', 'alembic_version', version_num, null, null, null from ops.alembic_version
order by 1, 2, 3, 4, 5, 6
"""
