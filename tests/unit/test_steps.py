"""The edge of a step: what leaves it, what is tried again, what a log line may say. No server is needed."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from decimal import Decimal

import psycopg
import pytest
from prefect.exceptions import PrefectException
from psycopg import errors as pg
from sqlalchemy.exc import IntegrityError, OperationalError

from tasks.errors import BadInput, DependencyDown, FileRefused, KontorError, PartlyDone, Refused, UsageError
from tasks.steps import (
    READ_STEP,
    SEND_STEP,
    WRITE_STEP,
    Progress,
    StatementFailed,
    Unexpected,
    guarded,
    is_transient,
    keep_logs_clean,
    log_event,
    own_error,
    prefect_run_id,
    publish_counts,
    publish_summary,
    step,
)

PERSON = "ludmila.vassileva@customer.example"


@pytest.fixture(autouse=True)
def _records_as_they_were() -> Iterator[None]:
    """Put the process's log records back after each test."""
    make = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(make)


def _raised(error: BaseException) -> Exception:
    """What leaves a guarded function that raises ``error``."""

    @guarded
    def fail() -> None:
        raise error

    with pytest.raises(Exception) as caught:  # noqa: PT011 - which error leaves is what is asked
        fail()
    return caught.value


def _wrapped(kind: Callable[..., Exception], orig: Exception) -> Exception:
    return kind("insert into contacts values (%(email)s)", {"email": PERSON}, orig)


@pytest.mark.parametrize(
    ("error", "kind", "again"),
    [
        (_wrapped(IntegrityError, pg.UniqueViolation(PERSON)), StatementFailed, False),
        (_wrapped(OperationalError, pg.DeadlockDetected(PERSON)), StatementFailed, True),
        (_wrapped(OperationalError, pg.SerializationFailure(PERSON)), StatementFailed, True),
        (_wrapped(OperationalError, pg.LockNotAvailable(PERSON)), StatementFailed, True),
        (_wrapped(OperationalError, pg.AdminShutdown(PERSON)), DependencyDown, True),
        (_wrapped(OperationalError, pg.CannotConnectNow(PERSON)), DependencyDown, True),
        (_wrapped(OperationalError, pg.ConnectionFailure(PERSON)), DependencyDown, True),
        (_wrapped(OperationalError, psycopg.OperationalError(PERSON)), DependencyDown, True),
        (_wrapped(OperationalError, pg.DiskFull(PERSON)), DependencyDown, True),
        (_wrapped(OperationalError, pg.QueryCanceled(PERSON)), StatementFailed, False),
        (_wrapped(OperationalError, pg.DatabaseDropped(PERSON)), StatementFailed, False),
        (pg.NotNullViolation(PERSON), StatementFailed, False),
        (ValueError(PERSON), Unexpected, False),
        (KeyError(PERSON), Unexpected, False),
        (UnicodeDecodeError("utf-8", PERSON.encode(), 0, 1, "bad"), Unexpected, False),
        (ExceptionGroup("several", [ValueError(PERSON)]), Unexpected, False),
    ],
)
def test_foreign_errors_leave_as_ours(error: Exception, kind: type[KontorError], again: bool) -> None:
    """Errors of the database and of anybody else leave a step as ours, without their text, and with a hint."""
    own = _raised(error)
    assert type(own) is kind
    assert own.hint
    assert is_transient(own) is again
    assert is_transient(error) is again
    assert PERSON not in "".join(traceback.format_exception(own))


@pytest.mark.parametrize(
    "error", [BadInput("row 3"), DependencyDown("away"), PartlyDone("2 of 3"), PrefectException("x")]
)
def test_our_errors_leave_as_they_are(error: Exception) -> None:
    """Our own errors, and Prefect's, are the same object outside."""
    assert _raised(error) is error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "/home/anna/week 1.xlsx"),
            "No such file or directory (a file)",
        ),
        (AttributeError("'NoneType' object has no attribute 'rows'"), "no attribute 'rows'"),
    ],
)
def test_what_cannot_quote_data_is_kept(error: Exception, said: str) -> None:
    """Words about code and about files stay readable; what the file is called is for who ran the command only."""
    own = _raised(error)
    assert said in str(own)
    assert "week 1" not in str(own)
    assert "anna" not in str(own)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            FileRefused("Anna.xlsx", ["2 sheets hold rows: 'Anna', \"O'Hara\"", "Bo.csv is older"], others=["Bo.csv"]),
            "The file was refused; nothing of it was applied.\n  - 2 sheets hold rows: …, …\n  - another file is older",
        ),
        (UsageError("No contract claims Anna.xlsx.", names={"Anna.xlsx": "the file"}), "No contract claims the file."),
        (Refused("The database's views 'a' are in the way."), "The database's views 'a' are in the way."),
    ],
)
def test_names_of_files_are_told_to_who_asked_only(error: KontorError, told: str) -> None:
    """Outside of a step the message still names files and sheets; the text that Prefect keeps of it does not."""
    message = error.message
    own = _raised(error)
    assert str(own) == told
    assert isinstance(own, KontorError)
    assert own.message == message


def test_panics_of_rust_libraries_are_failures() -> None:
    """A panic, which is no Exception in Python, leaves as ours and without its text."""
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    own = _raised(panic(PERSON))
    assert isinstance(own, Unexpected)
    assert PERSON not in str(own)


def test_interrupts_are_not_touched() -> None:
    """An interrupt is not an error to be translated."""

    @guarded
    def stopped() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()


def test_causes_lose_their_texts_too() -> None:
    """A cause from elsewhere is shown by kind and place; a context, which nobody chose to show, is not shown."""

    @guarded
    def chosen() -> None:
        try:
            int(PERSON)
        except ValueError as error:
            raise BadInput("row 3") from error

    @guarded
    def accidental() -> None:
        try:
            int(PERSON)
        except ValueError:
            raise BadInput("row 3")  # noqa: B904 - the case under test

    for function in (chosen, accidental):
        with pytest.raises(BadInput) as caught:
            function()
        assert PERSON not in "".join(traceback.format_exception(caught.value))
    assert isinstance(own_error(caught.value), BadInput)


def test_places_are_kept() -> None:
    """The error names the innermost line of this project, and its traceback still goes there."""
    own = _raised(ValueError("x"))
    assert "tests/unit/test_steps.py" in str(own)
    assert "in fail" in str(own)
    assert any(frame.name == "fail" for frame in traceback.extract_tb(own.__traceback__))


def test_translated_errors_survive_a_process_border() -> None:
    """Pickled and read back, an error keeps its text, its hint and whether to try again."""
    own = _raised(_wrapped(OperationalError, pg.DeadlockDetected("x")))
    back = pickle.loads(pickle.dumps(own))
    assert isinstance(back, StatementFailed)
    assert (str(back), back.hint, back.transient, back.sqlstate) == (str(own), own.hint, True, "40P01")  # type: ignore[attr-defined]


def test_options_of_steps() -> None:
    """Reading tries most, writing less, sending never again; nothing is cached or stored."""
    assert (READ_STEP["retries"], WRITE_STEP["retries"], SEND_STEP["retries"]) == (3, 2, 0)
    assert all(options["persist_result"] is False for options in (READ_STEP, WRITE_STEP, SEND_STEP))

    @step(WRITE_STEP, tags=["ledger"])
    def write_ledger() -> int:
        return 1

    assert (write_ledger.name, write_ledger.retries, write_ledger.tags) == ("write_ledger", 2, {"ledger"})
    assert write_ledger.fn() == 1


def test_log_lines_are_key_and_value(caplog: pytest.LogCaptureFixture) -> None:
    """An event is one line: its name, then facts, quoted where a space or a line break would break it."""
    keep_logs_clean()
    with caplog.at_level(logging.INFO, logger="kontor"):
        log_event(
            "file_read", rows=12, sum=Decimal("1.50"), as_of=date(2012, 1, 2), file="a b.xlsx", note="x\ny", key=None
        )
    assert caplog.messages == ['file_read rows=12 sum=1.50 as_of=2012-01-02 file="a b.xlsx" note="x\\ny" key=none']


def test_log_lines_carry_no_address(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever logs an address, in arguments or in an exception, does not get it into the log."""
    keep_logs_clean()
    keep_logs_clean()
    logger = logging.getLogger("somebody.elses")
    try:
        raise ValueError(PERSON)
    except ValueError:
        logger.exception("cannot reach %s", PERSON)
    assert logging.getLogRecordFactory()("x", logging.INFO, "f", 1, "malformed %d", ("call",), None).args == ("call",)
    assert PERSON not in caplog.text
    assert "cannot reach [address withheld]" in caplog.text
    assert "ValueError" in caplog.text


def test_publishing_outside_a_run_is_nothing() -> None:
    """The same code runs without Prefect: no run, no artifact, no server asked."""
    publish_counts("a-counts", "Rows", [{"what": "rows", "count": 1}])
    publish_summary("a-summary", "# a")
    assert prefect_run_id() is None


def test_progress_tells_the_terminal_of_every_piece() -> None:
    """Progress reports each piece, stops at the total, ends at 100 % when all went well, stays put when not."""
    seen: list[tuple[int, int]] = []
    with Progress("a-progress", 3, on_change=lambda done, total: seen.append((done, total))) as bar:
        bar.advance()
        bar.advance(5)
    assert seen == [(1, 3), (3, 3)]
    assert bar.percent == 100.0
    broken = Progress("a-progress", 4)
    with suppress(BadInput), broken:
        broken.advance()
        raise BadInput("row 3")
    assert broken.percent == 25.0
    assert Progress("a-progress", 0).percent == 100.0
