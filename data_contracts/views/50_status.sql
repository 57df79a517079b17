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
