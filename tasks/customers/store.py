"""Applying organisations and contacts to ``crm``: upserts by customer number and contact, newest file first.

An older file never overrides what a newer one said of the same field, so the order of arrival does not matter.
A column that a file does not have leaves the stored value alone; a blank cell in a column it has clears it.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from data_contracts.tables.crm import CONTACT_FIELDS, ORGANIZATION_FIELDS
from tasks.feeds.outcomes import Applied, StagedFile


def apply_organizations(connection: Connection, staged: StagedFile) -> Applied:
    """Insert the customers that are new and update those that changed; returns the counts of rows."""
    fields = [field for field in ORGANIZATION_FIELDS if field in staged.columns]
    counted = connection.execute(text(_organizations_statement(fields)), _parameters(staged)).one()
    return Applied(counted.inserted, counted.updated, counted.unchanged, counted.superseded)


def _parameters(staged: StagedFile) -> dict[str, object]:
    return {
        "as_of": staged.as_of,
        "revision": staged.revision,
        "feed_file_id": staged.feed_file_id,
        "stamp": f"{staged.as_of}#{staged.revision:03d}",
    }


# ``spoken`` remembers for every field the newest file that spoke of it, as a stamp that sorts like time
# (2026-02-01#001). Files with different columns may so arrive in any order:
#   January  name, owner    {"name": "2026-01-01#001", "owner": "2026-01-01#001"}
#   February name           {"name": "2026-02-01#001", "owner": "2026-01-01#001"}   the owner is still January's


def _is_news(alias: str, field: str) -> str:
    return f"coalesce({alias}.spoken ->> '{field}', '') <= cast(:stamp as text)"


def _any_is_news(alias: str, fields: list[str]) -> str:
    return "(" + " or ".join(_is_news(alias, field) for field in fields) + ")"


def _differs(stored: str, said: str, fields: list[str]) -> str:
    news = (f"({_is_news(stored, f)} and {stored}.{f} is distinct from {said}.{f})" for f in fields)
    return "(" + " or ".join(news) + ")"


def _assignments(stored: str, said: str, fields: list[str]) -> str:
    return ", ".join(f"{f} = case when {_is_news(stored, f)} then {said}.{f} else {stored}.{f} end" for f in fields)


def _spoken(stored: str | None, fields: list[str]) -> str:
    """The stamps after this file; of a record that is new where ``stored`` is None."""
    if stored is None:
        return "jsonb_build_object(" + ", ".join(f"'{field}', cast(:stamp as text)" for field in fields) + ")"
    newest = (f"'{f}', greatest(coalesce({stored}.spoken ->> '{f}', ''), cast(:stamp as text))" for f in fields)
    return f"{stored}.spoken || jsonb_build_object({', '.join(newest)})"


def _seen(stored: str) -> str:
    """Assignments that keep the newest file that named the record."""
    return (
        f"seen_revision = case when {stored}.seen_as_of > cast(:as_of as date) then {stored}.seen_revision"
        f" when {stored}.seen_as_of = cast(:as_of as date) then greatest({stored}.seen_revision, :revision)"
        f" else :revision end, seen_as_of = greatest({stored}.seen_as_of, :as_of)"
    )


def _organizations_statement(fields: list[str]) -> str:
    """MERGE of the staged rows; a customer that only accounting had brought becomes a real one."""
    names = ", ".join(fields)
    return f"""
with spoken as (
    select s.*, o.organization_id is null as is_new,
           o.origin = 'ledger' or {_any_is_news("o", fields)} as is_news,
           o.origin = 'ledger' or {_differs("o", "s", fields)} as differs
    from landing.staged_organizations s
    left join crm.organizations o on o.customer_number = s.customer_number
    where not exists (select from row_fate f where f.row_number = s.row_number)
), written as (
    merge into crm.organizations o
    using (select * from spoken where is_new or is_news) s on o.customer_number = s.customer_number
    when matched and s.differs then update
        set {_assignments("o", "s", fields)}, origin = 'customers', spoken = {_spoken("o", fields)}, {_seen("o")},
            feed_file_id = :feed_file_id, updated_at = now()
    when matched then update set spoken = {_spoken("o", fields)}, {_seen("o")}
    when not matched then
        insert (customer_number, {names}, spoken, seen_as_of, seen_revision, feed_file_id)
        values (s.customer_number, {", ".join(f"s.{field}" for field in fields)}, {_spoken(None, fields)},
                :as_of, :revision, :feed_file_id)
    returning 1
)
select count(*) filter (where is_new) as inserted,
       count(*) filter (where not is_new and is_news and differs) as updated,
       count(*) filter (where not is_new and is_news and not differs) as unchanged,
       count(*) filter (where not is_new and not is_news) as superseded,
       (select count(*) from written) as written
from spoken
"""


def apply_contacts(connection: Connection, staged: StagedFile) -> Applied:
    """Insert and update contacts and make their roles what the newest file that names them says.

    A row counts as inserted when its contact is new, as updated when the contact or its roles changed.
    """
    fields = [field for field in CONTACT_FIELDS if field in staged.columns]
    spoken = [*fields, "roles"] if "roles" in staged.columns else fields
    parameters = _parameters(staged)
    connection.execute(text(_CONTACT_ROWS))
    connection.execute(text(_contacts_in_file(fields, spoken)), parameters)
    connection.execute(text(_write_contacts(fields, spoken)), parameters)
    if "roles" in staged.columns:
        _write_roles(connection, parameters)
    counted = connection.execute(text(_COUNT_CONTACT_ROWS)).one()
    connection.exec_driver_sql("drop table contact_row, spoken_contact")
    return Applied(counted.inserted, counted.updated, counted.unchanged, counted.superseded)


# One contact may stand on several rows, one per role or period. Its key is its e-mail address, else its name. A contact
# of a merged customer is one of the customer that was kept.
_CONTACT_ROWS = """
create temporary table contact_row on commit drop as
select s.*, coalesce(o.merged_into, o.organization_id) as organization_id,
       coalesce(lower(s.email), 'name: ' || lower(concat_ws(' ', s.first_name, s.last_name))) as contact_key
from landing.staged_contacts s
join crm.organizations o on o.customer_number = s.customer_number
where not exists (select from row_fate f where f.row_number = s.row_number)
"""


def _contacts_in_file(fields: list[str], spoken: list[str]) -> str:
    return f"""
create temporary table spoken_contact on commit drop as
select distinct on (r.organization_id, r.contact_key)
       r.organization_id, r.contact_key, {", ".join(f"r.{field}" for field in fields)}, c.contact_id,
       c.contact_id is null as is_new,
       c.contact_id is null or {_any_is_news("c", spoken)} as is_news,
       c.contact_id is null or {_is_news("c", "roles")} as roles_are_news,
       c.contact_id is not null and {_differs("c", "r", fields)} as differs
from contact_row r
left join crm.contacts c on c.organization_id = r.organization_id and c.contact_key = r.contact_key
order by r.organization_id, r.contact_key, r.row_number desc
"""


def _write_contacts(fields: list[str], spoken: list[str]) -> str:
    names = ", ".join(fields)
    return f"""
with written as (
    insert into crm.contacts as c
        (organization_id, contact_key, {names}, spoken, seen_as_of, seen_revision, feed_file_id)
    select organization_id, contact_key, {names}, {_spoken(None, spoken)}, :as_of, :revision, :feed_file_id
    from spoken_contact
    where is_new or (is_news and differs)
    on conflict (organization_id, contact_key) do update
    set {_assignments("c", "excluded", fields)}, spoken = {_spoken("c", spoken)}, {_seen("c")},
        feed_file_id = excluded.feed_file_id, updated_at = now()
    returning contact_id, organization_id, contact_key
), confirmed as (
    update crm.contacts c set spoken = {_spoken("c", spoken)}, {_seen("c")}
    from spoken_contact s where c.contact_id = s.contact_id and s.is_news and not s.differs
)
update spoken_contact s set contact_id = w.contact_id
from written w where w.organization_id = s.organization_id and w.contact_key = s.contact_key
"""


def _write_roles(connection: Connection, parameters: dict[str, object]) -> None:
    """Remove the roles that the file no longer gives these contacts and add the new ones; equal ones stay untouched."""
    connection.execute(text(_WANTED_ROLES))
    connection.execute(text(_DELETE_ROLES))
    connection.execute(text(_INSERT_ROLES), parameters)
    connection.exec_driver_sql("drop table wanted_role")


# valid_to is the last day on which the role is held. Overlapping or touching periods of one role become one.
_WANTED_ROLES = """
create temporary table wanted_role on commit drop as
select g.contact_id, g.role, valid
from (
    select s.contact_id, role, range_agg(daterange(r.valid_from, r.valid_to, '[]')) as periods
    from contact_row r
    join spoken_contact s using (organization_id, contact_key)
    cross join lateral regexp_split_to_table(lower(r.roles), '\\s*[;,|/]\\s*') as role
    where s.roles_are_news and role <> ''
    group by s.contact_id, role
) g cross join lateral unnest(g.periods) as valid
"""

_DELETE_ROLES = """
with gone as (
    delete from crm.contact_roles r using spoken_contact s
    where r.contact_id = s.contact_id and s.roles_are_news
      and not exists (select from wanted_role w
                      where w.contact_id = r.contact_id and w.role = r.role and w.valid = r.valid)
    returning r.contact_id
)
update spoken_contact s set differs = true from gone where gone.contact_id = s.contact_id
"""

_INSERT_ROLES = """
with come as (
    insert into crm.contact_roles (contact_id, role, valid, feed_file_id)
    select w.contact_id, w.role, w.valid, :feed_file_id from wanted_role w
    where not exists (select from crm.contact_roles r
                      where r.contact_id = w.contact_id and r.role = w.role and r.valid = w.valid)
    returning contact_id
)
update spoken_contact s set differs = true from come where come.contact_id = s.contact_id
"""

_COUNT_CONTACT_ROWS = """
select count(*) filter (where s.is_new) as inserted,
       count(*) filter (where not s.is_new and s.is_news and s.differs) as updated,
       count(*) filter (where not s.is_new and s.is_news and not s.differs) as unchanged,
       count(*) filter (where not s.is_news) as superseded
from contact_row r join spoken_contact s using (organization_id, contact_key)
"""
