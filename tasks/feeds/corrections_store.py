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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.erasures.keys import ErasureKey
from tasks.erasures.terms import ERASED
from tasks.feeds.cells import shown
from tasks.feeds.contracts import FeedContract
from tasks.feeds.corrections import CorrectedRow, HeldRow, shown_cells
from tasks.feeds.held_store import lock_waiting
from tasks.feeds.outcomes import Applied, Apply, StagedFile
from tasks.feeds.rejudging_store import PRODUCTS, Fate, Work, judge_again, typed_again
from tasks.feeds.staging_store import clear_staging, serialise, staging_table
from tasks.history.store import act_for_run


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
    erasure_key: ErasureKey | None = None,
) -> FileCorrected:
    """Do what is wanted of the rows of one file, inside the caller's transaction.

    ``handed_out`` is the token of each row as it was compared; a row that changed since is left alone. With the key a
    row that a correction turned into somebody who asked to be erased stays in quarantine, without its content.
    """
    file = _staged_file(connection, feed_file_id, contract)
    serialise(connection, file.feed)
    act_for_run(connection, run_id)
    rows = {row.row_id: row for row in lock_waiting(connection, feed_file_id)}
    current = [item for item in wanted if item.row_id in rows and rows[item.row_id].token == handed_out[item.row_id]]
    stale = tuple(item.row_id for item in wanted if item not in current)
    work = typed_again(Work(file, contract, rows, {item.row_id: item for item in current}, None, erasure_key))
    fates = judge_again(connection, work)
    taken = [row for row in work.judged if row.row_number not in fates or fates[row.row_number].fate == "superseded"]
    withdrawn = _leave_quarantine(connection, work, taken, fates, run_id)
    copies = sum(fate.fate == "superseded" for fate in fates.values())
    applied = _apply(connection, replace(file, withdrawn=withdrawn), apply, good=len(taken) - copies)
    applied = replace(applied, superseded=applied.superseded + copies)
    _move_counts(connection, feed_file_id, len(taken), applied)
    _record(connection, work, {row.row_id for row in taken}, fates, run_id, actor)
    clear_staging(connection, file.staging)
    return _outcome(work, taken, stale, applied)


def _outcome(work: Work, taken: Sequence[HeldRow], stale: tuple[int, ...], applied: Applied) -> FileCorrected:
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


def _leave_quarantine(
    connection: Connection, work: Work, taken: Sequence[HeldRow], fates: Mapping[int, Fate], run_id: int
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
    if work.contract.mode != "snapshot" and work.file.staging != PRODUCTS:
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
        {"id": file.feed_file_id, "of_products": file.staging == PRODUCTS},
    ).all()
    return {(row.customer_number, row.item_key) for row in rows}


def _good_items(connection: Connection, file: StagedFile) -> set[tuple[str, str]]:
    of_items = "s.customer_number, s.invoice_number from landing.staged_items s"
    rows_said = f"'', s.part_key from {PRODUCTS} s" if file.staging == PRODUCTS else of_items
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
    connection: Connection, work: Work, rows: Sequence[HeldRow], touched: set[int], fates: Mapping[int, Fate]
) -> None:
    """Let rows that still fail carry what was corrected and why they fail now; others stay as they are, to the byte."""
    changed = [
        {
            "row_number": row.row_number,
            "cells": _kept_cells(work, fates[row.row_number], row.row_number),
            "erased": fates[row.row_number].is_erased,
            "reasons": list(fates[row.row_number].reasons),
            "awaits_customer": fates[row.row_number].awaits_customer,
        }
        for row in rows
        if row.row_id in touched or _said(fates[row.row_number].reasons) != _said(row.reasons)
    ]
    if changed:
        key = "s.invoice_number" if work.file.staging == "landing.staged_items" else "null"
        customer = "null" if work.file.staging == PRODUCTS else "s.customer_number"
        connection.execute(
            text(_REWRITE.format(staging=work.file.staging, key=key, customer=customer)).bindparams(
                bindparam("rows", type_=JSONB)
            ),
            {"rows": changed, "feed_file_id": work.file.feed_file_id},
        )


def _kept_cells(work: Work, fate: Fate, row_number: int) -> dict[str, Any]:
    return dict(work.again.cells[row_number]) if work.again and not fate.is_erased else {}


def _said(reasons: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted((str(r.get("column_name")), str(r["code"]), str(r["reason"])) for r in reasons)


_REWRITE = """
update landing.quarantined_rows q
set cells = r.cells, reasons = r.reasons, awaits_customer = r.awaits_customer,
    staged = case when r.erased then jsonb_build_object('customer_number', q.customer_number) else to_jsonb(s) end,
    customer_number = case when r.awaits_customer then {customer} else q.customer_number end,
    item_key = case when r.awaits_customer then {key} else q.item_key end
from jsonb_to_recordset(:rows)
    as r(row_number integer, cells jsonb, reasons jsonb, awaits_customer boolean, erased boolean)
join {staging} s using (row_number)
where q.feed_file_id = :feed_file_id and q.row_number = r.row_number
"""


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


def _record(
    connection: Connection, work: Work, taken: set[int], fates: Mapping[int, Fate], run_id: int, actor: str
) -> None:
    lines: list[dict[str, object]] = []
    for row_id, item in work.wanted.items():
        before = shown_cells(work.rows[row_id], work.contract)
        fate = fates.get(work.rows[row_id].row_number)
        withheld = fate is not None and fate.is_erased
        common = {"quarantined_row_id": row_id, "run_id": run_id, "actor": actor}
        if item.rejected_because is not None:
            empty = {"column_name": None, "old_value": None, "new_value": None}
            lines.append({**common, **empty, "outcome": "rejected", "reason": item.rejected_because})
        for column, new in item.changes.items():
            old, said = (ERASED, ERASED) if withheld else (before.get(column, ""), shown(new))
            values = {"column_name": column, "old_value": old, "new_value": said}
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
