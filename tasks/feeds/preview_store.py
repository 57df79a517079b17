"""What a file would do, read from the transaction that is about to be taken back: for dry runs."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, text

from tasks.feeds.contracts import FeedContract
from tasks.feeds.outcomes import Fingerprint, Preview

_MOST = 20


def preview(connection: Connection, contract: FeedContract, fingerprint: Fingerprint, as_of: date) -> Preview:
    """What the file that this transaction took in was measured by, leaves waiting and settles; nothing if known."""
    which = {"contract": contract.name, "sha256": fingerprint.sha256, "as_of": as_of, "most": _MOST}

    def rows(statement: str) -> tuple[dict[str, object], ...]:
        return tuple(dict(row) for row in connection.execute(text(statement), which).mappings())

    return Preview(rows(_GUARDS), rows(_PROBLEMS), rows(_SETTLED))


_FILE = """
from landing.feed_files f
"""
_THIS = "f.contract = :contract and f.sha256 = :sha256 and f.as_of = :as_of and f.state = 'applied'"
_GUARDS = f"""
select g ->> 'guard' as guard, g ->> 'state' as state, g ->> 'measured' as measured, g ->> 'allowed' as allowed
{_FILE} cross join lateral jsonb_array_elements(f.guards) g where {_THIS} order by 1
"""
_PROBLEMS = f"""
select r ->> 'cell' as cell, r ->> 'column_name' as column, r ->> 'raw_value' as value, r ->> 'reason' as reason
{_FILE} join landing.quarantined_rows q using (feed_file_id)
cross join lateral jsonb_array_elements(q.reasons) r
where {_THIS} and q.state = 'open' order by q.row_number limit :most
"""
# The newest list settles what it has not any more; what a late one settles in between reads no differently today.
_SETTLED = f"""
select o.customer_number as customer, i.invoice_number as invoice, i.currency, i.open_amount
{_FILE} join crm.invoices i on i.source = f.source and i.listed_until = f.as_of
join crm.organizations o using (organization_id)
where {_THIS} and f.mode = 'snapshot' order by 1, 2 limit :most
"""
