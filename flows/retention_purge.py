"""Let go of personal data whose time has come: a plan first, and only the plan is carried out.

Does:            plans what every retention rule lets go of; with --live carries the newest plan out.
Reads:           rules of retention, legal holds, and every table and folder that the rules speak of.
Writes:          plans; the erasure ledger outside the database; with --live deletes and blanks rows and their history.
Outside effects: with --live deletes files of KONTOR_HOME that are past their rule. Nobody is written to.
A second run:    a plan is applied once; one that was killed goes on where it was; nothing held is ever touched.
Runbook:         docs/runbooks/retention_purge.md
"""

from __future__ import annotations

from tasks.retention.parameters import PurgeParameters
from tasks.retention.steps import (
    apply_plan,
    conclude,
    end_plan,
    find_leftovers,
    make_plan,
    open_purge,
    report_plan,
    take_plan,
)
from tasks.steps import business_flow

ONLY_A_PLAN = PurgeParameters()


@business_flow()
def retention_purge(parameters: PurgeParameters = ONLY_A_PLAN) -> dict[str, int]:
    """Plan what goes, or carry a plan out, and return the counts of rows."""
    with open_purge("retention_purge", parameters) as run:
        # Plan: what is due by rule, what is held, and whether a second person must agree.
        if parameters.dry_run:
            return report_plan(run, make_plan(run))

        # Check: the plan is approved, still fits the rules and what is there.
        plan = take_plan(run)

        # Write: children first, in short transactions, each known to the erasure ledger beforehand.
        apply_plan(run, plan)
        applied = end_plan(run, plan)

        # Report: rows that stayed end the run partly done.
        totals = report_plan(run, applied)
        conclude(applied, find_leftovers(run, applied))
        return totals
