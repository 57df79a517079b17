"""Twenty rules over a table of invoices: our pass, one hand-written statement, and two peers, taking turns.

Three find every failing row with its reason or key. The hand-written statement has the same twenty conditions and
writes keys and reasons into a temporary table, as ours does; Great Expectations runs the suite that our contract
compiles to, with its complete result and the key's column named. Soda Core, where it can be imported, counts all and
names a few (:mod:`tests.benchmarks.soda_peer`). One row in fifty breaks something.

Run with ``.venv/bin/python -m tests.benchmarks.bench_quality [ROWS] [ROUNDS]`` (default 1,000,000 and 3).
It starts an embedded database of its own under a temporary folder and removes it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import Connection, text

from tasks.database import FLOWS, OWNER, database_url, engine_for
from tasks.quality.checks_store import check_table, create_failing
from tasks.quality.contracts import Rule, TableContract
from tasks.quality.second_opinion import ask
from tests.benchmarks.soda_peer import ask_soda, is_there, keep_silent
from tests.benchmarks.working import Clock, machine, own_server, show

DAY = date(2026, 6, 15)

_CREATE = """
create schema bench;
create table bench.customers (organization_id bigint primary key);
insert into bench.customers select n from generate_series(1, 50000) n;
create table bench.items (
    invoice_id bigint primary key, organization_id bigint, invoice_number text, document_type text, issued_on date,
    due_on date, currency text, amount numeric(19, 4), open_amount numeric(19, 4), country text, email text,
    vat_number text, terms integer, seen_as_of date, owner text);
insert into bench.items
select n, case when n % 997 = 0 then null else 1 + n % 50000 end, 'I' || case when n % 5003 = 0 then n - 1 else n end,
       case when n % 7919 = 0 then 'receipt' when n % 25 = 0 then 'credit_note' else 'invoice' end,
       case when n % 1013 = 0 then null else date '2026-01-01' + (n % 150)::integer end,
       date '2026-01-31' + (n % 150)::integer - case when n % 2003 = 0 then 60 else 0 end,
       case when n % 3001 = 0 then 'eur' else 'EUR' end,
       case when n % 25 = 0 then -100 else 100 + n % 900 end,
       case when n % 25 = 0 then -50 when n % 4001 = 0 then 5000 else 50 end,
       case when n % 601 = 0 then null when n % 2999 = 0 then 'Bulgaria' else 'BG' end,
       case when n % 701 = 0 then 'nobody' else 'a' || n || '@b.example' end,
       case when n % 809 = 0 then null else 'BG' || n end, case when n % 4999 = 0 then 4000 else 30 end,
       date '2026-06-01' - case when n % 6007 = 0 then 800 else 0 end, case when n % 907 = 0 then '' else 'petar' end
from generate_series(1, :rows) n;
"""


def _rule(name: str, kind: str, *columns: str, **more: Any) -> Rule:
    reason = more.pop("reason", f"{columns[0]} is {{{columns[0]}}}")
    return Rule(
        name, kind, columns, "warn", "accuracy", name, "bench", reason=reason, **more  # type: ignore[arg-type]
    )  # fmt: skip


RULES = (
    _rule("customer_present", "present", "organization_id", reason="organization_id is missing"),
    _rule("customer_exists", "references", "organization_id", references="bench.customers"),
    _rule("number_once", "unique", "invoice_number", reason="invoice_number stands elsewhere too"),
    _rule("type_known", "allowed", "document_type", allowed=("invoice", "credit_note")),
    _rule("issue_present", "present", "issued_on", reason="issued_on is missing"),
    _rule("due_present", "present", "due_on", reason="due_on is missing"),
    _rule("due_not_before_issue", "at_most", "issued_on", "due_on"),
    _rule("currency_code", "pattern", "currency", pattern="^[A-Z]{3}$"),
    _rule("amount_present", "present", "amount", reason="amount is missing"),
    _rule("open_within_amount", "holds", "open_amount", condition="abs(open_amount) <= abs(amount)"),
    _rule("not_overpaid", "holds", "open_amount", condition="document_type <> 'invoice' or open_amount >= 0"),
    _rule("credit_negative", "holds", "amount", condition="document_type <> 'credit_note' or amount <= 0"),
    _rule("issued_by_today", "holds", "issued_on", condition="issued_on <= date '2026-06-16'"),
    _rule("term_plausible", "holds", "due_on", condition="due_on - issued_on <= {threshold}", threshold=Decimal(400)),
    _rule("country_present", "present", "country", reason="country is missing"),
    _rule("country_code", "pattern", "country", pattern="^[A-Z]{2}$"),
    _rule("email_form", "pattern", "email", pattern="^[^@]+@[^@]+[.][^@]+$"),
    _rule("vat_present", "present", "vat_number", reason="vat_number is missing"),
    _rule("terms_plausible", "holds", "terms", condition="terms between 0 and 365"),
    _rule("owner_present", "holds", "owner", condition="owner <> ''", reason="owner is missing"),
)

CONTRACT = TableContract(
    "bench", "bench.items", "", "invoice_number", "invoice_id", "organization_id", "invoice_id", {}, (), RULES
)

# What somebody would write who needs nothing else: the same conditions, keys and reasons.
_CONDITIONS = (
    ("organization_id is null", "'organization_id is missing'"),
    (
        (
            "organization_id is not null and not exists"
            " (select from bench.customers c where c.organization_id = i.organization_id)"
        ),
        "format('organization_id is %s', organization_id)",
    ),
    (
        "invoice_number in (select invoice_number from bench.items group by 1 having count(*) > 1)",
        "'invoice_number stands elsewhere too'",
    ),
    ("document_type not in ('invoice', 'credit_note')", "format('document_type is %s', document_type)"),
    ("issued_on is null", "'issued_on is missing'"),
    ("due_on is null", "'due_on is missing'"),
    ("issued_on > due_on", "format('issued_on is %s', issued_on)"),
    ("currency !~ '^[A-Z]{3}$'", "format('currency is %s', currency)"),
    ("amount is null", "'amount is missing'"),
    ("abs(open_amount) > abs(amount)", "format('open_amount is %s', open_amount)"),
    ("document_type = 'invoice' and open_amount < 0", "format('open_amount is %s', open_amount)"),
    ("document_type = 'credit_note' and amount > 0", "format('amount is %s', amount)"),
    ("issued_on > date '2026-06-16'", "format('issued_on is %s', issued_on)"),
    ("due_on - issued_on > 400", "format('due_on is %s', due_on)"),
    ("country is null", "'country is missing'"),
    ("country !~ '^[A-Z]{2}$'", "format('country is %s', country)"),
    ("email !~ '^[^@]+@[^@]+[.][^@]+$'", "format('email is %s', email)"),
    ("vat_number is null", "'vat_number is missing'"),
    ("terms not between 0 and 365", "format('terms is %s', terms)"),
    ("owner = ''", "'owner is missing'"),
)
_HAND_WRITTEN = (
    "create temporary table by_hand on commit drop as"
    " select invoice_id, invoice_number, organization_id, array_remove(array["
    + ", ".join(f"case when {condition} then {reason} end" for condition, reason in _CONDITIONS)
    + "], null) as reasons from bench.items i where "
    + " or ".join(f"({condition})" for condition, _ in _CONDITIONS)
)


def _ours(connection: Connection) -> int:
    create_failing(connection)
    results = check_table(connection, CONTRACT, DAY)
    return sum(result.failing or 0 for result in results)


def _by_hand(connection: Connection) -> int:
    connection.exec_driver_sql("drop table if exists pg_temp.by_hand")
    connection.exec_driver_sql(_HAND_WRITTEN.replace("%", "%%"))
    return int(connection.scalar(text("select sum(cardinality(reasons)) from by_hand")) or 0)


def main(rows: int, rounds: int) -> None:
    """Fill the table, let all take turns, and print the ratios."""
    print(machine())
    clock = Clock()
    with own_server() as settings:
        owner = engine_for(settings, OWNER)
        with owner.begin() as connection:
            for statement in _CREATE.split(";\n"):
                if statement.strip():
                    connection.execute(text(statement), {"rows": rows} if ":rows" in statement else {})
            connection.execute(text("grant usage on schema bench to kontor_flows"))
            connection.execute(text("grant select on all tables in schema bench to kontor_flows"))
        with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("vacuum analyze bench.items")
            connection.exec_driver_sql("vacuum analyze bench.customers")
        url = database_url(settings, FLOWS).render_as_string(hide_password=False)
        began = time.perf_counter()
        ask(url, FLOWS, replace(CONTRACT, rules=RULES[:1]), DAY)
        print(f"Great Expectations: import and first context {time.perf_counter() - began:.1f} s, not counted below")
        if is_there():
            keep_silent(settings)
            ask_soda(settings, replace(CONTRACT, rules=RULES[:1]))
        counts: dict[str, int] = {}
        for _ in range(rounds):
            with engine_for(settings).connect() as connection:
                connection.exec_driver_sql("set work_mem = '192MB'")
                for name, work in (("by hand", _by_hand), ("ours", _ours)):
                    counts[name] = clock.measure(name, partial(work, connection))
                connection.rollback()
            answers = clock.measure("Great Expectations", lambda: ask(url, FLOWS, CONTRACT, DAY, key="invoice_id"))
            counts["Great Expectations"] = sum(answer.failing or 0 for answer in answers)
            if is_there():
                counts["Soda Core"] = sum(clock.measure("Soda Core", lambda: ask_soda(settings, CONTRACT)).values())
    floor = clock.least("by hand")
    lines = [
        (name, f"{clock.least(name):.2f}", f"{clock.least(name) / floor:.2f}", f"{counts[name]:,}")
        for name in clock.seconds
    ]
    show(f"20 rules, {rows:,} rows, {rounds} rounds", ("way", "seconds", "ratio to by hand", "failing"), lines)


if __name__ == "__main__":
    given = [int(argument.replace(",", "")) for argument in sys.argv[1:]]
    main(*(given + [1_000_000, 3][len(given) :]))
