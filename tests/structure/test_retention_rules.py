"""No personal column is kept without a rule that says how long."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from configs.settings import Settings
from tasks import database
from tasks.erasures.allowlist import read_allowlist
from tasks.retention.outputs import is_output
from tasks.retention.plan_store import read_policies, read_schema
from tasks.retention.policies import Policy, Schema, lint


def test_every_personal_column_has_a_retention_rule(prepared: Settings) -> None:
    """The rules that ship are sound and cover every personal column; a column that is forgotten is found.

    A new personal column needs a row in configs/rules/retention_policy.csv: a period, or an exception with its reason.
    """
    with database.engine_for(prepared, database.OWNER).connect() as connection:
        policies = read_policies(connection, date(2026, 11, 22))
        schema = read_schema(connection)
    assert len(policies) > 30
    assert sum(map(len, schema.personal.values())) > 90
    assert lint(policies, schema) == []
    forgotten = {**schema.personal, "crm.contacts": schema.personal["crm.contacts"] | {"birthday"}}
    bare = [policy for policy in policies if policy.entity != "crm.contacts"]
    assert "crm.contacts.birthday" in lint(bare, replace(schema, personal=forgotten))[0]


def test_every_column_of_every_table_is_in_a_rule_or_an_exception(prepared: Settings) -> None:
    """Counted over the database as it is: what is personal has a rule, all else is listed as such, nothing is left."""
    with database.engine_for(prepared, database.OWNER).connect() as connection:
        schema = read_schema(connection)
        policies = read_policies(connection, date(2026, 11, 22))
    listed = read_allowlist()
    tables = {name: columns for name, columns in schema.columns.items() if not is_output(name)}
    personal = {(name, column) for name in tables for column in schema.personal.get(name, ())}
    other = {(name, column) for name in tables for column in listed[name]["other"]}
    there = {(name, column) for name, columns in tables.items() for column in columns}
    assert (len(tables) > 60, len(there) > 500) == (True, True)
    assert personal | other == there
    assert len(personal) + len(other) == len(there)
    covered = {(name, column) for name, column in personal if not _is_missed(policies, schema, name, column)}
    assert covered == personal
    assert _is_missed([], schema, "crm.contacts", "email")


def _is_missed(policies: list[Policy], schema: Schema, table: str, column: str) -> bool:
    """Whether a personal column has neither a rule nor an exception."""
    alone = replace(schema, personal={table: frozenset({column})})
    return any(problem.startswith(f"{table}.{column}") for problem in lint(policies, alone))
