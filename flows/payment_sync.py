"""Bring accounting's files into the ledger: who owes what, who has paid, who pays well.

Does:            takes in every new file of open items, settled items and payments, then decides the payer classes anew.
Reads:           the inbox (or the files named), their contracts, customers, rules of payer classes.
Writes:          invoices and their history, payments and what they pay, quarantine, payer classes, ledger entries.
Outside effects: none; files taken in move from the inbox to the archive. Nobody is written to.
A second run:    changes nothing; a run killed at any point is made up for by the next one.
Runbook:         docs/runbooks/payment_sync.md
"""

from __future__ import annotations

from tasks.feeds.parameters import FeedParameters
from tasks.feeds.steps import conclude, find_files, open_feed_run, replay_rows, report_files, take_in_all
from tasks.payments.steps import (
    PAYMENT_FEEDS,
    PAYMENT_REPLAYS,
    classify_payers,
    match_received,
    report_payments,
    require_rules,
)
from tasks.steps import business_flow

EVERYTHING_NEW = FeedParameters()


@business_flow()
def payment_sync(parameters: FeedParameters = EVERYTHING_NEW) -> dict[str, int]:
    """Take in what accounting sent and return the counts of rows and files by outcome."""
    with open_feed_run("payment_sync", parameters) as run:
        # Check: what is new, which contract reads it, and that the rules hold without which nothing is settled.
        files = find_files(run, list(PAYMENT_FEEDS))
        require_rules(run, files)

        # Read and write: one file, one transaction; a file that cannot be trusted is refused as a whole.
        outcomes = take_in_all(run, files, PAYMENT_FEEDS)
        replayed = replay_rows(run, PAYMENT_REPLAYS)

        # Match: money whose invoice has come since.
        match_received(run)

        # Decide: strict, hesitant, disloyal or unrated, from the facts alone.
        classes = classify_payers(run)

        # Report: every row accounted for; a refused file ends the run failed, after everything else was done.
        totals = report_files(run, outcomes, replayed)
        report_payments(run, totals, classes)
        conclude(outcomes)
        return totals
