"""Which backups stay: every example at its boundary, and what holds for any history."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tasks.backups.expiry import Held, Keep, Plan, classify

NOW = datetime(2026, 6, 30, 12, 0, tzinfo=UTC)
RULE = Keep(recovery_window_days=14, keep_daily=0, keep_weekly=0, keep_monthly=0, minimum_good=1)


def _held(day: int, month: int = 6, *, good: bool = True, base: str | None = None, hour: int = 0) -> Held:
    at = datetime(2026, month, day, hour, tzinfo=UTC)
    return Held(f"{at:%Y%m%d%H}", at, base, good)


def test_the_window_keeps_what_its_first_instant_is_recovered_from() -> None:
    """The window of 14 days on 30 June begins on 16 June: the backup of 15 June stays, that of 14 June goes."""
    plan = classify([_held(day) for day in (13, 14, 15, 20, 29)], RULE, [], NOW)
    assert set(plan.stays) == {"2026061500", "2026062000", "2026062900"}
    assert plan.stays["2026062900"] == ("window", "minimum")
    assert plan.goes == ("2026061400", "2026061300")


def test_a_backup_exactly_at_the_beginning_of_the_window_is_enough() -> None:
    """Made at the very instant at which the window begins, it is the one before it that goes."""
    plan = classify([_held(15), _held(16, hour=12), _held(29)], RULE, [], NOW)
    assert plan.goes == ("2026061500",)


def test_days_weeks_and_months_keep_their_newest() -> None:
    """Two on one day count as one day; a week ends on Sunday; a month with its last backup."""
    rule = Keep(recovery_window_days=1, keep_daily=2, keep_weekly=2, keep_monthly=3, minimum_good=1)
    history = [_held(30, 4), _held(31, 5), _held(21), _held(22), _held(28), _held(29, hour=1), _held(29, hour=2)]
    plan = classify(history, rule, [], NOW)
    assert plan.stays["2026062902"] == ("window", "daily", "weekly", "monthly", "minimum")
    assert plan.stays["2026062800"] == ("daily", "weekly")
    assert plan.stays["2026053100"] == ("monthly",)
    assert plan.stays["2026043000"] == ("monthly",)
    assert set(plan.goes) == {"2026062100", "2026062200", "2026062901"}


def test_a_hold_keeps_the_newest_good_one_from_before_it() -> None:
    """It alone shows the data as they stood when the hold was placed."""
    placed = datetime(2026, 3, 15, tzinfo=UTC)
    plan = classify([_held(1, 3), _held(10, 3), _held(20, 3), _held(29)], RULE, [placed], NOW)
    assert plan.stays["2026031000"] == ("hold",)
    assert plan.stays["2026032000"] == ("window",)
    assert plan.goes == ("2026030100",)


def test_a_hold_older_than_every_good_backup_keeps_the_oldest_of_them() -> None:
    """What is nearest to the data as they stood then; one that did not pass is not counted on."""
    placed = datetime(2026, 2, 1, tzinfo=UTC)
    plan = classify([_held(1, 2, good=False), _held(10, 3), _held(20, 3), _held(29)], RULE, [placed], NOW)
    assert plan.stays["2026031000"] == ("hold",)
    assert "2026020100" in plan.goes


def test_what_did_not_pass_counts_for_nothing_and_the_last_good_one_never_goes() -> None:
    """A year-old good backup outlives newer ones that do not restore; those younger than it wait for their check."""
    old, newer = _held(1, 1), [_held(day, good=False) for day in (1, 2)]
    plan = classify([old, *newer], RULE, [], NOW)
    assert plan.stays["2026010100"] == ("window", "minimum")
    assert plan.stays["2026060100"] == ("unproven",)
    assert plan.goes == ()
    plan = classify([*newer, _held(29)], RULE, [], NOW)
    assert set(plan.goes) == {"2026060100", "2026060200"}


def test_a_base_stays_as_long_as_what_is_built_on_it() -> None:
    """A chain of three: the oldest two are needed by the newest alone."""
    chain = [_held(1), _held(2, base="2026060100"), _held(29, base="2026060200")]
    plan = classify(chain, RULE, [], NOW)
    assert plan.stays["2026060100"][-1] == "base"
    assert plan.goes == ()


def test_one_made_while_the_clock_was_behind_is_of_the_time_of_the_one_before() -> None:
    """On 9 May by its clock, made after 28 June: in the window, and no reason for those before it to go."""
    history = [_held(14), _held(15), _held(28), _held(9, 5), _held(29)]
    plan = classify(history, RULE, [], NOW)
    assert plan.stays["2026050900"] == ("window",)
    assert plan.goes == ("2026061400",)


def test_one_made_while_the_clock_was_ahead_hides_nothing_behind_it() -> None:
    """Of November by its clock, made on 1 June: it goes with its time, and the newest is the one made last."""
    plan = classify([_held(1), _held(2, 11), _held(14), _held(15), _held(29, good=False)], RULE, [], NOW)
    assert plan.stays == {"2026061500": ("window", "minimum"), "2026062900": ("unproven",)}


def test_nothing_goes_while_the_clock_is_behind_the_newest() -> None:
    """In January by the clock, with backups of June: which of them is old cannot be said."""
    history = [_held(day, good=day > 3) for day in range(1, 29)]
    plan = classify(history, RULE, [], datetime(2026, 1, 1, tzinfo=UTC))
    assert plan.goes == ()
    assert all("clock" in reasons for reasons in plan.stays.values())


_HISTORIES = st.lists(
    st.tuples(st.integers(0, 400 * 24), st.booleans(), st.integers(0, 3)), max_size=40, unique_by=lambda item: item[0]
)
_RULES = st.builds(
    Keep,
    recovery_window_days=st.integers(1, 40),
    keep_daily=st.integers(0, 10),
    keep_weekly=st.integers(0, 6),
    keep_monthly=st.integers(0, 12),
    minimum_good=st.integers(1, 4),
)


def _history(drawn: list[tuple[int, bool, int]]) -> list[Held]:
    """Backups at these hours before now, some of them built on the one before."""
    made: list[Held] = []
    for hours, good, chained in sorted(drawn, reverse=True):
        base = made[-1].label if made and chained == 0 else None
        made.append(Held(f"b{hours}", NOW - timedelta(hours=hours), base, good))
    return made


def _after(history: list[Held], plan: Plan) -> list[Held]:
    return [held for held in history if held.label in plan.stays]


@given(_HISTORIES, _RULES, st.lists(st.integers(0, 400 * 24), max_size=3))
def test_for_any_history(drawn: list[tuple[int, bool, int]], rule: Keep, placed: list[int]) -> None:
    """All are judged; good ones and bases stay; every instant of the window keeps its backup; a second run agrees."""
    history, holds = _history(drawn), [NOW - timedelta(hours=hours) for hours in placed]
    plan = classify(history, rule, holds, NOW)
    assert sorted([*plan.stays, *plan.goes]) == sorted(held.label for held in history)
    good = [held for held in history if held.good]
    kept = _after(history, plan)
    assert sum(held.good for held in kept) >= min(len(good), rule.minimum_good)
    assert all(held.base is None or held.base in plan.stays for held in kept)
    begins = NOW - timedelta(days=rule.recovery_window_days)
    for hour in range(0, rule.recovery_window_days * 24, 7):
        instant = begins + timedelta(hours=hour)
        newest = max((held.at for held in good if held.at <= instant), default=None)
        assert newest == max((held.at for held in kept if held.good and held.at <= instant), default=None)
    again = classify(kept, rule, holds, NOW)
    assert again.goes == ()


@given(_HISTORIES, _RULES, st.permutations(range(40)))
def test_for_any_clock(drawn: list[tuple[int, bool, int]], rule: Keep, hours: list[int]) -> None:
    """Whatever the clock said while each was made: the newest good ones stay, and what those build on."""
    wrong = [replace(held, at=NOW - timedelta(hours=hour)) for held, hour in zip(_history(drawn), hours, strict=False)]
    plan = classify(wrong, rule, [], NOW)
    good = [held.label for held in wrong if held.good]
    assert {*good[-rule.minimum_good :]} <= plan.stays.keys()
    assert all(held.base is None or held.base in plan.stays for held in _after(wrong, plan))


@given(_HISTORIES, _RULES)
def test_dependants_go_before_what_they_build_on(drawn: list[tuple[int, bool, int]], rule: Keep) -> None:
    """Killed between two deletions, what is left is still whole."""
    history = _history(drawn)
    goes = classify(history, rule, [], NOW).goes
    bases = {held.label: held.base for held in history}
    for place, label in enumerate(goes):
        assert bases[label] not in goes[:place]
