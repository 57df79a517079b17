"""Retention: policies, legal holds, plans of what goes, erasure requests, the ledger's copy, and who took data out.

Needed by retention_purge, privacy_report, `kontor erase` and the replay after a restore (tasks/erasures, tasks/privacy,
tasks/retention).
Months: tables of which rows are only ever added to are kept by months, made ahead by ops.prepare_months.
Locks: SHARE UPDATE EXCLUSIVE on five tables while their fill factor is set, which holds up nobody who reads or writes.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and let the role that erases do so where personal data stands."""
    for statement in (*_TABLES, *_INDEXES, *_ROOM, *_MONTHS, *_GRANTS):
        op.execute(sa.text(statement.replace(":", r"\:")))


def downgrade() -> None:
    """Drop the tables; the ledger outside the database stays, and so do the months of other areas' tables."""
    for function in ("prepare_months(date, integer)", "hold_month(regclass)", "drop_month(regclass)"):
        op.execute(f"drop function ops.{function}")
    for table in (
        "ops.privacy_letters",
        "ops.egress_log",
        "ops.erased_subjects",
        "ops.erasure_ledger",
        "ops.erasure_requests",
        "ops.retention_plan_items",
        "ops.retention_plans",
        "ops.legal_holds",
        "rules.retention_policy",
    ):
        op.execute(f"drop table {table}")
    for table in ("crm.invoices", "crm.invoice_states", "crm.ledger_entries", "ops.run_ledger", "landing.feed_files"):
        op.execute(f"alter table {table} reset (fillfactor)")


_TABLES = (
    """
create table rules.retention_policy (
    retention_policy_id bigint generated always as identity,
    rule_id text not null,
    version integer not null,
    position integer not null,
    entity text not null,
    country text not null default '*',
    purpose text not null,
    legal_basis text not null,
    source text not null,
    clock text not null,
    period_months integer not null,
    period_days integer not null default 0,
    from_year_end boolean not null default false,
    action text not null,
    columns text not null,
    largest_share numeric(5, 4) not null default 0.1,
    always_allowed integer not null default 100,
    owner text not null,
    valid daterange not null,
    author text not null,
    reason text not null,
    constraint retention_policy_pkey primary key (retention_policy_id),
    constraint retention_policy_rule_id_version_key unique (rule_id, version),
    constraint retention_policy_one_version exclude using gist (rule_id with =, valid with &&),
    constraint retention_policy_one_position exclude using gist (position with =, valid with &&),
    constraint retention_policy_country_check check (country = '*' or country ~ '^[A-Z]{2}$'),
    constraint retention_policy_period_check
        check (period_months between 0 and 1200 and period_days between 0 and 36500),
    constraint retention_policy_cap_check check (largest_share between 0 and 1 and always_allowed >= 0),
    constraint retention_policy_action_check check (action in ('delete', 'anonymise', 'keep')),
    constraint retention_policy_valid_not_empty_check check (not isempty(valid))
)
""",
    """
create table ops.legal_holds (
    hold_id bigint generated always as identity,
    reference uuid not null default gen_random_uuid(),
    case_number text not null,
    entity text not null,
    subject uuid not null,
    reason text not null,
    author text not null,
    placed_at timestamptz not null default now(),
    review_on date not null,
    released_at timestamptz,
    released_by text,
    release_reason text,
    constraint legal_holds_pkey primary key (hold_id),
    constraint legal_holds_reference_key unique (reference),
    constraint legal_holds_entity_check check (entity in ('crm.organizations', 'crm.contacts')),
    constraint legal_holds_released_check check (
        (released_at is null) = (released_by is null) and (released_at is null) = (release_reason is null))
)
""",
    """
create table ops.retention_plans (
    plan_id bigint generated always as identity,
    run_id bigint not null,
    as_of date not null,
    policies_sha256 text not null,
    state text not null default 'planned',
    needs_approval boolean not null,
    made_by text not null,
    made_at timestamptz not null,
    approved_by text,
    approved_at timestamptz,
    ended_at timestamptz,
    constraint retention_plans_pkey primary key (plan_id),
    constraint retention_plans_run_id_fkey foreign key (run_id) references ops.run_ledger (run_id) on delete cascade,
    constraint retention_plans_state_check check (state in ('planned', 'approved', 'applying', 'applied', 'withdrawn')),
    constraint retention_plans_approved_check check ((approved_by is null) = (approved_at is null)),
    constraint retention_plans_second_person_check check (approved_by <> made_by)
)
""",
    """
create table ops.retention_plan_items (
    plan_id bigint not null,
    position integer not null,
    rule_id text not null,
    rule_version integer not null,
    entity text not null,
    action text not null,
    strategy text not null,
    horizon date not null,
    stored bigint not null,
    due bigint not null,
    held bigint not null,
    sample_ids bigint[] not null default '{}',
    estimated_bytes bigint not null,
    done bigint not null default 0,
    reached bigint not null default 0,
    ended_at timestamptz,
    constraint retention_plan_items_pkey primary key (plan_id, position),
    constraint retention_plan_items_plan_id_fkey foreign key (plan_id)
        references ops.retention_plans (plan_id) on delete cascade,
    constraint retention_plan_items_strategy_check check (strategy in ('keyset', 'months', 'rows', 'pages', 'files')),
    constraint retention_plan_items_counts_check check (least(stored, due, held, done, estimated_bytes) >= 0)
)
""",
    """
create table ops.erasure_requests (
    request_id bigint generated always as identity,
    reference uuid not null default gen_random_uuid(),
    state text not null default 'open',
    author text not null,
    reason text not null,
    received_at timestamptz not null,
    found jsonb not null default '{}',
    erased jsonb not null default '{}',
    left_standing jsonb not null default '{}',
    certificate text,
    ended_at timestamptz,
    constraint erasure_requests_pkey primary key (request_id),
    constraint erasure_requests_reference_key unique (reference),
    constraint erasure_requests_state_check check (state in ('open', 'erased', 'incomplete')),
    constraint erasure_requests_ended_at_check check ((state = 'open') = (ended_at is null))
)
""",
    """
create table ops.erasure_ledger (
    sequence bigint not null,
    at timestamptz not null,
    kind text not null,
    entity text not null,
    rule_id text not null,
    rule_version integer not null,
    reference text not null,
    subjects integer not null,
    line_sha256 text not null,
    constraint erasure_ledger_pkey primary key (sequence),
    constraint erasure_ledger_kind_check check (kind in ('erasure', 'request', 'void', 'hold', 'release'))
)
""",
    """
create table ops.erased_subjects (
    erased_subject_id bigint generated always as identity,
    sequence bigint not null,
    entity text not null,
    external_id uuid,
    key_hash text,
    address_hash text,
    constraint erased_subjects_pkey primary key (erased_subject_id),
    constraint erased_subjects_sequence_fkey foreign key (sequence)
        references ops.erasure_ledger (sequence) on delete cascade
)
""",
    """
create table ops.privacy_letters (
    kind text not null,
    day date not null,
    run_id bigint not null,
    at timestamptz not null,
    constraint privacy_letters_pkey primary key (kind, day),
    constraint privacy_letters_run_id_fkey foreign key (run_id) references ops.run_ledger (run_id) on delete cascade,
    constraint privacy_letters_kind_check check (kind in ('month', 'unusual'))
)
""",
    """
create table ops.egress_log (
    egress_id bigint generated always as identity,
    at timestamptz not null,
    actor text not null,
    what text not null,
    format text not null,
    row_count bigint not null,
    personal_columns text[] not null,
    constraint egress_log_pkey primary key (egress_id, at)
) partition by range (at)
""",
    "create table ops.egress_log_other partition of ops.egress_log default",
)

_INDEXES = (
    "create index legal_holds_standing_idx on ops.legal_holds (subject) where released_at is null",
    "create index retention_plans_run_id_idx on ops.retention_plans (run_id)",
    "create index erased_subjects_sequence_idx on ops.erased_subjects (sequence)",
    "create index erased_subjects_key_hash_idx on ops.erased_subjects (key_hash)",
    "create index erased_subjects_address_hash_idx on ops.erased_subjects (address_hash)",
    "create index privacy_letters_run_id_idx on ops.privacy_letters (run_id)",
    "create index egress_log_at_idx on ops.egress_log (at)",
)

# Room on each page, so that blanking a column that no index has stays on its page and touches no index (HOT).
_ROOM = (
    "alter table crm.invoices set (fillfactor = 85)",
    "alter table crm.invoice_states set (fillfactor = 85)",
    "alter table crm.ledger_entries set (fillfactor = 85)",
    "alter table ops.run_ledger set (fillfactor = 70)",
    "alter table landing.feed_files set (fillfactor = 70)",
)

# Months are attached, not made in place: that holds up nobody who writes to the table, and who reads it for a moment.
# They end where UTC's do. A month that begins while rows of it lie in the partition for all others stays there.
_PREPARE = """
create function ops.prepare_months(today date, ahead integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    kept record;
    month date;
    part text;
    bounds text;
    taken boolean;
    made integer := 0;
begin
    perform pg_advisory_xact_lock(hashtextextended('kontor months', 0));
    for kept in select * from (values ('history.change_log', 'changed_at'), ('ops.egress_log', 'at'),
                                      ('outbox.deliveries', 'at')) t (relation, key_column) loop
        for step in 0 .. ahead loop
            month := (date_trunc('month', today) + make_interval(months => step))::date;
            part := kept.relation || to_char(month, '_YYYY_MM');
            continue when to_regclass(part) is not null;
            bounds := format('(%L) to (%L)', month::timestamp at time zone 'UTC',
                             (month + interval '1 month') at time zone 'UTC');
            execute format('select exists (select from %s_other where %I >= $1 and %2$I < $2)',
                           kept.relation, kept.key_column)
                into taken using month::timestamp at time zone 'UTC', (month + interval '1 month') at time zone 'UTC';
            continue when taken;
            execute format('create table %s (like %s including all excluding identity)', part, kept.relation);
            execute format('revoke all on %s from kontor_flows, kontor_retention', part); -- all go by the whole table
            if kept.relation = 'history.change_log' then
                execute format('create trigger refuse before insert or update or delete or truncate on %s'
                               ' for each statement execute function history.refuse_change()', part);
                execute format('alter table %s enable always trigger refuse', part);
            end if;
            execute format('alter table %s attach partition %s for values from %s', kept.relation, part, bounds);
            made := made + 1;
        end loop;
    end loop;
    return made;
end
$$
"""

# A month of history is never dropped: its chain is verified through the entries. What may be is named here alone.
_DROPPABLE = """
    if not exists (select from pg_inherits where inhrelid = part
                   and inhparent in ('outbox.deliveries'::regclass, 'ops.egress_log'::regclass))
       or part::text !~ '_[0-9]{4}_[0-9]{2}$' then
        raise exception using errcode = 'insufficient_privilege',
            message = format('%s is no month that may be dropped', part);
    end if;
"""

_MONTHS = (
    _PREPARE,
    f"""
create function ops.hold_month(part regclass) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
{_DROPPABLE}
    execute format('lock table %s in share mode', part);
end
$$
""",
    f"""
create function ops.drop_month(part regclass) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
{_DROPPABLE}
    execute format('drop table %s', part);
end
$$
""",
    # Schema ops gives its functions to whoever works there; these are not for everybody.
    "revoke execute on function ops.prepare_months, ops.hold_month, ops.drop_month from kontor_flows, kontor_finance",
    "grant execute on function ops.prepare_months(date, integer) to kontor_flows, kontor_retention",
    "grant execute on function ops.hold_month(regclass), ops.drop_month(regclass) to kontor_retention",
    "select ops.prepare_months(current_date, 2)",
)

# Flows plan and read; what destroys, and the record of it, belong to kontor_retention alone.
_GRANTS = (
    (
        "grant select on rules.retention_policy, ops.legal_holds, ops.retention_plans, ops.retention_plan_items,"
        " ops.erasure_requests, ops.erasure_ledger, ops.erased_subjects, ops.egress_log"
        " to kontor_flows, kontor_retention"
    ),
    "grant insert on ops.egress_log to kontor_flows, kontor_retention",
    "grant select, insert, delete on ops.privacy_letters to kontor_flows",
    "grant select on ops.privacy_letters to kontor_retention",
    (
        "grant insert, update on ops.legal_holds, ops.retention_plans, ops.retention_plan_items, ops.erasure_requests"
        " to kontor_retention"
    ),
    "grant insert on ops.erasure_ledger, ops.erased_subjects to kontor_retention",
    "grant delete on ops.erased_subjects, ops.retention_plans, ops.egress_log to kontor_retention",
    # What other areas keep about people: schema outbox, and what ops and rules say of who did what.
    "grant usage on schema outbox to kontor_retention",
    "grant select, update, delete on all tables in schema outbox to kontor_retention",
    "grant select on all tables in schema crm, landing, rules, ops to kontor_retention",
    "grant update, delete on all tables in schema crm, landing to kontor_retention",
    # A person may stand in any text; what proves that somebody was erased is not among it.
    "grant update on all tables in schema ops to kontor_retention",
    (
        "revoke update on ops.erasure_ledger, ops.erased_subjects, ops.egress_log, ops.egress_log_other,"
        " ops.installation from kontor_retention"
    ),
    ("alter default privileges in schema crm, landing, ops, outbox grant select, update on tables to kontor_retention"),
    (
        "grant delete on ops.payer_class_history, ops.reminder_decisions, ops.reminder_holds,"
        " ops.reminder_tasks, ops.duplicate_merges, ops.duplicate_pairs, ops.instructions to kontor_retention"
    ),
)
