"""The erasure ledger applied to a database again, after a restore or a replay of old files: as ``kontor_retention``.

Who asked to be erased goes first, with every trace, in the transaction that copies the ledger and puts the holds back.
Whom rules let go follow in blocks, a transaction each, by several sessions at once: killed in between, the next replay
finds the rest, and nobody uses the database before one has ended.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil

from psycopg.errors import DeadlockDetected
from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError

from tasks.erasures.identities import IDENTITIES, Identity, not_held
from tasks.erasures.keys import ErasureKey
from tasks.erasures.ledger_file import ErasureLedger, Line
from tasks.erasures.store import let_go, mirror
from tasks.erasures.terms import Terms, terms_of_contact
from tasks.erasures.traces_store import blind_terms, erase_traces

BLOCK = 5_000  # people a transaction, at most
_SMALL = 500  # not worth a session more
_SESSIONS = 4  # at most, and no more than there are processors


def replay(engine: Engine, ledger: ErasureLedger, key: ErasureKey) -> dict[str, int]:
    """Apply the whole ledger to this database again, in transactions of its own; returns counts of what changed.

    For a database that was restored or refilled, before anybody uses it. Holds are put back first and what they cover
    stays. A record goes when it has the external id of one that went, or its key or address where the erasure was asked
    for; one that a rule let go and that somebody spoke of again after that day stays. A second replay changes nothing.

    Raises:
        BadInput: the ledger is broken; nothing was changed.
    """
    written = list(ledger.read())
    lines = ledger.in_force(written)
    counts = {"lines": len(lines), "subjects": sum(len(line.subjects) for line in lines)}
    gone: Counter[str] = Counter()
    with engine.begin() as connection:
        mirror(connection, written)
        counts["holds"] = _restore_holds(connection, written)
        _stage_subjects(connection, lines)
        terms = blind_terms(connection, key)
        for identity in IDENTITIES.values():
            asked = _matching(connection, identity, key, only_asked=True)
            terms |= _terms_of(connection, identity, asked)
            gone.update(_named(identity, let_go(connection, identity, asked, delete=_is_deleted(identity))))
        left = {identity.entity: _matching(connection, identity, key) for identity in IDENTITIES.values()}
        connection.exec_driver_sql("drop table replayed")
        counts["traces"] = 0 if terms.is_empty else sum(erase_traces(connection, terms).values())
    for identity in IDENTITIES.values():
        gone.update(_let_go_in_blocks(engine, identity, left[identity.entity]))
    return {**counts, **gone}


def _is_deleted(identity: Identity) -> bool:
    return identity.table == "contacts"


def _named(identity: Identity, gone: dict[str, int]) -> dict[str, int]:
    return {f"{identity.table}_{name}": count for name, count in gone.items()}


def _let_go_in_blocks(engine: Engine, identity: Identity, ids: Sequence[int]) -> Counter[str]:
    """Let these go, some thousands a transaction, by as many sessions at once as there are processors.

    Contacts that were merged refer to each other: two blocks may then wait for one another, and the one that the
    database ends is done again behind the others.
    """
    gone: Counter[str] = Counter()
    if not ids:
        return gone
    sessions_at_once = min(_SESSIONS, os.cpu_count() or 1)
    rounds = ceil(len(ids) / BLOCK / sessions_at_once)
    # Of one length, so that all sessions end at about the same time.
    length = min(BLOCK, max(_SMALL, ceil(len(ids) / rounds / sessions_at_once)))
    blocks = [ids[at : at + length] for at in range(0, len(ids), length)]
    with ThreadPoolExecutor(sessions_at_once) as sessions:
        done = list(sessions.map(lambda block: _let_go_unless_blocked(engine, identity, block), blocks))
    for block, counts in zip(blocks, done, strict=True):
        gone.update(_let_go_block(engine, identity, block) if counts is None else counts)
    return gone


def _let_go_unless_blocked(engine: Engine, identity: Identity, ids: Sequence[int]) -> dict[str, int] | None:
    try:
        return _let_go_block(engine, identity, ids)
    except OperationalError as error:
        if not isinstance(error.orig, DeadlockDetected):
            raise
        return None


def _let_go_block(engine: Engine, identity: Identity, ids: Sequence[int]) -> dict[str, int]:
    with engine.begin() as connection:
        return _named(identity, let_go(connection, identity, ids, delete=_is_deleted(identity)))


def _matching(connection: Connection, identity: Identity, key: ErasureKey, *, only_asked: bool = False) -> list[int]:
    statement = f"select id from ({_matching_statement(identity, only_asked=only_asked)}) found order by id"
    return list(connection.scalars(text(statement), {"entity": identity.entity, **key.bound()}).all())


def _terms_of(connection: Connection, identity: Identity, ids: Sequence[int]) -> Terms:
    """What these who asked to be erased are found by elsewhere, as long as this database still knows their names."""
    shown = {
        "contacts": "r.first_name, r.last_name, r.email, r.phone",
        "organizations": "null as first_name, null as last_name, null as email, null as phone",
    }[identity.table]
    statement = f"select {shown}, o.customer_number from {identity.records} where r.{identity.key} = any(:ids)"
    terms = Terms()
    for row in connection.execute(text(statement), {"ids": list(ids)}):
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
