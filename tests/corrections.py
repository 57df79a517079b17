"""Helpers of tests that correct quarantined rows: hand out, change, give back. They never assert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import openpyxl

from tasks import ledger
from tasks.catalog.steps import CATALOG_FEEDS
from tasks.customers.corrections_store import apply_corrected_contacts
from tasks.customers.steps import CUSTOMER_FEEDS
from tasks.erasures.keys import key_of
from tasks.feeds.confined import read_confined
from tasks.feeds.contracts import FeedContract, load_contract
from tasks.feeds.correction_workbook import (
    HandedOut,
    heading_of,
    returned_contract,
    returned_rows,
    write_corrections,
)
from tasks.feeds.corrections import CorrectedRow, HeldRow, Matched, match_returned, row_id_of
from tasks.feeds.corrections_store import FileCorrected, replay_corrected
from tasks.feeds.held_store import Selection, fetch_held
from tasks.payments.steps import PAYMENT_REPLAYS
from tests.ledgers import TODAY, Books

APPLIES = {**CUSTOMER_FEEDS, "contacts": apply_corrected_contacts, **PAYMENT_REPLAYS, **CATALOG_FEEDS}
HEADER_ROW = 2


def held(books: Books, **selection: str | None) -> list[HeldRow]:
    """The quarantined rows of a selection; open ones unless it says otherwise."""
    with books.engine.connect() as connection:
        return fetch_held(connection, Selection(**selection))  # type: ignore[arg-type]


def correct(books: Books, row: HeldRow, **changes: str) -> FileCorrected:
    """Give one row new text by canonical column, as the flow does."""
    return settle(books, [row], [CorrectedRow(row.row_id, 0, changes)])


def reject(books: Books, row: HeldRow, reason: str = "a test row of accounting") -> FileCorrected:
    """Give one row up for good."""
    return settle(books, [row], [CorrectedRow(row.row_id, 0, {}, reason)])


def settle(
    books: Books, rows: Sequence[HeldRow], wanted: Sequence[CorrectedRow], contract: FeedContract | None = None
) -> FileCorrected:
    """Do what is wanted of rows of one file, in one transaction of a run."""
    with (
        ledger.open_run(books.engine, "test", as_of=TODAY, dry_run=False, prefect_run_id=None, actor="test") as run,
        books.engine.begin() as connection,
    ):
        return replay_corrected(
            connection,
            rows[0].feed_file_id,
            {row.row_id: row.token for row in rows},
            wanted,
            contract=contract or contract_of(rows[0]),
            run_id=run.run_id,
            actor="a.clerk",
            apply=APPLIES[rows[0].feed],
            erasure_key=key_of(books.settings.home),
        )


def contract_of(row: HeldRow) -> FeedContract:
    """The contract that the row's file came under."""
    return load_contract(row.contract)


def export(rows: Sequence[HeldRow], path: Path) -> Path:
    """Write the rows into a workbook and return where."""
    write_corrections([HandedOut(row, contract_of(row)) for row in rows], path)
    return path


def fill_in(path: Path, changes: Mapping[int, Mapping[str, object]]) -> None:
    """Type into an exported workbook as a person does: by row id, heading or canonical column, and value."""
    book = openpyxl.load_workbook(path)
    sheet = book["Corrections"]
    places = {str(cell.value): cell.column for cell in sheet[HEADER_ROW] if cell.value}
    for line in range(HEADER_ROW + 1, sheet.max_row + 1):
        row_id = row_id_of(str(sheet.cell(line, 1).value))
        for name, value in changes.get(row_id or 0, {}).items():
            sheet.cell(line, places.get(name) or places[heading_of(name)]).value = value
    book.save(path)


def give_back(books: Books, path: Path) -> Matched:
    """Read the workbook with the reader of uploads and compare it with what is held now."""
    lines = returned_rows(read_confined(path, returned_contract()))
    now = {row.row_id: row for row in held(books, state=None)}
    return match_returned(lines, now, {name: load_contract(name) for name in {row.contract for row in now.values()}})
