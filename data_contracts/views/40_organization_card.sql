-- Everything about one customer in one row of JSON, as of a day.

create or replace function report.organization_card(customer_number text, as_of date)
returns table (customer_number text, card jsonb)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select o.customer_number, jsonb_build_object(
        'customer_number', o.customer_number, 'name', o.name, 'country', o.country, 'language', o.language,
        'vat_number', o.vat_number, 'currency', o.currency, 'payment_terms_days', o.payment_terms_days,
        'segment', o.segment, 'owner', o.owner, 'origin', o.origin, 'as_of', organization_card.as_of,
        'payer_class', (
            select jsonb_build_object(
                'payer_class', c.payer_class, 'reason', c.reason, 'rule_id', c.rule_id,
                'rule_version', c.rule_version, 'since', c.valid_from, 'figures', c.figures)
            from ops.payer_class_history c
            where c.organization_id = o.organization_id and c.valid_from <= organization_card.as_of
              and (c.valid_until is null or c.valid_until > organization_card.as_of)),
        'contacts', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'first_name', p.first_name, 'last_name', p.last_name, 'email', p.email, 'phone', p.phone,
                'language', p.language, 'roles', (
                    select coalesce(jsonb_agg(jsonb_build_object(
                        'role', r.role, 'valid_from', lower(r.valid), 'valid_to', upper(r.valid) - 1,
                        'held', r.valid @> organization_card.as_of) order by r.role, r.valid), '[]')
                    from crm.contact_roles r where r.contact_id in (
                        select p.contact_id union all
                        select m.contact_id from crm.contacts m where m.merged_into = p.contact_id))
                ) order by p.contact_key), '[]')
            from crm.contacts p where p.organization_id = o.organization_id and p.merged_into is null),
        'open_items', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'invoice_number', i.invoice_number, 'document_type', i.document_type, 'issued_on', i.issued_on,
                'due_on', i.due_on, 'currency', i.currency, 'amount', i.amount::text,
                'open_amount', i.open_amount::text, 'disputed', i.disputed,
                'days_overdue', case when i.document_type = 'invoice'
                    then greatest(organization_card.as_of - i.due_on, 0) else 0 end
                ) order by i.due_on, i.invoice_number), '[]')
            from crm.open_items_at(organization_card.as_of) i where i.organization_id = o.organization_id),
        'balance', (
            select coalesce(jsonb_object_agg(b.currency, jsonb_build_object(
                'open', b.open::text, 'overdue', b.overdue::text)), '{}')
            from (
                select i.currency, sum(i.open_amount) as open,
                       coalesce(sum(i.open_amount) filter (
                           where i.document_type = 'invoice' and i.due_on < organization_card.as_of), 0) as overdue
                from crm.open_items_at(organization_card.as_of) i
                where i.organization_id = o.organization_id group by i.currency) b),
        'feeds', (
            select coalesce(jsonb_agg(distinct jsonb_build_object(
                'feed', f.feed, 'source', f.source, 'newest_as_of', f.newest_as_of)), '[]')
            from (
                select f.feed, f.source, max(f.as_of) as newest_as_of
                from landing.feed_files f
                where f.state = 'applied' and f.as_of <= organization_card.as_of
                  and (f.feed, f.source) in (
                      select k.feed, k.source from landing.feed_files k where k.feed_file_id = o.feed_file_id
                      union
                      select 'open_items', i.source from crm.invoices i where i.organization_id = o.organization_id
                      union
                      select 'settled_items', i.source from crm.invoices i where i.organization_id = o.organization_id)
                group by f.feed, f.source) f),
        'quarantine', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'file_name', f.file_name, 'row_number', q.row_number, 'reasons', q.reasons)
                order by f.as_of, q.row_number), '[]')
            from landing.quarantined_rows q join landing.feed_files f on f.feed_file_id = q.feed_file_id
            where q.customer_number = o.customer_number and q.state = 'open')
    )
    from crm.organizations o
    where o.customer_number = organization_card.customer_number;
end;

create or replace function report.organization_card(as_of date)
returns table (customer_number text, card jsonb)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select c.customer_number, c.card
    from crm.organizations o
    cross join lateral report.organization_card(o.customer_number, organization_card.as_of) c;
end;

-- The first so many by number, found before their cards are made.
create or replace function report.organization_card(first_rows integer, as_of date)
returns table (customer_number text, card jsonb)
language sql stable security definer set search_path = pg_catalog
begin atomic
    select c.customer_number, c.card
    from (select n.customer_number from crm.organizations n
          order by n.customer_number limit organization_card.first_rows) o
    cross join lateral report.organization_card(o.customer_number, organization_card.as_of) c;
end;

-- Reading one customer's row costs one customer: the name is known before the card is built.
create or replace view report.organization_card as
select o.customer_number, c.card
from crm.organizations o
cross join lateral report.organization_card(o.customer_number, ops.business_today()) c;
