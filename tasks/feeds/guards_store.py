"""Measures a staged file against what the database holds of its neighbours, judges it, and keeps the verdicts.

Runs between the judgement of the rows and their application, in the same transaction: a refusal leaves nothing.
All staged rows are measured, also those in quarantine: a whole file may stand there for the very defect that a guard
names. One pass adds the file up; one pass per neighbour joins it with that snapshot's items and keeps what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from data_contracts.tables import metadata
from tasks.feeds.casting import control_totals
from tasks.feeds.cells import shown_array
from tasks.feeds.contracts import FeedContract
from tasks.feeds.guards import Measures, Neighbour, Sums, Threshold, Total, Verdict, in_force, judge, refusal
from tasks.feeds.outcomes import Fingerprint, StagedFile
from tasks.feeds.price_guards import CatalogMeasures
from tasks.feeds.reading import RawTable

_ITEMS = "landing.staged_items"
_NO_JUMP = Decimal("Infinity")  # without a rule that says how much is a jump nothing is
MeasurePrices = Callable[[Connection, StagedFile, Decimal], CatalogMeasures]


@dataclass(frozen=True)
class Overruling:
    """The guards that a person overrules for this file, and why."""

    guards: tuple[str, ...] = ()
    reason: str = ""


NOTHING_OVERRULED = Overruling()


def guard_file(
    connection: Connection,
    staged: StagedFile,
    contract: FeedContract,
    raw: RawTable,
    fingerprint: Fingerprint,
    overruling: Overruling,
    measure_prices: MeasurePrices | None = None,
) -> list[Verdict]:
    """Judge the staged file and keep what its guards measured in ``landing.feed_files``; returns the verdicts.

    Raises:
        FileRefused: naming every guard that refuses, what was measured, what is allowed, and the command to accept it.
    """
    thresholds = _thresholds(connection, staged)
    measures = _measure(connection, staged, contract, raw, fingerprint)
    if measure_prices is not None:
        jump = thresholds["price_jump_size"].threshold if "price_jump_size" in thresholds else _NO_JUMP
        measures = replace(measures, catalog=measure_prices(connection, staged, jump))
    verdicts = judge(measures, thresholds, overruling.guards)
    refused = refusal(
        verdicts,
        file_name=fingerprint.file_name,
        contract=contract.name,
        as_of=staged.as_of,
        revision=staged.revision,
        others=_compared_with(measures),
    )
    if refused is not None:
        raise refused
    _keep(connection, staged, measures, verdicts, overruling)
    return verdicts


def _compared_with(measures: Measures) -> list[str]:
    names = [neighbour.file_name for neighbour in measures.neighbours]
    return [*names, measures.copy_of[0]] if measures.copy_of else names


def _thresholds(connection: Connection, staged: StagedFile) -> dict[str, Threshold]:
    rows = connection.execute(
        text(
            "select guard, feed, source, rule_id, version, threshold, minimum_evidence, window_days"
            " from rules.quality_threshold where valid @> cast(:as_of as date)"
            " and feed in ('*', :feed) and source in ('*', :source) order by quality_threshold_id"
        ),
        {"as_of": staged.as_of, "feed": staged.feed, "source": staged.source},
    ).mappings()
    return in_force([dict(row) for row in rows])


def _measure(
    connection: Connection, staged: StagedFile, contract: FeedContract, raw: RawTable, fingerprint: Fingerprint
) -> Measures:
    rows = connection.scalar(text(f"select count(*) from {staged.staging}")) or 0
    measures = Measures(as_of=staged.as_of, rows=int(rows), complete=contract.mode == "snapshot")
    if "customer_number" not in metadata.tables[staged.staging].columns:
        return measures
    strange = _strange_customers(connection, staged)
    if staged.staging != _ITEMS:
        return _with_zeros(measures, strange, raw)
    measures = _added_up(connection, measures, contract, raw)
    measures = replace(measures, copy_of=_copy_of(connection, staged, contract, fingerprint))
    others = _neighbours(connection, staged) if measures.complete else _known_ledger(connection, staged, contract)
    for other in others:
        _compare(connection, staged, other, complete=measures.complete)
    measures = replace(measures, neighbours=tuple(_neighbour(connection, other, measures, raw) for other in others))
    measures = _with_zeros(measures, [*strange, *_strange_invoices(connection)], raw)
    return _with_reappearing(connection, staged, measures, others)


@dataclass(frozen=True)
class _Other:
    """A snapshot to compare with: the nearest one of its side; ``newest`` if none is later than it."""

    feed_file_id: int
    file_name: str
    as_of: date
    rows: int
    sums: Mapping[str, Any]
    newest: bool
    side: str


def _neighbours(connection: Connection, staged: StagedFile) -> list[_Other]:
    """The nearest snapshots of other days on both sides; a corrected revision is not compared with what it corrects."""
    rows = connection.execute(
        text(_NEIGHBOURS), {"feed": staged.feed, "source": staged.source, "as_of": staged.as_of}
    ).all()
    _create_differences(connection)
    return [
        _Other(
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


def _known_ledger(connection: Connection, staged: StagedFile, contract: FeedContract) -> list[_Other]:
    """What a ledger is compared with: all that this sender's ledgers have said, under the newest one's name."""
    _create_differences(connection)
    if contract.mode != "ledger":
        return []
    row = connection.execute(
        text(
            "select feed_file_id, file_name, as_of, rows_read from landing.feed_files where source = :source"
            " and mode = 'ledger' and state = 'applied' and feed_file_id <> :feed_file_id order by as_of desc limit 1"
        ),
        {"source": staged.source, "feed_file_id": staged.feed_file_id},
    ).one_or_none()
    return [] if row is None else [_Other(row.feed_file_id, row.file_name, row.as_of, 0, {}, True, "before")]


def _create_differences(connection: Connection) -> None:
    connection.exec_driver_sql("drop table if exists pg_temp.guard_difference")
    connection.exec_driver_sql(
        "create temporary table guard_difference (side text, row_number integer, known boolean, customer_number text,"
        " invoice_number text, amount numeric, held_amount numeric, open_amount numeric, held_open numeric,"
        " issued date, held_issued date, due date, held_due date) on commit drop"
    )


def _compare(connection: Connection, staged: StagedFile, other: _Other, *, complete: bool) -> None:
    """Put what differs between the file and what was held on the other's day into ``guard_difference``."""
    held = _HELD_IN_LEDGER if not complete else _HELD_NOW if other.newest else _HELD_NOW + _HELD_THEN
    listed = _LISTED_WITH_UNREAD if _has_unread(connection, other) else _LISTED
    # Both sides of the join fit into memory up to about a million items; a spilled join takes three times as long.
    connection.exec_driver_sql("set local work_mem = '192MB'")
    connection.execute(
        text(_DIFFERENCES.replace("{listed}", listed.replace("{held}", held))),
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


def _has_unread(connection: Connection, other: _Other) -> bool:
    return bool(
        connection.scalar(
            text("select exists (select from landing.quarantined_rows where feed_file_id = :other and state = 'open')"),
            {"other": other.feed_file_id},
        )
    )


_HELD_NOW = """
    select i.organization_id, i.invoice_number, i.amount, i.open_amount, i.issued_on, i.due_on
    from crm.invoices i
    where i.source = :source and i.listed_from is not null and i.listed_until is null and i.listed_from <= :day
"""

_HELD_THEN = """
    union all
    select i.organization_id, i.invoice_number, i.amount, i.open_amount, i.issued_on, i.due_on
    from crm.invoices i
    where i.source = :source and i.listed_from <= :day and i.listed_until > :day
    union all
    select i.organization_id, i.invoice_number, s.amount, s.open_amount, s.issued_on, s.due_on
    from crm.invoice_states s join crm.invoices i using (invoice_id)
    where i.source = :source and s.listed_from <= :day and s.listed_until > :day
"""

_HELD_IN_LEDGER = """
    select i.organization_id, i.invoice_number, e.amount, e.open_amount, e.issued_on, e.due_on
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
    select customer_number, invoice_number, amount, open_amount, issued_on, due_on from held
    union all
    select q.customer_number, q.item_key, null, null, null, null from landing.quarantined_rows q
    where q.feed_file_id = :other and q.state = 'open' and q.customer_number is not null and q.item_key is not null
      and not exists (select from held h where h.customer_number = q.customer_number and h.invoice_number = q.item_key)
"""

_DIFFERENCES = """
insert into guard_difference
select :side, s.row_number, h.customer_number is not null,
       coalesce(s.customer_number, h.customer_number), coalesce(s.invoice_number, h.invoice_number),
       s.amount, h.amount, s.open_amount, h.open_amount, s.issue_date, h.issued_on, s.due_date, h.due_on
from (select * from landing.staged_items
      where customer_number is not null and invoice_number is not null) s
full join ({listed}) h on h.customer_number = s.customer_number and h.invoice_number = s.invoice_number
where (:complete or s.row_number is not null)
  and (s.row_number is null or h.customer_number is null or s.amount <> h.amount
       or s.open_amount <> h.open_amount or s.issue_date <> h.issued_on or s.due_date <> h.due_on)
"""


def _neighbour(connection: Connection, other: _Other, measures: Measures, raw: RawTable) -> Neighbour:
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
        sums=_sums(other.sums) or None,
    )


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


def _strange_customers(connection: Connection, staged: StagedFile) -> list[Any]:
    """Rows whose customer nobody knows, but for zeros in front."""
    return list(
        connection.execute(
            text(
                "with strange as ("
                f"  select distinct s.customer_number as number from {staged.staging} s"
                "   where ltrim(s.customer_number, '0') <> '' and not exists"
                "   (select from crm.organizations o where o.customer_number = s.customer_number)"
                "), matched as ("
                "  select strange.number, min(o.customer_number) as known from strange join crm.organizations o"
                "  on ltrim(o.customer_number, '0') = ltrim(strange.number, '0') group by strange.number"
                ") select s.row_number, 'customer_number' as column_name, m.number, m.known"
                f" from matched m join {staged.staging} s on s.customer_number = m.number order by s.row_number"
            )
        )
    )


def _strange_invoices(connection: Connection) -> list[Any]:
    """Rows that are no neighbour's item, but for zeros in front."""
    return list(
        connection.execute(
            text(
                f"with {_ZEROS} select row_number, 'invoice_number' as column_name, invoice_number as number,"
                " held_invoice as known from zeros where invoice_number <> held_invoice order by row_number"
            )
        )
    )


def _with_zeros(measures: Measures, strange: Sequence[Any], raw: RawTable) -> Measures:
    if not strange:
        return measures
    first = strange[0]
    cell = raw.cell(first.column_name, first.row_number)
    example = f", such as {first.number} in {cell} where {first.known} is known"
    return replace(measures, zeros=len({row.row_number for row in strange}), zero_example=example)


def _with_reappearing(
    connection: Connection, staged: StagedFile, measures: Measures, others: Sequence[_Other]
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


def _copy_of(
    connection: Connection, staged: StagedFile, contract: FeedContract, fingerprint: Fingerprint
) -> tuple[str, date] | None:
    if contract.mode != "snapshot":
        return None
    row = connection.execute(
        text(
            "select file_name, as_of from landing.feed_files where feed = :feed and source = :source"
            " and sha256 = :sha256 and as_of <> :as_of and mode = 'snapshot' and state <> 'refused'"
            " order by as_of limit 1"
        ),
        {"feed": staged.feed, "source": staged.source, "sha256": fingerprint.sha256, "as_of": staged.as_of},
    ).one_or_none()
    return None if row is None else (row.file_name, row.as_of)


def _added_up(connection: Connection, measures: Measures, contract: FeedContract, raw: RawTable) -> Measures:
    """The file's own figures in one pass: items, newest document, sums per currency and what its totals row says."""
    rows = connection.execute(text(_ADD_UP)).mappings().all()
    newest = [row["newest"] for row in rows if row["newest"] is not None]
    sums = {row["currency"]: Sums(row["rows"], row["gross"]) for row in rows if row["currency"] is not None}
    return replace(
        measures,
        items=sum(row["items"] for row in rows),
        newest=max(newest, default=None),
        sums=sums,
        totals=tuple(_totals(rows, contract, raw)),
    )


_ADD_UP = """
select s.currency, count(*) as rows, count(s.customer_number || s.invoice_number) as items,
       max(s.issue_date) as newest, coalesce(sum(abs(s.open_amount)), 0) as gross,
       sum(s.amount) as amount, sum(s.open_amount) as open_amount,
       sum(s.amount) filter (where f.fate = 'superseded') as amount_twice,
       sum(s.open_amount) filter (where f.fate = 'superseded') as open_amount_twice,
       sum(s.amount) filter (where s.document_type = 'credit_note') as amount_credit,
       sum(s.open_amount) filter (where s.document_type = 'credit_note') as open_amount_credit,
       count(*) filter (where s.amount is null) as amount_unread,
       count(*) filter (where s.open_amount is null) as open_amount_unread
from landing.staged_items s left join row_fate f using (row_number)
group by s.currency
"""


def _totals(rows: Sequence[Mapping[Any, Any]], contract: FeedContract, raw: RawTable) -> Iterator[Total]:
    """The totals rows' amounts, each beside the sums that its rows may be meant to have."""
    # In a ledger, what was open on a settled item is worked out; the file's remainder is another figure.
    columns = ("amount",) if contract.mode == "ledger" else ("amount", "open_amount")
    for total in control_totals(raw, contract):
        for column in columns:
            if column in total.amounts:
                yield _total(rows, column, total.currency, total.amounts[column])


def _total(rows: Sequence[Mapping[Any, Any]], column: str, currency: str | None, said: Decimal) -> Total:
    """Rows of that currency, with or without copies, credit notes deducted or counted as the positive they may be."""
    meant = [row for row in rows if currency is None or row["currency"] == currency]

    def add(name: str) -> Decimal:
        return sum((row[name] or Decimal(0) for row in meant), Decimal(0))

    plain, twice, credit = add(column), add(f"{column}_twice"), add(f"{column}_credit")
    # A row whose currency cannot be read may belong to any of them.
    homeless = sum(row["rows"] for row in rows if row["currency"] is None) if currency is not None else 0
    return Total(
        column=column,
        currency=currency,
        said=said,
        sums=(plain, plain - twice, plain - 2 * credit),
        rows=sum(row["rows"] for row in meant),
        unreadable=homeless + sum(row[f"{column}_unread"] for row in meant),
    )


def _sums(stored: Mapping[str, Any]) -> dict[str, Sums]:
    return {currency: Sums(int(found["rows"]), Decimal(found["open"])) for currency, found in stored.items()}


def _keep(
    connection: Connection, staged: StagedFile, measures: Measures, verdicts: Sequence[Verdict], overruling: Overruling
) -> None:
    """Keep the file's sums for its later neighbours, and each verdict; an overruled one with who and why."""
    sums = {currency: {"rows": s.rows, "open": str(s.open_amount)} for currency, s in (measures.sums or {}).items()}
    connection.execute(
        text(
            "update landing.feed_files f set sums = :sums, guards = (select coalesce(jsonb_agg(case"
            "   when v.verdict ->> 'state' = 'overruled' then v.verdict || jsonb_build_object("
            "     'overruled_by', (select actor from ops.run_ledger r where r.run_id = f.run_id),"
            "     'overruled_because', cast(:reason as text))"
            "   else v.verdict end order by v.place), '[]')"
            " from jsonb_array_elements(:verdicts) with ordinality v(verdict, place))"
            " where feed_file_id = :feed_file_id"
        ).bindparams(bindparam("sums", type_=JSONB), bindparam("verdicts", type_=JSONB)),
        {
            "sums": sums,
            "verdicts": [verdict.record() for verdict in verdicts],
            "reason": overruling.reason,
            "feed_file_id": staged.feed_file_id,
        },
    )
