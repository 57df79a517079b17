"""No personal column is kept without a rule that says how long."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from configs.settings import Settings
from tasks import database
from tasks.retention.plan_store import read_policies, read_schema
from tasks.retention.policies import lint


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
