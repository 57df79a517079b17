"""`kontor backfill`: a past period again, window by window: planned, started, watched, paused, resumed, cancelled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.reading import on_database
from flows.commands.running import checked_parameters, flow_named, flows_ready, instructed, run_flow
from flows.commands.screen import AsList, ListFormat, out, parse_day, say, settings_in_force

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from configs.settings import Settings
    from flows.commands.running import Finished
    from tasks.backfills.planning import Plan

backfill = typer.Typer(no_args_is_help=True, help="Run a past period again, window by window; no mail leaves.")

Flow = Annotated[str, typer.Argument(metavar="FLOW", help="The flow to run again, such as payment_sync.")]
FromDay = Annotated[date, typer.Option("--from", parser=parse_day, metavar="DATE", help="First day of the period.")]
ToDay = Annotated[date, typer.Option("--to", parser=parse_day, metavar="DATE", help="Last day, that day included.")]
EachWindow = Annotated[str, typer.Option("--window", help="Length of a window: day, week or month.")]
Again = Annotated[str, typer.Option("--reprocess", help="Which windows: missing, failed or all.")]
Excluded = Annotated[
    list[date] | None, typer.Option("--exclude", parser=parse_day, metavar="DATE", help="A day to leave out.")
]
Newest = Annotated[bool, typer.Option("--newest-first", help="Begin with the newest window.")]
Source = Annotated[
    Path | None,
    typer.Option("--source", exists=True, file_okay=False, help="A folder with files, beside archive and inbox."),
]
AtOnce = Annotated[
    int,
    typer.Option("--concurrency", min=1, max=8, help="Windows in hand at once: one applied, the next ones read."),
]
Apart = Annotated[bool, typer.Option("--runs-apart", help="Show each window as a run of its own in Prefect; slower.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="The backfill's number.")]
Live = Annotated[bool, typer.Option("--live", help="Do it; without this nothing is changed.")]


@backfill.command("plan")
def plan(
    flow: Flow,
    from_day: FromDay,
    to_day: ToDay,
    every: EachWindow = "week",
    reprocess: Again = "missing",
    exclude: Excluded = None,
    newest_first: Newest = False,
    source: Source = None,
    at_once: AtOnce = 2,
    runs_apart: Apart = False,
    form: AsList = ListFormat.table,
) -> None:
    """Show what a backfill would do: windows, files found and missing, how long, and what it will not do.

    Changes nothing and needs no Prefect server.
    """
    given = _parameters(flow, from_day, to_day, every, reprocess, exclude, newest_first, source)
    made = _make_plan(settings_in_force(), given | _ways(at_once, runs_apart))
    if form is ListFormat.json:
        _print_json(made.rows())
        return
    _print_plan(made)


@backfill.command("start")
def start(
    flow: Flow,
    from_day: FromDay,
    to_day: ToDay,
    reason: Annotated[str, typer.Option(help="Why; kept with the backfill. Name no person.")] = "",
    every: EachWindow = "week",
    reprocess: Again = "missing",
    exclude: Excluded = None,
    newest_first: Newest = False,
    source: Source = None,
    at_once: AtOnce = 2,
    runs_apart: Apart = False,
    live: Live = False,
) -> None:
    """Run the period's windows here and now. Without --live only the plan is shown and nothing is changed."""
    settings = settings_in_force()
    given = _parameters(flow, from_day, to_day, every, reprocess, exclude, newest_first, source)
    given |= _ways(at_once, runs_apart) | {"reason": [reason], "live": [str(live)]}
    if not live:
        _print_plan(_make_plan(settings, given))
        out().print("\nThis was the plan; nothing was changed. Add --live and --reason to do it.")
        return
    _drive(settings, given)


@backfill.command("status")
def status(
    number: Annotated[int | None, typer.Argument(metavar="[NUMBER]", min=1, help="One backfill's windows.")] = None,
    form: AsList = ListFormat.table,
) -> None:
    """List the backfills, or the windows of one, with what became of each."""
    from tasks.reports.store import read_report

    if number is None:
        found = on_database(lambda connection: read_report(connection, "backfills"))
    else:
        found = on_database(
            lambda connection: read_report(connection, "backfill_windows", equal={"backfill_id": str(number)})
        )
    if form is ListFormat.json:
        from tasks.reports.rows import json_rows

        _print_json(json_rows(found))
        return
    _print_status(found.records(), _LIST_COLUMNS if number is None else _WINDOW_COLUMNS)


@backfill.command("pause")
def pause(number: Number) -> None:
    """Stop a backfill after the window that is under way; `resume` goes on with the next."""
    _change(number, "paused", ("waiting", "running"))
    out().print(
        f"Backfill {number} pauses after the window under way; go on with: kontor backfill resume {number} --live"
    )


@backfill.command("resume")
def resume(
    number: Number,
    live: Live = False,
    failed: Annotated[bool, typer.Option("--failed", help="Try the windows that failed again.")] = False,
) -> None:
    """Go on with a backfill that was paused, killed or has windows that failed. Without --live nothing is changed."""
    settings = settings_in_force()
    left = on_database(lambda connection: _left_to_do(connection, number, failed=failed))
    out().print(f"Backfill {number}: {left} windows are left to run.")
    if not live:
        out().print("Nothing was changed. Add --live to go on.")
        return
    if failed:
        from tasks.backfills.store import reopen_failed

        _write(lambda connection: reopen_failed(connection, number))
    _drive(settings, {"backfill_id": [str(number)], "live": ["true"]})


@backfill.command("cancel")
def cancel(number: Number) -> None:
    """End a backfill after the window that is under way. What its windows did stays."""
    _change(number, "cancelled", ("waiting", "running", "paused"))
    out().print(f"Backfill {number} is cancelled; what its finished windows did stays.")


# --- parameters and running -------------------------------------------------------------------------------------------


def _parameters(
    flow: str,
    from_day: date,
    to_day: date,
    every: str,
    reprocess: str,
    exclude: Sequence[date] | None,
    newest_first: bool,
    source: Path | None,
) -> dict[str, list[str]]:
    given = {
        "flow": [flow_named(flow)],
        "from_day": [str(from_day)],
        "to_day": [str(to_day)],
        "every": [every],
        "reprocess": [reprocess],
        "newest_first": [str(newest_first)],
    }
    if exclude:
        given["excluded_days"] = [str(day) for day in exclude]
    if source is not None:
        given["source_folder"] = [str(source.resolve())]
    return given


def _ways(at_once: int, runs_apart: bool) -> dict[str, list[str]]:
    return {"concurrency": [str(at_once)], "runs_apart": [str(runs_apart)]}


def _make_plan(settings: Settings, given: Mapping[str, Sequence[str]]) -> Plan:
    from flows.commands.screen import today_in
    from tasks.backfills.parameters import BackfillInstruction, BackfillParameters
    from tasks.backfills.planning import make_plan
    from tasks.backfills.steps import request_of

    words = {name: texts[0] for name, texts in given.items() if name in BackfillInstruction.model_fields}
    said = BackfillInstruction(**words)
    parameters = checked_parameters("backfill", {name: t for name, t in given.items() if name not in words})
    if not isinstance(parameters, BackfillParameters):
        raise TypeError("backfill takes BackfillParameters")
    request, today = request_of(parameters, said), today_in(settings)
    return on_database(lambda connection: make_plan(connection, settings, request, today=today))


def _drive(settings: Settings, given: Mapping[str, Sequence[str]]) -> None:
    with flows_ready(settings):
        from tasks.steps import without_heartbeat

        with without_heartbeat():
            finished: Finished = run_flow(settings, "backfill", instructed(settings, "backfill", given))
    if finished.error is not None:
        raise finished.error
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in finished.counts.items())
    out().print(f"backfill: {counts}")


def _change(number: int, wanted: str, allowed: Sequence[str]) -> None:
    from tasks.backfills.store import change_state

    _write(lambda connection: change_state(connection, number, wanted, allowed))


def _left_to_do(connection: Connection, number: int, *, failed: bool) -> int:
    from sqlalchemy import text

    from tasks.backfills.store import fetch_backfill

    fetch_backfill(connection, number)
    states = ["waiting", "running", *(["failed"] if failed else [])]
    return int(
        connection.scalar(
            text("select count(*) from ops.backfill_windows where backfill_id = :number and state = any(:states)"),
            {"number": number, "states": states},
        )
    )


def _write(change: Callable[[Connection], object]) -> None:
    from tasks.stack import connected, ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    with connected(settings, write=True) as connection:
        change(connection)


# --- printing ---------------------------------------------------------------------------------------------------------


def _print_json(rows: Sequence[Mapping[str, object]]) -> None:
    from tasks.reports.rows import json_value

    plain = [{name: json_value(value) for name, value in row.items()} for row in rows]
    out().file.write(json.dumps(plain, ensure_ascii=False, indent=2) + "\n")


def _print_plan(made: Plan) -> None:
    from tasks.backfills.planning import WILL_NOT

    console, counts = out(), made.counts()
    console.print(f"Backfill of {made.request.flow}, {made.request.from_on} to {made.request.to_on}", style="bold")
    _print_rows(made.rows(), ("window", "from_on", "to_on", "files", "not_in_yet", "runs", "why"))
    console.print(
        f"\n{counts['windows_to_run']} of {counts['windows']} windows would run; {counts['files_found']} files found,"
        f" {counts['files_not_in_yet']} of them not taken in yet; {counts['windows_without_file']} windows have none."
    )
    for file in made.undated:
        console.print(f"Of no window: {Path(file.path).name}: {file.reason}")
    took = "nobody knows yet: the flow has never run here" if made.seconds is None else f"about {made.seconds:.0f} s"
    console.print(f"How long: {took}")
    console.print("It will not:")
    for sentence in WILL_NOT:
        console.print(f"  - {sentence}")


_LIST_COLUMNS = (
    "backfill_id", "flow", "from_on", "to_on", "every", "state", "windows", "done", "failed", "left_to_do", "reason",
)  # fmt: skip
_WINDOW_COLUMNS = ("window_number", "from_on", "to_on", "state", "attempts", "error_code", "counts")


def _print_status(records: Sequence[Mapping[str, object]], names: Sequence[str]) -> None:
    if not records:
        out().print("There is no backfill yet; `kontor backfill plan` shows what one would do.")
        return
    _print_rows(records, names)


def _print_rows(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> None:
    from tasks.artifacts import cell_text
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    cells = [[printable(_cell(row[name], cell_text)) for name in names] for row in rows]
    numeric = [all(isinstance(row[name], int) for row in rows) for name in names]
    print_table(out(), [name.replace("_", " ") for name in names], cells, numeric)


def _cell(value: object, plain: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in value.items() if count)
    return str(plain(value))
