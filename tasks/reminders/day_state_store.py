"""Whether anything that a day's decisions are made from has changed since they were kept, asked of whole tables.

Every version of a row has a place and the transaction that wrote it (``ctid``, ``xmin``); whatever is added, changed or
removed gives a table another sum of these. So a second run of a day need not read a million facts to find out that it
would decide the same: it compares sums, and where they agree what was kept stands. A row that is written anew with the
same content counts as changed, which costs one more pass and nothing else.

    facts     rules, ledgers, payments, customers, contacts and roles, classes, holds, suppressions, tasks that people
              have closed, mails of other days; and the program itself, with the libraries that know holidays
    of_today  which customers have a mail of this very day, who are left alone

A run that plans mails changes ``of_today`` itself, by exactly the customers it plans mails for. It is known before they
are kept, and so the state that a run leaves behind is kept with its plan, in one transaction.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.reminders.rulebook import RULE_TABLES

# What the statements of facts_store read, also inside the functions that they call; a test holds it equal to that.
FACT_TABLES = (
    "crm.allocations",
    "crm.contact_roles",
    "crm.contacts",
    "crm.invoice_states",
    "crm.invoices",
    "crm.ledger_entries",
    "crm.organizations",
    "crm.payments",
    "ops.payer_class_history",
    "ops.reminder_holds",
    "outbox.suppressions",
    *(f"rules.{name}" for name in RULE_TABLES),
)
# Read as well, but only in part.
PARTLY = ("landing.feed_files", "outbox.reminder_items", "outbox.reminders")
_LIBRARIES = ("babel", "email-validator", "holidays")
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DayState:
    """What a day's decisions are made from, as two sums: the facts, and who has a mail of the day already."""

    facts: str
    of_today: int


def fetch_state(connection: Connection, as_of: date) -> DayState:
    """The state of a day as this transaction sees it; half a second for a million items."""
    sums = connection.execute(text(_SUMS), {"as_of": as_of}).one()
    facts = hashlib.sha256(f"{_program()} {' '.join(map(str, sums[1:]))}".encode())
    return DayState(facts.hexdigest(), sums[0])


def fetch_unchanged(connection: Connection, as_of: date, state: DayState) -> Counter[tuple[str, str]] | None:
    """The decisions that stand, counted by kind and reason, where the newest plan of the day left exactly this state.

    Those who were reminded have a mail of the day now and are not among them. None where something has changed.
    """
    kept = connection.execute(
        text("select reasons from ops.reminder_plans where as_of = :as_of and facts = :facts and of_today = :of_today"),
        {"as_of": as_of, "facts": state.facts, "of_today": state.of_today},
    ).scalar_one_or_none()
    if kept is None:
        return None
    return Counter({(kind, code): count for kind, code, count in kept if kind != "remind"})


def keep_state(
    connection: Connection, run_id: int, as_of: date, state: DayState, reasons: Mapping[tuple[str, str], int]
) -> None:
    """Keep what a plan made from ``state`` leaves behind; the mails of ``run_id`` are in the outbox already."""
    given = [[kind, code, count] for (kind, code), count in sorted(reasons.items())]
    connection.execute(
        text(_KEEP).bindparams(bindparam("reasons", type_=JSONB)),
        {"run_id": run_id, "as_of": as_of, "facts": state.facts, "of_today": state.of_today, "reasons": given},
    )


def is_untold(connection: Connection, as_of: date) -> bool:
    """Whether mails of that day wait of which finance has had no list yet, whichever run planned them."""
    return bool(connection.scalar(text(_UNTOLD), {"as_of": as_of}))


def note_told(connection: Connection, as_of: date, now: datetime) -> None:
    """Keep that finance was sent the list of the day's mails."""
    connection.execute(
        text("update ops.reminder_plans set told_at = :now where as_of = :as_of"), {"as_of": as_of, "now": now}
    )


@functools.cache
def _program() -> str:
    """The program that decides, as one sum: its sources, the views it reads through, the libraries with holidays."""
    found = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in _LIBRARIES).encode())
    for path in sorted([*Path(__file__).parent.glob("*.py"), *(_ROOT / "data_contracts" / "views").glob("*.sql")]):
        found.update(path.read_bytes())
    return found.hexdigest()


# --- statements -------------------------------------------------------------------------------------------------------

_ROW = "hashtidextended(t.ctid, t.xmin::text::bigint)"
_OF_ROWS = f"(select count(*) || '/' || coalesce(bit_xor({_ROW}), 0) from"

_SUMS = f"""
select (select coalesce(bit_xor(hashint8extended(m.organization_id, 0)), 0)
        from outbox.reminders m where m.as_of = :as_of and m.state <> 'cancelled'),
       {", ".join(f"{_OF_ROWS} {name} t)" for name in FACT_TABLES)},
       {_OF_ROWS} landing.feed_files t where t.feed in ('open_items', 'settled_items')),
       {_OF_ROWS} outbox.reminders t where t.as_of <> :as_of),
       {_OF_ROWS} outbox.reminder_items t
        where t.reminder_id in (select m.reminder_id from outbox.reminders m where m.as_of <> :as_of)),
       {_OF_ROWS} ops.reminder_tasks t where t.closed_by <> 'overdue_reminders'),
       (select count(*) || '/' || coalesce(bit_xor(hashint8extended(s.suppression_id, 0)), 0)
        from outbox.suppressions s where s.until is null or s.until > now())
"""

_KEEP = """
insert into ops.reminder_plans (as_of, run_id, facts, of_today, reasons)
select :as_of, :run_id, :facts, :of_today # coalesce(bit_xor(hashint8extended(m.organization_id, 0)), 0), :reasons
from outbox.reminders m where m.run_id = :run_id and m.as_of = :as_of and m.state = 'planned'
on conflict (as_of) do update
set run_id = excluded.run_id, facts = excluded.facts, of_today = excluded.of_today, reasons = excluded.reasons,
    planned_at = now(),
    told_at = case when not exists (select from outbox.reminders m
                                    where m.run_id = :run_id and m.as_of = :as_of and m.state = 'planned')
              then reminder_plans.told_at end
"""

_UNTOLD = """
select exists (
    select from ops.reminder_plans p
    join outbox.reminders m on m.as_of = p.as_of and m.state in ('planned', 'approved', 'deferred')
    where p.as_of = :as_of and p.told_at is null
)
"""
