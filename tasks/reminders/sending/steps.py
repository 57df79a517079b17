"""The steps of overdue_reminders from the queue to the mail server's answers, and what they show of it."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.artifacts import markdown_table, summary
from tasks.errors import PartlyDone
from tasks.quality_gate import require_quality
from tasks.reminders.plan_steps import ReminderRun
from tasks.reminders.sending import outbox_store
from tasks.reminders.sending.bounce_store import take_in_returned
from tasks.reminders.sending.delivery import Sent
from tasks.reminders.sending.queue_store import Claim
from tasks.reminders.sending.shared_queue import send_shared
from tasks.steps import READ_STEP, SEND_STEP, WRITE_STEP, log_event, publish_summary, step


def _now() -> datetime:
    return datetime.now(UTC)


@step(READ_STEP)
def require_rules(run: ReminderRun) -> None:
    """Nothing where the data is fit to write to people about; a dry run may look all the same.

    Raises:
        Refused: a rule of data quality that reminders require does not hold; nobody is written to.
    """
    if run.run.dry_run:
        return
    with run.engine.connect() as connection:
        require_quality(connection, run.run.flow, run.run.as_of)


@step(WRITE_STEP)
def clear_up_queue(run: ReminderRun) -> dict[str, int]:
    """Before anything is planned: returned mails are taken in, what a dead run was sending is unknown from now on, and
    what has waited for a week is cancelled.

    This run holds the flow's lock, so whoever was sending is dead.
    """
    if run.run.dry_run:
        return {}
    with run.engine.begin() as connection:
        dead = outbox_store.call_dead_unknown(connection, _now())
        expired = outbox_store.expire(connection, _now())
    bounces = take_in_returned(run.engine, run.settings, _now())
    counts = {
        "mails_lost_sight_of": len(dead),
        "mails_expired": len(expired),
        "bounces": bounces["hard"] + bounces["soft"],
    }
    log_event("queue_cleared_up", run_id=run.run.run_id, **counts)
    run.run.note({name: count for name, count in counts.items() if count})
    return counts


@step(WRITE_STEP)
def keep_past_mails_back(run: ReminderRun) -> int:
    """Cancel what this run has planned for a past day, unless it was told to send all the same; returns how many.

    The decisions stay for reading. A run killed before this leaves mails that no gate lets through.
    """
    if run.run.dry_run or run.run.as_of >= run.today or run.parameters.allow_past:
        return 0
    with run.engine.begin() as connection:
        cancelled = outbox_store.cancel_past(connection, run.run.run_id, _now())
    log_event("past_mails_kept_back", run_id=run.run.run_id, mails=len(cancelled))
    return len(cancelled)


@step(SEND_STEP)
def send_mails(run: ReminderRun) -> Sent:
    """Send what may leave now. A try that fails is never repeated by itself: what was sent is written down already."""
    if run.run.dry_run:
        return Sent()
    past_run = run.run.run_id if run.parameters.allow_past else None
    sent = send_shared(
        run.engine,
        run.settings,
        Claim(run.run.run_id, f"overdue_reminders run {run.run.run_id}"),
        day=run.today,
        any_hour=run.parameters.any_hour,
        past_run=past_run,
        data_day=run.run.as_of if past_run else None,
    )
    log_event("queue_sent", run_id=run.run.run_id, **sent.counts())
    run.run.note(sent.counts())
    return sent


@step(READ_STEP)
def report_sending(run: ReminderRun, sent: Sent) -> None:
    """Publish what became of the queue: mails by outcome, cancelled and waiting ones by reason."""
    rows = [
        {"mails": count, "became": kind, "because": reason.replace("_", " ")}
        for kind, counted in (("cancelled", sent.cancelled), ("waiting", sent.waiting))
        for reason, count in sorted(counted.items())
    ]
    facts = dict(sorted(sent.outcomes.items()))
    sections = {"Not sent": markdown_table(rows)} if rows else {}
    publish_summary(
        "overdue-reminders-sent", summary(f"Mails of overdue_reminders as of {run.run.as_of}", facts, sections)
    )


def conclude_sending(sent: Sent) -> None:
    """Nothing where every mail found its end or waits for its time.

    Raises:
        PartlyDone: nobody knows of some whether they arrived, or a letter could not be written.
    """
    unknown, unwritten = sent.outcomes["unknown"], sent.unwritten
    if unknown:
        raise PartlyDone(
            f"{unknown} mail(s) may or may not have arrived; the rest is done.",
            hint="Ask at the mail server, then `kontor reminders resolve ID --as sent|not-sent --reason WHY`.",
        )
    if unwritten:
        raise PartlyDone(
            f"{unwritten} letter(s) could not be written and are held; the rest is done.",
            hint="`kontor report reminders` says why; correct it, then `kontor reminders release-mail ID`.",
        )
