"""The sums of a snapshot by currency: taken in, waiting and given up, beside what its own totals row says."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from tasks.feeds.contracts import FeedContract
from tasks.feeds.corrections import CurrencyTotal, stated_totals

MONEY_COLUMNS = ("amount", "open_amount")

# What a snapshot listed and was taken in: what held on its day, but for items that only a waiting row protects.
_ACCEPTED = """
with held as (
    select i.organization_id, i.invoice_number, i.currency, i.amount, i.open_amount from crm.invoices i
    where i.source = :source and i.listed_from <= :as_of and (i.listed_until is null or i.listed_until > :as_of)
    union all
    select i.organization_id, i.invoice_number, s.currency, s.amount, s.open_amount
    from crm.invoice_states s join crm.invoices i using (invoice_id)
    where i.source = :source and s.listed_from <= :as_of and s.listed_until > :as_of
)
select h.currency, sum(h.amount) as amount, sum(h.open_amount) as open_amount
from held h join crm.organizations o using (organization_id)
where not exists (select from landing.quarantined_rows q
                  where q.feed_file_id = :feed_file_id and q.state = 'open'
                    and q.customer_number = o.customer_number and q.item_key = h.invoice_number)
group by h.currency
"""

_ASIDE = """
select q.staged ->> 'currency' as currency, q.state, (q.staged ->> 'amount')::numeric as amount,
       (q.staged ->> 'open_amount')::numeric as open_amount
from landing.quarantined_rows q
where q.feed_file_id = :feed_file_id and q.state in ('open', 'rejected')
"""


def fetch_totals(connection: Connection, feed_file_id: int, contract: FeedContract) -> list[CurrencyTotal]:
    """A snapshot's sums by money column and currency beside what its own totals row says; [] for other files."""
    file = connection.execute(
        text("select source, as_of, mode, state, totals from landing.feed_files where feed_file_id = :feed_file_id"),
        {"feed_file_id": feed_file_id},
    ).one()
    if file.mode != "snapshot" or file.state != "applied":
        return []
    parameters = {"source": file.source, "as_of": file.as_of, "feed_file_id": feed_file_id}
    accepted = {row.currency: row for row in connection.execute(text(_ACCEPTED), parameters)}
    aside = connection.execute(text(_ASIDE), parameters).all()
    currencies = sorted({*accepted, *(row.currency for row in aside if row.currency)})
    found = []
    for column in MONEY_COLUMNS:
        stated = stated_totals(file.totals or [], contract, column, currencies)
        unreadable = sum(row.currency is None or getattr(row, column) is None for row in aside)
        found += [
            CurrencyTotal(
                column=column,
                currency=currency,
                accepted=getattr(accepted[currency], column) if currency in accepted else Decimal(0),
                quarantined=_sum(aside, "open", currency, column),
                rejected=_sum(aside, "rejected", currency, column),
                stated=stated.get(currency),
                unreadable=unreadable,
            )
            for currency in currencies
        ]
    return found


def _sum(rows: Iterable[Any], state: str, currency: str, column: str) -> Decimal:
    amounts = [getattr(row, column) for row in rows if row.state == state and row.currency == currency]
    return sum((amount for amount in amounts if amount is not None), Decimal(0))
