"""`kontor status`: on one screen whether every feed is fresh, every run healthy, every row accounted for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.outcomes import print_unclaimed, unclaimed_names
from flows.commands.reading import on_database, write_out
from flows.commands.screen import out, settings_in_force

if TYPE_CHECKING:
    from rich.text import Text
    from sqlalchemy import Connection

    from tasks.reports.rows import Column, Report
    from tasks.reports.status import StatusLine

LAST_RUNS = 8
MOST_LINES = 12

# Section of the status → the view behind it.
SECTIONS: Mapping[str, str] = {
    "lines": "status_lines",
    "feeds": "feed_freshness",
    "runs": "runs",
    "quarantine": "quarantine_counts",
    "payer_classes": "payer_class_counts",
    "refused_files": "feed_files",
}


class StatusFormat(StrEnum):
    """How the status is printed."""

    table = "table"
    json = "json"
    html = "html"


def status(
    form: Annotated[
        StatusFormat | None, typer.Option("--format", help="table for people, json for scripts, html for a page.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write to this file.", dir_okay=False)] = None,
) -> None:
    """Show how Kontor is doing: every area green, yellow or red, why, and what to run next; then feeds, last runs, what
    waits in quarantine, payer classes and refused files.
    """
    found = on_database(_read)
    chosen = form or (StatusFormat.html if to is not None and to.suffix.lower() == ".html" else StatusFormat.table)
    unclaimed = unclaimed_names(settings_in_force())
    if chosen is StatusFormat.json:
        sections = {**_as_json(found), "unclaimed_files": [{"file_name": name} for name in unclaimed]}
        write_out((json.dumps(sections, ensure_ascii=False, indent=2) + "\n").encode(), to)
    elif chosen is StatusFormat.html or to is not None:
        write_out(_as_page(found).encode(), to)
    else:
        _print(found)
        print_unclaimed(unclaimed)


def _read(connection: Connection) -> dict[str, Report]:
    from tasks.reports.store import read_report

    options: Mapping[str, dict[str, Any]] = {
        "runs": {"limit": LAST_RUNS},
        "refused_files": {"equal": {"state": "refused"}},
    }
    return {name: read_report(connection, view, **options.get(name, {})) for name, view in SECTIONS.items()}


def _as_json(found: Mapping[str, Report]) -> dict[str, list[dict[str, object]]]:
    from tasks.reports.rows import json_rows

    return {name: json_rows(report) for name, report in found.items()}


def _as_page(found: Mapping[str, Report]) -> str:
    from tasks.reports.status import lines_of, status_page

    titles = {
        "runs": "Last runs",
        "feeds": "Feeds",
        "payer_classes": "Payer classes",
        "quarantine": "In quarantine",
        "refused_files": "Refused files",
    }
    sections = {title: found[name] for name, title in titles.items()}
    return status_page(lines_of(found["lines"]), sections, now=datetime.now(UTC))


def _print(found: Mapping[str, Report]) -> None:
    from tasks.reports.status import lines_of

    lines = lines_of(found["lines"])
    _print_lines(lines)
    _print_feeds(found["feeds"])
    _print_section("Last runs", found["runs"], ("flow", "as_of", "state", "started_at", "duration_seconds", "counts"))
    _print_section("In quarantine", found["quarantine"], ("file_name", "as_of", "code", "rows"))
    _print_section("Payer classes", found["payer_classes"], ("payer_class", "customers"))
    _print_section("Refused files", found["refused_files"], ("file_name", "contract", "received_at", "refusal"))
    _print_next(found, lines)


def _print_lines(lines: Sequence[StatusLine]) -> None:
    """The verdict, then one line for each thing that is judged; the reason stands below what is not as it should be."""
    from rich.text import Text

    from tasks.reports.status import verdict, worst_colour
    from tasks.reports.terminal import COLOURS

    console = out()
    console.print(Text.assemble(("● ", COLOURS[worst_colour(lines)]), (f"Kontor is {verdict(lines)}", "bold")))
    console.print()
    area_width = max((len(line.area) for line in lines), default=0)
    for line in lines:
        dot = Text.assemble(("● ", COLOURS.get(line.colour, "")), f"{line.colour:<6}  {line.area:<{area_width}}  ")
        console.print(Text.assemble(dot, line.headline))
        if line.colour in ("red", "yellow"):
            indent = " " * (12 + area_width)
            width = max(console.width - len(indent), 20) if console.is_terminal else len(line.reason) or 1
            for part in Text(line.reason, style="dim").wrap(console, width):
                console.print(Text.assemble(indent, part))


def _print_feeds(feeds: Report) -> None:
    from tasks.reports.terminal import coloured, print_table

    if not feeds.rows:
        return
    out().print("\nFeeds", style="bold")
    rows: list[list[Text | str]] = []
    for record in feeds.records():
        age = record["age_days"]
        days = "never" if age is None else f"{age} day{'' if age == 1 else 's'}"
        word = coloured(str(record["freshness"]), str(record["colour"]))
        newest, files, refused = (str(record[name] or 0) for name in ("newest_as_of", "files", "refused"))
        names = str(record["feed"]), str(record["source"]), newest if record["newest_as_of"] else "–"
        rows.append([*names, days, word, files, refused])
    headings = ["feed", "source", "newest day", "age", "freshness", "files", "refused"]
    print_table(out(), headings, rows, [False, False, False, True, False, True, True])


def _print_section(title: str, report: Report, names: Sequence[str]) -> None:
    from tasks.reports.formats import is_numeric
    from tasks.reports.terminal import print_table

    console = out()
    if not report.rows:
        return
    console.print(f"\n{title}", style="bold")
    columns = [column for name in names for column in report.columns if column.name == name]
    rows = [[_cell(column, record) for column in columns] for record in report.records()[:MOST_LINES]]
    print_table(console, [c.name.replace("_", " ") for c in columns], rows, [is_numeric(c) for c in columns])
    if len(report.rows) > MOST_LINES:
        console.print(f"and {len(report.rows) - MOST_LINES} more")


def _cell(column: Column, record: Mapping[str, object]) -> Text | str:
    """A cell with counts and reasons in words instead of JSON."""
    from tasks.reports.terminal import cell_of

    name, value = column.name, record[column.name]
    if name == "state" and record.get("dry_run"):
        return f"{value} (dry run)"
    if name == "counts" and isinstance(value, Mapping):
        wanted = ("rows_read", "inserted", "updated", "quarantined", "settled", "files_refused")
        return ", ".join(f"{value[key]} {key.replace('_', ' ')}" for key in wanted if value.get(key)) or "–"
    if name == "refusal" and isinstance(value, list):
        from tasks.reports.rows import printable

        return printable("; ".join(str(reason) for reason in value))
    return cell_of(column, value, None)


def _print_next(found: Mapping[str, Report], lines: Sequence[StatusLine]) -> None:
    """What to run next, most pressing first, each command once."""
    suggested = {line.next_command: line.headline for line in reversed(lines) if line.next_command}
    commands = list(reversed(suggested.items()))
    if not found["feeds"].rows:
        commands.append(("kontor import FILE", "take a first file in"))
    else:
        commands.append(("kontor report overdue-invoices", "who is late"))
    width = max(len(command) for command, _ in commands) + 3
    out().print("\nNext", style="bold")
    for command, meaning in commands:
        out().print(f"  {command:<{width}}{meaning}")
