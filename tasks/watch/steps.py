"""The steps of run_watch: look, close what is dead, keep what is wrong, tell who must know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort, LogSort
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelling, Crashed
from sqlalchemy import Engine

from configs.settings import PROJECT_ROOT, Settings, load_settings
from tasks.artifacts import markdown_table, summary
from tasks.database import engine_for
from tasks.errors import KontorError
from tasks.ledger import Run
from tasks.letters import Letter
from tasks.mailer import own_people, send_report
from tasks.steps import READ_STEP, SEND_STEP, WRITE_STEP, current_actor, log_event, open_run, publish_summary, step
from tasks.watch.judging import Alarm, Alert, find_alarms
from tasks.watch.letters import alert_letter
from tasks.watch.parameters import WatchParameters
from tasks.watch.schedules import read_schedules, time_limits
from tasks.watch.store import (
    close_dead_runs,
    ended_runs,
    fetch_runs,
    keep_alarms,
    orphaned_backfill,
    reserve_untold,
    reserve_untold_ends,
    unproven_backups,
    watching_since,
)

DEPLOYMENTS = PROJECT_ROOT / "configs" / "prefect.yaml"
_EXCERPT_LINES = 12
_MOST_RUNS = 200
_LAST_WORDS = timedelta(minutes=2)
_LONGEST_START = timedelta(minutes=15)  # a container's image may have to be fetched first
_LONGEST_START_OF_PROCESS = timedelta(minutes=5)
_PROCESSES = "kontor"  # the pool whose runs are processes; the others carry the kind in their names
_ENDED = "Its process is gone; Kontor's run ledger has how it ended."
_NEVER_BEGAN = "The worker that took it is gone; it never began."
_SAFE_TO_RESTART = ("customer_import", "payment_sync", "catalog_upsert", "data_quality")


@dataclass(frozen=True)
class WatchRun:
    """One look: its ledger entry, where it works, and the time that counts as now."""

    run: Run
    settings: Settings
    engine: Engine
    parameters: WatchParameters
    now: datetime


@contextmanager
def open_watch(parameters: WatchParameters) -> Iterator[WatchRun]:
    """Hold the watcher's lock and its ledger entry for a ``with`` block."""
    settings, now = load_settings(), datetime.now(UTC)
    engine = engine_for(settings, purpose="kontor run_watch")
    today = now.astimezone(ZoneInfo(settings.business_timezone)).date()
    with open_run(engine, "run_watch", as_of=today, dry_run=parameters.dry_run, actor=current_actor()) as run:
        yield WatchRun(run, settings, engine, parameters, now)


@step(READ_STEP)
def look_at_runs(run: WatchRun) -> list[Alarm]:
    """What is wrong with the runs now, by ledger and schedules."""
    schedules = read_schedules(DEPLOYMENTS.read_text("utf-8"))
    zone = ZoneInfo(run.settings.business_timezone)
    with run.engine.connect() as connection:
        runs, since = fetch_runs(connection, run.now), watching_since(connection, run.now)
        unproven = unproven_backups(connection)
    alarms = [*find_alarms(runs, schedules, now=run.now, watching_since=since, zone=zone), *unproven]
    log_event("runs_looked_at", run_id=run.run.run_id, runs=len(runs), alarms=len(alarms))
    return alarms


@step(WRITE_STEP)
def keep_alerts(run: WatchRun, alarms: Sequence[Alarm]) -> dict[str, int]:
    """Keep the alarms as alerts and mark dead runs as such, in one transaction; returns the counts."""
    if run.parameters.dry_run:
        return {"alarms": len(alarms)}
    with run.engine.begin() as connection:
        counts = keep_alarms(connection, alarms, run.now)
        dead = close_dead_runs(connection)
    for run_id, flow, _ in dead:
        log_event("dead_run_closed", run_id=run.run.run_id, dead_run_id=run_id, flow=flow)
    run.run.note({**counts, "dead_runs_closed": len(dead)})
    return counts | {"dead_runs_closed": len(dead)}


@step(WRITE_STEP)
def close_zombies(run: WatchRun) -> int:
    """Give Prefect's runs a true state that wait for a process which is gone; returns how many.

    Running, though our ledger knows their end: the process died, or could not tell Prefect. Pending for long: the
    worker that took them died before it started anything; such a run would hold its deployment's only place for ever.
    """
    if run.parameters.dry_run:
        return 0
    with get_client(sync_client=True) as client:
        running, pending = (_runs_in(client, kind) for kind in (StateType.RUNNING, StateType.PENDING))
        with run.engine.connect() as connection:
            ended = ended_runs(connection, [str(item.id) for item in running])
        zombies = [
            # A flow closes its ledger row a moment before it ends in Prefect.
            *((z, _ENDED) for z in running if str(z.id) in ended and _for_long(run, z.start_time, _LAST_WORDS)),
            *((z, _NEVER_BEGAN) for z in pending if z.state and _for_long(run, z.state.timestamp, longest_start(z))),
        ]
        for zombie, message in zombies:
            client.set_flow_run_state(zombie.id, Crashed(message=message), force=True)
            log_event("zombie_closed", run_id=run.run.run_id, prefect_run_id=zombie.id)
    return len(zombies)


@step(WRITE_STEP)
def end_overlong(run: WatchRun) -> int:
    """Ask Prefect to end the runs that last longer than their deployment's tag allows; returns how many.

    Its worker kills the process, which every flow is made for: what was committed stands, the next run goes on.
    """
    if run.parameters.dry_run:
        return 0
    ended = 0
    with get_client(sync_client=True) as client:
        for flow, limit in time_limits(DEPLOYMENTS.read_text("utf-8")).items():
            for found in _runs_in(client, StateType.RUNNING, flow):
                if flow != run.run.flow and _for_long(run, found.start_time, limit):
                    told = f"It lasted longer than the {limit.total_seconds() / 3600:g} h that are allowed."
                    client.set_flow_run_state(found.id, Cancelling(message=told), force=True)
                    log_event("overlong_run_ended", run_id=run.run.run_id, prefect_run_id=found.id, flow=flow)
                    ended += 1
    return ended


def _runs_in(client: SyncPrefectClient, state: StateType, flow: str | None = None) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_filter=None if flow is None else FlowFilter(name=FlowFilterName(any_=[flow])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state]))),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=_MOST_RUNS,
        offset=0,
    )


def longest_start(taken: FlowRun) -> timedelta:
    """How long a run that a worker has taken may need until it begins, by the kind of its pool."""
    return _LONGEST_START_OF_PROCESS if taken.work_pool_name == _PROCESSES else _LONGEST_START


def _for_long(run: WatchRun, since: datetime | None, least: timedelta) -> bool:
    return since is not None and run.now - since > least


@step(WRITE_STEP)
def restart_dead(run: WatchRun, alarms: Sequence[Alarm]) -> list[str]:
    """Ask for another run of each flow whose newest run died, where running again is harmless; returns the flows.

    A backfill is gone on with by its number: what its windows have done stands in the database. A run that somebody
    cancelled in Prefect's pages, or that had lasted too long, is not started again.
    """
    crashed = [alarm for alarm in alarms if alarm.kind == "crashed"]
    dead = {alarm.flow: alarm.fingerprint for alarm in crashed if not _was_cancelled(run, alarm.run_id)}
    if run.parameters.dry_run or not run.parameters.restart or not dead:
        return []
    wanted: dict[str, dict[str, object]] = {flow: {} for flow in _SAFE_TO_RESTART if flow in dead}
    with run.engine.connect() as connection:
        orphan = orphaned_backfill(connection) if "backfill" in dead else None
    if orphan is not None:
        wanted["backfill"] = {"parameters": {"backfill_id": orphan, "live": True}}
    started = []
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=list(wanted))),
            sort=DeploymentSort.NAME_ASC,
            limit=_MOST_RUNS,
            offset=0,
        ):
            # One new run per dead one, however often the watcher looks.
            key = f"restart {dead[deployment.name]}"
            client.create_flow_run_from_deployment(
                deployment.id, parameters=wanted[deployment.name], idempotency_key=key, tags=["restart"]
            )
            started.append(deployment.name)
            log_event("restarted", run_id=run.run.run_id, flow=deployment.name)
    return started


def _was_cancelled(run: WatchRun, run_id: int | None) -> bool:
    """Whether the run ended because Prefect was asked to end it."""
    prefect_id = _prefect_run_of(run, run_id)
    if prefect_id is None:
        return False
    with get_client(sync_client=True) as client:
        try:
            found = client.read_flow_run(prefect_id)
        except ObjectNotFound:
            return False
    return found.state_type in (StateType.CANCELLED, StateType.CANCELLING)


def _prefect_run_of(run: WatchRun, run_id: int | None) -> UUID | None:
    with run.engine.connect() as connection:
        found: UUID | None = connection.exec_driver_sql(
            "select prefect_run_id from ops.run_ledger where run_id = %s", (run_id,)
        ).scalar()
    return found


@step(SEND_STEP)
def tell_engineers(run: WatchRun) -> dict[str, int]:
    """Write one mail per new alert and one per alert that is over; returns how many of each.

    An alert is marked as told before its mail leaves: one that is lost on the way stands in ``kontor status`` still.
    """
    to = own_people(run.settings, "engineers")
    if run.parameters.dry_run or not to:
        return {"told": 0, "told_over": 0}
    with run.engine.begin() as connection:
        new, over = reserve_untold(connection, run.now), reserve_untold_ends(connection, run.now)
    sender = run.settings.mail_from or to[0].email
    for alert in new:
        excerpt = _log_excerpt(run, alert)
        _send(run, alert_letter(alert, sender=sender, to=to, now=run.now, excerpt=excerpt), alert)
    for alert in over:
        _send(run, alert_letter(alert, sender=sender, to=to, now=run.now, over=True), alert)
    run.run.note({"mails": len(new) + len(over)})
    return {"told": len(new), "told_over": len(over)}


def _send(run: WatchRun, letter: Letter, alert: Alert) -> None:
    try:
        outcome: str = send_report(run.settings, letter).outcome
    except KontorError as error:
        outcome = type(error).__name__  # the others must still be told
    log_event("alert_told", run_id=run.run.run_id, alert_id=alert.alert_id, outcome=outcome)


def _log_excerpt(run: WatchRun, alert: Alert) -> str:
    """The last lines that Prefect keeps of the run's log; they carry no personal data by the way they are made."""
    prefect_id = _prefect_run_of(run, alert.run_id)
    if prefect_id is None:
        return ""
    try:
        with get_client(sync_client=True) as client:
            logs = client.read_logs(
                LogFilter(flow_run_id=LogFilterFlowRunId(any_=[prefect_id])),
                sort=LogSort.TIMESTAMP_DESC,
                limit=_EXCERPT_LINES,
                offset=0,
            )
    except (httpx.HTTPError, PrefectException):
        return ""
    return "\n".join(f"{line.timestamp:%H:%M:%S} {line.message.splitlines()[0]}" for line in reversed(logs))


@step(READ_STEP)
def report_watch(run: WatchRun, alarms: Sequence[Alarm], counts: dict[str, int]) -> dict[str, int]:
    """Publish what is wrong as a page and return the counts."""
    run.run.note({"alarms": len(alarms)})
    rows = [{"flow": alarm.flow, "kind": alarm.kind, "cause": alarm.cause} for alarm in alarms]
    sections = {"Wrong now": markdown_table(rows)} if rows else {}
    publish_summary("run-watch-summary", summary("Are the runs running?", dict(counts), sections))
    return counts
