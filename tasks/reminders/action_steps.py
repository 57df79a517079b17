"""What a person decides about reminders, as steps: what the commands call, with an entry in the run ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from configs.settings import load_settings
from tasks.database import engine_for
from tasks.errors import Refused
from tasks.ledger import Run
from tasks.reminders.action_parameters import ApprovalForm, Arrival, HoldForm, ResolutionForm
from tasks.reminders.holds_store import NewHold, insert_hold
from tasks.reminders.sending import outbox_store
from tasks.steps import WRITE_STEP, current_actor, log_event, open_run, step


@dataclass(frozen=True)
class ActionRun:
    """One decision of a person under way."""

    run: Run
    engine: Engine
    actor: str
    today: date


@contextmanager
def open_action(flow_name: str, form: ApprovalForm | HoldForm | ResolutionForm) -> Iterator[ActionRun]:
    """Hold the flow's lock and ledger entry for a ``with`` block; Locked where the same is being done already."""
    settings = load_settings()
    today = datetime.now(ZoneInfo(settings.business_timezone)).date()
    engine = engine_for(settings, purpose=f"kontor {flow_name}")
    actor = current_actor()
    with open_run(engine, flow_name, as_of=form.as_of or today, dry_run=form.dry_run, actor=actor) as run:
        yield ActionRun(run, engine, actor, today)


@step(WRITE_STEP)
def approve_mails(run: ActionRun, form: ApprovalForm) -> dict[str, int]:
    """Let the mails go that are named, or all that wait; returns how many were approved.

    Raises:
        Refused: none of those named waits.
    """
    with run.engine.begin() as connection:
        wanted = list(form.mails) or outbox_store.awaiting_approval(connection)
        if run.run.dry_run:
            return {"mails_approved": 0, "mails_waiting": len(wanted)}
        approved = outbox_store.approve(connection, wanted, author=run.actor, now=datetime.now(UTC))
    if form.mails and not approved:
        raise Refused("None of these mails waits for approval.", hint="`kontor report reminders` shows their states.")
    return _done(run, {"mails_approved": len(approved)})


@step(WRITE_STEP)
def put_hold(run: ActionRun, form: HoldForm) -> dict[str, int]:
    """Put the hold in place; returns its number. A mail that waits in the queue meets it at the gate."""
    hold = NewHold(
        kind=form.kind.value,
        customer_number=form.customer_number,
        starts_on=run.run.as_of,
        author=run.actor,
        reason=form.reason.value,
        until=form.until,
        invoice_number=form.invoice_number,
        amount=form.promised_amount,
        currency=form.promised_currency,
    )
    with run.engine.connect() as connection, connection.begin() as transaction:
        hold_id = insert_hold(connection, hold)
        if run.run.dry_run:
            transaction.rollback()
            return {"holds": 0}
    return _done(run, {"holds": 1, "hold_id": hold_id})


@step(WRITE_STEP)
def resolve_mail(run: ActionRun, form: ResolutionForm) -> dict[str, int]:
    """Settle the mail; returns 1 under the state it has now. Refused where it is not unknown."""
    with run.engine.connect() as connection, connection.begin() as transaction:
        arrived = form.arrived is Arrival.sent
        state = outbox_store.resolve(
            connection,
            form.mail,
            arrived=arrived,
            author=run.actor,
            reason=form.reason.value,
            now=datetime.now(UTC),
        )
        if run.run.dry_run:
            transaction.rollback()
            return {f"mails_{state}": 0}
    return _done(run, {f"mails_{state}": 1})


def _done(run: ActionRun, counts: dict[str, int]) -> dict[str, int]:
    log_event(f"{run.run.flow}_done", run_id=run.run.run_id, **counts)
    run.run.note(counts)
    return counts
