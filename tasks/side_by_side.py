"""Heavy work shared out: over processes of this machine (``KONTOR_PROCESSES``) or workers of Dask (``KONTOR_DASK``).

:func:`sharing_out` is the one place that knows which; who shares out asks it for helpers. A share is a function of a
module with arguments that pickle; it runs in a process of its own that has loaded only what that function needs, and
its result or its error comes back. A process dies with the one that started it (the kernel sees to that on Linux), so
that killing a run kills all of it. What keeps shares out of each other's way is their own matter: rows that are locked,
or ids that are divided.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

from sqlalchemy.exc import DBAPIError

from configs.settings import Settings
from tasks.errors import DependencyDown, KontorError
from tasks.garbage import collect_seldom

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_ROOT = Path(__file__).resolve().parents[1]
_PR_SET_PDEATHSIG = 1


class Share(Protocol[R_co]):
    """Work under way elsewhere."""

    def result(self) -> R_co:
        """Wait for its end and return what it returned.

        Raises:
            DependencyDown: who did it was killed before it could say how it ended.
            KontorError, DBAPIError: as the work raised it.
        """

    def give_up(self) -> None:
        """Nobody waits for it any more; harmless after its end."""


class Helpers(Protocol):
    """Who takes shares."""

    def start(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Share[R]:
        """Begin the work elsewhere; ``work`` is a function that a module holds under its own name."""


@contextmanager
def sharing_out(settings: Settings) -> Iterator[Helpers]:
    """Who takes shares during a ``with`` block, as the settings say; call it only where there are shares.

    Raises:
        UsageError: Dask is asked for and not installed.
    """
    if settings.dask is None:
        yield _Processes()
        return
    from tasks.dask_shares import reach_dask  # takes seconds to import, and is an extra

    with reach_dask(settings.dask, settings.shares - 1) as helpers:
        yield helpers


class _Processes:
    def start(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Share[R]:
        return start_share(work, *args, **kwargs)


@dataclass(frozen=True)
class ProcessShare(Generic[R]):
    """Work under way in another process."""

    process: subprocess.Popen[bytes]

    def result(self) -> R:
        """Wait for its end and return what it returned.

        Raises:
            DependencyDown: the process was killed before it could say how it ended.
            KontorError, DBAPIError: as the work raised it.
        """
        said, _ = self.process.communicate()
        if self.process.returncode != 0 or not said:
            raise DependencyDown(
                f"A process that did a share of the work ended by itself ({self.process.returncode}).",
                hint="What it had committed stands. See the log for its last words, then run the flow again.",
            )
        result, error = pickle.loads(said)  # our own child's words
        if error is not None:
            raise error
        return cast(R, result)

    def give_up(self) -> None:
        """End the process and wait for its end."""
        self.process.kill()
        self.process.wait()


def start_share(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> ProcessShare[R]:
    """Begin the work in a process of its own; ``work`` is a function that a module holds under its own name."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.side_by_side", str(os.getpid())],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    if process.stdin is None:
        raise RuntimeError("the process has no standard input")
    pickle.dump((work, args, kwargs), process.stdin)
    process.stdin.close()
    process.stdin = None
    return ProcessShare(process)


def main() -> int:
    """Do the share that standard input holds, and answer on standard output; what the work prints goes to stderr."""
    sys.excepthook = _tell_kind
    _die_with(int(sys.argv[1]))
    collect_seldom()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    work, args, kwargs = pickle.load(sys.stdin.buffer)  # our own parent's words
    result: Any = None
    error: Exception | None = None
    try:
        result = work(*args, **kwargs)
    except (KontorError, DBAPIError) as raised:
        error = raised
    with answer:
        answer.write(pickle.dumps((result, error)))
    return 0


def _tell_kind(kind: type[BaseException], _error: BaseException, trace: TracebackType | None) -> None:
    """Print what kind of error nobody foresaw and where; its own text may quote a customer's data."""
    frames = traceback.extract_tb(trace)
    print(f"{kind.__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else kind.__name__)


def _die_with(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
