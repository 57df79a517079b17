"""Workbooks (xlsx, xls, xlsb, ods) by calamine: cells as stored, hidden sheets left out.

Calamine reads an error such as #N/A, and a formula whose result was never stored, as blank. In an .xlsx both can be
found in the sheet's own XML, and only there is it looked for, and only if a column has blanks at all. In the other
formats they cannot be told from blanks; ``tells_errors`` says so, and casting then takes no default in place of a blank
amount.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetMetadata,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from tasks.feeds.cells import ERROR, NO_CACHED_VALUE, tagged, tagged_array
from tasks.feeds.contracts import Dialect
from tasks.feeds.grids import Body
from tasks.feeds.packages import SEARCHED_FOR_HIDDEN_ROWS, remark_on_rows, remarks_on

_ROWS_AT_ONCE = 8192
_ERROR_CELL = re.compile(
    rb'<(?:\w+:)?c\b(?=[^>]*\bt="e")[^>]*\br="([A-Z]{1,3})(\d+)"[^>]*>(?:(?!</(?:\w+:)?c>).)*?<(?:\w+:)?v>([^<]*)<',
    re.DOTALL,
)
_UNSTORED_FORMULA = re.compile(
    rb'<(?:\w+:)?c\b(?![^>]*\bt="str")[^>]*\br="([A-Z]{1,3})(\d+)"[^>]*>\s*<(?:\w+:)?f\b[^>]*(?:/>|>[^<]*</(?:\w+:)?f>)\s*'
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)


class NotAWorkbook(Exception):
    """The file cannot be read as a workbook, or not the sheet that the contract wants; the message says why."""


class PanicIsRefusal:
    """Turns a panic inside the Rust reader, which is a BaseException, into NotAWorkbook; nothing else is caught."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and kind.__name__ == "PanicException":
            raise NotAWorkbook(
                "the reader broke down on it: the file is damaged or not what it claims to be"
            ) from error


@dataclass
class WorkbookSheet:
    """One visible sheet; its cells become Python objects a few thousand rows at a time."""

    path: Path
    name: str
    cells: CalamineSheet
    is_xlsx: bool
    hidden_sheets: int = 0

    @property
    def sheet(self) -> str | None:
        """The sheet's name."""
        return self.name

    @property
    def tells_errors(self) -> bool:
        """Whether errors and unstored results are found; true for .xlsx only."""
        return self.is_xlsx

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the workbook holds beside the cells that were read, in words."""
        found = [f"{self.hidden_sheets} of its sheets are hidden and were not read"] if self.hidden_sheets else []
        if zipfile.is_zipfile(self.path):
            with zipfile.ZipFile(self.path) as package:
                found += remarks_on(package.namelist())
        if self.is_xlsx:
            found += remark_on_rows(_sheet_xml(self.path, self.name, at_most=SEARCHED_FOR_HIDDEN_ROWS))
        return tuple(found)

    def head(self, depth: int) -> list[list[str]]:
        """Return the first rows as marked text."""
        return [[tagged(cell) for cell in row] for row in self.cells.to_python(skip_empty_area=False, nrows=depth)]

    def body(self, header_row: int, width: int) -> Body:
        """Return the rows below the header, without the blank ones at the end."""
        chunks: list[list[pa.Array]] = []
        rows = islice(self.cells.iter_rows(), header_row, None)
        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            chunks.append([tagged_array(column) for column in zip(*chunk, strict=True)])
        columns = [pa.concat_arrays(parts) for parts in zip(*chunks, strict=True)] or [pa.array([], pa.string())]
        left = (self.cells.start or (0, 0))[1]  # rows come without the blank columns on the left
        columns = [pa.array([""] * len(columns[0]), pa.string())] * left + columns
        columns = self._with_faults(columns, header_row)
        size = _last_filled(columns)
        columns = [column.slice(0, size) for column in columns]
        columns += [pa.array([""] * size, pa.string())] * (width - len(columns))
        return Body(columns, pa.array(np.arange(header_row + 1, header_row + 1 + size, dtype=np.int32)))

    def _with_faults(self, columns: list[pa.Array], header_row: int) -> list[pa.Array]:
        """Return the columns with errors in place of the blanks that calamine made of them."""
        if all(column.index("").as_py() < 0 for column in columns) or not self._faults:
            return columns
        below = {
            place: text for place, text in self._faults.items() if place[0] > header_row and place[1] < len(columns)
        }
        size = max([len(columns[0]), *(row - header_row for row, _ in below)])
        for position, column in enumerate(columns):
            faults = {row - header_row - 1: text for (row, at), text in below.items() if at == position}
            cells = column.to_pylist() + [""] * (size - len(column)) if faults or size > len(column) else None
            if cells is not None:
                filled = [
                    cell or (ERROR + faults[index] if index in faults else "") for index, cell in enumerate(cells)
                ]
                columns[position] = pa.array(filled, pa.string())
        return columns

    @cached_property
    def _faults(self) -> dict[tuple[int, int], str]:
        """(row, position) → what the cell shows, for errors and for formulas without a stored result."""
        if not self.is_xlsx:
            return {}
        content = _sheet_xml(self.path, self.name)
        faults: dict[tuple[int, int], str] = {}
        if b't="e"' in content:
            for letters, row, text in _ERROR_CELL.findall(content):
                faults[int(row), _position(letters)] = text.decode("utf-8", "replace") or "#N/A"
        if b"<f" in content or b":f" in content:
            for letters, row in _UNSTORED_FORMULA.findall(content):
                faults[int(row), _position(letters)] = NO_CACHED_VALUE
        return faults


def read_sheets(path: Path, dialect: Dialect, *, is_xlsx: bool) -> list[WorkbookSheet]:
    """Return the visible sheets that the contract may mean, in the order of the workbook.

    Raises:
        NotAWorkbook: damaged, protected by a password, or without such a sheet.
    """
    try:
        with PanicIsRefusal(), CalamineWorkbook.from_path(path) as workbook:
            visible = [sheet for sheet in workbook.sheets_metadata if _is_visible(sheet)]
            names = _chosen([sheet.name for sheet in visible], dialect)
            hidden = sum(sheet.visible != SheetVisibleEnum.Visible for sheet in workbook.sheets_metadata)
            return [WorkbookSheet(path, name, workbook.get_sheet_by_name(name), is_xlsx, hidden) for name in names]
    except PasswordError as error:
        raise NotAWorkbook("it is protected by a password") from error
    except (CalamineError, OSError, ValueError) as error:
        # Quoted, because a reader's words may hold the name of a sheet.
        raise NotAWorkbook(f"it cannot be read as a workbook: {str(error).splitlines()[0][:200]!r}") from error


def _is_visible(sheet: SheetMetadata) -> bool:
    return sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible


def _chosen(names: Sequence[str], dialect: Dialect) -> list[str]:
    """Return the sheets that the contract allows: by name, by number, by pattern, or all if it says nothing."""
    seen = ", ".join(map(repr, names)) or "none"
    if isinstance(dialect.sheet, int):
        if dialect.sheet > len(names):
            raise NotAWorkbook(f"it has {len(names)} visible sheet(s), the contract wants number {dialect.sheet}")
        return [names[dialect.sheet - 1]]
    chosen = list(names)
    if dialect.sheet is not None:
        chosen = [name for name in names if name.strip().casefold() == dialect.sheet.strip().casefold()]
    elif dialect.sheet_pattern is not None:
        chosen = [name for name in names if re.search(dialect.sheet_pattern, name)]
    if not chosen:
        wanted = dialect.sheet or dialect.sheet_pattern
        raise NotAWorkbook(f"it has no visible sheet{f' {wanted!r}' if wanted else ''}; visible sheets: {seen}")
    return chosen


def _last_filled(columns: Sequence[pa.Array]) -> int:
    """Return how many rows there are up to the last one with anything in it."""
    size = len(columns[0])
    last = 0
    for column in columns:
        if last < size:
            filled = pc.indices_nonzero(pc.not_equal(column, ""))
            last = max(last, filled[-1].as_py() + 1 if len(filled) else 0)
    return last


def _position(letters: bytes) -> int:
    ordinal = 0
    for letter in letters:
        ordinal = ordinal * 26 + letter - 64
    return ordinal - 1


def _sheet_xml(path: Path, name: str, *, at_most: int | None = None) -> bytes:
    """Return the XML of the sheet of that name; empty where it is larger or the package too unusual to find it."""
    with zipfile.ZipFile(path) as package:
        try:
            workbook = ElementTree.fromstring(package.read("xl/workbook.xml"))
            relations = ElementTree.fromstring(package.read("xl/_rels/workbook.xml.rels"))
        except (KeyError, ElementTree.ParseError):
            return b""
        targets = {item.get("Id"): item.get("Target", "") for item in relations}
        for sheet in workbook.iter():
            if sheet.tag.endswith("}sheet") and sheet.get("name") == name:
                relation = next((value for key, value in sheet.attrib.items() if key.endswith("}id")), None)
                target = targets.get(relation, "").lstrip("/")
                part = target if target.startswith("xl/") else f"xl/{target}"
                if part not in package.namelist() or (at_most and package.getinfo(part).file_size > at_most):
                    return b""
                return package.read(part)
    return b""
