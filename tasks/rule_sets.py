"""Sets of rules as values: what a table says from a day on, what a proposal would change, and what is wrong with it.

A rule is a row of a table of schema ``rules``: its ``rule_id``, its content, and the days on which it holds. Pure: rows
come in as dictionaries whose ``valid`` is a range of dates, and go out the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import ExcludeConstraint, Range

Row = Mapping[str, Any]
_ABOUT = frozenset({"version", "valid", "author", "reason"})
# Facts with dates, not decisions: what was announced late is entered late, and holds from its own day.
DATED_FACTS = frozenset({"reference_rate"})
MATCHED_BY = ("segment", "country", "payer_class", "customer_number", "stage")


@dataclass(frozen=True)
class Change:
    """One rule that a proposal changes: ``kind`` is new, changed or ended; cells are those that differ."""

    rule_id: str
    kind: str
    cells: Mapping[str, tuple[object, object]]


def content_columns(table: Table) -> list[str]:
    """The columns that say what a rule does, in the table's order; its id, version, days and author left out."""
    keys = {column.name for column in table.primary_key.columns}
    return [name for name in table.columns.keys() if name not in keys | _ABOUT]  # noqa: SIM118


def from_day_on(rows: Iterable[Row], day: date) -> list[Row]:
    """The rows that hold on that day or later, by rule and beginning, each cut to begin on the day at the earliest."""
    kept = [
        {**row, "valid": Range(max(row["valid"].lower or day, day), row["valid"].upper)}
        for row in rows
        if row["valid"].upper is None or row["valid"].upper > day
    ]
    return sorted(kept, key=lambda row: (str(row["rule_id"]), row["valid"].lower))


def compare(table: Table, current: Sequence[Row], proposed: Sequence[Row], day: date) -> list[Change]:
    """What would change from ``day`` on if ``proposed`` took the place of ``current``, rule by rule."""
    columns = content_columns(table)
    since = date.min if table.name in DATED_FACTS else day
    before, after = by_rule(from_day_on(current, since)), by_rule(from_day_on(proposed, since))
    changes = []
    for rule_id in sorted(before.keys() | after.keys()):
        old, new = before.get(rule_id, []), after.get(rule_id, [])
        if not same(columns, old, new):
            kind = "new" if not old else "ended" if not new else "changed"
            changes.append(Change(rule_id, kind, _cells(columns, old, new)))
    return changes


def same(columns: Sequence[str], old: Sequence[Row], new: Sequence[Row]) -> bool:
    """Whether two timelines of one rule say the same on every day."""
    return [_said(columns, row) for row in old] == [_said(columns, row) for row in new]


def _said(columns: Sequence[str], row: Row) -> tuple[object, ...]:
    return (row["valid"].lower, row["valid"].upper, *(row[name] for name in columns))


def _cells(columns: Sequence[str], old: Sequence[Row], new: Sequence[Row]) -> dict[str, tuple[object, object]]:
    if len(old) > 1 or len(new) > 1:
        return {"days": (_days(old), _days(new))}
    left, right = (old[0] if old else {}), (new[0] if new else {})
    cells = {name: (left.get(name), right.get(name)) for name in columns if left.get(name) != right.get(name)}
    if old and new and old[0]["valid"] != new[0]["valid"]:
        cells["days"] = (_days(old), _days(new))
    return cells


def _days(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row['valid'].lower or 'ever'} to {last_day(row) or 'further notice'}" for row in rows)


def last_day(row: Row) -> date | None:
    """The last day on which the row holds; None until further notice."""
    upper: date | None = row["valid"].upper
    return upper - timedelta(days=1) if upper is not None else None


def by_rule(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each rule, in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["rule_id"]), []).append(row)
    return found


# --- what is wrong with a set -----------------------------------------------------------------------------------------


def find_faults(
    table: Table, rows: Sequence[Row], others: Mapping[str, Sequence[Row]], since: date = date.min
) -> list[str]:
    """Every gap, overlap and unreachable row of a set, each naming its rules; ``others`` are the sets it works with.

    What must be there on every day has to be there from ``since`` on, until further notice.
    """
    faults = [*_gaps_in_time(rows), *_overlaps(table, rows), *_unreachable_by_rank(table, rows)]
    for check in _CHECKS.get(table.name, ()):
        faults += check(rows, others, since)
    return faults


def find_gaps(table: Table, rows: Sequence[Row], others: Mapping[str, Sequence[Row]], since: date) -> list[str]:
    """The gaps alone: what would leave days or customers without a rule if the set came into force on ``since``."""
    return [fault for fault in find_faults(table, rows, others, since) if fault.startswith("gap:")]


def begins_on(rows: Iterable[Row], today: date) -> date:
    """The day from which a proposed set speaks: today, or later where all of its rows begin later."""
    return max(today, min((row["valid"].lower or date.min for row in rows), default=today))


def _first_gap(rows: Iterable[Row], since: date, until: date | None = None) -> date | None:
    """The first day from ``since`` and before ``until`` on which none of the rows holds; None where one always does."""
    day = since
    for row in sorted(rows, key=lambda row: row["valid"].lower or date.min):
        if (row["valid"].lower or date.min) > day:
            break
        if row["valid"].upper is None:
            return None
        day = max(day, row["valid"].upper)
    return None if until is not None and day >= until else day


def _on(gap: date) -> str:
    return "" if gap == date.min else f" on {gap}"


def _gaps_in_time(rows: Sequence[Row]) -> Iterable[str]:
    for rule_id, versions in by_rule(sorted(rows, key=lambda row: row["valid"].lower or date.min)).items():
        for earlier, later in pairwise(versions):
            end, start = earlier["valid"].upper, later["valid"].lower
            if end is not None and start is not None and end < start:
                yield f"gap: {rule_id} ends on {last_day(earlier)} and goes on only on {start}"


def _overlaps(table: Table, rows: Sequence[Row]) -> Iterable[str]:
    seen: set[tuple[str, str]] = set()
    for constraint in sorted(
        (c for c in table.constraints if isinstance(c, ExcludeConstraint)), key=lambda c: str(c.name)
    ):
        names = [column.name for column in constraint.columns if column.name != "valid"]
        for place, one in enumerate(rows):
            for other in rows[place + 1 :]:
                pair = (str(one["rule_id"]), str(other["rule_id"]))
                if (
                    pair not in seen
                    and all(one[n] == other[n] for n in names)
                    and one["valid"].overlaps(other["valid"])
                ):
                    seen.add(pair)
                    shared = ", ".join(f"{name} {one[name]}" for name in names)
                    yield f"overlap: {pair[0]} and {pair[1]} both hold for {shared} on the same days"


def _unreachable_by_rank(table: Table, rows: Sequence[Row]) -> Iterable[str]:
    """Where the lowest rank decides, a row that an earlier one matches entirely is never asked."""
    matched = [name for name in MATCHED_BY if name in table.columns]
    if "rank" not in table.columns or "*" not in {row[name] for row in rows for name in matched}:
        return
    # Of routes all that match are tried; only the same role twice is one too many.
    also = ("role",) if "role" in table.columns else ()
    ordered = sorted(rows, key=lambda row: int(row["rank"]))
    for place, late in enumerate(ordered):
        for early in ordered[:place]:
            covers = all(early[name] in ("*", late[name]) for name in matched)
            if covers and all(early[name] == late[name] for name in also) and early["valid"].contains(late["valid"]):
                yield f"unreachable: {late['rule_id']} is never asked, {early['rule_id']} matches all of it first"
                break


Check = Callable[[Sequence[Row], Mapping[str, Sequence[Row]], date], Iterable[str]]
_STAGES = ("upcoming", "first", "second", "final")


def _for_everybody(row: Row) -> bool:
    return all(row[name] == "*" for name in MATCHED_BY if name in row and name != "stage")


def _policies_have_an_end(rows: Sequence[Row], _: Mapping[str, Sequence[Row]], since: date) -> Iterable[str]:
    gap = _first_gap(filter(_for_everybody, rows), since)
    if gap is not None:
        yield f"gap: no row matches every customer{_on(gap)}, so some would have no policy"


def _routes_reach_everybody(rows: Sequence[Row], _: Mapping[str, Sequence[Row]], since: date) -> Iterable[str]:
    for stage in _STAGES:
        gap = _first_gap([row for row in rows if _for_everybody(row) and row["stage"] in ("*", stage)], since)
        if gap is not None:
            yield f"gap: no row says of every customer who is written to at stage {stage}{_on(gap)}"


def _ladders_are_climbed(rows: Sequence[Row], others: Mapping[str, Sequence[Row]], since: date) -> Iterable[str]:
    """Ladders of policies and ladders of stages are the same ones, whichever of the two tables is proposed."""
    policies, stages = others.get("reminder_policy", ()), others.get("reminder_stage", ())
    if rows and "offset_days" in rows[0]:
        stages = rows
    else:
        policies = rows
    steps = _by_ladder(stages)
    climbed = _by_ladder(policies)
    for ladder in sorted(climbed.keys() - steps.keys()):
        yield f"gap: policies climb the ladder {ladder}, which has no stage"
    for ladder in sorted(climbed.keys() & steps.keys()):
        gap = min(
            filter(None, (_without_step(policy, steps[ladder], since) for policy in climbed[ladder])), default=None
        )
        if gap is not None:
            yield f"gap: policies climb the ladder {ladder}, which has no stage{_on(gap)}"
    for ladder in sorted(steps.keys() - climbed.keys()):
        yield f"unreachable: no policy climbs the ladder {ladder}"


def _by_ladder(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["ladder"]), []).append(row)
    return found


def _without_step(policy: Row, steps: Sequence[Row], since: date) -> date | None:
    days = policy["valid"]
    start = max(since, days.lower or date.min)
    return _first_gap(steps, start, days.upper) if days.upper is None or days.upper > start else None


_ORDER = {"upcoming": 0, "first": 1, "second": 2, "final": 3}


def _stages_follow_each_other(rows: Sequence[Row], _: Mapping[str, Sequence[Row]], __: date) -> Iterable[str]:
    for early in rows:
        for late in rows:
            follows = early["ladder"] == late["ladder"] and _ORDER[early["stage"]] < _ORDER[late["stage"]]
            if follows and early["valid"].overlaps(late["valid"]) and _offset(early) >= _offset(late):
                yield f"unreachable: {late['rule_id']} is due no later than {early['rule_id']}, the stage before it"


def _offset(row: Row) -> int:
    """Days from the due date to the stage; working days are taken as they are, the least they can come to."""
    return int(row["offset_days"]) + int(row["grace_days"])


def _limits_are_all_there(rows: Sequence[Row], _: Mapping[str, Sequence[Row]], since: date) -> Iterable[str]:
    for guard in ("blast_floor", "blast_radius", "customer_cap", "stale_data"):
        gap = _first_gap([row for row in rows if row["guard"] == guard and row["country"] == "*"], since)
        if gap is not None:
            yield f"gap: {guard} has no row for every country{_on(gap)}"


def _windows_cover_the_world(rows: Sequence[Row], _: Mapping[str, Sequence[Row]], since: date) -> Iterable[str]:
    gap = _first_gap([row for row in rows if row["country"] == "*"], since)
    if gap is not None:
        yield f"gap: no row opens a window{_on(gap)} for countries that have none of their own"


def _rates_follow_each_other(rows: Sequence[Row], _: Mapping[str, Sequence[Row]], __: date) -> Iterable[str]:
    ordered = sorted(rows, key=lambda row: (str(row["rate_name"]), row["valid"].lower or date.min))
    for earlier, later in pairwise(ordered):
        end, start = earlier["valid"].upper, later["valid"].lower
        if earlier["rate_name"] == later["rate_name"] and end and start and end < start:
            yield f"gap: between {earlier['rule_id']} and {later['rule_id']} no rate of {later['rate_name']} is known"


def _classes_have_an_end(rows: Sequence[Row], _: Mapping[str, Sequence[Row]], since: date) -> Iterable[str]:
    always = [row for row in rows if row["metric"] == "always"]
    gap = _first_gap(always, since)
    if gap is not None:
        yield f"gap: no row always holds{_on(gap)}, so some customers would have no class"
    lasting = [int(row["rank"]) for row in always if row["valid"].upper is None]
    for row in rows:
        if lasting and int(row["rank"]) > min(lasting):
            yield f"unreachable: {row['rule_id']} comes after a row that always holds"


_CHECKS: Mapping[str, Sequence[Check]] = {
    "reminder_policy": (_policies_have_an_end, _ladders_are_climbed),
    "reminder_stage": (_ladders_are_climbed, _stages_follow_each_other),
    "contact_routing": (_routes_reach_everybody,),
    "reminder_limit": (_limits_are_all_there,),
    "send_window": (_windows_cover_the_world,),
    "reference_rate": (_rates_follow_each_other,),
    "payer_class": (_classes_have_an_end,),
}
