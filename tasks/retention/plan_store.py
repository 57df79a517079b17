"""Plans in the database: the rules in force, what they let go of today, and who agreed to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from configs.settings import Settings
from tasks.erasures.allowlist import ALLOWLIST, read_allowlist
from tasks.erasures.identities import IDENTITIES
from tasks.errors import Refused, UsageError
from tasks.retention.entities import ENTITIES
from tasks.retention.months_store import DROPPABLE
from tasks.retention.outputs import CLOCKS, CONTENTS, is_output
from tasks.retention.outputs_store import find_output, output_item
from tasks.retention.planning import Item, Plan, is_wide, way_of
from tasks.retention.policies import Policy, Schema, check, digest_of
from tasks.retention.selection import Selection, select_due

_SAMPLE = 5
_SCHEMAS = ["crm", "landing", "rules", "outbox", "history", "ops"]


def read_policies(connection: Connection, on: date) -> list[Policy]:
    """The rules in force on that day, in the order in which they are applied."""
    rows = connection.execute(
        text(
            "select rule_id, version, position, entity, country, purpose, legal_basis, source, clock, period_months,"
            " period_days, from_year_end, action, columns, largest_share, always_allowed, owner"
            " from rules.retention_policy where valid @> cast(:day as date) order by position"
        ),
        {"day": on},
    ).mappings()
    return [Policy(**row) for row in rows]


def read_schema(connection: Connection, allowlist: Path = ALLOWLIST) -> Schema:
    """What the rules are checked against: this database's columns and references, and the list of personal ones."""
    columns: dict[str, set[str]] = {}
    required: dict[str, set[str]] = {}
    for row in connection.execute(text(_COLUMNS), {"schemas": _SCHEMAS}):
        columns.setdefault(row.name, set()).add(row.column_name)
        if row.required:
            required.setdefault(row.name, set()).add(row.column_name)
    outputs = {name: frozenset({CONTENTS}) for name in CLOCKS}
    listed = read_allowlist(allowlist)
    references = {(row.child, row.parent) for row in connection.execute(text(_REFERENCES), {"schemas": _SCHEMAS})}
    return Schema(
        columns={name: frozenset(found) for name, found in columns.items()} | outputs,
        personal={name: frozenset(item["personal"]) for name, item in listed.items() if item["personal"]} | outputs,
        required={name: frozenset(required.get(name, ())) for name in columns},
        references=frozenset(pair for pair in references if pair[1] not in IDENTITIES),
        clocks={name: frozenset(entity.clocks) for name, entity in ENTITIES.items()}
        | {name: frozenset({clock}) for name, clock in CLOCKS.items()},
    )


_COLUMNS = """
select n.nspname || '.' || c.relname as name, a.attname as column_name, a.attnotnull as required
from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname = any(:schemas) and c.relkind in ('r', 'p') and not c.relispartition and a.attnum > 0
  and not a.attisdropped
"""

# References that refuse a parent's end while a child stands; those that cascade or let go by themselves do not count.
_REFERENCES = """
select c.conrelid::regclass::text as child, c.confrelid::regclass::text as parent, a.attname as column_name,
       exists (select from pg_index i where i.indrelid = c.conrelid and i.indpred is null
               and i.indkey[0] = c.conkey[1]) as indexed
from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
where c.contype = 'f' and c.confdeltype in ('a', 'r') and c.connamespace::regnamespace::text = any(:schemas)
order by 1, 3
"""


def read_references(connection: Connection, table: str) -> list[tuple[str, str]]:
    """Tables and columns that refer to this one and would refuse its end.

    Raises:
        Refused: one of them has no index: each row that goes would read that whole table.
    """
    rows = connection.execute(text(_REFERENCES), {"schemas": _SCHEMAS}).all()
    own = [row for row in rows if row.parent == table]
    bare = [f"{row.child}.{row.column_name}" for row in own if not row.indexed]
    if bare:
        raise Refused(
            f"{', '.join(bare)} refers to {table} and has no index. Nothing was changed.",
            hint="Add an index that begins with that column; each row that goes would read the whole table otherwise.",
        )
    return [(row.child, row.column_name) for row in own]


@dataclass(frozen=True)
class Rules:
    """The rules in force on a day, checked, with what the selections need."""

    policies: tuple[Policy, ...]
    as_of: date
    settings: Settings

    @property
    def zone(self) -> str:
        """The business time zone."""
        return self.settings.business_timezone

    @property
    def digest(self) -> str:
        """Their fingerprint."""
        return digest_of(self.policies)

    def policy(self, rule_id: str) -> Policy:
        """The rule of that id; UsageError where none is in force."""
        for policy in self.policies:
            if policy.rule_id == rule_id:
                return policy
        raise UsageError(f"No retention rule {rule_id} is in force.", hint="`kontor retention lint` lists the rules.")


def checked_rules(connection: Connection, *, as_of: date, on: date, settings: Settings) -> Rules:
    """The rules in force ``on`` a day for what is due ``as_of``; Refused where lint finds anything."""
    policies = read_policies(connection, on)
    check(policies, read_schema(connection))
    return Rules(tuple(policies), as_of, settings)


def selection_of(connection: Connection, rules: Rules, rule_id: str, through: date | None = None) -> Selection:
    """The rows that one rule lets go of now; ``through`` is a plan's horizon. What something refers to is not among."""
    policy = rules.policy(rule_id)
    references = [] if policy.entity in IDENTITIES else read_references(connection, policy.entity)
    return select_due(
        policy, rules.policies, as_of=rules.as_of, zone=rules.zone, references=references, through=through
    )


def _whole_selection(rules: Rules, rule_id: str, through: date | None = None) -> Selection:
    """The same, with the rows that something refers to: what refers to them goes first, in the same plan."""
    return select_due(rules.policy(rule_id), rules.policies, as_of=rules.as_of, zone=rules.zone, through=through)


def plan_items(connection: Connection, rules: Rules) -> list[Item]:
    """What every rule that destroys something would let go of, counted now, with a few ids to look at."""
    return [_item(connection, rules, policy) for policy in rules.policies if policy.destroys]


def _item(connection: Connection, rules: Rules, policy: Policy) -> Item:
    if is_output(policy.entity):
        return output_item(connection, rules.settings, policy, rules.policies, rules.as_of)
    selection = _whole_selection(rules, policy.rule_id)
    read_references(connection, policy.entity)
    row = connection.execute(text(_count_statement(policy, selection)), dict(selection.bound)).one()
    return Item(
        position=policy.position,
        rule_id=policy.rule_id,
        rule_version=policy.version,
        entity=policy.entity,
        action=policy.action,
        strategy=way_of(
            policy,
            is_person=policy.entity in IDENTITIES,
            has_months=policy.entity in DROPPABLE,
            stored=row.stored,
            due=row.due,
        ),
        horizon=selection.horizon,
        stored=row.stored,
        due=row.due,
        held=row.held,
        sample_ids=tuple(row.sample_ids or ()),
        estimated_bytes=int(row.bytes * row.due / row.stored) if row.stored else 0,
    )


def _count_statement(policy: Policy, selection: Selection) -> str:
    return f"""
with due as materialized (
    select {selection.entity.sample_id} as id, {selection.free} as free from {policy.entity} r where {selection.due}
)
select (select count(*) from {policy.entity}) as stored, count(*) filter (where free) as due,
       count(*) filter (where not free) as held,
       coalesce((select sum(pg_table_size(relid)) from pg_partition_tree('{policy.entity}')),
                pg_table_size('{policy.entity}')) as bytes,
       (select array_agg(id order by id) from (
           select id from due where free and id is not null order by id limit {_SAMPLE}) s) as sample_ids
from due
"""


def count_due(connection: Connection, rules: Rules, item: Item) -> int:
    """How many rows an item lets go of by now, within its horizon, counted as its plan was."""
    if is_output(item.entity):
        return find_output(connection, rules.settings, item.entity, item.horizon).due
    selection = _whole_selection(rules, item.rule_id, item.horizon)
    statement = f"select count(*) from {item.entity} r where {selection.condition}"
    return int(connection.scalar(text(statement), dict(selection.bound)) or 0)


def count_left(connection: Connection, rules: Rules, item: Item) -> int:
    """How many rows could still go by an item: due, free of holds, and nothing refers to them."""
    if is_output(item.entity):
        return find_output(connection, rules.settings, item.entity, item.horizon).due
    selection = selection_of(connection, rules, item.rule_id, item.horizon)
    statement = f"select count(*) from {item.entity} r where {selection.condition}"
    return int(connection.scalar(text(statement), dict(selection.bound)) or 0)


def save_plan(
    connection: Connection, rules: Rules, items: Sequence[Item], *, run_id: int, made_by: str, now: datetime
) -> int:
    """Keep a plan with its items and return its number; plans that waited to be applied are withdrawn."""
    connection.execute(
        text(
            "update ops.retention_plans set state = 'withdrawn', ended_at = :now where state in ('planned', 'approved')"
        ),
        {"now": now},
    )
    wide = any(is_wide(item, rules.policy(item.rule_id)) for item in items)
    plan_id = int(
        connection.execute(
            text(
                "insert into ops.retention_plans (run_id, as_of, policies_sha256, needs_approval, made_by, made_at)"
                " values (:run_id, :as_of, :digest, :wide, :made_by, :now) returning plan_id"
            ),
            {
                "run_id": run_id,
                "as_of": rules.as_of,
                "digest": rules.digest,
                "wide": wide,
                "made_by": made_by,
                "now": now,
            },
        ).scalar_one()
    )
    connection.execute(
        text(_INSERT_ITEMS).bindparams(bindparam("items", type_=JSONB)),
        {"plan_id": plan_id, "items": [_row(item) for item in items]},
    )
    return plan_id


def _row(item: Item) -> dict[str, Any]:
    row = {
        name: getattr(item, name) for name in Item.__dataclass_fields__ if name not in ("done", "reached", "ended_at")
    }
    return {**row, "horizon": item.horizon.isoformat(), "sample_ids": list(item.sample_ids)}


_INSERT_ITEMS = """
insert into ops.retention_plan_items (plan_id, position, rule_id, rule_version, entity, action, strategy, horizon,
                                      stored, due, held, sample_ids, estimated_bytes)
select :plan_id, position, rule_id, rule_version, entity, action, strategy, horizon, stored, due, held, sample_ids,
       estimated_bytes
from jsonb_to_recordset(:items) as r (position integer, rule_id text, rule_version integer, entity text, action text,
                                      strategy text, horizon date, stored bigint, due bigint, held bigint,
                                      sample_ids bigint[], estimated_bytes bigint)
"""


def read_plan(connection: Connection, plan_id: int) -> Plan:
    """A plan with its items, in their order.

    Raises:
        UsageError: there is none of that number.
    """
    row = (
        connection.execute(
            text(
                "select plan_id, as_of, policies_sha256, state, needs_approval, made_by, made_at, approved_by"
                " from ops.retention_plans where plan_id = :plan_id"
            ),
            {"plan_id": plan_id},
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise UsageError(
            f"There is no plan {plan_id}.", hint="`kontor retention preview` makes one and says its number."
        )
    items = connection.execute(
        text(
            "select position, rule_id, rule_version, entity, action, strategy, horizon, stored, due, held, sample_ids,"
            " estimated_bytes, done, reached, ended_at from ops.retention_plan_items where plan_id = :plan_id"
            " order by position"
        ),
        {"plan_id": plan_id},
    ).mappings()
    return Plan(**row, items=tuple(Item(**{**item, "sample_ids": tuple(item["sample_ids"])}) for item in items))


def newest_plan_id(connection: Connection) -> int:
    """The number of the newest plan that can still be applied; Refused where there is none."""
    found = connection.scalar(
        text(
            "select plan_id from ops.retention_plans where state in ('planned', 'approved', 'applying')"
            " order by state = 'applying' desc, plan_id desc limit 1"
        )
    )
    if found is None:
        raise Refused("There is no plan to apply.", hint="Make one with `kontor retention preview`.")
    return int(found)


def approve_plan(connection: Connection, plan_id: int, *, by: str, now: datetime) -> Plan:
    """Note that a second person agrees to a plan; returns it.

    Raises:
        Refused: it is the one who made it, or the plan no longer waits.
    """
    plan = read_plan(connection, plan_id)
    if by == plan.made_by:
        raise Refused(
            f"Plan {plan_id} was made by the same person who would approve it. Nothing was changed.",
            hint="Ask somebody else to look at it; on a shared account they say who they are with --by.",
        )
    if plan.state not in ("planned", "approved"):
        raise Refused(
            f"Plan {plan_id} is {plan.state} already.", hint="Make a new plan with `kontor retention preview`."
        )
    connection.execute(
        text(
            "update ops.retention_plans set state = 'approved', approved_by = :by, approved_at = :now"
            " where plan_id = :plan_id"
        ),
        {"plan_id": plan_id, "by": by, "now": now},
    )
    return read_plan(connection, plan_id)


def mark_plan(connection: Connection, plan_id: int, state: str, now: datetime | None = None) -> None:
    """Say that a plan is being applied, or with ``now`` that it was."""
    connection.execute(
        text("update ops.retention_plans set state = :state, ended_at = :now where plan_id = :plan_id"),
        {"plan_id": plan_id, "state": state, "now": now},
    )
