"""Rows of data told from blank rows and totals rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
from babel.dates import get_month_names

from tasks.feeds.cells import BLANKS, shown, storable
from tasks.feeds.code_lists import spellings_of
from tasks.feeds.contracts import FeedContract
from tasks.feeds.dates import LANGUAGES
from tasks.feeds.folding import fold, fold_words
from tasks.feeds.grids import Body
from tasks.feeds.raw_table import TotalsRow

_FIGURES = frozenset({"money", "quantity", "rate", "integer"})
_MONEY_WORDS = frozenset({"kr", "zl", "лв", "лева"})  # as they look once folded


def sift(
    body: Body, positions: Mapping[str, int], headings: Sequence[str], contract: FeedContract
) -> tuple[pa.Array | None, tuple[TotalsRow, ...], int]:
    """Return which rows are rows of data (None = all), the totals rows, and how many rows are blank.

    Only rows in which nearly all identifying cells are blank can be either, so only those are looked at one by one.
    """
    identifying = [positions[name] for name in _identifying(contract) if name in positions] or list(positions.values())
    money = [
        positions[column.name] for column in contract.columns if column.kind == "money" and column.name in positions
    ]
    # Where one column alone identifies a row, the marker stands in it; a row with any other text is a record.
    figures = {
        positions[column.name]
        for column in contract.columns
        if column.name in positions and (column.kind in _FIGURES or column.code_list == "iso4217")
    }
    drop: list[int] = []
    totals: list[TotalsRow] = []
    for index in _suspects(body, identifying, contract.dialect.totals):
        cells = [column[index].as_py() for column in body.columns]
        filled = [at for at, cell in enumerate(cells) if shown(cell).strip(BLANKS)]
        number = body.row_numbers[index].as_py()
        if not filled and number not in body.ragged:
            drop.append(index)
        elif (
            filled
            and _is_totals(cells, filled, identifying, money, contract.dialect.totals)
            and (len(identifying) > 1 or set(filled[1:]) <= figures)
        ):
            drop.append(index)
            names = {at: name for name, at in positions.items()}
            totals.append(TotalsRow(number, {names.get(at, headings[at]): storable(cells[at]) for at in filled}))
    if not drop:
        return None, (), 0
    size = len(body.row_numbers)
    dropped = pc.is_in(pa.array(range(size), pa.int64()), value_set=pa.array(drop, pa.int64()))
    return pc.invert(dropped), tuple(totals), len(drop) - len(totals)


def totals_indexes(
    body: Body, positions: Mapping[str, int], headings: Sequence[str], contract: FeedContract
) -> list[int]:
    """Return the indexes of the rows of the body that are totals."""
    _, totals, _ = sift(body, positions, headings, contract)
    numbers = {row.row_number for row in totals}
    return [at for at, number in enumerate(body.row_numbers.to_pylist()) if number in numbers] if numbers else []


def _identifying(contract: FeedContract) -> list[str]:
    """Return the columns without which a row means nothing: the key and what else is required.

    Money and its currency are left out: a totals row has them too.
    """
    needed = [
        column.name
        for column in contract.columns
        if column.required and column.kind != "money" and column.code_list != "iso4217"
    ]
    return list(dict.fromkeys((*contract.key, *needed)))


def _suspects(body: Body, identifying: Sequence[int], markers: Sequence[str]) -> list[int]:
    """Return the indexes of rows in which at most one identifying cell is filled.

    Of rows that one cell identifies, only those are meant in which it is blank or begins with a totals marker.
    """
    if not len(body.row_numbers):
        return []
    first = [_is_blank(body.columns[at]) for at in identifying[:2]]
    either = pc.or_(first[0], first[1] if len(first) > 1 else _begins_with(body.columns[identifying[0]], markers))
    indexes = pc.indices_nonzero(either)
    filled = pa.array([0] * len(indexes), pa.int64())
    for at in identifying:
        blank = _is_blank(body.columns[at].take(indexes))
        filled = pc.add(filled, pc.invert(blank).cast(pa.int64()))
    chosen: list[int] = indexes.filter(pc.less_equal(filled, 1)).to_pylist()
    return chosen


def _begins_with(cells: pa.Array, markers: Sequence[str]) -> pa.Array:
    """Whether each cell begins with one of the markers, whatever its capitals; a first, generous look."""
    words = "|".join(re.escape(marker) for marker in markers) or "$."
    return pc.match_substring_regex(cells, rf"^\W*(?:{words})", ignore_case=True)


def _is_blank(cells: pa.Array) -> pa.Array:
    return pc.equal(pc.utf8_trim(cells, BLANKS), "")


def _is_totals(
    cells: Sequence[str],
    filled: Sequence[int],
    identifying: Sequence[int],
    money: Sequence[int],
    markers: Sequence[str],
) -> bool:
    """Return whether the first filled cell is a totals marker, no other identifying one is filled, but money is.

    A marker that stands alone in its row counts too: it has no content that could be lost. Where the contract has no
    money there are no totals, and a customer called Total is a customer.
    """
    if not money or any(at in identifying for at in filled[1:]):
        return False
    if len(filled) > 1 and not any(at in money for at in filled[1:]):
        return False
    words = fold_words(shown(cells[filled[0]]))
    known = [marker for marker in map(fold_words, markers) if words == marker or words.startswith(f"{marker} ")]
    return any(_says_no_name(words.removeprefix(marker).split(), alone=len(filled) == 1) for marker in known)


def _says_no_name(words: Sequence[str], *, alone: bool) -> bool:
    """Return whether the words behind a marker are numbers, dates or currencies: Total EUR, not Total Energies.

    In a row that has nothing else, no word may stand behind it.
    """
    return not words or (not alone and all(word.isdigit() or word in _words_of_sums() for word in words))


@lru_cache(maxsize=1)
def _words_of_sums() -> frozenset[str]:
    """Return the currencies and months, folded, that may stand behind a totals marker."""
    months = {
        fold(name)
        for language in LANGUAGES
        for width in ("wide", "abbreviated")
        for context in ("format", "stand-alone")
        for name in get_month_names(width, context, language).values()
    }
    return frozenset(spellings_of("iso4217")) | months | _MONEY_WORDS
