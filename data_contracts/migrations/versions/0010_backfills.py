"""Backfills and their windows; alerts about runs.

Needed by ``kontor backfill``, the flow of that name and run_watch.
Locks: creates new tables; the foreign key takes SHARE ROW EXCLUSIVE on ops.run_ledger for a moment.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_UNFINISHED = "state in ('waiting', 'running', 'paused')"


def upgrade() -> None:
    """Create the tables; flows may write them, and delete nothing."""
    _create_backfills()
    _create_windows()
    _create_alerts()
    op.execute("grant select, insert on ops.alerts to kontor_flows")
    op.execute(
        "grant update (kind, cause, last_seen_at, told_at, cleared_at, told_cleared_at) on ops.alerts to kontor_flows"
    )
    op.execute("grant select, delete on ops.alerts to kontor_retention")
    op.execute("grant select, insert on ops.backfills, ops.backfill_windows to kontor_flows")
    op.execute("grant update (state, figures_after, ended_at, reprocess) on ops.backfills to kontor_flows")
    op.execute(
        "grant update (state, attempts, run_id, counts, error_code, started_at, ended_at)"
        " on ops.backfill_windows to kontor_flows"
    )
    op.execute("grant select, delete on ops.backfills, ops.backfill_windows to kontor_retention")
    op.execute("grant update (reason, requested_by, source_folder) on ops.backfills to kontor_retention")


def _create_backfills() -> None:
    op.create_table(
        "backfills",
        sa.Column("backfill_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("period", postgresql.DATERANGE(), nullable=False),
        sa.Column("every", sa.Text(), nullable=False),
        sa.Column("excluded_days", postgresql.ARRAY(sa.Date()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("newest_first", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("concurrency", sa.SmallInteger(), server_default=sa.text("2"), nullable=False),
        sa.Column("runs_apart", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("reprocess", sa.Text(), nullable=False),
        sa.Column("source_folder", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("figures_before", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("figures_after", postgresql.JSONB(), nullable=True),
        sa.Column("requested_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("every in ('day', 'week', 'month')", name=op.f("backfills_every_check")),
        sa.CheckConstraint("concurrency between 1 and 8", name=op.f("backfills_concurrency_check")),
        sa.CheckConstraint("reprocess in ('missing', 'failed', 'all')", name=op.f("backfills_reprocess_check")),
        sa.CheckConstraint(
            "state in ('waiting', 'running', 'paused', 'cancelled', 'done', 'failed')",
            name=op.f("backfills_state_check"),
        ),
        sa.CheckConstraint(
            "not isempty(period) and not lower_inf(period) and not upper_inf(period)",
            name=op.f("backfills_period_check"),
        ),
        sa.CheckConstraint(
            "(state in ('cancelled', 'done', 'failed')) = (ended_at is not null)",
            name=op.f("backfills_ended_at_check"),
        ),
        sa.CheckConstraint("reason <> ''", name=op.f("backfills_reason_check")),
        postgresql.ExcludeConstraint(
            (sa.column("flow"), "="),
            (sa.column("period"), "&&"),
            where=sa.text(_UNFINISHED),
            using="gist",
            name="backfills_no_overlap",
        ),
        sa.PrimaryKeyConstraint("backfill_id", name=op.f("backfills_pkey")),
        schema="ops",
    )


def _create_windows() -> None:
    op.create_table(
        "backfill_windows",
        sa.Column("backfill_id", sa.BigInteger(), nullable=False),
        sa.Column("window_number", sa.Integer(), nullable=False),
        sa.Column("from_on", sa.Date(), nullable=False),
        sa.Column("to_on", sa.Date(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("counts", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state in ('waiting', 'running', 'done', 'failed', 'skipped')", name=op.f("backfill_windows_state_check")
        ),
        sa.CheckConstraint("from_on <= to_on", name=op.f("backfill_windows_days_check")),
        sa.CheckConstraint("attempts >= 0", name=op.f("backfill_windows_attempts_check")),
        sa.ForeignKeyConstraint(
            ["backfill_id"],
            ["ops.backfills.backfill_id"],
            name=op.f("backfill_windows_backfill_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("backfill_windows_run_id_fkey")),
        sa.PrimaryKeyConstraint("backfill_id", "window_number", name=op.f("backfill_windows_pkey")),
        schema="ops",
    )
    op.create_index(op.f("backfill_windows_run_id_idx"), "backfill_windows", ["run_id"], schema="ops")


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind in ('late', 'missing', 'too_long', 'crashed', 'failed', 'idle', 'silent')",
            name=op.f("alerts_kind_check"),
        ),
        sa.CheckConstraint("cleared_at >= opened_at", name=op.f("alerts_cleared_at_check")),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("alerts_run_id_fkey")),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("alerts_pkey")),
        schema="ops",
    )
    op.create_index(
        "alerts_open_key",
        "alerts",
        ["fingerprint"],
        unique=True,
        schema="ops",
        postgresql_where=sa.text("cleared_at is null"),
    )
    op.create_index(op.f("alerts_run_id_idx"), "alerts", ["run_id"], schema="ops")


def downgrade() -> None:
    """Drop the tables with what was asked for and told."""
    op.drop_table("alerts", schema="ops")
    op.drop_table("backfill_windows", schema="ops")
    op.drop_table("backfills", schema="ops")
