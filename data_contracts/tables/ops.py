"""Schema ``ops``: what Kontor itself did, decided and is set to."""

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
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from data_contracts.tables.base import metadata

installation = Table(
    "installation",
    metadata,
    Column("installation_id", Integer, primary_key=True, server_default=text("1")),
    Column("business_timezone", Text, nullable=False),
    Column("views_sha256", Text, nullable=False),
    CheckConstraint("installation_id = 1", name="one_row"),
    schema="ops",
)

run_ledger = Table(
    "run_ledger",
    metadata,
    Column("run_id", BigInteger, Identity(always=True), primary_key=True),
    Column("flow", Text, nullable=False),
    Column("prefect_run_id", Uuid),
    Column("actor", Text, nullable=False),
    Column("as_of", Date, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'running'")),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'")),
    Column("error_code", Text),
    Column("host", Text, nullable=False),
    Column("process_id", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("state in ('running', 'done', 'partly_done', 'failed', 'abandoned')", name="state"),
    CheckConstraint("(state = 'running') = (ended_at is null)", name="ended_at"),
    Index("run_ledger_flow_started_at_idx", "flow", "started_at"),
    schema="ops",
)

instructions = Table(
    "instructions",
    metadata,
    Column("instruction_id", Uuid, primary_key=True),
    Column("flow", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("said", JSONB, nullable=False),
    Column("given_at", DateTime(timezone=True), nullable=False),
    schema="ops",
)

payer_class_history = Table(
    "payer_class_history",
    metadata,
    Column(
        "organization_id",
        BigInteger,
        ForeignKey("crm.organizations.organization_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("valid_from", Date, primary_key=True),
    Column("valid_until", Date),
    Column("payer_class", Text, nullable=False),
    Column("rule_id", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("figures", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    Column("decided_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("payer_class in ('strict', 'hesitant', 'disloyal', 'unrated')", name="payer_class"),
    CheckConstraint("valid_from < valid_until", name="valid"),
    Index(
        "payer_class_history_current_key",
        "organization_id",
        unique=True,
        postgresql_where=text("valid_until is null"),
    ),
    schema="ops",
)
