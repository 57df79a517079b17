"""Cells as text that still knows what it was.

A text file has text only; a workbook also has numbers, dates, truth values and errors. Both are carried as text
columns, and a typed cell is marked by one control character in front, so that the number 1.234 is never read by the
rules for the text "1.234". A text that by chance begins with such a character gets ``TEXT`` in front and so stays
itself.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

NUMBER = "\x01"
DATE = "\x02"
BOOLEAN = "\x03"
ERROR = "\x04"
TEXT = "\x05"
TAGS = NUMBER + DATE + BOOLEAN + ERROR + TEXT
STARTS_WITH_TAG = "^[\x01-\x05]"
BLANKS = " \t\r\n\v\f\u0085\u00a0\u1680\u2007\u2009\u200a\u200b\u200e\u200f\u2028\u2029\u202f\u205f\u3000\ufeff"

NO_CACHED_VALUE = "formula without a stored result"
ERROR_TEXTS = frozenset(
    {"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#GETTING_DATA", "#SPILL!", "#CALC!"}
)

NUL = "\0"  # a workbook can escape it (_x0000_) into a text; no database text can hold it
NUL_SHOWN = "\ufffd"
NO_NUMBER = "#NUM!"  # what a spreadsheet shows for a number that is none; some writers store it as nan or inf

_SIGNIFICANT_DIGITS = 15  # what a spreadsheet shows and keeps; the digits after that are noise of binary fractions
LOST_DIGITS = rf"^{NUMBER}-?[0-9]{{{_SIGNIFICANT_DIGITS + 1},}}"  # a stored number that can only be meant as a code


def shown(cell: str | None) -> str:
    """Return what a person sees in the cell: its text without the mark in front."""
    if not cell:
        return ""
    return cell[1:] if cell[0] in TAGS else cell


def shown_array(cells: pa.Array) -> pa.Array:
    """Return the cells as a person sees them, as text."""
    return pc.replace_substring_regex(cells, STARTS_WITH_TAG, "")


def storable(text: str) -> str:
    """Return the text with every NUL replaced by the sign for a character that is none, so that it can be kept."""
    return text.replace(NUL, NUL_SHOWN)


def letter(ordinal: int) -> str:
    """Return the spreadsheet letter of a column, 1 = A, 27 = AA."""
    letters = ""
    while ordinal > 0:
        ordinal, rest = divmod(ordinal - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def number_text(value: float) -> str:
    """Return a stored number as plain decimal text with at most 15 significant digits: 0.1 + 0.2 is "0.3"."""
    text = f"{value:.{_SIGNIFICANT_DIGITS}g}"
    if "e" in text:
        text = f"{float(text):f}" if abs(value) >= 1 else f"{float(text):.20f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def tagged(value: object) -> str:
    """Return one workbook cell as marked text; blanks are the empty text."""
    if isinstance(value, str):
        return TEXT + value if value[:1] and value[0] in TAGS else value
    if isinstance(value, bool):
        return BOOLEAN + ("TRUE" if value else "FALSE")
    if isinstance(value, int):
        return NUMBER + str(value)
    if isinstance(value, float):
        return NUMBER + number_text(value) if math.isfinite(value) else ERROR + NO_NUMBER
    if isinstance(value, dt.datetime):
        return DATE + (value.date().isoformat() if value.time() == dt.time(0) else value.isoformat(sep=" "))
    return "" if value is None else DATE + str(value)


def tagged_array(values: Sequence[object]) -> pa.Array:
    """Return a whole column of workbook cells as marked text; quick where the column is of one type."""
    kinds = set(map(type, values))
    if kinds <= {str}:
        return protect(pa.array(values, pa.string()))
    if kinds <= {float}:
        numbers = pa.array(values, pa.float64())
        if pc.all(pc.is_finite(numbers)).as_py() is not False:
            return _numbers(numbers)
    if kinds <= {dt.date}:
        return pc.binary_join_element_wise(DATE, pa.array(values, pa.date32()).cast(pa.string()), "")
    return pa.array(_mixed(values), pa.string())


def protect(cells: pa.Array) -> pa.Array:
    """Return text cells so that none can be taken for a typed one."""
    clash = pc.match_substring_regex(cells, STARTS_WITH_TAG)
    if not pc.any(clash).as_py():
        return cells
    return pc.if_else(clash, pc.binary_join_element_wise(TEXT, cells, ""), cells)


def _numbers(values: pa.Array) -> pa.Array:
    text = values.cast(pa.string())
    # Up to 15 digits the shortest text is already what is shown; longer ones and exponents need a second look.
    odd = pc.or_(pc.greater(pc.binary_length(text), _SIGNIFICANT_DIGITS), pc.match_substring(text, "e"))
    if pc.any(odd).as_py():
        repaired = pa.array([number_text(value) for value in values.filter(odd).to_pylist()], pa.string())
        text = pc.replace_with_mask(text, odd, repaired)
    return pc.binary_join_element_wise(NUMBER, text, "")


def _mixed(values: Iterable[object]) -> list[str]:
    known: dict[object, str] = {}
    result = []
    for value in values:
        key = (type(value), value)  # 1, 1.0 and True are equal and must not share an entry
        text = known.get(key)
        if text is None:
            text = known[key] = tagged(value)
        result.append(text)
    return result
