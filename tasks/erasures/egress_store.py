"""Who took personal data out: one row per export, so that an unusual amount is seen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, text

from tasks.erasures.allowlist import ALLOWLIST, read_allowlist

# Names that views give to personal columns of the tables behind them.
_SHOWN_AS = {"customer_name", "contact_name", "recipient", "raw_value", "raw_cells", "payments_contact"}


def personal_names(allowlist: Path = ALLOWLIST) -> frozenset[str]:
    """The names that a column with personal data has, in any table or view."""
    listed = read_allowlist(allowlist)
    return frozenset(name for item in listed.values() for name in item["personal"]) | _SHOWN_AS


def log_egress(
    connection: Connection, *, what: str, form: str, rows: int, columns: Sequence[str], actor: str, now: datetime
) -> None:
    """Note that ``rows`` rows with these personal columns were written in a form that leaves the database."""
    connection.execute(
        text(
            "insert into ops.egress_log (at, actor, what, format, row_count, personal_columns)"
            " values (:now, :actor, :what, :form, :rows, :columns)"
        ),
        {"now": now, "actor": actor, "what": what, "form": form, "rows": rows, "columns": list(columns)},
    )
