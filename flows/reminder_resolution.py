"""Settle a mail of which nobody knew whether it arrived.

Does:            makes it sent, or cancels it and frees its items so that the next plan decides anew.
Reads:           the queue of mails.
Writes:          the state of this mail and a record of the resolution, one ledger entry.
Outside effects: none; a mail that was unknown is never sent again as it is.
A second run:    is refused, because the mail is settled.
Runbook:         docs/runbooks/reminder_resolution.md
"""

from __future__ import annotations

from tasks.reminders.action_parameters import ResolutionForm
from tasks.reminders.action_steps import open_action, resolve_mail
from tasks.steps import business_flow


@business_flow()
def reminder_resolution(parameters: ResolutionForm) -> dict[str, int]:
    """Settle the mail and return its new state."""
    with open_action("reminder_resolution", parameters) as run:
        return resolve_mail(run, parameters)
