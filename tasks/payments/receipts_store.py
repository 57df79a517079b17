"""Applying files of money received: payments into ``crm.payments``, and what each pays into ``crm.allocations``.

A file tells of payments one by one and need not be complete. The newest file that speaks of a payment wins, whatever
the order of arrival. A payment that names its invoice is matched to it as soon as the invoice is known, in whichever
order the two arrive; what names none, or one in another currency, stays unmatched and is nobody's guess.

A payment for more than its invoice asks is matched whole: accounting says what it was for, and corrects it if it errs.
How matched money lowers a balance until accounting's next list knows it stands in ``crm.balances_at``.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from tasks.feeds.outcomes import Applied, StagedFile
from tasks.outbox_store import cancel_settled


def apply_payments(connection: Connection, staged: StagedFile) -> Applied:
    """Insert the payments that are new and update those that a newer file corrects; returns the counts of rows.

    Mails that wait for what is paid now are cancelled in the same transaction.
    """
    values = {"feed_file_id": staged.feed_file_id, "source": staged.source}
    connection.execute(text(_SPOKEN), values)
    counted = connection.execute(text(_COUNT)).one()
    connection.execute(text(_UNMATCH_CHANGED))
    connection.execute(text(_UPSERT), values)
    connection.exec_driver_sql("drop table spoken_payments")
    match_payments(connection)
    cancel_settled(connection, staged.feed_file_id)
    return Applied(counted.inserted, counted.updated, counted.unchanged, counted.superseded)


def match_payments(connection: Connection) -> int:
    """Match every payment that names an invoice which is known by now; returns how many were matched."""
    return connection.execute(text(_MATCH)).rowcount


# What the file says, one row per payment: of several rows with one number the last one speaks, and the others are
# superseded. Without a number of its own a payment is told from others by its invoice and day. What is said of a
# merged customer is booked on the one that was kept.
_SPOKEN = """
create temporary table spoken_payments on commit drop as
with said as (
    select coalesce(o.merged_into, o.organization_id) as organization_id, s.row_number, s.invoice_number,
           coalesce(s.payment_number, s.invoice_number || ' of ' || s.received_date) as payment_number,
           s.received_date as received_on, s.currency, s.amount, s.note
    from landing.staged_payments s join crm.organizations o on o.customer_number = s.customer_number
    where not exists (select from row_fate f where f.row_number = s.row_number)
), numbered as (
    select *, row_number() over (partition by organization_id, payment_number order by row_number desc) = 1 as last
    from said
)
select n.*, p.payment_id,
       coalesce((h.as_of, h.revision) > (f.as_of, f.revision), false) as outdated,
       (p.received_on, p.currency, p.amount, p.invoice_number, p.note)
           is distinct from (n.received_on, n.currency, n.amount, n.invoice_number, n.note) as differs
from numbered n
join landing.feed_files f on f.feed_file_id = :feed_file_id
left join crm.payments p
    on p.organization_id = n.organization_id and p.source = :source and p.payment_number = n.payment_number
left join landing.feed_files h on h.feed_file_id = p.feed_file_id
"""
_COUNT = """
select count(*) filter (where last and payment_id is null) as inserted,
       count(*) filter (where last and payment_id is not null and not outdated and differs) as updated,
       count(*) filter (where last and payment_id is not null and not outdated and not differs) as unchanged,
       count(*) filter (where not last or outdated) as superseded
from spoken_payments
"""
_UNMATCH_CHANGED = """
delete from crm.allocations a using spoken_payments s
where s.payment_id = a.payment_id and s.last and s.differs and not s.outdated
"""
_UPSERT = """
insert into crm.payments as p
    (organization_id, source, payment_number, invoice_number, received_on, currency, amount, note, feed_file_id)
select organization_id, :source, payment_number, invoice_number, received_on, currency, amount, note, :feed_file_id
from spoken_payments where last and not outdated
on conflict (organization_id, source, payment_number) do update
set invoice_number = excluded.invoice_number, received_on = excluded.received_on, currency = excluded.currency,
    amount = excluded.amount, note = excluded.note, feed_file_id = excluded.feed_file_id
"""
# An invoice of the payment's own sender before one of the same number by another.
_MATCH = """
insert into crm.allocations (payment_id, invoice_id, amount, allocated_on)
select p.payment_id, i.invoice_id, p.amount, p.received_on
from crm.payments p
cross join lateral (
    select v.invoice_id from crm.invoices v
    where v.organization_id = p.organization_id and v.invoice_number = p.invoice_number and v.currency = p.currency
      and v.document_type = 'invoice'
    order by v.source <> p.source, v.invoice_id limit 1) i
where p.invoice_number is not null and not exists (select from crm.allocations a where a.payment_id = p.payment_id)
"""
