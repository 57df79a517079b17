"""Which pairs of many records are worth comparing, and those that are alike. Pure.

Comparing all with all is out of the question, so records meet where they share a key: a tax number, an address, a
telephone number, a name, or two of a name's rarer words. A key that very many share says nothing and is passed over.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.matching.score import Field, Record, Scored, score_pair

Block = Callable[[Record], Iterable[str]]
_MOST_SHARING = 60


@dataclass(frozen=True)
class Pair:
    """Two records that may be one, by their ids in order, how alike they are, and by which keys they met."""

    left: int
    right: int
    scored: Scored
    matched_by: tuple[str, ...]


def candidate_pairs(
    records: Mapping[int, Record], blocks: Mapping[str, Block], most: int = _MOST_SHARING
) -> dict[tuple[int, int], set[str]]:
    """The pairs that share a key, with the names of the keys."""
    found: dict[tuple[int, int], set[str]] = defaultdict(set)
    for name, block in blocks.items():
        members: dict[str, list[int]] = defaultdict(list)
        for number, record in records.items():
            for key in set(block(record)):
                members[key].append(number)
        for sharing in members.values():
            if 1 < len(sharing) <= most:
                for pair in _pairs(sorted(sharing)):
                    found[pair].add(name)
    return found


def _pairs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    for place, left in enumerate(numbers):
        for right in numbers[place + 1 :]:
            yield left, right


def find_pairs(
    records: Mapping[int, Record],
    blocks: Mapping[str, Block],
    fields: Sequence[Field],
    prior: float,
    threshold: float,
    *,
    most: int = _MOST_SHARING,
) -> list[Pair]:
    """The pairs of records that are at least ``threshold`` alike, by their ids."""
    found = []
    for (left, right), names in sorted(candidate_pairs(records, blocks, most).items()):
        scored = score_pair(records[left], records[right], fields, prior)
        if scored.score >= threshold:
            found.append(Pair(left, right, scored, tuple(sorted(names))))
    return found


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
