"""Let mails go that wait for a person: final notices, and those of a run that the brake stopped.

Does:            marks mails as approved; the next run of overdue_reminders passes them through the gate and sends
                 them.
Reads:           the queue of mails.
Writes:          the state of these mails, who approved them and when, one ledger entry.
Outside effects: none; nothing is sent here.
A second run:    finds nothing left to approve and says so.
Runbook:         docs/runbooks/reminder_approval.md
"""

from __future__ import annotations

from tasks.reminders.action_parameters import ApprovalForm
from tasks.reminders.action_steps import approve_mails, open_action
from tasks.steps import business_flow


@business_flow()
def reminder_approval(parameters: ApprovalForm) -> dict[str, int]:
    """Approve and return how many mails may go."""
    with open_action("reminder_approval", parameters) as run:
        return approve_mails(run, parameters)
