"""A search by hashes reaches Prefect's own database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx

from configs.settings import Settings
from tasks.database import prefect_database_url
from tasks.erasures.blind import blind_everywhere
from tasks.erasures.keys import key_of
from tasks.erasures.ledger_file import Entry, Subject
from tasks.erasures.prefect_store import erase_in_prefect
from tasks.erasures.store import mirror
from tasks.erasures.terms import Terms
from tasks.prefect_server import start_prefect
from tests.retentions import Office
from tests.stage import Stage

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)


def _made(api: httpx.Client, path: str, body: Any) -> str:
    return str(api.post(path, json=body).raise_for_status().json()["id"])


def test_prefects_database_is_searched_by_hash(stage: Stage, kontor_settings: Settings) -> None:
    """An address that somebody typed as the name of a run is found without knowing it, and gone once it is erased."""
    office, address = Office(kontor_settings), "typed.by.hand@example.com"
    office.begin()
    key = key_of(kontor_settings.home)
    with office.erasing() as connection:
        subject = Subject(None, None, key.hash_of(address))
        mirror(connection, office.ledger.append([Entry(NOW, "request", "crm.contacts", subjects=[subject])]))
    server = start_prefect(stage.settings.home, database_url=prefect_database_url(stage.settings))
    with httpx.Client(base_url=server.api_url + "/") as api:
        flow = _made(api, "flows/", {"name": "retention-runs"})
        _made(api, "flow_runs/", {"flow_id": flow, "name": f"for {address}", "state": {"type": "COMPLETED"}})
    with office.erasing() as connection:
        assert "prefect.flow_run" in blind_everywhere(connection, kontor_settings, key)
        erase_in_prefect(kontor_settings, Terms(strong=(address,)), live=True)
        assert "prefect.flow_run" not in blind_everywhere(connection, kontor_settings, key)
