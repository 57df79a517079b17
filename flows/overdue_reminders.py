"""Remind customers of what they owe, and never of what they have paid.

Does:            decides about every customer with something overdue, and reserves the mails that follow from it.
Reads:           open items, received money, contacts and their roles, holds, payer classes, rules, earlier reminders.
Writes:          one decision per customer and day, planned mails with their reserved items, tasks for people.
Outside effects: none in a dry run, which is the default; else what is planned may be sent.
A second run:    changes nothing; a killed run is made up for by the next one; no invoice gets a stage twice.
Runbook:         docs/runbooks/overdue_reminders.md
"""

from __future__ import annotations

from tasks.reminders.parameters import ReminderParameters
from tasks.reminders.plan_steps import conclude_plan, open_reminder_run, plan_and_reserve, report_plan
from tasks.steps import business_flow

TRY_TODAY = ReminderParameters()


@business_flow()
def overdue_reminders(parameters: ReminderParameters = TRY_TODAY) -> dict[str, int]:
    """Plan the day's reminders and return the counts of decisions and of what was written."""
    with open_reminder_run("overdue_reminders", parameters) as run:
        # Decide: one decision per customer, with its reason; reserve what is to be sent.
        planned = plan_and_reserve(run)

        # Report: who is reminded and why the others are not; a run that the brake stopped ends failed.
        report_plan(run, planned)
        conclude_plan(planned)
        return {**planned.decisions, **planned.written}
