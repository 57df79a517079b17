"""Which owner was written to in which week: reserved before a letter leaves, so that a second one never does."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, text


def reserve(connection: Connection, owner: str, week: date, incidents: int, run_id: int) -> bool:
    """Reserve the week's letter to an owner; False where it was reserved before. To be committed before it leaves."""
    return bool(
        connection.execute(
            text(
                "insert into ops.quality_nudges (owner, week, incidents, run_id)"
                " values (:owner, :week, :incidents, :run_id) on conflict do nothing"
            ),
            {"owner": owner, "week": week, "incidents": incidents, "run_id": run_id},
        ).rowcount
    )


def is_reserved(connection: Connection, owner: str, week: date) -> bool:
    """Whether the week's letter to an owner has left or may have."""
    return bool(
        connection.scalar(
            text("select exists (select from ops.quality_nudges where owner = :owner and week = :week)"),
            {"owner": owner, "week": week},
        )
    )


def record(connection: Connection, owner: str, week: date, outcome: str) -> None:
    """Keep what became of a letter."""
    connection.execute(
        text("update ops.quality_nudges set outcome = :outcome where owner = :owner and week = :week"),
        {"owner": owner, "week": week, "outcome": outcome},
    )
