"""pgBackRest, driven: its configuration written, its commands run, its answers read.

What it says of its backups is read from ``pgbackrest info --output=json``, the one format that it promises to keep
(https://pgbackrest.org/command.html#command-info). Everything else is judged by exit code and told in its own words.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.settings import Settings
from tasks.backups.programs import Ended, OwnServer, Server, tail
from tasks.errors import BadInput, DependencyDown, UsageError
from tasks.local_stack import LocalPostgres

ANNOTATION = "kontor"
OLDEST = (2, 41)  # the first with annotations, by which our backups are known
KEEP_ALL = 9_999_999  # the greatest that it takes: which backups stay is decided by rules.backup_policy
_NO_STANZA, _NO_BACKUP = 1, 2  # codes of a stanza's status: nothing is wrong, nothing has been made yet
_FAULTS = re.compile(r"(missing|checksum invalid|size invalid|other): ([1-9][0-9]*)")


@dataclass(frozen=True)
class Kept:
    """One backup in pgBackRest's repository; ``ours`` is the label of Kontor's manifest, None for somebody else's.

    ``prior`` is what it builds on, ``started`` seconds since 1970, ``repository_bytes`` what it added there, ``error``
    true where pages were found damaged while it was made.
    """

    label: str
    kind: str
    prior: str | None
    ours: str | None
    started: int
    start_lsn: str
    repository_bytes: int
    error: bool


@dataclass(frozen=True)
class Stanza:
    """What the repository holds of one server: whether it was made at all, and its backups, oldest first."""

    made: bool
    backups: tuple[Kept, ...]
    locked: bool


def read_info(content: bytes, stanza: str) -> Stanza:
    """What ``pgbackrest info --output=json`` says of a stanza.

    Raises:
        BadInput: it is not that format.
        DependencyDown: pgBackRest says that something is wrong with the stanza.
    """
    try:
        entries = json.loads(content)
        if not isinstance(entries, list):
            raise TypeError
        [found] = [entry for entry in entries if entry["name"] == stanza] or [None]
        if found is None:
            return Stanza(made=False, backups=(), locked=False)
        code, message = int(found["status"]["code"]), str(found["status"]["message"])
        locked = bool(found["status"].get("lock", {}).get("backup", {}).get("held", False))
        backups = tuple(_kept(entry) for entry in found["backup"])
    except (ValueError, KeyError, TypeError, IndexError):
        raise BadInput(
            "What pgBackRest says of its backups cannot be read.",
            hint="Look at `pgbackrest info --output=json`; Kontor knows the format of 2.41 and later.",
        ) from None
    if code not in (0, _NO_STANZA, _NO_BACKUP):
        raise DependencyDown(f"pgBackRest says of stanza {stanza}: {message}.", hint="See `pgbackrest info`.")
    return Stanza(code != _NO_STANZA, tuple(sorted(backups, key=lambda kept: (kept.started, kept.label))), locked)


def _kept(entry: Mapping[str, Any]) -> Kept:
    return Kept(
        label=str(entry["label"]),
        kind=str(entry["type"]),
        prior=entry["prior"],
        ours=(entry.get("annotation") or {}).get(ANNOTATION),
        started=int(entry["timestamp"]["start"]),
        start_lsn=str((entry.get("lsn") or {}).get("start", "")),
        repository_bytes=int(entry["info"]["repository"].get("delta", 0)),
        error=bool(entry.get("error")),
    )


def faults_of(said: str) -> list[str]:
    """What ``pgbackrest verify --output=text --verbose`` found wrong, one line each; none where all is well."""
    wrong, about = [], ""
    for line in said.splitlines():
        if line.strip().startswith(("archiveId:", "backup:")):
            about = line.strip().split(",")[0]
        wrong += [f"{about}: {count} {what}" for what, count in _FAULTS.findall(line)]
        if line.strip().startswith("status:") and line.strip() != "status: ok":
            wrong.append(line.strip())
    return wrong


@dataclass(frozen=True)
class Driver:
    """pgBackRest with the configuration and the stanza of one installation."""

    config: Path
    stanza: str

    def version(self) -> tuple[int, ...]:
        """Its version, such as (2, 57).

        Raises:
            DependencyDown: it is not installed.
            UsageError: it is too old.
        """
        ended, output = self._run([_program(), "version"])
        found = re.search(rb"pgBackRest (\d+)\.(\d+)", output)
        if found is None:
            raise DependencyDown(f"pgBackRest does not run: {ended.said}", hint="Install it again.")
        version = (int(found[1]), int(found[2]))
        if version < OLDEST:
            raise UsageError(
                f"pgBackRest is {version[0]}.{version[1]}; {OLDEST[0]}.{OLDEST[1]} or later is needed.",
                hint="PostgreSQL 18 needs pgBackRest 2.56 or later.",
            )
        return version

    def info(self) -> Stanza:
        """What the repository holds; raises as :func:`read_info`, and DependencyDown where it cannot be asked."""
        ended, output = self._call("info", "--output=json")
        _well(ended, "pgBackRest's repository cannot be read")
        return read_info(output, self.stanza)

    def create_stanza(self) -> None:
        """Make the stanza; harmless where it is there."""
        _well(self._call("stanza-create")[0], "pgBackRest's stanza cannot be made")

    def check(self) -> None:
        """Let the server send a segment of WAL to the repository and wait until it is there.

        Raises:
            DependencyDown: it did not come; the server's archive_command does not work.
        """
        _well(self._call("check")[0], "The server's WAL does not reach pgBackRest's repository")

    def backup(self, kind: str, label: str) -> None:
        """Make a full or an incremental (``incr``) backup that carries ``label`` as its annotation."""
        _well(self._call("backup", f"--type={kind}", f"--annotation={ANNOTATION}={label}")[0], "pgBackRest's backup")

    def verify(self) -> list[str]:
        """What is wrong with the files of the repository by their checksums, WAL included."""
        ended, output = self._call("verify", "--output=text", "--verbose")
        wrong = faults_of(output.decode("utf-8", "replace"))
        return wrong or ([] if ended.code == 0 else [f"pgbackrest verify ended with {ended.code}: {ended.said}"])

    def restore(self, label: str, folder: Path) -> None:
        """Write one of its backups into an empty folder; the copy will never send WAL to the repository.

        Raises:
            BadInput: a file is not what its checksum says, or the backup is not there.
        """
        options = [f"--set={label}", f"--pg1-path={folder}", "--archive-mode=off", "--type=default"]
        ended, _ = self._call("restore", *options)
        if ended.code != 0:
            raise BadInput(f"pgBackRest cannot restore {label}: {ended.said}", hint="Restore another backup.")

    def expire(self, label: str) -> None:
        """Delete one of its backups with what builds on it, and the WAL that nothing needs any more."""
        _well(self._call("expire", f"--set={label}")[0], f"pgBackRest cannot delete {label}")

    @property
    def restore_command(self) -> str:
        """What a restored server runs in its data folder to fetch WAL; that folder is another than the source's."""
        return f'{shlex.join(self._command())} --pg1-path="$(pwd -P)" archive-get %f "%p"'

    @property
    def archive_command(self) -> str:
        """What the server that is backed up must run for each finished segment."""
        return f"{shlex.join([*self._command(), 'archive-push'])} %p"

    def _command(self) -> list[str]:
        quiet = ["--log-level-console=off", "--log-level-stderr=error"]
        return [_program(), f"--config={self.config}", f"--stanza={self.stanza}", *quiet]

    def _call(self, *arguments: str) -> tuple[Ended, bytes]:
        return self._run([*self._command(), *arguments])

    def _run(self, command: Sequence[str]) -> tuple[Ended, bytes]:
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, env=_environment())
        return Ended(done.returncode, tail(done.stderr or done.stdout)), done.stdout


def _program() -> str:
    found = shutil.which("pgbackrest")
    if found is None:
        raise DependencyDown(
            "pgbackrest is not installed, or not in this process's PATH.",
            hint="Install pgBackRest (2.56 or later for PostgreSQL 18), or unset KONTOR_BACKUP_ENGINE.",
        )
    return found


def _environment() -> dict[str, str]:
    """Nothing of the caller's but the path: a PGBACKREST_ variable would overrule the configuration."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}


def _well(ended: Ended, what: str) -> None:
    if ended.code != 0:
        hint = "Correct the cause (`kontor backup setup` looks at the whole way) and run it again."
        raise DependencyDown(f"{what} (code {ended.code}): {ended.said}", hint=hint)


def driver_for(settings: Settings) -> Driver:
    """The driver that the settings describe."""
    default = settings.home / "pgbackrest" / "pgbackrest.conf"
    return Driver(settings.pgbackrest_config or default, settings.pgbackrest_stanza)


def configuration(server: Server, data: Path, repository: Path, passphrase: str, stanza: str, folder: Path) -> str:
    """The text of a configuration for a server on this machine: encrypted, zstd, everything kept until Kontor prunes.

    ``data`` is the server's data folder, ``folder`` takes logs and locks.
    """
    if isinstance(server, LocalPostgres):
        host, port, user = str(server.socket_dir), server.port, server.superuser
    else:
        host, port, user = _own_address(server)
    return "\n".join(
        (
            "# Written by `kontor backup setup`. Keep a copy elsewhere: without the passphrase no backup can be read.",
            "[global]",
            f"repo1-path={repository}",
            "repo1-cipher-type=aes-256-cbc",
            f"repo1-cipher-pass={passphrase}",
            f"repo1-retention-full={KEEP_ALL}",
            f"log-path={folder / 'log'}",
            f"lock-path={folder / 'lock'}",
            f"spool-path={folder / 'spool'}",
            "compress-type=zst",
            "compress-level=1",
            "start-fast=y",
            f"[{stanza}]",
            f"pg1-path={data}",
            f"pg1-socket-path={host}",
            f"pg1-port={port}",
            f"pg1-user={user}",
            "",
        )
    )


def _own_address(server: OwnServer) -> tuple[str, int, str]:
    """Socket folder, port and user; pgBackRest reaches a server of its machine through a socket only."""
    given = server.url.query.get("host") or server.url.host or ""
    socket = given if isinstance(given, str) and given.startswith("/") else "/var/run/postgresql"
    return socket, int(server.url.port or 5432), server.url.username or "postgres"
