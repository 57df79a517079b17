"""What the law allows to claim: worked examples per country, exact to the cent; silence where a rate is not known."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from tasks.reminders.facts import Item
from tasks.reminders.fees import find_claims
from tasks.reminders.rulebook import make_rulebook
from tests.reminding import CALENDAR, RULES, customer, decided, owed, shipped_rows

LETTER = date(2025, 8, 1)
DUE = date(2025, 6, 1)


def _claims(country: str, stage: str, *items: Item, on: date = LETTER) -> list[tuple[str, str, str]]:
    return [(c.kind, c.currency, str(c.amount)) for c in find_claims(RULES, country, stage, items, on)]


@pytest.mark.parametrize(
    ("country", "stage", "item", "expected"),
    [
        # 1000 x 11.27 % x 29/365 for 2 to 30 June, and x 10.27 % x 32/365 from 1 July.
        ("DE", "second", owed(1, DUE, "1000.00"), [("fee", "EUR", "40.00"), ("interest", "EUR", "17.96")]),
        ("DE", "first", owed(1, DUE, "1000.00"), []),
        ("PL", "second", owed(1, DUE, "5000.00", "PLN"), [("fee", "EUR", "40.00"), ("interest", "PLN", "129.42")]),
        ("PL", "second", owed(1, DUE, "5000.01", "PLN"), [("fee", "EUR", "70.00"), ("interest", "PLN", "129.42")]),
        ("PL", "second", owed(1, DUE, "50000", "PLN"), [("fee", "EUR", "100.00"), ("interest", "PLN", "1294.18")]),
        # The bounds are in zloty; an item in euros gets the row that begins at nothing.
        ("PL", "second", owed(1, DUE, "60000"), [("fee", "EUR", "40.00"), ("interest", "EUR", "1553.01")]),
        ("SE", "second", owed(1, DUE, "1000", "SEK"), [("interest", "SEK", "17.51")]),
        ("SE", "final", owed(1, DUE, "1000", "SEK"), [("fee", "SEK", "450.00"), ("interest", "SEK", "17.51")]),
        # Bulgaria's base rates are not entered, and its fee is not confirmed; elsewhere nothing is shown.
        ("BG", "final", owed(1, DUE, "1000"), []),
        ("FR", "final", owed(1, DUE, "1000"), []),
    ],
)
def test_claims_of_a_country(country: str, stage: str, item: Item, expected: list[tuple[str, str, str]]) -> None:
    """Fees and interest are those of the country's law, at the stage from which they may be shown."""
    rules = [rule for rule in RULES.fees if rule.country == country]
    assert bool(rules) is (country != "FR")
    assert _claims(country, stage, item) == expected


def test_a_reminder_fee_is_asked_once_a_letter_and_not_before_its_day() -> None:
    """Norway's fee is per reminder, at the earliest 14 days after the due date, however many items there are."""
    young = owed(1, date(2025, 7, 19), "100", "NOK")
    assert [claim[0] for claim in _claims("NO", "second", young)] == ["interest"]
    old = [owed(number, DUE, "100", "NOK") for number in (2, 3)]
    assert _claims("NO", "second", young, *old)[0] == ("fee", "NOK", "35.00")


def test_a_day_without_a_known_rate_means_no_figure() -> None:
    """Interest that reaches into a half year whose rate nobody has entered is not shown at all; the fee is."""
    assert _claims("DE", "second", owed(1, DUE, "1000"), on=date(2026, 8, 3)) == [("fee", "EUR", "40.00")]
    assert _claims("DE", "second", owed(1, date(2023, 1, 2), "1000")) == [("fee", "EUR", "40.00")]


def test_what_nobody_has_confirmed_is_shown_to_nobody() -> None:
    """A fee or rate whose source says so gives no figure until somebody has looked it up and says the source alone."""
    rows = shipped_rows()
    item = owed(1, DUE, "1000.00")
    [bulgarian] = [row for row in rows["fee_rule"] if row["rule_id"] == "bg_fee"]
    bulgarian["legal_source"] = bulgarian["legal_source"].removeprefix("to be confirmed: ")
    told = find_claims(make_rulebook(rows), "BG", "final", [item], LETTER)
    assert [(claim.kind, claim.amount) for claim in told] == [("fee", Decimal(40))]
    for row in rows["reference_rate"]:
        row["source"] = f"To be confirmed: {row['source']}"
    told = find_claims(make_rulebook(rows), "DE", "final", [item], LETTER)
    assert [claim.kind for claim in told] == ["fee"]


@pytest.mark.parametrize("country", ["BG", "DE", "NO", "PL", "SE"])
def test_no_letter_of_today_shows_interest_at_a_rate_that_nobody_has_entered(country: str) -> None:
    """As shipped, interest that grows after the last known half year is shown in none of the five countries."""
    rates = {rule.rate_name for rule in RULES.fees if rule.country == country and rule.kind == "interest"}
    known = [rate.last for rate in RULES.rates if rate.rate_name in rates and rate.last is not None]
    day_after = max(known, default=date(2025, 12, 31)) + timedelta(days=1)
    currency = {"NO": "NOK", "PL": "PLN", "SE": "SEK"}.get(country, "EUR")
    item = owed(1, day_after - timedelta(days=20), "1000", currency)
    assert [claim[0] for claim in _claims(country, "final", item, on=day_after) if claim[0] == "interest"] == []
    eve = [claim[0] for claim in _claims(country, "final", item, on=day_after - timedelta(days=1))]
    assert ("interest" in eve) is (country != "BG")


def test_claims_stand_beside_the_sums_of_a_decision() -> None:
    """A second reminder carries the claims with their sources; what is due stays what it was."""
    who = customer(owed(1, DUE, "1000.00", level=1, sequence=1, reminded_on=DUE), country="DE", language="en")
    assert CALENDAR.is_working_day("DE", LETTER)
    found = decided(who, LETTER)
    assert found.stage == "second"
    assert [(claim["kind"], claim["amount"]) for claim in found.figures["claims"]] == [
        ("fee", "40.00"),
        ("interest", "17.96"),
    ]
    assert all("BGB" in claim["legal_source"] for claim in found.figures["claims"])
    assert [item.open_amount for item in found.reserved] == [Decimal("1000.00")]
