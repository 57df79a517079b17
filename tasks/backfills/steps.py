"""The steps of a backfill: plan, keep, run window by window, close. What is done stands in the database alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from pydantic import BaseModel
from sqlalchemy import Engine

from configs.settings import Settings, load_settings
from tasks.artifacts import counts_rows, markdown_table, summary
from tasks.backfills.inputs import files_of
from tasks.backfills.parameters import BackfillInstruction, BackfillParameters
from tasks.backfills.planning import WILL_NOT, Plan, inputs_of, make_plan
from tasks.backfills.store import (
    UNFINISHED,
    Backfill,
    Request,
    begin_window,
    cancel_backfill_of,
    change_state,
    close_backfill,
    create_backfill,
    end_window,
    fetch_backfill,
    fetch_figures,
    release_dead_windows,
    state_of,
    waiting_windows,
)
from tasks.backfills.windows import Input, Window
from tasks.database import RETENTION, engine_for
from tasks.erasures.keys import key_of
from tasks.erasures.ledger_file import ledger_of
from tasks.erasures.replay_store import replay
from tasks.errors import KontorError, Locked, PartlyDone, UsageError
from tasks.feeds.read_ahead import reading_ahead
from tasks.instructions import fetch_instruction, keep_instruction
from tasks.ledger import Run, working_for_backfill
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
    steps_called_directly,
)

# What runs a window of a flow: the window, its files, and whether it is to be a run of its own; returns its counts.
RunWindow = Callable[["BackfillRun", Window, Sequence[Input], bool], Mapping[str, int]]

_LOCK_ATTEMPTS, _LOCK_PAUSE_SECONDS = 60, 5.0
_TROUBLE_PAUSES_SECONDS = (1.0, 4.0, 15.0)


@dataclass(frozen=True)
class BackfillRun:
    """One driver: its ledger entry, where it works, and what the person said."""

    run: Run
    settings: Settings
    engine: Engine
    parameters: BackfillParameters
    said: BackfillInstruction

    def instruct(self, flow: str, said: BaseModel) -> UUID:
        """Keep what a window's run is told, and return the id that its parameters carry."""
        with self.engine.begin() as connection:
            return keep_instruction(connection, flow, said, actor=current_actor(), now=datetime.now(UTC))


@contextmanager
def open_backfill(parameters: BackfillParameters) -> Iterator[BackfillRun]:
    """Hold the one driver's lock and its ledger entry for a ``with`` block; Locked where another is at work."""
    settings = load_settings()
    today = datetime.now(ZoneInfo(settings.business_timezone)).date()
    engine = engine_for(settings, purpose="kontor backfill")
    with engine.connect() as connection:
        said = fetch_instruction(connection, "backfill", parameters.instruction, BackfillInstruction)
    if parameters.live and parameters.backfill_id is None and not (parameters.because or said.reason.strip()):
        raise UsageError("A backfill that changes something takes a reason.", hint="Add --reason 'why'.")
    with open_run(engine, "backfill", as_of=today, dry_run=not parameters.live, actor=current_actor()) as run:
        log_event("backfill_opened", run_id=run.run_id, live=str(parameters.live))
        yield BackfillRun(run, settings, engine, parameters, said)


def request_of(parameters: BackfillParameters, said: BackfillInstruction) -> Request:
    """The request that the parameters of a new backfill make."""
    if parameters.from_day is None or parameters.to_day is None:
        raise ValueError("a new backfill takes from_day and to_day")  # the model has refused it before
    return Request(
        parameters.flow,
        parameters.from_day,
        parameters.to_day,
        parameters.every,
        parameters.reprocess,
        said.reason.strip() or parameters.because,
        current_actor(),
        tuple(sorted(set(parameters.excluded_days))),
        parameters.newest_first,
        said.source_folder,
        parameters.concurrency,
        parameters.runs_apart,
    )


@step(READ_STEP)
def plan_backfill(run: BackfillRun) -> Plan:
    """The plan of the request, published as a table of its windows."""
    with run.engine.connect() as connection:
        plan = make_plan(connection, run.settings, request_of(run.parameters, run.said), today=run.run.as_of)
    publish_counts("backfill-plan", f"Windows of a backfill of {plan.request.flow}", plan.rows())
    run.run.note(plan.counts())
    return plan


@step(WRITE_STEP)
def keep_request(run: BackfillRun, plan: Plan) -> int:
    """Keep the request with its windows and the figures before it; returns its number."""
    with run.engine.begin() as connection:
        number = create_backfill(connection, plan.request, plan.windows, fetch_figures(connection))
    log_event("backfill_kept", run_id=run.run.run_id, backfill_id=number, windows=len(plan.windows))
    return number


@step(WRITE_STEP)
def take_up(run: BackfillRun, backfill_id: int) -> Backfill:
    """Set a waiting, paused or orphaned backfill to running; windows of a dead driver wait again."""
    with run.engine.begin() as connection:
        change_state(connection, backfill_id, "running", UNFINISHED)
        freed = release_dead_windows(connection, backfill_id)
        backfill = fetch_backfill(connection, backfill_id)
    log_event("backfill_taken_up", run_id=run.run.run_id, backfill_id=backfill_id, windows_of_dead_driver=freed)
    return backfill


def run_windows(run: BackfillRun, backfill: Backfill, work: RunWindow) -> None:
    """Run the waiting windows one after another until none is left or a person pauses or cancels the backfill.

    A window that fails is recorded and the next one is run: order does not matter. Between two windows the flow's
    lock is free, so that a scheduled run gets its turn. While one is applied the files of the following ones are read,
    as many windows as the request's ``concurrency`` less one; with 1 none are.
    """
    with run.engine.connect() as connection:
        windows = waiting_windows(connection, backfill)
        inputs = inputs_of(connection, run.settings, backfill.request).inputs
    request, excluded = backfill.request, set(backfill.request.excluded_days)
    held = [[i for i in inputs if window.holds(i.as_of) and i.as_of not in excluded] for window in windows]
    bar = Progress("backfill-windows", len(windows), "Windows run", on_change=progress_listener.get())
    with bar as progress, reading_ahead(max(request.concurrency - 1, 1)) as ahead:
        for place, window in enumerate(windows):
            if not _may_go_on(run, backfill):
                log_event("backfill_stopped_by_a_person", run_id=run.run.run_id, backfill_id=backfill.backfill_id)
                return
            for following in held[place + 1 : place + request.concurrency]:
                ahead.begin(files_of(run.settings.home, following))
            run_window(run, backfill, window, held[place], work)
            progress.advance()


def _may_go_on(run: BackfillRun, backfill: Backfill) -> bool:
    with run.engine.connect() as connection:
        return state_of(connection, backfill.backfill_id) == "running"


@step({"retries": 0})
def run_window(run: BackfillRun, backfill: Backfill, window: Window, inputs: Sequence[Input], work: RunWindow) -> str:
    """Run one window and record how it ended; returns done or failed.

    The record that it began is committed before its work, the record of its end after it. A kill in between makes
    the next driver run it again: files that are in are known by their content, so nothing changes a second time.
    """
    number = backfill.backfill_id
    with run.engine.begin() as connection:
        begin_window(connection, number, window.number, run.run.run_id)
    counts: Mapping[str, int] = {}
    error: KontorError | None = None
    try:
        with working_for_backfill(number):
            apart = backfill.request.runs_apart
            counts = _with_patience(lambda: work(run, window, inputs, apart), apart=apart)
    except KontorError as raised:
        if raised.transient:
            raise  # the database is away: there is nothing to record in, and the next driver goes on here
        error = raised
    state = "failed" if error is not None else "done"
    kind = type(error).__name__ if error is not None else None
    with run.engine.begin() as connection:
        end_window(connection, number, window.number, state=state, counts=counts, error=kind)
    log_event("window_ended", run_id=run.run.run_id, backfill_id=number, window=window.number, state=state, error=kind)
    return state


def _with_patience(work: Callable[[], Mapping[str, int]], *, apart: bool) -> Mapping[str, int]:
    """Do a window's work, its steps called directly: the window is what is seen and tried again, as a whole.

    ``apart``: the window is a run of its own within the driver's, and so are its steps.

    Where a scheduled run of the same flow holds the lock it is waited for, five minutes at most. A passing trouble,
    such as a database that restarts, is tried again three times; what a file did before stands and is known then.
    """
    pauses = iter(_TROUBLE_PAUSES_SECONDS)
    for _ in range(_LOCK_ATTEMPTS):
        try:
            with nullcontext() if apart else steps_called_directly():
                return work()
        except Locked:
            time.sleep(_LOCK_PAUSE_SECONDS)
        except KontorError as error:
            pause = next(pauses, None) if error.transient else None
            if pause is None:
                raise
            time.sleep(pause)
    with nullcontext() if apart else steps_called_directly():
        return work()


@step(WRITE_STEP)
def apply_erasures_again(run: BackfillRun) -> dict[str, int]:
    """Apply the erasure ledger once more, as the role that alone may erase; returns the counts of what it changed.

    Whoever was erased and came back with an old file goes again before the backfill ends. Twice changes nothing more.
    """
    ledger = ledger_of(run.settings.home)
    if not any(True for _ in ledger.read()):
        return {}
    counts = replay(engine_for(run.settings, RETENTION, purpose="kontor backfill"), ledger, key_of(run.settings.home))
    log_event("erasures_applied_again", run_id=run.run.run_id, **counts)
    return counts


@step(WRITE_STEP)
def close_request(run: BackfillRun, backfill: Backfill) -> str:
    """Record the figures after it and the state it ends in: done, failed, or as a person left it."""
    with run.engine.begin() as connection:
        state = close_backfill(connection, backfill.backfill_id, fetch_figures(connection))
    log_event("backfill_closed", run_id=run.run.run_id, backfill_id=backfill.backfill_id, state=state)
    return state


@step(READ_STEP)
def report_backfill(run: BackfillRun, backfill: Backfill, state: str) -> dict[str, int]:
    """Publish the closing report, windows by state and figures before and after, and return the counts."""
    with run.engine.connect() as connection:
        row = connection.exec_driver_sql(
            "select windows, done, failed, left_to_do, figures_before, figures_after"
            " from report.backfills where backfill_id = %s",
            (backfill.backfill_id,),
        ).one()
    counts = {"windows": row.windows, "done": row.done, "failed": row.failed, "left_to_do": row.left_to_do}
    names = sorted({*row.figures_before, *(row.figures_after or {})})
    figures: list[Mapping[str, object]] = [
        {"figure": name, "before": row.figures_before.get(name, "–"), "after": (row.figures_after or {}).get(name, "–")}
        for name in names
    ]
    facts = {"backfill": backfill.backfill_id, "state": state, **counts}
    sections = {
        "Figures before and after": markdown_table(figures),
        "It did not": "\n".join(f"- {w}" for w in WILL_NOT),
    }
    publish_summary("backfill-summary", summary(f"Backfill of {backfill.request.flow}", facts, sections))
    publish_counts("backfill-counts", "Windows by state", counts_rows(counts))
    run.run.note(counts)
    return counts


def cancelled_in_prefect(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """What Prefect's worker does once it has ended a driver that somebody cancelled in its pages: our tables follow.

    Prefect passes all three by their names.
    """
    del flow, state
    with engine_for(load_settings(), purpose="kontor backfill").begin() as connection:
        cancel_backfill_of(connection, flow_run.id)


def conclude_backfill(backfill: Backfill, counts: Mapping[str, int]) -> None:
    """End the flow failed, not green, where a window failed; PartlyDone names how many."""
    if counts["failed"]:
        raise PartlyDone(
            f"Backfill {backfill.backfill_id}: {counts['done']} of {counts['windows']} windows are done,"
            f" {counts['failed']} failed.",
            hint=f"See why with `kontor backfill status {backfill.backfill_id}`; then"
            f" `kontor backfill resume {backfill.backfill_id} --failed --live`.",
        )
