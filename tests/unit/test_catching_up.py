"""What is made up for after a time in which nothing ran."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flows.commands.catching_up import CatchUp, rule_of, to_make_up
from tasks.standing import pause_before

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
MISSED = [NOW - timedelta(hours=hours) for hours in (60, 36, 12, 1)]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["owner:finance", "catchup:latest:7d"], CatchUp("latest", timedelta(days=7))),
        (["catchup:all:48h"], CatchUp("all", timedelta(hours=48))),
        (["catchup:skip"], CatchUp("skip", timedelta(hours=24))),
        (["tier:1"], CatchUp("skip", timedelta(0))),
        (["catchup:sometimes:3d"], CatchUp("skip", timedelta(0))),
    ],
)
def test_a_deployment_declares_its_rule_by_a_tag(tags: list[str], expected: CatchUp) -> None:
    """Rule and greatest age are read from one tag; without one that makes sense nothing is made up for."""
    assert rule_of(tags) == expected


def test_the_rule_says_which_missed_times_get_a_run() -> None:
    """One for the newest, one for each that is young enough in order, or none."""
    two_days = timedelta(days=2)
    assert to_make_up(MISSED, CatchUp("latest", two_days), NOW) == [MISSED[3]]
    assert to_make_up(MISSED, CatchUp("all", two_days), NOW) == MISSED[1:]
    assert to_make_up(MISSED, CatchUp("skip", two_days), NOW) == []
    assert to_make_up(MISSED, CatchUp("latest", timedelta(minutes=30)), NOW) == []
    assert to_make_up([], CatchUp("all", two_days), NOW) == []


def test_who_keeps_falling_waits_longer_up_to_a_minute() -> None:
    """The pause doubles with every fall in a row."""
    assert [pause_before(falls) for falls in (1, 2, 3, 6, 7, 50)] == [1.0, 2.0, 4.0, 32.0, 60.0, 60.0]
