"""What a database holds, as one line per table: how many rows, and a digest that their order does not change.

Two databases of the same major version with equal fingerprints hold equal rows: the digest is the sum over all rows of
a 64-bit hash. ``h``: PostgreSQL's own hash of the row, by which equal values are equal (1.0 and 1.00 too), in half the
time of the other. ``t``: a hash of the row's text, in a zone and a date style that are fixed here, for a table with a
column of a type that cannot be hashed, such as json. Taken at one point in time, with no writer under way, so that a
restored database can be compared with it exactly.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import psycopg
from psycopg import sql

from tasks.backups.definitions import DEFINITIONS
from tasks.backups.manifest import TablePrint
from tasks.backups.pieces import Known, Pieces, Table, large_tables, page_reader, print_pieces, stale_pieces
from tasks.backups.programs import Server, Session, ask, connect, scalar
from tasks.errors import BadInput, Refused

DATABASES = ("kontor", "prefect")
_READERS = 2
_TABLES = """
select n.nspname, c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by 1, 2
"""
_HASHES = {"h": "hash_record_extended(t, 0)", "t": "hashtextextended(t::text, 0)"}
_FIXED = (
    "set timezone = 'UTC'",
    "set datestyle = 'ISO, MDY'",
    "set intervalstyle = 'postgres'",
    "set bytea_output = 'hex'",
    "set extra_float_digits = 1",
    "set search_path = pg_catalog",
)


@dataclass(frozen=True)
class Point:
    """A restore point at which nobody was writing: its name, its place in the WAL, and the server's time after it.

    ``known`` is what the next one need not read again, where that was asked for.
    """

    name: str
    lsn: str
    at: str
    prints: tuple[TablePrint, ...]
    schema: dict[str, str]
    known: Known


def print_tables(
    connection: Session, database: str, done: Mapping[tuple[str, str], Pieces] = MappingProxyType({})
) -> list[TablePrint]:
    """The fingerprint of every permanent table of the connected database, as its transaction sees them.

    Those in ``done``, by schema and name, were read piece by piece.
    """
    for setting in _FIXED:
        ask(connection, setting)
    found = []
    for schema, name in ask(connection, _TABLES):
        pieces = done.get((schema, name))
        if pieces is None:
            found.append(_print(connection, database, schema, name))
            continue
        rows, total = sum(rows for rows, _ in pieces.sums), sum(total for _, total in pieces.sums)
        found.append(TablePrint(database, f"{schema}.{name}", rows, f"h:{total}"))
    return found


def _pieces_of(server: Server, database: str, readers: Sequence[Session], known: Known) -> dict[Table, Pieces]:
    """What the large tables of a database hold, read where they were written to since they were ``known``."""
    tables, found = large_tables(readers[0]), {}
    if not tables:
        return {}
    with page_reader(server, database) as session:
        for table in tables:
            held = known.tables.get(f"{database} {table.schema}.{table.name}")
            pieces = print_pieces(readers, table, held, stale_pieces(session, table, held, known.lsn))
            if pieces is not None:
                found[table] = pieces
    return found


def _print(connection: Session, database: str, schema: str, name: str) -> TablePrint:
    for way, hashed in _HASHES.items():
        # A sum of bigint is a numeric: it cannot overflow.
        statement = sql.SQL("select count(*), coalesce(sum({}), 0)::text from {} t").format(
            sql.SQL(hashed), sql.Identifier(schema, name)
        )
        try:
            with connection.transaction():  # a savepoint in the transaction that there is
                [(rows, digest)] = ask(connection, statement)
        except psycopg.errors.UndefinedFunction:
            continue
        return TablePrint(database, f"{schema}.{name}", rows, f"{way}:{digest}")
    raise BadInput(f"{schema}.{name} has a column that has neither hash nor text.", hint="Report this.")


def mark_point(server: Server, name: str, *, patience_seconds: float = 60.0, known: Known | None = None) -> Point:
    """Make a restore point at which no transaction that writes is open, and fingerprint exactly that state.

    All tables are locked against writers while the point is made, which takes milliseconds; the fingerprints are then
    computed in a snapshot of that moment while everybody works on. A writer who does not finish is not waited for more
    than two seconds at a time, because others queue behind the lock.

    With ``known``, what an earlier point found, large tables are read only where they were written to since.

    Raises:
        Refused: writers were under way for the whole of ``patience_seconds``; nothing was changed.
    """
    names = [name for name in DATABASES if _has(server, name)]
    with ExitStack() as stack:
        sessions = {name: [stack.enter_context(connect(server, name)) for _ in range(_READERS)] for name in names}
        lsn, at = _agree(server, sessions, name, time.monotonic() + patience_seconds)
        prints: list[TablePrint] = []
        held: dict[str, Pieces] = {}
        schema: dict[str, str] = {}
        for database, readers in sessions.items():
            pieces = _pieces_of(server, database, readers, known) if known is not None else {}
            held |= {f"{database} {table.schema}.{table.name}": found for table, found in pieces.items()}
            done = {(table.schema, table.name): found for table, found in pieces.items()}
            prints += print_tables(readers[0], database, done)
            schema |= dict(print_schema(readers[0], database))
            for reader in readers:
                reader.rollback()
    return Point(name, lsn, at, tuple(prints), schema, Known(lsn, held))


def print_schema(connection: Session, database: str) -> list[tuple[str, str]]:
    """Digests of what is not in tables: who may do what, which roles there are, what is defined how."""
    for setting in _FIXED:
        ask(connection, setting)
    return [
        (
            f"{database} {what}",
            hashlib.sha256("\n".join(str(row) for row in ask(connection, query)).encode()).hexdigest(),
        )
        for what, query in DEFINITIONS.items()
    ]


def _has(server: Server, database: str) -> bool:
    with connect(server, "postgres") as connection:
        return bool(scalar(connection, "select exists (select from pg_database where datname = %s)", database))


def _agree(server: Server, sessions: dict[str, list[Session]], name: str, deadline: float) -> tuple[str, str]:
    while True:
        try:
            with _still(server, list(sessions)) as snapshots:
                for database, snapshot in snapshots.items():
                    for reader in sessions[database]:
                        ask(reader, "begin isolation level repeatable read read only")
                        ask(reader, sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
                    _lock(sessions[database][0], "access share")  # nobody empties or rewrites a table meanwhile
                with connect(server, "postgres") as marker:
                    lsn = str(scalar(marker, "select pg_create_restore_point(%s)", name))
                    at = scalar(marker, "select clock_timestamp()")
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            for reader in chain(*sessions.values()):
                reader.rollback()
            if time.monotonic() > deadline:
                raise Refused(
                    "Other transactions were writing all the time, so that no moment without a writer was found;"
                    " the backup was not completed.",
                    hint="See which in pg_stat_activity; run the backup again when they have ended.",
                ) from None
            time.sleep(random.uniform(0.2, 0.8))
            continue
        return lsn, at.isoformat()


@contextmanager
def _still(server: Server, databases: Sequence[str]) -> Iterator[dict[str, str]]:
    """Nobody writes while this ``with`` block runs; yields a snapshot of each database."""
    with ExitStack() as stack:
        snapshots = {}
        for database in databases:
            holder = stack.enter_context(connect(server, database))
            ask(holder, "begin")
            ask(holder, "set local lock_timeout = '2s'")
            _lock(holder, "share")
            snapshots[database] = str(scalar(holder, "select pg_export_snapshot()"))
        yield snapshots


def _lock(session: Session, mode: str) -> None:
    tables = [sql.Identifier(schema, table) for schema, table in ask(session, _TABLES)]
    if tables:
        ask(session, sql.SQL("lock table {} in {} mode").format(sql.SQL(", ").join(tables), sql.SQL(mode)))


def differences(expected: Sequence[TablePrint], found: Sequence[TablePrint]) -> list[str]:
    """What is not as expected, by table, in words: missing, additional, another number of rows, other content."""
    wanted = {(line.database, line.table): line for line in expected}
    there = {(line.database, line.table): line for line in found}
    said = [f"{table} is missing" for _, table in sorted(wanted.keys() - there.keys())]
    said += [f"{table} was not in the source" for _, table in sorted(there.keys() - wanted.keys())]
    for key in sorted(wanted.keys() & there.keys()):
        if wanted[key].rows != there[key].rows:
            said.append(f"{key[1]} has {there[key].rows:,} rows, expected {wanted[key].rows:,}")
        elif wanted[key].digest != there[key].digest:
            said.append(f"{key[1]} has other content")
    return said
