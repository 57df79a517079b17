"""Guards as plain decisions: measures beside thresholds, at, below and above the limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.tables import metadata
from tasks.errors import UsageError
from tasks.feeds.guards import (
    GUARDS,
    Measures,
    Neighbour,
    Sums,
    Threshold,
    Total,
    check_names,
    in_force,
    judge,
    refusal,
)
from tasks.rules import SEEDS, read_seeds

DAY = date(2026, 3, 16)
LAST = Neighbour("last.xlsx", DAY - timedelta(weeks=1), items=100, rows=100, common=80, absent=20, fresh=20)
NEXT = replace(LAST, file_name="next.xlsx", as_of=DAY + timedelta(weeks=1))
FILE = Measures(as_of=DAY, rows=100, items=100, complete=True, neighbours=(LAST,))


def _seeded() -> dict[str, Threshold]:
    rows = read_seeds(SEEDS / "quality_threshold.csv", metadata.tables["rules.quality_threshold"])
    return in_force(rows)


SEEDED = _seeded()


def _beside(**changes: Any) -> Measures:
    return replace(FILE, neighbours=(replace(LAST, **changes),))


def _state(measures: Measures, guard: str, thresholds: Mapping[str, Threshold] = SEEDED) -> str | None:
    """What one guard alone says; None where it says nothing."""
    found = judge(measures, {guard: thresholds[guard]})
    return found[0].state if found else None


def _total(said: str) -> Total:
    return Total("open_amount", "EUR", Decimal(said), (Decimal("100.00"), Decimal("90.00")), rows=5, unreadable=0)


def test_every_guard_has_a_seeded_threshold() -> None:
    """The seed file and the code name the same guards."""
    assert set(SEEDED) == {*GUARDS, "price_jump_size"}
    assert len(GUARDS) == 15


EURO = {"EUR": Sums(40, Decimal(400))}


@pytest.mark.parametrize(
    ("guard", "at_limit", "beyond"),
    [
        ("age", replace(FILE, newest=DAY - timedelta(days=45)), replace(FILE, newest=DAY - timedelta(days=46))),
        ("vanished_share", _beside(absent=50), _beside(absent=51)),
        ("row_count", replace(_beside(), rows=300), replace(_beside(), rows=301)),
        (
            "currency_sums",
            replace(_beside(sums={"EUR": Sums(40, Decimal(100))}), sums=EURO),
            replace(_beside(sums={"EUR": Sums(40, Decimal("99.99"))}), sums=EURO),
        ),
        ("amounts_scaled", _beside(repriced=40, scaled=20), _beside(repriced=39, scaled=20)),
        ("amounts_moved", _beside(moved=40), _beside(moved=41)),
        ("dates_swapped", _beside(redated=40, swapped=20), _beside(redated=39, swapped=20)),
        ("dates_moved", _beside(redated=40), _beside(redated=41)),
        (
            "reappearing",
            replace(FILE, reappearing=10, reappearing_of=100),
            replace(FILE, reappearing=11, reappearing_of=100),
        ),
        ("leading_zeros", replace(FILE, rows=500, zeros=5), replace(FILE, rows=499, zeros=5)),
        ("totals_row", replace(FILE, totals=(_total("100.01"),)), replace(FILE, totals=(_total("100.0101"),))),
    ],
)
def test_a_measure_exactly_on_the_threshold_passes(guard: str, at_limit: Measures, beyond: Measures) -> None:
    """What equals the threshold is allowed, the least bit more is refused."""
    assert (_state(at_limit, guard), _state(beyond, guard)) == ("passed", "refused")


@pytest.mark.parametrize(
    ("guard", "enough", "scarce"),
    [
        ("vanished_share", _beside(items=20, absent=20), _beside(items=19, absent=19)),
        ("amounts_scaled", _beside(repriced=10, scaled=10, common=10), _beside(repriced=9, scaled=9, common=9)),
        ("leading_zeros", replace(FILE, zeros=5), replace(FILE, zeros=4)),
    ],
)
def test_too_little_evidence_says_nothing(guard: str, enough: Measures, scarce: Measures) -> None:
    """A ledger of a few items may change altogether."""
    assert (_state(enough, guard), _state(scarce, guard)) == ("refused", None)


def test_limits_grow_with_the_weeks_between() -> None:
    """Half gone in a week is allowed; in two weeks three quarters; beyond a month nothing is compared."""
    two_weeks = LAST.as_of - timedelta(weeks=1)
    assert _state(_beside(absent=75, as_of=two_weeks), "vanished_share") == "passed"
    assert _state(_beside(absent=76, as_of=two_weeks), "vanished_share") == "refused"
    assert _state(_beside(absent=100, as_of=DAY - timedelta(days=31)), "vanished_share") == "refused"
    assert _state(_beside(absent=100, as_of=DAY - timedelta(days=32)), "vanished_share") is None


def test_values_that_agree_with_one_side_are_believed() -> None:
    """A week between two that differ by a factor stands on one side of a change that was judged already."""
    jumped = replace(NEXT, repriced=80, scaled=80, factor=Decimal("0.7"))
    assert _state(replace(FILE, neighbours=(jumped,)), "amounts_scaled") == "refused"
    assert _state(replace(FILE, neighbours=(LAST, jumped)), "amounts_scaled") == "passed"
    both = (replace(jumped, as_of=LAST.as_of), jumped)
    assert _state(replace(FILE, neighbours=both), "amounts_scaled") == "refused"


def test_items_that_vanish_on_either_side_are_enough() -> None:
    """One neighbour that misses most items refuses, whatever the other says."""
    assert _state(replace(FILE, neighbours=(LAST, replace(NEXT, fresh=51))), "vanished_share") == "refused"


@given(items=st.integers(20, 500), other=st.integers(20, 500), common=st.integers(0, 500), days=st.integers(1, 40))
def test_two_files_get_the_same_verdict_whichever_comes_second(items: int, other: int, common: int, days: int) -> None:
    """What is measured between two snapshots does not depend on which of them was in first."""
    shared = min(items, other, common)
    earlier, later = DAY, DAY + timedelta(days=days)

    def beside(name: str, as_of: date, own: int, theirs: int) -> tuple[Neighbour, ...]:
        return (
            Neighbour(
                name, as_of, items=theirs, rows=theirs, absent=theirs - shared, fresh=own - shared, common=shared
            ),
        )

    late = Measures(later, items, items, complete=True, neighbours=beside("a", earlier, items, other))
    early = Measures(earlier, other, other, complete=True, neighbours=beside("b", later, other, items))
    for guard in ("vanished_share", "row_count"):
        assert _state(late, guard) == _state(early, guard)


def test_the_cause_stands_for_its_effect() -> None:
    """A conversion is told once; the sums that follow from it are not told as well, also when it was accepted."""
    changes = {"repriced": 80, "scaled": 80, "moved": 80, "factor": Decimal(10)}
    sums = {"EUR": Sums(100, Decimal(10_000))}
    measures = replace(_beside(**changes, sums={"EUR": Sums(100, Decimal(1_000))}), sums=sums)
    assert [v.guard for v in judge(measures, SEEDED) if v.state == "refused"] == ["amounts_scaled"]
    overruled = judge(measures, SEEDED, accepted=["amounts_scaled"])
    assert [v.guard for v in overruled if v.state != "passed"] == ["amounts_scaled"]
    alone = judge(measures, {name: SEEDED[name] for name in ("currency_sums", "amounts_moved")})
    assert {v.state for v in alone} == {"refused"}


def test_a_total_is_compared_with_every_sum_it_may_mean() -> None:
    """With copies or without; an amount that cannot be read may explain any difference."""
    assert _state(replace(FILE, totals=(_total("90.00"),)), "totals_row") == "passed"
    assert _state(replace(FILE, totals=(_total("95.00"),)), "totals_row") == "refused"
    assert _state(replace(FILE, totals=(replace(_total("95.00"), unreadable=1),)), "totals_row") is None


def test_a_list_that_is_not_complete_settles_nothing_and_is_not_asked_to() -> None:
    """In a ledger, what is left out, how old it is and how much it sums up to say nothing."""
    ledger = replace(_beside(absent=100, rows=1), complete=False, newest=date(2020, 1, 1), sums={})
    for guard in ("age", "vanished_share", "row_count", "currency_sums"):
        assert _state(ledger, guard) is None


def test_a_refusal_names_all_guards_and_one_command() -> None:
    """Every refusing guard with measure and limit; the hint is a command that can be copied, file name quoted."""
    verdicts = judge(replace(_beside(absent=62), zeros=30), SEEDED)
    error = refusal(verdicts, file_name="open items {1}.xlsx", contract="open_items", as_of=DAY, revision=2)
    assert error is not None
    assert error.exit_code == 4
    assert [reason.split(":")[0] for reason in error.reasons] == ["vanished_share", "leading_zeros"]
    assert "62 of the 100 items of last.xlsx (2026-03-09)" in error.reasons[0]
    assert "62 % in a week; allowed 50 %" in error.reasons[0]
    assert (
        "kontor import 'open items {1}.xlsx' --contract open_items --as-of 2026-03-16 --revision 2"
        " --accept-guard vanished_share --accept-guard leading_zeros --reason '…'" in error.hint
    )
    assert refusal(judge(FILE, SEEDED), file_name="f", contract="c", as_of=DAY, revision=1) is None


def test_file_names_with_braces_are_told_as_they_are() -> None:
    """A neighbour's name is text, never a pattern."""
    (verdict,) = judge(
        _beside(absent=62, file_name="{x} {allowed!r}.xlsx"), {"vanished_share": SEEDED["vanished_share"]}
    )
    assert "{x} {allowed!r}.xlsx" in verdict.reason


def test_the_most_specific_threshold_is_in_force() -> None:
    """A sender's row wins over a feed's, and that over the one for all, in whatever order they come."""
    row = {"guard": "age", "rule_id": "a", "version": 1, "threshold": 1, "minimum_evidence": 0, "window_days": None}
    for_all = row | {"feed": "*", "source": "*"}
    for_feed = row | {"feed": "open_items", "source": "*", "threshold": 2}
    for_sender = row | {"feed": "*", "source": "accounting", "threshold": 3}
    assert in_force([for_sender, for_feed, for_all])["age"].threshold == 3
    assert in_force([for_feed, for_all])["age"].threshold == 2


def test_a_guard_that_does_not_exist_cannot_be_accepted() -> None:
    """A misspelt name is an error before anything is read, and the hint lists the names there are."""
    check_names(["age", "totals_row"])
    with pytest.raises(UsageError) as caught:
        check_names(["age", "vanished"])
    assert "vanished" in caught.value.message
    assert "vanished_share" in caught.value.hint
