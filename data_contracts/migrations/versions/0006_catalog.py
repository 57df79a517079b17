"""The catalogue: products, prices with validity, stock, units, currency rates, and which file spoke of what.

Needed by catalog_upsert.
Locks: creates new objects; ACCESS EXCLUSIVE on landing.feed_files while a column with a constant default is added;
that rewrites nothing, but a run under way is waited for and a new one waits. Prices are kept from overlapping by a
trigger over whole statements and not by an exclusion constraint: see docs/decisions.md.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, the functions they rest on, and say who may do what with them."""
    order = sa.Column("sequence", sa.Text(), server_default=sa.text("''"), nullable=False)
    op.add_column("feed_files", order, schema="landing")
    _create_products()
    _create_prices()
    _create_stock_and_units()
    _create_mentions()
    _create_rates()
    _create_units_of_measure()
    _create_staging()
    for statement in (*_FUNCTIONS, *_GRANTS):
        op.execute(statement)


def _file_key(table: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("feed_file_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f(f"{table}_feed_file_id_fkey")
        ),
    ]


def _product_key(table: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"], ["crm.products.product_id"], name=op.f(f"{table}_product_id_fkey"), ondelete="CASCADE"
        ),
    ]


def _index_file(table: str) -> None:
    op.create_index(op.f(f"{table}_feed_file_id_idx"), table, ["feed_file_id"], schema="crm")


def _create_products() -> None:
    op.create_table(
        "products",
        sa.Column("product_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("part_key", sa.Text(), nullable=False),
        sa.Column("part_number", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text()) for name in ("name", "description", "category", "unit", "gtin", "status")),
        sa.Column("discontinued_on", sa.Date()),
        *_file_key("products"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("part_key <> '' and part_number <> ''", name=op.f("products_part_number_check")),
        sa.CheckConstraint("status in ('active', 'blocked', 'discontinued')", name=op.f("products_status_check")),
        sa.PrimaryKeyConstraint("product_id", name=op.f("products_pkey")),
        sa.UniqueConstraint("source", "part_key", name=op.f("products_source_part_key_key")),
        schema="crm",
    )
    _index_file("products")


def _create_prices() -> None:
    op.create_table(
        "product_prices",
        *_product_key("product_prices"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("min_quantity", sa.Numeric(19, 4), nullable=False),
        sa.Column("valid_from", sa.Date(), nullable=False),
        sa.Column("valid_until", sa.Date()),
        sa.Column("amount", sa.Numeric(19, 4), nullable=False),
        *_file_key("product_prices"),
        sa.CheckConstraint("kind in ('customer', 'dealer', 'promo')", name=op.f("product_prices_kind_check")),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("product_prices_currency_check")),
        sa.CheckConstraint("min_quantity > 0", name=op.f("product_prices_min_quantity_check")),
        sa.CheckConstraint("valid_from < valid_until", name=op.f("product_prices_valid_check")),
        sa.CheckConstraint("amount >= 0", name=op.f("product_prices_amount_check")),
        schema="crm",
    )
    key = ["product_id", "kind", "currency", "unit", "min_quantity", "valid_from"]
    op.create_index("product_prices_key", "product_prices", key, unique=True, schema="crm")
    _index_file("product_prices")


def _create_stock_and_units() -> None:
    op.create_table(
        "product_stock",
        *_product_key("product_stock"),
        sa.Column("warehouse", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Numeric(19, 4), nullable=False),
        sa.Column("counted_on", sa.Date()),
        *_file_key("product_stock"),
        sa.PrimaryKeyConstraint("product_id", "warehouse", name=op.f("product_stock_pkey")),
        schema="crm",
    )
    _index_file("product_stock")
    op.create_table(
        "product_units",
        *_product_key("product_units"),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("parts", sa.Numeric(19, 4), server_default=sa.text("1"), nullable=False),
        sa.Column("holds", sa.Numeric(19, 4), nullable=False),
        *_file_key("product_units"),
        sa.CheckConstraint("least(parts, holds) > 0", name=op.f("product_units_holds_check")),
        sa.PrimaryKeyConstraint("product_id", "unit", name=op.f("product_units_pkey")),
        schema="crm",
    )
    _index_file("product_units")


def _create_mentions() -> None:
    op.create_table(
        "catalog_mentions",
        *_file_key("catalog_mentions"),
        sa.Column("aspect", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("known_from", sa.Date(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(collation="C"), nullable=False),
        sa.Column("products", postgresql.INT8MULTIRANGE(), nullable=False),
        sa.CheckConstraint(
            "aspect in ('product', 'customer', 'dealer', 'promo', 'stock', 'pack')",
            name=op.f("catalog_mentions_aspect_check"),
        ),
        sa.PrimaryKeyConstraint("feed_file_id", "aspect", "key", "known_from", name=op.f("catalog_mentions_pkey")),
        schema="crm",
    )
    columns = ["source", "aspect", "key", "place"]
    op.create_index("catalog_mentions_place_idx", "catalog_mentions", columns, schema="crm")


def _create_rates() -> None:
    op.create_table(
        "currency_rates",
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("quote", sa.Text(), nullable=False),
        sa.Column("rated_on", sa.Date(), nullable=False),
        sa.Column("rate", sa.Numeric(28, 10), nullable=False),
        sa.Column("place", sa.Text(collation="C"), nullable=False),
        *_file_key("currency_rates"),
        sa.CheckConstraint(
            "base ~ '^[A-Z]{3}$' and quote ~ '^[A-Z]{3}$'",
            name=op.f("currency_rates_currencies_check"),
        ),
        sa.CheckConstraint("rate > 0", name=op.f("currency_rates_rate_check")),
        sa.PrimaryKeyConstraint("base", "quote", "rated_on", name=op.f("currency_rates_pkey")),
        schema="crm",
    )
    _index_file("currency_rates")


def _create_units_of_measure() -> None:
    op.create_table(
        "unit_of_measure",
        sa.Column("unit_of_measure_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("base_code", sa.Text(), nullable=False),
        sa.Column("factor", sa.Numeric(20, 10), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("code"), "="), (sa.column("valid"), "&&"), using="gist", name="unit_of_measure_one_in_force"
        ),
        sa.CheckConstraint("factor > 0", name=op.f("unit_of_measure_factor_check")),
        sa.CheckConstraint("not isempty(valid)", name=op.f("unit_of_measure_valid_not_empty_check")),
        sa.PrimaryKeyConstraint("unit_of_measure_id", name=op.f("unit_of_measure_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("unit_of_measure_rule_id_version_key")),
        schema="rules",
    )


def _create_staging() -> None:
    number, quantity, day = sa.Text(), sa.Numeric(19, 4), sa.Date()
    op.create_table(
        "staged_products",
        sa.Column("row_number", sa.Integer(), nullable=False),
        *(
            sa.Column(name, number)
            for name in ("part_key", "part_number", "name", "description", "category", "unit", "gtin", "status")
        ),
        sa.Column("currency", sa.Text()),
        *(sa.Column(name, quantity) for name in ("customer_price", "dealer_price", "promo_price")),
        *(sa.Column(name, day) for name in ("promo_from", "promo_to", "valid_from", "valid_to")),
        sa.Column("min_quantity", quantity),
        sa.Column("warehouse", sa.Text()),
        sa.Column("stock", quantity),
        sa.Column("stock_on", day),
        sa.Column("pack_unit", sa.Text()),
        sa.Column("pack_quantity", quantity),
        sa.Column("content_unit", sa.Text()),
        sa.Column("content_quantity", quantity),
        schema="landing",
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "staged_rates",
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("base", sa.Text()),
        sa.Column("quote", sa.Text()),
        sa.Column("rated_on", sa.Date()),
        sa.Column("rate", sa.Numeric(28, 10)),
        schema="landing",
        prefixes=["UNLOGGED"],
    )


# Whoever changes prices waits for the one who is changing them, so that the check sees all that is committed.
_FUNCTIONS = (
    """
    create function crm.refuse_overlapping_prices() returns trigger
    language plpgsql set search_path = pg_catalog
    as $$
    declare
        found record;
    begin
        -- A price that ends earlier than before overlaps nothing that it did not overlap.
        if tg_op = 'UPDATE' then
            if not exists (
                select from new_prices n where not exists (
                    select from old_prices o
                    where o.product_id = n.product_id and o.kind = n.kind and o.currency = n.currency
                      and o.unit = n.unit and o.min_quantity = n.min_quantity and o.valid_from = n.valid_from
                      and coalesce(o.valid_until, 'infinity') >= coalesce(n.valid_until, 'infinity')))
            then
                return null;
            end if;
        end if;
        perform pg_advisory_xact_lock(hashtext('kontor product prices'));
        select n.product_id, n.kind, n.currency, n.valid_from into found
        from new_prices n
        join crm.product_prices o
          on o.product_id = n.product_id and o.kind = n.kind and o.currency = n.currency and o.unit = n.unit
         and o.min_quantity = n.min_quantity and o.valid_from <> n.valid_from
         and o.valid_from < coalesce(n.valid_until, 'infinity') and n.valid_from < coalesce(o.valid_until, 'infinity')
        limit 1;
        if found is not null then
            raise exception using errcode = 'exclusion_violation', constraint = 'product_prices_no_overlap',
                message = format('two %s prices in %s of product %s hold on %s',
                                 found.kind, found.currency, found.product_id, found.valid_from);
        end if;
        return null;
    end $$
    """,
    """
    create trigger product_prices_no_overlap_on_insert after insert on crm.product_prices
    referencing new table as new_prices for each statement execute function crm.refuse_overlapping_prices()
    """,
    """
    create trigger product_prices_no_overlap_on_update after update on crm.product_prices
    referencing old table as old_prices new table as new_prices
    for each statement execute function crm.refuse_overlapping_prices()
    """,
)

_GRANTS = (
    (
        "grant select on crm.products, crm.product_prices, crm.product_stock, crm.product_units, crm.catalog_mentions,"
        " crm.currency_rates, rules.unit_of_measure, landing.staged_products, landing.staged_rates"
        " to kontor_flows, kontor_retention"
    ),
    (
        "grant insert, maintain on crm.products, crm.product_prices, crm.product_stock, crm.product_units,"
        " crm.catalog_mentions, crm.currency_rates to kontor_flows"
    ),
    # What a product is found by never changes; everything else of it may.
    (
        "grant update (part_number, name, description, category, unit, gtin, status, discontinued_on, feed_file_id,"
        " updated_at) on crm.products to kontor_flows"
    ),
    "grant update, delete on crm.product_prices to kontor_flows",
    "grant update on crm.product_stock, crm.product_units, crm.catalog_mentions, crm.currency_rates to kontor_flows",
    "grant insert, update, delete, truncate, maintain on landing.staged_products, landing.staged_rates to kontor_flows",
    (
        "grant update, delete on crm.products, crm.product_prices, crm.product_stock, crm.product_units,"
        " crm.catalog_mentions, crm.currency_rates, landing.staged_products, landing.staged_rates to kontor_retention"
    ),
    "grant execute on function crm.refuse_overlapping_prices() to kontor_flows, kontor_retention",
)
