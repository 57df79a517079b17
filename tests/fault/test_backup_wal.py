"""The write-ahead log between backups: no acknowledged commit is lost, and every instant can be gone back to."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from configs.settings import PROJECT_ROOT, Settings
from tasks import database
from tasks.backups import wal
from tasks.backups.engine import Wanted
from tasks.backups.operating import carry_out, foresee
from tasks.backups.programs import Session, ask, connect, scalar
from tasks.backups.restoring import restore
from tasks.backups.scratch import clear
from tasks.backups.targets import WAL
from tasks.local_stack import find_postgres, remove_postgres
from tests.backup_site import Site, fill, site_at
from tests.conftest import CAMPAIGN_FACTOR, hurry


@pytest.fixture
def home() -> Iterator[Path]:
    """A KONTOR_HOME of its own, because its server is killed and its database thrown away."""
    folder = Path(tempfile.mkdtemp(prefix="kontor-wal-"))
    folder.chmod(0o755)
    yield folder
    remove_postgres(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def site(home: Path) -> Site:
    """A prepared database of 50 customers."""
    settings = Settings(home=home)
    database.prepare(settings)
    hurry(settings)
    fill(settings, 50)
    return site_at(settings, home / "backups", home / "keys" / "backup")


def _begin_receiving(site: Site) -> subprocess.Popen[bytes]:
    """The process that `kontor up` keeps standing, once it receives."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.commands.receiving"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "KONTOR_HOME": str(site.settings.home)},
    )
    deadline = time.monotonic() + 60
    with connect(site.server, "postgres") as connection:
        while not scalar(connection, "select bool_or(active) from pg_replication_slots where slot_name = %s", wal.SLOT):
            assert time.monotonic() < deadline, "no WAL is received"
            time.sleep(0.05)
    while not list(wal.wal_folder(site.settings).glob("*.partial")):
        assert time.monotonic() < deadline, "no WAL is received"
        time.sleep(0.05)
    return process


@pytest.fixture
def receiver(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """The process that `kontor up` keeps standing; ended with its children."""
    process = _begin_receiving(site)
    yield process
    process.terminate()
    process.wait(20)


@pytest.mark.campaign
def test_a_receiver_that_was_stopped_goes_on_and_one_away_too_long_begins_anew(site: Site) -> None:
    """Killed with its program while commits go on: the slot keeps them. Past the limit it is lost, and says so."""
    server, folder = site.server, wal.wal_folder(site.settings)
    for _ in range(2):
        process = _begin_receiving(site)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        with connect(server) as connection:
            _write(connection, 5)
            for one in family:
                one.send_signal(signal.SIGKILL)
            psutil.wait_procs(family, timeout=20)
            _write(connection, 5)
        wal.finish_segment(server)
        process.wait(20)
    process = _begin_receiving(site)
    with connect(server, "postgres") as connection:
        through = scalar(connection, "select pg_switch_wal()")
        reached = "select restart_lsn >= cast(%s as pg_lsn) from pg_replication_slots where slot_name = %s"
        deadline = time.monotonic() + 60
        while not scalar(connection, reached, through, wal.SLOT):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    process.terminate()
    process.wait(20)
    shipped = {name.split(".")[0] for name in site.engine.target.names(WAL)}
    received = sorted(shipped | {path.name for path in folder.glob("*") if len(path.name) == 24})
    assert len(received) >= 2
    assert received[1:] == list(islice(wal.following(received[0]), len(received) - 1)), "no segment is missing"

    assert wal.prepare_slot(server, 1) is False
    with connect(server) as connection:
        state = "select wal_status from pg_replication_slots where slot_name = %s"
        deadline = time.monotonic() + 60
        while scalar(connection, state, wal.SLOT) != "lost":  # the checkpoint after the one that reads the new limit
            assert time.monotonic() < deadline
            _write(connection, 1)
            wal.finish_segment(server)
            ask(connection, "checkpoint")
    assert wal.prepare_slot(server, 64) is True
    assert wal.prepare_slot(server, 64) is False


def _write(connection: Session, count: int) -> list[tuple[int, datetime]]:
    """Write beats, each acknowledged when it is noted, with the server's time after it."""
    written = []
    for _ in range(count):
        number = int(scalar(connection, "insert into ops.heartbeats default values returning heartbeat_id"))
        written.append((number, scalar(connection, "select clock_timestamp()")))
        time.sleep(0.003)
    return written


def _kill_server(home: Path) -> None:
    server = find_postgres(home)
    assert server is not None
    postmaster = psutil.Process(int((server.data_dir / "postmaster.pid").read_text().splitlines()[0]))
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(family, timeout=20)


def test_no_acknowledged_commit_is_lost_and_every_instant_can_be_gone_back_to(
    site: Site, receiver: subprocess.Popen[bytes]
) -> None:
    """The server is killed while it writes and its folder deleted: the restore has every commit that was acknowledged.

    Then the same history is gone back to at random instants, from WAL that was shipped to the target alone.
    """
    home, chance = site.settings.home, random.Random("instants")
    manifest = site.engine.take(datetime.now(UTC), "full", None)
    with connect(site.server) as connection:
        written = _write(connection, 60)
        wal.finish_segment(site.server)
        written += _write(connection, 60)
    time.sleep(0.3)
    _kill_server(home)
    data = site.settings.home / "postgres" / "data"
    shutil.rmtree(data.resolve())

    prospect = foresee(site.settings, site.catalogue, manifest.label, None, None, latest=True)
    assert prospect.lost == {}
    carry_out(site.settings, site.engine, site.catalogue, prospect, lambda _: None)
    with connect(site.server) as connection:
        kept = {row[0] for row in ask(connection, "select heartbeat_id from ops.heartbeats")}
    assert {number for number, _ in written} <= kept

    # From here on nothing is left on this machine but what was shipped.
    [aside] = home.glob("wal.before-*")
    receiver.terminate()
    receiver.wait(20)
    shutil.rmtree(wal.wal_folder(site.settings), ignore_errors=True)
    aside.rename(wal.wal_folder(site.settings))
    wal.ship(site.engine, datetime.now(UTC))  # the receiver may have shipped some of it by itself
    assert list(site.engine.target.names(WAL))
    shutil.rmtree(wal.wal_folder(site.settings))
    elsewhere = home / "elsewhere"
    for _ in range(CAMPAIGN_FACTOR):
        place = chance.randrange(len(written) // 2 - 1)  # what is in a segment that was finished, and so shipped
        instant = written[place][1]
        chain = site.catalogue.chain(manifest.label)
        restored = restore(site.engine, Wanted(chain, instant=instant), elsewhere, sealed=False)
        with connect(restored.server) as connection:
            newest = scalar(connection, "select max(heartbeat_id) from ops.heartbeats")
        clear(elsewhere)
        assert newest == written[place][0], f"went back to {instant}"
