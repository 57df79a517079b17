"""Which pairs of many records are worth comparing, and those that are alike. Pure.

Comparing all with all is out of the question, so records meet where they share a key: a tax number, an address, a
telephone number, a name, or two of a name's rarer words. A key that very many share says nothing and is passed over.
Pairs are kept as arrays: a hundred thousand customers make millions of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.matching.bulk import Bits, Places, bits_needed, reaching
from tasks.matching.score import Field, Record, Scored, score_pair

Block = Callable[[Record], Iterable[str]]
MOST_SHARING = 60
_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Pair:
    """Two records that may be one, by their ids in order, how alike they are, and by which keys they met."""

    left: int
    right: int
    scored: Scored
    matched_by: tuple[str, ...]


@dataclass(frozen=True)
class Candidates:
    """Pairs that share a key, in order: ``left`` and ``right`` are places in ``numbers``, the ids in order.

    ``met`` has for each pair one bit per kind of key, in the order of ``names``.
    """

    numbers: Sequence[int]
    left: Places
    right: Places
    met: Places
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.left)

    def met_by(self, place: int) -> tuple[str, ...]:
        """The kinds of keys that the pair at that place shares."""
        return tuple(sorted(name for bit, name in enumerate(self.names) if self.met[place] >> bit & 1))

    def parts(self, size: int) -> Iterator[Candidates]:
        """The same in parts of at most so many pairs."""
        for start in range(0, len(self), size):
            cut = slice(start, start + size)
            yield Candidates(self.numbers, self.left[cut], self.right[cut], self.met[cut], self.names)


def candidate_pairs(records: Mapping[int, Record], blocks: Mapping[str, Block], most: int = MOST_SHARING) -> Candidates:
    """The pairs that share a key, with the kinds of keys."""
    numbers = sorted(records)
    ordered = [records[number] for number in numbers]
    found = [_once(_pairs_sharing(ordered, block, most)) for block in blocks.values()]
    codes = _once(np.concatenate([np.empty(0, np.int64), *found]))
    met = np.zeros(len(codes), np.int64)
    for bit, mine in enumerate(found):
        met[np.searchsorted(codes, mine)] |= 1 << bit
    left, right = np.divmod(codes, max(len(numbers), 1))
    return Candidates(numbers, left, right, met, tuple(blocks))


def _pairs_sharing(records: Sequence[Record], block: Block, most: int) -> Places:
    """Every pair within a group that shares a key, as ``left * records + right``; a pair may stand there twice."""
    keyed = [set(block(record)) for record in records]
    members = np.repeat(np.arange(len(records)), [len(keys) for keys in keyed])
    codes = pd.factorize(np.array([key for keys in keyed for key in keys], dtype=object))[0]
    members = members[np.argsort(codes, kind="stable")]
    sizes = np.bincount(codes) if len(codes) else np.empty(0, np.int64)
    begins = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    found = [np.empty(0, np.int64)]
    for size in range(2, min(most, int(sizes.max(initial=0))) + 1):
        groups = members[begins[sizes == size][:, None] + np.arange(size)]
        first, second = np.triu_indices(size, 1)
        found.append((groups[:, first] * len(records) + groups[:, second]).ravel())
    return np.concatenate(found)


def _once(codes: Places) -> Places:
    """Each once, in order; sorting millions is many times quicker than the hashing that numpy does."""
    ordered: Places = np.sort(codes)
    first: Places = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]]
    return first


def find_pairs(
    records: Mapping[int, Record],
    blocks: Mapping[str, Block],
    fields: Sequence[Field],
    prior: float,
    thresholds: Mapping[str, float],
    *,
    most: int = MOST_SHARING,
) -> list[Pair]:
    """The pairs of records that are as alike as one of the kinds of keys asks by which they met, by their ids."""
    candidates = candidate_pairs(records, blocks, most)
    ordered = [records[number] for number in candidates.numbers]
    found = []
    for part in candidates.parts(_PAIRS_AT_ONCE):
        for place in reaching(ordered, part.left, part.right, _least_bits(part, thresholds), fields, prior):
            left, right = part.left[place], part.right[place]
            scored, names = score_pair(ordered[left], ordered[right], fields, prior), part.met_by(place)
            if any(scored.score >= thresholds[name] for name in names):
                found.append(Pair(candidates.numbers[left], candidates.numbers[right], scored, names))
    return found


def _least_bits(part: Candidates, thresholds: Mapping[str, float]) -> Bits:
    least = np.full(len(part), np.inf)
    for bit, name in enumerate(part.names):
        has = (part.met >> bit & 1).astype(bool)
        least[has] = np.minimum(least[has], bits_needed(thresholds[name]))
    return least


def of_field(name: str) -> Block:
    """A block by one field as it stands."""
    return lambda record: [value] if (value := record.get(name)) else []


def rare_words(records: Mapping[int, Record], name: str, most: int = 400) -> Block:
    """A block by each pair of a name's two to four rarest words, and by its beginning."""
    counts = Counter(word for record in records.values() for word in set((record.get(name) or "").split()))

    def block(record: Record) -> Iterable[str]:
        spoken = record.get(name) or ""
        words = sorted({word for word in spoken.split() if len(word) > 1}, key=lambda word: (counts[word], word))[:4]
        yield from (f"{a} {b}" for place, a in enumerate(words) for b in sorted(words[place + 1 :]))
        yield from (word for word in words[:1] if len(word) > 4 and counts[word] <= most)
        if len(spoken) >= 8:
            yield f"^{spoken.replace(' ', '')[:8]}"

    return block


def one_to_one(pairs: Iterable[Pair]) -> list[Pair]:
    """The best pairs in which no record stands twice: for linking two lists that have no doubles within themselves."""
    taken: set[int] = set()
    kept = []
    for pair in sorted(pairs, key=lambda pair: (-sum(bits for _, bits in pair.scored.fields.values()), pair.left)):
        if not {pair.left, pair.right} & taken:
            taken |= {pair.left, pair.right}
            kept.append(pair)
    return kept
