-- What became of every mail: to whom, about what, in which state and why, and what the mail server said last.

-- Every mail planned for a day up to this one, as it stands now. Items that left a digest before it was sent stand in
-- released, each with its reason; invoice_numbers and amounts are what the mail speaks of.
create or replace function report.reminders(as_of date)
returns table (
    reminder_id bigint, as_of date, customer_number text, customer_name text, stage text, sequence integer, state text,
    state_reason text, reason_code text, recipient_email text, recipient_reason text, cc text, language text, subject text,
    invoice_numbers text[], amounts jsonb, released jsonb, needs_approval boolean, approved_by text, attempts integer,
    next_attempt_at timestamptz, planned_at timestamptz, sent_at timestamptz, mode text, smtp_code integer,
    smtp_answer text, message_id text, thread_message_id text, rule_id text, rule_version integer, run_id bigint,
    updated_at timestamptz
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select r.reminder_id, r.as_of, o.customer_number, o.name, r.stage, r.sequence, r.state,
           r.state_reason, substring(r.state_reason from '^([a-z_]+)(?::| as |$)'), r.recipient_email, r.recipient_reason, r.cc, r.language, r.subject,
           i.numbers, i.amounts, i.released, r.needs_approval, r.approved_by, r.attempts,
           r.next_attempt_at, r.planned_at, r.sent_at, d.mode, d.smtp_code,
           d.smtp_answer, r.message_id, r.thread_message_id, r.rule_id, r.rule_version, r.run_id, r.updated_at
    from outbox.reminders r
    join crm.organizations o on o.organization_id = r.organization_id
    left join lateral (
        select array_agg(v.invoice_number order by x.due_on, v.invoice_number)
                   filter (where x.released_at is null or r.state = 'cancelled') as numbers,
               (select jsonb_object_agg(s.currency, s.amount::text)
                from (select y.currency, sum(y.open_amount) as amount from outbox.reminder_items y
                      where y.reminder_id = r.reminder_id and (y.released_at is null or r.state = 'cancelled')
                      group by y.currency) s) as amounts,
               jsonb_agg(jsonb_build_object('invoice_number', v.invoice_number, 'reason', x.release_reason)
                         order by x.due_on, v.invoice_number) filter (where x.released_at is not null) as released
        from outbox.reminder_items x join crm.invoices v on v.invoice_id = x.invoice_id
        where x.reminder_id = r.reminder_id) i on true
    left join lateral (
        select e.mode, e.smtp_code, e.smtp_answer from outbox.deliveries e
        where e.reminder_id = r.reminder_id order by e.delivery_id desc limit 1) d on true
    where r.as_of <= reminders.as_of;
end;

create or replace view report.reminders as
select * from report.reminders('infinity'::date);

create or replace view report.reminder_deliveries as
select d.delivery_id, d.reminder_id, r.as_of, o.customer_number, r.stage, d.attempt, d.recipient_email, d.outcome,
       d.smtp_code, d.smtp_answer, d.mode, d.at, d.eml_path
from outbox.deliveries d
join outbox.reminders r on r.reminder_id = d.reminder_id
join crm.organizations o on o.organization_id = r.organization_id;

-- Addresses to which nothing is sent, and since when.
create or replace view report.suppressions as
select s.suppression_id, s.email, s.kind, s.count, s.since, s.until, s.reason from outbox.suppressions s;

-- The queue in one line: unknown is a person's work, and so is what waits for approval or was refused this week.
create or replace view report.status_outbox as
select 'reminders' as area,
       case when q.unknown > 0 then 'red' when q.refused + q.approval + q.held + q.deferred > 0 then 'yellow'
            when q.all_mails = 0 then 'grey' else 'green' end as colour,
       case when q.unknown > 0 then q.unknown || ' mail(s) may or may not have arrived'
            when q.refused > 0 then q.refused || ' mail(s) were refused or came back this week'
            when q.approval > 0 then q.approval || ' mail(s) wait for approval'
            when q.held > 0 then q.held || ' mail(s) are held back'
            when q.deferred > 0 then q.deferred || ' mail(s) are to be tried again'
            when q.all_mails = 0 then 'no reminder was planned yet' else 'no mail waits for anybody' end as headline,
       'unknown ' || q.unknown || ', refused or returned ' || q.refused || ', waiting for approval ' || q.approval
           || ', held ' || q.held || ', deferred ' || q.deferred || ', sent in 7 days ' || q.sent as reason,
       case when q.unknown > 0 then 'kontor reminders resolve ID --as sent|not-sent --reason WHY'
            when q.approval > 0 then 'kontor reminders approve'
            when q.refused + q.held + q.deferred > 0 then 'kontor report reminders' end as next_command
from (
    select count(*) as all_mails,
           count(*) filter (where state = 'unknown') as unknown,
           count(*) filter (where state in ('refused', 'bounced') and updated_at > now() - interval '7 days') as refused,
           count(*) filter (where state = 'planned' and needs_approval) as approval,
           count(*) filter (where state = 'held') as held,
           count(*) filter (where state = 'deferred') as deferred,
           count(*) filter (where state = 'sent' and sent_at > now() - interval '7 days') as sent
    from outbox.reminders) q;
