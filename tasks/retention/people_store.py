"""Who is meant by a request, and everything that is kept about them: for erasing it and for handing it to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from tasks.erasures.files import find_in_files
from tasks.erasures.identities import IDENTITIES
from tasks.erasures.keys import ErasureKey, normalised
from tasks.erasures.ledger_file import Subject
from tasks.erasures.terms import Terms, terms_of_contact, terms_of_organization
from tasks.erasures.traces_store import read_places


@dataclass(frozen=True)
class Person:
    """Somebody who made a request: their records by table, what they are found by, and how the ledger names them."""

    records: Mapping[str, tuple[int, ...]]
    terms: Terms
    subjects: Mapping[str, tuple[Subject, ...]]
    holds: tuple[int, ...]

    @property
    def is_known(self) -> bool:
        """Whether anything is there to look for."""
        return any(self.records.values()) or not self.terms.is_empty


def find_person(connection: Connection, subject: str, key: ErasureKey) -> Person:
    """The person behind an e-mail address, an external id or a customer number.

    An address means every contact that has it, whichever customer they belong to; a customer number means the firm
    itself, such as a sole trader's, with its tax number, and none of its contacts. An address that no contact has is
    looked for all the same: it may stand in a note or a file.
    """
    said = subject.strip()
    contacts = connection.execute(text(_CONTACTS), {"subject": said}).all()
    firms = [] if contacts else connection.execute(text(_FIRMS), {"subject": said}).all()
    terms = Terms(strong=(said,)) if "@" in said else Terms()
    for row in contacts:
        terms |= terms_of_contact(row.first_name, row.last_name, row.email, row.phone, row.customer_number)
    for row in firms:
        terms |= terms_of_organization(row.name, row.vat_number, row.customer_number)
    people = tuple(
        Subject(str(r.external_id), key.hash_of(r.customer_number, r.contact_key), _hashed(key, r.email))
        for r in contacts
    )
    if "@" in said and not any(person.address for person in people):
        people += (Subject(None, None, key.hash_of(said)),)
    return Person(
        records={
            "crm.contacts": tuple(row.contact_id for row in contacts),
            "crm.organizations": tuple(row.organization_id for row in firms),
        },
        terms=terms,
        subjects={
            "crm.contacts": people,
            "crm.organizations": tuple(Subject(str(r.external_id), key.hash_of(r.customer_number)) for r in firms),
        },
        holds=tuple(sorted({hold for row in (*contacts, *firms) for hold in row.holds or ()})),
    )


def _hashed(key: ErasureKey, address: str | None) -> str | None:
    return key.hash_of(normalised(address)) if address else None


# Contacts that were merged are one person: who asks under one address is found under the other one too.
_CONTACTS = """
select c.contact_id, c.external_id, c.contact_key, c.first_name, c.last_name, c.email, c.phone, o.customer_number,
       (select array_agg(h.hold_id) from ops.legal_holds h
        where h.released_at is null and h.subject in (c.external_id, o.external_id)) as holds
from crm.contacts c join crm.organizations o on o.organization_id = c.organization_id
where coalesce(c.merged_into, c.contact_id) in (
    select coalesce(n.merged_into, n.contact_id) from crm.contacts n
    where lower(n.email) = lower(:subject) or n.external_id::text = lower(:subject))
order by c.contact_id
"""

_FIRMS = """
select o.organization_id, o.external_id, o.name, o.vat_number, o.customer_number,
       (select array_agg(h.hold_id) from ops.legal_holds h
        where h.released_at is null and h.subject = o.external_id) as holds
from crm.organizations o where o.customer_number = :subject or o.external_id::text = lower(:subject)
"""


def read_everything(connection: Connection, person: Person, home: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row that is kept about a person, by table, as JSON has it: for a request for access (GDPR Art. 15, 20).

    ``files`` names those of KONTOR_HOME that speak of the person; each is handed over by hand, as others stand in it.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for table, ids in person.records.items():
        key = IDENTITIES[table].key
        found[table] = _rows(
            connection, f"select to_jsonb(r) from {table} r where {key} = any(:ids)", {"ids": list(ids)}
        )
    contacts = {"ids": list(person.records["crm.contacts"])}
    found["crm.contact_roles"] = _rows(
        connection, "select to_jsonb(r) from crm.contact_roles r where contact_id = any(:ids)", contacts
    )
    for name, ids in person.records.items():
        found[f"history of {name}"] = _rows(
            connection,
            "select to_jsonb(h) from history.changes h where table_name = :table and record_id = any(:ids)",
            {"table": name.split(".")[1], "ids": list(ids)},
        )
    bound = person.terms.bound()
    for place in read_places(connection):
        found[place.table] = _rows(connection, f"select to_jsonb(r) from {place.table} r where {place.found}", bound)
    traces = find_in_files(home, person.terms)
    found["files"] = [{"file": str(trace.path.relative_to(home))} for trace in traces]
    return {table: rows for table, rows in found.items() if rows}


def _rows(connection: Connection, statement: str, bound: Mapping[str, object]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.scalars(text(statement), dict(bound))]
