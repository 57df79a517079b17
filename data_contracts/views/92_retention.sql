-- Evidence of retention, rule by rule, and of exports: counts and days, nobody is named.

-- The newest plan says what is due and held; what went is counted over all plans. Overdue is what the newest plan found
-- due and nobody has applied within a week.
create or replace view report.retention as
with newest as (
    select i.*, p.as_of, p.state as plan_state, p.made_at
    from ops.retention_plan_items i join ops.retention_plans p using (plan_id)
    where p.plan_id = (select max(n.plan_id) from ops.retention_plans n join ops.run_ledger l using (run_id)
                       where n.as_of <= (l.started_at at time zone 'UTC')::date + 1)
), gone as (
    select rule_id, sum(done) as done, max(horizon) filter (where ended_at is not null) as closed_through
    from ops.retention_plan_items group by rule_id
)
select r.rule_id, r.version as rule_version, r.entity, r.country, r.action, r.purpose, r.legal_basis, r.source,
       n.as_of as planned_as_of, n.horizon as open_through, g.closed_through,
       case when n.plan_state = 'applied' then 0 else coalesce(n.due, 0) end as due, coalesce(n.held, 0) as held,
       coalesce(g.done, 0)::bigint as done,
       case when n.plan_state <> 'applied' and n.made_at < now() - interval '7 days' then n.due else 0 end as overdue
from rules.retention_policy r
left join newest n on n.rule_id = r.rule_id
left join gone g on g.rule_id = r.rule_id
where r.valid @> ops.business_today() and r.action <> 'keep'
order by r.position;

-- Exports with personal data by day. Unusual: above a thousand rows and three times the busiest of the 28 days before.
create or replace view report.egress as
select d.day, d.exports, d.rows, d.people,
       d.rows > 1000 and d.rows > 3 * coalesce(max(d.rows) over (
           order by d.day range between interval '28 days' preceding and interval '1 day' preceding), 0) as unusual
from (
    select (at at time zone 'UTC')::date as day, count(*) as exports, sum(row_count)::bigint as rows,
           count(distinct actor) as people
    from ops.egress_log where personal_columns <> '{}' group by 1
) d
order by d.day desc;
