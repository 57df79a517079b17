-- Who owes what. Views answer for today (in the business time zone), functions of the same name for a past day.

-- Every open item with its customer. The functions of schema crm are no walls to the planner, as those of schema report
-- are, which answer with their owner's rights: what asks them for a part reads that part.
create or replace function crm.owed_at(as_of date)
returns table (
    invoice_id bigint, organization_id bigint, customer_number text, customer_name text, invoice_number text,
    document_type text, issued_on date, due_on date, currency text, amount numeric, open_amount numeric,
    disputed boolean, days_overdue integer, source text, note text
)
language sql stable parallel safe
begin atomic
    select i.invoice_id, i.organization_id, o.customer_number, o.name, i.invoice_number,
           i.document_type, i.issued_on, i.due_on, i.currency, i.amount, i.open_amount,
           i.disputed, case when i.document_type = 'invoice' then greatest(owed_at.as_of - i.due_on, 0) else 0 end,
           i.source, i.note
    from crm.open_items_at(owed_at.as_of) i
    join crm.organizations o on o.organization_id = i.organization_id;
end;

-- Only what the mail server took counts as reminded; the newest by its step, since steps only rise. Asked per invoice,
-- so that years of reminders cost nothing where few invoices are shown.
create or replace function crm.last_reminder_of(invoice_id bigint, as_of date)
returns table (stage text, sent_at timestamptz)
language sql stable parallel safe
begin atomic
    select x.stage, m.sent_at
    from outbox.reminder_items x join outbox.reminders m on m.reminder_id = x.reminder_id
    where x.invoice_id = last_reminder_of.invoice_id and x.released_at is null
      and m.state = 'sent' and m.as_of <= last_reminder_of.as_of
    order by array_position(array['upcoming', 'first', 'second', 'final'], x.stage) desc, x.sequence desc
    limit 1;
end;

create or replace function crm.open_invoices_at(as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, open_amount numeric, disputed boolean, days_overdue integer, payer_class text,
    last_stage text, last_reminded_at timestamptz, source text, note text
)
language sql stable parallel safe
begin atomic
    select i.customer_number, i.customer_name, i.invoice_number, i.document_type, i.issued_on, i.due_on,
           i.currency, i.amount, i.open_amount, i.disputed, i.days_overdue, coalesce(c.payer_class, 'unrated'),
           r.stage, r.sent_at, i.source, i.note
    from crm.owed_at(open_invoices_at.as_of) i
    left join ops.payer_class_history c
        on c.organization_id = i.organization_id and c.valid_from <= open_invoices_at.as_of
        and (c.valid_until is null or c.valid_until > open_invoices_at.as_of)
    left join lateral crm.last_reminder_of(i.invoice_id, open_invoices_at.as_of) r on true;
end;

create or replace function report.open_invoices(as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, open_amount numeric, disputed boolean, days_overdue integer, payer_class text,
    last_stage text, last_reminded_at timestamptz, source text, note text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select * from crm.open_invoices_at(open_invoices.as_of);
end;

-- Of one customer.
create or replace function report.open_invoices(customer_number text, as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, open_amount numeric, disputed boolean, days_overdue integer, payer_class text,
    last_stage text, last_reminded_at timestamptz, source text, note text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select i.customer_number, i.customer_name, i.invoice_number, i.document_type, i.issued_on, i.due_on,
           i.currency, i.amount, i.open_amount, i.disputed, i.days_overdue, coalesce(c.payer_class, 'unrated'),
           r.stage, r.sent_at, i.source, i.note
    from (
        select * from crm.owed_at(open_invoices.as_of) i
        where i.organization_id = (
            select o.organization_id from crm.organizations o where o.customer_number = open_invoices.customer_number)) i
    left join ops.payer_class_history c
        on c.organization_id = i.organization_id and c.valid_from <= open_invoices.as_of
        and (c.valid_until is null or c.valid_until > open_invoices.as_of)
    left join lateral crm.last_reminder_of(i.invoice_id, open_invoices.as_of) r on true;
end;

-- The first so many in reading order, found before class and reminder are asked for.
create or replace function report.open_invoices(first_rows integer, as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, open_amount numeric, disputed boolean, days_overdue integer, payer_class text,
    last_stage text, last_reminded_at timestamptz, source text, note text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select i.customer_number, i.customer_name, i.invoice_number, i.document_type, i.issued_on, i.due_on,
           i.currency, i.amount, i.open_amount, i.disputed, i.days_overdue, coalesce(c.payer_class, 'unrated'),
           r.stage, r.sent_at, i.source, i.note
    from (
        -- Offset: or else customers would be gone through in their order, and all items looked at for each.
        select * from (select * from crm.owed_at(open_invoices.as_of) offset 0) i
        order by i.customer_number, i.due_on, i.invoice_number limit open_invoices.first_rows) i
    left join ops.payer_class_history c
        on c.organization_id = i.organization_id and c.valid_from <= open_invoices.as_of
        and (c.valid_until is null or c.valid_until > open_invoices.as_of)
    left join lateral crm.last_reminder_of(i.invoice_id, open_invoices.as_of) r on true;
end;

create or replace view report.open_invoices as
select * from report.open_invoices(ops.business_today());

-- Overdue: an invoice (not a credit note) with something left to pay, whose due date lies before the day.
-- Due on 5 March: not overdue on 5 March, one day overdue on 6 March.
create or replace function report.overdue_invoices(as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, open_amount numeric, disputed boolean, days_overdue integer, payer_class text,
    last_stage text, last_reminded_at timestamptz, source text, note text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select * from crm.open_invoices_at(overdue_invoices.as_of) i
    where i.days_overdue > 0 and i.open_amount > 0;
end;

-- Of one customer.
create or replace function report.overdue_invoices(customer_number text, as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, open_amount numeric, disputed boolean, days_overdue integer, payer_class text,
    last_stage text, last_reminded_at timestamptz, source text, note text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select * from report.open_invoices(overdue_invoices.customer_number, overdue_invoices.as_of) i
    where i.days_overdue > 0 and i.open_amount > 0;
end;

-- The first so many in reading order, as above.
create or replace function report.overdue_invoices(first_rows integer, as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, open_amount numeric, disputed boolean, days_overdue integer, payer_class text,
    last_stage text, last_reminded_at timestamptz, source text, note text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select i.customer_number, i.customer_name, i.invoice_number, i.document_type, i.issued_on, i.due_on,
           i.currency, i.amount, i.open_amount, i.disputed, i.days_overdue, coalesce(c.payer_class, 'unrated'),
           r.stage, r.sent_at, i.source, i.note
    from (
        select * from crm.owed_at(overdue_invoices.as_of) i
        where i.days_overdue > 0 and i.open_amount > 0
        order by i.days_overdue desc, i.customer_number, i.invoice_number limit overdue_invoices.first_rows) i
    left join ops.payer_class_history c
        on c.organization_id = i.organization_id and c.valid_from <= overdue_invoices.as_of
        and (c.valid_until is null or c.valid_until > overdue_invoices.as_of)
    left join lateral crm.last_reminder_of(i.invoice_id, overdue_invoices.as_of) r on true;
end;

create or replace view report.overdue_invoices as
select * from report.overdue_invoices(ops.business_today());

-- Sums per customer and currency. Credit notes reduce not_due: they are never themselves overdue.
create or replace function report.aging(as_of date)
returns table (
    customer_number text, currency text, not_due numeric, days_1_30 numeric, days_31_60 numeric, days_61_90 numeric,
    days_over_90 numeric, customer_name text, total numeric
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    with owed as (
        select i.organization_id, i.currency, i.open_amount,
               case when i.document_type = 'invoice' then aging.as_of - i.due_on else 0 end as days
        from crm.open_items_at(aging.as_of) i
    ), sums as (
        select organization_id, currency,
               coalesce(sum(open_amount) filter (where days <= 0), 0) as not_due,
               coalesce(sum(open_amount) filter (where days between 1 and 30), 0) as days_1_30,
               coalesce(sum(open_amount) filter (where days between 31 and 60), 0) as days_31_60,
               coalesce(sum(open_amount) filter (where days between 61 and 90), 0) as days_61_90,
               coalesce(sum(open_amount) filter (where days > 90), 0) as days_over_90,
               sum(open_amount) as total
        from owed group by organization_id, currency
    )
    select o.customer_number, s.currency, s.not_due, s.days_1_30, s.days_31_60, s.days_61_90, s.days_over_90,
           o.name, s.total
    from sums s join crm.organizations o on o.organization_id = s.organization_id;
end;

create or replace view report.aging as
select * from report.aging(ops.business_today());

-- What was settled after one day and by another; a short period reads little.
create or replace function report.settled_invoices(since date, as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, disputed boolean, settled_after date, settled_by date, settled_on date,
    days_late integer, source text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select o.customer_number, o.name, s.invoice_number, s.document_type, s.issued_on, s.due_on,
           s.currency, s.amount, s.disputed, s.settled_after, s.settled_by, s.settled_on,
           greatest(s.settled_after + 1 - s.due_on, 0), s.source
    from crm.settlements_between(settled_invoices.since, settled_invoices.as_of) s
    join crm.organizations o on o.organization_id = s.organization_id;
end;

create or replace function report.settled_invoices(as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, disputed boolean, settled_after date, settled_by date, settled_on date,
    days_late integer, source text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select * from report.settled_invoices('-infinity'::date, settled_invoices.as_of);
end;

-- Of one customer.
create or replace function report.settled_invoices(customer_number text, since date, as_of date)
returns table (
    customer_number text, customer_name text, invoice_number text, document_type text, issued_on date, due_on date,
    currency text, amount numeric, disputed boolean, settled_after date, settled_by date, settled_on date,
    days_late integer, source text
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select o.customer_number, o.name, s.invoice_number, s.document_type, s.issued_on, s.due_on,
           s.currency, s.amount, s.disputed, s.settled_after, s.settled_by, s.settled_on,
           greatest(s.settled_after + 1 - s.due_on, 0), s.source
    from crm.settlements_between(settled_invoices.since, settled_invoices.as_of) s
    join crm.organizations o on o.organization_id = s.organization_id
    where s.organization_id = (
        select n.organization_id from crm.organizations n where n.customer_number = settled_invoices.customer_number);
end;

create or replace view report.settled_invoices as
select * from report.settled_invoices(ops.business_today());

create or replace function report.payer_classes(as_of date)
returns table (
    customer_number text, payer_class text, colour text, reason text, rule_id text, rule_version integer,
    decided_at timestamptz, customer_name text, valid_from date, figures jsonb
)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select o.customer_number, c.payer_class,
           case c.payer_class when 'strict' then 'green' when 'hesitant' then 'yellow' when 'disloyal' then 'red' else 'grey' end,
           c.reason, c.rule_id, c.rule_version, c.decided_at, o.name, c.valid_from, c.figures
    from ops.payer_class_history c
    join crm.organizations o on o.organization_id = c.organization_id
    where c.valid_from <= payer_classes.as_of and (c.valid_until is null or c.valid_until > payer_classes.as_of);
end;

create or replace view report.payer_classes as
select * from report.payer_classes(ops.business_today());
