"""Pairs of records that may be one: found, reviewed and decided.

A decision is remembered: a pair that was called different is never proposed again. What merging does stands in
:mod:`tasks.quality.merging_store`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.errors import Refused, UsageError
from tasks.matching.candidates import Pair
from tasks.matching.keys_store import refresh_keys
from tasks.matching.score import MODELS, Record, Scored, score_pair
from tasks.matching.splink_batch import MATCHED_BY, find_by_splink, require_installed
from tasks.matching.store import DuplicateRule, fetch_records, fetch_rules, find_among, find_of

CUSTOMER_ENTITIES = ("contact", "organization")
ENTITIES = (*CUSTOMER_ENTITIES, "product")
DECISIONS = ("same", "different", "related")


def note_duplicates(
    connection: Connection,
    run_id: int | None,
    as_of: date,
    *,
    everything: bool,
    entities: Sequence[str] = CUSTOMER_ENTITIES,
    splink: bool = False,
) -> dict[str, int]:
    """Bring keys and pairs up to date; returns the open pairs per entity that are new.

    ``everything`` compares all records anew and drops open pairs that are alike no more; else what changed is compared.
    With ``splink`` customers are compared by Splink too, and what it alone finds is added.

    Raises:
        UsageError: Splink is asked for and not installed; nothing is compared.
    """
    if splink:
        require_installed()
    found = {}
    changed = {entity: refresh_keys(connection, entity) for entity in entities}
    for entity in entities:
        rules = fetch_rules(connection, entity, as_of)
        if everything:
            records = fetch_records(connection, entity)
            pairs = find_among(entity, records, rules)
            if entity == "organization":
                pairs += _only_by_splink(records, pairs, rules) if splink else []
                pairs += _still_alike(connection, records, pairs, rules, asked_splink=splink)
            _drop_stale(connection, entity, pairs)
        else:
            pairs = find_of(connection, entity, changed[entity], rules)
        found[f"duplicate_{entity}s"] = _keep(connection, entity, pairs, run_id)
    return found


def _only_by_splink(records: Mapping[int, Record], pairs: Sequence[Pair], rules: Sequence[DuplicateRule]) -> list[Pair]:
    """What Splink finds and we do not, at least as likely as the rule of names asks."""
    least = min((float(rule.threshold) for rule in rules if rule.matched_by == "name"), default=1.0)
    known = {(pair.left, pair.right) for pair in pairs}
    return [pair for pair in find_by_splink(records, least) if (pair.left, pair.right) not in known]


def _still_alike(
    connection: Connection,
    records: Mapping[int, Record],
    pairs: Sequence[Pair],
    rules: Sequence[DuplicateRule],
    *,
    asked_splink: bool,
) -> list[Pair]:
    """Open pairs of customers that met otherwise than all do here and are as alike as before.

    An import meets names by their trigrams, Splink by keys of its own: what they found waits for a person until its
    records differ, or until Splink is asked again and finds it no more.
    """
    thresholds = {rule.matched_by: float(rule.threshold) for rule in rules if rule.matched_by == "name"}
    if not asked_splink:
        thresholds[MATCHED_BY] = _MORE_LIKELY_ONE
    known = {(pair.left, pair.right) for pair in pairs}
    fields, prior = MODELS["organization"]
    kept = []
    for left, right, matched_by, score in connection.execute(text(_OPEN)):
        if (left, right) in known or left not in records or right not in records:
            continue
        scored = score_pair(records[left], records[right], fields, prior)
        if any(scored.score >= thresholds[name] for name in matched_by if name in thresholds):
            by_splink = matched_by == [MATCHED_BY]
            kept.append(Pair(left, right, Scored(float(score), scored.fields) if by_splink else scored, (*matched_by,)))
    return kept


_MORE_LIKELY_ONE = 0.5
_OPEN = """
select left_id, right_id, matched_by, score from ops.duplicate_pairs
where entity = 'organization' and decision = 'open' order by pair_id
"""


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
