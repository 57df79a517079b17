-- What is or was wrong with the runs. An alert is open until run_watch finds that it is over.

create or replace view report.alerts as
select a.alert_id, a.kind, a.flow, a.run_id, a.cause, a.opened_at, a.last_seen_at, a.told_at, a.cleared_at,
       case when a.cleared_at is null then 'open' else 'cleared' end as state,
       'docs/runbooks/' || a.flow || '.md' as runbook
from ops.alerts a;

create or replace view report.status_alerts as
select 'alerts' as area,
       case when a.kind in ('late', 'idle', 'too_long') then 'yellow' else 'red' end as colour,
       a.cause as headline,
       'since ' || to_char(a.opened_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC; ' || a.runbook as reason,
       'kontor report alerts' as next_command
from report.alerts a
where a.cleared_at is null
union all
select 'alerts', 'green', 'nothing is wrong with the runs', 'run_watch has found nothing', null
where not exists (select from ops.alerts where cleared_at is null);
