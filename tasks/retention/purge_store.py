"""Carrying a plan out, a few milliseconds at a time, so that whoever writes beside it hardly notices.

Every batch is one transaction: look which rows are due and free of holds, write them into the erasure ledger, destroy
them, note how far it came. Holds are looked at inside the destroying statement, and none can be placed in the middle of
a batch. Rows that somebody else has locked are passed over and come back to. A process that is killed leaves the plan
where its last batch was; applied again, the plan goes on from there.

    keyset   people, in the order of their key: locked one by one (SKIP LOCKED), each with its line in the ledger
    pages    everything else, by ranges of the table's pages: no index is needed to find the rows, none to reach them
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import OperationalError

from tasks.erasures.identities import IDENTITIES, Identity
from tasks.erasures.keys import ErasureKey
from tasks.erasures.ledger_file import SUBJECT_SQL, Entry, ErasureLedger, Line, Listed, Subject
from tasks.erasures.store import HOLD_LOCK, References, let_go, mirror, references_to
from tasks.errors import DependencyDown
from tasks.retention.planning import Item
from tasks.retention.selection import Selection

LOCK_TIMEOUT_MS = 40
TARGET_SECONDS = 0.03
_LONGEST = 4  # times its target, which a batch may take while nobody waits for it
_PASSES = 3
_PATIENCE = 8  # batches in a row that met a lock, before the rest is left to the next pass


@dataclass
class Pace:
    """How many pages or rows a batch takes: it grows while batches are short and shrinks when one holds others up.

    It begins with ``usual``, and goes below that only for somebody who waits.
    """

    usual: int
    smallest: int
    largest: int
    target: float = TARGET_SECONDS
    size: float = field(init=False)

    def __post_init__(self) -> None:
        self.size = float(self.usual)

    def after(self, seconds: float, *, waited_for: bool = False) -> None:
        """Learn from a batch that held locks for so long, and from whether somebody stood and waited for it.

        What makes a batch slow is as often a busy machine: as long as nobody waits it is made smaller only when it
        takes several times as long as it should.
        """
        if waited_for:
            self._set(self.size / 2)
        elif seconds < self.target:
            self._set(self.size * min(2.0, self.target / max(seconds, 1e-6)))
        elif seconds > self.target * _LONGEST:
            self._set(max(min(self.size, self.usual), self.size * max(0.5, self.target * _LONGEST / seconds)))

    def was_in_the_way(self) -> None:
        """Learn from a batch that met a lock it did not get."""
        self._set(self.size / 2)

    def _set(self, size: float) -> None:
        self.size = min(float(self.largest), max(float(self.smallest), size))

    def __int__(self) -> int:
        return int(self.size)


@dataclass(frozen=True)
class Purge:
    """What every batch needs: where, for which plan and run, who acts, the ledger and its key, and the time."""

    engine: Engine
    plan_id: int
    run_id: int
    actor: str
    ledger: ErasureLedger
    key: ErasureKey
    now: datetime


Told = Callable[[int], None]


def _untold(_: int) -> None:
    return None


def apply_item(purge: Purge, item: Item, selection: Selection, told: Told = _untold) -> int:
    """Carry one item out and return the rows that went; ``told`` hears of each batch's rows.

    It ends when a pass over the table met no locked row, after three passes at most: what somebody kept locked all the
    while is due again in the next plan.
    """
    if item.ended_at is not None:
        return 0
    apply = _apply_keyset if item.strategy == "keyset" else _apply_pages
    gone = apply(purge, item, selection, told)
    with purge.engine.begin() as connection:
        connection.execute(
            text(
                "update ops.retention_plan_items set ended_at = :now where plan_id = :plan_id and position = :position"
            ),
            {"now": purge.now, "plan_id": purge.plan_id, "position": item.position},
        )
    return gone


# One statement, because each way to the server and back is time in which a lock could be held. The disk is not waited
# for: what a crash of the server loses of the last batches is due again, and the ledger has it already.
_BEGIN = f"""
select set_config('lock_timeout', '{LOCK_TIMEOUT_MS}ms', true), set_config('synchronous_commit', 'off', true),
       set_config('kontor.run_id', :run_id, true), set_config('kontor.actor', :actor, true),
       pg_advisory_xact_lock_shared({HOLD_LOCK})
"""


# Whoever wants a row that this transaction holds waits for the transaction.
_WAITED_FOR = """exists (select from pg_locks w where not w.granted and w.locktype = 'transactionid'
        and w.transactionid = cast(cast(pg_current_xact_id_if_assigned() as text) as xid))"""


def _begin(connection: Connection, purge: Purge) -> float:
    """Name the transaction, bound its waits, hold off holds; returns the moment from which rows may be locked."""
    connection.execute(text(_BEGIN), _named(purge))
    return time.perf_counter()


def _named(purge: Purge) -> dict[str, str]:
    return {"run_id": str(purge.run_id), "actor": purge.actor}


def _note(connection: Connection, purge: Purge, item: Item, rows: int, reached: int) -> bool:
    """Note how far the plan came, and say whether somebody waits for a row of this transaction."""
    return bool(
        connection.scalar(
            text(
                "update ops.retention_plan_items set done = done + :rows, reached = greatest(reached, :reached)"
                f" where plan_id = :plan_id and position = :position returning {_WAITED_FOR}"
            ),
            {"rows": rows, "reached": reached, "plan_id": purge.plan_id, "position": item.position},
        )
    )


def _entry(purge: Purge, item: Item, subjects: Sequence[Subject]) -> Entry:
    return Entry(
        at=purge.now,
        kind="erasure",
        entity=item.entity,
        rule_id=item.rule_id,
        rule_version=item.rule_version,
        reference=f"plan {purge.plan_id}, clocks through {item.horizon}",
        subjects=subjects,
    )


# --- people, one by one -------------------------------------------------------------------------------------------


def _apply_keyset(purge: Purge, item: Item, selection: Selection, told: Told) -> int:
    identity, pace, gone = IDENTITIES[item.entity], Pace(2_000, 250, 10_000, 0.04), 0
    with purge.engine.connect() as connection:
        references = references_to(connection, identity)
    after, failures = item.reached, 0
    for _ in range(_PASSES):
        while failures < _PATIENCE and item.done + gone < item.allowed:
            batch = _keyset_batch(purge, item, selection, identity, references, after, int(pace))
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
        with purge.engine.begin() as connection:
            began = _begin(connection, purge)
            found = connection.execute(
                text(_due_statement(identity, selection)),
                {**selection.bound, **purge.key.bound(), "after": after, "size": size},
            ).one()
            if not found.people:
                return _Batch(0, None, 0.0)
            lines = purge.ledger.append([_entry(purge, item, Listed(found.subjects, found.people))])
            delete = item.action == "delete"
            went = let_go(
                connection, identity, found.ids, delete=delete, blanks=selection.blanks, references=references
            )
            mirror(connection, lines)
            rows = went["deleted"] + went["anonymised"]
            waited_for = _note(connection, purge, item, rows, found.newest)
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


# --- everything else, by pages ------------------------------------------------------------------------------------


def _apply_pages(purge: Purge, item: Item, selection: Selection, told: Told) -> int:
    purge_line = purge.ledger.append([_entry(purge, item, [])])
    with purge.engine.begin() as connection:
        mirror(connection, purge_line)
        pages = _pages_of(connection, item.entity)
    statement = text(_pages_statement(item.entity, selection))
    left, gone = [(item.reached, pages)], 0
    for _ in range(_PASSES):
        locked: list[tuple[int, int]] = []
        pace = Pace(256, 8, 8_000)
        for low, high in _ranges(left, pace):
            if item.done + gone >= item.allowed:
                return gone
            batch = _pages_batch(purge, item, selection, statement, low, high)
            if batch is None:
                pace.was_in_the_way()
                locked.append((low, high))
                continue
            gone += batch.rows
            told(batch.rows)
            pace.after(batch.seconds, waited_for=batch.waited_for)
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
    statement = "select pg_relation_size(cast(:table as regclass)) / current_setting('block_size')::bigint"
    return int(connection.scalar(text(statement), {"table": table}) or 0)


def _pages_statement(table: str, selection: Selection) -> str:
    where = f"r.ctid >= cast(:low as tid) and r.ctid < cast(:high as tid) and {selection.condition}"
    blanks = ", ".join(f"{column} = {blank}" for column, blank in selection.blanks.items())
    destroy = f"update {table} r set {blanks} where {where}" if blanks else f"delete from {table} r where {where}"
    return f"""
with gone as ({destroy} returning 1), counted as (select count(*) as rows from gone), noted as (
    update ops.retention_plan_items set done = done + c.rows, reached = greatest(reached, :reached)
    from counted c where plan_id = :plan_id and position = :position
)
select rows, {_WAITED_FOR} as waited_for from counted
"""


def _pages_batch(
    purge: Purge, item: Item, selection: Selection, statement: TextClause, low: int, high: int
) -> _Batch | None:
    """One range; None where a lock could not be had in time, which leaves nothing of it."""
    bound = {
        **selection.bound,
        **purge.key.bound(),
        "low": f"({low},0)",
        "high": f"({high},0)",
        "reached": high if item.reached <= low else 0,
        "plan_id": purge.plan_id,
        "position": item.position,
    }
    began = time.perf_counter()
    try:
        rows, waited_for = _in_one_trip(purge, statement, bound)
    except LockNotAvailable:
        return None
    return _Batch(rows, high, time.perf_counter() - began, waited_for)


def _in_one_trip(purge: Purge, statement: TextClause, bound: Mapping[str, object]) -> tuple[int, bool]:
    """Carry one statement out in a transaction of its own, with one way to the server and back.

    Beginning, naming the transaction and committing would otherwise take a way each, on which a busy machine spends
    more time than on the rows.

    Raises:
        LockNotAvailable: a lock could not be had in time; nothing was done.
    """
    with purge.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        driver = _driver_of(connection)
        try:
            with driver.pipeline():
                driver.execute("begin")
                driver.execute(_as_driver_text(connection, text(_BEGIN)), _named(purge))
                cursor = driver.execute(_as_driver_text(connection, statement), dict(bound))
                driver.execute("commit")
            rows, waited_for = cursor.fetchone()
        except psycopg.Error:
            driver.rollback()
            raise
    return int(rows), bool(waited_for)


def _driver_of(connection: Connection) -> Any:
    driver = connection.connection.driver_connection
    if driver is None:
        raise DependencyDown("The connection to the database was lost.", hint="Apply the same plan again.")
    return driver


def _as_driver_text(connection: Connection, statement: TextClause) -> str:
    return str(statement.compile(dialect=connection.dialect))
