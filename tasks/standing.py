"""The processes that stand beside the servers while Kontor is up: started, watched, started again, stopped together.

One supervisor per home holds ``KONTOR_HOME/up/lock``. Each companion is a child of its own session whose output goes to
``KONTOR_HOME/logs/<name>.log`` (rotated). On Linux a companion is told to end when its supervisor dies, so that a
supervisor killed outright leaves nobody behind who works for nobody; the next one begins anew.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import Locked

LOG_BYTES, LOGS_KEPT = 5_000_000, 3
CALM_SECONDS = 60.0  # one that stood so long has recovered: its next fall is a first one
LONGEST_PAUSE = 60.0
_STOP_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Companion:
    """A process that is to stand: its name and how it is started."""

    name: str
    command: tuple[str, ...]


@dataclass
class Standing:
    """How a companion is doing; ``falls`` counts how often it ended by itself since it last stood calm."""

    companion: Companion
    process: subprocess.Popen[bytes] | None = None
    begun: float = 0.0
    falls: int = 0
    restarts: int = 0
    due: float = 0.0
    last_code: int | None = None
    reader: threading.Thread | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """Its process number while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None


def pause_before(falls: int) -> float:
    """Seconds to wait before the next start after so many falls in a row: 1, 2, 4 … at most a minute."""
    return float(min(2.0 ** max(falls - 1, 0), LONGEST_PAUSE))


@contextmanager
def only_supervisor(home: Path) -> Iterator[None]:
    """Hold the home's supervisor lock for a ``with`` block; it dies with the process.

    Raises:
        Locked: another one is at work; its process number is named.
    """
    folder = home / "up"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (folder / "lock").read_text().strip()
            raise Locked(
                f"Kontor is up already in {home} (process {holder}).",
                holder=holder,
                hint="`kontor status` shows how it does; `kontor down` stops it.",
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def find_supervisor(home: Path) -> int | None:
    """The process number of the supervisor at work in this home, None where none is."""
    lock = home / "up" / "lock"
    try:
        with lock.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = lock.read_text().strip()
        return int(text) if text.isdigit() else None
    except FileNotFoundError:
        return None
    return None


def stop_supervisor(home: Path, *, timeout_seconds: float = 40.0) -> bool:
    """Ask the supervisor of this home to stop its companions and end, then make it; True when there was one."""
    pid = find_supervisor(home)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_seconds
    while find_supervisor(home) is not None:
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.1)
    return True


class Supervisor:
    """Keeps companions standing until it is told to stop."""

    def __init__(self, logs: Path, companions: Sequence[Companion], environment: Mapping[str, str]) -> None:
        self._logs, self._environment = logs, dict(environment)
        self.standing = [Standing(companion) for companion in companions]

    def keep_up(self, now: float) -> None:
        """Start whoever is not running and whose pause is over; note who has fallen."""
        for one in self.standing:
            if one.process is not None and one.process.poll() is not None:
                self._note_fall(one, now)
            if one.process is None and now >= one.due:
                self._start(one, now)

    def replace_all(self, environment: Mapping[str, str]) -> None:
        """Stop every companion, so that they begin again with another environment."""
        self._environment = dict(environment)
        self.stop()

    def stop(self) -> None:
        """Ask all to end, then make those that do not; returns when none is left."""
        running = [one.process for one in self.standing if one.process is not None and one.process.poll() is None]
        for process in running:
            with suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for one in self.standing:
            one.process, one.due = None, 0.0

    def _note_fall(self, one: Standing, now: float) -> None:
        one.last_code = one.process.returncode if one.process is not None else None
        one.falls = 1 if now - one.begun >= CALM_SECONDS else one.falls + 1
        one.restarts += 1
        one.process, one.due = None, now + pause_before(one.falls)

    def _start(self, one: Standing, now: float) -> None:
        one.process = subprocess.Popen(
            one.companion.command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with(os.getpid()),
        )
        one.begun = now
        one.reader = threading.Thread(target=_copy, args=(one.process, self._logs, one.companion.name), daemon=True)
        one.reader.start()


def _end_with(supervisor: int) -> Callable[[], None] | None:
    """What a child does before it becomes its program: ask the kernel for a SIGTERM when its parent dies."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died in between
            os._exit(0)

    return ask


def _copy(process: subprocess.Popen[bytes], logs: Path, name: str) -> None:
    """Copy what a companion prints into its rotating log until it closes its end."""
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.handlers.RotatingFileHandler(
        logs / f"{name}.log", maxBytes=LOG_BYTES, backupCount=LOGS_KEPT, encoding="utf-8"
    )
    if process.stdout is None:
        return
    for line in process.stdout:
        text = line.decode("utf-8", "replace").rstrip()
        handler.emit(logging.LogRecord(name, logging.INFO, "", 0, text, (), None))
    handler.close()
