"""Several sheets of one workbook as one table: columns by their meaning, rows numbered on, cells by their own sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.errors import FileRefused
from tasks.feeds.cells import letter
from tasks.feeds.contracts import FeedContract
from tasks.feeds.header_choice import Choice, header_reasons
from tasks.feeds.raw_table import RawTable, Section

_LEAST_HEADINGS = 2  # one known word may stand on a cover or among explanations


def headed_sheets(path: Path, choices: Sequence[Choice], contract: FeedContract) -> tuple[list[Choice], list[str]]:
    """Return the sheets that have the contract's headings, and remarks on those that have none of them.

    Raises:
        FileRefused: a sheet has some headings but not all that are required, or headings that contradict each other;
            left out in silence, what it lists would count as gone.
    """
    reasons: list[str] = []
    taken: list[Choice] = []
    remarks: list[str] = []
    for choice in choices:
        if choice.match.score[0]:
            taken.append(choice)
            reasons += [f"sheet {choice.grid.sheet!r}: {conflict}" for conflict in choice.match.conflicts]
        elif len(choice.match.positions) >= _LEAST_HEADINGS:
            reasons += header_reasons(choice, contract)
        else:
            remarks.append(f"sheet {choice.grid.sheet!r} has no headings of {contract.name} and was not read")
    if reasons:
        raise FileRefused(
            path.name,
            reasons,
            hint="Every sheet of products needs the required headings; name the sheets that are meant with "
            "`sheetPattern` in the sender's contract if this one is none.",
        )
    return taken, remarks


def together(tables: Sequence[RawTable], contract: FeedContract) -> RawTable:
    """Return the sheets as one table, in the order of the workbook.

    A column that one sheet has and another has not is blank there. Rows of the second sheet are numbered on behind the
    last row of the first; :meth:`RawTable.cell` tells each by its own sheet and row. Totals of single sheets are totals
    of none of this and left out.
    """
    tables = [_with_sheet_name(raw, contract) for raw in tables]
    names = list(dict.fromkeys(name for raw in tables for name in raw.columns))
    others = list(dict.fromkeys(heading for raw in tables for heading in _others(raw).values()))
    bases = _bases(tables)
    letters = {name: letter(at + 1) for at, name in enumerate(names)}
    headings = {name: raw.columns[name] for raw in reversed(tables) for name in raw.columns}
    return replace(
        tables[0],
        sheet=", ".join(str(raw.sheet) for raw in tables),
        columns={name: headings[name] for name in names},
        letters=letters,
        frame=_stacked([_columns(raw, names, base) for raw, base in zip(tables, bases, strict=True)]),
        titles=tuple(dict.fromkeys(title for raw in tables for title in raw.titles)),
        totals=(),
        unknown_columns=tuple(dict.fromkeys(name for raw in tables for name in raw.unknown_columns)),
        blank_rows=sum(raw.blank_rows for raw in tables),
        tells_errors=all(raw.tells_errors for raw in tables),
        marked=any(raw.marked for raw in tables),
        headings=(*(headings[name] for name in names), *others),
        other=_stacked([_other_columns(raw, others, len(names)) for raw in tables]),
        remarks=tuple(dict.fromkeys(_remarks(tables))),
        sections=tuple(
            Section(base, str(raw.sheet), dict(raw.letters)) for raw, base in zip(tables, bases, strict=True)
        ),
    )


def _bases(tables: Sequence[RawTable]) -> list[int]:
    """What is added to the row numbers of each sheet so that no two are the same."""
    bases = [0]
    for raw in tables[:-1]:
        last = int(raw.frame["row_number"].max()) if len(raw.frame) else raw.header_row
        bases.append(bases[-1] + last)
    return bases


def _with_sheet_name(raw: RawTable, contract: FeedContract) -> RawTable:
    """The table with the name of its sheet in the column that the contract names, unless the sheet has that column."""
    name = contract.sheet_names
    if name is None or name in raw.columns:
        return raw
    frame = raw.frame.copy(deep=False)
    frame.insert(len(raw.columns), name, _texts([str(raw.sheet)] * len(frame)))
    return replace(raw, columns={**raw.columns, name: name}, frame=frame)


def _others(raw: RawTable) -> dict[str, str]:
    """The unknown columns by position, and what they are told by: heading and letter, so that none hides another."""
    found: dict[str, str] = {}
    for position in raw.other.columns:
        heading = raw.headings[int(position)] if int(position) < len(raw.headings) else ""
        found[position] = heading if heading and heading not in found.values() else letter(int(position) + 1)
    return found


def _columns(raw: RawTable, names: Sequence[str], base: int) -> pd.DataFrame:
    blank = [""] * len(raw.frame)
    found = {name: raw.frame[name] if name in raw.frame else _texts(blank) for name in names}
    numbers = raw.frame["row_number"].to_numpy().astype(np.int32) + np.int32(base)
    return pd.DataFrame({**found, "row_number": pd.Series(numbers, dtype=pd.ArrowDtype(pa.int32()))})


def _other_columns(raw: RawTable, others: Sequence[str], first: int) -> pd.DataFrame:
    places = {heading: position for position, heading in _others(raw).items()}
    blank = [""] * len(raw.frame)
    return pd.DataFrame(
        {
            str(first + at): raw.other[places[heading]] if heading in places else _texts(blank)
            for at, heading in enumerate(others)
        }
    )


def _texts(values: Sequence[str]) -> pd.Series[str]:
    return pd.Series(values, dtype=pd.ArrowDtype(pa.string()))


def _stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def _remarks(tables: Sequence[RawTable]) -> Iterator[str]:
    for raw in tables:
        yield from raw.remarks
        if raw.totals:
            yield f"the totals of sheet {raw.sheet!r} are not compared"
