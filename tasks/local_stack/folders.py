"""Where data, log and socket go, and whose those folders are."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from tasks.errors import Refused, UsageError
from tasks.local_stack import known
from tasks.local_stack.accounts import run_as
from tasks.local_stack.known import PORT, SOCKET_PATH_LIMIT, Account, Site
from tasks.local_stack.programs import make_root_folder


def checked_home(home: Path) -> Path:
    """Return the home as an absolute path without links.

    Raises:
        UsageError: PostgreSQL could not record such a path.
    """
    home = home.expanduser().resolve()
    if re.search(r"[\x00-\x1f\x7f]", str(home)):
        raise UsageError(
            "KONTOR_HOME has a control character in its path; PostgreSQL cannot record such a path.",
            hint="Set KONTOR_HOME to a folder with a plain name.",
        )
    return home


def make_folders(home: Path) -> None:
    """Make KONTOR_HOME and its ``postgres`` folder; a folder that exists keeps its mode and owner."""
    root = os.geteuid() == 0
    folder = home / "postgres"
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        _make_passage(home)
        if _make_passage(folder) and root:
            os.chown(folder, home.stat().st_uid, -1, follow_symlinks=False)
        if not root and folder.stat().st_uid != os.geteuid():
            raise somebody_elses(folder)
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


def somebody_elses(path: Path) -> Refused:
    """Return the refusal to touch what belongs to another account."""
    return Refused(
        f"{path} belongs to another account than this process (user id {os.geteuid()}); nothing was changed.",
        hint="Run it as the owner or as root, or set KONTOR_HOME to a folder of your own.",
    )


def place_for(folder: Path, account: Account) -> Path:
    """Return the folder of data, log and run: KONTOR_HOME/postgres, or one of root's if the account cannot get there.

    The link is made before the database, so that a start killed in between goes on in the same place.
    """
    linked = linked_place(folder)
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
    place = known.ROOT_FOLDER / "servers" / secrets.token_hex(6)
    make_root_folder(place.parent)
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    (place / "home").write_bytes(os.fsencode(folder.parent) + b"\n")  # for whoever finds it orphaned
    with suppress(FileExistsError):
        (folder / "log").symlink_to(place / "log")
    data.symlink_to(place / "data")
    return place


def linked_place(folder: Path) -> Path | None:
    """Return the folder below ``/var/lib/kontor/servers`` that ``data`` links to, if it does."""
    data = folder / "data"
    if not data.is_symlink():
        return None
    target = data.readlink()
    return target.parent if target.parent.parent == known.ROOT_FOLDER / "servers" else None


def _reaches(account: Account, folder: Path) -> bool:
    """Return whether the account can get to ``folder``: asked by trying, so that ACLs count too."""
    return run_as(account, ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]).returncode == 0


def own_folder(path: Path, account: Account) -> Path:
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


def socket_folder(site: Site) -> Path:
    """Return a private folder for the socket whose path is short enough and whose file system can hold it."""
    reasons: list[str] = []
    for candidate in (site.place / "run", *socket_folders_outside(site.home)):
        if not _fits(candidate):
            reasons.append(f"{candidate}: path too long or not plain ASCII")
            continue
        try:
            folder = own_folder(candidate, site.account)
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


def socket_folders_outside(home: Path) -> list[Path]:
    """Return where the socket may go when KONTOR_HOME cannot hold it; the name tells homes and users apart."""
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    if os.geteuid() == 0:
        return [known.ROOT_FOLDER / f"run-{name}"]
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


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a rename is, once this has returned."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
