"""Traces of people in Prefect's own database: parameters of runs, logs, artifacts, events.

Kontor keeps people out of them; what a person typed into a form, or a name in a file's name, may still stand there.
Every text and JSON column of its tables is read, whatever a version of Prefect calls them.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from configs.settings import Settings
from tasks.database import prefect_url
from tasks.erasures.terms import ADDRESS, ERASED, Terms


def erase_in_prefect(settings: Settings, terms: Terms, *, live: bool) -> dict[str, int]:
    """The rows of Prefect's database in which an address or number stands, by table; replaced where ``live``.

    Empty where Prefect's database does not exist yet.
    """
    if not terms.strong:
        return {}
    try:
        with _engine(settings).begin() as connection:
            found = {table: _rows(connection, table, columns, terms, live) for table, columns in _tables(connection)}
    except OperationalError:
        return {}
    return {f"prefect.{table}": count for table, count in found.items() if count}


def addresses_in_prefect(settings: Settings) -> dict[str, set[str]]:
    """Every e-mail address in Prefect's database by table, as it is written, for a search by hashes alone."""
    try:
        with _engine(settings).connect() as connection:
            return {table: _addresses(connection, table, columns) for table, columns in _tables(connection)}
    except OperationalError:
        return {}


def _addresses(connection: Connection, table: str, columns: dict[str, str]) -> set[str]:
    row = _row(connection, columns)
    statement = (
        f"with worth_a_look as materialized (select {row} as said from {_quoted(connection, table)}"
        f" where {row} like '%@%')"
        " select distinct m[1] from worth_a_look, regexp_matches(said, :address, 'g') m"
    )
    return set(connection.scalars(text(statement), {"address": f"({ADDRESS})"}))


def _row(connection: Connection, columns: dict[str, str]) -> str:
    """SQL: all that a row says, as one text; one look at it finds the few rows that are worth an exact one."""
    return f"concat_ws(chr(31), {', '.join(_quoted(connection, name) for name in columns)})"


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote(name)


def _engine(settings: Settings) -> Engine:
    return create_engine(prefect_url(settings), poolclass=NullPool)


def _tables(connection: Connection) -> Iterator[tuple[str, dict[str, str]]]:
    tables: dict[str, dict[str, str]] = {}
    rows = connection.execute(
        text(
            "select c.table_name, c.column_name, c.data_type from information_schema.columns c"
            " join information_schema.tables t using (table_schema, table_name)"
            " where c.table_schema = 'public' and t.table_type = 'BASE TABLE' and c.is_generated = 'NEVER'"
            " and c.data_type in ('text', 'character varying', 'json', 'jsonb') and c.table_name <> 'alembic_version'"
        )
    )
    for row in rows:
        tables.setdefault(row.table_name, {})[row.column_name] = row.data_type
    yield from sorted(tables.items())


def _rows(connection: Connection, table: str, columns: dict[str, str], terms: Terms, live: bool) -> int:
    # Only what is looked for exactly is worth a look; a row is made small once, which ILIKE does for each of its words.
    likes = list(Terms(strong=terms.strong).likes)
    row, bound = _row(connection, columns), {"likes": likes, "pattern": terms.strong_pattern}
    small = "array(select lower(word) from unnest(cast(:likes as text[])) word)"
    where = f"case when lower({row}) like any({small}) then {row} ~* :pattern else false end"
    found = f"select count(*) from {_quoted(connection, table)} where {where}"
    rows = int(connection.scalar(text(found), bound) or 0)
    if not live or not rows:
        return rows
    changes = ", ".join(
        f"{name} = cast(regexp_replace({name}::text, :pattern, '{ERASED}', 'gi') as {kind})"
        for name, kind in ((_quoted(connection, name), kind) for name, kind in columns.items())
    )
    return connection.execute(text(f"update {_quoted(connection, table)} set {changes} where {where}"), bound).rowcount
