-- Which past periods were run again, why, and how far each one is.

create or replace view report.backfills as
select b.backfill_id, b.flow, lower(b.period) as from_on, upper(b.period) - 1 as to_on, b.every, b.state,
       w.windows, w.done, w.failed, w.windows - w.done - w.failed as left_to_do, b.reprocess, b.excluded_days,
       b.newest_first, b.concurrency, b.runs_apart, b.reason, b.requested_by, b.requested_at, b.ended_at, b.figures_before, b.figures_after
from ops.backfills b
left join lateral (
    select count(*)::integer as windows,
           (count(*) filter (where state in ('done', 'skipped')))::integer as done,
           (count(*) filter (where state = 'failed'))::integer as failed
    from ops.backfill_windows w where w.backfill_id = b.backfill_id
) w on true;

create or replace view report.backfill_windows as
select w.backfill_id, b.flow, w.window_number, w.from_on, w.to_on, w.state, w.attempts, w.counts, w.error_code,
       w.started_at, w.ended_at, w.run_id
from ops.backfill_windows w join ops.backfills b on b.backfill_id = w.backfill_id;
