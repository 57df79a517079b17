"""Make a backup, prove that it restores, and let go of what the rule no longer keeps.

Does:            copies the whole server, Prefect's database included, encrypted and signed; restores it; prunes.
Reads:           the embedded database, rules.backup_policy, standing legal holds, the public key.
Writes:          the backup target; ops.backups, ops.restore_checks, ops.heartbeats, one ledger entry.
Outside effects: files on the backup target; backups that the rule lets go are deleted there. Nobody is written to.
A second run:    makes a second backup; what a run killed at any point left is removed by the next one.
Runbook:         docs/runbooks/backup.md
"""

from __future__ import annotations

from tasks.backups.parameters import BackupParameters
from tasks.backups.steps import (
    check_restore,
    choose_kind,
    conclude,
    open_backup_run,
    prune_backups,
    report_backup,
    survey_target,
    take_backup,
)
from tasks.steps import business_flow

AS_THE_RULE_SAYS = BackupParameters()


@business_flow()
def backup(parameters: BackupParameters = AS_THE_RULE_SAYS) -> dict[str, int]:
    """Make one backup and return what was made, proven and deleted."""
    with open_backup_run("backup", parameters.as_of, dry_run=parameters.dry_run) as run:
        # Check: what is there, and what killed runs left.
        catalogue = survey_target(run)

        # Decide: full, or on top of the newest.
        choice = choose_kind(run, catalogue, parameters.kind)
        live = not parameters.dry_run

        # Write: the manifest last, so that half a backup is none; then prove it before anything older goes.
        manifest = take_backup(run, choice) if live else None
        verdict = check_restore(run, manifest.label) if manifest is not None and parameters.check else None
        gone = prune_backups(run, live=live) if parameters.prune else []

        # Report: a backup that did not pass ends the run as partly done.
        report_backup(run, manifest, verdict, gone)
        conclude(verdict, made=True)
        return dict(run.run.counts)
