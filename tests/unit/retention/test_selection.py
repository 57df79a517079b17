"""Which day a rule reaches to, in every country, and in the business time zone: against the definition of a period."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.retention.clocks import Period, last_day_kept
from tasks.retention.policies import Policy
from tasks.retention.selection import select_due
from tests.conftest import CAMPAIGN_FACTOR

DAYS = st.dates(date(1995, 1, 1), date(2060, 12, 31))
PERIODS = st.builds(Period, st.integers(0, 240), st.integers(0, 400), st.booleans())
COUNTRIES = ("BG", "DE", "NO")


def _rule(name: str, country: str, period: Period, action: str) -> Policy:
    return Policy(
        rule_id=name, version=1, position=10, entity="crm.invoices", country=country, purpose="x", legal_basis="x",
        source="x", clock="settled", period_months=period.months, period_days=period.days,
        from_year_end=period.from_year_end, action=action, columns="*", largest_share=Decimal(1), always_allowed=0,
        owner="x",
    )  # fmt: skip


@settings(max_examples=150 * CAMPAIGN_FACTOR)
@given(as_of=DAYS, started=DAYS, own=PERIODS, floors=st.dictionaries(st.sampled_from(("*", *COUNTRIES)), PERIODS))
def test_no_country_lets_go_of_what_its_law_keeps(
    as_of: date, started: date, own: Period, floors: dict[str, Period]
) -> None:
    """A record goes when the deleting rule and the exceptions for its country and for all have ended, no day sooner."""
    rule = _rule("delete", "*", own, "delete")
    rules = [rule, *(_rule(f"keep-{name}", name, period, "keep") for name, period in floors.items())]
    selection = select_due(rule, rules, as_of=as_of, zone="Europe/Sofia")
    for country in (*COUNTRIES, "PL"):
        reaches = selection.bound.get(f"horizon_{country.lower()}", selection.bound["horizon"])
        assert isinstance(reaches, date)
        periods = [own, *(floors[name] for name in ("*", country) if name in floors)]
        assert (started <= reaches) == all(last_day_kept(started, period) < as_of for period in periods)


@pytest.mark.parametrize(
    ("country", "settled", "as_of", "goes"),
    [
        ("BG", date(2015, 3, 10), date(2025, 12, 31), False),
        ("BG", date(2015, 3, 10), date(2026, 1, 1), True),
        ("DE", date(2016, 2, 29), date(2024, 12, 31), False),
        ("DE", date(2016, 2, 29), date(2025, 1, 1), True),
    ],
)
def test_years_from_the_end_of_the_year(country: str, settled: date, as_of: date, goes: bool) -> None:
    """Ten years in Bulgaria, eight in Germany, from the year's end: kept through 31 December, gone on 1 January."""
    rule = _rule("delete", "*", Period(96, from_year_end=True), "delete")
    law = _rule("bg", "BG", Period(120, from_year_end=True), "keep")
    bound = select_due(rule, [rule, law], as_of=as_of, zone="Europe/Sofia").bound
    reaches = bound.get(f"horizon_{country.lower()}", bound["horizon"])
    assert isinstance(reaches, date)
    assert (settled <= reaches) is goes
