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

An override interrupts hysteresis: the first decision after it has no class to hold on to.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection, Row, text

from data_contracts.tables.rules import PAYER_CLASSES
from tasks.errors import Refused, UsageError


@dataclass(frozen=True)
class Override:
    """A class set by hand; it holds from ``valid_from`` through ``until``, both included."""

    override_id: int
    customer_number: str
    payer_class: str
    valid_from: date
    until: date
    author: str
    reason: str


@dataclass(frozen=True)
class _EvaluationDay:
    day: date
    facts_on: date | None
    organization_ids: list[int] | None


def classify(connection: Connection, since: date) -> dict[str, int]:
    """Decide every class anew from ``since`` on; return customers per class and how many ``changed``.

    The counts are those of the newest day with a file; ``changed`` compares them with what stood there before.
    Works in the caller's transaction. What comes out the same keeps its ``decided_at``.
    """
    connection.execute(text("select pg_advisory_xact_lock(hashtext('kontor classification'))"))
    connection.execute(text(_WORK_TABLES))
    _set_history_back(connection, since)
    for evaluation in _evaluation_days(connection, since):
        _decide(connection, evaluation)
    counts = connection.execute(text(_COUNTS)).one()
    connection.execute(text(_DROP_WORK_TABLES))
    connection.execute(text(_PLAN_AS_BEFORE))
    return {str(name): int(value) for name, value in counts._mapping.items()}


def set_override(
    connection: Connection,
    customer_number: str,
    payer_class: str,
    until: date,
    author: str,
    reason: str,
    as_of: date,
) -> Override:
    """Set a customer's class by hand from ``as_of`` through ``until``, decide anew from there, and return the override.

    Needs the owner's rights on schema ``rules``. Nothing is left of it when it raises.

    Raises:
        UsageError: no such customer or class, an end before the start, or no author or reason.
        Refused: another override of this customer holds on one of these days.
    """
    _check_override(payer_class, until, author, reason, as_of)
    organization_id = _find_customer(connection, customer_number)
    _refuse_overlap(connection, organization_id, customer_number, as_of, until)
    override_id = connection.scalar(
        text(
            "insert into rules.payer_class_override (organization_id, payer_class, valid, author, reason)"
            " values (:organization_id, :payer_class, daterange(:as_of, :until, '[]'), :author, :reason)"
            " returning payer_class_override_id"
        ),
        {
            "organization_id": organization_id,
            "payer_class": payer_class,
            "as_of": as_of,
            "until": until,
            "author": author,
            "reason": reason,
        },
    )
    classify(connection, as_of)
    return Override(int(override_id or 0), customer_number, payer_class, as_of, until, author, reason)


def clear_override(
    connection: Connection, customer_number: str, author: str, reason: str, as_of: date
) -> Override | None:
    """End the override that holds on ``as_of``, decide anew, and return what is left of it.

    It then holds through the day before; one that began on ``as_of`` is taken back as if never set: None.

    Raises:
        UsageError: no such customer, no author or reason, or no override on that day.
    """
    _check_words(author, reason)
    organization_id = _find_customer(connection, customer_number)
    held = next((o for o in _fetch_overrides(connection, as_of, organization_id) if o.valid_from <= as_of), None)
    if held is None:
        raise UsageError(
            f"Customer {customer_number} has no override on {as_of}; its class is decided by rules.",
            hint="List the overrides that hold or are to come, and name a day on which one holds.",
        )
    connection.execute(
        text(_END_OVERRIDE if held.valid_from < as_of else _DELETE_OVERRIDE),
        {"override_id": held.override_id, "as_of": as_of, "author": author, "reason": reason},
    )
    classify(connection, held.valid_from)  # from its beginning: its reason names the last day
    return next((o for o in _fetch_overrides(connection, held.valid_from, organization_id) if o.until < as_of), None)


def list_overrides(connection: Connection, as_of: date) -> list[Override]:
    """The overrides that hold on ``as_of`` or are to come, by customer and beginning."""
    return _fetch_overrides(connection, as_of, None)


def _check_override(payer_class: str, until: date, author: str, reason: str, as_of: date) -> None:
    if payer_class not in PAYER_CLASSES:
        raise UsageError(
            f"{payer_class!r} is not a payer class; allowed are {', '.join(PAYER_CLASSES)}.",
            hint="Choose one of these classes.",
        )
    if until < as_of:
        raise UsageError(
            f"The override would end on {until}, before its first day {as_of}.",
            hint=f"Give an end on or after {as_of}; the last day is included.",
        )
    _check_words(author, reason)


def _check_words(author: str, reason: str) -> None:
    missing = [name for name, value in (("author", author), ("reason", reason)) if not value.strip()]
    if missing:
        raise UsageError(
            f"An override needs an author and a reason; {' and '.join(missing)} is empty.",
            hint="Say who decides and why: it is kept with the decision.",
        )


def _find_customer(connection: Connection, customer_number: str) -> int:
    found = connection.scalar(
        text("select organization_id from crm.organizations where customer_number = :number"),
        {"number": customer_number},
    )
    if found is None:
        raise UsageError(
            f"There is no customer {customer_number}.",
            hint="Check the number, with its leading zeros, or import the customer first.",
        )
    return int(found)


def _refuse_overlap(
    connection: Connection, organization_id: int, customer_number: str, as_of: date, until: date
) -> None:
    for held in _fetch_overrides(connection, as_of, organization_id):
        if held.valid_from <= until:
            raise Refused(
                f"Customer {customer_number} is already set to {held.payer_class} from {held.valid_from} through"
                f" {held.until} (override {held.override_id}); {as_of} through {until} overlaps. Nothing was changed.",
                hint=f"Clear override {held.override_id} first, or begin on {held.until + timedelta(days=1)}.",
            )


def _fetch_overrides(connection: Connection, as_of: date, organization_id: int | None) -> list[Override]:
    rows = connection.execute(text(_OVERRIDES), {"as_of": as_of, "organization_id": organization_id}).all()
    return [_override(row) for row in rows]


def _override(row: Row[tuple[object, ...]]) -> Override:
    return Override(**row._mapping)


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


def _decide(connection: Connection, evaluation: _EvaluationDay) -> None:
    """Decide one day: gather what is known into work tables, count them for the planner, then write what changed.

    The planner's estimates through the functions of a past day are far too low. For everyone at once its nested
    loops would take hours, so they are ruled out; for one customer they are right.
    """
    connection.execute(text(_PLAN_FOR_ALL if evaluation.organization_ids is None else _PLAN_FOR_FEW))
    day = {"day": evaluation.day, "facts_on": evaluation.facts_on, "only": evaluation.organization_ids}
    connection.execute(text(f"truncate {_FACTS}"))
    for statement in (_RULES_IN_FORCE, _KNOWN, _PAID, _OVERDUE):
        connection.execute(text(statement), day)
    connection.execute(text(f"analyze {_FACTS}"))
    connection.execute(text(_DECISIONS), day)


def _evaluation_days(connection: Connection, since: date) -> list[_EvaluationDay]:
    rows = connection.execute(text(_EVALUATION_DAYS), {"since": since}).all()
    return [_EvaluationDay(row.day, row.facts_on, row.organization_ids) for row in rows]


_OVERRIDES = """
select v.payer_class_override_id as override_id, o.customer_number, v.payer_class,
       lower(v.valid) as valid_from, upper(v.valid) - 1 as until, v.author, v.reason
from rules.payer_class_override v join crm.organizations o using (organization_id)
where upper(v.valid) > :as_of
  and (cast(:organization_id as bigint) is null or v.organization_id = :organization_id)
order by o.customer_number, lower(v.valid)
"""

_END_OVERRIDE = """
update rules.payer_class_override
set valid = daterange(lower(valid), :as_of), ended_by = :author, end_reason = :reason
where payer_class_override_id = :override_id
"""

_DELETE_OVERRIDE = "delete from rules.payer_class_override where payer_class_override_id = :override_id"

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
from rules.payer_class r where r.valid @> cast(:day as date)
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

# One evaluation day. Read from top to bottom: each rule's figure for each customer; the first rule that holds; what
# differs from the day before; why, in figures and in words. The former row is closed before the new one enters.
_DECISIONS = """
with payment_total as materialized (
    select organization_id, window_months, leave_out_disputed, 'count' as weighting, null::text as currency,
           sum(settled) as evidence, sum(settled) as weight, sum(days) as days, sum(late) as late
    from payer_paid group by organization_id, window_months, leave_out_disputed
    union all
    select organization_id, window_months, leave_out_disputed, 'amount', currency,
           settled, weight, weighted_days, weighted_late
    from payer_paid where weight > 0
), overdue_total as materialized (
    select organization_id, leave_out_disputed, 'count' as weighting, null::text as currency,
           sum(overdue) as evidence, max(worst) as worst
    from payer_overdue group by organization_id, leave_out_disputed
    union all
    select organization_id, leave_out_disputed, 'amount', currency, overdue, worst from payer_overdue
), figure as (
    select r.rule_id, t.organization_id, t.currency, t.evidence,
           case r.metric when 'mean_days_late' then t.days / t.weight else t.late / t.weight end as value
    from payer_rule r join payment_total t using (window_months, leave_out_disputed, weighting)
    where r.metric in ('mean_days_late', 'late_share') and t.evidence >= r.minimum_evidence
    union all
    select r.rule_id, k.organization_id, t.currency, coalesce(t.evidence, 0), coalesce(t.worst, 0)
    from payer_rule r cross join payer_known k
    left join overdue_total t on t.organization_id = k.organization_id
        and t.leave_out_disputed = r.leave_out_disputed and t.weighting = r.weighting
    where r.metric = 'worst_open_days_overdue' and coalesce(t.evidence, 0) >= r.minimum_evidence
    union all
    select r.rule_id, k.organization_id, null, 0, null from payer_rule r cross join payer_known k
    where r.metric = 'always'
), worst_figure as (
    select distinct on (organization_id, rule_id) * from figure
    order by organization_id, rule_id, value desc, currency
), held as materialized (
    select * from ops.payer_class_history where valid_until is null
), matched as (
    select distinct on (f.organization_id) f.organization_id, f.currency, f.evidence, f.value, b.bound, r.*
    from worst_figure f
    join payer_rule r using (rule_id)
    left join held h on h.organization_id = f.organization_id
    cross join lateral (
        select r.threshold + case when h.rule_id is distinct from r.rule_id then 0
                                  when r.operator in ('<', '<=') then r.hysteresis else -r.hysteresis end as bound) b
    where r.metric = 'always'
       or case r.operator when '<' then f.value < b.bound when '<=' then f.value <= b.bound
                          when '>' then f.value > b.bound when '>=' then f.value >= b.bound end
    order by f.organization_id, r.rank
), decision as (
    select k.organization_id, v.payer_class_override_id is not null as by_hand, upper(v.valid) - 1 as until,
           coalesce(v.payer_class, m.payer_class, 'unrated') as payer_class,
           case when v.payer_class_override_id is not null then 'override'
                else coalesce(m.rule_id, 'none') end as rule_id,
           coalesce(v.payer_class_override_id::integer, m.version, 0) as rule_version,
           case when v.payer_class_override_id is null then m.metric end as metric,
           m.operator, m.threshold, m.bound, m.value, m.evidence, m.currency, m.weighting,
           m.window_months, m.leave_out_disputed
    from payer_known k
    left join matched m on m.organization_id = k.organization_id
    left join rules.payer_class_override v
        on v.organization_id = k.organization_id and v.valid @> cast(:day as date)
), usual as (
    -- What the figures show where no figure decided: what the first rule looks at.
    select window_months, leave_out_disputed from payer_rule order by metric = 'always', rank limit 1
), changed as (
    select d.*, coalesce(d.metric, 'always') <> 'always' as by_figure,
           case when coalesce(d.metric, 'always') <> 'always' then d.window_months
                else u.window_months end as shown_months,
           case when coalesce(d.metric, 'always') <> 'always' then d.leave_out_disputed
                else u.leave_out_disputed end as shown_left_out
    from decision d
    left join usual u on true
    left join held h on h.organization_id = d.organization_id
    where (h.payer_class, h.rule_id, h.rule_version) is distinct from (d.payer_class, d.rule_id, d.rule_version)
), explained as (
    select c.*, case c.shown_months when 1 then '1 month' else coalesce(c.shown_months, 0) || ' months' end as months,
           coalesce(p.evidence, 0) as settled, coalesce(o.evidence, 0) as overdue,
           jsonb_build_object(
               'facts_on', cast(:facts_on as date), 'window_months', c.shown_months,
               'disputed_left_out', c.shown_left_out,
               'settled_invoices', coalesce(p.evidence, 0),
               'mean_days_late', round(p.days / p.weight, 4)::text,
               'late_share', round(p.late / p.weight, 4)::text,
               'overdue_invoices', coalesce(o.evidence, 0),
               'worst_open_days_overdue', coalesce(o.worst, 0))
           || case when c.by_figure then jsonb_build_object('decided_by', jsonb_build_object(
               'metric', c.metric, 'weighting', c.weighting, 'currency', c.currency, 'evidence', c.evidence,
               'value', round(c.value, 4)::text, 'operator', c.operator, 'bound', trim_scale(c.bound)::text))
              else '{}' end as figures,
           case c.operator when '<' then 'less than' when '<=' then 'at most'
                           when '>' then 'more than' else 'at least' end as compared,
           -- Hysteresis alone keeps the class: the plain threshold no longer would.
           case when not case c.operator when '<' then c.value < c.threshold when '<=' then c.value <= c.threshold
                when '>' then c.value > c.threshold else c.value >= c.threshold end then 'still ' else '' end as still,
           -- One digit reads well; close to the bound it would hide on which side the figure lies.
           trim_scale(round(c.value, case when abs(c.value - c.bound) < 0.1 then 4 else 1 end)) as spoken,
           trim_scale(round(c.value * 100, case when abs(c.value - c.bound) < 0.001 then 2 else 1 end)) as spoken_share,
           case c.weighting when 'amount' then format(', weighted by amount in %s,', c.currency) else '' end as weighted
    from changed c
    left join payment_total p on p.organization_id = c.organization_id and p.weighting = 'count'
        and p.window_months = c.shown_months and p.leave_out_disputed = c.shown_left_out
    left join overdue_total o on o.organization_id = c.organization_id and o.weighting = 'count'
        and o.leave_out_disputed = c.shown_left_out
), worded as (
    select e.*, case
        when e.by_hand then format('set by hand until %s (override %s says why)', e.until, e.rule_version)
        when e.metric = 'mean_days_late' then format(
            'paid on average %s days late%s over %s in %s (%s%s %s)', e.spoken, e.weighted,
            case e.evidence when 1 then '1 invoice' else e.evidence || ' invoices' end,
            e.months, e.still, e.compared, trim_scale(e.bound))
        when e.metric = 'late_share' then format(
            'paid %s %% of %s late%s in %s (%s%s %s %%)', e.spoken_share,
            case e.evidence when 1 then '1 invoice' else e.evidence || ' invoices' end, e.weighted,
            e.months, e.still, e.compared, trim_scale(e.bound * 100))
        when e.metric = 'worst_open_days_overdue' and e.evidence = 0 then format(
            'no open invoice is overdue (%s%s %s days)', e.still, e.compared, trim_scale(e.bound))
        when e.metric = 'worst_open_days_overdue' and e.evidence = 1 then format(
            '1 open invoice is overdue, by %s days (%s%s %s)', e.spoken, e.still, e.compared, trim_scale(e.bound))
        when e.metric = 'worst_open_days_overdue' then format(
            '%s open invoices are overdue, the oldest by %s days (%s%s %s)',
            e.evidence, e.spoken, e.still, e.compared, trim_scale(e.bound))
        else format(
            '%s settled in %s and %s open overdue: no rule with a figure decides',
            case e.settled when 1 then '1 invoice' else e.settled || ' invoices' end,
            e.months, e.overdue)
        end as reason
    from explained e
), closed as (
    update ops.payer_class_history h set valid_until = :day
    from changed c where h.organization_id = c.organization_id and h.valid_until is null
    returning h.organization_id
)
insert into ops.payer_class_history
    (organization_id, valid_from, payer_class, rule_id, rule_version, figures, reason, decided_at)
select w.organization_id, :day, w.payer_class, w.rule_id, w.rule_version, w.figures, w.reason,
       coalesce(f.decided_at, now())
from worded w
left join closed c on c.organization_id = w.organization_id
left join former_class f on f.organization_id = w.organization_id and f.valid_from = :day
    and (f.payer_class, f.rule_id, f.rule_version, f.figures, f.reason)
        = (w.payer_class, w.rule_id, w.rule_version, w.figures, w.reason)
"""
