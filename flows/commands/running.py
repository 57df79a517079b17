"""Flows in this process, reported to Prefect: which flow, which contract, which parameters, and what became of it.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands.screen import bar, logs_folder, say

if TYPE_CHECKING:
    from uuid import UUID

    from pydantic import BaseModel

    from configs.settings import Settings
    from tasks.errors import KontorError
    from tasks.feeds.contracts import FeedContract
    from tasks.feeds.outcomes import FileOutcome

FLOWS_FOLDER = Path(__file__).resolve().parents[1]

# Which flow takes which feed; customers before what they owe, so that no row has to wait for the next file.
FLOW_OF_FEED: Mapping[str, str] = {
    "organizations": "customer_import",
    "contacts": "customer_import",
    "open_items": "payment_sync",
    "settled_items": "payment_sync",
    "payments": "payment_sync",
    "currency_rates": "catalog_upsert",
    "catalog": "catalog_upsert",
}


@dataclass(frozen=True)
class Finished:
    """One run that ended: its counts, the files it registered, its error where it had one, what it told."""

    flow: str
    counts: Mapping[str, int]
    files: list[dict[str, object]]
    error: KontorError | None
    outcomes: Sequence[FileOutcome] = ()


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


# --- parameters -------------------------------------------------------------------------------------------------------


def parameters_model(flow: str) -> type[BaseModel]:
    """The model of the flow's parameters: the type of its one argument."""
    import inspect
    from typing import get_type_hints

    body = inspect.unwrap(_load(flow).fn)
    hints = {name: hint for name, hint in get_type_hints(body).items() if name != "return"}
    model: type[BaseModel] = next(iter(hints.values()))
    return model


def texts_of_parameters(params: Sequence[str]) -> dict[str, list[str]]:
    """The texts given per parameter name by ``--param``; UsageError for one that is not NAME=VALUE."""
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
    return _checked(flow, parameters_model(flow), given)


def _checked(flow: str, model: type[BaseModel], given: Mapping[str, Sequence[str]]) -> BaseModel:
    from pydantic import ValidationError

    from tasks.errors import UsageError

    several = {name for name, field in model.model_fields.items() if "tuple" in str(field.annotation)}
    values = {name: tuple(texts) if name in several else texts[-1] for name, texts in given.items()}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = "".join(
            f"\n  - {'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
        )
        own = getattr(parameters_model(flow), "instructions", None)
        known = ", ".join([*parameters_model(flow).model_fields, *(own.model_fields if own else ())])
        raise UsageError(f"{flow} cannot run with these parameters:{wrong}", hint=f"It takes: {known}.") from None


def given_instruction(settings: Settings, flow: str, said: BaseModel) -> UUID | None:
    """The id under which the database keeps what was said; None where nothing was."""
    from datetime import UTC, datetime

    from tasks.instructions import keep_instruction
    from tasks.stack import connected
    from tasks.steps import current_actor

    if said == type(said)():
        return None
    with connected(settings, write=True) as connection:
        return keep_instruction(connection, flow, said, actor=current_actor(), now=datetime.now(UTC))


def instructed(settings: Settings, flow: str, given: Mapping[str, Sequence[str]]) -> BaseModel:
    """The flow's parameters made of texts; what is said in words of one's own is kept, and its id takes its place.

    Raises:
        UsageError: every wrong parameter at once, and the parameters there are.
    """
    own = getattr(parameters_model(flow), "instructions", None)
    if own is None:
        return checked_parameters(flow, given)
    words = {name: texts for name, texts in given.items() if name in own.model_fields}
    rest = {name: texts for name, texts in given.items() if name not in words}
    said = _checked(flow, own, words)
    instruction = given_instruction(settings, flow, said)
    return checked_parameters(flow, {**rest, **({"instruction": [str(instruction)]} if instruction else {})})


# --- running ----------------------------------------------------------------------------------------------------------


@contextmanager
def flows_ready(settings: Settings, *, verbose: bool = False, progress: Callable[[str], None] = say) -> Iterator[None]:
    """Everything that flows in this process need, for a ``with`` block: servers up, logs tamed."""
    from tasks.stack import ensure_database, ensure_prefect
    from tasks.traces import begin_tracing

    ensure_database(settings, progress)
    ensure_prefect(settings, progress)
    # Prefect's own console shows tracebacks of errors that we tell in words; its log goes to a file instead.
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO" if verbose else "CRITICAL"
    importlib.import_module("prefect.main")  # sets its logging up, unless someone else's handlers are there first
    begin_tracing(settings)
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
    from tasks.feeds.outcomes import outcome_listener
    from tasks.steps import progress_listener

    before = _newest_run(settings)
    counts: Mapping[str, int] = {}
    error: KontorError | None = None
    outcomes: list[FileOutcome] = []
    with bar(flow) as change:
        token, heard = progress_listener.set(change), outcome_listener.set(outcomes.extend)
        try:
            counts = _load(flow)(parameters)
        except KontorError as raised:
            error = raised
        except (httpx.TransportError, RuntimeError) as raised:
            if isinstance(raised, RuntimeError) and "reach API" not in str(raised):
                raise
            error = DependencyDown("Prefect's server went away.", hint="`kontor up` starts it; then run this again.")
        finally:
            progress_listener.reset(token)
            outcome_listener.reset(heard)
    return Finished(flow, counts, _registered(settings, before, files), error, outcomes)


def _newest_run(settings: Settings) -> int:
    from sqlalchemy import text

    from tasks.stack import connected

    with connected(settings) as connection:
        return int(connection.scalar(text("select coalesce(max(run_id), 0) from report.runs")) or 0)


def _registered(settings: Settings, after: int, files: Sequence[Path]) -> list[dict[str, object]]:
    """The files that this process's runs after ``after`` registered, and those among ``files`` that were in already."""
    from sqlalchemy import text

    from tasks.stack import connected

    host = {"host": socket.gethostname(), "process_id": os.getpid()}
    mine = {"after": after, **host, "digests": _digests(files) if files else []}
    with connected(settings) as connection:
        return [dict(row) for row in connection.execute(text(_FILES_OF_RUNS), mine).mappings()]


def _digests(files: Sequence[Path]) -> list[str]:
    from tasks.feeds.intake import fingerprint_of

    return [fingerprint_of(path).sha256 for path in files if path.is_file()]


_FILES_OF_RUNS = """
with mine as (
    select run_id from report.runs where run_id > :after and host = :host and process_id = :process_id
)
select f.file_name, f.contract, f.as_of, f.state,
       f.rows_read, f.inserted, f.updated, f.unchanged, f.quarantined, f.superseded, f.settled,
       f.reopened, f.warned
from report.feed_files f
where f.run_id in (select run_id from mine)
union all
-- Taken in before: what became of its rows then is not what became of them now.
select f.file_name, f.contract, f.as_of, 'known', 0, 0, 0, 0, 0, 0, 0, 0, 0
from report.feed_files f
where f.run_id not in (select run_id from mine) and f.sha256 = any(:digests) and f.state <> 'refused'
  and f.sha256 not in (select m.sha256 from report.feed_files m where m.run_id in (select run_id from mine))
order by as_of, file_name
"""
