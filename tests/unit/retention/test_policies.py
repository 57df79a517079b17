"""Rules of retention: what is wrong with a set of them is found, floors hold, and plans are taken only as they are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from tasks.errors import Refused
from tasks.retention.planning import Item, Plan, check_applicable, check_drift, is_wide
from tasks.retention.policies import Policy, Schema, blanks_of, digest_of, lint
from tasks.retention.selection import select_due

NOW = datetime(2026, 11, 22, 4, tzinfo=UTC)
DELETE = Policy(
    rule_id="invoices",
    version=1,
    position=20,
    entity="crm.invoices",
    country="*",
    purpose="bookkeeping",
    legal_basis="GDPR Art. 6(1)(c)",
    source="Accountancy Act Art. 12",
    clock="settled",
    period_months=60,
    period_days=0,
    from_year_end=True,
    action="delete",
    columns="*",
    largest_share=Decimal("0.1"),
    always_allowed=100,
    owner="data protection",
)
NOTES = replace(DELETE, rule_id="notes", position=10, action="anonymise", columns="note=null", period_months=12)
FLOOR = replace(DELETE, rule_id="floor-se", position=30, action="keep", country="SE", period_months=84)
SCHEMA = Schema(
    columns={"crm.invoices": frozenset({"note", "due_on"}), "outbox.reminder_items": frozenset({"release_reason"})},
    personal={"crm.invoices": frozenset({"note"})},
    required={"crm.invoices": frozenset({"due_on"})},
    references=frozenset({("outbox.reminder_items", "crm.invoices")}),
    clocks={"crm.invoices": frozenset({"settled"}), "outbox.reminder_items": frozenset({"settled"})},
)
ITEMS = replace(DELETE, rule_id="items", entity="outbox.reminder_items", position=5)


def test_a_sound_set_has_nothing_wrong() -> None:
    """Rows, notes, what refers to them, and a floor for one country."""
    assert lint([DELETE, NOTES, FLOOR, ITEMS], SCHEMA) == []


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ([replace(DELETE, source=" ")], "no legal basis or no source"),
        ([replace(DELETE, clock="created")], "no clock created, only settled"),
        ([DELETE, replace(NOTES, columns="memo=null")], "no column memo"),
        ([DELETE, replace(NOTES, columns="due_on=null")], "due_on must not be null"),
        ([DELETE, replace(NOTES, columns="note=rot13")], "cannot become 'rot13'"),
        ([DELETE, replace(NOTES, columns="note=first:x")], "cannot become 'first'"),
        ([replace(DELETE, country="BG")], "crm.invoices.note is personal and no rule for every country"),
        ([DELETE, replace(DELETE, rule_id="twin", position=21)], "twin: never applies, invoices comes first"),
        ([DELETE, replace(NOTES, period_months=60)], "notes: never applies, invoices deletes"),
        ([DELETE, replace(FLOOR, clock="none", entity="crm.invoice")], "no table is called crm.invoice"),
        ([NOTES, FLOOR], "floor-se: never applies, nothing deletes crm.invoices"),
        ([DELETE, replace(ITEMS, position=40)], "crm.invoices would go before outbox.reminder_items"),
        ([replace(DELETE, entity="crm.nothing")], "nothing is known to let go of in crm.nothing"),
    ],
)
def test_what_is_wrong_is_named(policies: list[Policy], said: str) -> None:
    """Each mistake is found, with the rule that has it."""
    assert any(said in problem for problem in lint(policies, SCHEMA)), lint(policies, SCHEMA)


def test_tables_that_refer_to_each_other_in_a_circle_are_found() -> None:
    """No order of deleting could be right."""
    circle = replace(SCHEMA, references=SCHEMA.references | {("crm.invoices", "outbox.reminder_items")})
    assert any("in a circle" in problem for problem in lint([DELETE, ITEMS], circle))


def test_a_floor_keeps_longer_in_its_country_and_nowhere_else() -> None:
    """Sweden keeps until 2033 what everybody else lets go of in 2031; a floor below the rule changes nothing."""
    selection = select_due(DELETE, [DELETE, FLOOR], as_of=date(2031, 6, 1), zone="Europe/Sofia")
    assert selection.bound["horizon"] == date(2025, 12, 31)
    assert selection.bound["horizon_se"] == date(2023, 12, 31)
    assert "case" in selection.due
    lower = replace(FLOOR, period_months=12)
    assert select_due(DELETE, [DELETE, lower], as_of=date(2031, 6, 1), zone="UTC").bound["horizon_se"] == date(
        2025, 12, 31
    )
    bounded = select_due(DELETE, [DELETE], as_of=date(2031, 6, 1), zone="UTC", through=date(2024, 1, 1))
    assert bounded.horizon == date(2024, 1, 1)


def test_a_country_of_its_own_is_left_out_of_the_rule_for_all() -> None:
    """Two rules never speak for the same row."""
    own = replace(DELETE, rule_id="invoices-no", country="NO", position=21)
    general = select_due(DELETE, [DELETE, own], as_of=date(2031, 6, 1), zone="UTC")
    assert general.bound["others"] == ["NO"]
    assert select_due(own, [DELETE, own], as_of=date(2031, 6, 1), zone="UTC").bound["country"] == "NO"


def test_columns_become_what_the_rule_says() -> None:
    """Texts with colons and quotes stay texts."""
    rule = replace(NOTES, columns="note=fixed:it's: gone; due_on=first:4")
    assert [(b.column, b.method, b.argument) for b in blanks_of(rule)] == [
        ("note", "fixed", "it's: gone"),
        ("due_on", "first", "4"),
    ]
    blanks = select_due(rule, [rule], as_of=date(2031, 6, 1), zone="UTC").blanks
    assert blanks == {"note": "'it''s\\: gone'", "due_on": "left(r.due_on, 4)"}


def _item(due: int, stored: int = 10_000, done: int = 0) -> Item:
    return Item(10, "invoices", 1, "crm.invoices", "delete", "pages", date(2020, 1, 1), stored, due, 0, done=done)


def _plan(**given: object) -> Plan:
    plan = Plan(7, date(2026, 11, 20), "digest", "planned", True, "maker", NOW, None, (_item(1500),))
    return replace(plan, **given)  # type: ignore[arg-type]


def test_how_far_a_rule_may_reach_alone() -> None:
    """Above its share and its few free rows a second person must agree."""
    assert not is_wide(_item(1000), DELETE)
    assert is_wide(_item(1001), DELETE)
    assert not is_wide(_item(100, stored=120), DELETE)
    assert is_wide(_item(101, stored=120), DELETE)


@pytest.mark.parametrize(
    ("given", "digest", "now", "said"),
    [
        ({"state": "applied"}, "digest", NOW, "applied already"),
        ({"state": "withdrawn"}, "digest", NOW, "withdrawn already"),
        ({"approved_by": "other"}, "another", NOW, "under other rules"),
        ({"approved_by": "other"}, "digest", NOW + timedelta(days=8), "8 days old"),
        ({}, "digest", NOW, "second person"),
    ],
)
def test_a_plan_that_may_not_be_applied(given: dict[str, object], digest: str, now: datetime, said: str) -> None:
    """Each reason is refused in words; a plan under way is finished, however old it has become."""
    with pytest.raises(Refused, match=said):
        check_applicable(_plan(**given), policies_sha256=digest, now=now)
    check_applicable(_plan(approved_by="other"), policies_sha256="digest", now=NOW)
    check_applicable(_plan(state="applying"), policies_sha256="digest", now=NOW + timedelta(days=30))


def test_more_than_was_planned_is_refused() -> None:
    """Five in a hundred and ten rows are allowed, one more is not."""
    plan = _plan()
    check_drift(plan, [(plan.items[0], 1585)])
    with pytest.raises(Refused, match="invoices: 1586 rows, 1500 planned"):
        check_drift(plan, [(plan.items[0], 1586)])


def test_rules_have_one_fingerprint_in_any_order() -> None:
    """And another as soon as one of them changes."""
    assert digest_of([DELETE, NOTES]) == digest_of([NOTES, DELETE])
    assert digest_of([DELETE, NOTES]) != digest_of([DELETE, replace(NOTES, period_months=13)])
