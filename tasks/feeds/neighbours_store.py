"""A staged file beside the snapshots next to it by date: what appeared, vanished, changed or lost its zeros.

One join per neighbour with that snapshot's items; what differs is kept in the temporary table ``guard_difference``,
from which everything else is counted. Where the neighbour is the newest list, that is also all that applying the file
has to look at (``StagedFile.compared``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, text

from tasks.feeds.cells import shown_array
from tasks.feeds.contracts import FeedContract
from tasks.feeds.file_sums_store import stored_sums
from tasks.feeds.guards import Measures, Neighbour
from tasks.feeds.outcomes import StagedFile
from tasks.feeds.raw_table import RawTable
from tasks.feeds.staging_store import ITEM_CONTENT, STAGED_CONTENT


@dataclass(frozen=True)
class Other:
    """A snapshot to compare with: the nearest one of its side; ``newest`` if none is later than it."""

    feed_file_id: int
    file_name: str
    as_of: date
    rows: int
    sums: Mapping[str, Any]
    newest: bool
    side: str


def find_others(connection: Connection, staged: StagedFile, contract: FeedContract) -> list[Other]:
    """What a file is compared with: the snapshots beside it, or all that this sender's ledgers have said."""
    if contract.mode == "snapshot":
        return _neighbours(connection, staged)
    return _known_ledger(connection, staged) if contract.mode == "ledger" else []


def _neighbours(connection: Connection, staged: StagedFile) -> list[Other]:
    """The nearest snapshots of other days on both sides; a corrected revision is not compared with what it corrects."""
    rows = connection.execute(
        text(_NEIGHBOURS), {"feed": staged.feed, "source": staged.source, "as_of": staged.as_of}
    ).all()
    return [
        Other(
            row.feed_file_id,
            row.file_name,
            row.as_of,
            row.rows_read,
            row.sums,
            # A state that a retired revision of this day cut off must be looked for among the earlier ones.
            newest=row.side == "before" and len(rows) == 1 and not staged.replaces,
            side=row.side,
        )
        for row in rows
    ]


_NEIGHBOURS = """
(select 'before' as side, feed_file_id, file_name, as_of, rows_read, sums from landing.feed_files
 where feed = :feed and source = :source and mode = 'snapshot' and state = 'applied' and as_of < :as_of
 order by as_of desc limit 1)
union all
(select 'after', feed_file_id, file_name, as_of, rows_read, sums from landing.feed_files
 where feed = :feed and source = :source and mode = 'snapshot' and state = 'applied' and as_of > :as_of
 order by as_of limit 1)
"""


def _known_ledger(connection: Connection, staged: StagedFile) -> list[Other]:
    """All that this sender's ledgers have said, under the newest one's name."""
    row = connection.execute(
        text(
            "select feed_file_id, file_name, as_of, rows_read from landing.feed_files where source = :source"
            " and mode = 'ledger' and state = 'applied' and feed_file_id <> :feed_file_id order by as_of desc limit 1"
        ),
        {"source": staged.source, "feed_file_id": staged.feed_file_id},
    ).one_or_none()
    return [] if row is None else [Other(row.feed_file_id, row.file_name, row.as_of, 0, {}, True, "before")]


def create_differences(connection: Connection) -> None:
    """Make ``guard_difference`` anew and empty; it lives as long as the file's transaction."""
    connection.exec_driver_sql("drop table if exists pg_temp.guard_difference")
    connection.exec_driver_sql(
        "create temporary table guard_difference (side text, row_number integer, known boolean, customer_number text,"
        " invoice_number text, amount numeric, held_amount numeric, open_amount numeric, held_open numeric,"
        " issued date, held_issued date, due date, held_due date, invoice_id bigint) on commit drop"
    )


def compare_all(connection: Connection, staged: StagedFile, others: Sequence[Other], *, complete: bool) -> None:
    """Make ``guard_difference`` anew: what differs between the file and what was held on each other's day."""
    create_differences(connection)
    for other in others:
        _compare(connection, staged, other, complete=complete)


def _compare(connection: Connection, staged: StagedFile, other: Other, *, complete: bool) -> None:
    held = None if complete else _HELD_IN_LEDGER
    # Both sides of the join fit into memory up to about a million items; a spilled join takes three times as long.
    connection.exec_driver_sql("set local work_mem = '192MB'")
    connection.execute(
        text(_DIFFERENCES.replace("{listed}", listed_by(connection, other, held))),
        {
            "side": other.side,
            "source": staged.source,
            "day": other.as_of,
            "other": other.feed_file_id,
            "complete": complete,
        },
    )
    connection.exec_driver_sql("set local work_mem to default")
    connection.exec_driver_sql("analyze guard_difference")


def listed_by(connection: Connection, other: Other, held: str | None = None) -> str:
    """The query of the items that another list names, rows in its quarantine included.

    Columns: customer_number, invoice_id, organization_id, invoice_number and the item's content; the parameters are
    ``source``, ``day`` and ``other``.
    """
    listed = _LISTED_WITH_UNREAD if _has_unread(connection, other) else _LISTED
    return listed.replace("{held}", held or (_HELD_NOW if other.newest else _HELD_NOW + _HELD_THEN))


def _has_unread(connection: Connection, other: Other) -> bool:
    return bool(
        connection.scalar(
            text("select exists (select from landing.quarantined_rows where feed_file_id = :other and state = 'open')"),
            {"other": other.feed_file_id},
        )
    )


def _content(alias: str) -> str:
    return ", ".join(f"{alias}.{column}" for column in ITEM_CONTENT.split(", "))


_HELD_NOW = f"""
    select i.invoice_id, i.organization_id, i.invoice_number, {_content("i")}
    from crm.invoices i
    where i.source = :source and i.listed_from is not null and i.listed_until is null and i.listed_from <= :day
"""

_HELD_THEN = f"""
    union all
    select i.invoice_id, i.organization_id, i.invoice_number, {_content("i")}
    from crm.invoices i
    where i.source = :source and i.listed_from <= :day and i.listed_until > :day
    union all
    select i.invoice_id, i.organization_id, i.invoice_number, {_content("s")}
    from crm.invoice_states s join crm.invoices i using (invoice_id)
    where i.source = :source and s.listed_from <= :day and s.listed_until > :day
"""

_HELD_IN_LEDGER = f"""
    select i.invoice_id, i.organization_id, i.invoice_number, {_content("e")}
    from crm.ledger_entries e join crm.invoices i using (invoice_id)
    join landing.feed_files f on f.feed_file_id = e.feed_file_id and f.state = 'applied'
    where i.source = :source
"""

_LISTED = """
    select o.customer_number, h.* from ({held}) h join crm.organizations o using (organization_id)
"""

# Rows of the other file that stand in quarantine were listed by it all the same; only their values are unknown.
_LISTED_WITH_UNREAD = f"""
    with held as ({_LISTED})
    select * from held
    union all
    select q.customer_number, null, null, q.item_key, null, null, null, null, null, null, null, null
    from (select distinct customer_number, item_key from landing.quarantined_rows
          where feed_file_id = :other and state = 'open' and customer_number is not null and item_key is not null) q
    where not exists (select from held h where h.customer_number = q.customer_number and h.invoice_number = q.item_key)
"""

_DIFFERENCES = f"""
insert into guard_difference
select :side, s.row_number, h.customer_number is not null,
       coalesce(s.customer_number, h.customer_number), coalesce(s.invoice_number, h.invoice_number),
       s.amount, h.amount, s.open_amount, h.open_amount, s.issued_on, h.issued_on, s.due_on, h.due_on,
       h.invoice_id
from (select row_number, customer_number, invoice_number, {STAGED_CONTENT} from landing.staged_items
      where customer_number is not null and invoice_number is not null) s
full join ({{listed}}) h on h.customer_number = s.customer_number and h.invoice_number = s.invoice_number
where (:complete or s.row_number is not null)
  and (s.row_number is null or h.customer_number is null or ({_content("s")}) is distinct from ({_content("h")}))
"""

_ZEROS = """
zeros as (
    select fresh.row_number, fresh.side, fresh.customer_number, fresh.invoice_number,
           gone.customer_number as held_customer, gone.invoice_number as held_invoice
    from guard_difference fresh join guard_difference gone
      on gone.side = fresh.side and ltrim(gone.customer_number, '0') = ltrim(fresh.customer_number, '0')
     and ltrim(gone.invoice_number, '0') = ltrim(fresh.invoice_number, '0')
    where not fresh.known and gone.row_number is null and ltrim(fresh.invoice_number, '0') <> ''
)
"""


def measured_neighbour(connection: Connection, other: Other, measures: Measures, raw: RawTable) -> Neighbour:
    """What the file has in common with a neighbour it was compared with, and what differs, counted."""
    found = connection.execute(text(_COUNT_DIFFERENCES), {"side": other.side}).one()
    common = measures.items - int(found.fresh)
    scaled = connection.execute(text(_MOST_COMMON_FACTOR), {"side": other.side}).one_or_none()
    return Neighbour(
        file_name=other.file_name,
        as_of=other.as_of,
        items=common + int(found.absent),
        rows=other.rows,
        absent=int(found.absent) - int(found.absent_but_for_zeros),
        fresh=int(found.fresh) - int(found.fresh_but_for_zeros),
        common=common,
        repriced=int(found.repriced),
        scaled=int(scaled.items) if scaled else 0,
        factor=scaled.factor if scaled else None,
        part=_part_of(raw, scaled.row_numbers) if scaled else "",
        moved=int(found.moved),
        redated=int(found.redated),
        swapped=int(found.swapped),
        sums=stored_sums(other.sums) or None,
    )


# Two dates have swapped when neither is the other and each has the other's month for a day.
_COUNT_DIFFERENCES = f"""
with {_ZEROS}, dated as (
    select issued <> held_issued or due <> held_due as redated,
           (issued is not distinct from held_issued or coalesce(issued, held_issued) is null
            or {{issued}}) and (due = held_due or {{due}}) as swapped, d.*
    from guard_difference d where side = :side
)
select count(*) filter (where not known) as fresh,
       count(*) filter (where row_number is null) as absent,
       (select count(distinct row_number) from zeros where side = :side) as fresh_but_for_zeros,
       (select count(distinct (held_customer, held_invoice)) from zeros where side = :side) as absent_but_for_zeros,
       count(*) filter (where amount <> held_amount) as repriced,
       count(*) filter (where amount <> held_amount or open_amount <> held_open) as moved,
       count(*) filter (where redated) as redated,
       count(*) filter (where redated and swapped) as swapped
from dated
""".format(
    **{
        name: f"(extract(year from {name}) = extract(year from held_{name})"
        f" and extract(month from {name}) = extract(day from held_{name})"
        f" and extract(day from {name}) = extract(month from held_{name}))"
        for name in ("issued", "due")
    }
)

# Three significant digits: cents are rounded after a conversion, so that the factors of small amounts scatter.
_MOST_COMMON_FACTOR = """
select factor, count(*) as items, array_agg(row_number) as row_numbers
from (select row_number, trim_scale(round(ratio, 2 - floor(log(abs(ratio)))::integer)) as factor
      from (select row_number, amount / held_amount as ratio from guard_difference
            where side = :side and amount <> held_amount and amount <> 0 and held_amount <> 0) changed) rounded
group by factor order by count(*) desc, factor limit 1
"""


def _part_of(raw: RawTable, row_numbers: Sequence[int]) -> str:
    """Where the file says it in one word: the text that all these rows have in the currency's column."""
    if "currency" not in raw.columns:
        return ""
    rows = raw.frame["row_number"].isin(list(row_numbers))
    cells = pa.array(raw.frame.loc[rows, "currency"].to_list(), pa.string())
    values = sorted({value for value in shown_array(cells.unique()).to_pylist() if value})
    return f" of {' '.join(raw.columns['currency'].split())} {values[0]}" if len(values) == 1 else ""


def strange_invoices(connection: Connection) -> list[Any]:
    """Rows that are no neighbour's item, but for zeros in front: row_number, column_name, number, known."""
    return list(
        connection.execute(
            text(
                f"with {_ZEROS} select row_number, 'invoice_number' as column_name, invoice_number as number,"
                " held_invoice as known from zeros where invoice_number <> held_invoice order by row_number"
            )
        )
    )


def with_reappearing(
    connection: Connection, staged: StagedFile, measures: Measures, others: Sequence[Other]
) -> Measures:
    """Items on both sides of a snapshot that lacks them, this file being the last, the middle or the first of three."""
    if not measures.complete or not others:
        return measures
    days: dict[str, date | None] = {"before": None, "after": None} | {other.side: other.as_of for other in others}
    found = connection.execute(text(_REAPPEARING), {"source": staged.source, **days}).one()
    return replace(
        measures,
        reappearing=int(found.here) + int(found.lacking),
        reappearing_of=measures.items + int(found.lacking),
    )


_REAPPEARING = """
select (select count(distinct d.row_number) from guard_difference d
        join crm.organizations o using (customer_number)
        join crm.invoices i on i.organization_id = o.organization_id and i.source = :source
            and i.invoice_number = d.invoice_number
        where not d.known
          and case d.side
              when 'before' then i.listed_from < cast(:before as date) or exists (
                  select from crm.invoice_states s
                  where s.invoice_id = i.invoice_id and s.listed_from < cast(:before as date))
              else i.listed_from > cast(:after as date) or exists (
                  select from crm.invoice_states s
                  where s.invoice_id = i.invoice_id and s.listed_from > cast(:after as date)) end) as here,
       (select count(*) from guard_difference b join guard_difference a using (customer_number, invoice_number)
        where b.side = 'before' and a.side = 'after' and b.row_number is null and a.row_number is null) as lacking
"""
