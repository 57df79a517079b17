"""Bounces into the database: which mail came back, and which address is written to no more.

Bounces are read from a maildir, by default ``KONTOR_HOME/bounces``, into which the mail server or a program such as
getmail delivers. A message is taken in within one transaction and then moved from ``new`` to ``cur``; a process killed
between the two reads it again and finds it known.
"""

from __future__ import annotations

import mailbox
from collections import Counter
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from tasks.errors import DependencyDown
from tasks.reminders.sending.bounces import Bounce, parse_bounce
from tasks.reminders.sending.outbox_store import give_up

SOFT_BOUNCES_ENOUGH = 3


def take_in_bounces(engine: Engine, folder: Path, now: datetime) -> Counter[str]:
    """Take in every new message of a maildir; returns how many were ``hard``, ``soft``, ``known`` or ``other``.

    Raises:
        DependencyDown: the maildir cannot be read or written.
    """
    counts: Counter[str] = Counter()
    if not folder.is_dir():
        return counts
    try:
        box = mailbox.Maildir(folder, create=True)
        for key in sorted(box.keys()):
            message = box.get_message(key)
            if message.get_subdir() != "new":
                continue
            counts[_take_in(engine, box.get_bytes(key), now)] += 1
            message.set_subdir("cur")
            message.add_flag("S")
            box[key] = message
    except OSError as error:
        raise DependencyDown(
            f"Bounces under {folder.name} cannot be read: {error.strerror}.", hint=f"Correct the rights of {folder}."
        ) from error
    return counts


def _take_in(engine: Engine, content: bytes, now: datetime) -> str:
    bounce = parse_bounce(content)
    if bounce is None:
        return "other"
    with engine.begin() as connection:
        return apply_bounce(connection, bounce, now)


def apply_bounce(connection: Connection, bounce: Bounce, now: datetime) -> str:
    """Write a bounce down beside the mail it speaks of; returns ``hard``, ``soft``, ``known`` or ``other`` (not ours).

    A hard one marks the mail as bounced and its address as dead, and asks for a person; from then on the next contact
    by rank is written to. A soft one is counted; the third does the same to the address.
    The invoice's stage stays used up: the mail was taken once.
    """
    found = connection.execute(text(_FIND), {"ids": list(bounce.message_ids)}).first()
    if found is None:
        return "other"
    values = {
        "id": found.reminder_id,
        "attempt": max(found.attempts, 1),
        "email": found.recipient_email,
        "said": f"{bounce.status} {bounce.said} [bounce {bounce.fingerprint}]",
        "mark": f"%[bounce {bounce.fingerprint}]",
        "mode": found.mode,
        "now": now,
    }
    if not connection.execute(text(_WRITE_DOWN), values).rowcount:
        return "known"
    if bounce.kind == "hard":
        connection.execute(text(_MARK_BOUNCED), {**values, "reason": f"bounced: {bounce.status} {bounce.said}"})
        give_up(connection, [found.reminder_id], f"the mail came back with status {bounce.status}", now)
        return "hard"
    if int(connection.scalar(text(_COUNT_SOFT), values) or 0) == SOFT_BOUNCES_ENOUGH:
        give_up(connection, [found.reminder_id], f"mail came back {SOFT_BOUNCES_ENOUGH} times", now)
    return "soft"


_FIND = """
select r.reminder_id, r.attempts, r.recipient_email,
       coalesce((select d.mode from outbox.deliveries d where d.reminder_id = r.reminder_id
                 order by d.delivery_id desc limit 1), 'live') as mode
from outbox.reminders r where r.message_id = any(:ids) limit 1 for update
"""
_WRITE_DOWN = """
insert into outbox.deliveries (reminder_id, attempt, recipient_email, smtp_answer, outcome, at, mode)
select :id, :attempt, :email, cast(:said as text), 'bounced', :now, :mode
where not exists (select from outbox.deliveries where reminder_id = :id and smtp_answer like :mark)
"""
_MARK_BOUNCED = """
update outbox.reminders set state = 'bounced', state_reason = :reason, updated_at = :now
where reminder_id = :id and state in ('sent', 'unknown', 'sending')
"""
_COUNT_SOFT = """
insert into outbox.suppressions (email, kind, since, reason)
values (lower(trim(:email)), 'soft_bounce', :now, 'the mail server could not deliver for now')
on conflict (email, kind) where until is null do update set count = suppressions.count + 1
returning count
"""
