"""From a backup into an empty database of another server: restored and released on a scratch server, then copied.

A data folder can only be put in the place of a data folder; a server that is not ours takes rows. The order:

1. The database there is looked at: it must be empty, and its server must know Kontor's roles.
2. The backup is restored to a scratch home and released there: the erased are erased again, sequences set on, mails
   held. Nothing leaves the scratch server before that.
3. ``pg_dump`` and ``pg_restore`` copy it in one transaction: killed at any point, the database there is empty.
4. Every table is compared by its fingerprint.
5. The scratch home is removed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from configs.settings import Settings
from data_contracts.schemas import SCHEMAS
from tasks.backups.catalogue import Catalogue
from tasks.backups.engine import Engine
from tasks.backups.fingerprints import differences, print_tables
from tasks.backups.operating import Prospect, carry_out
from tasks.backups.programs import (
    ENVIRONMENT,
    Ended,
    OwnServer,
    Session,
    ask,
    connect,
    must,
    output_of,
    scalar,
    tail,
    where,
)
from tasks.backups.restoring import Released, Restored
from tasks.backups.scratch import own_scratch
from tasks.database import FINANCE, FLOWS, OLDEST_SERVER, OWNER, RETENTION
from tasks.errors import BadInput, Refused, UsageError
from tasks.local_stack import LocalPostgres

Progress = Callable[[str], None]
HANDOVER = "handover"
_ROLES = (OWNER, FLOWS, RETENTION, FINANCE)


@dataclass(frozen=True)
class HandedOver:
    """What was copied: how the scratch copy was restored and released, and the tables and rows that are equal there."""

    restored: Restored
    released: Released
    tables: int
    rows: int


def address_of(text: str) -> URL | None:
    """The address of a database, None for a folder.

    Raises:
        UsageError: it begins as an address and is none, or names no database.
    """
    if not text.startswith(("postgresql:", "postgres:")):
        return None
    try:
        url = make_url(text).set(drivername="postgresql")
    except ArgumentError:
        url = None
    if url is None or not url.database:
        raise UsageError(
            "--into begins like a database's address and is none.", hint="postgresql://user@host/database, or a folder."
        )
    return url


def scratch_of(settings: Settings) -> Path:
    """The home in which a backup is restored before it is handed over."""
    return settings.home / "scratch" / HANDOVER


def look_at(url: URL, server_version: int) -> None:
    """Raise unless the database is empty, its server can hold the backup, and Kontor's roles are known there.

    Raises:
        Refused: with what is in the way; nothing was changed.
        DependencyDown: it cannot be entered.
    """
    with connect(OwnServer(url)) as connection:
        version = int(scalar(connection, "show server_version_num"))
        if version < OLDEST_SERVER or version // 10_000 < server_version // 10_000:
            raise Refused(
                f"The server there is PostgreSQL {version // 10_000}, the backup of {server_version // 10_000}.",
                hint="Name a server of the same version or a newer one.",
            )
        _must_be_empty(connection)
        known = {row[0] for row in ask(connection, "select rolname from pg_roles")}
    missing = [role for role in _ROLES if role not in known]
    if missing:
        raise Refused(
            f"The server there does not know: {', '.join(missing)}. Nothing was changed.",
            hint="Let its administrator run data_contracts/roles.sql, then run it again.",
        )


def _must_be_empty(connection: Session) -> None:
    question = "select nspname from pg_namespace where nspname = any(%s) order by 1"
    there = [str(row[0]) for row in ask(connection, question, list(SCHEMAS))]
    if there:
        raise Refused(
            f"The database there is not empty: it has {', '.join(there)}. Nothing was changed.",
            hint="Name a new, empty database; Kontor never writes a backup over rows.",
        )


def hand_over(
    settings: Settings, engine: Engine, catalogue: Catalogue, prospect: Prospect, url: URL, progress: Progress
) -> HandedOver:
    """Restore, release, copy and compare; returns what was done. The scratch home is removed in any case.

    Raises:
        Refused: as :func:`look_at`; or another is under way.
        DependencyDown: the copy did not go through; the database there is as empty as before.
        BadInput: what is there differs from what was restored; it must not be used.
    """
    look_at(url, prospect.wanted.newest.server_version)
    with own_scratch(settings, HANDOVER) as home:
        restored, released = carry_out(
            settings, engine, catalogue, replace(prospect, home=home, replaces=False), progress
        )
        progress("Copying…")
        _copy(restored.server, url)
        tables, rows = _compare(restored.server, url)
    return HandedOver(restored, released, tables, rows)


def _copy(source: LocalPostgres, url: URL) -> None:
    """All of it in one transaction; the password goes by the environment, where others cannot read it."""
    dump = [str(source.programs_dir / "pg_dump"), *where(source), "--format=custom", "--compress=0", "kontor"]
    restore = [str(source.programs_dir / "pg_restore"), "--single-transaction", "--exit-on-error", "--no-password"]
    restore.append(f"--dbname={url.set(password=None).render_as_string()}")
    secret = url.password or os.environ.get("PGPASSWORD")
    environment = {**ENVIRONMENT, **({"PGPASSWORD": str(secret)} if secret else {})}
    with output_of(dump, "pg_dump did not finish") as rows:
        done = subprocess.run(restore, stdin=rows, capture_output=True, check=False, env=environment)
        must(
            Ended(done.returncode, tail(done.stderr)),
            "The database there did not take the copy and is as empty as before",
        )


def _compare(source: LocalPostgres, url: URL) -> tuple[int, int]:
    with connect(source) as one, connect(OwnServer(url)) as other:
        expected, found = print_tables(one, "kontor"), print_tables(other, "kontor")
    wrong = differences(expected, found)
    if wrong:
        raise BadInput(
            f"What is there differs from the backup: {'; '.join(wrong[:5])}.", hint="Drop that database; report this."
        )
    return len(found), sum(line.rows for line in found)
