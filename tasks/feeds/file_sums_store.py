"""A file added up: its items, its sums per currency, and what its totals rows say beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, text

from tasks.feeds.casting import MONEY_TYPE, control_totals
from tasks.feeds.contracts import FeedContract
from tasks.feeds.guards import Measures, Sums, Total
from tasks.feeds.raw_table import RawTable


def added_up(
    connection: Connection, measures: Measures, contract: FeedContract, raw: RawTable, frame: pd.DataFrame
) -> Measures:
    """The file's own figures in one pass: items, newest document, sums per currency and what its totals row says."""
    twice = connection.scalars(text("select row_number from row_fate where fate = 'superseded'")).all()
    rows = add_up(frame, twice)
    newest = [row["newest"] for row in rows if row["newest"] is not None]
    sums = {row["currency"]: Sums(row["rows"], row["gross"]) for row in rows if row["currency"] is not None}
    return replace(
        measures,
        items=sum(row["items"] for row in rows),
        newest=max(newest, default=None),
        sums=sums,
        totals=tuple(_totals(rows, contract, raw)),
    )


def add_up(frame: pd.DataFrame, twice: Sequence[int] = ()) -> list[dict[str, Any]]:
    """The sums of typed rows per currency, exact, one without a currency included; ``twice``: the copies' row numbers.

    Keys: currency, rows, items (rows with customer and invoice), newest (issue date), gross (what is open without its
    sign), and of amount and open_amount the sum, ``…_twice``, ``…_credit`` (of credit notes) and ``…_unread`` (rows).
    """
    table = pa.Table.from_pandas(frame[list(_ADDED)], preserve_index=False)
    keyed = pc.and_(pc.is_valid(table["customer_number"]), pc.is_valid(table["invoice_number"]))
    copies = pc.is_in(table["row_number"], value_set=pa.array(twice, pa.int32()))
    credit = pc.fill_null(pc.equal(table["document_type"], "credit_note"), False)
    nothing = pa.scalar(None, MONEY_TYPE)
    columns: dict[str, Any] = {"currency": table["currency"], "keyed": keyed, "newest": table["issue_date"]}
    columns |= {"gross": pc.abs(table["open_amount"])}
    for name in ("amount", "open_amount"):
        columns[name] = table[name]
        columns[f"{name}_twice"] = pc.if_else(copies, table[name], nothing)
        columns[f"{name}_credit"] = pc.if_else(credit, table[name], nothing)
        columns[f"{name}_unread"] = pc.is_null(table[name])
    wanted = [("keyed", "count", pc.CountOptions(mode="all")), ("newest", "max")]
    wanted += [(name, "sum") for name in columns if name not in ("currency", "newest")]
    found = pa.table(columns).group_by("currency", use_threads=False).aggregate(wanted).to_pylist()
    return [_named(row) for row in found]


_ADDED = (
    "row_number",
    "customer_number",
    "invoice_number",
    "document_type",
    "issue_date",
    "currency",
    "amount",
    "open_amount",
)


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    sums = {name.removesuffix("_sum"): value for name, value in row.items() if name.endswith("_sum")}
    counted = {name: int(value or 0) for name, value in sums.items() if name.endswith("_unread")}
    return {
        **sums,
        **counted,
        "currency": row["currency"],
        "rows": row["keyed_count"],
        "items": int(sums["keyed"] or 0),
        "newest": row["newest_max"],
        "gross": sums["gross"] or Decimal(0),
    }


def _totals(rows: Sequence[Mapping[Any, Any]], contract: FeedContract, raw: RawTable) -> Iterator[Total]:
    """The totals rows' amounts, each beside the sums that its rows may be meant to have."""
    # In a ledger, what was open on a settled item is worked out; the file's remainder is another figure.
    columns = ("amount",) if contract.mode == "ledger" else ("amount", "open_amount")
    for total in control_totals(raw, contract):
        for column in columns:
            if column in total.amounts:
                yield _total(rows, column, total.currency, total.amounts[column])


def _total(rows: Sequence[Mapping[Any, Any]], column: str, currency: str | None, said: Decimal) -> Total:
    """Rows of that currency, with or without copies, credit notes deducted or counted as the positive they may be."""
    meant = [row for row in rows if currency is None or row["currency"] == currency]

    def add(name: str) -> Decimal:
        return sum((row[name] or Decimal(0) for row in meant), Decimal(0))

    plain, twice, credit = add(column), add(f"{column}_twice"), add(f"{column}_credit")
    # A row whose currency cannot be read may belong to any of them.
    homeless = sum(row["rows"] for row in rows if row["currency"] is None) if currency is not None else 0
    return Total(
        column=column,
        currency=currency,
        said=said,
        sums=(plain, plain - twice, plain - 2 * credit),
        rows=sum(row["rows"] for row in meant),
        unreadable=homeless + sum(row[f"{column}_unread"] for row in meant),
    )


def stored_sums(stored: Mapping[str, Any]) -> dict[str, Sums]:
    """The sums that were kept with a file, by currency."""
    return {currency: Sums(int(found["rows"]), Decimal(found["open"])) for currency, found in stored.items()}
