"""The steps that every feed's flow shares: open the run, find the files, take them in, replay, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from configs.settings import Settings, load_settings
from tasks.database import engine_for
from tasks.erasures.keys import key_of
from tasks.erasures.suppression_store import anybody_erased, forget_in_file
from tasks.errors import BadInput, KontorError, Locked, PartlyDone, UsageError
from tasks.feeds.confined import warm_up
from tasks.feeds.contracts import FeedContract, load_contract
from tasks.feeds.folding import fold
from tasks.feeds.guards import check_names
from tasks.feeds.headings import alias_ranks
from tasks.feeds.inbox import unclaimed_files
from tasks.feeds.intake import (
    Given,
    InboxFile,
    archive,
    find_inbox_files,
    installed_contracts,
    look_at,
    settled_files,
    take_in_file,
)
from tasks.feeds.outcomes import Apply, FileOutcome, outcome_listener
from tasks.feeds.parameters import FeedInstruction, FeedParameters
from tasks.feeds.replay_store import find_awaiting, forget_missing_customers, replay_awaiting
from tasks.history.store import seal_history
from tasks.instructions import fetch_instruction
from tasks.ledger import Run, in_backfill
from tasks.steps import (
    READ_STEP,
    WRITE_STEP,
    Progress,
    current_actor,
    log_event,
    open_run,
    progress_listener,
    publish_counts,
    step,
    tell_prefect,
)

# The event upon which Prefect starts what comes after a flow; told when all that it did is committed.
FILES_TAKEN_IN = "kontor.files.taken-in"

# What a feed's rows are applied by, per feed; each flow brings its own.
Applies = Mapping[str, Apply]


@dataclass(frozen=True)
class FeedRun:
    """One run of a feed's flow: its ledger entry, where it works, and what the person said."""

    run: Run
    settings: Settings
    engine: Engine
    given: Given
    said: FeedInstruction


@contextmanager
def open_feed_run(flow_name: str, parameters: FeedParameters) -> Iterator[FeedRun]:
    """Hold the flow's lock and ledger entry for a ``with`` block.

    Raises:
        Locked: the flow is running already.
        UsageError: a guard is overruled without a reason, or there is no guard of that name.
    """
    settings = load_settings()
    today = datetime.now(ZoneInfo(settings.business_timezone)).date()
    as_of = parameters.as_of or today
    engine = engine_for(settings, purpose=f"kontor {flow_name}")
    said = _said(engine, flow_name, parameters)
    given = Given(
        today,
        parameters.file_as_of,
        parameters.revision,
        parameters.accept_guards,
        parameters.dry_run,
        said.reason,
        key_of(settings.home),
    )
    with open_run(engine, flow_name, as_of=as_of, dry_run=parameters.dry_run, actor=current_actor()) as run:
        log_event("run_opened", flow=flow_name, run_id=run.run_id, as_of=as_of, dry_run=str(parameters.dry_run))
        opened = FeedRun(run, settings, engine, given, said)
        yield opened
        if not parameters.dry_run:
            seal_changes(opened)


def _said(engine: Engine, flow_name: str, parameters: FeedParameters) -> FeedInstruction:
    with engine.connect() as connection:
        said = fetch_instruction(connection, flow_name, parameters.instruction, FeedInstruction)
    if parameters.accept_guards and not said.reason.strip():
        raise UsageError(
            "A guard is overruled without a reason.",
            hint="kontor import FILE --accept-guard NAME --reason 'why this is right'.",
        )
    check_names(parameters.accept_guards)
    return said


@step(WRITE_STEP)
def seal_changes(run: FeedRun) -> int:
    """Seal the history of what was changed, in a transaction of its own; returns the entries sealed.

    Where somebody else is writing the next run seals.
    """
    try:
        with run.engine.begin() as connection:
            sealed = seal_history(connection, now=datetime.now(UTC), actor=current_actor())
    except Locked:
        log_event("history_not_sealed", run_id=run.run.run_id)
        return 0
    log_event("history_sealed", run_id=run.run.run_id, entries=sealed.entries, seal=sealed.newest_seal)
    return sealed.entries


@step(READ_STEP)
def find_files(run: FeedRun, feeds: Sequence[str]) -> list[InboxFile]:
    """The files to take in: the ones named, else those in the inbox that a contract of these feeds claims."""
    if run.said.files:
        contract = _named_contract(run.said, feeds)
        known = [] if contract else installed_contracts(run.settings.home, feeds)
        found = [InboxFile(Path(name), contract or _contract_by_name(Path(name), known)) for name in run.said.files]
    else:
        there = find_inbox_files(run.settings.inbox_path, installed_contracts(run.settings.home, feeds))
        if there:
            warm_up()  # the reading process loads while the files are looked at
        found = settled_files(there)
        if len(found) < len(there):
            log_event("files_still_being_written", run_id=run.run.run_id, files=len(there) - len(found))
    log_event("files_found", run_id=run.run.run_id, files=len(found))
    # In the order in which feeds build on each other, so that a row need not wait for the next file.
    return sorted(found, key=lambda file: list(feeds).index(file.contract.feed))


def _named_contract(said: FeedInstruction, feeds: Sequence[str]) -> FeedContract | None:
    if said.contract is None:
        return None
    try:
        contract = load_contract(said.contract)
    except KontorError as error:
        error.names |= said.names()
        raise
    if contract.feed not in feeds:
        raise UsageError(
            f"Contract {contract.name} describes {contract.feed}; this flow takes {', '.join(feeds)}.",
            hint="Start the flow that takes this feed, or use `kontor import`, which picks it by the contract.",
        )
    return contract


def _contract_by_name(path: Path, known: Sequence[FeedContract]) -> FeedContract:
    for file in find_inbox_files(path.parent, known):
        if file.path.name == path.name:
            return file.contract
    raise UsageError(
        f"No contract claims {path.name} by its name.",
        hint="Say which one with --contract NAME; `kontor contracts list` shows them.",
        names={path.name: "the file"},
    )


@step(WRITE_STEP)
def take_in(run: FeedRun, file: InboxFile, applies: Applies) -> FileOutcome:
    """Take one file in, in one transaction, and archive it; a second try finds it known and only archives it."""
    seen = look_at(file.path)
    outcome = take_in_file(run.engine, file, given=run.given, run_id=run.run.run_id, apply=applies[file.contract.feed])
    if outcome.state != "refused" and not run.given.dry_run:
        kept = archive(file, outcome, home=run.settings.home, inbox=run.settings.inbox_path, seen=seen)
        if kept is None:
            log_event("file_replaced_meanwhile", run_id=run.run.run_id)
        else:
            forget_erased(run, kept, file.contract)
    log_event("file_taken_in", run_id=run.run.run_id, state=outcome.state, as_of=outcome.as_of, **outcome.counts())
    return outcome


# Columns that say what a firm is called; its number and its sums stay.
_NAMES_A_FIRM = {"customer_name", "name", "vat_number", "owner"}


def forget_erased(run: FeedRun, kept: Path, contract: FeedContract) -> None:
    """Take those who asked to be erased out of the archive's copy; killed before, the next delivery or purge does."""
    if run.given.erasure_key is None:
        return
    ranks = alias_ranks(contract)

    def names(heading: str) -> bool:
        return ranks.get(fold(heading), ("",))[0] in _NAMES_A_FIRM

    with run.engine.connect() as connection:
        if anybody_erased(connection) and forget_in_file(connection, kept, run.given.erasure_key, names):
            log_event("erased_taken_out_of_archive", run_id=run.run.run_id)


def take_in_all(run: FeedRun, files: Sequence[InboxFile], applies: Applies) -> list[FileOutcome]:
    """Take the files in one after another, telling the progress; returns the outcomes in the same order."""
    outcomes = []
    with Progress(f"{run.run.flow}-files", len(files), "Files taken in", on_change=progress_listener.get()) as progress:
        for file in files:
            outcomes.append(take_in(run, file, applies))
            progress.advance()
    return outcomes


@step(WRITE_STEP)
def replay_rows(run: FeedRun, applies: Applies) -> int:
    """Take quarantined rows in whose customer has arrived since; returns how many, one transaction a file."""
    replayed = 0
    if run.given.dry_run:
        return replayed
    with run.engine.begin() as connection:
        forget_missing_customers(connection, list(applies))
        awaiting = find_awaiting(connection, list(applies))
    for file in awaiting:
        with run.engine.begin() as connection:
            applied = replay_awaiting(connection, file, run_id=run.run.run_id, apply=applies[file.feed])
        replayed += applied.rows
    if replayed:
        log_event("rows_replayed", run_id=run.run.run_id, rows=replayed)
    return replayed


@step(READ_STEP)
def report_files(run: FeedRun, outcomes: Sequence[FileOutcome], replayed: int) -> dict[str, int]:
    """Publish what became of every file and note the sums in the run ledger; returns the sums."""
    listener = outcome_listener.get()
    if listener is not None:
        listener(outcomes)
    # By its content, as report.feed_files has it too: an artifact is no place for what somebody called a file.
    rows = [
        {"sha256": o.short_sha256, "contract": o.contract, "as_of": o.as_of, "state": o.state, **o.counts()}
        for o in outcomes
    ]
    publish_counts(f"{run.run.flow}-files", "What became of every row of every file", rows)
    totals = {name: sum(o.counts()[name] for o in outcomes) for name in FileOutcome.count_names()}
    states = ("applied", "superseded", "known", "refused")
    totals |= {f"files_{state}": sum(o.state == state for o in outcomes) for state in states}
    totals["replayed"] = replayed
    totals["files_unclaimed"] = len(unclaimed_files(run.settings.inbox_path, run.settings.home))
    run.run.note(totals)
    if totals["files_applied"] and not run.given.dry_run and not in_backfill():
        tell_prefect(FILES_TAKEN_IN, run.run.flow, run_id=run.run.run_id, files=totals["files_applied"])
    return totals


def conclude(outcomes: Sequence[FileOutcome]) -> None:
    """End the flow failed, not green, where a file was refused.

    Raises:
        BadInput: nothing could be taken in.
        PartlyDone: some files were taken in, the named ones were not.
    """
    refused = [outcome for outcome in outcomes if outcome.state == "refused"]
    if not refused:
        return
    told = "\n".join(
        f"{o.file_name} was refused; nothing of it was applied.{''.join(f'{chr(10)}  - {r}' for r in o.reasons)}"
        for o in refused
    )
    hint = next((o.hint for o in refused if o.hint), "Correct the file or its contract and run the flow again.")
    names = {name: "another file" for o in refused for name in o.mentions}
    names |= {o.file_name: f"The file with SHA-256 {o.short_sha256}…" for o in refused}
    if len(refused) == len(outcomes):
        raise BadInput(told, hint=hint, names=names)
    taken = len(outcomes) - len(refused)
    raise PartlyDone(f"{taken} of {len(outcomes)} files were taken in.\n{told}", hint=hint, names=names)
