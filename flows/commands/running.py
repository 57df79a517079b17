"""`kontor run` and `kontor import`: flows in this process, reported to Prefect, shown as they go.

Order: the database, Prefect's server, its settings in the environment, and only then Prefect itself and the flows.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.screen import AsList, ListFormat, bar, logs_folder, out, parse_day, say, settings_in_force

if TYPE_CHECKING:
    from pydantic import BaseModel

    from configs.settings import Settings
    from tasks.errors import KontorError
    from tasks.feeds.contracts import FeedContract
    from tasks.reports.rows import Report

FLOWS_FOLDER = Path(__file__).resolve().parents[1]

# Which flow takes which feed; customers before what they owe, so that no row has to wait for the next file.
FLOW_OF_FEED: Mapping[str, str] = {
    "organizations": "customer_import",
    "contacts": "customer_import",
    "open_items": "payment_sync",
    "settled_items": "payment_sync",
}

_COUNTS = ("rows_read", "inserted", "updated", "unchanged", "quarantined", "superseded", "settled")

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log too.")]


@dataclass(frozen=True)
class Finished:
    """One run that ended: its counts, the files it registered, and its error where it had one."""

    flow: str
    counts: Mapping[str, int]
    files: Report
    error: KontorError | None


def run(
    flow: Annotated[str, typer.Argument(metavar="FLOW", help="The flow's name, such as payment_sync.")],
    as_of: Annotated[
        date | None, typer.Option("--as-of", parser=parse_day, metavar="DATE", help="Business date; default today.")
    ] = None,
    dry_run: Annotated[
        bool | None,
        typer.Option("--dry-run/--live", help="Try without keeping anything, or do it. Default: as the flow says."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="K=V", help="A parameter of the flow; may be repeated.")
    ] = None,
    verbose: Verbose = False,
    form: AsList = ListFormat.table,
) -> None:
    """Run a flow here and now.

    customer_import and payment_sync send nothing and delete nothing: they do their work unless --dry-run is given. A
    flow that sends or destroys only tries unless --live is given.
    """
    name = flow_named(flow)
    settings = settings_in_force()
    given = {**({"as_of": [str(as_of)]} if as_of else {}), **_pairs(param or [])}
    if dry_run is not None:
        given["dry_run"] = [str(dry_run)]
    with flows_ready(settings, verbose=verbose):
        finished = [run_flow(settings, name, checked_parameters(name, given))]
    conclude(finished, form, dry_run=bool(dry_run))


def import_files(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Files to take in.")],
    contract: Annotated[
        str | None, typer.Option(help="Name or path of their contract; default: by the file's name.")
    ] = None,
    as_of: Annotated[
        date | None,
        typer.Option(
            "--as-of", parser=parse_day, metavar="DATE", help="The files' business date, where they do not say it."
        ),
    ] = None,
    revision: Annotated[
        int | None, typer.Option(min=1, max=999, help="Above 1 for a file that corrects one of the same date.")
    ] = None,
    accept_guard: Annotated[
        list[str] | None, typer.Option("--accept-guard", metavar="NAME", help="A guard to overrule, with --reason.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why a guard is overruled.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, check and count, but keep nothing.")] = False,
    verbose: Verbose = False,
    form: AsList = ListFormat.table,
) -> None:
    """Take files in: read by their contract, bad rows set aside with a reason, the good ones applied."""
    settings = settings_in_force()
    named = contract_reference(settings, contract)
    batches = _batches(settings, files, named, one_by_one=dry_run)
    given = {
        "contract": named,
        "file_as_of": as_of,
        "revision": revision,
        "accept_guards": tuple(accept_guard or ()),
        "reason": reason,
        "dry_run": dry_run,
    }
    with flows_ready(settings, verbose=verbose):
        finished = [
            run_flow(settings, flow, parameters_model(flow)(**given, files=tuple(map(str, batch))), batch)
            for flow, batch in batches
        ]
    conclude(finished, form, dry_run=dry_run)


# --- which flow, which contract ---------------------------------------------------------------------------------------


def known_flows() -> list[str]:
    """The names of the flows: one file each in flows/."""
    return sorted(path.stem for path in FLOWS_FOLDER.glob("*.py") if path.stem not in ("__init__", "cli"))


def flow_named(name: str) -> str:
    """The flow of that name, hyphens and underscores alike; UsageError names those there are."""
    from tasks.errors import UsageError

    wanted = name.strip().lower().replace("-", "_")
    if wanted not in known_flows():
        raise UsageError(f"There is no flow {name!r}.", hint=f"Choose one of: {', '.join(known_flows())}.")
    return wanted


def contract_reference(settings: Settings, contract: str | None) -> str | None:
    """The contract as flows find it: a path as it is, a sender's own by its path under KONTOR_HOME/contracts."""
    if contract is None:
        return None
    own = settings.home / "contracts" / f"{contract}.yaml"
    if own.is_file():
        return str(own)
    return str(Path(contract).resolve()) if Path(contract).is_file() else contract


def contract_of(settings: Settings, path: Path, reference: str | None) -> FeedContract:
    """The contract that this file is read by: the one named, else the one that claims the file's name.

    Raises:
        UsageError: no contract or several claim it, or there is none of that name.
    """
    from tasks.errors import UsageError
    from tasks.feeds.contracts import load_contract

    if reference is not None:
        return load_contract(reference)
    from tasks.feeds.intake import find_inbox_files, installed_contracts

    claimed = find_inbox_files(path.resolve().parent, installed_contracts(settings.home, list(FLOW_OF_FEED)))
    for file in claimed:
        if file.path.name == path.name:
            return file.contract
    raise UsageError(
        f"No contract claims {path.name} by its name.",
        hint="Say which one with --contract NAME; `kontor contracts list` shows them.",
    )


def _batches(
    settings: Settings, files: Sequence[Path], reference: str | None, *, one_by_one: bool
) -> list[tuple[str, list[Path]]]:
    """The files per flow, customers first; each alone where nothing is kept and each is to be told of by itself."""
    from tasks.errors import UsageError

    flows: dict[str, list[Path]] = {name: [] for name in dict.fromkeys(FLOW_OF_FEED.values())}
    for path in files:
        contract = contract_of(settings, path, reference)
        if contract.feed not in FLOW_OF_FEED:
            raise UsageError(
                f"Contract {contract.name} describes {contract.feed}, which no flow takes.",
                hint=f"Feeds that are taken: {', '.join(FLOW_OF_FEED)}.",
            )
        flows[FLOW_OF_FEED[contract.feed]].append(path.resolve())
    if one_by_one:
        return [(flow, [path]) for flow, paths in flows.items() for path in paths]
    return [(flow, paths) for flow, paths in flows.items() if paths]


# --- parameters -------------------------------------------------------------------------------------------------------


def parameters_model(flow: str) -> type[BaseModel]:
    """The model of the flow's parameters: the type of its one argument."""
    import inspect
    from typing import get_type_hints

    body = inspect.unwrap(_load(flow).fn)
    hints = {name: hint for name, hint in get_type_hints(body).items() if name != "return"}
    model: type[BaseModel] = next(iter(hints.values()))
    return model


def _pairs(params: Sequence[str]) -> dict[str, list[str]]:
    from tasks.errors import UsageError

    found: dict[str, list[str]] = {}
    for item in params:
        name, mark, value = item.partition("=")
        if not mark or not name.strip():
            raise UsageError(f"--param {item!r} is not of the form NAME=VALUE.", hint="Write --param name=value.")
        found.setdefault(name.strip().replace("-", "_"), []).append(value)
    return found


def checked_parameters(flow: str, given: Mapping[str, Sequence[str]]) -> BaseModel:
    """The flow's parameters made of texts; a parameter that holds several takes each of the values given.

    Raises:
        UsageError: every wrong parameter at once, and the parameters there are.
    """
    from pydantic import ValidationError

    from tasks.errors import UsageError

    model = parameters_model(flow)
    several = {name for name, field in model.model_fields.items() if "tuple" in str(field.annotation)}
    values = {name: tuple(texts) if name in several else texts[-1] for name, texts in given.items()}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = "".join(
            f"\n  - {'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
        )
        known = ", ".join(model.model_fields)
        raise UsageError(f"{flow} cannot run with these parameters:{wrong}", hint=f"It takes: {known}.") from None


# --- running ----------------------------------------------------------------------------------------------------------


@contextmanager
def flows_ready(settings: Settings, *, verbose: bool = False, progress: Callable[[str], None] = say) -> Iterator[None]:
    """Everything that flows in this process need, for a ``with`` block: servers up, logs tamed."""
    from tasks.stack import ensure_database, ensure_prefect

    ensure_database(settings, progress)
    ensure_prefect(settings, progress)
    # Prefect's own console shows tracebacks of errors that we tell in words; its log goes to a file instead.
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO" if verbose else "CRITICAL"
    importlib.import_module("prefect")
    handlers = _handlers(verbose=verbose)
    root = logging.getLogger()
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def _handlers(*, verbose: bool) -> list[logging.Handler]:
    import logging.handlers

    made: list[logging.Handler] = []
    folder = logs_folder()
    if folder is not None:
        file = logging.handlers.RotatingFileHandler(folder / "kontor.log", maxBytes=5_000_000, backupCount=3)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        made.append(file)
    if not verbose:
        made.append(_Warnings(logging.WARNING))
    return made


class _Warnings(logging.Handler):
    """Shows warnings, and that a step is tried again, as one line each on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage().splitlines()
        if said and (record.levelno == logging.WARNING or " will start " in said[0]):
            say(said[0])


def _load(flow: str) -> Any:
    return getattr(importlib.import_module(f"flows.{flow}"), flow)


def run_flow(settings: Settings, flow: str, parameters: BaseModel, files: Sequence[Path] = ()) -> Finished:
    """Run a flow in this process with a progress bar and return what became of it; an error of ours is kept in it.

    ``files`` are those it was given: the ones that were in already are told of too.
    """
    import httpx

    from tasks.errors import DependencyDown, KontorError
    from tasks.steps import progress_listener

    before = _newest_run(settings)
    counts: Mapping[str, int] = {}
    error: KontorError | None = None
    with bar(flow) as change:
        token = progress_listener.set(change)
        try:
            # The model has checked the parameters already.
            counts = _load(flow).with_options(validate_parameters=False)(parameters)
        except KontorError as raised:
            error = raised
        except (httpx.TransportError, RuntimeError) as raised:
            if isinstance(raised, RuntimeError) and "reach API" not in str(raised):
                raise
            error = DependencyDown("Prefect's server went away.", hint="`kontor up` starts it; then run this again.")
        finally:
            progress_listener.reset(token)
    return Finished(flow, counts, _registered(settings, before, files), error)


def _newest_run(settings: Settings) -> int:
    from sqlalchemy import text

    from tasks.stack import connected

    with connected(settings) as connection:
        return int(connection.scalar(text("select coalesce(max(run_id), 0) from report.runs")) or 0)


def _registered(settings: Settings, after: int, files: Sequence[Path]) -> Report:
    """The files that this process's runs after ``after`` registered, and those among ``files`` that were in already."""
    from sqlalchemy import text

    from tasks.feeds.intake import fingerprint_of
    from tasks.reports.rows import Column, Report
    from tasks.stack import connected

    digests = [fingerprint_of(path).sha256 for path in files if path.is_file()]
    mine = {"after": after, "host": socket.gethostname(), "process_id": os.getpid(), "digests": digests}
    with connected(settings) as connection:
        result = connection.execute(text(_FILES_OF_RUNS), mine)
        columns = tuple(Column(name, "integer" if name in _COUNTS else "text") for name in result.keys())  # noqa: SIM118
        return Report("feed_files", None, columns, tuple(tuple(row) for row in result))


_FILES_OF_RUNS = """
with mine as (
    select run_id from report.runs where run_id > :after and host = :host and process_id = :process_id
)
select f.file_name, f.contract, f.as_of,
       case when f.run_id in (select run_id from mine) then f.state else 'known' end as state,
       f.rows_read, f.inserted, f.updated, f.unchanged, f.quarantined, f.superseded, f.settled
from report.feed_files f
where f.run_id in (select run_id from mine) or (f.sha256 = any(:digests) and f.state <> 'refused')
order by f.received_at, f.file_name
"""


# --- telling ----------------------------------------------------------------------------------------------------------


def conclude(finished: Sequence[Finished], form: ListFormat, *, dry_run: bool) -> None:
    """Print what became of the files and what to do next, then raise what went wrong.

    Raises:
        The error of the one run that failed; PartlyDone where others did their work.
    """
    from tasks.reports.formats import as_json

    if form is ListFormat.json:
        for item in finished[:1]:
            rows = tuple(row for each in finished for row in each.files.rows)
            out().file.write(as_json(type(item.files)("feed_files", None, item.files.columns, rows)))
    else:
        _print_outcome(finished, dry_run=dry_run)
    errors = [item.error for item in finished if item.error is not None]
    if errors:
        raise _joined(errors, all_failed=len(errors) == len(finished))


def _joined(errors: Sequence[KontorError], *, all_failed: bool) -> KontorError:
    from tasks.errors import BadInput, PartlyDone

    told = "\n".join(error.message for error in errors)
    hint = next((error.hint for error in errors if error.hint), "")
    if not all_failed:
        return PartlyDone(told, hint=hint)
    refusals = len(errors) > 1 and all(isinstance(error, BadInput) for error in errors)
    return BadInput(told, hint=hint) if refusals else errors[0]


def _print_outcome(finished: Sequence[Finished], *, dry_run: bool) -> None:
    from rich.text import Text

    from tasks.reports.terminal import print_table, state_text

    console = out()
    rows = [row for item in finished for row in item.files.rows]
    if rows:
        headings = [name.replace("_", " ") for name in finished[0].files.names]
        cells = [
            [
                state_text(str(value)) if at == 3 else Text("–" if value is None else str(value))
                for at, value in enumerate(row)
            ]
            for row in rows
        ]
        print_table(console, headings, cells, [False] * 4 + [True] * len(_COUNTS))
    for item in finished:
        told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in item.counts.items() if count)
        if dry_run and item.error is None:
            console.print(f"{item.flow}, dry run, nothing was kept: {told or 'nothing to do'}")
        elif not item.counts.get("rows_read") and not item.files.rows and item.error is None:
            console.print(f"{item.flow}: {told or 'nothing new to take in'}")
    _print_next(finished, dry_run=dry_run)


def _print_next(finished: Sequence[Finished], *, dry_run: bool) -> None:
    replayed = sum(item.counts.get("replayed", 0) for item in finished)
    if replayed:
        out().print(f"{replayed} rows that had waited in quarantine for a customer were taken in.")
    aside = sum(item.counts.get("quarantined", 0) for item in finished)
    if aside and not dry_run:
        out().print(f"{aside} rows could not be used; see them with: kontor quarantine list")
