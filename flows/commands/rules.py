"""`kontor rules`: read, export, propose, try out on the past, put into force and look back on every kind of rule."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flows.commands.reading import on_database
from flows.commands.screen import (
    AsList,
    AsOf,
    ListFormat,
    bar,
    err,
    out,
    parse_day,
    say,
    settings_in_force,
    today_in,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tasks.rule_sets import Change

rules = typer.Typer(no_args_is_help=True, help="Rules as data: what holds, what is proposed, what it would have done.")

T = TypeVar("T")
MONTHS_PLAYED = 3
Table = Annotated[str, typer.Argument(metavar="TABLE", help="A table of rules, such as reminder_stage.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the rules.")]


@rules.command("list")
def list_rules(
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="Only this table's rules.")] = None,
    as_of: AsOf = None,
    form: AsList = ListFormat.table,
) -> None:
    """List the tables of rules with how many hold and whether a draft waits; or the rules of one table."""
    from tasks.rules_store import fetch_drafts, fetch_rules, rule_table, rule_tables

    day = as_of or today_in(settings_in_force())
    if table is not None:
        chosen = rule_table(table)
        _show([_readable(chosen, row) for row in on_database(lambda c: fetch_rules(c, chosen, day))], form)
        return

    def count(connection: Connection) -> list[dict[str, object]]:
        waiting = {draft.table: draft for draft in fetch_drafts(connection)}
        return [
            {
                "table": name,
                "rules": len(fetch_rules(connection, found, day)),
                "draft": f"{waiting[name].draft_id} by {waiting[name].author}" if name in waiting else None,
            }
            for name, found in rule_tables().items()
        ]

    _show(on_database(count), form)


@rules.command("export")
def export(
    table: Table,
    as_of: AsOf = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write to this file.", dir_okay=False)] = None,
    draft: Annotated[bool, typer.Option("--draft", help="The draft instead of what holds.")] = False,
) -> None:
    """Export a table's rules from a day on as CSV, in the form that `import` reads and `configs/rules/` has."""
    from flows.commands.reading import write_out
    from tasks.rules_store import as_csv, current_set, fetch_draft, rule_table

    day, chosen = as_of or today_in(settings_in_force()), rule_table(table)
    rows = on_database(lambda c: fetch_draft(c, chosen).rows if draft else current_set(c, chosen, day))
    text = as_csv(chosen, rows)
    if to is None:
        out().file.write(text)
    else:
        write_out(text.encode("utf-8"), to)


@rules.command("import")
def import_rules(
    table: Table,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The CSV file: the whole set.")],
    reason: Reason,
) -> None:
    """Keep a set of rules as the table's draft; refuses gaps, overlaps and unreachable rows, naming them all.

    Nothing works by a draft. `rules simulate` tries it on the past, `rules activate` puts it into force.
    """
    from tasks.rules_store import import_draft, read_draft, rule_table

    chosen, now = rule_table(table), datetime.now(UTC)

    def keep(connection: Connection) -> int:
        rows = read_draft(connection, file, chosen)
        _check_soundness(connection, chosen.name, rows)
        return import_draft(connection, chosen, rows, author=getpass.getuser(), reason=reason, now=now)

    number = _as_owner(keep)
    out().print(f"Draft {number} of {chosen.name} is kept; nothing works by it yet.")
    err().print(f"next: kontor rules diff {chosen.name}", style="dim")


@rules.command("diff")
def diff(
    table: Table,
    file: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="A CSV file; default: the draft.")]
    = None,
    form: AsList = ListFormat.table,
) -> None:  # fmt: skip
    """Show what a draft, or a file, would change from today on: rule by rule, cell by cell."""
    from tasks.rule_sets import compare
    from tasks.rules import read_seeds
    from tasks.rules_store import fetch_draft, fetch_rules, rule_table

    chosen, today = rule_table(table), today_in(settings_in_force())

    def look(connection: Connection) -> list[Change]:
        proposed = fetch_draft(connection, chosen).rows if file is None else read_seeds(file, chosen)
        return compare(chosen, fetch_rules(connection, chosen), proposed, today)

    _show_changes(on_database(look), form)


@rules.command("simulate")
def simulate(
    table: Annotated[list[str] | None, typer.Argument(metavar="[TABLE]…", help="Drafts to try; default: all.")] = None,
    first: Annotated[
        date | None, typer.Option("--from", parser=parse_day, metavar="DATE", help="Default: three months before.")
    ] = None,
    last: Annotated[
        date | None, typer.Option("--to", parser=parse_day, metavar="DATE", help="Default: the newest ledger's day.")
    ] = None,
    form: AsList = ListFormat.table,
) -> None:
    """Play drafts over past days: who would have had more, fewer, earlier, later or other mail? Keeps nothing."""
    from tasks.payments.class_trial import try_classes
    from tasks.reminders.simulation import Difference, Mail
    from tasks.reminders.simulation_store import Spans, newest_ledger_day, simulate, working_weekdays

    def play(connection: Connection) -> tuple[list[Mail], list[Mail], list[tuple[str, Difference]]]:
        end = last or newest_ledger_day(connection)
        start = first or end - timedelta(days=31 * MONTHS_PLAYED)
        days = working_weekdays(start, end)
        drafts = dict(_drafts(connection, table or []))
        payers = drafts.pop(_CLASSES, None)
        classes = Spans(try_classes(connection, payers, start)) if payers is not None else None
        with bar("days played") as change:
            done = iter(range(1, len(days) + 1))
            advance = (lambda: change(next(done), len(days))) if change is not None else (lambda: None)
            before, after, found = simulate(connection, days, drafts, advance, classes)
        return before, after, _named(connection, found)

    before, after, found = on_database(play)
    rows = [
        {
            "customer_number": number,
            "change": item.change,
            "mails": item.mails,
            "mails_proposed": item.mails_proposed,
            "details": item.details,
        }
        for number, item in found
    ]
    _show(rows, form)
    if form is ListFormat.table:
        counts = ", ".join(f"{kind} {sum(row['change'] == kind for row in rows)}" for kind in _KINDS)
        out().print(f"{len(before)} mails by the rules in force, {len(after)} by the draft. Customers: {counts}.")


_CLASSES = "payer_class"
_KINDS = ("more", "fewer", "earlier", "later", "other")


def _drafts(connection: Connection, names: Sequence[str]) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    from tasks.errors import UsageError
    from tasks.reminders.rulebook import RULE_TABLES
    from tasks.rules_store import fetch_draft, fetch_drafts, rule_table

    chosen = [fetch_draft(connection, rule_table(name)) for name in names] or fetch_drafts(connection)
    known = (*RULE_TABLES, _CLASSES)
    played = {draft.table: draft.rows for draft in chosen if draft.table in known}
    if not played:
        raise UsageError(
            "There is no draft that decides about reminders.",
            hint=f"Import one of: {', '.join(known)}. `kontor rules diff TABLE` shows what others would change.",
        )
    return played


def _named(connection: Connection, found: Sequence[Any]) -> list[tuple[str, Any]]:
    from tasks.reminders.preview_store import customer_numbers

    numbers = customer_numbers(connection, [item.organization_id for item in found])
    return sorted(((numbers[item.organization_id], item) for item in found), key=lambda pair: pair[0])


@rules.command("activate")
def activate(
    table: Table,
    reason: Reason,
    day: Annotated[
        date | None, typer.Option("--from", parser=parse_day, metavar="DATE", help="Its first day; default today.")
    ] = None,
    form: AsList = ListFormat.table,
) -> None:
    """Put the table's draft into force from a day on: old versions end the day before, new ones begin."""
    from tasks.rules_store import activate, fetch_draft, rule_table

    chosen, today, now = rule_table(table), today_in(settings_in_force()), datetime.now(UTC)
    start = day or today

    def change(connection: Connection) -> list[Change]:
        _check_soundness(connection, chosen.name, fetch_draft(connection, chosen).rows)
        return activate(connection, chosen, start, author=getpass.getuser(), reason=reason, today=today, now=now)

    changes = _as_owner(change)
    _show_changes(changes, form)
    if form is ListFormat.table:
        out().print(f"{len(changes)} rules of {chosen.name} change from {start} on.")


def _check_soundness(connection: Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rules of retention by which no plan could be made: they are checked against the schema as a whole."""
    from tasks.retention.trial_store import check_candidates

    if table == "retention_policy":
        check_candidates(connection, rows)


@rules.command("history")
def history(
    table: Table,
    rule: Annotated[str | None, typer.Option("--rule", help="Only this rule.")] = None,
    form: AsList = ListFormat.table,
) -> None:
    """Show every version of a table's rules: when it held, who decided it and why."""
    from tasks.rules_store import fetch_rules, rule_table

    chosen = rule_table(table)
    rows = on_database(lambda connection: fetch_rules(connection, chosen))
    _show([_readable(chosen, row) for row in rows if rule is None or row["rule_id"] == rule], form)


# --- shown ------------------------------------------------------------------------------------------------------------


def _readable(table: Any, row: Mapping[str, Any]) -> dict[str, object]:
    """The row with its days as two columns and without the database's own key."""
    from tasks.rule_sets import content_columns, last_day

    content = {name: row[name] for name in content_columns(table) if name != "rule_id"}
    days = {"valid_from": row["valid"].lower, "valid_to": last_day(row)}
    about = {"author": row["author"], "reason": row["reason"]}
    return {"rule_id": row["rule_id"], "version": row["version"], **content, **days, **about}


def _show_changes(changes: Sequence[Change], form: ListFormat) -> None:
    rows: list[dict[str, object]] = [
        {"rule_id": change.rule_id, "kind": change.kind, "column": name, "now": old, "proposed": new}
        for change in changes
        for name, (old, new) in (change.cells or {"": (None, None)}).items()
    ]
    _show(rows, form)
    if not rows and form is ListFormat.table:
        out().print("Nothing would change.")


def _show(rows: Sequence[Mapping[str, Any]], form: ListFormat) -> None:
    from tasks.reports.rows import json_value, printable
    from tasks.reports.terminal import print_table

    if form is ListFormat.json:
        made = [{name: json_value(value) for name, value in row.items()} for row in rows]
        out().file.write(json.dumps(made, ensure_ascii=False, indent=2) + "\n")
        return
    if rows:
        names = list(rows[0])
        cells = [["" if row[n] is None else printable(str(json_value(row[n]))) for n in names] for row in rows]
        print_table(out(), [name.replace("_", " ") for name in names], cells, [False] * len(names))


def _as_owner(change: Callable[[Connection], T]) -> T:
    from tasks.database import OWNER
    from tasks.stack import connected, ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    with connected(settings, OWNER, write=True) as connection:
        return change(connection)
