"""The least that loading a ledger can cost: COPY of the file into an unlogged table and one hand-written MERGE.

Nothing is checked, nothing is kept of what was before. The target has the columns, keys, checks, indexes and foreign
keys of ``crm.invoices``.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from sqlalchemy import Connection, text

from tests.benchmarks.working import driver_of

_CREATE = """
create schema if not exists bench;
drop table if exists bench.floor_staged, bench.floor_invoices;
create unlogged table bench.floor_staged (
    customer_number text, invoice_number text, issue_date date, due_date date, currency text,
    amount numeric(19, 4), open_amount numeric(19, 4), disputed boolean, note text);
create table bench.floor_invoices (like crm.invoices including all);
alter table bench.floor_invoices add foreign key (organization_id) references crm.organizations,
    add foreign key (feed_file_id) references landing.feed_files;
"""

_MERGE = """
merge into bench.floor_invoices t
using (select o.organization_id, s.* from bench.floor_staged s join crm.organizations o using (customer_number)) s
on t.organization_id = s.organization_id and t.source = 'floor' and t.invoice_number = s.invoice_number
when matched and (t.issued_on, t.due_on, t.currency, t.amount, t.open_amount, t.disputed, t.note, t.listed_until)
    is distinct from (s.issue_date, s.due_date, s.currency, s.amount, s.open_amount, s.disputed, s.note, null)
    then update set issued_on = s.issue_date, due_on = s.due_date, currency = s.currency, amount = s.amount,
        open_amount = s.open_amount, disputed = s.disputed, note = s.note, listed_from = :as_of, listed_until = null,
        feed_file_id = :feed_file_id
when not matched then insert (organization_id, source, invoice_number, document_type, issued_on, due_on, currency,
        amount, open_amount, disputed, note, listed_from, feed_file_id)
    values (s.organization_id, 'floor', s.invoice_number, 'invoice', s.issue_date, s.due_date, s.currency, s.amount,
        s.open_amount, s.disputed, s.note, :as_of, :feed_file_id)
when not matched by source and t.listed_until is null then update set listed_until = :as_of
"""


def create_floor(connection: Connection) -> None:
    """Make the tables of the floor anew."""
    driver_of(connection).execute(_CREATE)


def load_floor(connection: Connection, path: Path, as_of: date) -> None:
    """COPY the file and MERGE it, in the caller's transaction, with the memory that the import gives itself."""
    connection.exec_driver_sql("set local work_mem = '192MB'")
    connection.exec_driver_sql("truncate bench.floor_staged")
    copy = "copy bench.floor_staged from stdin (format csv, header)"
    with path.open("rb") as file, driver_of(connection).cursor() as cursor, cursor.copy(copy) as target:
        while block := file.read(1 << 20):
            target.write(block)
    feed_file_id = connection.scalar(text("select max(feed_file_id) from landing.feed_files"))
    connection.execute(text(_MERGE), {"as_of": as_of, "feed_file_id": feed_file_id})
