"""Schema ``outbox``: which mail is to go to whom, for which items, and what the mail server said.

A row of ``reminders`` is one mail to one person. Its items are reservations: an invoice gets each stage, and each
repeat of one, at most once, for ever; only a reservation that was never sent can be released.

    planned     reserved, waits for the gate, or for a person where ``needs_approval``
    held        a person or a rule holds it back
    approved    a person let it go
    cancelled   will never be sent; ``state_reason`` says why, its reservations are released
    sending     handed to the mail server; committed before the first byte leaves
    sent        the server took it (250)
    refused     the server will not have it (5xx)
    deferred    the server asks for another try later (4xx)
    unknown     nobody knows whether the server took it; a person resolves it, it is never sent again by itself
    bounced     taken first, returned later
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
    Table,
    Text,
    func,
    text,
)

from data_contracts.tables.base import metadata
from data_contracts.tables.crm import MONEY

STAGE_CHECK = "stage in ('upcoming', 'first', 'second', 'final')"

reminders = Table(
    "reminders",
    metadata,
    Column("reminder_id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id"), nullable=False),
    Column("decision_id", BigInteger, ForeignKey("ops.reminder_decisions.decision_id"), nullable=False),
    Column("organization_id", BigInteger, ForeignKey("crm.organizations.organization_id"), nullable=False),
    Column("as_of", Date, nullable=False),
    Column("stage", Text, nullable=False),
    Column("sequence", Integer, nullable=False, server_default=text("1")),
    Column("state", Text, nullable=False, server_default=text("'planned'")),
    Column("state_reason", Text),
    Column("contact_id", BigInteger, ForeignKey("crm.contacts.contact_id", ondelete="SET NULL")),
    Column("recipient_email", Text, nullable=False),
    Column("recipient_reason", Text, nullable=False),
    Column("cc", Text),
    Column("language", Text, nullable=False),
    Column("template", Text, nullable=False),
    Column("attachment", Text, nullable=False, server_default=text("'none'")),
    Column("subject", Text),
    Column("message_id", Text, unique=True),
    Column("thread_message_id", Text),
    Column("rule_id", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("needs_approval", Boolean, nullable=False, server_default=text("false")),
    Column("approved_by", Text),
    Column("approved_at", DateTime(timezone=True)),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_attempt_at", DateTime(timezone=True)),
    Column("claimed_by", Text),
    Column("claimed_at", DateTime(timezone=True)),
    Column("planned_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("sent_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint(STAGE_CHECK, name="stage"),
    CheckConstraint("sequence >= 1 and attempts >= 0", name="counted"),
    CheckConstraint(
        "state in ('planned', 'held', 'approved', 'cancelled', 'sending', 'sent', 'refused', 'deferred', 'unknown',"
        " 'bounced')",
        name="state",
    ),
    CheckConstraint("state <> 'cancelled' or state_reason is not null", name="state_reason"),
    CheckConstraint("(approved_by is null) = (approved_at is null)", name="approved"),
    CheckConstraint("attachment in ('none', 'xlsx', 'pdf')", name="attachment"),
    # Nobody gets two mails of one day: a second one can only follow a cancelled one.
    Index(
        "reminders_one_a_day_key",
        "organization_id",
        "as_of",
        unique=True,
        postgresql_where=text("state <> 'cancelled'"),
    ),
    Index("reminders_waiting_idx", "state", postgresql_where=text("state not in ('sent', 'cancelled')")),
    Index(None, "run_id"),
    Index(None, "decision_id"),
    Index(None, "organization_id", "as_of"),
    Index(None, "contact_id"),
    schema="outbox",
)

reminder_items = Table(
    "reminder_items",
    metadata,
    Column("reminder_id", BigInteger, ForeignKey("outbox.reminders.reminder_id"), primary_key=True),
    Column("invoice_id", BigInteger, ForeignKey("crm.invoices.invoice_id"), primary_key=True),
    Column("stage", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("currency", Text, nullable=False),
    Column("open_amount", MONEY, nullable=False),
    Column("due_on", Date, nullable=False),
    Column("released_at", DateTime(timezone=True)),
    Column("release_reason", Text),
    CheckConstraint(STAGE_CHECK, name="stage"),
    CheckConstraint("sequence >= 1", name="sequence"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("open_amount > 0", name="open_amount"),
    CheckConstraint("(released_at is null) = (release_reason is null)", name="released"),
    Index(
        "reminder_items_once_key",
        "invoice_id",
        "stage",
        "sequence",
        unique=True,
        postgresql_where=text("released_at is null"),
    ),
    Index(None, "invoice_id"),
    schema="outbox",
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("delivery_id", BigInteger, Identity(always=True), primary_key=True),
    Column("reminder_id", BigInteger, ForeignKey("outbox.reminders.reminder_id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("recipient_email", Text, nullable=False),
    Column("smtp_code", Integer),
    Column("smtp_answer", Text),
    Column("outcome", Text, nullable=False),
    Column("at", DateTime(timezone=True), primary_key=True),
    Column("mode", Text, nullable=False),
    Column("eml_path", Text),
    CheckConstraint("attempt >= 1", name="attempt"),
    CheckConstraint(
        "outcome in ('sent', 'refused', 'deferred', 'unknown', 'held', 'bounced', 'resolved')", name="outcome"
    ),
    CheckConstraint("mode in ('hold', 'redirect', 'live')", name="mode"),
    Index(None, "reminder_id"),
    schema="outbox",
    postgresql_partition_by="RANGE (at)",  # by month: ops.prepare_months
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("suppression_id", BigInteger, Identity(always=True), primary_key=True),
    Column("email", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("count", Integer, nullable=False, server_default=text("1")),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("until", DateTime(timezone=True)),
    Column("reason", Text, nullable=False),
    CheckConstraint("email = lower(email) and email <> ''", name="email"),
    CheckConstraint("kind in ('hard_bounce', 'soft_bounce', 'person_asked', 'erased')", name="kind"),
    CheckConstraint("count >= 1", name="count"),
    CheckConstraint("since < until", name="until"),
    Index(
        "suppressions_in_force_key",
        "email",
        "kind",
        unique=True,
        postgresql_where=text("until is null"),
    ),
    Index(None, "email"),
    schema="outbox",
)

# How far each mailbox of returned mail was read; its name is a fingerprint of server, user and folder.
bounce_mailboxes = Table(
    "bounce_mailboxes",
    metadata,
    Column("mailbox", Text, primary_key=True),
    Column("uid_validity", BigInteger, nullable=False),
    Column("last_uid", BigInteger, nullable=False),
    Column("read_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("mailbox ~ '^[0-9a-f]{64}$'", name="mailbox"),
    CheckConstraint("last_uid >= 1", name="last_uid"),
    schema="outbox",
)
