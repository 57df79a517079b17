"""What stands under a command: the database with its schema, and for flows Prefect's server.

The embedded server is started and brought up to date by whichever command needs it. A database of one's own
(``KONTOR_DATABASE_URL``) is never migrated by the way: that is what ``kontor db upgrade`` is for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    standing_migration,
)
from tasks.errors import DependencyDown, Refused, UsageError
from tasks.local_stack import start_postgres, stop_postgres
from tasks.prefect_server import history_kept, prefect_environment, start_prefect, stop_prefect

Progress = Callable[[str], None]


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
    if given:
        return given
    server = start_prefect(
        settings.home,
        database_url=prefect_database_url(settings),
        options=prefect_options(settings),
        progress=progress,
    )
    os.environ.update(prefect_environment(server, settings.home))
    return server.api_url


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
