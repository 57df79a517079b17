"""`kontor quarantine export|replay|reject|show|totals`: rows that could not be used, corrected by who can."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flows.commands.egress import note_egress
from flows.commands.reading import on_database, quarantine
from flows.commands.running import Finished, flows_ready, given_instruction, run_flow
from flows.commands.screen import AsList, ListFormat, counted, out, say, settings_in_force

if TYPE_CHECKING:
    from tasks.feeds.corrections import CurrencyTotal, HeldRow

T = TypeVar("T")

__all__ = ["quarantine"]

FLOW = "quarantine_replay"
_TOTALS = ("file_name", "as_of", "column", "currency", "accepted", "quarantined", "rejected", "stated", "difference")

OnlyFile = Annotated[str | None, typer.Option("--file", help="Only this file name.")]
OnlyContract = Annotated[str | None, typer.Option("--contract", help="Only files of this contract.")]
ContractPaths = Annotated[
    list[str] | None,
    typer.Option("--contract-file", metavar="PATH", help="A contract that is not in KONTOR_HOME/contracts."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Compare, check and count, but keep nothing.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log too.")]


@quarantine.command("export")
def export(
    to: Annotated[Path, typer.Option("--out", dir_okay=False, help="Where the workbook goes.")],
    owner: Annotated[str | None, typer.Option(help="Only rows of customers of this owner.")] = None,
    file: OnlyFile = None,
    contract: OnlyContract = None,
    contract_files: ContractPaths = None,
) -> None:
    """Write open rows into a workbook for the person who can correct them; give it back with `replay`."""
    from tasks.errors import UsageError
    from tasks.feeds.correction_workbook import HandedOut, write_corrections
    from tasks.feeds.held_store import Selection, fetch_held

    if to.suffix.lower() != ".xlsx":
        raise UsageError(f"{to.name} is not the name of a workbook.", hint="Let --out end with .xlsx.")
    chosen = Selection(file_name=file, contract=contract, owner=owner)
    rows = [row for row in on_database(lambda c: fetch_held(c, chosen)) if row.file_state == "applied"]
    if not rows:
        out().print("Nothing that was asked for waits in quarantine; no workbook was written.")
        return
    contracts = _contracts([row.contract for row in rows], contract_files)
    note_egress("quarantine export", "xlsx", len(rows), ("cells",), always=True)
    _in_place(to, lambda: write_corrections([HandedOut(row, contracts[row.contract]) for row in rows], to))
    out().print(f"{counted(len(rows), 'row')} written to {to}.")
    out().print(f"When it comes back: kontor quarantine replay {to}")


def _in_place(to: Path, write: Callable[[], T]) -> T:
    """What ``write`` returns; UsageError where the place cannot be written to."""
    from xlsxwriter.exceptions import FileCreateError

    from tasks.errors import UsageError

    try:
        return write()
    except (OSError, FileCreateError) as error:
        said = getattr(error, "strerror", None) or "the folder cannot be written to"
        raise UsageError(f"{to.name} cannot be written: {said}.", hint="Choose another place.") from None


def _contracts(names: Sequence[str], given: Sequence[str] | None) -> dict[str, Any]:
    from tasks.feeds.corrections import contracts_named

    return dict(contracts_named(names, home=settings_in_force().home, given=given or ()))


@quarantine.command("replay")
def replay(
    workbook: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The workbook that came back.")],
    contract_files: ContractPaths = None,
    remaining: Annotated[
        Path | None,
        typer.Option("--remaining", dir_okay=False, help="Where rows that still fail go; default: beside WORKBOOK."),
    ] = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    form: AsList = ListFormat.table,
) -> None:
    """Take a corrected workbook back: compare it, check the rows again, take in what holds now, hand the rest out."""
    said = {
        "workbook": str(workbook.resolve()),
        "contracts": tuple(contract_files or ()),
        "remaining": str(remaining.resolve()) if remaining else None,
    }
    _run({"dry_run": dry_run}, said, form, verbose=verbose)


@quarantine.command("reject")
def reject(
    row_ids: Annotated[list[int], typer.Argument(metavar="ROW-ID...", help="Ids that `quarantine show` knows.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the row.")],
    contract_files: ContractPaths = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    form: AsList = ListFormat.table,
) -> None:
    """Give rows up for good: they read as if their file had never listed them, and stay on record."""
    given = {"reject": tuple(row_ids), "dry_run": dry_run}
    _run(given, {"reason": reason, "contracts": tuple(contract_files or ())}, form, verbose=verbose)


def _run(given: Mapping[str, object], said: Mapping[str, object], form: ListFormat, *, verbose: bool) -> None:
    """Run the flow and print its counts; raises what it raised."""
    from tasks.feeds.correction_parameters import ReplayInstruction, ReplayParameters

    settings = settings_in_force()
    words = ReplayInstruction.model_validate(said)
    with flows_ready(settings, verbose=verbose):
        instruction = given_instruction(settings, FLOW, words)
        finished = run_flow(settings, FLOW, ReplayParameters.model_validate({**given, "instruction": instruction}))
    _tell(finished, form, dry_run=bool(given["dry_run"]))
    if finished.error is not None:
        raise finished.error


def _tell(finished: Finished, form: ListFormat, *, dry_run: bool) -> None:
    if form is ListFormat.json:
        out().file.write(json.dumps([dict(finished.counts)] if finished.counts else [], indent=2) + "\n")
        return
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in finished.counts.items() if count)
    if finished.error is None:
        out().print(told or "Nothing in the workbook was changed.")
    if dry_run:
        say("This was a dry run: the data is as it was.")


@quarantine.command("show")
def show(
    row_id: Annotated[
        int, typer.Argument(metavar="ROW-ID", help="A row's id, as `quarantine list --format json` says.")
    ],
    form: AsList = ListFormat.table,
) -> None:
    """Show one row: what its file said, why it cannot be used, and what was done about it."""
    from tasks.errors import UsageError
    from tasks.feeds.held_store import Selection, fetch_corrections, fetch_held

    found = on_database(
        lambda c: (fetch_held(c, Selection(state=None, row_ids=(row_id,))), fetch_corrections(c, row_id))
    )
    if not found[0]:
        raise UsageError(f"No row in quarantine has the id {row_id}.", hint="`kontor quarantine list --format json`.")
    record = _record(found[0][0], found[1])
    if form is ListFormat.json:
        note_egress("quarantine show", "json", 1, record)
        out().file.write(json.dumps([record], ensure_ascii=False, indent=2) + "\n")
        return
    _print_record(record)


def _record(row: HeldRow, corrections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from tasks.reports.rows import json_value

    return {
        "quarantined_row_id": row.row_id,
        "file_name": row.file_name,
        "contract": row.contract,
        "as_of": row.as_of.isoformat(),
        "row_number": row.row_number,
        "state": row.state,
        "cells": dict(row.cells),
        "reasons": [dict(reason) for reason in row.reasons],
        "corrections": [{name: json_value(value) for name, value in line.items()} for line in corrections],
    }


def _print_record(record: Mapping[str, Any]) -> None:
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    console = out()
    place = f"row {record['row_number']} of {record['file_name']} as of {record['as_of']}"
    console.print(printable(f"Row {record['quarantined_row_id']}: {place}, {record['state']}"))
    cells = [[printable(name), printable(str(value))] for name, value in record["cells"].items()]
    print_table(console, ["heading", "what stands there"], cells, [False, False])
    for reason in record["reasons"]:
        console.print(printable(f"{reason['cell']}: {reason['reason']}"))
    for line in record["corrections"]:
        what = (
            f"{line['column_name']} from {line['old_value']!r} to {line['new_value']!r}"
            if line["column_name"]
            else f"because {line['reason']}"
        )
        console.print(printable(f"{line['corrected_at']} {line['actor']}: {line['outcome'].replace('_', ' ')}, {what}"))


@quarantine.command("totals")
def totals(
    file: OnlyFile = None,
    contract: OnlyContract = None,
    contract_files: ContractPaths = None,
    form: AsList = ListFormat.table,
) -> None:
    """Show per file and currency that accepted + quarantined + rejected is what the file's own totals row says."""
    from tasks.feeds.held_store import Selection, fetch_files
    from tasks.feeds.totals_store import fetch_totals

    files = on_database(lambda c: fetch_files(c, Selection(file_name=file, contract=contract)))
    contracts, missing = _contracts_at_hand([name for _, _, name, _ in files], contract_files)
    at_hand = [item for item in files if item[2] in contracts]
    found = on_database(lambda c: [(item, fetch_totals(c, item[0], contracts[item[2]])) for item in at_hand])
    rows = [_total_row(item[1], item[3].isoformat(), total) for item, sums in found for total in sums]
    if form is ListFormat.json:
        out().file.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
    else:
        _print_totals(rows)
    if missing:
        _raise_left_out(missing, len(files) - len(at_hand), nothing=not at_hand)


def _contracts_at_hand(names: Sequence[str], given: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """The contracts of these names that can be found, and the names of the others."""
    from tasks.errors import BadInput

    found: dict[str, Any] = {}
    missing = []
    for name in sorted(set(names)):
        try:
            found |= _contracts([name], given)
        except BadInput:
            missing.append(name)
    return found, missing


def _raise_left_out(missing: Sequence[str], files: int, *, nothing: bool) -> None:
    from tasks.errors import BadInput, PartlyDone

    told = f"{counted(files, 'file')} left out, because the contract is not here: {', '.join(missing)}."
    hint = "Put it into contracts/ of KONTOR_HOME, or name its file with --contract-file PATH."
    raise (BadInput if nothing else PartlyDone)(told, hint=hint)


def _total_row(file_name: str, as_of: str, total: CurrencyTotal) -> dict[str, str | int | None]:
    from tasks.reports.rows import json_value

    money = {
        name: json_value(getattr(total, name))
        for name in ("accepted", "quarantined", "rejected", "accounted", "stated", "difference")
    }
    place = {"file_name": file_name, "as_of": as_of, "column": total.column, "currency": total.currency}
    return {**place, **money, "unreadable_rows": total.unreadable}  # type: ignore[dict-item]


def _print_totals(rows: Sequence[Mapping[str, str | int | None]]) -> None:
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    if not rows:
        out().print("No snapshot that was asked for is there.")
        return
    cells = [["" if row[name] is None else printable(str(row[name])) for name in _TOTALS] for row in rows]
    print_table(out(), [name.replace("_", " ") for name in _TOTALS], cells, [name in _TOTALS[4:] for name in _TOTALS])
