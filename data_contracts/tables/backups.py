"""Backups, the checks of them, the beats that prove an instant, and the rules by which backups are kept.

The catalogue on the backup target is the truth; these tables mirror it for reports, since a restored database knows
nothing of the backups that were made after it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import DATERANGE, JSONB, ExcludeConstraint

from data_contracts.tables.base import metadata

backups = Table(
    "backups",
    metadata,
    Column("backup_id", BigInteger, Identity(always=True), primary_key=True),
    Column("label", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("base_label", Text),
    Column("engine", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'running'")),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id", ondelete="SET NULL")),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("server_version", Integer),
    Column("point_at", DateTime(timezone=True)),
    Column("source_bytes", BigInteger),
    Column("stored_bytes", BigInteger),
    Column("table_count", Integer),
    Column("row_count", BigInteger),
    Column("error_code", Text),
    UniqueConstraint("label"),
    CheckConstraint("kind in ('full', 'incremental')", name="kind"),
    CheckConstraint("(kind = 'incremental') = (base_label is not null)", name="base_label"),
    CheckConstraint("state in ('running', 'done', 'failed', 'abandoned', 'pruned', 'missing')", name="state"),
    CheckConstraint("(state = 'running') = (ended_at is null)", name="ended_at"),
    Index(None, "run_id"),
    Index(None, "started_at"),
    schema="ops",
)

restore_checks = Table(
    "restore_checks",
    metadata,
    Column("restore_check_id", BigInteger, Identity(always=True), primary_key=True),
    Column("backup_id", BigInteger, ForeignKey("ops.backups.backup_id", ondelete="CASCADE"), nullable=False),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id", ondelete="SET NULL")),
    Column("state", Text, nullable=False),
    Column("checked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("findings", JSONB, nullable=False, server_default=text("'[]'")),
    Column("instant", DateTime(timezone=True)),
    Column("planted", Text),
    Column("planted_caught", Boolean),
    Column("restore_seconds", Numeric(12, 3)),
    Column("total_seconds", Numeric(12, 3)),
    UniqueConstraint("backup_id", "checked_at"),
    CheckConstraint("state in ('passed', 'failed')", name="state"),
    Index(None, "run_id"),
    schema="ops",
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("heartbeat_id", BigInteger, Identity(always=True), primary_key=True),
    Column("beat_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Index(None, "beat_at"),
    schema="ops",
)

backup_policy = Table(
    "backup_policy",
    metadata,
    Column("backup_policy_id", BigInteger, Identity(always=True), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("full_every_days", Integer, nullable=False),
    Column("recovery_window_days", Integer, nullable=False),
    Column("keep_daily", Integer, nullable=False),
    Column("keep_weekly", Integer, nullable=False),
    Column("keep_monthly", Integer, nullable=False),
    Column("minimum_good", Integer, nullable=False),
    Column("silent_after_hours", Integer, nullable=False),
    Column("valid", DATERANGE, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    CheckConstraint("keep_daily >= 0 and keep_weekly >= 0 and keep_monthly >= 0", name="not_negative"),
    CheckConstraint("full_every_days >= 1 and recovery_window_days >= 1", name="at_least_a_day"),
    CheckConstraint("minimum_good >= 1 and silent_after_hours >= 1", name="at_least_one"),
    CheckConstraint("not isempty(valid)", name="valid_not_empty"),
    UniqueConstraint("rule_id", "version"),
    ExcludeConstraint(("valid", "&&"), name="backup_policy_one_in_force"),
    schema="rules",
)
