"""Tables for people: coloured on a terminal, plain and never cut anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tasks.artifacts import PAYER_COLOURS, cell_text, money
from tasks.reports.catalogue import reading_of
from tasks.reports.formats import is_numeric, shown
from tasks.reports.rows import Column, Report, currency_of, json_value, printable, totals_by_currency
from tasks.reports.tables import GAP, Layout, heading_lines, lay_out

COLOURS = {"green": "green", "yellow": "yellow", "red": "red", "grey": "bright_black"}
_STATE_COLOURS = {
    "done": "green", "applied": "green", "fresh": "green", "late": "yellow", "known": "bright_black",
    "superseded": "bright_black", "partly_done": "yellow", "open": "yellow", "running": "cyan", "failed": "red",
    "abandoned": "red", "refused": "red", "stale": "red", "never": "red",
}  # fmt: skip


def payer_text(payer_class: str) -> Text:
    """A payer class with its colour and the colour's name, for those who cannot tell red from green."""
    colour = PAYER_COLOURS[payer_class][1] if payer_class in PAYER_COLOURS else "grey"
    return Text.assemble(("● ", COLOURS[colour]), f"{payer_class} ({colour})")


def state_text(state: str) -> Text:
    """A state in its colour; the word says it too."""
    return Text(state, style=_STATE_COLOURS.get(state, ""))


def coloured(word: str, colour: str) -> Text:
    """A word behind a dot in its colour, with the colour's name."""
    return Text.assemble(("● ", COLOURS.get(colour, "")), f"{word} ({colour})")


def cell_of(column: Column, value: object, currency: str | None) -> Text:
    """One cell of a report."""
    if column.name == "payer_class" and isinstance(value, str):
        return payer_text(value)
    text = shown(column, value, currency)
    return state_text(text) if column.name == "state" else Text(text)


def print_table(
    console: Console,
    headings: Sequence[str],
    rows: Iterable[Sequence[Text | str]],
    right: Sequence[bool],
    *,
    may_leave_out: bool = False,
) -> int:
    """Print a table: coloured and fitted to a terminal, else as aligned text whose lines are never broken.

    Returns how many columns had no room, which only ``may_leave_out`` allows.
    """
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    plain = [[cell.plain for cell in row] for row in cells]
    if not console.is_terminal:
        _print_plain(console, headings, plain, right)
        return 0
    layout = lay_out(headings, plain, right, console.width, may_leave_out=may_leave_out)
    _print_fitted(console, headings, cells, right, layout)
    return len(layout.left_out)


def _print_fitted(
    console: Console, headings: Sequence[str], rows: Sequence[Sequence[Text]], right: Sequence[bool], layout: Layout
) -> None:
    rights = [right[at] for at in layout.side]
    for line in heading_lines([headings[at] for at in layout.side], layout.widths):
        _print_line(console, [Text(text, style="bold") for text in line], layout.widths, rights)
    console.print(Text("─" * min(sum(layout.widths) + GAP * (len(layout.widths) - 1), console.width), style="dim"))
    for row in rows:
        broken = [
            row[at].wrap(console, width) or [Text()] for at, width in zip(layout.side, layout.widths, strict=True)
        ]
        for line_number in range(max(map(len, broken), default=0)):
            cells = [lines[line_number] if line_number < len(lines) else Text() for lines in broken]
            _print_line(console, cells, layout.widths, rights)
        for at in layout.below:
            _print_below(console, headings[at], row[at], named=len(layout.below) > 1)


def _print_line(console: Console, cells: Sequence[Text], widths: Sequence[int], rights: Sequence[bool]) -> None:
    line = Text()
    for at, (cell, width, numeric) in enumerate(zip(cells, widths, rights, strict=True)):
        room = " " * max(width - cell.cell_len, 0)
        parts = (room, cell) if numeric else (cell, room)
        line = Text.assemble(line, " " * GAP if at else "", *parts)
    line.rstrip()
    console.print(line, soft_wrap=True)


def _print_below(console: Console, heading: str, cell: Text, *, named: bool) -> None:
    """A long text under its row, indented; with its column's name where several stand there."""
    if not cell.plain.strip():
        return
    text = Text.assemble((f"{heading}: " if named else "", "dim"), cell)
    for line in text.wrap(console, max(console.width - 2 * GAP, 1)):
        console.print(Text.assemble(" " * 2 * GAP, line), soft_wrap=True)


def _print_plain(
    console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]
) -> None:
    widths = [max([cell_len(heading), *(cell_len(row[at]) for row in rows)]) for at, heading in enumerate(headings)]
    for line in [list(headings), ["-" * width for width in widths], *rows]:
        padded = [_pad(cell, width, numeric) for cell, width, numeric in zip(line, widths, right, strict=True)]
        console.file.write("  ".join(padded).rstrip() + "\n")


def _pad(cell: str, width: int, right: bool) -> str:
    room = " " * (width - cell_len(cell))
    return room + cell if right else cell + room


def print_report(console: Console, report: Report) -> None:
    """Print a report for a person: title, rows, sum per currency; fewer columns on a terminal than in the view."""
    reading = reading_of(report.name)
    chosen = report.only(reading.columns) if reading.columns and console.is_terminal else report
    if console.is_terminal:
        console.print(Text(f"{reading.title}{f', as of {report.as_of}' if report.as_of else ''}", style="bold"))
    if not report.rows:
        console.print("Nothing to show: no row matches." if console.is_terminal else "no rows")
        return
    rows = [
        [cell_of(column, value, currency_of(record)) for column, value in zip(chosen.columns, row, strict=True)]
        for record, row in zip(report.records(), chosen.rows, strict=True)
    ]
    headings = [column.name.replace("_", " ") if console.is_terminal else column.name for column in chosen.columns]
    right = [is_numeric(column) for column in chosen.columns]
    left_out = print_table(console, headings, rows, right, may_leave_out=True)
    if console.is_terminal:
        _print_footer(console, report, len(report.columns) - len(chosen.columns) + left_out, reading.total)


def _print_footer(console: Console, report: Report, hidden: int, total: str | None) -> None:
    totals = totals_by_currency(report, total) if total and not report.more else {}
    said = [f"{len(report.rows):,} row{'' if len(report.rows) == 1 else 's'}"]
    said += [money(amount, currency) for currency, amount in totals.items()]
    if report.more:
        said[0] = f"the first {len(report.rows):,} rows; --limit 0 shows all"
    if hidden:
        said.append(f"{hidden} more column{'' if hidden == 1 else 's'} with --format json, csv, xlsx or html")
    console.print(Text(" · ".join(said), style="dim"))


def print_card(console: Console, report: Report) -> None:
    """Print one customer's card: who, how they pay and why, what is open, what is in quarantine."""
    card = json_value(report.records()[0]["card"])
    if not isinstance(card, dict):
        return
    facts = [f"{name.replace('_', ' ')}: {card[name]}" for name in _CARD_FACTS if card.get(name) is not None]
    console.print(Text(printable(f"{card['customer_number']}  {card['name']}"), style="bold"))
    console.print(printable(f"as of {card['as_of']} · {' · '.join(facts)}"))
    held = card["payer_class"] or {"payer_class": "unrated", "reason": "nothing is known yet"}
    # The figures are those of the day on which the class was decided, not of the day asked about.
    since = f" since {held['since']}, because then" if held.get("since") else ""
    console.print(Text.assemble(payer_text(held["payer_class"]), f"{since}: {printable(held['reason'])}"))
    for currency, balance in card["balance"].items():
        console.print(f"{currency}: {balance['open']} open, of which {balance['overdue']} overdue")
    _print_section(console, "Open items", card["open_items"], _CARD_ITEMS)
    _print_section(console, "Contacts", [_contact(item) for item in card["contacts"]], _CARD_CONTACTS)
    rows = [{**row, **reason} for row in card["quarantine"] for reason in row["reasons"]]
    _print_section(console, "In quarantine", rows, ("file_name", "cell", "raw_value", "reason"))


_CARD_FACTS = ("country", "language", "vat_number", "currency", "payment_terms_days", "segment", "owner")
_CARD_ITEMS = ("invoice_number", "document_type", "due_on", "currency", "open_amount", "days_overdue", "disputed")
_CARD_CONTACTS = ("name", "email", "phone", "roles")


def _contact(item: dict[str, Any]) -> dict[str, object]:
    name = " ".join(str(item[part]) for part in ("first_name", "last_name") if item[part])
    return {**item, "name": name, "roles": ", ".join(role["role"] for role in item["roles"] if role["held"])}


def _print_section(console: Console, title: str, records: Sequence[Mapping[str, object]], names: Sequence[str]) -> None:
    if not records:
        return
    console.print(Text(f"\n{title} ({len(records)})", style="bold"))
    right = [name in ("open_amount", "days_overdue") for name in names]
    rows = [[printable(cell_text(record.get(name))) for name in names] for record in records]
    print_table(console, [name.replace("_", " ") for name in names], rows, right)
