"""PostgreSQL's own programs, run as children: their answers, their output as a stream, their refusals in words."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from tasks.backups.manifest import Finding
from tasks.errors import BadInput, DependencyDown, Refused
from tasks.local_stack import LocalPostgres, programs_folder

Session = psycopg.Connection[tuple[Any, ...]]
ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/local/bin", "LC_ALL": "C", "TZ": "UTC", "PGCONNECT_TIMEOUT": "20"}


@dataclass(frozen=True)
class Ended:
    """How a program ended: its code and the last lines it said, which name files and settings, never rows."""

    code: int
    said: str


def run_program(folder: Path, name: str, *arguments: str) -> Ended:
    """Run one of PostgreSQL's programs to its end."""
    done = subprocess.run(
        [str(folder / name), *arguments], capture_output=True, check=False, env=ENVIRONMENT, stdin=subprocess.DEVNULL
    )
    return Ended(done.returncode, tail(done.stderr or done.stdout))


def must(ended: Ended, what: str) -> None:
    """Raise DependencyDown unless the program ended well."""
    if ended.code != 0:
        raise DependencyDown(f"{what} (code {ended.code}): {ended.said}", hint="Correct the cause and run it again.")


@contextmanager
def output_of(command: Sequence[str], what: str) -> Iterator[IO[bytes]]:
    """A program's output as a stream for a ``with`` block; leaving the block before its end ends the program.

    What it says goes to a file meanwhile: a pipe that nobody reads would stop it after 64 KB.

    Raises:
        DependencyDown: all of its output was read, and then it ended with an error.
    """
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=words, stdin=subprocess.DEVNULL, env=ENVIRONMENT
        ) as process,
    ):
        if process.stdout is None:
            raise DependencyDown(f"{what}: no pipe")
        try:
            yield process.stdout
            left_early = bool(process.stdout.read(1))
        except BaseException:
            process.kill()
            raise
        if left_early:
            process.kill()  # it would wait for ever for somebody who reads on
            return
        must(Ended(process.wait(), tail(_all_of(words))), what)


@contextmanager
def input_of(command: Sequence[str], what: str) -> Iterator[IO[bytes]]:
    """A program's input as a stream for a ``with`` block.

    Raises:
        BadInput: the program did not like what it read.
    """
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words, env=ENVIRONMENT
        ) as process,
    ):
        if process.stdin is None:
            raise DependencyDown(f"{what}: no pipe")
        try:
            yield process.stdin
            process.stdin.close()
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            raise BadInput(f"{what} (code {process.returncode}): {tail(_all_of(words))}", hint="Try another backup.")


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def tail(output: bytes) -> str:
    """The last lines of what a program said."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])[:600]


def where(server: LocalPostgres) -> list[str]:
    """The options by which PostgreSQL's programs reach a server as its superuser."""
    return [f"--host={server.socket_dir}", f"--port={server.port}", f"--username={server.superuser}", "--no-password"]


@dataclass(frozen=True)
class OwnServer:
    """A server that is not ours to start and stop, by the address that the settings give; it may hold a password."""

    url: URL


Server = LocalPostgres | OwnServer


def connect(server: Server, database: str = "kontor", *, role: str | None = None) -> Session:
    """A connection of its own to the server, each statement a transaction; UTC.

    Of a server of one's own ``kontor`` is the database that its address names, and nobody else than its user is taken.

    Raises:
        DependencyDown: the server does not let us in.
    """
    target = make_conninfo(
        **_address(server, database, role),
        connect_timeout=20,
        options="-c timezone=UTC -c application_name=kontor_backup",
    )
    try:
        return psycopg.connect(target, autocommit=True)
    except psycopg.OperationalError as error:
        who = role or (server.url.username if isinstance(server, OwnServer) else server.superuser)
        raise DependencyDown(
            f"{database} cannot be entered as {who} ({type(error).__name__}).",
            hint="Look at `kontor status` and the server's log.",
        ) from None


def _address(server: Server, database: str, role: str | None) -> dict[str, Any]:
    if isinstance(server, LocalPostgres):
        where = {"host": str(server.socket_dir), "port": server.port, "user": role or server.superuser}
        return {**where, "dbname": database}
    url = server.url
    name = url.database if database == "kontor" else database
    parts = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": name}
    return {**url.query, **{key: value for key, value in parts.items() if value is not None}}


def ask(connection: Session, statement: str | sql.Composed, *values: object) -> list[tuple[Any, ...]]:
    """The rows that a statement answers with, none for one that answers nothing."""
    cursor = connection.execute(statement.encode() if isinstance(statement, str) else statement, values or None)
    return cursor.fetchall() if cursor.description else []


def scalar(connection: Session, statement: str | sql.Composed, *values: object) -> Any:
    """The first value of a statement's first row, None where there is no row."""
    rows = ask(connection, statement, *values)
    return rows[0][0] if rows else None


def programs_version(folder: Path) -> int:
    """The major version of the programs; DependencyDown when they do not run."""
    done = subprocess.run(
        [str(folder / "pg_basebackup"), "--version"], capture_output=True, check=False, env=ENVIRONMENT
    )
    found = re.search(rb"\) (\d+)", done.stdout)
    if found is None:
        raise DependencyDown(f"{folder / 'pg_basebackup'} does not run.", hint="Run `make install` again.")
    return int(found[1])


def check_versions(server_version: int, folder: Path | None = None) -> None:
    """Refuse when the programs are of another major version than the server, or than a backup.

    ``server_version`` is PostgreSQL's number, such as 180006.

    Raises:
        Refused: with both versions.
    """
    ours = programs_version(folder or programs_folder())
    if ours != server_version // 10_000:
        raise Refused(
            f"The data are of PostgreSQL {server_version // 10_000}, the programs of {ours}; nothing was changed.",
            hint=f"Use the release of Kontor that brings PostgreSQL {server_version // 10_000}.",
        )


def files(programs: Path, folder: Path) -> Finding:
    """Every file of a laid-out data folder is the one that PostgreSQL listed, and its WAL can be read through."""
    ended = run_program(programs, "pg_verifybackup", "--exit-on-error", str(folder))
    return Finding(
        "files", ended.code == 0, "pg_verifybackup agrees" if ended.code == 0 else ended.said.split(" / ")[0][:200]
    )
