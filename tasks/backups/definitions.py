"""Questions whose answers describe a database beside its rows: roles, rights, definitions, in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping

_ROLES = """
select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,
       (select array_agg(g.rolname order by g.rolname) from pg_auth_members m join pg_roles g on g.oid = m.roleid
        where m.member = r.oid)
from pg_roles r
where rolname !~ '^pg_'
order by 1
"""

_RIGHTS = """
with ours as (
    select oid, nspname, nspacl from pg_namespace n where OURS
), relation as (
    select c.oid, o.nspname || '.' || c.relname as name, c.relacl, c.relowner
    from pg_class c join ours o on o.oid = c.relnamespace
)
select 'database' as what, datname as name, datacl::text as rights from pg_database where datname = current_database()
union all
select 'schema', nspname, nspacl::text from ours
union all
select 'relation', name, relacl::text || pg_get_userbyid(relowner) from relation
union all
select 'column', r.name || '.' || a.attname, a.attacl::text
from relation r join pg_attribute a on a.attrelid = r.oid where a.attacl is not null
union all
select 'function', p.oid::regprocedure::text, p.proacl::text from pg_proc p join ours o on o.oid = p.pronamespace
order by 1, 2, 3
"""

_OBJECTS = """
with ours as (
    select oid, nspname from pg_namespace n where OURS
), relation as (
    select c.oid, c.relkind, o.nspname || '.' || c.relname as name
    from pg_class c join ours o on o.oid = c.relnamespace
)
select 'column' as what, r.name || '.' || a.attname as name,
       format_type(a.atttypid, a.atttypmod) || a.attnotnull::text || a.attidentity::text
       || coalesce(pg_get_expr(d.adbin, d.adrelid), '') as text
from relation r
join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where r.relkind in ('r', 'p', 'v')
union all
select 'constraint', c.conrelid::regclass::text || '.' || c.conname, pg_get_constraintdef(c.oid) || c.convalidated::text
from pg_constraint c join ours o on o.oid = c.connamespace
union all
select 'index', r.name, pg_get_indexdef(i.indexrelid) || i.indisvalid::text || i.indisready::text
from pg_index i join relation r on r.oid = i.indexrelid
union all
select 'trigger', r.name || '.' || t.tgname, pg_get_triggerdef(t.oid) || t.tgenabled::text
from pg_trigger t join relation r on r.oid = t.tgrelid where not t.tgisinternal
union all
select 'function', p.oid::regprocedure::text, md5(p.prosrc) from pg_proc p join ours o on o.oid = p.pronamespace
union all
select 'view', v.schemaname || '.' || v.viewname, md5(v.definition)
from pg_views v join ours o on o.nspname = v.schemaname
order by 1, 2, 3
"""

_OURS = "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"

DEFINITIONS: Mapping[str, str] = {
    "roles": _ROLES,
    "rights": _RIGHTS.replace("OURS", _OURS),
    "objects": _OBJECTS.replace("OURS", _OURS),
}
