"""Reminders: their rules, what is decided by them, the outbox, and money that no invoice has been found for.

Needed by overdue_reminders (tasks/reminders) and by ``kontor rules``.
Locks: creates new tables; their foreign keys take SHARE ROW EXCLUSIVE on crm.organizations, crm.contacts, crm.invoices,
landing.feed_files and ops.run_ledger for a moment, so that a run under way is waited for and a new one waits.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; what was sent can neither be deleted nor taken back by a flow."""
    _create_rules()
    _create_money()
    _create_decisions()
    _create_outbox()
    for statement in _GRANTS:
        op.execute(statement)


def _create_rules() -> None:
    op.create_table(
        "contact_routing",
        sa.Column("contact_routing_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("segment", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("country", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("customer_number", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("stage", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("rank"), "="), (sa.column("valid"), "&&"), using="gist", name="contact_routing_one_rank"
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="contact_routing_one_version"
        ),
        postgresql.ExcludeConstraint(
            (sa.column("segment"), "="),
            (sa.column("country"), "="),
            (sa.column("customer_number"), "="),
            (sa.column("stage"), "="),
            (sa.column("role"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="contact_routing_one_role",
        ),
        sa.CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name=op.f("contact_routing_country_check")),
        sa.CheckConstraint(
            "stage in ('*', 'upcoming', 'first', 'second', 'final')", name=op.f("contact_routing_stage_check")
        ),
        sa.CheckConstraint("not isempty(valid)", name=op.f("contact_routing_valid_not_empty_check")),
        sa.CheckConstraint("version >= 1", name=op.f("contact_routing_version_check")),
        sa.PrimaryKeyConstraint("contact_routing_id", name=op.f("contact_routing_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("contact_routing_rule_id_version_key")),
        schema="rules",
    )
    op.create_table(
        "drafts",
        sa.Column("draft_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("rows", postgresql.JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'draft'"), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("imported_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_by", sa.Text(), nullable=True),
        sa.Column("valid_from", sa.Date(), nullable=True),
        sa.CheckConstraint("(state = 'activated') = (valid_from is not null)", name=op.f("drafts_valid_from_check")),
        sa.CheckConstraint("(state = 'draft') = (settled_at is null)", name=op.f("drafts_settled_check")),
        sa.CheckConstraint("jsonb_typeof(rows) = 'array'", name=op.f("drafts_rows_check")),
        sa.CheckConstraint("state in ('draft', 'activated', 'replaced', 'withdrawn')", name=op.f("drafts_state_check")),
        sa.PrimaryKeyConstraint("draft_id", name=op.f("drafts_pkey")),
        schema="rules",
    )
    op.create_table(
        "fee_rule",
        sa.Column("fee_rule_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("country", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("per", sa.Text(), nullable=False),
        sa.Column("from_stage", sa.Text(), nullable=False),
        sa.Column("from_days_overdue", sa.Integer(), nullable=False),
        sa.Column("claim_from", sa.Numeric(precision=19, scale=4), server_default=sa.text("0"), nullable=False),
        sa.Column("claim_currency", sa.Text(), nullable=True),
        sa.Column("fee_amount", sa.Numeric(precision=19, scale=4), nullable=True),
        sa.Column("fee_currency", sa.Text(), nullable=True),
        sa.Column("rate_name", sa.Text(), nullable=True),
        sa.Column("margin_percent", sa.Numeric(precision=7, scale=4), nullable=True),
        sa.Column("shown", sa.Boolean(), nullable=False),
        sa.Column("legal_source", sa.Text(), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("country"), "="),
            (sa.column("kind"), "="),
            (sa.column("claim_from"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="fee_rule_one_claim_from",
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="fee_rule_one_version"
        ),
        sa.CheckConstraint(
            "(kind = 'fee') = (fee_amount is not null and fee_currency is not null)"
            " and (kind = 'interest') = (rate_name is not null and margin_percent is not null)",
            name=op.f("fee_rule_kind_is_whole_check"),
        ),
        sa.CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name=op.f("fee_rule_country_check")),
        sa.CheckConstraint(
            "from_stage in ('upcoming', 'first', 'second', 'final')", name=op.f("fee_rule_from_stage_check")
        ),
        sa.CheckConstraint("kind in ('fee', 'interest')", name=op.f("fee_rule_kind_check")),
        sa.CheckConstraint("per in ('item', 'mail')", name=op.f("fee_rule_per_check")),
        sa.CheckConstraint("from_days_overdue >= 1 and claim_from >= 0", name=op.f("fee_rule_not_negative_check")),
        sa.CheckConstraint("not isempty(valid)", name=op.f("fee_rule_valid_not_empty_check")),
        sa.CheckConstraint("version >= 1", name=op.f("fee_rule_version_check")),
        sa.PrimaryKeyConstraint("fee_rule_id", name=op.f("fee_rule_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("fee_rule_rule_id_version_key")),
        schema="rules",
    )
    op.create_table(
        "reference_rate",
        sa.Column("reference_rate_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rate_name", sa.Text(), nullable=False),
        sa.Column("percent", sa.Numeric(precision=7, scale=4), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("rate_name"), "="), (sa.column("valid"), "&&"), using="gist", name="reference_rate_one_rate_name"
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="reference_rate_one_version"
        ),
        sa.CheckConstraint("not isempty(valid)", name=op.f("reference_rate_valid_not_empty_check")),
        sa.CheckConstraint("version >= 1", name=op.f("reference_rate_version_check")),
        sa.PrimaryKeyConstraint("reference_rate_id", name=op.f("reference_rate_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("reference_rate_rule_id_version_key")),
        schema="rules",
    )
    op.create_table(
        "reminder_limit",
        sa.Column("reminder_limit_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("guard", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("threshold", sa.Numeric(precision=12, scale=4), nullable=False),
        sa.Column("minimum_evidence", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("window_days", sa.Integer(), nullable=True),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("guard"), "="),
            (sa.column("country"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="reminder_limit_one_country",
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="reminder_limit_one_version"
        ),
        sa.CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name=op.f("reminder_limit_country_check")),
        sa.CheckConstraint(
            "guard in ('blast_radius', 'blast_floor', 'customer_cap', 'stale_data')",
            name=op.f("reminder_limit_guard_check"),
        ),
        sa.CheckConstraint("not isempty(valid)", name=op.f("reminder_limit_valid_not_empty_check")),
        sa.CheckConstraint("threshold >= 0 and minimum_evidence >= 0", name=op.f("reminder_limit_not_negative_check")),
        sa.CheckConstraint("version >= 1", name=op.f("reminder_limit_version_check")),
        sa.CheckConstraint("window_days > 0", name=op.f("reminder_limit_window_days_check")),
        sa.PrimaryKeyConstraint("reminder_limit_id", name=op.f("reminder_limit_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("reminder_limit_rule_id_version_key")),
        schema="rules",
    )
    op.create_table(
        "reminder_minimum",
        sa.Column("reminder_minimum_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("ladder", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("minimum_amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("ladder"), "="),
            (sa.column("currency"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="reminder_minimum_one_currency",
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="reminder_minimum_one_version"
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("reminder_minimum_currency_check")),
        sa.CheckConstraint("minimum_amount >= 0", name=op.f("reminder_minimum_not_negative_check")),
        sa.CheckConstraint("not isempty(valid)", name=op.f("reminder_minimum_valid_not_empty_check")),
        sa.CheckConstraint("version >= 1", name=op.f("reminder_minimum_version_check")),
        sa.PrimaryKeyConstraint("reminder_minimum_id", name=op.f("reminder_minimum_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("reminder_minimum_rule_id_version_key")),
        schema="rules",
    )
    op.create_table(
        "reminder_policy",
        sa.Column("reminder_policy_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("segment", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("country", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("payer_class", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("customer_number", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("remind", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("ladder", sa.Text(), nullable=False),
        sa.Column("grace_days", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("minimum_days_between", sa.Integer(), nullable=False),
        sa.Column("due_soon_days", sa.Integer(), nullable=False),
        sa.Column("default_language", sa.Text(), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("rank"), "="), (sa.column("valid"), "&&"), using="gist", name="reminder_policy_one_rank"
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="reminder_policy_one_version"
        ),
        postgresql.ExcludeConstraint(
            (sa.column("segment"), "="),
            (sa.column("country"), "="),
            (sa.column("payer_class"), "="),
            (sa.column("customer_number"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="reminder_policy_one_customer_number",
        ),
        sa.CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name=op.f("reminder_policy_country_check")),
        sa.CheckConstraint("default_language ~ '^[a-z]{2}$'", name=op.f("reminder_policy_default_language_check")),
        sa.CheckConstraint(
            "payer_class in ('*', 'strict', 'hesitant', 'disloyal', 'unrated')",
            name=op.f("reminder_policy_payer_class_check"),
        ),
        sa.CheckConstraint(
            "grace_days >= 0 and minimum_days_between >= 1 and due_soon_days >= 0",
            name=op.f("reminder_policy_not_negative_check"),
        ),
        sa.CheckConstraint("not isempty(valid)", name=op.f("reminder_policy_valid_not_empty_check")),
        sa.CheckConstraint("version >= 1", name=op.f("reminder_policy_version_check")),
        sa.PrimaryKeyConstraint("reminder_policy_id", name=op.f("reminder_policy_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("reminder_policy_rule_id_version_key")),
        schema="rules",
    )
    op.create_table(
        "reminder_stage",
        sa.Column("reminder_stage_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("ladder", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("offset_days", sa.Integer(), nullable=False),
        sa.Column("offset_unit", sa.Text(), nullable=False),
        sa.Column("grace_days", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("maximum_count", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("repeat_days", sa.Integer(), nullable=True),
        sa.Column("missed", sa.Text(), nullable=False),
        sa.Column("missed_after_days", sa.Integer(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("cc", sa.Text(), nullable=True),
        sa.Column("attachment", sa.Text(), server_default=sa.text("'none'"), nullable=False),
        sa.Column("needs_approval", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("ladder"), "="),
            (sa.column("stage"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="reminder_stage_one_stage",
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="reminder_stage_one_version"
        ),
        sa.CheckConstraint("(stage = 'upcoming') = (offset_days < 0)", name=op.f("reminder_stage_offset_days_check")),
        sa.CheckConstraint("attachment in ('none', 'xlsx', 'pdf')", name=op.f("reminder_stage_attachment_check")),
        sa.CheckConstraint("missed in ('latest', 'spread', 'skip')", name=op.f("reminder_stage_missed_check")),
        sa.CheckConstraint("offset_unit in ('calendar', 'working')", name=op.f("reminder_stage_offset_unit_check")),
        sa.CheckConstraint(
            "stage in ('upcoming', 'first', 'second', 'final')", name=op.f("reminder_stage_stage_check")
        ),
        sa.CheckConstraint(
            "grace_days >= 0 and maximum_count >= 1 and missed_after_days >= 0",
            name=op.f("reminder_stage_not_negative_check"),
        ),
        sa.CheckConstraint("maximum_count = 1 or repeat_days >= 1", name=op.f("reminder_stage_repeat_days_check")),
        sa.CheckConstraint("not isempty(valid)", name=op.f("reminder_stage_valid_not_empty_check")),
        sa.CheckConstraint("version >= 1", name=op.f("reminder_stage_version_check")),
        sa.PrimaryKeyConstraint("reminder_stage_id", name=op.f("reminder_stage_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("reminder_stage_rule_id_version_key")),
        schema="rules",
    )
    op.create_table(
        "send_window",
        sa.Column("send_window_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("country", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("opens_at", sa.Text(), nullable=False),
        sa.Column("closes_at", sa.Text(), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("country"), "="), (sa.column("valid"), "&&"), using="gist", name="send_window_one_country"
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="send_window_one_version"
        ),
        sa.CheckConstraint(
            "closes_at ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$' and opens_at < closes_at",
            name=op.f("send_window_closes_at_check"),
        ),
        sa.CheckConstraint("country ~ '^([*]|[A-Z]{2})$'", name=op.f("send_window_country_check")),
        sa.CheckConstraint("opens_at ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$'", name=op.f("send_window_opens_at_check")),
        sa.CheckConstraint("not isempty(valid)", name=op.f("send_window_valid_not_empty_check")),
        sa.CheckConstraint("version >= 1", name=op.f("send_window_version_check")),
        sa.PrimaryKeyConstraint("send_window_id", name=op.f("send_window_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("send_window_rule_id_version_key")),
        schema="rules",
    )


def _create_money() -> None:
    op.create_table(
        "staged_payments",
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("customer_number", sa.Text(), nullable=True),
        sa.Column("payment_number", sa.Text(), nullable=True),
        sa.Column("invoice_number", sa.Text(), nullable=True),
        sa.Column("received_date", sa.Date(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("amount", sa.Numeric(precision=19, scale=4), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        schema="landing",
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "payments",
        sa.Column("payment_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("payment_number", sa.Text(), nullable=False),
        sa.Column("invoice_number", sa.Text(), nullable=True),
        sa.Column("received_on", sa.Date(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("feed_file_id", sa.BigInteger(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("payments_currency_check")),
        sa.CheckConstraint("payment_number <> ''", name=op.f("payments_payment_number_check")),
        sa.CheckConstraint("amount > 0", name=op.f("payments_amount_check")),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f("payments_feed_file_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["crm.organizations.organization_id"], name=op.f("payments_organization_id_fkey")
        ),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("payments_pkey")),
        sa.UniqueConstraint(
            "organization_id",
            "source",
            "payment_number",
            name=op.f("payments_organization_id_source_payment_number_key"),
        ),
        schema="crm",
    )
    op.create_index(op.f("payments_feed_file_id_idx"), "payments", ["feed_file_id"], unique=False, schema="crm")
    op.create_table(
        "allocations",
        sa.Column("payment_id", sa.BigInteger(), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("allocated_on", sa.Date(), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("allocations_amount_check")),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["crm.invoices.invoice_id"], name=op.f("allocations_invoice_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["crm.payments.payment_id"], name=op.f("allocations_payment_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("payment_id", "invoice_id", name=op.f("allocations_pkey")),
        schema="crm",
    )
    op.create_index(op.f("allocations_invoice_id_idx"), "allocations", ["invoice_id"], unique=False, schema="crm")


def _create_decisions() -> None:
    op.create_table(
        "reminder_decisions",
        sa.Column("decision_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("contact_id", sa.BigInteger(), nullable=True),
        sa.Column("recipient_email", sa.Text(), nullable=True),
        sa.Column("recipient_reason", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("invoice_ids", postgresql.ARRAY(sa.BigInteger()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=True),
        sa.Column("rule_version", sa.Integer(), nullable=True),
        sa.Column("figures", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "decision <> 'remind' or (stage is not null and sequence is not null and recipient_email is not null"
            " and language is not null and rule_id is not null)",
            name=op.f("reminder_decisions_remind_is_whole_check"),
        ),
        sa.CheckConstraint(
            "decision in ('remind', 'nothing', 'hold', 'task')", name=op.f("reminder_decisions_decision_check")
        ),
        sa.CheckConstraint("reason <> '' and reason_code <> ''", name=op.f("reminder_decisions_reason_check")),
        sa.CheckConstraint(
            "stage in ('upcoming', 'first', 'second', 'final')", name=op.f("reminder_decisions_stage_check")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["crm.organizations.organization_id"],
            name=op.f("reminder_decisions_organization_id_fkey"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("reminder_decisions_run_id_fkey")),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("reminder_decisions_pkey")),
        schema="ops",
    )
    op.create_index(op.f("reminder_decisions_as_of_idx"), "reminder_decisions", ["as_of"], unique=False, schema="ops")
    op.create_index(
        op.f("reminder_decisions_organization_id_as_of_idx"),
        "reminder_decisions",
        ["organization_id", "as_of"],
        unique=False,
        schema="ops",
    )
    op.create_index(op.f("reminder_decisions_run_id_idx"), "reminder_decisions", ["run_id"], unique=False, schema="ops")
    op.create_table(
        "reminder_plans",
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("of_today", sa.BigInteger(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("facts ~ '^[0-9a-f]{64}$'", name=op.f("reminder_plans_facts_check")),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("reminder_plans_run_id_fkey")),
        sa.PrimaryKeyConstraint("as_of", name=op.f("reminder_plans_pkey")),
        schema="ops",
    )
    op.create_index(op.f("reminder_plans_run_id_idx"), "reminder_plans", ["run_id"], unique=False, schema="ops")
    op.create_table(
        "reminder_tasks",
        sa.Column("task_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("organization_id", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.Column("close_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "kind in ('no_contact', 'no_valid_address', 'address_bounced', 'broken_promise', 'stale_data', 'brake')",
            name=op.f("reminder_tasks_kind_check"),
        ),
        sa.CheckConstraint(
            "(closed_at is null) = (closed_by is null) and (closed_at is null) = (close_reason is null)",
            name=op.f("reminder_tasks_closed_check"),
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["crm.organizations.organization_id"], name=op.f("reminder_tasks_organization_id_fkey")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("reminder_tasks_run_id_fkey")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("reminder_tasks_pkey")),
        schema="ops",
    )
    op.create_index(
        "reminder_tasks_open_key",
        "reminder_tasks",
        ["organization_id", "kind"],
        unique=True,
        schema="ops",
        postgresql_where=sa.text("closed_at is null"),
        postgresql_nulls_not_distinct=True,
    )
    op.create_index(
        op.f("reminder_tasks_organization_id_idx"), "reminder_tasks", ["organization_id"], unique=False, schema="ops"
    )
    op.create_index(op.f("reminder_tasks_run_id_idx"), "reminder_tasks", ["run_id"], unique=False, schema="ops")
    op.create_table(
        "reminder_holds",
        sa.Column("hold_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=True),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("promised_amount", sa.Numeric(precision=19, scale=4), nullable=True),
        sa.Column("promised_currency", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released_by", sa.Text(), nullable=True),
        sa.Column("release_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "kind <> 'promise_to_pay' or not upper_inf(valid)", name=op.f("reminder_holds_promise_ends_check")
        ),
        sa.CheckConstraint(
            "kind in ('dispute', 'promise_to_pay', 'do_not_remind', 'unmatched_money', 'legal_hold')",
            name=op.f("reminder_holds_kind_check"),
        ),
        sa.CheckConstraint("promised_currency ~ '^[A-Z]{3}$'", name=op.f("reminder_holds_promised_currency_check")),
        sa.CheckConstraint(
            "(promised_amount is null) = (promised_currency is null)", name=op.f("reminder_holds_promised_check")
        ),
        sa.CheckConstraint(
            "(released_at is null) = (released_by is null) and (released_at is null) = (release_reason is null)",
            name=op.f("reminder_holds_released_check"),
        ),
        sa.CheckConstraint(
            "not isempty(valid) and not lower_inf(valid)", name=op.f("reminder_holds_valid_begins_check")
        ),
        sa.CheckConstraint("promised_amount > 0", name=op.f("reminder_holds_promised_amount_check")),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["crm.invoices.invoice_id"], name=op.f("reminder_holds_invoice_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["crm.organizations.organization_id"], name=op.f("reminder_holds_organization_id_fkey")
        ),
        sa.PrimaryKeyConstraint("hold_id", name=op.f("reminder_holds_pkey")),
        schema="ops",
    )
    op.create_index(op.f("reminder_holds_invoice_id_idx"), "reminder_holds", ["invoice_id"], unique=False, schema="ops")
    op.create_index(
        op.f("reminder_holds_organization_id_idx"), "reminder_holds", ["organization_id"], unique=False, schema="ops"
    )


def _create_outbox() -> None:
    op.create_table(
        "suppressions",
        sa.Column("suppression_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint("email = lower(email) and email <> ''", name=op.f("suppressions_email_check")),
        sa.CheckConstraint(
            "kind in ('hard_bounce', 'soft_bounce', 'person_asked', 'erased')", name=op.f("suppressions_kind_check")
        ),
        sa.CheckConstraint("count >= 1", name=op.f("suppressions_count_check")),
        sa.CheckConstraint("since < until", name=op.f("suppressions_until_check")),
        sa.PrimaryKeyConstraint("suppression_id", name=op.f("suppressions_pkey")),
        schema="outbox",
    )
    op.create_index(op.f("suppressions_email_idx"), "suppressions", ["email"], unique=False, schema="outbox")
    op.create_index(
        "suppressions_in_force_key",
        "suppressions",
        ["email", "kind"],
        unique=True,
        schema="outbox",
        postgresql_where=sa.text("until is null"),
    )
    op.create_table(
        "reminders",
        sa.Column("reminder_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("decision_id", sa.BigInteger(), nullable=False),
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'planned'"), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("contact_id", sa.BigInteger(), nullable=True),
        sa.Column("recipient_email", sa.Text(), nullable=False),
        sa.Column("recipient_reason", sa.Text(), nullable=False),
        sa.Column("cc", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("attachment", sa.Text(), server_default=sa.text("'none'"), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("thread_message_id", sa.Text(), nullable=True),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("rule_version", sa.Integer(), nullable=False),
        sa.Column("needs_approval", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("planned_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("attachment in ('none', 'xlsx', 'pdf')", name=op.f("reminders_attachment_check")),
        sa.CheckConstraint("stage in ('upcoming', 'first', 'second', 'final')", name=op.f("reminders_stage_check")),
        sa.CheckConstraint(
            "state <> 'cancelled' or state_reason is not null", name=op.f("reminders_state_reason_check")
        ),
        sa.CheckConstraint(
            "state in ('planned', 'held', 'approved', 'cancelled', 'sending', 'sent', 'refused', 'deferred', 'unknown',"
            " 'bounced')",
            name=op.f("reminders_state_check"),
        ),
        sa.CheckConstraint("(approved_by is null) = (approved_at is null)", name=op.f("reminders_approved_check")),
        sa.CheckConstraint("sequence >= 1 and attempts >= 0", name=op.f("reminders_counted_check")),
        sa.ForeignKeyConstraint(
            ["contact_id"], ["crm.contacts.contact_id"], name=op.f("reminders_contact_id_fkey"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["ops.reminder_decisions.decision_id"], name=op.f("reminders_decision_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["crm.organizations.organization_id"], name=op.f("reminders_organization_id_fkey")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("reminders_run_id_fkey")),
        sa.PrimaryKeyConstraint("reminder_id", name=op.f("reminders_pkey")),
        sa.UniqueConstraint("message_id", name=op.f("reminders_message_id_key")),
        schema="outbox",
    )
    op.create_index(op.f("reminders_contact_id_idx"), "reminders", ["contact_id"], unique=False, schema="outbox")
    op.create_index(op.f("reminders_decision_id_idx"), "reminders", ["decision_id"], unique=False, schema="outbox")
    op.create_index(
        "reminders_one_a_day_key",
        "reminders",
        ["organization_id", "as_of"],
        unique=True,
        schema="outbox",
        postgresql_where=sa.text("state <> 'cancelled'"),
    )
    op.create_index(
        op.f("reminders_organization_id_as_of_idx"),
        "reminders",
        ["organization_id", "as_of"],
        unique=False,
        schema="outbox",
    )
    op.create_index(op.f("reminders_run_id_idx"), "reminders", ["run_id"], unique=False, schema="outbox")
    op.create_index(
        "reminders_waiting_idx",
        "reminders",
        ["state"],
        unique=False,
        schema="outbox",
        postgresql_where=sa.text("state not in ('sent', 'cancelled')"),
    )
    op.create_table(
        "deliveries",
        sa.Column("delivery_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("reminder_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("recipient_email", sa.Text(), nullable=False),
        sa.Column("smtp_code", sa.Integer(), nullable=True),
        sa.Column("smtp_answer", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("eml_path", sa.Text(), nullable=True),
        sa.CheckConstraint("mode in ('hold', 'redirect', 'live')", name=op.f("deliveries_mode_check")),
        sa.CheckConstraint(
            "outcome in ('sent', 'refused', 'deferred', 'unknown', 'held', 'bounced', 'resolved')",
            name=op.f("deliveries_outcome_check"),
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("deliveries_attempt_check")),
        sa.ForeignKeyConstraint(
            ["reminder_id"], ["outbox.reminders.reminder_id"], name=op.f("deliveries_reminder_id_fkey")
        ),
        sa.PrimaryKeyConstraint("delivery_id", "at", name=op.f("deliveries_pkey")),
        schema="outbox",
        postgresql_partition_by="RANGE (at)",
    )
    op.execute("create table outbox.deliveries_other partition of outbox.deliveries default")
    op.create_index(op.f("deliveries_reminder_id_idx"), "deliveries", ["reminder_id"], unique=False, schema="outbox")
    op.create_table(
        "reminder_items",
        sa.Column("reminder_id", sa.BigInteger(), nullable=False),
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("open_amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("release_reason", sa.Text(), nullable=True),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("reminder_items_currency_check")),
        sa.CheckConstraint(
            "stage in ('upcoming', 'first', 'second', 'final')", name=op.f("reminder_items_stage_check")
        ),
        sa.CheckConstraint(
            "(released_at is null) = (release_reason is null)", name=op.f("reminder_items_released_check")
        ),
        sa.CheckConstraint("open_amount > 0", name=op.f("reminder_items_open_amount_check")),
        sa.CheckConstraint("sequence >= 1", name=op.f("reminder_items_sequence_check")),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["crm.invoices.invoice_id"], name=op.f("reminder_items_invoice_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["reminder_id"], ["outbox.reminders.reminder_id"], name=op.f("reminder_items_reminder_id_fkey")
        ),
        sa.PrimaryKeyConstraint("reminder_id", "invoice_id", name=op.f("reminder_items_pkey")),
        schema="outbox",
    )
    op.create_index(
        op.f("reminder_items_invoice_id_idx"), "reminder_items", ["invoice_id"], unique=False, schema="outbox"
    )
    op.create_index(
        "reminder_items_once_key",
        "reminder_items",
        ["invoice_id", "stage", "sequence"],
        unique=True,
        schema="outbox",
        postgresql_where=sa.text("released_at is null"),
    )
    op.create_table(
        "bounce_mailboxes",
        sa.Column("mailbox", sa.Text(), nullable=False),
        sa.Column("uid_validity", sa.BigInteger(), nullable=False),
        sa.Column("last_uid", sa.BigInteger(), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("mailbox ~ '^[0-9a-f]{64}$'", name=op.f("bounce_mailboxes_mailbox_check")),
        sa.CheckConstraint("last_uid >= 1", name=op.f("bounce_mailboxes_last_uid_check")),
        sa.PrimaryKeyConstraint("mailbox", name=op.f("bounce_mailboxes_pkey")),
        schema="outbox",
    )


_REMINDER_RULES = (
    "reminder_policy",
    "reminder_stage",
    "reminder_minimum",
    "contact_routing",
    "send_window",
    "reminder_limit",
    "fee_rule",
    "reference_rate",
    "drafts",
)
_OUTBOX = ("reminders", "reminder_items", "deliveries", "suppressions")
_DECIDED = ("reminder_decisions", "reminder_holds", "reminder_tasks")

# Whom a mail is for, and of which day, stays as it was planned; everything else of it may change.
_MAY_CHANGE = (
    "state, state_reason, contact_id, recipient_email, recipient_reason, cc, language, template, attachment, subject,"
    " message_id, thread_message_id, stage, sequence, needs_approval, approved_by, approved_at, attempts,"
    " next_attempt_at, claimed_by, claimed_at, sent_at, updated_at"
)
_GRANTS = (
    "grant usage on schema outbox to kontor_flows, kontor_retention",
    # Rules are edited by the owner alone; flows read those in force, and nobody works by a draft.
    *(f"grant select on rules.{name} to kontor_flows, kontor_retention" for name in _REMINDER_RULES),
    "grant select, insert, update, maintain on crm.payments, crm.allocations to kontor_flows",
    "grant delete on crm.allocations to kontor_flows",
    "grant select, insert, update, delete, truncate, maintain on landing.staged_payments to kontor_flows",
    "grant select, update, delete on landing.staged_payments to kontor_retention",
    # Decisions and deliveries are only ever added to.
    *(f"grant select, insert, maintain on ops.{name} to kontor_flows" for name in _DECIDED),
    *(f"grant select, insert, maintain on outbox.{name} to kontor_flows" for name in _OUTBOX),
    "grant select, insert, update, maintain on ops.reminder_plans to kontor_flows",
    "grant update (released_at, released_by, release_reason) on ops.reminder_holds to kontor_flows",
    "grant update (details, closed_at, closed_by, close_reason) on ops.reminder_tasks to kontor_flows",
    f"grant update ({_MAY_CHANGE}) on outbox.reminders to kontor_flows",
    "grant update (open_amount, released_at, release_reason) on outbox.reminder_items to kontor_flows",
    "grant update on outbox.suppressions to kontor_flows",
    "grant select, insert, update on outbox.bounce_mailboxes to kontor_flows",
    "grant select, update, delete on crm.payments, crm.allocations to kontor_retention",
    *(f"grant select, update, delete on ops.{name} to kontor_retention" for name in _DECIDED),
    *(f"grant select, update, delete on outbox.{name} to kontor_retention" for name in _OUTBOX),
)
