"""What every flow and every step shares: decorators, retries, artifacts, progress, events, and clean error texts.

Prefect writes the text of an exception into the state of the run, into its event and into its log, traceback and
causes included. Texts of PostgreSQL and of parsers quote the values they choked on, so nothing of them may get that
far: at the edge of each step and flow (:func:`step`, :func:`business_flow`) an error that is not ours is replaced by
one of ours that says what kind it was and where it arose, and nothing else. The traceback's places are kept.

    StatementFailed     a statement the database refused: SQLSTATE, table and constraint, never a value
    Unexpected          any other error, by its type and place: a bug

What cannot quote data is kept: identifiers in a statement (SQLSTATE class 42), names of attributes and modules, the
operating system's words about a file.

A state in Prefect is a picture of the work, not the memory of it: publishing that fails is logged, not raised.
"""

from __future__ import annotations

import functools
import getpass
import inspect
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar
from uuid import UUID

import httpx
import psycopg
from prefect import Flow, Task, flow
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tasks import ledger
from tasks.artifacts import artifact_key, json_cell, without_personal_data
from tasks.errors import DependencyDown, KontorError, discreet

P = ParamSpec("P")
R = TypeVar("R")

Fact = int | str | Decimal | date | UUID | None
OnChange = Callable[[int, int], None]

# Who draws a progress bar beside the artifact, if anyone does; the command line sets it.
progress_listener: ContextVar[OnChange | None] = ContextVar("progress_listener", default=None)

PROJECT_ROOT = Path(__file__).resolve().parent.parent

# Never cached, never stored: what was done is in our tables, and a stored result would hold customers' data.
_ALWAYS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False, "log_prints": False}

_LOST = ("08", "57P01", "57P02", "57P03", "57P05", "53300")  # away, shutting down, starting, no slot left
_TRY_AGAIN = ("40001", "40P01", "55P03")  # serialisation, deadlock, lock time-out: another run's fault


# --- errors -------------------------------------------------------------------------------------------------------


class StatementFailed(KontorError):
    """The database refused a statement; ``transient`` when another transaction was in the way."""

    def __init__(
        self, kind: str, sqlstate: str | None, table: str | None = None, constraint: str | None = None, said: str = ""
    ) -> None:
        self.sqlstate, self.table, self.constraint = sqlstate, table, constraint
        self.transient = sqlstate in _TRY_AGAIN
        place = "".join(f", {name} {value}" for name, value in (("table", table), ("constraint", constraint)) if value)
        super().__init__(
            f"The database refused a statement: {kind} (SQLSTATE {sqlstate or 'none'}{place})"
            f"{said and ': '}{said}. Its transaction was rolled back.",
            hint="run the flow again; it goes on where it was" if self.transient else "see docs/runbooks for this flow",
        )


class Unexpected(KontorError):
    """An error that nobody foresaw; its own text is withheld because it may quote data."""

    def __init__(self, kind: str, place: str, said: str = "", names: Mapping[str, str] | None = None) -> None:
        self.kind, self.place = kind, place
        super().__init__(
            f"Unexpected {kind} at {place}: {said or 'its text is withheld because it may quote data'}.",
            hint="this is a bug: report it with the traceback of the run's log",
            names=names,
        )


def own_error(error: BaseException) -> Exception:
    """Return an error that is safe to show: ours as it is, one from elsewhere as ours without its text.

    Prefect's own errors pass. Connections lost become DependencyDown; other database errors StatementFailed; the
    rest Unexpected. The traceback goes along; causes are cleaned the same way.
    """
    if isinstance(error, KontorError | PrefectException):
        if isinstance(error.__cause__, Exception):
            error.__cause__ = own_error(error.__cause__)
        error.__suppress_context__ = True
        return _told_discreetly(error)
    return _told_discreetly(_translated(error).with_traceback(error.__traceback__))


def _told_discreetly(error: KontorError | PrefectException) -> Exception:
    """The same error; what ``str`` says of it, which Prefect keeps, names no file, while ``message`` still does."""
    if isinstance(error, KontorError):
        error.args = (discreet(error),)
    return error


def _translated(error: BaseException) -> KontorError:
    if isinstance(error, DBAPIError):
        return _from_database(error.orig or error, lost=error.connection_invalidated)
    if isinstance(error, psycopg.Error):
        return _from_database(error, lost=False)
    place = _place(error.__traceback__)
    return Unexpected(type(error).__qualname__, place, _harmless_text(error), _file_named_by(error))


def _file_named_by(error: BaseException) -> dict[str, str]:
    """The name of the file that the operating system complains of, to be withheld."""
    named = error.filename if isinstance(error, OSError) else None
    return {Path(named).name: "a file"} if isinstance(named, str) and Path(named).name else {}


def _harmless_text(error: BaseException) -> str:
    if isinstance(error, AttributeError | NameError | ImportError):
        return without_personal_data(str(error))
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({Path(error.filename).name})" if isinstance(error.filename, str) else error.strerror
    return ""


def _from_database(error: BaseException, *, lost: bool) -> KontorError:
    sqlstate: str | None = getattr(error, "sqlstate", None)
    # A connection that breaks has no SQLSTATE: the server could not say anything any more.
    unreachable = isinstance(error, psycopg.OperationalError) and sqlstate is None
    if lost or unreachable or (sqlstate or "").startswith(_LOST):
        return DependencyDown(
            f"The connection to the database was lost (SQLSTATE {sqlstate or 'none'}); what was open was rolled back.",
            hint="look at `kontor status`; when the database is back, run the flow again",
        )
    if sqlstate == "53100":
        return DependencyDown(
            "The database's disk is full (SQLSTATE 53100); what was open was rolled back.",
            hint="free space on the disk of the database, then run the flow again; it goes on where it was",
        )
    named = error.diag if isinstance(error, psycopg.Error) else None
    if named is None:
        return StatementFailed(type(error).__name__, sqlstate)
    table = ".".join(part for part in (named.schema_name, named.table_name) if part)
    # Class 42 is about the statement's own words, such as a column that is missing or a right that is not granted.
    said = without_personal_data(named.message_primary or "") if (sqlstate or "").startswith("42") else ""
    return StatementFailed(type(error).__name__, sqlstate, table, named.constraint_name, said)


def _place(trace: TracebackType | None) -> str:
    """The innermost line of this project that an error went through, as ``tasks/feeds/cells.py:41 in parse``."""
    frames = traceback.extract_tb(trace)
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path.is_relative_to(PROJECT_ROOT) and ".venv" not in path.parts and path != Path(__file__).resolve():
            return f"{path.relative_to(PROJECT_ROOT)}:{frame.lineno} in {frame.name}"
    return (
        f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else "an unknown place"
    )


class _Edge:
    """Replaces what leaves the block by :func:`own_error` of it; interrupts and Prefect's signals pass."""

    def __enter__(self) -> None:
        keep_logs_clean()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        # A panic of a library written in Rust is no Exception, yet it is a failure and may quote a cell.
        if error is not None and (isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"):
            own = own_error(error)
            if own is not error:
                raise own from None
        return False


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with its errors replaced by :func:`own_error` of them."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _Edge():
            return function(*args, **kwargs)

    # Prefect reads types from the wrapper; as text they would be looked up in this module instead of the function's.
    # A function made inside another may use types that only that one knows; those stay text.
    with suppress(NameError):
        call.__annotations__ = inspect.get_annotations(function, eval_str=True)
        call.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return call


# --- steps and flows ----------------------------------------------------------------------------------------------


def is_transient(error: object) -> bool:
    """Whether trying again can help: the error says so, or it is a lost connection, a deadlock or a lock time-out."""
    return isinstance(error, Exception) and bool(getattr(own_error(error), "transient", False))


def transient_only(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: retry only what :func:`is_transient` names."""
    return is_transient(state.data)


# A step that only reads may try often; one that writes is keyed and transactional, so a second try of it is harmless,
# but what failed twice will fail again. A step that sends never tries again by itself: a person must look first.
READ_STEP: Mapping[str, Any] = {
    **_ALWAYS,
    "retries": 3,
    "retry_delay_seconds": [1, 4, 15],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": transient_only,
}
WRITE_STEP: Mapping[str, Any] = {**READ_STEP, "retries": 2, "retry_delay_seconds": [2, 10]}
SEND_STEP: Mapping[str, Any] = {**_ALWAYS, "retries": 0}


def step(options: Mapping[str, Any] = READ_STEP, **more: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Return a decorator that makes a function a Prefect task with these options and clean errors.

    ``@step()`` reads, ``@step(WRITE_STEP)`` writes, ``@step(SEND_STEP)`` sends; further keywords are Prefect's. The
    task is named after its function, never after its arguments.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        return _Step(guarded(function), **{**options, **more})

    return decorate


_directly: ContextVar[bool] = ContextVar("directly", default=False)


class _Step(Task[P, R]):
    """A Prefect task that is a plain function inside :func:`steps_called_directly`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs) if _directly.get() else super().__call__(*args, **kwargs)


@contextmanager
def steps_called_directly() -> Iterator[None]:
    """Call the steps inside this block without a task run, a retry and a progress bar of each one's own.

    For a step that runs a whole flow, as a backfill's window does: it is what one sees, cancels and tries again.
    """
    token = _directly.set(True)
    try:
        yield
    finally:
        _directly.reset(token)


def business_flow(**options: Any) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """Return a decorator that makes a function a Prefect flow with clean errors and a run name without data.

    The flow carries the function's name as it is, because file, flow, deployment and runbook share it. A run is
    called after its ``as_of`` parameter and whether it is a dry run. Nothing is retried as a whole: steps are.
    """

    def decorate(function: Callable[P, R]) -> Flow[P, R]:
        defaults: dict[str, Any] = {
            "name": function.__name__,
            "flow_run_name": _run_name,
            "persist_result": False,
            "log_prints": False,
            "retries": 0,
        }
        made: Flow[P, R] = flow(**{**defaults, **options})(guarded(function))
        return made

    return decorate


def _run_name() -> str:
    given = flow_run.parameters or {}
    as_of, dry_run = _find(given, "as_of"), _find(given, "dry_run")
    return f"{flow_run.flow_name} as of {as_of or 'today'}{' (dry run)' if dry_run is True else ''}"


def _find(parameters: Mapping[str, Any], name: str) -> object:
    """A parameter by name, also inside a single parameters model."""
    if name in parameters:
        return parameters[name]
    for value in parameters.values():
        inner = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if inner is not None:
            return inner
    return None


def prefect_run_id() -> UUID | None:
    """The id of the flow run that this code runs in, None outside of one."""
    context = FlowRunContext.get()
    return context.flow_run.id if context is not None and context.flow_run is not None else None


def open_run(
    engine: Engine, flow_name: str, *, as_of: date, dry_run: bool, actor: str
) -> AbstractContextManager[ledger.Run]:
    """Hold the flow's lock and its row in ``ops.run_ledger``, which carries Prefect's run id, for a ``with`` block.

    Raises Locked when another run of this flow is under way.
    """
    return ledger.open_run(
        engine, flow_name, as_of=as_of, dry_run=dry_run, prefect_run_id=prefect_run_id(), actor=actor
    )


def current_actor() -> str:
    """The operating system's account that this process works for, as the run ledger names it."""
    return getpass.getuser()


@contextmanager
def without_heartbeat() -> Iterator[None]:
    """Run many short flows in this process without their heartbeats, which saves a second a run.

    A synchronous flow waits up to a second for its heartbeat thread at the end. The price: Prefect shows a run that is
    killed inside this block as running for ever; the run ledger knows better. For demos, tests and backfills in a row.
    """
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


# --- events -------------------------------------------------------------------------------------------------------


def log_event(event: str, *, level: int = logging.INFO, **facts: Fact) -> None:
    """Log one line ``event key=value …`` in the run's log; facts are ids, counts, dates, sums, never persons."""
    logger: Any = get_run_logger() if _in_run() else logging.getLogger("kontor")
    logger.log(level, " ".join([event, *(f"{key}={_fact(value)}" for key, value in facts.items())]))


def _fact(value: Fact) -> str:
    text = "none" if value is None else str(value)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def tell_prefect(event: str, flow_name: str, **facts: int) -> None:
    """Emit an event of the flow, with ids and counts, for Prefect's automations. No run: nothing happens."""
    if _in_run():
        emit_event(event, resource={"prefect.resource.id": f"kontor.flow.{flow_name}"}, payload=dict(facts))


def keep_logs_clean() -> None:
    """See to it that no log line of this process carries an e-mail address or values quoted by the database.

    It works where records are made, before any handler, so Prefect's log, the console and a service's journal get the
    same. Called at the edge of every step and flow; doing it twice changes nothing.
    """
    make = logging.getLogRecordFactory()
    if isinstance(make, _CleanRecords):
        return
    logging.setLogRecordFactory(_CleanRecords(make))


class _CleanRecords:
    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        with suppress(TypeError, ValueError, KeyError):  # a malformed call: the handler complains of it, as usual
            record.msg, record.args = without_personal_data(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = without_personal_data("".join(traceback.format_exception(record.exc_info[1])).rstrip())
        return record


def _in_run() -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


# --- artifacts ----------------------------------------------------------------------------------------------------


def publish_counts(key: str, title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Publish rows as a table artifact of the current run; money and dates become text. No run: nothing happens."""
    table = [{name: json_cell(value) for name, value in row.items()} for row in rows]
    _publish(lambda: create_table_artifact(table, key=artifact_key(key), description=without_personal_data(title)))


def publish_summary(key: str, markdown: str) -> None:
    """Publish a Markdown artifact of the current run. No run: nothing happens."""
    _publish(lambda: create_markdown_artifact(without_personal_data(markdown), key=artifact_key(key)))


def _publish(create: Callable[[], object]) -> UUID | None:
    """The new artifact's id; None outside of a run or when Prefect cannot take it, which must not undo the work."""
    if not _in_run():
        return None
    try:
        made = create()
    except (httpx.HTTPError, PrefectException) as error:
        log_event("artifact_not_published", level=logging.WARNING, kind=type(error).__name__)
        return None
    return made if isinstance(made, UUID) else None


class Progress:
    """A progress bar as an artifact, kept up to date while a ``with`` block works through ``total`` pieces.

    Prefect hears of it at most every ``every_seconds``, because each update is a request; ``on_change(done, total)``
    hears of every piece and draws the terminal's bar. A block that fails leaves the bar where it was.
    """

    def __init__(
        self,
        key: str,
        total: int,
        title: str = "",
        *,
        on_change: OnChange | None = None,
        every_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key, self._title = artifact_key(key), without_personal_data(title)
        self._on_change, self._every, self._clock = on_change, every_seconds, clock
        self._artifact: UUID | None = None
        self._told_at, self._told = clock(), -1.0
        self.done, self.total = 0, max(total, 0)

    def __enter__(self) -> Self:
        if not _directly.get():
            title = self._title or None
            self._artifact = _publish(lambda: create_progress_artifact(0.0, key=self._key, description=title))
        self._told = 0.0
        return self

    def advance(self, pieces: int = 1) -> None:
        """Count pieces as done."""
        self.done = min(self.done + pieces, self.total)
        if self._on_change is not None:
            self._on_change(self.done, self.total)
        if self._clock() - self._told_at >= self._every:
            self._tell()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if error is None:
            self.done = self.total
        self._tell()
        return False

    @property
    def percent(self) -> float:
        """What is done, 0 to 100; work of no pieces is done."""
        return 100.0 * self.done / self.total if self.total else 100.0

    def _tell(self) -> None:
        artifact, percent = self._artifact, self.percent
        if artifact is not None and percent != self._told:
            _publish(lambda: update_progress_artifact(artifact, percent))
        self._told, self._told_at = percent, self._clock()
