"""Rows read again after a correction: what nobody touched reads as it did, whatever kind of cell it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import BadInput
from tasks.feeds.casting import CastTable, cast_table
from tasks.feeds.contracts import FeedContract, load_contract
from tasks.feeds.corrections import (
    HeldRow,
    contracts_named,
    open_columns,
    read_again,
    row_id_of,
    shown_cells,
    stated_totals,
)
from tasks.feeds.raw_table import RawTable, raw_rows
from tasks.feeds.reading import read_table
from tests.conftest import CAMPAIGN_FACTOR

HEADINGS = ("Customer number", "Invoice number", "Document type", "Due date", "Currency", "Amount", "Open amount")


def _written(folder: Path, rows: Sequence[Sequence[object]]) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(HEADINGS)
    for row in rows:
        sheet.append(list(row))
    book.save(folder / "open_items_2026-03-02.xlsx")
    return folder / "open_items_2026-03-02.xlsx"


def _held(raw: RawTable, cast: CastTable, contract: FeedContract) -> list[HeldRow]:
    """The rows as quarantine would keep them."""
    frame = cast.frame.astype(object).where(cast.frame.notna(), None)
    staged = {row["row_number"]: row for row in frame.to_dict("records")}
    problems = cast.problems.to_dict("records")
    return [
        HeldRow(
            row_id=number,
            feed_file_id=1,
            row_number=number,
            cells=cells["cells"],  # type: ignore[arg-type]
            staged=_as_json(staged[number]),
            reasons=tuple(
                {str(k): v for k, v in problem.items()} for problem in problems if problem["row_number"] == number
            ),
            content="",
            state="open",
            file_name=raw.file_name,
            file_state="applied",
            contract=contract.name,
            feed=contract.feed,
            as_of=date(2026, 3, 2),
            columns=frozenset(raw.columns),
        )
        for number, cells in zip(staged, raw_rows(raw, staged), strict=True)
    ]


def _as_json(row: dict[Any, Any]) -> dict[str, Any]:
    numbers = {name: str(value) for name, value in row.items() if isinstance(value, Decimal)}
    text = json.dumps({**row, **dict.fromkeys(numbers)}, default=str)
    return {**json.loads(text), **{name: Decimal(number) for name, number in numbers.items()}}


_AMOUNTS = st.one_of(
    st.decimals(Decimal("-99999"), Decimal("99999"), places=3).map(float),
    st.integers(-10_000, 10_000),
    st.sampled_from(["1.234,50", "1,234.50", "12x", "", "1.234", "(5,00)", "7-"]),
)
_ROWS = st.tuples(
    st.sampled_from(["C-1", "007", 7, "1E5"]),
    st.sampled_from(["A", "0012", 12, date(2026, 1, 31)]),
    st.sampled_from(["invoice", "credit_note", ""]),
    st.sampled_from([date(2026, 3, 16), "16.03.2026", "2026-03-16", "soon"]),
    st.sampled_from(["EUR", "eur", "?"]),
    _AMOUNTS,
    _AMOUNTS,
)


@settings(max_examples=25 * CAMPAIGN_FACTOR)
@given(rows=st.lists(_ROWS, min_size=1, max_size=6))
def test_what_nobody_touched_reads_as_it_did(
    rows: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Numbers and dates that a workbook stored, texts of either decimal mark, credit notes and blanks give the same."""
    contract = load_contract("open_items")
    path = _written(tmp_path_factory.mktemp("again"), rows)
    raw = read_table(path, contract)
    cast = cast_table(raw, contract)
    again = read_again(_held(raw, cast, contract), {}, contract).cast
    for name in contract.column_names:
        assert _only_at_fault_differ(name, again, cast), name
    assert _places(again) == _places(cast)


def _only_at_fault_differ(name: str, again: CastTable, cast: CastTable) -> bool:
    """Whether the column reads the same in every row that is not at fault anyway."""
    faulty = set(cast.problems["row_number"])
    pairs = zip(cast.frame["row_number"], cast.frame[name], again.frame[name], strict=True)
    return all(number in faulty or str(one) == str(other) for number, one, other in pairs)


def _places(cast: CastTable) -> set[tuple[int, str]]:
    return {(row["row_number"], row["column_name"]) for row in cast.problems.to_dict("records")}


def test_what_follows_from_a_corrected_cell_follows_it(tmp_path: Path) -> None:
    """A blank remainder takes the corrected amount; a note that becomes an invoice keeps its sign as it was written."""
    contract = load_contract("open_items")
    rows = [("C-1", "A", "", date(2026, 3, 16), "EUR", "12x", ""), ("C-1", "B", "credit_note", "soon", "EUR", 5, 5)]
    raw = read_table(_written(tmp_path, rows), contract)
    held = _held(raw, cast_table(raw, contract), contract)
    first, second = held
    changes = {
        first.row_id: {"amount": "120,50"},
        second.row_id: {"document_type": "invoice", "due_date": "2026-03-16"},
    }
    again = read_again(held, changes, contract)
    assert again.cast.frame["open_amount"].tolist() == [Decimal("120.5"), Decimal(5)]
    assert again.cast.frame["document_type"].tolist() == ["invoice", "invoice"]
    assert len(again.cast.problems) == 0
    assert again.cells[first.row_number]["Amount"] == "120,50"


def test_only_what_is_at_fault_may_change(tmp_path: Path) -> None:
    """The cell that a reason names is open, the others are not; what stands there is shown by canonical column."""
    contract = load_contract("open_items")
    path = _written(tmp_path, [("C-1", "A", "", "soon", "EUR", 1.5, "")])
    raw = read_table(path, contract)
    [row] = _held(raw, cast_table(raw, contract), contract)
    assert open_columns(row, contract) == {"due_date"}
    assert shown_cells(row, contract)["amount"] == "1.5"


def test_a_totals_row_speaks_of_its_currency_or_of_the_only_one() -> None:
    """A totals row without a currency says nothing where the file has two."""
    contract = load_contract("open_items")
    nameless = [{"row_number": 9, "cells": {"customer_number": "Total", "amount": "1 250,00"}}]
    named = [{"row_number": 9, "cells": {"currency": "eur", "amount": "\x017.5"}}]
    assert stated_totals(nameless, contract, "amount", ["EUR"]) == {"EUR": Decimal(1250)}
    assert stated_totals(nameless, contract, "amount", ["EUR", "SEK"]) == {}
    assert stated_totals(named, contract, "amount", ["EUR", "SEK"]) == {"EUR": Decimal("7.5")}
    beside = [{"row_number": 9, "cells": {"customer_number": "Total EUR", "amount": "7.5"}}]
    assert stated_totals(beside, contract, "amount", ["EUR", "SEK"]) == {"EUR": Decimal("7.5")}


def test_a_contract_that_is_gone_is_named(tmp_path: Path) -> None:
    """Files that came under a contract given by path need it again; a token that is none is recognised."""
    with pytest.raises(BadInput, match="acme_ledger") as refused:
        contracts_named(["open_items", "acme_ledger"], home=tmp_path)
    assert "--contract" in refused.value.hint
    assert [row_id_of(text) for text in ("12-0123456789ab", "12", "x-0123456789ab", "")] == [12, None, None, None]
