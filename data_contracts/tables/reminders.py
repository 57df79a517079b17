"""What is decided about reminders in ``ops``, and the money in ``crm`` that no invoice has been found for yet.

A decision is kept per customer and day. A later run of the same day adds one only where it decides otherwise, so that
the newest row of a day is what holds and the earlier ones say what was thought before.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DATERANGE, JSONB

from data_contracts.tables.base import metadata
from data_contracts.tables.crm import MONEY

HOLD_KINDS = ("dispute", "promise_to_pay", "do_not_remind", "unmatched_money", "legal_hold")

reminder_decisions = Table(
    "reminder_decisions",
    metadata,
    Column("decision_id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id"), nullable=False),
    Column("as_of", Date, nullable=False),
    Column("organization_id", BigInteger, ForeignKey("crm.organizations.organization_id"), nullable=False),
    Column("decision", Text, nullable=False),
    Column("stage", Text),
    Column("sequence", Integer),
    Column("reason", Text, nullable=False),
    Column("reason_code", Text, nullable=False),
    # No foreign key: who was meant stays readable after the contact is gone, and is erased with the rest.
    Column("contact_id", BigInteger),
    Column("recipient_email", Text),
    Column("recipient_reason", Text),
    Column("language", Text),
    Column("invoice_ids", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    Column("rule_id", Text),
    Column("rule_version", Integer),
    Column("figures", JSONB, nullable=False, server_default=text("'{}'")),
    Column("decided_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("decision in ('remind', 'nothing', 'hold', 'task')", name="decision"),
    CheckConstraint("stage in ('upcoming', 'first', 'second', 'final')", name="stage"),
    CheckConstraint(
        "decision <> 'remind' or (stage is not null and sequence is not null and recipient_email is not null"
        " and language is not null and rule_id is not null)",
        name="remind_is_whole",
    ),
    CheckConstraint("reason <> '' and reason_code <> ''", name="reason"),
    Index(None, "organization_id", "as_of"),
    Index(None, "as_of"),
    Index(None, "run_id"),
    schema="ops",
)

# What the newest plan of a day left behind, for its next run to compare with. Counts and sums, nothing personal.
reminder_plans = Table(
    "reminder_plans",
    metadata,
    Column("as_of", Date, primary_key=True),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id"), nullable=False),
    Column("facts", Text, nullable=False),
    Column("of_today", BigInteger, nullable=False),
    Column("reasons", JSONB, nullable=False),
    Column("planned_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # When finance was sent the list of the day's mails; empty again once further ones are planned.
    Column("told_at", DateTime(timezone=True)),
    CheckConstraint("facts ~ '^[0-9a-f]{64}$'", name="facts"),
    Index(None, "run_id"),
    schema="ops",
)

reminder_holds = Table(
    "reminder_holds",
    metadata,
    Column("hold_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("organization_id", BigInteger, ForeignKey("crm.organizations.organization_id"), nullable=False),
    Column("invoice_id", BigInteger, ForeignKey("crm.invoices.invoice_id")),
    Column("valid", DATERANGE, nullable=False),
    Column("promised_amount", MONEY),
    Column("promised_currency", Text),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("released_at", DateTime(timezone=True)),
    Column("released_by", Text),
    Column("release_reason", Text),
    CheckConstraint(
        "kind in ('dispute', 'promise_to_pay', 'do_not_remind', 'unmatched_money', 'legal_hold')", name="kind"
    ),
    CheckConstraint("not isempty(valid) and not lower_inf(valid)", name="valid_begins"),
    CheckConstraint("kind <> 'promise_to_pay' or not upper_inf(valid)", name="promise_ends"),
    CheckConstraint("(promised_amount is null) = (promised_currency is null)", name="promised"),
    CheckConstraint("promised_amount > 0", name="promised_amount"),
    CheckConstraint("promised_currency ~ '^[A-Z]{3}$'", name="promised_currency"),
    CheckConstraint(
        "(released_at is null) = (released_by is null) and (released_at is null) = (release_reason is null)",
        name="released",
    ),
    Index(None, "organization_id"),
    Index(None, "invoice_id"),
    schema="ops",
)

reminder_tasks = Table(
    "reminder_tasks",
    metadata,
    Column("task_id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", BigInteger, ForeignKey("crm.organizations.organization_id")),
    Column("kind", Text, nullable=False),
    Column("as_of", Date, nullable=False),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id")),
    Column("owner", Text),
    Column("details", Text, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("closed_at", DateTime(timezone=True)),
    Column("closed_by", Text),
    Column("close_reason", Text),
    CheckConstraint(
        "kind in ('no_contact', 'no_valid_address', 'address_bounced', 'broken_promise', 'stale_data', 'brake')",
        name="kind",
    ),
    CheckConstraint(
        "(closed_at is null) = (closed_by is null) and (closed_at is null) = (close_reason is null)", name="closed"
    ),
    Index(
        "reminder_tasks_open_key",
        "organization_id",
        "kind",
        unique=True,
        postgresql_where=text("closed_at is null"),
        postgresql_nulls_not_distinct=True,
    ),
    Index(None, "organization_id"),
    Index(None, "run_id"),
    schema="ops",
)

payments = Table(
    "payments",
    metadata,
    Column("payment_id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", BigInteger, ForeignKey("crm.organizations.organization_id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("payment_number", Text, nullable=False),
    Column("invoice_number", Text),
    Column("received_on", Date, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", MONEY, nullable=False),
    Column("note", Text),
    Column("feed_file_id", BigInteger, ForeignKey("landing.feed_files.feed_file_id")),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("payment_number <> ''", name="payment_number"),
    CheckConstraint("amount > 0", name="amount"),
    UniqueConstraint("organization_id", "source", "payment_number"),
    Index(None, "feed_file_id"),
    schema="crm",
)

allocations = Table(
    "allocations",
    metadata,
    Column("payment_id", BigInteger, ForeignKey("crm.payments.payment_id", ondelete="CASCADE"), primary_key=True),
    Column("invoice_id", BigInteger, ForeignKey("crm.invoices.invoice_id", ondelete="CASCADE"), primary_key=True),
    Column("amount", MONEY, nullable=False),
    Column("allocated_on", Date, nullable=False),
    CheckConstraint("amount > 0", name="amount"),
    Index(None, "invoice_id"),
    schema="crm",
)
