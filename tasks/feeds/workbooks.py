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
from pathlib import Path
from types import TracebackType
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
from python_calamine import (
    CalamineError,
    CalamineWorkbook,
    PasswordError,
    SheetMetadata,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from tasks.feeds.cells import ERROR, NO_CACHED_VALUE, tagged, tagged_array
from tasks.feeds.contracts import Dialect
from tasks.feeds.grids import Body

_ERROR_CELL = re.compile(
    rb'<(?:\w+:)?c\b(?=[^>]*\bt="e")[^>]*\br="([A-Z]{1,3})(\d+)"[^>]*>(?:(?!</(?:\w+:)?c>).)*?<(?:\w+:)?v>([^<]*)<',
    re.DOTALL,
)
_UNSTORED_FORMULA = re.compile(
    rb'<(?:\w+:)?c\b(?![^>]*\bt="str")[^>]*\br="([A-Z]{1,3})(\d+)"[^>]*>\s*<(?:\w+:)?f\b[^>]*(?:/>|>[^<]*</(?:\w+:)?f>)\s*'
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)


class NotAWorkbook(Exception):  # noqa: N818 - a reason, turned into FileRefused by the reader
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
    """One visible sheet, read whole."""

    path: Path
    name: str
    rows: list[list[Any]]
    is_xlsx: bool

    @property
    def sheet(self) -> str | None:
        """The sheet's name."""
        return self.name

    @property
    def tells_errors(self) -> bool:
        """Whether errors and unstored results are found; true for .xlsx only."""
        return self.is_xlsx

    def head(self, depth: int) -> list[list[str]]:
        """Return the first rows as marked text."""
        return [[tagged(cell) for cell in row] for row in self.rows[:depth]]

    def body(self, header_row: int, width: int) -> Body:
        """Return the rows below the header, without the blank ones at the end."""
        end = self._last_row(header_row)
        below = self.rows[header_row:end]
        numbers = pa.array(range(header_row + 1, end + 1), pa.int32())
        if not below:
            return Body([pa.array([], pa.string())] * width, numbers)
        columns = [tagged_array(column) for column in zip(*below, strict=True)]
        columns += [pa.array([""] * len(below), pa.string())] * (width - len(columns))
        return Body(self._with_faults(columns, header_row), numbers)

    def _with_faults(self, columns: list[pa.Array], header_row: int) -> list[pa.Array]:
        blanks = {position for position, column in enumerate(columns) if column.index("").as_py() >= 0}
        if not blanks:
            return columns
        for position in blanks & {place[1] for place in self._faults}:
            cells = columns[position].to_pylist()
            for (row, column), text in self._faults.items():
                if (
                    column == position
                    and header_row < row <= header_row + len(cells)
                    and not cells[row - header_row - 1]
                ):
                    cells[row - header_row - 1] = ERROR + text
            columns[position] = pa.array(cells, pa.string())
        return columns

    def _last_row(self, header_row: int) -> int:
        end = len(self.rows)
        while end > header_row and _is_blank(self.rows[end - 1]):
            end -= 1
        if end == len(self.rows):
            return end
        return max(end, *(row for row, _ in self._faults), 0) if self._faults else end

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
            return [
                WorkbookSheet(path, name, workbook.get_sheet_by_name(name).to_python(skip_empty_area=False), is_xlsx)
                for name in names
            ]
    except PasswordError as error:
        raise NotAWorkbook("it is protected by a password") from error
    except (CalamineError, OSError, ValueError) as error:
        raise NotAWorkbook(f"it cannot be read as a workbook: {str(error).splitlines()[0][:200]}") from error


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


def _is_blank(row: Sequence[Any]) -> bool:
    return all(cell == "" or (isinstance(cell, str) and not cell.strip()) for cell in row)


def _position(letters: bytes) -> int:
    ordinal = 0
    for letter in letters:
        ordinal = ordinal * 26 + letter - 64
    return ordinal - 1


def _sheet_xml(path: Path, name: str) -> bytes:
    """Return the XML of the sheet of that name; empty where the package is too unusual to find it."""
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
                return package.read(part) if part in package.namelist() else b""
    return b""
