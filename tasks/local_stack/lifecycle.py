"""Start, find, stop and remove the server of one ``KONTOR_HOME``."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tasks.errors import DependencyDown
from tasks.local_stack.accounts import account_for, account_named
from tasks.local_stack.folders import (
    checked_home,
    linked_place,
    make_folders,
    place_for,
    socket_folders_outside,
    somebody_elses,
)
from tasks.local_stack.known import Limit, LocalPostgres, Site, silent
from tasks.local_stack.launching import ensure_launched, failed_start
from tasks.local_stack.locks import locked
from tasks.local_stack.postmaster import (
    accepts,
    as_found,
    await_ready,
    live_postmaster,
    says_ready,
    stop_running,
    was_moved,
)
from tasks.local_stack.programs import find_programs


def start_postgres(
    home: Path, *, timeout_seconds: float = 120.0, progress: Callable[[str], None] = silent
) -> LocalPostgres:
    """Return the running server of ``home``, made and started if need be, once it accepts connections.

    Safe to call from any number of processes at once, and again after any of them or the server was killed.

    Raises:
        UsageError: this home, account or machine cannot carry an embedded server.
        Refused: the database is of another major version or belongs to somebody else; nothing was touched.
        Locked: another process has been making or starting the server for the whole limit.
        DependencyDown: it did not start, or still recovers after ``timeout_seconds`` (it is left to go on).
    """
    home = checked_home(home)
    limit = Limit(time.monotonic(), timeout_seconds, progress)
    try:
        return find_postgres(home) or _start(home, limit)
    except OSError as error:  # a full or read-only disk, a vanished mount
        raise DependencyDown(
            f"PostgreSQL cannot be started: {error.filename or home}: {error.strerror}.",
            hint="Check that disk and the folder's owner, then run it again; what was committed is safe.",
        ) from error


def _start(home: Path, limit: Limit) -> LocalPostgres:
    if os.geteuid() != 0:
        account_named(os.geteuid(), switch=False)  # who cannot run a server is refused before a folder is made
    make_folders(home)
    while True:
        # The lock covers making and launching only: whoever comes second finds a server that is starting and
        # waits for it as we do, and a server that recovers for an hour does not keep `stop_postgres` out.
        with locked(home, limit) as lock:
            site = site_of(home, limit.progress, lock)
            launched = ensure_launched(site, limit)
        found = await_ready(site, limit)
        if found is not None:
            return found
        # Gone with code 0, somebody stopped it meanwhile, as they may; we were asked for a running one.
        if launched is not None and launched.wait() != 0:
            raise failed_start(site, "PostgreSQL started and went away again")


def find_postgres(home: Path, *, ask: bool = True) -> LocalPostgres | None:
    """Return the server of ``home`` if it runs and accepts connections, else None; changes nothing, takes no lock.

    Without ``ask`` its own word that it is ready is believed, which spares the server a connection: for whoever is
    about to connect and will see.
    """
    try:
        data = (home / "postgres" / "data").resolve()
        postmaster = live_postmaster(data)
    except PermissionError:
        return None  # somebody else's; starting it says so in words
    if postmaster is None or was_moved(postmaster, data) or not says_ready(postmaster):
        return None
    if ask and not accepts(postmaster):
        return None
    return as_found(data, postmaster)


def stop_postgres(home: Path, *, timeout_seconds: float = 60.0) -> bool:
    """Return True if a server of ``home`` was running; it has then written everything out and is gone.

    Open transactions are rolled back, clients are told. Never escalates to a kill by itself.

    Raises:
        Refused: the server belongs to another account.
        Locked: another process was making or starting it all that time.
        DependencyDown: it was still shutting down after ``timeout_seconds``; it goes on doing so.
    """
    home = checked_home(home)
    if not os.path.lexists(home / "postgres"):
        return False
    limit = Limit(time.monotonic(), timeout_seconds, silent)
    try:
        with locked(home, limit):
            return stop_running(home, limit)
    except PermissionError as error:
        raise somebody_elses(home) from error


def remove_postgres(home: Path, *, timeout_seconds: float = 60.0) -> bool:
    """Return True if ``home`` had an embedded database; it is stopped and all its files are deleted for good.

    Raises what :func:`stop_postgres` raises. Killed half-way, call it again.
    """
    home = checked_home(home)
    folder = home / "postgres"
    if not os.path.lexists(folder):
        return False
    limit = Limit(time.monotonic(), timeout_seconds, silent)
    try:
        with locked(home, limit):
            stop_running(home, limit)
            # The link goes last: killed before that, the next call finds the rest through it.
            for leftover in (linked_place(folder), *socket_folders_outside(home)):
                if leftover is not None:
                    shutil.rmtree(leftover, ignore_errors=True)
            shutil.rmtree(folder)
    except PermissionError as error:
        raise somebody_elses(home) from error
    return True


def programs_folder(*, progress: Callable[[str], None] = silent) -> Path:
    """Return the folder of PostgreSQL's own programs, whether or not a server runs."""
    return find_programs(progress)


def site_of(home: Path, progress: Callable[[str], None], lock: int) -> Site:
    """Return where the server of ``home`` has its things, and as whom it runs; found out under the ``lock``."""
    folder = home / "postgres"
    account = account_for(home)
    programs = find_programs(progress)
    return Site(home, folder, place_for(folder, account), account, programs, lock)
