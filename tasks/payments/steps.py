"""What payment_sync does with its feeds, and the decision that follows: who pays how."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.artifacts import markdown_table, payer_class_rows, summary
from tasks.feeds.intake import InboxFile
from tasks.feeds.steps import Applies, FeedRun
from tasks.payments.classes import classify
from tasks.payments.ledger_store import apply_ledger
from tasks.payments.receipts_store import apply_payments, match_payments
from tasks.payments.store import apply_replayed, apply_snapshot, claim_classification
from tasks.quality_gate import require_quality
from tasks.steps import READ_STEP, WRITE_STEP, log_event, publish_summary, step

PAYMENT_FEEDS: Applies = {"open_items": apply_snapshot, "settled_items": apply_ledger, "payments": apply_payments}
PAYMENT_REPLAYS: Applies = {"open_items": apply_replayed, "settled_items": apply_ledger, "payments": apply_payments}


@step(READ_STEP)
def require_rules(run: FeedRun, files: Sequence[InboxFile]) -> None:
    """Raise Refused where there are files to settle by and a rule of data quality that this flow requires fails."""
    if files and not run.given.dry_run:
        with run.engine.connect() as connection:
            require_quality(connection, run.run.flow, run.run.as_of)


@step(WRITE_STEP)
def classify_payers(run: FeedRun) -> dict[str, int]:
    """Decide every customer's class again from the earliest day that changed; returns customers per class.

    The word that this is due stands in the database, so a run that was killed before it got here is made up for.
    """
    if run.given.dry_run:
        return {}
    with run.engine.begin() as connection:
        since = claim_classification(connection)
        if since is None:
            return {}
        counts = classify(connection, since)
    log_event("payers_classified", run_id=run.run.run_id, since=since, **counts)
    run.run.note({f"payers_{name}": count for name, count in counts.items()})
    return counts


@step(WRITE_STEP)
def match_received(run: FeedRun) -> int:
    """Match payments whose invoice has come since; returns how many. A killed run's are matched by the next one."""
    if run.given.dry_run:
        return 0
    with run.engine.begin() as connection:
        matched = match_payments(connection)
    run.run.note({"payments_matched": matched} if matched else {})
    return matched


@step(READ_STEP)
def report_payments(run: FeedRun, totals: dict[str, int], classes: dict[str, int]) -> None:
    """Publish the run's summary: rows by outcome, items settled, and customers per payer colour."""
    facts = {name.replace("_", " "): count for name, count in totals.items() if count}
    sections = {"Payer classes": markdown_table(payer_class_rows(classes))} if classes else {}
    publish_summary("payment-sync-summary", summary(f"payment_sync as of {run.run.as_of}", facts, sections))
