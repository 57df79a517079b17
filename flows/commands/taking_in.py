"""`kontor run` and `kontor import`: a flow here and now, and a short table of what became of every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.outcomes import as_json, print_previews, print_remarks, print_unclaimed, unclaimed_names
from flows.commands.running import (
    FLOW_OF_FEED,
    Finished,
    contract_of,
    contract_reference,
    flow_named,
    flows_ready,
    given_instruction,
    instructed,
    run_flow,
    texts_of_parameters,
)
from flows.commands.screen import AsList, ListFormat, counted, out, parse_day, say, settings_in_force

if TYPE_CHECKING:
    from configs.settings import Settings
    from tasks.errors import KontorError

COUNTS = ("rows_read", "inserted", "updated", "unchanged", "quarantined", "superseded", "settled", "reopened", "warned")

_HEADINGS = {"file_name": "file", "rows_read": "read"}

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log too.")]


def run(
    flow: Annotated[str, typer.Argument(metavar="FLOW", help="The flow's name, such as payment_sync.")],
    as_of: Annotated[
        date | None, typer.Option("--as-of", parser=parse_day, metavar="DATE", help="Business date; default today.")
    ] = None,
    dry_run: Annotated[
        bool | None,
        typer.Option("--dry-run/--live", help="Try without keeping anything, or do it. Default: as the flow says."),
    ] = None,
    allow_past: Annotated[
        bool, typer.Option("--allow-past", help="With --live: a run for a past day may send too.")
    ] = False,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="K=V", help="A parameter of the flow; may be repeated.")
    ] = None,
    verbose: Verbose = False,
    form: AsList = ListFormat.table,
) -> None:
    """Run a flow here and now.

    customer_import and payment_sync send nothing and delete nothing: they do their work unless --dry-run is given. A
    flow that sends or destroys only tries unless --live is given.
    """
    name = flow_named(flow)
    settings = settings_in_force()
    given = _switches(as_of, dry_run, allow_past=allow_past) | texts_of_parameters(param or [])
    with flows_ready(settings, verbose=verbose):
        finished = [run_flow(settings, name, instructed(settings, name, given))]
    conclude(finished, form, dry_run=bool(dry_run))
    print_unclaimed(unclaimed_names(settings) if form is ListFormat.table and name in FLOW_OF_FEED.values() else [])


def _switches(as_of: date | None, dry_run: bool | None, *, allow_past: bool) -> dict[str, list[str]]:
    """What the options say, as texts of the flow's parameters.

    Raises:
        UsageError: ``--allow-past`` stands alone; what reaches customers of a past day takes two words.
    """
    from tasks.errors import UsageError

    if allow_past and dry_run is not False:
        raise UsageError(
            "--allow-past sends nothing by itself; nothing was done.",
            hint="Give --live too where mails of a past day are really to leave.",
        )
    said = {"as_of": as_of, "dry_run": dry_run, "allow_past": allow_past or None}
    return {name: [str(value)] for name, value in said.items() if value is not None}


def import_files(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Files to take in.")],
    contract: Annotated[
        str | None, typer.Option(help="Name or path of their contract; default: by the file's name.")
    ] = None,
    as_of: Annotated[
        date | None,
        typer.Option(
            "--as-of", parser=parse_day, metavar="DATE", help="The files' business date, where they do not say it."
        ),
    ] = None,
    revision: Annotated[
        int | None, typer.Option(min=1, max=999, help="Above 1 for a file that corrects one of the same date.")
    ] = None,
    accept_guard: Annotated[
        list[str] | None, typer.Option("--accept-guard", metavar="NAME", help="A guard to overrule, with --reason.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why a guard is overruled.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, check and count, but keep nothing.")] = False,
    verbose: Verbose = False,
    form: AsList = ListFormat.table,
) -> None:
    """Take files in: read by their contract, bad rows set aside with a reason, the good ones applied."""
    _check_reason(accept_guard, reason)
    settings = settings_in_force()
    named = contract_reference(settings, contract)
    batches = _batches(settings, files, named, one_by_one=dry_run)
    given = {
        "file_as_of": as_of,
        "revision": revision,
        "accept_guards": tuple(accept_guard or ()),
        "dry_run": dry_run,
    }
    said = {"contract": named, "reason": reason}
    with flows_ready(settings, verbose=verbose):
        finished = [_take_in(settings, flow, batch, given, said) for flow, batch in batches]
    conclude(finished, form, dry_run=dry_run)


def _check_reason(guards: Sequence[str] | None, reason: str) -> None:
    from tasks.errors import UsageError
    from tasks.feeds.guards import check_names

    if guards and not reason.strip():
        raise UsageError("A guard is overruled without a reason.", hint="Add --reason 'why this is right'.")
    check_names(guards or ())


def _take_in(
    settings: Settings, flow: str, batch: Sequence[Path], given: Mapping[str, Any], said: Mapping[str, Any]
) -> Finished:
    from tasks.feeds.parameters import FeedInstruction, FeedParameters

    words = FeedInstruction(files=tuple(map(str, batch)), **said)
    parameters = FeedParameters(**given, instruction=given_instruction(settings, flow, words))
    finished = run_flow(settings, flow, parameters, batch)
    if not given["dry_run"]:
        return finished
    _say_where_the_difference_is(settings, batch[0])
    return _told_of_dry_run(finished, batch[0], contract_of(settings, batch[0], said["contract"]).name)


def _say_where_the_difference_is(settings: Settings, path: Path) -> None:
    """Name the workbook in which a dry run wrote what the file would change, where its flow writes one."""
    from tasks.catalog.difference import workbook_name
    from tasks.feeds.intake import fingerprint_of

    written = settings.home / "outputs" / workbook_name(fingerprint_of(path).sha256)
    if written.is_file():
        say(f"what would change: {written}")


def _batches(
    settings: Settings, files: Sequence[Path], reference: str | None, *, one_by_one: bool
) -> list[tuple[str, list[Path]]]:
    """The files per flow, customers first; each alone where nothing is kept and each is to be told of by itself."""
    from tasks.errors import UsageError

    flows: dict[str, list[Path]] = {name: [] for name in dict.fromkeys(FLOW_OF_FEED.values())}
    for path in files:
        contract = contract_of(settings, path, reference)
        if contract.feed not in FLOW_OF_FEED:
            raise UsageError(
                f"Contract {contract.name} describes {contract.feed}, which no flow takes.",
                hint=f"Feeds that are taken: {', '.join(FLOW_OF_FEED)}.",
            )
        flows[FLOW_OF_FEED[contract.feed]].append(path.resolve())
    if one_by_one:
        return [(flow, [path]) for flow, paths in flows.items() for path in paths]
    return [(flow, paths) for flow, paths in flows.items() if paths]


# --- telling ----------------------------------------------------------------------------------------------------------


def conclude(finished: Sequence[Finished], form: ListFormat, *, dry_run: bool) -> None:
    """Print what became of the files and what to do next, then raise what went wrong.

    Raises:
        The error of the one run that failed; PartlyDone where others did their work.
    """
    import json

    from tasks.reports.rows import json_value

    rows = [row for item in finished for row in item.files]
    if form is ListFormat.json:
        plain = [{name: json_value(value) for name, value in row.items()} for row in rows]
        if dry_run:
            told = [as_json(outcome) for item in finished for outcome in item.outcomes if item.error is None]
            plain = [{**row, **{k: _plain(v) for k, v in more.items()}} for row, more in zip(plain, told, strict=False)]
        out().file.write(json.dumps(plain, ensure_ascii=False, indent=2) + "\n")
    else:
        _print_outcome(finished, rows, dry_run=dry_run)
    errors = [item.error for item in finished if item.error is not None]
    if errors:
        raise _joined(errors, all_failed=len(errors) == len(finished))


def _plain(value: object) -> object:
    """Lists of rows as JSON has them: money and dates as texts."""
    from tasks.reports.rows import json_value

    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else json_value(value)


def _joined(errors: Sequence[KontorError], *, all_failed: bool) -> KontorError:
    from tasks.errors import BadInput, PartlyDone

    told = "\n".join(error.message for error in errors)
    hint = next((error.hint for error in errors if error.hint), "")
    if not all_failed:
        return PartlyDone(told, hint=hint)
    refusals = len(errors) > 1 and all(isinstance(error, BadInput) for error in errors)
    return BadInput(told, hint=hint) if refusals else errors[0]


def _told_of_dry_run(finished: Finished, path: Path, contract: str) -> Finished:
    """The same with a line for the one file it was given: the database has none, because nothing was kept."""
    if finished.error is not None:
        return finished
    states = [name.removeprefix("files_") for name, count in finished.counts.items() if name[:6] == "files_" and count]
    counts = {name: finished.counts.get(name, 0) for name in COUNTS}
    (outcome,) = finished.outcomes
    line: dict[str, object] = {
        "file_name": path.name,
        "contract": contract,
        "as_of": outcome.as_of,
        "state": states[0],
        **counts,
    }
    return replace(finished, files=[line])


def _print_outcome(finished: Sequence[Finished], rows: Sequence[Mapping[str, object]], *, dry_run: bool) -> None:
    console = out()
    if rows:
        _print_rows(rows)
    for item in finished:
        if not item.files and item.error is None:
            named = {name: count for name, count in item.counts.items() if count and name != "files_unclaimed"}
            told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in named.items())
            console.print(f"{item.flow}: {told or 'nothing new to take in'}")
    if any(row["state"] == "known" for row in rows):
        console.print("known: the same content was taken in before, so there was nothing to do.")
    print_remarks(outcome for item in finished for outcome in item.outcomes)
    if dry_run:
        print_previews(outcome for item in finished for outcome in item.outcomes)
        files = sum(item.counts.get("files", 0) for item in finished)
        besides = f"{counted(files, 'file')} below KONTOR_HOME/reports, and else " if files else ""
        console.print(f"This was a dry run: {besides}nothing was kept.")
        return
    replayed = sum(item.counts.get("replayed", 0) for item in finished)
    if replayed:
        were = (
            "row that had waited in quarantine for a customer was"
            if replayed == 1
            else ("rows that had waited in quarantine for a customer were")
        )
        console.print(f"{replayed} {were} taken in.")
    warned = sum(int(str(row["warned"])) for row in rows)
    if warned:
        console.print(f"{counted(warned, 'row')} taken in with a warning: a check of the contract finds it odd.")
    aside = sum(int(str(row["quarantined"])) for row in rows)
    if aside:
        console.print(f"{counted(aside, 'row')} could not be used; see each with its reason: kontor quarantine list")


def _print_rows(rows: Sequence[Mapping[str, object]]) -> None:
    from tasks.artifacts import cell_text
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table, state_text

    console = out()
    # Room is short on a terminal: what happened to no row of any file is left out there.
    idle = {name for name in COUNTS[1:] if console.is_terminal and not any(row[name] for row in rows)}
    names = [name for name in rows[0] if name not in idle]
    cells = [
        [state_text(str(row[name])) if name == "state" else printable(cell_text(row[name])) for name in names]
        for row in rows
    ]
    headings = [_HEADINGS.get(name, name.replace("_", " ")) for name in names]
    print_table(console, headings, cells, [name in COUNTS for name in names])
