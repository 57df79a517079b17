"""Applying a ledger: the whole life of each item, as far as the ledger's day knows it; the newest one wins."""

from __future__ import annotations

from sqlalchemy import Connection, text

from tasks.feeds.outcomes import Applied, StagedFile
from tasks.feeds.staging_store import ITEM_CONTENT
from tasks.outbox_store import cancel_settled
from tasks.payments.items_store import (
    AS_THE_LEDGER_SAYS,
    RETIRED,
    create_missing_customers,
    fields_of,
    good_rows,
    item_of,
    request_classification,
)


def apply_ledger(connection: Connection, staged: StagedFile) -> Applied:
    """Apply the good rows of a ledger: the whole life of each item, as far as the ledger's day knows it."""
    create_missing_customers(connection, staged)
    parameters = {"source": staged.source, "feed_file_id": staged.feed_file_id, "as_of": staged.as_of}
    good = _stage_listed(connection)
    inserted = connection.execute(text(_INSERT_LEDGER_INVOICES), parameters).rowcount
    written = connection.execute(text(_MERGE_LEDGER_ENTRIES), {**parameters, "revision": staged.revision}).one()
    if staged.replaces:
        # Afterwards, so that what both revisions say counts as unchanged.
        connection.execute(text("select crm.withdraw_ledger(cast(:feed_file_id as bigint))"), parameters)
    connection.execute(text(_REFRESH_LEDGER_INVOICES), parameters)
    connection.exec_driver_sql("drop table listed")
    cancel_settled(connection, staged.feed_file_id)
    request_classification(connection, staged)
    updated = int(written.updated)
    superseded = int(written.superseded)
    return Applied(
        inserted=inserted, updated=updated, superseded=superseded, unchanged=good - inserted - updated - superseded
    )


def _stage_listed(connection: Connection) -> int:
    """Put the rows that passed, with their customers, into ``listed``; return how many there are."""
    connection.execute(
        text(
            "create temporary table listed on commit drop as"
            f" select organization_id, invoice_number, settled_on, {item_of('l')} as item from ({good_rows()}) l"
        )
    )
    connection.exec_driver_sql("analyze listed (organization_id, invoice_number)")
    return int(connection.scalar(text("select count(*) from listed")) or 0)


_INSERT_LEDGER_INVOICES = f"""
insert into crm.invoices (organization_id, source, invoice_number, {ITEM_CONTENT}, feed_file_id)
select l.organization_id, :source, l.invoice_number, (item).document_type, (item).issued_on, (item).due_on,
       (item).currency, (item).amount, (item).open_amount, (item).disputed, (item).note, :feed_file_id
from listed l
where not exists (select from crm.invoices i where i.organization_id = l.organization_id
                  and i.source = :source and i.invoice_number = l.invoice_number)
"""

# The newest ledger wins, item by item; what an older one said is kept aside, because a correction of the newer one may
# no longer speak of the item. "updated" counts items that were known before and read differently now.
_MERGE_LEDGER_ENTRIES = f"""
with spoken as (
    select i.invoice_id, l.item, l.settled_on, e.invoice_id is not null as had_entry, i.feed_file_id as invoice_file,
           (e.as_of, e.revision) > (cast(:as_of as date), cast(:revision as integer)) as outdated,
           ({item_of("e")}, e.settled_on) is distinct from (l.item, l.settled_on) as differs
    from listed l
    join crm.invoices i on i.organization_id = l.organization_id and i.source = :source
        and i.invoice_number = l.invoice_number
    left join crm.ledger_entries e on e.invoice_id = i.invoice_id
), older as (
    insert into crm.earlier_ledger_entries as e (invoice_id, as_of, revision, {ITEM_CONTENT}, settled_on, feed_file_id)
    select e.invoice_id, e.as_of, e.revision, {fields_of("e")}, e.settled_on, e.feed_file_id
    from crm.ledger_entries e join spoken using (invoice_id)
    where outdated is not true and e.as_of < :as_of
    union all
    select invoice_id, :as_of, :revision, (item).document_type, (item).issued_on, (item).due_on,
           (item).currency, (item).amount, (item).open_amount, (item).disputed, (item).note, settled_on, :feed_file_id
    from spoken where outdated
    on conflict (invoice_id, as_of) do update
    set revision = excluded.revision, document_type = excluded.document_type, issued_on = excluded.issued_on,
        due_on = excluded.due_on, currency = excluded.currency, amount = excluded.amount,
        open_amount = excluded.open_amount, disputed = excluded.disputed, note = excluded.note,
        settled_on = excluded.settled_on, feed_file_id = excluded.feed_file_id
), written as (
    insert into crm.ledger_entries as e (invoice_id, as_of, revision, {ITEM_CONTENT}, settled_on, feed_file_id)
    select invoice_id, :as_of, :revision, (item).document_type, (item).issued_on, (item).due_on,
           (item).currency, (item).amount, (item).open_amount, (item).disputed, (item).note, settled_on, :feed_file_id
    from spoken where outdated is not true
    on conflict (invoice_id) do update
    set as_of = excluded.as_of, revision = excluded.revision, document_type = excluded.document_type,
        issued_on = excluded.issued_on, due_on = excluded.due_on, currency = excluded.currency,
        amount = excluded.amount, open_amount = excluded.open_amount, disputed = excluded.disputed,
        note = excluded.note, settled_on = excluded.settled_on, feed_file_id = excluded.feed_file_id
    returning 1
)
select count(*) filter (where outdated is not true and differs
                        and (had_entry or invoice_file <> :feed_file_id)) as updated,
       count(*) filter (where outdated) as superseded,
       (select count(*) from written) as written
from spoken
"""

_REFRESH_LEDGER_INVOICES = f"""
{AS_THE_LEDGER_SAYS} and (e.feed_file_id = :feed_file_id or i.feed_file_id in ({RETIRED}))
  and (i.feed_file_id, {item_of("i")}) is distinct from (e.feed_file_id, {item_of("e")})
"""
