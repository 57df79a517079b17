-- What a monitoring system should see, one line per figure: `kontor metrics` gives it to Prometheus as it stands here.
-- Labels hold names of feeds, flows, contracts and states; never a customer.

create or replace view report.metrics as
select 'kontor_feed_age_days' as name, 'gauge' as kind, 'Days since the newest day a feed has spoken of.' as help,
       jsonb_build_object('feed', f.feed, 'source', f.source) as labels, f.age_days::double precision as value
from report.feed_freshness f where f.age_days is not null
union all
select 'kontor_feed_rows', 'counter', 'Rows of files taken in, by what became of them.',
       jsonb_build_object('contract', f.contract, 'outcome', o.outcome), sum(o.rows)::double precision
from landing.feed_files f
cross join lateral (values ('inserted', f.inserted), ('updated', f.updated), ('unchanged', f.unchanged),
                           ('quarantined', f.quarantined), ('superseded', f.superseded)) as o (outcome, rows)
group by f.contract, o.outcome
union all
select 'kontor_feed_files', 'counter', 'Files that came, by what became of them.',
       jsonb_build_object('contract', f.contract, 'state', f.state), count(*)::double precision
from landing.feed_files f group by f.contract, f.state
union all
select 'kontor_quarantine_rows', 'gauge', 'Rows that wait in quarantine.',
       jsonb_build_object('contract', f.contract), count(*)::double precision
from landing.quarantined_rows q join landing.feed_files f using (feed_file_id)
where q.state = 'open' group by f.contract
union all
select 'kontor_open_amount', 'gauge', 'Money that is open, by currency.',
       jsonb_build_object('currency', i.currency), sum(i.open_amount)::double precision
from report.open_invoices i group by i.currency
union all
select 'kontor_outbox_mails', 'gauge', 'Mails to customers, by state.',
       jsonb_build_object('state', s.state), count(r.reminder_id)::double precision
from unnest(array['planned', 'held', 'approved', 'cancelled', 'sending', 'sent', 'refused', 'deferred', 'unknown',
                  'bounced']) as s (state)
left join outbox.reminders r on r.state = s.state group by s.state
union all
select 'kontor_run_last_success_timestamp_seconds', 'gauge', 'When a flow last ended well.',
       jsonb_build_object('flow', r.flow), extract(epoch from max(r.ended_at))::double precision
from ops.run_ledger r where r.state = 'done' and not r.dry_run group by r.flow
union all
select 'kontor_run_duration_seconds', 'gauge', 'How long the newest run of a flow that ended took.',
       jsonb_build_object('flow', r.flow), extract(epoch from r.ended_at - r.started_at)::double precision
from (select distinct on (l.flow) l.flow, l.started_at, l.ended_at from ops.run_ledger l
      where l.ended_at is not null and not l.dry_run order by l.flow, l.run_id desc) r
union all
select 'kontor_runs', 'counter', 'Runs that ended, by how.',
       jsonb_build_object('flow', r.flow, 'state', r.state), count(*)::double precision
from ops.run_ledger r where r.state <> 'running' and not r.dry_run group by r.flow, r.state
union all
select 'kontor_backup_verified_age_seconds', 'gauge', 'Seconds since the newest backup that has been restored was made.',
       '{}'::jsonb, extract(epoch from now() - max(b.ended_at))::double precision
from report.backups b where b.good having max(b.ended_at) is not null
union all
select 'kontor_alerts', 'gauge', 'Troubles with the runs that last, by kind.',
       jsonb_build_object('kind', a.kind), count(*)::double precision
from ops.alerts a where a.cleared_at is null group by a.kind
union all
select 'kontor_status_lines', 'gauge', 'Lines of the status, by colour.',
       jsonb_build_object('colour', c.colour), count(l.area)::double precision
from (values ('red'), ('yellow'), ('green'), ('grey')) as c (colour)
left join report.status_lines l on l.colour = c.colour group by c.colour;
