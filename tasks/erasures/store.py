"""Letting people go from the database, and doing so again after a restore or a replay: as ``kontor_retention``.

The order everywhere: the ledger outside the database first, on the disk; then, in one transaction, its copy, the rows
and their history. Who dies in between has written a line for something that did not happen; the next run voids it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.erasures.identities import IDENTITIES, Identity, not_held
from tasks.erasures.keys import ErasureKey
from tasks.erasures.ledger_file import Entry, ErasureLedger, Line
from tasks.erasures.terms import Terms, terms_of_contact
from tasks.erasures.traces_store import blind_terms, erase_traces
from tasks.history.store import array_of, deleting_to_erase, erase_values

# Placing a hold takes it alone, a batch that destroys shares it: a hold comes before a batch or after it, never amid.
HOLD_LOCK = "hashtextextended('kontor holds', 0)"


def hold_off_holds(connection: Connection) -> None:
    """Let no hold be placed until this transaction ends; what stands by now is seen by every statement in it."""
    connection.execute(text(f"select pg_advisory_xact_lock_shared({HOLD_LOCK})"))


def let_go(
    connection: Connection,
    identity: Identity,
    ids: Sequence[int] | str,
    *,
    delete: bool,
    blanks: Mapping[str, str] | None = None,
    references: References | None = None,
) -> dict[str, int]:
    """Delete these records, or blank what is personal where something refers to them, and erase their history.

    Held records are passed over, whatever was asked. ``blanks`` says what columns become where a rule says otherwise
    than the table, ``ids`` may be an array as PostgreSQL writes one, ``references`` are looked up unless given.
    Returns ``deleted``, ``anonymised`` and ``history`` (values).
    """
    bound, gone = {"ids": array_of(ids)}, dict.fromkeys(("deleted", "anonymised", "history"), 0)
    if not ids or bound["ids"] == "{}":
        return gone
    free = not_held(*identity.subjects)
    if delete:
        known = references_to(connection, identity) if references is None else references
        # Whose history goes in full need not be entered with the values that would go again with the next statement.
        with deleting_to_erase(connection, identity.table if identity.history is None else ""):
            row = connection.execute(text(_delete_statement(identity, known, free)), bound).one()
        gone["deleted"] = row.rows
        gone["history"] += _forget(connection, identity, row)
    if gone["deleted"] <= bound["ids"].count(","):
        row = connection.execute(text(_blank_statement(identity, blanks or identity.blanks, free)), bound).one()
        gone["anonymised"] = row.rows
        if row.rows:
            statement = f"delete from {identity.derived} where {identity.key} = any(cast(:ids as bigint[]))"
            connection.execute(text(statement), {"ids": row.ids})
        gone["history"] += _forget(connection, identity, row)
    return gone


def _forget(connection: Connection, identity: Identity, row: Row[Any]) -> int:
    return erase_values(connection, identity.table, row.ids, identity.history) if row.rows else 0


References = Sequence[tuple[str, str]]

# What went as a count and as an array, which the next statement takes as it is.
_COUNTED = "select count(*) as rows, coalesce(array_agg(id), '{}')::text as ids from gone"


def _delete_statement(identity: Identity, references: References, free: str) -> str:
    alone = "".join(
        f" and not exists (select from {child} c where c.{column} = r.{identity.key})" for child, column in references
    )
    return (
        f"with gone as (delete from {identity.entity} r{_beside(identity, 'using')}"
        f" r.{identity.key} = any(cast(:ids as bigint[])){alone}"
        f" and {free} returning r.{identity.key} as id) {_COUNTED}"
    )


def _beside(identity: Identity, word: str) -> str:
    return f" {word} {identity.beside} where {identity.joined} and" if identity.beside else " where"


def _blank_statement(identity: Identity, blanks: Mapping[str, str], free: str) -> str:
    assignments = ", ".join(f"{name} = {blank}" for name, blank in blanks.items())
    differs = " or ".join(f"r.{name} is distinct from {blank}" for name, blank in blanks.items())
    return (
        f"with gone as (update {identity.entity} r set {assignments}{_beside(identity, 'from')}"
        f" r.{identity.key} = any(cast(:ids as bigint[])) and ({differs})"
        f" and {free} returning r.{identity.key} as id) {_COUNTED}"
    )


def references_to(connection: Connection, identity: Identity) -> list[tuple[str, str]]:
    """Tables and columns that refer to this one and would refuse its end."""
    rows = connection.execute(
        text(
            "select c.conrelid::regclass::text as child, a.attname as column_name from pg_constraint c"
            " join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]"
            " where c.contype = 'f' and c.confrelid = cast(:parent as regclass) and c.confdeltype in ('a', 'r')"
            " order by 1, 2"
        ),
        {"parent": identity.entity},
    ).all()
    return [(row.child, row.column_name) for row in rows]


# --- the database's copy of the ledger ----------------------------------------------------------------------------


def mirror(connection: Connection, lines: Iterable[Line]) -> int:
    """Copy these lines into the database where they are missing, requests with their subjects; returns how many."""
    rows = [_mirrored(line) for line in lines]
    if not rows:
        return 0
    new = connection.scalars(text(_MIRROR).bindparams(bindparam("rows", type_=JSONB)), {"rows": rows}).all()
    if any(row["listed"] for row in rows):
        connection.execute(
            text(_MIRROR_SUBJECTS).bindparams(bindparam("rows", type_=JSONB)), {"rows": rows, "new": list(new)}
        )
    return len(new)


_COPIED = ("sequence", "kind", "entity", "rule_id", "rule_version", "reference")


def _mirrored(line: Line) -> dict[str, Any]:
    kept = {name: getattr(line, name) for name in _COPIED}
    subjects = [list(subject) for subject in line.subjects] if line.kind == "request" else []
    return {
        **kept,
        "at": line.at.isoformat(),
        "subjects": len(line.subjects),
        "line_sha256": line.hash,
        "listed": subjects,
    }


_MIRROR = """
insert into ops.erasure_ledger (sequence, at, kind, entity, rule_id, rule_version, reference, subjects, line_sha256)
select sequence, at, kind, entity, rule_id, rule_version, reference, subjects, line_sha256
from jsonb_to_recordset(:rows) as r (sequence bigint, at timestamptz, kind text, entity text, rule_id text,
                                     rule_version integer, reference text, subjects integer, line_sha256 text)
on conflict (sequence) do nothing
returning sequence
"""

_MIRROR_SUBJECTS = """
insert into ops.erased_subjects (sequence, entity, external_id, key_hash, address_hash)
select r.sequence, r.entity, cast(s ->> 0 as uuid), s ->> 1, s ->> 2
from jsonb_to_recordset(:rows) as r (sequence bigint, entity text, listed jsonb)
cross join lateral jsonb_array_elements(r.listed) as s
where r.sequence = any(:new)
"""


def void_what_came_to_nothing(connection: Connection, ledger: ErasureLedger, now: datetime) -> int:
    """Void the lines whose destruction was never committed, and copy that; returns how many lines.

    Only for the holder of the purge's lock: what another process is about to commit looks just like it.
    """
    mirrored = set(connection.scalars(text("select sequence from ops.erasure_ledger")))
    lines = list(ledger.read())
    voided = {number for line in lines if line.kind == "void" for number in line.refers_to}
    orphans = [
        line.sequence
        for line in lines
        if line.kind == "erasure" and line.sequence not in mirrored and line.sequence not in voided
    ]
    if orphans:
        mirror(connection, ledger.append([Entry(at=now, kind="void", refers_to=orphans)]))
    return len(orphans)


# --- replay -------------------------------------------------------------------------------------------------------


def replay(connection: Connection, ledger: ErasureLedger, key: ErasureKey) -> dict[str, int]:
    """Apply the whole ledger to this database again, in the caller's transaction; returns counts of what changed.

    For a database that was restored or refilled, before anybody uses it. Holds are put back first and what they cover
    stays. A record goes when it has the external id of one that went, or its key or address where the erasure was asked
    for; one that a rule let go and that somebody spoke of again after that day stays. A second replay changes nothing.

    Raises:
        BadInput: the ledger is broken; nothing was changed.
    """
    written = list(ledger.read())
    lines = ledger.in_force(written)
    counts = {"lines": len(lines), "subjects": sum(len(line.subjects) for line in lines)}
    mirror(connection, written)
    counts["holds"] = _restore_holds(connection, written)
    _stage_subjects(connection, lines)
    terms = blind_terms(connection, key)
    for identity in IDENTITIES.values():
        ids = connection.scalars(text(_matching_statement(identity)), {"entity": identity.entity, **key.bound()}).all()
        terms |= _asked_terms(connection, identity, key)
        gone = let_go(connection, identity, ids, delete=identity.table == "contacts")
        counts |= {f"{identity.table}_{name}": count for name, count in gone.items()}
    connection.exec_driver_sql("drop table replayed")
    counts["traces"] = 0 if terms.is_empty else sum(erase_traces(connection, terms).values())
    return counts


def _asked_terms(connection: Connection, identity: Identity, key: ErasureKey) -> Terms:
    """What those who asked to be erased are found by elsewhere, as long as this database still knows their names."""
    shown = {
        "contacts": "r.first_name, r.last_name, r.email, r.phone",
        "organizations": "null as first_name, null as last_name, null as email, null as phone",
    }[identity.table]
    statement = _matching_statement(identity, only_asked=True)
    rows = connection.execute(
        text(f"select {shown}, o.customer_number from {identity.records} where r.{identity.key} in ({statement})"),
        {"entity": identity.entity, **key.bound()},
    ).all()
    terms = Terms()
    for row in rows:
        terms |= terms_of_contact(row.first_name, row.last_name, row.email, row.phone, row.customer_number)
    return terms


def _restore_holds(connection: Connection, lines: Iterable[Line]) -> int:
    """Bring holds to where the ledger ends: place what the database does not know, release what was released since."""
    placed: dict[str, dict[str, object]] = {}
    released: list[dict[str, object]] = []
    for line in lines:
        if line.kind == "hold":
            subject = line.subjects[0].external_id
            placed[line.reference] = {"reference": line.reference, "entity": line.entity, "subject": subject}
            placed[line.reference]["at"] = line.at.isoformat()
        elif line.kind == "release":
            placed.pop(line.reference, None)
            released.append({"reference": line.reference, "at": line.at.isoformat()})
    connection.execute(_RELEASE_HOLDS, {"rows": released})
    return connection.execute(_PLACE_HOLDS, {"rows": list(placed.values())}).rowcount


_PLACE_HOLDS = text(
    "insert into ops.legal_holds"
    " (reference, case_number, entity, subject, reason, author, placed_at, review_on)"
    " select r.reference, 'unknown', r.entity, r.subject,"
    " 'placed after the backup was made; taken from the erasure ledger', 'replay', r.at, r.at::date + 90"
    " from jsonb_to_recordset(:rows) as r (reference uuid, entity text, subject uuid, at timestamptz)"
    " on conflict (reference) do nothing"
).bindparams(bindparam("rows", type_=JSONB))

_RELEASE_HOLDS = text(
    "update ops.legal_holds h set released_at = r.at, released_by = 'replay',"
    " release_reason = 'released after the backup was made; taken from the erasure ledger'"
    " from jsonb_to_recordset(:rows) as r (reference uuid, at timestamptz)"
    " where h.reference = r.reference and h.released_at is null"
).bindparams(bindparam("rows", type_=JSONB))


def _stage_subjects(connection: Connection, lines: Sequence[Line]) -> None:
    connection.exec_driver_sql(
        "create temporary table replayed (entity text, external_id uuid, key_hash text, address_hash text,"
        " at date, asked boolean) on commit drop"
    )
    for line in lines:
        connection.execute(
            _STAGE,
            {
                "entity": line.entity,
                "at": line.at.date(),
                "asked": line.kind == "request",
                "subjects": json.dumps(line.subjects),
            },
        )
    connection.exec_driver_sql("analyze replayed")


# A line's subjects travel as the JSON that they are, thousands at once, and become rows there.
_STAGE = text(
    "insert into replayed select :entity, cast(s ->> 0 as uuid), s ->> 1, s ->> 2, :at, :asked"
    " from json_array_elements(cast(:subjects as json)) s"
)


def _matching_statement(identity: Identity, *, only_asked: bool = False) -> str:
    """Who goes: by external id, else by key, and on request by key and address whatever their id says.

    Nearly all are known by their id, so hashes are made only while there are subjects left to look for.
    """
    known_again = "s.asked" if only_asked else "(s.asked or record.seen_as_of <= s.at)"
    there = f"{identity.differs} and {not_held(*identity.subjects)}"
    return f"""
with known as materialized (
    select record.id, record.external_id
    from (select r.{identity.key} as id, r.external_id, r.seen_as_of from {identity.records} where {there}) record
    join replayed s on s.entity = :entity and s.external_id = record.external_id
    where {known_again}
), missing as materialized (
    select s.* from replayed s
    where s.entity = :entity and (s.asked or s.key_hash is not null and not exists (
        select from known k where k.external_id = s.external_id))
), record as materialized (
    select r.{identity.key} as id, r.seen_as_of, {identity.key_hash} as key_hash
    from {identity.records} where {there} and exists (select from missing where key_hash is not null)
      and not exists (select from known k where k.external_id = r.external_id)
), address as materialized (
    select r.{identity.key} as id, {identity.address_hash} as address_hash
    from {identity.records} where {there} and exists (select from replayed where asked and address_hash is not null)
)
select id from known
union
select id from record join missing s using (key_hash) where {known_again}
union
select id from address join replayed s on s.asked and s.address_hash = address.address_hash
"""
