"""The lock under which a server is made, started or stopped; a deleted lock file is noticed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import Locked
from tasks.local_stack.folders import make_folders
from tasks.local_stack.known import RAISE_LIMIT, Limit


@contextmanager
def locked(home: Path, limit: Limit) -> Iterator[int]:
    """Hold the home's lock and yield its descriptor; a process that dies lets go of it.

    Raises:
        Locked: with the holder's process id, when the limit is over.
    """
    path = home / "postgres" / "lock"
    descriptor = _open_lock(path)
    try:
        for _ in limit.waits("Another process is starting PostgreSQL"):
            if _try_lock(descriptor) and not _replaced(descriptor, path):
                break
            if _replaced(descriptor, path):  # the home was removed under the lock; wait for its successor's
                make_folders(home)
                os.close(descriptor)
                descriptor = _open_lock(path)
        else:
            holder = f"process {os.pread(descriptor, 20, 0).decode('ascii', 'replace').strip() or 'unknown'}"
            raise Locked(
                f"{holder} has been making or starting PostgreSQL for over {limit.seconds:g} s.",
                holder=holder,
                hint=RAISE_LIMIT,
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0:
        os.fchown(descriptor, path.parent.stat().st_uid, -1)  # root must not lock the home's owner out
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replaced(descriptor: int, path: Path) -> bool:
    try:
        return not os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return True
