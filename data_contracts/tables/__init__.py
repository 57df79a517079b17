"""All tables of Kontor's database; importing this package fills :data:`metadata`."""

from data_contracts.tables import (
    alerts,
    backfills,
    backups,
    catalog,
    corrections,
    crm,
    history,
    landing,
    ops,
    outbox,
    quality,
    reminder_rules,
    reminders,
    retention,
    rules,
)
from data_contracts.tables.base import metadata

__all__ = [
    "alerts",
    "backfills",
    "backups",
    "catalog",
    "corrections",
    "crm",
    "history",
    "landing",
    "metadata",
    "ops",
    "outbox",
    "quality",
    "reminder_rules",
    "reminders",
    "retention",
    "rules",
]
