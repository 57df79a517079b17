"""What customer_import does with its feeds, named for the flow."""

from __future__ import annotations

from tasks.artifacts import summary
from tasks.customers.store import apply_contacts, apply_organizations
from tasks.feeds.steps import Applies, FeedRun
from tasks.steps import READ_STEP, publish_summary, step

# Organisations first: a contact waits in quarantine until its organisation is there.
CUSTOMER_FEEDS: Applies = {"organizations": apply_organizations, "contacts": apply_contacts}
CUSTOMER_REPLAYS: Applies = {"contacts": apply_contacts}


@step(READ_STEP)
def report_customers(run: FeedRun, totals: dict[str, int]) -> None:
    """Publish the run's summary: rows by outcome and rows that came back from quarantine."""
    facts = {name.replace("_", " "): count for name, count in totals.items() if count}
    publish_summary("customer-import-summary", summary(f"customer_import as of {run.run.as_of}", facts))
