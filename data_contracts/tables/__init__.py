"""All tables of Kontor's database; importing this package fills :data:`metadata`."""

from data_contracts.tables import corrections, crm, history, landing, ops, rules
from data_contracts.tables.base import SCHEMAS, metadata

__all__ = ["SCHEMAS", "corrections", "crm", "history", "landing", "metadata", "ops", "rules"]
