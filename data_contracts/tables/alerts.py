"""Alerts in schema ``ops``: what was wrong with the runs, since when, who was told, and when it was over."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, ForeignKey, Identity, Index, Table, Text, text

from data_contracts.tables.base import metadata

alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", BigInteger, Identity(always=True), primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("flow", Text, nullable=False),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id")),
    Column("cause", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("last_seen_at", DateTime(timezone=True), nullable=False),
    Column("told_at", DateTime(timezone=True)),
    Column("cleared_at", DateTime(timezone=True)),
    Column("told_cleared_at", DateTime(timezone=True)),
    CheckConstraint("kind in ('late', 'missing', 'too_long', 'crashed', 'failed', 'idle', 'silent')", name="kind"),
    CheckConstraint("cleared_at >= opened_at", name="cleared_at"),
    Index("alerts_open_key", "fingerprint", unique=True, postgresql_where=text("cleared_at is null")),
    Index(None, "run_id"),
    schema="ops",
)
