"""Pairs of customers by Splink on DuckDB: a second pair of eyes for the weekly batch, where the extra is installed.

The extra ``duplicates`` brings Splink and DuckDB, which no run needs otherwise; they are imported inside of the
function that uses them. Splink reads the keys that are stored (:mod:`tasks.matching.keys_store`), so scripts, legal
forms and spellings are dealt with before. It meets records by other blocks and grades names in steps of their
Jaro-Winkler likeness; what a field's agreement weighs is what our own comparison gives it, so nothing is trained and
two runs over the same customers say the same (Fellegi and Sunter 1969: weight = log2(m / u)).

DuckDB works in memory alone: no file, no extension from elsewhere, no folder into which names could spill.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from tasks.errors import UsageError
from tasks.matching.candidates import Pair
from tasks.matching.score import MODELS, Record, Scored, score_pair

MATCHED_BY = "splink"
MOST_SHARING = 200  # a key that more share says little, and all of them would be compared with each other
# Of pairs that are one (m) and of all pairs (u): how many have names that alike. Bits: 9, 7.5, 6, 2 and -6.6.
_NAMES = (
    ("name_l = name_r", 0.70, 0.70 / 2**9),
    ("jaro_winkler_similarity(name_l, name_r) >= 0.98", 0.06, 0.06 / 2**7.5),
    ("jaro_winkler_similarity(name_l, name_r) >= 0.95", 0.09, 0.09 / 2**6),
    ("jaro_winkler_similarity(name_l, name_r) >= 0.88", 0.14, 0.14 / 2**2),
)
_COMPARED = ("name", "vat", "country")
_KEYS = ("by_vat", "by_name", "by_beginning", "by_last_word")
CLOSED: dict[str, Any] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",
}


def is_installed() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec("splink") is not None


def require_installed() -> None:
    """Return when the extra is there.

    Raises:
        UsageError: it is not; the hint says what to install.
    """
    if not is_installed():
        raise UsageError(
            "Splink is not installed; nothing was compared.",
            hint="Install Kontor with its extra `duplicates`, or leave splink out: the own comparison needs nothing.",
        )


def settings_of() -> dict[str, Any]:
    """What Splink is asked: which customers meet, how each field is compared, and what its agreement weighs."""
    fields, prior = MODELS["organization"]
    weights = {field.name: (field.agree, field.differ) for field in fields}
    return {
        "link_type": "dedupe_only",
        "unique_id_column_name": "record_id",
        "probability_two_random_records_match": 2**prior / (1 + 2**prior),
        "retain_matching_columns": False,
        "blocking_rules_to_generate_predictions": [f"l.{key} = r.{key}" for key in _KEYS],
        "comparisons": [_names(), *(_same_or_not(name, *weights[name]) for name in ("vat", "country"))],
    }


def _names() -> dict[str, Any]:
    levels = [_level(condition, m, u) for condition, m, u in _NAMES]
    rest = _level("ELSE", 1 - sum(m for _, m, _ in _NAMES), 1 - sum(u for _, _, u in _NAMES))
    return {"output_column_name": "name", "comparison_levels": [_missing("name"), *levels, rest]}


def _same_or_not(name: str, agree: float, differ: float) -> dict[str, Any]:
    """A field that agrees or not; m and u are those whose quotients weigh ``agree`` and ``differ`` bits."""
    u = (1 - 2**differ) / (2**agree - 2**differ)
    m = u * 2**agree
    levels = [_missing(name), _level(f"{name}_l = {name}_r", m, u), _level("ELSE", 1 - m, 1 - u)]
    return {"output_column_name": name, "comparison_levels": levels}


def _level(condition: str, m: float, u: float) -> dict[str, Any]:
    return {"sql_condition": condition, "label_for_charts": condition, "m_probability": m, "u_probability": u}


def _missing(name: str) -> dict[str, Any]:
    return {
        "sql_condition": f"{name}_l is null or {name}_r is null",
        "label_for_charts": "one of the two lacks it",
        "is_null_level": True,
    }


def find_by_splink(records: Mapping[int, Record], threshold: float) -> list[Pair]:
    """The pairs of customers that Splink holds for one with at least that probability, by their ids.

    A pair carries Splink's probability and, as its evidence, what our own comparison says of its fields.

    Raises:
        UsageError: the extra is not installed.
    """
    require_installed()
    fields, prior = MODELS["organization"]
    found = []
    for row in _predicted(records, threshold) if len(records) > 1 else ():
        left, right = sorted((int(row["record_id_l"]), int(row["record_id_r"])))
        own = score_pair(records[left], records[right], fields, prior)
        found.append(Pair(left, right, Scored(float(row["match_probability"]), own.fields), (MATCHED_BY,)))
    return sorted(found, key=lambda pair: (pair.left, pair.right))


def _predicted(records: Mapping[int, Record], threshold: float) -> list[dict[str, Any]]:
    splink: Any = importlib.import_module("splink")
    duckdb: Any = importlib.import_module("duckdb")
    logging.getLogger("splink").setLevel(logging.WARNING)  # else it tells the time of each of its steps
    with closing(duckdb.connect(":memory:", config=CLOSED)) as connection:
        base = splink.DuckDBAPI(connection)
        linker = splink.Linker(base.register(_table(records)), settings_of(), log_level=None)
        found: list[dict[str, Any]] = linker.inference.predict(threshold_match_probability=threshold).as_record_list()
    return found


def _table(records: Mapping[int, Record]) -> Any:
    """The customers as Splink reads them: what is compared, and the keys by which they meet."""
    import pyarrow as pa

    keys = {number: _keys(record) for number, record in sorted(records.items())}
    shared = Counter((name, key) for mine in keys.values() for name, key in mine.items())
    rows = [
        {"record_id": number}
        | {name: records[number].get(name) or None for name in _COMPARED}
        | {name: key for name, key in mine.items() if shared[name, key] <= MOST_SHARING}
        for number, mine in keys.items()
    ]
    columns = [("record_id", pa.int64()), *((name, pa.string()) for name in (*_COMPARED, *_KEYS))]
    return pa.Table.from_pylist(rows, schema=pa.schema(columns))


def _keys(record: Record) -> dict[str, str]:
    """The keys that a customer has: tax number, name, its first six letters, and its last word within the country."""
    name, country = record.get("name") or "", record.get("country")
    last = name.rpartition(" ")[2]
    keys = (record.get("vat"), name, name[:6], f"{country} {last}" if country and last else None)
    return {kind: key for kind, key in zip(_KEYS, keys, strict=True) if key}
