"""What every backup engine can do, and which one the settings name.

core          PostgreSQL's own programs, encrypted and checked by Kontor: for the embedded database
pgbackrest    drives pgBackRest, for a database of one's own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from configs.settings import Settings
from tasks.backups.catalogue import Catalogue
from tasks.backups.keys import Keyring
from tasks.backups.manifest import Finding, Manifest
from tasks.backups.targets import Target


@dataclass(frozen=True)
class Wanted:
    """What to restore: a backup and what it builds on, oldest first, and how far to recover.

    ``instant`` is a moment, ``point`` a restore point's name; with neither recovery goes to the end of all the WAL that
    can be had. ``pause`` stops there read-only instead of opening the database.
    """

    chain: tuple[Manifest, ...]
    instant: datetime | None = None
    point: str | None = None
    pause: bool = False

    @property
    def needs_more_wal(self) -> bool:
        """Whether recovery goes behind what the backup holds itself."""
        return self.point is None and (self.instant is None or self.instant > self.newest.point_time)

    @property
    def newest(self) -> Manifest:
        """The backup that is restored."""
        return self.chain[-1]


class Engine(Protocol):
    """One way to take and to lay out backups."""

    @property
    def name(self) -> str:
        """What the settings call it."""

    @property
    def settings(self) -> Settings:
        """Whose database it backs up."""

    @property
    def target(self) -> Target:
        """Where the signed manifests lie, and whatever the engine has no place of its own for."""

    @property
    def ring(self) -> Keyring:
        """Who can read the backups, and who made them."""

    @property
    def restore_command(self) -> str:
        """How a restored server fetches WAL; ``false`` where :meth:`lay_out` puts all of it in place."""

    @property
    def lists_files(self) -> bool:
        """Whether :meth:`look_at_folder` compares with a list of files, so that a missing one is found by it."""

    def take(self, now: datetime, kind: str, base: Manifest | None) -> Manifest:
        """Take a backup and return its manifest, which stands on the target when this returns.

        Killed at any instant, nothing of it is listed.
        """

    def survey(self) -> Catalogue:
        """What there is now, as far as this machine's signers vouch for it and all of it is to be had."""

    def knows(self, manifest: Manifest) -> bool:
        """Whether there is here what the next incremental backup has to be compared with to build on this one."""

    def continues(self, manifest: Manifest) -> bool:
        """Whether the server's history goes on from this backup's: not after a restore, nor for another server."""

    def lay_out(self, wanted: Wanted, folder: Path) -> None:
        """Write the restored data folder into ``folder``, which is empty, ready for a server to recover from."""

    def unpack_home(self, manifest: Manifest, folder: Path) -> None:
        """Write what a backup holds of KONTOR_HOME into a folder."""

    def look_at_store(self) -> Finding | None:
        """What the engine's own look at its stored files finds; None where they are artefacts of the manifests."""

    def look_at_folder(self, folder: Path) -> Finding:
        """Whether a laid-out folder holds what was backed up, before any server has touched it."""

    def forget(self, gone: Sequence[Manifest]) -> None:
        """Delete what the engine keeps elsewhere of backups whose manifests were deleted, dependants first."""

    def housekeep(self, catalogue: Catalogue, now: datetime, /) -> int:
        """Delete what killed runs left outside the target; returns how many things. Harmless to repeat."""
