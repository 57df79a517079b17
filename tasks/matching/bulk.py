"""The evidence of many pairs at once, as arrays: what :func:`tasks.matching.score.score_pair` adds up for one. Pure.

A hundred thousand customers meet in millions of pairs, nearly all of which are two. Here they are added up field by
field, what is cheap first, and a pair that cannot reach its bits any more is not compared further. Who stays is scored
again one by one, with its explanation, so that nothing depends on rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA, JaroWinkler

from tasks.matching.score import Field, Record, digits, equal, letters, shared, words

Places = NDArray[np.int64]
Bits = NDArray[np.float64]
Texts = NDArray[np.object_]
_SLACK = 1e-6  # bits; far below what a rule's threshold distinguishes, far above what rounding adds


def bits_needed(probability: float) -> float:
    """The bits from which on a pair may be that likely, a little less than exact: 0.92 takes 3.52."""
    if probability <= 0:
        return -math.inf
    # From 50 bits on a double hardly tells a probability from 1.
    return (50.0 if probability >= 1 else min(50.0, math.log2(probability / (1 - probability)))) - _SLACK


def reaching(
    records: Sequence[Record], left: Places, right: Places, needed: Bits, fields: Sequence[Field], prior: float
) -> Places:
    """Which of these pairs of records reach the bits that each needs, as places in ``left`` and ``right``."""
    going = np.arange(len(left))
    total = np.full(len(left), prior)
    ordered = sorted(fields, key=lambda field: _COST.get(field.similarity, 9))
    for place, field in enumerate(ordered):
        bits = _evidence(records, left[going], right[going], field)
        total[going] += bits
        left_over = sum(max(later.agree, 0.0) for later in ordered[place + 1 :])
        going = going[total[going] + left_over >= needed[going]]
    return going


def _evidence(records: Sequence[Record], left: Places, right: Places, field: Field) -> Bits:
    """The bits of one field for each pair; 0 where one of the two lacks it."""
    values: Texts = np.array([record.get(field.name) or "" for record in records], dtype=object)
    there = np.array([value != "" for value in values], dtype=bool)
    both = np.flatnonzero(there[left] & there[right])
    bits = np.zeros(len(left))
    if len(both):
        alike = _ALIKE.get(field.similarity, _one_by_one(field))(values, left[both], right[both])
        if field.floor < 1:
            share = np.maximum(0.0, (alike - field.floor) / (1 - field.floor))
        else:
            share = (alike >= 1).astype(np.float64)
        bits[both] = field.differ + (field.agree - field.differ) * share
    return bits


Likeness = Callable[[Texts, Places, Places], Bits]


def _pairwise(scorer: Callable[..., float]) -> Likeness:
    """A scorer of rapidfuzz over two lists of texts at once, on all processors."""

    def alike(values: Texts, left: Places, right: Places) -> Bits:
        return process.cpdist(values[left], values[right], scorer=scorer, dtype=np.float64, workers=-1)

    return alike


_SORTED = _pairwise(fuzz.token_sort_ratio)
_SUBSET = _pairwise(fuzz.token_set_ratio)
_PREFIXED = _pairwise(JaroWinkler.similarity)


def _words(values: Texts, left: Places, right: Places) -> Bits:
    ordered = _SORTED(values, left, right) / 100
    prefixed = _PREFIXED(values, left, right)
    best = np.maximum(ordered, np.where(prefixed > 0.92, 0.98 * prefixed, 0.0))
    return np.where(ordered == 1.0, 1.0, np.maximum(best, 0.95 * _SUBSET(values, left, right) / 100))


def _equal(values: Texts, left: Places, right: Places) -> Bits:
    codes = pd.factorize(values)[0]
    alike: Bits = (codes[left] == codes[right]).astype(np.float64)
    return alike


def _shared(values: Texts, left: Places, right: Places) -> Bits:
    """Lists of one key each need no more than a look at whether they are the same."""
    alike = _equal(values, left, right)
    several = np.array([" " in value for value in values], dtype=bool)
    for place in np.flatnonzero((alike == 0) & (several[left] | several[right])):
        alike[place] = shared(values[left[place]], values[right[place]])
    return alike


def _one_by_one(field: Field) -> Likeness:
    def alike(values: Texts, left: Places, right: Places) -> Bits:
        pairs = zip(values[left], values[right], strict=True)
        return np.fromiter((field.similarity(mine, other) for mine, other in pairs), np.float64, len(left))

    return alike


_ALIKE: Mapping[Callable[[str, str], float], Likeness] = {
    equal: _equal,
    shared: _shared,
    words: _words,
    letters: _pairwise(JaroWinkler.similarity),
    digits: _pairwise(OSA.normalized_similarity),
}
_COST: Mapping[Callable[[str, str], float], int] = {equal: 0, shared: 1, digits: 2, letters: 2, words: 3}
