"""What every engine asks of the database that it backs up: what it is, what time it is there, and a few beats."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import make_url

from configs.settings import Settings
from tasks.backups.manifest import Beat
from tasks.backups.programs import OwnServer, Server, connect, scalar
from tasks.errors import DependencyDown
from tasks.local_stack import LocalPostgres, find_postgres

BEATS = 4
_BEAT_PAUSE_SECONDS = 0.02


def embedded_server(settings: Settings) -> LocalPostgres:
    """The running embedded server; DependencyDown where it does not run."""
    server = find_postgres(settings.home)
    if server is None:
        raise DependencyDown("The embedded database is not running.", hint="Start it with `kontor up`.")
    return server


def source_of(settings: Settings) -> Server:
    """The server that holds the data: the one that the settings name, else the embedded one."""
    if settings.database_url is not None:
        return OwnServer(make_url(settings.database_url.get_secret_value()))
    return embedded_server(settings)


def describe(server: Server) -> dict[str, Any]:
    """What a manifest says of the server: version, identity, size in bytes, schema, holds in force."""
    with connect(server) as connection:
        holds = scalar(connection, "select to_regclass('ops.legal_holds') is not null")
        counted = "select count(*) from ops.legal_holds where released_at is null"
        return {
            "server_version": int(scalar(connection, "show server_version_num")),
            "system_identifier": str(scalar(connection, "select system_identifier from pg_control_system()")),
            "source_bytes": int(scalar(connection, "select sum(pg_database_size(oid))::bigint from pg_database")),
            "migration": scalar(connection, "select version_num from ops.alembic_version"),
            "holds": int(scalar(connection, counted)) if holds else 0,
        }


def history_of(server: Server) -> tuple[str, int]:
    """Which history the server writes: its system identifier and its timeline."""
    with connect(server) as connection:
        segment = str(scalar(connection, "select pg_walfile_name(pg_current_wal_lsn())"))
        return str(scalar(connection, "select system_identifier from pg_control_system()")), int(segment[:8], 16)


def write_beats(server: Server) -> list[Beat]:
    """Write a few beats, each its own transaction, so that a recovery to between two of them can be proven."""
    beats = []
    with connect(server) as connection:
        for _ in range(BEATS):
            begun = scalar(connection, "select clock_timestamp()")
            number = int(scalar(connection, "insert into ops.heartbeats default values returning heartbeat_id"))
            done = scalar(connection, "select clock_timestamp()")
            beats.append(Beat(number, begun.isoformat(), done.isoformat()))
            time.sleep(_BEAT_PAUSE_SECONDS)
    return beats


def between(first: Beat, second: Beat) -> datetime:
    """The instant half-way between the end of one beat and the beginning of the next."""
    done, begun = datetime.fromisoformat(first.done_at), datetime.fromisoformat(second.begun_at)
    return done + max(begun - done, timedelta(0)) / 2


def server_time(server: Server) -> str:
    """What time it is by the server's clock, as ISO 8601 in UTC."""
    with connect(server) as connection:
        return str(scalar(connection, "select clock_timestamp()").isoformat())
