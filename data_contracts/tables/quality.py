"""Data quality: the rules in force, what each run found, incidents until they are mended, and duplicates.

An incident belongs to a rule and a record, not to a run: ``fingerprint`` is made of the two, so that the same defect
found again is the same incident. Keys of records for comparison (``crm.*_keys``) are derived and may be made anew at
any time.
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
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DATERANGE, JSONB, ExcludeConstraint

from data_contracts.tables.base import metadata
from data_contracts.tables.crm import contacts, organizations

_SEVERITY_CHECK = "severity in ('info', 'warn', 'fail')"

# A customer who turned out to be another one: its files go on naming it, and what they say is booked on the other.
organizations.append_column(Column("merged_into", BigInteger, ForeignKey("crm.organizations.organization_id")))
organizations.append_constraint(CheckConstraint("merged_into <> organization_id", name="merged_into"))
Index("organizations_merged_into_idx", organizations.c.merged_into)
# A contact who stands twice: files go on naming the other record, and its roles count for the one that is kept.
contacts.append_column(Column("merged_into", BigInteger, ForeignKey("crm.contacts.contact_id", ondelete="SET NULL")))
contacts.append_constraint(CheckConstraint("merged_into <> contact_id", name="merged_into"))
Index("contacts_merged_into_idx", contacts.c.merged_into)


def _rule_columns() -> list[Column[object]]:
    return [
        Column("valid", DATERANGE, nullable=False),
        Column("author", Text, nullable=False),
        Column("reason", Text, nullable=False),
    ]


quality_rule = Table(
    "quality_rule",
    metadata,
    Column("quality_rule_id", BigInteger, Identity(always=True), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("contract", Text, nullable=False),
    Column("dimension", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("account_owner_first", Boolean, nullable=False),
    Column("tolerance_percent", Numeric(7, 4), nullable=False),
    Column("threshold", Numeric(12, 4)),
    Column("due_days", Integer, nullable=False),
    Column("meaning", Text, nullable=False),
    *_rule_columns(),
    CheckConstraint(_SEVERITY_CHECK, name="severity"),
    CheckConstraint("tolerance_percent between 0 and 100", name="tolerance_percent"),
    CheckConstraint("due_days between 0 and 3650", name="due_days"),
    CheckConstraint("not isempty(valid)", name="valid_not_empty"),
    UniqueConstraint("rule_id", "version"),
    ExcludeConstraint(("rule_id", "="), ("valid", "&&"), name="quality_rule_one_version"),
    schema="rules",
)

quality_requirement = Table(
    "quality_requirement",
    metadata,
    Column("quality_requirement_id", BigInteger, Identity(always=True), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("flow", Text, nullable=False),
    Column("required_rule", Text, nullable=False),
    *_rule_columns(),
    CheckConstraint("not isempty(valid)", name="valid_not_empty"),
    UniqueConstraint("rule_id", "version"),
    ExcludeConstraint(("rule_id", "="), ("valid", "&&"), name="quality_requirement_one_version"),
    schema="rules",
)

duplicate_rule = Table(
    "duplicate_rule",
    metadata,
    Column("duplicate_rule_id", BigInteger, Identity(always=True), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("entity", Text, nullable=False),
    Column("matched_by", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("threshold", Numeric(5, 4), nullable=False),
    *_rule_columns(),
    CheckConstraint("entity in ('organization', 'contact', 'product')", name="entity"),
    CheckConstraint("matched_by in ('vat', 'name', 'email', 'phone', 'gtin')", name="matched_by"),
    CheckConstraint("action in ('block', 'warn', 'off')", name="action"),
    CheckConstraint("threshold between 0 and 1", name="threshold"),
    CheckConstraint("not isempty(valid)", name="valid_not_empty"),
    UniqueConstraint("rule_id", "version"),
    ExcludeConstraint(("rule_id", "="), ("valid", "&&"), name="duplicate_rule_one_version"),
    ExcludeConstraint(("entity", "="), ("matched_by", "="), ("valid", "&&"), name="duplicate_rule_one_in_force"),
    schema="rules",
)

quality_results = Table(
    "quality_results",
    metadata,
    Column("quality_result_id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id"), nullable=False),
    Column("rule_id", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("contract", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("dimension", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("engine", Text, nullable=False, server_default=text("'sql'")),
    Column("state", Text, nullable=False),
    Column("rows_checked", BigInteger),
    Column("failing", BigInteger),
    Column("tolerance_percent", Numeric(7, 4), nullable=False),
    Column("error", Text),
    Column("as_of", Date, nullable=False),
    Column("measured_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint(_SEVERITY_CHECK, name="severity"),
    CheckConstraint("engine in ('sql', 'great_expectations')", name="engine"),
    CheckConstraint("state in ('pass', 'fail', 'error')", name="state"),
    CheckConstraint("(state = 'error') = (error is not null)", name="error"),
    CheckConstraint("(state = 'error') = (failing is null)", name="failing"),
    UniqueConstraint("run_id", "rule_id", "engine"),
    Index("quality_results_rule_id_measured_at_idx", "rule_id", "measured_at"),
    schema="ops",
)

quality_measures = Table(
    "quality_measures",
    metadata,
    Column("contract", Text, primary_key=True),
    Column("measure", Text, primary_key=True),
    Column("as_of", Date, primary_key=True),
    Column("value", Numeric, nullable=False),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id"), nullable=False),
    Index(None, "run_id"),
    schema="ops",
)

quality_incidents = Table(
    "quality_incidents",
    metadata,
    Column("incident_id", BigInteger, Identity(always=True), primary_key=True),
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("rule_id", Text, nullable=False),
    Column("contract", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("record_key", Text, nullable=False),
    Column("record_id", BigInteger),
    Column("organization_id", BigInteger, ForeignKey("crm.organizations.organization_id", ondelete="SET NULL")),
    Column("reason", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    Column("first_seen", Date, nullable=False),
    Column("last_seen", Date, nullable=False),
    Column("occurrences", Integer, nullable=False, server_default=text("1")),
    Column("regressions", Integer, nullable=False, server_default=text("0")),
    Column("due_on", Date, nullable=False),
    Column("money", JSONB, nullable=False, server_default=text("'{}'")),
    Column("waived_until", Date),
    Column("closed_on", Date),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id"), nullable=False),
    CheckConstraint(_SEVERITY_CHECK, name="severity"),
    CheckConstraint("state in ('open', 'waived', 'closed')", name="state"),
    CheckConstraint("(state = 'closed') = (closed_on is not null)", name="closed_on"),
    CheckConstraint("(state = 'waived') = (waived_until is not null)", name="waived_until"),
    CheckConstraint("first_seen <= last_seen and occurrences >= 1 and regressions >= 0", name="seen"),
    Index("quality_incidents_standing_idx", "rule_id", postgresql_where=text("state <> 'closed'")),
    Index(None, "organization_id"),
    Index(None, "run_id"),
    schema="ops",
)

quality_incident_events = Table(
    "quality_incident_events",
    metadata,
    Column("event_id", BigInteger, Identity(always=True), primary_key=True),
    Column("incident_id", BigInteger, ForeignKey("ops.quality_incidents.incident_id"), nullable=False),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id")),
    Column("event", Text, nullable=False),
    Column("happened_on", Date, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("event in ('opened', 'reopened', 'corrected', 'closed', 'waived', 'waiver_ended')", name="event"),
    Index(None, "incident_id"),
    Index(None, "run_id"),
    schema="ops",
)

quality_nudges = Table(
    "quality_nudges",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("week", Date, primary_key=True),
    Column("incidents", Integer, nullable=False),
    Column("outcome", Text, nullable=False, server_default=text("'reserved'")),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id"), nullable=False),
    Column("reserved_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("extract(isodow from week) = 1", name="week"),
    CheckConstraint("outcome in ('reserved', 'sent', 'held', 'deferred', 'refused', 'unknown')", name="outcome"),
    Index(None, "run_id"),
    schema="ops",
)

organization_keys = Table(
    "organization_keys",
    metadata,
    Column(
        "organization_id",
        BigInteger,
        ForeignKey("crm.organizations.organization_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("made_of", Text, nullable=False),
    Column("name_key", Text),
    Column("vat_key", Text),
    Index(None, "vat_key", postgresql_where=text("vat_key is not null")),
    Index(
        "organization_keys_name_key_idx",
        "name_key",
        postgresql_using="gin",
        postgresql_ops={"name_key": "gin_trgm_ops"},
    ),
    schema="crm",
)

contact_keys = Table(
    "contact_keys",
    metadata,
    Column("contact_id", BigInteger, ForeignKey("crm.contacts.contact_id", ondelete="CASCADE"), primary_key=True),
    Column("made_of", Text, nullable=False),
    Column("name_key", Text),
    Column("email_key", Text),
    Column("phone_key", Text),
    Index(None, "email_key", postgresql_where=text("email_key is not null")),
    Index(None, "phone_key", postgresql_where=text("phone_key is not null")),
    Index(
        "contact_keys_name_key_idx",
        "name_key",
        postgresql_using="gin",
        postgresql_ops={"name_key": "gin_trgm_ops"},
    ),
    schema="crm",
)

product_keys = Table(
    "product_keys",
    metadata,
    Column("product_id", BigInteger, ForeignKey("crm.products.product_id", ondelete="CASCADE"), primary_key=True),
    Column("made_of", Text, nullable=False),
    Column("name_key", Text),
    Column("figures", Text),
    Column("block_key", Text),
    Column("gtin_key", Text),
    schema="crm",
)

duplicate_pairs = Table(
    "duplicate_pairs",
    metadata,
    Column("pair_id", BigInteger, Identity(always=True), primary_key=True),
    Column("entity", Text, nullable=False),
    Column("left_id", BigInteger, nullable=False),
    Column("right_id", BigInteger, nullable=False),
    Column("score", Numeric(5, 4), nullable=False),
    Column("fields", JSONB, nullable=False),
    Column("matched_by", ARRAY(Text), nullable=False),
    Column("decision", Text, nullable=False, server_default=text("'open'")),
    Column("decided_by", Text),
    Column("decided_at", DateTime(timezone=True)),
    Column("reason", Text),
    Column("found_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id")),
    CheckConstraint("entity in ('organization', 'contact', 'product')", name="entity"),
    CheckConstraint("left_id < right_id", name="ordered"),
    CheckConstraint("decision in ('open', 'same', 'different', 'related')", name="decision"),
    CheckConstraint("(decision = 'open') = (decided_by is null)", name="decided_by"),
    UniqueConstraint("entity", "left_id", "right_id"),
    Index(None, "run_id"),
    schema="ops",
)

duplicate_merges = Table(
    "duplicate_merges",
    metadata,
    Column("merge_id", BigInteger, Identity(always=True), primary_key=True),
    Column("pair_id", BigInteger, ForeignKey("ops.duplicate_pairs.pair_id"), nullable=False),
    Column("entity", Text, nullable=False),
    Column("kept_id", BigInteger, nullable=False),
    Column("merged_id", BigInteger, nullable=False),
    Column("values_before", JSONB, nullable=False),
    Column("values_after", JSONB, nullable=False),
    Column("moved", JSONB, nullable=False),
    Column("actor", Text, nullable=False),
    Column("merged_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("undone_by", Text),
    Column("undone_at", DateTime(timezone=True)),
    CheckConstraint("entity in ('organization', 'contact')", name="entity"),
    CheckConstraint("kept_id <> merged_id", name="two_records"),
    CheckConstraint("(undone_by is null) = (undone_at is null)", name="undone"),
    Index(None, "pair_id"),
    schema="ops",
)
