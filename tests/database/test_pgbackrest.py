"""Backups of a server of one's own by pgBackRest: driven, read, proven; by the real program where it is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from configs.settings import Settings
from tasks.backups import keys
from tasks.backups.checking import check_backup, faults_for
from tasks.backups.pgbackrest import driver_for
from tasks.backups.pgbackrest_engine import PgBackRestEngine
from tasks.backups.pgbackrest_setup import set_up
from tasks.backups.programs import ask, connect, scalar
from tasks.backups.runs import open_engine
from tasks.backups.source import source_of
from tasks.errors import DependencyDown, Refused, UsageError
from tasks.local_stack import find_postgres, programs_folder
from tests.backup_site import fill
from tests.pgbackrest_double import make_double

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)


def _quiet(_: str) -> None:
    return None


# --- the whole way, with a stand-in for the program ------------------------------------------------------------------


@pytest.fixture
def engine(kontor_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PgBackRestEngine]:
    """The engine over the test server, whose folder the stand-in copies; the repository is readable for its account."""
    folder = Path(tempfile.mkdtemp(prefix="kp-", dir="/tmp"))
    make_double(folder / "bin", programs_folder(), folder / "repo")
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    server = find_postgres(kontor_settings.home)
    assert server is not None
    folder.chmod(0o755)
    (folder / "repo").mkdir()
    config = folder / "pgbackrest.conf"
    config.write_text(
        f"repo1-path={folder / 'repo'}\npg1-path={server.data_dir}\npg1-socket-path={server.socket_dir}\n"
        f"pg1-port={server.port}\npg1-user={server.superuser}\n"
    )
    fill(kontor_settings, 20)
    changes = {"backup_engine": "pgbackrest", "pgbackrest_config": config, "home": kontor_settings.home}
    settings = kontor_settings.model_copy(update=changes)
    made = open_engine(settings)
    assert isinstance(made, PgBackRestEngine)
    tried = PgBackRestEngine(settings, made.target, keys.Keyring(tmp_path, tmp_path / keys.IDENTITY), made.driver)
    yield tried
    for label in made.target.names():
        made.target.remove_folder(label)
    shutil.rmtree(folder)


def test_a_backup_by_another_engine_passes_the_same_check(engine: PgBackRestEngine) -> None:
    """Taken, listed, restored to an instant and to its point, every look right; damage is told, a leftover goes."""
    with pytest.raises(DependencyDown, match="stanza was not made"):
        engine.take(NOW, "full", None)
    engine.driver.create_stanza()
    assert engine.survey().backups == ()
    manifest = engine.take(NOW, "full", None)
    assert (manifest.engine, manifest.engine_bytes) == ("pgbackrest", 10)
    assert engine.survey().backups == (manifest,)
    assert engine.knows(manifest)
    assert engine.continues(manifest)
    verdict = check_backup(engine, engine.survey(), manifest.label, now=NOW, planted="row_changed")
    assert [finding for finding in verdict.findings if not finding.passed] == []
    assert verdict.passed
    assert {"repository", "instant", "recovery", "tables", "pages"} <= {finding.name for finding in verdict.findings}
    assert not {"backup_label_missing", "file_missing"} & set(faults_for(engine))

    repository = Path(engine.driver.config).parent / "repo"
    (repository / str(manifest.engine_label) / "damaged").touch()
    damaged = check_backup(engine, engine.survey(), manifest.label, now=NOW, planted="manifest_changed")
    assert [finding.name for finding in damaged.findings if not finding.passed] == ["repository"]

    engine.target.remove_folder(manifest.label)  # a kill before the manifest was written
    assert engine.housekeep(engine.survey(), NOW) == 0
    assert engine.housekeep(engine.survey(), datetime.now(UTC) + timedelta(days=2)) == 1
    assert engine.driver.info().backups == ()


def test_what_the_engine_lacks_is_told_with_the_next_step(
    engine: PgBackRestEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No archiving, another engine, no program: each in words; a dry run writes nothing."""
    with pytest.raises(UsageError, match="needs no set-up"):
        set_up(engine.settings.model_copy(update={"backup_engine": "core"}), None, _quiet, live=True)
    fresh = engine.settings.model_copy(update={"pgbackrest_config": engine.driver.config.parent / "own" / "it.conf"})
    assert not set_up(fresh, None, _quiet, live=False).config.exists()
    with pytest.raises(Refused, match="does not send its WAL") as refused:
        set_up(fresh, None, _quiet, live=True)
    assert "archive-push %p" in refused.value.hint
    written = driver_for(fresh).config
    assert written.stat().st_mode & 0o777 == 0o600
    assert f"pg1-path={source_of(fresh).data_dir}" in written.read_text()  # type: ignore[union-attr]
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DependencyDown, match="pgbackrest is not installed"):
        engine.driver.info()


# --- the real one ----------------------------------------------------------------------------------------------------

_SCHEMA = (
    "create schema ops",
    "create table ops.alembic_version (version_num text)",
    "insert into ops.alembic_version values ('test')",
    "create table ops.heartbeats (heartbeat_id bigint generated always as identity primary key)",
    "alter table ops.heartbeats add beat_at timestamptz not null default clock_timestamp()",
    "create table ops.things as select n, 'thing ' || n as name from generate_series(1, 1000) n",
)


def _programs_it_can_back_up() -> Path:
    """PostgreSQL's programs of a version that the installed pgBackRest knows, beside those that Kontor brings."""
    if shutil.which("pgbackrest") is None:
        pytest.skip("pgBackRest is not installed here")
    found = sorted(Path("/usr/lib/postgresql").glob("1[4-9]/bin/initdb"), reverse=True)
    if not found:
        pytest.skip("pgBackRest is installed here, and no PostgreSQL beside it that it could back up")
    return found[0].parent


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Settings, Path]]:
    """A server of one's own with a socket and no archiving yet, run by an ordinary account, and its programs."""
    programs = _programs_it_can_back_up()
    if os.geteuid() == 0 and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("there is no account postgres that could run a server")
    folder = Path(tempfile.mkdtemp(prefix="ko-", dir="/tmp"))
    account = "postgres" if os.geteuid() == 0 else None
    if account:
        shutil.chown(folder, account)
    _run(
        [str(programs / "initdb"), "--no-sync", "--auth=trust", "--username=admin", "-D", str(folder / "data")], account
    )
    settings = Settings(
        home=folder / "home",
        database_url=_at(folder, 5432),
        backup_engine="pgbackrest",
        backup_target=SecretStr(str(tmp_path / "target")),
    )
    yield settings, programs
    _run([str(programs / "pg_ctl"), "-D", str(folder / "data"), "-m", "immediate", "stop"], account, check=False)
    shutil.rmtree(folder)


def _run(command: list[str], account: str | None, *, check: bool = True) -> None:
    subprocess.run(
        command,
        user=account,
        extra_groups=[] if account else None,
        cwd="/tmp",
        check=check,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _as_account(folder: Path, account: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pgBackRest run as the server's account, as it does in production, also where the tests run as root."""
    real = shutil.which("pgbackrest")
    if account is None or real is None:
        return
    wrapper = folder / "bin" / "pgbackrest"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\n[ "$(id -u)" = 0 ] && exec runuser -u {account} -- {real} "$@"\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")


def _give(folder: Path, account: str | None) -> None:
    if account is not None:
        _run(["chown", "-R", account, str(folder)], None)


@pytest.mark.campaign
def test_the_real_program_is_set_up_driven_read_and_restored(
    own: tuple[Settings, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set up, full, incremental, listed; restored to its point it is what was there then; a flipped bit is told."""
    settings, programs = own
    folder, account = settings.home.parent, "postgres" if os.geteuid() == 0 else None
    data = folder / "data"
    _as_account(folder, account, monkeypatch)
    control = [str(programs / "pg_ctl"), "-w", "-s", "-l", str(folder / "server.log")]
    wanted = f"-c listen_addresses= -c unix_socket_directories={folder}"
    _run([*control, "-D", str(data), "-o", wanted, "start"], account)
    with pytest.raises(Refused, match="does not send its WAL"):
        set_up(settings, None, _quiet, live=True)
    _give(folder, account)
    driver = driver_for(settings)
    with (data / "postgresql.conf").open("a") as file:
        file.write(f"archive_mode = on\narchive_command = '{driver.archive_command}'\n")
    _run([*control, "-D", str(data), "-o", wanted, "restart"], account)
    server = source_of(settings)
    with connect(server) as connection:
        for statement in _SCHEMA:
            ask(connection, statement)
    set_up(settings, None, _quiet, live=True)
    engine = open_engine(settings)

    full = engine.take(NOW, "full", None)
    assert engine.knows(full)
    with connect(server) as connection:
        ask(connection, "delete from ops.things where n > 700")
    later = engine.take(NOW + timedelta(minutes=1), "incremental", full)
    assert engine.survey().backups == (full, later)
    assert (later.base_label, engine.survey().chain(later.label)) == (full.label, (full, later))
    assert later.engine_bytes < full.engine_bytes
    with pytest.raises(Refused, match="not the one that an incremental"):
        engine.take(NOW + timedelta(minutes=2), "incremental", full)
    assert driver.verify() == []

    with connect(server) as connection:
        ask(connection, "drop table ops.things")
    driver.check()
    copy = folder / "copy"
    copy.mkdir(mode=0o700)
    _give(copy, account)
    driver.restore(str(later.engine_label), copy)
    with (copy / "postgresql.auto.conf").open("a") as file:
        file.write(f"restore_command = '{driver.restore_command}'\nrecovery_target_name = '{later.point}'\n")
        file.write("recovery_target_action = 'promote'\n")
    _run([*control, "-D", str(copy), "-o", f"{wanted} -c port=5433", "start"], account)
    with connect(source_of(settings.model_copy(update={"database_url": _at(folder, 5433)}))) as connection:
        assert scalar(connection, "select count(*) from ops.things") == 700
        assert scalar(connection, "show archive_mode") == "off"
    _run([*control, "-D", str(copy), "-m", "immediate", "stop"], account)
    _flip(folder / "home" / "pgbackrest" / "repository" / "backup" / "kontor" / str(full.engine_label))
    assert {line.split(": ")[0] for line in driver.verify()} == {"status", "backup"}
    engine.target.remove_folder(later.label)
    assert engine.survey().backups == (full,)


def _at(folder: Path, port: int) -> SecretStr:
    return SecretStr(f"postgresql://admin@/postgres?host={folder}&port={port}")


def _flip(backup: Path) -> None:
    victim = max(backup.glob("pg_data/base/**/*.zst"), key=lambda path: path.stat().st_size)
    content = victim.read_bytes()
    victim.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
