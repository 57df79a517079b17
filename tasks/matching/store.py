"""The rules in force, the records as they are compared, and the pairs that a rule cares for.

Keys are kept in step by :mod:`tasks.matching.keys_store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, text

from tasks.matching.candidates import MOST_SHARING, Block, Pair, find_pairs, of_field, rare_words
from tasks.matching.score import MODELS, ORGANIZATION, ORGANIZATION_PRIOR, Record, score_pair

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
where c.merged_into is null and (cast(:ids as bigint[]) is null or c.contact_id = any(:ids))
"""

# Of a million products few share a key with another of their catalogue; only those are fetched.
_PRODUCT_RECORDS = f"""
with listed as (
    select k.product_id, p.source, k.name_key, k.figures, lower(p.unit) as unit, k.gtin_key, k.block_key
    from crm.product_keys k join crm.products p using (product_id)
    where p.status is distinct from 'discontinued'
), shared as (
    select source, 'name' as kind, block_key as key from listed where block_key is not null
    group by source, block_key
    having count(*) between 2 and {MOST_SHARING} and (cast(:ids as bigint[]) is null or bool_or(product_id = any(:ids)))
    union all
    select source, 'gtin', gtin_key from listed where gtin_key is not null
    group by source, gtin_key
    having count(*) between 2 and {MOST_SHARING} and (cast(:ids as bigint[]) is null or bool_or(product_id = any(:ids)))
)
select l.product_id as record_id, l.source, l.name_key as name, l.figures, l.unit, l.gtin_key as gtin,
       l.block_key as block
from listed l
where exists (select from shared s where s.kind = 'name' and s.source = l.source and s.key = l.block_key)
   or exists (select from shared s where s.kind = 'gtin' and s.source = l.source and s.key = l.gtin_key)
"""

_RECORDS: Mapping[str, str] = {
    "organization": _ORGANIZATION_RECORDS,
    "contact": _CONTACT_RECORDS,
    "product": _PRODUCT_RECORDS,
}


def fetch_records(connection: Connection, entity: str, ids: Sequence[int] | None = None) -> dict[int, Record]:
    """The records as they are compared, by id; all of them where ``ids`` is None.

    Of products those that share a key with another one, or with one of ``ids``.
    """
    rows = connection.execute(text(_RECORDS[entity]), {"ids": None if ids is None else list(ids)}).mappings()
    return {int(row["record_id"]): {name: value for name, value in row.items() if name != "record_id"} for row in rows}


def blocks_of(entity: str, records: Mapping[int, Record]) -> dict[str, Block]:
    """The keys by which records of an entity meet."""
    if entity == "contact":
        return {name: _within("organization", name, _first_letters) for name in ("name", "email", "phone")}
    if entity == "product":
        return {"name": _within("source", "block"), "gtin": _within("source", "gtin")}
    words = rare_words(records, "name")
    return {
        "vat": of_field("vat"),
        "name": lambda record: [record["name"] or "", *words(record)] if record.get("name") else [],
        "email": lambda record: (record.get("email") or "").split(),
        "phone": lambda record: (record.get("phone") or "").split(),
    }


def _within(group: str, name: str, shorten: Callable[[str, str], str] | None = None) -> Block:
    def block(record: Record) -> Iterable[str]:
        value = record.get(name)
        if not value:
            return []
        return [f"{record[group]}|{shorten(name, value) if shorten else value}"]

    return block


def _first_letters(name: str, value: str) -> str:
    """Names meet by their first letters, so that a typing error further on does not keep them apart."""
    return value[:3] if name == "name" else value


def find_among(entity: str, records: Mapping[int, Record], rules: Sequence[DuplicateRule]) -> list[Pair]:
    """The pairs of these records that a rule cares for."""
    wanted = {rule.matched_by: rule for rule in rules}
    blocks = {name: block for name, block in blocks_of(entity, records).items() if name in wanted}
    fields, prior = MODELS[entity]
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

    A few are looked up by index; of many, and of contacts, whose customers are small, all records are compared. Of
    products those are, that share a key with one of these.
    """
    if not ids or not rules:
        return []
    if entity != "organization" or len(ids) > FEW:
        mine = set(ids)
        sharing = list(ids) if entity == "product" else None
        found = find_among(entity, fetch_records(connection, entity, sharing), rules)
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
