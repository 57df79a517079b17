"""Schema ``crm``, the catalogue: what is sold, in which units, at which prices, and how much of it is where.

A product belongs to one sender's catalogue (``source``) and is found there by ``part_key``, its part number as it is
compared; ``part_number`` is the number as sent. A price holds from ``valid_from`` up to, not including,
``valid_until``; null means until further notice. Two prices of one product, kind, currency, unit and minimum quantity
never hold on the same day: the trigger ``product_prices_no_overlap`` sees to it.

Which file spoke of which products stands in ``catalog_mentions``, as ranges of product numbers. So a complete file that
confirms a million products writes one row, and a file that arrives late still knows what newer ones have said.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import DATERANGE, INT8MULTIRANGE, ExcludeConstraint

from data_contracts.tables.base import metadata

QUANTITY = Numeric(19, 4)
MONEY = Numeric(19, 4)
RATE = Numeric(28, 10)
PRICE_KINDS = ("customer", "dealer", "promo")


def _file_column() -> Column[int]:
    return Column("feed_file_id", BigInteger, ForeignKey("landing.feed_files.feed_file_id"), nullable=False)


def _product_column(*, primary_key: bool = False) -> Column[int]:
    return Column(
        "product_id",
        BigInteger,
        ForeignKey("crm.products.product_id", ondelete="CASCADE"),
        nullable=False,
        primary_key=primary_key,
    )


products = Table(
    "products",
    metadata,
    Column("product_id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", Text, nullable=False),
    Column("part_key", Text, nullable=False),
    Column("part_number", Text, nullable=False),
    Column("name", Text),
    Column("description", Text),
    Column("category", Text),
    Column("unit", Text),
    Column("gtin", Text),
    Column("status", Text),
    Column("discontinued_on", Date),
    _file_column(),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("part_key <> '' and part_number <> ''", name="part_number"),
    CheckConstraint("status in ('active', 'blocked', 'discontinued')", name="status"),
    UniqueConstraint("source", "part_key"),
    Index(None, "feed_file_id"),
    schema="crm",
)

product_prices = Table(
    "product_prices",
    metadata,
    _product_column(),
    Column("kind", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("min_quantity", QUANTITY, nullable=False),
    Column("valid_from", Date, nullable=False),
    Column("valid_until", Date),
    Column("amount", MONEY, nullable=False),
    _file_column(),
    CheckConstraint("kind in ('customer', 'dealer', 'promo')", name="kind"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("min_quantity > 0", name="min_quantity"),
    CheckConstraint("valid_from < valid_until", name="valid"),
    CheckConstraint("amount >= 0", name="amount"),
    Index(
        "product_prices_key",
        "product_id",
        "kind",
        "currency",
        "unit",
        "min_quantity",
        "valid_from",
        unique=True,
    ),
    Index(None, "feed_file_id"),
    schema="crm",
)

product_stock = Table(
    "product_stock",
    metadata,
    _product_column(primary_key=True),
    Column("warehouse", Text, primary_key=True),
    Column("quantity", QUANTITY, nullable=False),
    Column("counted_on", Date),
    _file_column(),
    Index(None, "feed_file_id"),
    schema="crm",
)

product_units = Table(
    "product_units",
    metadata,
    _product_column(primary_key=True),
    Column("unit", Text, primary_key=True),
    # So many of this unit (1 of a larger one, 12 of a smaller one) hold so many of the product's own.
    Column("parts", QUANTITY, nullable=False, server_default=text("1")),
    Column("holds", QUANTITY, nullable=False),
    _file_column(),
    CheckConstraint("least(parts, holds) > 0", name="holds"),
    Index(None, "feed_file_id"),
    schema="crm",
)

catalog_mentions = Table(
    "catalog_mentions",
    metadata,
    Column("feed_file_id", BigInteger, ForeignKey("landing.feed_files.feed_file_id"), primary_key=True),
    Column("aspect", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("known_from", Date, primary_key=True),
    Column("source", Text, nullable=False),
    Column("place", Text(collation="C"), nullable=False),
    Column("products", INT8MULTIRANGE, nullable=False),
    CheckConstraint("aspect in ('product', 'customer', 'dealer', 'promo', 'stock', 'pack')", name="aspect"),
    Index("catalog_mentions_place_idx", "source", "aspect", "key", "place"),
    schema="crm",
)

currency_rates = Table(
    "currency_rates",
    metadata,
    Column("base", Text, primary_key=True),
    Column("quote", Text, primary_key=True),
    Column("rated_on", Date, primary_key=True),
    Column("rate", RATE, nullable=False),
    Column("place", Text(collation="C"), nullable=False),
    _file_column(),
    CheckConstraint("base ~ '^[A-Z]{3}$' and quote ~ '^[A-Z]{3}$'", name="currencies"),
    CheckConstraint("rate > 0", name="rate"),
    Index(None, "feed_file_id"),
    schema="crm",
)

unit_of_measure = Table(
    "unit_of_measure",
    metadata,
    Column("unit_of_measure_id", BigInteger, Identity(always=True), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("base_code", Text, nullable=False),
    Column("factor", Numeric(20, 10), nullable=False),
    Column("valid", DATERANGE, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    CheckConstraint("factor > 0", name="factor"),
    CheckConstraint("not isempty(valid)", name="valid_not_empty"),
    UniqueConstraint("rule_id", "version"),
    ExcludeConstraint(("code", "="), ("valid", "&&"), name="unit_of_measure_one_in_force"),
    schema="rules",
)


def _staged(name: str, *columns: Column[object]) -> Table:
    return Table(
        name,
        metadata,
        Column("row_number", Integer, nullable=False),
        *columns,
        schema="landing",
        prefixes=["UNLOGGED"],
    )


staged_products = _staged(
    "staged_products",
    Column("part_key", Text),
    Column("part_number", Text),
    Column("name", Text),
    Column("description", Text),
    Column("category", Text),
    Column("unit", Text),
    Column("gtin", Text),
    Column("status", Text),
    Column("currency", Text),
    Column("customer_price", MONEY),
    Column("dealer_price", MONEY),
    Column("promo_price", MONEY),
    Column("promo_from", Date),
    Column("promo_to", Date),
    Column("valid_from", Date),
    Column("valid_to", Date),
    Column("min_quantity", QUANTITY),
    Column("warehouse", Text),
    Column("stock", QUANTITY),
    Column("stock_on", Date),
    Column("pack_unit", Text),
    Column("pack_quantity", QUANTITY),
    Column("content_unit", Text),
    Column("content_quantity", QUANTITY),
)

staged_rates = _staged(
    "staged_rates",
    Column("base", Text),
    Column("quote", Text),
    Column("rated_on", Date),
    Column("rate", RATE),
)
