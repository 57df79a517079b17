"""Sets of rules: what is wrong with one is named, and two are compared on the days to come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from sqlalchemy.dialects.postgresql import Range

from tasks.rule_sets import begins_on, compare, find_faults
from tasks.rules import SEEDS, read_seeds
from tasks.rules_store import as_csv, rule_table, rule_tables

Rows = list[dict[str, Any]]
DAY = date(2026, 6, 1)


def _seeds(name: str) -> Rows:
    return read_seeds(SEEDS / f"{name}.csv", rule_table(name))


def _faults(name: str, rows: Rows) -> list[str]:
    others = {other: _seeds(other) for other in ("reminder_policy", "reminder_stage")}
    return find_faults(rule_table(name), rows, others)


@pytest.mark.parametrize("name", sorted(path.stem for path in SEEDS.glob("*.csv")))
def test_what_a_new_installation_starts_with_has_no_fault(name: str) -> None:
    """Every seeded set is without gap, overlap and unreachable row, and comes back from its own export unchanged."""
    assert name in rule_tables()
    rows = _seeds(name)
    assert rows
    assert _faults(name, rows) == []


@pytest.mark.parametrize("name", sorted(path.stem for path in SEEDS.glob("*.csv")))
def test_an_export_reads_back_as_the_same_rules(name: str, tmp_path: Any) -> None:
    """What is exported and imported again changes nothing."""
    table, rows = rule_table(name), _seeds(name)
    path = tmp_path / f"{name}.csv"
    path.write_text(as_csv(table, rows), "utf-8")
    assert compare(table, rows, read_seeds(path, table), DAY) == []


def _named(rows: Rows, rule_id: str) -> dict[str, Any]:
    return next(row for row in rows if row["rule_id"] == rule_id)


def _without(rule_id: str) -> Callable[[Rows], Rows]:
    return lambda rows: [row for row in rows if row["rule_id"] != rule_id]


def _with(rule_id: str, **cells: Any) -> Callable[[Rows], Rows]:
    return lambda rows: [{**row, **cells} if row["rule_id"] == rule_id else row for row in rows]


def _and(like: str, **cells: Any) -> Callable[[Rows], Rows]:
    return lambda rows: [*rows, {**_named(rows, like), **cells}]


@pytest.mark.parametrize(
    ("table", "change", "fault"),
    [
        ("reminder_policy", _without("standard"), "gap: no row matches every customer"),
        ("reminder_policy", _with("standard", valid=Range(None, DAY)), "gap: no row matches every customer"),
        ("reminder_policy", _with("standard", rank=1), "unreachable: strict is never asked, standard matches all"),
        ("reminder_policy", _with("strict", ladder="kind"), "gap: policies climb the ladder kind, which has no stage"),
        ("reminder_policy", _without("disloyal"), "unreachable: no policy climbs the ladder firm"),
        ("reminder_policy", _and("strict", rule_id="again", rank=21), "overlap: strict and again both hold"),
        ("reminder_stage", _and("firm_first", rule_id="x", ladder="x"), "unreachable: no policy climbs the ladder x"),
        ("reminder_stage", _with("firm_second", offset_days=1), "unreachable: firm_second is due no later than"),
        (
            "contact_routing",
            _and("payments", rule_id="more", rank=30, country="BG"),
            "unreachable: more is never asked",
        ),
        ("reminder_limit", _without("stale_data"), "gap: stale_data has no row for every country"),
        ("reminder_policy", _with("standard", valid=Range(DAY, None)), "gap: no row matches every customer, so some"),
        (
            "reminder_stage",
            lambda rows: [{**row, "valid": Range(None, DAY)} if row["ladder"] == "firm" else row for row in rows],
            "gap: policies climb the ladder firm, which has no stage on 2026-06-01",
        ),
        (
            "reminder_limit",
            _with("stale_data", valid=Range(None, DAY)),
            "gap: stale_data has no row for every country on",
        ),
        (
            "contact_routing",
            _without("payments"),
            "gap: no row says of every customer who is written to at stage first",
        ),
        ("send_window", _without("elsewhere"), "gap: no row opens a window"),
        ("reference_rate", _without("eu_2024_2"), "gap: between eu_2024_1 and eu_2025_1 no rate of"),
        ("payer_class", _without("unrated"), "gap: no row always holds"),
        ("payer_class", _with("unrated", rank=1), "unreachable: disloyal_open comes after a row that always holds"),
    ],
)
def test_a_fault_is_named_with_its_rules(table: str, change: Callable[[Rows], Rows], fault: str) -> None:
    """Gaps, overlaps and rows that nothing reaches are told with the rules that make them."""
    found = _faults(table, change(_seeds(table)))
    assert any(fault in one for one in found), found


def test_a_gap_between_versions_is_named() -> None:
    """A rule that ends and goes on only later leaves days without it."""
    rows = _seeds("reminder_minimum")
    rows = _with("minimum_eur", valid=Range(None, DAY))(rows)
    rows = _and("minimum_eur", version=2, valid=Range(date(2026, 7, 1), None))(rows)
    assert _faults("reminder_minimum", rows) == ["gap: minimum_eur ends on 2026-05-31 and goes on only on 2026-07-01"]


def test_a_comparison_tells_new_changed_and_ended_rules_with_their_cells() -> None:
    """Only what differs is told; days that have passed play no part."""
    table, rows = rule_table("reminder_limit"), _seeds("reminder_limit")
    proposed = _without("blast_floor")(_with("customer_cap", threshold=3)(rows))
    proposed = _and("stale_data", rule_id="stale_bg", country="BG")(proposed)
    found = compare(table, rows, proposed, DAY)
    assert [(change.rule_id, change.kind) for change in found] == [
        ("blast_floor", "ended"),
        ("customer_cap", "changed"),
        ("stale_bg", "new"),
    ]
    assert found[1].cells == {"threshold": (_named(rows, "customer_cap")["threshold"], 3)}
    assert compare(table, rows, _with("customer_cap", valid=Range(date(2020, 1, 1), None))(rows), DAY) == []


def test_what_holds_every_day_may_be_said_by_several_rows_in_turn() -> None:
    """Days count from the set's own beginning on, and a day between two rows that nobody speaks of is named."""
    rows = _with("standard", valid=Range(None, DAY))(_seeds("reminder_policy"))
    rows = _and("standard", rule_id="later", valid=Range(DAY, None))(rows)
    assert _faults("reminder_policy", rows) == []
    rows = _with("later", valid=Range(date(2026, 6, 2), None))(rows)
    assert _faults("reminder_policy", rows) == [
        "gap: no row matches every customer on 2026-06-01, so some would have no policy"
    ]
    rows = [{**row, "valid": Range(DAY, None)} for row in _seeds("reminder_policy")]
    others = {"reminder_stage": _seeds("reminder_stage")}
    assert begins_on(rows, date(2026, 1, 1)) == DAY
    assert find_faults(rule_table("reminder_policy"), rows, others, DAY) == []
