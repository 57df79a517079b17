"""Reading a file that anybody may have written, without opening it in this process.

:func:`read_confined` gives what :func:`tasks.feeds.reading.read_table` gives, or refuses the file in words, whatever
the file does to the process that reads it: that process is a child of its own for each file, limited and confined
(see :mod:`tasks.feeds.confinement`), and can take nothing with it but its own answer.

The children are forked by a host process (:mod:`tasks.feeds.cell_host`) that has loaded what reading needs, because
loading takes a second and forking a few milliseconds. This process itself is never forked: it may have threads.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from tasks.errors import DependencyDown, FileRefused
from tasks.feeds.answers import Answer, GarbledAnswer, Question, read_answer
from tasks.feeds.confinement import MIB, Limits, limits_for
from tasks.feeds.contracts import FeedContract
from tasks.feeds.raw_table import RawTable

__all__ = ["Cost", "Limits", "limits_for", "read_confined", "warm_up"]

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60.0  # a host needs one; a machine under load, many
_LONGEST_LINE = 1 << 16
_PROGRAM = "from tasks.feeds.cell_host import main; main()"
_SETTINGS = {
    # One thread in the host, because a process with several must not fork; the plain allocator, because its failure
    # to get memory is told as such and its reserves do not count against the limits.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "LC_ALL": "C.UTF-8",
}
_OUT_OF_MEMORY = ("memory allocation of", "out of memory", "bad_alloc", "capacity overflow", "Cannot allocate memory")
_SAVE_AGAIN = "Open it in a spreadsheet program, save it as a new .xlsx and send that file."


@dataclass(frozen=True)
class Cost:
    """What one reading took in its cell, and what the cell was confined by (limits, landlock, seccomp)."""

    processor_seconds: float
    peak_bytes: int
    in_force: tuple[str, ...]


class _End(BaseModel):
    status: int
    late: bool
    processor_seconds: float
    peak_bytes: int
    last_words: str


class _HostGone(Exception):
    """The host ended before it told how the child did."""


def read_confined(
    path: Path,
    contract: FeedContract,
    *,
    limits: Limits | None = None,
    on_cost: Callable[[Cost], None] | None = None,
) -> RawTable:
    """Return the rows of the file as text by canonical column, as read by a confined child process.

    ``limits`` follow from the size of the file if not given; ``on_cost`` is told what the reading took.

    Raises:
        FileRefused: its nature is wrong, or the reading was ended by a limit or broke down; the reason says which.
        DependencyDown: no child process could be made; the file was not judged.
    """
    limits = limits or _limits_for_file(path)
    with _memory_file("question") as question, _memory_file("answer") as answer_file:
        with open(question, "wb", closefd=False) as file:
            pickle.dump(Question(path.absolute(), contract, limits), file)
        end = _ask(question, answer_file, limits)
        _seal(answer_file)
        answer, raw = _answer(answer_file, end, path.name)
    if on_cost is not None:
        on_cost(Cost(end.processor_seconds, end.peak_bytes, tuple(answer.in_force)))
    if raw is None:
        raise _refusal(answer, end, path.name, limits)
    return raw


def warm_up() -> None:
    """Start a host in the background, so that the first file does not wait for it; returns at once."""
    with _LOCK:
        if not _IDLE:
            _IDLE.append(_Host())


class _Host:
    """A host process and this end of its socket; used by one thread at a time."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-c", _PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                # No setting and no secret of ours goes in: what is not there cannot be read.
                env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join((str(_ROOT), *_packages())), **_SETTINGS},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, question: int, answer: int, seconds: float) -> _End:
        """Return how the child ended.

        Raises:
            _HostGone: the host ended, or did not answer in time.
        """
        try:
            self.control.settimeout(seconds + _START_SECONDS)
            socket.send_fds(self.control, [b"?"], [question, answer])
            return _End.model_validate_json(self._line())
        except (OSError, ValidationError) as error:
            raise _HostGone(str(error)) from error

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            more = self.control.recv(_LONGEST_LINE)
            if not more:
                raise ConnectionResetError("the host closed its socket")
            line += more
        return line

    def end(self) -> None:
        """Close the socket, upon which the host ends with whatever child it has; a host that lingers is killed."""
        self.control.close()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _packages() -> Iterator[str]:
    """Yield where this process has its packages from, which need not be where its interpreter looks by itself."""
    for place in sys.path:
        if Path(place).name in ("site-packages", "dist-packages"):
            yield str(Path(place).absolute())


_IDLE: list[_Host] = []
_LOCK = threading.Lock()


def _ask(question: int, answer: int, limits: Limits) -> _End:
    """Return the child's end. A host found dead is replaced once; reading has no effects, so it may be repeated."""
    for attempt in (1, 2):
        # What killed one idle host may have killed them all: the second attempt takes none that was there before.
        host = _borrow() if attempt == 1 else _Host()
        try:
            end = host.ask(question, answer, limits.seconds)
        except _HostGone as gone:
            host.end()
            if attempt == 2:
                raise DependencyDown(
                    f"No process could be made to read files in ({gone}; it ended with {host.process.returncode}).",
                    hint="Look for its message above, free memory if the machine has none left, and run again.",
                ) from gone
            os.ftruncate(answer, 0)
        except BaseException:
            host.end()  # an interrupted question: the next one must not get its answer
            raise
        else:
            with _LOCK:
                _IDLE.append(host)
            return end
    raise AssertionError("unreachable")


def _borrow() -> _Host:
    with _LOCK:
        while _IDLE:
            host = _IDLE.pop()
            if host.is_alive:
                return host
            host.end()
    return _Host()


@atexit.register
def _end_all() -> None:
    with _LOCK:
        while _IDLE:
            _IDLE.pop().end()


def _forget_after_fork() -> None:
    # A forked copy of this process must not talk to the hosts of its parent, nor wait for a lock that nobody holds.
    global _LOCK
    _LOCK = threading.Lock()
    _IDLE.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextlib.contextmanager
def _memory_file(name: str) -> Iterator[int]:
    if sys.platform == "linux":
        descriptor = os.memfd_create(f"kontor-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        descriptor, path = tempfile.mkstemp(prefix="kontor-")
        Path(path).unlink()
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _seal(descriptor: int) -> None:
    """Make the answer unchangeable, so that what was checked is what is used."""
    if sys.platform == "linux":
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


def _limits_for_file(path: Path) -> Limits:
    try:
        return limits_for(path.stat().st_size)
    except OSError as error:
        raise FileRefused(
            path.name,
            [f"it cannot be opened: {error.strerror}"],
            hint="See that the file is still there and that Kontor may read it, then run again.",
        ) from error


def _answer(descriptor: int, end: _End, file_name: str) -> tuple[Answer, RawTable | None]:
    """Return what the child wrote; of a child that did not end by itself, nothing is believed."""
    if end.status != 0:
        return Answer(), None
    try:
        return read_answer(descriptor, file_name)
    except GarbledAnswer as garbled:
        raise FileRefused(
            file_name,
            [f"the process that read it gave no sound answer ({garbled}): the file is made to deceive its reader"],
            hint="Do not open it; ask the sender whether it is theirs.",
        ) from garbled


def _refusal(answer: Answer, end: _End, file_name: str, limits: Limits) -> FileRefused:
    if answer.reasons:
        return FileRefused(file_name, answer.reasons, hint=answer.hint)
    if end.late or end.status == -signal.SIGXCPU:
        reason = (
            f"reading it was not finished within the {limits.seconds:.0f} s that a file of its size is allowed "
            f"(it had used {end.processor_seconds:.1f} s of processor time)"
        )
        return FileRefused(file_name, [reason], hint=f"If the machine was busy, import it again. {_SAVE_AGAIN}")
    if _was_memory(answer, end):
        reason = (
            f"reading it needs more memory than the {limits.memory_bytes // MIB} MB that a file of its size is "
            "allowed: it is damaged or made to do harm, or a stray cell stands far away from its table"
        )
        hint = "Copy the table alone into a new workbook, save it as .xlsx and send that file."
        return FileRefused(file_name, [reason], hint=hint)
    return FileRefused(file_name, [_breakdown(answer, end, limits)], hint=_SAVE_AGAIN)


def _was_memory(answer: Answer, end: _End) -> bool:
    return answer.memory or any(words in end.last_words for words in _OUT_OF_MEMORY)


def _breakdown(answer: Answer, end: _End, limits: Limits) -> str:
    if end.status == -signal.SIGXFSZ:
        return f"what it unpacks to is more than the {limits.answer_bytes // MIB} MB that a table may have"
    if answer.broke:
        return f"the reader broke down on it ({answer.broke}): it is damaged, or unlike any file known so far"
    if end.status < 0:
        name = signal.Signals(-end.status).name
        return f"the reader was brought down by it ({name}): the file is damaged or not what it claims to be"
    return f"the reader ended on it without an answer (exit code {end.status})"
