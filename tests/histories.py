"""Helpers of tests about history: customers to change, a superuser to tamper with. They never assert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from configs.settings import Settings
from tasks import database
from tasks.history.store import Change, Sealed, Verification, name_session, read_changes, seal_history, verify_history
from tasks.local_stack import find_postgres

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)


def superuser(settings: Settings, name: str = database.DATABASE) -> Engine:
    """An engine of the one who may do everything on the test server."""
    server = find_postgres(settings.home)
    if server is None:
        pytest.fail("the test server is not running")
    query = {"host": str(server.socket_dir), "port": str(server.port)}
    url = URL.create("postgresql+psycopg", username=server.superuser, database=name, query=query)
    return create_engine(url, poolclass=NullPool)


@contextmanager
def writing(settings: Settings, role: str = database.FLOWS, *, run_id: int | None = 7) -> Iterator[Connection]:
    """A transaction of that role, named as run 7 of actor ``tester``, committed at the end."""
    with database.engine_for(settings, role).begin() as connection:
        name_session(connection, run_id, "tester")
        yield connection


def seal(settings: Settings) -> Sealed:
    """Seal everything, three entries a seal, so that chains have links."""
    with database.engine_for(settings).begin() as connection:
        return seal_history(connection, now=NOW, actor="tester", wait_seconds=0.2, seal_size=3)


def register_file(connection: Connection) -> int:
    """A file and a run for rows to refer to; returns the file's id."""
    return int(
        connection.execute(
            text(
                "with run as (insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id)"
                " values ('test', 'test', '2026-11-20', false, 'here', 1) returning run_id)"
                " insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode,"
                " file_name, sha256, byte_size, as_of, state, run_id) select 'test', '1', 'x', 'organizations', 'x',"
                " 'records', 'x.csv', gen_random_uuid()::text, 1, '2026-11-20', 'applied', run_id from run"
                " returning feed_file_id"
            )
        ).scalar_one()
    )


def add_customer(connection: Connection, number: str, *, contacts: int = 1) -> int:
    """A customer with contacts, each holding the payments role; returns its id."""
    parameters = {"number": number, "file": register_file(connection), "contacts": contacts}
    connection.execute(
        text(
            "insert into crm.organizations (customer_number, name, country, payment_terms_days, seen_as_of,"
            " feed_file_id) values (:number, 'Firma ' || :number, 'BG', 30, '2026-11-20', :file)"
        ),
        parameters,
    )
    connection.execute(
        text(
            "insert into crm.contacts (organization_id, contact_key, first_name, email, seen_as_of, feed_file_id)"
            " select organization_id, 'k' || n, 'Ясен \"' || n || '\"', :number || '-' || n || '@example.com',"
            " '2026-11-20', :file from crm.organizations, generate_series(1, :contacts) n"
            " where customer_number = :number"
        ),
        parameters,
    )
    connection.execute(
        text(
            "insert into crm.contact_roles (contact_id, role, valid, feed_file_id)"
            " select contact_id, 'payments', daterange('2026-01-01', '2027-01-01'), :file"
            " from crm.contacts join crm.organizations using (organization_id) where customer_number = :number"
        ),
        parameters,
    )
    return int(
        connection.execute(
            text("select organization_id from crm.organizations where customer_number = :number"), parameters
        ).scalar_one()
    )


def verify(settings: Settings, **given: Any) -> Verification:
    """What verifying the whole history finds, as the flows' role."""
    with database.engine_for(settings).connect() as connection:
        return verify_history(connection, **given)


def new_number() -> str:
    """A customer number that no other test uses."""
    return f"H{uuid4().hex[:12]}"


def changes_of(settings: Settings, number: str) -> list[Change]:
    """All that history tells of a customer, as the flows' role."""
    with database.engine_for(settings).connect() as connection:
        return read_changes(connection, number)


def said(changes: list[Change]) -> list[tuple[str, str, str, str | None, str | None]]:
    """Each change as (table, operation, column, old value, new value)."""
    return [(c.table_name, c.operation, c.column_name, c.old_value, c.new_value) for c in changes]
