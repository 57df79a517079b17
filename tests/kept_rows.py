"""The rows of a database at one moment, kept aside and brought back: what takes a second to take in, tests need often.

Kept as temporary tables of one connection, so that nothing of them is left when it closes. History is not among them: a
test that asks for it takes its files in itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from configs.settings import Settings
from tasks.database import DATABASE
from tasks.local_stack import find_postgres
from tests.conftest import KEPT


@dataclass(frozen=True)
class KeptRows:
    """Where rows are kept, by table with its columns, and how far each sequence had counted."""

    connection: psycopg.Connection[Any]
    tables: dict[tuple[str, str], list[str]]
    sequences: list[tuple[str, int]]

    def bring_back(self) -> None:
        """Put the rows into tables that are empty; no trigger fires, and the sequences go on after them."""
        with self.connection.transaction():
            self.connection.execute("set local session_replication_role = replica")
            for number, ((schema, table), columns) in enumerate(self.tables.items()):
                statement = SQL("insert into {} ({}) overriding system value select * from {}")
                kept, place = Identifier(f"kept_{number}"), Identifier(schema, table)
                self.connection.execute(statement.format(place, _listed(columns), kept))
            for name, last in self.sequences:
                self.connection.execute("select setval(%s, %s)", (name, last))


@contextmanager
def keep_rows(settings: Settings) -> Iterator[KeptRows]:
    """Keep what the database holds now, for a ``with`` block."""
    server = find_postgres(settings.home)
    if server is None:
        raise AssertionError("the test server is not running")
    with psycopg.connect(
        host=str(server.socket_dir), port=server.port, user=server.superuser, dbname=DATABASE, autocommit=True
    ) as connection:
        tables: dict[tuple[str, str], list[str]] = {}
        for schema, table, columns in connection.execute(_TABLES).fetchall():
            place = SQL("select 1 from {} limit 1").format(Identifier(schema, table))
            if f"{schema}.{table}" not in KEPT and connection.execute(place).fetchone():
                statement = SQL("create temporary table {} as select {} from {}")
                kept = Identifier(f"kept_{len(tables)}")
                connection.execute(statement.format(kept, _listed(columns), Identifier(schema, table)))
                tables[schema, table] = columns
        if not tables:
            raise AssertionError("there is nothing to keep")
        yield KeptRows(connection, tables, connection.execute(_SEQUENCES).fetchall())


def _listed(columns: list[str]) -> Composed:
    return SQL(", ").join(map(Identifier, columns))


_TABLES = """
select n.nspname, c.relname, array_agg(a.attname::text order by a.attnum)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
where c.relkind = 'r' and n.nspname in ('crm', 'landing', 'ops', 'rules', 'outbox')
group by 1, 2
"""

_SEQUENCES = """
select format('%I.%I', schemaname, sequencename), last_value from pg_sequences
where last_value is not null and schemaname in ('crm', 'landing', 'ops', 'rules', 'outbox')
"""
