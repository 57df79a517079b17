"""Pairs of records that may be one: found, reviewed, decided, merged by a person, and taken apart again.

A decision is remembered: a pair that was called different is never proposed again. A merge moves invoices and contacts
to the customer that is kept and leaves the other one standing, empty, with ``merged_into``: files go on naming it, and
what they say of it is booked on the one that is kept. What was moved and what values changed stands in
``ops.duplicate_merges``, so that a merge can be undone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.errors import Refused, UsageError
from tasks.history.store import name_session
from tasks.matching.candidates import Pair
from tasks.matching.store import fetch_records, fetch_rules, find_among, find_of, refresh_keys

ENTITIES = ("organization", "contact")
DECISIONS = ("same", "different", "related")
FIELDS = ("name", "country", "language", "vat_number", "currency", "payment_terms_days", "segment", "owner")


@dataclass(frozen=True)
class Proposal:
    """What a merge would do: each field's value at both and which would stand, and how many rows would move."""

    pair_id: int
    kept_id: int
    kept_number: str
    merged_id: int
    merged_number: str
    fields: tuple[Mapping[str, Any], ...]
    invoices: int
    contacts: int
    colliding_invoices: tuple[str, ...]
    colliding_contacts: int


def note_duplicates(connection: Connection, run_id: int | None, as_of: date, *, everything: bool) -> dict[str, int]:
    """Bring keys and pairs up to date; returns the open pairs per entity that are new.

    ``everything`` compares all records anew and drops open pairs that are alike no more; else what changed is compared.
    """
    found = {}
    changed = {entity: refresh_keys(connection, entity) for entity in ("contact", "organization")}
    for entity in ENTITIES:
        rules = fetch_rules(connection, entity, as_of)
        if everything:
            pairs = find_among(entity, fetch_records(connection, entity), rules)
            _drop_stale(connection, entity, pairs)
        else:
            pairs = find_of(connection, entity, changed[entity], rules)
        found[f"duplicate_{entity}s"] = _keep(connection, entity, pairs, run_id)
    return found


def _keep(connection: Connection, entity: str, pairs: Sequence[Pair], run_id: int | None) -> int:
    rows = [
        {
            "left_id": pair.left,
            "right_id": pair.right,
            "score": round(pair.scored.score, 4),
            "fields": pair.scored.explained(),
            "matched_by": list(pair.matched_by),
        }
        for pair in pairs
    ]
    statement = text(_KEEP).bindparams(bindparam("rows", type_=JSONB))
    return int(connection.scalar(statement, {"rows": rows, "entity": entity, "run_id": run_id}) or 0)


_KEEP = """
with written as (
    insert into ops.duplicate_pairs as p (entity, left_id, right_id, score, fields, matched_by, run_id)
    select :entity, r.left_id, r.right_id, r.score, r.fields, r.matched_by, :run_id
    from jsonb_to_recordset(:rows) as r(left_id bigint, right_id bigint, score numeric, fields jsonb, matched_by text[])
    on conflict (entity, left_id, right_id) do update
    set score = excluded.score, fields = excluded.fields, matched_by = excluded.matched_by
    where p.decision = 'open'
      and (p.score, p.fields, p.matched_by) is distinct from (excluded.score, excluded.fields, excluded.matched_by)
    returning (xmax = 0) as is_new
)
select count(*) filter (where is_new) from written
"""


def _drop_stale(connection: Connection, entity: str, pairs: Sequence[Pair]) -> None:
    connection.execute(
        text(
            "delete from ops.duplicate_pairs p where p.entity = :entity and p.decision = 'open' and not exists"
            " (select from unnest(cast(:lefts as bigint[]), cast(:rights as bigint[])) as k(left_id, right_id)"
            " where k.left_id = p.left_id and k.right_id = p.right_id)"
        ),
        {"entity": entity, "lefts": [pair.left for pair in pairs], "rights": [pair.right for pair in pairs]},
    )


# --- decisions --------------------------------------------------------------------------------------------------------


def fetch_pair(connection: Connection, pair_id: int) -> dict[str, Any]:
    """One pair as report.duplicates has it, with its records' ids.

    Raises:
        UsageError: there is none of that number.
    """
    row = (
        connection.execute(
            text(
                "select d.*, p.left_id, p.right_id from report.duplicates d join ops.duplicate_pairs p using (pair_id)"
                " where d.pair_id = :pair_id"
            ),
            {"pair_id": pair_id},
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise UsageError(f"No pair has the number {pair_id}.", hint="`kontor duplicates list` shows them.")
    return dict(row)


def decide(connection: Connection, pair_id: int, decision: str, reason: str, actor: str) -> None:
    """Remember what a person decided of a pair.

    Raises:
        UsageError: no such pair or decision, or no reason.
        Refused: the pair is merged; undo that first.
    """
    if decision not in DECISIONS:
        raise UsageError(f"{decision!r} is no decision.", hint=f"Choose one of: {', '.join(DECISIONS)}.")
    if not reason.strip():
        raise UsageError("A pair is decided without a reason.", hint="Add --reason 'why'.")
    if fetch_pair(connection, pair_id)["merged"]:
        raise Refused(f"Pair {pair_id} is merged.", hint=f"`kontor duplicates undo {pair_id} --live` takes it apart.")
    connection.execute(
        text(
            "update ops.duplicate_pairs set decision = :decision, decided_by = :actor, decided_at = now(),"
            " reason = :reason where pair_id = :pair_id"
        ),
        {"pair_id": pair_id, "decision": decision, "actor": actor, "reason": reason.strip()},
    )


# --- merging ----------------------------------------------------------------------------------------------------------


def propose(connection: Connection, pair_id: int, keep: str | None = None) -> Proposal:
    """What merging a pair of customers would do. The older record is kept unless ``keep`` names the other's number.

    Of each field the kept value stands; where it has none, the other's. Nothing is changed.

    Raises:
        UsageError: the pair is of contacts, or ``keep`` is neither of its customers.
        Refused: one of the two is merged already.
    """
    pair = fetch_pair(connection, pair_id)
    if pair["entity"] != "organization":
        raise UsageError("Contacts are not merged here.", hint="End the one that is wrong in the customer list.")
    rows = [_organization(connection, pair[side]) for side in ("left_id", "right_id")]
    if keep is not None and keep not in [row["customer_number"] for row in rows]:
        raise UsageError(f"Customer {keep} is not of pair {pair_id}.", hint="`kontor duplicates show` names the two.")
    if keep == rows[1]["customer_number"]:
        rows.reverse()
    kept, merged = rows
    for row in rows:
        if row["merged_into"] is not None:
            raise Refused(f"Customer {row['customer_number']} is merged into another already. Nothing was changed.")
    ids = {"kept": kept["organization_id"], "merged": merged["organization_id"]}
    counts = connection.execute(text(_MOVING), ids).one()
    return Proposal(
        pair_id, ids["kept"], kept["customer_number"], ids["merged"], merged["customer_number"],
        tuple(_field(name, kept[name], merged[name]) for name in FIELDS),
        counts.invoices, counts.contacts, tuple(counts.colliding or ()), counts.colliding_contacts,
    )  # fmt: skip


def _field(name: str, kept: object, merged: object) -> dict[str, object]:
    return {"field": name, "kept": kept, "merged": merged, "result": merged if kept in (None, "") else kept}


def _organization(connection: Connection, organization_id: int) -> Mapping[str, Any]:
    found = connection.execute(
        text("select * from crm.organizations where organization_id = :id for update"), {"id": organization_id}
    )
    return dict(found.mappings().one())


_MOVING = """
select (select count(*) from crm.invoices where organization_id = :merged)::integer as invoices,
       (select count(*) from crm.contacts m where m.organization_id = :merged and not exists (
           select from crm.contacts k where k.organization_id = :kept and k.contact_key = m.contact_key))::integer
           as contacts,
       (select array_agg(m.invoice_number order by m.invoice_number) from crm.invoices m
        join crm.invoices k on k.organization_id = :kept and k.source = m.source
        and k.invoice_number = m.invoice_number where m.organization_id = :merged) as colliding,
       (select count(*) from crm.contacts m join crm.contacts k using (contact_key)
        where m.organization_id = :merged and k.organization_id = :kept)::integer as colliding_contacts
"""


def merge(connection: Connection, proposal: Proposal, actor: str, reason: str) -> int:
    """Do what was proposed, as the owner, in the caller's transaction; returns the number of the merge.

    Raises:
        Refused: both customers have an invoice of the same number, which cannot be both.
    """
    if proposal.colliding_invoices:
        raise Refused(
            f"Customers {proposal.kept_number} and {proposal.merged_number} both have"
            f" {', '.join(proposal.colliding_invoices[:5])}. Nothing was changed.",
            hint="One of each is wrong; have accounting correct its ledger, then merge.",
        )
    name_session(connection, None, actor)
    ids = {"kept": proposal.kept_id, "merged": proposal.merged_id}
    before = {str(item["field"]): item["kept"] for item in proposal.fields if item["kept"] != item["result"]}
    after = {str(item["field"]): item["result"] for item in proposal.fields if item["kept"] != item["result"]}
    _set_fields(connection, proposal.kept_id, after)
    moved = {
        "invoices": connection.scalars(text(_MOVE_INVOICES), ids).all(),
        "contacts": connection.scalars(text(_MOVE_CONTACTS), ids).all(),
        "merged_before": connection.scalars(text(_FOLLOW), ids).all(),
    }
    connection.execute(text("update crm.organizations set merged_into = :kept where organization_id = :merged"), ids)
    _classes_are_due(connection, moved["invoices"])
    decide(connection, proposal.pair_id, "same", reason, actor)
    return int(
        connection.execute(
            text(_KEEP_MERGE),
            {**ids, "pair_id": proposal.pair_id, "before": json.dumps(before, default=str),
             "after": json.dumps(after, default=str), "moved": json.dumps({k: list(v) for k, v in moved.items()}),
             "actor": actor},
        ).scalar_one()
    )  # fmt: skip


def _set_fields(connection: Connection, organization_id: int, values: Mapping[str, object]) -> None:
    if values:
        changes = ", ".join(f"{name} = :{name}" for name in values)
        connection.execute(
            text(f"update crm.organizations set {changes}, updated_at = now() where organization_id = :id"),
            {**values, "id": organization_id},
        )


_MOVE_INVOICES = "update crm.invoices set organization_id = :kept where organization_id = :merged returning invoice_id"
# A contact of both stays where it is: it is the same person, and the kept customer has it already.
_MOVE_CONTACTS = """
update crm.contacts m set organization_id = :kept
where m.organization_id = :merged and not exists (
    select from crm.contacts k where k.organization_id = :kept and k.contact_key = m.contact_key)
returning m.contact_id
"""
_FOLLOW = "update crm.organizations set merged_into = :kept where merged_into = :merged returning organization_id"
_KEEP_MERGE = """
insert into ops.duplicate_merges (pair_id, kept_id, merged_id, values_before, values_after, moved, actor)
values (:pair_id, :kept, :merged, cast(:before as jsonb), cast(:after as jsonb), cast(:moved as jsonb), :actor)
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

    Raises:
        UsageError: the pair is not merged.
    """
    row = (
        connection.execute(
            text("select * from ops.duplicate_merges where pair_id = :pair_id and undone_at is null for update"),
            {"pair_id": pair_id},
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise UsageError(f"Pair {pair_id} is not merged.", hint="`kontor duplicates list --state all` shows which are.")
    name_session(connection, None, actor)
    ids = {"kept": row["kept_id"], "merged": row["merged_id"]}
    invoices = {**ids, "ids": row["moved"]["invoices"]}
    contacts = {**ids, "ids": row["moved"]["contacts"]}
    back = {
        "invoices": connection.execute(text(_INVOICES_BACK), invoices).rowcount,
        "contacts": connection.execute(text(_CONTACTS_BACK), contacts).rowcount,
    }
    connection.execute(text("update crm.organizations set merged_into = null where organization_id = :merged"), ids)
    connection.execute(
        text("update crm.organizations set merged_into = :merged where organization_id = any(:ids)"),
        {**ids, "ids": row["moved"]["merged_before"]},
    )
    standing = _organization(connection, row["kept_id"])
    unchanged = {
        name: value
        for name, value in row["values_before"].items()
        if json.dumps(standing[name], default=str) == json.dumps(row["values_after"][name], default=str)
    }
    _set_fields(connection, row["kept_id"], unchanged)
    _classes_are_due(connection, row["moved"]["invoices"])
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
    return {**back, "fields": len(unchanged)}


# What a later file added under the merged number stays with the kept customer until that file is corrected.
_INVOICES_BACK = """
update crm.invoices i set organization_id = :merged
where i.invoice_id = any(:ids) and i.organization_id = :kept
"""
_CONTACTS_BACK = """
update crm.contacts c set organization_id = :merged
where c.contact_id = any(:ids) and c.organization_id = :kept
"""
