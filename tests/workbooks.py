"""Small lists of open items as workbooks, for tests of reading. They never assert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xlsxwriter

from tasks.feeds.cells import shown
from tasks.feeds.raw_table import RawTable

HEADER = ("Customer number", "Invoice number", "Due date", "Currency", "Amount")
ROWS = (("C1", "0012", "2026-01-31", "EUR", 10.5), ("C2", "1E5", "2026-02-28", "SEK", 1))


def write_workbook(path: Path, rows: Sequence[Sequence[Any]] = (HEADER, *ROWS)) -> Path:
    """Write the rows as the first sheet of an .xlsx."""
    with xlsxwriter.Workbook(str(path)) as workbook:
        sheet = workbook.add_worksheet("Open")
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    return path


def shown_rows(raw: RawTable, names: Sequence[str]) -> list[list[str]]:
    """The rows as a person sees them."""
    return [[shown(cell) for cell in row] for row in raw.frame[list(names)].itertuples(index=False)]
