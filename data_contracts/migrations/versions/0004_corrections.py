"""Corrections: what people changed in quarantined rows, kept append-only for flows.

Needed by ``kontor quarantine replay`` and ``reject``, and by report.corrections.
Locks: creates a new table; its foreign keys take SHARE ROW EXCLUSIVE on landing.quarantined_rows and ops.run_ledger for
a moment, so that a run under way is waited for and a new one waits.
Interrupted: everything runs in one transaction, so an aborted run leaves nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; flows may add to it and read it, retention may erase."""
    op.create_table(
        "corrections",
        sa.Column("correction_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("quarantined_row_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("column_name", sa.Text(), nullable=True),
        sa.Column("old_value", sa.Text(), nullable=True),
        sa.Column("new_value", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("corrected_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(outcome = 'rejected') = (column_name is null)", name=op.f("corrections_column_name_check")
        ),
        sa.CheckConstraint("(outcome = 'rejected') = (reason is not null)", name=op.f("corrections_reason_check")),
        sa.CheckConstraint(
            "outcome in ('taken_in', 'still_wrong', 'rejected')", name=op.f("corrections_outcome_check")
        ),
        sa.ForeignKeyConstraint(
            ["quarantined_row_id"],
            ["landing.quarantined_rows.quarantined_row_id"],
            name=op.f("corrections_quarantined_row_id_fkey"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["ops.run_ledger.run_id"], name=op.f("corrections_run_id_fkey")),
        sa.PrimaryKeyConstraint("correction_id", name=op.f("corrections_pkey")),
        schema="landing",
    )
    for column in ("quarantined_row_id", "run_id"):
        op.create_index(op.f(f"corrections_{column}_idx"), "corrections", [column], schema="landing")
    op.execute("grant select, insert on landing.corrections to kontor_flows")
    op.execute("grant select, update, delete on landing.corrections to kontor_retention")
