"""The demo's files under their contracts: recognised as they are, and bad only where dirt is planted."""

from __future__ import annotations

import pytest

from tasks.demo.generate import DemoFile, DemoFiles, write_demo
from tasks.feeds.business_date import find_as_of
from tasks.feeds.casting import cast_table
from tasks.feeds.contracts import load_contract
from tasks.feeds.raw_table import RawTable
from tasks.feeds.reading import read_table

SEEN_IN_ONE_CELL = {
    "text_in_amount",
    "impossible_date",
    "lost_year",
    "error_cell",
    "missing_number",
    "unknown_currency",
    "doubted_currency",
}
"""The kinds of dirt that one cell gives away; the others need the row, the file or the database."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    """The demo, written once."""
    return write_demo(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def tables(demo: DemoFiles) -> list[tuple[DemoFile, RawTable]]:
    """Each file beside what its contract reads from it."""
    return [(file, read_table(file.path, load_contract(file.contract))) for file in demo.files]


def test_every_row_and_every_heading_is_recognised(tables: list[tuple[DemoFile, RawTable]]) -> None:
    """Each file yields its number of data rows, and no heading is left over, whatever its language or order."""
    assert [(f.path.name, len(table.frame), table.unknown_columns) for f, table in tables] == [
        (f.path.name, f.rows, ()) for f, _ in tables
    ]


def test_totals_are_set_apart_in_every_weekly_file(tables: list[tuple[DemoFile, RawTable]]) -> None:
    """The four totals rows of each weekly file are totals, not items."""
    counts = [len(table.totals) for file, table in tables if file.contract == "open_items"]
    assert counts == [4] * 13


def test_each_ledger_says_its_day_in_name_and_title(tables: list[tuple[DemoFile, RawTable]]) -> None:
    """The day found in the file's name and title, English or Bulgarian, is the Monday it was made for."""
    ledgers = [(file, table) for file, table in tables if file.contract in ("open_items", "settled_items")]
    for file, table in ledgers:
        contract = load_contract(file.contract)
        assert find_as_of(contract, file_name=file.path.name, titles=table.titles, given=None) == file.as_of
        assert find_as_of(contract, file_name="ledger.xlsx", titles=table.titles, given=None) == file.as_of
    assert len(ledgers) == 14


def test_cells_are_bad_exactly_where_dirt_is_planted(demo: DemoFiles, tables: list[tuple[DemoFile, RawTable]]) -> None:
    """Casting complains of the planted cells and of no other; amounts with spaces or parentheses are read."""
    found = {
        (file.path.name, int(str(problem.row_number)), str(problem.column_name))
        for file, table in tables
        for problem in cast_table(table, load_contract(file.contract)).problems.itertuples()
    }
    told = {(p.file_name, p.row, p.column) for p in demo.planted if p.kind in SEEN_IN_ONE_CELL}
    assert found == told
