"""What a plan asks people to do, and what has answered itself since: rows of ``ops.reminder_tasks``.

    no_contact, no_valid_address   there is nobody to write to; until somebody is, or nothing is owed any more
    address_bounced                mail came back (opened where that is read); until another mail is planned
    broken_promise                 told to the customer's owner; until what was promised is paid or promised anew
    stale_data                     told to finance, once for all customers; until their ledgers are fresh enough
    brake                          told to finance; until a person has let the mails go or has held them

One task of a kind stands for a customer at a time. A run for an earlier day leaves tasks of later days alone.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, text

_RUN = "overdue_reminders"


def open_tasks(connection: Connection, run_id: int, as_of: date, brake: str | None) -> int:
    """Open what this plan asks for, those that stand already left out; returns how many are new.

    Reads the work table ``planned_decision`` of the plan that is being kept.
    """
    given = {"run_id": run_id, "as_of": as_of, "brake": brake}
    return sum(connection.execute(text(statement), given).rowcount for statement in (_NOBODY, _BROKEN, _STALE, _BRAKE))


def close_tasks(connection: Connection, as_of: date) -> int:
    """Close what has answered itself by this plan; returns how many."""
    closed = connection.execute(text(_CLOSE), {"as_of": as_of, "by": _RUN}).rowcount
    return closed + close_answered_brake(connection, _RUN)


def close_answered_brake(connection: Connection, author: str) -> int:
    """Close the task about a braked run where none of its mails waits for a word any more; returns how many.

    In the transaction of what a person decided about mails, or of the next plan.
    """
    return connection.execute(text(_CLOSE_BRAKE), {"by": author}).rowcount


# --- statements -------------------------------------------------------------------------------------------------------

_INTO = "insert into ops.reminder_tasks (organization_id, kind, as_of, run_id, owner, details)"
_ONCE = "on conflict (organization_id, kind) where closed_at is null do nothing"

_NOBODY = f"""
{_INTO}
select p.organization_id, p.reason_code, :as_of, :run_id, p.owner, p.reason
from planned_decision p where p.decision = 'task'
{_ONCE}
"""
_BROKEN = f"""
{_INTO}
select p.organization_id, 'broken_promise', :as_of, :run_id, p.owner,
       'A promise to pay by ' || (p.figures ->> 'broken_promise') || ' was not kept.'
from planned_decision p where p.figures ->> 'broken_promise' is not null
{_ONCE}
"""
_STALE = f"""
{_INTO}
select null, 'stale_data', :as_of, :run_id, 'finance',
       sum(s.customers) || ' customers are not reminded. ' || string_agg(s.reason, ' ' order by s.reason)
from (select p.reason, count(*) as customers from planned_decision p where p.reason_code = 'stale_data' group by 1) s
having count(*) > 0
{_ONCE}
"""
_BRAKE = f"""
{_INTO}
select null, 'brake', :as_of, :run_id, 'finance',
       cast(:brake as text) || '. The mails of ' || cast(:as_of as date) || ' wait for a person.'
where cast(:brake as text) is not null
{_ONCE}
"""

# A customer with a mail of the day is left out of the day's later plans: that it is not in one says nothing then.
_CLOSE = """
with spoken as materialized (
    select organization_id from planned_decision
    union all
    select organization_id from outbox.reminders where as_of = :as_of and state <> 'cancelled'
), broken as materialized (
    select organization_id from planned_decision where figures ->> 'broken_promise' is not null
), answered (task_id, because) as (
    select t.task_id, case
        when t.kind in ('no_contact', 'no_valid_address', 'address_bounced') then case
            when t.organization_id in (select organization_id from planned_decision where decision = 'remind')
                then 'a usable address was found'
            when t.kind <> 'address_bounced' and t.organization_id not in (select organization_id from spoken)
                then 'nothing is overdue any more' end
        when t.kind = 'broken_promise' then case
            when t.organization_id not in (select organization_id from spoken)
                 or t.organization_id in (select organization_id from planned_decision)
                    and t.organization_id not in (select organization_id from broken)
                then 'what was promised is paid, promised anew, or long past' end
        when t.kind = 'stale_data' then case
            when not exists (select from planned_decision where reason_code = 'stale_data')
                then 'every ledger that counts is fresh enough' end end
    from ops.reminder_tasks t
    where t.closed_at is null and t.as_of <= :as_of
)
update ops.reminder_tasks t set closed_at = now(), closed_by = :by, close_reason = a.because
from answered a where a.task_id = t.task_id and a.because is not null
"""

# The brake leaves its reason with each mail that it keeps; whoever approves or holds a mail takes the reason's place.
_CLOSE_BRAKE = """
update ops.reminder_tasks t
set closed_at = now(), closed_by = :by, close_reason = 'none of the mails waits for a word any more'
where t.kind = 'brake' and t.closed_at is null
  and not exists (select from outbox.reminders r
                  where r.state = 'planned' and r.needs_approval and r.state_reason is not null)
"""
