"""Whom the server runs as, and running programs and writing files as that account."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.errors import DependencyDown, Refused, UsageError
from tasks.local_stack.known import SERVICE_ACCOUNTS, Account

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # nothing of the caller's, no PG* variables


def account_for(home: Path) -> Account:
    """Return whom the server runs as: this user, or as root the owner of the data, of the home, or the service."""
    if os.geteuid() != 0:
        return account_named(os.geteuid(), switch=False)
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
        return account_named(owner, switch=True)
    if home.stat().st_uid != 0:
        return account_named(home.stat().st_uid, switch=True)
    return _service_account()


def account_named(uid: int, *, switch: bool) -> Account:
    """Return the account with this user id; ``switch`` says that this process has to become it.

    Raises:
        UsageError: the account database has no entry for it.
    """
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        raise UsageError(
            f"User id {uid} has no entry in the account database; PostgreSQL and peer authentication need its name.",
            hint="Add the user (in a container: to /etc/passwd), or set KONTOR_DATABASE_URL to a PostgreSQL server.",
        ) from error
    return Account(entry.pw_name, uid, entry.pw_gid, switch)


def _service_account() -> Account:
    """Return the account that root starts the server as; creates ``kontor-postgres`` where none is there."""
    for name in SERVICE_ACCOUNTS:
        with suppress(KeyError):
            return account_named(pwd.getpwnam(name).pw_uid, switch=True)
    name = SERVICE_ACCOUNTS[-1]
    ways = (
        ("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false", name),
        ("adduser", "-S", "-D", "-H", "-s", "/bin/false", name),  # busybox
    )
    for way in ways:
        program = shutil.which(way[0])
        if program and subprocess.run([program, *way[1:]], check=False, capture_output=True).returncode == 0:
            return account_named(pwd.getpwnam(name).pw_uid, switch=True)
    raise UsageError(
        f"PostgreSQL does not run as root; neither account {' nor '.join(SERVICE_ACCOUNTS)} exists or could be made.",
        hint=f"Create a system user {name}, run Kontor as an ordinary user, or set KONTOR_DATABASE_URL.",
    )


def _as(account: Account) -> dict[str, Any]:
    """What ``subprocess`` is told so that a program runs as the account and inherits nothing of the caller's."""
    identity: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account.switch else {}
    return {"cwd": "/", "env": _ENVIRONMENT, "umask": 0o077, **identity}


def run_as(
    account: Account, command: Sequence[str], text: str = "", keep: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run a program as the account, with ``text`` as its input and the files ``keep`` open; return how it ended."""
    with _switching(account):
        return subprocess.run(
            command,
            input=os.fsencode(text),
            pass_fds=keep,
            capture_output=True,
            check=False,
            **_as(account),
        )


def spawn_as(account: Account, command: Sequence[str], said: Path) -> subprocess.Popen[bytes]:
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
                **_as(account),
            )
    finally:
        os.close(descriptor)


@contextmanager
def _switching(account: Account) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"Cannot run a program as {account.name} (user id {account.uid}): {error.strerror}.",
            hint="Run Kontor as an ordinary user, or set KONTOR_DATABASE_URL to a PostgreSQL server.",
        ) from error


def write_as(account: Account, path: Path, text: str) -> None:
    """Replace a file with the account's own rights: root follows no link that the account might have put there."""
    with suppress(OSError):
        if path.read_bytes() == os.fsencode(text):
            return
    script = 'cat >"$1.new" && mv -f -- "$1.new" "$1"'
    done = run_as(account, ["/bin/sh", "-c", script, "sh", str(path)], text)
    if done.returncode != 0:
        raise DependencyDown(
            f"{path} cannot be written (code {done.returncode}): {last_words(done.stderr)}",
            hint="Check free space and the folder's owner, then run it again.",
        )


def last_words(output: bytes) -> str:
    """Return the last lines of what a program said; PostgreSQL's own start-up messages name files and settings only."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])
