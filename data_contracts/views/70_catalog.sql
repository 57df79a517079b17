-- The catalogue: products with the prices that hold, their stock, and what changed when.

-- GS1 General Specifications, section 7.9: weights 3 and 1 from the right, the sum with the check digit a multiple of ten.
-- Zeros in front change nothing, so numbers of 8, 12, 13 and 14 digits are judged alike.
create or replace function crm.gtin_is_right(gtin text) returns boolean
language sql immutable parallel safe
return case when gtin ~ '^[0-9]{8,14}$' then (
    (gtin::bigint % 10) + 3 * (gtin::bigint / 10 % 10) + (gtin::bigint / 100 % 10)
    + 3 * (gtin::bigint / 1000 % 10) + (gtin::bigint / 10000 % 10) + 3 * (gtin::bigint / 100000 % 10)
    + (gtin::bigint / 1000000 % 10) + 3 * (gtin::bigint / 10000000 % 10) + (gtin::bigint / 100000000 % 10)
    + 3 * (gtin::bigint / 1000000000 % 10) + (gtin::bigint / 10000000000 % 10)
    + 3 * (gtin::bigint / 100000000000 % 10) + (gtin::bigint / 1000000000000 % 10)
    + 3 * (gtin::bigint / 10000000000000 % 10)) % 10 = 0 else gtin is null and null end;

-- How much of one unit is in another, as the rules in force on a day say it: metres in a kilometre, pieces in a dozen.
create or replace function crm.unit_factor(from_unit text, to_unit text, on_day date) returns numeric
language sql stable
begin atomic
    select case when unit_factor.from_unit = unit_factor.to_unit then 1 else (
        select f.factor / t.factor
        from rules.unit_of_measure f
        join rules.unit_of_measure t on t.base_code = f.base_code and t.valid @> unit_factor.on_day
        where f.code = unit_factor.from_unit and t.code = unit_factor.to_unit and f.valid @> unit_factor.on_day
    ) end;
end;

-- What one unit of a currency is worth in another on a day: the newest rate on or before it, in either direction.
create or replace function crm.currency_rate(base_code text, quote_code text, on_day date) returns numeric
language sql stable
begin atomic
    select case when currency_rate.base_code = currency_rate.quote_code then 1 else (
        select r.rate from (
            (select rated_on, rate from crm.currency_rates
             where base = currency_rate.base_code and quote = currency_rate.quote_code
               and rated_on <= currency_rate.on_day order by rated_on desc limit 1)
            union all
            (select rated_on, 1 / rate from crm.currency_rates
             where base = currency_rate.quote_code and quote = currency_rate.base_code
               and rated_on <= currency_rate.on_day order by rated_on desc limit 1)
        ) r order by r.rated_on desc limit 1
    ) end;
end;

-- Every price that holds on a day, with its unit spelt out.
create or replace function report.prices(as_of date)
returns table (
    part_number text, name text, kind text, currency text, unit text, min_quantity numeric, amount numeric,
    valid_from date, valid_to date, source text, product_id bigint
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select p.part_number, p.name, pp.kind, pp.currency, coalesce(nullif(pp.unit, ''), p.unit, 'C62'), pp.min_quantity,
           pp.amount, pp.valid_from, pp.valid_until - 1, p.source, p.product_id
    from crm.product_prices pp join crm.products p on p.product_id = pp.product_id
    where pp.valid_from <= prices.as_of and (pp.valid_until is null or pp.valid_until > prices.as_of);
end;

create or replace view report.prices as select * from report.prices(ops.business_today());

-- What one unit of each product costs whom on a day: the price of the greatest minimum quantity that is reached, in the
-- unit and currency asked for; where there is none in them, converted by the product's packages, the rules of units and
-- the newest rate. The promotional price counts where it is lower. ``unit`` null means each product's own unit.
create or replace function report.price_list(customer_kind text, currency text, unit text, quantity numeric, as_of date)
returns table (
    part_number text, name text, amount numeric, currency_code text, unit_code text, promotional boolean,
    min_quantity numeric, converted boolean, source text, product_id bigint
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    with sized as (
        select p.part_number, p.name, p.source, p.product_id, pp.kind, pp.currency, pp.min_quantity, pp.amount,
               u.own, u.priced, u.asked,
               case when u.priced = u.own then 1
                    else coalesce(packed.holds / packed.parts, crm.unit_factor(u.priced, u.own, price_list.as_of)) end as priced_size,
               case when u.asked = u.own then 1
                    else coalesce(wanted.holds / wanted.parts, crm.unit_factor(u.asked, u.own, price_list.as_of)) end as asked_size
        from crm.product_prices pp
        join crm.products p on p.product_id = pp.product_id
        cross join lateral (
            select coalesce(p.unit, nullif(pp.unit, ''), 'C62') as own,
                   coalesce(nullif(pp.unit, ''), p.unit, 'C62') as priced,
                   coalesce(price_list.unit, p.unit, nullif(pp.unit, ''), 'C62') as asked) u
        left join crm.product_units packed on packed.product_id = p.product_id and packed.unit = u.priced
        left join crm.product_units wanted on wanted.product_id = p.product_id and wanted.unit = u.asked
        where pp.kind in (price_list.customer_kind, 'promo') and pp.valid_from <= price_list.as_of
          and (pp.valid_until is null or pp.valid_until > price_list.as_of)
          and coalesce(p.discontinued_on > price_list.as_of, true)
    ), valued as (
        select s.*, s.asked_size / s.priced_size as units,
               crm.currency_rate(s.currency, price_list.currency, price_list.as_of) as rate,
               s.currency <> price_list.currency or s.priced <> s.asked as is_converted
        from sized s
    ), ranked as (
        select distinct on (v.product_id, v.kind) v.*,
               case when v.is_converted then round(v.amount * v.units * v.rate, 4) else v.amount end as price
        from valued v
        -- 12 pieces are one box of a dozen, whatever a division leaves behind in the last decimals.
        where round(price_list.quantity * v.units, 8) >= v.min_quantity and v.rate is not null
        order by v.product_id, v.kind, v.is_converted, v.currency <> price_list.currency, v.min_quantity / v.units desc,
                 v.amount
    )
    select distinct on (r.source, r.part_number, r.product_id)
           r.part_number, coalesce(r.name, r.part_number), r.price, price_list.currency, r.asked, r.kind = 'promo',
           r.min_quantity, r.is_converted, r.source, r.product_id
    from ranked r
    order by r.source, r.part_number, r.product_id, r.price, r.kind;
end;

-- The day up to which the stock of each warehouse is known to be true, and when the file was written that says so: the
-- newest that spoke of it, confirmed or changed. Each mention keeps only the products that no newer mention has.
create or replace view report.stock as
with mentions as (
    select m.source, m.key, f.as_of, (substring(f.sequence from '[^!]*$') || 'Z')::timestamptz as written_at,
           m.products - coalesce(range_agg(m.products) over (
               partition by m.source, m.key order by m.place desc
               rows between unbounded preceding and 1 preceding), '{}') as products
    from crm.catalog_mentions m join landing.feed_files f on f.feed_file_id = m.feed_file_id
    where m.aspect = 'stock'
), ranges as (
    select m.source, m.key, m.as_of, m.written_at, lower(r) as first_id, upper(r) as next_id
    from mentions m cross join lateral unnest(m.products) r
)
select p.part_number, p.name, s.warehouse, s.quantity, p.unit, coalesce(s.counted_on, r.as_of) as true_on, p.source,
       r.written_at
from ranges r
join crm.product_stock s on s.warehouse = r.key and s.product_id >= r.first_id and s.product_id < r.next_id
join crm.products p on p.product_id = s.product_id and p.source = r.source;

-- One row per product and currency: the prices of the product's smallest quantity that hold today.
create or replace function report.catalog(as_of date)
returns table (
    part_number text, name text, unit text, status text, stock numeric, currency text, customer_price numeric,
    dealer_price numeric, promo_price numeric, promo_from date, promo_to date, description text, category text,
    gtin text, gtin_is_right boolean, discontinued_on date, min_quantity numeric, source text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    with firsts as (
        select distinct on (pp.product_id, pp.kind, pp.currency)
               pp.product_id, pp.kind, pp.currency, pp.amount, pp.min_quantity, pp.valid_from, pp.valid_until
        from crm.product_prices pp
        where pp.valid_from <= catalog.as_of and (pp.valid_until is null or pp.valid_until > catalog.as_of)
        order by pp.product_id, pp.kind, pp.currency, pp.min_quantity, pp.unit
    ), priced as (
        select f.product_id, f.currency, min(f.min_quantity) as min_quantity,
               max(f.amount) filter (where f.kind = 'customer') as customer_price,
               max(f.amount) filter (where f.kind = 'dealer') as dealer_price,
               max(f.amount) filter (where f.kind = 'promo') as promo_price,
               max(f.valid_from) filter (where f.kind = 'promo') as promo_from,
               max(f.valid_until) filter (where f.kind = 'promo') - 1 as promo_to
        from firsts f group by f.product_id, f.currency
    ), stocked as (
        select product_id, sum(quantity) as quantity from crm.product_stock group by product_id
    )
    select p.part_number, coalesce(p.name, p.part_number), p.unit,
           case when p.discontinued_on <= catalog.as_of then 'discontinued' else coalesce(p.status, 'active') end,
           s.quantity, c.currency, c.customer_price, c.dealer_price, c.promo_price, c.promo_from, c.promo_to,
           p.description, p.category, p.gtin, crm.gtin_is_right(p.gtin), p.discontinued_on, c.min_quantity, p.source
    from crm.products p
    left join priced c on c.product_id = p.product_id
    left join stocked s on s.product_id = p.product_id;
end;

create or replace view report.catalog as select * from report.catalog(ops.business_today());

-- Every price that took another's place: from what to what, from which day on, said by which file. A price without a unit
-- is one per the product's own unit, whichever of its files spelt that out.
create or replace view report.price_changes as
select p.part_number, p.name, c.kind, c.currency, c.unit, c.min_quantity,
       c.valid_from as changed_on, c.old_amount, c.amount as new_amount, c.amount - c.old_amount as difference,
       round(100 * (c.amount - c.old_amount) / nullif(c.old_amount, 0), 2) as percent, f.file_name, f.as_of, p.source
from (
    select h.*, lag(h.amount) over series as old_amount, lag(h.valid_until) over series as old_until
    from (
        select pp.product_id, pp.kind, pp.currency, coalesce(nullif(pp.unit, ''), o.unit, 'C62') as unit,
               pp.min_quantity, pp.valid_from, pp.valid_until, pp.amount, pp.feed_file_id
        from crm.product_prices pp join crm.products o on o.product_id = pp.product_id
    ) h
    window series as (partition by h.product_id, h.kind, h.currency, h.unit, h.min_quantity order by h.valid_from)
) c
join crm.products p on p.product_id = c.product_id
join landing.feed_files f on f.feed_file_id = c.feed_file_id
where c.old_amount is not null and c.old_until = c.valid_from and c.old_amount <> c.amount;

-- Products whose prices that hold today are not in the order promotional, dealer, customer, in one currency and unit: what
-- each pays who takes the quantity, so that a dealer's price for one is held against a customer's for one, and for ten
-- against the customer's for ten.
create or replace view report.price_ladder as
select l.part_number, l.name, l.currency, l.unit, l.min_quantity, l.customer_price, l.dealer_price, l.promo_price,
       l.source, l.product_id
from (
    select r.part_number, r.name, r.currency, r.unit, r.min_quantity, r.source, r.product_id,
           r.customers[cardinality(r.customers)] as customer_price,
           r.dealers[cardinality(r.dealers)] as dealer_price,
           r.promos[cardinality(r.promos)] as promo_price
    from (
        select q.*,
               array_agg(q.customer) filter (where q.customer is not null) over series as customers,
               array_agg(q.dealer) filter (where q.dealer is not null) over series as dealers,
               array_agg(q.promo) filter (where q.promo is not null) over series as promos
        from (
            select p.product_id, p.part_number, p.name, p.source, pp.currency,
                   coalesce(nullif(pp.unit, ''), p.unit, 'C62') as unit, pp.min_quantity,
                   max(pp.amount) filter (where pp.kind = 'customer') as customer,
                   max(pp.amount) filter (where pp.kind = 'dealer') as dealer,
                   max(pp.amount) filter (where pp.kind = 'promo') as promo
            from crm.product_prices pp
            join crm.products p on p.product_id = pp.product_id
            where pp.valid_from <= ops.business_today()
              and (pp.valid_until is null or pp.valid_until > ops.business_today())
            group by p.product_id, pp.currency, coalesce(nullif(pp.unit, ''), p.unit, 'C62'), pp.min_quantity
        ) q
        window series as (partition by q.product_id, q.currency, q.unit order by q.min_quantity)
    ) r
) l
where l.promo_price > least(l.dealer_price, l.customer_price) or l.dealer_price > l.customer_price;
