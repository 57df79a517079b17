"""Taking mails from the queue: the gate's transaction, from the facts under lock to the state ``sending``.

The order of locks is invoices, then mails, and neither is waited for: whatever a payment run or another sender holds
is left for the next batch. So the gate can neither read a balance that is about to change nor stand in anybody's way.
What the gate commits is the word that these mails are being sent; no byte leaves before. A process that dies after
that leaves ``sending`` behind, which the next run turns into ``unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, text

from tasks.errors import Refused
from tasks.reminders.sending.facts_store import read_facts, read_queued
from tasks.reminders.sending.gate import Facts, OpenItem, Person, Released, Verdict, judge

# The Message-ID of a mail by its number and the instant at which it was planned: a database made anew begins to count
# at one again, and mail servers drop what bears an id they have seen.
MessageIdOf = Callable[[int, datetime], str]


@dataclass(frozen=True)
class Claim:
    """Who takes mails: the run, and the name that stands in ``claimed_by``."""

    run_id: int
    name: str


@dataclass(frozen=True)
class Cleared:
    """A mail that may leave now, with everything that its letter says."""

    reminder_id: int
    attempt: int
    message_id: str
    thread: str | None
    stage: str
    sequence: int
    template: str
    language: str
    attachment: str
    cc: str | None
    recipient: Person
    customer_number: str
    customer_name: str
    country: str
    owner: str
    kept: tuple[OpenItem, ...]
    also_open: tuple[OpenItem, ...]
    due_soon: tuple[OpenItem, ...]
    credits: tuple[OpenItem, ...]
    unmatched: Mapping[str, Decimal]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """What one turn at the gate decided: mails to send, ids that wait, and reasons by which others never go."""

    cleared: tuple[Cleared, ...]
    waiting: Mapping[int, str]
    cancelled: Mapping[int, str]
    busy: tuple[int, ...]
    looked_at: int


def take_batch(
    connection: Connection,
    claim: Claim,
    *,
    day: date,
    now: datetime,
    size: int,
    passed: Sequence[int],
    message_id_of: MessageIdOf,
    any_hour: bool = False,
    past_run: int | None = None,
    data_day: date | None = None,
) -> Batch:
    """Judge the next mails of the queue and commit the ones that may go to ``sending``; call in one transaction.

    ``day`` is the business day, ``now`` the instant. ``passed`` are mails that this run has looked at already.
    ``any_hour`` leaves the customers' send windows aside. ``past_run`` is a run of a past day whose mails may go all
    the same, and ``data_day`` that day: balances are always those of now, but data is old only if it was old then.

    Raises:
        Refused: another run has taken over, because the database lost sight of this one; nothing is claimed.
    """
    _stand_in_the_ledger(connection, claim)
    chosen = next_mails(connection, now, size, passed, any_hour=any_hour, past_run=past_run)
    if not chosen:
        return Batch((), {}, {}, (), 0)
    free = _lock_invoices(connection, chosen)
    rows = _lock_mails(connection, free)
    queue = read_queued(connection, rows)
    facts = read_facts(connection, rows, queue, day, now)
    verdicts = [judge(mail, facts[mail.reminder_id], day, data_day) for mail in queue.values()]
    _write_verdicts(connection, verdicts, now)
    going = {verdict.reminder_id: verdict for verdict in verdicts if verdict.action == "go"}
    by_id = {row.reminder_id: row for row in rows}
    ids = {one: by_id[one].message_id or message_id_of(one, by_id[one].planned_at) for one in going}
    threads = _begin_sending(connection, claim, ids, now)
    cleared = tuple(
        _cleared(by_id[one], verdict, facts[one], ids[one], threads[one], day) for one, verdict in going.items()
    )
    return Batch(
        cleared,
        waiting={verdict.reminder_id: verdict.reason for verdict in verdicts if verdict.action == "wait"},
        cancelled={verdict.reminder_id: verdict.reason for verdict in verdicts if verdict.action == "never"},
        busy=tuple(sorted(set(chosen) - set(by_id))),
        looked_at=len(chosen),
    )


def _stand_in_the_ledger(connection: Connection, claim: Claim) -> None:
    """A run that the database has lost sight of is written off by the next one; it must not go on beside it."""
    state = connection.scalar(
        text("select state from ops.run_ledger where run_id = :run_id for share"), {"run_id": claim.run_id}
    )
    if state != "running":
        raise Refused(
            f"Run {claim.run_id} stands as {state}: the database lost its connection and another run took over.",
            hint="Nothing is lost: the other run goes on. See `kontor status`.",
        )


# --- choosing and locking ---------------------------------------------------------------------------------------------


def next_mails(
    connection: Connection, now: datetime, size: int, passed: Sequence[int], *, any_hour: bool, past_run: int | None
) -> list[int]:
    """The next mails of the queue that may be looked at at this instant; nothing is locked yet."""
    windows = connection.execute(text(_WINDOWS)).all()
    is_open = {row.country: _within(row, now) for row in windows}
    values = {
        "now": now,
        "size": size,
        "passed": list(passed),
        "any_hour": any_hour or not windows,
        "open": [country for country, within in is_open.items() if within],
        "known": list(is_open),
        "elsewhere": is_open.get("*", True),
        "past_run": past_run,
    }
    return list(connection.scalars(text(_CANDIDATES), values))


def _within(window: Row[Any], now: datetime) -> bool:
    """Whether it is office hours there: from ``opens_at`` up to, not including, ``closes_at``, by the clock there."""
    there = f"{now.astimezone(ZoneInfo(window.time_zone)):%H:%M}"
    return bool(window.opens_at <= there < window.closes_at)


_WINDOWS = """
select country, time_zone, opens_at, closes_at from rules.send_window where valid @> ops.business_today()
"""

# A mail of a run for a past day leaves only where a person said so, for it or for the whole run.
_CANDIDATES = """
select r.reminder_id
from outbox.reminders r
join crm.organizations o on o.organization_id = r.organization_id
join ops.run_ledger l on l.run_id = r.run_id
cross join ops.installation n
where ((r.state = 'planned' and not r.needs_approval
        and (r.run_id = cast(:past_run as bigint)
             or r.as_of >= ((l.started_at - interval '10 minutes') at time zone n.business_timezone)::date))
       or r.state = 'approved'
       or (r.state = 'deferred' and coalesce(r.next_attempt_at, '-infinity') <= :now))
  and r.reminder_id <> all(:passed)
  and (:any_hour or case when o.country = any(:known) then o.country = any(:open) else :elsewhere end)
order by r.reminder_id
limit :size
"""


def _lock_invoices(connection: Connection, chosen: Sequence[int]) -> list[int]:
    """Of these mails the ones all of whose invoices could be locked."""
    wanted = connection.execute(text(_ITEM_IDS), {"ids": list(chosen)}).all()
    locked = set(connection.scalars(text(_LOCK_INVOICES), {"ids": sorted({row.invoice_id for row in wanted})}))
    busy = {row.reminder_id for row in wanted if row.invoice_id not in locked}
    return [one for one in chosen if one not in busy]


_ITEM_IDS = """
select reminder_id, invoice_id from outbox.reminder_items where reminder_id = any(:ids) and released_at is null
"""
_LOCK_INVOICES = """
select invoice_id from crm.invoices where invoice_id = any(:ids) order by invoice_id for update skip locked
"""


def _lock_mails(connection: Connection, free: Sequence[int]) -> Sequence[Row[Any]]:
    return connection.execute(text(_LOCK_MAILS), {"ids": list(free)}).all()


_LOCK_MAILS = """
select r.reminder_id, r.organization_id, r.stage, r.sequence, r.state, r.attempts, r.message_id, r.template, r.language,
       r.attachment, r.cc, r.recipient_email, r.contact_id, r.planned_at,
       d.figures, o.customer_number, o.name, coalesce(o.country, '') as country, coalesce(o.segment, '') as segment,
       coalesce(o.owner, '') as owner
from outbox.reminders r
join ops.reminder_decisions d on d.decision_id = r.decision_id
join crm.organizations o on o.organization_id = r.organization_id
where r.reminder_id = any(:ids) and r.state in ('planned', 'approved', 'deferred')
order by r.reminder_id
for update of r skip locked
"""


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_verdicts(connection: Connection, verdicts: Iterable[Verdict], now: datetime) -> None:
    """Give back what leaves the digests, keep the new balances, and cancel what will never go."""
    released: list[tuple[int, Released]] = []
    kept: list[tuple[int, int, Decimal]] = []
    never: list[Verdict] = []
    for verdict in verdicts:
        released += [(verdict.reminder_id, item) for item in verdict.released]
        kept += [(verdict.reminder_id, item.invoice_id, item.open_amount) for item in verdict.kept]
        never += [verdict] if verdict.action == "never" else []
    if released:
        values = {
            "reminders": [reminder_id for reminder_id, _ in released],
            "invoices": [item.invoice_id for _, item in released],
            "reasons": [item.reason for _, item in released],
            "now": now,
        }
        connection.execute(text(_RELEASE), values)
    if kept:
        mails, invoices, amounts = (list(column) for column in zip(*kept, strict=True))
        connection.execute(text(_KEEP_BALANCE), {"reminders": mails, "invoices": invoices, "amounts": amounts})
    if never:
        ids, reasons = [verdict.reminder_id for verdict in never], [verdict.reason for verdict in never]
        connection.execute(text(_CANCEL), {"ids": ids, "reasons": reasons, "now": now})


_RELEASE = """
update outbox.reminder_items i set released_at = :now, release_reason = g.reason
from unnest(cast(:reminders as bigint[]), cast(:invoices as bigint[]), cast(:reasons as text[]))
     as g (reminder_id, invoice_id, reason)
where i.reminder_id = g.reminder_id and i.invoice_id = g.invoice_id and i.released_at is null
"""
_KEEP_BALANCE = """
update outbox.reminder_items i set open_amount = g.amount
from unnest(cast(:reminders as bigint[]), cast(:invoices as bigint[]), cast(:amounts as numeric[]))
     as g (reminder_id, invoice_id, amount)
where i.reminder_id = g.reminder_id and i.invoice_id = g.invoice_id and i.open_amount <> g.amount
"""
_CANCEL = """
update outbox.reminders r
set state = 'cancelled', state_reason = g.reason, updated_at = :now, next_attempt_at = null
from unnest(cast(:ids as bigint[]), cast(:reasons as text[])) as g (reminder_id, reason)
where r.reminder_id = g.reminder_id
"""


def _begin_sending(
    connection: Connection, claim: Claim, message_ids: Mapping[int, str], now: datetime
) -> dict[int, str | None]:
    """Write down that these mails are being sent, and return the thread that each belongs to."""
    if not message_ids:
        return {}
    values = {
        "ids": list(message_ids),
        "message_ids": list(message_ids.values()),
        "claimed_by": claim.name,
        "now": now,
    }
    return {row.reminder_id: row.thread_message_id for row in connection.execute(text(_BEGIN_SENDING), values)}


_BEGIN_SENDING = """
update outbox.reminders r
set state = 'sending', state_reason = null, claimed_by = :claimed_by, claimed_at = :now, updated_at = :now,
    attempts = r.attempts + 1, next_attempt_at = null, message_id = g.message_id
from unnest(cast(:ids as bigint[]), cast(:message_ids as text[])) as g (reminder_id, message_id)
where r.reminder_id = g.reminder_id
returning r.reminder_id, r.thread_message_id
"""


def _cleared(row: Row[Any], verdict: Verdict, facts: Facts, message_id: str, thread: str | None, day: date) -> Cleared:
    if facts.person is None:
        raise ValueError("a mail was cleared without a person to send it to")
    kept = {item.invoice_id for item in verdict.kept}
    credit_notes = tuple(item for item in facts.items.values() if item.is_credit or item.open_amount < 0)
    soon = set(row.figures.get("due_soon", ()))
    rest = [
        item
        for item in facts.items.values()
        if item.invoice_id not in kept and item not in credit_notes and item.open_amount > 0 and not item.disputed
    ]
    held = {hold.invoice_id for hold in facts.holds}
    return Cleared(
        reminder_id=row.reminder_id,
        attempt=row.attempts + 1,
        message_id=message_id,
        thread=thread,
        stage=row.stage,
        sequence=row.sequence,
        template=row.template,
        language=row.language,
        attachment=row.attachment,
        cc=row.cc,
        recipient=facts.person,
        customer_number=row.customer_number,
        customer_name=row.name,
        country=row.country,
        owner=row.owner,
        kept=verdict.kept,
        also_open=tuple(item for item in rest if item.due_on < day and item.invoice_id not in held),
        due_soon=tuple(item for item in rest if item.due_on >= day and item.invoice_id in soon),
        credits=credit_notes,
        unmatched=facts.unmatched or {},
        figures=row.figures,
    )
