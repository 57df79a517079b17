"""A workbook of 200,000 × 15 read and typed, beside the time that calamine needs to iterate over its cells.

Run with ``.venv/bin/python -m tests.benchmarks.bench_excel [ROWS]``. Both read the same file in turns; the least of
three is compared. Reading is the confined one of every import, in a process of its own; typing follows the contract.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import xlsxwriter
from python_calamine import CalamineWorkbook

from tasks.feeds.casting import cast_table
from tasks.feeds.confined import read_confined, warm_up
from tasks.feeds.contracts import load_contract
from tests.benchmarks.working import Clock, machine, show

ROWS = 200_000
_HEADINGS = (
    "Customer number", "Customer name", "Invoice number", "Document type", "Issue date", "Due date", "Currency",
    "Amount", "Open amount", "Disputed", "Note", "Branch", "Order", "Salesperson", "Printed",
)  # fmt: skip


def _write(path: Path, rows: int) -> None:
    with xlsxwriter.Workbook(path, {"constant_memory": True}) as workbook:
        sheet = workbook.add_worksheet("Open items")
        day = workbook.add_format({"num_format": "yyyy-mm-dd"})
        sheet.write_row(0, 0, _HEADINGS)
        for n in range(1, rows + 1):
            issued = date(2026, 1, 1) + timedelta(days=n % 150)
            amount = (10_000 + n * 7_919 % 990_000) / 100
            sheet.write_row(n, 0, (f"K{n % 50_000:06}", f"Customer {n % 50_000}", f"F{n:09}", "invoice"))
            sheet.write_datetime(n, 4, issued, day)
            sheet.write_datetime(n, 5, issued + timedelta(days=30), day)
            sheet.write_row(n, 6, ("EUR", amount, amount, "no", "", f"B{n % 12}", n, f"S{n % 40}", "yes"))


def _iterate(path: Path) -> int:
    return sum(len(row) for row in CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).iter_rows())


def main() -> None:
    """Write the workbook, read it both ways in turns, and print the ratio."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    contract = load_contract("open_items")
    clock = Clock()
    warm_up()
    with tempfile.TemporaryDirectory(prefix="kontor-bench-") as folder:
        path = Path(folder, "open_items.xlsx")
        _write(path, rows)
        for _ in range(3):
            clock.measure("calamine iterates", partial(_iterate, path))
            raw = clock.measure("read, confined", partial(read_confined, path, contract))
            clock.measure("typed by the contract", partial(cast_table, raw, contract))
    floor = clock.least("calamine iterates")
    lines = [(name, f"{clock.least(name):.2f}", f"{clock.least(name) / floor:.2f}") for name in clock.seconds]
    show(f"{rows:,} × {len(_HEADINGS)} cells of a workbook; {machine()}", ("work", "seconds", "ratio"), lines)


if __name__ == "__main__":
    main()
