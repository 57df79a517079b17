"""Bring customers, the people there and their roles in from the customer database's own export.

Does:            takes in every new organisations and contacts file, then the rows that waited for a customer.
Reads:           the inbox (or the files named) and their contracts.
Writes:          organisations, contacts, roles, quarantine; invoices whose customer has arrived, with their classes.
Outside effects: none; files taken in move from the inbox to the archive. Nobody is written to.
A second run:    changes nothing; a run killed at any point is made up for by the next one.
Runbook:         docs/runbooks/customer_import.md
"""

from __future__ import annotations

from tasks.customers.steps import CUSTOMER_FEEDS, CUSTOMER_REPLAYS, report_customers
from tasks.feeds.parameters import FeedParameters
from tasks.feeds.steps import conclude, find_files, open_feed_run, replay_rows, report_files, take_in_all
from tasks.payments.steps import PAYMENT_REPLAYS, classify_payers
from tasks.quality.duplicate_steps import note_new_duplicates
from tasks.steps import business_flow

EVERYTHING_NEW = FeedParameters()


@business_flow()
def customer_import(parameters: FeedParameters = EVERYTHING_NEW) -> dict[str, int]:
    """Take in what the customer database exported and return the counts of rows and files by outcome."""
    with open_feed_run("customer_import", parameters) as run:
        # Check: what is new, and which contract reads it; organisations come before their contacts.
        files = find_files(run, list(CUSTOMER_FEEDS))

        # Read and write: one file, one transaction.
        outcomes = take_in_all(run, files, CUSTOMER_FEEDS)

        # Replay: contacts and invoices that waited in quarantine for a customer who is there now.
        replayed = replay_rows(run, {**CUSTOMER_REPLAYS, **PAYMENT_REPLAYS})
        classify_payers(run)
        note_new_duplicates(run)

        # Report: every row accounted for; a refused file ends the run failed, after everything else was done.
        totals = report_files(run, outcomes, replayed)
        report_customers(run, totals)
        conclude(outcomes)
        return totals
