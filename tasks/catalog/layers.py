"""Where a file lies among the files of its catalogue, and what its columns speak of. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

FIELDS = ("part_number", "name", "description", "category", "unit", "gtin", "status")


@dataclass(frozen=True)
class PriceColumns:
    """The columns of one kind of price: amount, and first day and first day after, where the sender says them."""

    kind: str
    amount: str
    valid_from: str
    valid_until: str


PRICES = (
    PriceColumns("customer", "customer_price", "valid_from", "valid_until"),
    PriceColumns("dealer", "dealer_price", "valid_from", "valid_until"),
    PriceColumns("promo", "promo_price", "promo_from", "promo_until"),
)


@dataclass(frozen=True)
class Layer:
    """Where a file lies among the files of its catalogue.

    ``late``: files of a greater place were applied before it. ``next_full``: the day of the next complete file after
    it.
    """

    feed_file_id: int
    source: str
    place: str
    as_of: date
    full: bool
    columns: frozenset[str]
    late: bool
    next_full: date | None

    def parameters(self) -> dict[str, object]:
        """The values that the statements bind."""
        return {
            "feed_file_id": self.feed_file_id,
            "source": self.source,
            "place": self.place,
            "as_of": self.as_of,
            "next_full": self.next_full,
        }

    @property
    def plain_prices(self) -> tuple[PriceColumns, ...]:
        """The kinds that the file speaks of from its own day on, so that they compare with what holds on that day."""
        return tuple(p for p in self._spoken if p not in self.windowed_prices)

    @property
    def windowed_prices(self) -> tuple[PriceColumns, ...]:
        """The kinds of which each row may say its own first day, and all kinds of a file that comes late."""
        return tuple(p for p in self._spoken if self.late or p.valid_from in self.columns)

    @property
    def _spoken(self) -> tuple[PriceColumns, ...]:
        return tuple(p for p in PRICES if p.amount in self.columns)
