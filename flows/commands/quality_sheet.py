"""`kontor quality export|replay`: incidents as a workbook for who can mend them, and the workbook that came back."""

from __future__ import annotations

import csv
import getpass
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.egress import note_egress
from flows.commands.quality import Verbose, quality
from flows.commands.reading import on_database
from flows.commands.running import flows_ready, given_instruction, run_flow
from flows.commands.screen import counted, out, say, settings_in_force, today_in

if TYPE_CHECKING:
    from configs.settings import Settings
    from tasks.feeds.contracts import FeedContract
    from tasks.feeds.correction_workbook import Aside
    from tasks.feeds.corrections import CorrectedRow, HeldRow, Matched
    from tasks.quality.contracts import Rule
    from tasks.quality.mending import Broken, MendedFile

__all__ = ["quality"]

FLOW = "customer_import"
REST_DAYS = 90  # so long may a record stand that somebody lets stand with a reason
_TOLD = 20


@quality.command("export")
def export(
    to: Annotated[Path, typer.Option("--out", dir_okay=False, help="Where the workbook goes.")],
    owner: Annotated[str | None, typer.Option(help="Only incidents of this owner.")] = None,
) -> None:
    """Write open incidents into a workbook: records to mend, for `replay`, and who can mend the others."""
    from tasks.errors import UsageError
    from tasks.feeds.correction_workbook import OF_RECORDS, HandedOut, write_corrections
    from tasks.quality.mending_store import fetch_broken, fetch_elsewhere

    if to.suffix.lower() != ".xlsx":
        raise UsageError(f"{to.name} is not the name of a workbook.", hint="Let --out end with .xlsx.")
    contracts = _contracts()
    records = on_database(lambda connection: fetch_broken(connection, owner=owner))
    paired = [(record, row) for record, row in zip(records, _held(records, contracts), strict=True) if row is not None]
    rows = [HandedOut(row, contracts[row.contract]) for _, row in paired]
    others = on_database(lambda connection: fetch_elsewhere(connection, [record for record, _ in paired], owner))
    if not rows and not others:
        out().print("No incident is open; no workbook was written.")
        return
    note_egress("quality export", "xlsx", len(rows), ("cells",), always=True)
    try:
        write_corrections(rows, to, OF_RECORDS, _elsewhere(others))
    except OSError as error:
        raise UsageError(f"{to.name} cannot be written: {error.strerror}.", hint="Choose another place.") from None
    told = f", and {counted(len(others), 'incident')} that others must mend" if others else ""
    out().print(f"{counted(len(rows), 'record')} to mend{told} written to {to}.")
    if rows:
        out().print(f"When it comes back: kontor quality replay {to}")


def _elsewhere(incidents: Sequence[Mapping[str, object]]) -> Aside:
    """The sheet of what cannot be changed here, with who can."""
    from tasks.feeds.correction_workbook import Aside
    from tasks.quality.mending import ELSEWHERE, NOBODY_ELSE

    shown = ("incident_id", "severity", "owner", "rule_id", "customer_number", "record_key", "reason", "due_on")
    headings = ("Incident", "Severity", "Owner", "Rule", "Customer number", "Record", "What is wrong", "Due on")
    lines = [
        [*(str(row[name] if row[name] is not None else "") for name in shown),
         ELSEWHERE.get(str(row["table_name"]), NOBODY_ELSE)]
        for row in incidents
    ]  # fmt: skip
    return Aside("Mended elsewhere", (*headings, "Who can mend it"), lines)


@quality.command("replay")
def replay(
    workbook: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The workbook that came back.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare and count, but keep nothing.")] = False,
    verbose: Verbose = False,
) -> None:
    """Take a mended workbook back: compare it, take the changes in as a file of corrections, tell the incidents."""
    from tasks.errors import PartlyDone
    from tasks.quality.mending import mended_files

    settings, contracts = settings_in_force(), _contracts()
    matched, records = _compared(workbook, contracts)
    files = mended_files(matched.wanted, records, contracts, today_in(settings))
    resting = [row for row in matched.wanted if row.rejected_because]
    counts = {
        "records changed": sum(1 for file in files for ids in file.incidents if ids),
        "records let stand": len(resting),
        "settled since": matched.resolved,
        "untouched": matched.untouched,
        "lines that cannot be taken": len(matched.problems),
    }
    out().print(", ".join(f"{count} {name}" for name, count in counts.items() if count) or "Nothing stands in it.")
    if dry_run:
        say("This was a dry run: the data is as it was.")
    else:
        _let_stand(settings, resting, records)
        _take_in(settings, files, verbose=verbose)
    if matched.problems:
        told = "\n".join(matched.problems[:_TOLD])
        raise PartlyDone(told, hint="`kontor quality export --out FILE` writes these records as they are now.")


def _contracts() -> dict[str, FeedContract]:
    from tasks.feeds.contracts import load_contract
    from tasks.quality.mending import NAMED_BY

    return {name: load_contract(name) for name in NAMED_BY}


def _held(records: Sequence[Broken], contracts: Mapping[str, FeedContract]) -> list[HeldRow | None]:
    """Each record as a row of the workbook, as its rules say; None where nothing can be mended there."""
    from tasks.quality.mending import handed_out

    rules = _rules()
    return [handed_out(record, rules, contracts[record.contract]) for record in records]


def _rules() -> dict[str, Rule]:
    from tasks.quality.contracts import list_table_contracts

    return {rule.rule_id: rule for contract in list_table_contracts() for rule in contract.rules}


def _compared(workbook: Path, contracts: Mapping[str, FeedContract]) -> tuple[Matched, dict[int, Broken]]:
    """The workbook beside what is stored now, and the records by the incident that their line goes under."""
    from tasks.feeds.confined import read_confined
    from tasks.feeds.correction_workbook import returned_contract, returned_rows
    from tasks.feeds.corrections import match_returned, row_id_of
    from tasks.quality.mending_store import fetch_broken

    lines = returned_rows(read_confined(workbook, returned_contract()))
    ids = [number for line in lines if (number := row_id_of(line.token)) is not None]
    records = on_database(lambda connection: fetch_broken(connection, incident_ids=ids))
    held = {row.row_id: row for row in _held(records, contracts) if row is not None}
    by_line = {int(record.incidents[0]["incident_id"]): record for record in records}
    return match_returned(lines, held, contracts), by_line


def _let_stand(settings: Settings, rows: Sequence[CorrectedRow], records: Mapping[int, Broken]) -> None:
    """Waive the incidents of records that somebody lets stand, for the reason beside them."""
    from datetime import timedelta

    from tasks.quality.incidents_store import waive
    from tasks.stack import connected

    today = today_in(settings)
    until = today + timedelta(days=REST_DAYS)
    with connected(settings, write=True) as connection:
        for row in rows:
            for incident in records[row.row_id].incidents:
                if incident["state"] == "open":
                    number = int(incident["incident_id"])
                    waive(connection, number, until, str(row.rejected_because), getpass.getuser(), today)


def _take_in(settings: Settings, files: Sequence[MendedFile], *, verbose: bool) -> None:
    """Write each file, run customer_import over it and tell its incidents.

    A run that is killed leaves the file beside the other ones; the workbook given again finishes it.
    """
    from tasks.feeds.parameters import FeedInstruction, FeedParameters

    if not files:
        return
    today = today_in(settings)
    folder = settings.home / "corrections"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with flows_ready(settings, verbose=verbose):
        for file in files:
            path, sha256 = _write(folder, file)
            words = FeedInstruction(files=(str(path),), contract=file.contract)
            given = FeedParameters(file_as_of=today, instruction=given_instruction(settings, FLOW, words))
            finished = run_flow(settings, FLOW, given, [path])
            if finished.error is not None:
                raise finished.error
            _tell(settings, file, sha256)
            path.unlink()


def _write(folder: Path, file: MendedFile) -> tuple[Path, str]:
    """Write a file that nobody else can read; returns its path and the SHA-256 of its content."""
    path = folder / f"{file.contract}_{'_'.join(file.headings[1:]).casefold().replace(' ', '_')}.csv"
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(file.headings)
        writer.writerows(file.rows)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def _tell(settings: Settings, file: MendedFile, sha256: str) -> None:
    from tasks.quality.mending_store import note_corrected
    from tasks.stack import connected

    with connected(settings, write=True) as connection:
        counts = note_corrected(connection, file, sha256, today=today_in(settings), actor=getpass.getuser())
    told = [f"{counted(count, 'record')} {name}" for name, count in counts.items() if count]
    out().print(", ".join(told))
    if counts["waiting"]:
        say("What waits is in quarantine with its reason: kontor quarantine list")
