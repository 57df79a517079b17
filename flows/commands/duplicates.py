"""`kontor duplicates list|show|decide|merge|undo`: records that may be one, and what people decided."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flows.commands.egress import note_egress
from flows.commands.reading import deliver, on_database
from flows.commands.screen import AsList, Format, ListFormat, out, say, settings_in_force

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tasks.quality.merging_store import Proposal

T = TypeVar("T")

duplicates = typer.Typer(no_args_is_help=True, help="Customers, contacts and products that may be one: review, decide.")

PairId = Annotated[int, typer.Argument(metavar="PAIR", help="Its number, as `kontor duplicates list` says.")]
Live = Annotated[bool, typer.Option("--live", help="Do it. Without this it is only shown.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the decision.")]


@duplicates.command("list")
def list_pairs(
    decision: Annotated[str, typer.Option(help="open, same, different, related or all.")] = "open",
    entity: Annotated[str | None, typer.Option(help="Only organization, contact or product.")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="Default: table, or what --out ends with.")] = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write to this file.", dir_okay=False)] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="At most so many rows; 0 for all.")] = None,
) -> None:
    """List pairs of records that may be one, the likest first."""
    known = ("open", "same", "different", "related", "all")
    if decision not in known:
        raise typer.BadParameter(f"{decision!r} is none of {', '.join(known)}.", param_hint="--decision")
    chosen = {"decision": None if decision == "all" else decision, "entity": entity}
    equal = {name: value for name, value in chosen.items() if value is not None}
    deliver("duplicates", form=form, to=to, limit=limit, equal=equal)


@duplicates.command("show")
def show(pair: PairId, form: AsList = ListFormat.table) -> None:
    """Show one pair: how alike its records are, field by field, and what merging them would move."""
    from tasks.quality.duplicates_store import fetch_pair
    from tasks.quality.merging_store import is_mergeable, propose
    from tasks.reports.rows import json_value, printable

    def read(connection: Connection) -> tuple[dict[str, Any], Proposal | None]:
        found = fetch_pair(connection, pair)
        mergeable = is_mergeable(found["entity"]) and not found["merged"]
        return found, propose(connection, pair) if mergeable else None

    found, proposal = on_database(read)
    if form is ListFormat.json:
        plain = {name: json_value(value) for name, value in found.items()}
        note_egress("duplicates show", "json", 1, ("left_name", "right_name"), always=True)
        out().file.write(json.dumps([plain], ensure_ascii=False, indent=2) + "\n")
        return
    out().print(printable(f"{found['left_number']} {found['left_name']}"))
    out().print(printable(f"{found['right_number']} {found['right_name']}"))
    out().print(f"{found['score']:.0%} alike, {found['decision']}; they met by {', '.join(found['matched_by'])}")
    _print_fields(found["fields"])
    if proposal is not None:
        _print_proposal(proposal)


def _print_fields(fields: Mapping[str, Mapping[str, float]]) -> None:
    from tasks.reports.terminal import print_table

    rows = [[name, f"{item['alike']:.3f}", f"{item['bits']:+.1f}"] for name, item in fields.items()]
    print_table(out(), ["field", "alike", "evidence in bits"], rows, [False, True, True])


def _print_proposal(proposal: Proposal) -> None:
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    names = ("field", "kept", "merged", "result")
    rows = [
        [printable(str(item[name] if item[name] is not None else "–")) for name in names] for item in proposal.fields
    ]
    headings = ["field", f"kept: {proposal.kept_number}", f"merged: {proposal.merged_number}", "would be"]
    print_table(out(), headings, rows, [False] * len(names))
    out().print(f"{_counts(proposal.moving)} would be of {proposal.kept_number}.")
    out().print(f"{_counts(proposal.staying)} would stay with {proposal.merged_number}.")
    if proposal.colliding_invoices:
        out().print(f"Both have invoices {', '.join(proposal.colliding_invoices[:5])}: they cannot be merged.")
    if proposal.held:
        out().print(f"{proposal.merged_number} is under a legal hold: it can only be the one that is kept.")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())


@duplicates.command("decide")
def decide(
    pair: PairId,
    decision: Annotated[str, typer.Argument(metavar="DECISION", help="same, different or related.")],
    reason: Reason,
) -> None:
    """Say what a pair is; `different` and `related` (parent and subsidiary) are never proposed again."""
    from tasks.quality.duplicates_store import decide as remember

    _as_owner(lambda connection: remember(connection, pair, decision, reason, getpass.getuser()))
    out().print(f"Pair {pair}: {decision}.")


@duplicates.command("merge")
def merge(
    pair: PairId,
    reason: Reason,
    keep: Annotated[str | None, typer.Option("--keep", metavar="NUMBER", help="The record to keep, by number.")] = None,
    live: Live = False,
) -> None:
    """Merge two customers, or two contacts of one customer, into the kept one. Shown first; done with --live."""
    from tasks.quality.merging_store import merge as do_merge
    from tasks.quality.merging_store import propose

    def work(connection: Connection) -> Proposal:
        proposal = propose(connection, pair, keep)
        if live:
            do_merge(connection, proposal, getpass.getuser(), reason)
        return proposal

    proposal = _as_owner(work)
    _print_proposal(proposal)
    if live:
        out().print(f"Merged. To take it apart again: kontor duplicates undo {pair} --live")
    else:
        say("Nothing was changed; add --live to do it.")


@duplicates.command("undo")
def undo(pair: PairId, live: Live = False) -> None:
    """Take a merge apart: what was moved goes back. Tried first; done with --live."""
    from tasks.quality.merging_store import undo as take_apart

    def work(connection: Connection) -> dict[str, int]:
        back = take_apart(connection, pair, getpass.getuser())
        if not live:
            connection.rollback()
        return back

    back = _as_owner(work)
    out().print(", ".join(f"{count} {name}" for name, count in back.items()) + " go back.")
    if not live:
        say("Nothing was changed; add --live to do it.")


def _as_owner(change: Callable[[Connection], T]) -> T:
    """What ``change`` returns, given a connection that may merge; committed when it does not raise."""
    from tasks.database import OWNER
    from tasks.stack import connected, ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    with connected(settings, OWNER, write=True) as connection:
        return change(connection)
