"""Scratch homes, where copies are restored to be looked at: each used by one process at a time, and gone afterwards."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.settings import Settings
from tasks.errors import Locked
from tasks.local_stack import remove_postgres


@contextmanager
def own_scratch(settings: Settings, name: str) -> Iterator[Path]:
    """The scratch home of that name for a ``with`` block, with nothing in it; removed at the end.

    What a killed process left there is removed first. The lock is the system's, because a drill needs no database; it
    ends with the process that holds it.

    Raises:
        Locked: another process uses it; nothing was touched.
    """
    home = settings.home / "scratch" / name
    home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(home.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(
                f"Another process is restoring to {home}. Nothing was changed.",
                holder="",
                hint="Wait for it to end: a check, a drill, or a restore into a database.",
            ) from None
        clear(home)
        try:
            yield home
        finally:
            clear(home)
    finally:
        os.close(lock)


def clear(home: Path) -> None:
    """Remove a scratch home with its server, whoever left it."""
    if home.exists():
        remove_postgres(home)
        shutil.rmtree(home, ignore_errors=True)
