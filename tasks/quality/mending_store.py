"""Records with incidents as they are now, and what became of those that a person mended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, text

from tasks.quality.mending import Broken, MendedFile


def fetch_broken(
    connection: Connection, *, owner: str | None = None, incident_ids: Sequence[int] | None = None
) -> list[Broken]:
    """The records of customers, contacts and their roles with open incidents, or those that these incidents speak of.

    With ``incident_ids`` closed incidents come too, so that a workbook that comes back late is recognised. Customers
    that only accounting knows, merged ones, and contacts without an address are left out: no list can name them.
    """
    found: dict[tuple[str, int], Broken] = {}
    for table, statement in _RECORDS.items():
        rows = connection.execute(
            text(_BROKEN.format(records=statement.replace("{standing}", _STANDING))),
            {"table": table, "owner": owner, "ids": None if incident_ids is None else list(incident_ids)},
        ).mappings()
        for row in rows:
            key = (table, int(row["record_id"]))
            before = found[key].incidents if key in found else ()
            incident = {name: row[name] for name in ("incident_id", "rule_id", "reason", "first_seen", "state")}
            record = dict(row["record"])
            standing = tuple(record.pop("standing", None) or ())
            found[key] = Broken(table, key[1], row["record_key"], record, (*before, incident), standing)
    return list(found.values())


_RECORDS: Mapping[str, str] = {
    "crm.organizations": (
        "select o.organization_id as id, jsonb_build_object('customer_number', o.customer_number, 'name', o.name,"
        " 'country', o.country, 'language', o.language, 'vat_number', o.vat_number, 'currency', o.currency,"
        " 'payment_terms_days', o.payment_terms_days, 'segment', o.segment, 'owner', o.owner,"
        " 'contacted_on', o.contacted_on) as record"
        " from crm.organizations o where o.origin = 'customers' and o.merged_into is null"
    ),
    "crm.contacts": (
        "select c.contact_id as id, jsonb_build_object('customer_number', o.customer_number, 'email', c.email,"
        " 'first_name', c.first_name, 'last_name', c.last_name, 'phone', c.phone, 'language', c.language,"
        " 'roles', (select string_agg(distinct r.role, '; ' order by r.role) from crm.contact_roles r"
        " where r.contact_id = c.contact_id and r.valid @> ops.business_today()), 'standing', {standing}) as record"
        " from crm.contacts c join crm.organizations o using (organization_id)"
        " where c.email is not null and c.merged_into is null"
    ),
    "crm.contact_roles": (
        "select h.contact_role_id as id, jsonb_build_object('customer_number', o.customer_number, 'email', c.email,"
        " 'roles', h.role, 'valid_from', lower(h.valid), 'valid_to', upper(h.valid) - 1, 'standing', {standing})"
        " as record from crm.contact_roles h join crm.contacts c using (contact_id)"
        " join crm.organizations o using (organization_id) where c.email is not null"
    ),
}
_STANDING = (
    "(select jsonb_agg(jsonb_build_object('id', s.contact_role_id, 'roles', s.role, 'valid_from', lower(s.valid),"
    " 'valid_to', upper(s.valid) - 1) order by s.contact_role_id)"
    " from crm.contact_roles s where s.contact_id = c.contact_id)"
)

# Of a workbook's incidents all others of the same records come too: what one line mends may be several.
_BROKEN = """
select i.incident_id, i.rule_id, i.reason, i.first_seen, i.state, i.record_key, i.record_id, r.record
from ops.quality_incidents i
join ({records}) r on r.id = i.record_id
where i.table_name = :table
  and case when cast(:ids as bigint[]) is null
      then i.state = 'open' and (cast(:owner as text) is null or i.owner = :owner)
      else i.incident_id = any(:ids) or (i.state = 'open' and i.record_id in (
          select x.record_id from ops.quality_incidents x where x.table_name = :table and x.incident_id = any(:ids)))
      end
order by coalesce(i.incident_id = any(cast(:ids as bigint[])), false) desc, i.incident_id
"""


def note_corrected(connection: Connection, file: MendedFile, sha256: str, *, today: date, actor: str) -> dict[str, int]:
    """Tell the incidents whose record a file has mended; returns how many records were taken in and how many wait.

    A row that waits in quarantine is no correction yet. Told once, however often this is called for one file.
    """
    taken = connection.execute(
        text(
            "select feed_file_id, run_id from landing.feed_files where contract = :contract and sha256 = :sha256"
            " and state = 'applied' order by feed_file_id desc limit 1"
        ),
        {"contract": file.contract, "sha256": sha256},
    ).one_or_none()
    if taken is None:
        return {"mended": 0, "waiting": sum(1 for ids in file.incidents if ids)}
    # The heading is the first row of a file.
    waiting = set(
        connection.scalars(
            text("select row_number from landing.quarantined_rows where feed_file_id = :id and state = 'open'"),
            {"id": taken.feed_file_id},
        )
    )
    mended = [ids for number, ids in enumerate(file.incidents, start=2) if number not in waiting]
    given: dict[str, Any] = {
        "ids": [number for ids in mended for number in ids],
        "run_id": taken.run_id,
        "today": today,
        "actor": actor,
        "reason": f"changed: {', '.join(file.headings)}",
    }
    connection.execute(text(_TELL), given)
    records = sum(1 for ids in mended if ids)
    return {"mended": records, "waiting": sum(1 for ids in file.incidents if ids) - records}


_TELL = """
insert into ops.quality_incident_events (incident_id, run_id, event, happened_on, actor, reason)
select i.incident_id, :run_id, 'corrected', :today, :actor, :reason
from ops.quality_incidents i
where i.incident_id = any(:ids) and not exists (
    select from ops.quality_incident_events e
    where e.incident_id = i.incident_id and e.run_id = :run_id and e.event = 'corrected')
"""


def fetch_elsewhere(
    connection: Connection, records: Sequence[Broken], owner: str | None = None
) -> list[dict[str, Any]]:
    """The open incidents of all other records, the worst first: what no workbook can mend."""
    handed_out = [int(incident["incident_id"]) for record in records for incident in record.incidents]
    rows = connection.execute(text(_ELSEWHERE), {"owner": owner, "handed_out": handed_out}).mappings()
    return [dict(row) for row in rows]


_ELSEWHERE = """
select incident_id, severity, owner, rule_id, customer_number, record_key, reason, due_on, table_name
from report.quality_incidents
where state = 'open' and (cast(:owner as text) is null or owner = :owner) and incident_id <> all(:handed_out)
order by array_position(array['fail', 'warn', 'info'], severity), first_seen, incident_id
"""
