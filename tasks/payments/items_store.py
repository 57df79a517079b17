"""What lists and ledgers share when they are applied: an item as one value, the good rows of a file, its customers."""

from __future__ import annotations

from sqlalchemy import Connection, text

from tasks.feeds.outcomes import StagedFile
from tasks.feeds.staging_store import ITEM_CONTENT, STAGED_CONTENT


def item_of(alias: str) -> str:
    """The content of a row as one comparable value."""
    return f"row({fields_of(alias)})::crm.item"


def fields_of(alias: str) -> str:
    """The content of a row column by column: compared so, a million rows need not be made into values first."""
    return ", ".join(f"{alias}.{column}" for column in ITEM_CONTENT.split(", "))


def create_missing_customers(connection: Connection, staged: StagedFile) -> None:
    """Where the contract says so, a customer that only accounting knows is created under accounting's name.

    Such a customer's name follows the newest file; as soon as customer_import brings the customer, it is left alone.
    """
    if not staged.creates_customers:
        return
    connection.execute(
        text(_CREATE_CUSTOMERS),
        {"as_of": staged.as_of, "revision": staged.revision, "feed_file_id": staged.feed_file_id},
    )


_CREATE_CUSTOMERS = """
insert into crm.organizations as o (customer_number, name, origin, seen_as_of, seen_revision, feed_file_id)
select distinct on (s.customer_number)
       s.customer_number, coalesce(s.customer_name, s.customer_number), 'ledger', :as_of, :revision, :feed_file_id
from landing.staged_items s
where s.customer_number is not null
order by s.customer_number, s.row_number
on conflict (customer_number) do update
set name = excluded.name, seen_as_of = excluded.seen_as_of, seen_revision = excluded.seen_revision,
    feed_file_id = excluded.feed_file_id, updated_at = now()
where o.origin = 'ledger'
  and (o.seen_as_of, o.seen_revision) <= (excluded.seen_as_of, excluded.seen_revision)
  and (o.name, o.seen_as_of, o.seen_revision)
      is distinct from (excluded.name, excluded.seen_as_of, excluded.seen_revision)
"""


def good_rows(only: str = "") -> str:
    """The query of the rows that passed, with their customers: organization_id, invoice_number, settled_on, the item.

    What a file says of a merged customer is booked on the one that was kept, unless another row would be booked there
    under the same number: then each stays with the customer it names. ``only`` is a further condition on the rows.
    """
    return _LISTED.replace("{only}", only)


_LISTED = f"""
select case when o.merged_into is null then o.organization_id
            when exists (select from landing.staged_items t join crm.organizations k using (customer_number)
                         where coalesce(k.merged_into, k.organization_id) = o.merged_into
                           and t.invoice_number = s.invoice_number and t.customer_number <> s.customer_number)
            then o.organization_id else o.merged_into end as organization_id,
       s.invoice_number, s.settled_date as settled_on, {fields_of("s")}
from (select s.customer_number, s.invoice_number, s.settled_date, {STAGED_CONTENT} from landing.staged_items s
      where not exists (select from row_fate f where f.row_number = s.row_number) {{only}}) s
join crm.organizations o on o.customer_number = s.customer_number
"""


def request_classification(connection: Connection, staged: StagedFile) -> None:
    """Leave word that classes must be decided again from this file's day on; a killed run leaves the word standing."""
    connection.execute(
        text("update landing.feed_files set classification_pending = true where feed_file_id = :feed_file_id"),
        {"feed_file_id": staged.feed_file_id},
    )


RETIRED = """
select retired.feed_file_id
from landing.feed_files own join landing.feed_files retired using (feed, source, as_of, mode)
where own.feed_file_id = :feed_file_id and retired.state = 'superseded'
"""

# An invoice that no snapshot lists, or that a corrected revision says was never listed, shows what its ledger says.
AS_THE_LEDGER_SAYS = """
update crm.invoices i
set document_type = e.document_type, issued_on = e.issued_on, due_on = e.due_on, currency = e.currency,
    amount = e.amount, open_amount = e.open_amount, disputed = e.disputed, note = e.note, feed_file_id = e.feed_file_id
from crm.ledger_entries e
where e.invoice_id = i.invoice_id and i.listed_from is null
"""
