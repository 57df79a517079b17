"""The business date (as_of) of a file, its revision, and its turn among the files of one day; no guess among two."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Sequence

from tasks.errors import FileRefused
from tasks.feeds.contracts import AsOfRule, FeedContract
from tasks.feeds.dates import parse_date

_DATE_IN_NAME = re.compile(
    r"(?<!\d)(?P<year>(?:19|20|21)\d{2})(?P<mark>[-_. ]?)(?P<month>\d{2})(?P=mark)(?P<day>\d{2})"
    r"(?=(?:(?:[01]\d|2[0-3])(?:[0-5]\d){1,2})?(?!\d))"  # a time of day may follow at once
)
_DATE_IN_TEXT = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{2,4}|\d{1,2}[-. ]+[^\W\d_]{3,}\.?[-. ]+\d{4}")
_DIGITS = 12  # of a number in a name that are compared
_REVISION_IN_NAME = re.compile(r"[_\-. (](?:r|v|rev|ver)\.?(?P<revision>\d{1,3})\)?$", re.IGNORECASE)


def find_as_of(
    contract: FeedContract,
    *,
    file_name: str,
    titles: Sequence[str],
    given: dt.date | None,
    received_on: dt.date | None = None,
) -> dt.date:
    """Return the day as of which the file speaks.

    Every place that the contract allows (command, file name, title rows) is asked; all that answer must agree. Where
    the contract also allows "received" and no place answers, it is the day on which the file came.

    Raises:
        FileRefused: no place names a date, or two name different ones; both are named.
    """
    rule = contract.as_of
    found: dict[str, dt.date] = {}
    if given is not None:
        found["the command"] = given
    if "file_name" in rule.sources:
        found |= {f"the file name ({text})": day for text, day in _in_file_name(file_name, rule)}
    if "title" in rule.sources:
        formats = next((column.date_formats for column in contract.columns if column.kind == "date"), ())
        found |= {f"the title row ({text})": day for text, day in _in_titles(titles, rule, formats)}
    if not found and received_on is not None and "received" in rule.sources:
        return received_on
    if not found:
        raise FileRefused(file_name, [_nowhere(rule)], hint="Give it with --as-of YYYY-MM-DD.")
    if len(set(found.values())) > 1:
        named = " but ".join(f"{place} says {day.isoformat()}" for place, day in found.items())
        raise FileRefused(
            file_name,
            [f"its business date is not clear: {named}"],
            hint="Ask the sender which one is right and correct the other; the command does not overrule the file.",
        )
    return next(iter(found.values()))


def find_revision(contract: FeedContract, *, file_name: str, given: int | None) -> int:
    """Return the file's revision for its day: as given, else from the name (``…_r2.xlsx``, ``…-v3.csv``), else 1.

    Raises:
        FileRefused: the command and the name say different revisions.
    """
    match = _revision_in(contract, file_name.rsplit(".", 1)[0])
    named = int(match.group("revision") if "revision" in match.re.groupindex else match.group(1)) if match else None
    if given is not None and named is not None and given != named:
        raise FileRefused(
            file_name,
            [f"its revision is not clear: the command says {given} but the file name says {named}"],
            hint="Leave the revision out of the command, or rename the file.",
        )
    return given or named or 1


def find_sequence(contract: FeedContract, *, file_name: str, titles: Sequence[str] = (), written_ns: int) -> str:
    """Return the file's turn among those of its day and revision, as a text that sorts in their order.

    First the numbers that its name has behind the day, such as a time of day or a counter, compared as numbers; a name
    without any comes first. Where names tell nothing, the number that a title has behind a word of the contract, by
    which the sender counts its files; then the instant at which the file was last written, in UTC:

        catalog_delta_2026-11-22.csv        '!2026-11-22T10:30:00.000000'
        catalog_delta_2026-11-22_2.csv      '000000000002!…'
        catalog_delta_2026-11-22_0930.csv   '000000000930!…'
        … with a title "PREV_VERSION 13"    '!000000000013!…'
    """
    stem = file_name.rsplit(".", 1)[0]
    revision = _revision_in(contract, stem)
    named = stem if revision is None else stem[: revision.start()] + stem[revision.end() :]
    days = list(_day_pattern(contract.as_of).finditer(named))
    behind = named[days[-1].end() :] if days else named
    numbers = [_padded(number) for number in re.findall(r"[0-9]+", behind)]
    counted = _counted_in(titles, contract.as_of.sequence_words)
    written = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=written_ns // 1000)  # noqa: DTZ001 - UTC, shown as text
    return "!".join([".".join(numbers), *counted, written.isoformat(timespec="microseconds")])


def _padded(number: str) -> str:
    return number.lstrip("0")[-_DIGITS:].rjust(_DIGITS, "0")


def _counted_in(titles: Iterable[str], words: Sequence[str]) -> list[str]:
    """The sender's own count of its files, if a title says it: the first number behind one of the words."""
    if not words:
        return []
    introduced = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})[\s:.]*([0-9]+)", re.IGNORECASE)
    return [_padded(match[1]) for title in titles if (match := introduced.search(title))][:1]


def _nowhere(rule: AsOfRule) -> str:
    places = {"command": "the command", "file_name": "the file name", "title": "a title row", "received": "its arrival"}
    asked = ", ".join(places[source] for source in rule.sources)
    return f"no business date found; expected one in {asked}"


def _revision_in(contract: FeedContract, stem: str) -> re.Match[str] | None:
    pattern = contract.as_of.revision_pattern
    return re.search(pattern, stem) if pattern else _REVISION_IN_NAME.search(stem)


def _day_pattern(rule: AsOfRule) -> re.Pattern[str]:
    return re.compile(rule.file_name_pattern) if rule.file_name_pattern else _DATE_IN_NAME


def _in_file_name(file_name: str, rule: AsOfRule) -> Iterator[tuple[str, dt.date]]:
    for match in _day_pattern(rule).finditer(file_name):
        if {"year", "month", "day"} <= set(match.re.groupindex):
            day = parse_date(f"{match['year']}-{match['month']}-{match['day']}", ())
        else:
            day = parse_date(match.group(1), ("yyyymmdd", "dd.mm.yyyy", "dd-mm-yyyy", "yyyy_mm_dd"))
        if isinstance(day, dt.date):
            yield match[0], day


def _in_titles(titles: Iterable[str], rule: AsOfRule, formats: Sequence[str]) -> Iterator[tuple[str, dt.date]]:
    """Yield the dates that stand after a word of the contract for "as of"; a print date beside it means nothing."""
    words = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in sorted(rule.title_words, key=len, reverse=True))
    if not words:
        return
    introduced = re.compile(rf"(?<!\w)(?:{words})[\s:.]*(?P<date>{_DATE_IN_TEXT.pattern})", re.IGNORECASE)
    for title in titles:
        for match in introduced.finditer(title):
            day = parse_date(match["date"], formats)
            if isinstance(day, dt.date):
                yield match["date"], day
