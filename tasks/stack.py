"""What stands under a command: the database with its schema, and for flows Prefect's server.

The embedded server is started and brought up to date by whichever command needs it. A database of one's own
(``KONTOR_DATABASE_URL``) is never migrated by the way: that is what ``kontor db upgrade`` is for.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, OperationalError

from configs.settings import Settings
from tasks.database import (
    DATABASE,
    FLOWS,
    OWNER,
    engine_for,
    newest_migration,
    prefect_certificates,
    prefect_database_url,
    prepare,
    prepare_server,
    standing_migration,
    upgrade,
)
from tasks.errors import DependencyDown, Refused, UsageError
from tasks.local_stack import start_postgres, stop_postgres
from tasks.prefect_server import expected_prefect, prefect_environment, start_prefect, stop_prefect
from tasks.prefect_settings import Listening, history_kept

Progress = Callable[[str], None]
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Stopped:
    """Which servers were running and have been stopped."""

    prefect: bool
    postgres: bool


def ensure_database(settings: Settings, progress: Progress) -> None:
    """See to it that the database is there with the schema of this version.

    Raises:
        DependencyDown: it cannot be reached.
        Refused: it is one's own and its schema is not at the newest migration; nothing is changed.
    """
    if settings.database_url is None:
        prepare(settings, progress)
        return
    with connected(settings, OWNER) as connection:
        standing = standing_migration(connection)
    if standing != newest_migration():
        raise Refused(
            f"The database's schema stands at {standing or 'nothing'}; this version of Kontor needs"
            f" {newest_migration()}."
            " Nothing was changed.",
            hint="Back the database up, then run `kontor db upgrade`.",
        )


def ensure_prefect(settings: Settings, progress: Progress) -> str:
    """See to it that Prefect's server answers and that flows of this process report to it; returns its API's URL.

    Must be called before Prefect is first imported: it reads its settings then. A server that ``PREFECT_API_URL``
    names is used as it is.

    Raises:
        DependencyDown: the server does not come up.
    """
    given = os.environ.get("PREFECT_API_URL")
    listening = prefect_listening(settings)
    if given:
        if listening.login:
            os.environ.setdefault("PREFECT_API_AUTH_STRING", listening.login)
        return given
    server = start_prefect(
        settings.home,
        database_url=prefect_database_url(settings),
        options=prefect_options(settings),
        listening=listening,
        progress=progress,
    )
    os.environ.update(prefect_environment(server, settings.home, listening.login))
    return server.api_url


def ensure_stack(settings: Settings, progress: Progress, on_address: Callable[[], None]) -> None:
    """See to both servers, side by side where both are ours: Prefect's needs its seconds while our schema is made.

    ``on_address`` is called as soon as it is known where Prefect's server will answer, before it does.

    Raises:
        As :func:`ensure_database` and :func:`ensure_prefect`.
    """
    if settings.database_url is not None or os.environ.get("PREFECT_API_URL"):
        ensure_database(settings, progress)
        ensure_prefect(settings, progress)
        on_address()
        return
    prepare_server(settings, progress)
    with ThreadPoolExecutor(max_workers=1) as pool:
        prefect = pool.submit(ensure_prefect, settings, progress)
        while expected_prefect(settings.home) is None and not prefect.done():
            time.sleep(_LOOK_SECONDS)
        on_address()
        upgrade(settings, progress)
        prefect.result()


def prefect_listening(settings: Settings) -> Listening:
    """Where Prefect's server is to listen, and with which password.

    Raises:
        UsageError: others could reach it without one, or the file with it is readable by others or holds none.
    """
    path, host = settings.prefect_auth_file, settings.prefect_host
    login = None if path is None else _login_in(path)
    if login is None and not _is_loopback(host):
        raise UsageError(
            f"Prefect's server would listen on {host} without a password. It was not started.",
            hint="Name a file of mode 0600 with user:password in KONTOR_PREFECT_AUTH_FILE; see SECURITY.md.",
        )
    return Listening(host, settings.prefect_port, login)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _login_in(path: Path) -> str:
    try:
        open_to_others, text = path.stat().st_mode & 0o077, path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The file with Prefect's password cannot be read ({type(error).__name__}).",
            hint="Correct KONTOR_PREFECT_AUTH_FILE.",
        ) from None
    if open_to_others:
        raise UsageError("Others than its owner may read Prefect's password.", hint=f"Run: chmod 600 {path}")
    if not re.fullmatch(r"[^:\s]+:\S{12,}", text):
        raise UsageError(
            "The file with Prefect's password does not hold user:password with 12 characters or more.",
            hint=f"Write one line such as admin:$(openssl rand -base64 24) into {path}.",
        )
    return text


def prefect_options(settings: Settings) -> dict[str, str]:
    """The variables that these settings make for Prefect's server: certificates of its database, days of history."""
    return {**prefect_certificates(settings), **history_kept(settings.prefect_history_days)}


def take_down(settings: Settings) -> Stopped:
    """Stop Prefect's server and then the embedded database, and say which were running; data stay.

    In this order, because Prefect's server writes its last words into the database.
    """
    return Stopped(prefect=stop_prefect(settings.home), postgres=stop_postgres(settings.home))


@contextmanager
def connected(settings: Settings, role: str = FLOWS, *, write: bool = False) -> Iterator[Connection]:
    """A connection that works as ``role`` for a ``with`` block: one transaction, rolled back unless ``write``.

    Raises:
        DependencyDown: the database cannot be reached, or was lost on the way; what was open was rolled back.
    """
    try:
        with engine_for(settings, role, purpose="kontor command").connect() as connection:
            yield connection
            if write:
                connection.commit()
    except DataError as error:
        state = getattr(error.orig, "sqlstate", "")
        if state not in ("22003", "22008"):
            raise
        raise UsageError(
            f"A number or a date that was given is out of range (SQLSTATE {state}). Nothing was changed.",
            hint="Dates go from year 1 to 9999 with room for what is reckoned from them; ids have at most 18 digits.",
        ) from None
    except OperationalError:
        raise DependencyDown(
            "The database cannot be reached. Nothing half-done remains.",
            hint="Check KONTOR_DATABASE_URL and that the server runs; for the embedded one, `kontor up`.",
        ) from None


def drop_database(settings: Settings, progress: Progress) -> None:
    """Remove Kontor's database from the embedded server, with everything in it; for the demo's own home only.

    Prefect's database and the server stay. Nothing happens where there is no database.
    """
    server = start_postgres(settings.home, timeout_seconds=settings.start_timeout_seconds, progress=progress)
    where = make_conninfo(host=str(server.socket_dir), port=server.port, user=server.superuser, dbname="postgres")
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(SQL("drop database if exists {} with (force)").format(Identifier(DATABASE)))
