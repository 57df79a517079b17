"""The processes that files are read in: killed, shared by threads, and gone when nobody asks any more."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from configs.settings import PROJECT_ROOT
from tasks.feeds import confined
from tasks.feeds.confined import read_confined
from tasks.feeds.contracts import FeedContract, load_contract
from tests.workbooks import HEADER, ROWS, shown_rows, write_workbook


@pytest.fixture(scope="module")
def open_items() -> FeedContract:
    """The contract of the weekly list."""
    return load_contract("open_items")


def hosts_of(parent: int) -> list[int]:
    """The process ids of the hosts that this process has started."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            is_host = entry.name.isdigit() and b"cell_host" in (entry / "cmdline").read_bytes()
            if is_host and int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def kill_hosts() -> None:
    """Kill every host of this process, without a chance to clean up."""
    for host in hosts_of(os.getpid()):
        os.kill(host, signal.SIGKILL)


def is_running(process: int) -> bool:
    """Whether the process is there and not only a name without a body."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def test_the_host_knows_no_secret_of_ours(
    tmp_path: Path, open_items: FeedContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No setting of ours stands in the environment of the process that reads uploads."""
    monkeypatch.setenv("KONTOR_DATABASE_URL", "postgresql://somebody:secret@localhost/x")
    read_confined(write_workbook(tmp_path / "a.xlsx"), open_items)
    hosts = hosts_of(os.getpid())
    assert hosts
    for host in hosts:
        assert b"KONTOR_" not in Path(f"/proc/{host}/environ").read_bytes()


def test_a_killed_host_is_replaced(tmp_path: Path, open_items: FeedContract) -> None:
    """A host killed between two files or in the midst of one costs time, not the file."""
    small = write_workbook(tmp_path / "a.xlsx")
    read_confined(small, open_items)
    kill_hosts()
    assert len(read_confined(small, open_items).frame) == 2
    large = tmp_path / "large.csv"
    large.write_text(",".join(HEADER) + "\n" + "C1,1,2026-01-31,EUR,1\n" * 1_500_000)
    killer = threading.Timer(0.3, kill_hosts)
    killer.start()
    assert len(read_confined(large, open_items).frame) == 1_500_000
    killer.join()


def test_hosts_that_all_died_at_once_cost_one_attempt(tmp_path: Path, open_items: FeedContract) -> None:
    """Where two hosts wait that are dead and do not look it, the second attempt takes neither."""
    small = write_workbook(tmp_path / "a.xlsx")
    hosts = [confined._Host(), confined._Host()]  # as two threads that read at once leave them
    for host in hosts:
        os.kill(host.process.pid, signal.SIGSTOP)
        host.control.shutdown(socket.SHUT_RDWR)
    confined._IDLE.extend(hosts)
    assert all(host.is_alive for host in hosts)
    assert len(read_confined(small, open_items).frame) == 2
    for host in set(hosts) & set(confined._IDLE):
        confined._IDLE.remove(host)
        host.end()


def test_files_can_be_read_at_the_same_time(tmp_path: Path, open_items: FeedContract) -> None:
    """Threads that read at once each get their own file's rows."""
    paths = [write_workbook(tmp_path / f"{n}.xlsx", [HEADER, *[(f"C{n}", *ROWS[0][1:])] * (n + 1)]) for n in range(4)]
    found: dict[int, list[list[str]]] = {}

    def read(number: int) -> None:
        found[number] = shown_rows(read_confined(paths[number], open_items), ["customer_number"])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [[f"C{number}"]] * (number + 1) for number in range(4)}


def test_nothing_is_left_when_the_one_who_asked_is_killed(tmp_path: Path) -> None:
    """A flow that is killed while a file is read takes host and child with it."""
    large = tmp_path / "large.csv"
    large.write_text(",".join(HEADER) + "\n" + "C1,1,2026-01-31,EUR,1\n" * 3_000_000)
    program = (
        "import sys; from pathlib import Path; from tasks.feeds.confined import read_confined\n"
        "from tasks.feeds.contracts import load_contract\n"
        "while True: read_confined(Path(sys.argv[1]), load_contract('open_items'))"
    )
    asker = subprocess.Popen([sys.executable, "-c", program, str(large)], cwd=PROJECT_ROOT)
    try:
        hosts = wait_for(lambda: hosts_of(asker.pid))
        children = wait_for(lambda: hosts_of(hosts[0]))
    finally:
        asker.kill()
        asker.wait()
    assert wait_for(lambda: not any(map(is_running, hosts + children)))


def wait_for(what: Any, seconds: float = 60) -> Any:
    """What the function gives once it gives something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise TimeoutError(f"nothing within {seconds} s")
