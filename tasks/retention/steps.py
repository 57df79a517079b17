"""What retention_purge does, named for the flow: plan, agree, apply, let outputs expire, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from configs.settings import Settings, load_settings
from tasks.artifacts import summary
from tasks.database import RETENTION, engine_for
from tasks.erasures.keys import key_of
from tasks.erasures.ledger_file import ledger_of
from tasks.erasures.store import void_what_came_to_nothing
from tasks.errors import Locked, PartlyDone, Refused
from tasks.history.store import seal_history
from tasks.ledger import Run
from tasks.retention.batches_store import Purge
from tasks.retention.months_store import prepare_months
from tasks.retention.outputs import is_output
from tasks.retention.outputs_store import apply_output
from tasks.retention.parameters import PurgeParameters
from tasks.retention.plan_store import (
    Rules,
    approve_plan,
    checked_rules,
    count_due,
    count_left,
    mark_plan,
    newest_plan_id,
    plan_items,
    read_plan,
    save_plan,
    selection_of,
)
from tasks.retention.planning import Item, Plan, check_applicable, check_drift
from tasks.retention.purge_store import apply_item
from tasks.steps import (
    READ_STEP,
    WRITE_STEP,
    Progress,
    current_actor,
    log_event,
    open_run,
    progress_listener,
    publish_counts,
    publish_summary,
    step,
)


@dataclass(frozen=True)
class PurgeRun:
    """One run of retention_purge: its ledger entry, the engine of the role that erases, and what the person said."""

    run: Run
    settings: Settings
    engine: Engine
    parameters: PurgeParameters
    today: date
    now: datetime
    actor: str


@contextmanager
def open_purge(flow_name: str, parameters: PurgeParameters) -> Iterator[PurgeRun]:
    """Hold the flow's lock and ledger entry for a ``with`` block, and seal history after it.

    Raises:
        Locked: another purge is under way.
    """
    settings, actor = load_settings(), current_actor()
    today = datetime.now(ZoneInfo(settings.business_timezone)).date()
    flows = engine_for(settings, purpose=f"kontor {flow_name}")
    as_of = parameters.as_of or today
    with open_run(flows, flow_name, as_of=as_of, dry_run=parameters.dry_run, actor=actor) as run:
        log_event("run_opened", flow=flow_name, run_id=run.run_id, as_of=as_of, dry_run=str(parameters.dry_run))
        engine = engine_for(settings, RETENTION, purpose=f"kontor {flow_name}")
        _prepare_months(flows, today)
        yield PurgeRun(run, settings, engine, parameters, today, datetime.now(UTC), actor)
        if not parameters.dry_run:
            _seal(flows, actor)


def _prepare_months(engine: Engine, today: date) -> None:
    try:
        with engine.begin() as connection:
            made = prepare_months(connection, today)
    except OperationalError:
        log_event("months_not_made")  # somebody works on the table; the next run tries again
        return
    if made:
        log_event("months_made", months=made)


def _seal(engine: Engine, actor: str) -> None:
    try:
        with engine.begin() as connection:
            seal_history(connection, now=datetime.now(UTC), actor=actor)
    except Locked:
        log_event("history_not_sealed")


@step(READ_STEP)
def read_rules(run: PurgeRun, as_of: date) -> Rules:
    """The rules in force today, checked, for what is due on ``as_of``; Refused where something is wrong with them."""
    with run.engine.connect() as connection:
        return checked_rules(connection, as_of=as_of, on=run.today, settings=run.settings)


@step(WRITE_STEP)
def make_plan(run: PurgeRun) -> Plan:
    """Count what every rule lets go of and keep that as a plan; nothing is destroyed."""
    rules = read_rules.fn(run, run.run.as_of)
    with run.engine.begin() as connection:
        items = plan_items(connection, rules)
        plan_id = save_plan(connection, rules, items, run_id=run.run.run_id, made_by=run.actor, now=run.now)
        plan = read_plan(connection, plan_id)
    log_event(
        "plan_made", run_id=run.run.run_id, plan_id=plan_id, due=plan.due, needs_approval=str(plan.needs_approval)
    )
    return plan


@step(READ_STEP)
def take_plan(run: PurgeRun) -> Plan:
    """The plan to carry out: approved where it must be, made under the rules in force, and still true.

    Raises:
        Refused: it is none of these; nothing was changed.
    """
    with run.engine.begin() as connection:
        plan_id = run.parameters.plan_id or newest_plan_id(connection)
        plan = read_plan(connection, plan_id)
        if run.parameters.approved_by and plan.approved_by is None:
            plan = approve_plan(connection, plan_id, by=run.parameters.approved_by, now=run.now)
    if plan.as_of > run.today:
        raise Refused(
            f"Plan {plan_id} is for {plan.as_of}, which lies ahead. Nothing was changed.",
            hint="Such a plan only shows what will be due; make one for today.",
        )
    rules = read_rules.fn(run, plan.as_of)
    check_applicable(plan, policies_sha256=rules.digest, now=run.now)
    with run.engine.connect() as connection:
        check_drift(plan, [(item, count_due(connection, rules, item)) for item in plan.items if item.done == 0])
    return plan


@step(WRITE_STEP)
def begin_plan(run: PurgeRun, plan: Plan) -> int:
    """Mark the plan as being applied and void ledger lines of a process that died; returns how many lines."""
    ledger = ledger_of(run.settings.home)
    with run.engine.begin() as connection:
        mark_plan(connection, plan.plan_id, "applying")
        voided = void_what_came_to_nothing(connection, ledger, run.now)
    if voided:
        log_event("ledger_lines_voided", run_id=run.run.run_id, lines=voided)
    return voided


@step(WRITE_STEP)
def apply_one(run: PurgeRun, plan: Plan, item: Item) -> int:
    """Carry one item of the plan out, in many short transactions; a second try goes on where it was."""
    rules = read_rules.fn(run, plan.as_of)
    if is_output(item.entity):
        gone = apply_output(run.engine, run.settings, plan.plan_id, item, run.now)
        log_event("output_expired", run_id=run.run.run_id, rule=item.rule_id, outputs=gone)
        return gone
    ledger = ledger_of(run.settings.home)
    with run.engine.connect() as connection:
        selection = selection_of(connection, rules, item.rule_id, item.horizon)
        item = next(i for i in read_plan(connection, plan.plan_id).items if i.position == item.position)
    key = key_of(run.settings.home)
    purge = Purge(run.engine, plan.plan_id, run.run.run_id, run.actor, ledger, key, run.now)
    gone = apply_item(purge, item, selection)
    log_event("rule_applied", run_id=run.run.run_id, rule=item.rule_id, rows=gone)
    return gone


def apply_plan(run: PurgeRun, plan: Plan) -> dict[str, int]:
    """Carry out all items in their order, children first; returns the rows that went by rule."""
    begin_plan(run, plan)
    gone: dict[str, int] = {}
    items = [item for item in plan.items if item.due]
    with Progress("retention-purge", len(items), "Rules applied", on_change=progress_listener.get()) as progress:
        for item in items:
            gone[item.rule_id] = apply_one(run, plan, item)
            progress.advance()
    return gone


@step(WRITE_STEP)
def end_plan(run: PurgeRun, plan: Plan) -> Plan:
    """Mark the plan as applied and return it as it is now."""
    with run.engine.begin() as connection:
        mark_plan(connection, plan.plan_id, "applied", datetime.now(UTC))
        return read_plan(connection, plan.plan_id)


@step(READ_STEP)
def report_plan(run: PurgeRun, plan: Plan) -> dict[str, int]:
    """Publish the plan by rule and note its sums in the run ledger; returns the sums."""
    rows = [
        {
            "rule": item.rule_id,
            "table": item.entity,
            "action": item.action,
            "clocks_through": item.horizon,
            "stored": item.stored,
            "due": item.due,
            "held": item.held,
            "gone": item.done,
        }
        for item in plan.items
    ]
    publish_counts("retention-purge-plan", f"Plan {plan.plan_id} as of {plan.as_of}, by rule", rows)
    totals = {
        "plan": plan.plan_id,
        "due": plan.due,
        "held": sum(item.held for item in plan.items),
        "gone": sum(item.done for item in plan.items),
    }
    publish_summary("retention-purge-summary", summary(f"retention_purge, plan {plan.plan_id}", totals))
    run.run.note(totals)
    return totals


@step(READ_STEP)
def find_leftovers(run: PurgeRun, plan: Plan) -> dict[str, int]:
    """The rows by rule that were planned and are still there, though nothing holds or needs them."""
    rules = read_rules.fn(run, plan.as_of)
    short = [item for item in plan.items if item.done < item.due]
    with run.engine.connect() as connection:
        counts = {item.rule_id: count_left(connection, rules, item) for item in short}
    return {rule_id: count for rule_id, count in counts.items() if count}


def conclude(plan: Plan, left: Mapping[str, int]) -> None:
    """End the flow partly done where rows stayed that the plan lets go of.

    Raises:
        PartlyDone: somebody kept them locked all the while.
    """
    if left:
        told = "".join(f"\n  - {rule_id}: {count} rows" for rule_id, count in left.items())
        raise PartlyDone(
            f"Some rows of plan {plan.plan_id} stayed, because they were locked by others.{told}",
            hint="Nothing is lost by waiting: the next plan has what is still due.",
        )
