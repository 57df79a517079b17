"""The steps of overdue_reminders up to the outbox: open the run, plan, reserve, report, and say whether it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from configs.settings import Settings, load_settings
from tasks.artifacts import markdown_table, summary
from tasks.database import engine_for
from tasks.errors import Refused, UsageError
from tasks.ledger import Run
from tasks.reminders.day_state_store import DayState, fetch_state, fetch_unchanged, is_untold, keep_state, note_told
from tasks.reminders.drafts import DraftPlan
from tasks.reminders.parameters import ReminderParameters
from tasks.reminders.plan_store import COUNTS, save_plan, why_braked
from tasks.reminders.planning_store import draft_day
from tasks.reminders.rules_store import fetch_rulebook
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
    commit nothing is left; killed after it, the next run of the day finds the mails planned and plans none again. Where
    nothing has changed since the day was planned, what was decided stands and is not decided again.
    """
    with run.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        state = fetch_state(connection, run.run.as_of)
        standing = fetch_unchanged(connection, run.run.as_of, state)
        draft = draft_day(connection, run.run.as_of, run.settings) if standing is None else DraftPlan(reasons=standing)
    brake, written = _keep(run, draft, state) if standing is None else (None, dict.fromkeys(COUNTS, 0))
    planned = _planned(draft.reasons, {} if run.run.dry_run else written, brake)
    log_event(
        "reminders_planned",
        run_id=run.run.run_id,
        as_of=run.run.as_of,
        facts="changed" if standing is None else "unchanged",
        **planned.decisions,
        **planned.written,
    )
    run.run.note({**planned.decisions, **planned.written})
    return planned


def _keep(run: ReminderRun, draft: DraftPlan, state: DayState) -> tuple[str | None, dict[str, int]]:
    """Why the brake stops this run, if it does, and what was written; nothing is in a dry run."""
    run_id, day = run.run.run_id, run.run.as_of
    reminding = sum(count for (kind, _), count in draft.reasons.items() if kind == "remind")
    with run.engine.begin() as connection:
        rules = fetch_rulebook(connection, day)
        brake = why_braked(connection, rules, reminding, day)
        if run.run.dry_run:
            return brake, {}
        written = save_plan(connection, run_id, day, draft, brake=brake)
        keep_state(connection, run_id, day, state, draft.reasons)
    return brake, written


def _planned(reasons: Mapping[tuple[str, str], int], written: Mapping[str, int], brake: str | None) -> Planned:
    kinds = dict.fromkeys(("remind", "nothing", "hold", "task"), 0)
    for (kind, _), count in reasons.items():
        kinds[kind] += count
    return Planned(kinds, reasons, written, brake)


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


@step(READ_STEP)
def is_finance_to_read(run: ReminderRun) -> bool:
    """Whether mails of the day wait that finance has had no list of: of this run, or of one that died before it."""
    if run.run.dry_run:
        return False
    with run.engine.connect() as connection:
        return is_untold(connection, run.run.as_of)


@step(WRITE_STEP)
def note_finance_told(run: ReminderRun, outcome: str) -> None:
    """Keep that the list left; where the mail server did not take it the day's next run sends it again."""
    if outcome not in ("refused", "deferred"):
        with run.engine.begin() as connection:
            note_told(connection, run.run.as_of, datetime.now(UTC))


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
