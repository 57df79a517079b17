"""What every batch of a purge shares: whom it acts for, how its transaction begins, and its line in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from tasks.erasures.keys import ErasureKey
from tasks.erasures.ledger_file import Entry, ErasureLedger, Subject
from tasks.erasures.store import HOLD_LOCK
from tasks.retention.planning import Item

LOCK_TIMEOUT_MS = 40


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


def untold(_: int) -> None:
    """Tell nobody."""
    return


# One statement, because each way to the server and back is time in which a lock could be held. The disk is not waited
# for: what a crash of the server loses of the last batches is due again, and the ledger has it already.
BEGIN = f"""
select set_config('lock_timeout', '{LOCK_TIMEOUT_MS}ms', true), set_config('synchronous_commit', 'off', true),
       set_config('kontor.run_id', :run_id, true), set_config('kontor.actor', :actor, true),
       pg_advisory_xact_lock_shared({HOLD_LOCK})
"""


# Whoever wants a row that this transaction holds waits for the transaction.
WAITED_FOR = """exists (select from pg_locks w where not w.granted and w.locktype = 'transactionid'
        and w.transactionid = cast(cast(pg_current_xact_id_if_assigned() as text) as xid))"""


def begin(connection: Connection, purge: Purge) -> float:
    """Name the transaction, bound its waits, hold off holds; returns the moment from which rows may be locked."""
    connection.execute(text(BEGIN), named(purge))
    return time.perf_counter()


def named(purge: Purge) -> dict[str, str]:
    """What :data:`BEGIN` binds."""
    return {"run_id": str(purge.run_id), "actor": purge.actor}


# Says how far the plan came, and whether somebody waits for a row of this transaction.
NOTE = f"""
update ops.retention_plan_items set done = done + :rows, reached = greatest(reached, :reached)
where plan_id = :plan_id and position = :position returning {WAITED_FOR}
"""


def note(connection: Connection, purge: Purge, item: Item, rows: int, reached: int) -> bool:
    """Note how far the plan came, and say whether somebody waits for a row of this transaction."""
    bound = {"rows": rows, "reached": reached, "plan_id": purge.plan_id, "position": item.position}
    return bool(connection.scalar(text(NOTE), bound))


def entry_of(purge: Purge, item: Item, subjects: Sequence[Subject]) -> Entry:
    """The line of the ledger that names these subjects of an item."""
    return Entry(
        at=purge.now,
        kind="erasure",
        entity=item.entity,
        rule_id=item.rule_id,
        rule_version=item.rule_version,
        reference=f"plan {purge.plan_id}, clocks through {item.horizon}",
        subjects=subjects,
    )
