"""What a file holds once it was read and before anything is cast: its rows as text by the contract's columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from tasks.feeds.cells import letter, shown, storable
from tasks.feeds.grids import RaggedRow


@dataclass(frozen=True)
class TotalsRow:
    """A totals row: its number and its filled cells as marked text, by canonical column (unknown ones by heading)."""

    row_number: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Section:
    """One of several sheets of a table: its rows have ``base`` added to their numbers; letters by canonical column."""

    base: int
    sheet: str
    letters: Mapping[str, str]

    def cell(self, column: str, row_number: int) -> str:
        """Return the address as a spreadsheet writes it, such as 'Lamps'!C17."""
        row = row_number - self.base
        return f"'{self.sheet}'!{self.letters[column]}{row}" if column in self.letters else f"'{self.sheet}' row {row}"


@dataclass(frozen=True)
class RawTable:
    """What a file holds, by the canonical columns of its contract, as marked text (see :mod:`tasks.feeds.cells`).

    ``frame`` has one text column per canonical column found and ``row_number`` (int32, the 1-based row or record in the
    file); ``other`` has the columns the contract does not know, by position, for the rows that go into quarantine.
    ``columns`` maps canonical name → heading, ``letters`` canonical name → column letter. ``ragged`` holds the rows of
    a text file with too few or too many cells. ``remarks`` says in words what else the file brought (hidden sheets and
    rows, macros, links to other workbooks) and what was done about it. ``sections``: the sheets that the table was put
    together from, in the order of their rows; none where it is one sheet or one text.
    """

    file_name: str
    sheet: str | None
    header_row: int
    columns: Mapping[str, str]
    letters: Mapping[str, str]
    frame: pd.DataFrame
    titles: tuple[str, ...]
    totals: tuple[TotalsRow, ...]
    unknown_columns: tuple[str, ...]
    blank_rows: int
    encoding: str | None = None
    delimiter: str | None = None
    tells_errors: bool = True
    marked: bool = True
    ragged: Mapping[int, RaggedRow] = field(default_factory=dict)
    headings: tuple[str, ...] = ()
    other: pd.DataFrame = field(default_factory=pd.DataFrame)
    remarks: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()

    def cell(self, column: str, row_number: int) -> str:
        """Return the address a person finds the cell by, such as C17; "row 17" if the column is not in the file."""
        for section in reversed(self.sections):
            if row_number > section.base:
                return section.cell(column, row_number)
        return f"{self.letters.get(column, 'row ')}{row_number}"


def raw_rows(raw: RawTable, row_numbers: Iterable[int]) -> list[dict[str, object]]:
    """Return each named row as {"row_number", "cells": {heading: text as a person sees it}}, in the order asked for.

    A heading that stands twice, or none, is named by its column letter; so are cells beyond the last heading.
    """
    wanted = list(row_numbers)
    place = pd.Index(raw.frame["row_number"].to_numpy()).get_indexer(pd.Index(wanted))
    found = [(number, int(at)) for number, at in zip(wanted, place, strict=True) if at >= 0]
    by_position = {_ordinal(raw.letters[name]): raw.frame[name] for name in raw.columns}
    by_position |= {int(position): raw.other[position] for position in raw.other.columns}
    names = _distinct(raw.headings)
    columns = {
        names[position]: by_position[position].iloc[[at for _, at in found]].tolist()
        for position in sorted(by_position)
    }
    rows: list[dict[str, object]] = []
    for index, (number, _) in enumerate(found):
        cells = {name: storable(shown(values[index])) for name, values in columns.items() if name or values[index]}
        beyond = raw.ragged[number].cells[len(raw.headings) :] if number in raw.ragged else ()
        cells |= {letter(len(raw.headings) + extra): storable(text) for extra, text in enumerate(beyond, start=1)}
        rows.append({"row_number": number, "cells": cells})
    return rows


def _ordinal(letters: str) -> int:
    number = 0
    for character in letters:
        number = number * 26 + ord(character) - 64
    return number - 1


def _distinct(headings: Sequence[str]) -> list[str]:
    """Return a name for each position: its heading, with the letter where that alone would be ambiguous."""
    return [
        heading if heading and headings.count(heading) == 1 else f"{heading} [{letter(at + 1)}]".lstrip()
        for at, heading in enumerate(headings)
    ]
