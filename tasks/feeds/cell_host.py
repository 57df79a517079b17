"""The process in which cells are made: it has loaded what reading needs, and forks a confined child for every file.

It is started by :mod:`tasks.feeds.confined` with an empty environment and one socket, has one thread, and never opens
an upload itself. A question comes as two descriptors (a pickled :class:`~tasks.feeds.answers.Question`, written by the
process that trusts us, and an empty file for the answer) and ends in one line of JSON: how the child ended and what it
cost. It ends when the other side closes the socket, also by dying, and its children end with it.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pickle
import select
import signal
import socket
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, NoReturn
from xml.sax.saxutils import escape

from tasks.errors import FileRefused
from tasks.feeds.answers import Question, write_refusal, write_table
from tasks.feeds.confinement import confine, die_with_parent
from tasks.feeds.contracts import FeedContract
from tasks.feeds.reading import read_table

_LAST_WORDS = 4096
_STANDARD = (0, 1, 2)


def main() -> None:
    """Serve on the socket whose descriptor is the first argument."""
    with socket.socket(fileno=int(sys.argv[1])) as control, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(control)


def serve(control: socket.socket) -> None:
    """Answer one question after the other until the other side is gone."""
    woken, wakes = socket.socketpair()
    woken.setblocking(False)
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _nothing)
    rehearsed: set[str] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not message or len(descriptors) != 2:
            return
        question = _load(descriptors[0])
        if question.contract.sha256 not in rehearsed:
            _rehearse(question.contract)
            rehearsed.add(question.contract.sha256)
        end = _let_a_child_read(question, descriptors[1], control, woken)
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(json.dumps(end).encode() + b"\n")


def _rehearse(contract: FeedContract) -> None:
    """Read a small workbook and a small text of our own, so that each child finds loaded and compiled what it needs."""
    headings = [column.heading for column in contract.columns if column.constant is None]
    with tempfile.TemporaryDirectory(prefix="kontor-") as folder:
        text, workbook = Path(folder, "rehearsal.csv"), Path(folder, "rehearsal.xlsx")
        text.write_text("".join(f"{json.dumps(heading)}," for heading in headings) + "\n" + "1," * len(headings) + "\n")
        write_small_workbook(workbook, [headings, [1.5] * len(headings), [*contract.dialect.totals[:1]]])
        for path in (workbook, text):
            with contextlib.suppress(FileRefused):  # this contract may want a sheet of another name
                write_table(io.BytesIO(), read_table(path, contract), ())
    gc.collect()
    gc.freeze()  # so that a child's collector does not copy the pages it shares with us


def write_small_workbook(path: Path, rows: Sequence[Sequence[str | float]]) -> None:
    """Write the least that is a workbook, with texts and numbers; loading a library for it would take longer."""
    cells = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{package}">'
        f'<Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="1" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}">'
        f'<Relationship Id="r1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    return f"<c><v>{value}</v></c>"


def _let_a_child_read(
    question: Question, answer_at: int, control: socket.socket, woken: socket.socket
) -> dict[str, object]:
    errors, says = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(question, answer_at, says)
    os.close(says)
    end = _attend(child, control, woken, question.limits.seconds) | {"last_words": _drain(errors)}
    os.close(errors)
    return end


def _nothing(number: int, frame: FrameType | None) -> None:
    """SIGCHLD must have a handler for the wake-up descriptor to be written; there is nothing to do in it."""


def _load(descriptor: int) -> Question:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        question: Question = pickle.load(file)
    return question


def _attend(child: int, control: socket.socket, woken: socket.socket, seconds: float) -> dict[str, object]:
    """Return how the child ended, having ended it when its time is over or nobody waits for it any more."""
    deadline = time.monotonic() + seconds
    late = False
    ended, status, used = os.wait4(child, os.WNOHANG)
    while not ended:
        ready, _, _ = select.select([woken, control], [], [], max(deadline - time.monotonic(), 0))
        if woken in ready:
            woken.recv(_LAST_WORDS)
        late = time.monotonic() >= deadline
        if control in ready or late:
            os.kill(child, signal.SIGKILL)
        ended, status, used = os.wait4(child, 0 if control in ready or late else os.WNOHANG)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "late": late,
        "processor_seconds": round(used.ru_utime + used.ru_stime, 3),
        "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def _drain(errors: int) -> str:
    os.set_blocking(errors, False)
    try:
        return os.read(errors, _LAST_WORDS).decode("utf-8", "replace")
    except BlockingIOError:
        return ""


class _Told:
    """Writes whatever ends the reading into the answer; nothing of it leaves this process as an exception."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.in_force: tuple[str, ...] = ()

    def __enter__(self) -> _Told:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            write_refusal(self.file, error, self.in_force)
        return True


def _be_the_child(question: Question, answer_at: int, says: int) -> NoReturn:
    """Read the file, write the answer, end; everything after ``confine`` happens under its limits."""
    status = 1
    # A sheet becomes millions of objects that are all still needed; looking for those that are not takes a tenth of
    # the time, and this process ends with its answer anyway.
    gc.disable()
    try:
        answer = _leave_the_family(answer_at, says)
        with open(answer, "wb", closefd=False) as file, _Told(file) as told:
            told.in_force = confine(question.path, question.limits)
            write_table(file, read_table(question.path, question.contract), told.in_force)
        status = 0
    finally:
        os._exit(status)


def _leave_the_family(answer_at: int, says: int) -> int:
    """Put this process in a group of its own with no descriptor but its answer and the three standard ones."""
    die_with_parent(signal.SIGKILL)
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGXFSZ, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.set_blocking(says, False)  # who fills the pipe loses words, not time
    nowhere = os.open(os.devnull, os.O_RDWR)
    for target, source in zip(_STANDARD, (nowhere, nowhere, says), strict=True):
        os.dup2(source, target)
    answer = os.dup2(answer_at, len(_STANDARD), inheritable=False)
    os.closerange(answer + 1, os.sysconf("SC_OPEN_MAX") if sys.platform == "darwin" else 1 << 16)
    return answer
