"""Traces of people in the database outside their own records: notes, quarantine, mail, decisions, history.

Every text and JSON column that the allowlist calls personal is read; the allowlist is held to the schema by a test, so
no table is forgotten. Rows are linked to customers by the columns they have. What is found is replaced by ``[erased]``,
the rows stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from tasks.erasures.allowlist import ALLOWLIST, read_allowlist
from tasks.erasures.keys import ErasureKey, hash_sql
from tasks.erasures.terms import ADDRESS, ERASED, Terms
from tasks.history.store import erase_values

# Their own records are let go one by one; rules and the proof of erasures name our own people and are not changed.
_LEFT_OUT = ("crm.contacts", "crm.organizations", "crm.contact_keys", "crm.organization_keys", "history.", "rules.")
_LEFT_OUT_TOO = ("ops.erasure_requests", "ops.retention_plans", "ops.legal_holds", "landing.staged_")

_LINKS: Mapping[str, str] = {
    "customer_number": "r.customer_number = any(:customers)",
    "organization_id": "r.organization_id in (select o.organization_id from crm.organizations o"
    " where o.customer_number = any(:customers))",
    "invoice_id": "r.invoice_id in (select i.invoice_id from crm.invoices i join crm.organizations o"
    " on o.organization_id = i.organization_id where o.customer_number = any(:customers))",
    "reminder_id": "r.reminder_id in (select m.reminder_id from outbox.reminders m join crm.organizations o"
    " on o.organization_id = m.organization_id where o.customer_number = any(:customers))",
    "quarantined_row_id": "r.quarantined_row_id in (select q.quarantined_row_id from landing.quarantined_rows q"
    " where q.customer_number = any(:customers))",
}


@dataclass(frozen=True)
class Place:
    """A table with its personal columns of text and JSON, by type, and how its rows hang on a customer (SQL)."""

    table: str
    columns: Mapping[str, str]
    link: str

    @property
    def found(self) -> str:
        """SQL: an address or number stands in the row, or a name in a row of the person's own customers.

        Rows in which none of the words stands at all are passed over by a plain search, in one look at all columns.
        """
        strong = " or ".join(f"r.{name}::text ~* :strong" for name in self.columns)
        named = " or ".join(self._named(name, kind) for name, kind in self.columns.items())
        looked_at = f"concat_ws(chr(31), {', '.join(f'r.{name}' for name in self.columns)}) ilike any(:likes)"
        return f"(case when {looked_at} then ({strong}) or {self.link} and ({named}) else false end)"

    def _named(self, name: str, kind: str) -> str:
        if kind == "text":
            return f"r.{name} ~* :named"
        # Beside an address that is another's the name is another's, too.
        return f"((r.{name}::text ~* :named or r.{name}::text ~* :cells) and r.{name}::text !~ '@')"

    @property
    def replaced(self) -> str:
        """SQL: assignments that replace what is found; names, and JSON values that are a part of it, in own rows."""
        return ", ".join(f"{name} = {self._replaced(name, kind)}" for name, kind in self.columns.items())

    def _replaced(self, name: str, kind: str) -> str:
        pattern = f"case when {self.link} then :everything else :strong end"
        once = f"regexp_replace(r.{name}::text, {pattern}, '{ERASED}', 'gi')"
        if kind == "text":
            return once
        quoted = f"case when {self.link} then :quoted else :never end"
        return f"cast(regexp_replace({once}, {quoted}, '\"{ERASED}\"', 'gi') as jsonb)"


def read_places(connection: Connection, allowlist: Path = ALLOWLIST) -> list[Place]:
    """Every place in which traces may stand."""
    listed = read_allowlist(allowlist)
    kinds = {
        (row.name, row.column_name): row.kind
        for row in connection.execute(
            text(
                "select table_schema || '.' || table_name as name, column_name, data_type as kind"
                " from information_schema.columns where table_schema in ('crm', 'landing', 'ops', 'outbox')"
            )
        )
    }
    places = []
    for table, columns in listed.items():
        if table.startswith((*_LEFT_OUT, *_LEFT_OUT_TOO)):
            continue
        texts = {
            name: kinds[table, name] for name in columns["personal"] if kinds.get((table, name)) in ("text", "jsonb")
        }
        link = next((sql for name, sql in _LINKS.items() if name in columns["other"]), "false")
        if texts:
            places.append(Place(table, texts, link))
    return places


def find_traces(connection: Connection, terms: Terms) -> dict[str, int]:
    """How many rows of each table speak of the person; their own records are not counted here."""
    bound = terms.bound()
    counts = {
        place.table: int(
            connection.scalar(text(f"select count(*) from {place.table} r where {place.found}"), bound) or 0
        )
        for place in read_places(connection)
    }
    counts["history.change_log"] = len(_entries(connection, terms))
    return {table: count for table, count in counts.items() if count}


def erase_traces(connection: Connection, terms: Terms) -> dict[str, int]:
    """Replace every trace of the person and return the rows changed by table; twice is once.

    A contact that waits in quarantine is given up: without its person it can never be taken in.
    """
    bound = terms.bound()
    counts: dict[str, int] = {}
    found = find_traces(connection, terms)
    for place in read_places(connection):
        if place.table in found:
            counts[place.table] = connection.execute(text(_erase_statement(place)), bound).rowcount
    counts["history.change_log"] = 0
    for table, record, columns in _entries(connection, terms):
        counts["history.change_log"] += erase_values(connection, table, [record], columns)
    return {table: count for table, count in counts.items() if count}


def _erase_statement(place: Place) -> str:
    given_up = (
        ", state = case when r.state = 'open' and f.feed = 'contacts' then 'rejected' else r.state end,"
        " resolved_at = case when r.state = 'open' and f.feed = 'contacts' then now() else r.resolved_at end"
        if place.table == "landing.quarantined_rows"
        else ""
    )
    if not given_up:
        return f"update {place.table} r set {place.replaced} where {place.found}"
    return (
        f"update {place.table} r set {place.replaced}{given_up} from landing.feed_files f"
        f" where f.feed_file_id = r.feed_file_id and {place.found}"
    )


def _entries(connection: Connection, terms: Terms) -> list[tuple[str, int, list[str]]]:
    """Records in whose history an address or number stands, with the columns."""
    rows = connection.execute(
        text(
            "with worth_a_look as materialized (select entry_id from history.change_log"
            " where concat_ws(chr(31), old_values, new_values) ilike any(:likes))"
            " select table_name, record_id, array_agg(distinct column_name) as columns from history.changes"
            " where entry_id in (select entry_id from worth_a_look)"
            " and not erased and (old_value ~* :strong or new_value ~* :strong) group by 1, 2 order by 1, 2"
        ),
        {"strong": terms.strong_pattern, "likes": list(terms.likes)},
    ).all()
    return [(row.table_name, row.record_id, list(row.columns)) for row in rows]


# --- blind: by hashes alone -----------------------------------------------------------------------------------------


def blind_scan(connection: Connection, key: ErasureKey) -> dict[str, int]:
    """How often an address of somebody who asked to be erased stands anywhere in the database, by table.

    It needs no name: every address in every personal column is hashed and compared. Empty means: nobody is left.
    """
    counts: dict[str, int] = {}
    own = [Place("crm.contacts", {"email": "text", "contact_key": "text"}, "false")]
    logged = [Place("history.change_log", {"old_values": "jsonb", "new_values": "jsonb"}, "false")]
    for place in [*own, *read_places(connection), *logged]:
        found = _blind_addresses(connection, place, key)
        if found:
            counts[place.table] = len(found)
    return counts


def blind_terms(connection: Connection, key: ErasureKey) -> Terms:
    """The addresses in this database whose hashes belong to people who asked to be erased."""
    if not connection.scalar(text("select exists (select from ops.erased_subjects where address_hash is not null)")):
        return Terms()
    own = text(
        f"select r.email from crm.contacts r where {hash_sql('r.email')} in"
        " (select address_hash from ops.erased_subjects where address_hash is not null)"
    )
    found = set(connection.scalars(own, key.bound()))
    for place in read_places(connection):
        found |= _blind_addresses(connection, place, key)
    return Terms(strong=tuple(sorted(found)))


def _blind_addresses(connection: Connection, place: Place, key: ErasureKey) -> set[str]:
    cell = f"concat_ws(chr(31), {', '.join(f'r.{name}' for name in place.columns)})"
    rows = connection.scalars(
        text(
            f"with worth_a_look as materialized (select {cell} as cell from {place.table} r where {cell} like '%@%'),"
            " address as materialized (select distinct m[1] as said"
            " from worth_a_look c cross join lateral regexp_matches(c.cell, :address, 'g') as m)"
            f" select said from address a where {hash_sql('a.said')} in"
            " (select address_hash from ops.erased_subjects where address_hash is not null)"
        ),
        {"address": f"({ADDRESS})", **key.bound()},
    ).all()
    return set(rows)
