"""Which file spoke of which products, and which products a complete file no longer lists.

A product is listed as long as no complete file of a greater place than the last file that names it leaves it out; then
it is discontinued, from that complete file's day on, and never deleted. A row in quarantine names its product as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from tasks.catalog.layers import Layer

# Where a file lies among its catalogue's files, written so that it sorts as text: day, revision, complete before
# changes only, its turn among those, content: 2026-11-22#000000001#1#000000000930!2026-11-22T10:30:00.000000#<sha256>.
PLACE = (
    "f.as_of || '#' || lpad(f.revision::text, 9, '0') || '#' || (f.mode <> 'snapshot')::integer || '#' || f.sequence"
    " || '#' || f.sha256"
)

# Units beside the product's own that the file names: larger ones that hold several, and smaller ones that are in it.
PACKAGES_IN_FILE = """
select product_id, row_number, pack_unit as unit, 1::numeric as parts, pack_quantity as holds
from in_file where pack_unit is not null
union all
select product_id, row_number, content_unit, content_quantity, 1 from in_file where content_unit is not null
"""


def record_mentions(connection: Connection, layer: Layer) -> None:
    """Keep which products the file spoke of, and of what of them."""
    _record(connection, layer, "select 'product', '', cast(:as_of as date), product_id from in_file")
    kinds = ", ".join(f"('{price.kind}')" for price in layer.plain_prices)
    if kinds:
        # One pass over the file for all kinds: they speak of the same products.
        connection.execute(
            text(
                f"{_INSERT} select :feed_file_id, kind, currency, :as_of, :source, :place, products from ("
                " select currency, range_agg(int8range(product_id, product_id, '[]')) as products from in_file"
                f" where currency is not null group by currency) said cross join (values {kinds}) kinds(kind) {_ADD}"
            ),
            layer.parameters(),
        )
    if layer.windowed_prices:
        _record(connection, layer, "select kind, currency, known_from, product_id from price_group")
    if "stock" in layer.columns:
        _record(connection, layer, "select 'stock', warehouse, :as_of, product_id from in_file where stock is not null")
    if {"pack_unit", "content_unit"} & layer.columns:
        _record(connection, layer, f"select 'pack', unit, :as_of, product_id from ({PACKAGES_IN_FILE}) p")


_INSERT = """
insert into crm.catalog_mentions as m (feed_file_id, aspect, key, known_from, source, place, products)
"""
# Rows that come back from quarantine join what their file had said before.
_ADD = """
on conflict (feed_file_id, aspect, key, known_from) do update set products = m.products + excluded.products
"""


def _record(connection: Connection, layer: Layer, said: str) -> None:
    connection.execute(
        text(
            f"{_INSERT} select :feed_file_id, aspect, key, cast(known_from as date), :source, :place,"
            " range_agg(int8range(product_id, product_id, '[]'))"
            f" from ({said}) said(aspect, key, known_from, product_id) group by aspect, key, known_from {_ADD}"
        ),
        layer.parameters(),
    )


def list_products(connection: Connection, layer: Layer, withdrawn: Sequence[str]) -> None:
    """Discontinue what the file, if it is complete, leaves out, and take back what it names.

    ``withdrawn``: part keys of rows that stood in the file's quarantine and count as never listed from now on.
    """
    if layer.late or withdrawn:
        named = f"p.product_id in (select product_id from in_file) or p.part_key in ({_WAITING})"
        scope = "true" if layer.full else named
        connection.execute(
            text(_RELIST.replace("{scope}", f"({scope} or p.part_key = any(:withdrawn))")),
            {**layer.parameters(), "withdrawn": list(withdrawn)},
        )
        return
    if layer.full:
        connection.execute(text(_DISCONTINUE), layer.parameters())
    connection.execute(text(_TAKE_BACK), layer.parameters())


_WAITING = """
select q.item_key from landing.quarantined_rows q
where q.feed_file_id = :feed_file_id and q.state = 'open' and q.item_key is not null
"""

_DISCONTINUE = f"""
with written as (
    update crm.products p set discontinued_on = :as_of, updated_at = now()
    where p.source = :source and p.discontinued_on is null
      and not exists (select from in_file i where i.product_id = p.product_id)
      and not exists (select from ({_WAITING}) w where w.item_key = p.part_key)
    returning p.product_id
)
insert into discontinued_product select product_id from written
"""

_TAKE_BACK = f"""
with written as (
    update crm.products p set discontinued_on = null, updated_at = now()
    where p.source = :source and p.discontinued_on is not null
      and (exists (select from in_file i where i.product_id = p.product_id)
           or exists (select from ({_WAITING}) w where w.item_key = p.part_key))
    returning p.product_id
)
insert into changed_product select product_id from written
"""

# The same worked out from all that was ever said, for what does not come in order. Each mention keeps only the products
# that no newer mention has, so that every product is looked at once.
_RELIST = f"""
with mentions as (
    select m.place, m.products - coalesce(range_agg(m.products) over (
               order by m.place desc rows between unbounded preceding and 1 preceding), '{{}}') as products
    from crm.catalog_mentions m where m.source = :source and m.aspect = 'product'
), waiting as (
    select q.item_key, max({PLACE}) collate "C" as place
    from landing.quarantined_rows q join landing.feed_files f using (feed_file_id)
    where f.feed = 'catalog' and f.source = :source and q.state = 'open' and q.item_key is not null
    group by q.item_key
), named as (
    select p.product_id, p.discontinued_on, greatest(m.place, w.place) as place
    from crm.products p
    left join (select m.place, r from mentions m cross join lateral unnest(m.products) r) m
        on p.product_id >= lower(m.r) and p.product_id < upper(m.r)
    left join waiting w on w.item_key = p.part_key
    where p.source = :source and {{scope}}
), complete as (
    select f.as_of, ({PLACE}) collate "C" as place from landing.feed_files f
    where f.feed = 'catalog' and f.source = :source and f.mode = 'snapshot' and f.state in ('applied', 'superseded')
), truth as (
    select n.product_id, n.discontinued_on as was, (select min(c.as_of) from complete c where c.place > n.place) as now
    from named n
), written as (
    update crm.products p set discontinued_on = t.now, updated_at = now()
    from truth t where t.product_id = p.product_id and t.now is distinct from t.was
    returning p.product_id, t.was, t.now
), gone as (
    insert into discontinued_product select product_id from written where was is null
)
insert into changed_product select product_id from written where now is null
"""
