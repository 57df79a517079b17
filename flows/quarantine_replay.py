"""Take corrected rows out of quarantine, or give rows up for good with a reason.

Does:            compares a returned workbook with what is held, checks the corrected rows again and takes them in.
Reads:           the workbook, the contracts of the files its rows stood in, the quarantine, customers.
Writes:          invoices, customers, contacts, products; the quarantine, corrections, the files' counts, payer classes.
Outside effects: a workbook beside the returned one with the rows that still cannot be used. Nobody is written to.
A second run:    finds the rows settled and changes nothing; a run killed at any point is made up for by the next one.
Runbook:         docs/runbooks/quarantine_replay.md
"""

from __future__ import annotations

from tasks.catalog.steps import CATALOG_FEEDS
from tasks.customers.corrections_store import apply_corrected_contacts
from tasks.customers.steps import CUSTOMER_FEEDS, CUSTOMER_REPLAYS
from tasks.feeds.correction_parameters import ReplayParameters
from tasks.feeds.correction_steps import (
    conclude,
    hand_out_again,
    open_replay,
    read_returned,
    replay_all,
    report_corrections,
)
from tasks.feeds.steps import replay_rows
from tasks.payments.steps import PAYMENT_REPLAYS, classify_payers
from tasks.steps import business_flow

NOTHING = ReplayParameters()
CORRECTED = {**CUSTOMER_FEEDS, "contacts": apply_corrected_contacts, **PAYMENT_REPLAYS, **CATALOG_FEEDS}


@business_flow()
def quarantine_replay(parameters: ReplayParameters = NOTHING) -> dict[str, int]:
    """Take in what was corrected and return the counts of rows by outcome."""
    with open_replay(parameters) as run:
        # Check: which lines are ours, what changed in them, and whether they still mean what is held now.
        returned = read_returned(run, parameters)

        # Write: one file, one transaction; then the rows that waited for a customer who is there now.
        outcomes = replay_all(run, returned, CORRECTED)
        replayed = replay_rows(run, {**CUSTOMER_REPLAYS, **PAYMENT_REPLAYS})
        classify_payers(run)

        # Report: what still cannot be used goes back with its new reason; the run ends failed if there is any.
        remaining = hand_out_again(run, parameters, returned, outcomes)
        totals = report_corrections(run, returned, outcomes, replayed)
        conclude(returned, outcomes, remaining)
        return totals
