-- What is wrong with the data: one line per rule, and one per incident.

-- Every incident with its rule, whose it is, and the open money it touches, per currency.
create or replace view report.quality_incidents as
select i.incident_id, i.severity, i.state, i.owner, i.rule_id, o.customer_number, i.record_key, i.reason, i.due_on,
       i.state = 'open' and i.due_on < ops.business_today() as overdue, i.first_seen, i.last_seen, i.occurrences,
       i.regressions, i.money, i.waived_until, i.closed_on, i.contract, i.table_name, i.record_id, i.fingerprint
from ops.quality_incidents i
left join crm.organizations o using (organization_id);

-- What happened to an incident, in order.
create or replace view report.quality_incident_events as
select e.incident_id, e.event, e.happened_on, e.actor, e.reason, e.run_id, e.recorded_at
from ops.quality_incident_events e;

-- The newest answer of every rule, with its standing incidents. A rule that could not be asked is an error: neither
-- green nor red.
create or replace view report.data_quality as
select r.rule_id, r.contract, r.severity, r.dimension, r.state, r.rows_checked, r.failing, r.tolerance_percent,
       coalesce(i.open, 0) as open_incidents, coalesce(i.waived, 0) as waived_incidents,
       coalesce(i.overdue, 0) as overdue_incidents, i.oldest as open_since, r.error, r.as_of, r.measured_at,
       r.table_name, r.rule_version, r.run_id
from (
    select distinct on (rule_id) * from ops.quality_results
    where engine = 'sql' order by rule_id, as_of desc, quality_result_id desc
) r
left join (
    select rule_id, count(*) filter (where state = 'open')::integer as open,
           count(*) filter (where state = 'waived')::integer as waived,
           count(*) filter (where state = 'open' and due_on < ops.business_today())::integer as overdue,
           min(first_seen) filter (where state = 'open') as oldest
    from ops.quality_incidents group by rule_id
) i on i.rule_id = r.rule_id
where r.run_id >= (select max(x.run_id) from ops.quality_results x where x.contract = r.contract and x.engine = 'sql');

-- Every answer there ever was, both engines'.
create or replace view report.quality_history as
select r.rule_id, r.as_of, r.engine, r.state, r.rows_checked, r.failing, r.severity, r.contract, r.error, r.run_id,
       r.measured_at
from ops.quality_results r;

-- Figures per table and day.
create or replace view report.quality_measures as
select m.contract, m.measure, m.as_of, m.value from ops.quality_measures m;

-- Records that may be one and the same, and what was decided. A contact stands under its customer's number and name.
create or replace view report.duplicates as
select p.pair_id, p.entity, p.score, p.decision, p.matched_by,
       coalesce(l.customer_number, lp.source || ' / ' || lp.part_number) as left_number,
       coalesce(l.name, lp.name) as left_name,
       coalesce(r.customer_number, rp.source || ' / ' || rp.part_number) as right_number,
       coalesce(r.name, rp.name) as right_name, p.fields, p.decided_by, p.reason, p.decided_at, p.found_at,
       exists (select from ops.duplicate_merges m where m.pair_id = p.pair_id and m.undone_at is null) as merged
from ops.duplicate_pairs p
left join crm.contacts lc on p.entity = 'contact' and lc.contact_id = p.left_id
left join crm.contacts rc on p.entity = 'contact' and rc.contact_id = p.right_id
left join crm.organizations l
    on l.organization_id = case p.entity when 'organization' then p.left_id else lc.organization_id end
left join crm.organizations r
    on r.organization_id = case p.entity when 'organization' then p.right_id else rc.organization_id end
left join crm.products lp on p.entity = 'product' and lp.product_id = p.left_id
left join crm.products rp on p.entity = 'product' and rp.product_id = p.right_id;

-- A trigram index keeps a list of entries to be sorted in later, which each look-up reads whole; only its owner may have
-- it sorted in. Returns how many pages were.
create or replace function crm.settle_keys() returns bigint
language sql volatile security definer set search_path = pg_catalog
return gin_clean_pending_list('crm.organization_keys_name_key_idx'::regclass)
       + gin_clean_pending_list('crm.contact_keys_name_key_idx'::regclass);
