"""Bounces into the database: which mail came back, and which address is written to no more.

Bounces are read from a maildir, by default ``KONTOR_HOME/bounces``, into which the mail server or a program such as
getmail delivers, and from a mailbox by IMAP where one is set. A message of the maildir is taken in within one
transaction and then moved from ``new`` to ``cur``; how far a mailbox was read is written down together with what was
read. Whatever is read a second time, after a kill or because a mailbox was made anew, is found to be known.
"""

from __future__ import annotations

import mailbox
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from configs.settings import Settings
from tasks.errors import DependencyDown
from tasks.reminders.sending.bounce_mailbox import ReturnedMail, open_mailbox
from tasks.reminders.sending.bounces import Bounce, parse_bounce
from tasks.reminders.sending.outbox_store import give_up

SOFT_BOUNCES_ENOUGH = 3
_AT_A_TIME = 50
_FIRST_LOOK_BACK = timedelta(days=30)  # servers give a message up after five days; no reminder is older than this


def take_in_returned(engine: Engine, settings: Settings, now: datetime) -> Counter[str]:
    """Take in what the maildir and, where one is set, the mailbox hold; counts as :func:`take_in_bounces`.

    Raises:
        DependencyDown, Refused, UsageError: one of them cannot be read; what was taken in before stays.
    """
    counts = take_in_bounces(engine, settings.bounces_path, now)
    return counts + take_in_mailbox(engine, settings, now) if settings.bounces_url else counts


def take_in_mailbox(engine: Engine, settings: Settings, now: datetime) -> Counter[str]:
    """Take in every message of the mailbox that was not read yet; counts as :func:`take_in_bounces`.

    A mailbox seen for the first time, or made anew by its server, is read from thirty days ago on.

    Raises:
        DependencyDown, Refused, UsageError: as :func:`tasks.reminders.sending.bounce_mailbox.open_mailbox`.
    """
    counts: Counter[str] = Counter()
    with open_mailbox(settings) as box:
        with engine.connect() as connection:
            read = int(connection.scalar(text(_READ_SO_FAR), {"name": box.name, "validity": box.validity}) or 0)
        new = box.newer_than(read, (now - _FIRST_LOOK_BACK).date())
        for place in range(0, len(new), _AT_A_TIME):
            counts += _take_in_some(engine, box, new[place : place + _AT_A_TIME], now)
    return counts


def _take_in_some(engine: Engine, box: ReturnedMail, uids: Sequence[int], now: datetime) -> Counter[str]:
    """Read these messages, then write what they say and how far was read, in one transaction."""
    counts: Counter[str] = Counter()
    contents = [content for uid in uids if (content := box.content(uid)) is not None]
    with engine.begin() as connection:
        for content in contents:
            bounce = parse_bounce(content)
            counts["other" if bounce is None else apply_bounce(connection, bounce, now)] += 1
        connection.execute(text(_READ_UP_TO), {"name": box.name, "validity": box.validity, "uid": uids[-1], "now": now})
    return counts


_READ_SO_FAR = "select last_uid from outbox.bounce_mailboxes where mailbox = :name and uid_validity = :validity"
_READ_UP_TO = """
insert into outbox.bounce_mailboxes as m (mailbox, uid_validity, last_uid, read_at)
values (:name, :validity, :uid, :now)
on conflict (mailbox) do update
set uid_validity = excluded.uid_validity, read_at = excluded.read_at,
    last_uid = case when m.uid_validity = excluded.uid_validity then greatest(m.last_uid, excluded.last_uid)
                    else excluded.last_uid end
"""


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
