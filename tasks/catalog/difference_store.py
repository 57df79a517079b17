"""Reads what a file of the catalogue would change, while it is prepared and before it is applied."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from tasks.catalog.difference import MOST_ROWS, FileDifference
from tasks.catalog.layers import FIELDS, PRICES, Layer
from tasks.catalog.listing_store import PACKAGES_IN_FILE


def read_changes(connection: Connection, layer: Layer) -> FileDifference:
    """Return what the prepared file adds and changes and what of it is quarantined, nothing of it applied yet."""
    found = FileDifference(layer.place.rpartition("#")[2])
    shown = [name for name in ("name", "category", "unit") if name in layer.columns]
    prices = [price.amount for price in PRICES if price.amount in layer.columns]
    names = ", ".join(["s.part_number", *(f"s.{name}" for name in [*shown, "currency", *prices])])
    _read(connection, found, "added", f"select {names} {_NEW} order by i.part_key, i.row_number", layer)
    _read(connection, found, "changed", _changes(layer), layer)
    _read(connection, found, "quarantined", _QUARANTINED, layer)
    return found


def read_discontinued(connection: Connection, layer: Layer, found: FileDifference) -> None:
    """Add the products that the file, now applied, leaves out."""
    _read(connection, found, "discontinued", _DISCONTINUED, layer)


def _read(connection: Connection, found: FileDifference, name: str, statement: str, layer: Layer) -> None:
    limited = f"select * from ({statement}) found limit {MOST_ROWS}"
    rows: list[dict[str, Any]] = [dict(row) for row in connection.execute(text(limited), layer.parameters()).mappings()]
    setattr(found, name, rows)
    count = connection.scalar(text(f"select count(*) from ({statement}) found"), layer.parameters())
    found.totals[name] = int(count or 0)


_NEW = "from in_file i join landing.staged_products s using (row_number) where i.is_new"


def _changes(layer: Layer) -> str:
    """Field by field; a price by kind, currency, unit and quantity, with its day and by how much it differs."""
    fields = " union all ".join(
        f"select p.part_number, p.part_key, p.name, '{name}' as field, p.{name} as old, s.{name} as new,"
        " null::date as from_day, null::numeric as percent"
        " from in_file i join landing.staged_products s using (row_number)"
        f" join crm.products p on p.product_id = i.product_id where i.differs and p.{name} is distinct from s.{name}"
        for name in FIELDS
        if name in layer.columns
    )
    return f"""
select part_number, name, field, old, new, from_day, percent from (
    {fields}
    union all
    select p.part_number, p.part_key, p.name,
           concat_ws(' ', d.kind, 'price', d.currency, d.unit, nullif(trim_scale(d.min_quantity), 1)),
           trim_scale(d.old_amount)::text, trim_scale(d.new_amount)::text, d.valid_from,
           round(100 * (d.new_amount - d.old_amount) / nullif(d.old_amount, 0), 1)
    from ({_SAME_UNIT}) d join crm.products p on p.product_id = d.product_id
    union all
    select p.part_number, p.part_key, p.name, concat_ws(' ', 'stock', nullif(i.warehouse, '')),
           trim_scale(t.quantity)::text, trim_scale(i.stock)::text, null, null
    from in_file i join crm.products p on p.product_id = i.product_id
    left join crm.product_stock t on t.product_id = i.product_id and t.warehouse = i.warehouse
    where i.stock is not null and t.quantity is distinct from i.stock and not i.is_new
    union all
    select p.part_number, p.part_key, p.name, 'one ' || k.unit || ' holds',
           trim_scale(round(t.holds / t.parts, 4))::text, trim_scale(round(k.holds / k.parts, 4))::text, null, null
    from ({PACKAGES_IN_FILE}) k join crm.products p on p.product_id = k.product_id
    left join crm.product_units t on t.product_id = k.product_id and t.unit = k.unit
    where (t.parts, t.holds) is distinct from (k.parts, k.holds)
    union all
    select distinct p.part_number, p.part_key, p.name, 'discontinued', p.discontinued_on::text, null, null::date,
           null::numeric
    from in_file i join crm.products p on p.product_id = i.product_id where p.discontinued_on is not null
) changes order by part_key, field, from_day
"""


# A price that the file says without a unit takes the place of one per the product's own unit: that is one change of the
# amount, or none.
_SAME_UNIT = """
select product_id, kind, currency, min_quantity, valid_from, valid_until, max(spelt_out) as unit,
       max(old_amount) as old_amount, max(new_amount) as new_amount
from (
    select d.*, nullif(d.unit, '') as spelt_out, coalesce(nullif(d.unit, ''), p.unit, 'C62') as meant
    from price_difference d join crm.products p using (product_id)
) d
group by product_id, kind, currency, min_quantity, valid_from, valid_until, meant
having max(old_amount) is distinct from max(new_amount)
"""

_QUARANTINED = """
select q.row_number, r ->> 'cell' as cell, r ->> 'column_name' as column_name, r ->> 'raw_value' as raw_value,
       r ->> 'reason' as reason
from landing.quarantined_rows q cross join lateral jsonb_array_elements(q.reasons) r
where q.feed_file_id = :feed_file_id order by 1, 2
"""
_DISCONTINUED = """
select p.part_number, p.name from discontinued_product d join crm.products p using (product_id) order by p.part_key
"""
