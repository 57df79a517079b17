"""One evaluation day of the payer classes in one statement: figures, the rule that holds, what changed and why.

Reads the work tables that :mod:`tasks.payments.classes` has filled for the day (``payer_rule``, ``payer_known``,
``payer_paid``, ``payer_overdue``, ``former_class``) and takes the parameters ``day`` and ``facts_on``.
"""

from __future__ import annotations

# One evaluation day. Read from top to bottom: each rule's figure for each customer; the first rule that holds; what
# differs from the day before; why, in figures and in words. The former row is closed before the new one enters.
DECISIONS = """
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
