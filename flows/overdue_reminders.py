"""Remind customers of what they owe, and never of what they have paid.

Does:            decides about every customer with something overdue, reserves the mails, and sends what still holds.
Reads:           open items, received money, contacts and their roles, holds, payer classes, rules, returned mails.
Writes:          one decision per customer and day, mails with their items and the server's answers, tasks for people.
Outside effects: none in a dry run, which is the default; with --live mails leave, in mail mode live or redirect only.
A second run:    changes nothing; a killed run is made up for by the next one; no invoice gets a stage twice.
Runbook:         docs/runbooks/overdue_reminders.md
"""

from __future__ import annotations

from tasks.reminders.parameters import ReminderParameters
from tasks.reminders.plan_steps import (
    conclude_plan,
    is_finance_to_read,
    note_finance_told,
    open_reminder_run,
    plan_and_reserve,
    report_plan,
)
from tasks.reminders.sending.steps import (
    clear_up_queue,
    conclude_sending,
    keep_past_mails_back,
    report_sending,
    require_rules,
    send_mails,
)
from tasks.reports.steps import tell_finance_first
from tasks.steps import business_flow

TRY_TODAY = ReminderParameters()


@business_flow()
def overdue_reminders(parameters: ReminderParameters = TRY_TODAY) -> dict[str, int]:
    """Plan the day's reminders, send what still holds, and return the counts of decisions and of mails."""
    with open_reminder_run("overdue_reminders", parameters) as run:
        # Check: is the data fit to write to people about; which mails came back, and which got lost on the way.
        require_rules(run)
        clear_up_queue(run)

        # Decide: one decision per customer, with its reason; reserve what is to be sent.
        planned = plan_and_reserve(run)
        report_plan(run, planned)
        keep_past_mails_back(run)

        # Check: finance reads first what is to leave; a run that plans far too much stops here for a person.
        if is_finance_to_read(run):
            note_finance_told(run, tell_finance_first(run.engine, run.run.run_id, run.run.as_of))
        conclude_plan(planned)

        # Send: every mail passes the gate; answers are written down as they come.
        sent = send_mails(run)

        # Report: what became of every mail; a run that lost sight of one ends partly done.
        report_sending(run, sent)
        conclude_sending(sent)
        return {**planned.decisions, **planned.written, **sent.counts()}
