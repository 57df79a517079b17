"""The foundation: customers, contacts, what they owe, the files it came in, rules and runs.

Locks: creates new objects only; takes no lock on anything that existed before.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, then say who may do what with them."""
    op.execute("create extension if not exists btree_gist with schema public")
    _create_tables()
    # One value that holds all a snapshot can say of an item, so that two states compare in one expression.
    op.execute(
        "create type crm.item as (document_type text, issued_on date, due_on date, currency text,"
        " amount numeric, open_amount numeric, disputed boolean, note text)"
    )
    op.execute(WITHDRAW_LEDGER)
    for statement in GRANTS:
        op.execute(statement)


# Flows delete nothing that anybody said; what a ledger's correction no longer says is the one exception, so it is a
# function of the owner that looks at the files' states itself. What an earlier ledger said of such an item holds again.
WITHDRAW_LEDGER = """
create function crm.withdraw_ledger(corrected_by bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update crm.ledger_entries e
    set as_of = w.as_of, revision = w.revision, document_type = w.document_type, issued_on = w.issued_on,
        due_on = w.due_on, currency = w.currency, amount = w.amount, open_amount = w.open_amount,
        disputed = w.disputed, note = w.note, settled_on = w.settled_on, feed_file_id = w.feed_file_id
    from (select distinct on (w.invoice_id) w.* from crm.earlier_ledger_entries w
          join landing.feed_files f on f.feed_file_id = w.feed_file_id and f.state = 'applied'
          order by w.invoice_id, w.as_of desc) w
    where w.invoice_id = e.invoice_id
      and e.feed_file_id in (
          select retired.feed_file_id
          from landing.feed_files own join landing.feed_files retired using (feed, source, as_of, mode)
          where own.feed_file_id = corrected_by and own.mode = 'ledger' and retired.state = 'superseded');
    delete from crm.ledger_entries e using landing.feed_files own, landing.feed_files retired
    where own.feed_file_id = corrected_by and own.mode = 'ledger' and retired.state = 'superseded'
      and (retired.feed, retired.source, retired.as_of, retired.mode) = (own.feed, own.source, own.as_of, own.mode)
      and e.feed_file_id = retired.feed_file_id;
    delete from crm.earlier_ledger_entries e using landing.feed_files own, landing.feed_files retired
    where own.feed_file_id = corrected_by and own.mode = 'ledger' and retired.state = 'superseded'
      and (retired.feed, retired.source, retired.as_of, retired.mode) = (own.feed, own.source, own.as_of, own.mode)
      and e.feed_file_id = retired.feed_file_id;
    delete from crm.earlier_ledger_entries w using crm.ledger_entries e
    where e.invoice_id = w.invoice_id and e.as_of = w.as_of;
end $$
"""

GRANTS = (
    (
        "do $$ begin"
        " execute format('revoke all on database %I from public', current_database());"
        " execute format('grant connect, temporary on database %I to kontor_flows, kontor_retention',"
        " current_database());"
        " execute format('grant connect on database %I to kontor_finance', current_database());"
        " end $$"
    ),
    "revoke all on schema public from public",
    "grant usage on schema public to kontor_flows, kontor_retention",
    # Flows read everything and write business data; they may delete only what they derive themselves.
    "grant usage on schema crm, landing, rules, ops, report to kontor_flows",
    "grant usage on type crm.item to kontor_flows",
    "grant select on all tables in schema crm, landing, rules, ops to kontor_flows",
    "grant insert, update, maintain on all tables in schema crm to kontor_flows",
    # What never changes: the identity that erasure relies on, and who started a run.
    "revoke update on crm.organizations, crm.contacts from kontor_flows",
    (
        "grant update (name, country, language, vat_number, currency, payment_terms_days, segment, owner,"
        " contacted_on, origin, spoken, seen_as_of, seen_revision, feed_file_id, updated_at) on crm.organizations"
        " to kontor_flows"
    ),
    (
        "grant update (first_name, last_name, email, phone, language, spoken, seen_as_of, seen_revision, feed_file_id,"
        " updated_at) on crm.contacts to kontor_flows"
    ),
    "grant delete on crm.invoice_states, crm.contact_roles to kontor_flows",
    "revoke all on function crm.withdraw_ledger(bigint) from public",
    "grant execute on function crm.withdraw_ledger(bigint) to kontor_flows",
    "grant insert, update on landing.feed_files, landing.quarantined_rows to kontor_flows",
    (
        "grant insert, update, delete, truncate, maintain on landing.staged_items, landing.staged_organizations,"
        " landing.staged_contacts to kontor_flows"
    ),
    "grant insert on ops.instructions to kontor_flows",
    "grant insert, update on ops.payer_class_history to kontor_flows",
    "grant insert, update (state, counts, error_code, ended_at) on ops.run_ledger to kontor_flows",
    "grant delete on ops.payer_class_history to kontor_flows",
    # Retention alone erases.
    "grant usage on schema crm, landing, rules, ops, report to kontor_retention",
    "grant select on all tables in schema crm, landing, rules, ops to kontor_retention",
    "grant update, delete on all tables in schema crm, landing to kontor_retention",
    # Finance reads views and functions of schema report, and nothing else. Its tables-by-default come later, with
    # each view, from the default privileges below.
    "grant usage on schema report to kontor_finance",
    "grant usage on schema ops to kontor_finance",
    (
        "alter default privileges in schema report grant select on tables"
        " to kontor_finance, kontor_flows, kontor_retention"
    ),
    "alter default privileges revoke execute on functions from public",
    (
        "alter default privileges in schema report grant execute on functions"
        " to kontor_finance, kontor_flows, kontor_retention"
    ),
    (
        "alter default privileges in schema ops grant execute on functions"
        " to kontor_finance, kontor_flows, kontor_retention"
    ),
    "alter default privileges in schema crm grant execute on functions to kontor_flows, kontor_retention",
)


def _create_tables() -> None:
    op.create_table(
        "staged_contacts",
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("customer_number", sa.Text(), nullable=True),
        sa.Column("first_name", sa.Text(), nullable=True),
        sa.Column("last_name", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("roles", sa.Text(), nullable=True),
        sa.Column("valid_from", sa.Date(), nullable=True),
        sa.Column("valid_to", sa.Date(), nullable=True),
        schema="landing",
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "staged_items",
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("customer_number", sa.Text(), nullable=True),
        sa.Column("customer_name", sa.Text(), nullable=True),
        sa.Column("invoice_number", sa.Text(), nullable=True),
        sa.Column("document_type", sa.Text(), nullable=True),
        sa.Column("issue_date", sa.Date(), nullable=True),
        sa.Column("due_date", sa.Date(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("amount", sa.Numeric(precision=19, scale=4), nullable=True),
        sa.Column("open_amount", sa.Numeric(precision=19, scale=4), nullable=True),
        sa.Column("disputed", sa.Boolean(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("settled_date", sa.Date(), nullable=True),
        schema="landing",
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "staged_organizations",
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("customer_number", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("country", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("vat_number", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("payment_terms_days", sa.Integer(), nullable=True),
        sa.Column("segment", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("contacted_on", sa.Date(), nullable=True),
        schema="landing",
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "installation",
        sa.Column("installation_id", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("business_timezone", sa.Text(), nullable=False),
        sa.Column("views_sha256", sa.Text(), nullable=False),
        sa.CheckConstraint("installation_id = 1", name=op.f("installation_one_row_check")),
        sa.PrimaryKeyConstraint("installation_id", name=op.f("installation_pkey")),
        schema="ops",
    )
    op.create_table(
        "run_ledger",
        sa.Column("run_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("prefect_run_id", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("counts", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("process_id", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'running') = (ended_at is null)", name=op.f("run_ledger_ended_at_check")),
        sa.CheckConstraint(
            "state in ('running', 'done', 'partly_done', 'failed', 'abandoned')", name=op.f("run_ledger_state_check")
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("run_ledger_pkey")),
        schema="ops",
    )
    op.create_index("run_ledger_flow_started_at_idx", "run_ledger", ["flow", "started_at"], unique=False, schema="ops")
    op.create_table(
        "instructions",
        sa.Column("instruction_id", sa.Uuid(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("said", postgresql.JSONB(), nullable=False),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("instruction_id", name=op.f("instructions_pkey")),
        schema="ops",
    )
    op.create_table(
        "payer_class",
        sa.Column("payer_class_rule_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("payer_class", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("operator", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Numeric(precision=12, scale=4), nullable=False),
        sa.Column("window_months", sa.Integer(), nullable=False),
        sa.Column("minimum_evidence", sa.Integer(), nullable=False),
        sa.Column("weighting", sa.Text(), server_default=sa.text("'count'"), nullable=False),
        sa.Column("leave_out_disputed", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("hysteresis", sa.Numeric(precision=12, scale=4), server_default=sa.text("0"), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("rank"), "="), (sa.column("valid"), "&&"), using="gist", name="payer_class_one_rank"
        ),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="payer_class_one_version"
        ),
        sa.CheckConstraint(
            "metric in ('always', 'mean_days_late', 'late_share', 'worst_open_days_overdue')",
            name=op.f("payer_class_metric_check"),
        ),
        sa.CheckConstraint("operator in ('<', '<=', '>', '>=')", name=op.f("payer_class_operator_check")),
        sa.CheckConstraint(
            "payer_class in ('strict', 'hesitant', 'disloyal', 'unrated')", name=op.f("payer_class_payer_class_check")
        ),
        sa.CheckConstraint("weighting in ('count', 'amount')", name=op.f("payer_class_weighting_check")),
        sa.CheckConstraint("minimum_evidence >= 0 and hysteresis >= 0", name=op.f("payer_class_not_negative_check")),
        sa.CheckConstraint("not isempty(valid)", name=op.f("payer_class_valid_not_empty_check")),
        sa.CheckConstraint("window_months between 1 and 120", name=op.f("payer_class_window_months_check")),
        sa.PrimaryKeyConstraint("payer_class_rule_id", name=op.f("payer_class_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("payer_class_rule_id_version_key")),
        schema="rules",
    )
    op.create_table(
        "feed_files",
        sa.Column("feed_file_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("contract_version", sa.Text(), nullable=False),
        sa.Column("contract_sha256", sa.Text(), nullable=False),
        sa.Column("feed", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("byte_size", sa.BigInteger(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=True),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("columns", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("rows_read", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("inserted", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("unchanged", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("quarantined", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("superseded", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("warned", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("settled", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reopened", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("totals", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("refusal", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("classification_pending", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("mode in ('snapshot', 'ledger', 'records')", name=op.f("feed_files_mode_check")),
        sa.CheckConstraint("state = 'refused' or as_of is not null", name=op.f("feed_files_as_of_check")),
        sa.CheckConstraint(
            "state = 'refused' or rows_read = inserted + updated + unchanged + quarantined + superseded",
            name=op.f("feed_files_every_row_accounted_for_check"),
        ),
        sa.CheckConstraint("state in ('applied', 'superseded', 'refused')", name=op.f("feed_files_state_check")),
        sa.CheckConstraint(
            "least(rows_read, inserted, updated, unchanged, quarantined, superseded) >= 0",
            name=op.f("feed_files_counts_check"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("feed_files_run_id_fkey")),
        sa.PrimaryKeyConstraint("feed_file_id", name=op.f("feed_files_pkey")),
        schema="landing",
    )
    op.create_index(
        "feed_files_content_key",
        "feed_files",
        ["contract", "sha256", "as_of"],
        unique=True,
        schema="landing",
        postgresql_where=sa.text("state <> 'refused'"),
    )
    op.create_index(
        "feed_files_refused_key",
        "feed_files",
        ["contract", "sha256"],
        unique=True,
        schema="landing",
        postgresql_where=sa.text("state = 'refused'"),
    )
    op.create_index(op.f("feed_files_run_id_idx"), "feed_files", ["run_id"], unique=False, schema="landing")
    op.create_index(
        "feed_files_snapshot_key",
        "feed_files",
        ["feed", "source", "as_of"],
        unique=True,
        schema="landing",
        postgresql_where=sa.text("state = 'applied' and mode = 'snapshot'"),
    )
    op.create_table(
        "organizations",
        sa.Column("organization_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("external_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("customer_number", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("vat_number", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("payment_terms_days", sa.Integer(), nullable=True),
        sa.Column("segment", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("contacted_on", sa.Date(), nullable=True),
        sa.Column("origin", sa.Text(), server_default=sa.text("'customers'"), nullable=False),
        sa.Column("spoken", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("seen_as_of", sa.Date(), nullable=False),
        sa.Column("seen_revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("feed_file_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("country ~ '^[A-Z]{2}$'", name=op.f("organizations_country_check")),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("organizations_currency_check")),
        sa.CheckConstraint("customer_number <> ''", name=op.f("organizations_customer_number_check")),
        sa.CheckConstraint("origin in ('customers', 'ledger')", name=op.f("organizations_origin_check")),
        sa.CheckConstraint(
            "payment_terms_days between 0 and 3650", name=op.f("organizations_payment_terms_days_check")
        ),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f("organizations_feed_file_id_fkey")
        ),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("organizations_pkey")),
        sa.UniqueConstraint("customer_number", name=op.f("organizations_customer_number_key")),
        sa.UniqueConstraint("external_id", name=op.f("organizations_external_id_key")),
        schema="crm",
    )
    op.create_index(
        op.f("organizations_feed_file_id_idx"), "organizations", ["feed_file_id"], unique=False, schema="crm"
    )
    op.create_table(
        "quarantined_rows",
        sa.Column("quarantined_row_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("feed_file_id", sa.BigInteger(), nullable=False),
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("customer_number", sa.Text(), nullable=True),
        sa.Column("item_key", sa.Text(), nullable=True),
        sa.Column("cells", postgresql.JSONB(), nullable=False),
        sa.Column("staged", postgresql.JSONB(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(), nullable=False),
        sa.Column("awaits_customer", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("quarantined_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved_by_run_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("(state = 'open') = (resolved_at is null)", name=op.f("quarantined_rows_resolved_at_check")),
        sa.CheckConstraint(
            "state in ('open', 'replayed', 'corrected', 'rejected', 'superseded')",
            name=op.f("quarantined_rows_state_check"),
        ),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f("quarantined_rows_feed_file_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["resolved_by_run_id"], ["ops.run_ledger.run_id"], name=op.f("quarantined_rows_resolved_by_run_id_fkey")
        ),
        sa.PrimaryKeyConstraint("quarantined_row_id", name=op.f("quarantined_rows_pkey")),
        sa.UniqueConstraint("feed_file_id", "row_number", name=op.f("quarantined_rows_feed_file_id_row_number_key")),
        schema="landing",
    )
    op.create_index(
        "quarantined_rows_open_item_idx",
        "quarantined_rows",
        ["customer_number", "item_key"],
        unique=False,
        schema="landing",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        op.f("quarantined_rows_resolved_by_run_id_idx"),
        "quarantined_rows",
        ["resolved_by_run_id"],
        unique=False,
        schema="landing",
    )
    op.create_table(
        "contacts",
        sa.Column("contact_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("external_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("contact_key", sa.Text(), nullable=False),
        sa.Column("first_name", sa.Text(), nullable=True),
        sa.Column("last_name", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("spoken", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("seen_as_of", sa.Date(), nullable=False),
        sa.Column("seen_revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("feed_file_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f("contacts_feed_file_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["crm.organizations.organization_id"], name=op.f("contacts_organization_id_fkey")
        ),
        sa.PrimaryKeyConstraint("contact_id", name=op.f("contacts_pkey")),
        sa.UniqueConstraint("external_id", name=op.f("contacts_external_id_key")),
        sa.UniqueConstraint("organization_id", "contact_key", name=op.f("contacts_organization_id_contact_key_key")),
        schema="crm",
    )
    op.create_index(op.f("contacts_feed_file_id_idx"), "contacts", ["feed_file_id"], unique=False, schema="crm")
    op.create_table(
        "invoices",
        sa.Column("invoice_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("invoice_number", sa.Text(), nullable=False),
        sa.Column("document_type", sa.Text(), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=True),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("open_amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("disputed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("listed_from", sa.Date(), nullable=True),
        sa.Column("listed_until", sa.Date(), nullable=True),
        sa.Column("feed_file_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("invoices_currency_check")),
        sa.CheckConstraint(
            "document_type = 'invoice' or (amount <= 0 and open_amount <= 0)",
            name=op.f("invoices_credit_is_negative_check"),
        ),
        sa.CheckConstraint("document_type in ('invoice', 'credit_note')", name=op.f("invoices_document_type_check")),
        sa.CheckConstraint("invoice_number <> ''", name=op.f("invoices_invoice_number_check")),
        sa.CheckConstraint("listed_from < listed_until", name=op.f("invoices_listed_check")),
        sa.CheckConstraint("listed_from is not null or listed_until is null", name=op.f("invoices_listed_from_check")),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f("invoices_feed_file_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["crm.organizations.organization_id"], name=op.f("invoices_organization_id_fkey")
        ),
        sa.PrimaryKeyConstraint("invoice_id", name=op.f("invoices_pkey")),
        sa.UniqueConstraint(
            "organization_id",
            "source",
            "invoice_number",
            name=op.f("invoices_organization_id_source_invoice_number_key"),
        ),
        schema="crm",
    )
    op.create_index(op.f("invoices_feed_file_id_idx"), "invoices", ["feed_file_id"], unique=False, schema="crm")
    op.create_index(
        "invoices_listed_idx",
        "invoices",
        ["source"],
        unique=False,
        schema="crm",
        postgresql_where=sa.text("listed_from is not null and listed_until is null"),
    )
    op.create_table(
        "payer_class_history",
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", sa.Date(), nullable=False),
        sa.Column("valid_until", sa.Date(), nullable=True),
        sa.Column("payer_class", sa.Text(), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("rule_version", sa.Integer(), nullable=False),
        sa.Column("figures", postgresql.JSONB(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "payer_class in ('strict', 'hesitant', 'disloyal', 'unrated')",
            name=op.f("payer_class_history_payer_class_check"),
        ),
        sa.CheckConstraint("valid_from < valid_until", name=op.f("payer_class_history_valid_check")),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["crm.organizations.organization_id"],
            name=op.f("payer_class_history_organization_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organization_id", "valid_from", name=op.f("payer_class_history_pkey")),
        schema="ops",
    )
    op.create_index(
        "payer_class_history_current_key",
        "payer_class_history",
        ["organization_id"],
        unique=True,
        schema="ops",
        postgresql_where=sa.text("valid_until is null"),
    )
    op.create_table(
        "payer_class_override",
        sa.Column("payer_class_override_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("organization_id", sa.BigInteger(), nullable=False),
        sa.Column("payer_class", sa.Text(), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        postgresql.ExcludeConstraint(
            (sa.column("organization_id"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="payer_class_override_no_overlap",
        ),
        sa.CheckConstraint("(ended_by is null) = (end_reason is null)", name=op.f("payer_class_override_ended_check")),
        sa.CheckConstraint(
            "payer_class in ('strict', 'hesitant', 'disloyal', 'unrated')",
            name=op.f("payer_class_override_payer_class_check"),
        ),
        sa.CheckConstraint(
            "not isempty(valid) and not upper_inf(valid)", name=op.f("payer_class_override_expires_check")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["crm.organizations.organization_id"],
            name=op.f("payer_class_override_organization_id_fkey"),
        ),
        sa.PrimaryKeyConstraint("payer_class_override_id", name=op.f("payer_class_override_pkey")),
        schema="rules",
    )
    op.create_index(
        op.f("payer_class_override_organization_id_idx"),
        "payer_class_override",
        ["organization_id"],
        unique=False,
        schema="rules",
    )
    op.create_table(
        "contact_roles",
        sa.Column("contact_role_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("contact_id", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("feed_file_id", sa.BigInteger(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("contact_id"), "="),
            (sa.column("role"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="contact_roles_no_overlap",
        ),
        sa.CheckConstraint("not isempty(valid)", name=op.f("contact_roles_valid_not_empty_check")),
        sa.ForeignKeyConstraint(
            ["contact_id"], ["crm.contacts.contact_id"], name=op.f("contact_roles_contact_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f("contact_roles_feed_file_id_fkey")
        ),
        sa.PrimaryKeyConstraint("contact_role_id", name=op.f("contact_roles_pkey")),
        schema="crm",
    )
    op.create_index(op.f("contact_roles_contact_id_idx"), "contact_roles", ["contact_id"], unique=False, schema="crm")
    op.create_index(
        op.f("contact_roles_feed_file_id_idx"), "contact_roles", ["feed_file_id"], unique=False, schema="crm"
    )
    op.create_table(
        "invoice_states",
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("listed_from", sa.Date(), nullable=False),
        sa.Column("listed_until", sa.Date(), nullable=False),
        sa.Column("document_type", sa.Text(), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=True),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("open_amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("disputed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("feed_file_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("invoice_states_currency_check")),
        sa.CheckConstraint(
            "document_type = 'invoice' or (amount <= 0 and open_amount <= 0)",
            name=op.f("invoice_states_credit_is_negative_check"),
        ),
        sa.CheckConstraint(
            "document_type in ('invoice', 'credit_note')", name=op.f("invoice_states_document_type_check")
        ),
        sa.CheckConstraint("listed_from < listed_until", name=op.f("invoice_states_listed_check")),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f("invoice_states_feed_file_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["crm.invoices.invoice_id"], name=op.f("invoice_states_invoice_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("invoice_id", "listed_from", name=op.f("invoice_states_pkey")),
        schema="crm",
    )
    op.create_index(
        op.f("invoice_states_feed_file_id_idx"), "invoice_states", ["feed_file_id"], unique=False, schema="crm"
    )
    op.create_table(
        "ledger_entries",
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("document_type", sa.Text(), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=True),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("open_amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("disputed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("settled_on", sa.Date(), nullable=True),
        sa.Column("feed_file_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ledger_entries_currency_check")),
        sa.CheckConstraint(
            "document_type = 'invoice' or (amount <= 0 and open_amount <= 0)",
            name=op.f("ledger_entries_credit_is_negative_check"),
        ),
        sa.CheckConstraint(
            "document_type in ('invoice', 'credit_note')", name=op.f("ledger_entries_document_type_check")
        ),
        sa.CheckConstraint("settled_on <= as_of", name=op.f("ledger_entries_settled_on_check")),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f("ledger_entries_feed_file_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["crm.invoices.invoice_id"], name=op.f("ledger_entries_invoice_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("invoice_id", name=op.f("ledger_entries_pkey")),
        schema="crm",
    )
    op.create_index(
        op.f("ledger_entries_feed_file_id_idx"), "ledger_entries", ["feed_file_id"], unique=False, schema="crm"
    )
    op.create_table(
        "earlier_ledger_entries",
        sa.Column("invoice_id", sa.BigInteger(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("document_type", sa.Text(), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=True),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("open_amount", sa.Numeric(precision=19, scale=4), nullable=False),
        sa.Column("disputed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("settled_on", sa.Date(), nullable=True),
        sa.Column("feed_file_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("earlier_ledger_entries_currency_check")),
        sa.CheckConstraint(
            "document_type = 'invoice' or (amount <= 0 and open_amount <= 0)",
            name=op.f("earlier_ledger_entries_credit_is_negative_check"),
        ),
        sa.CheckConstraint(
            "document_type in ('invoice', 'credit_note')", name=op.f("earlier_ledger_entries_document_type_check")
        ),
        sa.CheckConstraint("settled_on <= as_of", name=op.f("earlier_ledger_entries_settled_on_check")),
        sa.ForeignKeyConstraint(
            ["feed_file_id"], ["landing.feed_files.feed_file_id"], name=op.f("earlier_ledger_entries_feed_file_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["crm.invoices.invoice_id"],
            name=op.f("earlier_ledger_entries_invoice_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("invoice_id", "as_of", name=op.f("earlier_ledger_entries_pkey")),
        schema="crm",
    )
    op.create_index(
        op.f("earlier_ledger_entries_feed_file_id_idx"),
        "earlier_ledger_entries",
        ["feed_file_id"],
        unique=False,
        schema="crm",
    )
