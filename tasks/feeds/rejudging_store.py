"""The waiting rows of one file judged again as they would stand once corrected, each beside all that wait with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.erasures.keys import ErasureKey
from tasks.feeds.contracts import FeedContract
from tasks.feeds.corrections import CorrectedRow, HeldRow, ReadAgain, read_again
from tasks.feeds.judging_store import decide_fates, set_erased_aside
from tasks.feeds.outcomes import StagedFile
from tasks.feeds.staging_store import clear_staging, create_fates, stage

PRODUCTS = "landing.staged_products"  # of no customer, and told apart by their part key alone


@dataclass(frozen=True)
class Work:
    """One file's rows on their way: all that wait, what is wanted of some, and the rows read again."""

    file: StagedFile
    contract: FeedContract
    rows: Mapping[int, HeldRow]
    wanted: Mapping[int, CorrectedRow]
    again: ReadAgain | None
    erasure_key: ErasureKey | None = None

    @property
    def judged(self) -> list[HeldRow]:
        """The rows that are not given up, by row number."""
        return [row for row in self.rows.values() if self.wanted_of(row).rejected_because is None]

    def wanted_of(self, row: HeldRow) -> CorrectedRow:
        """What is wanted of the row; nothing for one that nobody touched."""
        return self.wanted.get(row.row_id) or CorrectedRow(row.row_id, 0)


@dataclass(frozen=True)
class Fate:
    """What a judged row becomes (quarantined or superseded), why, and whether it waits for its customer alone."""

    fate: str
    reasons: tuple[dict[str, Any], ...]
    awaits_customer: bool

    @property
    def is_erased(self) -> bool:
        """Whether the row would bring somebody back who asked to be erased: nothing of it is kept."""
        return any(reason["code"] == "erased" for reason in self.reasons)


def typed_again(work: Work) -> Work:
    """The same work with its rows read again, corrections in place, by the contract as it is now."""
    changes = {row_id: item.changes for row_id, item in work.wanted.items()}
    return replace(work, again=read_again(work.judged, changes, work.contract) if work.judged else None)


def judge_again(connection: Connection, work: Work) -> dict[int, Fate]:
    """The fate of every judged row that is not simply good, by row number; the typed rows stand in staging."""
    if work.again is None:
        clear_staging(connection, work.file.staging)
        create_fates(connection)
        return {}
    stage(connection, work.file, work.again.cast.frame)
    decide_fates(connection, work.file, work.contract, work.again.raw, work.again.cast)
    set_erased_aside(connection, work.file, work.erasure_key)
    if work.contract.mode == "snapshot" and work.file.staging == "landing.staged_items":
        _refuse_second_rows(connection, work)
    rows = connection.execute(text("select row_number, fate, reasons, awaits_customer from row_fate")).all()
    return {row.row_number: Fate(row.fate, tuple(row.reasons), row.awaits_customer) for row in rows}


def _refuse_second_rows(connection: Connection, work: Work) -> None:
    """An item stands in a snapshot once: refuse rows whose item the file has already said, or that another row keeps.

    A row that fails keeps its own item, which may make another one fail; so this goes round until nothing changes.
    """
    given_up = [row_id for row_id, item in work.wanted.items() if item.rejected_because is not None]
    parameters = {
        "feed_file_id": work.file.feed_file_id,
        "source": work.file.source,
        "as_of": work.file.as_of,
        "given_up": given_up,
    }
    said = connection.execute(text(_SAID_ALREADY), parameters).all()
    _refuse(connection, work, {row.row_number: "another row of the same file, which was taken in" for row in said})
    while found := connection.execute(text(_KEPT_BY_ANOTHER), parameters).all():
        _refuse(connection, work, {row.row_number: f"row {row.other}, which is still in quarantine" for row in found})


# An item that held on the file's day, although no row in quarantine protects it, was listed by a row that is in.
_SAID_ALREADY = """
select s.row_number
from landing.staged_items s
join crm.organizations o on o.customer_number = s.customer_number
join crm.invoices i on i.organization_id = o.organization_id and i.source = :source
    and i.invoice_number = s.invoice_number
where not exists (select from row_fate f where f.row_number = s.row_number)
  and (i.listed_from <= :as_of and (i.listed_until is null or i.listed_until > :as_of)
       or exists (select from crm.invoice_states h where h.invoice_id = i.invoice_id
                  and h.listed_from <= :as_of and h.listed_until > :as_of))
  and not exists (select from landing.quarantined_rows q
                  where q.feed_file_id = :feed_file_id and q.state = 'open'
                    and q.customer_number = s.customer_number and q.item_key = s.invoice_number)
"""

_KEPT_BY_ANOTHER = """
select s.row_number, min(q.row_number) as other
from landing.staged_items s
join landing.quarantined_rows q on q.feed_file_id = :feed_file_id and q.state = 'open'
    and q.customer_number = s.customer_number and q.item_key = s.invoice_number
    and q.row_number <> s.row_number and q.quarantined_row_id <> all(cast(:given_up as bigint[]))
join row_fate other on other.row_number = q.row_number and other.fate = 'quarantined'
where not exists (select from row_fate f where f.row_number = s.row_number)
group by s.row_number
"""


def _refuse(connection: Connection, work: Work, others: Mapping[int, str]) -> None:
    if not others or work.again is None:
        return
    column, key = work.contract.key[-1], " and ".join(work.contract.key)
    reasons = [
        {
            "row_number": row_number,
            "reasons": [
                {
                    "column_name": column,
                    "cell": work.again.raw.cell(column, row_number),
                    "raw_value": None,
                    "code": "duplicate_key",
                    "reason": f"the same {key} also stands in {other}; only one of them can be right",
                }
            ],
        }
        for row_number, other in others.items()
    ]
    connection.execute(
        text(
            "insert into row_fate (row_number, fate, reasons) select r.row_number, 'quarantined', r.reasons"
            " from jsonb_to_recordset(:rows) as r(row_number integer, reasons jsonb)"
        ).bindparams(bindparam("rows", type_=JSONB)),
        {"rows": reasons},
    )
