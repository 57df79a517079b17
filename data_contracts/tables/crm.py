"""Schema ``crm``: who the customers are, whom to write to there, and what they owe.

An invoice keeps its newest state in ``invoices`` and every earlier state in ``invoice_states``. A state holds
from the snapshot that first said so (``listed_from``) up to, not including, the first snapshot that said
otherwise (``listed_until``; null while it still holds). What a ledger says of a whole life stands in
``ledger_entries``. Nothing else decides whether an invoice was open on a day.
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
from sqlalchemy.dialects.postgresql import DATERANGE, JSONB, ExcludeConstraint

from data_contracts.tables.base import metadata

MONEY = Numeric(19, 4)


def _file_column() -> Column[int]:
    return Column("feed_file_id", BigInteger, ForeignKey("landing.feed_files.feed_file_id"), nullable=False)


def _state_columns() -> list[Column[object]]:
    """Columns that a snapshot may change from week to week."""
    return [
        Column("document_type", Text, nullable=False),
        Column("issued_on", Date),
        Column("due_on", Date, nullable=False),
        Column("currency", Text, nullable=False),
        Column("amount", MONEY, nullable=False),
        Column("open_amount", MONEY, nullable=False),
        Column("disputed", Boolean, nullable=False, server_default=text("false")),
        Column("note", Text),
    ]


def _state_checks() -> list[CheckConstraint]:
    return [
        CheckConstraint("document_type in ('invoice', 'credit_note')", name="document_type"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("document_type = 'invoice' or (amount <= 0 and open_amount <= 0)", name="credit_is_negative"),
    ]


organizations = Table(
    "organizations",
    metadata,
    Column("organization_id", BigInteger, Identity(always=True), primary_key=True),
    Column("external_id", Uuid, nullable=False, unique=True, server_default=text("gen_random_uuid()")),
    Column("customer_number", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("country", Text),
    Column("language", Text),
    Column("vat_number", Text),
    Column("currency", Text),
    Column("payment_terms_days", Integer),
    Column("segment", Text),
    Column("owner", Text),
    Column("contacted_on", Date),
    Column("origin", Text, nullable=False, server_default=text("'customers'")),
    Column("spoken", JSONB, nullable=False, server_default=text("'{}'")),
    Column("seen_as_of", Date, nullable=False),
    Column("seen_revision", Integer, nullable=False, server_default=text("1")),
    _file_column(),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("customer_number <> ''", name="customer_number"),
    CheckConstraint("country ~ '^[A-Z]{2}$'", name="country"),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    CheckConstraint("payment_terms_days between 0 and 3650", name="payment_terms_days"),
    CheckConstraint("origin in ('customers', 'ledger')", name="origin"),
    Index(None, "feed_file_id"),
    schema="crm",
)

# What is said of a customer; the rest of the columns say whose record it is and where it comes from.
ORGANIZATION_FIELDS = (
    "name",
    "country",
    "language",
    "vat_number",
    "currency",
    "payment_terms_days",
    "segment",
    "owner",
    "contacted_on",
)

contacts = Table(
    "contacts",
    metadata,
    Column("contact_id", BigInteger, Identity(always=True), primary_key=True),
    Column("external_id", Uuid, nullable=False, unique=True, server_default=text("gen_random_uuid()")),
    Column("organization_id", BigInteger, ForeignKey("crm.organizations.organization_id"), nullable=False),
    Column("contact_key", Text, nullable=False),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("email", Text),
    Column("phone", Text),
    Column("language", Text),
    Column("spoken", JSONB, nullable=False, server_default=text("'{}'")),
    Column("seen_as_of", Date, nullable=False),
    Column("seen_revision", Integer, nullable=False, server_default=text("1")),
    _file_column(),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("organization_id", "contact_key"),
    Index(None, "feed_file_id"),
    schema="crm",
)

# The same of a contact.
CONTACT_FIELDS = ("first_name", "last_name", "email", "phone", "language")

contact_roles = Table(
    "contact_roles",
    metadata,
    Column("contact_role_id", BigInteger, Identity(always=True), primary_key=True),
    Column("contact_id", BigInteger, ForeignKey("crm.contacts.contact_id", ondelete="CASCADE"), nullable=False),
    Column("role", Text, nullable=False),
    Column("valid", DATERANGE, nullable=False),
    _file_column(),
    CheckConstraint("not isempty(valid)", name="valid_not_empty"),
    ExcludeConstraint(("contact_id", "="), ("role", "="), ("valid", "&&"), name="contact_roles_no_overlap"),
    Index(None, "contact_id"),
    Index(None, "feed_file_id"),
    schema="crm",
)

invoices = Table(
    "invoices",
    metadata,
    Column("invoice_id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", BigInteger, ForeignKey("crm.organizations.organization_id"), nullable=False),
    Column("source", Text, nullable=False),
    Column("invoice_number", Text, nullable=False),
    *_state_columns(),
    Column("listed_from", Date),
    Column("listed_until", Date),
    _file_column(),
    *_state_checks(),
    CheckConstraint("listed_from < listed_until", name="listed"),
    CheckConstraint("listed_from is not null or listed_until is null", name="listed_from"),
    CheckConstraint("invoice_number <> ''", name="invoice_number"),
    UniqueConstraint("organization_id", "source", "invoice_number"),
    Index(
        "invoices_listed_idx",
        "source",
        postgresql_where=text("listed_from is not null and listed_until is null"),
    ),
    Index(None, "feed_file_id"),
    schema="crm",
)

invoice_states = Table(
    "invoice_states",
    metadata,
    Column("invoice_id", BigInteger, ForeignKey("crm.invoices.invoice_id", ondelete="CASCADE"), primary_key=True),
    Column("listed_from", Date, primary_key=True),
    Column("listed_until", Date, nullable=False),
    *_state_columns(),
    _file_column(),
    *_state_checks(),
    CheckConstraint("listed_from < listed_until", name="listed"),
    Index(None, "feed_file_id"),
    schema="crm",
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("invoice_id", BigInteger, ForeignKey("crm.invoices.invoice_id", ondelete="CASCADE"), primary_key=True),
    Column("as_of", Date, nullable=False),
    Column("revision", Integer, nullable=False, server_default=text("1")),
    *_state_columns(),
    Column("settled_on", Date),
    _file_column(),
    *_state_checks(),
    CheckConstraint("settled_on <= as_of", name="settled_on"),
    Index(None, "feed_file_id"),
    schema="crm",
)

# What a newer ledger replaced: it holds again where that one's correction no longer speaks of the item.
earlier_ledger_entries = Table(
    "earlier_ledger_entries",
    metadata,
    Column("invoice_id", BigInteger, ForeignKey("crm.invoices.invoice_id", ondelete="CASCADE"), primary_key=True),
    Column("as_of", Date, primary_key=True),
    Column("revision", Integer, nullable=False),
    *_state_columns(),
    Column("settled_on", Date),
    _file_column(),
    *_state_checks(),
    CheckConstraint("settled_on <= as_of", name="settled_on"),
    Index(None, "feed_file_id"),
    schema="crm",
)
