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


_FILL = """
with run as (
    insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id, state, ended_at)
    values ('customer_import', 'test', '2026-01-01', false, 'test', 1, 'done', now()) returning run_id
), file as (
    insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode, file_name, sha256,
                                    byte_size, as_of, state, run_id)
    select 'test', '1', 'x', 'organizations', 'x', 'records', 'x.csv', gen_random_uuid()::text, 1, '2026-01-01',
           'applied', run_id
    from run returning feed_file_id
)
insert into crm.organizations (customer_number, name, seen_as_of, feed_file_id)
select lpad(n::text, 6, '0'), 'Firm ' || n, '2026-01-01', feed_file_id
from file, generate_series(cast(:first as integer) + 1, cast(:first as integer) + cast(:count as integer)) n
"""


def fill(settings: Settings, customers: int = 200, first: int = 0) -> None:
    """Put customers into the database."""
    with database.engine_for(settings, database.OWNER).begin() as connection:
        connection.execute(text(_FILL), {"first": first, "count": customers})


def count_customers(server: LocalPostgres) -> int:
    """How many customers a server holds."""
    from tasks.backups.programs import connect, scalar

    with connect(server) as connection:
        return int(scalar(connection, "select count(*) from crm.organizations"))
