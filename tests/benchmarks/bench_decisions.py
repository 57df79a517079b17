"""How long the decisions of a day take: 300,000 customers with 1,000,000 open items, and the same day again.

Beside it stands the floor: the bare selection of the overdue items with their customers, which is what other systems
publish as their figure. Run with ``.venv/bin/python -m tests.benchmarks.bench_decisions [CUSTOMERS] [ways]``. It starts
an embedded database of its own under a temporary folder and removes it. With ``ways`` it decides and keeps nothing: in
one process, by two, and by one with a standing worker of Dask's, in turn.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, text

from configs.settings import Settings
from tasks import ledger
from tasks.database import OWNER, engine_for
from tasks.reminders.day_state_store import DayState, fetch_state, fetch_unchanged, keep_state
from tasks.reminders.drafts import DraftPlan
from tasks.reminders.plan_store import save_plan
from tasks.reminders.planning_store import draft_day
from tests.benchmarks.working import own_server, postmaster_of, processor_seconds
from tests.dask_cluster import a_cluster

CUSTOMERS = 300_000
PROCESSES = 2
DAY = date(2026, 6, 29)  # a Monday

T = TypeVar("T")

_FILE = """
insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode, file_name, sha256,
                                byte_size, as_of, state, run_id)
values ('bench', '1', 'bench', 'open_items', 'ledger', 'snapshot', 'bench', 'bench', 1, :day, 'applied', :run_id)
"""
_CUSTOMERS = """
insert into crm.organizations (customer_number, name, country, language, segment, seen_as_of, feed_file_id)
select 'B' || n, 'Bench ' || n, (array['BG', 'PL', 'NO', 'SE', 'DE'])[1 + n % 5],
       (array['bg', 'pl', 'no', 'sv', 'en'])[1 + n % 5], (array['retail', 'public', null])[1 + n % 3], :day, 1
from generate_series(1, :customers) n
"""
_CONTACTS = """
insert into crm.contacts (organization_id, contact_key, email, seen_as_of, feed_file_id)
select organization_id, 'payments', 'payments@customer' || organization_id || '.example.com', :day, 1
from crm.organizations where organization_id % 50 <> 0
"""
_ROLES = """
insert into crm.contact_roles (contact_id, role, valid, feed_file_id)
select contact_id, 'payments', daterange('2020-01-01', null), 1 from crm.contacts
"""
_CLASSES = """
insert into ops.payer_class_history (organization_id, valid_from, payer_class, rule_id, rule_version, figures, reason)
select organization_id, '2020-01-01', (array['strict', 'hesitant', 'disloyal', 'unrated'])[1 + organization_id % 4],
       'bench', 1, '{}', 'bench' from crm.organizations
"""
# Three or four items a customer, due between 60 days ago and 30 days ahead; one in 25 a credit, one in 20 disputed.
_ITEMS = """
insert into crm.invoices (organization_id, source, invoice_number, document_type, issued_on, due_on, currency, amount,
                          open_amount, disputed, listed_from, feed_file_id)
select 1 + (n - 1) % :customers, 'ledger', 'I' || n, case when n % 25 = 0 then 'credit_note' else 'invoice' end,
       due - 30, due, (array['EUR', 'EUR', 'PLN', 'SEK'])[1 + n % 4],
       case when n % 25 = 0 then -20 else 60 + n % 977 end, case when n % 25 = 0 then -20 else 60 + n % 977 end,
       n % 20 = 7, cast(:day as date), 1
from (select n, cast(:day as date) + 30 - cast((n * 7919) % 91 as integer) as due
      from generate_series(1, cast(:customers as bigint) * 10 / 3) n) s
"""
_SELECTION = """
select o.organization_id, o.customer_number, i.invoice_id, i.due_on, i.currency, i.open_amount
from crm.open_items_at(:day) i join crm.organizations o on o.organization_id = i.organization_id
where i.document_type = 'invoice' and i.open_amount > 0 and i.due_on < :day
"""


def fill(connection: Connection, customers: int) -> None:
    """Fill an empty database with customers, one person each, their classes and open items."""
    run_id = connection.scalar(
        text(
            "insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id)"
            " values ('bench', 'bench', :day, false, 'bench', 1) returning run_id"
        ),
        {"day": DAY},
    )
    sizes = {"day": DAY, "customers": customers, "run_id": run_id}
    for statement in (_FILE, _CUSTOMERS, _CONTACTS, _ROLES, _CLASSES, _ITEMS):
        connection.execute(text(statement), sizes)


def timed(label: str, work: Callable[[], T]) -> T:
    """What ``work`` returns; its seconds are printed: by the clock, of processors (the server too), here."""
    began, busy, of_all = time.perf_counter(), time.process_time(), _of_all()
    done = work()
    own, everybody = time.process_time() - busy, _of_all() - of_all
    print(
        f"{label:<48} {time.perf_counter() - began:7.2f} s by the clock, processors {everybody:6.2f} s,"
        f" of which this process {own:6.2f} s",
        flush=True,
    )
    return done


def _of_all() -> float:
    return processor_seconds(os.getpid(), *_SERVERS)


_SERVERS: list[int] = []  # the postmaster, once it stands


def _select(engine: Engine) -> int:
    with engine.connect() as connection:
        return len(connection.execute(text(_SELECTION), {"day": DAY}).all())


def _keep_day(engine: Engine, settings: Settings, label: str) -> dict[str, int]:
    """Plan and keep the day as the flow does; a day whose facts are unchanged is not decided again."""

    def decide() -> tuple[DayState, DraftPlan | None]:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
            state = timed("    what the facts come to", lambda: fetch_state(connection, DAY))
            if fetch_unchanged(connection, DAY, state) is not None:
                return state, None
            return state, draft_day(connection, DAY, settings)

    state, draft = timed(f"{label}: facts read and decided", decide)
    if draft is None:
        return {}
    print("   ", dict(Counter(draft.reasons)), flush=True)
    with ledger.open_run(engine, "bench", as_of=DAY, dry_run=False, prefect_run_id=None, actor="bench") as run:

        def keep() -> dict[str, int]:
            with engine.begin() as connection:
                written = save_plan(connection, run.run_id, DAY, draft)
                keep_state(connection, run.run_id, DAY, state, draft.reasons)
                return written

        return timed(f"{label}: kept with reservations", keep)


def _in_ways(engine: Engine, settings: Settings, rounds: int = 3) -> None:
    """Seconds of deciding alone, two ways of sharing it out beside it, the best of some rounds each."""
    with a_cluster(1, processes=True) as address:
        ways: dict[str, dict[str, Any]] = {
            "one process": {"processes": 1},
            "two processes": {"processes": 2},
            "one and a worker of Dask's": {"processes": 2, "dask": address},
        }
        best: dict[str, float] = {}
        for _ in range(rounds):
            for name, update in ways.items():
                began = time.perf_counter()
                with engine.connect().execution_options(isolation_level="REPEATABLE READ") as reading, reading.begin():
                    draft_day(reading, DAY, settings.model_copy(update=update))
                best[name] = min(best.get(name, float("inf")), time.perf_counter() - began)
    for name, seconds in best.items():
        print(f"{name:<48} {seconds:7.2f} s, {best['one process'] / seconds:5.2f} times as fast", flush=True)


def main() -> None:
    """Fill, select, decide and keep, and the same day again; print seconds and counts."""
    customers = int(sys.argv[1]) if len(sys.argv) > 1 else CUSTOMERS
    with own_server() as settings:
        _SERVERS.append(postmaster_of(settings.home))
        with engine_for(settings, OWNER).begin() as connection:
            timed(f"filled: {customers:,} customers", lambda: fill(connection, customers))
        with engine_for(settings, OWNER).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("vacuum analyze")
        if "ways" in sys.argv:
            _in_ways(engine_for(settings), settings)
            return
        engine, settings = engine_for(settings), settings.model_copy(update={"processes": PROCESSES})
        print(f"    {timed('the bare selection of overdue items', lambda: _select(engine)):,} items")
        print("   ", _keep_day(engine, settings, "the day"))
        print("   ", _keep_day(engine, settings, "the same day again"))


if __name__ == "__main__":
    main()
