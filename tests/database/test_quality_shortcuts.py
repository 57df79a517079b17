"""A large table is judged by values gathered before the pass; what fails is what its conditions say, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import pytest
from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks import database
from tasks.quality.checks_store import check_table, create_failing
from tasks.quality.contracts import Rule, TableContract
from tasks.quality.shortcuts_store import gather

DAY = date(2026, 6, 15)
ROWS = 100_000  # from here on a sample is taken
_FILLED = f"""
create schema large;
create table large.owners (owner bigint);
insert into large.owners select n from generate_series(1, 50) n union all select null;
create table large.items as
select n as id, 'I' || case when n % 40000 = 0 then 7 else n end as number, n % 3 as part,
       case when n % 30000 = 0 then 'eur' when n % 49999 = 0 then null else 'EUR' end as currency,
       case when n % 25000 = 0 then 999 when n % 33333 = 0 then null else 1 + n % 50 end as owner,
       case when n = 10 then 'nobody' else 'a' || n || '@b.example' end as email
from generate_series(1, {ROWS}) n;
analyze large.owners, large.items;
"""


def _rule(name: str, kind: str, *columns: str, **more: object) -> Rule:
    return Rule(name, kind, columns, "warn", "accuracy", name, "it", reason=name, **more)  # type: ignore[arg-type]


RULES = (
    _rule("currency", "pattern", "currency", pattern="^[A-Z]{3}$"),
    _rule("email", "pattern", "email", pattern="^[^@]+@[^@]+$"),
    _rule("owner", "references", "owner", references="large.owners"),
    _rule("number", "unique", "number"),
    _rule("number_and_part", "unique", "number", "part"),
)
CONTRACT = TableContract("large", "large.items", "", "id::text", "id", "", "", {}, (), RULES)
EXPECTED = {"currency": 3, "email": 1, "owner": 4, "number": 3, "number_and_part": 2}


@pytest.fixture
def connection(prepared: Settings) -> Iterator[Connection]:
    """A connection as the owner with a large table, rolled back."""
    with database.engine_for(prepared, database.OWNER).connect() as opened:
        for statement in _FILLED.split(";\n"):
            if statement.strip():
                opened.execute(text(statement))
        create_failing(opened)
        yield opened
        opened.rollback()


def test_gathered_values_find_what_the_conditions_find(connection: Connection) -> None:
    """Repeated keys, known currencies and a short list of owners; addresses, of which there are many, are matched."""
    gathered = gather(connection, "large.items", "select * from large.items", RULES, DAY)
    assert {name: len(values) for name, values in gathered.items()} == {
        "currency": 1, "owner": 0, "number": 1, "number_and_part": 1,
    }  # fmt: skip
    results = check_table(connection, CONTRACT, DAY)
    assert {result.rule.rule_id: result.failing for result in results} == EXPECTED
    create_failing(connection)
    as_query = replace(CONTRACT, table="large.not_known", rows="select * from large.items where id > 0")
    assert {result.rule.rule_id: result.failing for result in check_table(connection, as_query, DAY)} == EXPECTED
