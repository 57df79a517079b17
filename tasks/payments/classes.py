"""Payer classes: strict, hesitant, disloyal, unrated, decided by rows of ``rules.payer_class`` and kept as history.

The history is a function of the facts alone. A class is decided on *evaluation days*: the day of every applied
file of open or settled items, for everyone, and the first day of an override and the day after its last, for its
customer. Each decision reads what was visible on that day (``crm.settlements_at``, ``crm.open_items_at``), the rules
and overrides valid on it, and the class of the day before. Nothing is counted up, so files may arrive in any order.

Only customers with something known by that day (an item, an override) have a row; all others are unrated.

    day of payment   the ledger's day; from snapshots alone the day after the last one that still listed the invoice,
                     the earliest it can have been: in doubt for the customer.
                     Due 1 March, listed on 5 March, gone on 12 March: paid on 6 March at the earliest, 5 days late.
    window           12 months before 31 March 2026 begin on 1 April 2025; a payment of 31 March 2025 is out.
    threshold        "> 15" with 30 days late over 2 invoices: 15 is not more than 15; with 31 over 2 it is.
    hysteresis 3     disloyal by "> 15" at 15.5; stays at 12.5 by the same rule, leaves at 12 ("> 12" no longer holds).
    evidence         settled invoices in the window; for worst_open_days_overdue, open overdue invoices.
    amounts          weighted figures are made per currency; the worst currency with enough evidence speaks.
    between files    an override that ends on a Wednesday is followed by the decision on Monday's facts.

Overrides are set and ended in :mod:`tasks.payments.overrides`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

from tasks.payments.class_decisions import DECISIONS


@dataclass(frozen=True)
class _EvaluationDay:
    day: date
    facts_on: date | None
    organization_ids: list[int] | None


def classify(connection: Connection, since: date, *, rules: str = "rules.payer_class") -> dict[str, int]:
    """Decide every class anew from ``since`` on; return customers per class and how many ``changed``.

    ``rules`` names the table that decides; another than the one in force is for a trial that is taken back. The counts
    are those of the newest day with a file; ``changed`` compares them with what stood there before. Works in the
    caller's transaction. What comes out the same keeps its ``decided_at``.
    """
    connection.execute(text("select pg_advisory_xact_lock(hashtext('kontor classification'))"))
    connection.execute(text(_WORK_TABLES))
    _set_history_back(connection, since)
    for evaluation in _evaluation_days(connection, since):
        _decide(connection, evaluation, rules)
    counts = connection.execute(text(_COUNTS)).one()
    connection.execute(text(_DROP_WORK_TABLES))
    connection.execute(text(_PLAN_AS_BEFORE))
    return {str(name): int(value) for name, value in counts._mapping.items()}


def _set_history_back(connection: Connection, since: date) -> None:
    """Bring the history to where it stood on the eve of ``since``; what is taken back is kept for comparison."""
    day = {"since": since}
    connection.execute(
        text(
            "insert into former_class select * from ops.payer_class_history"
            " where valid_until is null or valid_until >= :since"
        ),
        day,
    )
    connection.exec_driver_sql("analyze former_class")
    connection.execute(text("delete from ops.payer_class_history where valid_from >= :since"), day)
    connection.execute(text("update ops.payer_class_history set valid_until = null where valid_until >= :since"), day)


def _decide(connection: Connection, evaluation: _EvaluationDay, rules: str) -> None:
    """Decide one day: gather what is known into work tables, count them for the planner, then write what changed.

    The planner's estimates through the functions of a past day are far too low. For everyone at once its nested
    loops would take hours, so they are ruled out; for one customer they are right.
    """
    connection.execute(text(_PLAN_FOR_ALL if evaluation.organization_ids is None else _PLAN_FOR_FEW))
    day = {"day": evaluation.day, "facts_on": evaluation.facts_on, "only": evaluation.organization_ids}
    connection.execute(text(f"truncate {_FACTS}"))
    for statement in (f"{_RULES_IN_FORCE} from {rules} r where r.valid @> cast(:day as date)", _KNOWN, _PAID, _OVERDUE):
        connection.execute(text(statement), day)
    connection.execute(text(f"analyze {_FACTS}"))
    connection.execute(text(DECISIONS), day)


def _evaluation_days(connection: Connection, since: date) -> list[_EvaluationDay]:
    rows = connection.execute(text(_EVALUATION_DAYS), {"since": since}).all()
    return [_EvaluationDay(row.day, row.facts_on, row.organization_ids) for row in rows]


# Days with a file concern everyone (organization_ids is null); the edges of an override only its customer.
_EVALUATION_DAYS = """
with file_day as (
    select distinct as_of as day from landing.feed_files
    where state = 'applied' and feed in ('open_items', 'settled_items')
), edge as (
    select e.day, array_agg(distinct v.organization_id) as organization_ids
    from rules.payer_class_override v, unnest(array[lower(v.valid), upper(v.valid)]) as e (day)
    group by e.day
), evaluation as (
    select day, null::bigint[] as organization_ids from file_day
    union all
    select day, organization_ids from edge where day not in (select day from file_day)
)
select e.day, e.organization_ids, (select max(f.day) from file_day f where f.day <= e.day) as facts_on
from evaluation e where e.day >= :since order by e.day
"""

_COUNTS = """
with newest as (
    select max(as_of) as day from landing.feed_files where state = 'applied' and feed in ('open_items', 'settled_items')
), now_held as (
    select h.organization_id, h.payer_class from ops.payer_class_history h, newest n
    where h.valid_from <= n.day and (h.valid_until is null or h.valid_until > n.day)
), held_before as (
    select h.organization_id, h.payer_class from former_class h, newest n
    where h.valid_from <= n.day and (h.valid_until is null or h.valid_until > n.day)
)
select count(*) filter (where a.payer_class = 'strict') as strict,
       count(*) filter (where a.payer_class = 'hesitant') as hesitant,
       count(*) filter (where a.payer_class = 'disloyal') as disloyal,
       count(*) filter (where a.payer_class = 'unrated') as unrated,
       count(*) filter (where coalesce(a.payer_class, 'unrated') <> coalesce(b.payer_class, 'unrated')) as changed
from now_held a full join held_before b using (organization_id)
"""

# Whether one customer or all are asked for decides which plan is good: never reuse one.
_PLAN_FOR_FEW = "set local plan_cache_mode = force_custom_plan; set local enable_nestloop to default"
_PLAN_FOR_ALL = "set local plan_cache_mode = force_custom_plan; set local enable_nestloop = off"
_PLAN_AS_BEFORE = "set local plan_cache_mode to default; set local enable_nestloop to default"
_FACTS = "payer_rule, payer_known, payer_paid, payer_overdue"

# Per customer, setting (window and what to do with disputes) and currency; payer_rule holds the rules in force.
_WORK_TABLES = """
create temporary table former_class (like ops.payer_class_history) on commit drop;
create temporary table payer_rule (like rules.payer_class) on commit drop;
alter table payer_rule add column paid_after date;
create temporary table payer_known (organization_id bigint) on commit drop;
create temporary table payer_paid (
    organization_id bigint, window_months integer, leave_out_disputed boolean, currency text,
    settled bigint, days bigint, late bigint, weight numeric, weighted_days numeric, weighted_late numeric
) on commit drop;
create temporary table payer_overdue (
    organization_id bigint, leave_out_disputed boolean, currency text, overdue bigint, worst integer
) on commit drop
"""
_DROP_WORK_TABLES = f"drop table former_class, {_FACTS}"

_RULES_IN_FORCE = """
insert into payer_rule
select r.*, (cast(:facts_on as date) - make_interval(months => r.window_months))::date
"""

_KNOWN = """
insert into payer_known
select k.organization_id from (
    select s.organization_id from crm.newest_states_at(:facts_on) s
    union
    select i.organization_id from crm.ledger_entries l join crm.invoices i using (invoice_id)
    where least(coalesce(l.issued_on, l.due_on), l.settled_on) <= :facts_on
    union
    select v.organization_id from rules.payer_class_override v where lower(v.valid) <= :day
) k
where cast(:only as bigint[]) is null or k.organization_id = any(cast(:only as bigint[]))
"""

# The day after the last snapshot that listed an invoice is looked up once per snapshot, not once per invoice: it is
# settled_after + 1 of crm.settlements_at, which a million invoices would ask for one by one.
_PAID = """
insert into payer_paid
with snapshot as materialized (
    select source, as_of, lag(as_of) over (partition by source order by as_of) + 1 as earliest
    from landing.feed_files where state = 'applied' and mode = 'snapshot' and feed = 'open_items'
), setting as (
    select distinct window_months, leave_out_disputed, paid_after from payer_rule
), paid as (
    select s.organization_id, s.currency, s.disputed, s.due_on, greatest(s.amount, 0) as weight,
           coalesce(s.settled_on, n.earliest, s.settled_by) as paid_on
    from crm.settlements_at(:facts_on) s
    left join snapshot n on n.source = s.source and n.as_of = s.settled_by
    where s.document_type = 'invoice' and s.settled_by > (select min(paid_after) from setting)
      and (cast(:only as bigint[]) is null or s.organization_id = any(cast(:only as bigint[])))
), judged as (
    select organization_id, currency, disputed, weight, paid_on, greatest(paid_on - due_on, 0) as days_late from paid
)
select j.organization_id, g.window_months, g.leave_out_disputed, j.currency, count(*), sum(j.days_late),
       count(*) filter (where j.days_late > 0), sum(j.weight), sum(j.weight * j.days_late),
       coalesce(sum(j.weight) filter (where j.days_late > 0), 0)
from judged j join setting g on j.paid_on > g.paid_after and not (g.leave_out_disputed and j.disputed)
group by j.organization_id, g.window_months, g.leave_out_disputed, j.currency
"""

_OVERDUE = """
insert into payer_overdue
select o.organization_id, g.leave_out_disputed, o.currency, count(*), max(cast(:facts_on as date) - o.due_on)
from crm.open_items_at(:facts_on) o
join (select distinct leave_out_disputed from payer_rule) g on not (g.leave_out_disputed and o.disputed)
where o.document_type = 'invoice' and o.open_amount > 0 and o.due_on < :facts_on
  and (cast(:only as bigint[]) is null or o.organization_id = any(cast(:only as bigint[])))
group by o.organization_id, g.leave_out_disputed, o.currency
"""
