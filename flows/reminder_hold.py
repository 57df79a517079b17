"""Hold reminders back for a customer or an invoice, or note a promise to pay.

Does:            puts a hold in place that every plan and every gate obeys, until its last day or until released.
Reads:           customers and invoices.
Writes:          one hold with its author and reason, one ledger entry.
Outside effects: none.
A second run:    puts a second, equal hold in place, which changes nothing in effect.
Runbook:         docs/runbooks/reminder_hold.md
"""

from __future__ import annotations

from tasks.reminders.action_parameters import HoldForm
from tasks.reminders.action_steps import open_action, put_hold
from tasks.steps import business_flow


@business_flow()
def reminder_hold(parameters: HoldForm) -> dict[str, int]:
    """Put the hold in place and return its number."""
    with open_action("reminder_hold", parameters) as run:
        return put_hold(run, parameters)
