"""The vocabulary of ``customProperties``: every name that a feed contract may use, and what its value must be.

A misspelt name would otherwise be silence: the contract would be read without what its author meant.
``docs/reference/contracts.md`` describes them all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tasks.feeds.code_lists import CODE_LISTS
from tasks.feeds.dates import is_date_format

Rule = tuple[Callable[[Any], bool], str]


def _one_of(*values: object) -> Rule:
    return (lambda value: value in values, "one of " + ", ".join(map(str, values)))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except re.error:
        return False


def _is_aliases(value: Any) -> bool:
    return _is_texts(value) or (isinstance(value, dict) and all(map(_is_texts, value.values())))


def _is_scalar(value: Any) -> bool:
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


def _is_values(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str | int) for item in value.values())


def _is_encodings(value: Any) -> bool:
    return _is_texts(value) and all(map(_is_encoding, value))


def _is_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except LookupError:
        return False
    return True


IGNORABLE = ("case", "spaces", "dashes", "dots", "leading_zeros")
TEXT: Rule = (lambda value: isinstance(value, str) and bool(value), "a text")
TEXTS: Rule = (_is_texts, "a list of texts")
TRUTH: Rule = (lambda value: isinstance(value, bool), "true or false")
PATTERN: Rule = (_is_pattern, "a regular expression")
SCALAR: Rule = (_is_scalar, "a text or a number; write true and false in quotation marks")
FORMATS: Rule = (
    lambda value: _is_texts(value) and all(map(is_date_format, value)),
    "a list of formats such as dd.mm.yyyy, each with year, month and day",
)
DEPTH: Rule = (lambda value: type(value) is int and 1 <= value <= 1000, "a whole number from 1 to 1000")
HEADER_ROWS: Rule = (lambda value: type(value) is int and 1 <= value <= 4, "a whole number from 1 to 4")
SCALE: Rule = (lambda value: type(value) is int and 0 <= value <= 4, "a whole number from 0 to 4")
SHEET: Rule = (
    lambda value: (isinstance(value, str) and bool(value)) or (type(value) is int and value >= 1),
    "a sheet's name, or its number counted from 1",
)
ENCODINGS: Rule = (_is_encodings, "a list of encodings that Python knows, such as utf-8, windows-1251")

CHARACTER_OR_NONE: Rule = (
    lambda value: value == "none" or (isinstance(value, str) and len(value) == 1 and not value.isspace()),
    "one character, or none",
)

DIALECT: Mapping[str, Rule] = {
    "format": _one_of("table", "bmecat"),
    "encodings": ENCODINGS,
    "delimiter": _one_of("auto", ",", ";", "\t", "|"),
    "quote": CHARACTER_OR_NONE,
    "escape": CHARACTER_OR_NONE,
    "skipInitialSpace": TRUTH,
    "decimal": _one_of("auto", ".", ","),
    "thousands": TEXTS,
    "dateFormats": FORMATS,
    "sheet": SHEET,
    "sheetPattern": PATTERN,
    "sheetsTogether": TRUTH,
    "headerDepth": DEPTH,
    "headerRows": HEADER_ROWS,
    "totals": TEXTS,
    "mixedDayAndMonth": TRUTH,
    "excelSerialDates": TRUTH,
    "excelEpoch": _one_of(1900, 1904),
}
AS_OF: Mapping[str, Rule] = {
    "sources": (
        lambda value: _is_texts(value) and bool(value) and set(value) <= {"command", "file_name", "title", "received"},
        "a list of command, file_name, title, received",
    ),
    "fileNamePattern": PATTERN,
    "titleWords": TEXTS,
    "sequenceWords": TEXTS,
    "revisionPattern": PATTERN,
}
NO_OVERLAP: Mapping[str, Rule] = {"from": TEXT, "to": TEXT}
CONTRACT_PROPERTIES: Mapping[str, Rule | Mapping[str, Rule]] = {
    "extends": TEXT,
    "feed": TEXT,
    "owner": TEXT,
    "source": TEXT,
    "mode": _one_of("snapshot", "ledger", "records"),
    "filePatterns": TEXTS,
    "dialect": DIALECT,
    "asOf": AS_OF,
    "missingCustomer": _one_of("quarantine", "create"),
    "duplicateRows": _one_of("quarantine", "keep_last", "identical"),
    "negativeIsCreditNote": TRUTH,
    "groupHeadings": TEXT,
    "sheetNames": TEXT,
    "rowsNeed": TEXTS,
    "blankIsAKey": TRUTH,
    "noOverlap": NO_OVERLAP,
}
COLUMN_PROPERTIES: Mapping[str, Rule | Mapping[str, Rule]] = {
    "kind": _one_of("text", "code", "date", "money", "quantity", "rate", "integer", "boolean"),
    "aliases": (_is_aliases, "a list of headings, or lists by language"),
    "default": SCALAR,
    "defaultFrom": TEXT,
    "constant": SCALAR,
    "values": (_is_values, "a map from what senders write to what is meant"),
    "codeList": _one_of(*CODE_LISTS),
    "dateFormats": FORMATS,
    "case": _one_of("upper", "lower"),
    "separators": TEXT,
    "scale": SCALE,
    "headingRequired": TRUTH,
    "integralFloat": _one_of("keep", "strip"),
    "staged": TRUTH,
    "derivedFrom": TEXT,
    "ignore": (
        lambda value: _is_texts(value) and set(value) <= set(IGNORABLE),
        "a list of " + ", ".join(IGNORABLE),
    ),
    "composedOf": TEXTS,
    "joiner": (lambda value: isinstance(value, str), "a text, which may be empty"),
    "fillDown": TEXT,
    "format": _one_of("gtin"),
}


def defects_of(
    where: str, properties: Iterable[Mapping[str, Any]], known: Mapping[str, Rule | Mapping[str, Rule]]
) -> Iterable[str]:
    """Yield "place: found …; expected …" for every custom property that is unknown, doubled or of the wrong value."""
    seen: set[str] = set()
    for item in properties:
        name = item["property"]
        if name in seen:
            yield f"{where}, {name}: found twice; expected once"
        seen.add(name)
        yield from _defects(f"{where}, {name}", name, item["value"], known)


def _defects(where: str, name: str, value: Any, known: Mapping[str, Rule | Mapping[str, Rule]]) -> Iterable[str]:
    rule = known.get(name)
    if rule is None:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
        yield f"{where}: found an unknown name; {guess}"
    elif isinstance(rule, Mapping):
        if not isinstance(value, dict):
            yield f"{where}: found {value!r}; expected a map of {', '.join(rule)}"
            return
        for key, inner in value.items():
            yield from _defects(f"{where}.{key}", str(key), inner, rule)
    elif not rule[0](value):
        yield f"{where}: found {value!r}; expected {rule[1]}"
