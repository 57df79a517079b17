"""Keys of stored records, kept in step with what they are made of, and the records as they are compared.

``made_of`` is a digest of what a key was made from and of the version of the making, so that only what changed is made
again, whoever changed it. Keys are made in Python and written in one COPY and one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from tasks.matching.candidates import Block, Pair, find_pairs, of_field, rare_words
from tasks.matching.keys import email_key, name_key, person_key, phone_key, vat_key
from tasks.matching.score import CONTACT, CONTACT_PRIOR, ORGANIZATION, ORGANIZATION_PRIOR, Record, score_pair

_MADE_BY = "1"  # raise it when keys are made otherwise: every record's keys are then made again
FEW = 300  # looked up by index; more are compared in memory with all that is stored
_ALIKE = 0.45  # of trigrams; below it names share no more than a word


@dataclass(frozen=True)
class DuplicateRule:
    """What happens to a pair that met by one kind of key and is at least ``threshold`` alike."""

    rule_id: str
    entity: str
    matched_by: str
    action: str
    threshold: Decimal


def fetch_rules(connection: Connection, entity: str, as_of: date) -> list[DuplicateRule]:
    """The rules in force for an entity on that day, without those that are off."""
    rows = connection.execute(
        text(
            "select rule_id, entity, matched_by, action, threshold from rules.duplicate_rule"
            " where entity = :entity and valid @> cast(:as_of as date) and action <> 'off' order by matched_by"
        ),
        {"entity": entity, "as_of": as_of},
    )
    return [DuplicateRule(**row._mapping) for row in rows]


# --- keys -------------------------------------------------------------------------------------------------------------

_ORGANIZATIONS_TO_DO = """
select o.organization_id as record_id, o.name, o.vat_number, o.country,
       md5(row(cast(:made_by as text), o.name, o.vat_number, o.country)::text) as made_of
from crm.organizations o
left join crm.organization_keys k using (organization_id)
where k.made_of is distinct from md5(row(cast(:made_by as text), o.name, o.vat_number, o.country)::text)
"""

_CONTACTS_TO_DO = """
select c.contact_id as record_id, c.first_name, c.last_name, c.email, c.phone, o.country,
       md5(row(cast(:made_by as text), c.first_name, c.last_name, c.email, c.phone, o.country)::text) as made_of
from crm.contacts c
join crm.organizations o using (organization_id)
left join crm.contact_keys k using (contact_id)
where k.made_of is distinct from
      md5(row(cast(:made_by as text), c.first_name, c.last_name, c.email, c.phone, o.country)::text)
"""


def refresh_keys(connection: Connection, entity: str) -> list[int]:
    """Make the keys of records that are new or changed; returns their ids. Two at once wait for each other."""
    connection.execute(text("select pg_advisory_xact_lock(hashtext(:key))"), {"key": f"kontor keys {entity}"})
    statement = _ORGANIZATIONS_TO_DO if entity == "organization" else _CONTACTS_TO_DO
    rows = connection.execute(text(statement), {"made_by": _MADE_BY}).mappings().all()
    if not rows:
        return []
    if entity == "organization":
        made = [
            (row["record_id"], row["made_of"], name_key(row["name"]), vat_key(row["vat_number"], row["country"]))
            for row in rows
        ]
        _write_keys(connection, "organization_keys", ("organization_id", "made_of", "name_key", "vat_key"), made)
    else:
        made_contacts = [
            (
                row["record_id"],
                row["made_of"],
                person_key(row["first_name"], row["last_name"]),
                email_key(row["email"]),
                phone_key(row["phone"], row["country"]),
            )
            for row in rows
        ]
        columns = ("contact_id", "made_of", "name_key", "email_key", "phone_key")
        _write_keys(connection, "contact_keys", columns, made_contacts)
    return [int(row["record_id"]) for row in rows]


def _write_keys(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    names = ", ".join(columns)
    connection.exec_driver_sql(
        f"create temporary table made_key on commit drop as select {names} from crm.{table} limit 0"
    )
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"copy made_key ({names}) from stdin") as copy:
        for row in rows:
            copy.write_row(row)
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
    connection.exec_driver_sql(
        f"insert into crm.{table} ({names}) select {names} from made_key"
        f" on conflict ({columns[0]}) do update set {changed}"
    )
    connection.exec_driver_sql("drop table made_key")
    # A look-up among 100,000 names takes 36 ms after this and 140 ms before.
    connection.exec_driver_sql("select crm.settle_keys()")


# --- records ----------------------------------------------------------------------------------------------------------

_ORGANIZATION_RECORDS = """
select o.organization_id as record_id, o.customer_number, k.name_key as name, k.vat_key as vat, o.country,
       c.emails as email, c.phones as phone
from crm.organizations o
join crm.organization_keys k using (organization_id)
left join (select p.organization_id, string_agg(distinct y.email_key, ' ') as emails,
                  string_agg(distinct y.phone_key, ' ') as phones
           from crm.contacts p join crm.contact_keys y using (contact_id)
           where cast(:ids as bigint[]) is null or p.organization_id = any(:ids)
           group by p.organization_id) c using (organization_id)
where o.merged_into is null and (cast(:ids as bigint[]) is null or o.organization_id = any(:ids))
"""

_CONTACT_RECORDS = """
select c.contact_id as record_id, c.organization_id::text as organization, k.name_key as name, k.email_key as email,
       k.phone_key as phone
from crm.contacts c
join crm.contact_keys k using (contact_id)
where cast(:ids as bigint[]) is null or c.contact_id = any(:ids)
"""


def fetch_records(connection: Connection, entity: str, ids: Sequence[int] | None = None) -> dict[int, Record]:
    """The records as they are compared, by id; all of them where ``ids`` is None."""
    statement = _ORGANIZATION_RECORDS if entity == "organization" else _CONTACT_RECORDS
    rows = connection.execute(text(statement), {"ids": None if ids is None else list(ids)}).mappings()
    return {int(row["record_id"]): {name: value for name, value in row.items() if name != "record_id"} for row in rows}


def blocks_of(entity: str, records: Mapping[int, Record]) -> dict[str, Block]:
    """The keys by which records of an entity meet."""
    if entity == "contact":
        return {name: _within_customer(name) for name in ("name", "email", "phone")}
    words = rare_words(records, "name")
    return {
        "vat": of_field("vat"),
        "name": lambda record: [record["name"] or "", *words(record)] if record.get("name") else [],
        "email": lambda record: (record.get("email") or "").split(),
        "phone": lambda record: (record.get("phone") or "").split(),
    }


def _within_customer(name: str) -> Block:
    def block(record: Record) -> Iterable[str]:
        value = record.get(name)
        if not value:
            return []
        # Names meet by their first letters, so that a typing error further on does not keep them apart.
        return [f"{record['organization']}|{value[:3] if name == 'name' else value}"]

    return block


def find_among(entity: str, records: Mapping[int, Record], rules: Sequence[DuplicateRule]) -> list[Pair]:
    """The pairs of these records that a rule cares for."""
    wanted = {rule.matched_by: rule for rule in rules}
    blocks = {name: block for name, block in blocks_of(entity, records).items() if name in wanted}
    fields, prior = (ORGANIZATION, ORGANIZATION_PRIOR) if entity == "organization" else (CONTACT, CONTACT_PRIOR)
    thresholds = {name: float(wanted[name].threshold) for name in blocks}
    return find_pairs(records, blocks, fields, prior, thresholds)


def _cared_for(pair: Pair, rules: Mapping[str, DuplicateRule]) -> bool:
    return any(pair.scored.score >= rules[name].threshold for name in pair.matched_by if name in rules)


# --- candidates of a few ----------------------------------------------------------------------------------------------

_CANDIDATES = """
select k.organization_id as left_id, o.organization_id as right_id
from crm.organization_keys k
cross join lateral (
    select v.organization_id from crm.organization_keys v where v.vat_key = k.vat_key
    union
    select n.organization_id from crm.organization_keys n where n.name_key % k.name_key
    union
    select c2.organization_id from crm.contacts c1
    join crm.contact_keys k1 on k1.contact_id = c1.contact_id
    join crm.contact_keys k2 on k2.email_key = k1.email_key
    join crm.contacts c2 on c2.contact_id = k2.contact_id
    where c1.organization_id = k.organization_id
    union
    select c2.organization_id from crm.contacts c1
    join crm.contact_keys k1 on k1.contact_id = c1.contact_id
    join crm.contact_keys k2 on k2.phone_key = k1.phone_key
    join crm.contacts c2 on c2.contact_id = k2.contact_id
    where c1.organization_id = k.organization_id
) o
where k.organization_id = any(:ids) and o.organization_id <> k.organization_id
"""


def find_of(connection: Connection, entity: str, ids: Sequence[int], rules: Sequence[DuplicateRule]) -> list[Pair]:
    """The pairs in which one of these records stands, by the keys of all that are stored.

    A few are looked up by index; of many, and of contacts, whose customers are small, all records are compared.
    """
    if not ids or not rules:
        return []
    if entity == "contact" or len(ids) > FEW:
        mine = set(ids)
        found = find_among(entity, fetch_records(connection, entity), rules)
        return [pair for pair in found if pair.left in mine or pair.right in mine]
    connection.exec_driver_sql(f"set local pg_trgm.similarity_threshold = {_ALIKE}")
    rows = connection.execute(text(_CANDIDATES), {"ids": list(ids)}).all()
    met = {(min(row), max(row)) for row in ((int(r.left_id), int(r.right_id)) for r in rows)}
    records = fetch_records(connection, entity, sorted({number for pair in met for number in pair}))
    kept = []
    wanted = {rule.matched_by: rule for rule in rules}
    for left, right in sorted(met):
        if left in records and right in records:
            scored = score_pair(records[left], records[right], ORGANIZATION, ORGANIZATION_PRIOR)
            pair = Pair(left, right, scored, _met_by(records[left], records[right]))
            if _cared_for(pair, wanted):
                kept.append(pair)
    return kept


def _met_by(left: Record, right: Record) -> tuple[str, ...]:
    """The kinds of keys that two records share; their names met by being alike."""
    shared = [
        name
        for name in ("email", "phone", "vat")
        if set((left.get(name) or "").split()) & set((right.get(name) or "").split())
    ]
    return tuple(sorted([*shared, "name"])) if left.get("name") and right.get("name") else tuple(shared)
