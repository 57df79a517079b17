"""Contacts that come back from quarantine: a contact's roles are what all rows of its file say, not one row alone."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, text

from tasks.customers.store import apply_contacts
from tasks.feeds.outcomes import Applied, StagedFile


def apply_corrected_contacts(connection: Connection, staged: StagedFile) -> Applied:
    """Apply contact rows beside the roles that the same file has given these contacts; returns the counts of rows.

    The roles that stand are put beside the rows as rows of their own and are not counted.
    """
    companions = 0
    if "roles" in staged.columns:
        parameters = {"as_of": staged.as_of, "revision": staged.revision}
        companions = connection.execute(text(_ROLES_THAT_STAND), parameters).rowcount
    return _without(apply_contacts(connection, staged), companions)


# A contact that a newer file has spoken of is left alone anyway; one that an older file spoke of is spoken of anew.
_ROLES_THAT_STAND = """
insert into landing.staged_contacts
       (row_number, customer_number, first_name, last_name, email, phone, language, roles, valid_from, valid_to)
select -row_number() over (), s.customer_number, s.first_name, s.last_name, s.email, s.phone, s.language, r.role,
       lower(r.valid), upper(r.valid) - 1
from (
    select distinct on (o.organization_id, key) k.*, o.organization_id, key
    from landing.staged_contacts k
    join crm.organizations o on o.customer_number = k.customer_number
    cross join lateral (
        select coalesce(lower(k.email), 'name: ' || lower(concat_ws(' ', k.first_name, k.last_name))) as key
    ) named
    where not exists (select from row_fate f where f.row_number = k.row_number)
    order by o.organization_id, key, k.row_number desc
) s
join crm.contacts c on c.organization_id = s.organization_id and c.contact_key = s.key
    and c.seen_as_of = :as_of and c.seen_revision = :revision
join crm.contact_roles r on r.contact_id = c.contact_id
"""


def _without(applied: Applied, companions: int) -> Applied:
    # Companions belong to contacts that are there already, so they count as unchanged or as updated.
    unchanged = min(companions, applied.unchanged)
    updated = companions - unchanged
    return replace(applied, unchanged=applied.unchanged - unchanged, updated=applied.updated - updated)
