"""Prefect's server under bad luck: killed, frozen, raced, its number reused, its port taken, its database away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tasks.errors import DependencyDown
from tasks.local_stack import remove_postgres, start_postgres
from tasks.prefect_server import LOGS_KEPT, PrefectServer, find_prefect, start_prefect, stop_prefect

ROOT = Path(__file__).resolve().parents[2]
START = """
import sys
from pathlib import Path
from tasks.prefect_server import start_prefect
print(start_prefect(Path(sys.argv[1]), database_url=sys.argv[2], timeout_seconds=90).pid)
"""


@dataclass(frozen=True)
class Place:
    """A home for a Prefect server, and the database it may use."""

    home: Path
    database_url: str

    def start(self) -> PrefectServer:
        """The server, started here."""
        return start_prefect(self.home, database_url=self.database_url, timeout_seconds=90)

    def start_elsewhere(self) -> subprocess.Popen[str]:
        """A process that starts the server, as a second terminal would."""
        command = [sys.executable, "-c", START, str(self.home), self.database_url]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL database for Prefect; migrated by the first server that uses it."""
    home = tmp_path_factory.mktemp("postgres")
    postgres = start_postgres(home)
    place = f"host={postgres.socket_dir} port={postgres.port} user={postgres.superuser}"
    try:
        with psycopg.connect(f"{place} dbname=postgres", autocommit=True) as connection:
            connection.execute("create database prefect")
        yield f"postgresql+asyncpg://{postgres.superuser}@/prefect?host={postgres.socket_dir}&port={postgres.port}"
    finally:
        remove_postgres(home)


@pytest.fixture
def place(tmp_path: Path, database_url: str) -> Iterator[Place]:
    """A home of its own for each test; what it leaves running is stopped."""
    yield Place(tmp_path, database_url)
    stop_prefect(tmp_path, timeout_seconds=10)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Place]:
    """A home whose server may run from one test to the next: each start takes ten seconds."""
    home = tmp_path_factory.mktemp("lasting")
    yield Place(home, database_url)
    stop_prefect(home, timeout_seconds=10)


def _wait_for(path: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_starts_at_once_make_one_server(place: Place) -> None:
    """Two processes that start the server at the same moment get the same one, and it outlives both."""
    starters = [place.start_elsewhere(), place.start_elsewhere()]
    pids = {int(starter.communicate(timeout=120)[0]) for starter in starters}
    found = find_prefect(place.home)
    assert found is not None
    assert pids == {found.pid}
    assert stop_prefect(place.home) is True
    assert stop_prefect(place.home) is False
    assert find_prefect(place.home) is None


@pytest.mark.campaign
def test_killed_and_impatient_starters_leave_a_server_that_the_next_one_takes(lasting: Place) -> None:
    """A start killed half way goes on by itself, one that runs out of time says so, and both lose nothing.

    The next start waits for that server instead of making another.
    """
    stop_prefect(lasting.home, timeout_seconds=10)
    starter = lasting.start_elsewhere()
    _wait_for(lasting.home / "prefect" / "server.pid")
    starter.kill()
    starter.communicate()
    with pytest.raises(DependencyDown, match="did not answer"):
        start_prefect(lasting.home, database_url=lasting.database_url, timeout_seconds=0.5)
    assert lasting.start().pid == int((lasting.home / "prefect" / "server.pid").read_text())


@pytest.mark.campaign
def test_killed_and_frozen_servers_are_replaced_on_the_same_port(lasting: Place) -> None:
    """After kill -9 nothing is found and a start makes a new server; a frozen one is found out and replaced.

    The port stays, so that a bookmark and a worker's setting stay good.
    """
    first = lasting.start()
    os.killpg(first.pid, signal.SIGKILL)
    assert find_prefect(lasting.home) is None
    second = lasting.start()
    assert (second.pid != first.pid, second.api_url) == (True, first.api_url)
    os.kill(second.pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert find_prefect(lasting.home) is None
    assert time.monotonic() - begun < 0.4
    third = start_prefect(lasting.home, database_url=lasting.database_url, timeout_seconds=60)
    assert (third.pid != second.pid, third.api_url) == (True, first.api_url)


def test_reused_process_number_is_left_alone(place: Place) -> None:
    """A record that names a stranger's process is not believed, and the stranger is never signalled."""
    folder = place.home / "prefect"
    folder.mkdir(parents=True)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (folder / "server.pid").write_text(f"{stranger.pid}\n")
        (folder / "server.json").write_text('{"port": 9, "digest": ""}')
        assert find_prefect(place.home) is None
        assert stop_prefect(place.home) is False
        assert _is_running(stranger.pid)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_another_homes_server_is_not_ours(lasting: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A record copied from another home does not hand over that home's server."""
    server = lasting.start()
    copy = tmp_path_factory.mktemp("copy")
    (copy / "prefect").mkdir()
    for name in ("server.pid", "server.json"):
        (copy / "prefect" / name).write_bytes((lasting.home / "prefect" / name).read_bytes())
    assert find_prefect(copy) is None
    assert stop_prefect(copy) is False
    assert find_prefect(lasting.home) == server


@pytest.mark.parametrize("torn", ["", "{", '{"port": "x", "digest": 1}', "[]"])
def test_torn_records_are_no_server(place: Place, torn: str) -> None:
    """Half-written records read as no server at all."""
    folder = place.home / "prefect"
    folder.mkdir(parents=True)
    (folder / "server.json").write_text(torn)
    (folder / "server.pid").write_text(torn)
    assert find_prefect(place.home) is None
    assert stop_prefect(place.home) is False


@pytest.mark.campaign
def test_taken_port_is_given_up(place: Place) -> None:
    """When somebody else listens on the remembered port, the server takes another and remembers that."""
    folder = place.home / "prefect"
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (folder / "server.json").write_text(f'{{"port": {taken}, "digest": ""}}')
        server = place.start()
        assert not server.ui_url.endswith(f":{taken}")
        assert find_prefect(place.home) == server


def test_missing_database_is_said_at_once(tmp_path: Path) -> None:
    """Without its database the server ends, and the error says so well before the time is over, with the log's place.

    The log of the run before is kept, and no more than three are.
    """
    folder = tmp_path / "prefect"
    folder.mkdir()
    names = ["server.log", *(f"server.log.{n}" for n in range(1, LOGS_KEPT))]
    for name in names:
        (folder / name).write_text(f"was {name}")
    begun = time.monotonic()
    with pytest.raises(DependencyDown) as caught:
        start_prefect(tmp_path, database_url="postgresql+asyncpg://nobody@/none?host=/nonexistent", timeout_seconds=60)
    assert time.monotonic() - begun < 50
    assert "server.log" in caught.value.hint
    assert find_prefect(tmp_path) is None
    assert sorted(path.name for path in folder.glob("server.log*")) == names
    assert [(folder / name).read_text() for name in names[1:]] == [f"was {name}" for name in names[:-1]]
