"""Guards: thresholds as dated rules; beside each file its sums, those it states itself and what its guards measured.

Needed by the judgement of a file against its neighbours (tasks/feeds/guards_store.py).
Locks: ACCESS EXCLUSIVE on landing.feed_files while columns with constant defaults are added; that rewrites nothing and
takes no time beyond waiting for runs that hold the table.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the three columns and the table, and let flows read it."""
    for name, empty in (("sums", "'{}'"), ("stated", "'[]'"), ("guards", "'[]'")):
        column = sa.Column(name, postgresql.JSONB(), server_default=sa.text(empty), nullable=False)
        op.add_column("feed_files", column, schema="landing")
    _create_thresholds()
    op.execute("grant select on rules.quality_threshold to kontor_flows, kontor_retention")


def _create_thresholds() -> None:
    op.create_table(
        "quality_threshold",
        sa.Column("quality_threshold_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("guard", sa.Text(), nullable=False),
        sa.Column("feed", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("source", sa.Text(), server_default=sa.text("'*'"), nullable=False),
        sa.Column("threshold", sa.Numeric(precision=12, scale=4), nullable=False),
        sa.Column("minimum_evidence", sa.Integer(), nullable=False),
        sa.Column("window_days", sa.Integer(), nullable=True),
        sa.Column("valid", postgresql.DATERANGE(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("rule_id"), "="), (sa.column("valid"), "&&"), using="gist", name="quality_threshold_one_version"
        ),
        postgresql.ExcludeConstraint(
            (sa.column("guard"), "="),
            (sa.column("feed"), "="),
            (sa.column("source"), "="),
            (sa.column("valid"), "&&"),
            using="gist",
            name="quality_threshold_one_in_force",
        ),
        sa.CheckConstraint(
            "threshold >= 0 and minimum_evidence >= 0", name=op.f("quality_threshold_not_negative_check")
        ),
        sa.CheckConstraint("window_days > 0", name=op.f("quality_threshold_window_days_check")),
        sa.CheckConstraint("not isempty(valid)", name=op.f("quality_threshold_valid_not_empty_check")),
        sa.PrimaryKeyConstraint("quality_threshold_id", name=op.f("quality_threshold_pkey")),
        sa.UniqueConstraint("rule_id", "version", name=op.f("quality_threshold_rule_id_version_key")),
        schema="rules",
    )
