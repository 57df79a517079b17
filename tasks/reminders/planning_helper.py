"""A second process that decides about the upper half of the customers while the first decides about the lower one.

It reads in the snapshot that the first process holds, keeps nothing, and hands its draft back through a pipe, so that
it may be killed at any moment: whoever asked then decides about that half as well. A plan is the same with it or
without. It begins with a new interpreter, because forking a process with threads and open connections is not safe.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sqlalchemy import text

from configs.settings import Settings
from tasks.database import engine_for
from tasks.reminders.drafts import DraftPlan

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = "from tasks.reminders.planning_helper import main; main()"


@dataclass(frozen=True)
class Share:
    """What the helper decides about: customers with ids of at least ``lowest``, as ``snapshot`` shows them."""

    settings: Settings
    snapshot: str
    as_of: date
    lowest: int


@contextmanager
def helping(share: Share) -> Iterator[Callable[[], DraftPlan | None]]:
    """A helper at work for a ``with`` block; the call waits for its draft and is None where it did not get there."""
    places = [str(_ROOT), *(place for place in sys.path if Path(place).name in ("site-packages", "dist-packages"))]
    process = subprocess.Popen(
        [sys.executable, "-s", "-P", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )

    def answer() -> DraftPlan | None:
        said, _ = process.communicate()
        # Ours, through a pipe of ours: nobody else can have written it.
        return pickle.loads(said) if process.returncode == 0 else None

    try:
        if process.stdin is not None:
            # Through a pipe, because it holds what leads to the database. One that is gone already answers nothing.
            with suppress(BrokenPipeError):
                pickle.dump(share, process.stdin)
                process.stdin.flush()
        yield answer
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Read a share from standard input, decide about it, and write the draft to standard output."""
    from tasks.reminders.planning_store import draft_share

    share: Share = pickle.load(sys.stdin.buffer)
    with (
        engine_for(share.settings, purpose="kontor overdue_reminders")
        .connect()
        .execution_options(isolation_level="REPEATABLE READ") as connection,
        connection.begin(),
    ):
        # A snapshot's name takes no parameter, and is made of hexadecimal digits and dashes alone.
        connection.execute(text(f"set transaction snapshot '{share.snapshot}'"))
        draft = draft_share(connection, share.as_of, lowest=share.lowest)
    pickle.dump(draft, sys.stdout.buffer)
