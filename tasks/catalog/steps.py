"""What catalog_upsert does with its feeds, named for the flow."""

from __future__ import annotations

from tasks.artifacts import summary
from tasks.catalog.measures_store import measure_catalog
from tasks.catalog.rates_store import apply_rates
from tasks.catalog.store import apply_catalog
from tasks.feeds.outcomes import Braked
from tasks.feeds.steps import Applies, FeedRun
from tasks.steps import READ_STEP, publish_summary, step

# Rates first: prices of the same delivery are compared by them.
CATALOG_FEEDS: Applies = {"currency_rates": apply_rates, "catalog": Braked(apply_catalog, measure_catalog)}


@step(READ_STEP)
def report_catalog(run: FeedRun, totals: dict[str, int]) -> None:
    """Publish the run's summary: rows by outcome and products that are no longer listed."""
    named = {"settled": "products discontinued"}
    facts = {named.get(name, name.replace("_", " ")): count for name, count in totals.items() if count}
    publish_summary("catalog-upsert-summary", summary(f"catalog_upsert as of {run.run.as_of}", facts))
