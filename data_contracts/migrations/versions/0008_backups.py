"""Backups and the checks of them: what was made, what was proven, and the rules by which they are kept.

Needed by flows/backup.py and flows/restore_check.py; report.backups reads them.
Locks: none on tables that hold data; only new tables are made.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

GRANTS = (
    "grant select, insert, update on ops.backups to kontor_flows",
    "grant select, insert on ops.restore_checks to kontor_flows",
    "grant select, insert, delete on ops.heartbeats to kontor_flows",
    "grant select on rules.backup_policy to kontor_flows, kontor_retention",
    "grant select on ops.backups, ops.restore_checks, ops.heartbeats to kontor_retention",
)


def upgrade() -> None:
    """Create the tables and let flows write what they did."""
    _create_backups()
    _create_checks()
    _create_heartbeats()
    _create_policy()
    for statement in GRANTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables; the backups themselves stay where they are."""
    for schema, name in (
        ("rules", "backup_policy"),
        ("ops", "heartbeats"),
        ("ops", "restore_checks"),
        ("ops", "backups"),
    ):
        op.drop_table(name, schema=schema)


def _instant(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column[object]:
    server_default = sa.text(default) if default else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=server_default)


def _create_backups() -> None:
    op.create_table(
        "backups",
        sa.Column("backup_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("base_label", sa.Text()),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("run_id", sa.BigInteger()),
        _instant("started_at"),
        _instant("ended_at", nullable=True),
        sa.Column("server_version", sa.Integer()),
        _instant("point_at", nullable=True),
        sa.Column("source_bytes", sa.BigInteger()),
        sa.Column("stored_bytes", sa.BigInteger()),
        sa.Column("table_count", sa.Integer()),
        sa.Column("row_count", sa.BigInteger()),
        sa.Column("error_code", sa.Text()),
        sa.CheckConstraint("kind in ('full', 'incremental')", name=op.f("backups_kind_check")),
        sa.CheckConstraint("(kind = 'incremental') = (base_label is not null)", name=op.f("backups_base_label_check")),
        sa.CheckConstraint(
            "state in ('running', 'done', 'failed', 'abandoned', 'pruned', 'missing')",
            name=op.f("backups_state_check"),
        ),
        sa.CheckConstraint("(state = 'running') = (ended_at is null)", name=op.f("backups_ended_at_check")),
        sa.PrimaryKeyConstraint("backup_id", name=op.f("backups_pkey")),
        sa.UniqueConstraint("label", name=op.f("backups_label_key")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["ops.run_ledger.run_id"], name=op.f("backups_run_id_fkey"), ondelete="SET NULL"
        ),
        schema="ops",
    )
    op.create_index(op.f("backups_run_id_idx"), "backups", ["run_id"], schema="ops")
    op.create_index(op.f("backups_started_at_idx"), "backups", ["started_at"], schema="ops")


def _create_checks() -> None:
    op.create_table(
        "restore_checks",
        sa.Column("restore_check_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("backup_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.BigInteger()),
        sa.Column("state", sa.Text(), nullable=False),
        _instant("checked_at", default="now()"),
        sa.Column("findings", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        _instant("instant", nullable=True),
        sa.Column("planted", sa.Text()),
        sa.Column("planted_caught", sa.Boolean()),
        sa.Column("restore_seconds", sa.Numeric(precision=12, scale=3)),
        sa.Column("total_seconds", sa.Numeric(precision=12, scale=3)),
        sa.CheckConstraint("state in ('passed', 'failed')", name=op.f("restore_checks_state_check")),
        sa.PrimaryKeyConstraint("restore_check_id", name=op.f("restore_checks_pkey")),
        sa.UniqueConstraint("backup_id", "checked_at", name=op.f("restore_checks_backup_id_checked_at_key")),
        sa.ForeignKeyConstraint(
            ["backup_id"], ["ops.backups.backup_id"], name=op.f("restore_checks_backup_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["ops.run_ledger.run_id"], name=op.f("restore_checks_run_id_fkey"), ondelete="SET NULL"
        ),
        schema="ops",
    )
    op.create_index(op.f("restore_checks_run_id_idx"), "restore_checks", ["run_id"], schema="ops")


def _create_heartbeats() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("heartbeat_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _instant("beat_at", default="clock_timestamp()"),
        sa.PrimaryKeyConstraint("heartbeat_id", name=op.f("heartbeats_pkey")),
        schema="ops",
    )
    op.create_index(op.f("heartbeats_beat_at_idx"), "heartbeats", ["beat_at"], schema="ops")


def _create_policy() -> None:
    whole = [
        sa.Column(name, sa.Integer(), nullable=False)
        for name in (
            "full_every_days",
            "recovery_window_days",
            "keep_daily",
            "keep_weekly",
            "keep_monthly",
            "minimum_good",
            "silent_after_hours",
        )
    ]
    op.create_table(
        "backup_policy",
        sa.Column("backup_policy_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        *whole,
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint((sa.column("valid"), "&&"), using="gist", name="backup_policy_one_in_force"),
        sa.CheckConstraint(
            "keep_daily >= 0 and keep_weekly >= 0 and keep_monthly >= 0", name=op.f("backup_policy_not_negative_check")
        ),
        sa.CheckConstraint(
            "full_every_days >= 1 and recovery_window_days >= 1", name=op.f("backup_policy_at_least_a_day_check")
        ),
        sa.CheckConstraint(
            "minimum_good >= 1 and silent_after_hours >= 1", name=op.f("backup_policy_at_least_one_check")
        ),
        sa.CheckConstraint("not isempty(valid)", name=op.f("backup_policy_valid_not_empty_check")),
        sa.PrimaryKeyConstraint("backup_policy_id", name=op.f("backup_policy_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("backup_policy_rule_id_version_key")),
        schema="rules",
    )
