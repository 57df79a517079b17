"""What is wrong with the runs, decided from the run ledger, the schedules and the time: pure.

    late      a due time has passed by more than the grace and no run has begun since
    missing   several due times have
    too_long  a run lasts far longer than such runs do
    crashed   a run ended without a word: its process is gone
    failed    the newest run of a flow failed, or did only part of its work
    idle      a day's runs were green and took in nothing, where each of the last weeks had work on that weekday

Each alarm has a fingerprint that stays the same while the trouble lasts, so that it is told of once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from tasks.watch.schedules import Scheduled, due_times

GRACE = timedelta(minutes=15)
EARLY = timedelta(minutes=1)  # a scheduler may be a moment ahead of its own schedule
LOOK_BACK = timedelta(days=8)
SHORTEST_LIMIT = timedelta(minutes=15)
TIMES_THE_MEDIAN = 4
WEEKS_OF_EVIDENCE = 4
WORK = "rows_read"


@dataclass(frozen=True)
class RunFact:
    """What the run ledger knows of a run; ``dead``: it stands as running, but nobody holds its lock."""

    run_id: int
    flow: str
    state: str
    started_at: datetime
    ended_at: datetime | None
    dead: bool = False
    error_code: str | None = None
    work: int | None = None


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong: what kind, with which flow and run, and why, in words without a person's name."""

    kind: str
    flow: str
    cause: str
    fingerprint: str
    run_id: int | None = None

    @property
    def runbook(self) -> str:
        """The page that says what to do."""
        return f"docs/runbooks/{self.flow}.md"


@dataclass(frozen=True)
class Alert:
    """An alarm that stands in the database under a number."""

    alert_id: int
    kind: str
    flow: str
    cause: str
    opened_at: datetime
    run_id: int | None


def find_alarms(
    runs: Sequence[RunFact],
    schedules: Sequence[Scheduled],
    *,
    now: datetime,
    watching_since: datetime,
    zone: ZoneInfo,
) -> list[Alarm]:
    """Everything that is wrong now, ordered by flow and kind; ``watching_since`` is when anybody began to look."""
    by_flow: dict[str, list[RunFact]] = {}
    for run in sorted(runs, key=lambda run: run.run_id):
        by_flow.setdefault(run.flow, []).append(run)
    alarms = [*_overdue(by_flow, schedules, now, watching_since, zone)]
    for flow, mine in by_flow.items():
        alarms += _of_running(flow, mine, now)
        alarms += _of_newest(flow, mine)
        alarms += _of_idle_day(flow, mine, now, zone)
    return sorted(alarms, key=lambda alarm: (alarm.flow, alarm.kind, alarm.fingerprint))


def _overdue(
    by_flow: Mapping[str, Sequence[RunFact]],
    schedules: Sequence[Scheduled],
    now: datetime,
    watching_since: datetime,
    zone: ZoneInfo,
) -> Iterator[Alarm]:
    for schedule in schedules:
        newest = max((run.started_at for run in by_flow.get(schedule.flow, [])), default=watching_since)
        after = max(newest + EARLY, watching_since, now - LOOK_BACK)
        due = due_times(schedule.cron, zone, after=after, until=now - GRACE)
        if not due:
            continue
        since = due[0].astimezone(zone)
        kind = "late" if len(due) == 1 else "missing"
        times = "once" if len(due) == 1 else f"{len(due)} times"
        yield Alarm(
            kind,
            schedule.flow,
            f"{schedule.flow} should have run {times} since {since:%Y-%m-%d %H:%M} and did not begin.",
            f"overdue {schedule.slug} {due[0].isoformat()}",
        )


def _of_running(flow: str, runs: Sequence[RunFact], now: datetime) -> Iterator[Alarm]:
    done = [run.ended_at - run.started_at for run in runs if run.state == "done" and run.ended_at is not None]
    usual = timedelta(seconds=median(took.total_seconds() for took in done)) if done else timedelta(0)
    limit = max(SHORTEST_LIMIT, usual * TIMES_THE_MEDIAN)
    for run in runs:
        if run.state != "running":
            continue
        if run.dead:
            cause = f"Run {run.run_id} of {flow} ended without a word: its process is gone."
            yield Alarm("crashed", flow, cause, f"crashed {run.run_id}", run.run_id)
        elif now - run.started_at > limit:
            cause = (
                f"Run {run.run_id} of {flow} has been running for {_minutes(now - run.started_at)}; such runs take"
                f" {_minutes(usual)}, and {_minutes(limit)} are allowed."
            )
            yield Alarm("too_long", flow, cause, f"too_long {run.run_id}", run.run_id)


def _minutes(length: timedelta) -> str:
    return f"{length.total_seconds() / 60:.0f} min"


def _of_newest(flow: str, runs: Sequence[RunFact]) -> Iterator[Alarm]:
    ended = [run for run in runs if run.state != "running"]
    if not ended or ended[-1].state == "done":
        return
    newest = ended[-1]
    said = {"failed": "failed", "partly_done": "did only part of its work", "abandoned": "died without a word"}
    kind = "crashed" if newest.state == "abandoned" else "failed"
    code = f" ({newest.error_code})" if newest.error_code and newest.state != "abandoned" else ""
    cause = f"The newest run of {flow}, {newest.run_id}, {said[newest.state]}{code}."
    # A run that was seen dead and one that was marked so since are one and the same trouble.
    yield Alarm(kind, flow, cause, f"{kind} {newest.run_id}", newest.run_id)


def _of_idle_day(flow: str, runs: Sequence[RunFact], now: datetime, zone: ZoneInfo) -> Iterator[Alarm]:
    """Example: Tuesday 24 November. On Monday 23rd payment_sync was green twice and read no row; on each of the four
    Mondays before it had read some. Monday's silence is told of."""
    work: dict[date, int] = {}
    for run in runs:
        if run.state == "done" and run.work is not None:
            day = run.started_at.astimezone(zone).date()
            work[day] = work.get(day, 0) + run.work
    yesterday = now.astimezone(zone).date() - timedelta(days=1)
    before = [yesterday - timedelta(weeks=weeks) for weeks in range(1, WEEKS_OF_EVIDENCE + 1)]
    if work.get(yesterday) == 0 and all(work.get(day, 0) > 0 for day in before):
        cause = (
            f"The runs of {flow} on {yesterday} were green and read no row; on each of the {WEEKS_OF_EVIDENCE} same"
            f" weekdays before they read some, at least {min(work[day] for day in before)}."
        )
        yield Alarm("idle", flow, cause, f"idle {flow} {yesterday}")


def watcher_is_silent(newest: datetime | None, up_since: datetime, now: datetime, *, most: timedelta) -> bool:
    """Whether nobody has watched for longer than allowed: the dead-man's switch of the watcher itself."""
    return now - max(newest or up_since, up_since) > most
