"""How long one evaluation day takes with 50,000 customers and 1,000,000 invoices.

Half of the invoices are known from a ledger with exact days, half from 52 weekly snapshots; one in ten is open.
Run with ``.venv/bin/python -m tests.benchmarks.bench_classification`` (``--plan`` prints the server's plans).
It starts an embedded database of its own under a temporary folder and removes it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks.database import FLOWS, OWNER, engine_for, prepare
from tasks.local_stack import stop_postgres
from tasks.payments.classes import classify

CUSTOMERS = 50_000
INVOICES = 1_000_000
NEWEST = date(2026, 6, 29)

_FILES = """
insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode, file_name, sha256,
                                byte_size, as_of, state, run_id)
select 'bench', '1', 'bench', feed, source, mode, feed || as_of, feed || as_of, 1, as_of, 'applied', :run_id
from (select 'open_items' as feed, 'snapshots' as source, 'snapshot' as mode, cast(:newest as date) - 7 * n as as_of
      from generate_series(0, 51) n
      union all select 'settled_items', 'ledger', 'ledger', cast(:newest as date) - 7) f
"""

_CUSTOMERS = """
insert into crm.organizations (customer_number, name, seen_as_of, feed_file_id)
select 'B' || n, 'Bench ' || n, :newest, (select min(feed_file_id) from landing.feed_files)
from generate_series(1, :customers) n
"""

# Invoice n belongs to customer n mod 50,000; due in the past 18 months; paid between 10 days early and 40 days late.
_INVOICES = """
insert into crm.invoices (organization_id, source, invoice_number, document_type, issued_on, due_on, currency, amount,
                          open_amount, disputed, listed_from, listed_until, feed_file_id)
select o.organization_id, case when n % 2 = 0 then 'ledger' else 'snapshots' end, 'I' || n,
       case when n % 25 = 0 then 'credit_note' else 'invoice' end, due - 30, due,
       (array['EUR', 'BGN', 'SEK'])[1 + n % 3],
       case when n % 25 = 0 then -100 else 100 + n % 977 end, case when n % 25 = 0 then -100 else 100 + n % 977 end,
       n % 20 = 7,
       case when n % 2 = 1 then greatest(:newest - 7 * ((:newest - due + 25) / 7), :newest - 357) end,
       case when n % 2 = 1 and n % 10 <> 3 then
            least(:newest, greatest(:newest - 7 * ((:newest - due + 25) / 7), :newest - 357) + 7 * (1 + n % 9)) end,
       (select min(feed_file_id) from landing.feed_files)
from (select n, cast(:newest as date) - 40 - n % 500 as due from generate_series(1, :invoices) n) s
join crm.organizations o on o.customer_number = 'B' || (1 + s.n % :customers)
"""

_ENTRIES = """
insert into crm.ledger_entries (invoice_id, as_of, document_type, issued_on, due_on, currency, amount, open_amount,
                                disputed, settled_on, feed_file_id)
select invoice_id, cast(:newest as date) - 7, document_type, issued_on, due_on, currency, amount, open_amount, disputed,
       case when invoice_id % 10 <> 3 then least(due_on - 10 + cast(invoice_id % 51 as integer), :newest - 7) end,
       feed_file_id
from crm.invoices where source = 'ledger'
"""


def fill(connection: Connection) -> None:
    """Fill an empty database with the files, customers, invoices and ledger entries."""
    run_id = connection.scalar(
        text(
            "insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id)"
            " values ('bench', 'bench', :newest, false, 'bench', 1) returning run_id"
        ),
        {"newest": NEWEST},
    )
    sizes = {"newest": NEWEST, "customers": CUSTOMERS, "invoices": INVOICES, "run_id": run_id}
    for statement in (_FILES, _CUSTOMERS, _INVOICES, _ENTRIES):
        connection.execute(text(statement), sizes)


def _measure(settings: Settings, label: str, since: date) -> None:
    with engine_for(settings, FLOWS).begin() as connection:
        began = time.perf_counter()
        counts = classify(connection, since)
    print(f"{label}: {time.perf_counter() - began:.2f} s  {counts}", flush=True)


def main() -> None:
    """Fill, classify the newest day, the same again, and the last ten weeks; print the seconds."""
    home = Path(tempfile.mkdtemp(prefix="kontor-bench-"))
    settings = Settings(home=home)
    try:
        prepare(settings)
        began = time.perf_counter()
        with engine_for(settings, OWNER).begin() as connection:
            if "--plan" in sys.argv:
                connection.exec_driver_sql("alter role kontor_flows set log_min_messages = log")
            fill(connection)
        with engine_for(settings, OWNER).begin() as connection:
            connection.exec_driver_sql("analyze")
        print(f"filled in {time.perf_counter() - began:.0f} s", flush=True)
        _measure(settings, "newest day, first time", NEWEST)
        _measure(settings, "newest day, again", NEWEST)
        _measure(settings, "last ten weeks", date(2026, 4, 27))
    finally:
        stop_postgres(home)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
