"""The brake: far more mails than usual stop, few never do, and without evidence there is nothing to compare with."""

from __future__ import annotations

import pytest

from tasks.reminders.brake import check_brake
from tests.reminding import RULES, shipped_rules

USUAL = [40, 55, 48, 60, 52]


@pytest.mark.parametrize(
    ("planned", "earlier", "stops"),
    [
        (156, USUAL, False),  # three times the median of 52
        (157, USUAL, True),
        (500, USUAL[:4], False),  # four earlier runs are no evidence
        (50, [1, 1, 1, 1, 1], False),  # the floor
        (51, [1, 1, 1, 1, 1], True),
        (500, [], False),
    ],
)
def test_a_run_stops_where_the_rule_says(planned: int, earlier: list[int], stops: bool) -> None:
    """The bound is the larger of the multiple of the median and the floor; what is measured and allowed is told."""
    told = check_brake(RULES, planned, earlier)
    assert (told is not None) is stops
    assert told is None or told.startswith(f"{planned} mails are planned; ")


def test_evidence_is_a_rule() -> None:
    """With less evidence asked for, fewer earlier runs are enough."""
    rules = shipped_rules(reminder_limit={"blast_radius": {"minimum_evidence": 1}})
    assert check_brake(rules, 500, [40]) is not None
