"""Reads what a plan is made from: three streams, each in the order of customers, merged without keeping any.

The driver makes values of the rows; a million items pass through in blocks. All reads of one plan happen in one
snapshot of the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

from psycopg import sql
from sqlalchemy import Connection, text

from tasks.errors import Refused
from tasks.reminders.facts import Contact, Customer, Hold, Item
from tasks.reminders.rulebook import RuleBook

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Scope:
    """Which facts are read: those of ``as_of``, of customers with an item due on or before ``due_until``.

    ``as_it_stands`` counts every reservation there is, as a run must; else only those made before ``reserved_before``
    (default ``as_of``), as a look back does. ``lowest`` and ``highest`` bound the customers' ids, so that two processes
    can share the work.
    """

    as_of: date
    due_until: date
    as_it_stands: bool = True
    lowest: int = 0
    highest: int = 2**62
    customer_number: str | None = None
    reserved_before: date | None = None


def scope_of(
    rules: RuleBook,
    as_of: date,
    *,
    as_it_stands: bool = True,
    customer_number: str | None = None,
    reserved_before: date | None = None,
) -> Scope:
    """The scope that these rules need on that day: as far ahead as their earliest notice reaches."""
    ahead = max((-stage.offset_days for ladder in rules.stages.values() for stage in ladder), default=0)
    # Working days stretch over weekends and holidays; twice as many calendar days and two weeks cover any of them.
    until = as_of + timedelta(days=2 * ahead + 14) if ahead > 0 else as_of
    return Scope(as_of, until, as_it_stands, customer_number=customer_number, reserved_before=reserved_before)


def fetch_freshness(connection: Connection, as_of: date) -> dict[str, date]:
    """The newest day on or before ``as_of`` that each source of items has spoken about."""
    rows = connection.execute(text("select source, newest_as_of from crm.freshness_at(:as_of)"), {"as_of": as_of})
    return {row.source: row.newest_as_of for row in rows}


def fetch_customers(connection: Connection, scope: Scope) -> Iterator[Customer]:
    """Every customer with an item in scope, with all of its open items, by id; decided ones of the day are left out.

    A customer for whom a mail of this very day stands is left out: what was decided stands. The order of a customer's
    items is that of their ids.
    """
    _settle_plans(connection, scope)
    sides = _Beside(_stream(connection, "reminder_sides", _SIDES, scope))
    people = _Beside(_stream(connection, "reminder_contacts", _CONTACTS, scope))
    for organization_id, rows in groupby(_stream(connection, "reminder_items", _ITEMS, scope), key=itemgetter(0)):
        for side in sides.of(organization_id):
            contacts = tuple([_contact(row[1:]) for row in people.of(organization_id)])
            yield _customer(side, tuple([_item(row[1:]) for row in rows]), contacts)


class _Beside:
    """A stream that is read along with another: both rise by their first column, and rows of nobody are passed by."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def of(self, organization_id: int) -> list[tuple[Any, ...]]:
        """The rows of this customer; empty where there are none."""
        row, found = self._next, []
        while row is not None and row[0] <= organization_id:
            if row[0] == organization_id:
                found.append(row)
            row = next(self._rows, None)
        self._next = row
        return found


def _settle_plans(connection: Connection, scope: Scope) -> None:
    """Whole-table joins want memory and no compilation, and never row by row; the settings end with the transaction.

    The planner knows little of what the functions return, and with 60,000 customers it took a nested loop for it.
    """
    connection.exec_driver_sql("set local work_mem = '128MB'")
    connection.exec_driver_sql("set local jit = off")
    connection.exec_driver_sql("set local cursor_tuple_fraction = 1.0")
    if scope.customer_number is None:
        connection.exec_driver_sql("set local enable_nestloop = off")


def _stream(connection: Connection, name: str, statement: str, scope: Scope) -> Iterator[tuple[Any, ...]]:
    """The rows of a statement, fetched by a cursor on the server: several such can be open on one connection."""
    driver = connection.connection.driver_connection
    if driver is None:
        raise Refused("The connection was closed while facts were read.", hint="Run the command again.")
    values = {
        "as_of": scope.as_of,
        "due_until": scope.due_until,
        "as_it_stands": scope.as_it_stands,
        "lowest": scope.lowest,
        "highest": scope.highest,
        "customer_number": scope.customer_number,
        "reserved_before": scope.reserved_before or scope.as_of,
    }
    with driver.cursor(name=name) as cursor:
        # Literals, because what the planner knows of the day and the bounds decides how it joins.
        cursor.execute(_with_literals(statement, values))
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            yield from rows


def _with_literals(statement: str, values: Mapping[str, Any]) -> str:
    for name, value in values.items():
        statement = statement.replace(f"%({name})s", sql.Literal(value).as_string(None))
    return statement


# --- rows into values -------------------------------------------------------------------------------------------------

_item, _contact = Item._make, Contact._make


def _customer(side: tuple[Any, ...], items: tuple[Item, ...], contacts: tuple[Contact, ...]) -> Customer:
    organization_id, number, country, segment, payer_class, language, owner, holds, unmatched, mailed, waiting = side
    return Customer(
        organization_id,
        number,
        country,
        segment,
        payer_class,
        language,
        owner,
        items,
        contacts,
        tuple([_hold(row) for row in holds]) if holds else (),
        {currency: Decimal(amount) for currency, amount in unmatched.items()} if unmatched else _NONE,
        tuple(mailed) if mailed else (),
        waiting,
    )


_NONE: Mapping[str, Decimal] = {}


def _hold(row: list[Any]) -> Hold:
    hold_id, kind, invoice_id, until, reason = row
    return Hold(hold_id, kind, invoice_id, date.fromisoformat(until) if until else None, reason)


# --- statements -------------------------------------------------------------------------------------------------------

# Refused and cancelled mail reached nobody: it does not count as a reminder, unless its reservation stands.
#
# Items are sorted once: the window tells whether their customer is in scope, in the order in which they come out.
_ITEMS = """
with levels as (
    select distinct on (r.invoice_id) r.invoice_id, m.as_of as reminded_on, r.sequence,
           array_position(array['upcoming', 'first', 'second', 'final'], r.stage) - 1 as level,
           bool_or(m.state = 'unknown') over (partition by r.invoice_id) as unknown
    from outbox.reminder_items r join outbox.reminders m on m.reminder_id = r.reminder_id
    where r.released_at is null and (%(as_it_stands)s or m.as_of < %(reserved_before)s)
      and m.organization_id between %(lowest)s and %(highest)s
    order by r.invoice_id, array_position(array['upcoming', 'first', 'second', 'final'], r.stage) desc,
             r.sequence desc
), items as (
    select i.organization_id, i.invoice_id, i.source, i.document_type = 'credit_note' as is_credit, i.due_on,
           i.currency, i.open_amount, i.disputed, coalesce(l.level, -1) as level, coalesce(l.sequence, 0) as sequence,
           l.reminded_on, coalesce(l.unknown, false) as unknown,
           bool_or(i.document_type = 'invoice' and i.open_amount > 0 and i.due_on <= %(due_until)s) over (
               partition by i.organization_id order by i.invoice_id
               rows between unbounded preceding and unbounded following) as in_scope
    from crm.balances_at(%(as_of)s) i
    left join levels l on l.invoice_id = i.invoice_id
    where i.organization_id between %(lowest)s and %(highest)s
      and (%(customer_number)s::text is null or i.organization_id in (
          select organization_id from crm.organizations where customer_number = %(customer_number)s))
)
select organization_id, invoice_id, source, is_credit, due_on, currency, open_amount, disputed, level, sequence,
       reminded_on, unknown
from items where in_scope
order by organization_id, invoice_id
"""

_CONTACTS = """
with suppressed as (
    select distinct on (email) email, kind || ' since ' || since::date as reason
    from outbox.suppressions
    where kind <> 'soft_bounce' and (until is null or until > now())
    order by email, suppression_id
), speaking as (
    -- A contact that is merged into another one speaks with that one's address; what a role says counts once.
    select m.organization_id, coalesce(m.merged_into, m.contact_id) as contact_id, r.role,
           case when m.merged_into is null then m.email
                else (select k.email from crm.contacts k where k.contact_id = m.merged_into) end as email,
           case when m.merged_into is null then m.language
                else (select k.language from crm.contacts k where k.contact_id = m.merged_into) end as language
    from crm.contacts m
    join crm.contact_roles r on r.contact_id = m.contact_id and r.valid @> %(as_of)s::date
    where m.organization_id between %(lowest)s and %(highest)s
      and (%(customer_number)s::text is null or m.organization_id in (
          select organization_id from crm.organizations where customer_number = %(customer_number)s))
      and case when m.merged_into is null then true
               else not exists (select from crm.contact_roles k where k.contact_id = m.merged_into and k.role = r.role
                                and k.valid @> %(as_of)s::date) end
)
select c.organization_id, c.contact_id, coalesce(c.email, ''), coalesce(c.language, ''), c.role, coalesce(s.reason, '')
from speaking c
left join suppressed s on s.email = lower(c.email)
order by c.organization_id, c.contact_id, c.role
"""

# A hold of the past is what stood on that day: made by then, not yet released, or a promise that had run out.
# A run for a past day, or on a clock that went back, lets people rest from mails of later days too.
_SIDES = """
with holds as (
    select h.organization_id,
           json_agg(json_build_array(h.hold_id, h.kind, h.invoice_id,
                                     case when upper_inf(h.valid) then null else upper(h.valid) - 1 end, h.reason)
                    order by h.hold_id) as holds
    from ops.reminder_holds h
    where lower(h.valid) <= %(as_of)s and (h.released_at is null or h.released_at::date > %(as_of)s)
      and (h.valid @> %(as_of)s::date
           or h.kind = 'promise_to_pay' and upper(h.valid) > %(as_of)s::date - 90)
    group by h.organization_id
), unmatched as (
    select u.organization_id, json_object_agg(u.currency, u.amount::text order by u.currency) as unmatched
    from crm.unmatched_money_at(%(as_of)s) u group by u.organization_id
), of_today as (
    select distinct organization_id from outbox.reminders
    where %(as_it_stands)s and as_of = %(as_of)s and state <> 'cancelled'
), mailed as (
    select m.organization_id,
           array_agg(m.as_of order by m.as_of desc)
               filter (where m.as_of > %(as_of)s::date - 60 and m.state not in ('refused', 'bounced')) as mailed,
           min(m.as_of) filter (where %(as_it_stands)s
               and m.state in ('planned', 'held', 'approved', 'sending', 'deferred')) as waiting
    from outbox.reminders m
    where m.state <> 'cancelled' and (%(as_it_stands)s or m.as_of < least(%(as_of)s, %(reserved_before)s))
    group by m.organization_id
)
select o.organization_id, o.customer_number, coalesce(o.country, ''), coalesce(o.segment, ''),
       coalesce(p.payer_class, 'unrated'), coalesce(o.language, ''), coalesce(o.owner, ''),
       h.holds, u.unmatched, m.mailed, m.waiting
from crm.organizations o
left join ops.payer_class_history p
    on p.organization_id = o.organization_id and p.valid_from <= %(as_of)s
    and (p.valid_until is null or p.valid_until > %(as_of)s)
left join holds h on h.organization_id = o.organization_id
left join unmatched u on u.organization_id = o.organization_id
left join mailed m on m.organization_id = o.organization_id
left join of_today t on t.organization_id = o.organization_id
where o.organization_id between %(lowest)s and %(highest)s
  and (%(customer_number)s::text is null or o.customer_number = %(customer_number)s)
  and t.organization_id is null
order by o.organization_id
"""
