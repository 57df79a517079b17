"""What a draft of a feed's contract would change: asked of the files that were taken in before; nothing is kept.

Every archived file is read, cast and judged twice, by the contract in force and by the draft, as an import would do it
but for applying anything. The staging tables are the imports' own, so an import of the feed is waited for and waits;
the transaction ends in a rollback.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Connection, text

from tasks.errors import FileRefused
from tasks.feeds.casting import cast_table
from tasks.feeds.confined import read_confined
from tasks.feeds.contracts import FeedContract
from tasks.feeds.judging_store import decide_fates
from tasks.feeds.outcomes import StagedFile
from tasks.feeds.staging_store import serialise, stage, staging_table

_MONEY = ("open_amount", "amount")


@dataclass(frozen=True)
class Reading:
    """A file as one contract reads it: typed rows by row number, why rows cannot be used, why it is refused."""

    frame: pd.DataFrame
    bad: Mapping[int, str]
    refused: str | None = None


@dataclass(frozen=True)
class ArchiveBacktest:
    """What would flip. Each record: file_name, as_of, row_number, becomes, customer_number, reason, currency, before
    and after: the money of it that is taken in, as Decimal; 0 where it is not, None in a feed without money.

    ``becomes`` is quarantined, accepted, other (values are read otherwise), gone, found (no row before), refused or
    readable; of the last two ``row_number`` is None, because the file as a whole flips.
    """

    files: int
    rows: int
    records: tuple[Mapping[str, Any], ...]

    def sums(self) -> list[dict[str, object]]:
        """Per kind of flip and currency: how many rows, and by how much the money that is taken in changes."""
        found: dict[tuple[str, str], list[Any]] = {}
        for row in self.records:
            entry = found.setdefault((str(row["becomes"]), str(row["currency"] or "")), [0, Decimal(0)])
            entry[0] += 1
            entry[1] += (row["after"] or Decimal(0)) - (row["before"] or Decimal(0))
        return [
            {"becomes": becomes, "currency": currency or None, "rows": rows, "money": money}
            for (becomes, currency), (rows, money) in sorted(found.items())
        ]


def backtest_archive(
    connection: Connection, standing: FeedContract, draft: FeedContract, folder: Path, newest: int
) -> ArchiveBacktest:
    """Read the newest so many files of ``folder`` with both contracts and compare them; rolled back at the end.

    A file without a date in its archived name was refused when it came; it is read as of the day before all others.
    """
    paths = sorted((path for path in folder.glob("[!.]*") if path.is_file()), reverse=True)[:newest]
    serialise(connection, standing.feed)
    records: list[Mapping[str, Any]] = []
    rows = 0
    for path in reversed(paths):
        as_of = _date_of(path)
        before, after = (_read(connection, path, contract, as_of) for contract in (standing, draft))
        rows += max(len(before.frame), len(after.frame))
        records += [{"file_name": path.name, "as_of": as_of, **flip} for flip in flips(before, after)]
    connection.rollback()
    return ArchiveBacktest(len(paths), rows, tuple(records))


def _date_of(path: Path) -> date:
    try:
        return date.fromisoformat(path.name[:10])
    except ValueError:
        return date.min


def _read(connection: Connection, path: Path, contract: FeedContract, as_of: date) -> Reading:
    try:
        raw = read_confined(path, contract)
        cast = cast_table(raw, contract)
    except FileRefused as refusal:
        return Reading(pd.DataFrame(), {}, "; ".join(refusal.reasons))
    staged = StagedFile(
        feed_file_id=0,
        feed=contract.feed,
        source=contract.source,
        staging=staging_table(contract.feed),
        as_of=as_of,
        revision=1,
        columns=frozenset(raw.columns),
        creates_customers=contract.missing_customer == "create",
    )
    savepoint = connection.begin_nested()  # what judging leaves behind for applying is gone before the next reading
    stage(connection, staged, cast.frame)
    decide_fates(connection, staged, contract, raw, cast)
    found = connection.execute(text("select row_number, reasons from row_fate where fate = 'quarantined'")).all()
    savepoint.rollback()
    bad = {int(row.row_number): "; ".join(reason["reason"] for reason in row.reasons) for row in found}
    return Reading(cast.frame.set_index("row_number"), bad)


# --- comparing: pure --------------------------------------------------------------------------------------------------


def flips(before: Reading, after: Reading) -> Iterator[dict[str, Any]]:
    """What is not the same in two readings of one file, by row number."""
    if (before.refused is None) != (after.refused is None):
        yield from _whole(before, after)
    if before.refused is not None or after.refused is not None:
        return
    otherwise = _read_otherwise(before, after)
    for number in sorted({*before.frame.index, *after.frame.index}):
        states = _state(before, number), _state(after, number)
        if states[0] != states[1]:
            becomes = {"absent": "gone", "good": "found" if states[0] == "absent" else "accepted"}
            yield _flip(before, after, number, becomes.get(states[1], "quarantined"), after.bad.get(number))
        elif states[1] == "good" and number in otherwise:
            yield _flip(before, after, number, "other", f"read otherwise: {', '.join(otherwise[number])}")


def _state(reading: Reading, number: int) -> str:
    if number not in reading.frame.index:
        return "absent"
    return "bad" if number in reading.bad else "good"


def _whole(before: Reading, after: Reading) -> Iterator[dict[str, Any]]:
    """A line per currency of the file that flips as a whole, with the money that is taken in of it or was."""
    readable, opens = (before, False) if after.refused is not None else (after, True)
    sums: dict[Any, Decimal | None] = {}
    for number in readable.frame.index:
        value, currency = _money(readable, number), _cell(readable, number, "currency")
        sums[currency] = None if value is None else (sums.get(currency) or Decimal(0)) + value
    for currency, value in (sums or {None: None}).items():
        nothing = None if value is None else Decimal(0)
        yield {
            "row_number": None, "becomes": "readable" if opens else "refused", "customer_number": None,
            "reason": after.refused or before.refused, "currency": currency,
            "before": nothing if opens else value, "after": value if opens else nothing,
        }  # fmt: skip


def _flip(before: Reading, after: Reading, number: int, becomes: str, reason: str | None) -> dict[str, Any]:
    told = after if number in after.frame.index else before
    return {
        "row_number": number, "becomes": becomes, "customer_number": _cell(told, number, "customer_number"),
        "reason": reason or before.bad.get(number), "currency": _cell(told, number, "currency"),
        "before": _money(before, number), "after": _money(after, number),
    }  # fmt: skip


def _money(reading: Reading, number: int) -> Decimal | None:
    named = next((name for name in _MONEY if name in reading.frame.columns), None)
    if named is None:
        return None
    value = _cell(reading, number, named) if _state(reading, number) == "good" else None
    return Decimal(0) if value is None else Decimal(value)


def _cell(reading: Reading, number: int, column: str) -> Any:
    if column not in reading.frame.columns:
        return None
    value: Any = reading.frame.at[number, column]
    return None if pd.isna(value) else value


def _read_otherwise(before: Reading, after: Reading) -> dict[int, list[str]]:
    """The columns that both contracts have and read differently, by the number of a row that both have."""
    common = before.frame.index.intersection(after.frame.index)
    found: dict[int, list[str]] = {}
    for name in before.frame.columns.intersection(after.frame.columns):
        one, other = (reading.frame.loc[common, name].astype(object) for reading in (before, after))
        different = (one.notna() | other.notna()) & ~(one == other).fillna(False).astype(bool)
        for number in common[different.to_numpy(dtype=bool)]:
            found.setdefault(int(number), []).append(str(name))
    return found
