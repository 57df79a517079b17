"""Several processes at once, a sender who is not done, a disk that is full: nothing half-done, nothing lost."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Literal
from sqlalchemy import text

from configs.settings import Settings
from tasks import database
from tasks.feeds.contracts import load_contract
from tasks.feeds.intake import SETTLE_SECONDS, InboxFile, archive, look_at, settled_files
from tasks.feeds.outcomes import FileOutcome
from tasks.local_stack import find_postgres
from tests.deliveries import HEALED, deliver, faults, files_in, put, unsettled
from tests.ledgers import Books
from tests.nursery import Child
from tests.stage import Stage

DELIVERY = deliver(1000)
State = dict[str, list[dict[str, Any]]]
DAY = date(2026, 3, 2)
HEADINGS = "customer_number,invoice_number,due_date,currency,amount\n"


def put_everything(stage: Stage) -> None:
    """Put every file of the delivery into the inbox at once."""
    for phase in range(len(DELIVERY.phases)):
        DELIVERY.put(stage.settings.inbox_path, phase)


def run_all(stage: Stage) -> None:
    """Run both flows after one another, twice, as their schedules would; whatever is there is taken in."""
    for flow in ("customer_import", "payment_sync", "customer_import"):
        ended = stage.processes.start_flow(flow).wait()
        assert ended.code == 0, ended.said


@pytest.fixture(scope="module")
def expected(stage: Stage) -> State:
    """What the delivery leaves when one process at a time takes it in."""
    stage.clear()
    put_everything(stage)
    run_all(stage)
    return Books(stage.settings).state()


def wait_for_files(stage: Stage, child: Child, count: int) -> None:
    """Return when the run has taken so many files in; it must still be under way."""
    while files_in(stage.settings) < count:
        assert child.is_alive, child.wait().said
        time.sleep(0.03)


def files_of_the_day(stage: Stage) -> list[dict[str, object]]:
    """The files of the one day, with what became of their rows."""
    return Books(stage.settings).read(
        "select state, rows_read, inserted from landing.feed_files where as_of = '2026-03-02'"
    )


def assert_as_expected(stage: Stage, expected: State) -> None:
    """The state is that of undisturbed runs, and nothing is left lying about."""
    assert unsettled(stage.settings) == HEALED
    assert faults(stage.settings, DELIVERY) == []
    assert Books(stage.settings).state() == expected


# --- processes at the same time ---------------------------------------------------------------------------------------


def test_a_second_run_of_a_flow_is_told_who_holds_it(empty_stage: Stage, expected: State) -> None:
    """While payment_sync runs, a second one ends with 3 and names the first by run and process; nothing is lost."""
    stage = empty_stage
    put_everything(stage)
    first = stage.processes.start_flow("payment_sync")
    wait_for_files(stage, first, 1)
    second = stage.processes.start_flow("payment_sync").wait()
    assert second.code == 3
    assert f"payment_sync run 1 pid {first.pid}" in second.said
    assert first.wait().code == 0
    run_all(stage)
    assert_as_expected(stage, expected)


def test_two_imports_of_one_file_at_once_take_it_in_once(empty_stage: Stage, tmp_path: Path) -> None:
    """Two processes given the same file: one takes it in, the other finds the flow running or the file known."""
    stage = empty_stage
    Books(stage.settings).customers(tmp_path, ["C-01"])
    path = tmp_path / "open_items_2026-03-02.csv"
    path.write_text(HEADINGS + "C-01,A1,2026-02-20,EUR,100\n")
    both = [stage.processes.start_flow("payment_sync", files=[str(path)]) for _ in range(2)]
    ends = [child.wait() for child in both]
    assert sorted(end.code for end in ends) in ([0, 0], [0, 3]), [end.said for end in ends]
    files = Books(stage.settings).read(
        "select state, rows_read, inserted from landing.feed_files where as_of = :day", day=DAY
    )
    assert files == [{"state": "applied", "rows_read": 1, "inserted": 1}]
    assert [row["invoice_number"] for row in Books(stage.settings).open_on(DAY)] == ["A1"]


def test_both_flows_at_once_leave_what_they_leave_one_by_one(empty_stage: Stage, expected: State) -> None:
    """customer_import and payment_sync in the same seconds: neither fails, and what had to wait is made up for."""
    stage = empty_stage
    put_everything(stage)
    ends = [stage.processes.start_flow(flow) for flow in ("payment_sync", "customer_import")]
    for child in ends:
        ended = child.wait()
        assert ended.code == 0, ended.said
    run_all(stage)
    assert_as_expected(stage, expected)


def test_a_report_never_sees_half_a_file(empty_stage: Stage) -> None:
    """Whoever reads while files come in reads, on every day, the sums of the files that are in, whole."""
    stage = empty_stage
    put_everything(stage)
    moments = set()
    for flow in ("customer_import", "payment_sync", "customer_import"):
        child = stage.processes.start_flow(flow)
        while child.is_alive:
            moments.add(files_in(stage.settings))
            assert faults(stage.settings, DELIVERY) == []
        ended = child.wait()
        assert ended.code == 0, ended.said
    assert len(moments) > 3  # it was looked at while files were coming in, not before and after


@pytest.mark.campaign
def test_an_upgrade_under_a_running_flow_disturbs_neither(empty_stage: Stage, expected: State) -> None:
    """`kontor db upgrade` makes the views anew while payment_sync takes files in; both end well."""
    stage = empty_stage
    put_everything(stage)
    flow = stage.processes.start_flow("payment_sync")
    wait_for_files(stage, flow, 2)
    with database.engine_for(stage.settings, database.OWNER).begin() as connection:
        connection.execute(text("update ops.installation set views_sha256 = 'an older version'"))
    upgrade = stage.processes.run("db", "upgrade")
    assert upgrade.code == 0, upgrade.said
    ended = flow.wait()
    assert ended.code == 0, ended.said
    run_all(stage)
    assert_as_expected(stage, expected)


# --- a sender who is not done -----------------------------------------------------------------------------------------


def _a_file(folder: Path, content: bytes = b"a", *, age_seconds: float = 0) -> InboxFile:
    return InboxFile(
        put(folder, "open_items_2026-03-02.csv", content, age_seconds=age_seconds), load_contract("open_items")
    )


def test_files_that_stood_still_are_taken_without_waiting(tmp_path: Path) -> None:
    """A file last changed SETTLE_SECONDS ago or before is finished; nobody waits for it."""
    file = _a_file(tmp_path, age_seconds=SETTLE_SECONDS + 1)
    waited: list[float] = []
    assert settled_files([file], pause=waited.append) == [file]
    assert waited == []


def test_a_young_file_is_looked_at_twice(tmp_path: Path) -> None:
    """One that stands still meanwhile is taken, one that grows, shrinks or goes away is left to the next run."""
    file = _a_file(tmp_path)
    assert settled_files([file], pause=lambda _: None) == [file]

    def grow(_: float) -> None:
        file.path.write_bytes(b"a longer content")

    def vanish(_: float) -> None:
        file.path.unlink()

    assert settled_files([file], pause=grow) == []
    assert settled_files([file], pause=vanish) == []
    assert settled_files([file]) == []


def test_a_file_from_a_clock_that_is_ahead_is_taken_too(tmp_path: Path) -> None:
    """A time of change in the future makes a file young, not untouchable."""
    file = _a_file(tmp_path, age_seconds=-86_400)
    assert settled_files([file], pause=lambda _: None) == [file]


@pytest.mark.campaign
def test_a_file_that_grows_in_the_inbox_is_taken_when_it_is_whole(empty_stage: Stage, tmp_path: Path) -> None:
    """A run that meets a sender at work leaves the file alone and ends well; the next one takes every row."""
    stage = empty_stage
    Books(stage.settings).customers(tmp_path, ["C-01"])
    path = put(
        stage.settings.inbox_path,
        "open_items_2026-03-02.csv",
        b"customer_number,invoice_number,due_date,currency,amount\n",
    )
    done = threading.Event()

    def send() -> None:
        for number in range(10_000):
            if done.is_set():
                return
            with path.open("a") as stream:
                stream.write(f"C-01,A{number},2026-02-20,EUR,100\n")
            time.sleep(0.05)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        ended = stage.processes.start_flow("payment_sync").wait()
    finally:
        done.set()
        sender.join()
    assert ended.code == 0, ended.said
    assert files_in(stage.settings) == 1  # the customers
    assert path.exists()
    rows = len(path.read_text().splitlines()) - 1
    assert stage.processes.start_flow("payment_sync").wait().code == 0
    assert Books(stage.settings).read(
        "select rows_read, inserted from landing.feed_files where as_of = :day", day=DAY
    ) == [{"rows_read": rows, "inserted": rows}]


def test_a_file_that_changes_while_it_is_read_is_refused_in_words(empty_stage: Stage, tmp_path: Path) -> None:
    """What was read may not be registered under the digest of something else; the file comes in when it is whole."""
    stage, books = empty_stage, Books(empty_stage.settings)
    books.customers(tmp_path, ["C-01"])
    path = tmp_path / "open_items_2026-03-02.csv"
    path.write_text(HEADINGS + "C-01,A0,2026-02-20,EUR,100\n")
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            with path.open("a") as stream:
                stream.write(f"C-01,A{time.monotonic_ns()},2026-02-20,EUR,100\n")
            time.sleep(0.001)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        outcome = books.take_in(path, "open_items")
    finally:
        done.set()
        sender.join()
    assert outcome.state == "refused"
    assert "being written" in outcome.reasons[0]
    assert books.open_on(DAY) == []
    assert books.take_in(path, "open_items").state == "applied"
    assert stage.settings == books.settings


def test_a_file_replaced_after_it_was_taken_in_stays_in_the_inbox(tmp_path: Path) -> None:
    """What nobody has read is neither archived under another's name nor deleted."""
    inbox, home = tmp_path / "inbox", tmp_path / "home"
    file = _a_file(inbox, b"the one that was taken in")
    seen = look_at(file.path)
    outcome = FileOutcome(file.path.name, "open_items", DAY, "applied")
    file.path.write_bytes(b"another one, of which nobody knows yet")
    assert archive(file, outcome, home=home, inbox=inbox, seen=seen) is None
    assert file.path.exists()
    assert [path for path in home.rglob("*") if path.is_file()] == []
    kept = archive(file, outcome, home=home, inbox=inbox, seen=look_at(file.path))
    assert kept is not None
    assert kept.read_bytes() == b"another one, of which nobody knows yet"
    assert not file.path.exists()


# --- a disk that is full ----------------------------------------------------------------------------------------------


@contextmanager
def tiny_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size mounted on the folder for a ``with`` block; the test is skipped where none can be."""
    if os.geteuid() != 0:
        pytest.skip("needs root: only root may mount a small file system to fill")
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.campaign
def test_a_full_archive_is_told_in_words_and_made_up_for(empty_stage: Stage, expected: State) -> None:
    """What was taken in stays in the inbox until there is room for it; no half copy is left."""
    stage = empty_stage
    put_everything(stage)
    with tiny_disk(stage.settings.home / "archive", 16) as disk:
        (disk / "ballast").write_bytes(b"x" * 8_000)
        ended = stage.processes.start_flow("payment_sync").wait()
        assert ended.code == 5
        assert "No space left on device" in ended.said
        assert "stays in the inbox" in ended.said
        assert faults(stage.settings, DELIVERY) == []
        assert list(disk.rglob("*.part")) == []
    # What the tiny disk had room for is gone with it; the rest is where it was.
    run_all(stage)
    assert_as_expected(stage, expected)


@contextmanager
def invoices_on_a_tiny_disk(settings: Settings, folder: Path) -> Iterator[Path]:
    """Invoices in a tablespace that has room for little more than nothing, for a ``with`` block."""
    server = find_postgres(settings.home)
    if server is None:
        raise AssertionError("the server is not running")
    owner = server.data_dir.stat()
    with tiny_disk(folder, 256):
        os.chown(folder, owner.st_uid, owner.st_gid)
        place = f"host={server.socket_dir} port={server.port} user={server.superuser} dbname={database.DATABASE}"
        with psycopg.connect(place, autocommit=True) as connection:
            connection.execute(SQL("create tablespace tiny location {}").format(Literal(str(folder))))
            connection.execute("alter table crm.invoices set tablespace tiny")
            try:
                yield folder
            finally:
                connection.execute("alter table crm.invoices set tablespace pg_default")
                connection.execute("drop tablespace tiny")


@pytest.mark.campaign
def test_a_full_disk_of_the_database_is_told_in_words_and_made_up_for(empty_stage: Stage, expected: State) -> None:
    """The file that found no room leaves nothing, those before it are whole, and with room the next run goes on."""
    stage = empty_stage
    put_everything(stage)
    ended = stage.processes.start_flow("customer_import").wait()
    assert ended.code == 0, ended.said
    with invoices_on_a_tiny_disk(stage.settings, stage.settings.home / "tiny") as disk:
        with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(b"x" * 4096)
        ended = stage.processes.start_flow("payment_sync").wait()
        assert ended.code == 5, ended.said
        assert "disk" in ended.said
        assert faults(stage.settings, DELIVERY) == []
        (disk / "ballast").unlink()
    run_all(stage)
    assert_as_expected(stage, expected)
