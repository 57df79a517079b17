"""The steps of overdue_reminders up to the outbox: open the run, plan, reserve, report, and say whether it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from configs.settings import Settings, load_settings
from tasks.artifacts import markdown_table, summary
from tasks.database import engine_for
from tasks.errors import Refused, UsageError
from tasks.ledger import Run
from tasks.reminders.brake import check_brake
from tasks.reminders.parameters import ReminderParameters
from tasks.reminders.plan import Decision
from tasks.reminders.plan_store import fetch_earlier_runs, save_plan
from tasks.reminders.planning_store import decide_day
from tasks.steps import READ_STEP, WRITE_STEP, current_actor, log_event, open_run, publish_summary, step


@dataclass(frozen=True)
class ReminderRun:
    """One run of overdue_reminders: its ledger entry, where it works, what the person said, and what day it is."""

    run: Run
    settings: Settings
    engine: Engine
    parameters: ReminderParameters
    today: date


@dataclass(frozen=True)
class Planned:
    """What a plan came to: decisions by kind and by reason, rows written by kind, and why it stopped, if it did."""

    decisions: Mapping[str, int]
    reasons: Mapping[tuple[str, str], int]
    written: Mapping[str, int]
    brake: str | None


@contextmanager
def open_reminder_run(flow_name: str, parameters: ReminderParameters) -> Iterator[ReminderRun]:
    """Hold the flow's lock and ledger entry for a ``with`` block.

    Raises:
        Locked: the flow is running already.
        UsageError: the day lies in the future.
    """
    settings = load_settings()
    today = datetime.now(ZoneInfo(settings.business_timezone)).date()
    as_of = parameters.as_of or today
    if as_of > today:
        raise UsageError(
            f"{as_of} is in the future; nobody knows yet what will be open then.", hint="Give a day up to today."
        )
    engine = engine_for(settings, purpose=f"kontor {flow_name}")
    with open_run(engine, flow_name, as_of=as_of, dry_run=parameters.dry_run, actor=current_actor()) as run:
        log_event("run_opened", flow=flow_name, run_id=run.run_id, as_of=as_of, dry_run=str(parameters.dry_run))
        yield ReminderRun(run, settings, engine, parameters, today)


@step(WRITE_STEP)
def plan_and_reserve(run: ReminderRun) -> Planned:
    """Decide about every customer and, unless it is a dry run, keep decisions and reservations in one transaction.

    Facts are read in one snapshot; what changes after it is caught at the gate, before a mail leaves. Killed before the
    commit nothing is left; killed after it, the next run of the day finds the mails planned and plans none again.
    """
    day = run.run.as_of
    decisions, rules = decide_day(run.engine, day)
    reminding = sum(decision.decision == "remind" for decision in decisions)
    with run.engine.begin() as connection:
        brake = check_brake(rules, reminding, fetch_earlier_runs(connection, rules, day))
        written = {} if run.run.dry_run else save_plan(connection, run.run.run_id, day, decisions, brake=brake)
    planned = _planned(decisions, written, brake)
    log_event("reminders_planned", run_id=run.run.run_id, as_of=day, **planned.decisions, **planned.written)
    run.run.note({**planned.decisions, **planned.written})
    return planned


def _planned(decisions: Sequence[Decision], written: Mapping[str, int], brake: str | None) -> Planned:
    kinds = Counter(decision.decision for decision in decisions)
    reasons = Counter((decision.decision, decision.reason_code) for decision in decisions)
    return Planned({kind: kinds[kind] for kind in ("remind", "nothing", "hold", "task")}, reasons, written, brake)


@step(READ_STEP)
def report_plan(run: ReminderRun, planned: Planned) -> None:
    """Publish the plan's summary: decisions by reason, and the brake where it stopped the run."""
    rows = [
        {"decision": decision, "because": code.replace("_", " "), "customers": count}
        for (decision, code), count in sorted(planned.reasons.items())
    ]
    sections = {"Decisions": markdown_table(rows)} if rows else {}
    if planned.brake:
        sections["Stopped"] = f"{planned.brake}. Every mail of this run waits for `kontor reminders approve`."
    facts = {**planned.decisions, **{name.replace("_", " "): count for name, count in planned.written.items()}}
    publish_summary("overdue-reminders-plan", summary(f"overdue_reminders as of {run.run.as_of}", facts, sections))


def conclude_plan(planned: Planned) -> None:
    """Nothing where the plan may go on.

    Raises:
        Refused: the brake stopped the run; the mails are planned and wait for a person.
    """
    if planned.brake:
        raise Refused(
            f"The brake stopped the run: {planned.brake}. The mails are planned, and none leaves without approval.",
            hint="Read them with `kontor reminders preview`, then `kontor reminders approve` or cancel them.",
        )
