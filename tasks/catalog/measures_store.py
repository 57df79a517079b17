"""Measures a catalogue's file against what is held, before anything of it is applied."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import Connection, text

from tasks.catalog.layers import PRICES, Layer
from tasks.catalog.store import layer_of, prepare
from tasks.feeds.outcomes import StagedFile
from tasks.feeds.price_guards import CatalogMeasures, Factor


def measure_catalog(connection: Connection, staged: StagedFile, jump: Decimal) -> CatalogMeasures:
    """Return how the staged file differs from the prices and products held; more than ``jump`` is a jump of a price."""
    layer = layer_of(connection, staged)
    prepare(connection, layer)
    vanished = connection.execute(text(_VANISHED), layer.parameters()).one_or_none() if layer.full else None
    moved = connection.execute(text(_MOVED), {"jump": jump}).one()
    return CatalogMeasures(
        before=(vanished.file_name, vanished.as_of) if vanished else None,
        listed=int(vanished.listed) if vanished else 0,
        absent=int(vanished.absent) if vanished else 0,
        compared=_compared(connection, layer),
        changed=int(moved.changed),
        jumped=int(moved.jumped),
        jump=jump,
        example=moved.example or "",
        factors=[Factor(row.factor, int(row.prices)) for row in connection.execute(text(_FACTORS))],
        rates=_rates(connection, layer) if moved.changed else {},
    )


def _compared(connection: Connection, layer: Layer) -> int:
    """How many prices the file gives of products that are known."""
    spoken = [price.amount for price in PRICES if price.amount in layer.columns]
    counts = " + ".join(f"count({amount})" for amount in spoken) or "0"
    return int(connection.scalar(text(f"select {counts} from in_file where not is_new")) or 0)


def _rates(connection: Connection, layer: Layer) -> dict[str, Decimal]:
    """The newest rates of the file's day, in both directions."""
    rows = connection.execute(
        text(
            "select distinct on (base, quote) base, quote, rate from crm.currency_rates where rated_on <= :as_of"
            " order by base, quote, rated_on desc"
        ),
        {"as_of": layer.as_of},
    ).all()
    found = {f"{row.base} to {row.quote}": row.rate for row in rows}
    return found | {f"{row.quote} to {row.base}": 1 / row.rate for row in rows}


_VANISHED = """
with before as (
    select f.file_name, f.as_of, m.products from crm.catalog_mentions m join landing.feed_files f using (feed_file_id)
    where m.source = :source and m.aspect = 'product' and m.place < :place and f.mode = 'snapshot'
    order by m.place desc limit 1
), here as (
    select coalesce(range_agg(int8range(product_id, product_id, '[]')), '{}') as products from (
        select product_id from in_file where product_id is not null
        union all
        select p.product_id from row_fate f join landing.staged_products s using (row_number)
        join crm.products p on p.source = :source and p.part_key = s.part_key where f.fate = 'quarantined'
    ) named
)
select file_name, as_of, (select sum(upper(r) - lower(r)) from unnest(before.products) r) as listed,
       coalesce((select sum(upper(r) - lower(r)) from unnest(before.products - here.products) r), 0) as absent
from before cross join here
"""

# A price that differs shows as one row where period and unit are the same, and as one on each side where they are not.
# One without a unit is per the product's own unit: a list of prices alone need not say what the catalogue said.
_PAIRS = """
pairs as (
    select row_number, product_id, new_amount, old_amount from price_difference
    where new_amount is not null and old_amount > 0
    union all
    select w.row_number, w.product_id, w.new_amount, h.old_amount
    from price_difference w
    join crm.products p on p.product_id = w.product_id
    join price_difference h
      on h.product_id = w.product_id and h.kind = w.kind and h.currency = w.currency
     and coalesce(nullif(h.unit, ''), p.unit, 'C62') = coalesce(nullif(w.unit, ''), p.unit, 'C62')
     and h.min_quantity = w.min_quantity and h.valid_from < w.valid_until and w.valid_from < h.valid_until
    where w.old_amount is null and h.new_amount is null and h.old_amount > 0 and w.new_amount <> h.old_amount
)
"""
_MOVED = f"""
with {_PAIRS}, sized as (
    select *, greatest(new_amount, old_amount) > least(new_amount, old_amount) * (1 + :jump) as jumps from pairs
)
select count(*) as changed, count(*) filter (where jumps) as jumped,
       (select ', such as part number ' || p.part_number || ' from ' || trim_scale(s.old_amount) || ' to '
               || trim_scale(s.new_amount) || ' in row ' || s.row_number
        from sized s join crm.products p using (product_id) where s.jumps order by s.row_number limit 1) as example
from sized
"""
# Where the first digit stands is found in floating point: the logarithm of an exact number takes as long as all else
# that is done for a price that changed. The factor itself stays exact.
_FACTORS = f"""
with {_PAIRS}
select trim_scale(round(ratio, 2 - floor(log(ratio::double precision))::integer)) as factor, count(*) as prices
from (select new_amount / old_amount as ratio from pairs where new_amount > 0) r
group by 1 order by count(*) desc, 1 limit 20
"""
