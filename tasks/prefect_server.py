"""Prefect's server as a child of ours: started once, found again, stopped by whoever wants it stopped.

Everything it writes is under ``KONTOR_HOME/prefect`` (mode 0700):

    server.lock     held by whoever starts or stops the server, so that two at once make one
    server.pid      written by the server's own process before it becomes Python
    server.json     port, a digest of the settings the server was started with, and whether it has answered
    server.log      this run's output; the two runs before are server.log.1 and server.log.2
    ui/             the web pages, unpacked by Prefect (never into the installed package)

A recorded process is believed only while it lives under a command line that carries this very folder, so a
reused process number or a record left by a crash is never mistaken for the server, and never signalled.

The server listens on 127.0.0.1 unless told otherwise, keeps its data in PostgreSQL and calls nobody by itself:
analytics, promotional content and resource metrics are off. (Prefect's page for a new work pool asks GitHub for a
list when a person opens it, and falls back on its own copy.) Scheduler, late runs, cancellation clean-up,
triggers and the event store stay on. Its block catalogue is not filled at start, which saves four seconds
on an empty database; saving a block registers its type.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from tasks import prefect_settings
from tasks.errors import DependencyDown, Locked
from tasks.prefect_settings import HOST, Listening, client_environment, reach, server_environment

LOGS_KEPT = 3
_APP = "flows.commands.prefect_app:create_app"  # Prefect's own, mended; by name, because no task imports Prefect
_ATTEMPTS = 3
_POLL_SECONDS = 0.1
_FROZEN_AFTER_SECONDS = 10

Progress = Callable[[str], None]

LOOPBACK = Listening()

# Children of this process, kept so that they can be reaped; the server itself outlives us.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class PrefectServer:
    """A server that answered: its API, its web pages, its process and its folder."""

    api_url: str
    ui_url: str
    pid: int
    home: Path


@dataclass(frozen=True)
class _Record:
    """What the last start wrote down about itself."""

    port: int
    digest: str
    host: str = HOST
    ready: bool = False  # it has answered once: from then on silence means trouble, not a slow start


def _quiet(_message: str) -> None:
    """Progress for those who do not want any."""


def start_prefect(
    home: Path,
    *,
    database_url: str,
    options: Mapping[str, str] | None = None,
    listening: Listening = LOOPBACK,
    timeout_seconds: float = 120,
    progress: Progress = _quiet,
) -> PrefectServer:
    """Return the running server of this home, started now if it was not; ``options`` are variables for it alone.

    ``database_url`` is an asyncpg URL of a PostgreSQL database that exists and may be empty. A server that runs
    with other settings (database, Prefect version) is replaced. When the caller dies half way, the server goes on
    starting and the next call waits for it.

    Raises DependencyDown when the server ends or does not answer in time, Locked when another process holds the
    start for longer than that.
    """
    deadline = time.monotonic() + timeout_seconds
    folder = _folder(home)
    more = dict(options or {})
    with _start_lock(folder, deadline):
        running = _reuse(folder, _digest(database_url, more, listening), deadline, progress)
        if running is not None:
            return running
        for attempt in range(_ATTEMPTS):
            port = listening.port or _choose_port(folder, reach(listening.host), fresh=attempt > 0)
            _launch(folder, listening, port, database_url, more)
            progress(f"Prefect's server is starting on port {port}")
            server = _await_ready(folder, _Record(port, "", listening.host), deadline, progress)
            if server is not None:
                return server
            if not _port_was_taken(folder):
                break
    raise DependencyDown(
        f"Prefect's server ended while it was starting: {_last_line(folder)}",
        hint=f"read {folder / 'server.log'}",
    )


def find_prefect(home: Path) -> PrefectServer | None:
    """Return the running server of this home, or None; takes at most a third of a second."""
    folder = home.absolute() / "prefect"
    record, pid = _read_record(folder), _living_pid(folder)
    if record is None or pid is None or not _answers(record, "/api/health", 0.25):
        return None
    return _server(folder, record, pid)


def expected_prefect(home: Path) -> PrefectServer | None:
    """The server of this home that runs, whether it answers already or is still starting; None where none does."""
    folder = home.absolute() / "prefect"
    record, pid = _read_record(folder), _living_pid(folder)
    return None if record is None or pid is None else _server(folder, record, pid)


def stop_prefect(home: Path, *, timeout_seconds: float = 30) -> bool:
    """Stop the server of this home and everything in its process group; True when there was one.

    It is asked first (SIGTERM) and after ``timeout_seconds`` made to (SIGKILL); its data is in PostgreSQL and
    survives both. Raises Locked when a start is under way for longer than that.
    """
    folder = home.absolute() / "prefect"
    if not folder.is_dir():
        return False
    deadline = time.monotonic() + timeout_seconds
    with _start_lock(folder, deadline):
        return _end(folder, deadline)


def prefect_environment(server: PrefectServer, home: Path, login: str | None = None) -> dict[str, str]:
    """Return the environment variables for a process that runs flows against this server.

    They are to be laid over the caller's own environment, in this process before Prefect is first imported: it reads
    its settings then. ``login`` is the ``user:password`` of a server that asks for one.
    """
    return client_environment(home.absolute() / "prefect", server.api_url, login)


# --- what was started ---------------------------------------------------------------------------------------------


def _digest(database_url: str, options: Mapping[str, str], listening: Listening) -> str:
    # Changed settings of ours change these modules, and with them the digest: an upgrade replaces an old server.
    set_so = json.dumps([sorted(options.items()), listening.host, listening.port, listening.login])
    code = (Path(str(file)).read_text(encoding="utf-8") for file in (__file__, prefect_settings.__file__))
    parts = (database_url, set_so, version("prefect"), sys.executable, *code)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# --- the folder ---------------------------------------------------------------------------------------------------


def _folder(home: Path) -> Path:
    folder = home.absolute() / "prefect"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@contextmanager
def _start_lock(folder: Path, deadline: float) -> Iterator[None]:
    with (folder / "server.lock").open("a+") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Locked(
                        "another process is starting or stopping Prefect's server and did not finish in time",
                        holder=_holder(handle.name),
                        hint="wait for it to end, then try again",
                    ) from None
                time.sleep(_POLL_SECONDS)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield  # closing the file gives the lock back, also when this process is killed


def _holder(lock_file: str) -> str:
    return f"process {Path(lock_file).read_text().strip() or 'unknown'}"


def _read_record(folder: Path) -> _Record | None:
    try:
        raw = json.loads((folder / "server.json").read_text())
        port, digest = int(raw["port"]), str(raw["digest"])  # a list, as a torn record may be, has no such places
        return _Record(port, digest, str(raw.get("host", HOST)), ready=bool(raw.get("ready")))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent or torn: as if there had been no server


def _write_record(folder: Path, record: _Record) -> None:
    draft = folder / "server.json.new"
    draft.write_text(json.dumps(asdict(record)))
    draft.replace(folder / "server.json")


def _remember_ready(folder: Path) -> None:
    record = _read_record(folder)
    if record is not None and not record.ready:
        _write_record(folder, replace(record, ready=True))


def _choose_port(folder: Path, host: str, *, fresh: bool) -> int:
    """The remembered port, which keeps bookmarks good, or a free one when somebody else has it."""
    record = None if fresh else _read_record(folder)
    if record is not None and record.port > 0:
        # A killed server loses its command line a moment before its sockets.
        for _ in range(20):
            if _bind(host, record.port) is not None:
                return record.port
            time.sleep(_POLL_SECONDS)
    free = _bind(host, 0)
    if free is None:
        raise DependencyDown(f"no port is free on {host}", hint="close programs that listen on many ports")
    return free


def _bind(host: str, port: int) -> int | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):  # taken, not allowed, or a torn record's number
            return None
        return int(probe.getsockname()[1])


def _rotate_logs(folder: Path) -> None:
    newest_first = [folder / "server.log", *(folder / f"server.log.{n}" for n in range(1, LOGS_KEPT))]
    for older, newer in reversed(list(zip(newest_first[1:], newest_first, strict=False))):
        if newer.exists():
            newer.replace(older)


def _log_tail(folder: Path) -> list[str]:
    try:
        with (folder / "server.log").open("rb") as handle:
            handle.seek(max(0, handle.seek(0, os.SEEK_END) - 8192))
            return [line.strip() for line in handle.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return []


def _last_line(folder: Path) -> str:
    lines = [line for line in _log_tail(folder) if "Application startup failed" not in line]
    return lines[-1] if lines else "it wrote nothing"


def _port_was_taken(folder: Path) -> bool:
    return any("address already in use" in line.lower() for line in _log_tail(folder))


# --- the process --------------------------------------------------------------------------------------------------


def _mark(folder: Path) -> str:
    return f"kontor={folder}"


def _command(folder: Path, host: str, port: int) -> list[str]:
    # -X with a name Python does not know is ignored by it; it marks the process as this home's.
    python = [sys.executable, "-X", _mark(folder), "-m", "uvicorn"]
    listen = ["--host", host, "--port", str(port), "--no-access-log", "--log-level", "warning"]
    # Without a limit, one open browser tab would hold up the end for ever.
    return [*python, "--factory", _APP, *listen, "--timeout-graceful-shutdown", "3"]


def _launch(folder: Path, listening: Listening, port: int, database_url: str, options: Mapping[str, str]) -> None:
    """Start the server detached. Record first, process second: a kill between leaves a record that nothing answers."""
    _rotate_logs(folder)
    _write_record(folder, _Record(port, _digest(database_url, options, listening), listening.host))
    # The shell writes its number and becomes the server, so there is no moment with a server and no record of it.
    announce = 'echo $$ > "$1" && shift && exec "$@"'
    with (folder / "server.log").open("wb") as log:
        child = subprocess.Popen(
            ["/bin/sh", "-c", announce, "sh", str(folder / "server.pid"), *_command(folder, listening.host, port)],
            env={**server_environment(folder, listening, port, database_url), **options},
            cwd=folder,  # away from any .env or prefect.toml of the caller's folder
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child


def _command_line(pid: int) -> str:
    """What process ``pid`` was started as; empty for one that is gone or a zombie."""
    if Path("/proc/self/cmdline").exists():
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        return ""
    listed = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    return listed.stdout.decode("utf-8", "replace")


def _living_pid(folder: Path) -> int | None:
    try:
        pid = int((folder / "server.pid").read_text())
    except (OSError, ValueError):
        return None
    line = _command_line(pid)
    return pid if f"{_mark(folder)} " in line and _APP in line else None


def _answers(where: _Record, path: str, timeout: float) -> bool:
    connection = http.client.HTTPConnection(reach(where.host), where.port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _server(folder: Path, where: _Record, pid: int) -> PrefectServer:
    base = f"http://{reach(where.host)}:{where.port}"
    return PrefectServer(api_url=f"{base}/api", ui_url=base, pid=pid, home=folder.parent)


def _reuse(folder: Path, digest: str, deadline: float, progress: Progress) -> PrefectServer | None:
    """The server that already runs with these settings; one with others, or one that hangs, is ended."""
    record = _read_record(folder)
    if _living_pid(folder) is None:
        return None  # a record and a process number may be there; they are a crash's, and the launch replaces them
    if record is not None and record.digest == digest:
        now = time.monotonic()
        patience = _FROZEN_AFTER_SECONDS if record.ready else deadline - now
        try:
            return _await_ready(folder, record, min(deadline, now + patience), progress)
        except DependencyDown:
            if not record.ready:
                raise
    progress("Prefect's server runs with other settings or does not answer; it is replaced")
    _end(folder, time.monotonic() + 5)
    return None


def _await_ready(folder: Path, where: _Record, deadline: float, progress: Progress) -> PrefectServer | None:
    """The server once it answers, None when its process ended; DependencyDown when the time is over."""
    begun = told = time.monotonic()
    while (now := time.monotonic()) < deadline:
        if _answers(where, "/api/health", 2) and _answers(where, "/api/ready", 5):
            pid = _living_pid(folder)
            if pid is not None:
                _remember_ready(folder)
                return _server(folder, where, pid)
        if now - begun > 1 and _living_pid(folder) is None:  # the first second belongs to the shell
            return None
        if now - told >= 5:
            told = now
            progress(f"Prefect's server is starting, {now - begun:.0f} s so far")
        time.sleep(_POLL_SECONDS)
    raise DependencyDown(
        f"Prefect's server did not answer on port {where.port} within {deadline - begun:.0f} s",
        hint=f"read {folder / 'server.log'}; it goes on starting, so trying again may be enough",
    )


def _end(folder: Path, deadline: float) -> bool:
    pid = _living_pid(folder)
    if pid is not None:
        _signal_group(pid, signal.SIGTERM)
        while _alive(folder) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        _signal_group(pid, signal.SIGKILL)  # whatever of the group is left
        while _alive(folder):
            time.sleep(_POLL_SECONDS)
    (folder / "server.pid").unlink(missing_ok=True)
    return pid is not None


def _alive(folder: Path) -> bool:
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]
    return _living_pid(folder) is not None


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # the server leads its own session, so its group carries its number
        os.killpg(pid, number)
