"""What catalog_upsert does with its feeds, named for the flow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tasks.artifacts import summary
from tasks.catalog.difference import FileDifference, as_workbook, shown_rows, workbook_name
from tasks.catalog.measures_store import measure_catalog
from tasks.catalog.news_store import read_news
from tasks.catalog.owner_mail import owner_letter
from tasks.catalog.rates_store import apply_rates
from tasks.catalog.store import apply_catalog
from tasks.errors import DependencyDown, KontorError
from tasks.feeds.outcomes import Braked
from tasks.feeds.steps import Applies, FeedRun
from tasks.letters import mailbox
from tasks.mailer import own_people, send_report
from tasks.steps import READ_STEP, SEND_STEP, log_event, publish_counts, publish_summary, step

# Rates first: prices of the same delivery are compared by them.
CATALOG_FEEDS: Applies = {"currency_rates": apply_rates, "catalog": Braked(apply_catalog, measure_catalog)}


def feeds_of(run: FeedRun, differences: list[FileDifference]) -> Applies:
    """How the run applies its feeds; a dry run notes what each file would change in ``differences``."""
    if not run.given.dry_run:
        return CATALOG_FEEDS
    noting = partial(apply_catalog, differences=differences)
    return {**CATALOG_FEEDS, "catalog": Braked(noting, measure_catalog)}


@step(READ_STEP)
def report_catalog(run: FeedRun, totals: dict[str, int]) -> None:
    """Publish the run's summary: rows by outcome and products that are no longer listed."""
    named = {"settled": "products discontinued"}
    facts = {named.get(name, name.replace("_", " ")): count for name, count in totals.items() if count}
    publish_summary("catalog-upsert-summary", summary(f"catalog_upsert as of {run.run.as_of}", facts))


@step(READ_STEP)
def report_differences(run: FeedRun, differences: Sequence[FileDifference]) -> list[Path]:
    """Publish what each file of a dry run would change and write it as workbooks; returns where they are.

    Raises:
        DependencyDown: a workbook cannot be written, for example because the disk is full.
    """
    folder = run.settings.home / "outputs"
    written = []
    for difference in differences:
        key, title = f"catalog-difference-{difference.sha256[:12]}", "What the file would change, its first rows"
        publish_counts(key, title, shown_rows(difference))
        target = folder / workbook_name(difference.sha256)
        partial_file = target.with_name(f".{target.name}.part")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial_file.write_bytes(as_workbook(difference, now=datetime.now(UTC)))
            partial_file.replace(target)
        except OSError as error:
            partial_file.unlink(missing_ok=True)
            raise DependencyDown(
                f"What the file would change cannot be written to {folder}: {error.strerror}. Nothing was applied.",
                hint="Free space there or correct its rights, then run the dry run again.",
            ) from error
        written.append(target)
        log_event("difference_written", run_id=run.run.run_id, sha256=difference.sha256[:12], **difference.totals)
    return written


@step(SEND_STEP)
def mail_owner(run: FeedRun) -> str:
    """Write to the catalogue's owner what of this run needs a look, and return what became of the mail.

    Nothing is sent by a dry run, where nothing needs a look, and where the settings name nobody. A mail that cannot be
    sent does not undo the run: it is told in the log and counted.
    """
    people = tuple(mailbox(part) for part in run.settings.catalog_emails.split(",") if part.strip())
    to = people or own_people(run.settings, "engineers")
    if run.given.dry_run or not to:
        return "not asked for"
    with run.engine.connect() as connection:
        news = read_news(connection, run.run.run_id, run.run.as_of)
    if not news.needs_a_look:
        return "nothing to say"
    letter = owner_letter(news, to, run.settings.mail_from, now=datetime.now(UTC))
    try:
        outcome = str(send_report(run.settings, letter).outcome)
    except KontorError as error:
        log_event("owner_not_written_to", level=logging.WARNING, run_id=run.run.run_id, kind=type(error).__name__)
        outcome = "failed"
    run.run.note({f"mails_{outcome}": 1})
    return outcome
