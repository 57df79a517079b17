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
    quote = connection.dialect.identifier_preparer.quote
    cells = " union all ".join(f"select {quote(name)}::text as cell from {quote(table)}" for name in columns)
    statement = (
        f"select distinct m[1] from ({cells}) c, regexp_matches(c.cell, :address, 'g') m where c.cell like '%@%'"
    )
    return set(connection.scalars(text(statement), {"address": f"({ADDRESS})"}))


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
    quote = connection.dialect.identifier_preparer.quote
    where = " or ".join(f"{quote(name)}::text ~* :pattern" for name in columns)
    if not live:
        statement = f"select count(*) from {quote(table)} where {where}"
        return int(connection.scalar(text(statement), {"pattern": terms.strong_pattern}) or 0)
    changes = ", ".join(
        f"{quote(name)} = cast(regexp_replace({quote(name)}::text, :pattern, '{ERASED}', 'gi') as {kind})"
        for name, kind in columns.items()
    )
    statement = f"update {quote(table)} set {changes} where {where}"
    return connection.execute(text(statement), {"pattern": terms.strong_pattern}).rowcount
