"""What the gate asks the database about a handful of customers, in a handful of statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from tasks.reminders.sending.gate import Facts, Hold, OpenItem, Person, Queued, Reserved


def read_queued(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, Queued]:
    """The locked mails with what is reserved for them, by id."""
    reserved: dict[int, list[Reserved]] = defaultdict(list)
    ids = [row.reminder_id for row in rows]
    for row in connection.execute(text(_RESERVED), {"ids": ids}):
        reserved[row.reminder_id].append(Reserved(*row[1:]))
    return {
        row.reminder_id: Queued(
            row.reminder_id,
            row.organization_id,
            row.stage,
            row.figures.get("policy"),
            row.recipient_email,
            tuple(reserved[row.reminder_id]),
        )
        for row in rows
    }


_RESERVED = """
select reminder_id, invoice_id, stage, sequence, currency, open_amount, due_on
from outbox.reminder_items where reminder_id = any(:ids) and released_at is null
order by reminder_id, due_on, invoice_id
"""


def read_facts(
    connection: Connection, rows: Sequence[Row[Any]], queue: Mapping[int, Queued], day: date, now: datetime
) -> dict[int, Facts]:
    """What is true now for each of these mails, in a handful of statements for all of them."""
    organizations = sorted({row.organization_id for row in rows})
    values = {"organizations": organizations, "day": day}
    items: dict[int, dict[int, OpenItem]] = defaultdict(dict)
    for row in connection.execute(text(_OPEN_ITEMS), values):
        items[row.organization_id][row.invoice_id] = OpenItem(*row[1:])
    holds: dict[int, list[Hold]] = defaultdict(list)
    for row in connection.execute(text(_HOLDS), values):
        holds[row.organization_id].append(Hold(row.kind, row.invoice_id))
    unmatched: dict[int, dict[str, Decimal]] = defaultdict(dict)
    for row in connection.execute(text(_UNMATCHED), values):
        unmatched[row.organization_id][row.currency] = row.amount
    people = {
        row.contact_id: Person(row.contact_id, row.email, row.first_name, row.last_name, frozenset(row.roles))
        for row in connection.execute(
            text(_PEOPLE), {"ids": [row.contact_id for row in rows if row.contact_id], "day": day}
        )
    }
    emails = [row.recipient_email.strip().lower() for row in rows]
    suppressed = {row.email: row.kind for row in connection.execute(text(_SUPPRESSED), {"emails": emails, "now": now})}
    invoice_ids = [item.invoice_id for mail in queue.values() for item in mail.items]
    unresolved = frozenset(connection.scalars(text(_UNRESOLVED), {"ids": invoice_ids}))
    fresh = {row.source: row.newest for row in connection.execute(text(_FRESH), {"day": day})}
    rules = {row.reminder_id: row for row in connection.execute(text(_RULES), {"ids": list(queue), "day": day})}
    return {
        row.reminder_id: Facts(
            items=items[row.organization_id],
            person=people.get(row.contact_id),
            routed_roles=frozenset(rules[row.reminder_id].roles),
            policy=rules[row.reminder_id].policy,
            reminds=bool(rules[row.reminder_id].remind),
            minimums={name: Decimal(least) for name, least in sorted((rules[row.reminder_id].minimums or {}).items())},
            fresh=fresh,
            greatest_age_days=rules[row.reminder_id].greatest_age,
            holds=tuple(holds[row.organization_id]),
            suppressed=suppressed.get(row.recipient_email.strip().lower()),
            unresolved=unresolved,
            unmatched=unmatched[row.organization_id],
        )
        for row in rows
    }


# As crm.balances_at has it, for these customers alone: accounting's word less what was matched after it.
_OPEN_ITEMS = """
select i.organization_id, i.invoice_id, i.invoice_number, i.source, i.document_type = 'credit_note', i.issued_on,
       i.due_on, i.currency, i.amount,
       i.open_amount - coalesce((
           select sum(a.amount) from crm.allocations a
           where a.invoice_id = i.invoice_id and a.allocated_on <= :day
             and a.allocated_on > coalesce(f.newest_as_of, '-infinity')), 0),
       i.disputed
from crm.open_items_at(:day) i
left join crm.freshness_at(:day) f on f.source = i.source
where i.organization_id = any(:organizations)
order by i.due_on, i.invoice_id
"""
_HOLDS = """
select organization_id, kind, invoice_id from ops.reminder_holds
where organization_id = any(:organizations) and valid @> cast(:day as date) and released_at is null
"""
_UNMATCHED = """
select p.organization_id, p.currency, sum(p.amount - coalesce(a.amount, 0)) as amount
from crm.payments p
left join lateral (
    select sum(amount) as amount from crm.allocations
    where payment_id = p.payment_id and allocated_on <= :day) a on true
where p.organization_id = any(:organizations) and p.received_on <= :day
group by p.organization_id, p.currency
having sum(p.amount - coalesce(a.amount, 0)) > 0
"""
_PEOPLE = """
select c.contact_id, coalesce(c.email, '') as email, coalesce(c.first_name, '') as first_name,
       coalesce(c.last_name, '') as last_name,
       array(select distinct r.role from crm.contact_roles r
             where c.merged_into is null and r.valid @> cast(:day as date) and r.contact_id in (
                 select c.contact_id
                 union all select m.contact_id from crm.contacts m where m.merged_into = c.contact_id)) as roles
from crm.contacts c where c.contact_id = any(:ids)
"""
_SUPPRESSED = """
select email, min(kind) as kind from outbox.suppressions
where email = any(:emails) and kind <> 'soft_bounce' and (until is null or until > :now)
group by email
"""
_UNRESOLVED = """
select i.invoice_id from outbox.reminder_items i join outbox.reminders r using (reminder_id)
where i.invoice_id = any(:ids) and i.released_at is null and r.state = 'unknown'
"""
_FRESH = "select source, newest_as_of as newest from crm.freshness_at(:day)"
_RULES = """
select r.reminder_id, p.rule_id as policy, p.remind, m.minimums, l.threshold as greatest_age,
       array(select c.role from rules.contact_routing c
             where c.valid @> cast(:day as date) and c.segment in ('*', o.segment) and c.country in ('*', o.country)
               and c.customer_number in ('*', o.customer_number) and c.stage in ('*', r.stage)) as roles
from outbox.reminders r
join (select organization_id, customer_number, coalesce(country, '') as country, coalesce(segment, '') as segment
      from crm.organizations) o on o.organization_id = r.organization_id
left join ops.payer_class_history k
    on k.organization_id = r.organization_id and k.valid_from <= :day
    and (k.valid_until is null or k.valid_until > :day)
left join lateral (
    select p.rule_id, p.remind, p.ladder from rules.reminder_policy p
    where p.valid @> cast(:day as date) and p.segment in ('*', o.segment) and p.country in ('*', o.country)
      and p.payer_class in ('*', coalesce(k.payer_class, 'unrated')) and p.customer_number in ('*', o.customer_number)
    order by p.rank limit 1) p on true
left join lateral (
    select jsonb_object_agg(one.currency, one.minimum_amount::text) as minimums
    from (select distinct on (m.currency) m.currency, m.minimum_amount from rules.reminder_minimum m
          where m.valid @> cast(:day as date) and m.ladder in ('*', p.ladder)
          order by m.currency, m.ladder = '*') one) m on true
left join lateral (
    select t.threshold from rules.reminder_limit t
    where t.valid @> cast(:day as date) and t.guard = 'stale_data' and t.country in ('*', o.country)
    order by t.country = '*' limit 1) l on true
where r.reminder_id = any(:ids)
"""
