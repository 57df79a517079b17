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

from tasks.backups.manifest import Manifest


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

    def take(self, now: datetime, kind: str, base: Manifest | None) -> Manifest:
        """Take a backup and return its manifest, which stands on the target when this returns.

        Killed at any instant, nothing of it is listed.
        """

    def catalogue(self) -> Sequence[Manifest]:
        """Every backup that is whole on the target, oldest first."""

    def lay_out(self, wanted: Wanted, folder: Path) -> None:
        """Write the restored data folder into ``folder``, which is empty, ready for a server to recover from."""
