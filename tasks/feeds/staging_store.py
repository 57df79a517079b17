"""The unlogged tables in which a file's typed rows stand while they are judged and applied."""

from __future__ import annotations

import io

import pandas as pd
import pyarrow as pa
import pyarrow.csv
from psycopg.copy import QueuedLibpqWriter
from sqlalchemy import Connection, text

from data_contracts.tables import metadata
from tasks.errors import Refused
from tasks.feeds.outcomes import Applied, StagedFile

_ROWS_A_BLOCK = 20_000
_JOINED_BY = (
    "row_number",
    "customer_number",
    "invoice_number",
    "part_key",
)  # what the planner has to know of staged rows
# What an item says of itself, as it is held and as it is staged.
ITEM_CONTENT = "document_type, issued_on, due_on, currency, amount, open_amount, disputed, note"
STAGED_CONTENT = (
    "document_type, issue_date as issued_on, due_date as due_on, currency, amount, open_amount,"
    " coalesce(disputed, false) as disputed, note"
)
_WORK_MEMORY = "192MB"  # a million items of a file beside a million that are held


def staging_table(feed: str) -> str:
    """The unlogged table in which a feed's rows are judged."""
    return {
        "open_items": "landing.staged_items",
        "settled_items": "landing.staged_items",
        "payments": "landing.staged_payments",
        "organizations": "landing.staged_organizations",
        "contacts": "landing.staged_contacts",
        "catalog": "landing.staged_products",
        "currency_rates": "landing.staged_rates",
    }[feed]


def serialise(connection: Connection, feed: str) -> None:
    """Let one file of a feed in at a time, whichever flow or command brings it."""
    table = staging_table(feed)
    connection.execute(text("select pg_advisory_xact_lock(hashtext(:key))"), {"key": f"kontor staging {table}"})


def give_room(connection: Connection) -> None:
    """Let the joins of a whole file with all that is held run in memory; ends with the transaction."""
    connection.exec_driver_sql(f"set local work_mem = '{_WORK_MEMORY}'")


def clear_staging(connection: Connection, staging: str) -> None:
    """Leave nothing of a file in its staging table, nor the fates of its rows."""
    connection.exec_driver_sql(f"truncate {staging}")
    connection.exec_driver_sql("drop table if exists pg_temp.row_fate")


def stage(connection: Connection, staged: StagedFile, frame: pd.DataFrame) -> None:
    """Empty the staging table and COPY the typed rows into it, good and bad alike; make the tables of their fates."""
    columns = [column.name for column in metadata.tables[staged.staging].columns if column.name in frame.columns]
    clear_staging(connection, staged.staging)
    copy_frame(connection, staged.staging, frame[columns])
    joined = ", ".join(name for name in _JOINED_BY if name in columns)
    connection.exec_driver_sql(f"analyze {staged.staging} ({joined})")
    create_fates(connection)
    _find_unknown_customers(connection, frame)


def _find_unknown_customers(connection: Connection, frame: pd.DataFrame) -> None:
    """Make ``unknown_customer``: the numbers in the file that no customer has, asked per customer, not per row."""
    connection.exec_driver_sql("drop table if exists pg_temp.unknown_customer")
    connection.exec_driver_sql("create temporary table unknown_customer (customer_number text) on commit drop")
    if "customer_number" in frame.columns:
        connection.execute(
            text(
                "insert into unknown_customer select number from unnest(cast(:numbers as text[])) number"
                " where not exists (select from crm.organizations o where o.customer_number = number)"
            ),
            {"numbers": pa.array(frame["customer_number"]).unique().drop_null().to_pylist()},
        )


def create_fates(connection: Connection) -> None:
    """Make the temporary table ``row_fate``, which lives as long as the file's transaction."""
    connection.exec_driver_sql(
        "create temporary table row_fate (row_number integer primary key, fate text not null,"
        " reasons jsonb not null default '[]', awaits_customer boolean not null default false) on commit drop"
    )


def copy_frame(connection: Connection, table: str, frame: pd.DataFrame) -> None:
    """COPY a frame whose columns are named as the table's into ``table``; nulls stay nulls."""
    copy_table(connection, table, pa.Table.from_pandas(frame, preserve_index=False))


def copy_table(connection: Connection, table: str, arrow: pa.Table) -> None:
    """COPY an Arrow table whose columns are named as the table's into ``table``; nulls stay nulls."""
    driver = connection.connection.driver_connection
    if driver is None:
        raise Refused("The connection was closed while a file was being loaded.", hint="Run the command again.")
    statement = f"copy {table} ({', '.join(arrow.column_names)}) from stdin (format csv)"
    # The queue lets the next rows be written out while the server parses the ones before.
    with driver.cursor() as cursor, cursor.copy(statement, writer=QueuedLibpqWriter(cursor)) as copy:
        for batch in arrow.to_batches(max_chunksize=_ROWS_A_BLOCK):
            copy.write(_as_csv(batch))


def _as_csv(batch: pa.RecordBatch) -> bytes:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(batch, buffer, pyarrow.csv.WriteOptions(include_header=False))
    return buffer.getvalue()


_WRITTEN = {
    "open_items": ("crm.invoices", "crm.invoice_states"),
    "settled_items": ("crm.invoices", "crm.ledger_entries"),
    "payments": ("crm.payments", "crm.allocations"),
    "organizations": ("crm.organizations",),
    "contacts": ("crm.contacts", "crm.contact_roles"),
    "catalog": ("crm.products", "crm.product_prices", "crm.product_stock"),
    "currency_rates": ("crm.currency_rates",),
}


def refresh_statistics(connection: Connection, feed: str, applied: Applied) -> None:
    """Let the planner know at once where a file changed a good part of its tables.

    The database would learn it by itself within minutes; until then what reads the tables would be planned for empty
    ones, which on a first load makes seconds out of moments.
    """
    written = applied.inserted + applied.updated + applied.settled
    for table in _WRITTEN[feed]:
        known = connection.scalar(text("select reltuples from pg_class where oid = cast(:t as regclass)"), {"t": table})
        if written > 100 + 0.1 * max(float(known or 0), 0.0):
            connection.exec_driver_sql(f"analyze {table}")
