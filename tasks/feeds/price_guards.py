"""What a catalogue's measures say: products that vanished, prices that jumped, and what probably happened. Pure.

A spreadsheet that loses its decimal mark multiplies prices by 10 or 100; an export in another currency multiplies them
by a rate. Both show as one factor that many prices share. A price rise of five per cent is one factor as well, and no
cause for alarm, so only factors that name a mistake count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

_SLIPPED = tuple(Decimal(10) ** power for power in (-3, -2, -1, 1, 2, 3))
_NEAR = Decimal("0.005")  # cents are rounded after a conversion, so that factors of small prices scatter


@dataclass(frozen=True)
class Factor:
    """How many of the changed prices changed by one factor, to three digits."""

    factor: Decimal
    prices: int


@dataclass(frozen=True)
class CatalogMeasures:
    """How a catalogue's file differs from what is held.

    ``listed`` products stand in the complete file ``before`` it, ``absent`` of them are not in this one. Of the
    ``compared`` prices that both sides have, ``changed`` differ and ``jumped`` differ by more than ``jump``, such as
    ``example``. ``rates``: currency pairs, such as ``EUR to BGN``, and what they are worth on the file's day.
    """

    before: tuple[str, date] | None = None
    listed: int = 0
    absent: int = 0
    compared: int = 0
    changed: int = 0
    jumped: int = 0
    jump: Decimal = Decimal(0)
    example: str = ""
    factors: Sequence[Factor] = ()
    rates: Mapping[str, Decimal] | None = None


@dataclass(frozen=True)
class Said:
    """One measurement in words: what, out of how many, and of how many prices or products it speaks."""

    measured: Decimal
    evidence: int
    told: str


def products_vanished(measures: CatalogMeasures) -> Iterator[Said]:
    """Yield the share of the products of the complete file before that this one leaves out."""
    if measures.before is None:
        return
    name, as_of = measures.before
    share = Decimal(measures.absent) / max(measures.listed, 1)
    told = (
        f"{measures.absent} of the {measures.listed} products of {name} ({as_of}) are no longer listed,"
        f" {_percent(share)}; allowed {{allowed}}; probably this file was cut off or filtered, or holds changes only"
    )
    yield Said(share, measures.listed, told)


def prices_scaled(measures: CatalogMeasures) -> Iterator[Said]:
    """Yield the share of the changed prices that changed by one factor that names a mistake, with its cause."""
    for factor in measures.factors:
        cause = cause_of(factor.factor, measures.rates or {})
        if cause:
            share = Decimal(factor.prices) / max(measures.changed, 1)
            told = (
                f"{factor.prices} of {measures.changed} changed prices changed by the factor {factor.factor:f},"
                f" {_percent(share)}; allowed {{allowed}}; probably {cause}"
            )
            yield Said(share, factor.prices, told)


def prices_jumped(measures: CatalogMeasures) -> Iterator[Said]:
    """Yield the share of the known prices that changed by more than the rule calls a jump."""
    if measures.compared:
        share = Decimal(measures.jumped) / measures.compared
        told = (
            f"{measures.jumped} of {measures.compared} known prices changed by more than {_percent(measures.jump)}"
            f"{measures.example}, {_percent(share)}; allowed {{allowed}}; probably another column or another unit was"
            " exported"
        )
        yield Said(share, measures.compared, told)


def cause_of(factor: Decimal, rates: Mapping[str, Decimal]) -> str:
    """Return what a factor probably comes from; an empty text where it names no mistake.

    100 is a decimal mark that slipped; 1.96 is EUR taken for BGN, as far as such a rate is known.
    """
    for slipped in _SLIPPED:
        if _is_near(factor, slipped):
            return f"the decimal mark slipped (a factor of {slipped:f})"
    for pair, rate in rates.items():
        if _is_near(factor, rate):
            return f"a conversion from {pair} (a rate of {rate.normalize():f})"
    return ""


def _is_near(factor: Decimal, other: Decimal) -> bool:
    # A rate near one cannot be told from a price rise.
    return abs(other - 1) > Decimal("0.02") and abs(factor - other) <= other * _NEAR


def _percent(share: Decimal) -> str:
    return f"{(share * 100).quantize(Decimal('0.1')):f}".removesuffix(".0") + " %"
