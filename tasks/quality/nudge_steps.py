"""What quality_nudge does: one letter a week to every owner who has something to mend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine

from configs.settings import Settings, load_settings
from tasks.artifacts import summary
from tasks.database import engine_for
from tasks.errors import BadInput, DependencyDown, PartlyDone
from tasks.ledger import Run
from tasks.letters import Mailbox
from tasks.mailer import Mailer, open_mailer, own_people
from tasks.quality.nudge_store import is_reserved, record, reserve
from tasks.quality.nudges import mailboxes_of, nudge, week_of
from tasks.quality.pages_store import fetch_owner_rows, fetch_owners
from tasks.steps import READ_STEP, SEND_STEP, current_actor, log_event, open_run, publish_summary, step


class NudgeParameters(BaseModel):
    """Parameters of quality_nudge; the form in Prefect's pages is made from them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date | None = Field(default=None, description="Business date of the run; empty means today.")
    dry_run: bool = Field(default=True, description="Say who would be written to, and write to nobody.")


@dataclass(frozen=True)
class NudgeRun:
    """One run of quality_nudge: its ledger entry, where it works, and what the person said."""

    run: Run
    settings: Settings
    engine: Engine
    parameters: NudgeParameters


@contextmanager
def open_nudge_run(parameters: NudgeParameters) -> Iterator[NudgeRun]:
    """Hold the flow's lock and ledger entry for a ``with`` block.

    Raises:
        Locked: the flow is running already.
    """
    settings = load_settings()
    as_of = parameters.as_of or datetime.now(ZoneInfo(settings.business_timezone)).date()
    engine = engine_for(settings, purpose="kontor quality_nudge")
    with open_run(engine, "quality_nudge", as_of=as_of, dry_run=parameters.dry_run, actor=current_actor()) as run:
        yield NudgeRun(run, settings, engine, parameters)


@step(READ_STEP)
def read_owners(run: NudgeRun) -> list[str]:
    """Every owner with something to mend who has not been written to this week."""
    with run.engine.connect() as connection:
        owners = fetch_owners(connection, run.run.as_of)
        return [owner for owner in owners if not is_reserved(connection, owner, week_of(run.run.as_of))]


@step(SEND_STEP)
def write_to_owners(run: NudgeRun, owners: Sequence[str]) -> dict[str, int]:
    """Write to each owner; returns the letters by outcome, and how many owners have no address.

    Order: reserve, commit, send, record. A run that is killed between leaves a reservation, and nobody is written to
    twice; the week after begins anew.
    """
    teams = {"finance": own_people(run.settings, "finance"), "data engineering": own_people(run.settings, "engineers")}
    if run.parameters.dry_run:
        counts = Counter("would_write" if mailboxes_of(owner, teams) else "without_address" for owner in owners)
    else:
        with open_mailer(run.settings) as mailer:
            counts = Counter(_write(run, mailer, owner, teams) for owner in owners)
    found = {f"letters_{name}": count for name, count in sorted(counts.items())}
    run.run.note(found)
    log_event("owners_written_to", run_id=run.run.run_id, **found)
    return found


def _write(run: NudgeRun, mailer: Mailer, owner: str, teams: Mapping[str, Sequence[Mailbox]]) -> str:
    to = mailboxes_of(owner, teams)
    if not to:
        return "without_address"
    day, week = run.run.as_of, week_of(run.run.as_of)
    with run.engine.begin() as connection:
        rows, solved = fetch_owner_rows(connection, owner, day)
        if not rows:
            return "nothing_open"
        if not reserve(connection, owner, week, len(rows), run.run.run_id):
            return "written_before"
    try:
        sender = run.settings.mail_from or ""
        outcome: str = mailer.deliver(nudge(owner, to, sender, day, rows, solved, datetime.now(UTC))).outcome
    except BadInput:
        outcome = "refused"  # its address is none: the rule about owners is for a person to mend
    except DependencyDown:
        outcome = "deferred"
    with run.engine.begin() as connection:
        record(connection, owner, week, outcome)
    return outcome


@step(READ_STEP)
def report_nudges(run: NudgeRun, counts: Mapping[str, int]) -> None:
    """Publish how many were written to; nobody is named."""
    facts = {name.replace("_", " "): count for name, count in counts.items()}
    publish_summary("quality-nudge-summary", summary(f"quality_nudge as of {run.run.as_of}", facts))


def conclude(counts: Mapping[str, int]) -> None:
    """End the flow failed, not green, where a letter could not be handed over.

    Raises:
        PartlyDone: with the counts of those.
    """
    bad = {name: count for name, count in counts.items() if name in ("letters_refused", "letters_deferred")}
    if bad:
        told = ", ".join(f"{count} {name.removeprefix('letters_')}" for name, count in bad.items())
        raise PartlyDone(
            f"Some letters did not leave: {told}. The others did; nobody is written to twice.",
            hint="See docs/runbooks/quality_nudge.md; the pages under KONTOR_HOME/reports/data_quality say the same.",
        )
