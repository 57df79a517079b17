"""What every domain may do to the queue of mails: take out what has been settled, in its own transaction.

A payment that is booked takes its reminder out of the queue in the same transaction, so nobody can read a state in
which the money is there and the mail still waits.
"""

from __future__ import annotations

from sqlalchemy import Connection, text


def cancel_settled(connection: Connection, feed_file_id: int) -> int:
    """Release every reserved item that is no longer open, cancel mails of which nothing is left; returns those mails.

    Mails that are being sent already are left alone: their gate came first. ``feed_file_id`` is the file that brought
    the news; it stands in the reason.
    """
    waiting = list(connection.scalars(text(_WAITING_ITEMS)))
    if not waiting:
        return 0
    values = {"ids": waiting, "file": feed_file_id}
    if not connection.execute(text(_RELEASE_SETTLED), values).rowcount:
        return 0
    return connection.execute(text(_CANCEL_EMPTY), values).rowcount


_WAITING_ITEMS = """
select distinct i.invoice_id from outbox.reminder_items i join outbox.reminders r using (reminder_id)
where r.state in ('planned', 'held', 'approved', 'deferred') and i.released_at is null
"""
_RELEASE_SETTLED = """
with still_open as materialized (
    select o.invoice_id from crm.balances_at(ops.business_today()) o
    where o.invoice_id = any(:ids) and o.open_amount > 0
), waiting as (
    -- The mails first: one that a sender is just taking is waited for, and then seen as being sent.
    select r.reminder_id from outbox.reminders r
    where r.state in ('planned', 'held', 'approved', 'deferred')
      and exists (select from outbox.reminder_items i
                  where i.reminder_id = r.reminder_id and i.released_at is null and i.invoice_id = any(:ids)
                    and i.invoice_id not in (select invoice_id from still_open))
    order by r.reminder_id for update
)
update outbox.reminder_items i
set released_at = now(),
    release_reason = 'paid: not open any more in ' || f.feed || ' as of ' || f.as_of
                     || ' (file ' || f.feed_file_id || ')'
from waiting w, landing.feed_files f
where i.reminder_id = w.reminder_id and i.released_at is null and f.feed_file_id = :file
  and i.invoice_id not in (select invoice_id from still_open)
"""
_CANCEL_EMPTY = """
update outbox.reminders r
set state = 'cancelled', next_attempt_at = null, updated_at = now(),
    state_reason = (select max(i.release_reason) from outbox.reminder_items i where i.reminder_id = r.reminder_id)
where r.state in ('planned', 'held', 'approved', 'deferred')
  and exists (select from outbox.reminder_items i where i.reminder_id = r.reminder_id and i.invoice_id = any(:ids))
  and not exists (select from outbox.reminder_items i where i.reminder_id = r.reminder_id and i.released_at is null)
"""
