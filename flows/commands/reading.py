"""`kontor report`, `quarantine list` and `payer-class`: what the database says, in the form one needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from flows.commands.egress import note_egress
from flows.commands.screen import AsList, AsOf, Format, ListFormat, out, parse_day, say, settings_in_force, today_in

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tasks.payments.overrides import Override
    from tasks.reports.rows import Report

quarantine = typer.Typer(no_args_is_help=True, help="Rows that could not be used, each with its cell and reason.")
payer_class = typer.Typer(no_args_is_help=True, help="Set a customer's payer class by hand, for a time and a reason.")

ON_A_SCREEN = 50
FINANCE = "finance"
T = TypeVar("T")

Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the decision.")]
Customer = Annotated[str, typer.Argument(help="The customer's number, with its leading zeros.")]


def report(
    name: Annotated[str, typer.Argument(help="A view of schema report, such as overdue-invoices.")],
    as_of: AsOf = None,
    customer: Annotated[str | None, typer.Option(help="Only this customer number.")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="Default: table, or what --out ends with.")] = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write to this file.", dir_okay=False)] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many rows; 0 for all.")] = None,
) -> None:
    """Print a report: open-invoices, overdue-invoices, aging, payer-classes, settled-invoices, quarantine, feed-files,
    feed-freshness, organization-card, runs, and every other view of schema report; or finance: the whole weekly report.

    With --as-of a past day answers with what was true then. On a terminal the first 50 rows are shown.
    """
    if name.strip().lower() == FINANCE:
        deliver_finance(form=form, to=to, as_of=as_of, narrowed=customer is not None or limit is not None)
        return
    deliver(name, form=form, to=to, limit=limit, as_of=as_of, customer=customer)


@quarantine.command("list")
def list_quarantine(
    file: Annotated[str | None, typer.Option("--file", help="Only this file name.")] = None,
    contract: Annotated[str | None, typer.Option(help="Only files of this contract.")] = None,
    state: Annotated[str, typer.Option(help="open, replayed, corrected, rejected, superseded or all.")] = "open",
    form: Annotated[Format | None, typer.Option("--format", help="Default: table, or what --out ends with.")] = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write to this file.", dir_okay=False)] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many rows; 0 for all.")] = None,
) -> None:
    """List the rows that could not be used: file, cell, what stands there and why it cannot be used."""
    _check_state(state)
    chosen = {"file_name": file, "contract": contract, "state": None if state == "all" else state}
    equal = {column: value for column, value in chosen.items() if value is not None}
    deliver("quarantine", form=form, to=to, limit=limit, equal=equal)


def _check_state(state: str) -> None:
    known = ("open", "replayed", "corrected", "rejected", "superseded", "all")
    if state not in known:
        raise typer.BadParameter(f"{state!r} is not a state; expected one of {', '.join(known)}.", param_hint="--state")


def deliver(
    name: str,
    *,
    form: Format | None,
    to: Path | None,
    limit: int | None,
    as_of: date | None = None,
    customer: str | None = None,
    equal: Mapping[str, str] | None = None,
) -> None:
    """Read a report and print it or write it to a file, in the form that was asked for."""
    from tasks.reports.store import read_report

    chosen = _form(form, to)
    if limit is None and to is None and chosen is Format.table and out().is_terminal:
        limit = ON_A_SCREEN
    found = on_database(
        lambda connection: read_report(
            connection, name, as_of=as_of, customer=customer, equal=equal, limit=limit or None
        )
    )
    on_screen = chosen is Format.table and to is None
    if not on_screen or not out().is_terminal:
        note_egress(f"report {found.name}", chosen.value, len(found.rows), found.names)
    if on_screen:
        _print(found)
    else:
        write_out(_rendered(found, chosen), to)


def deliver_finance(*, form: Format | None, to: Path | None, as_of: date | None, narrowed: bool) -> None:
    """Make finance's report of a day and print its text, or write it as page, workbook or figures; no mail is sent."""
    from tasks.errors import UsageError
    from tasks.reports.finance_files import finance_json, make_files
    from tasks.reports.finance_store import read_finance

    chosen = _form(form, to)
    if narrowed or chosen is Format.csv:
        raise UsageError(
            "The finance report is a whole: it cannot be narrowed to a customer or some rows, nor be one table.",
            hint="Take --format table, json, html or xlsx; the lists in it are reports of their own.",
        )
    settings = settings_in_force()
    day = as_of or today_in(settings)
    found = on_database(lambda connection: read_finance(connection, day))
    rows = sum(len(table.rows) for table in found.tables.values())
    note_egress("report finance", chosen.value, rows, {name for t in found.tables.values() for name in t.names})
    if chosen is Format.json:
        write_out(finance_json(found).encode(), to)
        return
    files = make_files(found, settings.finance_language, now=datetime.now(UTC))
    contents = {Format.html: files.page_html.encode(), Format.xlsx: files.workbook}
    write_out(contents.get(chosen, files.text.encode()), to)


def on_database(read: Callable[[Connection], T]) -> T:
    """What ``read`` returns, given a connection in the flows' role; the database is brought up if need be."""
    from tasks.stack import connected, ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    with connected(settings) as connection:
        return read(connection)


def _form(form: Format | None, to: Path | None) -> Format:
    """The form asked for, else the one that the file's name says, else a table."""
    from tasks.errors import UsageError

    suffix = to.suffix.lower().lstrip(".") if to is not None else ""
    if form is None and suffix not in {"", "txt", *Format}:
        endings = ", ".join(f".{known}" for known in Format if known != Format.table)
        raise UsageError(
            f"--out ends with .{suffix}; a report can be written as {endings} or .txt.",
            hint="Choose one of these endings, or say --format.",
        )
    chosen = form or (Format(suffix) if suffix in set(Format) else Format.table)
    if chosen is Format.xlsx and to is None:
        raise UsageError("A workbook cannot be printed.", hint="Say where it goes: --out report.xlsx.")
    return chosen


def _print(found: Report) -> None:
    from tasks.reports.terminal import print_card, print_report

    console = out()
    if found.name == "organization_card" and len(found.rows) == 1:
        print_card(console, found)
    else:
        print_report(console, found)


def _rendered(found: Report, form: Format) -> bytes:
    if form is Format.xlsx:
        from tasks.reports.workbook import as_workbook

        return as_workbook(found, now=datetime.now(UTC))
    if form is Format.table:
        return _plain(found).encode()
    from tasks.reports.formats import as_csv, as_json
    from tasks.reports.pages import as_html

    render = {Format.csv: as_csv, Format.json: as_json, Format.html: as_html}[form]
    return render(found).encode()


def _plain(found: Report) -> str:
    import io

    from rich.console import Console

    from tasks.reports.terminal import print_report

    text = io.StringIO()
    print_report(Console(file=text, highlight=False, emoji=False, markup=False, soft_wrap=True), found)
    return text.getvalue()


def write_out(content: bytes, to: Path | None) -> None:
    """Print the content, or put it into the file in one move: a reader never sees half of it."""
    import sys

    if to is None:
        sys.stdout.write(content.decode())
        return
    partial = to.with_name(f".{to.name}.part")
    try:
        partial.write_bytes(content)
        partial.replace(to)
    except OSError as error:
        from tasks.errors import UsageError

        partial.unlink(missing_ok=True)
        raise UsageError(f"{to.name} cannot be written: {error.strerror}.", hint="Choose another place.") from None
    say(f"written: {to}")


@payer_class.command("set")
def set_class(
    customer: Customer,
    name: Annotated[str, typer.Argument(metavar="CLASS", help="strict, hesitant, disloyal or unrated.")],
    until: Annotated[date, typer.Option(parser=parse_day, metavar="DATE", help="The last day on which it holds.")],
    reason: Reason,
    as_of: Annotated[
        date | None, typer.Option("--as-of", parser=parse_day, metavar="DATE", help="Its first day; default today.")
    ] = None,
) -> None:
    """Set a customer's payer class by hand until a day; the rules decide again after it."""
    from tasks.payments.overrides import set_override

    day = as_of or today_in(settings_in_force())
    found = _as_owner(lambda connection: set_override(connection, customer, name, until, _author(), reason, day))
    out().print(f"Customer {customer} is {name} from {found.valid_from} through {found.until}.")


@payer_class.command("clear")
def clear_class(
    customer: Customer,
    reason: Reason,
    as_of: Annotated[
        date | None,
        typer.Option("--as-of", parser=parse_day, metavar="DATE", help="The first day without it; default today."),
    ] = None,
) -> None:
    """End a payer class that was set by hand; the rules decide from that day on."""
    from tasks.payments.overrides import clear_override

    day = as_of or today_in(settings_in_force())
    left = _as_owner(lambda connection: clear_override(connection, customer, _author(), reason, day))
    held = f"it held through {left.until}" if left is not None else "it is taken back as if never set"
    out().print(f"Customer {customer} is classed by the rules again from {day}; {held}.")


@payer_class.command("list")
def list_classes(as_of: AsOf = None, form: AsList = ListFormat.table) -> None:
    """List the payer classes set by hand that hold on a day or are to come."""
    import json

    from tasks.payments.overrides import list_overrides

    day = as_of or today_in(settings_in_force())
    rows = [_override_row(item) for item in on_database(lambda connection: list_overrides(connection, day))]
    if form is ListFormat.json:
        out().file.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return
    _print_overrides(rows)


def _override_row(item: Override) -> dict[str, object]:
    return {
        "customer_number": item.customer_number,
        "payer_class": item.payer_class,
        "valid_from": item.valid_from.isoformat(),
        "until": item.until.isoformat(),
        "author": item.author,
        "reason": item.reason,
    }


def _print_overrides(rows: list[dict[str, object]]) -> None:
    from tasks.reports.rows import printable
    from tasks.reports.terminal import payer_text, print_table

    if not rows:
        out().print("No payer class is set by hand.")
        return
    names = list(rows[0])
    cells = [
        [payer_text(str(value)) if name == "payer_class" else printable(str(value)) for name, value in row.items()]
        for row in rows
    ]
    print_table(out(), [name.replace("_", " ") for name in names], cells, [False] * len(names))


def _author() -> str:
    """The account of the operating system: it stands with the decision."""
    import getpass

    return getpass.getuser()


def _as_owner(change: Callable[[Connection], T]) -> T:
    """What ``change`` returns, given a connection that may edit rules; committed when it does not raise."""
    from tasks.database import OWNER
    from tasks.stack import connected, ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    with connected(settings, OWNER, write=True) as connection:
        return change(connection)
