"""`kontor quality run|list|show|waive|backtest`: what is wrong with the data, whose it is, and until when."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.egress import note_egress
from flows.commands.reading import deliver, on_database
from flows.commands.running import flows_ready, run_flow
from flows.commands.screen import AsList, Format, ListFormat, counted, out, parse_day, say, settings_in_force, today_in

if TYPE_CHECKING:
    from tasks.quality.backtest_store import Backtest

quality = typer.Typer(no_args_is_help=True, help="Rules over the stored data and the incidents they open.")

IncidentId = Annotated[int, typer.Argument(metavar="INCIDENT", help="Its number, as `kontor quality list` says.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log too.")]


@quality.command("run")
def run(
    contracts: Annotated[
        list[str] | None, typer.Option("--contract", help="Only this table contract; may be repeated.")
    ] = None,
    as_of: Annotated[
        date | None, typer.Option("--as-of", parser=parse_day, metavar="DATE", help="Business date; default today.")
    ] = None,
    second_opinion: Annotated[
        bool, typer.Option("--second-opinion", help="Ask Great Expectations the same rules too and compare.")
    ] = False,
    splink: Annotated[
        bool, typer.Option("--splink", help="Compare customers by Splink too; needs the extra `duplicates`.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count, but keep nothing.")] = False,
    verbose: Verbose = False,
    form: AsList = ListFormat.table,
) -> None:
    """Check the data now: every rule's answer is kept, and incidents are opened, repeated and closed."""
    from tasks.quality.parameters import QualityParameters

    given = QualityParameters(
        as_of=as_of, dry_run=dry_run, contracts=tuple(contracts or ()), second_opinion=second_opinion, splink=splink
    )
    settings = settings_in_force()
    with flows_ready(settings, verbose=verbose):
        finished = run_flow(settings, "data_quality", given)
    _tell(finished.counts, form, dry_run=dry_run)
    if finished.error is not None:
        raise finished.error


def _tell(counts: Mapping[str, int], form: ListFormat, *, dry_run: bool) -> None:
    if form is ListFormat.json:
        out().file.write(json.dumps([dict(counts)] if counts else [], indent=2) + "\n")
        return
    if counts:
        out().print(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
        out().print("kontor quality list shows the incidents; kontor report data-quality every rule.")
    if dry_run:
        say("This was a dry run: the data is as it was.")


@quality.command("list")
def list_incidents(
    state: Annotated[str, typer.Option(help="open, waived, closed or all.")] = "open",
    owner: Annotated[str | None, typer.Option(help="Only incidents of this owner.")] = None,
    severity: Annotated[str | None, typer.Option(help="Only info, warn or fail.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only incidents of this rule.")] = None,
    customer: Annotated[str | None, typer.Option(help="Only this customer number.")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="Default: table, or what --out ends with.")] = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write to this file.", dir_okay=False)] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many rows; 0 for all.")] = None,
) -> None:
    """List incidents, the worst and oldest first: whose they are, what is wrong, until when, and the money at stake."""
    _check(state, ("open", "waived", "closed", "all"), "--state")
    if severity is not None:
        _check(severity, ("info", "warn", "fail"), "--severity")
    chosen = {"state": None if state == "all" else state, "owner": owner, "severity": severity, "rule_id": rule}
    equal = {name: value for name, value in chosen.items() if value is not None}
    deliver("quality_incidents", form=form, to=to, limit=limit, customer=customer, equal=equal)


def _check(value: str, known: Sequence[str], option: str) -> None:
    if value not in known:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}.", param_hint=option)


@quality.command("show")
def show(incident: IncidentId, form: AsList = ListFormat.table) -> None:
    """Show one incident: its rule in words, what is wrong, and everything that happened to it."""
    from tasks.quality.incidents_store import fetch_incident
    from tasks.reports.rows import json_value, printable

    found = on_database(lambda connection: fetch_incident(connection, incident))
    if form is ListFormat.json:
        plain = {name: json_value(value) for name, value in found.items()}
        note_egress("quality show", "json", 1, plain)
        out().file.write(json.dumps([plain], ensure_ascii=False, indent=2) + "\n")
        return
    events = found["events"]
    for name, value in found.items():
        if name != "events" and value is not None:
            out().print(printable(f"{name.replace('_', ' ')}: {json_value(value)}"))
    for event in events:
        why = f", because {event['reason']}" if event["reason"] else ""
        out().print(printable(f"{event['happened_on']} {event['event'].replace('_', ' ')} by {event['actor']}{why}"))


@quality.command("waive")
def waive(
    incident: IncidentId,
    until: Annotated[date, typer.Option(parser=parse_day, metavar="DATE", help="The last day on which it may stand.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the incident.")],
) -> None:
    """Let an incident stand until a day, for a reason; then it is open again if it is still there."""
    import getpass

    from tasks.quality.incidents_store import waive as waive_incident
    from tasks.stack import connected, ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    with connected(settings, write=True) as connection:
        waive_incident(connection, incident, until, reason, getpass.getuser(), today_in(settings))
    out().print(f"Incident {incident} is waived through {until}.")


@quality.command("backtest")
def backtest(
    contract: Annotated[str, typer.Argument(metavar="CONTRACT", help="The draft: a path, or a name that is in force.")],
    as_of: Annotated[
        date | None, typer.Option("--as-of", parser=parse_day, metavar="DATE", help="The day to ask of; default today.")
    ] = None,
    form: AsList = ListFormat.table,
    limit: Annotated[int, typer.Option(min=0, help="At most so many records; 0 for all.")] = 20,
    files: Annotated[int, typer.Option(min=1, help="A feed's draft: so many of the newest archived files.")] = 12,
) -> None:
    """List what a draft contract would flip, with the money; nothing is kept.

    The draft of a table's rules is asked of the live tables; that of a feed's contract of its archived files.
    """
    from tasks.quality.backtest_store import backtest as compare
    from tasks.quality.contracts import is_table_contract, load_table_contract
    from tasks.reports.rows import json_value

    if not is_table_contract(contract):
        _backtest_files(contract, files, form, limit)
        return
    draft = load_table_contract(contract)
    day = as_of or today_in(settings_in_force())
    found = on_database(lambda connection: compare(connection, draft, day))
    if form is ListFormat.json:
        plain = [{name: json_value(value) for name, value in row.items()} for row in found.records]
        out().file.write(json.dumps(plain, ensure_ascii=False, indent=2) + "\n")
        return
    _print_backtest(found, limit)


def _backtest_files(contract: str, newest: int, form: ListFormat, limit: int) -> None:
    from tasks.feeds.contracts import load_contract
    from tasks.feeds.corrections import contracts_named
    from tasks.quality.archive_store import backtest_archive
    from tasks.reports.rows import json_value

    settings, draft = settings_in_force(), load_contract(contract)
    standing = contracts_named([draft.name], home=settings.home)[draft.name]
    folder = settings.home / "archive" / draft.name
    found = on_database(lambda connection: backtest_archive(connection, standing, draft, folder, newest))
    if form is ListFormat.json:
        plain = [{name: json_value(value) for name, value in row.items()} for row in found.records]
        note_egress("quality backtest", "json", len(plain), ("cells",), always=True)  # a reason quotes what stood there
        out().file.write(json.dumps(plain, ensure_ascii=False, indent=2) + "\n")
        return
    out().print(f"{counted(found.files, 'archived file')} with {counted(found.rows, 'row')} read by both contracts.")
    if not found.records:
        out().print("Nothing would flip.")
        return
    sums = ("becomes", "currency", "rows", "money")
    _print_rows(found.sums(), sums, [False, False, True, True])
    out().print()
    names = ("file_name", "row_number", "becomes", "customer_number", "currency", "before", "after", "reason")
    _print_rows(found.records[: limit or None], names, [name in ("row_number", "before", "after") for name in names])
    if limit and len(found.records) > limit:
        out().print(f"and {len(found.records) - limit} more; --limit 0 shows all")


def _print_rows(rows: Sequence[Mapping[str, object]], names: Sequence[str], right: Sequence[bool]) -> None:
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    cells = [[printable("–" if row[name] is None else str(row[name])) for name in names] for row in rows]
    print_table(out(), [name.replace("_", " ") for name in names], cells, list(right))


def _print_backtest(found: Backtest, limit: int) -> None:
    from tasks.artifacts import money
    from tasks.reports.terminal import print_table

    shown = [line for line in found.rules if line.newly_failing or line.no_longer or line.draft_state == "error"]
    if not shown:
        out().print("Nothing would flip.")
        return
    rows = [
        [
            line.rule_id, line.state or "–", line.draft_state or "–", str(line.newly_failing), str(line.no_longer),
            ", ".join(money(amount, currency) for currency, amount in line.money.items()) or "–",
        ]
        for line in shown
    ]  # fmt: skip
    headings = ["rule", "now", "with the draft", "newly failing", "no longer", "open money touched"]
    print_table(out(), headings, rows, [False, False, False, True, True, False])
    records = found.records[: limit or None]
    names = ("rule_id", "becomes", "customer_number", "record_key", "reason")
    out().print()
    _print_rows(records, names, [False] * len(names))
    if len(found.records) > len(records):
        out().print(f"and {len(found.records) - len(records)} more; --limit 0 shows all")
