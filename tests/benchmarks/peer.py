"""The peer: dlt's merge of the same file into the same server, read by Arrow as its documentation advises.

dlt is not among Kontor's packages; where it cannot be imported there is no such column in the table.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from configs.settings import Settings
from tasks.database import OWNER, database_url


def is_there() -> bool:
    """Whether dlt can be imported."""
    return importlib.util.find_spec("dlt") is not None


def strategies() -> tuple[str, ...]:
    """The quickest of dlt's ways to merge, then the one that it takes unless told otherwise; none where dlt is not."""
    return ("upsert", "delete-insert") if is_there() else ()


def load_peer(settings: Settings, path: Path, strategy: str) -> None:
    """Merge a ledger's file by customer and invoice number, into a table of the strategy's own."""
    keys = ["customer_number", "invoice_number"]
    _merge(settings, {f"items_{strategy.replace('-', '_')}": (csv.read_csv(path), keys)}, strategy)


def load_catalogue(settings: Settings, path: Path) -> None:
    """Merge a catalogue's file into ``peer.products`` by part number, and its three prices, a row each, by their key.

    No history of prices is kept: that would be another strategy of dlt's, which writes more.
    """
    table = csv.read_csv(path)
    prices = [
        table.select(["part_number", "currency", "unit", f"{kind}_price"])
        .rename_columns(["part_number", "currency", "unit", "amount"])
        .append_column("kind", pa.repeat(kind, len(table)))
        for kind in ("customer", "dealer", "promo")
    ]
    products = table.select(["part_number", "name", "category", "unit"])
    keys = ["part_number", "kind", "currency", "unit"]
    _merge(settings, {"products": (products, ["part_number"]), "prices": (pa.concat_tables(prices), keys)})


def _merge(settings: Settings, tables: Mapping[str, tuple[pa.Table, list[str]]], strategy: str = "upsert") -> None:
    """Merge tables, each by its key."""
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
    dlt = importlib.import_module("dlt")
    url = database_url(settings, OWNER)
    # dlt insists on a host and a password; the socket and the kernel's word are what the server really goes by.
    server = f"postgresql://{url.username}:peer@localhost/{url.database}"
    target = dlt.destinations.postgres(
        credentials=f"{server}?host={url.query['host']}&port={url.query['port']}",
    )
    folder = str(settings.home / "bench" / "dlt")
    pipeline = dlt.pipeline("bench", pipelines_dir=folder, destination=target, dataset_name="peer")
    merge = {"disposition": "merge", "strategy": strategy}
    pipeline.run(
        [
            dlt.resource(table, name=name, primary_key=key, write_disposition=merge)
            for name, (table, key) in tables.items()
        ]
    )
