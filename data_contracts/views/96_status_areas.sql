-- What the status says of quality, backfills and retention (of backups: 90_backups.sql); the columns are told in 50_status.sql.

create or replace view report.status_quality as
select 'quality' as area,
       case when q.past_due + q.failing > 0 then 'red' when q.standing > 0 then 'yellow'
            when q.ever = 0 then 'grey' else 'green' end as colour,
       case when q.ever = 0 then 'no condition was checked or none failed yet'
            when q.standing = 0 then 'no incident is open'
            else q.standing || case q.standing when 1 then ' incident is open' else ' incidents are open' end
       end as headline,
       'grave ' || q.failing || ', past their day ' || q.past_due || ', waived ' || q.waived || ', closed ' || q.closed
           as reason,
       case when q.standing > 0 then 'kontor quality list' end as next_command
from (
    select count(*) filter (where i.state = 'open') as standing,
           count(*) filter (where i.state = 'open' and i.severity = 'fail') as failing,
           count(*) filter (where i.state = 'open' and i.due_on < ops.business_today()) as past_due,
           count(*) filter (where i.state = 'waived') as waived,
           count(*) filter (where i.state = 'closed') as closed,
           count(*) as ever
    from ops.quality_incidents i) q;

create or replace view report.status_backfills as
select 'backfills' as area,
       case b.state when 'running' then 'green' when 'failed' then 'red' else 'yellow' end as colour,
       'backfill ' || b.backfill_id || ' of ' || b.flow || case b.state when 'running' then ' is running'
           when 'failed' then ' failed' when 'paused' then ' is paused' else ' waits to be started' end as headline,
       b.from_on || ' to ' || b.to_on || ': ' || b.done || ' of ' || b.windows || ' windows done, ' || b.failed
           || ' failed' as reason,
       case when b.state <> 'running' then 'kontor backfill status ' || b.backfill_id end as next_command
from report.backfills b
where b.state in ('waiting', 'running', 'paused')
   or (b.state = 'failed' and b.ended_at > now() - interval '31 days'
       and not exists (select from ops.backfills l where l.flow = b.flow and l.backfill_id > b.backfill_id));

-- GDPR article 12(3): a person's request is answered within a month; red leaves some days to do it.
create or replace view report.status_retention as
select 'retention' as area, 'yellow' as colour,
       'a purge waits for a second person' as headline,
       'plan ' || p.plan_id || ' as of ' || p.as_of as reason, 'kontor retention plan' as next_command
from ops.retention_plans p
where p.state = 'planned' and p.needs_approval
  and not exists (select from ops.retention_plans n where n.plan_id > p.plan_id)
union all
select 'retention', case when e.state = 'incomplete' or e.received_at < now() - interval '21 days' then 'red'
                         else 'yellow' end,
       case e.state when 'incomplete' then 'an erasure left something standing' else 'an erasure is not done yet' end,
       'request ' || e.request_id || ', received ' || to_char(e.received_at at time zone 'UTC', 'YYYY-MM-DD')
           || '; to be answered within a month',
       'kontor erase --help'
from ops.erasure_requests e
where e.state in ('open', 'incomplete')
union all
select 'retention', 'green', 'nobody waits to be erased', 'no purge waits for approval, no erasure is open', null
where not exists (select from ops.erasure_requests e where e.state in ('open', 'incomplete'))
  and not exists (select from ops.retention_plans p where p.state = 'planned' and p.needs_approval
                  and not exists (select from ops.retention_plans n where n.plan_id > p.plan_id));
