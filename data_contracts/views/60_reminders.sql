-- What was decided about reminders, one line per customer and day: the newest word of the day.

create or replace function report.reminder_decisions(as_of date)
returns table (
    as_of date, customer_number text, decision text, stage text, reason text, recipient_email text,
    recipient_reason text, language text, invoice_numbers text[], rule_id text, rule_version integer,
    customer_name text, reason_code text, sequence integer, figures jsonb, run_id bigint, decided_at timestamptz
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select d.as_of, o.customer_number, d.decision, d.stage, d.reason, d.recipient_email, d.recipient_reason, d.language,
           (select coalesce(array_agg(i.invoice_number order by i.invoice_number), '{}')
            from crm.invoices i where i.invoice_id = any (d.invoice_ids)),
           d.rule_id, d.rule_version, o.name, d.reason_code, d.sequence, d.figures, d.run_id, d.decided_at
    from (
        select distinct on (n.organization_id) n.*
        from ops.reminder_decisions n
        where n.as_of = reminder_decisions.as_of
        order by n.organization_id, n.decision_id desc
    ) d
    join crm.organizations o on o.organization_id = d.organization_id;
end;

create or replace view report.reminder_decisions as
select * from report.reminder_decisions(ops.business_today());

-- What a person has to do before reminders can go on; open ones first.
create or replace view report.reminder_tasks as
select t.task_id, o.customer_number, o.name as customer_name, t.kind, t.as_of, t.owner, t.details, t.opened_at,
       t.closed_at, t.closed_by, t.close_reason
from ops.reminder_tasks t
left join crm.organizations o on o.organization_id = t.organization_id;

-- What is held back by a person, and until when; a hold that was released or has run out is history.
create or replace view report.reminder_holds as
select h.hold_id, o.customer_number, o.name as customer_name, i.invoice_number, h.kind, lower(h.valid) as held_from,
       case when upper_inf(h.valid) then null else upper(h.valid) - 1 end as held_until,
       case when h.released_at is not null then 'released'
            when not upper_inf(h.valid) and upper(h.valid) <= ops.business_today() then 'over'
            when lower(h.valid) > ops.business_today() then 'to come'
            else 'in force' end as state,
       h.promised_amount, h.promised_currency, h.author, h.reason, h.created_at, h.released_at, h.released_by,
       h.release_reason
from ops.reminder_holds h
join crm.organizations o on o.organization_id = h.organization_id
left join crm.invoices i on i.invoice_id = h.invoice_id;
