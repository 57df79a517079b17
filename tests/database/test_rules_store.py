"""Drafts and versions in the database: nothing works by a draft, old versions stay readable, nothing is edited."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import Range

from configs.settings import Settings
from tasks import database
from tasks.errors import BadInput, Refused, UsageError
from tasks.reminders.rules_store import fetch_rulebook
from tasks.rules_store import (
    activate,
    as_csv,
    current_set,
    fetch_draft,
    fetch_drafts,
    fetch_rules,
    import_draft,
    read_draft,
    rule_table,
)

LIMITS = rule_table("reminder_limit")
TODAY = date(2026, 6, 1)
NOW = datetime(2026, 6, 1, 9, tzinfo=UTC)
LATER = date(2026, 7, 1)


@pytest.fixture
def owner(kontor_settings: Settings) -> Iterator[Connection]:
    """A connection as the owner; nothing of it stays."""
    with database.engine_for(kontor_settings, database.OWNER).connect() as connection:
        yield connection


def _import(owner: Connection, folder: Path, **cells: dict[str, Any]) -> int:
    """Import the limits as they stand, with these cells changed per rule."""
    rows = [{**row, **cells.get(row["rule_id"], {})} for row in current_set(owner, LIMITS, TODAY)]
    path = folder / "reminder_limit.csv"
    path.write_text(as_csv(LIMITS, rows), "utf-8")
    return import_draft(owner, LIMITS, read_draft(owner, path, LIMITS), author="ann", reason="try", now=NOW)


def _activate(owner: Connection, day: date = TODAY) -> list[str]:
    changes = activate(owner, LIMITS, day, author="ann", reason="it was too strict", today=TODAY, now=NOW)
    return [f"{change.kind} {change.rule_id}" for change in changes]


def _cap(owner: Connection, day: date) -> Decimal:
    limit = fetch_rulebook(owner, day).limit("customer_cap")
    assert limit is not None
    return limit.threshold


def test_a_draft_changes_nothing_until_it_is_activated(owner: Connection, tmp_path: Path) -> None:
    """Activated, the new version holds from its day on, and the old one until the day before."""
    _import(owner, tmp_path, customer_cap={"threshold": 1})
    assert _cap(owner, LATER) == 2
    assert fetch_draft(owner, LIMITS).author == "ann"
    assert _activate(owner, LATER) == ["changed customer_cap"]
    assert [_cap(owner, date(2026, 6, 30)), _cap(owner, LATER)] == [2, 1]
    versions = [row for row in fetch_rules(owner, LIMITS) if row["rule_id"] == "customer_cap"]
    assert [(row["version"], row["author"], row["reason"]) for row in versions][1] == (2, "ann", "it was too strict")
    assert [versions[0]["valid"].upper, versions[1]["valid"].lower] == [LATER, LATER]
    assert len([row for row in fetch_rules(owner, LIMITS) if row["version"] > 1]) == 1
    assert [draft.state for draft in fetch_drafts(owner, None)] == ["activated"]


def test_a_version_that_has_not_begun_is_replaced_and_one_that_began_today_is_not(
    owner: Connection, tmp_path: Path
) -> None:
    """What nobody has decided by may go; what may have been decided by today stays until tomorrow."""
    _import(owner, tmp_path, customer_cap={"threshold": 1})
    _activate(owner, LATER)
    _import(owner, tmp_path, customer_cap={"threshold": 3})
    _activate(owner, TODAY)
    assert [_cap(owner, TODAY), _cap(owner, LATER)] == [3, 3]
    _import(owner, tmp_path, customer_cap={"threshold": 4})
    with pytest.raises(Refused, match="began on 2026-06-01") as refused:
        _activate(owner, TODAY)
    assert "--from 2026-06-02" in refused.value.hint


def test_a_set_with_faults_is_refused_whole_and_every_fault_is_named(owner: Connection, tmp_path: Path) -> None:
    """Cells, constraints of the table, and gaps: each by its rule; no draft is left behind."""
    with pytest.raises(BadInput, match="customer_cap: the table's constraint reminder_limit_not_negative_check"):
        _import(owner, tmp_path, customer_cap={"threshold": -1})
    path = tmp_path / "reminder_limit.csv"
    rows = [row for row in current_set(owner, LIMITS, TODAY) if row["rule_id"] not in ("stale_data", "blast_floor")]
    path.write_text(as_csv(LIMITS, rows), "utf-8")
    with pytest.raises(BadInput) as refused:
        read_draft(owner, path, LIMITS)
    assert all(guard in refused.value.message for guard in ("stale_data", "blast_floor"))
    assert fetch_drafts(owner, None) == []


def test_no_set_comes_into_force_that_leaves_days_or_customers_without_a_rule(
    owner: Connection, tmp_path: Path
) -> None:
    """Checked again for the day and beside what is in force then: a ladder's stages first, then who climbs it."""

    def draft(name: str, ladder: str, days: Range[date]) -> None:
        table, path = rule_table(name), tmp_path / f"{name}.csv"
        rows = [
            {**row, "ladder": ladder, "valid": days} if row["ladder"] == "firm" else row
            for row in current_set(owner, table, TODAY)
        ]
        path.write_text(as_csv(table, rows), "utf-8")
        import_draft(owner, table, read_draft(owner, path, table), author="ann", reason="try", now=NOW)

    def into_force(name: str, day: date) -> None:
        activate(owner, rule_table(name), day, author="ann", reason="try", today=TODAY, now=NOW)

    later: Range[date] = Range(date(2999, 7, 1), None)
    always: Range[date] = Range(None, None)
    with pytest.raises(BadInput, match="policies climb the ladder firm, which has no stage on"):
        draft("reminder_stage", "firm", later)
    import_draft(owner, LIMITS, [{**r, "valid": later} for r in fetch_rules(owner, LIMITS)], author="ann", reason="try",
                 now=NOW)  # fmt: skip
    with pytest.raises(Refused, match=f"stale_data has no row for every country on {LATER}"):
        into_force("reminder_limit", LATER)
    stages = rule_table("reminder_stage")
    steep = [{**row, "ladder": "steep"} if row["ladder"] == "firm" else row for row in fetch_rules(owner, stages)]
    import_draft(owner, stages, steep, author="ann", reason="try", now=NOW)
    draft("reminder_policy", "steep", always)
    for name in ("reminder_policy", "reminder_stage"):
        with pytest.raises(Refused, match=r"climb the ladder (steep|firm), which has no stage"):
            into_force(name, LATER)
    both = [{**row, "rule_id": f"new_{row['rule_id']}"} for row in steep if row["ladder"] == "steep"]
    import_draft(owner, stages, [*fetch_rules(owner, stages), *both], author="ann", reason="try", now=NOW)
    into_force("reminder_stage", LATER)
    into_force("reminder_policy", LATER)
    assert "steep" in {policy.ladder for policy in fetch_rulebook(owner, LATER).policies}


def test_rules_change_for_a_reason_and_never_in_the_past(owner: Connection, tmp_path: Path) -> None:
    """No reason, a day that has passed, or no draft: each is refused and nothing changes."""
    with pytest.raises(UsageError, match="no draft"):
        _activate(owner)
    _import(owner, tmp_path, customer_cap={"threshold": 1})
    with pytest.raises(UsageError, match="has passed"):
        _activate(owner, date(2026, 5, 31))
    with pytest.raises(UsageError, match="reason"):
        activate(owner, LIMITS, TODAY, author="ann", reason=" ", today=TODAY, now=NOW)
    assert _cap(owner, TODAY) == 2


def test_a_rate_that_was_announced_late_holds_from_its_own_day_and_old_ones_stay(
    owner: Connection, tmp_path: Path
) -> None:
    """A new period is entered with its past days; a period that has passed cannot be changed."""
    table = rule_table("reference_rate")
    rows = current_set(owner, table, TODAY)
    late = {**next(row for row in rows if row["rule_id"] == "se_2025_2"), "rule_id": "se_2026_1", "percent": "1.75"}
    path = tmp_path / "reference_rate.csv"

    def take(new: list[Any]) -> list[str]:
        path.write_text(as_csv(table, new), "utf-8")
        import_draft(owner, table, read_draft(owner, path, table), author="ann", reason="x", now=NOW)
        done = activate(owner, table, TODAY, author="ann", reason="announced", today=TODAY, now=NOW)
        return [f"{change.kind} {change.rule_id}" for change in done]

    period = late["valid"].__class__(date(2026, 1, 1), date(2026, 7, 1))
    assert take([*rows, {**late, "valid": period}]) == ["new se_2026_1"]
    held = {row["rule_id"]: row["valid"] for row in fetch_rules(owner, table)}
    assert held["se_2026_1"].lower == date(2026, 1, 1)
    changed = [{**row, "percent": "9.99"} if row["rule_id"] == "de_2024_1" else row for row in rows]
    with pytest.raises(Refused, match="held in the past"):
        take(changed)
