"""Two records that are one, merged by a person and taken apart again.

What belongs to the record that is merged moves to the one that is kept, and the other one stays, with ``merged_into``:
files go on naming it. Of a customer its invoices, contacts, payments and holds move, and what a file says of it is
booked on the customer that is kept. Of a contact nothing moves; its roles count for the contact that is kept, whoever
reads them, so that files may go on naming either. Empty fields of the record that is kept are filled from the other.
What was moved and what values changed stands in ``ops.duplicate_merges``, so that a merge can be undone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sqlalchemy import Connection, text

from data_contracts.tables.crm import CONTACT_FIELDS, ORGANIZATION_FIELDS
from tasks.errors import Refused, UsageError
from tasks.history.store import name_session
from tasks.quality.duplicates_store import decide, fetch_pair


@dataclass(frozen=True)
class _Mergeable:
    """A kind of record that can be merged: its table, key and fields, and what moves: statements there and back."""

    entity: str
    table: str
    key: str
    fields: tuple[str, ...]
    shown: str
    standing: str
    moves: Mapping[str, tuple[str, str]] = field(default_factory=dict)


# What belongs to a customer: rows of the one that is merged, and which of them may move. A contact or a payment of both
# stays where it is: the customer that is kept has it already.
_OF_CUSTOMER: Mapping[str, tuple[str, str, str]] = {
    "invoices": ("crm.invoices", "invoice_id", ""),
    "contacts": (
        "crm.contacts",
        "contact_id",
        (
            " and not exists (select from crm.contacts k where k.organization_id = :kept"
            " and k.contact_key = m.contact_key)"
        ),
    ),
    "payments": (
        "crm.payments",
        "payment_id",
        (
            " and not exists (select from crm.payments k where k.organization_id = :kept and k.source = m.source"
            " and k.payment_number = m.payment_number)"
        ),
    ),
    "holds": ("ops.reminder_holds", "hold_id", ""),
}


def _move(table: str, key: str, only: str) -> tuple[str, str]:
    """Statements that move rows to the kept record and back."""
    return (
        f"update {table} m set organization_id = :kept where m.organization_id = :merged{only} returning m.{key}",
        f"update {table} m set organization_id = :merged where m.{key} = any(:ids) and m.organization_id = :kept",
    )


_MERGEABLE: Mapping[str, _Mergeable] = {
    "organization": _Mergeable(
        "organization",
        "crm.organizations",
        "organization_id",
        ORGANIZATION_FIELDS,
        "customer_number",
        "select (select count(*) from outbox.reminders where organization_id = :merged)::integer as reminders,"
        " (select count(*) from ops.payer_class_history where organization_id = :merged)::integer as payer_classes,"
        " (select count(*) from history.change_log where table_name = 'organizations' and record_id = :merged)::integer"
        " as recorded_changes",
        {name: _move(*rows) for name, rows in _OF_CUSTOMER.items()},
    ),
    "contact": _Mergeable(
        "contact",
        "crm.contacts",
        "contact_id",
        CONTACT_FIELDS,
        "contact_id",
        "select (select count(*) from outbox.reminders where contact_id = :merged)::integer as reminders,"
        " (select count(*) from history.change_log where table_name = 'contacts' and record_id = :merged)::integer"
        " as recorded_changes",
    ),
}


@dataclass(frozen=True)
class Proposal:
    """What a merge would do: each field's value at both and which would stand; how many rows would move to the record
    that is kept, by kind, and how many stay with the other."""

    pair_id: int
    entity: str
    kept_id: int
    kept_number: str
    merged_id: int
    merged_number: str
    fields: tuple[Mapping[str, Any], ...]
    moving: Mapping[str, int]
    staying: Mapping[str, int]
    colliding_invoices: tuple[str, ...] = ()
    held: bool = False


def is_mergeable(entity: str) -> bool:
    """Whether records of that kind can be merged here."""
    return entity in _MERGEABLE


def propose(connection: Connection, pair_id: int, keep: str | None = None) -> Proposal:
    """What merging a pair would do. The older record is kept unless ``keep`` names the other's number.

    Of each field the kept value stands; where it has none, the other's. Nothing is changed.

    Raises:
        UsageError: the pair is of products, or ``keep`` is neither of its records.
        Refused: one of the two is merged already.
    """
    pair = fetch_pair(connection, pair_id)
    if pair["entity"] not in _MERGEABLE:
        raise UsageError(
            "Products are not merged here: a catalogue goes on listing both part numbers.",
            hint=f"Discontinue one there; `kontor duplicates decide {pair_id} same --reason TEXT` keeps why.",
        )
    kind = _MERGEABLE[pair["entity"]]
    rows = [_record(connection, kind, pair[side]) for side in ("left_id", "right_id")]
    numbers = [str(row[kind.shown]) for row in rows]
    if keep is not None and keep not in numbers:
        raise UsageError(f"{keep} is not of pair {pair_id}.", hint=f"Choose one of: {', '.join(numbers)}.")
    if keep == numbers[1]:
        rows.reverse()
    kept, merged = rows
    for row in rows:
        if row["merged_into"] is not None:
            raise Refused(f"{kind.entity} {row[kind.shown]} is merged into another already. Nothing was changed.")
    return _proposal(connection, pair_id, kind, kept, merged)


def _proposal(
    connection: Connection, pair_id: int, kind: _Mergeable, kept: Mapping[str, Any], merged: Mapping[str, Any]
) -> Proposal:
    ids = {"kept": kept[kind.key], "merged": merged[kind.key]}
    staying = connection.execute(text(kind.standing), ids).mappings().one()
    return Proposal(
        pair_id,
        kind.entity,
        ids["kept"],
        str(kept[kind.shown]),
        ids["merged"],
        str(merged[kind.shown]),
        tuple(_field(name, kept[name], merged[name]) for name in kind.fields),
        _moving(connection, kind, ids),
        dict(staying),
        _colliding(connection, ids) if kind.entity == "organization" else (),
        _is_held(connection, merged) if kind.entity == "organization" else False,
    )


def _field(name: str, kept: object, merged: object) -> dict[str, object]:
    result = merged if kept in (None, "") else kept
    if isinstance(kept, date) and isinstance(merged, date):
        result = max(kept, merged)  # of two days on which somebody was in touch the later one
    return {"field": name, "kept": kept, "merged": merged, "result": result}


def _record(connection: Connection, kind: _Mergeable, record_id: int) -> Mapping[str, Any]:
    found = connection.execute(text(f"select * from {kind.table} where {kind.key} = :id for update"), {"id": record_id})
    return dict(found.mappings().one())


def _moving(connection: Connection, kind: _Mergeable, ids: Mapping[str, int]) -> dict[str, int]:
    if kind.entity == "contact":
        roles = connection.scalar(text("select count(*) from crm.contact_roles where contact_id = :merged"), ids)
        return {"roles": int(roles or 0)}
    return {
        name: int(
            connection.scalar(text(f"select count(*) from {table} m where m.organization_id = :merged{only}"), ids) or 0
        )
        for name, (table, _, only) in _OF_CUSTOMER.items()
    }


def _colliding(connection: Connection, ids: Mapping[str, int]) -> tuple[str, ...]:
    """Invoice numbers that both customers have in one ledger."""
    return tuple(
        connection.scalars(
            text(
                "select m.invoice_number from crm.invoices m join crm.invoices k on k.organization_id = :kept"
                " and k.source = m.source and k.invoice_number = m.invoice_number"
                " where m.organization_id = :merged order by 1"
            ),
            ids,
        )
    )


def _is_held(connection: Connection, merged: Mapping[str, Any]) -> bool:
    """Whether a legal hold stands on the customer that would be merged: what moves would no longer be under it."""
    return bool(
        connection.scalar(
            text("select exists (select from ops.legal_holds where subject = :subject and released_at is null)"),
            {"subject": merged["external_id"]},
        )
    )


def merge(connection: Connection, proposal: Proposal, actor: str, reason: str) -> int:
    """Do what was proposed, as the owner, in the caller's transaction; returns the number of the merge.

    Raises:
        Refused: both customers have an invoice of the same number, which cannot be both, or the one that would be
            merged is under a legal hold.
    """
    _refuse(proposal)
    kind = _MERGEABLE[proposal.entity]
    name_session(connection, None, actor)
    ids = {"kept": proposal.kept_id, "merged": proposal.merged_id}
    before = {str(item["field"]): item["kept"] for item in proposal.fields if item["kept"] != item["result"]}
    after = {str(item["field"]): item["result"] for item in proposal.fields if item["kept"] != item["result"]}
    _set_fields(connection, kind, proposal.kept_id, after)
    moved = {name: list(connection.scalars(text(there), ids)) for name, (there, _) in kind.moves.items()}
    moved["merged_before"] = list(
        connection.scalars(
            text(f"update {kind.table} set merged_into = :kept where merged_into = :merged returning {kind.key}"), ids
        )
    )
    connection.execute(text(f"update {kind.table} set merged_into = :kept where {kind.key} = :merged"), ids)
    _classes_are_due(connection, moved.get("invoices", []))
    decide(connection, proposal.pair_id, "same", reason, actor)
    given = {**ids, "pair_id": proposal.pair_id, "entity": proposal.entity, "actor": actor}
    written = {"before": before, "after": after, "moved": moved}
    given |= {name: json.dumps(value, default=str) for name, value in written.items()}
    return int(connection.execute(text(_KEEP_MERGE), given).scalar_one())


def _refuse(proposal: Proposal) -> None:
    if proposal.colliding_invoices:
        raise Refused(
            f"Customers {proposal.kept_number} and {proposal.merged_number} both have"
            f" {', '.join(proposal.colliding_invoices[:5])}. Nothing was changed.",
            hint="One of each is wrong; have accounting correct its ledger, then merge.",
        )
    if proposal.held:
        raise Refused(
            f"Customer {proposal.merged_number} is under a legal hold, and what moves would no longer be."
            " Nothing was changed.",
            hint=f"Keep it instead: --keep {proposal.merged_number}.",
        )


def _set_fields(connection: Connection, kind: _Mergeable, record_id: int, values: Mapping[str, object]) -> None:
    if values:
        changes = ", ".join(f"{name} = :{name}" for name in values)
        connection.execute(
            text(f"update {kind.table} set {changes}, updated_at = now() where {kind.key} = :id"),
            {**values, "id": record_id},
        )


_KEEP_MERGE = """
insert into ops.duplicate_merges (pair_id, entity, kept_id, merged_id, values_before, values_after, moved, actor)
values (:pair_id, :entity, :kept, :merged, cast(:before as jsonb), cast(:after as jsonb), cast(:moved as jsonb), :actor)
returning merge_id
"""


def _classes_are_due(connection: Connection, invoice_ids: Sequence[int]) -> None:
    """Leave word that payer classes must be decided again from the first file on that named these invoices."""
    connection.execute(
        text(
            "update landing.feed_files set classification_pending = true where feed_file_id in"
            " (select feed_file_id from crm.invoices where invoice_id = any(:ids) union"
            "  select feed_file_id from crm.invoice_states where invoice_id = any(:ids))"
        ),
        {"ids": list(invoice_ids)},
    )


def undo(connection: Connection, pair_id: int, actor: str) -> dict[str, int]:
    """Take a merge apart, as the owner: what moved goes back, values that nobody changed since are what they were.

    What a later file added under the merged customer's number stays with the kept one until that file is corrected.

    Raises:
        UsageError: the pair is not merged.
    """
    row = _standing_merge(connection, pair_id)
    name_session(connection, None, actor)
    kind = _MERGEABLE[row["entity"]]
    ids = {"kept": row["kept_id"], "merged": row["merged_id"]}
    back = {
        name: connection.execute(text(home), {**ids, "ids": row["moved"][name]}).rowcount
        for name, (_, home) in kind.moves.items()
    }
    connection.execute(text(f"update {kind.table} set merged_into = null where {kind.key} = :merged"), ids)
    connection.execute(
        text(f"update {kind.table} set merged_into = :merged where {kind.key} = any(:ids)"),
        {**ids, "ids": row["moved"]["merged_before"]},
    )
    fields = _restore_fields(connection, kind, row)
    _classes_are_due(connection, row["moved"].get("invoices", []))
    connection.execute(
        text("update ops.duplicate_merges set undone_by = :actor, undone_at = now() where merge_id = :merge_id"),
        {"merge_id": row["merge_id"], "actor": actor},
    )
    connection.execute(
        text(
            "update ops.duplicate_pairs set decision = 'open', decided_by = null, decided_at = null, reason = null"
            " where pair_id = :pair_id"
        ),
        {"pair_id": pair_id},
    )
    return {**back, "fields": fields}


def _standing_merge(connection: Connection, pair_id: int) -> Mapping[str, Any]:
    row = (
        connection.execute(
            text("select * from ops.duplicate_merges where pair_id = :pair_id and undone_at is null for update"),
            {"pair_id": pair_id},
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise UsageError(
            f"Pair {pair_id} is not merged.", hint="`kontor duplicates list --decision all` shows which are."
        )
    return dict(row)


def _restore_fields(connection: Connection, kind: _Mergeable, row: Mapping[str, Any]) -> int:
    """Give the kept record back the values that the merge has changed and nobody since; returns how many."""
    standing = _record(connection, kind, row["kept_id"])
    unchanged = {
        name: value
        for name, value in row["values_before"].items()
        if json.dumps(standing[name], default=str) == json.dumps(row["values_after"][name], default=str)
    }
    _set_fields(connection, kind, row["kept_id"], unchanged)
    return len(unchanged)
