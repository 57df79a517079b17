-- What finance reads once a week. Each figure follows report.open_invoices, report.overdue_invoices and report.aging:
-- the same day gives the same sums. Views answer for today, functions of the same names for a past day.

-- One line per currency; sums never cross currencies. The last twelve columns are those of report.aging.
--   overdue           invoices with something left to pay, due before the day
--   newly_overdue     of them, due within the seven days before it
--   due_soon          invoices due on the day or within the seven days after it
--   credit            credit notes that are open; a negative sum
create or replace function report.finance_totals(as_of date)
returns table (
    currency text, open_invoices bigint, open_amount numeric, overdue_invoices bigint, overdue_customers bigint,
    overdue_amount numeric, newly_overdue_invoices bigint, newly_overdue_amount numeric, due_soon_invoices bigint,
    due_soon_amount numeric, disputed_invoices bigint, disputed_amount numeric, credit_amount numeric,
    oldest_days_overdue integer, not_due numeric, days_1_30 numeric, days_31_60 numeric, days_61_90 numeric,
    days_over_90 numeric
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    with owed as (
        select i.organization_id, i.currency, i.open_amount, i.disputed, i.document_type = 'invoice' as is_invoice,
               case when i.document_type = 'invoice' then finance_totals.as_of - i.due_on else 0 end as days,
               i.document_type = 'invoice' and i.open_amount > 0 and i.due_on < finance_totals.as_of as is_overdue,
               i.document_type = 'invoice' and i.open_amount > 0
                   and i.due_on between finance_totals.as_of and finance_totals.as_of + 7 as is_due_soon
        from crm.open_items_at(finance_totals.as_of) i
    -- Summed up per customer first: customers are then counted without sorting the items.
    ), sums as (
        select currency, organization_id, count(*) as items, sum(open_amount) as total,
               count(*) filter (where is_overdue) as overdue_items,
               coalesce(sum(open_amount) filter (where is_overdue), 0) as overdue,
               count(*) filter (where is_overdue and days <= 7) as newly_items,
               coalesce(sum(open_amount) filter (where is_overdue and days <= 7), 0) as newly,
               count(*) filter (where is_due_soon) as soon_items,
               coalesce(sum(open_amount) filter (where is_due_soon), 0) as soon,
               count(*) filter (where disputed) as disputed_items,
               coalesce(sum(open_amount) filter (where disputed), 0) as in_dispute,
               coalesce(sum(open_amount) filter (where not is_invoice), 0) as credit,
               coalesce(max(days) filter (where is_overdue), 0) as oldest,
               coalesce(sum(open_amount) filter (where days <= 0), 0) as not_due,
               coalesce(sum(open_amount) filter (where days between 1 and 30), 0) as days_1_30,
               coalesce(sum(open_amount) filter (where days between 31 and 60), 0) as days_31_60,
               coalesce(sum(open_amount) filter (where days between 61 and 90), 0) as days_61_90,
               coalesce(sum(open_amount) filter (where days > 90), 0) as days_over_90
        from owed group by currency, organization_id
    )
    select currency, sum(items)::bigint, sum(total), sum(overdue_items)::bigint,
           count(*) filter (where overdue_items > 0), sum(overdue), sum(newly_items)::bigint, sum(newly),
           sum(soon_items)::bigint, sum(soon), sum(disputed_items)::bigint, sum(in_dispute), sum(credit), max(oldest),
           sum(not_due), sum(days_1_30), sum(days_31_60), sum(days_61_90), sum(days_over_90)
    from sums group by currency;
end;

create or replace view report.finance_totals as
select * from report.finance_totals(ops.business_today());

-- What falls due on the day or within the seven days after it.
create or replace function report.due_soon(as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, open_amount numeric, disputed boolean, days_overdue integer, payer_class text,
    last_stage text, last_reminded_at timestamptz, source text, note text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select * from crm.open_invoices_at(due_soon.as_of) i
    where i.document_type = 'invoice' and i.open_amount > 0 and i.due_on between due_soon.as_of and due_soon.as_of + 7;
end;

create or replace view report.due_soon as
select * from report.due_soon(ops.business_today());

-- Days sales outstanding, as the Credit Research Foundation defines it: receivables at the end of the period, divided
-- by the sales on credit of the period, times its days; here the 90 days that end with the day. Best possible DSO is
-- the same with what is not yet due; the difference is what customers' lateness costs, average days delinquent.
-- Sales are all invoices and credit notes issued in the period that any file has told of by that day; documents
-- without a date of issue are left out and counted. An invoice that was issued and paid between two lists was never
-- listed: where a ledger of settled items does not tell of it, sales read too low and DSO too high.
create or replace function report.dso(as_of date)
returns table (
    currency text, period_days integer, receivables numeric, receivables_not_due numeric, sales numeric, dso numeric,
    best_possible_dso numeric, average_days_delinquent numeric, documents bigint, without_issue_date bigint
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    with sold as (
        select s.currency, s.amount, s.issued_on
        from crm.newest_states_at(dso.as_of) s
        where not exists (select from crm.ledger_entries l where l.invoice_id = s.invoice_id)
          and (s.issued_on is null or s.issued_on between dso.as_of - 89 and dso.as_of)
        union all
        select l.currency, l.amount, l.issued_on
        from crm.ledger_entries l
        where coalesce(l.issued_on, l.due_on) between dso.as_of - 89 and dso.as_of
    ), sales as (
        select currency, sum(amount) filter (where issued_on is not null) as sales,
               count(*) filter (where issued_on is not null) as documents,
               count(*) filter (where issued_on is null) as without_issue_date
        from sold group by currency
    ), owed as (
        select i.currency, sum(i.open_amount) as total,
               sum(i.open_amount) filter (where i.document_type <> 'invoice' or i.due_on >= dso.as_of) as not_due
        from crm.open_items_at(dso.as_of) i group by i.currency
    )
    select coalesce(o.currency, s.currency), 90, coalesce(o.total, 0), coalesce(o.not_due, 0), coalesce(s.sales, 0),
           case when s.sales > 0 then round(90 * coalesce(o.total, 0) / s.sales, 1) end,
           case when s.sales > 0 then round(90 * coalesce(o.not_due, 0) / s.sales, 1) end,
           case when s.sales > 0 then round(90 * (coalesce(o.total, 0) - coalesce(o.not_due, 0)) / s.sales, 1) end,
           coalesce(s.documents, 0), coalesce(s.without_issue_date, 0)
    from owed o full join sales s on s.currency = o.currency;
end;

create or replace view report.dso as
select * from report.dso(ops.business_today());

-- Whose class is another one than it was on an earlier day, and why. Who was never classed before was unrated.
create or replace function report.payer_class_changes(since date, as_of date)
returns table (
    customer_number text, customer_name text, class_before text, colour_before text, payer_class text, colour text,
    changed_on date, reason text, rule_id text, rule_version integer
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    with changed as (
        select c.organization_id, coalesce(b.payer_class, 'unrated') as class_before, c.payer_class, c.valid_from,
               c.reason, c.rule_id, c.rule_version
        from ops.payer_class_history c
        left join ops.payer_class_history b
            on b.organization_id = c.organization_id and b.valid_from <= payer_class_changes.since
            and (b.valid_until is null or b.valid_until > payer_class_changes.since)
        where c.valid_from <= payer_class_changes.as_of
          and (c.valid_until is null or c.valid_until > payer_class_changes.as_of)
          and c.valid_from > payer_class_changes.since
    )
    select o.customer_number, o.name, c.class_before,
           case c.class_before when 'strict' then 'green' when 'hesitant' then 'yellow' when 'disloyal' then 'red' else 'grey' end,
           c.payer_class,
           case c.payer_class when 'strict' then 'green' when 'hesitant' then 'yellow' when 'disloyal' then 'red' else 'grey' end,
           c.valid_from, c.reason, c.rule_id, c.rule_version
    from changed c
    join crm.organizations o on o.organization_id = c.organization_id
    where c.class_before <> c.payer_class;
end;

-- The same for one day beside the day a week before it.
create or replace function report.payer_class_changes(as_of date)
returns table (
    customer_number text, customer_name text, class_before text, colour_before text, payer_class text, colour text,
    changed_on date, reason text, rule_id text, rule_version integer
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select * from report.payer_class_changes(payer_class_changes.as_of - 7, payer_class_changes.as_of);
end;

create or replace view report.payer_class_changes as
select * from report.payer_class_changes(ops.business_today());

-- Money in rows that could not be read, per currency; a row whose amount or currency cannot be read is counted alone.
-- Rows of files up to the day that wait, or were resolved after it (in the business time zone).
create or replace function report.quarantined_money(as_of date)
returns table (currency text, rows bigint, amount numeric, without_amount bigint)
language sql stable security definer set search_path = pg_catalog
begin atomic
    with waiting as (
        select q.staged ->> 'currency' as currency,
               coalesce(q.staged ->> 'open_amount', q.staged ->> 'amount')::numeric as amount
        from landing.quarantined_rows q
        join landing.feed_files f on f.feed_file_id = q.feed_file_id
        cross join ops.installation i
        where f.feed = 'open_items' and f.as_of <= quarantined_money.as_of
          and (q.state = 'open'
               or (q.resolved_at at time zone i.business_timezone)::date > quarantined_money.as_of)
    )
    select w.currency, count(*), coalesce(sum(w.amount), 0), count(*) filter (where w.amount is null)
    from waiting w group by w.currency;
end;

create or replace view report.quarantined_money as
select * from report.quarantined_money(ops.business_today());

-- What became of reminders planned for the days after one day up to another: one line per mail and currency. States
-- are those of now, because what a mail server said yesterday is not undone by asking for the day before. The code is
-- what reasons are counted by: paid, credited, disputed, server …; the reason itself may name a file or quote an answer.
create or replace function report.reminder_outcomes(since date, as_of date)
returns table (
    as_of date, customer_number text, customer_name text, stage text, sequence integer, state text, state_reason text,
    currency text, invoices bigint, open_amount numeric, language text, recipient_reason text, sent_at timestamptz,
    reminder_id bigint, reason_code text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select r.as_of, o.customer_number, o.name, r.stage, r.sequence, r.state, r.state_reason, i.currency, i.invoices,
           i.open_amount, r.language, r.recipient_reason, r.sent_at, r.reminder_id,
           substring(r.state_reason from '^([a-z_]+)(?::| as |$)')
    from outbox.reminders r
    join crm.organizations o on o.organization_id = r.organization_id
    cross join lateral (
        select t.currency, count(*) as invoices, sum(t.open_amount) as open_amount
        from outbox.reminder_items t where t.reminder_id = r.reminder_id group by t.currency) i
    where r.as_of > reminder_outcomes.since and r.as_of <= reminder_outcomes.as_of;
end;

create or replace function report.reminder_outcomes(as_of date)
returns table (
    as_of date, customer_number text, customer_name text, stage text, sequence integer, state text, state_reason text,
    currency text, invoices bigint, open_amount numeric, language text, recipient_reason text, sent_at timestamptz,
    reminder_id bigint, reason_code text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select * from report.reminder_outcomes(reminder_outcomes.as_of - 7, reminder_outcomes.as_of);
end;

create or replace view report.reminder_outcomes as
select * from report.reminder_outcomes(ops.business_today());

-- Who is not reminded although something is overdue, and why: what the newest plan up to the day decided.
create or replace function report.reminders_withheld(as_of date)
returns table (
    customer_number text, customer_name text, decision text, reason_code text, reason text, decided_for date
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select o.customer_number, o.name, d.decision, d.reason_code, d.reason, d.as_of
    from (
        select distinct on (r.organization_id) r.organization_id, r.decision, r.reason_code, r.reason, r.as_of
        from ops.reminder_decisions r
        where r.as_of = (select max(m.as_of) from ops.reminder_decisions m where m.as_of <= reminders_withheld.as_of)
        order by r.organization_id, r.decision_id desc) d
    join crm.organizations o on o.organization_id = d.organization_id
    where d.decision in ('hold', 'task');
end;

create or replace view report.reminders_withheld as
select * from report.reminders_withheld(ops.business_today());

-- What a person has to do before a customer can be reminded again.
create or replace function report.tasks_waiting(as_of date)
returns table (
    customer_number text, customer_name text, kind text, owner text, details text, opened_for date, task_id bigint
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select o.customer_number, o.name, t.kind, coalesce(t.owner, o.owner), t.details, t.as_of, t.task_id
    from ops.reminder_tasks t
    left join crm.organizations o on o.organization_id = t.organization_id
    cross join ops.installation i
    where t.as_of <= tasks_waiting.as_of
      and (t.closed_at is null or (t.closed_at at time zone i.business_timezone)::date > tasks_waiting.as_of);
end;

create or replace view report.tasks_waiting as
select * from report.tasks_waiting(ops.business_today());

-- What is about to leave for customers: mails of the day or before it that wait, one line per mail and currency.
create or replace function report.reminders_to_leave(as_of date)
returns table (
    reminder_id bigint, customer_number text, customer_name text, stage text, sequence integer, state text,
    state_reason text, needs_approval boolean, currency text, invoices bigint, open_amount numeric,
    oldest_days_overdue integer, payer_class text, recipient_email text, recipient_reason text, language text,
    rule_id text, rule_version integer, planned_for date
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select r.reminder_id, o.customer_number, o.name, r.stage, r.sequence, r.state,
           r.state_reason, r.needs_approval and r.approved_at is null, i.currency, i.invoices, i.open_amount,
           greatest(reminders_to_leave.as_of - i.oldest_due, 0), coalesce(c.payer_class, 'unrated'), r.recipient_email,
           r.recipient_reason, r.language, r.rule_id, r.rule_version, r.as_of
    from outbox.reminders r
    join crm.organizations o on o.organization_id = r.organization_id
    cross join lateral (
        select t.currency, count(*) as invoices, sum(t.open_amount) as open_amount, min(t.due_on) as oldest_due
        from outbox.reminder_items t
        where t.reminder_id = r.reminder_id and t.released_at is null group by t.currency) i
    left join ops.payer_class_history c
        on c.organization_id = r.organization_id and c.valid_from <= reminders_to_leave.as_of
        and (c.valid_until is null or c.valid_until > reminders_to_leave.as_of)
    where r.state in ('planned', 'held', 'approved', 'deferred') and r.as_of <= reminders_to_leave.as_of;
end;

create or replace view report.reminders_to_leave as
select * from report.reminders_to_leave(ops.business_today());

-- The same by invoice.
create or replace function report.reminder_items_to_leave(as_of date)
returns table (
    reminder_id bigint, customer_number text, customer_name text, invoice_number text, due_on date,
    days_overdue integer, currency text, open_amount numeric, stage text, sequence integer, state text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select r.reminder_id, o.customer_number, o.name, v.invoice_number, t.due_on,
           greatest(reminder_items_to_leave.as_of - t.due_on, 0), t.currency, t.open_amount, t.stage, t.sequence, r.state
    from outbox.reminders r
    join crm.organizations o on o.organization_id = r.organization_id
    join outbox.reminder_items t on t.reminder_id = r.reminder_id and t.released_at is null
    join crm.invoices v on v.invoice_id = t.invoice_id
    where r.state in ('planned', 'held', 'approved', 'deferred') and r.as_of <= reminder_items_to_leave.as_of;
end;

create or replace view report.reminder_items_to_leave as
select * from report.reminder_items_to_leave(ops.business_today());
