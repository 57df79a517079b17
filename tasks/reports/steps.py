"""The steps of finance_report, and the status as an artifact for whichever flow ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from configs.settings import Settings, load_settings
from tasks.artifacts import markdown_table, money, payer_class_rows, summary
from tasks.database import engine_for
from tasks.erasures.egress_store import log_egress, personal_names
from tasks.errors import DependencyDown, UsageError
from tasks.ledger import Run
from tasks.letters import Mailbox
from tasks.mailer import own_people, send_report
from tasks.reports.finance import FinanceReport, notices, outcomes_of
from tasks.reports.finance_files import FinanceFiles, finance_letter, make_files, prerun_letter, write_files
from tasks.reports.finance_store import already_sent, read_finance, read_prerun
from tasks.reports.finance_words import Words
from tasks.reports.parameters import FinanceParameters
from tasks.reports.status import lines_of, status_markdown, verdict
from tasks.reports.store import read_report
from tasks.steps import READ_STEP, SEND_STEP, WRITE_STEP, current_actor, log_event, open_run, publish_summary, step


@dataclass(frozen=True)
class FinanceRun:
    """One run of finance_report: its ledger entry, where it works, what was asked, and to whom it would be sent."""

    run: Run
    settings: Settings
    engine: Engine
    parameters: FinanceParameters
    recipients: tuple[Mailbox, ...]

    @property
    def as_of(self) -> date:
        """The day the report speaks of."""
        return self.run.as_of


@contextmanager
def open_finance_run(parameters: FinanceParameters) -> Iterator[FinanceRun]:
    """Hold the flow's lock and ledger entry for a ``with`` block.

    Raises:
        Locked: the flow is running already.
        UsageError: a mail is to leave and nobody is named who should get it.
    """
    settings = load_settings()
    today = datetime.now(ZoneInfo(settings.business_timezone)).date()
    recipients = own_people(settings, "finance")
    if not parameters.dry_run and not recipients:
        raise UsageError(
            "The report is to be sent, but nobody is named who should get it. Nothing was done.",
            hint="Set KONTOR_FINANCE_EMAILS, or run it without --live to have the files alone.",
        )
    engine = engine_for(settings, purpose="kontor finance_report")
    as_of, dry_run = parameters.as_of or today, parameters.dry_run
    with open_run(engine, "finance_report", as_of=as_of, dry_run=dry_run, actor=current_actor()) as run:
        log_event("run_opened", flow="finance_report", run_id=run.run_id, as_of=as_of, dry_run=str(dry_run))
        yield FinanceRun(run, settings, engine, parameters, recipients)


@dataclass(frozen=True)
class FinanceOutcome:
    """The report and its files, handed from the writing step to the sending one within this process."""

    report: FinanceReport
    files: FinanceFiles

    def __repr__(self) -> str:
        return f"FinanceOutcome(as_of={self.report.as_of})"


def read_figures(run: FinanceRun) -> FinanceReport:
    """Everything the report shows, as of one moment of the database.

    Not a task: what it returns holds customers, and Prefect must never see them.
    """
    snapshot = run.engine.execution_options(isolation_level="REPEATABLE READ")
    with snapshot.connect() as connection:
        return read_finance(connection, run.as_of, compared_with=run.parameters.compared_with)


@step(WRITE_STEP)
def write_report(run: FinanceRun) -> FinanceOutcome:
    """Read the figures and write page, text and workbook below KONTOR_HOME/reports; a second try replaces them."""
    report = read_figures(run)
    files = make_files(report, run.settings.finance_language, now=datetime.now(UTC))
    written = write_files(run.settings.home, report, files)
    run.run.note({"files": len(written), "customers_changed": len(report.tables["payer_class_changes"].rows)})
    log_event("report_written", run_id=run.run.run_id, files=len(written), as_of=run.as_of)
    return FinanceOutcome(report, files)


@step(SEND_STEP)
def send_to_finance(run: FinanceRun, made: FinanceOutcome) -> str:
    """Send the report and return what became of it; a report of a day is sent once unless asked for again.

    Never tried again by itself: what the server may have taken counts as sent.

    Raises:
        DependencyDown: the server would not take it; the files are written.
    """
    if run.parameters.dry_run:
        return "not asked for"
    with run.engine.connect() as connection:
        if already_sent(connection, run.as_of) and not run.parameters.again:
            log_event("report_sent_before", run_id=run.run.run_id, as_of=run.as_of)
            return "sent before"
    letter = finance_letter(run.settings, made.report, made.files, run.recipients, now=datetime.now(UTC))
    _note_egress(run.engine, made.report)
    delivery = send_report(run.settings, letter)
    log_event("report_handed_over", run_id=run.run.run_id, outcome=delivery.outcome, recipients=len(run.recipients))
    run.run.note({f"mails_{delivery.outcome}": 1, "mails": int(delivery.outcome in ("sent", "unknown"))})
    if delivery.outcome in ("refused", "deferred"):
        raise DependencyDown(
            f"The mail server would not take finance's report ({delivery.outcome}). Its files are written.",
            hint="Look at the server's answer in the log, then run the flow again with --live.",
        )
    return delivery.outcome


def _note_egress(engine: Engine, report: FinanceReport) -> None:
    """Note that a mail with customers in it is about to leave, whatever the server makes of it."""
    tables = report.tables.values()
    with engine.begin() as connection:
        log_egress(
            connection,
            what="finance report",
            form="mail",
            rows=sum(len(table.rows) for table in tables),
            columns=sorted(personal_names() & {name for table in tables for name in table.names}),
            actor=current_actor(),
            now=datetime.now(UTC),
        )


@step(READ_STEP)
def publish_report(run: FinanceRun, made: FinanceOutcome, outcome: str) -> dict[str, int]:
    """Publish the figures that name nobody: sums, payers per class, reminders per state; returns the run's counts."""
    report, words = made.report, Words("en")
    totals = [
        {"currency": code, "open": money(now.open_amount, code), "overdue": money(now.overdue_amount, code)}
        for code, now in sorted(report.now.totals.items())
    ]
    states = [{"state": item.state, "mails": item.mails} for item in outcomes_of(report.tables["reminder_outcomes"])]
    facts = {"compared with": report.before.day, "mail": outcome}
    facts |= {f"notice {at}": words(item.key, **item.values) for at, item in enumerate(notices(report), start=1)}
    sections = {
        "Receivables": markdown_table(totals),
        "Payer classes": markdown_table(payer_class_rows(report.now.classes)),
        "Reminders": markdown_table(states),
    }
    publish_summary("finance-report-summary", summary(f"finance_report as of {run.as_of}", facts, sections))
    return dict(run.run.counts)


@step(SEND_STEP)
def tell_finance_first(engine: Engine, run_id: int, as_of: date) -> str:
    """Send finance the list of what is about to leave, before it leaves, and return what became of the mail.

    Nothing is sent where nothing is about to leave or nobody is named. Never tried again by itself. A server that does
    not take it is told of in the log and the returned word; whether reminders then wait is the caller's to decide.
    """
    settings = load_settings()
    with engine.execution_options(isolation_level="REPEATABLE READ").connect() as connection:
        prerun = read_prerun(connection, as_of)
    recipients = own_people(settings, "finance")
    if not prerun.mails or not recipients:
        return "nothing about to leave" if not prerun.mails else "nobody named"
    delivery = send_report(settings, prerun_letter(settings, prerun, run_id, recipients, now=datetime.now(UTC)))
    log_event("finance_told_first", run_id=run_id, mails=prerun.mails, outcome=delivery.outcome)
    return delivery.outcome


@step(READ_STEP)
def publish_status(engine: Engine) -> str:
    """Publish the status of everything as an artifact and return its verdict in one line."""
    with engine.connect() as connection:
        lines = lines_of(read_report(connection, "status_lines"))
    publish_summary("kontor-status", status_markdown(lines, now=datetime.now(UTC)))
    return verdict(lines)
