"""Ends what a test session leaves running, also a session that was killed: servers outlive their starter by design.

A session has one folder for everything temporary, and a janitor beside it: a process that waits at a pipe which closes
when the session ends, in whatever way. Then it ends every process that has the folder in its command line or the
session's mark in its environment, and removes the folder. Run as a program it is the janitor.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

MARK = "TEST_SESSION_OF_KONTOR"  # tests take KONTOR_* out of the environment of what they start
GRACE_SECONDS = 5.0
ROOT = Path(__file__).resolve().parents[1]

_AT_WORK: list[subprocess.Popen[bytes]] = []  # an object that is forgotten closes its pipe


def employ() -> Path:
    """The folder of this session; the first process of a session makes it and employs the janitor."""
    if MARK in os.environ:
        return Path(os.environ[MARK])
    folder = Path(tempfile.mkdtemp(prefix="kt-"))
    folder.chmod(0o755)  # other accounts run servers below it
    os.environ[MARK] = str(folder)
    _AT_WORK.append(
        subprocess.Popen(
            [sys.executable, "-m", "tests.janitor", str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,  # what ends a terminal's programs does not end this one
        )
    )
    return folder


def remains(folder: Path) -> Iterator[psutil.Process]:
    """The processes of the session with this folder, but for the janitor itself."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if "tests.janitor" not in words and (_says(words, folder) or _is_marked(process, folder)):
                yield process


def _says(words: list[str], folder: Path) -> bool:
    return any(str(folder) in word for word in words)


def _is_marked(process: psutil.Process, folder: Path) -> bool:
    try:
        return bool(process.environ().get(MARK) == str(folder))
    except psutil.Error:  # another account's: its command line must do
        return False


def sweep(folder: Path) -> None:
    """End the session's processes, servers of PostgreSQL by their own kind of hurry, and remove its folder."""
    left = list(remains(folder))
    for process in left:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGQUIT if "postgres" in process.name() else signal.SIGTERM)
    _, stubborn = psutil.wait_procs(left, GRACE_SECONDS)
    for process in stubborn:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, GRACE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()  # nothing is ever written: it returns when the last process with the other end has ended
    sweep(Path(sys.argv[1]))
