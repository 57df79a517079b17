"""Schema ``rules``: what people decide, as dated rows. A rule is never edited; a new version takes its place."""

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
from sqlalchemy.dialects.postgresql import DATERANGE, ExcludeConstraint

from data_contracts.tables.base import metadata

PAYER_CLASSES = ("strict", "hesitant", "disloyal", "unrated")
_CLASS_CHECK = "payer_class in ('strict', 'hesitant', 'disloyal', 'unrated')"

payer_class = Table(
    "payer_class",
    metadata,
    Column("payer_class_rule_id", BigInteger, Identity(always=True), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("payer_class", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("threshold", Numeric(12, 4), nullable=False),
    Column("window_months", Integer, nullable=False),
    Column("minimum_evidence", Integer, nullable=False),
    Column("weighting", Text, nullable=False, server_default=text("'count'")),
    Column("leave_out_disputed", Boolean, nullable=False, server_default=text("true")),
    Column("hysteresis", Numeric(12, 4), nullable=False, server_default=text("0")),
    Column("valid", DATERANGE, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    CheckConstraint(_CLASS_CHECK, name="payer_class"),
    CheckConstraint("metric in ('always', 'mean_days_late', 'late_share', 'worst_open_days_overdue')", name="metric"),
    CheckConstraint("operator in ('<', '<=', '>', '>=')", name="operator"),
    CheckConstraint("weighting in ('count', 'amount')", name="weighting"),
    CheckConstraint("window_months between 1 and 120", name="window_months"),
    CheckConstraint("minimum_evidence >= 0 and hysteresis >= 0", name="not_negative"),
    CheckConstraint("not isempty(valid)", name="valid_not_empty"),
    UniqueConstraint("rule_id", "version"),
    ExcludeConstraint(("rule_id", "="), ("valid", "&&"), name="payer_class_one_version"),
    ExcludeConstraint(("rank", "="), ("valid", "&&"), name="payer_class_one_rank"),
    schema="rules",
)

payer_class_override = Table(
    "payer_class_override",
    metadata,
    Column("payer_class_override_id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", BigInteger, ForeignKey("crm.organizations.organization_id"), nullable=False),
    Column("payer_class", Text, nullable=False),
    Column("valid", DATERANGE, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("ended_by", Text),
    Column("end_reason", Text),
    CheckConstraint(_CLASS_CHECK, name="payer_class"),
    CheckConstraint("not isempty(valid) and not upper_inf(valid)", name="expires"),
    CheckConstraint("(ended_by is null) = (end_reason is null)", name="ended"),
    ExcludeConstraint(("organization_id", "="), ("valid", "&&"), name="payer_class_override_no_overlap"),
    Index(None, "organization_id"),
    schema="rules",
)

quality_threshold = Table(
    "quality_threshold",
    metadata,
    Column("quality_threshold_id", BigInteger, Identity(always=True), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("guard", Text, nullable=False),
    Column("feed", Text, nullable=False, server_default=text("'*'")),
    Column("source", Text, nullable=False, server_default=text("'*'")),
    Column("threshold", Numeric(12, 4), nullable=False),
    Column("minimum_evidence", Integer, nullable=False),
    Column("window_days", Integer),
    Column("valid", DATERANGE, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    CheckConstraint("threshold >= 0 and minimum_evidence >= 0", name="not_negative"),
    CheckConstraint("window_days > 0", name="window_days"),
    CheckConstraint("not isempty(valid)", name="valid_not_empty"),
    UniqueConstraint("rule_id", "version"),
    ExcludeConstraint(("rule_id", "="), ("valid", "&&"), name="quality_threshold_one_version"),
    ExcludeConstraint(
        ("guard", "="), ("feed", "="), ("source", "="), ("valid", "&&"), name="quality_threshold_one_in_force"
    ),
    schema="rules",
)
