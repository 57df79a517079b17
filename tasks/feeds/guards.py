"""What a file's measures say against the thresholds: passed, refused or overruled, with the likely cause in words.

A file is compared with its neighbours: the nearest snapshots before and after it by business date, whenever they came.
What is measured between two snapshots is the same whichever of them arrives second, and limits grow with the weeks
between them. So files of which every two agree are all taken in, in any order. Where two contradict each other, the
second to arrive is refused, whichever that is, and a person decides.

Amounts, dates, shares: ``measured`` above ``allowed`` refuses, equal passes, and too little evidence says nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from decimal import Decimal

from tasks.errors import FileRefused, UsageError
from tasks.feeds.price_guards import CatalogMeasures, Said, prices_jumped, prices_scaled, products_vanished

# A guard that names the cause stands for the one that only sees its effect: who decides about the first has seen it.
_EXPLAINED_BY = {
    "amounts_moved": "amounts_scaled",
    "currency_sums": "amounts_scaled",
    "dates_moved": "dates_swapped",
    "prices_jumped": "prices_scaled",
}
_BEYOND = Decimal("99999999")  # what came from nothing, or went to nothing, has no factor
_SLIPPED = frozenset(Decimal(10) ** power for power in (-4, -3, -2, -1, 1, 2, 3, 4))


@dataclass(frozen=True)
class Threshold:
    """A row of ``rules.quality_threshold``: what a guard allows, and from how many items on it says anything.

    ``window_days``: how far away by business date a neighbour may be to be compared with; None means any distance.
    """

    guard: str
    rule_id: str
    version: int
    threshold: Decimal
    minimum_evidence: int
    window_days: int | None = None


@dataclass(frozen=True)
class Sums:
    """The rows of one currency and what is open on them, every amount counted as positive."""

    rows: int
    open_amount: Decimal


@dataclass(frozen=True)
class Neighbour:
    """What differs between the file and one snapshot beside it.

    ``items`` stand in that snapshot, ``absent`` of them are not in the file and ``fresh`` of the file's are not in it;
    numbers that differ by zeros in front are not counted there. ``scaled`` of the ``repriced`` items, whose amount
    differs, moved by ``factor`` (the file's amount by the other's), in ``part`` of the file. ``moved`` items differ in
    amount or remainder, ``redated`` in a date, of which ``swapped`` have day and month in each other's place.
    """

    file_name: str
    as_of: date
    items: int
    rows: int
    absent: int = 0
    fresh: int = 0
    common: int = 0
    repriced: int = 0
    scaled: int = 0
    factor: Decimal | None = None
    part: str = ""
    moved: int = 0
    redated: int = 0
    swapped: int = 0
    sums: Mapping[str, Sums] | None = None


@dataclass(frozen=True)
class Total:
    """What a totals row says of a column, beside the sums that its rows may be meant to have.

    ``unreadable`` rows have no amount that could be added; they may explain any difference.
    """

    column: str
    currency: str | None
    said: Decimal
    sums: tuple[Decimal, ...]
    rows: int
    unreadable: int


@dataclass(frozen=True)
class Measures:
    """All that is measured of a file. ``items`` are its rows that have both numbers, ``newest`` its newest issue date.

    ``complete``: it lists all there is, so that what it leaves out says something.

    ``reappearing`` items stand on both sides of a snapshot that lacks them. ``zeros`` rows have a number that is known
    with other zeros in front, such as ``zero_example``. ``copy_of`` is a file of the same bytes, by name and date.
    """

    as_of: date
    rows: int
    items: int = 0
    complete: bool = False
    newest: date | None = None
    sums: Mapping[str, Sums] | None = None
    totals: tuple[Total, ...] = ()
    reappearing: int = 0
    reappearing_of: int = 0
    zeros: int = 0
    zero_example: str = ""
    copy_of: tuple[str, date] | None = None
    neighbours: tuple[Neighbour, ...] = ()
    catalog: CatalogMeasures | None = None


@dataclass(frozen=True)
class Verdict:
    """What one guard says: ``state`` is passed, refused or overruled; ``reason`` tells what was measured and why."""

    guard: str
    rule_id: str
    version: int
    state: str
    measured: Decimal
    allowed: Decimal
    evidence: int
    reason: str

    def record(self) -> dict[str, object]:
        """The verdict as it is kept beside the file, numbers as text."""
        return {name: str(value) if isinstance(value, Decimal) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class _Finding:
    """One measurement: what, out of how much, how many weeks of change it spans, and how to say it.

    ``compared``: of how many items; with enough of them, too few that moved are not silence but agreement.
    """

    measured: Decimal
    evidence: int
    told: str
    weeks: int = 1
    as_of: date | None = None
    compared: int = 0


Guard = Callable[[Measures], Iterator[_Finding]]


def judge(measures: Measures, thresholds: Mapping[str, Threshold], accepted: Collection[str] = ()) -> list[Verdict]:
    """The verdict of every guard that has a threshold and found evidence, in the order of the guards.

    ``accepted`` guards are overruled where they would refuse.
    """
    verdicts = [
        verdict
        for name in GUARDS
        if name in thresholds
        for verdict in [_verdict(thresholds[name], measures, accepted)]
        if verdict is not None
    ]
    told = {verdict.guard for verdict in verdicts if verdict.state != "passed"}
    return [
        verdict for verdict in verdicts if verdict.state == "passed" or _EXPLAINED_BY.get(verdict.guard) not in told
    ]


def refusal(
    verdicts: Sequence[Verdict],
    *,
    file_name: str,
    contract: str,
    as_of: date,
    revision: int,
    others: Sequence[str] = (),
) -> FileRefused | None:
    """The error that names every guard that refuses and the command that accepts them all; None if none does.

    ``others`` are the names of the files that this one was compared with.
    """
    refused = [verdict for verdict in verdicts if verdict.state == "refused"]
    if not refused:
        return None
    overrule = " ".join(f"--accept-guard {verdict.guard}" for verdict in refused)
    again = f" --revision {revision}" if revision > 1 else ""
    return FileRefused(
        file_name,
        [f"{v.guard}: {v.reason} (rule {v.rule_id}, version {v.version})" for v in refused],
        hint=f"Ask for the right export. If the file is right, take it in with `kontor import {shlex.quote(file_name)}"
        f" --contract {shlex.quote(contract)} --as-of {as_of}{again} {overrule} --reason '…'`.",
        others=others,
    )


def check_names(accepted: Collection[str]) -> None:
    """Refuse the name of a guard that there is none of.

    Raises:
        UsageError: naming every unknown name; the hint lists the guards.
    """
    unknown = sorted(set(accepted) - set(GUARDS))
    if unknown:
        raise UsageError(f"There is no guard {', '.join(unknown)}.", hint=f"Guards: {', '.join(GUARDS)}.")


def in_force(rows: Sequence[Mapping[str, object]]) -> dict[str, Threshold]:
    """The threshold of each guard out of rows of ``rules.quality_threshold``: the most specific row of each.

    A row for one sender is more specific than a row for one feed, and that more than a row for all (``*``).
    """
    ranked = sorted(rows, key=lambda row: (row["source"] != "*", row["feed"] != "*"))
    return {
        str(row["guard"]): Threshold(
            guard=str(row["guard"]),
            rule_id=str(row["rule_id"]),
            version=int(str(row["version"])),
            threshold=Decimal(str(row["threshold"])),
            minimum_evidence=int(str(row["minimum_evidence"])),
            window_days=None if row["window_days"] is None else int(str(row["window_days"])),
        )
        for row in ranked
    }


def _verdict(threshold: Threshold, measures: Measures, accepted: Collection[str]) -> Verdict | None:
    guard, contradicts = GUARDS[threshold.guard]
    found = [
        (weighed, _allowed(threshold, weighed.weeks))
        for finding in guard(measures)
        for weighed in [_weighed(threshold, finding)]
        if weighed is not None and _is_near(threshold, measures, weighed)
    ]
    if not found:
        return None
    finding, allowed = contradicts(found, key=lambda pair: pair[0].measured - pair[1])
    state = "passed" if finding.measured <= allowed else "overruled" if threshold.guard in accepted else "refused"
    return Verdict(
        guard=threshold.guard,
        rule_id=threshold.rule_id,
        version=threshold.version,
        state=state,
        measured=finding.measured.quantize(Decimal("0.0001")),
        allowed=allowed.quantize(Decimal("0.0001")),
        evidence=finding.evidence,
        reason=finding.told.replace("{allowed}", _shown_limit(threshold.guard, allowed)),
    )


def _weighed(threshold: Threshold, finding: _Finding) -> _Finding | None:
    if finding.evidence >= threshold.minimum_evidence:
        return finding
    return replace(finding, measured=Decimal(0)) if finding.compared >= threshold.minimum_evidence else None


def _is_near(threshold: Threshold, measures: Measures, finding: _Finding) -> bool:
    if threshold.window_days is None or finding.as_of is None:
        return True
    return abs((measures.as_of - finding.as_of).days) <= threshold.window_days


def _allowed(threshold: Threshold, weeks: int) -> Decimal:
    """What is allowed over that many weeks: half a week's items gone is three quarters in two weeks."""
    if threshold.guard == "vanished_share":
        return 1 - (1 - threshold.threshold) ** weeks
    if threshold.guard in ("row_count", "currency_sums"):
        return threshold.threshold**weeks
    return threshold.threshold


def _shown_limit(guard: str, allowed: Decimal) -> str:
    if guard in ("row_count", "currency_sums"):
        return f"a factor of {_short(allowed)}"
    if guard in ("age", "totals_row", "same_content"):
        return _short(allowed)
    return _percent(allowed)


def _short(value: Decimal) -> str:
    return f"{value.quantize(Decimal('0.01')):f}".removesuffix(".00")


def _percent(share: Decimal) -> str:
    return f"{(share * 100).quantize(Decimal('0.1')):f}".removesuffix(".0") + " %"


def _share(part: int, whole: int) -> Decimal:
    return Decimal(part) / max(whole, 1)


def _weeks(measures: Measures, neighbour: Neighbour) -> int:
    return max(1, -(-abs((measures.as_of - neighbour.as_of).days) // 7))


def _same_content(measures: Measures) -> Iterator[_Finding]:
    if measures.copy_of is not None:
        name, as_of = measures.copy_of
        told = (
            f"it is dated {measures.as_of}, but its content is byte for byte that of {name}, dated {as_of};"
            " {allowed} such files are allowed; probably an old file was sent again"
        )
        yield _Finding(Decimal(1), 1, told)


def _age(measures: Measures) -> Iterator[_Finding]:
    if measures.complete and measures.newest is not None:
        days = (measures.as_of - measures.newest).days
        told = (
            f"its newest document is of {measures.newest}, {days} days before the file's date {measures.as_of};"
            " allowed are {allowed} days; probably an old export under a new date"
        )
        yield _Finding(Decimal(max(days, 0)), measures.rows, told)


def _vanished_share(measures: Measures) -> Iterator[_Finding]:
    for other in measures.neighbours if measures.complete else ():
        weeks = _weeks(measures, other)
        if other.as_of < measures.as_of:
            gone, of, cut = other.absent, other.items, "this file was cut off or filtered, or is one of several parts"
            where = f"the {of} items of {other.file_name} ({other.as_of}) are no longer listed"
        else:
            gone, of = other.fresh, measures.items
            cut = f"this file lists what was paid long ago, or {other.file_name} was cut off"
            where = f"this file's {of} items are not listed any more in {other.file_name} ({other.as_of})"
        told = f"{gone} of {where}, {_percent(_share(gone, of))} in {_span(weeks)}; allowed {{allowed}}; probably {cut}"
        yield _Finding(_share(gone, of), of, told, weeks, other.as_of)


def _row_count(measures: Measures) -> Iterator[_Finding]:
    for other in measures.neighbours if measures.complete else ():
        weeks = _weeks(measures, other)
        first, then = (other.rows, measures.rows) if other.as_of < measures.as_of else (measures.rows, other.rows)
        growth = _share(then, first)
        told = (
            f"{measures.rows} rows beside {other.rows} in {other.file_name} ({other.as_of}): a factor of"
            f" {_short(growth)} in {_span(weeks)}; allowed {{allowed}}; probably two exports in one file, or the"
            " earlier one was cut off"
        )
        yield _Finding(growth, first, told, weeks, other.as_of)


def _currency_sums(measures: Measures) -> Iterator[_Finding]:
    for other in measures.neighbours if measures.complete else ():
        if other.sums is None or measures.sums is None:
            continue
        weeks = _weeks(measures, other)
        for currency in sorted({*other.sums, *measures.sums}):
            here, there = (sums.get(currency, Sums(0, Decimal(0))) for sums in (measures.sums, other.sums))
            told = (
                f"{currency} {here.open_amount:.2f} on {here.rows} rows beside {there.open_amount:.2f} on {there.rows}"
                f" in {other.file_name} ({other.as_of}), {_span(weeks)} apart; allowed {{allowed}}; probably a"
                " currency or a company was left out or added, or a few amounts lost their decimal mark"
            )
            ratio = _ratio(here.open_amount, there.open_amount)
            yield _Finding(ratio, max(here.rows, there.rows), told, weeks, other.as_of)


def _ratio(one: Decimal, other: Decimal) -> Decimal:
    small, large = sorted((one, other))
    if large == 0:
        return Decimal(1)
    return min(large / small, _BEYOND) if small else _BEYOND


def _amounts_scaled(measures: Measures) -> Iterator[_Finding]:
    for other in measures.neighbours:
        factor = "" if other.factor is None else f"{other.factor:f}"
        told = (
            f"{other.scaled} of {other.repriced} changed amounts{other.part} changed by the factor {factor} against"
            f" {other.file_name} ({other.as_of}), which is {_percent(_share(other.scaled, other.repriced))};"
            f" allowed {{allowed}}; probably {_cause_of_factor(other.factor)}"
        )
        yield _Finding(
            _share(other.scaled, other.repriced), other.scaled, told, as_of=other.as_of, compared=other.common
        )


def _cause_of_factor(factor: Decimal | None) -> str:
    if factor is not None and abs(factor) in _SLIPPED:
        return "the decimal mark slipped"
    if factor == -1:
        return "the signs were turned"
    return "a currency conversion"


def _amounts_moved(measures: Measures) -> Iterator[_Finding]:
    for other in measures.neighbours:
        told = (
            f"{other.moved} of {other.common} known items have another amount or remainder than in {other.file_name}"
            f" ({other.as_of}), {_percent(_share(other.moved, other.common))}; allowed {{allowed}}; probably a column"
            " was shifted or another column exported"
        )
        yield _Finding(_share(other.moved, other.common), other.common, told, as_of=other.as_of)


def _dates_swapped(measures: Measures) -> Iterator[_Finding]:
    for other in measures.neighbours:
        told = (
            f"in {other.swapped} of {other.redated} items with another date than in {other.file_name} ({other.as_of})"
            f" day and month have changed places, {_percent(_share(other.swapped, other.redated))};"
            " allowed {allowed}; probably another date format"
        )
        yield _Finding(
            _share(other.swapped, other.redated), other.swapped, told, as_of=other.as_of, compared=other.common
        )


def _dates_moved(measures: Measures) -> Iterator[_Finding]:
    for other in measures.neighbours:
        told = (
            f"{other.redated} of {other.common} known items have another date than in {other.file_name}"
            f" ({other.as_of}), {_percent(_share(other.redated, other.common))}; allowed {{allowed}}; probably another"
            " date column, or dates shifted by the spreadsheet's calendar"
        )
        yield _Finding(_share(other.redated, other.common), other.common, told, as_of=other.as_of)


def _reappearing(measures: Measures) -> Iterator[_Finding]:
    share = _share(measures.reappearing, measures.reappearing_of)
    told = (
        f"{measures.reappearing} of {measures.reappearing_of} items are listed on both sides of a snapshot that lacks"
        f" them, {_percent(share)}; allowed {{allowed}}; probably an old export under a new date, or the snapshot in"
        " between was cut off"
    )
    yield _Finding(share, measures.reappearing_of, told)


def _leading_zeros(measures: Measures) -> Iterator[_Finding]:
    share = _share(measures.zeros, measures.rows)
    told = (
        f"{measures.zeros} of {measures.rows} rows have a number that is known with other zeros in front"
        f"{measures.zero_example}, {_percent(share)}; allowed {{allowed}}; probably a spreadsheet took numbers for"
        " amounts and dropped their zeros"
    )
    yield _Finding(share, measures.zeros, told)


def _totals_row(measures: Measures) -> Iterator[_Finding]:
    for total in measures.totals:
        if total.unreadable:
            continue
        nearest = min(total.sums, key=lambda found: abs(found - total.said))
        currency = f"{total.currency} " if total.currency else ""
        told = (
            f"its totals row says {currency}{total.said:.2f} in {total.column}, its {total.rows} rows add up to"
            f" {nearest:.2f}, off by {abs(nearest - total.said):.2f}; allowed {{allowed}}; probably rows were deleted,"
            " added or changed after the total was written"
        )
        yield _Finding(abs(nearest - total.said), total.rows, told)


def _span(weeks: int) -> str:
    return "a week" if weeks == 1 else f"{weeks} weeks"


def _of_catalog(say: Callable[[CatalogMeasures], Iterator[Said]]) -> Guard:
    def guard(measures: Measures) -> Iterator[_Finding]:
        for said in say(measures.catalog) if measures.catalog is not None else ():
            yield _Finding(said.measured, said.evidence, said.told)

    return guard


_Pick = Callable[..., tuple[_Finding, Decimal]]

# The guards, in the order in which they are told, and which finding speaks for a guard that has several. One bad
# neighbour is enough where items went missing. Where values differ, both must contradict: a file that agrees with
# one side stands on that side of a change that was judged already.
GUARDS: Mapping[str, tuple[Guard, _Pick]] = {
    "same_content": (_same_content, max),
    "age": (_age, max),
    "vanished_share": (_vanished_share, max),
    "row_count": (_row_count, max),
    "currency_sums": (_currency_sums, max),
    "amounts_scaled": (_amounts_scaled, min),
    "amounts_moved": (_amounts_moved, min),
    "dates_swapped": (_dates_swapped, min),
    "dates_moved": (_dates_moved, min),
    "reappearing": (_reappearing, max),
    "leading_zeros": (_leading_zeros, max),
    "totals_row": (_totals_row, max),
    "products_vanished": (_of_catalog(products_vanished), max),
    "prices_scaled": (_of_catalog(prices_scaled), max),
    "prices_jumped": (_of_catalog(prices_jumped), max),
}
