"""Schema ``history``: who changed what, written by the database itself, never edited.

``change_log`` has one row per changed record. ``column_names`` says what changed, ``old_values`` and ``new_values``
hold the values as text under those names; a name that is missing there stands for null. Each value has a salt: derived
from ``salt``, or, once something in the same row was erased, kept in ``salts``. An erased value leaves its salted hash
in ``commitments``, so that the hash of the row stays what it was. ``seals`` chain the hashes of the rows.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from data_contracts.tables.base import metadata

change_log = Table(
    "change_log",
    metadata,
    Column("entry_id", BigInteger, Identity(always=True), primary_key=True),
    Column("changed_at", DateTime(timezone=True), primary_key=True),
    Column("operation", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("record_id", BigInteger, nullable=False),
    Column("external_id", Uuid),
    Column("parent_id", BigInteger),
    Column("role", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("run_id", BigInteger),
    Column("column_names", ARRAY(Text), nullable=False),
    Column("old_values", JSONB, nullable=False, server_default=text("'{}'")),
    Column("new_values", JSONB, nullable=False, server_default=text("'{}'")),
    Column("salt", Uuid),
    Column("salts", JSONB),
    Column("commitments", JSONB),
    CheckConstraint("operation in ('baseline', 'insert', 'update', 'delete', 'erase')", name="operation"),
    CheckConstraint("(salt is null) = (salts is not null and commitments is not null)", name="salt"),
    CheckConstraint(
        "jsonb_typeof(old_values) = 'object' and jsonb_typeof(new_values) = 'object'"
        " and (salts is null or jsonb_typeof(salts) = 'object')"
        " and (commitments is null or jsonb_typeof(commitments) = 'object')",
        name="objects",
    ),
    Index("change_log_record_idx", "table_name", "record_id"),
    Index("change_log_parent_idx", "table_name", "parent_id", postgresql_where=text("parent_id is not null")),
    Index("change_log_erased_idx", "entry_id", postgresql_where=text("salt is null")),
    Index(
        "change_log_customer_number_idx",
        text("(new_values ->> 'customer_number')"),
        postgresql_where=text("table_name = 'organizations' and new_values ? 'customer_number'"),
    ),
    schema="history",
    postgresql_partition_by="RANGE (changed_at)",  # by month: ops.prepare_months
)

seals = Table(
    "seals",
    metadata,
    Column("seal_number", BigInteger, primary_key=True, autoincrement=False),
    Column("previous_root", LargeBinary, nullable=False),
    Column("through_entry_id", BigInteger, nullable=False),
    Column("entry_ids", ARRAY(BigInteger), nullable=False),
    Column("entry_hashes", ARRAY(LargeBinary), nullable=False),
    Column("sealed_at", DateTime(timezone=True), nullable=False),
    Column("sealed_by", Text, nullable=False),
    Column("root", LargeBinary, nullable=False),
    CheckConstraint("seal_number >= 1 and cardinality(entry_ids) = cardinality(entry_hashes)", name="entries"),
    schema="history",
)
