"""What the watcher of runs takes for wrong, with dates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.objects import FlowRun

from configs.settings import PROJECT_ROOT
from tasks.watch.judging import RunFact, find_alarms, watcher_is_silent
from tasks.watch.schedules import Scheduled, due_times, next_runs, read_schedules
from tasks.watch.steps import longest_start

SOFIA = ZoneInfo("Europe/Sofia")
HOURLY = Scheduled("payment_sync", "payment-sync-hourly", "0 6-20 * * 1-5", 1)


def _at(day: int, hour: int, minute: int = 0) -> datetime:
    """An instant of November 2026 in Sofia: the 23rd is a Monday."""
    return datetime(2026, 11, day, hour, minute, tzinfo=SOFIA)


def _run(run_id: int, started: datetime, state: str = "done", **more: object) -> RunFact:
    ended = None if state == "running" else started + timedelta(minutes=1)
    return RunFact(run_id, "payment_sync", state, started, ended, **more)  # type: ignore[arg-type]


def _kinds(runs: list[RunFact], now: datetime, since: datetime | None = None) -> list[str]:
    alarms = find_alarms(runs, [HOURLY], now=now, watching_since=since or _at(16, 0), zone=SOFIA)
    return [alarm.kind for alarm in alarms]


def test_a_run_is_late_after_a_quarter_of_an_hour_and_missing_after_the_next_time() -> None:
    """Due at 9:00, begun at 8:00 last: quiet at 9:15, late at 9:16, missing at 10:16; nothing over the weekend."""
    runs = [_run(1, _at(23, 8))]
    assert _kinds(runs, _at(23, 9, 14)) == []
    assert _kinds(runs, _at(23, 9, 16)) == ["late"]
    assert _kinds(runs, _at(23, 10, 16)) == ["missing"]
    assert _kinds([_run(1, _at(20, 20))], _at(22, 12)) == []


def test_what_was_due_before_anybody_watched_is_no_alarm() -> None:
    """A new installation does not complain of its past."""
    assert _kinds([], _at(23, 12, 30), since=_at(23, 12)) == []
    assert _kinds([], _at(23, 13, 16), since=_at(23, 12, 30)) == ["late"]


def test_the_same_trouble_keeps_its_fingerprint() -> None:
    """Looked at again an hour later, a missing run is the same alarm, so it is told of once."""
    seen = [
        find_alarms([], [HOURLY], now=_at(23, hour, 20), watching_since=_at(23, 7, 30), zone=SOFIA)[0].fingerprint
        for hour in (8, 9, 15)
    ]
    assert len(set(seen)) == 1


def test_a_run_is_too_long_at_four_times_the_usual_and_not_before_a_quarter_of_an_hour() -> None:
    """Runs of a minute: 15 minutes are allowed; runs of ten: forty."""
    quick = [_run(n, _at(23, 8)) for n in range(1, 6)]
    assert "too_long" not in _kinds([*quick, _run(9, _at(23, 9), "running")], _at(23, 9, 15))
    assert "too_long" in _kinds([*quick, _run(9, _at(23, 9), "running")], _at(23, 9, 16))
    slow = [RunFact(n, "payment_sync", "done", _at(23, 8), _at(23, 8, 10)) for n in range(1, 6)]
    assert "too_long" not in _kinds([*slow, _run(9, _at(23, 9), "running")], _at(23, 9, 40))
    assert "too_long" in _kinds([*slow, _run(9, _at(23, 9), "running")], _at(23, 9, 41))


def test_a_dead_run_and_the_same_one_marked_dead_are_one_alarm() -> None:
    """Before and after the next run has written it down, the fingerprint is the same."""
    now = _at(23, 9, 5)
    before = find_alarms([_run(7, _at(23, 9), "running", dead=True)], [], now=now, watching_since=now, zone=SOFIA)
    after = find_alarms([_run(7, _at(23, 9), "abandoned")], [], now=now, watching_since=now, zone=SOFIA)
    assert [alarm.kind for alarm in (*before, *after)] == ["crashed", "crashed"]
    assert before[0].fingerprint == after[0].fingerprint


def test_only_the_newest_end_counts() -> None:
    """A failure that a later run made good is over."""
    failed = _run(1, _at(23, 8), "failed", error_code="BadInput")
    alarms = find_alarms([failed], [], now=_at(23, 9), watching_since=_at(23, 8), zone=SOFIA)
    assert [alarm.cause for alarm in alarms] == ["The newest run of payment_sync, 1, failed (BadInput)."]
    assert _kinds([failed, _run(2, _at(23, 9))], _at(23, 9, 5)) == []


def test_green_without_work_is_told_of_where_that_weekday_always_had_some() -> None:
    """Four Mondays with rows, then one without: told of on Tuesday; three Mondays are too little evidence."""
    start = _at(23, 9)
    mondays = [_run(n, start - timedelta(weeks=5 - n), work=100 + n) for n in range(1, 5)]
    quiet = [_run(8, start, work=0), _run(9, start + timedelta(hours=1), work=0)]
    tuesday = _at(24, 6, 5)
    idle = [
        alarm.cause
        for alarm in find_alarms([*mondays, *quiet], [], now=tuesday, watching_since=start, zone=SOFIA)
        if alarm.kind == "idle"
    ]
    assert len(idle) == 1
    assert "on 2026-11-23 were green and read no row" in idle[0]
    assert "at least 101" in idle[0]
    assert find_alarms([*mondays[1:], *quiet], [], now=tuesday, watching_since=start, zone=SOFIA) == []


def test_due_times_follow_the_clock_on_the_wall() -> None:
    """5:30 in Sofia is 3:30 UTC in winter and 2:30 in summer; a time in the skipped hour runs once, after it."""
    winter = due_times(
        "30 5 * * *", SOFIA, after=datetime(2026, 1, 1, tzinfo=UTC), until=datetime(2026, 1, 2, tzinfo=UTC)
    )
    summer = due_times(
        "30 5 * * *", SOFIA, after=datetime(2026, 7, 1, tzinfo=UTC), until=datetime(2026, 7, 2, tzinfo=UTC)
    )
    assert [moment.hour for moment in (*winter, *summer)] == [3, 2]
    day = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert len(due_times("30 3 * * *", SOFIA, after=day, until=day + timedelta(days=1))) == 1


@given(st.integers(0, 4 * 365 * 24 * 60), st.integers(1, 72))
def test_due_times_are_in_order_and_inside_their_bounds(minutes: int, hours: int) -> None:
    """Over any stretch, daylight saving included, no time comes twice and none lies outside."""
    after = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    until = after + timedelta(hours=hours)
    found = due_times("*/20 * * * *", SOFIA, after=after, until=until)
    assert found == sorted(set(found))
    assert all(after < moment <= until for moment in found)


def test_the_projects_own_schedules_are_read() -> None:
    """The watcher reads the same file that is deployed."""
    schedules = read_schedules((PROJECT_ROOT / "configs" / "prefect.yaml").read_text("utf-8"))
    assert {"payment_sync", "customer_import"} <= {schedule.flow for schedule in schedules}
    assert all(schedule.tier in (1, 2, 3) for schedule in schedules)


def test_a_watcher_that_is_silent_is_noticed() -> None:
    """An hour without a look is silence; counted from the start of `kontor up` where that is later."""
    hour, now = timedelta(hours=1), _at(23, 12)
    assert watcher_is_silent(None, now - timedelta(minutes=61), now, most=hour)
    assert not watcher_is_silent(None, now - timedelta(minutes=59), now, most=hour)
    assert not watcher_is_silent(now - timedelta(minutes=30), now - timedelta(days=3), now, most=hour)
    assert watcher_is_silent(now - timedelta(minutes=61), now - timedelta(days=3), now, most=hour)
    assert not watcher_is_silent(now - timedelta(days=2), now - timedelta(minutes=5), now, most=hour)


def test_the_next_runs_are_told_soonest_first_and_each_schedule_once() -> None:
    """On Friday at 20:30 the next sync is Monday's at 6:00; a yearly schedule is too far away to be told."""
    yearly = Scheduled("retention_purge", "yearly", "0 4 1 1 *", 2)
    sunday = Scheduled("backup", "sunday", "30 1 * * 0", 1)
    told = next_runs([HOURLY, yearly, sunday], SOFIA, _at(20, 20, 30), 5)
    assert told == [(_at(22, 1, 30), "backup"), (_at(23, 6), "payment_sync")]
    assert next_runs([HOURLY, sunday], SOFIA, _at(20, 20, 30), 1) == told[:1]


def test_a_run_that_is_a_process_has_less_time_to_begin_than_a_container() -> None:
    """Five minutes in the pool of processes; fifteen elsewhere, where an image may have to be fetched."""
    minutes = {
        pool: longest_start(FlowRun(flow_id=uuid4(), work_pool_name=pool)) for pool in ("kontor", "kontor-docker", None)
    }
    assert [limit.total_seconds() / 60 for limit in minutes.values()] == [5, 15, 15]
