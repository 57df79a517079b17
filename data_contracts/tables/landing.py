"""Schema ``landing``: which files came in, what became of their rows, and the rows that could not be used."""

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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from data_contracts.tables.base import metadata

COUNTS = ("rows_read", "inserted", "updated", "unchanged", "quarantined", "superseded")


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text("0"))


feed_files = Table(
    "feed_files",
    metadata,
    Column("feed_file_id", BigInteger, Identity(always=True), primary_key=True),
    Column("contract", Text, nullable=False),
    Column("contract_version", Text, nullable=False),
    Column("contract_sha256", Text, nullable=False),
    Column("feed", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("byte_size", BigInteger, nullable=False),
    Column("as_of", Date),
    Column("revision", Integer, nullable=False, server_default=text("1")),
    # The file's turn among those of its day and revision, written so that it sorts as text.
    Column("sequence", Text, nullable=False, server_default=text("''")),
    Column("columns", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("state", Text, nullable=False),
    *(_count(name) for name in COUNTS),
    _count("warned"),
    _count("settled"),
    _count("reopened"),
    Column("totals", JSONB, nullable=False, server_default=text("'{}'")),
    Column("sums", JSONB, nullable=False, server_default=text("'{}'")),
    Column("stated", JSONB, nullable=False, server_default=text("'[]'")),
    Column("guards", JSONB, nullable=False, server_default=text("'[]'")),
    Column("refusal", JSONB, nullable=False, server_default=text("'[]'")),
    Column("classification_pending", Boolean, nullable=False, server_default=text("false")),
    Column("run_id", BigInteger, ForeignKey("ops.run_ledger.run_id"), nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("mode in ('snapshot', 'ledger', 'records')", name="mode"),
    CheckConstraint("state in ('applied', 'superseded', 'refused')", name="state"),
    CheckConstraint("state = 'refused' or as_of is not null", name="as_of"),
    CheckConstraint(
        "state = 'refused' or rows_read = inserted + updated + unchanged + quarantined + superseded",
        name="every_row_accounted_for",
    ),
    CheckConstraint("least(rows_read, inserted, updated, unchanged, quarantined, superseded) >= 0", name="counts"),
    Index(
        "feed_files_content_key",
        "contract",
        "sha256",
        "as_of",
        unique=True,
        postgresql_where=text("state <> 'refused'"),
    ),
    Index(
        "feed_files_snapshot_key",
        "feed",
        "source",
        "as_of",
        unique=True,
        postgresql_where=text("state = 'applied' and mode = 'snapshot'"),
    ),
    Index(
        "feed_files_refused_key",
        "contract",
        "sha256",
        unique=True,
        postgresql_where=text("state = 'refused'"),
    ),
    Index(None, "run_id"),
    schema="landing",
)

quarantined_rows = Table(
    "quarantined_rows",
    metadata,
    Column("quarantined_row_id", BigInteger, Identity(always=True), primary_key=True),
    Column("feed_file_id", BigInteger, ForeignKey("landing.feed_files.feed_file_id"), nullable=False),
    Column("row_number", Integer, nullable=False),
    Column("customer_number", Text),
    Column("item_key", Text),
    Column("cells", JSONB, nullable=False),
    Column("staged", JSONB, nullable=False),
    Column("reasons", JSONB, nullable=False),
    Column("awaits_customer", Boolean, nullable=False, server_default=text("false")),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    Column("quarantined_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("resolved_at", DateTime(timezone=True)),
    Column("resolved_by_run_id", BigInteger, ForeignKey("ops.run_ledger.run_id")),
    CheckConstraint("state in ('open', 'replayed', 'corrected', 'rejected', 'superseded')", name="state"),
    CheckConstraint("(state = 'open') = (resolved_at is null)", name="resolved_at"),
    UniqueConstraint("feed_file_id", "row_number"),
    Index(
        "quarantined_rows_open_item_idx",
        "customer_number",
        "item_key",
        postgresql_where=text("state = 'open'"),
    ),
    Index(None, "resolved_by_run_id"),
    schema="landing",
)


def _staged(name: str, *columns: Column[object]) -> Table:
    """An unlogged table with a file's typed rows while it is judged; emptied before and after."""
    return Table(
        name,
        metadata,
        Column("row_number", Integer, nullable=False),
        *columns,
        schema="landing",
        prefixes=["UNLOGGED"],
    )


MONEY = Numeric(19, 4)

staged_items = _staged(
    "staged_items",
    Column("customer_number", Text),
    Column("customer_name", Text),
    Column("invoice_number", Text),
    Column("document_type", Text),
    Column("issue_date", Date),
    Column("due_date", Date),
    Column("currency", Text),
    Column("amount", MONEY),
    Column("open_amount", MONEY),
    Column("disputed", Boolean),
    Column("note", Text),
    Column("settled_date", Date),
)

staged_payments = _staged(
    "staged_payments",
    Column("customer_number", Text),
    Column("payment_number", Text),
    Column("invoice_number", Text),
    Column("received_date", Date),
    Column("currency", Text),
    Column("amount", MONEY),
    Column("note", Text),
)

staged_organizations = _staged(
    "staged_organizations",
    Column("customer_number", Text),
    Column("name", Text),
    Column("country", Text),
    Column("language", Text),
    Column("vat_number", Text),
    Column("currency", Text),
    Column("payment_terms_days", Integer),
    Column("segment", Text),
    Column("owner", Text),
    Column("contacted_on", Date),
)

staged_contacts = _staged(
    "staged_contacts",
    Column("customer_number", Text),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("email", Text),
    Column("phone", Text),
    Column("language", Text),
    Column("roles", Text),
    Column("valid_from", Date),
    Column("valid_to", Date),
)
