"""Keep the product catalogue current: what is sold, at which prices, and how much of it is where.

Does:            takes in every new catalogue file, whole or with changes only, and currency rates.
Reads:           the inbox (or the files named) and their contracts.
Writes:          products, prices with their validity, stock, packages, rates, quarantine, one ledger entry per file;
                 pairs of products that may be one.
Outside effects: a mail to the catalogue's owner where something needs a look; files taken in move from the inbox to the
                 archive. A dry run writes a workbook of differences.
A second run:    changes nothing; a run killed at any point is made up for by the next one.
Runbook:         docs/runbooks/catalog_upsert.md
"""

from __future__ import annotations

from tasks.catalog.difference import FileDifference
from tasks.catalog.steps import CATALOG_FEEDS, feeds_of, mail_owner, report_catalog, report_differences
from tasks.feeds.parameters import FeedParameters
from tasks.feeds.steps import conclude, find_files, open_feed_run, report_files, take_in_all
from tasks.quality.duplicate_steps import note_new_products
from tasks.steps import business_flow

EVERYTHING_NEW = FeedParameters()


@business_flow()
def catalog_upsert(parameters: FeedParameters = EVERYTHING_NEW) -> dict[str, int]:
    """Take in what the warehouse and the suppliers sent and return the counts of rows and files by outcome."""
    with open_feed_run("catalog_upsert", parameters) as run:
        # Check: what is new, and which contract reads it.
        files = find_files(run, list(CATALOG_FEEDS))

        # Read, decide and write: one file, one transaction; a file that cannot be trusted is refused as a whole.
        differences: list[FileDifference] = []
        outcomes = take_in_all(run, files, feeds_of(run, differences))
        note_new_products(run, outcomes)

        # Report: every row accounted for; a refused file ends the run failed, after everything else was done.
        totals = report_files(run, outcomes, 0)
        report_catalog(run, totals)
        report_differences(run, differences)
        mail_owner(run)
        conclude(outcomes)
        return totals
