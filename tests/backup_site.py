"""A database with a few rows and a target for its backups: what the tests of backups share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from configs.settings import Settings
from tasks import database
from tasks.backups import keys
from tasks.backups.catalogue import Catalogue
from tasks.backups.core_engine import CoreEngine
from tasks.backups.manifest import Manifest
from tasks.backups.runs import survey
from tasks.backups.targets import target_at
from tasks.local_stack import LocalPostgres, find_postgres


@dataclass
class Site:
    """An installation, its engine and a clock that goes on by a second at each look, so that labels differ."""

    settings: Settings
    engine: CoreEngine
    clock: datetime = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)

    @property
    def now(self) -> datetime:
        """The next instant."""
        self.clock += timedelta(seconds=1)
        return self.clock

    @property
    def catalogue(self) -> Catalogue:
        """What the target holds now."""
        return survey(self.engine)

    @property
    def server(self) -> LocalPostgres:
        """The running server."""
        found = find_postgres(self.settings.home)
        if found is None:
            raise AssertionError("the server is not running")
        return found

    def take(self, kind: str = "full", base: Manifest | None = None) -> Manifest:
        """Take a backup."""
        return self.engine.take(self.now, kind, base)


def site_at(settings: Settings, target: Path | str, keys_folder: Path, options: str = "{}") -> Site:
    """A site whose backups go to ``target`` and whose keys lie in a folder of their own."""
    ring = keys.Keyring(keys_folder, keys_folder / keys.IDENTITY)
    keys.ensure_keys(ring)
    return Site(settings, CoreEngine(settings, target_at(str(target), options), ring))


def fill(settings: Settings, customers: int = 200, first: int = 0) -> None:
    """Put customers into the database, each with an invoice."""
    with database.engine_for(settings, database.OWNER).begin() as connection:
        connection.execute(
            text(
                "insert into crm.organizations (customer_number, name)"
                " select lpad(n::text, 6, '0'), 'Firm ' || n from generate_series(:first + 1, :first + :count) n"
            ),
            {"first": first, "count": customers},
        )


def count_customers(server: LocalPostgres) -> int:
    """How many customers a server holds."""
    from tasks.backups.programs import connect, scalar

    with connect(server) as connection:
        return int(scalar(connection, "select count(*) from crm.organizations"))
