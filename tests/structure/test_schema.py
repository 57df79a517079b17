"""The schema that migrations make is the one the code describes, and nothing in it is forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from configs.settings import PROJECT_ROOT, Settings
from data_contracts.tables import metadata
from tasks import database

ALLOWLIST = PROJECT_ROOT / "data_contracts" / "personal_data.yaml"
OWN_SCHEMAS = ("crm", "landing", "rules", "outbox", "history", "ops")


def _columns(settings: Settings) -> dict[str, set[str]]:
    with database.engine_for(settings, database.OWNER).connect() as connection:
        rows = connection.execute(
            text(
                "select n.nspname || '.' || c.relname as name, a.attname as column_name"
                " from pg_attribute a join pg_class c on c.oid = a.attrelid"
                " join pg_namespace n on n.oid = c.relnamespace"
                " where n.nspname = any(:schemas) and c.relkind in ('r', 'p') and not c.relispartition"
                " and a.attnum > 0 and not a.attisdropped"
            ),
            {"schemas": list(OWN_SCHEMAS)},
        ).all()
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.name, set()).add(row.column_name)
    return found


def _unclassified(columns: Mapping[str, set[str]], allowlist: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """Columns that the allowlist does not name exactly once, and names in it that are no columns."""
    problems = []
    for table, names in columns.items():
        listed = [*allowlist.get(table, {}).get("personal", []), *allowlist.get(table, {}).get("other", [])]
        problems += [f"{table}.{name} is not classified" for name in sorted(names - set(listed))]
        problems += [
            f"{table}.{name} is classified twice" for name in sorted({n for n in listed if listed.count(n) > 1})
        ]
        problems += [f"{table}.{name} does not exist" for name in sorted(set(listed) - names)]
    return problems + [f"{table} does not exist" for table in sorted(set(allowlist) - set(columns))]


def test_every_column_is_classified_as_personal_or_not(prepared: Settings) -> None:
    """The allowlist names every column of every table once; a column that is forgotten is found."""
    columns = _columns(prepared)
    allowlist: dict[str, Any] = yaml.safe_load(ALLOWLIST.read_text("utf-8"))
    assert len(columns) >= 16
    assert sum(map(len, columns.values())) > 150
    assert _unclassified(columns, allowlist) == []
    forgotten = columns | {"crm.contacts": columns["crm.contacts"] | {"birthday"}}
    assert _unclassified(forgotten, allowlist) == ["crm.contacts.birthday is not classified"]


def test_migrations_make_the_tables_that_the_code_describes(prepared: Settings) -> None:
    """A column or table that stands in the models but not in a migration, or the other way round, is a difference."""

    def ours(_obj: object, name: str | None, kind: str, reflected: bool, _to: object) -> bool:
        return not (kind == "table" and reflected and (name == "alembic_version" or name in months))

    with database.engine_for(prepared, database.OWNER).connect() as connection:
        months = {*connection.scalars(text("select relname from pg_class where relispartition and relkind = 'r'"))}
        assert len(months) >= 9
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table_schema": "ops",
                "include_name": lambda name, kind, _parents: kind != "schema" or name in OWN_SCHEMAS,
                "include_object": ours,
            },
        )
        assert len(metadata.tables) >= 16
        assert compare_metadata(context, metadata) == []


def test_every_foreign_key_is_indexed(prepared: Settings) -> None:
    """Deleting a parent never scans a whole child table: each foreign key leads an index."""
    with database.engine_for(prepared, database.OWNER).connect() as connection:
        keys = connection.execute(
            text(
                "select c.conrelid::regclass::text as child, c.conname, exists ("
                "   select from pg_index i where i.indrelid = c.conrelid and i.indpred is null"
                "   and (i.indkey::smallint[])[0:cardinality(c.conkey) - 1] @> c.conkey) as indexed"
                " from pg_constraint c where c.contype = 'f' and c.connamespace::regnamespace::text = any(:schemas)"
            ),
            {"schemas": list(OWN_SCHEMAS)},
        ).all()
    assert len(keys) >= 10
    assert [f"{key.child} {key.conname}" for key in keys if not key.indexed] == []


@pytest.mark.parametrize("role", [database.FLOWS, database.FINANCE, database.RETENTION])
def test_working_roles_own_nothing_and_have_no_rights_over_others(prepared: Settings, role: str) -> None:
    """The roles that flows, finance and retention work as are no superusers, own no table and create nothing."""
    with database.engine_for(prepared, role).connect() as connection:
        row = connection.execute(
            text(
                "select r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolbypassrls as mighty,"
                " exists (select from pg_class c where c.relowner = r.oid) as owns,"
                " has_schema_privilege('crm', 'create') or has_schema_privilege('report', 'create') as creates"
                " from pg_roles r where r.rolname = current_user"
            )
        ).one()
    assert (row.mighty, row.owns, row.creates) == (False, False, False)


def test_finance_reads_reports_and_nothing_else(prepared: Settings) -> None:
    """The finance role may read the views of schema report, may change none, and sees no other schema's table."""
    with database.engine_for(prepared, database.FINANCE).connect() as connection:
        rows = connection.execute(
            text(
                "select n.nspname as schema, c.relname as name, has_table_privilege(c.oid, 'select') as reads,"
                " has_table_privilege(c.oid, 'insert, update, delete, truncate') as changes"
                " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
                " where c.relkind in ('r', 'v', 'p', 'm') and n.nspname = any(:schemas)"
            ),
            {"schemas": [*OWN_SCHEMAS, "report"]},
        ).all()
    assert sum(row.schema == "report" for row in rows) >= 8
    assert [row.name for row in rows if row.schema != "report" and row.reads] == []
    assert [row.name for row in rows if row.schema == "report" and not row.reads] == []
    assert [row.name for row in rows if row.changes] == []
