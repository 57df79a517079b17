"""The steps of privacy_report: read the month, write its page, tell who answers for data protection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from configs.settings import Settings, load_settings
from tasks.artifacts import summary
from tasks.database import engine_for
from tasks.erasures.ledger_file import ledger_of
from tasks.errors import DependencyDown
from tasks.ledger import Run
from tasks.letters import Letter, Mailbox
from tasks.mailer import inline_css, own_people, send_report
from tasks.privacy.month import Month, alarm_letter, month_before, month_letter, month_page
from tasks.privacy.parameters import PrivacyParameters
from tasks.privacy.store import (
    LOOKED_BACK_DAYS,
    read_exports,
    read_month,
    read_unusual,
    release_letter,
    reserve_letter,
)
from tasks.steps import READ_STEP, SEND_STEP, WRITE_STEP, current_actor, log_event, open_run, publish_summary, step


@dataclass(frozen=True)
class PrivacyRun:
    """One run of privacy_report: its ledger entry, where it works, and whom it would tell."""

    run: Run
    settings: Settings
    engine: Engine
    parameters: PrivacyParameters
    recipients: tuple[Mailbox, ...]
    now: datetime


@contextmanager
def open_privacy(parameters: PrivacyParameters) -> Iterator[PrivacyRun]:
    """Hold the flow's lock and ledger entry for a ``with`` block.

    Raises:
        Locked: the flow is running already.
    """
    settings, now = load_settings(), datetime.now(UTC)
    as_of = parameters.as_of or now.astimezone(ZoneInfo(settings.business_timezone)).date()
    engine = engine_for(settings, purpose="kontor privacy_report")
    recipients = own_people(settings, "data_protection") or own_people(settings, "engineers")
    with open_run(engine, "privacy_report", as_of=as_of, dry_run=parameters.dry_run, actor=current_actor()) as run:
        log_event("run_opened", flow="privacy_report", run_id=run.run_id, as_of=as_of)
        yield PrivacyRun(run, settings, engine, parameters, recipients, now)


@step(WRITE_STEP)
def write_month(run: PrivacyRun) -> Month:
    """Read the month before and write its page below KONTOR_HOME/reports; a second try replaces it."""
    first, last = month_before(run.run.as_of)
    with run.engine.connect() as connection:
        month = read_month(connection, ledger_of(run.settings.home), first, last, today=run.run.as_of)
    _write(run.settings.home / "reports" / "privacy" / f"{month.name}.html", month_page(month))
    log_event("month_written", run_id=run.run.run_id, month=month.name, to_look_at=len(month.needs_a_look))
    return month


def _write(path: Path, page: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        stream.write(page)
    partial.replace(path)


@step(SEND_STEP)
def tell_month(run: PrivacyRun, month: Month) -> int:
    """Send the month's report, once; returns how many mails were handed over."""
    letter = month_letter(month, inline_css(month_page(month)), run.recipients, run.settings.mail_from, now=run.now)
    return _send_once(run, "month", month.first, letter)


@step(READ_STEP)
def find_unusual(run: PrivacyRun) -> list[date]:
    """The days of the week before, and today, on which far more personal data was exported than usual."""
    with run.engine.connect() as connection:
        first = run.run.as_of - timedelta(days=LOOKED_BACK_DAYS)
        return [row["day"] for row in read_unusual(connection, first, run.run.as_of)]


@step(SEND_STEP)
def raise_alarm(run: PrivacyRun, day: date) -> int:
    """Send the alarm about one day, once; returns how many mails were handed over."""
    with run.engine.connect() as connection:
        found, exports = read_unusual(connection, day, day), read_exports(connection, day, day)
    letter = alarm_letter(found[0], exports, run.recipients, run.settings.mail_from, now=run.now)
    return _send_once(run, "unusual", day, letter)


def _send_once(run: PrivacyRun, kind: str, day: date, letter: Letter) -> int:
    """Reserve, commit, send: what may have left is never sent again; what certainly did not is left to the next run.

    Raises:
        DependencyDown: the server would not take it.
    """
    if run.parameters.dry_run or not run.recipients:
        return 0
    with run.engine.begin() as connection:
        if not reserve_letter(connection, kind, day, run.run.run_id, run.now):
            return 0
    outcome = send_report(run.settings, letter).outcome
    log_event("privacy_told", run_id=run.run.run_id, kind=kind, day=day, outcome=outcome)
    if outcome in ("refused", "deferred"):
        with run.engine.begin() as connection:
            release_letter(connection, kind, day)
        raise DependencyDown(
            f"The mail server would not take the {kind} letter of {day}: {outcome}.",
            hint="Run `kontor run privacy_report --live` again when it does.",
        )
    return 1


@step(READ_STEP)
def report_privacy(run: PrivacyRun, month: Month, unusual: int, mails: int) -> dict[str, int]:
    """Publish what was found, counts only, and note it in the run ledger."""
    counts = {
        "rules_overdue": sum(bool(row["overdue"]) for row in month.rules),
        "to_look_at": len(month.needs_a_look),
        "unusual_days": unusual,
        "mails": mails,
    }
    publish_summary("privacy-report-summary", summary(f"privacy_report, {month.name}", counts))
    run.run.note(counts)
    return counts
