"""Reads what a run brought, for the mail to the catalogue's owner."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from sqlalchemy import Connection, text

from tasks.catalog.owner_mail import CatalogNews, FileNews, Finding

_COUNTS = ("rows_read", "inserted", "updated", "unchanged", "quarantined", "superseded", "settled", "warned")
_MOST_LINES = 10
_FEW = 50_000  # products, counted once per thing that a file says of them


def read_news(connection: Connection, run_id: int, as_of: date) -> CatalogNews:
    """Return the files that the run took in or refused, with what of them needs a look."""
    files = [
        FileNews(
            row.file_name,
            row.as_of,
            row.state,
            {name: int(getattr(row, name)) for name in _COUNTS},
            tuple(row.refusal),
            tuple(verdict["guard"] for verdict in row.guards if verdict["state"] == "overruled"),
        )
        for row in connection.execute(
            text("select * from landing.feed_files where run_id = :run_id order by feed_file_id"), {"run_id": run_id}
        )
    ]
    looked_at = any(file.needs_a_look for file in files)
    return CatalogNews(as_of, run_id, files, tuple(_findings(connection, run_id)) if looked_at else ())


def _findings(connection: Connection, run_id: int) -> Iterator[Finding]:
    few = _few_products(connection, run_id)
    for title, see, statement in _LOOKS:
        among = "l.product_id = any(:few)" if few is not None else "true"
        numbered = (
            f"select told, count(*) over () as found from ({statement.replace('{among}', among)}) looked"
            f" limit {_MOST_LINES}"
        )
        rows = connection.execute(text(numbered), {"run_id": run_id, "few": few}).all()
        if rows:
            yield Finding(title, [row.told for row in rows], int(rows[0].found), see)


def _few_products(connection: Connection, run_id: int) -> list[int] | None:
    """The products that the run's files speak of; None where they are many, so that all prices are read at once.

    A file of a few changes is to cost what the changes cost, whatever the size of the catalogue.
    """
    named = "landing.feed_files f join crm.catalog_mentions m using (feed_file_id) where f.run_id = :run_id"
    ranges = f"select unnest(m.products) as r from {named}"
    parameters = {"run_id": run_id}
    counted = connection.scalar(text(f"select sum(upper(r) - lower(r)) from ({ranges}) said"), parameters)
    if counted is None or counted > _FEW:
        return None
    numbers = f"select distinct generate_series(lower(r), upper(r) - 1) from ({ranges}) said"
    return list(connection.execute(text(numbers), parameters).scalars())


_PRODUCT = "p.part_number || coalesce(' ' || p.name, '')"

# What waits, what is gone, the greatest changes of prices, and what does not fit together; the worst first.
_LOOKS = (
    (
        "Rows that could not be used",
        "kontor quarantine list",
        (
            "select q.file_name || ' ' || coalesce(q.cell, '') || ': ' || q.reason as told from report.quarantine q"
            " join landing.quarantined_rows r using (quarantined_row_id) join landing.feed_files f using (feed_file_id)"
            " where f.run_id = :run_id and q.state = 'open' order by q.file_name, q.row_number"
        ),
    ),
    (
        "Products discontinued",
        "kontor report catalog",
        (
            f"select {_PRODUCT} || ', since ' || p.discontinued_on as told from crm.products p"
            " join landing.feed_files f on f.source = p.source and f.as_of = p.discontinued_on"
            " where f.run_id = :run_id and f.feed = 'catalog' and f.mode = 'snapshot' and f.state = 'applied'"
            " and f.settled > 0 order by p.part_key"
        ),
    ),
    (
        "Greatest changes of prices",
        "kontor report price-changes",
        (
            f"select {_PRODUCT} || ', ' || c.kind || ' price ' || c.currency || ': ' || trim_scale(b.amount) || ' -> '"
            " || trim_scale(c.amount) || to_char(100 * (c.amount - b.amount) / b.amount, ' (FMSG999999990 %)') as told"
            " from landing.feed_files f"
            " join crm.product_prices c on c.feed_file_id = f.feed_file_id"
            " join crm.product_prices b on b.product_id = c.product_id and b.kind = c.kind and b.currency = c.currency"
            " and b.unit = c.unit and b.min_quantity = c.min_quantity and b.valid_until = c.valid_from and b.amount > 0"
            " join crm.products p on p.product_id = c.product_id"
            # A first list of a million products has no earlier prices to look for.
            " where f.run_id = :run_id and f.feed = 'catalog' and f.updated > 0"
            " order by abs(ln(nullif(c.amount, 0) / b.amount)) desc nulls first, p.part_key"
        ),
    ),
    (
        "Prices not in the order promotional, dealer, customer",
        "kontor report price-ladder",
        (
            "select l.part_number || coalesce(' ' || l.name, '') || ', ' || l.currency || ': '"
            " || concat_ws(', ', 'promotional ' || trim_scale(l.promo_price), 'dealer ' || trim_scale(l.dealer_price),"
            "              'customer ' || trim_scale(l.customer_price)) as told"
            " from report.price_ladder l"
            " where l.source in (select source from landing.feed_files where run_id = :run_id) and {among}"
            " order by l.part_number"
        ),
    ),
    (
        "Stock below zero",
        "kontor report stock",
        (
            f"select {_PRODUCT} || coalesce(' in ' || nullif(s.warehouse, ''), '') || ': ' || trim_scale(s.quantity)"
            " as told from crm.product_stock s join crm.products p using (product_id)"
            " join landing.feed_files f on f.feed_file_id = s.feed_file_id"
            " where f.run_id = :run_id and s.quantity < 0 order by s.quantity, p.part_key"
        ),
    ),
    (
        "GTIN with a wrong check digit",
        "kontor report catalog",
        (
            f"select {_PRODUCT} || ': ' || p.gtin as told from crm.products p"
            " join landing.feed_files f on f.feed_file_id = p.feed_file_id"
            " where f.run_id = :run_id and not crm.gtin_is_right(p.gtin) order by p.part_key"
        ),
    ),
)
