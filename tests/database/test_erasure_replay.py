"""The ledger applied again: what a restore or a replay brought back goes, twice is once, what is held stays."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from configs.settings import Settings
from tasks import database
from tasks.erasures import replay_store
from tasks.erasures.keys import ErasureKey, hash_sql
from tasks.erasures.ledger_file import Entry, ErasureLedger, Line, Subject
from tasks.erasures.replay_store import replay
from tasks.erasures.store import mirror, void_what_came_to_nothing
from tests.histories import add_customer, seal, verify, writing

AFTER = datetime(2026, 11, 21, 4, tzinfo=UTC)
BEFORE = datetime(2026, 11, 19, 4, tzinfo=UTC)
KEY = ErasureKey(bytes(range(32)))


@pytest.fixture
def customer(kontor_settings: Settings) -> Settings:
    """A database with customer A of three contacts."""
    with writing(kontor_settings) as connection:
        add_customer(connection, "A", contacts=3)
    return kontor_settings


def _contacts(settings: Settings) -> list[dict[str, Any]]:
    with database.engine_for(settings).connect() as connection:
        return [
            dict(row)
            for row in connection.execute(
                text("select contact_key, email, first_name, external_id::text from crm.contacts order by contact_id")
            ).mappings()
        ]


def _replay(settings: Settings, ledger: ErasureLedger) -> dict[str, int]:
    return replay(database.engine_for(settings, database.RETENTION), ledger, KEY)


def _entry(kind: str, at: datetime, *subjects: Subject, entity: str = "crm.contacts", reference: str = "") -> Entry:
    return Entry(at, kind, entity, "contacts-inactive", 1, reference, subjects)


def test_who_was_erased_goes_again_and_a_second_replay_changes_nothing(customer: Settings, tmp_path: Path) -> None:
    """One is known by its external id, one by its key, one by its address; their history goes along."""
    first, second, third = _contacts(customer)
    ledger = ErasureLedger(tmp_path / "ledger.jsonl")
    ledger.append(
        [
            _entry("erasure", AFTER, Subject(first["external_id"])),
            _entry("erasure", AFTER, Subject(None, KEY.hash_of("A", second["contact_key"]))),
            _entry("request", AFTER, Subject(None, None, KEY.hash_of(f" {third['email'].upper()}"))),
        ]
    )
    counts = _replay(customer, ledger)
    assert counts["contacts_deleted"] == 3
    assert _contacts(customer) == []
    with database.engine_for(customer).connect() as connection:
        left = connection.scalar(
            text(
                "select count(*) from history.changes where table_name = 'contacts' and not erased"
                " and (old_value like '%@example.com' or new_value like '%@example.com')"
                " and parent_id in (select organization_id from crm.organizations)"
            )
        )
        copied = connection.scalar(text("select count(*) from ops.erasure_ledger"))
        listed = connection.scalar(text("select count(*) from ops.erased_subjects"))
    assert (left, copied, listed) == (0, 3, 1)
    again = _replay(customer, ledger)
    assert {name: n for name, n in again.items() if n and name not in ("lines", "subjects")} == {}


def test_contacts_that_were_merged_go_in_blocks_at_once(
    customer: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of four people, each of whom refers to somebody of another block: all go, nobody else does."""
    monkeypatch.setattr(replay_store, "BLOCK", 4)
    with writing(customer) as connection:
        add_customer(connection, "B", contacts=20)
    with writing(customer, database.OWNER) as connection:
        connection.execute(text(_MERGE_CROSSWISE))
    kept, people = _contacts(customer)[:3], _contacts(customer)[3:]
    ledger = ErasureLedger(tmp_path / "ledger.jsonl")
    ledger.append([_entry("erasure", AFTER, *(Subject(row["external_id"]) for row in people))])
    assert _replay(customer, ledger)["contacts_deleted"] == 20
    assert _contacts(customer) == kept
    seal(customer)
    assert verify(customer).breaks == ()
    assert _replay(customer, ledger)["contacts_deleted"] == 0


_MERGE_CROSSWISE = """
update crm.contacts c set merged_into = case when c.contact_id < b.middle then c.contact_id + 10
                                             else c.contact_id - 10 end
from (select min(contact_id) as first, min(contact_id) + 10 as middle from crm.contacts
      join crm.organizations using (organization_id) where customer_number = 'B') b
where c.contact_id >= b.first
"""


def test_a_block_that_the_database_ends_is_done_again(customer: Settings, tmp_path: Path) -> None:
    """Somebody works on two of its people in the other order: one of the two must give way, and the people still go."""
    ledger = ErasureLedger(tmp_path / "ledger.jsonl")
    ledger.append([_entry("erasure", AFTER, *(Subject(row["external_id"]) for row in _contacts(customer)))])
    touch = text("update crm.contacts set phone = '1' where contact_id = (select {} (contact_id) from crm.contacts)")
    waits = text("select exists (select from pg_locks where not granted and locktype in ('transactionid', 'tuple'))")
    with ThreadPoolExecutor(1) as beside, writing(customer) as connection:
        connection.execute(text(str(touch).format("max")))
        replayed = beside.submit(_replay, customer, ledger)
        while not connection.scalar(waits):
            time.sleep(0.01)
        connection.execute(text(str(touch).format("min")))
        connection.commit()
    assert replayed.result()["contacts_deleted"] == 3
    assert _contacts(customer) == []


def test_who_came_back_after_a_rule_let_them_go_stays(customer: Settings, tmp_path: Path) -> None:
    """A customer's file named the contact again after the rule had let it go; one who asked to be erased still goes."""
    first, second, _ = _contacts(customer)
    ledger = ErasureLedger(tmp_path / "ledger.jsonl")
    ledger.append([_entry("erasure", BEFORE, Subject(first["external_id"], KEY.hash_of("A", first["contact_key"])))])
    assert _replay(customer, ledger)["contacts_deleted"] == 0
    ledger.append([_entry("request", BEFORE, Subject(second["external_id"]))])
    assert _replay(customer, ledger)["contacts_deleted"] == 1
    assert first in _contacts(customer)


def test_a_hold_of_the_ledger_is_placed_again_and_obeyed(customer: Settings, tmp_path: Path) -> None:
    """A hold placed after the backup was made is known from the ledger alone; released there, it no longer counts."""
    with database.engine_for(customer).connect() as connection:
        organization = str(connection.scalar(text("select external_id from crm.organizations")))
    first = _contacts(customer)[0]
    ledger = ErasureLedger(tmp_path / "ledger.jsonl")
    reference = "7d2f0f0e-3c63-4a46-a2f9-6a4d8f5c9d10"
    hold = _entry("hold", BEFORE, Subject(organization), entity="crm.organizations", reference=reference)
    ledger.append([_entry("request", BEFORE, Subject(first["external_id"])), hold])
    counts = _replay(customer, ledger)
    assert (counts["holds"], counts["contacts_deleted"]) == (1, 0)
    ledger.append([_entry("release", AFTER, reference=reference)])
    assert _replay(customer, ledger)["contacts_deleted"] == 1


def test_an_organization_that_invoices_hang_on_is_blanked(customer: Settings, tmp_path: Path) -> None:
    """The number stays, name and tax number go."""
    ledger = ErasureLedger(tmp_path / "ledger.jsonl")
    ledger.append([_entry("request", BEFORE, Subject(None, KEY.hash_of("A")), entity="crm.organizations")])
    assert _replay(customer, ledger)["organizations_anonymised"] == 1
    with database.engine_for(customer).connect() as connection:
        row = connection.execute(text("select customer_number, name, vat_number from crm.organizations")).one()
    assert tuple(row) == ("A", "[erased]", None)


def test_a_line_without_its_deed_is_voided(customer: Settings, tmp_path: Path) -> None:
    """A process died between the ledger and the database: the next one voids the line, and a replay passes it over."""
    first, second, _ = _contacts(customer)
    ledger = ErasureLedger(tmp_path / "ledger.jsonl")
    done = ledger.append([_entry("erasure", AFTER, Subject(first["external_id"]))])
    with writing(customer, database.RETENTION) as connection:
        mirror(connection, done)
    ledger.append([_entry("erasure", AFTER, Subject(second["external_id"]))])
    for expected in (1, 0):
        with writing(customer, database.RETENTION) as connection:
            assert void_what_came_to_nothing(connection, ledger, AFTER) == expected
    assert [line.sequence for line in ledger.in_force()] == [1]
    _replay(customer, ledger)
    assert second in _contacts(customer)
    assert isinstance(done[0], Line)


@pytest.mark.parametrize(
    "value", ["Anna@Example.COM", " a@b.c ", "ÄÖ@Straße.DE", "İstanbul@x.tr", "клиент@Пример.бг", ""]
)
def test_the_database_hashes_as_the_program_does(prepared: Settings, value: str) -> None:
    """Both sides agree on every address, also where capital letters are not those of ASCII."""
    with database.engine_for(prepared).connect() as connection:
        hashed = connection.scalar(text(f"select {hash_sql('cast(:value as text)')}"), {"value": value, **KEY.bound()})
        two = connection.scalar(text(f"select {hash_sql(':a', ':b')}"), {"a": "A", "b": value, **KEY.bound()})
    assert (hashed, two) == (KEY.hash_of(value), KEY.hash_of("A", value))
