"""Data quality: rules, results, incidents that live until they are mended, keys for comparing records, duplicates.

Needed by data_quality, customer_import (duplicates) and the quality gate of payment_sync and overdue_reminders.
Locks: ``alter table`` of crm.organizations and crm.contacts takes ACCESS EXCLUSIVE for a moment (a nullable column,
checked by a scan of a column that is empty); foreign keys take SHARE ROW EXCLUSIVE on ops.run_ledger, crm.contacts,
crm.organizations and crm.products, so that runs under way are waited for.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and the column for merged customers, then say who may do what with them."""
    op.execute("create extension if not exists pg_trgm with schema public")
    _merged_customers()
    _merged_contacts()
    _create_quality_rule()
    _create_quality_requirement()
    _create_duplicate_rule()
    _create_quality_results()
    _create_quality_measures()
    _create_quality_incidents()
    _create_quality_incident_events()
    _create_quality_nudges()
    _create_organization_keys()
    _create_contact_keys()
    _create_product_keys()
    _create_duplicate_pairs()
    _create_duplicate_merges()
    for statement in _GRANTS:
        op.execute(statement)


_GRANTS = (
    (
        "grant select on rules.quality_rule, rules.quality_requirement, rules.duplicate_rule"
        " to kontor_flows, kontor_retention"
    ),
    "grant select, insert on ops.quality_results, ops.quality_incident_events to kontor_flows",
    "grant select, insert, update on ops.quality_measures, ops.quality_incidents, ops.duplicate_pairs to kontor_flows",
    "grant delete on ops.duplicate_pairs to kontor_flows",
    "grant select, insert, update (outcome) on ops.quality_nudges to kontor_flows",
    "grant select, update, delete on ops.quality_nudges to kontor_retention",
    "grant select on ops.duplicate_merges to kontor_flows",
    "grant select, insert, update, delete, maintain on crm.organization_keys, crm.contact_keys to kontor_flows",
    "grant select, insert, update, delete on crm.product_keys to kontor_flows",
    "grant select, delete on crm.product_keys to kontor_retention",
    # Retention erases what quotes a person; that something was wrong and when stays.
    (
        "grant select, update, delete on ops.quality_incidents, ops.quality_incident_events, ops.duplicate_pairs,"
        " ops.duplicate_merges, crm.organization_keys, crm.contact_keys to kontor_retention"
    ),
    "grant select on ops.quality_results, ops.quality_measures to kontor_retention",
)


def _merged_customers() -> None:
    op.add_column("organizations", sa.Column("merged_into", sa.BigInteger(), nullable=True), schema="crm")
    op.create_foreign_key(
        op.f("organizations_merged_into_fkey"),
        "organizations",
        "organizations",
        ["merged_into"],
        ["organization_id"],
        source_schema="crm",
        referent_schema="crm",
    )
    op.create_check_constraint(
        op.f("organizations_merged_into_check"), "organizations", "merged_into <> organization_id", schema="crm"
    )
    op.create_index("organizations_merged_into_idx", "organizations", ["merged_into"], schema="crm")


def _merged_contacts() -> None:
    op.add_column("contacts", sa.Column("merged_into", sa.BigInteger(), nullable=True), schema="crm")
    op.create_foreign_key(
        op.f("contacts_merged_into_fkey"),
        "contacts",
        "contacts",
        ["merged_into"],
        ["contact_id"],
        source_schema="crm",
        referent_schema="crm",
        ondelete="SET NULL",
    )
    op.create_check_constraint(
        op.f("contacts_merged_into_check"), "contacts", "merged_into <> contact_id", schema="crm"
    )
    op.create_index("contacts_merged_into_idx", "contacts", ["merged_into"], schema="crm")


def _create_quality_rule() -> None:
    op.create_table(
        "quality_rule",
        sa.Column("quality_rule_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("account_owner_first", sa.Boolean(), nullable=False),
        sa.Column("tolerance_percent", sa.Numeric(precision=7, scale=4), nullable=False),
        sa.Column("threshold", sa.Numeric(precision=12, scale=4), nullable=True),
        sa.Column("due_days", sa.Integer(), nullable=False),
        sa.Column("meaning", sa.Text(), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="quality_rule_one_version"
        ),
        sa.CheckConstraint("severity in ('info', 'warn', 'fail')", name=op.f("quality_rule_severity_check")),
        sa.CheckConstraint("due_days between 0 and 3650", name=op.f("quality_rule_due_days_check")),
        sa.CheckConstraint("not isempty(valid)", name=op.f("quality_rule_valid_not_empty_check")),
        sa.CheckConstraint("tolerance_percent between 0 and 100", name=op.f("quality_rule_tolerance_percent_check")),
        sa.PrimaryKeyConstraint("quality_rule_id", name=op.f("quality_rule_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("quality_rule_rule_id_version_key")),
        schema="rules",
    )


def _create_quality_requirement() -> None:
    op.create_table(
        "quality_requirement",
        sa.Column("quality_requirement_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("required_rule", sa.Text(), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="quality_requirement_one_version",
        ),
        sa.CheckConstraint("not isempty(valid)", name=op.f("quality_requirement_valid_not_empty_check")),
        sa.PrimaryKeyConstraint("quality_requirement_id", name=op.f("quality_requirement_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("quality_requirement_rule_id_version_key")),
        schema="rules",
    )


def _create_duplicate_rule() -> None:
    op.create_table(
        "duplicate_rule",
        sa.Column("duplicate_rule_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("matched_by", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Numeric(precision=5, scale=4), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("entity"), "="),
            (sa.column("matched_by"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="duplicate_rule_one_in_force",
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="duplicate_rule_one_version"
        ),
        sa.CheckConstraint("action in ('block', 'warn', 'off')", name=op.f("duplicate_rule_action_check")),
        sa.CheckConstraint(
            "entity in ('organization', 'contact', 'product')", name=op.f("duplicate_rule_entity_check")
        ),
        sa.CheckConstraint(
            "matched_by in ('vat', 'name', 'email', 'phone', 'gtin')", name=op.f("duplicate_rule_matched_by_check")
        ),
        sa.CheckConstraint("not isempty(valid)", name=op.f("duplicate_rule_valid_not_empty_check")),
        sa.CheckConstraint("threshold between 0 and 1", name=op.f("duplicate_rule_threshold_check")),
        sa.PrimaryKeyConstraint("duplicate_rule_id", name=op.f("duplicate_rule_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("duplicate_rule_rule_id_version_key")),
        schema="rules",
    )


def _create_quality_results() -> None:
    op.create_table(
        "quality_results",
        sa.Column("quality_result_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("rule_version", sa.Integer(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), server_default=sa.text("'sql'"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("rows_checked", sa.BigInteger(), nullable=True),
        sa.Column("failing", sa.BigInteger(), nullable=True),
        sa.Column("tolerance_percent", sa.Numeric(precision=7, scale=4), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(state = 'error') = (error is not null)", name=op.f("quality_results_error_check")),
        sa.CheckConstraint("(state = 'error') = (failing is null)", name=op.f("quality_results_failing_check")),
        sa.CheckConstraint("engine in ('sql', 'great_expectations')", name=op.f("quality_results_engine_check")),
        sa.CheckConstraint("severity in ('info', 'warn', 'fail')", name=op.f("quality_results_severity_check")),
        sa.CheckConstraint("state in ('pass', 'fail', 'error')", name=op.f("quality_results_state_check")),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("quality_results_run_id_fkey")),
        sa.PrimaryKeyConstraint("quality_result_id", name=op.f("quality_results_pkey")),
        sa.UniqueConstraint("run_id", "rule_id", "engine", name=op.f("quality_results_run_id_rule_id_engine_key")),
        schema="ops",
    )
    op.create_index(
        "quality_results_rule_id_measured_at_idx",
        "quality_results",
        ["rule_id", "measured_at"],
        unique=False,
        schema="ops",
    )


def _create_quality_measures() -> None:
    op.create_table(
        "quality_measures",
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("value", sa.Numeric(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("quality_measures_run_id_fkey")),
        sa.PrimaryKeyConstraint("contract", "measure", "as_of", name=op.f("quality_measures_pkey")),
        schema="ops",
    )
    op.create_index(op.f("quality_measures_run_id_idx"), "quality_measures", ["run_id"], unique=False, schema="ops")


def _create_quality_incidents() -> None:
    op.create_table(
        "quality_incidents",
        sa.Column("incident_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("record_key", sa.Text(), nullable=False),
        sa.Column("record_id", sa.BigInteger(), nullable=True),
        sa.Column("organization_id", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("first_seen", sa.Date(), nullable=False),
        sa.Column("last_seen", sa.Date(), nullable=False),
        sa.Column("occurrences", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("regressions", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("money", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("waived_until", sa.Date(), nullable=True),
        sa.Column("closed_on", sa.Date(), nullable=True),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "(state = 'closed') = (closed_on is not null)", name=op.f("quality_incidents_closed_on_check")
        ),
        sa.CheckConstraint(
            "(state = 'waived') = (waived_until is not null)", name=op.f("quality_incidents_waived_until_check")
        ),
        sa.CheckConstraint("severity in ('info', 'warn', 'fail')", name=op.f("quality_incidents_severity_check")),
        sa.CheckConstraint("state in ('open', 'waived', 'closed')", name=op.f("quality_incidents_state_check")),
        sa.CheckConstraint(
            "first_seen <= last_seen and occurrences >= 1 and regressions >= 0",
            name=op.f("quality_incidents_seen_check"),
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["crm.organizations.organization_id"],
            name=op.f("quality_incidents_organization_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("quality_incidents_run_id_fkey")),
        sa.PrimaryKeyConstraint("incident_id", name=op.f("quality_incidents_pkey")),
        sa.UniqueConstraint("fingerprint", name=op.f("quality_incidents_fingerprint_key")),
        schema="ops",
    )
    op.create_index(
        op.f("quality_incidents_organization_id_idx"),
        "quality_incidents",
        ["organization_id"],
        unique=False,
        schema="ops",
    )
    op.create_index(op.f("quality_incidents_run_id_idx"), "quality_incidents", ["run_id"], unique=False, schema="ops")
    op.create_index(
        "quality_incidents_standing_idx",
        "quality_incidents",
        ["rule_id"],
        unique=False,
        schema="ops",
        postgresql_where=sa.text("state <> 'closed'"),
    )


def _create_quality_incident_events() -> None:
    op.create_table(
        "quality_incident_events",
        sa.Column("event_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("incident_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("happened_on", sa.Date(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "event in ('opened', 'reopened', 'corrected', 'closed', 'waived', 'waiver_ended')",
            name=op.f("quality_incident_events_event_check"),
        ),
        sa.ForeignKeyConstraint(
            ["incident_id"],
            ["ops.quality_incidents.incident_id"],
            name=op.f("quality_incident_events_incident_id_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["ops.run_ledger.run_id"], name=op.f("quality_incident_events_run_id_fkey")
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("quality_incident_events_pkey")),
        schema="ops",
    )
    op.create_index(
        op.f("quality_incident_events_incident_id_idx"),
        "quality_incident_events",
        ["incident_id"],
        unique=False,
        schema="ops",
    )
    op.create_index(
        op.f("quality_incident_events_run_id_idx"), "quality_incident_events", ["run_id"], unique=False, schema="ops"
    )


def _create_quality_nudges() -> None:
    op.create_table(
        "quality_nudges",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("week", sa.Date(), nullable=False),
        sa.Column("incidents", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), server_default=sa.text("'reserved'"), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("reserved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("extract(isodow from week) = 1", name=op.f("quality_nudges_week_check")),
        sa.CheckConstraint(
            "outcome in ('reserved', 'sent', 'held', 'deferred', 'refused', 'unknown')",
            name=op.f("quality_nudges_outcome_check"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("quality_nudges_run_id_fkey")),
        sa.PrimaryKeyConstraint("owner", "week", name=op.f("quality_nudges_pkey")),
        schema="ops",
    )
    op.create_index(op.f("quality_nudges_run_id_idx"), "quality_nudges", ["run_id"], unique=False, schema="ops")


def _create_organization_keys() -> None:
    op.create_table(
        "organization_keys",
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("made_of", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=True),
        sa.Column("vat_key", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["crm.organizations.organization_id"],
            name=op.f("organization_keys_organization_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("organization_keys_pkey")),
        schema="crm",
    )
    op.create_index(
        "organization_keys_name_key_idx",
        "organization_keys",
        ["name_key"],
        unique=False,
        schema="crm",
        postgresql_using="gin",
        postgresql_ops={"name_key": "gin_trgm_ops"},
    )
    op.create_index(
        op.f("organization_keys_vat_key_idx"),
        "organization_keys",
        ["vat_key"],
        unique=False,
        schema="crm",
        postgresql_where=sa.text("vat_key is not null"),
    )


def _create_contact_keys() -> None:
    op.create_table(
        "contact_keys",
        sa.Column("contact_id", sa.BigInteger(), nullable=False),
        sa.Column("made_of", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=True),
        sa.Column("email_key", sa.Text(), nullable=True),
        sa.Column("phone_key", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["contact_id"], ["crm.contacts.contact_id"], name=op.f("contact_keys_contact_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("contact_id", name=op.f("contact_keys_pkey")),
        schema="crm",
    )
    op.create_index(
        op.f("contact_keys_email_key_idx"),
        "contact_keys",
        ["email_key"],
        unique=False,
        schema="crm",
        postgresql_where=sa.text("email_key is not null"),
    )
    op.create_index(
        "contact_keys_name_key_idx",
        "contact_keys",
        ["name_key"],
        unique=False,
        schema="crm",
        postgresql_using="gin",
        postgresql_ops={"name_key": "gin_trgm_ops"},
    )
    op.create_index(
        op.f("contact_keys_phone_key_idx"),
        "contact_keys",
        ["phone_key"],
        unique=False,
        schema="crm",
        postgresql_where=sa.text("phone_key is not null"),
    )


def _create_product_keys() -> None:
    op.create_table(
        "product_keys",
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.Column("made_of", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=True),
        sa.Column("figures", sa.Text(), nullable=True),
        sa.Column("block_key", sa.Text(), nullable=True),
        sa.Column("gtin_key", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["product_id"], ["crm.products.product_id"], name=op.f("product_keys_product_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("product_id", name=op.f("product_keys_pkey")),
        schema="crm",
    )


def _create_duplicate_pairs() -> None:
    op.create_table(
        "duplicate_pairs",
        sa.Column("pair_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("left_id", sa.BigInteger(), nullable=False),
        sa.Column("right_id", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.Numeric(precision=5, scale=4), nullable=False),
        sa.Column("fields", postgresql.JSONB(), nullable=False),
        sa.Column("matched_by", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("decision", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("(decision = 'open') = (decided_by is null)", name=op.f("duplicate_pairs_decided_by_check")),
        sa.CheckConstraint(
            "decision in ('open', 'same', 'different', 'related')", name=op.f("duplicate_pairs_decision_check")
        ),
        sa.CheckConstraint(
            "entity in ('organization', 'contact', 'product')", name=op.f("duplicate_pairs_entity_check")
        ),
        sa.CheckConstraint("left_id < right_id", name=op.f("duplicate_pairs_ordered_check")),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("duplicate_pairs_run_id_fkey")),
        sa.PrimaryKeyConstraint("pair_id", name=op.f("duplicate_pairs_pkey")),
        sa.UniqueConstraint("entity", "left_id", "right_id", name=op.f("duplicate_pairs_entity_left_id_right_id_key")),
        schema="ops",
    )
    op.create_index(op.f("duplicate_pairs_run_id_idx"), "duplicate_pairs", ["run_id"], unique=False, schema="ops")


def _create_duplicate_merges() -> None:
    op.create_table(
        "duplicate_merges",
        sa.Column("merge_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("pair_id", sa.BigInteger(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("kept_id", sa.BigInteger(), nullable=False),
        sa.Column("merged_id", sa.BigInteger(), nullable=False),
        sa.Column("values_before", postgresql.JSONB(), nullable=False),
        sa.Column("values_after", postgresql.JSONB(), nullable=False),
        sa.Column("moved", postgresql.JSONB(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("merged_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("undone_by", sa.Text(), nullable=True),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(undone_by is null) = (undone_at is null)", name=op.f("duplicate_merges_undone_check")),
        sa.CheckConstraint("entity in ('organization', 'contact')", name=op.f("duplicate_merges_entity_check")),
        sa.CheckConstraint("kept_id <> merged_id", name=op.f("duplicate_merges_two_records_check")),
        sa.ForeignKeyConstraint(
            ["pair_id"], ["ops.duplicate_pairs.pair_id"], name=op.f("duplicate_merges_pair_id_fkey")
        ),
        sa.PrimaryKeyConstraint("merge_id", name=op.f("duplicate_merges_pkey")),
        schema="ops",
    )
    op.create_index(op.f("duplicate_merges_pair_id_idx"), "duplicate_merges", ["pair_id"], unique=False, schema="ops")
