"""Rows that stand in quarantine, as they stand: found by what is asked for, or locked for who corrects them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from tasks.feeds.corrections import HeldRow


@dataclass(frozen=True)
class Selection:
    """Which quarantined rows are meant; what is None does not matter. ``owner`` is the customer's."""

    file_name: str | None = None
    contract: str | None = None
    owner: str | None = None
    state: str | None = "open"
    row_ids: tuple[int, ...] | None = None


_HELD = """
select q.quarantined_row_id, q.feed_file_id, q.row_number, q.cells::text as cells, q.staged::text as staged,
       q.reasons::text as reasons,
       -- A customer who arrives meanwhile mends nothing of what a person was asked to correct.
       jsonb_path_query_array(q.reasons, '$[*] ? (@.code != "unknown_customer")')::text as lasting_reasons,
       q.state, f.file_name, f.state as file_state, f.contract, f.feed, f.as_of, f.columns
from landing.quarantined_rows q
join landing.feed_files f using (feed_file_id)
left join crm.organizations o on o.customer_number = q.customer_number
where (cast(:file_name as text) is null or f.file_name = :file_name)
  and (cast(:contract as text) is null or f.contract = :contract)
  and (cast(:state as text) is null or q.state = :state)
  and (cast(:owner as text) is null or coalesce(o.owner, q.staged ->> 'owner') = :owner)
  and (cast(:row_ids as bigint[]) is null or q.quarantined_row_id = any(:row_ids))
  and (cast(:feed_file_id as bigint) is null or q.feed_file_id = :feed_file_id)
order by f.as_of, f.feed_file_id, q.row_number
"""


def fetch_held(connection: Connection, selection: Selection) -> list[HeldRow]:
    """The quarantined rows of a selection, oldest business date first, then by file and row."""
    row_ids = None if selection.row_ids is None else list(selection.row_ids)
    return _rows(
        connection,
        {
            "file_name": selection.file_name,
            "contract": selection.contract,
            "state": selection.state,
            "owner": selection.owner,
            "row_ids": row_ids,
            "feed_file_id": None,
        },
    )


def lock_waiting(connection: Connection, feed_file_id: int) -> list[HeldRow]:
    """The file's open rows, locked until the transaction ends; none if a later revision has taken its place."""
    nothing = {"file_name": None, "contract": None, "owner": None, "row_ids": None}
    found = _rows(
        connection, {**nothing, "state": "open", "feed_file_id": feed_file_id}, " for update of q for share of f"
    )
    return [row for row in found if row.file_state == "applied"]


def _rows(connection: Connection, parameters: Mapping[str, object], more: str = "") -> list[HeldRow]:
    return [
        HeldRow(
            row_id=row.quarantined_row_id,
            feed_file_id=row.feed_file_id,
            row_number=row.row_number,
            cells=json.loads(row.cells),
            # Money must not pass through a binary fraction on its way here.
            staged=json.loads(row.staged, parse_float=Decimal),
            reasons=tuple(json.loads(row.reasons)),
            content="\x1f".join((row.cells, row.staged, row.lasting_reasons)),
            state=row.state,
            file_name=row.file_name,
            file_state=row.file_state,
            contract=row.contract,
            feed=row.feed,
            as_of=row.as_of,
            columns=frozenset(row.columns),
        )
        for row in connection.execute(text(_HELD + more), parameters)
    ]


def fetch_corrections(connection: Connection, row_id: int) -> list[dict[str, Any]]:
    """What was done about a row, oldest first: corrected_at, actor, outcome, column_name, old and new value, reason."""
    rows = connection.execute(
        text(
            "select corrected_at, actor, outcome, column_name, old_value, new_value, reason from report.corrections"
            " where quarantined_row_id = :row_id order by correction_id"
        ),
        {"row_id": row_id},
    ).mappings()
    return [dict(row) for row in rows]


def fetch_files(connection: Connection, selection: Selection) -> list[tuple[int, str, str, date]]:
    """The applied snapshots of a selection as (id, file name, contract, business date), newest first."""
    rows = connection.execute(
        text(
            "select feed_file_id, file_name, contract, as_of from landing.feed_files where state = 'applied'"
            " and mode = 'snapshot' and (cast(:file_name as text) is null or file_name = :file_name)"
            " and (cast(:contract as text) is null or contract = :contract) order by as_of desc, feed_file_id desc"
        ),
        {"file_name": selection.file_name, "contract": selection.contract},
    ).all()
    return [(row.feed_file_id, row.file_name, row.contract, row.as_of) for row in rows]
