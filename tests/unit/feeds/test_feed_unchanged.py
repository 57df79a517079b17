"""A list beside what is held: which rows must be looked at and what differs, against a comparison one row at a time."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.feeds.casting import ARROW_TYPES, MONEY_TYPE
from tasks.feeds.unchanged import COMPARED, KEY, set_beside

TYPES = {
    **dict.fromkeys((*KEY, "document_type", "currency", "note"), pa.string()),
    **dict.fromkeys(("issue_date", "due_date"), ARROW_TYPES["date"]),
    **dict.fromkeys(("amount", "open_amount"), MONEY_TYPE),
    "disputed": pa.bool_(),
}
FILE = pa.schema([*TYPES.items(), ("row_number", pa.int32())])
HELD = pa.schema([*TYPES.items(), ("invoice_id", pa.int64()), ("watched", pa.bool_())])
Item = dict[str, Any]

KEYS = [(customer, invoice) for customer in ("C-1", "C-2") for invoice in ("A", "B", "0A")]
CONTENT = st.fixed_dictionaries(
    {
        "document_type": st.sampled_from(["invoice", "credit_note"]),
        "issue_date": st.sampled_from([None, date(2026, 1, 5)]),
        "due_date": st.just(date(2026, 2, 1)),
        "currency": st.sampled_from(["EUR", "SEK"]),
        "amount": st.sampled_from([Decimal("100.0000"), Decimal("-1.0000")]),
        "open_amount": st.sampled_from([None, Decimal("60.0000")]),
        "disputed": st.sampled_from([None, True, False]),
        "note": st.sampled_from([None, "", "paid"]),
    }
)


def _items(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[tuple[str, str], Item]]:
    content = st.tuples(CONTENT, st.fixed_dictionaries(more)).map(lambda pair: pair[0] | pair[1])
    return st.dictionaries(st.sampled_from(KEYS), content, max_size=len(KEYS))


def _file(said: dict[tuple[str, str], Item]) -> pa.Table:
    return _rows(list(said.items()))


def _rows(said: list[tuple[tuple[str, str], Item]]) -> pa.Table:
    rows = [{**item, **dict(zip(KEY, key, strict=True)), "row_number": at} for at, (key, item) in enumerate(said)]
    return pa.Table.from_pylist(rows, FILE)


def _held(there: dict[tuple[str, str], Item]) -> pa.Table:
    rows = [
        {**item, **dict(zip(KEY, key, strict=True)), "disputed": bool(item["disputed"]), "invoice_id": at + 1}
        for at, (key, item) in enumerate(there.items())
    ]
    return pa.Table.from_pylist(rows, HELD)


@given(_items(), _items(watched=st.booleans()), st.sets(st.integers(0, len(KEYS) - 1)))
def test_exactly_what_differs_is_found(
    said: dict[tuple[str, str], Item], there: dict[tuple[str, str], Item], unread: set[int]
) -> None:
    """News are rows of new, changed, watched or doubtful items; differences are the first two, and what has left."""

    def read(item: Item) -> list[Any]:
        return [bool(item[name]) if name == "disputed" else item[name] for name in COMPARED]

    differ = {key for key in said if key not in there or read(said[key]) != read(there[key])}
    found = set_beside(_file(said), _held(there), pa.array(sorted(unread), pa.int32()))
    assert found is not None
    looked_at = [key in differ or there[key]["watched"] or at in unread for at, key in enumerate(said)]
    assert found.news.tolist() == looked_at
    assert found.left_out == looked_at.count(False)
    rows = found.differences.to_pylist()
    named = {(row["customer_number"], row["invoice_number"]): row for row in rows}
    assert len(named) == len(rows)
    assert set(named) == differ | (set(there) - set(said))
    for key, row in named.items():
        assert row["known"] == (key in there)
        assert (row["row_number"] is not None) == (key in said)
        assert row["amount"] == (said[key]["amount"] if key in said else None)
        assert row["held_open"] == (there[key]["open_amount"] if key in there else None)


@pytest.mark.parametrize("keys", [[("C-1", "A"), ("C-1", "A")], [("C-1", "A"), ("C-9", "X"), ("C-9", "X")]])
def test_rows_that_claim_one_key_are_left_to_the_server(keys: list[tuple[str, str]]) -> None:
    """Two rows for an item that is held, or for one that is not: no comparison, whatever else the rows say."""
    item: Item = dict.fromkeys(TYPES)
    rows = _rows([(key, item) for key in keys])
    held = _held({("C-1", "A"): item | {"watched": False}})
    assert set_beside(rows, held, pa.array([], pa.int32())) is None


def test_numbers_that_only_join_alike_are_not_taken_for_one() -> None:
    """Customer "C" with invoice "1<mark>A" and customer "C<mark>1" with invoice "A" would read alike once joined."""
    item: Item = dict.fromkeys(TYPES) | {"watched": False}
    rows = pa.Table.from_pylist([{**item, "customer_number": "C", "invoice_number": "1\x1fA", "row_number": 1}], FILE)
    assert set_beside(rows, _held({("C\x1f1", "A"): item}), pa.array([], pa.int32())) is None


def test_a_list_that_stands_in_quarantine_has_no_item_of_its_own() -> None:
    """What was listed before but could not be read is known, differs, and names no invoice."""
    item: Item = dict.fromkeys(TYPES) | {"watched": False}
    held = _held({("C-1", "A"): item}).set_column(
        HELD.get_field_index("invoice_id"), "invoice_id", pa.array([0], pa.int64())
    )
    said = {("C-1", "A"): item | {"amount": Decimal("5.0000")}}
    found = set_beside(_file(said), held, pa.array([], pa.int32()))
    assert found is not None
    assert [(row["known"], row["invoice_id"]) for row in found.differences.to_pylist()] == [(True, None)]
