"""The embedded PostgreSQL after everything that can go wrong: real kills, real leftovers, real locks."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.local_stack_people import Person, answered, is_alive, person

START = "answer(describe(start_postgres(home, timeout_seconds=60)))"
COUNT = "answer(connect(start_postgres(home)).execute('select count(*) from kept').fetchone()[0])"


# As root both are proven, the ordinary user in the campaign; an ordinary user's run proves the ordinary one.
_ORDINARY = pytest.param("ordinary", marks=[pytest.mark.campaign] if os.getuid() == 0 else [])


@pytest.fixture(params=["root", _ORDINARY])
def someone(request: pytest.FixtureRequest) -> Iterator[Person]:
    """Yield each kind of user in turn."""
    with person(request.param) as found:
        yield found


def start_with_rows(someone: Person, home: Path) -> int:
    """Return the process id of a started server that holds 1,000 committed rows."""
    code = """
server = start_postgres(home)
connect(server).execute("create table kept as select generate_series(1, 1000) as n")
answer(pid_of(server))
"""
    return int(someone.ask(code, home))


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return when the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_killed_server_starts_again_with_what_was_committed(someone: Person) -> None:
    """After kill -9 of the server it is not found, and the next start recovers every committed row."""
    home = someone.homes / "home"
    pid = start_with_rows(someone, home)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
    assert someone.ask("answer(describe(find_postgres(home)))", home) is None
    assert someone.ask(COUNT, home) == 1000


def test_a_busy_child_of_a_killed_server_does_not_stand_in_the_way(someone: Person) -> None:
    """A query that computes on after its server was killed is ended, and the next start goes through."""
    home = someone.homes / "home"
    pid = start_with_rows(someone, home)
    busy = someone.launch(
        "connect(find_postgres(home)).execute('select count(*) from generate_series(1, 1000000000000) n')", home
    )

    def computing() -> list[psutil.Process]:
        return [child for child in psutil.Process(pid).children() if "SELECT" in "".join(child.cmdline())]

    wait_for(lambda: bool(computing()))
    child = computing()[0].pid
    time.sleep(0.5)  # well into the computation, where it does not look after its parent
    os.kill(pid, signal.SIGKILL)
    assert someone.ask(COUNT, home) == 1000
    assert not is_alive(child)
    busy.communicate(timeout=20)
    assert busy.returncode != 0


def test_a_stopped_child_of_a_killed_server_is_ended_too(someone: Person) -> None:
    """A child that cannot react at all (it was suspended) is ended all the same; what was committed is there."""
    home = someone.homes / "home"
    pid = start_with_rows(someone, home)
    children = psutil.Process(pid).children()
    assert children
    for child in children:
        child.suspend()
    os.kill(pid, signal.SIGKILL)
    assert someone.ask(COUNT, home) == 1000
    assert not any(is_alive(child.pid) for child in children)


def test_a_pid_file_that_names_another_program_is_seen_through(someone: Person) -> None:
    """A stale pid that now is another program's, of the same account, keeps neither the server out nor gets hurt."""
    home = someone.homes / "home"
    pid = start_with_rows(someone, home)
    data = home / "postgres" / "data"
    owner = data.stat()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
    bystander = subprocess.Popen(
        ["sleep", "60"], user=owner.st_uid if os.geteuid() == 0 else None, start_new_session=True
    )
    try:
        for path in (data / "postmaster.pid", home / "postgres" / "run" / ".s.PGSQL.5432.lock"):
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join([f"{bystander.pid}\n", *lines[1:]]))
        assert someone.ask("answer([describe(find_postgres(home)), stop_postgres(home)])", home) == [None, False]
        assert someone.ask(COUNT, home) == 1000
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_first_start_killed_at_any_moment_heals(someone: Person) -> None:
    """However early the maker of a new home is killed, the next start gives a server and leaves nothing half-done."""
    home = someone.homes / "home"
    for delay in (0.0, 0.02, 0.1, 0.25, 0.4):
        starter = someone.launch(START, home)
        wait_for((home / "postgres" / "lock").exists)
        time.sleep(delay)
        starter.kill()
        starter.communicate(timeout=20)
    answer = someone.ask(START, home)
    assert is_alive(answer["pid"])
    assert list((home / "postgres").glob("data.new-*")) == []


def test_a_kill_during_initdb_leaves_no_database_behind(someone: Person) -> None:
    """Killed while the database is being made, there is no `data` yet; what was half-made goes at the next start."""
    home = someone.homes / "home"
    starter = someone.launch(START, home)
    wait_for(lambda: bool(list(home.glob("postgres/data.new-*/base"))))
    starter.kill()
    starter.communicate(timeout=20)
    assert not (home / "postgres" / "data").exists()
    assert someone.ask(START, home)["data"] == str(home / "postgres" / "data")
    assert list(home.glob("postgres/data.new-*")) == []


def test_past_the_limit_the_recovery_goes_on_and_is_found_later(someone: Person) -> None:
    """Past the limit: down but transient, the setting to raise is named, and the server is not stopped."""
    home = someone.homes / "home"
    pid = start_with_rows(someone, home)
    children = [child.pid for child in psutil.Process(pid).children(recursive=True)]
    write = """
with connect(find_postgres(home)) as connection:
    connection.execute("create table wal (t text)")
    for _ in range(6):
        connection.execute("insert into wal select repeat(md5(n::text), 20) from generate_series(1, 60000) n")
answer("written")
"""
    someone.ask(write, home)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(is_alive(each) for each in (pid, *children)))
    down = someone.ask("answer(refusal(lambda: start_postgres(home, timeout_seconds=0.05)))", home)
    assert down["kind"] == "DependencyDown"
    assert down["transient"]
    assert "recovering" in down["message"]
    assert "KONTOR_START_TIMEOUT_SECONDS" in down["hint"]
    assert someone.ask(COUNT, home) == 1000


@pytest.mark.campaign
def test_a_slow_start_tells_how_long_it_has_taken(someone: Person) -> None:
    """While a server is there but does not answer yet, lines with the seconds so far and the limit are given."""
    home = someone.homes / "home"
    pid = start_with_rows(someone, home)
    os.kill(pid, signal.SIGSTOP)
    try:
        slow = someone.ask(
            "said = []; r = refusal(lambda: start_postgres(home, timeout_seconds=6, progress=said.append)); "
            "answer([said, r['kind']])",
            home,
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    assert slow[1] == "DependencyDown"
    assert slow[0]
    assert all("s of 6 s" in line for line in slow[0])
    assert someone.ask(START, home)["pid"] == pid


def test_a_deleted_socket_brings_a_restart(someone: Person) -> None:
    """When something swept the socket away the server is not found; the next start restarts it with its data."""
    home = someone.homes / "home"
    pid = start_with_rows(someone, home)
    (home / "postgres" / "run" / ".s.PGSQL.5432").unlink()
    assert someone.ask("answer(describe(find_postgres(home)))", home) is None
    assert someone.ask(COUNT, home) == 1000
    assert not is_alive(pid)


def test_a_home_deleted_under_a_running_server_can_be_made_anew(someone: Person) -> None:
    """After `rm -rf` of a running home the next start ends the old server and gives a new, empty one."""
    home = someone.homes / "home"
    pid = start_with_rows(someone, home)
    shutil.rmtree(home)
    again = someone.ask(START, home)
    assert not is_alive(pid)
    assert again["pid"] != pid
    assert someone.ask("answer(connect(find_postgres(home)).execute('select 1').fetchone())", home) == [1]


def test_a_moved_home_keeps_its_data(someone: Person) -> None:
    """A home moved while its server runs is served from its new path, by one server."""
    home, moved = someone.homes / "home", someone.homes / "moved"
    pid = start_with_rows(someone, home)
    home.rename(moved)
    assert someone.ask(COUNT, moved) == 1000
    assert not is_alive(pid)


def test_a_copied_home_gets_a_server_of_its_own(someone: Person) -> None:
    """A copy of a stopped-hard home does not mistake the original's server for its own."""
    home, copy = someone.homes / "home", someone.homes / "copy"
    pid = start_with_rows(someone, home)
    subprocess.run(["cp", "-a", str(home), str(copy)], check=True)
    assert someone.ask("answer(describe(find_postgres(home)))", copy) is None
    again = someone.ask(START, copy)
    assert again["pid"] != pid
    assert again["data"] == str(copy / "postgres" / "data")
    assert is_alive(pid)


def test_a_server_that_cannot_start_says_why(someone: Person) -> None:
    """An impossible setting ends in DependencyDown with the server's own reason and where to read more."""
    home = someone.homes / "home"
    start_with_rows(someone, home)
    code = """
connect(find_postgres(home)).execute("alter system set shared_preload_libraries = 'no_such_library'")
stop_postgres(home)
answer(refusal(lambda: start_postgres(home)))
"""
    down = someone.ask(code, home)
    assert down["kind"] == "DependencyDown"
    assert "no_such_library" in down["message"]
    assert "startup.log" in down["hint"]


def test_an_altered_system_does_not_open_the_server(someone: Person) -> None:
    """ALTER SYSTEM can neither give the server a TCP address nor other rules of who may connect."""
    home = someone.homes / "home"
    code = """
wanted = {"listen_addresses": "'*'", "hba_file": "'/tmp/pg_hba.conf'", "unix_socket_permissions": "511"}
for name, value in wanted.items():
    connect(start_postgres(home)).execute(f"alter system set {name} = {value}")
stop_postgres(home)
again = connect(start_postgres(home))
answer([again.execute("select current_setting(%s)", [name]).fetchone()[0] for name in wanted])
"""
    assert someone.ask(code, home) == ["", str(home / "postgres" / "data" / "pg_hba.conf"), "0700"]


def test_a_lock_that_is_never_let_go_names_its_holder(someone: Person) -> None:
    """Who waits for a starter past the limit is told its process id, and that waiting again is the way."""
    home = someone.homes / "home"
    someone.ask(START + "; stop_postgres(home)", home)
    with (home / "postgres" / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        locked = someone.ask("answer(refusal(lambda: start_postgres(home, timeout_seconds=0.3)))", home)
    assert locked["kind"] == "Locked"
    assert f"process {os.getpid()} " in locked["message"]
    assert someone.ask(START, home)


def test_starting_and_stopping_at_once_never_leaves_two_servers(someone: Person) -> None:
    """Starters and stoppers at the same time all end well; afterwards there is at most one server."""
    home = someone.homes / "home"
    start_with_rows(someone, home)
    calls = [someone.launch(code, home) for code in [START, "answer(stop_postgres(home))"] * 3]
    for call in calls:
        answered(call)
    data = home / "postgres" / "data"
    servers = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "postgres" and str(data) in (process.info["cmdline"] or [])
    ]
    assert len(servers) <= 1
    assert someone.ask(COUNT, home) == 1000


def test_a_damaged_copy_of_the_programs_is_replaced() -> None:
    """As root, a copy of the programs that was cut short is made anew before anything runs from it."""
    with person("root") as root:
        programs = root.homes / "own"
        code = f"""
known.ROOT_FOLDER = Path({str(programs)!r})
start_postgres(home)
stop_postgres(home)
copy = Path(programs_folder()) / "initdb"
whole = copy.stat().st_size
os.truncate(copy, 100)
(copy.parents[3].parent / f".{{copy.parents[3].name}}.half").mkdir()
start_postgres(home)
answer([whole, copy.stat().st_size, sorted(os.listdir(copy.parents[3].parent)), os.stat(copy).st_mode & 0o777])
stop_postgres(home)
"""
        whole, now, folders, mode = root.ask(code, root.homes / "home")
    assert whole == now
    assert len(folders) == 2  # the lock and the one version
    assert mode == 0o755


def test_a_root_folder_that_others_may_write_to_is_refused() -> None:
    """As root, programs are neither put into nor run from a folder that another account could have prepared."""
    with person("root") as root:
        prepared = root.homes / "prepared"
        prepared.mkdir()
        prepared.chmod(0o777)
        code = f"known.ROOT_FOLDER = Path({str(prepared)!r}); answer(refusal(lambda: start_postgres(home)))"
        refused = root.ask(code, root.homes / "home")
        assert list(prepared.iterdir()) == []
    assert refused["kind"] == "Refused"
    assert "0777" in refused["message"]
