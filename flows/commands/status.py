"""`kontor status`: at a glance whether every feed is fresh, every run healthy, every row accounted for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.commands.reading import on_database
from flows.commands.screen import AsList, ListFormat, out

if TYPE_CHECKING:
    from rich.text import Text
    from sqlalchemy import Connection

    from tasks.reports.rows import Column, Report

LAST_RUNS = 8
MOST_LINES = 12

# Section of the status → the view behind it.
SECTIONS: Mapping[str, str] = {
    "feeds": "feed_freshness",
    "runs": "runs",
    "quarantine": "quarantine_counts",
    "payer_classes": "payer_class_counts",
    "refused_files": "feed_files",
}


def status(form: AsList = ListFormat.table) -> None:
    """Show how fresh each feed is, the last runs, what waits in quarantine, payer classes, and refused files."""
    found = on_database(_read)
    if form is ListFormat.json:
        out().file.write(json.dumps(_as_json(found), ensure_ascii=False, indent=2) + "\n")
        return
    _print_feeds(found["feeds"])
    _print_section("Last runs", found["runs"], ("flow", "as_of", "state", "started_at", "duration_seconds", "counts"))
    _print_section("In quarantine", found["quarantine"], ("file_name", "as_of", "code", "rows"))
    _print_section("Payer classes", found["payer_classes"], ("payer_class", "customers"))
    _print_section("Refused files", found["refused_files"], ("file_name", "contract", "received_at", "refusal"))
    _print_next(found)


def _read(connection: Connection) -> dict[str, Report]:
    from tasks.reports.store import read_report

    options: Mapping[str, dict[str, Any]] = {
        "runs": {"limit": LAST_RUNS},
        "refused_files": {"equal": {"state": "refused"}},
    }
    return {name: read_report(connection, view, **options.get(name, {})) for name, view in SECTIONS.items()}


def _as_json(found: Mapping[str, Report]) -> dict[str, list[dict[str, object]]]:
    from tasks.reports.freshness import judge_age
    from tasks.reports.rows import json_rows

    sections = {name: json_rows(report) for name, report in found.items()}
    for row in sections["feeds"]:
        age = row["age_days"]
        row["freshness"] = judge_age(str(row["feed"]), age if isinstance(age, int) else None).word
    return sections


def _print_feeds(feeds: Report) -> None:
    from tasks.reports.freshness import judge_age
    from tasks.reports.terminal import freshness_text, print_table

    console = out()
    console.print("Feeds", style="bold")
    if not feeds.rows:
        console.print("Nothing has come in yet.")
        return
    rows: list[list[Text | str]] = []
    for record in feeds.records():
        age = record["age_days"] if isinstance(record["age_days"], int) else None
        days = "never" if age is None else f"{age} day{'' if age == 1 else 's'}"
        word = freshness_text(judge_age(str(record["feed"]), age))
        newest = str(record["newest_as_of"] or "–")
        rows.append(
            [
                str(record["feed"]),
                str(record["source"]),
                newest,
                days,
                word,
                str(record["files"]),
                str(record["refused"]),
            ]
        )
    headings = ["feed", "source", "newest day", "age", "freshness", "files", "refused"]
    print_table(console, headings, rows, [False, False, False, True, False, True, True])


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


def _print_next(found: Mapping[str, Report]) -> None:
    """Suggest what to look at, most pressing first."""
    lines = []
    if not found["feeds"].rows:
        lines.append("kontor demo                       see it all on a made-up company")
        lines.append("kontor import FILE                take a first file in")
    if found["refused_files"].rows:
        lines.append("kontor report feed-files          every file and why it was refused")
    if found["quarantine"].rows:
        lines.append("kontor quarantine list            the rows that could not be used, cell by cell")
    if found["feeds"].rows:
        lines.append("kontor report overdue-invoices    who is late")
    out().print("\nNext", style="bold")
    for line in lines:
        out().print(f"  {line}")
