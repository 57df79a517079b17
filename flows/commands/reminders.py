"""`kontor reminders`: who would be reminded and why, and what people hold back."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from flows.commands.egress import note_egress
from flows.commands.reading import on_database
from flows.commands.screen import AsList, AsOf, ListFormat, out, parse_day, say, settings_in_force, today_in

if TYPE_CHECKING:
    from sqlalchemy import Connection

reminders = typer.Typer(no_args_is_help=True, help="Who is reminded of what, why, and what is held back.")

T = TypeVar("T")
ON_A_SCREEN = ("customer_number", "decision", "stage", "reason", "recipient_email", "language")

Customer = Annotated[str, typer.Argument(help="The customer's number, with its leading zeros.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the hold.")]
Invoice = Annotated[str | None, typer.Option("--invoice", help="Only this invoice; default: the whole customer.")]


@reminders.command("preview")
def preview(
    as_of: AsOf = None,
    decision: Annotated[str | None, typer.Option(help="Only remind, nothing, hold or task.")] = None,
    form: AsList = ListFormat.table,
) -> None:
    """Show what a run would decide about every customer, and why; nothing is kept and nobody is written to."""
    from tasks.reminders import preview_store

    today = today_in(settings_in_force())
    day = as_of or today
    rows = on_database(lambda connection: preview_store.preview(connection, day, today))
    chosen = [row for row in rows if decision is None or row["decision"] == decision]
    if form is ListFormat.json:
        _print_json(chosen)
        return
    _print_rows([{name: row[name] for name in ON_A_SCREEN} for row in chosen])
    counts = ", ".join(f"{kind} {sum(row['decision'] == kind for row in rows)}" for kind in _kinds(rows))
    out().print(f"As of {day}: {counts or 'nothing is overdue'}. No data was changed, and nobody was written to.")


@reminders.command("explain")
def explain(customer: Customer, as_of: AsOf = None, form: AsList = ListFormat.table) -> None:
    """Explain the decision about one customer on a day: its reason, rule, items, person, and why this person."""
    from tasks.reminders import preview_store

    today = today_in(settings_in_force())
    day = as_of or today
    rows = on_database(lambda connection: preview_store.explain(connection, customer, day, today))
    if form is ListFormat.json:
        _print_json(rows)
        return
    if not rows:
        out().print(f"Customer {customer} has nothing overdue on {day}, and nothing to be noticed beforehand.")
    for row in rows:
        _print_explained(row)


def _print_explained(row: Mapping[str, Any]) -> None:
    from tasks.reports.rows import printable

    made = "decided by a run" if row["kept"] else "what a run would decide"
    rule = f"{row['rule_id']}, version {row['rule_version']}" if row["rule_id"] else "none"
    lines = [
        ("customer", f"{row['customer_number']} on {row['as_of']} ({made})"),
        ("decision", " ".join(str(row[name]) for name in ("decision", "stage") if row[name])),
        ("because", row["reason"]),
        ("rule", rule),
        ("items", ", ".join(row["invoice_numbers"])),
        ("written to", row["recipient_email"]),
        ("why this person", row["recipient_reason"]),
        ("language", row["language"]),
        *((name.replace("_", " "), json.dumps(value, ensure_ascii=False)) for name, value in row["figures"].items()),
    ]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        if value not in (None, "", "[]", "{}"):
            out().print(f"{name:<{width}}  {printable(str(value))}")


@reminders.command("hold")
def hold(
    customer: Customer,
    reason: Reason,
    kind: Annotated[str, typer.Option(help="dispute, do_not_remind, unmatched_money or legal_hold.")] = "do_not_remind",
    until: Annotated[
        date | None, typer.Option(parser=parse_day, metavar="DATE", help="Its last day; default: until released.")
    ] = None,
    invoice: Invoice = None,
) -> None:
    """Hold reminders back, of a customer or one invoice, until a day or until released."""
    _hold(customer, kind, reason, until, invoice)


@reminders.command("promise")
def promise(
    customer: Customer,
    until: Annotated[date, typer.Option(parser=parse_day, metavar="DATE", help="The day by which it will be paid.")],
    reason: Reason,
    amount: Annotated[str | None, typer.Option(help="The sum that was promised.")] = None,
    currency: Annotated[str | None, typer.Option(help="Its currency, such as EUR.")] = None,
    invoice: Invoice = None,
) -> None:
    """Note a promise to pay: no reminder until that day; after it they go on by themselves and say it was not kept."""
    _hold(customer, "promise_to_pay", reason, until, invoice, _amount(amount), currency.upper() if currency else None)


@reminders.command("release")
def release(
    hold_id: Annotated[int, typer.Argument(metavar="HOLD", help="Its number; `kontor report reminder-holds` has it.")],
    reason: Reason,
) -> None:
    """Release a hold before its time; the next run decides again."""
    from tasks.reminders.holds_store import release_hold

    now = datetime.now(UTC)
    author = getpass.getuser()
    kind = change(lambda connection: release_hold(connection, hold_id, author=author, reason=reason, now=now))
    out().print(f"Hold {hold_id} ({kind}) is released.")


def _hold(
    customer: str,
    kind: str,
    reason: str,
    until: date | None,
    invoice: str | None,
    amount: Decimal | None = None,
    currency: str | None = None,
) -> None:
    from tasks.reminders.holds_store import NewHold, insert_hold

    today = today_in(settings_in_force())
    wanted = NewHold(kind, customer, today, getpass.getuser(), reason, until, invoice, amount, currency)
    hold_id = change(lambda connection: insert_hold(connection, wanted))
    reach = f"through {until}" if until is not None else "until it is released"
    out().print(f"Hold {hold_id} ({kind}) stands on customer {customer} from today {reach}.")


def _amount(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"{text!r} is not an amount; expected digits such as 1250.00.") from None


def change(change: Callable[[Connection], T]) -> T:
    """Make a change in one transaction and return what it returns; the database is started where it is not up."""
    from tasks.stack import connected, ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    with connected(settings, write=True) as connection:
        return change(connection)


def _kinds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(row["decision"]) for row in rows))


def _print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    if not rows:
        return
    names = list(rows[0])
    cells = [["" if row[name] is None else printable(str(row[name])) for name in names] for row in rows]
    print_table(out(), [name.replace("_", " ") for name in names], cells, [False] * len(names))


def _print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    from tasks.reports.rows import json_value

    made = [{name: json_value(value) for name, value in row.items()} for row in rows]
    note_egress("reminders", "json", len(made), made[0] if made else ())
    out().file.write(json.dumps(made, ensure_ascii=False, indent=2) + "\n")
