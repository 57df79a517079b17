"""`kontor history`: who changed what about a customer, and whether anybody has edited that since."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.egress import note_egress
from flows.commands.reading import on_database
from flows.commands.screen import AsList, ListFormat, out, say, settings_in_force

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tasks.history.chain import Seal
    from tasks.history.store import Change, Verification

history = typer.Typer(no_args_is_help=True, help="Who changed what about customers, and proof that it was not edited.")

_MOST_CONNECTIONS = 8

Customer = Annotated[str, typer.Argument(help="The customer's number, with its leading zeros.")]


@history.command("show")
def show(customer: Customer, form: AsList = ListFormat.table) -> None:
    """Show every change of a customer, its contacts and their roles: when, by whom, in which run, old and new value.

    A deleted customer is found too. What was erased stands there as erased.
    """
    from tasks.errors import UsageError
    from tasks.history.store import read_changes

    changes = on_database(lambda connection: read_changes(connection, customer))
    if not changes:
        raise UsageError(
            f"History knows no customer {customer}.",
            hint="Give the number as the customer file has it, with its leading zeros.",
        )
    if form is ListFormat.json:
        note_egress("history show", "json", len(changes), ("old_value", "new_value"), always=True)
        rows = [asdict(change) | {"changed_at": change.changed_at.isoformat()} for change in changes]
        out().file.write(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return
    _print_changes(changes)


def _print_changes(changes: Sequence[Change]) -> None:
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    headings = ["when (UTC)", "who", "run", "record", "what", "column", "old", "new"]
    cells = [[printable(cell) for cell in _cells(change)] for change in changes]
    print_table(out(), headings, cells, [False] * len(headings))


def _cells(change: Change) -> list[str]:
    old, new = ("erased", "erased") if change.erased else (change.old_value or "–", change.new_value or "–")
    return [
        f"{change.changed_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        f"{change.actor} as {change.role}",
        "–" if change.run_id is None else str(change.run_id),
        f"{change.table_name} {change.record_id}",
        change.operation,
        change.column_name,
        old,
        new,
    ]


@history.command("verify")
def verify(
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", dir_okay=False, help="A chain exported earlier.")
    ] = None,
    form: AsList = ListFormat.table,
) -> None:
    """Recompute every hash of history and name the first entry that is not what was sealed; exit code 3 if any is.

    Whoever may do everything in the database could remake all seals, or remove the newest: --against finds that too.
    """
    from tasks.errors import Refused
    from tasks.history.store import verify_history

    kept = _kept(against)

    def verified(connection: Connection) -> Verification:
        # Hashing keeps one processor of the server busy for each connection.
        with ExitStack() as open_ones:
            others = range(min(os.cpu_count() or 1, _MOST_CONNECTIONS) - 1)
            beside = [open_ones.enter_context(connection.engine.connect()) for _ in others]
            return verify_history(connection, kept, beside)

    found = on_database(verified)
    if form is ListFormat.json:
        out().file.write(json.dumps([_summary(found)], ensure_ascii=False, indent=2) + "\n")
    else:
        _print_verification(found, against)
    if found.breaks:
        raise Refused(
            f"History is not what was sealed. First: {found.breaks[0]}.",
            hint="Change nothing more: keep a copy of the database as it is, and find out who worked on it directly.",
        )


def _kept(against: Path | None) -> list[Seal]:
    from tasks.errors import UsageError
    from tasks.history.chain import import_seals

    if against is None:
        return []
    try:
        return import_seals(against.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{against.name} cannot be read: {error.strerror}.", hint="Name another file.") from None


def _summary(found: Verification) -> dict[str, object]:
    return asdict(found) | {
        "breaks": [asdict(item) for item in found.breaks],
        "unsealed_since": found.unsealed_since.isoformat() if found.unsealed_since else None,
    }


def _print_verification(found: Verification, against: Path | None) -> None:
    console = out()
    for item in found.breaks:
        console.print(f"BROKEN   {item}")
    if found.broken_entries:
        console.print(f"{found.broken_entries:,} entries are broken in all.")
    erased = f", {found.erased_entries:,} of them with values erased" if found.erased_entries else ""
    console.print(f"{found.entries:,} entries{erased}; {found.seals:,} seals.")
    if found.unsealed_since:
        console.print(
            f"{found.unsealed:,} entries, the oldest of {found.unsealed_since:%Y-%m-%d %H:%M} UTC, are not sealed yet"
            " and so not protected: kontor history seal"
        )
    if not found.breaks:
        compared = f" and continues what {against.name} keeps" if against else ""
        console.print(f"History is whole{compared}. Its root: {found.newest_root or 'none yet'}")


@history.command("seal")
def seal() -> None:
    """Seal what is not sealed yet; what is sealed cannot be edited any more without being found out."""
    from tasks.database import FLOWS
    from tasks.history.store import seal_history
    from tasks.stack import connected, ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    with connected(settings, FLOWS, write=True) as connection:
        sealed = seal_history(connection, now=datetime.now(UTC), actor=_account())
    if sealed.seals:
        out().print(f"Sealed {sealed.entries:,} entries; the newest seal is number {sealed.newest_seal}.")
    else:
        out().print(f"Nothing to seal; the newest seal is number {sealed.newest_seal}.")


def _account() -> str:
    """The account of the operating system: it stands with the seal."""
    import getpass

    return getpass.getuser()


@history.command("export")
def export(
    to: Annotated[Path, typer.Option("--out", metavar="FILE", dir_okay=False, help="The file to write.")],
) -> None:
    """Write the chain of seals to a file, to be kept where nobody who works on this database can change it.

    It holds numbers, instants and hashes, and who sealed; nothing about customers.
    """
    from tasks.errors import Refused, UsageError
    from tasks.history.chain import export_seals
    from tasks.history.store import read_seals

    seals = on_database(read_seals)
    if not seals:
        raise Refused("There is no seal to export yet.", hint="Run `kontor history seal` first.")
    partial = to.with_name(f".{to.name}.part")
    try:
        partial.write_text(export_seals(seals), "utf-8")
        partial.replace(to)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UsageError(f"{to.name} cannot be written: {error.strerror}.", hint="Choose another place.") from None
    out().print(f"{to}: seals 1 to {seals[-1].seal_number}, root {seals[-1].root}")
