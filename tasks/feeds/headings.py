"""Which heading means which column: headings are compared by letters and digits only.

``Due date``, ``DUE_DATE``, ``DueDate`` and ``Due<line break>date:`` are one heading, and so are ``Termin płatności``
and ``Termin platnosci``. A column may be known by many headings; where two headings of a file claim one column, the one
that the contract names earlier wins and the other is reported as unknown. Two headings of the same rank are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.feeds.cells import letter, shown
from tasks.feeds.contracts import FeedContract
from tasks.feeds.folding import fold


@dataclass(frozen=True)
class HeaderMatch:
    """What one row means as a header: column → position, and what was left over."""

    positions: Mapping[str, int]
    unknown: tuple[int, ...]
    missing: tuple[str, ...]
    conflicts: tuple[str, ...] = field(default=())

    @property
    def score(self) -> tuple[bool, int]:
        """Greater is better: first that nothing required is missing, then how much was recognised."""
        return (not self.missing and bool(self.positions), len(self.positions))


def alias_ranks(contract: FeedContract) -> dict[str, tuple[str, int]]:
    """Return folded heading → (column, rank); rank 0 is the column's own name, then as the contract lists them."""
    ranks: dict[str, tuple[str, int]] = {}
    for column in contract.columns:
        if column.constant is not None or column.derived_from is not None:
            continue  # the contract has decided; what the file says under this heading is not asked
        for rank, alias in enumerate((column.name, column.heading, *column.aliases)):
            ranks.setdefault(fold(alias), (column.name, rank))
    return ranks


def match_header(cells: Sequence[str], contract: FeedContract, ranks: Mapping[str, tuple[str, int]]) -> HeaderMatch:
    """Return what the row would mean as the header of a file of this contract."""
    claims: dict[str, list[tuple[int, int]]] = {}
    unknown = []
    for position, cell in enumerate(cells):
        found = ranks.get(fold(shown(cell)))
        if found is None:
            if shown(cell).strip():
                unknown.append(position)
            continue
        claims.setdefault(found[0], []).append((found[1], position))
    positions, losers, conflicts = _settle(claims, cells)
    return HeaderMatch(positions, tuple(sorted([*unknown, *losers])), missing_columns(contract, positions), conflicts)


def missing_columns(contract: FeedContract, found: Mapping[str, int]) -> tuple[str, ...]:
    """Return the required columns that neither stand in the file nor follow from the contract."""
    return tuple(
        column.name
        for column in contract.columns
        if column.name not in found
        and column.constant is None
        and column.derived_from is None
        and not any(part in found for part in column.composed_of)
        and (
            column.heading_required or (column.required and column.default is None and column.default_from not in found)
        )
    )


def _settle(
    claims: Mapping[str, list[tuple[int, int]]], cells: Sequence[str]
) -> tuple[dict[str, int], list[int], tuple[str, ...]]:
    positions: dict[str, int] = {}
    losers: list[int] = []
    conflicts: list[str] = []
    for name, claimants in claims.items():
        claimants.sort()
        positions[name] = claimants[0][1]
        losers.extend(position for _, position in claimants[1:])
        tied = [position for rank, position in claimants if rank == claimants[0][0]]
        if len(tied) > 1:
            where = " and ".join(
                f"{shown(cells[position]).strip()!r} (column {letter(position + 1)})" for position in tied
            )
            conflicts.append(f"two headings mean {name}: {where}; the contract does not say which one counts")
    return positions, losers, tuple(conflicts)
