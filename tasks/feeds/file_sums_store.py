"""A staged file added up: its items, its sums per currency, and what its totals rows say beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from tasks.feeds.casting import control_totals
from tasks.feeds.contracts import FeedContract
from tasks.feeds.guards import Measures, Sums, Total
from tasks.feeds.raw_table import RawTable


def added_up(connection: Connection, measures: Measures, contract: FeedContract, raw: RawTable) -> Measures:
    """The file's own figures in one pass: items, newest document, sums per currency and what its totals row says."""
    rows = connection.execute(text(_ADD_UP)).mappings().all()
    newest = [row["newest"] for row in rows if row["newest"] is not None]
    sums = {row["currency"]: Sums(row["rows"], row["gross"]) for row in rows if row["currency"] is not None}
    return replace(
        measures,
        items=sum(row["items"] for row in rows),
        newest=max(newest, default=None),
        sums=sums,
        totals=tuple(_totals(rows, contract, raw)),
    )


_ADD_UP = """
select s.currency, count(*) as rows, count(s.customer_number || s.invoice_number) as items,
       max(s.issue_date) as newest, coalesce(sum(abs(s.open_amount)), 0) as gross,
       sum(s.amount) as amount, sum(s.open_amount) as open_amount,
       sum(s.amount) filter (where f.fate = 'superseded') as amount_twice,
       sum(s.open_amount) filter (where f.fate = 'superseded') as open_amount_twice,
       sum(s.amount) filter (where s.document_type = 'credit_note') as amount_credit,
       sum(s.open_amount) filter (where s.document_type = 'credit_note') as open_amount_credit,
       count(*) filter (where s.amount is null) as amount_unread,
       count(*) filter (where s.open_amount is null) as open_amount_unread
from landing.staged_items s left join row_fate f using (row_number)
group by s.currency
"""


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
