"""One real database for all tests that need one, emptied before each of them; markers follow the folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from configs.settings import PROJECT_ROOT, Settings
from tasks import database
from tasks.database import prefect_database_url
from tasks.erasures.ledger_file import ledger_of
from tasks.local_stack import find_postgres, remove_postgres
from tasks.prefect_server import prefect_environment, start_prefect, stop_prefect
from tasks.stack import prefect_options
from tests.janitor import employ
from tests.sharing import place_of, scheduler

if TYPE_CHECKING:
    from tests.stage import Stage

# Everything temporary of this session in one folder, so that a killed session leaves neither servers nor files.
os.environ["TMPDIR"] = tempfile.tempdir = str(employ())
# Importing Prefect makes its folder at once; it must not be the developer's own.
os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="kontor-test-prefect-"))
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

# A campaign tries many more; a plain run always tries the same ones.
settings.register_profile(
    "kontor",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("kontor")
CAMPAIGN_FACTOR = int(os.environ.get("KONTOR_CAMPAIGN_FACTOR", "1"))


def examples(few: int, many: int) -> int:
    """How many histories a test draws that takes them into the database: few in a plain run, else so many a factor."""
    return few if CAMPAIGN_FACTOR == 1 else many * CAMPAIGN_FACTOR


FOLDERS = ("unit", "database", "end_to_end", "fault", "structure", "benchmarks")
SEEDED = {f"rules.{path.stem}" for path in (PROJECT_ROOT / "configs" / "rules").glob("*.csv")}
KEPT = {"ops.installation", "ops.alembic_version"} | SEEDED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by the folder it stands in, and let what takes longest come first."""
    for item in items:
        folder = item.path.relative_to(PROJECT_ROOT / "tests").parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)
        if CAMPAIGN_FACTOR == 1 and item.get_closest_marker("campaign") is not None:
            item.add_marker(pytest.mark.skip(reason="a long one: `make campaign` runs it"))
    items.sort(key=lambda item: place_of(item.path.relative_to(PROJECT_ROOT).as_posix()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What hands the files to the workers of `make test`: whole, and some of them together."""
    return scheduler(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real files from outside; the test is skipped where it is absent."""
    folder = Path(os.environ.get("KONTOR_REAL_DATA", PROJECT_ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real files are not here ({folder}); set KONTOR_REAL_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def test_home() -> Iterator[Path]:
    """A KONTOR_HOME of this test run, with a short path, removed at the end with its server."""
    home = Path(tempfile.mkdtemp(prefix="kontor-test-"))
    home.chmod(0o755)
    yield home
    remove_postgres(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def prepared(test_home: Path) -> Settings:
    """Settings of a database that is up and has its schema; use ``kontor_settings`` for an empty one."""
    chosen = Settings(home=test_home)
    database.prepare(chosen)
    hurry(chosen)
    return chosen


def hurry(chosen: Settings) -> None:
    """Let the test server skip waiting for the disk: a killed process loses nothing by it, only a power cut would."""
    with _as_superuser(chosen, "postgres") as connection:
        connection.execute("alter system set fsync = off")
        connection.execute("select pg_reload_conf()")


def _as_superuser(chosen: Settings, name: str) -> psycopg.Connection[Any]:
    server = find_postgres(chosen.home)
    if server is None:
        pytest.fail("the test server is not running")
    return psycopg.connect(
        host=str(server.socket_dir), port=server.port, user=server.superuser, dbname=name, autocommit=True
    )


@pytest.fixture(scope="session")
def stage(prepared: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A home with both servers and a nursery of processes, for all tests of this run that start commands.

    Prefect's server takes seconds to come up, and loading the flows takes seconds more: once a session is enough.
    """
    from tests.nursery import nursery
    from tests.stage import Stage

    url, options = prefect_database_url(prepared), prefect_options(prepared)
    server = start_prefect(prepared.home, database_url=url, options=options)
    environment = {**prefect_environment(server, prepared.home), "KONTOR_HOME": str(prepared.home)}
    try:
        with nursery(environment, tmp_path_factory.mktemp("nursery")) as processes:
            yield Stage(prepared, processes)
    finally:
        stop_prefect(prepared.home, timeout_seconds=10)


@pytest.fixture
def empty_stage(stage: Stage) -> Stage:
    """The stage without any file or row."""
    stage.clear()
    return stage


@pytest.fixture
def kontor_settings(prepared: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of an empty database; the environment points to it too. Who was erased in another test is forgotten."""
    monkeypatch.setenv("KONTOR_HOME", str(prepared.home))
    empty_database(prepared)
    ledger_of(prepared.home).path.unlink(missing_ok=True)
    for folder in ("inbox", "archive", "outbox", "reports"):
        shutil.rmtree(prepared.home / folder, ignore_errors=True)
    return prepared


def empty_database(prepared: Settings) -> None:
    """Remove every row but the seeded rules; identities start again. Tables that nothing touched are left alone.

    A truncation makes every file of every table that refers to one of them anew, which takes longer than most tests:
    where little was written it is deleted, and what the planner remembers of it too, so that the next test's plans,
    and with them the order of what they make, are those of a database never used.
    """
    with _as_superuser(prepared, database.DATABASE) as connection:
        sizes = {name: size for name, size in connection.execute(_SIZES) if name not in KEPT}
        emptied = sorted(name for name, size in sizes.items() if size)
        with connection.transaction():
            connection.execute("set local session_replication_role = replica")  # references are not asked row by row
            if sum(sizes.values()) > SMALL:
                connection.execute(f"truncate {', '.join(sorted(sizes))}")
            for name in emptied:
                connection.execute(f"delete from {name}")
            connection.execute(_BEGIN_AGAIN, [sorted(sizes)])
        if emptied:
            connection.execute(f"vacuum (truncate, index_cleanup on, skip_locked) {', '.join(emptied)}")
            connection.execute(_FORGET_FIGURES, {"emptied": emptied})
        if any(size for name, size in connection.execute(_SIZES) if name in emptied):  # somebody still saw its rows
            connection.execute(f"truncate {', '.join(sorted(sizes))}")
        _forget_history(connection)


def _forget_history(connection: psycopg.Connection[Any]) -> None:
    """Empty what nobody but a superuser who takes the locks off can: it grows with every test, and is read by many."""
    for table in ("change_log", "seals"):
        if connection.execute(f"select 1 from history.{table} limit 1").fetchone():
            parts = [f"history.{table}", *(row[0] for row in connection.execute(_PARTS, (f"history.{table}",)))]
            with connection.transaction():
                for part in parts:
                    connection.execute(f"alter table {part} disable trigger refuse")
                connection.execute(f"truncate history.{table} restart identity")
                for part in parts:
                    connection.execute(f"alter table {part} enable always trigger refuse")


_PARTS = "select inhrelid::regclass::text from pg_inherits where inhparent = %s::regclass"
SMALL = 500_000  # bytes
_SIZES = """
select schemaname || '.' || tablename, pg_relation_size(format('%I.%I', schemaname, tablename)::regclass)
from pg_tables where schemaname in ('crm', 'landing', 'ops', 'rules', 'outbox')
"""

# Identities that have been used, also where the rows have gone since.
_BEGIN_AGAIN = """
select setval(d.objid::regclass, s.start_value, false)
from pg_sequences s
join pg_depend d on d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
  and d.objid = format('%%I.%%I', s.schemaname, s.sequencename)::regclass
where s.last_value is not null and d.refobjid = any (%s::text[]::regclass[])
"""
_FORGET_FIGURES = """
with gone as (delete from pg_statistic where starelid = any (%(emptied)s::text[]::regclass[]))
update pg_class set relpages = 0, reltuples = -1, relallvisible = 0, relallfrozen = 0
where oid in (
  select unnest(%(emptied)s::text[]::regclass[])
  union all select indexrelid from pg_index where indrelid = any (%(emptied)s::text[]::regclass[])
)
"""
