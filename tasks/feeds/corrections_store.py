"""Corrected rows into the database: judged again with what else waits of their file, applied, counted, recorded.

One transaction a file. Order within it, so that the snapshot reads as if the file had come corrected:

1. judge every row of the file that still waits, as it would stand now;
2. take the rows that pass or are given up out of quarantine: from here on they protect no item;
3. apply what passed as part of the snapshot it stood in; an item that only such a row had named, and that is named no
   more, leaves the snapshot;
4. move the file's counts and keep who changed what.

A row that still fails keeps what was corrected in it, but goes on protecting the item it protected before: only what
is taken in, given up or merely waits for its customer changes what the snapshot says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.feeds.cells import shown
from tasks.feeds.contracts import FeedContract
from tasks.feeds.corrections import (
    CorrectedRow,
    CurrencyTotal,
    HeldRow,
    ReadAgain,
    read_again,
    shown_cells,
    stated_totals,
)
from tasks.feeds.judging_store import decide_fates
from tasks.feeds.outcomes import Applied, Apply, StagedFile
from tasks.feeds.staging_store import clear_staging, create_fates, serialise, stage, staging_table
from tasks.history.store import act_for_run

MONEY_COLUMNS = ("amount", "open_amount")
_PRODUCTS = "landing.staged_products"  # of no customer, and told apart by their part key alone


@dataclass(frozen=True)
class Selection:
    """Which quarantined rows are meant; what is None does not matter. ``owner`` is the customer's."""

    file_name: str | None = None
    contract: str | None = None
    owner: str | None = None
    state: str | None = "open"
    row_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class FileCorrected:
    """What became of the rows of one file: rows by outcome, and the ids of those that still cannot be used.

    ``taken_in`` rows were corrected, ``freed`` ones pass now without having been touched themselves, ``stale`` ones
    changed between the comparison and the transaction.
    """

    feed_file_id: int
    file_name: str
    contract: str
    taken_in: int = 0
    freed: int = 0
    rejected: int = 0
    still_wrong: tuple[int, ...] = ()
    stale: tuple[int, ...] = ()
    applied: Applied = field(default_factory=Applied)


# --- reading ----------------------------------------------------------------------------------------------------------

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
    return _held(
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


def _held(connection: Connection, parameters: Mapping[str, object], more: str = "") -> list[HeldRow]:
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


# --- one file ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Work:
    """One file's rows on their way: all that wait, what is wanted of some, and the rows read again."""

    file: StagedFile
    contract: FeedContract
    rows: Mapping[int, HeldRow]
    wanted: Mapping[int, CorrectedRow]
    again: ReadAgain | None

    @property
    def judged(self) -> list[HeldRow]:
        """The rows that are not given up, by row number."""
        return [row for row in self.rows.values() if self.wanted_of(row).rejected_because is None]

    def wanted_of(self, row: HeldRow) -> CorrectedRow:
        """What is wanted of the row; nothing for one that nobody touched."""
        return self.wanted.get(row.row_id) or CorrectedRow(row.row_id, 0)


@dataclass(frozen=True)
class _Fate:
    fate: str
    reasons: tuple[dict[str, Any], ...]
    awaits_customer: bool


def replay_corrected(
    connection: Connection,
    feed_file_id: int,
    handed_out: Mapping[int, str],
    wanted: Sequence[CorrectedRow],
    *,
    contract: FeedContract,
    run_id: int,
    actor: str,
    apply: Apply,
) -> FileCorrected:
    """Do what is wanted of the rows of one file, inside the caller's transaction.

    ``handed_out`` is the token of each row as it was compared; a row that changed since is left alone.
    """
    file = _staged_file(connection, feed_file_id, contract)
    serialise(connection, file.feed)
    act_for_run(connection, run_id)
    rows = {row.row_id: row for row in _waiting(connection, feed_file_id)}
    current = [item for item in wanted if item.row_id in rows and rows[item.row_id].token == handed_out[item.row_id]]
    stale = tuple(item.row_id for item in wanted if item not in current)
    work = _read(_Work(file, contract, rows, {item.row_id: item for item in current}, None))
    fates = _judge(connection, work)
    taken = [row for row in work.judged if row.row_number not in fates or fates[row.row_number].fate == "superseded"]
    withdrawn = _leave_quarantine(connection, work, taken, fates, run_id)
    copies = sum(fate.fate == "superseded" for fate in fates.values())
    applied = _apply(connection, replace(file, withdrawn=withdrawn), apply, good=len(taken) - copies)
    applied = replace(applied, superseded=applied.superseded + copies)
    _move_counts(connection, feed_file_id, len(taken), applied)
    _record(connection, work, {row.row_id for row in taken}, run_id, actor)
    clear_staging(connection, file.staging)
    return _outcome(work, taken, stale, applied)


def _outcome(work: _Work, taken: Sequence[HeldRow], stale: tuple[int, ...], applied: Applied) -> FileCorrected:
    ids = {row.row_id for row in taken}
    touched = {row_id for row_id, item in work.wanted.items() if item.changes}
    any_row = next(iter(work.rows.values()), None)
    return FileCorrected(
        feed_file_id=work.file.feed_file_id,
        file_name=any_row.file_name if any_row else "",
        contract=work.contract.name,
        taken_in=len(ids & touched),
        freed=len(ids - touched),
        rejected=sum(item.rejected_because is not None for item in work.wanted.values()),
        still_wrong=tuple(sorted(touched - ids)),
        stale=stale,
        applied=applied,
    )


def _staged_file(connection: Connection, feed_file_id: int, contract: FeedContract) -> StagedFile:
    row = connection.execute(
        text("select feed, source, as_of, revision, columns from landing.feed_files where feed_file_id = :id"),
        {"id": feed_file_id},
    ).one()
    return StagedFile(
        feed_file_id=feed_file_id,
        feed=row.feed,
        source=row.source,
        staging=staging_table(row.feed),
        as_of=row.as_of,
        revision=row.revision,
        columns=frozenset(row.columns),
        creates_customers=contract.missing_customer == "create",
    )


def _waiting(connection: Connection, feed_file_id: int) -> list[HeldRow]:
    """The file's open rows, locked until the transaction ends; none if a later revision has taken its place."""
    nothing = {"file_name": None, "contract": None, "owner": None, "row_ids": None}
    found = _held(
        connection, {**nothing, "state": "open", "feed_file_id": feed_file_id}, " for update of q for share of f"
    )
    return [row for row in found if row.file_state == "applied"]


def _read(work: _Work) -> _Work:
    changes = {row_id: item.changes for row_id, item in work.wanted.items()}
    return replace(work, again=read_again(work.judged, changes, work.contract) if work.judged else None)


# --- judging ----------------------------------------------------------------------------------------------------------


def _judge(connection: Connection, work: _Work) -> dict[int, _Fate]:
    """The fate of every judged row that is not simply good, by row number; the typed rows stand in staging."""
    if work.again is None:
        clear_staging(connection, work.file.staging)
        create_fates(connection)
        return {}
    stage(connection, work.file, work.again.cast.frame)
    decide_fates(connection, work.file, work.contract, work.again.raw, work.again.cast)
    if work.contract.mode == "snapshot" and work.file.staging == "landing.staged_items":
        _refuse_second_rows(connection, work)
    rows = connection.execute(text("select row_number, fate, reasons, awaits_customer from row_fate")).all()
    return {row.row_number: _Fate(row.fate, tuple(row.reasons), row.awaits_customer) for row in rows}


def _refuse_second_rows(connection: Connection, work: _Work) -> None:
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


def _refuse(connection: Connection, work: _Work, others: Mapping[int, str]) -> None:
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


# --- leaving quarantine -----------------------------------------------------------------------------------------------


def _leave_quarantine(
    connection: Connection, work: _Work, taken: Sequence[HeldRow], fates: Mapping[int, _Fate], run_id: int
) -> tuple[tuple[str, str], ...]:
    """Give every row its new state and content; return the items that the file names no more."""
    before = _protected(connection, work.file)
    touched = {row_id for row_id, item in work.wanted.items() if item.changes}
    given_up = [row_id for row_id, item in work.wanted.items() if item.rejected_because is not None]
    _resolve(connection, [row.row_id for row in taken if row.row_id in touched], "corrected", run_id)
    _resolve(connection, [row.row_id for row in taken if row.row_id not in touched], "replayed", run_id)
    _resolve(connection, given_up, "rejected", run_id)
    out = {row.row_id for row in taken}
    _rewrite(connection, work, [row for row in work.judged if row.row_id not in out], touched, fates)
    if work.contract.mode != "snapshot" and work.file.staging != _PRODUCTS:
        return ()
    named = _protected(connection, work.file) | _good_items(connection, work.file)
    return tuple(sorted(before - named))


def _protected(connection: Connection, file: StagedFile) -> set[tuple[str, str]]:
    """The items that open rows of the file stand for; a product stands for itself, whoever buys it."""
    rows = connection.execute(
        text(
            "select distinct coalesce(customer_number, '') as customer_number, item_key from landing.quarantined_rows"
            " where feed_file_id = :id and state = 'open' and item_key is not null"
            " and (customer_number is not null or :of_products)"
        ),
        {"id": file.feed_file_id, "of_products": file.staging == _PRODUCTS},
    ).all()
    return {(row.customer_number, row.item_key) for row in rows}


def _good_items(connection: Connection, file: StagedFile) -> set[tuple[str, str]]:
    of_items = "s.customer_number, s.invoice_number from landing.staged_items s"
    rows_said = f"'', s.part_key from {_PRODUCTS} s" if file.staging == _PRODUCTS else of_items
    rows = connection.execute(
        text(
            f"select {rows_said}"
            " where not exists (select from row_fate f where f.row_number = s.row_number and f.fate = 'quarantined')"
        )
    ).all()
    return {(row[0], row[1]) for row in rows}


def _resolve(connection: Connection, row_ids: Sequence[int], state: str, run_id: int) -> None:
    if row_ids:
        connection.execute(
            text(
                "update landing.quarantined_rows set state = :state, resolved_at = now(),"
                " resolved_by_run_id = :run_id where quarantined_row_id = any(:row_ids)"
            ),
            {"state": state, "run_id": run_id, "row_ids": list(row_ids)},
        )


def _rewrite(
    connection: Connection, work: _Work, rows: Sequence[HeldRow], touched: set[int], fates: Mapping[int, _Fate]
) -> None:
    """Let rows that still fail carry what was corrected and why they fail now; others stay as they are, to the byte."""
    changed = [
        {
            "row_number": row.row_number,
            "cells": dict(work.again.cells[row.row_number]) if work.again else {},
            "reasons": list(fates[row.row_number].reasons),
            "awaits_customer": fates[row.row_number].awaits_customer,
        }
        for row in rows
        if row.row_id in touched or _said(fates[row.row_number].reasons) != _said(row.reasons)
    ]
    if changed:
        key = "s.invoice_number" if work.file.staging == "landing.staged_items" else "null"
        customer = "null" if work.file.staging == _PRODUCTS else "s.customer_number"
        connection.execute(
            text(_REWRITE.format(staging=work.file.staging, key=key, customer=customer)).bindparams(
                bindparam("rows", type_=JSONB)
            ),
            {"rows": changed, "feed_file_id": work.file.feed_file_id},
        )


def _said(reasons: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted((str(r.get("column_name")), str(r["code"]), str(r["reason"])) for r in reasons)


_REWRITE = """
update landing.quarantined_rows q
set cells = r.cells, staged = to_jsonb(s), reasons = r.reasons, awaits_customer = r.awaits_customer,
    customer_number = case when r.awaits_customer then {customer} else q.customer_number end,
    item_key = case when r.awaits_customer then {key} else q.item_key end
from jsonb_to_recordset(:rows) as r(row_number integer, cells jsonb, reasons jsonb, awaits_customer boolean)
join {staging} s using (row_number)
where q.feed_file_id = :feed_file_id and q.row_number = r.row_number
"""


# --- applying, counting, recording ------------------------------------------------------------------------------------


def _apply(connection: Connection, file: StagedFile, apply: Apply, *, good: int) -> Applied:
    if not good and not file.withdrawn:
        return Applied()
    return apply(connection, file)


def _move_counts(connection: Connection, feed_file_id: int, taken: int, applied: Applied) -> None:
    """Rows given up stay among the quarantined ones: they were read and never became anything else."""
    connection.execute(
        text(
            "update landing.feed_files set quarantined = quarantined - :taken, inserted = inserted + :inserted,"
            " updated = updated + :updated, unchanged = unchanged + :unchanged, superseded = superseded + :superseded,"
            " settled = settled + :settled, reopened = reopened + :reopened where feed_file_id = :feed_file_id"
        ),
        {
            "taken": taken,
            "inserted": applied.inserted,
            "updated": applied.updated,
            "unchanged": applied.unchanged,
            "superseded": applied.superseded,
            "settled": applied.settled,
            "reopened": applied.reopened,
            "feed_file_id": feed_file_id,
        },
    )


def _record(connection: Connection, work: _Work, taken: set[int], run_id: int, actor: str) -> None:
    lines: list[dict[str, object]] = []
    for row_id, item in work.wanted.items():
        before = shown_cells(work.rows[row_id], work.contract)
        common = {"quarantined_row_id": row_id, "run_id": run_id, "actor": actor}
        if item.rejected_because is not None:
            empty = {"column_name": None, "old_value": None, "new_value": None}
            lines.append({**common, **empty, "outcome": "rejected", "reason": item.rejected_because})
        for column, new in item.changes.items():
            values = {"column_name": column, "old_value": before.get(column, ""), "new_value": shown(new)}
            outcome = "taken_in" if row_id in taken else "still_wrong"
            lines.append({**common, **values, "outcome": outcome, "reason": None})
    if lines:
        connection.execute(
            text(
                "insert into landing.corrections (quarantined_row_id, run_id, actor, outcome, column_name, old_value,"
                " new_value, reason) values (:quarantined_row_id, :run_id, :actor, :outcome, :column_name, :old_value,"
                " :new_value, :reason)"
            ),
            lines,
        )


# --- totals -----------------------------------------------------------------------------------------------------------

# What a snapshot listed and was taken in: what held on its day, but for items that only a waiting row protects.
_ACCEPTED = """
with held as (
    select i.organization_id, i.invoice_number, i.currency, i.amount, i.open_amount from crm.invoices i
    where i.source = :source and i.listed_from <= :as_of and (i.listed_until is null or i.listed_until > :as_of)
    union all
    select i.organization_id, i.invoice_number, s.currency, s.amount, s.open_amount
    from crm.invoice_states s join crm.invoices i using (invoice_id)
    where i.source = :source and s.listed_from <= :as_of and s.listed_until > :as_of
)
select h.currency, sum(h.amount) as amount, sum(h.open_amount) as open_amount
from held h join crm.organizations o using (organization_id)
where not exists (select from landing.quarantined_rows q
                  where q.feed_file_id = :feed_file_id and q.state = 'open'
                    and q.customer_number = o.customer_number and q.item_key = h.invoice_number)
group by h.currency
"""

_ASIDE = """
select q.staged ->> 'currency' as currency, q.state, (q.staged ->> 'amount')::numeric as amount,
       (q.staged ->> 'open_amount')::numeric as open_amount
from landing.quarantined_rows q
where q.feed_file_id = :feed_file_id and q.state in ('open', 'rejected')
"""


def fetch_totals(connection: Connection, feed_file_id: int, contract: FeedContract) -> list[CurrencyTotal]:
    """A snapshot's sums by money column and currency beside what its own totals row says; [] for other files."""
    file = connection.execute(
        text("select source, as_of, mode, state, totals from landing.feed_files where feed_file_id = :feed_file_id"),
        {"feed_file_id": feed_file_id},
    ).one()
    if file.mode != "snapshot" or file.state != "applied":
        return []
    parameters = {"source": file.source, "as_of": file.as_of, "feed_file_id": feed_file_id}
    accepted = {row.currency: row for row in connection.execute(text(_ACCEPTED), parameters)}
    aside = connection.execute(text(_ASIDE), parameters).all()
    currencies = sorted({*accepted, *(row.currency for row in aside if row.currency)})
    found = []
    for column in MONEY_COLUMNS:
        stated = stated_totals(file.totals or [], contract, column, currencies)
        unreadable = sum(row.currency is None or getattr(row, column) is None for row in aside)
        found += [
            CurrencyTotal(
                column=column,
                currency=currency,
                accepted=getattr(accepted[currency], column) if currency in accepted else Decimal(0),
                quarantined=_sum(aside, "open", currency, column),
                rejected=_sum(aside, "rejected", currency, column),
                stated=stated.get(currency),
                unreadable=unreadable,
            )
            for currency in currencies
        ]
    return found


def _sum(rows: Iterable[Any], state: str, currency: str, column: str) -> Decimal:
    amounts = [getattr(row, column) for row in rows if row.state == state and row.currency == currency]
    return sum((amount for amount in amounts if amount is not None), Decimal(0))


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
