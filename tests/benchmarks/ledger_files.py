"""Weekly ledgers of any size, the same ones each time: what the benchmarks load.

Each week half a per cent of the items is new, half a per cent is no longer listed, and of four per cent a part was
paid: five per cent differ from the week before.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

CUSTOMERS = 50_000
FIRST_DAY = date(2026, 1, 5)
_OLDEST_DAYS = 182
_NEW_PER_WEEK = 0.005
KEEPING_PACE = 7 / _OLDEST_DAYS
_PAID_EVERY = 25
_MIX = 2_654_435_761  # Knuth's multiplicative hash: neighbours scatter, and every run scatters them alike

Numbers = npt.NDArray[np.int64]


def day_of(week: int, first_day: date = FIRST_DAY) -> date:
    """The business date of the week with this number; week 0 is the first."""
    return first_day + timedelta(weeks=week)


def write_customers(path: Path, count: int = CUSTOMERS) -> Path:
    """Write a file of customers for the contract ``organizations`` and return its path."""
    numbers = np.arange(1, count + 1)
    table = {
        "customer_number": _numbered("K", numbers, 6),
        "name": pc.binary_join_element_wise("Customer", pa.array(numbers).cast(pa.string()), " "),
        "country": pa.array(["BG", "PL", "NO", "SE", "DE"]).take(pa.array(numbers % 5)),
        "currency": pa.array(["BGN", "EUR", "SEK"]).take(pa.array(numbers % 3)),
    }
    csv.write_csv(pa.table(table), path)
    return path


def write_week(
    path: Path, week: int, items: int, *, first_day: date = FIRST_DAY, new_per_week: float = _NEW_PER_WEEK
) -> Path:
    """Write the ledger of that week with ``items`` rows for the contract ``open_items`` and return its path.

    With ``new_per_week`` at ``KEEPING_PACE`` the newest item is always of the week's own day, as in a year of ledgers.
    """
    number = np.arange(items, dtype=np.int64) + int(week * items * new_per_week)
    customer = (number * _MIX >> 7) % CUSTOMERS + 1
    issued = np.datetime64(first_day - timedelta(days=_OLDEST_DAYS)) + number * _OLDEST_DAYS // items
    cents = 10_000 + (number * _MIX >> 5) % 990_000
    open_cents = cents * (10 - _payments(number, week)) // 10
    table = {
        "customer_number": _numbered("K", customer, 6),
        "invoice_number": _numbered("F", number, 9),
        "issue_date": pa.array(issued),
        "due_date": pa.array(issued + 30),
        "currency": pa.array(["BGN", "EUR", "SEK"]).take(pa.array(customer % 3)),
        "amount": _money(cents),
        "open_amount": _money(open_cents),
        "disputed": pa.array(["no", "yes"]).take(pa.array((number % 97 == 0).astype(np.int8))),
        "note": pa.array(["", "paid in parts"]).take(pa.array((number % 50 == 0).astype(np.int8))),
    }
    csv.write_csv(pa.table(table), path, csv.WriteOptions(quoting_style="none"))
    return path


def _payments(number: Numbers, week: int) -> Numbers:
    """How many parts of each item were paid by that week."""
    parts = np.zeros(len(number), np.int64)
    for past in range(1, week + 1):
        parts += ((number + past * 7919) * _MIX >> 9) % _PAID_EVERY == 0
    return np.minimum(parts, 9)


def _numbered(prefix: str, numbers: Numbers, width: int) -> pa.Array:
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, padded, "")


def _money(cents: Numbers) -> pa.Array:
    whole, rest = np.divmod(cents, 100)
    padded = pc.utf8_lpad(pa.array(rest).cast(pa.string()), 2, "0")
    return pc.binary_join_element_wise(pa.array(whole).cast(pa.string()), padded, ".")
