"""Applying a catalogue's files to ``crm``: set-based SQL, the same result in any order of arrival.

Files are laid over each other in the order of their *place*: day, revision, complete before changes only, the time or
number in their name, the instant they were written, content. What a file says of a product holds unless a file of a
greater place speaks of the same thing: of one field, of the prices of one kind and currency, of the stock of one
warehouse, of one package. A column that a file does not have says nothing; a blank cell in a column that it has clears
a field and ends a price.

A file that arrives in order need not know any of that: it is compared with what is held, and what differs is written.
A late one first asks ``crm.catalog_mentions`` what newer files spoke of, and leaves that alone.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from tasks.catalog.difference import FileDifference
from tasks.catalog.difference_store import read_changes, read_discontinued
from tasks.catalog.layers import FIELDS, PRICES, Layer
from tasks.catalog.listing_store import PACKAGES_IN_FILE, PLACE, list_products, record_mentions
from tasks.catalog.prices_store import compare_prices, write_prices
from tasks.feeds.outcomes import Applied, StagedFile
from tasks.feeds.staging_store import give_room


def apply_catalog(
    connection: Connection, staged: StagedFile, differences: list[FileDifference] | None = None
) -> Applied:
    """Apply the good rows of a catalogue's file: products, prices, stock, packages, and what is no longer listed.

    Where ``differences`` is given, what the file changes is added to it; it takes a while and is for dry runs.
    """
    give_room(connection)
    layer = layer_of(connection, staged)
    prepare(connection, layer)
    difference = read_changes(connection, layer) if differences is not None else None
    inserted = _insert_products(connection, layer)
    _update_products(connection, layer)
    write_prices(connection, layer)
    record_mentions(connection, layer)
    _write_stock(connection, layer)
    _write_packages(connection, layer)
    list_products(connection, layer, [key for _, key in staged.withdrawn])
    if difference is not None and differences is not None:
        read_discontinued(connection, layer, difference)
        differences.append(difference)
    counted = connection.execute(text(_COUNT_ROWS)).one()
    discontinued = int(connection.scalar(text("select count(*) from discontinued_product")) or 0)
    drop_temporary(connection)
    return Applied(
        inserted=inserted,
        updated=int(counted.updated),
        unchanged=int(counted.unchanged),
        superseded=int(counted.superseded),
        settled=discontinued,
    )


def layer_of(connection: Connection, staged: StagedFile) -> Layer:
    """Return where the file lies among those of its catalogue that were applied."""
    row = connection.execute(text(_LAYER), {"feed_file_id": staged.feed_file_id}).one()
    return Layer(
        staged.feed_file_id,
        staged.source,
        row.place,
        staged.as_of,
        row.full,
        staged.columns,
        bool(row.late),
        row.next_full,
    )


_LAYER = f"""
with this as (select f.*, {PLACE} as place from landing.feed_files f where f.feed_file_id = :feed_file_id)
select this.place, this.mode = 'snapshot' as full,
       exists (select from crm.catalog_mentions m where m.source = this.source and m.place > this.place) as late,
       (select min(f.as_of) from landing.feed_files f
        where f.feed = this.feed and f.source = this.source and f.mode = 'snapshot'
          and f.state in ('applied', 'superseded') and ({PLACE}) collate "C" > this.place collate "C") as next_full
from this
"""


def prepare(connection: Connection, layer: Layer) -> None:
    """Put the good rows into ``in_file``, each beside its product, and what differs from what is held beside that.

    Done once a file, whoever needs it first: the guards, a dry run's difference, or the application.
    """
    if connection.scalar(text("select to_regclass('pg_temp.in_file') is not null")):
        return
    _create_newer(connection, layer)
    connection.execute(text(_in_file(layer)), layer.parameters())
    # A product on several rows is what the first of them says; the others add prices, stock and packages.
    connection.execute(text(_ONLY_FIRST_ROWS))
    connection.exec_driver_sql("analyze in_file (product_id, part_key)")
    connection.exec_driver_sql("create temporary table changed_product (product_id bigint) on commit drop")
    connection.exec_driver_sql("create temporary table discontinued_product (product_id bigint) on commit drop")
    compare_prices(connection, layer)


def drop_temporary(connection: Connection) -> None:
    """Leave nothing of one file behind for the next one in the same transaction."""
    connection.exec_driver_sql(
        "drop table if exists in_file, newer_field, changed_product, discontinued_product, price_group,"
        " price_difference, price_change, price_timeline"
    )


def _create_newer(connection: Connection, layer: Layer) -> None:
    """What newer files have said of each product, field by field; an empty table for a file that comes in order."""
    flags = ", ".join(f"bool_or(columns @> array['{field}']) as {field}" for field in FIELDS)
    connection.execute(
        text(
            "create temporary table newer_field on commit drop as"
            f" select p.product_id, {flags} from ("
            "   select f.columns, range_agg(m.products) as products from crm.catalog_mentions m"
            "   join landing.feed_files f using (feed_file_id)"
            "   where m.source = :source and m.aspect = 'product' and m.place > :place group by f.columns"
            " ) said cross join lateral unnest(said.products) r"
            " join crm.products p on p.product_id >= lower(r) and p.product_id < upper(r)"
            " group by p.product_id"
        ),
        {"source": layer.source, "place": layer.place},
    )
    connection.exec_driver_sql("analyze newer_field")


def _spoken_fields(layer: Layer) -> list[str]:
    return [field for field in FIELDS if field in layer.columns]


def _in_file(layer: Layer) -> str:
    fields = _spoken_fields(layer)
    late = " and n.{0} is not true" if layer.late else ""
    differs = " or ".join(f"(p.{f} is distinct from s.{f}{late.format(f)})" for f in fields)
    unit = "coalesce(s.unit, '')" if "unit" in layer.columns else "''"
    prices = ", ".join(f"s.{price.amount}" for price in PRICES)
    return f"""
create temporary table in_file on commit drop as
select s.row_number, s.part_key, p.product_id, p.product_id is null as is_new,
       p.product_id is not null and ({differs}) as differs,
       s.currency, {unit} as unit, coalesce(s.min_quantity, 1) as min_quantity, {prices},
       s.valid_from, s.valid_to + 1 as valid_until, s.promo_from, s.promo_to + 1 as promo_until,
       coalesce(s.warehouse, '') as warehouse, s.stock, s.stock_on, s.pack_unit, s.pack_quantity,
       s.content_unit, s.content_quantity
from landing.staged_products s
left join crm.products p on p.source = :source and p.part_key = s.part_key
{"left join newer_field n on n.product_id = p.product_id" if layer.late else ""}
where not exists (select from row_fate f where f.row_number = s.row_number)
"""


_ONLY_FIRST_ROWS = """
update in_file i set differs = false
where differs and exists (select from in_file o where o.part_key = i.part_key and o.row_number < i.row_number)
"""


def _insert_products(connection: Connection, layer: Layer) -> int:
    """Insert the products that are new; returns the rows that speak of them."""
    fields = ", ".join(_spoken_fields(layer))
    said = ", ".join(f"s.{field}" for field in _spoken_fields(layer))
    inserted = connection.execute(
        text(
            f"insert into crm.products (source, part_key, {fields}, feed_file_id)"
            f" select distinct on (i.part_key) :source, i.part_key, {said}, :feed_file_id"
            " from in_file i join landing.staged_products s using (row_number) where i.is_new"
            " order by i.part_key, i.row_number"
        ),
        layer.parameters(),
    ).rowcount
    if not inserted:
        return 0
    return connection.execute(
        text(
            "update in_file i set product_id = p.product_id from crm.products p"
            " where i.is_new and p.source = :source and p.part_key = i.part_key"
        ),
        layer.parameters(),
    ).rowcount


def _update_products(connection: Connection, layer: Layer) -> None:
    fields = _spoken_fields(layer)
    said = {f: f"case when n.{f} then p.{f} else s.{f} end" if layer.late else f"s.{f}" for f in fields}
    late = "left join newer_field n on n.product_id = i.product_id" if layer.late else ""
    connection.execute(
        text(
            "with written as ("
            f" update crm.products p set {', '.join(f'{f} = {value}' for f, value in said.items())},"
            " feed_file_id = :feed_file_id, updated_at = now()"
            f" from in_file i join landing.staged_products s using (row_number) {late}"
            " where i.differs and p.product_id = i.product_id returning p.product_id"
            ") insert into changed_product select product_id from written"
        ),
        layer.parameters(),
    )


def _newer_keys(aspect: str) -> str:
    """A condition that no newer file speaks of the row's product under the row's key; only a late file needs it."""
    return f"""
    and not exists (select from (
        select m.key, range_agg(m.products) as products from crm.catalog_mentions m
        where m.source = :source and m.aspect = '{aspect}' and m.place > :place group by m.key
    ) newer cross join lateral unnest(newer.products) r
    where newer.key = said.key and said.product_id >= lower(r) and said.product_id < upper(r))"""


def _write_stock(connection: Connection, layer: Layer) -> None:
    if "stock" not in layer.columns:
        return
    connection.execute(text(_STOCK.replace("{late}", _newer_keys("stock") if layer.late else "")), layer.parameters())


_STOCK = """
with said as (
    select distinct on (product_id, warehouse) product_id, warehouse as key, stock, stock_on
    from in_file where stock is not null order by product_id, warehouse, row_number
), differs as (
    select said.* from said
    left join crm.product_stock t on t.product_id = said.product_id and t.warehouse = said.key
    where (t.product_id is null or (t.quantity, t.counted_on) is distinct from (said.stock, said.stock_on)) {late}
), written as (
    insert into crm.product_stock as t (product_id, warehouse, quantity, counted_on, feed_file_id)
    select product_id, key, stock, stock_on, :feed_file_id from differs
    on conflict (product_id, warehouse) do update
    set quantity = excluded.quantity, counted_on = excluded.counted_on, feed_file_id = excluded.feed_file_id
    returning product_id
)
insert into changed_product select product_id from written
"""


def _write_packages(connection: Connection, layer: Layer) -> None:
    if not {"pack_unit", "content_unit"} & layer.columns:
        return
    connection.execute(text(_PACKAGES.replace("{late}", _newer_keys("pack") if layer.late else "")), layer.parameters())


_PACKAGES = f"""
with said as (
    select distinct on (product_id, unit) product_id, unit as key, parts, holds
    from ({PACKAGES_IN_FILE}) p order by product_id, unit, row_number
), differs as (
    select said.* from said
    left join crm.product_units t on t.product_id = said.product_id and t.unit = said.key
    where (t.parts, t.holds) is distinct from (said.parts, said.holds) {{late}}
), written as (
    insert into crm.product_units as t (product_id, unit, parts, holds, feed_file_id)
    select product_id, key, parts, holds, :feed_file_id from differs
    on conflict (product_id, unit) do update
    set parts = excluded.parts, holds = excluded.holds, feed_file_id = excluded.feed_file_id
    returning product_id
)
insert into changed_product select product_id from written
"""

# A row counts as updated when anything of its product changed, as superseded when newer files had answered it.
_COUNT_ROWS = """
select count(*) filter (where not is_new and c.product_id is not null) as updated,
       count(*) filter (where not is_new and c.product_id is null and n.product_id is not null) as superseded,
       count(*) filter (where not is_new and c.product_id is null and n.product_id is null) as unchanged
from in_file i
left join (select distinct product_id from changed_product) c on c.product_id = i.product_id
left join newer_field n on n.product_id = i.product_id
"""
