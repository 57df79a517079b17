"""A server started, after whatever a killed one left has been cleared away."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from tasks.errors import DependencyDown
from tasks.local_stack.accounts import last_words, run_as, spawn_as, write_as
from tasks.local_stack.folders import own_folder, socket_folder
from tasks.local_stack.known import PORT, Limit, Site
from tasks.local_stack.making import configure, ensure_database, finish_restore
from tasks.local_stack.postmaster import CHILDREN, belongs, live_postmaster, lost_socket, shut_down, was_moved

_DEAD_PID = 2**31 - 1  # above every kernel's greatest process id


def ensure_launched(site: Site, limit: Limit) -> subprocess.Popen[bytes] | None:
    """Return the server launched now, or None when one is there already (starting, up or stopping)."""
    postmaster = live_postmaster(site.data)
    if postmaster is not None and (was_moved(postmaster, site.data) or lost_socket(postmaster)):
        limit.progress("PostgreSQL runs, but its folder was moved or its socket deleted; restarting it…")
        shut_down(site.data, postmaster, limit)
        postmaster = None
    if postmaster is not None:
        return None
    _end_strays(site.data, limit)  # before a database is made: see there
    finish_restore(site)
    ensure_database(site, limit.progress)
    configure(site)
    socket_dir = socket_folder(site)
    _clear_locks(site, socket_dir)
    return _launch(site, socket_dir, limit.progress)


def _clear_locks(site: Site, socket_dir: Path) -> None:
    """Disarm the locks of a killed server, whose process id the next one would take for a running server's."""
    pid_file = site.data / "postmaster.pid"
    with suppress(FileNotFoundError):
        first, _, rest = os.fsdecode(pid_file.read_bytes()).partition("\n")
        # The id may by now be another program's. It is replaced by one that no process has, and the file kept: its
        # last lines name the shared memory, by which PostgreSQL makes sure itself that nobody still uses it.
        if first != str(_DEAD_PID):
            write_as(site.account, pid_file, f"{_DEAD_PID}\n{rest}")
    # The same for the socket's lock, which holds nothing else.
    for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
        (socket_dir / name).unlink(missing_ok=True)


def _end_strays(data: Path, limit: Limit) -> None:
    """End processes of a server that is gone: busy children of a killed one, or one whose folder was deleted.

    Always before a new database is made. A server whose folder was deleted knows some files by their full path: its
    last checkpoint would be written into the control file of the new database, which is then lost.
    """
    for number, _ in enumerate(limit.waits("Waiting for processes of a killed PostgreSQL to end")):
        strays = {process.pid: process for process in psutil.process_iter() if belongs(process, data)}
        if not strays:
            return
        for process in strays.values():
            with suppress(psutil.Error):
                if process.ppid() not in strays:  # its children are the business of the topmost
                    # SIGQUIT: end at once and write nothing. As after a crash, the next start recovers from the WAL.
                    process.send_signal(signal.SIGQUIT if number < 12 else signal.SIGKILL)
    raise DependencyDown(
        f"Processes of a killed PostgreSQL still use {data} after {limit.seconds:g} s.",
        hint=f"See which with `fuser {data}`, end them and run it again.",
    )


def _launch(site: Site, socket_dir: Path, progress: Callable[[str], None]) -> subprocess.Popen[bytes]:
    """Start the server and return its process once its ``postmaster.pid`` stands, so that others can see it."""
    log_dir = own_folder((site.place / "log").resolve(), site.account)
    options = {
        # Here and not in a file, since an ALTER SYSTEM must not be able to open the server to the network.
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": f'"{socket_dir}"',
        "unix_socket_permissions": "0700",
        "hba_file": str(site.data / "pg_hba.conf"),
        "ident_file": str(site.data / "pg_ident.conf"),
        "log_directory": str(log_dir),
    }
    command = [str(site.programs / "postgres"), "-D", str(site.data)]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    process = spawn_as(site.account, command, site.folder / "startup.log")
    CHILDREN[process.pid] = process
    for _ in Limit(time.monotonic(), 60.0, progress).waits("PostgreSQL is starting"):  # the file is its first act
        if process.poll() is not None:
            raise failed_start(site, f"PostgreSQL did not start (code {process.returncode})")
        if live_postmaster(site.data) is not None:
            break
    return process


def failed_start(site: Site, what: str) -> DependencyDown:
    """Return the error with the last words of the server: of its log if it got as far as opening one."""
    said = (site.folder / "startup.log").read_bytes()
    if b"redirecting log output" in said:
        script = 'cd -- "$1" && tail -n 50 -- "$(ls -t | head -n 1)"'
        said = run_as(site.account, ["/bin/sh", "-c", script, "sh", str((site.place / "log").resolve())]).stdout
    fatal = b"\n".join(line for line in said.splitlines() if b"FATAL" in line or b"PANIC" in line)
    return DependencyDown(
        f"{what}: {last_words(fatal or said) or 'it said nothing'}",
        hint=f"See {site.folder / 'startup.log'} and {site.folder / 'log'}; correct the cause and run it again.",
    )
