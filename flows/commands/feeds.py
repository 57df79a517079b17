"""`kontor contracts`: what feeds look like, whether a file keeps to its contract, and a template to fill in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.running import contract_of, contract_reference
from flows.commands.screen import AsList, ListFormat, out, parse_day, say, settings_in_force, today_in

if TYPE_CHECKING:
    import pandas as pd

    from configs.settings import Settings
    from tasks.feeds.casting import CastTable
    from tasks.feeds.contracts import Column, FeedContract

contracts = typer.Typer(no_args_is_help=True, help="What each feed's file looks like, and whether a file does.")

SHOWN_PROBLEMS = 20

Name = Annotated[str, typer.Argument(help="Name of a contract, or path of one.")]


@contracts.command("list")
def list_contracts(form: AsList = ListFormat.table) -> None:
    """List the contracts: those that Kontor ships and the senders' own in KONTOR_HOME/contracts."""
    from tasks.feeds.contracts import list_contracts as shipped

    own = settings_in_force().home / "contracts"
    found = [*shipped(), *(shipped(own) if own.is_dir() else [])]
    _print_records([_summary(contract) for contract in found], form)


def _summary(contract: FeedContract) -> dict[str, object]:
    return {
        "name": contract.name,
        "feed": contract.feed,
        "source": contract.source,
        "mode": contract.mode,
        "version": contract.version,
        "file_patterns": list(contract.file_patterns),
        "extends": list(contract.extends),
        "owner": contract.owner,
        "description": contract.description,
    }


@contracts.command("show")
def show(name: Name, form: AsList = ListFormat.table) -> None:
    """Show a contract's columns: their headings, which are required, what fills a gap, which values are allowed."""
    from tasks.feeds.contracts import load_contract

    settings = settings_in_force()
    contract = load_contract(contract_reference(settings, name) or name)
    if form is ListFormat.table:
        out().print(f"{contract.name} {contract.version}: feed {contract.feed}, {contract.mode}, from {contract.path}")
        out().print(" ".join(contract.description.split()))
    _print_records([_column(column, contract.key) for column in contract.columns], form)
    if form is ListFormat.table and contract.checks:
        _print_records([{"check": c.name, "severity": c.severity, "reason": c.reason} for c in contract.checks], form)


def _column(column: Column, key: Sequence[str]) -> dict[str, object]:
    notes = {
        "default": column.default,
        "default from": column.default_from,
        "always": column.constant,
        "one of": ", ".join(column.allowed) or None,
        "dates": ", ".join(column.date_formats) if column.kind == "date" else None,
    }
    return {
        "column": column.name,
        "kind": column.kind,
        "key": column.name in key,
        "required": column.required,
        "headings": list(dict.fromkeys((column.heading, *column.aliases))),
        "notes": "; ".join(f"{name}: {text}" for name, text in notes.items() if text),
    }


@contracts.command("template")
def template(
    name: Name,
    to: Annotated[Path | None, typer.Option("--out", dir_okay=False, help="Default: NAME_template.xlsx here.")] = None,
) -> None:
    """Write the Excel file that a sender fills in."""
    from tasks.feeds.contracts import load_contract
    from tasks.feeds.template import write_template

    contract = load_contract(contract_reference(settings_in_force(), name) or name)
    target = to or Path(f"{contract.name}_template.xlsx")
    write_template(contract, target)
    out().print(f"{target}")


# --- check ------------------------------------------------------------------------------------------------------------


@contracts.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Data files, or contracts (.yaml).")],
    contract: Annotated[str | None, typer.Option(help="Contract of the files; default: by the file's name.")] = None,
    as_of: Annotated[
        date | None, typer.Option("--as-of", parser=parse_day, metavar="DATE", help="The files' business date.")
    ] = None,
    form: AsList = ListFormat.table,
) -> None:
    """Read files as an import would, without the database, and say what was recognised and what is wrong.

    Checks that need other rows or the customers are made by `kontor import --dry-run`. A contract file is validated.
    """
    settings = settings_in_force()
    checked = [_checked(settings, path, contract, as_of) for path in files]
    if form is ListFormat.json:
        out().file.write(json.dumps(checked, ensure_ascii=False, indent=2) + "\n")
    else:
        for item in checked:
            _print_checked(item)
    _raise_refusals(checked)


def _checked(settings: Settings, path: Path, contract: str | None, as_of: date | None) -> dict[str, Any]:
    from tasks.errors import FileRefused

    if path.suffix.lower() in (".yaml", ".yml"):
        return _checked_contract(path)
    found = contract_of(settings, path, contract_reference(settings, contract))
    try:
        return _checked_file(path, found, as_of, today_in(settings))
    except FileRefused as refusal:
        return {
            "file_name": path.name,
            "contract": found.name,
            "state": "refused",
            "reasons": list(refusal.reasons),
            "hint": refusal.hint,
        }


def _checked_contract(path: Path) -> dict[str, Any]:
    from tasks.feeds.contracts import load_contract

    found = load_contract(path)
    return {
        "file_name": path.name,
        "contract": found.name,
        "state": "valid",
        "feed": found.feed,
        "extends": list(found.extends),
        "columns": list(found.column_names),
    }


def _checked_file(path: Path, contract: FeedContract, as_of: date | None, today: date) -> dict[str, Any]:
    from tasks.feeds.business_date import find_as_of, find_revision
    from tasks.feeds.casting import cast_table
    from tasks.feeds.reading import read_table

    raw = read_table(path, contract)
    cast = cast_table(raw, contract)
    day = find_as_of(contract, file_name=path.name, titles=raw.titles, given=as_of, received_on=today)
    return {
        "file_name": path.name,
        "contract": contract.name,
        "state": "readable",
        "as_of": day.isoformat(),
        "revision": find_revision(contract, file_name=path.name, given=None),
        "sheet": raw.sheet,
        "encoding": raw.encoding,
        "delimiter": raw.delimiter,
        "header_row": raw.header_row,
        "columns": dict(raw.columns),
        "absent_columns": [name for name in contract.column_names if name not in raw.columns],
        "unknown_columns": list(raw.unknown_columns),
        "rows": len(raw.frame),
        "totals_rows": [row.row_number for row in raw.totals],
        "blank_rows": raw.blank_rows,
        "remarks": list(raw.remarks),
        "not_asked": ["guards", *(check.name for check in contract.checks)],
        **_problems(cast),
    }


def _problems(cast: CastTable) -> dict[str, Any]:
    problems: pd.DataFrame = cast.problems
    fields = ("row_number", "cell", "column_name", "raw_value", "code", "reason")
    records = problems.sort_values("row_number").to_dict("records")
    return {
        "bad_rows": int(problems["row_number"].nunique()),
        "problems": [{name: _plain(record[name]) for name in fields} for record in records],
    }


def _plain(value: object) -> object:
    """A cell of a frame without the frame's own kinds of number and nothing."""
    import pandas as pd

    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return None
    return value if isinstance(value, str) else int(str(value))


def _print_checked(item: Mapping[str, Any]) -> None:
    console = out()
    if item["state"] == "valid":
        console.print(f"{item['file_name']}: a valid contract, {item['contract']}, with {len(item['columns'])} columns")
        return
    if item["state"] == "refused":
        console.print(f"{item['file_name']}: would be refused by contract {item['contract']}")
        return
    where = f"sheet {item['sheet']}" if item["sheet"] else f"{item['encoding']}, delimiter {item['delimiter']!r}"
    console.print(f"{item['file_name']}: readable by contract {item['contract']}")
    console.print(f"  as of        {item['as_of']}, revision {item['revision']}")
    console.print(f"  read from    {where}, header in row {item['header_row']}")
    known = ", ".join(f"{name} ← {' '.join(heading.split())}" for name, heading in item["columns"].items())
    console.print(f"  recognised   {known}")
    console.print(f"  not there    {', '.join(item['absent_columns']) or 'nothing is missing'}")
    console.print(f"  unknown      {', '.join(item['unknown_columns']) or 'none'}")
    console.print(f"  rows         {item['rows']}, totals in rows {item['totals_rows']}, blank {item['blank_rows']}")
    for remark in item["remarks"]:
        console.print(f"  beside it    {remark}")
    console.print(f"  bad rows     {item['bad_rows'] or 'none'}")
    console.print(
        "  not asked    guards, checks between columns, doubled keys, unknown customers: they need the database;"
        f" kontor import {item['file_name']} --contract {item['contract']} --dry-run"
    )
    shown = item["problems"][:SHOWN_PROBLEMS]
    if shown:
        _print_records(
            [{name: row[name] for name in ("cell", "raw_value", "reason")} for row in shown], ListFormat.table
        )
    if len(item["problems"]) > len(shown):
        say(f"{len(item['problems']) - len(shown)} more with --format json")


def _raise_refusals(checked: Sequence[Mapping[str, Any]]) -> None:
    from tasks.errors import BadInput, FileRefused

    refused = [item for item in checked if item["state"] == "refused"]
    if len(refused) == 1:
        raise FileRefused(refused[0]["file_name"], refused[0]["reasons"], hint=refused[0]["hint"])
    if refused:
        reasons = "".join(f"\n  - {item['file_name']}: {reason}" for item in refused for reason in item["reasons"])
        raise BadInput(f"{len(refused)} files would be refused:{reasons}", hint=refused[0]["hint"])


def _print_records(records: Sequence[Mapping[str, Any]], form: ListFormat) -> None:
    from tasks.artifacts import cell_text
    from tasks.reports.rows import printable
    from tasks.reports.terminal import print_table

    if form is ListFormat.json:
        out().file.write(json.dumps(records, ensure_ascii=False, indent=2) + "\n")
        return
    names = list(records[0]) if records else []
    rows = [
        [printable(", ".join(value) if isinstance(value, list) else cell_text(value)) for value in record.values()]
        for record in records
    ]
    print_table(out(), [name.replace("_", " ") for name in names], rows, [False] * len(names))
