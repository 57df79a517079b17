"""Run a past period again, window by window, safely.

Does:            plans a period's windows, runs the flow asked for in each of them, and reports what moved.
Reads:           the archive, the inbox and the folder named; what earlier backfills and imports did.
Writes:          what the flow writes; ops.backfills and ops.backfill_windows, which say what is done.
Outside effects: none; no mail leaves, whatever the flow does on an ordinary day.
A second run:    of the same request changes nothing; a run killed at any point is gone on with by `backfill resume`.
Runbook:         docs/runbooks/backfill.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import groupby

from prefect import Flow

from flows.catalog_upsert import catalog_upsert
from flows.customer_import import customer_import
from flows.finance_report import finance_report
from flows.overdue_reminders import overdue_reminders
from flows.payment_sync import payment_sync
from tasks.backfills.inputs import contract_reference
from tasks.backfills.parameters import BackfillParameters
from tasks.backfills.steps import (
    BackfillRun,
    RunWindow,
    apply_erasures_again,
    cancelled_in_prefect,
    close_request,
    conclude_backfill,
    keep_request,
    open_backfill,
    plan_backfill,
    report_backfill,
    run_windows,
    take_up,
)
from tasks.backfills.windows import Input, Window
from tasks.feeds.parameters import FeedInstruction, FeedParameters
from tasks.reminders.parameters import ReminderParameters
from tasks.reports.parameters import FinanceParameters
from tasks.steps import business_flow


def _by_files(flow: Flow[[FeedParameters], dict[str, int]]) -> RunWindow:
    """Runs a feed's flow on a window's files, one contract after another."""

    def run(driver: BackfillRun, _window: Window, inputs: Sequence[Input], apart: bool) -> Mapping[str, int]:
        totals: dict[str, int] = {}
        body = flow if apart else flow.fn
        for contract, files in groupby(sorted(inputs, key=lambda i: (i.contract, i.as_of)), key=lambda i: i.contract):
            named = contract_reference(driver.settings.home, contract)
            said = FeedInstruction(files=tuple(file.path for file in files), contract=named)
            counts = body(FeedParameters(instruction=driver.instruct(flow.name, said)))
            totals = {name: totals.get(name, 0) + counts.get(name, 0) for name in {*totals, *counts}}
        return totals

    return run


def _by_day(run_day: Callable[[date, bool], Mapping[str, int]]) -> RunWindow:
    """Runs a flow that reads no files once for a window, as of its last day."""
    return lambda _driver, window, _inputs, apart: run_day(window.to_on, apart)


def _plan_reminders(day: date, apart: bool) -> Mapping[str, int]:
    """What would have been decided as of a past day; never anything but a dry run, so that no mail can leave."""
    body = overdue_reminders if apart else overdue_reminders.fn
    return body(ReminderParameters(as_of=day, dry_run=True))


def _write_report(day: date, apart: bool) -> Mapping[str, int]:
    """Finance's report of a past day as files; never a mail."""
    return (finance_report if apart else finance_report.fn)(FinanceParameters(as_of=day, dry_run=True))


# The flows that can be run again by period. Each is called as the function that it is inside the driver's run, or as a
# run of its own within it where the request says so.
WINDOW_FLOWS: Mapping[str, RunWindow] = {
    "customer_import": _by_files(customer_import),
    "payment_sync": _by_files(payment_sync),
    "catalog_upsert": _by_files(catalog_upsert),
    "overdue_reminders": _by_day(_plan_reminders),
    "finance_report": _by_day(_write_report),
}


@business_flow(on_cancellation=[cancelled_in_prefect])
def backfill(parameters: BackfillParameters) -> dict[str, int]:
    """Plan a past period and, when told so, run it window by window; return windows by state."""
    with open_backfill(parameters) as run:
        # Check and plan: windows, files found and missing; a dry run ends here and has changed nothing.
        number = parameters.backfill_id
        if number is None:
            plan = plan_backfill(run)
            if not parameters.live:
                return plan.counts()
            number = keep_request(run, plan)

        # Do: one window after another; what is done stands in the database, whoever is killed.
        request = take_up(run, number)
        run_windows(run, request, WINDOW_FLOWS[request.request.flow])

        # Let go again: whoever was erased and came back with an old file.
        apply_erasures_again(run)

        # Report: the figures before and after; a window that failed ends the run failed.
        state = close_request(run, request)
        counts = report_backfill(run, request, state)
        conclude_backfill(request, counts)
        return counts
