"""History: what is entered, under whose name, and who cannot touch it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from configs.settings import Settings
from tasks import database
from tasks.history.store import (
    read_changes,
    verify_history,
)
from tests.histories import (
    add_customer,
    changes_of,
    new_number,
    register_file,
    said,
    superuser,
    verify,
    writing,
)
from tests.ledgers import Books, write_csv


def test_every_insert_update_and_delete_is_entered_with_role_actor_run_and_values(kontor_settings: Settings) -> None:
    """A customer's whole life, with a contact and a role, can be read from history, column by column."""
    number = new_number()
    with writing(kontor_settings) as connection:
        customer = add_customer(connection, number)
        connection.execute(
            text("update crm.organizations set name = 'Нова', country = null where organization_id = :id"),
            {"id": customer},
        )
    with writing(kontor_settings, database.RETENTION, run_id=None) as connection:
        connection.execute(text("delete from crm.contacts where organization_id = :id"), {"id": customer})
    changes = changes_of(kontor_settings, number)
    assert said(changes) == [
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
    number = new_number()
    customers = write_csv(tmp_path / "a.csv", [{"customer_number": number, "name": "Firma"}])
    contacts = write_csv(
        tmp_path / "b.csv",
        [{"customer_number": number, "first_name": "Åsa", "email": "asa@example.com", "roles": "payments"}],
    )
    counts = []
    for day in (date(2026, 11, 9), date(2026, 11, 16)):
        books.take_in(customers, "organizations", day)
        books.take_in(contacts, "contacts", day)
        counts.append(len(changes_of(kontor_settings, number)))
    assert counts[0] > 6
    assert counts[1] == counts[0]


def test_without_a_name_the_entry_carries_the_login(kontor_settings: Settings) -> None:
    """A change made by hand has the database's account as its actor and no run."""
    number = new_number()
    with database.engine_for(kontor_settings, database.OWNER).begin() as connection:
        add_customer(connection, number)
    assert {(c.role, c.actor, c.run_id) for c in changes_of(kontor_settings, number)} == {
        ("kontor_owner", "kontor_owner", None)
    }


def test_truncating_customers_is_entered_as_their_deletion(kontor_settings: Settings) -> None:
    """TRUNCATE leaves one entry for each row that it removes."""
    number = new_number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number, contacts=2)
    with writing(kontor_settings, database.OWNER) as connection:
        connection.execute(text("truncate crm.organizations cascade"))
    gone = {(c.table_name, c.entry_id) for c in changes_of(kontor_settings, number) if c.operation == "delete"}
    assert sorted(table for table, _ in gone) == [
        "contact_roles", "contact_roles", "contacts", "contacts", "organizations",
    ]  # fmt: skip


def test_a_column_that_comes_later_is_recorded_too(kontor_settings: Settings) -> None:
    """The triggers ask the catalogue, so a migration that adds a column needs no word about history."""
    with database.engine_for(kontor_settings, database.OWNER).connect() as connection:
        connection.execute(text("alter table crm.contacts add column nickname text"))
        add_customer(connection, new_number())
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
            add_customer(connection, new_number(), contacts=2)
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


def test_registering_a_file_enters_nothing(kontor_settings: Settings) -> None:
    """Only organisations, contacts and roles have history; files and runs do not."""
    before = verify(kontor_settings).entries
    with writing(kontor_settings) as connection:
        register_file(connection)
    assert verify(kontor_settings).entries == before
