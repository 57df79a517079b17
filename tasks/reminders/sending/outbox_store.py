"""What became of mails: the server's answers, what died on the way, and what a person decided about the queue.

A state moves only from the states that it may follow, in the statement itself, so two people or a person and a run
cannot undo each other: who comes second is told that nothing changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, text

from tasks.errors import Refused
from tasks.letters import Delivery
from tasks.reminders.tasks_store import close_answered_brake

# A mailbox that does not exist, by the server's code and, where it says more, its enhanced code (RFC 3463).
_NO_SUCH_MAILBOX = (550, 551, 553)
_FIRST_PAUSE = timedelta(minutes=15)
_LONGEST_PAUSE = timedelta(hours=4)
EXPIRES_AFTER_DAYS = 7


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt: the new state of the mail, why, and the delivery (None: nothing was handed over)."""

    reminder_id: int
    attempt: int
    state: Literal["sent", "refused", "deferred", "unknown", "held"]
    reason: str | None
    subject: str | None
    delivery: Delivery | None
    next_attempt_at: datetime | None = None


def outcome_of(reminder_id: int, attempt: int, subject: str, delivery: Delivery, now: datetime) -> Outcome:
    """The outcome that a delivery amounts to; a deferred mail is tried again after a pause that doubles each time.

    The first pause is 15 minutes, the longest 4 hours.
    """
    answer = delivery.answers[0]
    said = f"{answer.code or 'no code'} {answer.text}".strip()
    reasons = {
        "sent": None,
        "held": "mail_mode: written as a file, not sent",
        "refused": f"server: {said}",
        "deferred": f"server: {said}",
        "unknown": f"unknown: {said}",
    }
    pause = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE) if delivery.outcome == "deferred" else None
    again = now + pause if pause else None
    return Outcome(reminder_id, attempt, delivery.outcome, reasons[delivery.outcome], subject, delivery, again)


def record(connection: Connection, claimed_by: str, outcomes: Sequence[Outcome], now: datetime) -> int:
    """Write outcomes down, and every recipient's answer beside them; returns how many mails changed.

    A mail that another run has meanwhile called unknown becomes what the server really said; one that a person has
    resolved since keeps the person's word, and the answer is kept beside it.
    """
    if not outcomes:
        return 0
    changed = connection.execute(
        text(_RECORD),
        {
            "ids": [one.reminder_id for one in outcomes],
            "states": [one.state for one in outcomes],
            "reasons": [one.reason for one in outcomes],
            "subjects": [one.subject for one in outcomes],
            "again": [one.next_attempt_at for one in outcomes],
            "claimed_by": claimed_by,
            "now": now,
        },
    ).rowcount
    answers = [
        {
            "reminder_id": one.reminder_id,
            "attempt": one.attempt,
            "email": answer.email,
            "code": answer.code,
            "answer": answer.text,
            "outcome": answer.outcome,
            "now": now,
            "mode": one.delivery.mode,
            "eml_path": str(one.delivery.eml_path) if one.delivery.eml_path else None,
        }
        for one in outcomes
        if one.delivery is not None
        for answer in one.delivery.answers
    ]
    if answers:
        columns = {name: [answer[name] for answer in answers] for name in answers[0] if name != "now"}
        connection.execute(text(_ADD_DELIVERIES), {**columns, "now": now})
    _give_up_addresses(connection, outcomes, now)
    return changed


_RECORD = """
update outbox.reminders r
set state = g.state, state_reason = g.reason, subject = coalesce(g.subject, r.subject), next_attempt_at = g.again,
    sent_at = case when g.state = 'sent' then cast(:now as timestamptz) end, updated_at = :now
from unnest(cast(:ids as bigint[]), cast(:states as text[]), cast(:reasons as text[]), cast(:subjects as text[]),
            cast(:again as timestamptz[])) as g (reminder_id, state, reason, subject, again)
where r.reminder_id = g.reminder_id and r.claimed_by = :claimed_by and r.state in ('sending', 'unknown')
"""
# A record that is repeated because its commit's answer was lost adds nothing.
_ADD_DELIVERIES = """
insert into outbox.deliveries
    (reminder_id, attempt, recipient_email, smtp_code, smtp_answer, outcome, mode, eml_path, at)
select g.*, :now
from unnest(cast(:reminder_id as bigint[]), cast(:attempt as integer[]), cast(:email as text[]),
            cast(:code as integer[]), cast(:answer as text[]), cast(:outcome as text[]), cast(:mode as text[]),
            cast(:eml_path as text[])) as g (reminder_id, attempt, email, code, answer, outcome, mode, eml_path)
where not exists (select from outbox.deliveries d
                  where d.reminder_id = g.reminder_id and d.attempt = g.attempt and d.recipient_email = g.email)
"""


def _give_up_addresses(connection: Connection, outcomes: Sequence[Outcome], now: datetime) -> None:
    """A mailbox that the server says does not exist is written to no more; its mail gives its reservations back."""
    gone = [one for one in outcomes if one.state == "refused" and _says_no_mailbox(one)]
    for_live = [one for one in gone if one.delivery is not None and one.delivery.mode == "live"]
    if for_live:
        give_up(connection, [one.reminder_id for one in for_live], "the mail server knows no such mailbox", now)


def _says_no_mailbox(one: Outcome) -> bool:
    answer = one.delivery.answers[0] if one.delivery else None
    if answer is None or answer.code not in _NO_SUCH_MAILBOX:
        return False
    enhanced = next((word for word in answer.text.split()[:1] if word[:2] == "5."), "")
    return not enhanced or enhanced.startswith("5.1.")


def give_up(connection: Connection, reminder_ids: Sequence[int], why: str, now: datetime) -> None:
    """Write no more to the addresses of these mails, give their unsent reservations back, and ask for a person."""
    values = {"ids": list(reminder_ids), "why": why, "now": now}
    connection.execute(text(_SUPPRESS_HARD), values)
    connection.execute(text(_RELEASE_UNSENT), {**values, "reason": "bounced: the address takes no mail"})
    connection.execute(text(_ASK_SOMEBODY), values)


_SUPPRESS_HARD = """
insert into outbox.suppressions (email, kind, since, reason)
select distinct lower(trim(recipient_email)), 'hard_bounce', cast(:now as timestamptz), cast(:why as text)
from outbox.reminders where reminder_id = any(:ids)
on conflict (email, kind) where until is null do update set count = suppressions.count + 1
"""
# What was taken by the server once stays reserved for ever; what was refused at the door never reached anybody.
_RELEASE_UNSENT = """
update outbox.reminder_items i set released_at = :now, release_reason = :reason
from outbox.reminders r
where r.reminder_id = i.reminder_id and r.reminder_id = any(:ids) and i.released_at is null and r.sent_at is null
"""
_ASK_SOMEBODY = """
insert into ops.reminder_tasks (organization_id, kind, as_of, owner, details)
select distinct on (r.organization_id) r.organization_id, 'address_bounced', ops.business_today(), o.owner,
       'Contact ' || coalesce(r.contact_id::text, 'unknown') || ': ' || cast(:why as text)
           || ' (mail ' || r.reminder_id || ').'
from outbox.reminders r join crm.organizations o on o.organization_id = r.organization_id
where r.reminder_id = any(:ids)
order by r.organization_id, r.reminder_id
on conflict (organization_id, kind) where closed_at is null do nothing
"""


# --- what died on the way, what grew old ------------------------------------------------------------------------------


def call_dead_unknown(connection: Connection, now: datetime) -> list[int]:
    """Make ``unknown`` of every mail that stands as being sent; returns their ids.

    Only the holder of the flow's lock may call this: whoever was sending has died, and nobody knows how far it came.
    """
    return list(connection.scalars(text(_CALL_DEAD_UNKNOWN), {"now": now}))


_CALL_DEAD_UNKNOWN = """
update outbox.reminders
set state = 'unknown', updated_at = :now,
    state_reason = 'unknown: ' || coalesce(claimed_by, 'its run') || ' died before the answer was written down'
where state = 'sending'
returning reminder_id
"""


def count_queued(connection: Connection) -> int:
    """How many mails wait to be sent, now or at a later try."""
    found = connection.scalar(text("select count(*) from outbox.reminders where state in ('planned', 'deferred')"))
    return int(found or 0)


def expire(connection: Connection, now: datetime) -> list[int]:
    """Cancel mails that have waited for more than a week, so that the next plan decides anew; returns their ids."""
    ids = list(connection.scalars(text(_EXPIRE), {"now": now, "days": EXPIRES_AFTER_DAYS}))
    if ids:
        reason = "expired: it waited for more than a week"
        connection.execute(text(_RELEASE_UNSENT), {"ids": ids, "now": now, "reason": reason})
    return ids


_EXPIRE = """
update outbox.reminders
set state = 'cancelled', updated_at = :now, next_attempt_at = null,
    state_reason = 'expired: it waited for more than a week as ' || state || coalesce(' (' || state_reason || ')', '')
where state in ('planned', 'held', 'approved', 'deferred')
  and planned_at < cast(:now as timestamptz) - make_interval(days => :days)
returning reminder_id
"""


def cancel_past(connection: Connection, run_id: int, now: datetime) -> list[int]:
    """Cancel the mails that a run has planned for a past day and nobody has approved; returns their ids."""
    reason = "past_day: planned for a day that had passed"
    ids = list(connection.scalars(text(_CANCEL_PAST), {"run_id": run_id, "now": now, "reason": reason}))
    if ids:
        connection.execute(text(_RELEASE_UNSENT), {"ids": ids, "now": now, "reason": reason})
    return ids


_CANCEL_PAST = """
update outbox.reminders set state = 'cancelled', state_reason = :reason, updated_at = :now
where run_id = :run_id and state = 'planned'
returning reminder_id
"""


# --- what a person decides --------------------------------------------------------------------------------------------


def approve(connection: Connection, reminder_ids: Sequence[int], *, author: str, now: datetime) -> list[int]:
    """Let these mails go, those that wait for a person and those held; returns the ones that changed."""
    values = {"ids": list(reminder_ids), "author": author, "now": now}
    approved = list(connection.scalars(text(_APPROVE), values))
    close_answered_brake(connection, author)
    return approved


_APPROVE = """
update outbox.reminders
set state = 'approved', state_reason = null, approved_by = :author, approved_at = :now, updated_at = :now
where reminder_id = any(:ids) and state in ('planned', 'held')
returning reminder_id
"""


def awaiting_approval(connection: Connection, run_id: int | None = None) -> list[int]:
    """The mails that wait for a person to let them go, of one run or of all."""
    return list(connection.scalars(text(_AWAITING), {"run_id": run_id}))


_AWAITING = """
select reminder_id from outbox.reminders
where state = 'planned' and needs_approval and run_id = coalesce(cast(:run_id as bigint), run_id)
order by reminder_id
"""


def hold_mails(
    connection: Connection, reminder_ids: Sequence[int], *, author: str, reason: str, now: datetime
) -> list[int]:
    """Keep these mails back until they are released; returns the ones that changed."""
    values = {"ids": list(reminder_ids), "reason": f"person: {reason} ({author})", "now": now}
    held = list(connection.scalars(text(_HOLD), values))
    close_answered_brake(connection, author)
    return held


_HOLD = """
update outbox.reminders
set state = 'held', state_reason = :reason, approved_by = null, approved_at = null, updated_at = :now
where reminder_id = any(:ids) and state in ('planned', 'approved', 'deferred')
returning reminder_id
"""


def release_mails(connection: Connection, reminder_ids: Sequence[int], *, now: datetime) -> list[int]:
    """Put held mails back in the queue, where the gate looks at them again; returns the ones that changed."""
    return list(connection.scalars(text(_RELEASE_HELD), {"ids": list(reminder_ids), "now": now}))


_RELEASE_HELD = """
update outbox.reminders set state = 'planned', state_reason = null, updated_at = :now
where reminder_id = any(:ids) and state = 'held'
returning reminder_id
"""


def resolve(
    connection: Connection,
    reminder_id: int,
    *,
    arrived: bool,
    author: str,
    reason: str,
    now: datetime,
) -> Literal["sent", "cancelled"]:
    """Settle a mail of which nobody knew whether it arrived; returns its new state.

    One that arrived is sent. One that did not is cancelled and gives its reservations back, so the next plan decides
    anew: it is never sent again as it is. A mail that the server refused may be freed the same way.

    Raises:
        Refused: it is in another state; nothing was changed.
    """
    state: Literal["sent", "cancelled"] = "sent" if arrived else "cancelled"
    values = {
        "id": reminder_id,
        "state": state,
        "reason": f"resolved as {'sent' if arrived else 'not sent'} by {author}: {reason}",
        "now": now,
    }
    row = connection.execute(text(_RESOLVE), values).one_or_none()
    if row is None:
        standing = connection.scalar(
            text("select state from outbox.reminders where reminder_id = :id"), {"id": reminder_id}
        )
        told = f"is {standing}" if standing else "does not exist"
        raise Refused(
            f"Mail {reminder_id} {told}; only a mail that is unknown can be resolved,"
            " or as not-sent one that was refused. Nothing was changed.",
            hint="`kontor report reminders` shows the mails and their states.",
        )
    if not arrived:
        release = {"ids": [reminder_id], "now": now, "reason": values["reason"]}
        connection.execute(text(_RELEASE_UNSENT), release)
    connection.execute(text(_ADD_RESOLUTION), {**values, "attempt": row.attempts, "email": row.recipient_email})
    return state


_RESOLVE = """
update outbox.reminders
set state = :state, state_reason = :reason, updated_at = :now,
    sent_at = case when cast(:state as text) = 'sent' then coalesce(claimed_at, cast(:now as timestamptz)) end
where reminder_id = :id and (state = 'unknown' or state = 'refused' and cast(:state as text) = 'cancelled')
returning attempts, recipient_email
"""
_ADD_RESOLUTION = """
insert into outbox.deliveries (reminder_id, attempt, recipient_email, smtp_answer, outcome, at, mode)
select :id, greatest(:attempt, 1), :email, :reason, 'resolved', :now,
       coalesce((select mode from outbox.deliveries where reminder_id = :id order by delivery_id desc limit 1), 'live')
"""
