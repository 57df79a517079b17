"""The plan of a backfill: its windows with what each would run, from the database and the files; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sqlalchemy import Connection

from configs.settings import Settings
from tasks.backfills.inputs import Found, Undated, find_inputs
from tasks.backfills.store import Request, former_ends, overlapping, past_seconds, purged_through, refusal_of_overlap
from tasks.backfills.windows import (
    PlannedWindow,
    cut_windows,
    estimate_seconds,
    in_order,
    plan_window,
    refuse_period,
)
from tasks.feeds.intake import installed_contracts

WILL_NOT = (
    "send any mail: reminders, reports and notices of a past day are not sent",
    "bring back what was erased: erasures are applied again before it ends",
    "take a file in twice: what is in already is known by its content",
)


@dataclass(frozen=True)
class Plan:
    """What a backfill would do: every window, the files of no window, how long it may take."""

    request: Request
    windows: tuple[PlannedWindow, ...]
    undated: tuple[Undated, ...]
    seconds: float | None

    def counts(self) -> dict[str, int]:
        """Windows of the period, those that would run, those without any file, and files that are not in yet."""
        return {
            "windows": len(self.windows),
            "windows_to_run": sum(w.runs for w in self.windows),
            "windows_without_file": sum(not w.inputs for w in self.windows),
            "files_found": sum(len(w.inputs) for w in self.windows),
            "files_not_in_yet": sum(i.state == "new" for w in self.windows for i in w.inputs),
        }

    def rows(self) -> list[dict[str, object]]:
        """One row per window: number, from_on, to_on, files, not_in_yet, runs and why; no file is named."""
        return [
            {
                "window": w.window.number,
                "from_on": w.window.from_on,
                "to_on": w.window.to_on,
                "files": len(w.inputs),
                "not_in_yet": sum(i.state == "new" for i in w.inputs),
                "runs": "yes" if w.runs else "no",
                "why": w.why,
            }
            for w in self.windows
        ]


@dataclass(frozen=True)
class Scope:
    """What a flow touches: the feeds it reads, if any, and the tables whose deleted past it must not bring back."""

    feeds: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()


SCOPES: Mapping[str, Scope] = {
    "customer_import": Scope(("organizations", "contacts"), ("crm.organizations", "crm.contacts")),
    "payment_sync": Scope(("open_items", "settled_items", "payments"), ("crm.invoices", "crm.payments")),
    "catalog_upsert": Scope(("currency_rates", "catalog")),
    "overdue_reminders": Scope(),
    "finance_report": Scope(),
}


def make_plan(connection: Connection, settings: Settings, request: Request, *, today: date) -> Plan:
    """Return the plan of a request; the same question tomorrow may have another answer.

    Raises:
        UsageError: the period makes no sense.
        Refused: it lies ahead, or another backfill has it under way.
    """
    scope = SCOPES[request.flow]
    windows = cut_windows(request.from_on, request.to_on, request.every, request.excluded_days)
    refuse_period(windows, today=today, purged_through=purged_through(connection, scope.entities))
    other = overlapping(connection, request)
    if other is not None:
        raise refusal_of_overlap(request, other)
    found = inputs_of(connection, settings, request)
    former = former_ends(connection, request.flow)
    planned = tuple(
        plan_window(
            window,
            [i for i in found.inputs if window.holds(i.as_of) and i.as_of not in request.excluded_days],
            former=former.get((window.from_on, window.to_on)),
            reads_files=bool(scope.feeds),
            reprocess=request.reprocess,
        )
        for window in windows
    )
    seconds = estimate_seconds(in_order(planned, newest_first=False), past_seconds(connection, request.flow))
    return Plan(request, planned, found.undated, seconds)


def inputs_of(connection: Connection, settings: Settings, request: Request) -> Found:
    """The flow's files in archive, inbox and the request's own folder; none for a flow that reads no files."""
    feeds = SCOPES[request.flow].feeds
    if not feeds:
        return Found((), ())
    extra = [Path(request.source_folder)] if request.source_folder else []
    return find_inputs(
        connection,
        contracts=installed_contracts(settings.home, feeds),
        archive=settings.home / "archive",
        folders=[settings.inbox_path, *extra],
    )
