"""Schema ``landing``: what people changed in quarantined rows, and the rows they gave up. Flows may only add to it."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, ForeignKey, Identity, Index, Table, Text, func

from data_contracts.tables.base import metadata

corrections = Table(
    "corrections",
    metadata,
    Column("correction_id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "quarantined_row_id",
        BigInteger,
        ForeignKey("landing.quarantined_rows.quarantined_row_id"),
        nullable=False,
    ),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id"), nullable=False),
    Column("actor", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("column_name", Text),
    Column("old_value", Text),
    Column("new_value", Text),
    Column("reason", Text),
    Column("corrected_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("outcome in ('taken_in', 'still_wrong', 'rejected')", name="outcome"),
    CheckConstraint("(outcome = 'rejected') = (column_name is null)", name="column_name"),
    CheckConstraint("(outcome = 'rejected') = (reason is not null)", name="reason"),
    Index(None, "quarantined_row_id"),
    Index(None, "run_id"),
    schema="landing",
)
