"""Text cells to typed columns: a value or a reason for every cell, vectorised, money exact.

How credit notes are kept: ``document_type`` is ``credit_note`` and ``amount`` and ``open_amount`` are negative. A
credit note that is given with positive amounts is turned; an invoice with a negative amount becomes a credit note
unless the contract says ``negativeIsCreditNote: false``.

What is open: the remainder the file gives, else amount minus ``paid_amount``, else the amount. In a ledger
(``mode: ledger``) a settled row's ``open_amount`` is its amount: that is what was open until it was settled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.feeds.cells import BLANKS, DATE, ERROR, LOST_DIGITS, NUL, NUL_SHOWN, NUMBER, shown, shown_array
from tasks.feeds.code_lists import codes_of
from tasks.feeds.contracts import ABOVE, Column, Dialect, FeedContract
from tasks.feeds.raw_table import RawTable, TotalsRow
from tasks.feeds.shaping import compose, derive, fill_down, pad_gtin
from tasks.feeds.values import (
    MONEY_DIGITS,
    MONEY_SCALE,
    RATE_DIGITS,
    RATE_SCALE,
    Failure,
    constant_value,
    currencies_named,
    parser_for,
)

MONEY_TYPE = pa.decimal128(MONEY_DIGITS, MONEY_SCALE)
ARROW_TYPES: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "code": pa.string(),
    "date": pa.date32(),
    "money": MONEY_TYPE,
    "quantity": MONEY_TYPE,
    "rate": pa.decimal128(RATE_DIGITS, RATE_SCALE),
    "integer": pa.int32(),
    "boolean": pa.bool_(),
}
PROBLEM_SCHEMA = pa.schema(
    [
        ("row_number", pa.int32()),
        ("column_name", pa.string()),
        ("cell", pa.string()),
        ("raw_value", pa.string()),
        ("code", pa.string()),
        ("reason", pa.string()),
    ]
)

# What needs no second look. With "auto", three digits after the mark could be thousands, so they get one.
_QUICK_NUMBER = rf"^{NUMBER}-?[0-9]+(?:\.[0-9]{{1,4}})?$"
_QUICK_TEXT = {
    "auto": r"^-?[0-9]+(?:\.[0-9]{1,2})?$",
    ".": r"^-?[0-9]+(?:\.[0-9]{1,4})?$",
    ",": r"^-?[0-9]+(?:,[0-9]{1,4})?$",
}
_WORDS = "^[\x01\x03\x05]"  # numbers, truth values and protected text are shown as they are in a column of words


@dataclass(frozen=True)
class CastTable:
    """The typed rows of a file and every cell that could not be typed.

    ``frame``: one Arrow-backed column per column of the contract, in its order (money decimal128 with 4 decimals,
    dates date32), then ``row_number``; a cell with a problem is null. ``problems``: row_number, column_name, cell
    (address), raw_value, code, reason; a row that stands there must not be applied.
    """

    frame: pd.DataFrame
    problems: pd.DataFrame


@dataclass(frozen=True)
class _Cast:
    """One column while it is worked on: values, and which cells hold a problem already."""

    values: pa.Array
    failed: pa.Array
    in_file: bool


def cast_table(raw: RawTable, contract: FeedContract) -> CastTable:
    """Return the rows typed by the contract, with a reason for every cell that gives no value."""
    problems: list[pa.Table] = [_ragged_problems(raw)]
    numbers = _array(raw.frame["row_number"])
    cast = {column.name: _cast_column(raw, column, contract.dialect, numbers, problems) for column in contract.columns}
    cast = _shape(_fill(_fill_down(cast, contract), contract), contract)
    problems += _missing(raw, contract, cast, numbers)
    problems += _contradicted(raw, contract, cast, numbers)
    arrays = _signed({name: item.values for name, item in cast.items()}, contract)
    table = pa.table({**{name: arrays[name] for name in contract.column_names}, "row_number": numbers})
    found = pa.concat_tables(problems)
    if raw.ragged:  # one reason is enough for a row whose cells cannot be told apart
        ragged = pc.is_in(found["row_number"], value_set=pa.array(list(raw.ragged), pa.int32()))
        found = found.filter(pc.or_(pc.invert(ragged), pc.equal(found["code"], "ragged")))
    found = found.sort_by([("row_number", "ascending"), ("column_name", "ascending")])
    return CastTable(table.to_pandas(types_mapper=pd.ArrowDtype), found.to_pandas(types_mapper=pd.ArrowDtype))


@dataclass(frozen=True)
class ControlTotal:
    """What one totals row says: the sum of each money column, in ``currency`` or, where it is None, in all of them."""

    row_number: int
    currency: str | None
    amounts: Mapping[str, Decimal]


def control_totals(raw: RawTable, contract: FeedContract) -> list[ControlTotal]:
    """Return the file's totals rows that can be read, in their order; amounts that cannot be read are left out.

    A row speaks of the currency in its currency cell or, failing that, beside its marker (``Total EUR``). A subtotal
    and a grand total look alike; where several rows speak of one currency the last is the file's.
    """
    found: dict[str | None, ControlTotal] = {}
    for row in raw.totals:
        amounts = dict(_amounts_of(row, contract))
        if amounts:
            currency = currency_of_totals(row.cells, contract)
            found[currency] = ControlTotal(row.row_number, currency, amounts)
    return list(found.values())


def _amounts_of(row: TotalsRow, contract: FeedContract) -> Iterator[tuple[str, Decimal]]:
    for column in contract.columns:
        if column.kind == "money" and column.name in row.cells:
            value = parser_for(column, contract.dialect)(row.cells[column.name])
            if isinstance(value, Decimal):
                yield column.name, value


def currency_of_totals(cells: Mapping[str, str], contract: FeedContract) -> str | None:
    """Return the currency that a totals row names, in its currency cell or beside its marker; None if it names none."""
    for column in contract.columns:
        if column.code_list != "iso4217":
            continue
        cell = shown(cells.get(column.name, "")).strip().upper()
        words = [word for text in cells.values() for word in shown(text).split()]
        codes = [word for word in (cell, *words) if word in codes_of("iso4217")]
        return codes[0] if codes else None
    return None


def _contradicted(
    raw: RawTable, contract: FeedContract, cast: Mapping[str, _Cast], numbers: pa.Array
) -> Iterator[pa.Table]:
    """Yield a problem for every amount that is written in another currency than the row's: one of the two is wrong."""
    if "currency" not in cast:
        return
    currencies = cast["currency"].values
    for column in contract.columns:
        if column.kind != "money" or column.name not in raw.columns or column.constant is not None:
            continue
        cells = shown_array(_array(raw.frame[column.name]))
        marked = pc.fill_null(pc.match_substring_regex(cells, r"[^0-9.,'’\s()+\-\x{00a0}\x{202f}]"), False)
        marked = pc.and_(marked, pc.invert(cast[column.name].failed))
        if not pc.any(marked).as_py():
            continue
        written, meant = cells.filter(marked), currencies.filter(marked)
        pairs = pc.binary_join_element_wise(written, pc.fill_null(meant, ""), "\x1f").dictionary_encode()
        told = [_other_currency(*pair.rsplit("\x1f", 1)) for pair in pairs.dictionary.to_pylist()]
        reasons = pa.array(told, pa.string()).take(pairs.indices)
        bad = reasons.is_valid()
        if pc.any(bad).as_py():
            codes = pa.repeat(pa.scalar("other_currency"), pc.sum(bad).as_py())
            rows = numbers.filter(marked).filter(bad)
            yield _problems(raw, column.name, rows, written.filter(bad), codes, reasons.filter(bad))


def _other_currency(written: str, currency: str) -> str | None:
    """The words of the problem where an amount names currencies of which the row's is none; None where it may be."""
    named = currencies_named(written)
    if not currency or not named or currency in named:
        return None
    return f"is written in {' or '.join(named)}, but the row's currency is {currency}"


def _array(series: pd.Series[Any]) -> pa.Array:
    found = pa.array(series)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _constant(value: object, kind: str, size: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, ARROW_TYPES[kind]), size)


def _none_failed(size: int) -> pa.Array:
    return pa.repeat(pa.scalar(False), size)


def _cast_column(raw: RawTable, column: Column, dialect: Dialect, numbers: pa.Array, problems: list[pa.Table]) -> _Cast:
    size = len(numbers)
    fixed = column.constant if column.constant is not None else None
    if fixed is not None:
        return _Cast(_constant(constant_value(fixed, column, dialect), column.kind, size), _none_failed(size), False)
    if column.name not in raw.columns:
        return _Cast(_constant(None, column.kind, size), _none_failed(size), False)
    cells = _array(raw.frame[column.name])
    values, done = _quick(cells, column, dialect, marked=raw.marked)
    if pc.all(done).as_py() is not False:
        return _Cast(values, _none_failed(size), True)
    return _slow(cells, values, done, raw, column, dialect, numbers, problems)


def _quick(cells: pa.Array, column: Column, dialect: Dialect, *, marked: bool) -> tuple[pa.Array, pa.Array]:
    """Return what the vectorised rules can say, and for which cells they have decided."""
    if column.kind in ("money", "quantity"):
        return _quick_money(cells, dialect, marked=marked)
    if column.kind in ("text", "code") and not (
        column.values or column.code_list or column.separators or column.allowed
    ):
        return _quick_words(cells, column, marked=marked)
    # Dates, codes of a list and truth values repeat, so parsing each distinct text once is quick enough.
    return pa.nulls(len(cells), ARROW_TYPES[column.kind]), _none_failed(len(cells))


def _quick_money(cells: pa.Array, dialect: Dialect, *, marked: bool) -> tuple[pa.Array, pa.Array]:
    plain = pc.match_substring_regex(cells, _QUICK_TEXT[dialect.decimal])
    if marked:
        plain = pc.or_(plain, pc.match_substring_regex(cells, _QUICK_NUMBER))
    plain = pc.and_(plain, pc.less_equal(pc.binary_length(cells), MONEY_DIGITS - MONEY_SCALE))
    text = pc.if_else(plain, cells, pa.scalar(None, pa.string()))
    if marked:
        text = pc.replace_substring(text, NUMBER, "")
    if dialect.decimal == ",":
        text = pc.replace_substring(text, ",", ".")
    return text.cast(MONEY_TYPE), pc.or_(plain, pc.equal(cells, ""))


def _quick_words(cells: pa.Array, column: Column, *, marked: bool) -> tuple[pa.Array, pa.Array]:
    text = cells
    if marked:
        text = pc.replace_substring_regex(cells, _WORDS, "")
    text = pc.utf8_trim(text, BLANKS)
    if column.integral_float == "strip":
        text = pc.replace_substring_regex(text, r"^(-?\d+)\.0+$", r"\1")
    odd = pc.starts_with(text, "#")  # perhaps an error; those and dates in a code are judged one by one
    if marked:
        odd = pc.or_(odd, pc.match_substring_regex(text, f"^[{DATE}{ERROR}]"))
        if column.kind == "code":
            odd = pc.or_(odd, pc.match_substring_regex(cells, LOST_DIGITS))
    odd = pc.or_(odd, pc.match_substring(cells, NUL))
    if column.pattern:
        odd = pc.or_(odd, pc.invert(pc.match_substring_regex(text, column.pattern)))
    if column.max_length:
        odd = pc.or_(odd, pc.greater(pc.utf8_length(text), column.max_length))
    if column.case is not None:
        text = pc.utf8_upper(text) if column.case == "upper" else pc.utf8_lower(text)
    blank = pc.equal(text, "")
    return pc.if_else(pc.or_(blank, odd), pa.scalar(None, pa.string()), text), pc.or_(blank, pc.invert(odd))


def _slow(
    cells: pa.Array,
    values: pa.Array,
    done: pa.Array,
    raw: RawTable,
    column: Column,
    dialect: Dialect,
    numbers: pa.Array,
    problems: list[pa.Table],
) -> _Cast:
    """Return the column with what was left over parsed once per distinct text."""
    rest = pc.invert(done)
    all_left = not pc.any(done).as_py()
    distinct = (cells if all_left else cells.filter(rest)).dictionary_encode()
    parse = parser_for(column, dialect)
    parsed = [parse(text) for text in distinct.dictionary.to_pylist()]
    good = pa.array([None if isinstance(item, Failure) else item for item in parsed], ARROW_TYPES[column.kind])
    good = good.take(distinct.indices)
    bad = pa.array([isinstance(item, Failure) for item in parsed], pa.bool_()).take(distinct.indices)
    values = good if all_left else pc.replace_with_mask(values, rest, good)
    failed = bad if all_left else pc.replace_with_mask(_none_failed(len(cells)), rest, bad)
    if pc.any(bad).as_py():
        which = distinct.indices.filter(bad)
        codes = pa.array([item.code if isinstance(item, Failure) else None for item in parsed], pa.string())
        reasons = pa.array([item.reason if isinstance(item, Failure) else None for item in parsed], pa.string())
        shown = pc.replace_substring(shown_array(cells.filter(failed)), NUL, NUL_SHOWN)
        problems.append(
            _problems(raw, column.name, numbers.filter(failed), shown, codes.take(which), reasons.take(which))
        )
    return _Cast(values, failed, True)


def _problems(
    raw: RawTable, name: str, numbers: pa.Array, shown: pa.Array, codes: pa.Array, reasons: pa.Array
) -> pa.Table:
    names = pa.repeat(pa.scalar(name, pa.string()), len(numbers))
    if raw.sections:
        cells = pa.array([raw.cell(name, number) for number in numbers.to_pylist()], pa.string())
    else:
        cells = pc.binary_join_element_wise(raw.letters.get(name, "row "), numbers.cast(pa.string()), "")
    reasons = pc.binary_join_element_wise(name, reasons, " ")
    return pa.table([numbers, names, cells, shown, codes, reasons], schema=PROBLEM_SCHEMA)


def _ragged_problems(raw: RawTable) -> pa.Table:
    rows = [
        {
            "row_number": number,
            "column_name": None,
            "cell": f"row {number}",
            "raw_value": None,
            "code": "ragged",
            "reason": f"the row has {len(row.cells)} cells, the header has {row.expected}",
        }
        for number, row in sorted(raw.ragged.items())
    ]
    return pa.Table.from_pylist(rows, schema=PROBLEM_SCHEMA)


def _fill(cast: dict[str, _Cast], contract: FeedContract) -> dict[str, _Cast]:
    """Return the columns with what is open worked out and with blanks filled from other columns and from defaults."""
    filled = dict(cast)
    if "paid_amount" in filled and filled["paid_amount"].in_file:
        remainder = pc.subtract(filled["amount"].values, filled["paid_amount"].values).cast(MONEY_TYPE)
        filled["open_amount"] = _blanks_from(filled["open_amount"], remainder, filled["paid_amount"].failed)
    for column in contract.columns:
        if column.default_from is not None:
            donor = cast[column.default_from]
            filled[column.name] = _blanks_from(filled[column.name], donor.values, donor.failed)
        if column.default is not None:
            value = constant_value(column.default, column, contract.dialect)
            constant = _constant(value, column.kind, len(filled[column.name].values))
            filled[column.name] = _blanks_from(filled[column.name], constant, None)
    if contract.mode == "ledger" and {"settled_date", "open_amount", "amount"} <= set(filled):
        settled = pc.is_valid(filled["settled_date"].values)
        item, amount = filled["open_amount"], filled["amount"]
        values = pc.if_else(settled, amount.values, item.values)
        # An amount that cannot be read is one problem, not two.
        failed = pc.or_(item.failed, pc.and_(settled, amount.failed))
        filled["open_amount"] = _Cast(values, failed, item.in_file)
    return filled


def _fill_down(cast: dict[str, _Cast], contract: FeedContract) -> dict[str, _Cast]:
    """Return the columns with blanks below a parent row filled from it, as far as the contract says so."""
    filled = dict(cast)
    for column in contract.columns:
        if column.fill_down is not None and column.fill_down != ABOVE:  # the latter was done with the rows' shape
            item = cast[column.name]
            values = fill_down(item.values, cast[column.fill_down].values)
            filled[column.name] = _Cast(pc.if_else(item.failed, item.values, values), item.failed, item.in_file)
    return filled


def _shape(cast: dict[str, _Cast], contract: FeedContract) -> dict[str, _Cast]:
    """Return the columns with those that are put together from others, and those that others are compared by."""
    shaped = dict(cast)
    for column in contract.columns:
        item = shaped[column.name]
        if column.cell_format == "gtin":
            shaped[column.name] = item = _Cast(pad_gtin(item.values), item.failed, item.in_file)
        if column.composed_of:
            parts = [shaped[part] for part in column.composed_of]
            joined = compose([part.values for part in parts], column.joiner)
            shaped[column.name] = _blanks_from(item, joined, None)
    for column in contract.columns:
        if column.derived_from is not None:
            donor = shaped[column.derived_from]
            shaped[column.name] = _Cast(derive(donor.values, column.ignore), donor.failed, donor.in_file)
    return shaped


def _blanks_from(item: _Cast, donor: pa.Array, donor_failed: pa.Array | None) -> _Cast:
    """Return the column with its blanks filled; a cell with a problem, or one whose donor has one, is not a blank."""
    takes = pc.and_(pc.is_null(item.values), pc.invert(item.failed))
    failed = item.failed
    if donor_failed is not None:
        failed = pc.or_(failed, pc.and_(takes, donor_failed))
    return _Cast(pc.if_else(takes, donor, item.values), failed, item.in_file)


def _missing(raw: RawTable, contract: FeedContract, cast: Mapping[str, _Cast], numbers: pa.Array) -> list[pa.Table]:
    """Return a problem for every required cell that is still blank, and for blanks that may hide an error."""
    found = []
    for column in contract.columns:
        item = cast[column.name]
        if item.in_file and column.default_from is not None and not raw.tells_errors:
            gone = pc.equal(_array(raw.frame[column.name]), "")
            reason = "is blank or holds an error; this file format does not tell, so nothing is put in its place"
            found.append(_blank_problems(raw, column, numbers.filter(gone), "blank_or_error", reason))
        if column.required:
            gone = pc.and_(pc.is_null(item.values), pc.invert(item.failed))
            found.append(_blank_problems(raw, column, numbers.filter(gone), "missing", "is required and blank"))
    return found


def _blank_problems(raw: RawTable, column: Column, numbers: pa.Array, code: str, reason: str) -> pa.Table:
    size = len(numbers)
    blank = pa.repeat(pa.scalar(None, pa.string()), size)
    codes, reasons = pa.repeat(pa.scalar(code), size), pa.repeat(pa.scalar(reason), size)
    return _problems(raw, column.name, numbers, blank, codes, reasons)


def _signed(arrays: dict[str, pa.Array], contract: FeedContract) -> dict[str, pa.Array]:
    """Return the columns with credit notes negative, and negative invoices as credit notes if the contract says so."""
    if not {"document_type", "amount", "open_amount"} <= set(arrays):
        return arrays
    types, amount = arrays["document_type"], arrays["amount"]
    given = pc.fill_null(pc.equal(types, "credit_note"), False)
    for name in ("amount", "open_amount"):
        turn = pc.and_(given, pc.fill_null(pc.greater(arrays[name], Decimal(0)), False))
        if pc.any(turn).as_py():
            arrays[name] = pc.if_else(turn, pc.negate(arrays[name]), arrays[name])
    negative = pc.fill_null(pc.less(amount, Decimal(0)), False)
    if contract.negative_is_credit_note and pc.any(negative).as_py():
        arrays["document_type"] = pc.if_else(negative, pa.scalar("credit_note"), types)
    return arrays
