"""A search by hashes alone: whether anybody who asked to be erased still stands anywhere, without knowing any name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks.erasures.files import addresses_in_file, output_files
from tasks.erasures.keys import ErasureKey
from tasks.erasures.prefect_store import addresses_in_prefect
from tasks.erasures.traces_store import blind_scan


def blind_everywhere(connection: Connection, settings: Settings, key: ErasureKey) -> dict[str, int]:
    """Addresses of the erased by table of the database and of Prefect's, and the number of ``files`` with one.

    Every address in every personal column, in every file of KONTOR_HOME that Kontor writes or keeps, and in every text
    of Prefect's database is hashed and compared. Empty means: nobody is left.
    """
    known = _Known(key, frozenset(connection.scalars(text(_KNOWN))))
    counts = blind_scan(connection, key)
    if settings.home.is_dir():
        counts["files"] = sum(known.among(addresses_in_file(path)) > 0 for path in output_files(settings.home))
    for table, addresses in addresses_in_prefect(settings).items():
        counts[f"prefect.{table}"] = known.among(addresses)
    return {place: count for place, count in counts.items() if count}


_KNOWN = "select distinct address_hash from ops.erased_subjects where address_hash is not null"


@dataclass(frozen=True)
class _Known:
    key: ErasureKey
    hashes: frozenset[str]

    def among(self, addresses: Iterable[str]) -> int:
        return sum(self.key.hash_of(address) in self.hashes for address in addresses)
