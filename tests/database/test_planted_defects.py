"""Every rule catches the defect it is there for: planted one at a time in a file that is otherwise good.

The rules are not listed here but asked for: every guard, every check and every rule of every column of the contracts
that Kontor ships. One that nobody has planted a defect for fails these tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from configs.settings import Settings
from tasks.catalog.steps import CATALOG_FEEDS
from tasks.customers.steps import CUSTOMER_FEEDS
from tasks.errors import FileRefused
from tasks.feeds.casting import cast_table
from tasks.feeds.contracts import Column, FeedContract, RowCheck, list_contracts
from tasks.feeds.guards import GUARDS
from tasks.feeds.outcomes import FileOutcome
from tasks.feeds.reading import read_table
from tasks.payments.steps import PAYMENT_FEEDS
from tests.ledgers import Books, write_csv

Row = dict[str, Any]

DAY = date(2026, 3, 2)
FEEDS = {**CUSTOMER_FEEDS, **PAYMENT_FEEDS, **CATALOG_FEEDS}
# What brakes a catalogue is planted in tests/database/test_catalog_brakes.py.
CATALOG_GUARDS = {"products_vanished", "prices_scaled", "prices_jumped"}
LIST_GUARDS = [guard for guard in GUARDS if guard not in CATALOG_GUARDS]
# BMEcat's contracts have the rules of the catalogue's and another reader, which has tests of its own. What comes back
# corrected is judged by the rules of the contract that it extends, and so are prices and stock alone.
CONTRACTS = {
    contract.name: contract
    for contract in list_contracts()
    if contract.dialect.file_format != "bmecat"
    and contract.source != "corrections"
    and contract.name not in ("catalog_prices", "catalog_stock")
}

_ITEM: Row = {
    "customer_number": "C-1",
    "customer_name": "Firma",
    "invoice_number": "A-1",
    "document_type": "invoice",
    "issue_date": "2026-01-15",
    "due_date": "2026-02-14",
    "currency": "EUR",
    "amount": "100.00",
    "open_amount": "100.00",
    "disputed": "no",
    "note": "x",
}
_PRODUCT: Row = {
    "part_number": "P-1",
    "name": "Marker",
    "description": "x",
    "category": "pens",
    "unit": "pcs",
    "gtin": "4006381333931",
    "status": "active",
    "currency": "EUR",
    "customer_price": "100.00",
    "dealer_price": "80.00",
    "promo_price": "70.00",
    "promo_from": "2026-03-01",
    "promo_to": "2026-03-31",
    "valid_from": "2026-01-01",
    "valid_to": "2026-12-31",
    "min_quantity": "1",
    "warehouse": "W1",
    "stock": "5",
    "stock_on": "2026-03-01",
    "pack_unit": "box",
    "pack_quantity": "12",
    "content_unit": "g",
    "content_quantity": "20",
}
# A row of each contract to which nobody objects, with a value in every column that can have one of its own.
GOOD: dict[str, Row] = {
    "open_items": _ITEM,
    "settled_items": {**_ITEM, "settled_date": "2026-02-20"},
    "payments": {
        "customer_number": "C-1",
        "payment_number": "P-1",
        "invoice_number": "A-1",
        "received_date": "2026-02-20",
        "currency": "EUR",
        "amount": "100.00",
        "note": "x",
    },
    "organizations": {
        "customer_number": "C-1",
        "name": "Firma",
        "country": "BG",
        "language": "bg",
        "vat_number": "BG123456789",
        "currency": "EUR",
        "payment_terms_days": "30",
        "segment": "retail",
        "owner": "ivanova",
        "contacted_on": "2026-01-01",
    },
    "contacts": {
        "customer_number": "C-1",
        "first_name": "Ана",
        "last_name": "Иванова",
        "email": "ana@example.com",
        "phone": "+359 2 1234567",
        "language": "bg",
        "roles": "payments",
        "valid_from": "2026-01-01",
        "valid_to": "2026-12-31",
    },
    "catalog": _PRODUCT,
    "catalog_delta": _PRODUCT,
    "currency_rates": {"base": "EUR", "quote": "SEK", "rated_on": "2026-01-01", "rate": "11.25"},
}
# What tells the rows of a file apart, and a value of it for each number.
_BY_CUSTOMER, _BY_ITEM, _BY_PART = ("customer_number", "C-{}"), ("invoice_number", "A-{}"), ("part_number", "P-{}")
KEYED = {
    "open_items": _BY_ITEM,
    "settled_items": _BY_ITEM,
    "payments": _BY_CUSTOMER,
    "organizations": _BY_CUSTOMER,
    "contacts": _BY_CUSTOMER,
    "catalog": _BY_PART,
    "catalog_delta": _BY_PART,
    "currency_rates": ("rated_on", "2026-01-{:02}"),
}


# --- columns ----------------------------------------------------------------------------------------------------------

_NONSENSE = {
    "date": "31.09.2026",
    "money": "12x",
    "quantity": "12x",
    "rate": "12x",
    "integer": "many",
    "boolean": "perhaps",
}


def planted_in(column: Column) -> Iterator[tuple[str, str, set[str]]]:
    """Every rule of a column: its name, a cell that breaks it, and the codes that may tell so."""
    fills_itself = column.default is not None or column.default_from is not None
    if column.required and not fills_itself:
        yield "required", "", {"missing"}
    if column.kind in _NONSENSE:
        yield f"kind {column.kind}", _NONSENSE[column.kind], {
            "not_a_date", "not_a_number", "not_a_whole_number", "not_yes_or_no",
        }  # fmt: skip
    if column.code_list:
        yield f"code list {column.code_list}", "QQQQ", {"not_in_list"}
    if column.allowed:
        yield "allowed values", "something else", {"not_allowed"}
    if column.pattern and not column.code_list:
        yield "pattern", "no such text", {"pattern"}
    if column.max_length and not column.code_list:
        long = "x" * 200 + "@" + "y" * 200 if column.pattern else "x" * (column.max_length + 1)
        yield "length", long, {"too_long"}
    if column.minimum is not None:
        yield "minimum", str(column.minimum - 1), {"too_small"}
    if column.maximum is not None:
        yield "maximum", str(column.maximum + 1), {"too_large"}


COLUMN_RULES = [
    pytest.param(contract, column.name, cell, codes, id=f"{contract.name} {column.name} {rule}")
    for contract in CONTRACTS.values()
    for column in contract.columns
    if column.derived_from is None  # no file has such a column
    for rule, cell, codes in planted_in(column)
]


def test_rules_are_found() -> None:
    """The contracts are there, each with a good row, and they have rules, checks and guards to plant defects for."""
    assert set(CONTRACTS) == set(GOOD) == set(KEYED) == set(OTHER)
    assert {contract.feed for contract in CONTRACTS.values()} == set(FEEDS)
    assert len(COLUMN_RULES) > 100
    assert len(GUARDS) >= 12
    assert sum(len(contract.checks) for contract in CONTRACTS.values()) >= 38


@pytest.mark.parametrize("name", GOOD)
def test_a_good_row_has_no_problem(tmp_path: Path, name: str) -> None:
    """What is spoiled below is good before."""
    path = write_csv(tmp_path / f"{name}_{DAY}.csv", [GOOD[name]])
    assert cast_table(read_table(path, CONTRACTS[name]), CONTRACTS[name]).problems.empty


@pytest.mark.parametrize(("contract", "column", "cell", "codes"), COLUMN_RULES)
def test_a_cell_that_breaks_a_rule_of_its_column_is_told(
    tmp_path: Path, contract: FeedContract, column: str, cell: str, codes: set[str]
) -> None:
    """The one spoiled cell is named with its rule, and no other cell is."""
    row = GOOD[contract.name] | {column: cell}
    path = write_csv(tmp_path / f"{contract.name}_{DAY}.csv", [row])
    problems = cast_table(read_table(path, contract), contract).problems
    assert set(problems["column_name"]) == {column}
    assert set(problems["code"]) <= codes, set(problems["code"])


@pytest.mark.parametrize(
    ("contract", "column"),
    [
        pytest.param(contract, column.name, id=f"{contract.name} {column.name}")
        for contract in CONTRACTS.values()
        for column in contract.columns
        if column.heading_required or (column.required and column.default is None and column.default_from is None)
    ],
)
def test_a_file_without_a_needed_column_is_refused(tmp_path: Path, contract: FeedContract, column: str) -> None:
    """The column that is not there is named."""
    row = {name: cell for name, cell in GOOD[contract.name].items() if name != column}
    path = write_csv(tmp_path / f"{contract.name}_{DAY}.csv", [row])
    with pytest.raises(FileRefused, match=f"required column {column} not found"):
        read_table(path, contract)


# --- checks -----------------------------------------------------------------------------------------------------------

BROKEN: dict[str, Row] = {
    "due_not_before_issue": {"due_date": "2026-01-01"},
    "issued_by_the_file_date": {"issue_date": "2026-03-20", "due_date": "2026-04-20"},
    "due_within_reason": {"due_date": "2029-01-15"},
    "open_not_more_than_amount": {"open_amount": "100.01"},
    "credit_note_not_owed": {"amount": "-100.00", "open_amount": "50.00"},
    "settled_by_the_file_date": {"settled_date": "2026-03-03"},
    "settled_not_before_issue": {"settled_date": "2026-01-02"},
    "something_came_in": {"amount": "-1.00"},
    "told_from_others": {"payment_number": "", "invoice_number": ""},
    "received_by_the_file_date": {"received_date": "2026-03-03"},
    "validity_runs_forward": {"valid_from": "2026-12-31", "valid_to": "2026-01-01"},
    "someone_to_write_to": {"first_name": "", "last_name": "", "email": ""},
    "price_needs_currency": {"currency": ""},
    "price_not_negative": {"promo_price": "-1.00"},
    "price_not_zero": {"promo_price": "0.00"},
    "price_ladder": {"dealer_price": "150.00"},
    "promotion_ends_after_it_begins": {"promo_from": "2026-03-10", "promo_to": "2026-03-09"},
    "validity_ends_after_it_begins": {"valid_from": "2026-03-10", "valid_to": "2026-03-09"},
    "min_quantity_positive": {"min_quantity": "0"},
    "pack_is_whole": {"pack_unit": ""},
    "content_is_whole": {"content_unit": ""},
    "stock_not_negative": {"stock": "-1"},
    "stock_counted_by_the_file_date": {"stock_on": "2026-03-20"},
    "gtin_check_digit": {"gtin": "4006381333932"},
    "rate_positive": {"rate": "0"},
    "two_currencies": {"quote": "EUR"},
}
# A check that another one implies breaks with it.
IMPLIED = {"issued_by_the_file_date": {"settled_not_before_issue"}}


def _with_each_check_broken(contract: FeedContract) -> list[tuple[RowCheck | None, Row]]:
    """A good row, and for each check of the contract one that breaks it; no two of one key."""
    found: list[tuple[RowCheck | None, Row]] = [(None, dict(GOOD[contract.name]))]
    for place, check in enumerate(contract.checks, start=2):
        row = GOOD[contract.name] | BROKEN[check.name]
        if contract.mode == "ledger" and "open_amount" in BROKEN[check.name]:
            row["settled_date"] = ""  # of a settled item nothing is open, whatever its file says
        column, value = KEYED[contract.name]
        row[column] = value.format(place)
        found.append((check, row))
    return found


@pytest.mark.parametrize("name", [name for name, contract in CONTRACTS.items() if contract.checks])
def test_a_row_that_breaks_a_check_is_told(kontor_settings: Settings, tmp_path: Path, name: str) -> None:
    """Each row waits with its check's name, or counts as warned, where the check only warns; the good row comes in."""
    contract, books = CONTRACTS[name], Books(kontor_settings)
    assert {check.name for check in contract.checks} <= set(BROKEN), "a check without a planted defect"
    rows = _with_each_check_broken(contract)
    books.customers(tmp_path, [f"C-{number}" for number in range(1, len(rows) + 2)])
    outcome = books.take_in(write_csv(tmp_path / f"{name}_{DAY}.csv", [row for _, row in rows]), name, DAY)
    told = {
        row["row_number"]: {reason["code"] for reason in row["reasons"]}
        for row in books.read("select row_number, reasons from landing.quarantined_rows")
    }
    wanted = {
        number: {check.name} | IMPLIED.get(check.name, set()) & set(told.get(number, ()))
        for number, (check, _) in enumerate(rows, start=2)
        if check is not None and check.severity == "error"
    }
    assert told == wanted
    assert outcome.warned == sum(check is not None and check.severity == "warn" for check, _ in rows)


# A column outside the key in which two rows of one key may differ.
OTHER = {
    "open_items": "note",
    "settled_items": "note",
    "payments": "note",
    "organizations": "segment",
    "contacts": "phone",
    "catalog": "description",
    "catalog_delta": "description",
    "currency_rates": "rate",
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_two_rows_of_one_key_are_told(kontor_settings: Settings, tmp_path: Path, name: str) -> None:
    """Two rows that claim one key and differ wait both: no contract of Kontor's own takes one for right."""
    contract, books = CONTRACTS[name], Books(kontor_settings)
    books.customers(tmp_path, ["C-1"])
    rows = [GOOD[name], GOOD[name] | {OTHER[name]: "2"}]
    books.take_in(write_csv(tmp_path / f"{name}_{DAY}.csv", rows), name, DAY)
    told = books.read("select reasons -> 0 ->> 'code' as code from landing.quarantined_rows")
    assert contract.duplicate_rows in ("quarantine", "identical")
    assert [row["code"] for row in told] == ["duplicate_key"] * 2


# --- guards -----------------------------------------------------------------------------------------------------------


def _row(number: int) -> Row:
    """An item of the ledger that is spoiled: every amount and date its own."""
    issued = DAY - timedelta(days=3 + number % 25)
    amount = Decimal(100 + 7 * number)
    return {
        "customer_number": f"00{1 + number % 3}",
        "invoice_number": f"0{1000 + number}",
        "issue_date": issued,
        "due_date": issued + timedelta(days=30),
        "currency": "EUR",
        "amount": amount,
        "open_amount": amount,
    }


WEEK = [_row(number) for number in range(40)]
NEXT = DAY + timedelta(weeks=1)


def _swapped(day: date) -> date:
    return day.replace(month=day.day, day=day.month) if day.day <= 12 else day


def _scaled(rows: Sequence[Row]) -> list[Row]:
    return [row | {name: row[name] * Decimal("0.7") for name in ("amount", "open_amount")} for row in rows]


def _moved(rows: Sequence[Row]) -> list[Row]:
    return [row | {"open_amount": row["open_amount"] - place - 1} for place, row in enumerate(rows)]


def _swap(rows: Sequence[Row]) -> list[Row]:
    return [row | {name: _swapped(row[name]) for name in ("issue_date", "due_date")} for row in rows]


def _thrice(rows: Sequence[Row]) -> list[Row]:
    small = {"amount": Decimal("0.01"), "open_amount": Decimal("0.01")}
    more = [row | small | {"invoice_number": f"N{n}{row['invoice_number']}"} for n in range(3) for row in rows]
    return [*rows, *more]


def _huge(rows: Sequence[Row]) -> list[Row]:
    huge = Decimal(10) ** 6
    return [*rows, rows[0] | {"invoice_number": "HUGE", "amount": huge, "open_amount": huge}]


def _stripped(rows: Sequence[Row]) -> list[Row]:
    return [row | {name: row[name].lstrip("0") for name in ("customer_number", "invoice_number")} for row in rows]


@dataclass(frozen=True)
class Spoiled:
    """A file that its guard must refuse: its rows made of good ones, its day, and what its totals row is off by."""

    rows: Callable[[Sequence[Row]], list[Row]] = list
    day: date = NEXT
    off: int = 0
    between: Callable[[Sequence[Row]], list[Row]] | None = None  # a list that comes before it


SPOILED = {
    "same_content": Spoiled(),
    "age": Spoiled(rows=lambda rows: [*rows[1:]], day=DAY + timedelta(days=60)),
    "vanished_share": Spoiled(rows=lambda rows: [*rows[-16:]]),
    "row_count": Spoiled(rows=_thrice),
    "currency_sums": Spoiled(rows=_huge),
    "amounts_scaled": Spoiled(rows=_scaled),
    "amounts_moved": Spoiled(rows=_moved),
    "dates_swapped": Spoiled(rows=_swap),
    "dates_moved": Spoiled(rows=lambda rows: [row | {"due_date": row["due_date"] + timedelta(days=1)} for row in rows]),
    "reappearing": Spoiled(
        rows=lambda rows: [*rows, _row(41)], day=NEXT + timedelta(weeks=1), between=lambda rows: [*rows[10:]]
    ),
    "leading_zeros": Spoiled(rows=_stripped),
    "totals_row": Spoiled(rows=lambda rows: [*rows[1:]], off=1),
}


def _send(books: Books, folder: Path, rows: Sequence[Row], day: date, off: int = 0) -> FileOutcome:
    total = sum((row["open_amount"] for row in rows), Decimal(off))
    last = dict.fromkeys(rows[0], "") | {"customer_number": "Total", "open_amount": total}
    return books.take_in(write_csv(folder / "open_items.csv", [*rows, last]), "open_items", day)


@pytest.mark.parametrize("guard", LIST_GUARDS)
def test_a_file_with_a_guards_defect_is_refused_by_it_alone(
    kontor_settings: Settings, tmp_path: Path, guard: str
) -> None:
    """With the defect the list is refused by this guard alone and nothing of it is kept; without it, it is taken."""
    spoiled, books = SPOILED[guard], Books(kontor_settings)
    books.customers(tmp_path, ["001", "002", "003"])
    assert _send(books, tmp_path, WEEK, DAY).state == "applied"
    if spoiled.between is not None:
        assert _send(books, tmp_path, spoiled.between(WEEK), NEXT).state == "applied"
    before = books.state()
    outcome = _send(books, tmp_path, spoiled.rows(WEEK), spoiled.day, spoiled.off)
    assert (outcome.state, {reason.split(":")[0] for reason in outcome.reasons}) == ("refused", {guard})
    assert books.state() == before
    good = WEEK[11:] if spoiled.between else [*WEEK[1:], _row(40)]
    assert _send(books, tmp_path, good, NEXT + timedelta(days=3)).state == "applied"
