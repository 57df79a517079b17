"""See whether the runs run, and tell the engineers once when they do not and once when they do again.

Does:            finds runs that are late, missing, too long, dead, failed or green without work; closes what is dead.
Reads:           the run ledger, the schedules of configs/prefect.yaml, Prefect's running runs.
Writes:          ops.alerts; the end of runs whose process is gone, in the ledger and in Prefect.
Outside effects: one mail to KONTOR_ENGINEER_EMAILS per trouble and one when it is over; a new run of a flow that died.
A second run:    finds the same troubles and tells nobody again.
Runbook:         docs/runbooks/run_watch.md
"""

from __future__ import annotations

from tasks.steps import business_flow
from tasks.watch.parameters import WatchParameters
from tasks.watch.steps import (
    close_zombies,
    end_overlong,
    keep_alerts,
    look_at_runs,
    open_watch,
    report_watch,
    restart_dead,
    tell_engineers,
)

LOOK_AND_TELL = WatchParameters()


@business_flow()
def run_watch(parameters: WatchParameters = LOOK_AND_TELL) -> dict[str, int]:
    """Look at the runs and return the counts of alerts opened, lasting and cleared, and of mails."""
    with open_watch(parameters) as run:
        # Look: the ledger against the schedules.
        alarms = look_at_runs(run)

        # Write: what is wrong, and the true end of what is dead.
        counts = keep_alerts(run, alarms)
        counts["zombies_closed"] = close_zombies(run)
        counts["ended_overlong"] = end_overlong(run)
        counts["restarted"] = len(restart_dead(run, alarms))

        # Tell: one mail per trouble, one when it is over.
        counts |= tell_engineers(run)
        return report_watch(run, alarms, counts)
