"""The peer: Splink on DuckDB, trained without the truth as its documentation shows, on the records of the truth sets.

Records meet by the same fields as ours do. Splink is the extra ``duplicates``; where it is not installed there is no
such row in the table.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tests.truth_sets import Reached, TruthSet

_LIKELY = 0.5
_SEED = 1


@dataclass(frozen=True)
class _Set:
    """What Splink is told: the fields, by which of them records meet, and by which it is trained.

    ``sure`` finds that share of the true pairs (``recall``), a guess that Splink asks for to begin with.
    """

    comparisons: Sequence[tuple[str, str]]
    blocks: Sequence[tuple[str, ...]]
    trained_by: Sequence[tuple[str, ...]]
    sure: Sequence[tuple[str, ...]]
    recall: float


_SETS = {
    "fake_1000": _Set(
        (("name", "first_name"), ("name", "surname"), ("birth", "dob"), ("equal", "city"), ("email", "email")),
        (("dob",), ("email",), ("surname",), ("first_name",)),
        (("first_name", "surname"), ("dob",)),
        (("first_name", "surname", "dob"), ("email",)),
        0.7,
    ),
    "FEBRL 3": _Set(
        (
            ("name", "given_name"), ("name", "surname"), ("places", "date_of_birth"), ("places", "soc_sec_id"),
            ("letters", "address_1"), ("places", "street_number"), ("places", "postcode"), ("letters", "suburb"),
        ),
        (
            ("soc_sec_id",), ("date_of_birth",), ("address",), ("address_1",), ("given_name", "surname"),
            ("surname", "postcode"), ("given_name", "postcode"), ("given_name", "suburb"), ("surname", "suburb"),
            ("street_number", "postcode"),
        ),
        (("date_of_birth",), ("given_name", "surname")),
        (("soc_sec_id",), ("given_name", "surname", "date_of_birth")),
        0.9,
    ),
}  # fmt: skip


def reach_by_splink(truth_set: TruthSet) -> Reached | None:
    """What Splink reaches with the pairs more likely one than two; None where it is told nothing of the set."""
    if truth_set.name not in _SETS:
        return None
    given = _SETS[truth_set.name]
    splink: Any = importlib.import_module("splink")
    logging.getLogger("splink").setLevel(logging.ERROR)
    table = splink.DuckDBAPI().register(_table(truth_set, given))
    linker = splink.Linker(table, _settings(given), log_level=None)
    _train(linker.training, given)
    rows = linker.inference.predict(threshold_match_probability=_LIKELY).as_record_list()
    pairs = {(min(ends), max(ends)) for ends in ((row["number_l"], row["number_r"]) for row in rows)}
    right = len(pairs & truth_set.truth)
    precision, recall = right / max(len(pairs), 1), right / len(truth_set.truth)
    return Reached(len(pairs), precision, recall, 2 * precision * recall / max(precision + recall, 1e-9))


def _table(truth_set: TruthSet, given: _Set) -> pa.Table:
    names = sorted({name for block in given.blocks for name in block} | {name for _, name in given.comparisons})
    rows = [{"number": number, **{name: record.get(name) for name in names}}
            for number, record in truth_set.records.items()]  # fmt: skip
    return pa.Table.from_pylist(rows)


def _settings(given: _Set) -> dict[str, Any]:
    return {
        "link_type": "dedupe_only",
        "unique_id_column_name": "number",
        "retain_matching_columns": False,
        "blocking_rules_to_generate_predictions": [_same(names) for names in given.blocks],
        "comparisons": [_comparison(kind, name) for kind, name in given.comparisons],
    }


def _comparison(kind: str, name: str) -> Any:
    library: Any = importlib.import_module("splink.comparison_library")
    match kind:
        case "name":
            return library.NameComparison(name)
        case "birth":
            return library.DateOfBirthComparison(name, input_is_string=True)
        case "email":
            return library.EmailComparison(name)
        case "places":
            return library.DamerauLevenshteinAtThresholds(name, [1, 2])
        case "letters":
            return library.JaroWinklerAtThresholds(name, [0.95, 0.85])
    return library.ExactMatch(name).configure(term_frequency_adjustments=True)


def _train(training: Any, given: _Set) -> None:
    sure = [_same(names) for names in given.sure]
    training.estimate_probability_two_random_records_match(sure, recall=given.recall)
    training.estimate_u_using_random_sampling(max_pairs=1e6, seed=_SEED)
    for names in given.trained_by:
        training.estimate_parameters_using_expectation_maximisation(_same(names))


def _same(names: Sequence[str]) -> str:
    return " and ".join(f"l.{name} = r.{name}" for name in names)
