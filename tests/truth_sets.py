"""Public files of records with the truth about which are one, in the form in which records are compared here."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from anyascii import anyascii

from tasks.matching.candidates import Block, find_pairs, of_field, one_to_one, rare_words
from tasks.matching.score import Field, Record, digits, equal, letters, words

_MOST_SHARING = 300


@dataclass(frozen=True)
class TruthSet:
    """Records, the pairs that are one, and the settings they are compared with."""

    name: str
    records: Mapping[int, Record]
    truth: frozenset[tuple[int, int]]
    blocks: Mapping[str, Block]
    fields: Sequence[Field]
    prior: float
    two_lists_at: int | None = None


@dataclass(frozen=True)
class Reached:
    """Precision, recall and F1 of what was found, rounded by nobody."""

    pairs: int
    precision: float
    recall: float
    f1: float


def reach(truth_set: TruthSet) -> Reached:
    """Find the pairs that are more likely one than two, and compare them with the truth."""
    likely = dict.fromkeys(truth_set.blocks, 0.5)
    found = find_pairs(
        truth_set.records, truth_set.blocks, truth_set.fields, truth_set.prior, likely, most=_MOST_SHARING
    )
    border = truth_set.two_lists_at
    if border is not None:
        found = one_to_one(pair for pair in found if pair.left < border <= pair.right)
    pairs = {(pair.left, pair.right) for pair in found}
    right = len(pairs & truth_set.truth)
    precision, recall = right / max(len(pairs), 1), right / len(truth_set.truth)
    return Reached(len(pairs), precision, recall, 2 * precision * recall / max(precision + recall, 1e-9))


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            {str(name).strip(): (value or "").strip() for name, value in row.items()}
            for row in csv.DictReader(stream, skipinitialspace=True)
        ]


def _together(*names: str) -> Block:
    def block(record: Record) -> Iterable[str]:
        values = [record.get(name) or "" for name in names]
        return ["|".join(values)] if all(values) else []

    return block


def _pairs_within(groups: Mapping[str, Sequence[int]]) -> frozenset[tuple[int, int]]:
    return frozenset(pair for members in groups.values() for pair in combinations(sorted(members), 2))


def febrl3(folder: Path) -> TruthSet:
    """5,000 persons with typing errors, gaps and swapped fields; up to six records of one."""
    records: dict[int, Record] = {}
    groups: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(_read(folder / "febrl" / "dataset3.csv")):
        street = f"{row['street_number']} {row['address_1']} {row['address_2']}".split()
        person = {"person": f"{row['given_name']} {row['surname']}".strip(), "address": " ".join(sorted(street))}
        records[number] = {name: value or None for name, value in {**row, **person}.items()}
        groups[row["rec_id"].split("-")[1]].append(number)
    blocks = {name: of_field(name) for name in ("soc_sec_id", "date_of_birth", "address", "address_1")} | {
        " and ".join(names): _together(*names)
        for names in (
            ("given_name", "surname"), ("surname", "postcode"), ("given_name", "postcode"), ("given_name", "suburb"),
            ("surname", "suburb"), ("street_number", "postcode"),
        )
    }  # fmt: skip
    fields = (
        Field("person", 6, -4, words, 0.65), Field("address", 5, -2, words, 0.6), Field("suburb", 4, -2, letters),
        Field("postcode", 3.5, -1.5, digits, 0.5), Field("date_of_birth", 6, -2, digits, 0.7),
        Field("soc_sec_id", 9, -6, digits, 0.55), Field("state", 1, -1, equal),
    )  # fmt: skip
    return TruthSet("FEBRL 3", records, _pairs_within(groups), blocks, fields, -2.0)


def restaurants(folder: Path) -> TruthSet:
    """Two guides to restaurants; a hotel's restaurants share its address and telephone number."""
    border = 100_000
    records: dict[int, Record] = {}
    for guide, above in (("fodors", 0), ("zagats", border)):
        for row in _read(folder / "restaurants" / f"{guide}.csv"):
            street = _plain(row["addr"])
            records[above + int(row["id"])] = {
                "name": _plain(row["name"]),
                "street": street,
                "house": next(iter(re.findall(r"^\d+", street or "")), None),
                "city": _plain(row["city"]),
                "phone": re.sub(r"\D", "", row["phone"]) or None,
            }
    matches = _read(folder / "restaurants" / "matches_fodors_zagats.csv")
    truth = frozenset((int(row["fodors_id"]), border + int(row["zagats_id"])) for row in matches)
    blocks = {"phone": of_field("phone"), "street": of_field("street"), "name": rare_words(records, "name"),
              "streets": rare_words(records, "street")}  # fmt: skip
    fields = (
        Field("name", 7, -6, words, 0.55), Field("phone", 7, -3, digits), Field("street", 4, -2, words, 0.55),
        Field("house", 2, -3, equal), Field("city", 1.5, -1, words, 0.6),
    )  # fmt: skip
    return TruthSet("Fodors and Zagat's", records, truth, blocks, fields, -2.0, border)


def fake_1000(folder: Path) -> TruthSet:
    """1,000 made-up persons of whom most lack something: a fifth of the pairs share no whole field."""
    records: dict[int, Record] = {}
    groups: dict[str, list[int]] = defaultdict(list)
    for row in _read(folder / "splink" / "fake_1000.csv"):
        records[int(row["unique_id"])] = {name: value.lower() or None for name, value in row.items()}
        groups[row["cluster"]].append(int(row["unique_id"]))
    named: Mapping[str, Callable[[Record], Iterable[str]]] = {
        name: of_field(name) for name in ("dob", "email", "surname", "first_name")
    }
    fields = (
        Field("first_name", 4, -2, letters, 0.7), Field("surname", 5, -3, letters, 0.7),
        Field("dob", 6, -4, digits, 0.6), Field("city", 2, -1, letters, 0.7), Field("email", 8, -1.5, letters, 0.8),
    )  # fmt: skip
    return TruthSet("fake_1000", records, _pairs_within(groups), named, fields, -2.0)


def _plain(text: str) -> str | None:
    return " ".join(re.findall(r"[a-z0-9]+", anyascii(text).lower())) or None
