"""Letting people go from the database, as ``kontor_retention``; doing so again is tasks/erasures/replay_store.py.

The order everywhere: the ledger outside the database first, on the disk; then, in one transaction, its copy, the rows
and their history. Who dies in between has written a line for something that did not happen; the next run voids it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.erasures.identities import Identity, not_held
from tasks.erasures.ledger_file import Entry, ErasureLedger, Line
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
