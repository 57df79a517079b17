-- What came in, and what could not be read.

create or replace view report.feed_files as
select f.file_name, f.contract, f.as_of, f.sha256, f.rows_read, f.inserted, f.updated, f.unchanged, f.quarantined,
       f.superseded, f.state, f.settled, f.reopened, f.warned, f.revision, f.source, f.received_at, f.refusal, f.run_id
from landing.feed_files f;

-- One line per reason: a row with two wrong cells stands here twice.
create or replace view report.quarantine as
select f.file_name, f.contract, q.row_number, r ->> 'cell' as cell, r ->> 'column_name' as column_name,
       r ->> 'raw_value' as raw_value, r ->> 'reason' as reason, q.state, f.as_of, q.customer_number,
       r ->> 'code' as code, q.quarantined_row_id, q.quarantined_at, q.resolved_at
from landing.quarantined_rows q
join landing.feed_files f on f.feed_file_id = q.feed_file_id
cross join lateral jsonb_array_elements(q.reasons) r;

-- How fresh each feed is: the newest day it has spoken about, and whether that is as expected.
-- Accounting sends every Monday; a Monday's file that comes on Tuesday is not late yet. Master data come on demand.
-- A ledger of Monday 2 March: fresh through Tuesday 10 March (8 days), late through 17 March, stale from then on.
create or replace view report.feed_freshness as
select f.feed, f.source, f.newest_as_of, f.last_received_at, f.files, f.refused, f.age_days,
       case when f.age_days is null then 'never' when f.age_days <= r.fresh_days then 'fresh'
            when f.age_days <= r.late_days then 'late' else 'stale' end as freshness,
       case when f.age_days is null then 'red' when f.age_days <= r.fresh_days then 'green'
            when f.age_days <= r.late_days then 'yellow' else 'red' end as colour,
       r.fresh_days, r.late_days
from (
    select f.feed, f.source, max(f.as_of) filter (where f.state = 'applied') as newest_as_of,
           max(f.received_at) filter (where f.state = 'applied') as last_received_at,
           count(*) filter (where f.state = 'applied') as files,
           count(*) filter (where f.state = 'refused') as refused,
           ops.business_today() - max(f.as_of) filter (where f.state = 'applied') as age_days
    from landing.feed_files f
    group by f.feed, f.source) f
cross join lateral (
    select case f.feed when 'open_items' then 8 else 92 end as fresh_days,
           case f.feed when 'open_items' then 15 else 366 end as late_days) r;
