"""What arrives in the inbox while processes are killed: small files with everything in them that can go wrong.

A delivery is a function of its seed. Customers and contacts first, then a ledger of settled items, weekly lists of
open items (the last of them first by name, one of them twice in two revisions, rows that cannot be read, rows of a
customer whom nobody knows yet), then that customer. Helpers never assert; :func:`faults` says what is wrong.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks.database import OWNER, engine_for

FIRST_WEEK = date(2026, 3, 2)
WEEKS = 4
CUSTOMERS = 8
ITEMS = 40
LATE = "C-99"

Row = dict[str, str]
Sums = dict[str, Decimal]


@dataclass(frozen=True)
class Delivery:
    """Files by flow, in the order in which the flows are run."""

    seed: int
    phases: tuple[tuple[str, Mapping[str, bytes]], ...]
    listed: Mapping[str, tuple[Row, ...]] = field(repr=False)  # sha256 of an open-items file: its rows

    @property
    def days(self) -> list[date]:
        """The days that the weekly lists speak of."""
        return [FIRST_WEEK + timedelta(weeks=week) for week in range(WEEKS)]

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file's content by its name."""
        return {name: hashlib.sha256(data).hexdigest() for _, files in self.phases for name, data in files.items()}

    def put(self, inbox: Path, phase: int) -> None:
        """Put a phase's files into the inbox, finished and old enough to be taken."""
        for name, data in self.phases[phase][1].items():
            put(inbox, name, data)


def put(inbox: Path, name: str, data: bytes, *, age_seconds: float = 3600) -> Path:
    """Write a file into the inbox as if it had arrived some time ago; returns where."""
    inbox.mkdir(parents=True, exist_ok=True)
    path = inbox / name
    path.write_bytes(data)
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


def deliver(seed: int) -> Delivery:
    """The delivery of a seed."""
    chance = random.Random(f"delivery {seed}")
    lists = _weekly_lists(chance)
    payments = {name: _csv(rows) for name, rows in lists.items()}
    listed = {hashlib.sha256(payments[name]).hexdigest(): tuple(rows) for name, rows in lists.items()}
    payments["settled_items_2026-02-28.csv"] = _csv(list(_settled(chance)))
    numbers = [f"C-{n:02}" for n in range(1, CUSTOMERS + 1)]
    known = {
        "organizations_2026-02-01.csv": _csv([_organization(number) for number in numbers]),
        "contacts_2026-02-01.csv": _csv([_contact(number, chance) for number in [*numbers, LATE]]),
    }
    late = {"organizations_2026-04-01.csv": _csv([_organization(LATE)])}
    phases = (("customer_import", known), ("payment_sync", payments), ("customer_import", late))
    return Delivery(seed, phases, listed)


def _organization(number: str) -> Row:
    return {"customer_number": number, "name": f"Firma {number}", "country": "BG", "language": "bg"}


def _contact(number: str, chance: random.Random) -> Row:
    return {
        "customer_number": number,
        "first_name": "Ана",
        "last_name": number,
        "email": f"{number.lower()}@example.com",
        "roles": "payments",
        "valid_from": f"2025-0{chance.randint(1, 9)}-01",
    }


def _settled(chance: random.Random) -> Iterator[Row]:
    for number in range(60):
        issued = date(2025, 9, 1) + timedelta(days=chance.randrange(90))
        row = _item(f"C-{chance.randint(1, CUSTOMERS):02}", f"S{number}", issued, chance)
        yield {**row, "open_amount": "0", "settled_date": str(issued + timedelta(days=20 + chance.randrange(55)))}


def _weekly_lists(chance: random.Random) -> dict[str, list[Row]]:
    lives = [_life(number, chance) for number in range(ITEMS)]
    weeks: list[list[Row]] = [[] for _ in range(WEEKS)]
    for life, first, last in lives:
        for week in range(first, last + 1):
            weeks[week].append(dict(life))
    for week in range(1, WEEKS):
        for row in chance.sample(weeks[week], 3):  # paid in part
            if row["open_amount"] == row["amount"]:
                row["open_amount"] = str(Decimal(row["amount"]) / 2)
    days = [FIRST_WEEK + timedelta(weeks=week) for week in range(WEEKS)]
    names = [f"open_items_{day}.csv" for day in days]
    names[-1] = names[-1].replace("open_items", "open-items")  # by its name it is read before the older ones
    lists = dict(zip(names, weeks, strict=True))
    lists[f"open_items_{days[1]}_r2.csv"] = [dict(row) for row in weeks[1][:-1]]
    return lists


def _life(number: int, chance: random.Random) -> tuple[Row, int, int]:
    """An item and the weeks in which it is listed. What cannot be read is never read: its last state is no question."""
    first = chance.choice([0, 0, 0, 1, 2])
    customer = LATE if number % 10 == 0 else f"C-{chance.randint(1, CUSTOMERS):02}"
    row = _item(customer, f"A{number}", FIRST_WEEK - timedelta(days=chance.randrange(1, 40)), chance)
    if number % 13 == 1:
        row = {**row, "open_amount": "n/a", "amount": "siehe Beleg"}
    return row, first, chance.choice([first, *[WEEKS - 1] * 7])


def _item(customer: str, number: str, issued: date, chance: random.Random) -> Row:
    amount = str(Decimal(chance.randrange(2_000, 900_000) * 2) / 100)
    return {
        "customer_number": customer,
        "invoice_number": number,
        "issue_date": str(issued),
        "due_date": str(issued + timedelta(days=30)),
        "currency": chance.choice(["EUR", "EUR", "SEK"]),
        "amount": amount,
        "open_amount": amount,
    }


def _csv(rows: list[Row]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


# --- what must hold at every moment -----------------------------------------------------------------------------------


@contextmanager
def one_moment(settings: Settings) -> Iterator[Connection]:
    """A connection that sees the database as of one moment, however many statements it is asked."""
    engine = engine_for(settings, OWNER, purpose="fault tests").execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection, connection.begin():
        yield connection


def faults(settings: Settings, delivery: Delivery) -> list[str]:
    """Everything half-done that can be seen at this moment; nothing, as it should be, is an empty list."""
    with one_moment(settings) as connection:
        return [
            *(f"counts of {name} do not add up" for name in connection.scalars(text(_UNEVEN))),
            *(f"quarantine of {name} and its count differ" for name in connection.scalars(text(_MISCOUNTED))),
            *(f"history and {name} differ" for name in connection.scalars(text(_UNRECORDED))),
            *_wrong_sums(connection, delivery),
        ]


def _wrong_sums(connection: Connection, delivery: Delivery) -> Iterator[str]:
    for day in delivery.days:
        expected, found = expected_sums(connection, delivery, day), open_sums(connection, day)
        if expected != found:
            yield f"as of {day} finance reads {found}, and the files in force say {expected}"


def open_sums(connection: Connection, day: date) -> Sums:
    """What finance reads as open on a day, per currency."""
    rows = connection.execute(
        text("select currency, sum(open_amount) from report.open_invoices(:day) group by 1"), {"day": day}
    )
    return {row[0]: row[1] for row in rows}


def expected_sums(connection: Connection, delivery: Delivery, day: date) -> Sums:
    """What the files in force up to a day say, per currency.

    Each list replaces the one before it; of a row that stands in quarantine the last known state goes on.
    """
    held: dict[str, tuple[str, Decimal]] = {}
    for file in connection.execute(text(_IN_FORCE), {"day": day}):
        waiting = set(connection.scalars(text(_WAITING), {"id": file.feed_file_id}))
        before, held = held, {}
        for row in delivery.listed[file.sha256]:
            number = row["invoice_number"]
            if number not in waiting:
                held[number] = row["currency"], Decimal(row["open_amount"])
            elif number in before:
                held[number] = before[number]
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for currency, amount in held.values():
        sums[currency] += amount
    return dict(sums)


def files_in(settings: Settings) -> int:
    """How many files stand in the database as taken in."""
    with one_moment(settings) as connection:
        return int(connection.scalar(text("select count(*) from landing.feed_files where state <> 'refused'")) or 0)


def lost_files(settings: Settings, delivery: Delivery, phase: int) -> list[str]:
    """Files that are whole neither in the inbox nor in the archive."""
    kept = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in (settings.inbox_path, settings.home / "archive")
        if folder.is_dir()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    arrived = [name for _, files in delivery.phases[: phase + 1] for name in files]
    return [name for name in arrived if delivery.digests[name] not in kept]


def unsettled(settings: Settings) -> dict[str, Any]:
    """What a healed system has none of: files left in the inbox, parts in the archive, runs that seem to go on."""
    inbox, archive = settings.inbox_path, settings.home / "archive"
    with one_moment(settings) as connection:
        runs = list(connection.scalars(text("select flow from ops.run_ledger where state = 'running'")))
        unclassified = list(connection.scalars(text(_UNCLASSIFIED)))
    return {
        "inbox": sorted(path.name for path in inbox.iterdir()) if inbox.is_dir() else [],
        "parts": sorted(path.name for path in archive.rglob(".*")) if archive.is_dir() else [],
        "runs": runs,
        "unclassified": unclassified,
    }


HEALED: dict[str, Any] = {"inbox": [], "parts": [], "runs": [], "unclassified": []}

_UNCLASSIFIED = "select file_name from landing.feed_files where classification_pending"
_UNEVEN = """
select file_name from landing.feed_files
where state = 'applied'
  and (rows_read = 0 or rows_read <> inserted + updated + unchanged + quarantined + superseded)
"""
_MISCOUNTED = """
select f.file_name from landing.feed_files f
where f.state = 'applied' and f.quarantined <> (
    select count(*) from landing.quarantined_rows q where q.feed_file_id = f.feed_file_id and q.state = 'open')
"""
# Every record that stands there was recorded, with the name that stands there now.
_UNRECORDED = """
select 'organization ' || o.organization_id from crm.organizations o
where o.name is distinct from (
    select h.new_values ->> 'name' from history.change_log h
    where h.table_name = 'organizations' and h.record_id = o.organization_id and h.new_values ? 'name'
    order by h.entry_id desc limit 1)
union all
select 'contact ' || c.contact_id from crm.contacts c
where c.email is distinct from (
    select h.new_values ->> 'email' from history.change_log h
    where h.table_name = 'contacts' and h.record_id = c.contact_id and h.new_values ? 'email'
    order by h.entry_id desc limit 1)
"""
_IN_FORCE = """
select feed_file_id, sha256 from landing.feed_files
where feed = 'open_items' and state = 'applied' and as_of <= :day order by as_of
"""
_WAITING = "select item_key from landing.quarantined_rows where feed_file_id = :id and state = 'open'"
