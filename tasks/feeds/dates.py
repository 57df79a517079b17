"""Dates from text by the formats that a contract names; nothing is inferred.

A format is written as a person would: ``dd.mm.yyyy``, ``d/m/yyyy``, ``dd-MMM-yyyy``, ``yyyymmdd``, ``d.m.yy``. ``d``
and ``m`` take one or two digits, ``MMM`` a month's name or its short form in the five languages. ISO dates are always
understood. A time of day after the date is allowed and dropped: the business date is the day that is written.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from functools import lru_cache

from babel.dates import get_month_names

FIRST_YEAR = 1990
LAST_YEAR = 2100
LANGUAGES = ("en", "bg", "pl", "nb", "sv")

ISO_FORMAT = "yyyy-mm-dd"
_TIME = r"(?:[T ]+[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?[AaPp][Mm])?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?"
_YEAR_WORD = r"(?: ?г\.?| ?r\.?)?"  # Bulgarian "2026 г.", Polish "2026 r."
_TOKENS = {
    "yyyy": r"(?P<year>[0-9]{4})",
    "yy": r"(?P<short_year>[0-9]{2})",
    "MMM": r"(?P<word>[^\W\d_]+)\.?",
    "mm": r"(?P<month>[0-9]{1,2})",
    "m": r"(?P<month>[0-9]{1,2})",
    "dd": r"(?P<day>[0-9]{1,2})",
    "d": r"(?P<day>[0-9]{1,2})",
}
_TOKEN = re.compile("yyyy|yy|MMM|mm|m|dd|d")
_EXCEL_DAY_ZERO = {1900: dt.date(1899, 12, 30), 1904: dt.date(1904, 1, 1)}
_EXCEL_FIRST, _EXCEL_LAST = 1, 2_958_465


def is_date_format(text: str) -> bool:
    """Return whether the text is a date format: a year, a month and a day, each once."""
    tokens = sorted({"y": "y", "m": "m", "M": "m", "d": "d"}[token[0]] for token in _TOKEN.findall(text))
    return tokens == ["d", "m", "y"]


def orders_contradict(formats: Sequence[str]) -> bool:
    """Return whether two of the formats read one text differently, such as ``d/m/yyyy`` beside ``m/d/yyyy``."""
    shapes: dict[tuple[int, ...], str] = {}
    for text in formats:
        if "MMM" in text or not is_date_format(text):
            continue
        shape = _TOKEN.sub(lambda found: "y" * len(found[0]) if found[0][0] == "y" else "#", text)
        order = "".join(token[0] for token in _TOKEN.findall(text))
        if shapes.setdefault(tuple(map(ord, shape)), order) != order:
            return True
    return False


def parse_date(text: str, formats: Sequence[str]) -> dt.date | str:
    """Return the date that the text says by the first format that fits, or the reason in words why it says none."""
    reason = ""
    for written in (ISO_FORMAT, *formats):
        found = _compiled(written).fullmatch(text)
        if found is not None:
            day = _date(found, written)
            if isinstance(day, dt.date):
                return day
            reason = reason or day
    return reason or f"is not a date in any of the formats {', '.join(dict.fromkeys((ISO_FORMAT, *formats)))}"


def excel_serial(text: str, epoch: int) -> dt.date | str:
    """Return the date of a spreadsheet's day number (1900 or 1904 date system), or the reason why it is none."""
    days = int(float(text))
    if not _EXCEL_FIRST <= days <= _EXCEL_LAST:
        return f"is not a day number between {_EXCEL_FIRST} and {_EXCEL_LAST}"
    return within_years(_EXCEL_DAY_ZERO[epoch] + dt.timedelta(days=days))


def within_years(day: dt.date) -> dt.date | str:
    """Return the date itself, or why it cannot be a date of business: a year outside 1990–2100."""
    if FIRST_YEAR <= day.year <= LAST_YEAR:
        return day
    return f"has the year {day.year}, expected {FIRST_YEAR} to {LAST_YEAR}"


def _date(found: re.Match[str], written: str) -> dt.date | str:
    parts = found.groupdict()
    month = _month(parts.get("word")) if parts.get("word") else int(parts["month"])
    if month is None:
        return f"names no month of the languages {', '.join(LANGUAGES)}"
    year = int(parts["year"]) if parts.get("year") else 2000 + int(parts["short_year"])
    try:
        return within_years(dt.date(year, month, int(parts["day"])))
    except ValueError:
        return f"is not a day of the calendar (read as {written})"


@lru_cache(maxsize=256)
def _compiled(written: str) -> re.Pattern[str]:
    pieces, last = [], 0
    for token in _TOKEN.finditer(written):
        pieces += [re.escape(written[last : token.start()]), _TOKENS[token[0]]]
        last = token.end()
    return re.compile("".join([*pieces, re.escape(written[last:]), _YEAR_WORD, _TIME]))


def _month(word: str | None) -> int | None:
    return _months().get((word or "").casefold())


@lru_cache(maxsize=1)
def _months() -> dict[str, int]:
    names: dict[str, int] = {"sept": 9}
    for language in LANGUAGES:
        for width in ("wide", "abbreviated"):
            for context in ("format", "stand-alone"):
                for number, name in get_month_names(width, context, language).items():
                    names.setdefault(name.casefold().rstrip("."), number)
    return names
