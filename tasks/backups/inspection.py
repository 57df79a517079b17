"""What a check looks at in a restored database: each look compares with the manifest and says what it found.

A look never changes anything and never quotes a row: names of tables, counts and digests only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from configs.settings import Settings
from tasks.backups.fingerprints import DATABASES, differences, print_schema, print_tables
from tasks.backups.manifest import Finding, Manifest
from tasks.backups.programs import ask, connect, run_program, scalar, where
from tasks.backups.restoring import owned_sequences
from tasks.database import FLOWS, OWNER, database_url, newest_migration
from tasks.errors import DependencyDown
from tasks.history.store import verify_history
from tasks.local_stack import LocalPostgres

_MOST = 5


@dataclass(frozen=True)
class Scratch:
    """A restored copy that nobody else uses: its home's settings, its server, and what it must be."""

    settings: Settings
    server: LocalPostgres
    manifest: Manifest

    @property
    def databases(self) -> list[str]:
        """The databases that the backup holds."""
        held = {key.split()[0] for key in self.manifest.schema}
        return [name for name in DATABASES if name in held]


Look = Callable[[Scratch], Finding]


def _finding(name: str, wrong: list[str], right: str) -> Finding:
    more = f" and {len(wrong) - _MOST} more" if len(wrong) > _MOST else ""
    return Finding(name, not wrong, "; ".join(wrong[:_MOST]) + more if wrong else right)


def tables(scratch: Scratch) -> Finding:
    """Every table has the rows and the content that it had at the restore point."""
    found = []
    for database in scratch.databases:
        with connect(scratch.server, database) as connection:
            found += print_tables(connection, database)
    rows = sum(line.rows for line in found)
    return _finding(
        "tables", differences(scratch.manifest.tables, found), f"{len(found)} tables, {rows:,} rows, all equal"
    )


def schema(scratch: Scratch) -> Finding:
    """Rights, roles and definitions are those of the source."""
    found: dict[str, str] = {}
    for database in scratch.databases:
        with connect(scratch.server, database) as connection:
            found |= dict(print_schema(connection, database))
    expected = scratch.manifest.schema
    wrong = [f"{key} differ" for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
    return _finding("schema", wrong, f"{len(found)} digests of rights, roles and definitions, all equal")


_FOREIGN_KEYS = """
select c.conname, n.nspname, t.relname, pn.nspname, p.relname,
       array(select a.attname from unnest(c.conkey) with ordinality k (num, pos)
             join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.num order by k.pos),
       array(select a.attname from unnest(c.confkey) with ordinality k (num, pos)
             join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.num order by k.pos)
from pg_constraint c
join pg_class t on t.oid = c.conrelid join pg_namespace n on n.oid = t.relnamespace
join pg_class p on p.oid = c.confrelid join pg_namespace pn on pn.oid = p.relnamespace
where c.contype = 'f' and c.convalidated and t.relpersistence = 'p'
order by 2, 3, 1
"""


def foreign_keys(scratch: Scratch) -> Finding:
    """No row refers to one that is not there."""
    wrong, counted = [], 0
    for database in scratch.databases:
        with connect(scratch.server, database) as connection:
            for name, schema_name, child, parent_schema, parent, columns, keys in ask(connection, _FOREIGN_KEYS):
                counted += 1
                same = sql.SQL(" and ").join(
                    sql.SQL("p.{} = c.{}").format(sql.Identifier(key), sql.Identifier(column))
                    for key, column in zip(keys, columns, strict=True)
                )
                filled = sql.SQL(" and ").join(sql.SQL("c.{} is not null").format(sql.Identifier(c)) for c in columns)
                orphans = sql.SQL(
                    "select count(*) from {} c where {} and not exists (select from {} p where {})"
                ).format(sql.Identifier(schema_name, child), filled, sql.Identifier(parent_schema, parent), same)
                lost = int(scalar(connection, orphans))
                if lost:
                    wrong.append(f"{schema_name}.{child}: {lost} rows without a parent by {name}")
    return _finding("foreign_keys", wrong, f"{counted} foreign keys hold")


_CHECKS = """
select n.nspname, t.relname, array_agg(c.conname::text order by c.conname),
       array_agg(pg_get_expr(c.conbin, c.conrelid) order by c.conname)
from pg_constraint c join pg_class t on t.oid = c.conrelid join pg_namespace n on n.oid = t.relnamespace
where c.contype = 'c' and c.convalidated and t.relkind = 'r' and t.relpersistence = 'p' and n.nspname !~ '^pg_'
group by 1, 2
order by 1, 2
"""


def sums(scratch: Scratch) -> Finding:
    """Every row adds up as its table demands: rows read and accounted for, amounts and their parts, states."""
    wrong, counted = [], 0
    for database in scratch.databases:
        with connect(scratch.server, database) as connection:
            for schema_name, table, names, expressions in ask(connection, _CHECKS):
                counted += len(names)
                broken = sql.SQL(", ").join(
                    sql.SQL("count(*) filter (where not ({}))").format(sql.SQL(expression))
                    for expression in expressions
                )
                statement = sql.SQL("select {} from {}").format(broken, sql.Identifier(schema_name, table))
                [found] = ask(connection, statement)
                there = zip(names, found, strict=True)
                wrong += [f"{schema_name}.{table}: {count} rows against {name}" for name, count in there if count]
    return _finding("sums", wrong, f"{counted} rules hold for every row")


def sequences(scratch: Scratch) -> Finding:
    """No sequence would hand out a number that is in use."""
    wrong, counted = [], 0
    with connect(scratch.server) as connection:
        for sequence, schema_name, table, column in owned_sequences(connection):
            counted += 1
            highest = sql.SQL("select coalesce(max({}), 0) from {}").format(
                sql.Identifier(column), sql.Identifier(schema_name, table)
            )
            last = int(scalar(connection, "select coalesce(pg_sequence_last_value(%s::regclass), 0)", sequence))
            used = int(scalar(connection, highest))
            if last < used:
                wrong.append(f"{sequence} is at {last}, {schema_name}.{table} at {used}")
    return _finding("sequences", wrong, f"{counted} sequences are past every number in use")


def migration(scratch: Scratch) -> Finding:
    """The schema stands at the migration that the manifest names, and this version of Kontor knows it."""
    with connect(scratch.server) as connection:
        standing = scalar(connection, "select version_num from ops.alembic_version")
    expected = scratch.manifest.migration
    if standing != expected:
        return Finding("migration", False, f"stands at {standing}, expected {expected}")
    if str(standing) > newest_migration():
        return Finding("migration", False, f"stands at {standing}, newer than this version ({newest_migration()})")
    return Finding("migration", True, f"stands at {standing}")


def login(scratch: Scratch) -> Finding:
    """Flows can log in, read the reports, and may not change history."""
    try:
        with connect(scratch.server, role=FLOWS) as connection:
            ask(connection, "select from report.runs limit 1")
            may = scalar(connection, "select has_table_privilege('history.change_log', 'update, delete, truncate')")
    except DependencyDown:
        return Finding("login", False, f"{FLOWS} cannot log in")
    return Finding("login", not may, "may change history" if may else f"{FLOWS} logs in and reads")


def history(scratch: Scratch) -> Finding:
    """The chain of history is whole."""
    engine = create_engine(database_url(scratch.settings, OWNER), poolclass=NullPool)
    with engine.connect() as connection:
        found = verify_history(connection, [])
    return _finding("history", [str(item) for item in found.breaks], f"{found.entries:,} entries, {found.seals} seals")


def indexes(scratch: Scratch) -> Finding:
    """Every heap and index is sound, and every row is found by every index (amcheck)."""
    databases = [f"--database={name}" for name in scratch.databases]
    ended = run_program(
        scratch.server.programs_dir,
        "pg_amcheck",
        *where(scratch.server),
        *databases,
        "--install-missing",
        "--heapallindexed",
        "--parent-check",
        "--checkunique",
        "--jobs=2",
    )
    named = sorted(set(re.findall(r'"[\w]+\.[\w]+\.[\w]+"', ended.said)))
    wrong = [] if ended.code == 0 else [f"pg_amcheck ended with {ended.code}: {', '.join(named) or 'see its words'}"]
    return _finding("indexes", wrong, "every row is found by every index")


# What is looked at while the copy runs, in this order; a fault planted in it must be caught by the look named there.
LOOKS: Mapping[str, Look] = {
    look.__name__: look for look in (tables, schema, foreign_keys, sums, sequences, migration, login, history, indexes)
}


def pages(programs: Path, folder: Path) -> Finding:
    """Every page of a stopped server's data folder has the checksum that it was written with."""
    ended = run_program(programs, "pg_checksums", "--check", f"--pgdata={folder}")
    return Finding("pages", ended.code == 0, "pg_checksums agrees" if ended.code == 0 else _first(ended.said))


def _first(said: str) -> str:
    return said.split(" / ")[0][:200]
