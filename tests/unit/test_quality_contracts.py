"""Table contracts: complete, the same as the seeded rules, and refused in words where they cannot be meant."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from configs.settings import PROJECT_ROOT
from data_contracts.tables import metadata
from tasks.errors import BadInput, UsageError
from tasks.quality.anomalies import ENOUGH, judge
from tasks.quality.checks_store import ROW_KINDS
from tasks.quality.contracts import CONTRACTS_FOLDER, list_table_contracts, load_table_contract
from tasks.rules import read_seeds
from tests.quality_samples import BAD, BOUNDARY, GOOD

SEEDS = PROJECT_ROOT / "configs" / "rules"
MONDAY = date(2026, 6, 15)


def test_every_seeded_rule_is_what_its_contract_says() -> None:
    """The rule table of a new installation and the contracts name the same rules with the same numbers."""
    seeded = {
        row["rule_id"]: row for row in read_seeds(SEEDS / "quality_rule.csv", metadata.tables["rules.quality_rule"])
    }
    contracts = list_table_contracts()
    written = {rule.rule_id: (contract.name, rule) for contract in contracts for rule in contract.rules}
    assert len(written) > 40
    assert set(seeded) == set(written)
    same = (
        "severity",
        "dimension",
        "owner",
        "account_owner_first",
        "tolerance_percent",
        "threshold",
        "due_days",
        "meaning",
    )
    for rule_id, (contract, rule) in written.items():
        assert seeded[rule_id]["contract"] == contract
        assert {name: seeded[rule_id][name] for name in same} == {name: getattr(rule, name) for name in same}, rule_id


def test_what_flows_require_are_rules_of_severity_fail() -> None:
    """A requirement that names no rule, or one that cannot stop anything, is found."""
    rows = read_seeds(SEEDS / "quality_requirement.csv", metadata.tables["rules.quality_requirement"])
    rules = {rule.rule_id: rule for contract in list_table_contracts() for rule in contract.rules}
    assert len(rows) >= 4
    assert [row["rule_id"] for row in rows if rules[str(row["required_rule"])].severity != "fail"] == []


def test_every_rule_of_rows_has_a_bad_and_a_boundary_sample() -> None:
    """A rule that is added without samples is found here."""
    rules = {rule.rule_id for contract in list_table_contracts() for rule in contract.rules if rule.kind in ROW_KINDS}
    assert set(BAD) == set(BOUNDARY) == rules
    assert set(GOOD) == {contract.name for contract in list_table_contracts()}


def test_a_contract_is_refused_with_every_defect(tmp_path: Path) -> None:
    """An unknown severity, a rule named twice, a missing reason and a threshold without a number are told."""
    document = yaml.safe_load((CONTRACTS_FOLDER / "quarantine.yaml").read_text("utf-8"))
    rules = document["schema"][0]["quality"]
    rules[0]["severity"] = "deadly"
    rules[1]["customProperties"] = []
    rules.append({**rules[1], "implementation": {"sql": "true", "columns": ["since"]}})
    path = tmp_path / "draft.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    with pytest.raises(BadInput, match="4 defect") as caught:
        load_table_contract(path)
    for words in ("'deadly'", "{threshold}", "twice", "reason"):
        assert words in caught.value.message


def test_a_contract_that_is_not_there_names_those_that_are() -> None:
    """A wrong name is answered with the right ones."""
    with pytest.raises(UsageError) as caught:
        load_table_contract("invoice")
    assert "invoices" in caught.value.hint


# --- as usual? --------------------------------------------------------------------------------------------------------


def _mondays(values: list[int]) -> dict[date, Decimal]:
    return {MONDAY - timedelta(weeks=n + 1): Decimal(value) for n, value in enumerate(values)}


USUAL = [1000, 1010, 990, 1005, 995, 1000, 1010, 1000]


@pytest.mark.parametrize(("value", "unusual"), [(1030, False), (1044, False), (1045, True), (955, True), (700, True)])
def test_a_figure_is_compared_with_its_own_weekday(value: int, unusual: bool) -> None:
    """Median 1000 and a spread of 7.4: six spreads are as usual, more are not; both directions count."""
    history = _mondays(USUAL) | {MONDAY - timedelta(days=n): Decimal(5) for n in (1, 2, 3, 4)}
    found = judge("rows", Decimal(value), history, MONDAY, Decimal(6))
    assert (found is not None) == unusual


def test_nothing_is_said_before_there_is_enough_history() -> None:
    """Seven days say nothing, the eighth does; days to come never count."""
    few = _mondays(USUAL[: ENOUGH - 1]) | {MONDAY + timedelta(days=1): Decimal(1000)}
    assert judge("rows", Decimal(1), few, MONDAY, Decimal(6)) is None
    assert judge("rows", Decimal(1), _mondays(USUAL), MONDAY, Decimal(6)) is not None


@given(st.lists(st.integers(0, 10**9), min_size=0, max_size=30), st.integers(0, 10**9))
def test_a_figure_that_is_the_median_is_always_usual(values: list[int], value: int) -> None:
    """Whatever the history is, its own middle is as usual, and a figure never judges itself."""
    history = _mondays([*values, *values, value])
    middle = sorted(history.values())[len(history) // 2]
    if len(history) % 2:
        assert judge("rows", middle, history, MONDAY, Decimal(6)) is None
    assert judge("rows", Decimal(value), {MONDAY: Decimal(0)}, MONDAY, Decimal(6)) is None
