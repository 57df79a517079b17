"""The steps of quarantine_replay: read what came back, match it, take it in file by file, hand out what is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from tasks.artifacts import summary
from tasks.erasures.egress_store import log_egress
from tasks.errors import BadInput, FileRefused, KontorError, PartlyDone, UsageError
from tasks.feeds.confined import read_confined
from tasks.feeds.contracts import FeedContract
from tasks.feeds.correction_parameters import ReplayInstruction, ReplayParameters
from tasks.feeds.correction_workbook import (
    HandedOut,
    remaining_path,
    returned_contract,
    returned_rows,
    write_corrections,
)
from tasks.feeds.corrections import (
    CorrectedRow,
    HeldRow,
    Matched,
    ReturnedRow,
    contracts_named,
    match_returned,
    row_id_of,
)
from tasks.feeds.corrections_store import FileCorrected, replay_corrected
from tasks.feeds.held_store import Selection, fetch_held
from tasks.feeds.parameters import FeedParameters
from tasks.feeds.steps import Applies, FeedRun, open_feed_run
from tasks.instructions import fetch_instruction
from tasks.steps import READ_STEP, WRITE_STEP, current_actor, log_event, publish_counts, publish_summary, step

FLOW = "quarantine_replay"
_TOLD = 20


@dataclass(frozen=True)
class Returned:
    """What is to be done: the comparison, the rows it speaks of as they were compared, and their contracts."""

    matched: Matched
    held: dict[int, HeldRow]
    contracts: dict[str, FeedContract]


def open_replay(parameters: ReplayParameters) -> AbstractContextManager[FeedRun]:
    """Hold the flow's lock and ledger entry for a ``with`` block.

    Raises:
        Locked: the flow is running already.
    """
    return open_feed_run(FLOW, FeedParameters(as_of=parameters.as_of, dry_run=parameters.dry_run))


def _said(run: FeedRun, parameters: ReplayParameters) -> ReplayInstruction:
    """What was said about the workbook or the rows to reject.

    Raises:
        UsageError: there is neither a workbook nor a row to reject, or one is rejected without a reason.
    """
    with run.engine.connect() as connection:
        said = fetch_instruction(connection, FLOW, parameters.instruction, ReplayInstruction)
    if bool(said.workbook) == bool(parameters.reject):
        raise UsageError(
            "quarantine_replay takes either a workbook that came back or rows to reject.",
            hint="kontor quarantine replay FILE, or kontor quarantine reject ROW-ID --reason '…'.",
        )
    if parameters.reject and not said.reason.strip():
        raise UsageError("A row is rejected without a reason.", hint="Add --reason 'why it will never be used'.")
    return said


@step(READ_STEP)
def read_returned(run: FeedRun, parameters: ReplayParameters) -> Returned:
    """What the workbook, or the list of rows to reject, asks for, compared with what is held now."""
    said = _said(run, parameters)
    if said.workbook is None:
        returned = _to_reject(run, parameters.reject, said)
    else:
        lines = _lines(Path(said.workbook))
        ids = tuple(row_id for line in lines if (row_id := row_id_of(line.token)) is not None)
        held = _held(run, ids)
        contracts = _contracts(run, held.values(), said)
        returned = Returned(match_returned(lines, held, contracts), held, contracts)
    log_event(
        "corrections_compared",
        run_id=run.run.run_id,
        wanted=len(returned.matched.wanted),
        problems=len(returned.matched.problems),
        resolved=returned.matched.resolved,
        untouched=returned.matched.untouched,
    )
    return returned


def _lines(workbook: Path) -> list[ReturnedRow]:
    """The lines of the workbook that came back.

    Raises:
        FileRefused: it cannot be read, or it is another workbook; the hint says which one is wanted.
    """
    try:
        return list(returned_rows(read_confined(workbook, returned_contract())))
    except FileRefused as refused:
        if any("heading" in reason or "required column" in reason for reason in refused.reasons):
            raise FileRefused(
                workbook.name,
                ["it is not a workbook that `kontor quarantine export` wrote: it has no column of row ids"],
                hint="Give back the exported workbook itself, saved as .xlsx with all its columns; a sender's file goes"
                " in with `kontor import`. `kontor quarantine export --out FILE` writes a fresh one.",
            ) from None
        raise


def _held(run: FeedRun, row_ids: tuple[int, ...]) -> dict[int, HeldRow]:
    with run.engine.connect() as connection:
        return {row.row_id: row for row in fetch_held(connection, Selection(state=None, row_ids=row_ids))}


def _contracts(run: FeedRun, rows: Iterable[HeldRow], said: ReplayInstruction) -> dict[str, FeedContract]:
    names = {row.contract for row in rows if row.state == "open"}
    try:
        return contracts_named(names, home=run.settings.home, given=said.contracts)
    except KontorError as error:
        error.names |= dict.fromkeys(said.contracts, "a contract")
        raise


def _to_reject(run: FeedRun, row_ids: tuple[int, ...], said: ReplayInstruction) -> Returned:
    held = _held(run, row_ids)
    wanted, problems = [], []
    for row_id in dict.fromkeys(row_ids):
        state = held[row_id].state if row_id in held else "unknown here"
        if state == "open":
            wanted.append(CorrectedRow(row_id, 0, {}, said.reason.strip()))
        elif state != "rejected":
            problems.append(f"row {row_id} is {state}, so it cannot be rejected")
    resolved = len(set(row_ids)) - len(wanted) - len(problems)
    contracts = _contracts(run, held.values(), said)
    return Returned(Matched(tuple(wanted), tuple(problems), resolved, 0), held, contracts)


def replay_all(run: FeedRun, returned: Returned, applies: Applies) -> list[FileCorrected]:
    """Take the corrected rows in, customers before what they owe, then by business date; one outcome per file."""
    by_file: dict[int, list[CorrectedRow]] = {}
    for item in returned.matched.wanted:
        by_file.setdefault(returned.held[item.row_id].feed_file_id, []).append(item)
    files = {file_id: returned.held[items[0].row_id] for file_id, items in by_file.items()}
    order = sorted(files, key=lambda file_id: (list(applies).index(files[file_id].feed), files[file_id].as_of, file_id))
    return [replay_file(run, returned, by_file[file_id], applies) for file_id in order]


@step(WRITE_STEP)
def replay_file(run: FeedRun, returned: Returned, items: Sequence[CorrectedRow], applies: Applies) -> FileCorrected:
    """Take the corrected rows of one file in, in one transaction; a second try finds them settled."""
    first = returned.held[items[0].row_id]
    with run.engine.connect() as connection, connection.begin() as transaction:
        outcome = replay_corrected(
            connection,
            first.feed_file_id,
            {item.row_id: returned.held[item.row_id].token for item in items},
            items,
            contract=returned.contracts[first.contract],
            run_id=run.run.run_id,
            actor=current_actor(),
            apply=applies[first.feed],
            erasure_key=run.given.erasure_key,
        )
        if run.given.dry_run:
            transaction.rollback()
    log_event("file_corrected", run_id=run.run.run_id, feed_file_id=first.feed_file_id, **_counts(outcome))
    return outcome


@step(WRITE_STEP)
def hand_out_again(
    run: FeedRun, parameters: ReplayParameters, returned: Returned, outcomes: Sequence[FileCorrected]
) -> Path | None:
    """Write every row of the workbook that still waits into a new one, with its reasons of now.

    None where all that was corrected came in; rows that nobody touched wait in the workbook that came back, then.
    """
    said = _said(run, parameters)
    left = any(outcome.still_wrong or outcome.stale for outcome in outcomes) or bool(returned.matched.problems)
    row_ids = tuple(returned.held)
    if not left or not row_ids or said.workbook is None or run.given.dry_run:
        return None
    target = Path(said.remaining or remaining_path(Path(said.workbook), run.given.business_today))
    with run.engine.connect() as connection:
        rows = export_rows(connection, Selection(row_ids=row_ids), returned.contracts)
    if not rows:
        return None
    with run.engine.begin() as connection:
        log_egress(
            connection,
            what="quarantine replay, what is left",
            form="xlsx",
            rows=len(rows),
            columns=["cells"],
            actor=current_actor(),
            now=datetime.now(UTC),
        )
    write_corrections(rows, target)
    return target


def export_rows(connection: Connection, selection: Selection, contracts: dict[str, FeedContract]) -> list[HandedOut]:
    """The open rows of a selection with their contracts; rows of files that were replaced are left out."""
    held = fetch_held(connection, selection)
    return [HandedOut(row, contracts[row.contract]) for row in held if row.file_state == "applied"]


def _counts(outcome: FileCorrected) -> dict[str, int]:
    return {
        "corrected": outcome.taken_in,
        "freed": outcome.freed,
        "rejected": outcome.rejected,
        "still_wrong": len(outcome.still_wrong),
        "stale": len(outcome.stale),
        "inserted": outcome.applied.inserted,
        "updated": outcome.applied.updated,
        "unchanged": outcome.applied.unchanged,
        "superseded": outcome.applied.superseded,
        "settled": outcome.applied.settled,
    }


@step(READ_STEP)
def report_corrections(
    run: FeedRun, returned: Returned, outcomes: Sequence[FileCorrected], replayed: int
) -> dict[str, int]:
    """Publish what became of every row, and note the sums in the run ledger; returns the sums."""
    rows = [{"feed_file_id": o.feed_file_id, "contract": o.contract, **_counts(o)} for o in outcomes]
    publish_counts("quarantine-replay-files", "What became of the corrected rows of every file", rows)
    names = list(_counts(FileCorrected(0, "", "")))
    totals = {name: sum(_counts(outcome)[name] for outcome in outcomes) for name in names}
    totals |= {
        "problems": len(returned.matched.problems),
        "resolved_before": returned.matched.resolved,
        "untouched": returned.matched.untouched,
        "replayed": replayed,
    }
    run.run.note(totals)
    facts = {name.replace("_", " "): count for name, count in totals.items() if count}
    publish_summary("quarantine-replay-summary", summary(f"quarantine_replay as of {run.run.as_of}", facts))
    return totals


def conclude(returned: Returned, outcomes: Sequence[FileCorrected], remaining: Path | None) -> None:
    """End the flow failed, not green, where a correction could not be taken.

    Raises:
        BadInput: none could be.
        PartlyDone: some were; the text names the others and where they are now.
    """
    problems = list(returned.matched.problems)
    problems += [f"row {i} changed while this run was comparing; export it again" for o in outcomes for i in o.stale]
    still = [row_id for outcome in outcomes for row_id in outcome.still_wrong]
    if still:
        what = "1 corrected row" if len(still) == 1 else f"{len(still)} corrected rows"
        problems.append(f"{what} still cannot be used: {_few(still)}")
    if not problems:
        return
    told = "".join(f"\n  - {problem}" for problem in problems[:_TOLD])
    more = f"\n  - and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
    done = sum(outcome.taken_in + outcome.rejected for outcome in outcomes)
    hint = (
        f"The rows and their new reasons stand in {remaining.name}; correct that workbook and replay it."
        if remaining is not None
        else "`kontor quarantine export --out FILE` writes a fresh workbook of what is open now."
    )
    if done:
        were = "1 row was" if done == 1 else f"{done} rows were"
        raise PartlyDone(f"{were} settled; some corrections were not taken.{told}{more}", hint=hint)
    raise BadInput(f"No correction was taken.{told}{more}", hint=hint)


def _few(row_ids: Sequence[int]) -> str:
    shown = ", ".join(f"row {row_id}" for row_id in row_ids[:_TOLD])
    return shown + (" …" if len(row_ids) > _TOLD else "")
