-- How Kontor itself is doing.

-- A process that is killed cannot close its row: a run that stands as running while nobody holds its flow's lock
-- has died, and is shown so before the next run of the flow writes it down.
create or replace view report.runs as
select r.run_id, r.flow, r.as_of, r.dry_run,
       case when r.state = 'running' and not exists (
           select from pg_locks l
           where l.locktype = 'advisory' and l.granted and l.objsubid = 1
             and l.database = (select oid from pg_database where datname = current_database())
             and l.classid::bigint = case when hashtext('kontor flow ' || r.flow) < 0 then 4294967295 else 0 end
             and l.objid::bigint = hashtext('kontor flow ' || r.flow)::bigint & 4294967295
       ) then 'abandoned' else r.state end as state,
       r.counts, r.error_code, r.actor, r.host, r.process_id, r.prefect_run_id, r.started_at, r.ended_at,
       round(extract(epoch from r.ended_at - r.started_at))::integer as duration_seconds
from ops.run_ledger r;

-- What still waits for someone, by file and kind of reason. A row with two wrong cells counts once per reason.
create or replace view report.quarantine_counts as
select q.file_name, q.contract, q.as_of, q.code, count(distinct q.quarantined_row_id)::integer as rows
from report.quarantine q
where q.state = 'open'
group by q.file_name, q.contract, q.as_of, q.code;

-- Customers per class today; one who has never been rated counts as unrated.
create or replace view report.payer_class_counts as
select c.payer_class, c.colour, count(p.customer_number)::integer + case c.payer_class when 'unrated' then (
           select count(*) from crm.organizations o
           where not exists (select from report.payer_classes r where r.customer_number = o.customer_number)
       )::integer else 0 end as customers
from (values ('strict', 'green'), ('hesitant', 'yellow'), ('disloyal', 'red'), ('unrated', 'grey'))
    as c (payer_class, colour)
left join report.payer_classes p on p.payer_class = c.payer_class
group by c.payer_class, c.colour;

-- The lines of the status. Every area of Kontor has a view report.status_<area> with these five columns, and
-- report.status_lines puts all of them together, whichever there are: a new area is a new view and nothing else.
--   area          one or two words for what it is about
--   colour        green: as it should be; yellow: look at it today; red: act now; grey: nothing to judge yet
--   headline      what is so, in a few words, without a person's name
--   reason        why it has this colour: what was measured and what is expected
--   next_command  what to run next; null where nothing is to be done

create or replace view report.status_feeds as
select 'feeds' as area, f.colour,
       f.feed || ' of ' || f.source || case f.freshness when 'never' then ' has never been taken in'
           else ' is ' || f.freshness end as headline,
       case f.freshness when 'never' then 'every file of it was refused'
           else 'newest day ' || f.newest_as_of || ', ' || f.age_days || case f.age_days when 1 then ' day' else ' days' end
                || ' old; fresh through ' || f.fresh_days || ', late through ' || f.late_days || ' days' end as reason,
       case when f.freshness = 'never' then 'kontor report feed-files'
            when f.colour <> 'green' then 'kontor import FILE --contract ' || f.feed end as next_command
from report.feed_freshness f
union all
select 'feeds', 'grey', 'nothing has come in yet', 'no file was ever taken in', 'kontor demo'
where not exists (select from landing.feed_files);

-- A refusal is red until something newer of the same sender was taken in, and is told for a month after that.
create or replace view report.status_refused_files as
select 'files' as area, case when bool_or(f.pending) then 'red' else 'yellow' end as colour,
       count(*) || case count(*) when 1 then ' file of ' else ' files of ' end || f.source || ' refused' as headline,
       f.feed || case when bool_or(f.pending) then ': nothing newer of it was taken in since '
                      else ': newer ones were taken in since ' end
           || to_char(max(f.received_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC' as reason,
       'kontor report feed-files' as next_command
from (
    select r.feed, r.source, r.received_at, not exists (
               select from landing.feed_files a
               where a.feed = r.feed and a.source = r.source and a.state = 'applied' and a.received_at > r.received_at
           ) as pending
    from landing.feed_files r where r.state = 'refused') f
where f.pending or f.received_at > now() - interval '31 days'
group by f.feed, f.source;

create or replace view report.status_quarantine as
select 'quarantine' as area,
       case when count(*) = 0 then 'green' when min(q.quarantined_at) < now() - interval '31 days' then 'red'
            else 'yellow' end as colour,
       case count(*) when 0 then 'no row waits in quarantine' when 1 then '1 row waits in quarantine'
            else count(*) || ' rows wait in quarantine' end as headline,
       case count(*) when 0 then 'every row that came in could be read'
            else 'the oldest since ' || to_char(min(q.quarantined_at) at time zone 'UTC', 'YYYY-MM-DD') || '; none should wait a month' end
           as reason,
       case when count(*) > 0 then 'kontor quarantine list' end as next_command
from landing.quarantined_rows q
where q.state = 'open';

-- The newest run of every flow that was meant; a trial says nothing about how Kontor is doing.
create or replace view report.status_runs as
select 'runs' as area,
       case when r.state in ('done', 'running') then 'green' when r.state = 'partly_done' then 'yellow' else 'red' end
           as colour,
       r.flow || case r.state when 'done' then ' ended well' when 'running' then ' is running'
           when 'partly_done' then ' did a part of its work' when 'abandoned' then ' died without a word'
           else ' failed' end as headline,
       'run ' || r.run_id || ' as of ' || r.as_of
           || case when r.ended_at is null then ', since ' || to_char(r.started_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI')
                   else ', ended ' || to_char(r.ended_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') end || ' UTC'
           || case when r.state in ('done', 'running') then '' else coalesce(', ' || r.error_code, '')
                   || '; docs/runbooks/' || r.flow || '.md' end as reason,
       case when r.state not in ('done', 'running') then 'kontor report runs' end as next_command
from (
    select distinct on (l.flow) l.flow, l.run_id, l.as_of, l.state, l.started_at, l.ended_at, l.error_code
    from report.runs l where not l.dry_run
    order by l.flow, l.run_id desc) r;
