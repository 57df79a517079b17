-- What is left to pay of each open item on a day: what accounting's newest word says, less the money that came in and
-- was matched to the item after that word. Reminders ask this function, when they are planned and before they leave.
-- Example: the list of 5 March has 100.00 open; a payment of 6 March is matched with 40.00. On 5 March 100.00 are left,
-- from 6 March on 60.00, and from the list of 12 March on whatever that list says.
create or replace function crm.balances_at(as_of date)
returns table (
    invoice_id bigint, organization_id bigint, source text, invoice_number text, document_type text, issued_on date,
    due_on date, currency text, open_amount numeric, disputed boolean
)
language sql stable
begin atomic
    select i.invoice_id, i.organization_id, i.source, i.invoice_number, i.document_type, i.issued_on, i.due_on,
           i.currency, i.open_amount - coalesce(m.amount, 0), i.disputed
    from crm.open_items_at(balances_at.as_of) i
    left join (
        select a.invoice_id, sum(a.amount) as amount
        from crm.allocations a
        join crm.invoices n on n.invoice_id = a.invoice_id
        left join (
            select f.source, max(f.as_of) as said_on
            from landing.feed_files f
            where f.state = 'applied' and f.feed in ('open_items', 'settled_items') and f.as_of <= balances_at.as_of
            group by f.source
        ) s on s.source = n.source
        where a.allocated_on <= balances_at.as_of and (s.said_on is null or a.allocated_on > s.said_on)
        group by a.invoice_id
    ) m on m.invoice_id = i.invoice_id
    where i.document_type = 'credit_note' or i.open_amount > coalesce(m.amount, 0);
end;

-- Money that came in by that day and belongs to no invoice yet, per customer and currency.
create or replace function crm.unmatched_money_at(as_of date)
returns table (organization_id bigint, currency text, amount numeric)
language sql stable
begin atomic
    select p.organization_id, p.currency, sum(p.amount - coalesce(a.amount, 0))
    from crm.payments p
    left join (
        select payment_id, sum(amount) as amount from crm.allocations
        where allocated_on <= unmatched_money_at.as_of group by payment_id
    ) a on a.payment_id = p.payment_id
    where p.received_on <= unmatched_money_at.as_of
    group by p.organization_id, p.currency
    having sum(p.amount - coalesce(a.amount, 0)) > 0;
end;

-- The newest day that each source of items has spoken about.
create or replace function crm.freshness_at(as_of date)
returns table (source text, newest_as_of date)
language sql stable
begin atomic
    select f.source, max(f.as_of)
    from landing.feed_files f
    where f.state = 'applied' and f.feed in ('open_items', 'settled_items') and f.as_of <= freshness_at.as_of
    group by f.source;
end;
