"""History: what is entered, under whose name, who cannot touch it, how it is sealed, shown and let go."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from configs.settings import Settings
from flows.commands.history import history
from tasks import database
from tasks.errors import Locked, Refused
from tasks.history.chain import export_seals, import_seals
from tasks.history.store import (
    Change,
    Verification,
    erase_values,
    read_changes,
    read_seals,
    seal_history,
    verify_history,
)
from tests.histories import NOW, add_customer, never_used_ids, register_file, seal, superuser, writing
from tests.ledgers import Books, write_csv


def _verify(settings: Settings, **given: Any) -> Verification:
    with database.engine_for(settings).connect() as connection:
        return verify_history(connection, **given)


def _number() -> str:
    return f"H{uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _new_people(kontor_settings: Settings) -> None:
    never_used_ids(kontor_settings)


def _changes(settings: Settings, number: str) -> list[Change]:
    with database.engine_for(settings).connect() as connection:
        return read_changes(connection, number)


def _said(changes: list[Change]) -> list[tuple[str, str, str, str | None, str | None]]:
    return [(c.table_name, c.operation, c.column_name, c.old_value, c.new_value) for c in changes]


def test_every_insert_update_and_delete_is_entered_with_role_actor_run_and_values(kontor_settings: Settings) -> None:
    """A customer's whole life, with a contact and a role, can be read from history, column by column."""
    number = _number()
    with writing(kontor_settings) as connection:
        customer = add_customer(connection, number)
        connection.execute(
            text("update crm.organizations set name = 'Нова', country = null where organization_id = :id"),
            {"id": customer},
        )
    with writing(kontor_settings, database.RETENTION, run_id=None) as connection:
        connection.execute(text("delete from crm.contacts where organization_id = :id"), {"id": customer})
    changes = _changes(kontor_settings, number)
    assert _said(changes) == [
        ("organizations", "insert", "customer_number", None, number),
        ("organizations", "insert", "name", None, f"Firma {number}"),
        ("organizations", "insert", "country", None, "BG"),
        ("organizations", "insert", "payment_terms_days", None, "30"),
        ("organizations", "insert", "origin", None, "customers"),
        ("contacts", "insert", "organization_id", None, str(customer)),
        ("contacts", "insert", "contact_key", None, "k1"),
        ("contacts", "insert", "first_name", None, 'Ясен "1"'),
        ("contacts", "insert", "email", None, f"{number}-1@example.com"),
        ("contact_roles", "insert", "contact_id", None, str(changes[5].record_id)),
        ("contact_roles", "insert", "role", None, "payments"),
        ("contact_roles", "insert", "valid", None, "[2026-01-01,2027-01-01)"),
        ("organizations", "update", "name", f"Firma {number}", "Нова"),
        ("organizations", "update", "country", "BG", None),
        *[(c.table_name, "delete", c.column_name, c.old_value, None) for c in changes[14:]],
    ]
    assert {c.table_name for c in changes[14:]} == {"contacts", "contact_roles"}
    assert {(c.role, c.actor, c.run_id) for c in changes[:14]} == {("kontor_flows", "tester", 7)}
    assert {(c.role, c.actor, c.run_id) for c in changes[14:]} == {("kontor_retention", "tester", None)}


def test_an_import_that_confirms_what_is_known_enters_nothing(kontor_settings: Settings, tmp_path: Path) -> None:
    """The next week's file with the same contents moves the bookkeeping columns only, and those are no change."""
    books = Books(kontor_settings)
    number = _number()
    customers = write_csv(tmp_path / "a.csv", [{"customer_number": number, "name": "Firma"}])
    contacts = write_csv(
        tmp_path / "b.csv",
        [{"customer_number": number, "first_name": "Åsa", "email": "asa@example.com", "roles": "payments"}],
    )
    counts = []
    for day in (date(2026, 11, 9), date(2026, 11, 16)):
        books.take_in(customers, "organizations", day)
        books.take_in(contacts, "contacts", day)
        counts.append(len(_changes(kontor_settings, number)))
    assert counts[0] > 6
    assert counts[1] == counts[0]


def test_without_a_name_the_entry_carries_the_login(kontor_settings: Settings) -> None:
    """A change made by hand has the database's account as its actor and no run."""
    number = _number()
    with database.engine_for(kontor_settings, database.OWNER).begin() as connection:
        add_customer(connection, number)
    assert {(c.role, c.actor, c.run_id) for c in _changes(kontor_settings, number)} == {
        ("kontor_owner", "kontor_owner", None)
    }


def test_truncating_customers_is_entered_as_their_deletion(kontor_settings: Settings) -> None:
    """TRUNCATE leaves one entry for each row that it removes."""
    number = _number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number, contacts=2)
    with writing(kontor_settings, database.OWNER) as connection:
        connection.execute(text("truncate crm.organizations cascade"))
    gone = {(c.table_name, c.entry_id) for c in _changes(kontor_settings, number) if c.operation == "delete"}
    assert sorted(table for table, _ in gone) == [
        "contact_roles", "contact_roles", "contacts", "contacts", "organizations",
    ]  # fmt: skip


def test_a_column_that_comes_later_is_recorded_too(kontor_settings: Settings) -> None:
    """The triggers ask the catalogue, so a migration that adds a column needs no word about history."""
    with database.engine_for(kontor_settings, database.OWNER).connect() as connection:
        connection.execute(text("alter table crm.contacts add column nickname text"))
        add_customer(connection, _number())
        connection.execute(text("update crm.contacts set nickname = 'Яси'"))
        newest = connection.execute(
            text("select column_names, new_values from history.change_log order by entry_id desc limit 1")
        ).one()
        connection.rollback()
    assert (newest.column_names, newest.new_values) == (["nickname"], {"nickname": "Яси"})


EDITS = (
    "update history.change_log set actor = 'nobody'",
    "update history.change_log set new_values = new_values where false",
    "delete from history.change_log",
    "truncate history.change_log",
    (
        "insert into history.change_log (changed_at, operation, table_name, record_id, role, actor, column_names, salt)"
        " values (now(), 'insert', 'contacts', 1, 'x', 'x', '{}', gen_random_uuid())"
    ),
    "update history.seals set sealed_by = 'nobody'",
    "delete from history.seals",
    "truncate history.seals",
)


@pytest.mark.parametrize("statement", EDITS)
@pytest.mark.parametrize("role", [database.FLOWS, database.RETENTION, database.FINANCE, database.OWNER, "superuser"])
def test_nobody_edits_history(kontor_settings: Settings, role: str, statement: str) -> None:
    """UPDATE, DELETE, TRUNCATE and an entry of one's own are refused to every role, the owner and superusers too."""
    of_role = superuser(kontor_settings) if role == "superuser" else database.engine_for(kontor_settings, role)
    with of_role.connect() as connection:
        if role == "superuser":
            connection.execute(text("set local session_replication_role = replica"))
        with pytest.raises(DBAPIError, match=r"is refused: history is only ever added to|permission denied"):
            connection.execute(text(statement))


def test_no_setting_opens_history_to_its_owner(kontor_settings: Settings) -> None:
    """Claiming to be the retention role is of no use to the owner, nor is being it without the function."""
    with superuser(kontor_settings).connect() as connection:
        connection.execute(text("grant update on history.change_log to kontor_retention"))
        connection.execute(text("set local role kontor_retention"))
        with pytest.raises(DBAPIError, match="only ever added to"):
            connection.execute(text("update history.change_log set actor = 'nobody'"))


def test_entries_are_sealed_once_and_the_chain_verifies(kontor_settings: Settings) -> None:
    """Sealing takes every entry in, a second time finds nothing, and history is whole."""
    with writing(kontor_settings) as connection:
        add_customer(connection, _number(), contacts=5)
    before = _verify(kontor_settings)
    assert before.unsealed >= 11
    sealed = seal(kontor_settings)
    assert (sealed.entries, sealed.seals) == (before.unsealed, -(-before.unsealed // 3))
    assert seal(kontor_settings).seals == 0
    after = _verify(kontor_settings)
    assert (after.breaks, after.unsealed, after.seals) == ((), 0, before.seals + sealed.seals)


def test_a_seal_waits_for_entries_that_are_not_committed_yet(kontor_settings: Settings) -> None:
    """Order of id is not order of commit: while an earlier id is under way nothing is sealed, and then all of it."""
    early, late = _number(), _number()
    seal(kontor_settings)
    with database.engine_for(kontor_settings).connect() as slow:
        add_customer(slow, early)
        with writing(kontor_settings) as connection:
            add_customer(connection, late)
        with pytest.raises(Locked, match="nothing was sealed"):
            seal(kontor_settings)
        slow.commit()
    assert seal(kontor_settings).entries == 6
    assert _verify(kontor_settings).breaks == ()


def test_writers_do_not_wait_for_sealing(kontor_settings: Settings) -> None:
    """While a seal is being made, and not yet committed, customers can be written and are left to the next seal."""
    with writing(kontor_settings) as connection:
        add_customer(connection, _number())
    with database.engine_for(kontor_settings).connect() as sealing:
        seal_history(sealing, now=NOW, actor="tester")
        with writing(kontor_settings) as connection:
            connection.execute(text("set local lock_timeout = '1s'"))
            add_customer(connection, _number())
        sealing.commit()
    assert seal(kontor_settings).entries == 3
    assert _verify(kontor_settings).breaks == ()


def _of(settings: Settings, number: str, table: str) -> list[int]:
    return sorted({c.record_id for c in _changes(settings, number) if c.table_name == table})


def _erased(settings: Settings, table: str, records: list[int], columns: list[str] | None = None) -> int:
    with writing(settings, database.RETENTION) as connection:
        return erase_values(connection, table, records, columns)


def test_erasure_removes_the_values_and_the_chain_still_verifies(kontor_settings: Settings) -> None:
    """First one column goes, then the rest; each time history stays whole and says who let what go."""
    number = _number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number)
        connection.execute(text("update crm.contacts set email = 'new-' || email"))
    seal(kontor_settings)
    contacts = _of(kontor_settings, number, "contacts")
    assert _erased(kontor_settings, "contacts", contacts, ["email"]) == 2
    assert (_verify(kontor_settings).breaks, _verify(kontor_settings).erased_entries >= 2) == ((), True)
    left = [c for c in _changes(kontor_settings, number) if c.table_name == "contacts" and not c.erased]
    assert ("contacts", "insert", "first_name", None, 'Ясен "1"') in _said(left)
    assert ("contacts", "erase", "email", None, None) in _said(left)

    assert _erased(kontor_settings, "contacts", contacts) == 3
    assert _erased(kontor_settings, "contacts", contacts) == 0
    seal(kontor_settings)
    assert _verify(kontor_settings).breaks == ()
    with superuser(kontor_settings).connect() as connection:
        rows = connection.execute(
            text("select e::text from history.change_log e where table_name = 'contacts'"),
        ).scalars()
        assert [row for row in rows if f"{number}-1@example.com" in row] == []


def test_erasing_keeps_neither_salt_nor_anything_to_guess_the_value_with(kontor_settings: Settings) -> None:
    """What is left of an erased value is a hash with a salt that is gone; the neighbours' salts do not lead to it."""
    number = _number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number)
    _erased(kontor_settings, "contacts", _of(kontor_settings, number, "contacts"), ["email"])
    with database.engine_for(kontor_settings).connect() as connection:
        row = connection.execute(
            text(
                "select * from history.change_log where table_name = 'contacts' and operation = 'insert'"
                " order by entry_id desc limit 1"
            )
        ).one()
    assert row.salt is None
    assert set(row.salts) == {"organization_id", "contact_key", "first_name"} == set(row.new_values)
    assert set(row.commitments) == {"email"}


@pytest.mark.parametrize("role", [database.FLOWS, database.OWNER, database.FINANCE])
def test_only_retention_erases(kontor_settings: Settings, role: str) -> None:
    """The erasing function is closed to every other role."""
    with (
        database.engine_for(kontor_settings, role).connect() as connection,
        pytest.raises(DBAPIError, match=r"permission denied|is for kontor_retention"),
    ):
        erase_values(connection, "contacts", [1])


def test_a_superuser_who_calls_the_erasing_function_is_turned_away(kontor_settings: Settings) -> None:
    """Privileges are not asked of superusers, but the function asks who calls."""
    with (
        superuser(kontor_settings).connect() as connection,
        pytest.raises(DBAPIError, match="is for kontor_retention"),
    ):
        erase_values(connection, "contacts", [1])


def _record_send(*fields: tuple[int, bytes | None]) -> bytes:
    """PostgreSQL's binary form of a row: count, then type, length and bytes of each field."""
    out = struct.pack("!i", len(fields))
    for kind, content in fields:
        out += struct.pack("!Ii", kind, -1 if content is None else len(content)) + (content or b"")
    return out


def _int8(value: int | None) -> tuple[int, bytes | None]:
    return (20, None if value is None else struct.pack("!q", value))


def _value_hash(salt: bytes, name: str, old: str | None, new: str | None) -> bytes:
    sides = [json.dumps(side, ensure_ascii=False) if side is not None else "" for side in (old, new)]
    return hashlib.sha256(salt + "\x1f".join([name, *sides]).encode()).digest()


def _entry_hash(row: Any) -> bytes:
    """The hash of an entry in which nothing was erased, computed from docs/reference/history.md alone."""
    epoch = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
    micros = round((row.changed_at - epoch).total_seconds() * 1_000_000)
    external = row.external_id.bytes if isinstance(row.external_id, UUID) else None
    head = _record_send(
        _int8(row.entry_id),
        (1184, struct.pack("!q", micros)),
        (25, row.operation.encode()),
        (25, row.table_name.encode()),
        _int8(row.record_id),
        (2950, external),
        _int8(row.parent_id),
        (25, row.role.encode()),
        (25, row.actor.encode()),
        _int8(row.run_id),
        (23, struct.pack("!i", len(row.column_names))),
    )
    values = b"".join(
        _value_hash(
            hashlib.sha256(row.salt.bytes + name.encode()).digest(),
            name,
            row.old_values.get(name),
            row.new_values.get(name),
        )
        for name in row.column_names
    )
    return hashlib.sha256(head + values).digest()


def test_hashes_can_be_recomputed_without_the_database(kontor_settings: Settings) -> None:
    """Python, from the documented format, comes to the hash that the seal lists for each entry."""
    seal(kontor_settings)
    with writing(kontor_settings) as connection:
        add_customer(connection, _number(), contacts=3)
        connection.execute(text("update crm.contacts set first_name = null, phone = E'line\\nbreak\\t\"'"))
    seal(kontor_settings)
    with database.engine_for(kontor_settings).connect() as connection:
        rows = connection.execute(
            text(
                "select e.*, l.entry_hash from history.seals s"
                " cross join lateral unnest(s.entry_ids, s.entry_hashes) as l (entry_id, entry_hash)"
                " join history.change_log e using (entry_id) where e.salt is not null"
                " order by e.entry_id desc limit 10"
            )
        ).all()
    assert len(rows) == 10
    assert [_entry_hash(row) for row in rows] == [bytes(row.entry_hash) for row in rows]


def test_a_chain_kept_elsewhere_goes_on(kontor_settings: Settings) -> None:
    """What was exported earlier is a part of what stands there later, and survives its file."""
    with writing(kontor_settings) as connection:
        add_customer(connection, _number())
    seal(kontor_settings)
    with database.engine_for(kontor_settings).connect() as connection:
        kept = import_seals(export_seals(read_seals(connection)))
    with writing(kontor_settings) as connection:
        add_customer(connection, _number())
    seal(kontor_settings)
    assert _verify(kontor_settings, kept=kept).breaks == ()


_STATE = """
select 'organizations' as table_name, organization_id as id,
       to_jsonb(o)
       - '{organization_id,external_id,spoken,seen_as_of,seen_revision,feed_file_id,created_at,updated_at}'::text[]
       as row from crm.organizations o
union all
select 'contacts', contact_id,
       to_jsonb(c)
       - '{contact_id,external_id,spoken,seen_as_of,seen_revision,feed_file_id,created_at,updated_at}'::text[]
from crm.contacts c
union all
select 'contact_roles', contact_role_id, to_jsonb(r) - '{contact_role_id,feed_file_id}'::text[] from crm.contact_roles r
"""

ACTS = (
    "update crm.organizations set name = name || '+', country = case when country is null then 'SE' end",
    "update crm.contacts set email = null, phone = '+47' || contact_id where contact_id % 2 = 1",
    "update crm.contacts set seen_revision = seen_revision + 1",
    "update crm.contact_roles set valid = daterange('2026-02-01', null) where contact_id % 2 = 0",
    "delete from crm.contacts where contact_id % 3 = 0",
    "delete from crm.contact_roles where contact_id % 2 = 1",
    (
        "insert into crm.contacts as c (organization_id, contact_key, seen_as_of, feed_file_id)"
        " select organization_id, 'new', seen_as_of, feed_file_id from crm.organizations"
        " on conflict (organization_id, contact_key) do update set last_name = coalesce(c.last_name, '') || 'x'"
    ),
    (
        "merge into crm.organizations o using (select organization_id as id from crm.organizations) s"
        " on o.organization_id = s.id when matched and s.id % 2 = 0 then update set segment = 'x'"
        " when matched then update set owner = 'y'"
    ),
)


def _replayed(connection: Connection, after: int) -> dict[tuple[str, int], dict[str, str]]:
    """The tables as history tells them, from that entry on."""
    state: dict[tuple[str, int], dict[str, str]] = {}
    for row in connection.execute(
        text("select * from history.change_log where entry_id > :after order by entry_id"), {"after": after}
    ):
        key = (row.table_name, row.record_id)
        if row.operation == "delete":
            state.pop(key)
            continue
        record = state.setdefault(key, {})
        for name in row.column_names:
            record.pop(name, None)
        record.update(row.new_values)
    return state


@settings(max_examples=25)
@given(acts=st.lists(st.sampled_from(ACTS), max_size=6))
def test_history_explains_the_present(kontor_settings: Settings, acts: list[str]) -> None:
    """Whatever is done to customers, by MERGE, upsert or cascade: replaying history gives the tables."""
    with database.engine_for(kontor_settings, database.OWNER).connect() as connection:
        after = connection.scalar(text("select coalesce(max(entry_id), 0) from history.change_log")) or 0
        for _ in range(3):
            add_customer(connection, _number(), contacts=2)
        for act in acts:
            connection.execute(text(act))
        present = {
            (row.table_name, row.id): {k: str(v) for k, v in row.row.items() if v is not None}
            for row in connection.execute(text(_STATE))
        }
        told = _replayed(connection, after)
        connection.rollback()
    assert told == present


def test_what_stood_there_before_is_entered_as_a_baseline(kontor_settings: Settings) -> None:
    """Customers of a database that had no history yet are entered when it gets one."""
    with superuser(kontor_settings, "postgres").connect() as admin:
        admin = admin.execution_options(isolation_level="AUTOCOMMIT")
        admin.exec_driver_sql("drop database if exists before_history")
        admin.exec_driver_sql("create database before_history owner kontor_owner")
    try:
        with superuser(kontor_settings, "before_history").begin() as connection:
            connection.execute(text("set role kontor_owner"))
            for schema in ("crm", "landing", "rules", "ops", "report"):
                connection.exec_driver_sql(f"create schema {schema}")
            config = Config()
            config.set_main_option("script_location", str(database.MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")
            add_customer(connection, "OLD-1")
            command.upgrade(config, "0002")
            changes = read_changes(connection, "OLD-1")
            assert verify_history(connection).breaks == ()
    finally:
        with superuser(kontor_settings, "postgres").connect() as admin:
            admin = admin.execution_options(isolation_level="AUTOCOMMIT")
            admin.exec_driver_sql("drop database before_history with (force)")
    assert {(c.table_name, c.operation, c.actor) for c in changes} == {
        (table, "baseline", "migration 0002") for table in ("organizations", "contacts", "contact_roles")
    }


def test_the_commands_show_seal_export_and_verify(kontor_settings: Settings, tmp_path: Path) -> None:
    """A person sees who changed what, seals it, keeps the chain in a file, and has it confirmed."""
    number = _number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number)
    run = CliRunner().invoke
    shown = run(history, ["show", number, "--format", "json"], catch_exceptions=False)
    names = [row["column_name"] for row in json.loads(shown.stdout) if row["table_name"] == "organizations"]
    assert names[-5:] == ["customer_number", "name", "country", "payment_terms_days", "origin"]
    table = run(history, ["show", number], catch_exceptions=False).stdout
    assert "tester as kontor_flows" in table
    assert "Sealed" in run(history, ["seal"], catch_exceptions=False).stdout
    kept = tmp_path / "seals.json"
    run(history, ["export", "--out", str(kept)], catch_exceptions=False)
    assert number not in kept.read_text("utf-8")
    verified = run(history, ["verify", "--against", str(kept)], catch_exceptions=False)
    assert "History is whole and continues what seals.json keeps." in verified.stdout
    kept.write_text(kept.read_text("utf-8").replace('"entries": ', '"entries": 1'), "utf-8")
    assert "was changed since it was exported" in str(run(history, ["verify", "--against", str(kept)]).exception)


def test_the_command_names_the_break_and_fails(kontor_settings: Settings) -> None:
    """A customer's recording trigger that is off is a break by itself: exit code 3 with the trigger's name."""
    with superuser(kontor_settings).begin() as connection:
        connection.execute(text("alter table crm.contacts disable trigger record_update"))
    try:
        found = CliRunner().invoke(history, ["verify"])
    finally:
        with superuser(kontor_settings).begin() as connection:
            connection.execute(text("alter table crm.contacts enable always trigger record_update"))
    assert isinstance(found.exception, Refused)
    assert "record_update on crm.contacts is switched off" in found.exception.message


def test_registering_a_file_enters_nothing(kontor_settings: Settings) -> None:
    """Only organisations, contacts and roles have history; files and runs do not."""
    before = _verify(kontor_settings).entries
    with writing(kontor_settings) as connection:
        register_file(connection)
    assert _verify(kontor_settings).entries == before
