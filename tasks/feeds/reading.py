"""A file read by its contract: the header found, headings translated, rows numbered, nothing cast yet.

The result is plain data that can be pickled, and nothing is kept between two calls, so that reading can happen in a
child process. The extension of a file is a hint only; its first bytes decide how it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from tasks.errors import FileRefused
from tasks.feeds.cells import DATE, letter, shown, storable
from tasks.feeds.contracts import FeedContract
from tasks.feeds.delimited import NotText
from tasks.feeds.grids import Grid
from tasks.feeds.header_choice import Choice, best_row, choose, clean_heading
from tasks.feeds.headings import alias_ranks
from tasks.feeds.opening import open_grids
from tasks.feeds.raw_table import RawTable, TotalsRow
from tasks.feeds.row_shapes import is_shaped, shape_rows
from tasks.feeds.sheets_together import headed_sheets, together
from tasks.feeds.sifting import sift, totals_indexes
from tasks.feeds.workbooks import NotAWorkbook, PanicIsRefusal

_SAVE_AS = "Open it in a spreadsheet program and save it as .xlsx, then send that file."
_WITHOUT_PASSWORD = "Open it with its password, save it as .xlsx without one and send that file."


def read_table(path: Path, contract: FeedContract) -> RawTable:
    """Return the rows of the file as text by canonical column.

    Raises:
        FileRefused: its nature is wrong (not readable, no header, no row); every reason at once.
    """
    try:
        with PanicIsRefusal():
            raw = _whole(path, contract, list(open_grids(path, contract)))
    except (NotText, NotAWorkbook) as reason:
        hint = getattr(reason, "hint", "") or (_WITHOUT_PASSWORD if "password" in str(reason) else _SAVE_AS)
        raise FileRefused(path.name, [str(reason)], hint=hint) from reason
    _refuse_no_rows(raw, contract)
    return raw


def _whole(path: Path, contract: FeedContract, grids: Sequence[Grid]) -> RawTable:
    """The table of the one sheet or text that is meant, or of all sheets where the contract wants them together."""
    if contract.dialect.sheets_together and all(grid.sheet is not None for grid in grids):
        ranks = alias_ranks(contract)
        choices, remarks = headed_sheets(path, [best_row(grid, contract, ranks) for grid in grids], contract)
        tables = [_table(path, contract, choice) for choice in choices]
        if tables:
            raw = together([raw for raw in tables if len(raw.frame)] or tables[:1], contract)
            return replace(raw, remarks=(*raw.remarks, *remarks))
    return _table(path, contract, choose(path, grids, contract))


def _table(path: Path, contract: FeedContract, choice: Choice) -> RawTable:
    headings = tuple(clean_heading(cell) for cell in choice.headings)
    body = choice.grid.body(choice.header_row, len(headings))
    headings += ("",) * (len(body.columns) - len(headings))
    positions = dict(choice.match.positions)
    remarks = tuple(getattr(choice.grid, "remarks", ()))
    if is_shaped(contract):
        shaped = shape_rows(body, positions, contract, totals_indexes(body, positions, headings, contract))
        body, remarks = shaped.body, (*remarks, *shaped.remarks)
        if shaped.group is not None and contract.group_headings is not None:
            positions[contract.group_headings] = shaped.group
            # Named as the contract names it, so that a row that waits for correction is understood again.
            headings += (contract.group_headings,)
    keep, totals, blank_rows = sift(body, positions, headings, contract)
    frame = _frame({name: body.columns[at] for name, at in positions.items()}, body.row_numbers, keep)
    known = set(positions.values())
    other = {str(at): column for at, column in enumerate(body.columns) if at not in known}
    return RawTable(
        file_name=path.name,
        sheet=choice.grid.sheet,
        header_row=choice.header_row,
        columns={name: headings[at] for name, at in positions.items()},
        letters={name: letter(at + 1) for name, at in positions.items()},
        frame=frame,
        titles=tuple(_titles(choice)),
        totals=totals,
        unknown_columns=tuple(headings[at] for at in choice.match.unknown),
        blank_rows=blank_rows,
        encoding=getattr(choice.grid, "encoding", None),
        delimiter=getattr(choice.grid, "delimiter", None),
        tells_errors=choice.grid.tells_errors,
        marked=body.marked,
        ragged={number: row for number, row in body.ragged.items() if not _is_total_number(totals, number)},
        headings=headings,
        other=_frame(other, None, keep),
        remarks=remarks,
    )


def _is_total_number(totals: Sequence[TotalsRow], number: int) -> bool:
    return any(row.row_number == number for row in totals)


def _frame(columns: Mapping[str, pa.Array], numbers: pa.Array | None, keep: pa.Array | None) -> pd.DataFrame:
    named = dict(columns) | ({"row_number": numbers} if numbers is not None else {})
    table = pa.table(named)
    if keep is not None and named:
        table = table.filter(keep)
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def _titles(choice: Choice) -> Iterator[str]:
    """Yield the text of each row above the header that says something; typed dates as ISO text."""
    for cells in choice.head[: choice.first_row - 1]:
        text = " ".join(storable(shown(cell)).strip() for cell in cells if shown(cell).strip() or cell.startswith(DATE))
        if text:
            yield text


def _refuse_no_rows(raw: RawTable, contract: FeedContract) -> None:
    """Refuse a file without rows. Only a snapshot may be empty, and only if its totals row says zero."""
    if len(raw.frame):
        return
    money = [column.name for column in contract.columns if column.kind == "money"]
    said = [row.cells[name] for row in raw.totals for name in money if name in row.cells]
    if contract.mode == "snapshot" and said and all(_is_zero(text) for text in said):
        return
    raise FileRefused(
        raw.file_name,
        [f"no row below the header in row {raw.header_row}; an empty list is taken only with a totals row of 0"],
        hint="If nothing is open, the sender adds a totals row that says 0; otherwise ask for the complete file.",
    )


def _is_zero(text: str) -> bool:
    digits = [character for character in shown(text) if character.isdigit()]
    return bool(digits) and set(digits) == {"0"}
