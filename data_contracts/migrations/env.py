"""Runs the migrations on the connection that :func:`tasks.database.upgrade` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from data_contracts.tables import metadata


def run() -> None:
    """Apply the migrations; the caller begins and commits."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        version_table_schema="ops",
        include_schemas=True,
        transactional_ddl=True,
    )
    context.run_migrations()


run()
