"""Columns that follow from other columns: filled from a parent row, put together, or made comparable. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

# What people put between the parts of a number and what means the same without it.
_IGNORED = {
    "spaces": r"[\s\x{00A0}\x{2007}\x{2009}\x{202F}]+",
    "dashes": r"[-\x{2010}-\x{2015}\x{2212}_/]+",
    "dots": r"[.]+",
}


def derive(values: pa.Array, ignore: Sequence[str]) -> pa.Array:
    """Return the texts as they are compared: ``AB-12 c`` is ``AB12C`` without case, spaces and dashes.

    A text of which nothing would be left stays as it is, in capitals where case does not matter.
    """
    found = pc.utf8_upper(values) if "case" in ignore else values
    whole = found
    for name, pattern in _IGNORED.items():
        if name in ignore:
            found = pc.replace_substring_regex(found, pattern, "")
    if "leading_zeros" in ignore:
        found = pc.replace_substring_regex(found, "^0+", "")
    return pc.if_else(pc.equal(found, ""), whole, found)


def compose(parts: Sequence[pa.Array], joiner: str) -> pa.Array:
    """Return the parts that are not blank, joined; null where all are blank."""
    texts = [part.cast(pa.string()) for part in parts]
    filled = [pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text) for text in texts]
    some = pc.is_valid(filled[0])
    for text in filled[1:]:
        some = pc.or_(some, pc.is_valid(text))
    # A row without any part would be left out of the result, so it gets an empty one.
    filled[0] = pc.if_else(some, filled[0], "")
    joined = pc.binary_join_element_wise(*filled, joiner, null_handling="skip")
    return pc.if_else(pc.equal(joined, ""), pa.scalar(None, pa.string()), joined)


def fill_down(values: pa.Array, within: pa.Array) -> pa.Array:
    """Return the values with each blank filled from the nearest row above that has the same value in ``within``."""
    series = pd.Series(values, dtype=pd.ArrowDtype(values.type))
    groups = pd.Series(within, dtype=pd.ArrowDtype(within.type))
    filled = series.groupby(groups, sort=False, dropna=True).ffill()
    result = pa.array(filled, values.type)
    result = result.combine_chunks() if isinstance(result, pa.ChunkedArray) else result
    return pc.if_else(pc.is_null(within), values, result)


def pad_gtin(values: pa.Array) -> pa.Array:
    """Return article numbers with the zeros that a spreadsheet dropped: to 8 digits, to 13 from 9 on; others as sent.

    Zeros in front change nothing in the check digit (GS1 General Specifications, 7.9), so ``731304300274``, a number of
    12 digits as printed in America, and ``0731304300274`` are one number.
    """
    digits = pc.replace_substring_regex(values, r"[\s-]+", "")
    plain = pc.match_substring_regex(digits, r"^[0-9]{1,14}$")
    short = pc.less_equal(pc.utf8_length(digits), 8)
    padded = pc.if_else(short, pc.utf8_lpad(digits, 8, "0"), pc.utf8_lpad(digits, 13, "0"))
    return pc.if_else(pc.fill_null(plain, False), padded, values)
