"""Tell every owner once a week what of theirs is incomplete, stale or wrong.

Does:            writes one letter to each owner of open incidents, with what is missing and until when.
Reads:           incidents of data quality, the mailboxes of teams from the settings.
Writes:          ops.quality_nudges, one ledger entry.
Outside effects: one mail an owner and week, only with --live, in the mail mode in force.
A second run:    writes to nobody twice in one week; a run killed at any point never sends again what may have left.
Runbook:         docs/runbooks/quality_nudge.md
"""

from __future__ import annotations

from tasks.quality.nudge_steps import (
    NudgeParameters,
    conclude,
    open_nudge_run,
    read_owners,
    report_nudges,
    write_to_owners,
)
from tasks.steps import business_flow

ONLY_SAY = NudgeParameters()


@business_flow()
def quality_nudge(parameters: NudgeParameters = ONLY_SAY) -> dict[str, int]:
    """Write to the owners and return the letters by outcome."""
    with open_nudge_run(parameters) as run:
        # Read: who has something to mend and has not heard of it this week.
        owners = read_owners(run)

        # Send: reserve, commit, send, record, one owner after another.
        counts = write_to_owners(run, owners)

        # Report: figures that name nobody; a letter that did not leave ends the run partly done.
        report_nudges(run, counts)
        conclude(counts)
        return counts
