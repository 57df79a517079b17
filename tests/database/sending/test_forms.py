"""What people decide from Prefect's forms: the same as by command, with a ledger entry, and nothing when only tried."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from configs.settings import Settings
from tasks.database import FLOWS, engine_for
from tasks.errors import Refused, UsageError
from tasks.reminders.action_parameters import ApprovalForm, Arrival, Because, HoldForm, HoldKind, ResolutionForm
from tasks.reminders.action_steps import approve_mails, open_action, put_hold, resolve_mail
from tasks.reminders.sending import outbox_store
from tests.outbox import clock, fill_queue

WHY = Because.checked_by_finance


def test_approval_lets_go_what_waits_and_nothing_when_tried(kontor_settings: Settings) -> None:
    """A dry run counts and changes nothing; then all that wait are approved, under the name of who ran it."""
    queue = fill_queue(kontor_settings, 3, items=1)
    queue.change("update outbox.reminders set needs_approval = true where reminder_id <= 2")
    for dry_run, counts in ((True, {"mails_approved": 0, "mails_waiting": 2}), (False, {"mails_approved": 2})):
        form = ApprovalForm(reason=WHY, dry_run=dry_run)
        with open_action("reminder_approval", form) as run:
            assert approve_mails.fn(run, form) == counts
    assert queue.states() == {"approved": 2, "planned": 1}
    named = ApprovalForm(reason=WHY, mails=(99,))
    with pytest.raises(Refused), open_action("reminder_approval", named) as run:
        approve_mails.fn(run, named)
    runs = queue.rows("select state, dry_run from ops.run_ledger where flow = 'reminder_approval' order by run_id")
    assert [(row["state"], row["dry_run"]) for row in runs] == [("done", True), ("done", False), ("failed", False)]


def test_a_hold_from_the_form_stops_a_mail_at_the_gate(kontor_settings: Settings) -> None:
    """The hold stands with its reason; a promise without a day and a customer whom nobody knows are refused."""
    queue = fill_queue(kontor_settings, 1, items=1)
    form = HoldForm(reason=Because.customer_said_so, kind=HoldKind.do_not_remind, customer_number="C-1")
    with open_action("reminder_hold", form) as run:
        assert put_hold.fn(run, form)["holds"] == 1
    [row] = queue.rows("select kind, reason from ops.reminder_holds")
    assert row == {"kind": "do_not_remind", "reason": "the customer said so"}
    with pytest.raises(ValidationError, match="the day until which"):
        HoldForm(reason=WHY, kind=HoldKind.promise_to_pay, customer_number="C-1")
    nobody = HoldForm(reason=WHY, kind=HoldKind.dispute, customer_number="C-9")
    with pytest.raises(UsageError, match="no customer"), open_action("reminder_hold", nobody) as run:
        put_hold.fn(run, nobody)


def test_a_resolution_settles_an_unknown_mail_once(kontor_settings: Settings) -> None:
    """Tried it changes nothing; done it is settled; done again it is refused."""
    queue = fill_queue(kontor_settings, 1, items=1)
    queue.change("update outbox.reminders set state = 'unknown', attempts = 1, claimed_at = now()")
    for dry_run, state in ((True, "unknown"), (False, "sent")):
        form = ResolutionForm(reason=Because.found_in_server_log, mail=1, arrived=Arrival.sent, dry_run=dry_run)
        with open_action("reminder_resolution", form) as run:
            resolve_mail.fn(run, form)
        assert queue.states() == {state: 1}
    with pytest.raises(Refused, match="is sent"), open_action("reminder_resolution", form) as run:
        resolve_mail.fn(run, form)


def test_what_was_planned_for_a_past_day_is_cancelled_and_freed(kontor_settings: Settings) -> None:
    """Only mails of that run which nobody has approved."""
    queue = fill_queue(kontor_settings, 2, items=1)
    with engine_for(kontor_settings, FLOWS).begin() as connection:
        assert outbox_store.approve(connection, [1], author="eva", now=clock()) == [1]
        [run_id] = {row["run_id"] for row in queue.rows("select run_id from outbox.reminders")}
        assert outbox_store.cancel_past(connection, run_id, clock()) == [2]
    assert queue.states() == {"approved": 1, "cancelled": 1}
    freed = queue.rows("select reminder_id from outbox.reminder_items where released_at is not null")
    assert freed == [{"reminder_id": 2}]
