"""Restored databases: a folder to restore into, its adoption, and the seal that keeps everybody out."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path

from tasks.local_stack.accounts import run_as
from tasks.local_stack.folders import checked_home, make_folders, own_folder, sync_folder
from tasks.local_stack.known import Account, Limit, LocalPostgres, silent
from tasks.local_stack.lifecycle import site_of, start_postgres, stop_postgres
from tasks.local_stack.locks import locked
from tasks.local_stack.making import finish_restore
from tasks.local_stack.postmaster import stop_running


def make_restore_folder(home: Path) -> Path:
    """Return an empty private folder beside the database of ``home``, to restore into.

    What a killed restore left there is removed. The database itself is not touched; give the folder to
    :func:`adopt_restored` when it is complete.
    """
    home = checked_home(home)
    make_folders(home)
    with locked(home, Limit(time.monotonic(), 60.0, silent)) as lock:
        site = site_of(home, silent, lock)
        if not (site.folder / "restoring").exists():
            for half_done in site.place.glob("data.restore-*"):
                shutil.rmtree(half_done)
        return own_folder(site.place / f"data.restore-{secrets.token_hex(4)}", site.account)


def adopt_restored(
    home: Path, fresh: Path, *, keep_as: str, sealed: bool = True, timeout_seconds: float = 60.0
) -> Path | None:
    """Make ``fresh`` the database of ``home`` and return where the former one is kept, None if there was none.

    The former server is stopped, its folder renamed to ``data.before-<keep_as>`` beside it, numbered from the second
    on. Killed between the two renames, the next start finishes the second; the seal, set first, holds in every case.
    Only a scratch copy that nobody else can find is not ``sealed``.

    Raises what :func:`stop_postgres` raises.
    """
    home = checked_home(home)
    limit = Limit(time.monotonic(), timeout_seconds, silent)
    with locked(home, limit) as lock:
        site = site_of(home, silent, lock)
        stop_running(home, limit)
        _give(fresh, site.account)
        if sealed:
            run_as(site.account, [str(site.programs / "initdb"), "--sync-only", f"--pgdata={fresh}"])
            (site.folder / "sealed").touch(mode=0o600)
        (site.folder / "restoring").write_text(fresh.name, encoding="ascii")
        sync_folder(site.folder)
        former = _unused(site.data.with_name(f"data.before-{keep_as}")) if site.data.exists() else None
        if former is not None:
            site.data.rename(former)
        finish_restore(site)
        return former


def _unused(path: Path) -> Path:
    """The path, with a number behind it where the same backup was restored before and its former one is still kept."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _give(fresh: Path, account: Account) -> None:
    """Let the folder and all in it be the account's, as the server insists."""
    if not account.switch:
        return
    for folder, _, names in os.walk(fresh):
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        for name in names:
            os.chown(Path(folder) / name, account.uid, account.gid, follow_symlinks=False)


def is_sealed(home: Path) -> bool:
    """Return whether the database of ``home`` was restored and not released yet: only the superuser gets in."""
    return (home / "postgres" / "sealed").exists()


def unseal(home: Path, *, timeout_seconds: float = 120.0) -> LocalPostgres:
    """Return the restarted server of ``home``, which admits every role again."""
    stop_postgres(home, timeout_seconds=timeout_seconds)
    (home / "postgres" / "sealed").unlink(missing_ok=True)
    return start_postgres(home, timeout_seconds=timeout_seconds)
