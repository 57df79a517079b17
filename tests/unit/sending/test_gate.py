"""The last look: what goes is open, undisputed, wanted by a rule and for somebody who still holds the role."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.reminders.sending.gate import Facts, Hold, OpenItem, Person, Queued, Reserved, Verdict, judge
from tests.conftest import CAMPAIGN_FACTOR

DAY = date(2026, 3, 20)


def item(number: int = 1, **changed: Any) -> OpenItem:
    """An invoice of 100.00 EUR, due on 1 March."""
    given = OpenItem(
        number, f"I-{number}", "accounting", False, date(2026, 2, 1), date(2026, 3, 1), "EUR", Decimal(100),
        Decimal(100), False,
    )  # fmt: skip
    return given._replace(**changed)


def credit(amount: int, currency: str = "EUR") -> OpenItem:
    """A credit note of so much."""
    return item(99, is_credit=True, amount=Decimal(-amount), open_amount=Decimal(-amount), currency=currency)


def reserved(item: OpenItem, stage: str = "first") -> Reserved:
    """The reservation of an item as it is."""
    return Reserved(item.invoice_id, stage, 1, item.currency, item.open_amount, item.due_on)


def mail(*items: Reserved, stage: str = "first") -> Queued:
    """A mail that waits with these items."""
    return Queued(7, 1, stage, "standard", "anna@customer.example", items)


def facts(*items: OpenItem, **changed: Any) -> Facts:
    """Everything as the plan would have found it."""
    known = Facts(
        items={one.invoice_id: one for one in items},
        person=Person(5, "anna@customer.example", "Anna", "A", frozenset({"payments"})),
        routed_roles=frozenset({"payments"}),
        policy="standard",
        reminds=True,
        minimums={"EUR": Decimal(5)},
        fresh={"accounting": DAY},
        greatest_age_days=Decimal(10),
    )
    return replace(known, **changed)


def decided(verdict: Verdict) -> tuple[str, str]:
    """The action and the code of its reason."""
    return verdict.action, verdict.reason.partition(":")[0]


def test_a_mail_whose_facts_still_hold_goes_with_all_its_items() -> None:
    """Nothing changed: it goes, and the balance that is told is the one of now."""
    now = item(open_amount=Decimal(40))
    verdict = judge(mail(reserved(item())), facts(now), DAY)
    assert verdict == Verdict(7, "go", kept=(now,))


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"person": None}, "contact_changed"),
        ({"person": Person(5, "new@customer.example", "A", "A", frozenset({"payments"}))}, "contact_changed"),
        ({"person": Person(5, "anna@customer.example", "A", "A", frozenset())}, "contact_changed"),
        ({"person": Person(5, "anna@customer.example", "A", "A", frozenset({"sales"}))}, "contact_changed"),
        ({"suppressed": "hard_bounce"}, "suppressed"),
        ({"policy": "strict"}, "class_changed"),
        ({"policy": None}, "class_changed"),
        ({"reminds": False}, "class_changed"),
        ({"holds": (Hold("legal_hold", None),)}, "legal_hold"),
        ({"holds": (Hold("promise_to_pay", None),)}, "promise_to_pay"),
        ({"holds": (Hold("dispute", 1),)}, "dispute"),
        ({"items": {}}, "paid"),
        ({"items": {1: item(open_amount=Decimal(0))}}, "paid"),
        ({"items": {1: item(disputed=True)}}, "disputed"),
        ({"items": {1: item(due_on=DAY)}}, "changed"),
        ({"items": {1: item(currency="PLN")}}, "changed"),
        ({"items": {1: item(), 99: credit(100)}}, "credited"),
        ({"items": {1: item(), 99: credit(96)}}, "below_minimum"),
        ({"unmatched": {"EUR": Decimal(100)}}, "unmatched_money"),
        ({"unresolved": frozenset({1})}, "unknown"),
    ],
)
def test_each_fact_that_speaks_against_it_stops_the_mail_for_good(changed: dict[str, Any], code: str) -> None:
    """The mail is cancelled with the reason, and its reservation is given back with the same."""
    verdict = judge(mail(reserved(item())), facts(item(), **changed), DAY)
    assert decided(verdict) == ("never", code)
    assert [(one.invoice_id, one.reason.partition(":")[0]) for one in verdict.released] == [(1, code)]


def test_a_ledger_that_is_too_old_makes_the_mail_wait() -> None:
    """Ten days are allowed by the rule: on the tenth it goes, on the eleventh it waits, and nothing is given back."""
    for age, action in ((10, "go"), (11, "wait")):
        fresh = {"accounting": DAY - timedelta(days=age)}
        assert judge(mail(reserved(item())), facts(item(), fresh=fresh), DAY).action == action
    verdict = judge(mail(reserved(item())), facts(item(), fresh={}), DAY)
    assert decided(verdict) == ("wait", "stale_data")
    assert verdict.released == ()


def test_a_paid_item_leaves_the_digest_and_the_rest_goes() -> None:
    """Of two items one is paid: the other goes alone."""
    verdict = judge(mail(reserved(item(1)), reserved(item(2))), facts(item(2)), DAY)
    assert (verdict.action, verdict.kept) == ("go", (item(2),))
    assert [one.invoice_id for one in verdict.released] == [1]


def test_a_digest_that_lost_what_set_its_tone_does_not_go() -> None:
    """A final reminder whose only final item was paid is not sent about a first one; the next plan finds the tone."""
    both = mail(reserved(item(1), "final"), reserved(item(2), "first"), stage="final")
    verdict = judge(both, facts(item(2)), DAY)
    assert decided(verdict) == ("never", "lower_tone")
    assert {one.invoice_id: one.reason.partition(":")[0] for one in verdict.released} == {1: "paid", 2: "lower_tone"}


def test_credits_count_against_everything_overdue_in_their_currency_only() -> None:
    """A credit of 150 leaves 50 of two items of 100; one in another currency changes nothing."""
    speaking, other = item(1), item(2)
    assert judge(mail(reserved(speaking)), facts(speaking, other, credit(150)), DAY).action == "go"
    assert judge(mail(reserved(speaking)), facts(speaking, credit(150, "PLN")), DAY).action == "go"


def test_a_notice_beforehand_leaves_until_the_due_date() -> None:
    """Due on 20 March: the notice may leave on the 20th; on the 21st it is no notice any more."""
    due = item(due_on=DAY)
    notice = mail(reserved(due, "upcoming"), stage="upcoming")
    assert judge(notice, facts(due), DAY).action == "go"
    late = judge(notice, facts(due, fresh={"accounting": DAY}), DAY + timedelta(days=1))
    assert decided(late) == ("never", "overdue")


_ITEMS = st.builds(
    lambda number, amount, due, disputed, currency: item(
        number, open_amount=Decimal(amount), due_on=DAY + timedelta(days=due), disputed=disputed, currency=currency
    ),
    st.integers(1, 6), st.integers(-50, 200), st.integers(-40, 5), st.booleans(), st.sampled_from(["EUR", "PLN"]),
)  # fmt: skip


@settings(max_examples=150 * CAMPAIGN_FACTOR)
@given(
    st.lists(_ITEMS, max_size=6, unique_by=lambda one: one.invoice_id),
    st.lists(_ITEMS, min_size=1, max_size=6, unique_by=lambda one: one.invoice_id),
    st.lists(st.sampled_from([None, 1, 2, 3]), max_size=2),
    st.sets(st.integers(1, 6)),
)
def test_whatever_the_facts_nothing_goes_that_is_not_owed(
    now: list[OpenItem], then: list[OpenItem], held: list[int | None], unresolved: set[int]
) -> None:
    """Kept items are open, overdue, undisputed, free and resolved; kept and released together are what was reserved."""
    known = facts(*now, holds=tuple(Hold("dispute", one) for one in held), unresolved=frozenset(unresolved))
    queued = mail(*(reserved(one) for one in then))
    verdict = judge(queued, known, DAY)
    for one in verdict.kept:
        assert one.open_amount > 0
        assert one.due_on < DAY
        assert not one.disputed
        assert one.invoice_id not in unresolved
        assert not {None, one.invoice_id} & set(held)
    ids = [one.invoice_id for one in verdict.kept] + [one.invoice_id for one in verdict.released]
    assert sorted(ids) == ([] if verdict.action == "wait" else sorted(one.invoice_id for one in then))
    assert (verdict.action == "go") == bool(verdict.kept)
    assert judge(queued, known, DAY) == verdict
