"""History: every change to organisations, contacts and roles, recorded by the database, append-only and sealed.

Locks: ``create trigger`` takes SHARE ROW EXCLUSIVE on the three tables of ``crm`` until the end of the migration, so
that readers go on, writers wait, and no change falls between the baseline and the triggers.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Columns that say where a row was last seen, not what it says: a change in them alone is no entry. ``external_id``
# stands in every entry already.
_PASSED_OVER = "external_id,spoken,seen_as_of,seen_revision,feed_file_id,created_at,updated_at"

# Table, its key, and the record it belongs to.
_RECORDED = (
    ("organizations", "organization_id", ""),
    ("contacts", "contact_id", "organization_id"),
    ("contact_roles", "contact_role_id", "contact_id"),
)


def upgrade() -> None:
    """Create the tables, the functions that write them, what stands there now as a baseline, and then the guards."""
    op.execute("create schema if not exists history")
    op.execute("set local datestyle = 'ISO, YMD'")
    _create_tables()
    for function in (_CALLER, _EITHER, _CAPTURE, _RECORD, _REFUSE, _COMMITMENT, _COMMIT_WHOLE, _PART, _ERASE):
        op.execute(sa.text(function.replace(":", r"\:")))
    for table, key, parent in _RECORDED:
        _record_from_now_on(table, key, parent)
    # Whoever names a part of it meets the guard as well; the trigger of the whole is for whoever names the whole.
    for table in ("change_log", "change_log_other"):
        _guard(table, "insert or update or delete or truncate")
    _guard("seals", "update or delete or truncate")
    op.execute(sa.text(_VIEW.replace(":", r"\:")))
    for statement in _GRANTS:
        op.execute(statement)


def _create_tables() -> None:
    op.create_table(
        "change_log",
        sa.Column("entry_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("record_id", sa.BigInteger(), nullable=False),
        sa.Column("external_id", sa.Uuid(), nullable=True),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("column_names", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("old_values", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("new_values", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("salt", sa.Uuid(), nullable=True),
        sa.Column("salts", postgresql.JSONB(), nullable=True),
        sa.Column("commitments", postgresql.JSONB(), nullable=True),
        sa.CheckConstraint(
            "operation in ('baseline', 'insert', 'update', 'delete', 'erase')", name=op.f("change_log_operation_check")
        ),
        sa.CheckConstraint(
            "(salt is null) = (salts is not null and commitments is not null)", name=op.f("change_log_salt_check")
        ),
        sa.CheckConstraint(
            "jsonb_typeof(old_values) = 'object' and jsonb_typeof(new_values) = 'object'"
            " and (salts is null or jsonb_typeof(salts) = 'object')"
            " and (commitments is null or jsonb_typeof(commitments) = 'object')",
            name=op.f("change_log_objects_check"),
        ),
        sa.PrimaryKeyConstraint("entry_id", "changed_at", name=op.f("change_log_pkey")),
        schema="history",
        postgresql_partition_by="RANGE (changed_at)",
    )
    op.execute("create table history.change_log_other partition of history.change_log default")
    op.create_index("change_log_record_idx", "change_log", ["table_name", "record_id"], schema="history")
    op.create_index(
        "change_log_parent_idx",
        "change_log",
        ["table_name", "parent_id"],
        schema="history",
        postgresql_where=sa.text("parent_id is not null"),
    )
    op.create_index(
        "change_log_erased_idx",
        "change_log",
        ["entry_id"],
        schema="history",
        postgresql_where=sa.text("salt is null"),
    )
    op.create_index(
        "change_log_customer_number_idx",
        "change_log",
        [sa.text("(new_values ->> 'customer_number')")],
        schema="history",
        postgresql_where=sa.text("table_name = 'organizations' and new_values ? 'customer_number'"),
    )
    op.create_table(
        "seals",
        sa.Column("seal_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("previous_root", sa.LargeBinary(), nullable=False),
        sa.Column("through_entry_id", sa.BigInteger(), nullable=False),
        sa.Column("entry_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("entry_hashes", postgresql.ARRAY(sa.LargeBinary()), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed_by", sa.Text(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "seal_number >= 1 and cardinality(entry_ids) = cardinality(entry_hashes)", name=op.f("seals_entries_check")
        ),
        sa.PrimaryKeyConstraint("seal_number", name=op.f("seals_pkey")),
        schema="history",
    )


def _record_from_now_on(table: str, key: str, parent: str) -> None:
    """Enter what the table holds now, and have every later change entered; ALWAYS, so also while replicating."""
    arguments = f"'{key}', '{parent}', '{_PASSED_OVER}'"
    events = (
        ("insert", "after insert", "referencing new table as new_rows"),
        ("update", "after update", "referencing old table as old_rows new table as new_rows"),
        ("delete", "after delete", "referencing old table as old_rows"),
        ("truncate", "before truncate", ""),
    )
    for event, moment, rows in events:
        op.execute(
            f"create trigger record_{event} {moment} on crm.{table} {rows}"
            f" for each statement execute function history.record_changes({arguments})"
        )
        op.execute(f"alter table crm.{table} enable always trigger record_{event}")
    op.execute(
        f"do $$ begin execute history.capture_statement('crm.{table}', 'BASELINE', {arguments})"
        f" using clock_timestamp(), '{table}', history.calling_role(), 'migration {revision}',"
        " cast(null as bigint); end $$"
    )


def _guard(table: str, events: str) -> None:
    op.execute(
        f"create trigger refuse before {events} on history.{table}"
        " for each statement execute function history.refuse_change()"
    )
    op.execute(f"alter table history.{table} enable always trigger refuse")


# A SECURITY DEFINER function changes current_user, but not the setting: this is whoever called it.
_CALLER = """
create function history.calling_role() returns text language sql stable
set search_path = pg_catalog, pg_temp
return case current_setting('role') when 'none' then session_user::text else current_setting('role') end
"""

# The statement is made from the catalogue each time, so that a column that a later migration adds is recorded too.
# An update joins in full: should a key ever change, the old record is entered as deleted and the new one as inserted.
_CAPTURE = """
create function history.capture_statement(recorded regclass, event text, key_column text, parent_column text,
                                          passed_over text)
returns text language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    has_old constant boolean := event in ('UPDATE', 'DELETE', 'TRUNCATE', 'ERASE');
    gathered constant text := 'jsonb_strip_nulls(jsonb_object(%L::text[], array[%s]))';
    has_new constant boolean := event in ('UPDATE', 'INSERT', 'BASELINE');
    no_salt constant uuid := '00000000-0000-0000-0000-000000000000'; -- where there is no value to hide
    identity record;
    fields record;
begin
    select bool_or(attname = 'external_id') as external into identity
    from pg_attribute where attrelid = recorded and attnum > 0 and not attisdropped;

    select string_agg(format('case when %s then %L end', changed, attname), ', ') as names,
           array_agg(attname::text)::text as keys,
           string_agg(format('case when %s then o.%I::text end', changed, attname), ', ') as olds,
           string_agg(format('case when %s then n.%I::text end', changed, attname), ', ') as news,
           string_agg(format('(%s)', changed), ' or ') as differs
    into fields
    from (
        select attname, case when has_old and has_new then format('o.%1$I is distinct from n.%1$I', attname)
                             when has_old then format('o.%I is not null', attname)
                             else format('n.%I is not null', attname) end as changed
        from pg_attribute
        where attrelid = recorded and attnum > 0 and not attisdropped and attname <> key_column
          and attname <> all (string_to_array(passed_over, ','))
        order by attnum
    ) a;

    return 'insert into history.change_log (changed_at, operation, table_name, record_id, external_id, parent_id,'
        || ' role, actor, run_id, column_names, old_values, new_values, salt) select $1, '
        || case when has_old and has_new
                then format('case when o.%1$I is null then ''insert'' when n.%1$I is null then ''delete'''
                            || ' else ''update'' end', key_column)
                when event in ('TRUNCATE', 'ERASE') then '''delete'''
                else quote_literal(lower(event)) end
        || ', $2, ' || history.either(has_old, has_new, key_column)
        || ', ' || case when identity.external then history.either(has_old, has_new, 'external_id') else 'null' end
        || ', ' || case when parent_column <> '' then history.either(has_old, has_new, parent_column) else 'null' end
        || ', $3, $4, $5, '
        || case when event = 'ERASE' then '''{}''' else 'array_remove(array[' || fields.names || ']::text[], null)' end
        || ', ' || case when has_old and event <> 'ERASE'
                        then format(gathered, fields.keys, fields.olds) else '''{}''' end || ', '
        || case when has_new then format(gathered, fields.keys, fields.news) else '''{}''' end
        || case when event = 'ERASE' then format(', %L::uuid from ', no_salt) else ', gen_random_uuid() from ' end
        || case event when 'INSERT' then 'new_rows n'
                      when 'DELETE' then 'old_rows o'
                      when 'ERASE' then 'old_rows o'
                      when 'UPDATE' then format('old_rows o full join new_rows n on n.%1$I = o.%1$I', key_column)
                      when 'TRUNCATE' then recorded::text || ' o'
                      else recorded::text || ' n' end
        || case when event = 'ERASE' then '' else ' where ' || fields.differs end;
end
$$
"""

_EITHER = """
create function history.either(has_old boolean, has_new boolean, column_name text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return case when has_old and has_new then format('coalesce(n.%1$I, o.%1$I)', column_name)
            when has_old then format('o.%I', column_name)
            else format('n.%I', column_name) end
"""

# The shared lock tells a seal that entries are under way whose ids are given but not yet visible. It comes first.
# Only tables of crm are recorded: hung on a table of somebody's own, the trigger would enter whatever that one says.
# Who deletes in order to erase (kontor_retention, having named the table) has the deletion entered without the values,
# which would go again in the next statement: such an entry names no column and so says nothing that is not so.
_RECORD = """
create function history.record_changes() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set timezone = 'UTC' set extra_float_digits = 1
as $$
begin
    if tg_table_schema <> 'crm' then
        raise exception using errcode = 'insufficient_privilege',
            message = format('a change of %I.%I is no change of a customer and is not entered in history',
                             tg_table_schema, tg_table_name);
    end if;
    perform pg_advisory_xact_lock_shared(hashtextextended('kontor history', 0));
    execute history.capture_statement(
        tg_relid, case when tg_op = 'DELETE' and current_setting('kontor.erasing', true) = tg_table_name
                            and history.calling_role() = 'kontor_retention' then 'ERASE' else tg_op end,
        tg_argv[0], tg_argv[1], tg_argv[2])
    using clock_timestamp(), tg_table_name::text, history.calling_role(),
          coalesce(nullif(current_setting('kontor.actor', true), ''), session_user::text),
          nullif(current_setting('kontor.run_id', true), '')::bigint;
    return null;
end
$$
"""

# Entries come from the recording triggers (depth 2) and from the erasing function alone. That function works as the
# owner on behalf of kontor_retention; neither of the two alone, nor a setting that anyone could make, gives that pair.
_REFUSE = """
create function history.refuse_change() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_table_name = 'change_log' and tg_op = 'INSERT' and pg_trigger_depth() > 1 then
        return null;
    end if;
    if tg_table_name = 'change_log' and tg_op in ('INSERT', 'UPDATE') and history.calling_role() = 'kontor_retention'
       and (select pg_get_userbyid(relowner) from pg_class where oid = tg_relid) = current_user then
        return null;
    end if;
    raise exception using
        errcode = 'insufficient_privilege',
        message = format('%s on history.%s is refused: history is only ever added to, by the database itself',
                         tg_op, tg_table_name),
        hint = 'To let personal values go, the role kontor_retention calls history.erase_values.';
end
$$
"""

_COMMITMENT = """
create function history.commitment(salt bytea, column_name text, old_value jsonb, new_value jsonb) returns bytea
language sql stable parallel safe set search_path = pg_catalog, pg_temp
return sha256(salt || convert_to(column_name || chr(31) || coalesce(old_value::text, '') || chr(31)
                                 || coalesce(new_value::text, ''), 'UTF8'))
"""

# First the entry that says what is erased, then the values: should either fail, neither is kept. An entry that is whole
# and loses everything, which nearly all do, has its hashes made by one expression for each column there is among them:
# a third of what taking each entry apart costs.
_ERASE = """
create function history.erase_values(of_table text, of_records bigint[], of_columns text[] default null)
returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- Asked once: for each entry anew they cost as much as entering it.
    caller constant text := history.calling_role();
    acting constant text := coalesce(nullif(current_setting('kontor.actor', true), ''), session_user::text);
    run constant bigint := nullif(current_setting('kontor.run_id', true), '')::bigint;
    no_salt constant uuid := '00000000-0000-0000-0000-000000000000'; -- where there is no value to hide
    erased bigint;
    any_parted boolean;
    whole text[];
begin
    if caller <> 'kontor_retention' then
        raise exception using errcode = 'insufficient_privilege',
            message = format('history.erase_values is for kontor_retention, not for %s', caller);
    end if;
    perform pg_advisory_xact_lock_shared(hashtextextended('kontor history', 0));

    with wanted as materialized (
        select e.record_id, e.external_id, e.parent_id, of_columns is not null or e.salt is null as parted,
               case when of_columns is null and e.salt is not null then e.column_names
                    else array(select c.name from unnest(e.column_names) as c (name)
                               where (of_columns is null or c.name = any (of_columns))
                                 and not coalesce(e.commitments ? c.name, false)) end as names
        from history.change_log e
        where e.table_name = of_table and e.record_id = any (of_records) and e.operation <> 'erase'
    ), told as materialized (
        select record_id, external_id, max(parent_id) as parent_id,
               string_agg(array_to_string(names, chr(31)), chr(31)) as names
        from wanted where names <> '{}' group by record_id, external_id
    ), shape as (
        select t.names, (select array_agg(distinct name order by name)
                         from unnest(string_to_array(t.names, chr(31))) as c (name)) as column_names
        from (select distinct names from told) t
    ), entered as (
        insert into history.change_log (changed_at, operation, table_name, record_id, external_id, parent_id, role,
                                        actor, run_id, column_names, salt)
        select clock_timestamp(), 'erase', of_table, t.record_id, t.external_id, t.parent_id, caller, acting, run,
               s.column_names, no_salt
        from told t join shape s using (names)
    )
    select coalesce(sum(cardinality(w.names)), 0), coalesce(bool_or(w.parted), false),
           (select array_agg(distinct c.name)
            from (select distinct names from wanted where not parted) n cross join unnest(n.names) as c (name))
    into erased, any_parted, whole
    from wanted w where w.names <> '{}';

    if whole is not null then
        execute history.commit_statement(whole) using of_table, of_records;
    end if;
    if any_parted then
        perform history.part_entries(of_table, of_records, of_columns);
    end if;
    return erased;
end
$$
"""

# history.commitment() in its own words: one with a search path of its own is called, not inlined.
_COMMIT_WHOLE = """
create function history.commit_statement(names text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
return 'update history.change_log e set salt = null, salts = ''{}'', old_values = ''{}'', new_values = ''{}'','
    || format(' commitments = jsonb_strip_nulls(jsonb_object(%L::text[], array[', names)
    || (select string_agg(format(
            'case when %1$L = any (e.column_names) then encode(sha256(sha256(uuid_send(e.salt) || %2$L::bytea)'
            ' || convert_to(%3$L || coalesce((e.old_values -> %1$L)::text, '''') || chr(31)'
            ' || coalesce((e.new_values -> %1$L)::text, ''''), ''UTF8'')), ''hex'') end',
            name, convert_to(name, 'UTF8'), name || chr(31)), ', ' order by place)
        from unnest(names) with ordinality as u (name, place))
    || '])) where e.table_name = $1 and e.record_id = any ($2) and e.operation <> ''erase'' and e.salt is not null'
    || ' and e.column_names <> ''{}'''
"""

_PART = """
create function history.part_entries(of_table text, of_records bigint[], of_columns text[])
returns void language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    update history.change_log e
    set salt = null, salts = k.salts, commitments = coalesce(e.commitments, '{}') || k.commitments,
        old_values = e.old_values - k.names, new_values = e.new_values - k.names
    from history.change_log s cross join lateral (
        select coalesce(array_agg(c.name) filter (where c.goes), '{}') as names,
               coalesce(jsonb_object_agg(c.name, encode(c.salt, 'hex')) filter (where not c.goes), '{}') as salts,
               coalesce(jsonb_object_agg(c.name, encode(sha256(c.salt || convert_to(
                   c.name || chr(31) || coalesce((s.old_values -> c.name)::text, '')
                          || chr(31) || coalesce((s.new_values -> c.name)::text, ''), 'UTF8')), 'hex'))
                   filter (where c.goes), '{}') as commitments
        from (
            select name, of_columns is null or name = any (of_columns) as goes,
                   coalesce(decode(s.salts ->> name, 'hex'),
                            sha256(uuid_send(s.salt) || convert_to(name, 'UTF8'))) as salt
            from unnest(s.column_names) as u (name) where not coalesce(s.commitments ? name, false)
        ) c
    ) k
    where s.entry_id = e.entry_id and s.changed_at = e.changed_at and cardinality(k.names) > 0
      and s.table_name = of_table and s.record_id = any (of_records) and s.operation <> 'erase';
end
$$
"""

_VIEW = """
create view history.changes as
select e.entry_id, e.changed_at, e.operation, e.table_name, e.record_id, e.external_id, e.parent_id, e.role, e.actor,
       e.run_id, c.column_name, e.old_values ->> c.column_name as old_value,
       e.new_values ->> c.column_name as new_value,
       e.operation <> 'erase' and coalesce(e.commitments ? c.column_name, false) as erased
from history.change_log e cross join lateral unnest(e.column_names) with ordinality as c (column_name, place)
order by e.entry_id, c.place
"""

_GRANTS = (
    "grant usage on schema history to kontor_flows, kontor_retention",
    # Nobody has UPDATE, DELETE or TRUNCATE; INSERT goes through the triggers, seals are appended by flows.
    "grant select on history.change_log, history.seals, history.changes to kontor_flows, kontor_retention",
    "grant insert on history.seals to kontor_flows",
    "grant execute on function history.calling_role() to kontor_flows, kontor_retention",
    "revoke execute on function history.record_changes() from public",
    "revoke execute on function history.commit_statement(text[]) from public",
    "revoke execute on function history.part_entries(text, bigint[], text[]) from public",
    "revoke execute on function history.erase_values(text, bigint[], text[]) from public, kontor_owner",
    "grant execute on function history.erase_values(text, bigint[], text[]) to kontor_retention",
)
