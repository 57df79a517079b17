"""Retention: policies and holds as rows, plans of what goes, requests, and the database's copy of the erasure ledger.

A policy is never edited; a new version takes its place. A hold keeps every row of its subject until it is released. A
plan is what a purge may do, and nothing else. ``erasure_ledger`` and ``erased_subjects`` mirror the file outside the
database (tasks/erasures/ledger_file.py); where the two differ the file is right.
"""

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
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DATERANGE, JSONB, ExcludeConstraint

from data_contracts.tables.base import metadata

retention_policy = Table(
    "retention_policy",
    metadata,
    Column("retention_policy_id", BigInteger, Identity(always=True), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("entity", Text, nullable=False),
    Column("country", Text, nullable=False, server_default=text("'*'")),
    Column("purpose", Text, nullable=False),
    Column("legal_basis", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("clock", Text, nullable=False),
    Column("period_months", Integer, nullable=False),
    Column("period_days", Integer, nullable=False, server_default=text("0")),
    Column("from_year_end", Boolean, nullable=False, server_default=text("false")),
    Column("action", Text, nullable=False),
    Column("columns", Text, nullable=False),
    Column("largest_share", Numeric(5, 4), nullable=False, server_default=text("0.1")),
    Column("always_allowed", Integer, nullable=False, server_default=text("100")),
    Column("owner", Text, nullable=False),
    Column("valid", DATERANGE, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    CheckConstraint("country = '*' or country ~ '^[A-Z]{2}$'", name="country"),
    CheckConstraint("period_months between 0 and 1200 and period_days between 0 and 36500", name="period"),
    CheckConstraint("largest_share between 0 and 1 and always_allowed >= 0", name="cap"),
    CheckConstraint("action in ('delete', 'anonymise', 'keep')", name="action"),
    CheckConstraint("not isempty(valid)", name="valid_not_empty"),
    UniqueConstraint("rule_id", "version"),
    ExcludeConstraint(("rule_id", "="), ("valid", "&&"), name="retention_policy_one_version"),
    ExcludeConstraint(("position", "="), ("valid", "&&"), name="retention_policy_one_position"),
    schema="rules",
)

legal_holds = Table(
    "legal_holds",
    metadata,
    Column("hold_id", BigInteger, Identity(always=True), primary_key=True),
    Column("reference", Uuid, nullable=False, unique=True, server_default=text("gen_random_uuid()")),
    Column("case_number", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("subject", Uuid, nullable=False),
    Column("reason", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("placed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("review_on", Date, nullable=False),
    Column("released_at", DateTime(timezone=True)),
    Column("released_by", Text),
    Column("release_reason", Text),
    CheckConstraint("entity in ('crm.organizations', 'crm.contacts')", name="entity"),
    CheckConstraint(
        "(released_at is null) = (released_by is null) and (released_at is null) = (release_reason is null)",
        name="released",
    ),
    Index("legal_holds_standing_idx", "subject", postgresql_where=text("released_at is null")),
    schema="ops",
)

retention_plans = Table(
    "retention_plans",
    metadata,
    Column("plan_id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id", ondelete="CASCADE"), nullable=False),
    Column("as_of", Date, nullable=False),
    Column("policies_sha256", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'planned'")),
    Column("needs_approval", Boolean, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", DateTime(timezone=True), nullable=False),
    Column("approved_by", Text),
    Column("approved_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("state in ('planned', 'approved', 'applying', 'applied', 'withdrawn')", name="state"),
    CheckConstraint("(approved_by is null) = (approved_at is null)", name="approved"),
    CheckConstraint("approved_by <> made_by", name="second_person"),
    Index(None, "run_id"),
    schema="ops",
)

retention_plan_items = Table(
    "retention_plan_items",
    metadata,
    Column("plan_id", BigInteger, ForeignKey("ops.retention_plans.plan_id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("entity", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("horizon", Date, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("sample_ids", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    Column("estimated_bytes", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False, server_default=text("0")),
    Column("reached", BigInteger, nullable=False, server_default=text("0")),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("strategy in ('keyset', 'pages', 'files')", name="strategy"),
    CheckConstraint("least(stored, due, held, done, estimated_bytes) >= 0", name="counts"),
    schema="ops",
)

erasure_requests = Table(
    "erasure_requests",
    metadata,
    Column("request_id", BigInteger, Identity(always=True), primary_key=True),
    Column("reference", Uuid, nullable=False, unique=True, server_default=text("gen_random_uuid()")),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("found", JSONB, nullable=False, server_default=text("'{}'")),
    Column("erased", JSONB, nullable=False, server_default=text("'{}'")),
    Column("left_standing", JSONB, nullable=False, server_default=text("'{}'")),
    Column("certificate", Text),
    Column("ended_at", DateTime(timezone=True)),
    CheckConstraint("state in ('open', 'erased', 'incomplete')", name="state"),
    CheckConstraint("(state = 'open') = (ended_at is null)", name="ended_at"),
    schema="ops",
)

erasure_ledger = Table(
    "erasure_ledger",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("rule_id", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("reference", Text, nullable=False),
    Column("subjects", Integer, nullable=False),
    Column("line_sha256", Text, nullable=False),
    CheckConstraint("kind in ('erasure', 'request', 'void', 'hold', 'release')", name="kind"),
    schema="ops",
)

erased_subjects = Table(
    "erased_subjects",
    metadata,
    Column("erased_subject_id", BigInteger, Identity(always=True), primary_key=True),
    Column("sequence", BigInteger, ForeignKey("ops.erasure_ledger.sequence", ondelete="CASCADE"), nullable=False),
    Column("entity", Text, nullable=False),
    Column("external_id", Uuid),
    Column("key_hash", Text),
    Column("address_hash", Text),
    Index(None, "sequence"),
    Index("erased_subjects_key_hash_idx", "key_hash"),
    Index("erased_subjects_address_hash_idx", "address_hash"),
    schema="ops",
)

privacy_letters = Table(
    "privacy_letters",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id", ondelete="CASCADE"), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    CheckConstraint("kind in ('month', 'unusual')", name="kind"),
    Index(None, "run_id"),
    schema="ops",
)

egress_log = Table(
    "egress_log",
    metadata,
    Column("egress_id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", DateTime(timezone=True), primary_key=True),
    Column("actor", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    Column("personal_columns", ARRAY(Text), nullable=False),
    Index("egress_log_at_idx", "at"),
    schema="ops",
    postgresql_partition_by="RANGE (at)",  # by month: ops.prepare_months
)
