"""A grid of cells as a file holds it, before anybody says what a column means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class RaggedRow:
    """A row of a text file with too few or too many cells: what was expected and every cell that was found."""

    expected: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Body:
    """All rows below the header: one text column per position ("" = blank), and each row's 1-based number."""

    columns: Sequence[pa.Array]
    row_numbers: pa.Array
    ragged: Mapping[int, RaggedRow] = field(default_factory=dict)
    marked: bool = True  # whether any cell may carry a mark; text files almost never have one


class Grid(Protocol):
    """One sheet of a workbook, or one way of reading a text file."""

    @property
    def sheet(self) -> str | None:
        """The sheet's name; None for a text file."""

    @property
    def tells_errors(self) -> bool:
        """Whether a cell with an error is told apart from a blank one."""

    def head(self, depth: int) -> Sequence[Sequence[str]]:
        """Return the first rows, as marked text."""

    def body(self, header_row: int, width: int) -> Body:
        """Return everything below the header row."""
