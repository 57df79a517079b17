"""Prices as a timeline: which price of a kind, currency, unit and quantity holds on which days, and who said so.

What a file says of the prices of one kind in one currency of a product, it says of all of them, from a day on: its own
day, or the earliest first day among its rows. From there on, up to where a newer file took over, the timeline becomes
what the file says; what held before stays:

    the file of 5 March says 10.00                          [5 Mar, …)  10.00
    the file of 19 March says 12.00                         [5 Mar, 19 Mar) 10.00   [19 Mar, …) 12.00
    then the file of 12 March arrives and says 11.00        [5 Mar, 12 Mar) 10.00   [12 Mar, 19 Mar) 11.00
                                                            [19 Mar, …) 12.00

Neighbouring periods with the same amount are one, so the stored timeline is the same in any order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from tasks.catalog.layers import Layer, PriceColumns


def compare_prices(connection: Connection, layer: Layer) -> None:
    """Put what differs between the file's prices and those held into ``price_difference``.

    Its rows have the period in question and ``new_amount`` and ``old_amount``; null where only the other side has one.
    """
    connection.exec_driver_sql(_CREATE_DIFFERENCE)
    connection.exec_driver_sql(_CREATE_GROUPS)
    if layer.plain_prices:
        kinds = [price.kind for price in layer.plain_prices]
        connection.execute(
            text(_PLAIN_DIFFERENCES.replace("{said}", _said(layer.plain_prices))),
            {**layer.parameters(), "kinds": kinds},
        )
    if layer.windowed_prices:
        values = _values(layer.windowed_prices)
        connection.execute(text(_GROUPS.replace("{values}", values)), layer.parameters())
        if layer.late:
            connection.execute(text(_BOUNDS), layer.parameters())
        connection.exec_driver_sql("analyze price_group")
        connection.execute(text(_WINDOWED_DIFFERENCES.replace("{values}", values)), layer.parameters())
    connection.exec_driver_sql("analyze price_difference (product_id, new_amount, old_amount)")


def _values(prices: Sequence[PriceColumns]) -> str:
    return ", ".join(f"('{p.kind}', i.{p.amount}, i.{p.valid_from}, i.{p.valid_until})" for p in prices)


def _said(prices: Sequence[PriceColumns]) -> str:
    """The file's rows, once per kind; a union of scans costs a fifth of a row-by-row list of values."""
    return " union all ".join(
        f"select i.row_number, i.product_id, i.part_key, '{p.kind}' as kind, i.currency, i.unit, i.min_quantity,"
        f" cast(:as_of as date) as valid_from, coalesce(i.{p.valid_until}, 'infinity') as valid_until,"
        f" i.{p.amount} as amount from in_file i where i.currency is not null and i.{p.amount} is not null"
        f" and coalesce(i.{p.valid_until}, 'infinity') > :as_of"
        for p in prices
    )


_CREATE_DIFFERENCE = """
create temporary table price_difference (
    row_number integer, product_id bigint, part_key text, kind text, currency text, unit text, min_quantity numeric,
    valid_from date, valid_until date, new_amount numeric, old_amount numeric, held_from date) on commit drop
"""
_CREATE_GROUPS = """
create temporary table price_group (
    part_key text, product_id bigint, kind text, currency text, known_from date, bound date, bound_file bigint
) on commit drop
"""

# New products have no number yet and nothing to be compared with: their rows differ as a whole.
_PLAIN_DIFFERENCES = """
insert into price_difference
select w.row_number, coalesce(w.product_id, h.product_id), w.part_key, coalesce(w.kind, h.kind),
       coalesce(w.currency, h.currency), coalesce(w.unit, h.unit), coalesce(w.min_quantity, h.min_quantity),
       coalesce(w.valid_from, h.valid_from), coalesce(w.valid_until, h.valid_until), w.amount, h.amount, h.held_from
from ({said}) w
full join (
    select p.product_id, p.kind, p.currency, p.unit, p.min_quantity, p.valid_from as held_from,
           greatest(p.valid_from, :as_of) as valid_from, coalesce(p.valid_until, 'infinity') as valid_until, p.amount
    from crm.product_prices p
    where p.kind = any(:kinds) and (p.valid_until is null or p.valid_until > :as_of)
      and (p.product_id, p.currency) in (select product_id, currency from in_file)
) h on h.product_id = w.product_id and h.kind = w.kind and h.currency = w.currency and h.unit = w.unit
   and h.min_quantity = w.min_quantity and h.valid_from = w.valid_from and h.valid_until = w.valid_until
where w.amount is distinct from h.amount
"""

_GROUPS = """
insert into price_group
select i.part_key, i.product_id, k.kind, i.currency,
       least(cast(:as_of as date), min(k.valid_from) filter (where k.amount is not null)), 'infinity'
from in_file i cross join lateral (values {values}) k(kind, amount, valid_from, valid_until)
where i.currency is not null
group by 1, 2, 3, 4
"""

# The earliest day from which any newer file speaks of the group. Each mention keeps only the products that no mention
# with an earlier day has, so that every product is looked at once, however many files are newer.
_BOUNDS = """
with newer as (
    select m.aspect, m.key, m.known_from, m.feed_file_id,
           m.products - coalesce(range_agg(m.products) over (
               partition by m.aspect, m.key order by m.known_from, m.place
               rows between unbounded preceding and 1 preceding), '{}') as products
    from crm.catalog_mentions m
    where m.source = :source and m.aspect in ('customer', 'dealer', 'promo') and m.place > :place
)
update price_group g set bound = n.known_from, bound_file = n.feed_file_id
from newer n cross join lateral unnest(n.products) r
where g.kind = n.aspect and g.currency = n.key and g.product_id >= lower(r) and g.product_id < upper(r)
"""

_WANTED = """
    select i.row_number, i.product_id, i.part_key, k.kind, i.currency, i.unit, i.min_quantity,
           greatest(coalesce(k.valid_from, :as_of), g.known_from) as valid_from,
           least(coalesce(k.valid_until, 'infinity'), g.bound) as valid_until, k.amount
    from in_file i cross join lateral (values {values}) k(kind, amount, valid_from, valid_until)
    join price_group g on g.part_key = i.part_key and g.kind = k.kind and g.currency = i.currency
    where k.amount is not null
      and greatest(coalesce(k.valid_from, :as_of), g.known_from) < least(coalesce(k.valid_until, 'infinity'), g.bound)
"""

_WINDOWED_DIFFERENCES = f"""
insert into price_difference
select w.row_number, coalesce(w.product_id, h.product_id), w.part_key, coalesce(w.kind, h.kind),
       coalesce(w.currency, h.currency), coalesce(w.unit, h.unit), coalesce(w.min_quantity, h.min_quantity),
       coalesce(w.valid_from, h.valid_from), coalesce(w.valid_until, h.valid_until), w.amount, h.amount
from ({_WANTED}) w
full join (
    select p.product_id, p.kind, p.currency, p.unit, p.min_quantity, greatest(p.valid_from, g.known_from) as valid_from,
           least(coalesce(p.valid_until, 'infinity'), g.bound) as valid_until, p.amount
    from crm.product_prices p
    join price_group g on g.product_id = p.product_id and g.kind = p.kind and g.currency = p.currency
    where greatest(p.valid_from, g.known_from) < least(coalesce(p.valid_until, 'infinity'), g.bound)
) h on h.product_id = w.product_id and h.kind = w.kind and h.currency = w.currency and h.unit = w.unit
   and h.min_quantity = w.min_quantity and h.valid_from = w.valid_from and h.valid_until = w.valid_until
where w.amount is distinct from h.amount
"""


def write_prices(connection: Connection, layer: Layer) -> None:
    """Make the timelines what the file says; products that are new have their numbers by now.

    Most changes are plain: a price that held until further notice ends on the file's day, and another begins. They are
    written as such. Timelines are worked out anew for the rest.
    """
    connection.exec_driver_sql(_NUMBER_NEW)
    connection.exec_driver_sql(_NUMBER_NEW.replace("price_difference", "price_group"))
    if layer.plain_prices:
        kinds = [price.kind for price in layer.plain_prices]
        connection.execute(text(_INSERT_NEW), {**layer.parameters(), "kinds": kinds})
        connection.exec_driver_sql(_END_PLAIN)
        connection.execute(text(_BEGIN_PLAIN), layer.parameters())
    connection.execute(text(_CHANGED_GROUPS), layer.parameters())
    if not connection.scalar(text("select exists (select from price_change)")):
        return
    connection.exec_driver_sql("analyze price_change")
    connection.execute(
        text(_TIMELINE.replace("{values}", _values((*layer.plain_prices, *layer.windowed_prices)) or _NO_VALUES)),
        layer.parameters(),
    )
    connection.exec_driver_sql("analyze price_timeline")
    for statement in (_DELETE_GONE, _UPDATE_CHANGED, _INSERT_ADDED):
        connection.exec_driver_sql(statement)


_NO_VALUES = "('customer', i.customer_price, i.valid_from, i.valid_until)"

_NUMBER_NEW = """
update price_difference d set product_id = i.product_id
from in_file i where d.product_id is null and i.is_new and i.part_key = d.part_key
"""

# Nothing is held of a product that is new, so what is said of its prices from the file's day on needs no timeline.
_INSERT_NEW = """
insert into crm.product_prices
    (product_id, kind, currency, unit, min_quantity, valid_from, valid_until, amount, feed_file_id)
select d.product_id, d.kind, d.currency, d.unit, d.min_quantity, d.valid_from, nullif(d.valid_until, 'infinity'),
       d.new_amount, :feed_file_id
from price_difference d join in_file i using (row_number)
where i.is_new and d.kind = any(:kinds)
"""

# What held until further notice and began before the file's day; nothing of its timeline lies behind it.
_IS_PLAIN = "(d.held_from < d.valid_from and d.valid_until = 'infinity')"

_END_PLAIN = f"""
with written as (
    update crm.product_prices p set valid_until = d.valid_from
    from price_difference d
    where {_IS_PLAIN} and p.product_id = d.product_id and p.kind = d.kind and p.currency = d.currency
      and p.unit = d.unit and p.min_quantity = d.min_quantity and p.valid_from = d.held_from
    returning p.product_id
) insert into changed_product select product_id from written
"""

_BEGIN_PLAIN = f"""
insert into crm.product_prices
    (product_id, kind, currency, unit, min_quantity, valid_from, amount, feed_file_id)
select d.product_id, d.kind, d.currency, d.unit, d.min_quantity, d.valid_from, d.new_amount, :feed_file_id
from price_difference d where {_IS_PLAIN} and d.new_amount is not null
"""

_CHANGED_GROUPS = f"""
create temporary table price_change on commit drop as
select d.product_id, d.kind, d.currency, coalesce(g.known_from, cast(:as_of as date)) as known_from,
       coalesce(g.bound, 'infinity') as bound, g.bound_file
from (select distinct d.product_id, d.kind, d.currency from price_difference d
      where {_IS_PLAIN} is not true
        and (not exists (select from in_file i where i.row_number = d.row_number and i.is_new)
             or d.kind in (select kind from price_group))) d
left join price_group g on g.product_id = d.product_id and g.kind = d.kind and g.currency = d.currency
"""

_TIMELINE = """
create temporary table price_timeline on commit drop as
with pieces as (
    select p.product_id, p.kind, p.currency, p.unit, p.min_quantity, p.valid_from,
           least(coalesce(p.valid_until, 'infinity'), c.known_from) as valid_until, p.amount, p.feed_file_id
    from crm.product_prices p join price_change c using (product_id, kind, currency)
    where p.valid_from < c.known_from
    union all
    select p.product_id, p.kind, p.currency, p.unit, p.min_quantity, greatest(p.valid_from, c.bound),
           coalesce(p.valid_until, 'infinity'), p.amount,
           case when p.valid_from < c.bound then coalesce(c.bound_file, p.feed_file_id) else p.feed_file_id end
    from crm.product_prices p join price_change c using (product_id, kind, currency)
    where coalesce(p.valid_until, 'infinity') > c.bound
    union all
    select i.product_id, k.kind, i.currency, i.unit, i.min_quantity,
           greatest(coalesce({from}, :as_of), c.known_from), least(coalesce(k.valid_until, 'infinity'), c.bound),
           k.amount, :feed_file_id
    from in_file i cross join lateral (values {values}) k(kind, amount, valid_from, valid_until)
    join price_change c on c.product_id = i.product_id and c.kind = k.kind and c.currency = i.currency
    where k.amount is not null
      and greatest(coalesce({from}, :as_of), c.known_from) < least(coalesce(k.valid_until, 'infinity'), c.bound)
), begun as (
    select *, (lag(valid_until) over series = valid_from and lag(amount) over series = amount) is not true as begins
    from pieces
    window series as (partition by product_id, kind, currency, unit, min_quantity order by valid_from)
), counted as (
    select *, count(*) filter (where begins) over (
        partition by product_id, kind, currency, unit, min_quantity order by valid_from) as period
    from begun
)
select product_id, kind, currency, unit, min_quantity, min(valid_from) as valid_from,
       nullif(max(valid_until), 'infinity') as valid_until, amount,
       (array_agg(feed_file_id order by valid_from))[1] as feed_file_id
from counted group by product_id, kind, currency, unit, min_quantity, period, amount
""".replace("{from}", "k.valid_from")

_SAME = """
    n.product_id = p.product_id and n.kind = p.kind and n.currency = p.currency and n.unit = p.unit
    and n.min_quantity = p.min_quantity and n.valid_from = p.valid_from
"""
_REMEMBER = "insert into changed_product select product_id from written"

_DELETE_GONE = f"""
with written as (
    delete from crm.product_prices p using price_change c
    where c.product_id = p.product_id and c.kind = p.kind and c.currency = p.currency
      and not exists (select from price_timeline n where {_SAME})
    returning p.product_id
) {_REMEMBER}
"""

_UPDATE_CHANGED = f"""
with written as (
    update crm.product_prices p
    set valid_until = n.valid_until, amount = n.amount, feed_file_id = n.feed_file_id
    from price_timeline n
    where {_SAME} and (p.valid_until, p.amount) is distinct from (n.valid_until, n.amount)
    returning p.product_id
) {_REMEMBER}
"""

_INSERT_ADDED = f"""
with written as (
    insert into crm.product_prices
        (product_id, kind, currency, unit, min_quantity, valid_from, valid_until, amount, feed_file_id)
    select n.product_id, n.kind, n.currency, n.unit, n.min_quantity, n.valid_from, n.valid_until, n.amount,
           n.feed_file_id
    from price_timeline n
    where not exists (select from crm.product_prices p where {_SAME})
    returning product_id
) {_REMEMBER}
"""
