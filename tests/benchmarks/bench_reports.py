"""How long `kontor status` and the reports take to answer beside 1,000,000 invoices of 50,000 customers.

One in ten is open, as bench_classification lays it out. Run with ``.venv/bin/python -m tests.benchmarks.bench_reports``
(``--plan`` prints the server's plans). The times are the least of three.
"""

from __future__ import annotations

import sys
from functools import partial

from sqlalchemy import Connection, text

from tasks.database import OWNER, engine_for
from tasks.payments.classes import classify
from tasks.reports.finance_store import read_finance
from tasks.reports.store import read_report
from tests.benchmarks.bench_classification import NEWEST, fill
from tests.benchmarks.working import Clock, machine, own_server, show

STATUS = ("status_lines", "feed_freshness", "runs", "quarantine_counts", "payer_class_counts")
REPORTS = (
    "open_invoices", "overdue_invoices", "aging", "payer_classes", "settled_invoices", "finance_totals", "dso",
    "payer_class_changes",
)  # fmt: skip
LIMIT = 20


def _status(connection: Connection) -> None:
    for name in STATUS:
        read_report(connection, name, limit=LIMIT)


def _plan(connection: Connection, name: str) -> None:
    for line in connection.scalars(
        text(f"explain (analyze, buffers, costs off) select * from report.{name}(:day)"), {"day": NEWEST}
    ):
        print(line)


def main() -> None:
    """Fill a database, classify, and print how long each answer takes."""
    clock = Clock()
    with own_server() as settings:
        engine = engine_for(settings, OWNER)
        with engine.begin() as connection:
            fill(connection)
            connection.exec_driver_sql("analyze")
            classify(connection, NEWEST)
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("vacuum analyze")
            for _ in range(3):
                clock.measure("kontor status", partial(_status, connection))
                for name in REPORTS:
                    work = partial(read_report, connection, name, as_of=NEWEST, limit=LIMIT)
                    clock.measure(f"kontor report {name.replace('_', '-')} --limit {LIMIT}", work)
                clock.measure("figures and lists of the finance report", partial(read_finance, connection, NEWEST))
            if "--plan" in sys.argv:
                for name in REPORTS:
                    print(name)
                    _plan(connection, name)
    rows = [(name, f"{clock.least(name):.2f}") for name in clock.seconds]
    show(f"Answers beside 1,000,000 invoices; {machine()}", ("command", "seconds"), rows)


if __name__ == "__main__":
    main()
