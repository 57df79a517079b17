"""Finding records that may be one: after an import what changed, in data_quality all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.quality.steps import QualityRun
from tasks.steps import WRITE_STEP, log_event, step

if TYPE_CHECKING:
    from tasks.feeds.outcomes import FileOutcome
    from tasks.feeds.steps import FeedRun

MOST_PRODUCTS = 50_000


@step(WRITE_STEP)
def note_new_duplicates(run: FeedRun) -> dict[str, int]:
    """Compare what this import changed with all that is there; returns the new pairs to review, by kind of record."""
    if run.given.dry_run:
        return {}
    from tasks.quality.duplicates_store import note_duplicates  # a second that checking the data need not wait for

    with run.engine.begin() as connection:
        found = note_duplicates(connection, run.run.run_id, run.run.as_of, everything=False)
    run.run.note(found)
    log_event("duplicates_noted", run_id=run.run.run_id, **found)
    return found


@step(WRITE_STEP)
def note_new_products(run: FeedRun, outcomes: Sequence[FileOutcome]) -> dict[str, int]:
    """Compare what this import changed of a catalogue with the rest of it; returns the new pairs to review.

    A file that changes very many products is compared by the next data_quality, so that it is not waited for here.
    """
    changed = sum(outcome.inserted + outcome.updated for outcome in outcomes)
    if run.given.dry_run or not 0 < changed <= MOST_PRODUCTS:
        return {}
    from tasks.quality.duplicates_store import note_duplicates

    with run.engine.begin() as connection:
        found = note_duplicates(connection, run.run.run_id, run.run.as_of, everything=False, entities=("product",))
    run.run.note(found)
    log_event("duplicates_noted", run_id=run.run.run_id, **found)
    return found


@step(WRITE_STEP)
def compare_records(run: QualityRun) -> dict[str, int]:
    """Make the keys of what changed and compare all records; a dry run makes nothing and compares nothing."""
    if run.parameters.dry_run or not run.parameters.compare_records:
        return {}
    from tasks.quality.duplicates_store import ENTITIES, note_duplicates  # a second that no check need wait for

    with run.engine.begin() as connection:
        found = note_duplicates(connection, run.run.run_id, run.as_of, everything=True, entities=ENTITIES,
                                splink=run.parameters.splink)  # fmt: skip
    run.run.note(found)
    log_event("records_compared", run_id=run.run.run_id, **found)
    return found
