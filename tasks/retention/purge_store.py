"""Carrying a plan out, a few milliseconds at a time, so that whoever writes beside it hardly notices.

Every batch is one transaction: look which rows are due and free of holds, write them into the erasure ledger, destroy
them, note how far it came. Holds are looked at inside the destroying statement, and none can be placed in the middle of
a batch. Rows that somebody else has locked are passed over and come back to. A process that is killed leaves the plan
where its last batch was; applied again, the plan goes on from there.

    keyset   people, in the order of their key: locked one by one (SKIP LOCKED), each with its line in the ledger
    months   tables that are kept by months: a month of which every row may go is dropped, what is left goes by pages
    rows     few rows of a large table: found once by reading, then removed where they stand
    pages    everything else, by ranges of the table's pages: no index is needed to find the rows, none to reach them

Which it is the plan decides, by what it counted (tasks/retention/planning.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import OperationalError

from tasks.erasures.identities import IDENTITIES, Identity
from tasks.erasures.ledger_file import SUBJECT_SQL, Entry, Line, Listed
from tasks.erasures.store import References, let_go, mirror, references_to
from tasks.errors import DependencyDown
from tasks.retention.batches_store import (
    BEGIN,
    LOCK_TIMEOUT_MS,
    NOTE,
    Purge,
    Told,
    begin,
    entry_of,
    named,
    note,
    untold,
)
from tasks.retention.months_store import drop_due_months
from tasks.retention.pace import Pace
from tasks.retention.planning import Item
from tasks.retention.selection import Selection

_PASSES = 3
_PATIENCE = 8  # batches in a row that met a lock, before the rest is left to the next pass


def apply_item(purge: Purge, item: Item, selection: Selection, told: Told = untold) -> int:
    """Carry one item out and return the rows that went; ``told`` hears of each batch's rows.

    It ends when a pass over the table met no locked row, after three passes at most: what somebody kept locked all the
    while is due again in the next plan.
    """
    if item.ended_at is not None:
        return 0
    gone = _WAYS[item.strategy](purge, item, selection, told)
    with purge.engine.begin() as connection:
        connection.execute(
            text(
                "update ops.retention_plan_items set ended_at = :now where plan_id = :plan_id and position = :position"
            ),
            {"now": purge.now, "plan_id": purge.plan_id, "position": item.position},
        )
    return gone


# --- people, one by one -------------------------------------------------------------------------------------------


def _apply_keyset(purge: Purge, item: Item, selection: Selection, told: Told) -> int:
    identity = IDENTITIES[item.entity]
    with purge.engine.connect() as connection:
        references = references_to(connection, identity)
        connection.rollback()
        return _keyset_passes(connection, purge, item, selection, identity, references, told)


def _keyset_passes(
    connection: Connection,
    purge: Purge,
    item: Item,
    selection: Selection,
    identity: Identity,
    references: References,
    told: Told,
) -> int:
    pace, gone = Pace(2_000, 250, 10_000, 0.025), 0
    after, failures = item.reached, 0
    for _ in range(_PASSES):
        while failures < _PATIENCE and item.done + gone < item.allowed:
            batch = _keyset_batch(connection, purge, item, selection, identity, references, after, int(pace))
            if batch is None:
                pace.was_in_the_way()
                failures += 1
                continue
            if batch.newest is None:
                break
            gone, after, failures = gone + batch.rows, batch.newest, 0
            told(batch.rows)
            pace.after(batch.seconds, waited_for=batch.waited_for)
        if not _is_left(purge, item, selection):
            break
        after, failures = 0, 0
    return gone


@dataclass(frozen=True)
class _Batch:
    """The rows that went, the last key looked at (None where none was left), and for how long rows were locked.

    ``waited_for``: at its end somebody stood and waited for one of them.
    """

    rows: int
    newest: int | None
    seconds: float
    waited_for: bool = False


def _keyset_batch(
    connection: Connection,
    purge: Purge,
    item: Item,
    selection: Selection,
    identity: Identity,
    references: References,
    after: int,
    size: int,
) -> _Batch | None:
    """One batch; None where a lock could not be had in time: nothing of it was done, and its line is voided."""
    lines: list[Line] = []
    try:
        with connection.begin():
            began = begin(connection, purge)
            found = connection.execute(
                text(_due_statement(identity, selection)),
                {**selection.bound, **purge.key.bound(), "after": after, "size": size},
            ).one()
            if not found.people:
                return _Batch(0, None, 0.0)
            lines = purge.ledger.append([entry_of(purge, item, Listed(found.subjects, found.people))])
            delete = item.action == "delete"
            went = let_go(
                connection, identity, found.ids, delete=delete, blanks=selection.blanks, references=references
            )
            mirror(connection, lines)
            rows = went["deleted"] + went["anonymised"]
            waited_for = note(connection, purge, item, rows, found.newest)
        return _Batch(rows, found.newest, time.perf_counter() - began, waited_for)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        if lines:
            purge.ledger.append([Entry(at=purge.now, kind="void", refers_to=[line.sequence for line in lines])])
        return None


def _due_statement(identity: Identity, selection: Selection) -> str:
    """One row: how many people are due and not locked, their keys as an array, and how the ledger lists them.

    The database writes both texts, because thousands of values one by one cost more on their way than the rest.
    """
    subject = SUBJECT_SQL.format(external_id="external_id", key_hash="key_hash")
    return f"""
select count(*) as people, max(id) as newest, coalesce(array_agg(id), '{{}}')::text as ids,
       '[' || coalesce(string_agg({subject}, ','), '') || ']' as subjects
from (
    select r.{identity.key} as id, r.external_id::text as external_id, {identity.key_hash} as key_hash
    from {identity.records} where r.{identity.key} > :after and {selection.condition}
    order by r.{identity.key} limit :size for update of r skip locked
) due
"""


def _is_left(purge: Purge, item: Item, selection: Selection) -> bool:
    """Whether rows were passed over because somebody had them locked."""
    with purge.engine.connect() as connection:
        statement = f"select exists (select from {item.entity} r where {selection.condition})"
        return bool(connection.scalar(text(statement), dict(selection.bound)))


# --- everything else: by months, by rows, by pages ------------------------------------------------------------------


def _apply_months(purge: Purge, item: Item, selection: Selection, told: Told) -> int:
    dropped = drop_due_months(purge, item, selection, told)
    return dropped + _apply_pages(purge, replace(item, done=item.done + dropped), selection, told)


def _apply_rows(purge: Purge, item: Item, selection: Selection, told: Told) -> int:
    _announce(purge, item)
    statement, gone = text(_destroy_statement(item.entity, selection, "r.ctid = any(cast(:places as tid[]))")), 0
    for _ in range(_PASSES):
        pace, passed_over = Pace(500, 10, 20_000), False
        places = _places(purge, item, selection)
        with _session(purge) as session:
            for portion in _portions(places, pace):
                if item.done + gone >= item.allowed:
                    return gone
                batch = _batch(session, purge, item, selection, statement, {"places": portion, "reached": 0})
                gone += _learn(pace, batch, told)
                passed_over |= batch is None or batch.rows < len(portion)  # locked, or somebody has moved it since
        if not passed_over:
            break
        time.sleep(LOCK_TIMEOUT_MS / 1000)
    return gone


def _places(purge: Purge, item: Item, selection: Selection) -> list[str]:
    """Where the rows stand that may go, by a statement that only reads."""
    with purge.engine.connect() as connection:
        found = text(f"select r.ctid::text from {item.entity} r where {selection.condition}")
        return list(connection.scalars(found, {**selection.bound, **purge.key.bound()}))


def _portions(places: list[str], pace: Pace) -> Iterator[list[str]]:
    """The places in order, as many at once as the pace is by then."""
    at = 0
    while at < len(places):
        portion = places[at : at + int(pace)]
        yield portion
        at += len(portion)


def _learn(pace: Pace, batch: _Batch | None, told: Told) -> int:
    """Tell the pace of a batch, and whoever listens of its rows, which are returned."""
    if batch is None:
        pace.was_in_the_way()
        return 0
    told(batch.rows)
    pace.after(batch.seconds, waited_for=batch.waited_for)
    return batch.rows


def _announce(purge: Purge, item: Item) -> None:
    """The ledger's line for rows that stand for nobody: the rule, the plan and the horizon, no subjects."""
    line = purge.ledger.append([entry_of(purge, item, [])])
    with purge.engine.begin() as connection:
        mirror(connection, line)


def _apply_pages(purge: Purge, item: Item, selection: Selection, told: Told) -> int:
    _announce(purge, item)
    with purge.engine.connect() as connection:
        pages = _pages_of(connection, item.entity)
    within = "r.ctid >= cast(:low as tid) and r.ctid < cast(:high as tid)"
    statement = text(_destroy_statement(item.entity, selection, within))
    left, gone = [(item.reached, pages)], 0
    for _ in range(_PASSES):
        locked: list[tuple[int, int]] = []
        pace = Pace(256, 8, 8_000)
        with _session(purge) as session:
            for low, high in _ranges(left, pace):
                if item.done + gone >= item.allowed:
                    return gone
                reached = high if item.reached <= low else 0
                bound = {"low": f"({low},0)", "high": f"({high},0)", "reached": reached}
                batch = _batch(session, purge, item, selection, statement, bound)
                gone += _learn(pace, batch, told)
                if batch is None:
                    locked.append((low, high))
        if not locked:
            break
        left = locked
        time.sleep(LOCK_TIMEOUT_MS / 1000)
    return gone


def _ranges(spans: list[tuple[int, int]], pace: Pace) -> Iterator[tuple[int, int]]:
    """Ranges of pages over these spans, each as long as the pace is by then."""
    for first, last in spans:
        low = first
        while low < last:
            high = min(low + int(pace), last)
            yield low, high
            low = high


def _pages_of(connection: Connection, table: str) -> int:
    """How many pages a table has; of one that is kept by months, how many the longest month has."""
    statement = """
select greatest(pg_relation_size(cast(:table as regclass)), (
    select max(pg_relation_size(relid)) from pg_partition_tree(cast(:table as regclass))))
    / current_setting('block_size')::bigint
"""
    return int(connection.scalar(text(statement), {"table": table}) or 0)


def _destroy_statement(table: str, selection: Selection, within: str) -> str:
    where = f"{within} and {selection.condition}"
    blanks = ", ".join(f"{column} = {blank}" for column, blank in selection.blanks.items())
    return f"update {table} r set {blanks} where {where}" if blanks else f"delete from {table} r where {where}"


@contextmanager
def _session(purge: Purge) -> Iterator[Connection]:
    """A session for all batches of a pass; one taken anew for each asks the server each time whether it lives."""
    with purge.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        yield session


def _batch(
    session: Connection,
    purge: Purge,
    item: Item,
    selection: Selection,
    statement: TextClause,
    where: Mapping[str, object],
) -> _Batch | None:
    """One batch; None where a lock could not be had in time, which leaves nothing of it."""
    bound = {**selection.bound, **purge.key.bound(), **where}
    began = time.perf_counter()
    try:
        rows, waited_for = _in_two_trips(session, purge, item, statement, bound)
    except LockNotAvailable:
        return None
    return _Batch(rows, None, time.perf_counter() - began, waited_for)


def _in_two_trips(
    session: Connection, purge: Purge, item: Item, statement: TextClause, bound: Mapping[str, object]
) -> tuple[int, bool]:
    """Carry one statement out in a transaction of its own, on two ways to the server and back: destroy, then note.

    Each step by itself would take a way each, on which a busy machine spends more time than on the rows. The rows are
    counted by the statement's own tag: having it return them costs as much again as destroying some.

    Raises:
        LockNotAvailable: a lock could not be had in time; nothing was done.
    """
    driver = _driver_of(session)
    try:
        with driver.pipeline() as pipeline:
            driver.execute("begin")
            driver.execute(_as_driver_text(session, text(BEGIN)), named(purge))
            gone = driver.execute(_as_driver_text(session, statement), dict(bound))
            pipeline.sync()
            rows = int(gone.rowcount)
            progress = {"rows": rows, "reached": bound["reached"], "plan_id": purge.plan_id}
            noted = driver.execute(_as_driver_text(session, text(NOTE)), {**progress, "position": item.position})
            driver.execute("commit")
        waited_for = noted.fetchone()
    except psycopg.Error:
        driver.rollback()
        raise
    return rows, bool(waited_for and waited_for[0])


def _driver_of(connection: Connection) -> Any:
    driver = connection.connection.driver_connection
    if driver is None:
        raise DependencyDown("The connection to the database was lost.", hint="Apply the same plan again.")
    return driver


def _as_driver_text(connection: Connection, statement: TextClause) -> str:
    return str(statement.compile(dialect=connection.dialect))


_WAYS: Mapping[str, Callable[[Purge, Item, Selection, Told], int]] = {
    "keyset": _apply_keyset,
    "months": _apply_months,
    "rows": _apply_rows,
    "pages": _apply_pages,
}
