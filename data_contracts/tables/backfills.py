"""Backfills in schema ``ops``: what was asked for, and what became of every window of it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DATERANGE, JSONB, ExcludeConstraint

from data_contracts.tables.base import metadata

backfills = Table(
    "backfills",
    metadata,
    Column("backfill_id", BigInteger, Identity(always=True), primary_key=True),
    Column("flow", Text, nullable=False),
    Column("period", DATERANGE, nullable=False),
    Column("every", Text, nullable=False),
    Column("excluded_days", ARRAY(Date), nullable=False, server_default=text("'{}'")),
    Column("newest_first", Boolean, nullable=False, server_default=text("false")),
    Column("concurrency", SmallInteger, nullable=False, server_default=text("2")),
    Column("runs_apart", Boolean, nullable=False, server_default=text("false")),
    Column("reprocess", Text, nullable=False),
    Column("source_folder", Text),
    Column("reason", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'waiting'")),
    Column("figures_before", JSONB, nullable=False, server_default=text("'{}'")),
    Column("figures_after", JSONB),
    Column("requested_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("every in ('day', 'week', 'month')", name="every"),
    CheckConstraint("concurrency between 1 and 8", name="concurrency"),
    CheckConstraint("reprocess in ('missing', 'failed', 'all')", name="reprocess"),
    CheckConstraint("state in ('waiting', 'running', 'paused', 'cancelled', 'done', 'failed')", name="state"),
    CheckConstraint("not isempty(period) and not lower_inf(period) and not upper_inf(period)", name="period"),
    CheckConstraint("(state in ('cancelled', 'done', 'failed')) = (ended_at is not null)", name="ended_at"),
    CheckConstraint("reason <> ''", name="reason"),
    # Two requests that still have work before them never cover the same day of the same flow.
    ExcludeConstraint(
        ("flow", "="),
        ("period", "&&"),
        name="backfills_no_overlap",
        where=text("state in ('waiting', 'running', 'paused')"),
    ),
    schema="ops",
)

backfill_windows = Table(
    "backfill_windows",
    metadata,
    Column("backfill_id", BigInteger, ForeignKey("ops.backfills.backfill_id", ondelete="CASCADE"), primary_key=True),
    Column("window_number", Integer, primary_key=True),
    Column("from_on", Date, nullable=False),
    Column("to_on", Date, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'waiting'")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id")),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'")),
    Column("error_code", Text),
    Column("started_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("state in ('waiting', 'running', 'done', 'failed', 'skipped')", name="state"),
    CheckConstraint("from_on <= to_on", name="days"),
    CheckConstraint("attempts >= 0", name="attempts"),
    Index(None, "run_id"),
    schema="ops",
)
