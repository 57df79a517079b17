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

-- How fresh each feed is: the newest day it has spoken about.
create or replace view report.feed_freshness as
select f.feed, f.source, max(f.as_of) filter (where f.state = 'applied') as newest_as_of,
       max(f.received_at) filter (where f.state = 'applied') as last_received_at,
       count(*) filter (where f.state = 'applied') as files,
       count(*) filter (where f.state = 'refused') as refused,
       ops.business_today() - max(f.as_of) filter (where f.state = 'applied') as age_days
from landing.feed_files f
group by f.feed, f.source;
