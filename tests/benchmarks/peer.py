"""The peer: dlt's merge of the same file into the same server, read by Arrow as its documentation advises.

dlt is not among Kontor's packages; where it cannot be imported there is no such column in the table.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from pyarrow import csv

from configs.settings import Settings
from tasks.database import OWNER, database_url


def is_there() -> bool:
    """Whether dlt can be imported."""
    return importlib.util.find_spec("dlt") is not None


def load_peer(settings: Settings, path: Path, key: Sequence[str] = ("customer_number", "invoice_number")) -> None:
    """Merge the file into ``peer.items`` by its key, which for a ledger is customer and invoice number."""
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
    pipeline.run(
        dlt.resource(csv.read_csv(path), name="items"),
        write_disposition={"disposition": "merge", "strategy": "upsert"},
        primary_key=list(key),
    )
