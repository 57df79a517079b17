"""One contract, two engines: our pass and Great Expectations count the same, rule by rule, whatever the rows are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from configs.settings import Settings
from tasks import database
from tasks.quality.checks_store import ROW_KINDS, Result, check_table, create_failing
from tasks.quality.contracts import TableContract, list_table_contracts, load_table_contract
from tasks.quality.second_opinion import ask, differences, suite_of
from tests.conftest import CAMPAIGN_FACTOR
from tests.quality_samples import BAD, BOUNDARY, DAY, GOOD, over_rows


@pytest.fixture(scope="module")
def url(prepared: Settings) -> str:
    """Where Great Expectations finds the database."""
    return database.database_url(prepared, database.FLOWS).render_as_string(hide_password=False)


@pytest.fixture
def connection(prepared: Settings) -> Iterator[Connection]:
    """A connection as the flows whose transaction is rolled back."""
    with database.engine_for(prepared).connect() as opened:
        yield opened
        opened.rollback()


def _ours(connection: Connection, contract: TableContract) -> list[Result]:
    create_failing(connection)
    return [result for result in check_table(connection, contract, DAY) if result.rule.kind in ROW_KINDS]


@pytest.mark.parametrize("contract", list_table_contracts(), ids=lambda contract: contract.name)
def test_both_engines_count_every_sample_alike(connection: Connection, url: str, contract: TableContract) -> None:
    """All good, bad and boundary samples of a contract in one table: the same failing rows for every rule."""
    mine = [rule.rule_id for rule in contract.rules if rule.kind in ROW_KINDS]
    planted = over_rows(contract, [{}, *(BAD[rule] for rule in mine), *(BOUNDARY[rule] for rule in mine), {}])
    ours, theirs = _ours(connection, planted), ask(url, database.FLOWS, planted, DAY)
    assert [result.rule.rule_id for result in theirs] == mine
    assert all(result.failing for result in ours)
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("contract", list_table_contracts(), ids=lambda contract: contract.name)
def test_both_engines_pass_an_empty_table(connection: Connection, url: str, contract: TableContract) -> None:
    """Where there are no rows nothing fails and nothing is an error, in either engine."""
    empty = replace(contract, rows=f"select * from ({over_rows(contract, [{}]).rows}) e where false")
    ours, theirs = _ours(connection, empty), ask(url, database.FLOWS, empty, DAY)
    assert {(result.state, result.failing) for result in (*ours, *theirs)} == {("pass", 0)}


def test_a_difference_between_the_engines_is_told(connection: Connection, url: str) -> None:
    """The comparison is fed one bad case: another number of rows."""
    contract = load_table_contract("quarantine")
    ours = _ours(connection, over_rows(contract, [{}, {}]))
    theirs = ask(url, database.FLOWS, over_rows(contract, [{}, {"since": date(2020, 1, 1)}]), DAY)
    told = differences(ours, theirs)
    assert told == ["quarantine_answered: pass with 0 failing here, fail with 1 by Great Expectations"]


def test_what_cannot_be_asked_is_an_error_in_both_engines(connection: Connection, url: str) -> None:
    """A column that is not there: neither engine calls that a failure."""
    contract = load_table_contract("contacts")
    rows = over_rows(contract, [{}, BAD["contact_name_present"]])
    rows = rows.__class__(**{**rows.__dict__, "rows": rows.rows.replace("email", "mail")})
    ours, theirs = _ours(connection, rows), ask(url, database.FLOWS, rows, DAY)
    assert {r.rule.rule_id for r in theirs if r.state == "error"} == {
        "contact_email_present", "contact_email_form", "contact_email_of_one_customer"
    }  # fmt: skip
    assert differences(ours, theirs) == []


def test_a_suite_carries_rule_severity_and_owner() -> None:
    """What is compiled says whose it is, so that the suite can be read without us."""
    contract = load_table_contract("invoices")
    suite = suite_of(contract)
    assert len(suite.expectations) == sum(rule.kind in ROW_KINDS for rule in contract.rules)
    meta = suite.expectations[0].meta
    assert set(meta) == {"rule_id", "severity", "owner", "meaning"}


def _rows(name: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of a contract in which any column may be good, missing, or something of its type."""
    choices: dict[str, st.SearchStrategy[Any]] = {
        "text": st.sampled_from(["", "EUR", "eur", "F-1", "a@b.c", "a b@c", "x'y", "it {is} 5 %", "\\d: \\", "ж"]),
        "date": st.dates(date(2024, 1, 1), date(2028, 1, 1)),
        "bigint": st.sampled_from([-1, 1, 2]),
        "integer": st.integers(-1, 400),
        "boolean": st.booleans(),
        "numeric(19,4)": st.decimals(-200, 200, places=2),
    }
    columns = {
        column: st.one_of(st.just(value), st.none(), choices[kind]) for column, (kind, value) in GOOD[name].items()
    }
    fixed = {"as_of": st.just(DAY)}
    return st.lists(st.fixed_dictionaries(columns | fixed), min_size=1, max_size=12)


@given(data=st.data(), name=st.sampled_from(["invoices", "organizations", "contacts", "contact_roles", "feeds"]))
@settings(max_examples=8 * CAMPAIGN_FACTOR, phases=[Phase.explicit, Phase.generate])  # a shrink asks hundreds of times
def test_both_engines_agree_on_random_rows(prepared: Settings, url: str, data: st.DataObject, name: str) -> None:
    """Any rows of any contract: equal counts and equal states, rule by rule."""
    contract = over_rows(load_table_contract(name), data.draw(_rows(name)))
    with database.engine_for(prepared).connect() as connection:
        ours = _ours(connection, contract)
        connection.rollback()
    assert differences(ours, ask(url, database.FLOWS, contract, DAY)) == []
