-- Backups, and what of them has been proven. A backup is good when its newest check passed, and not before. What is
-- newer follows from the order in which it was noted: a clock that was wrong for a while must hide nothing behind it.

create or replace view report.backups as
with newest_check as (
    select distinct on (c.backup_id) c.*
    from ops.restore_checks c
    order by c.backup_id, c.restore_check_id desc
)
select b.label, b.kind, b.base_label, b.engine, b.state,
       b.state = 'done' and coalesce(c.state = 'passed', false) as good,
       b.started_at, b.ended_at, round(extract(epoch from b.ended_at - b.started_at))::integer as duration_seconds,
       b.point_at, b.source_bytes, b.stored_bytes,
       b.stored_bytes - lag(b.stored_bytes) over (partition by b.kind order by b.backup_id) as grown_bytes,
       b.table_count, b.row_count, c.state as check_state, c.checked_at, c.restore_seconds, c.total_seconds,
       c.planted, c.planted_caught, c.instant,
       (select array_agg(f ->> 'name' order by n)
        from jsonb_array_elements(c.findings) with ordinality as t (f, n) where not (f ->> 'passed')::boolean)
           as failed_checks,
       b.server_version, b.run_id, b.error_code, b.backup_id
from ops.backups b
left join newest_check c on c.backup_id = b.backup_id;

-- One row: how much would be lost, how long it would take, and whether anybody has looked.
create or replace view report.backup_watch as
with good as (
    -- A proof of a time that has not come is no proof of now.
    select b.* from report.backups b where b.good and b.checked_at <= now() + interval '1 hour'
)
select (select max(b.ended_at) from report.backups b where b.state = 'done') as last_backup_at,
       (select max(g.checked_at) from good g) as last_verified_at,
       extract(day from now() - (select max(g.checked_at) from good g))::integer as days_since_verified,
       -- What a loss of the machine now would cost, counted from the newest point that a good backup holds.
       round(extract(epoch from now() - (select max(g.point_at) from good g)))::bigint as rpo_seconds,
       (select g.restore_seconds from good g order by g.checked_at desc limit 1) as rto_seconds,
       (select round((regr_slope(g.restore_seconds::double precision,
                                 extract(epoch from g.checked_at)::double precision / 86400))::numeric, 3)
        from good g) as rto_seconds_per_day,
       (select min(g.point_at) from good g) as window_from,
       (select max(g.point_at) from good g) as window_to,
       (select count(*) from good)::integer as good_backups,
       (select sum(b.stored_bytes) from report.backups b where b.state = 'done')::bigint as stored_bytes,
       p.silent_after_hours,
       -- A new installation has as long for its first one.
       coalesce(now() - coalesce((select max(g.checked_at) from good g), (select min(r.started_at) from ops.run_ledger r))
                > make_interval(hours => p.silent_after_hours), false) as silent
from rules.backup_policy p
where p.valid @> ops.business_today();

-- A backup counts when it was restored and compared; where there are data and no backup, the machine must not be lost.
create or replace view report.status_backups as
with newest as (
    select b.label, b.good, b.check_state, b.failed_checks
    from report.backups b where b.state = 'done' order by b.backup_id desc limit 1
)
select 'backups' as area,
       case when w.silent then 'red'
            when n.label is null then case when exists (select from landing.feed_files) then 'yellow' else 'grey' end
            when n.check_state = 'failed' then 'red'
            when not n.good then 'yellow' else 'green' end as colour,
       case when n.label is null then 'no backup was made yet'
            when n.check_state = 'failed' then 'the newest backup does not restore'
            when n.check_state is null then 'the newest backup was not checked yet'
            when w.silent then coalesce('no backup was proven for ' || w.days_since_verified || ' days',
                                        'no backup was ever proven')
            else w.good_backups || case w.good_backups when 1 then ' backup is' else ' backups are' end
                 || ' proven to restore' end as headline,
       case when n.label is null then 'what is here exists once; the rule wants a proven backup every ' || w.silent_after_hours || ' hours'
            when n.check_state = 'failed' then n.label || ': ' || array_to_string(n.failed_checks, ', ')
            else 'newest ' || n.label || '; proven ' || coalesce(to_char(w.last_verified_at at time zone 'UTC',
                 'YYYY-MM-DD HH24:MI') || ' UTC', 'never') || coalesce('; restored in ' || round(w.rto_seconds) || ' s', '')
            end as reason,
       case when n.label is null or w.silent then 'kontor run backup'
            when not n.good then 'kontor backup verify' end as next_command
from report.backup_watch w
left join newest n on true;
