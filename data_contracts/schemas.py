"""The schemas that Kontor makes in its database; apart from the tables, which take a tenth of a second to describe."""

from __future__ import annotations

SCHEMAS = ("crm", "landing", "rules", "outbox", "ops", "report")
