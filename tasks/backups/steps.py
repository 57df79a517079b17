"""The steps of backup and restore_check: each one function of :mod:`tasks.backups.runs`, logged and counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine as Database

from configs.settings import Settings, load_settings
from tasks.artifacts import markdown_table, summary
from tasks.backups import runs
from tasks.backups.catalogue import Catalogue
from tasks.backups.checking import check_digests
from tasks.backups.engine import Engine
from tasks.backups.manifest import Manifest, Verdict
from tasks.backups.store import Policy
from tasks.database import engine_for
from tasks.errors import BadInput, PartlyDone, Refused
from tasks.ledger import Run
from tasks.steps import READ_STEP, SEND_STEP, WRITE_STEP, current_actor, log_event, open_run, publish_summary, step


@dataclass(frozen=True)
class BackupRun:
    """One run: its ledger entry, the engine and the database it works on, the rule in force, and its beginning."""

    run: Run
    settings: Settings
    engine: Engine
    database: Database
    policy: Policy
    now: datetime


@contextmanager
def open_backup_run(flow_name: str, as_of: date | None, *, dry_run: bool) -> Iterator[BackupRun]:
    """Hold the lock of all that works on backups, and the flow's ledger entry, for a ``with`` block.

    Raises:
        Locked: a backup or a check is under way already.
    """
    settings = load_settings()
    now = datetime.now(UTC)
    day = as_of or now.astimezone(ZoneInfo(settings.business_timezone)).date()
    database = engine_for(settings, purpose=f"kontor {flow_name}")
    engine = runs.open_engine(settings)
    with (
        open_run(database, flow_name, as_of=day, dry_run=dry_run, actor=current_actor()) as run,
        runs.one_at_a_time(database),
    ):
        log_event("run_opened", flow=flow_name, run_id=run.run_id, as_of=day, dry_run=str(dry_run))
        with database.begin() as connection:
            policy = runs.policy_on(connection, day)
        yield BackupRun(run, settings, engine, database, policy, now)


@step(WRITE_STEP)
def survey_target(run: BackupRun) -> Catalogue:
    """Read what the target holds, delete what killed runs left, and bring the mirror to it."""
    catalogue = runs.survey(run.engine)
    if not run.run.dry_run:
        counts = runs.tidy(run.database, run.engine, catalogue, run.run.run_id, run.now)
        run.run.note(counts)
        log_event("target_surveyed", run_id=run.run.run_id, **counts)
    return catalogue


@step(READ_STEP)
def choose_kind(run: BackupRun, catalogue: Catalogue, wanted: str) -> runs.Choice:
    """Decide whether the backup is full or continues another."""
    choice = runs.choose(run.engine, catalogue, run.policy, wanted, run.now)
    log_event("kind_chosen", run_id=run.run.run_id, kind=choice.kind, reason=choice.reason)
    return choice


@step(SEND_STEP)
def take_backup(run: BackupRun, choice: runs.Choice) -> Manifest:
    """Make the backup; not tried again by itself, because a second try is a second backup."""
    manifest = runs.take(run.database, run.engine, choice, run.run.run_id, run.now)
    run.run.note({"backups_made": 1, "stored_bytes": manifest.stored_bytes})
    log_event("backup_made", run_id=run.run.run_id, label=manifest.label, stored_bytes=manifest.stored_bytes)
    return manifest


@step(SEND_STEP)
def check_restore(run: BackupRun, label: str | None, planted: str | None = None) -> Verdict | None:
    """Restore the backup to a scratch server and look at everything; None where the private key is not here."""
    if not run.engine.ring.identity.exists():
        log_event("check_left_out", run_id=run.run.run_id, reason="the private key is not on this machine")
        return None
    verdict = runs.check(run.database, run.engine, label, run.run.run_id, run.now, planted)
    run.run.note({"checks_passed": int(verdict.passed), "checks_failed": int(not verdict.passed)})
    failed = ",".join(finding.name for finding in verdict.findings if not finding.passed)
    log_event("backup_checked", run_id=run.run.run_id, label=verdict.label, passed=str(verdict.passed), failed=failed)
    return verdict


@step(READ_STEP)
def compare_digests(run: BackupRun, label: str | None) -> int:
    """Compare every artefact of a backup and its bases with what was signed; returns how many backups.

    Raises:
        BadInput: with what differs.
    """
    catalogue = runs.survey(run.engine)
    chain = catalogue.chain(label or (catalogue.backups[-1].label if catalogue.backups else ""))
    found = check_digests(run.engine, chain)
    if not found.passed:
        raise BadInput(f"Backup {chain[-1].label} is damaged: {found.said}", hint="Take another backup now.")
    return len(chain)


@step(WRITE_STEP)
def prune_backups(run: BackupRun, *, live: bool) -> list[str]:
    """Delete what the rule no longer keeps, or only say which."""
    gone = runs.prune(run.database, run.engine, run.policy, run.now, live=live)
    run.run.note({"pruned": len(gone)} if live else {"would_prune": len(gone)})
    log_event("backups_pruned", run_id=run.run.run_id, live=str(live), labels=",".join(gone))
    return gone


@step(READ_STEP)
def report_backup(run: BackupRun, manifest: Manifest | None, verdict: Verdict | None, gone: list[str]) -> None:
    """Publish what was made, what the check found, and what was deleted."""
    facts: dict[str, object] = {"pruned": len(gone)}
    if manifest is not None:
        facts |= {"backup": manifest.label, "source bytes": manifest.source_bytes, "stored": manifest.stored_bytes}
    sections = {}
    if verdict is not None:
        facts |= {"good": verdict.passed, "restored in seconds": str(verdict.restore_seconds)}
        facts |= {"planted": verdict.planted, "caught": verdict.planted_caught}
        rows = [{"look": f.name, "right": f.passed, "found": f.said} for f in verdict.findings]
        sections["Check"] = markdown_table(rows)
    publish_summary("backup-summary", summary(f"{run.run.flow} as of {run.run.as_of}", facts, sections))


def conclude(verdict: Verdict | None, *, made: bool) -> None:
    """End the run as failed where a backup was not proven; one that was made without the private key here waits for it.

    Raises:
        PartlyDone: a backup was made and its check found something wrong.
        BadInput: a check found something wrong.
        Refused: a check was all that was asked for, and the private key is not here.
    """
    if verdict is None and not made:
        raise Refused(
            "The private key is not on this machine, so nothing was restored and nothing proven.",
            hint="Run restore_check where it is (KONTOR_BACKUP_IDENTITY), or compare digests only with --dry-run.",
        )
    if verdict is None or verdict.passed:
        return
    wrong = "".join(f"\n  - {f.name}: {f.said}" for f in verdict.findings if not f.passed)
    missed = "" if verdict.planted_caught else f"\n  - the planted fault {verdict.planted} was not caught"
    text = f"Backup {verdict.label} did not pass its check and does not count:{wrong}{missed}"
    hint = "Take another with `kontor run backup --param kind=full`; see docs/runbooks/restore_check.md."
    raise PartlyDone(text, hint=hint) if made else BadInput(text, hint=hint)
