"""Prove that a backup restores: on a scratch server, to a random instant and to its restore point, in every look.

Does:            compares digests, restores, looks at everything, plants one fault in the copy and must catch it.
Reads:           the backup target, the private key, PostgreSQL's own programs.
Writes:          the verdict beside the backup, ops.restore_checks, one ledger entry.
Outside effects: a scratch server in KONTOR_HOME/scratch while it runs. Nobody is written to.
A second run:    checks again and replaces the verdict; what a killed run left is removed by the next one.
Runbook:         docs/runbooks/restore_check.md
"""

from __future__ import annotations

from tasks.backups.parameters import CheckParameters
from tasks.backups.steps import (
    check_restore,
    compare_digests,
    conclude,
    open_backup_run,
    report_backup,
    survey_target,
)
from tasks.steps import business_flow

THE_NEWEST = CheckParameters()


@business_flow()
def restore_check(parameters: CheckParameters = THE_NEWEST) -> dict[str, int]:
    """Check one backup and return the counts of checks that passed and failed."""
    with open_backup_run("restore_check", parameters.as_of, dry_run=parameters.dry_run) as run:
        # Check: what is there.
        survey_target(run)

        # Read: a dry run compares every byte with what was signed, and ends here.
        if parameters.dry_run:
            return {"backups_compared": compare_digests(run, parameters.label)}

        # Decide and write: compare, restore, look, and sign what was found, also where the bytes are others.
        verdict = check_restore(run, parameters.label, parameters.planted)

        # Report: what did not pass ends the run as failed.
        report_backup(run, None, verdict, [])
        conclude(verdict, made=False)
        return dict(run.run.counts)
