"""Applying organisations and contacts to ``crm``: upserts by customer number and contact, newest file first.

An older file never overrides what a newer one said of the same record, so the order of arrival does not matter.
A column that a file does not have leaves the stored value alone; a blank cell in a column it has clears it.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from tasks.feeds.outcomes import Applied, StagedFile

ORGANIZATION_FIELDS = (
    "name",
    "country",
    "language",
    "vat_number",
    "currency",
    "payment_terms_days",
    "segment",
    "owner",
)
CONTACT_FIELDS = ("first_name", "last_name", "email", "phone", "language")


def apply_organizations(connection: Connection, staged: StagedFile) -> Applied:
    """Insert the customers that are new and update those that changed; returns the counts of rows."""
    fields = [field for field in ORGANIZATION_FIELDS if field in staged.columns]
    counted = connection.execute(text(_organizations_statement(fields)), _parameters(staged)).one()
    return Applied(counted.inserted, counted.updated, counted.unchanged, counted.superseded)


def _parameters(staged: StagedFile) -> dict[str, object]:
    return {"as_of": staged.as_of, "revision": staged.revision, "feed_file_id": staged.feed_file_id}


def _organizations_statement(fields: list[str]) -> str:
    """MERGE of the staged rows; a customer that only accounting had brought becomes a real one."""
    assignments = ", ".join(f"{field} = s.{field}" for field in fields)
    names = ", ".join(fields)
    return f"""
with spoken as (
    select s.*, o.organization_id is null as is_new,
           o.origin = 'customers' and (o.seen_as_of, o.seen_revision) > (cast(:as_of as date), :revision) as outdated,
           o.origin = 'ledger' or ({_listed("o", fields)}) is distinct from ({_listed("s", fields)}) as differs
    from landing.staged_organizations s
    left join crm.organizations o on o.customer_number = s.customer_number
    where not exists (select from row_fate f where f.row_number = s.row_number)
), written as (
    merge into crm.organizations o
    using (select * from spoken where outdated is not true) s on o.customer_number = s.customer_number
    when matched and s.differs then update
        set {assignments}, origin = 'customers', seen_as_of = :as_of, seen_revision = :revision,
            feed_file_id = :feed_file_id, updated_at = now()
    when matched then update set seen_as_of = :as_of, seen_revision = :revision
    when not matched then insert (customer_number, {names}, seen_as_of, seen_revision, feed_file_id)
        values (s.customer_number, {", ".join(f"s.{field}" for field in fields)}, :as_of, :revision, :feed_file_id)
    returning 1
)
select count(*) filter (where is_new) as inserted,
       count(*) filter (where not is_new and outdated is not true and differs) as updated,
       count(*) filter (where not is_new and outdated is not true and not differs) as unchanged,
       count(*) filter (where outdated) as superseded,
       (select count(*) from written) as written
from spoken
"""


def _listed(alias: str, fields: list[str]) -> str:
    return "row(" + ", ".join(f"{alias}.{field}" for field in fields) + ")"


def apply_contacts(connection: Connection, staged: StagedFile) -> Applied:
    """Insert and update contacts and make their roles what the newest file that names them says.

    A row counts as inserted when its contact is new, as updated when the contact or its roles changed.
    """
    fields = [field for field in CONTACT_FIELDS if field in staged.columns]
    parameters = _parameters(staged)
    connection.execute(text(_CONTACT_ROWS))
    connection.execute(text(_contacts_in_file(fields)), parameters)
    connection.execute(text(_write_contacts(fields)), parameters)
    if "roles" in staged.columns:
        _write_roles(connection, parameters)
    counted = connection.execute(text(_COUNT_CONTACT_ROWS)).one()
    connection.exec_driver_sql("drop table contact_row, spoken_contact")
    return Applied(counted.inserted, counted.updated, counted.unchanged, counted.superseded)


# One contact may stand on several rows, one per role or period. Its key is its e-mail address, else its name.
_CONTACT_ROWS = """
create temporary table contact_row on commit drop as
select s.*, o.organization_id,
       coalesce(lower(s.email), 'name: ' || lower(concat_ws(' ', s.first_name, s.last_name))) as contact_key
from landing.staged_contacts s
join crm.organizations o on o.customer_number = s.customer_number
where not exists (select from row_fate f where f.row_number = s.row_number)
"""


def _contacts_in_file(fields: list[str]) -> str:
    return f"""
create temporary table spoken_contact on commit drop as
select distinct on (r.organization_id, r.contact_key)
       r.organization_id, r.contact_key, {", ".join(f"r.{field}" for field in fields)}, c.contact_id,
       c.contact_id is null as is_new,
       coalesce((c.seen_as_of, c.seen_revision) > (cast(:as_of as date), :revision), false) as outdated,
       c.contact_id is not null and ({_listed("c", fields)}) is distinct from ({_listed("r", fields)}) as differs
from contact_row r
left join crm.contacts c on c.organization_id = r.organization_id and c.contact_key = r.contact_key
order by r.organization_id, r.contact_key, r.row_number desc
"""


def _write_contacts(fields: list[str]) -> str:
    assignments = ", ".join(f"{field} = excluded.{field}" for field in fields)
    names = ", ".join(fields)
    return f"""
with written as (
    insert into crm.contacts as c (organization_id, contact_key, {names}, seen_as_of, seen_revision, feed_file_id)
    select organization_id, contact_key, {names}, :as_of, :revision, :feed_file_id from spoken_contact
    where is_new or (not outdated and differs)
    on conflict (organization_id, contact_key) do update
    set {assignments}, seen_as_of = excluded.seen_as_of, seen_revision = excluded.seen_revision,
        feed_file_id = excluded.feed_file_id, updated_at = now()
    returning contact_id, organization_id, contact_key
), confirmed as (
    update crm.contacts c set seen_as_of = :as_of, seen_revision = :revision
    from spoken_contact s where c.contact_id = s.contact_id and not s.outdated and not s.differs
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
    where not s.outdated and role <> ''
    group by s.contact_id, role
) g cross join lateral unnest(g.periods) as valid
"""

_DELETE_ROLES = """
with gone as (
    delete from crm.contact_roles r using spoken_contact s
    where r.contact_id = s.contact_id and not s.outdated
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
       count(*) filter (where not s.is_new and not s.outdated and s.differs) as updated,
       count(*) filter (where not s.is_new and not s.outdated and not s.differs) as unchanged,
       count(*) filter (where s.outdated) as superseded
from contact_row r join spoken_contact s using (organization_id, contact_key)
"""
