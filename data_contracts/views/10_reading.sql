-- What was owed on a day. Everything that asks "was this open?" asks these functions; they stand in schema crm,
-- are not for people, and are inlined into the queries that use them.

create or replace function ops.business_today() returns date
language sql stable parallel safe security definer set search_path = pg_catalog
return (select (now() at time zone business_timezone)::date from ops.installation);

-- The newest state of every invoice that some snapshot had listed by that day.
-- Where listed_until is on or before the day, the invoice had left the list by then.
-- No invoice is listed from a day that no file speaks of: from the newest file's day on, earlier states are not looked for.
create or replace function crm.newest_states_at(as_of date)
returns table (
    invoice_id bigint, organization_id bigint, source text, invoice_number text,
    document_type text, issued_on date, due_on date, currency text, amount numeric, open_amount numeric,
    disputed boolean, note text, listed_from date, listed_until date
)
language sql stable parallel safe
begin atomic
    select i.invoice_id, i.organization_id, i.source, i.invoice_number,
           i.document_type, i.issued_on, i.due_on, i.currency, i.amount, i.open_amount,
           i.disputed, i.note, i.listed_from, i.listed_until
    from crm.invoices i
    where i.listed_from <= newest_states_at.as_of
    union all
    (select distinct on (s.invoice_id)
            i.invoice_id, i.organization_id, i.source, i.invoice_number,
            s.document_type, s.issued_on, s.due_on, s.currency, s.amount, s.open_amount,
            s.disputed, s.note, s.listed_from, s.listed_until
     from crm.invoice_states s
     join crm.invoices i using (invoice_id)
     where i.listed_from > newest_states_at.as_of and s.listed_from <= newest_states_at.as_of
       and newest_states_at.as_of < (select max(f.as_of) from landing.feed_files f)
     order by s.invoice_id, s.listed_from desc);
end;

-- Per source, the newest complete snapshot on or before that day.
create or replace function crm.newest_snapshots_at(as_of date)
returns table (source text, snapshot_as_of date)
language sql stable parallel safe
begin atomic
    select f.source, max(f.as_of)
    from landing.feed_files f
    where f.state = 'applied' and f.mode = 'snapshot' and f.feed = 'open_items' and f.as_of <= newest_snapshots_at.as_of
    group by f.source;
end;

-- Every complete snapshot beside the one before it.
create or replace function crm.snapshot_pairs()
returns table (source text, snapshot_as_of date, previous_as_of date)
language sql stable parallel safe
begin atomic
    select f.source, f.as_of, lag(f.as_of) over (partition by f.source order by f.as_of)
    from landing.feed_files f
    where f.state = 'applied' and f.mode = 'snapshot' and f.feed = 'open_items';
end;

-- What was open on that day. Two kinds of evidence meet here:
--   a snapshot says what was open on its own day and until the next one;
--   a ledger says of an invoice's whole life, up to the ledger's day, when it was issued and settled.
-- The ledger decides up to its own day and after it until a newer snapshot speaks; otherwise the snapshot decides.
-- Example: ledger of 1 March says settled on 20 February; the snapshot of 24 February still listed the invoice.
-- On 24 February it reads as settled (the ledger knew more). The snapshot of 8 March lists it: reopened on 8 March.
-- Only what can decide is read: entries of ledgers that are older than the oldest of the newest snapshots are passed
-- over before they are joined, and what the lists say is asked per entry that is still open.
create or replace function crm.open_items_at(as_of date)
returns table (
    invoice_id bigint, organization_id bigint, source text, invoice_number text,
    document_type text, issued_on date, due_on date, currency text, amount numeric, open_amount numeric,
    disputed boolean, note text
)
language sql stable parallel safe
begin atomic
    select s.invoice_id, s.organization_id, s.source, s.invoice_number,
           s.document_type, s.issued_on, s.due_on, s.currency, s.amount, s.open_amount, s.disputed, s.note
    from crm.newest_states_at(open_items_at.as_of) s
    left join crm.newest_snapshots_at(open_items_at.as_of) n on n.source = s.source
    where (s.listed_until is null or s.listed_until > open_items_at.as_of)
      and not exists (
        select from crm.ledger_entries l
        where l.invoice_id = s.invoice_id
          and l.as_of >= least(
              open_items_at.as_of, (select min(m.snapshot_as_of) from crm.newest_snapshots_at(open_items_at.as_of) m))
          and (open_items_at.as_of <= l.as_of or n.snapshot_as_of <= l.as_of))
      and (n.snapshot_as_of is not null
           or not exists (select from crm.ledger_entries l where l.invoice_id = s.invoice_id))
    union all
    select i.invoice_id, i.organization_id, i.source, i.invoice_number,
           coalesce(s.document_type, l.document_type), coalesce(s.issued_on, l.issued_on),
           coalesce(s.due_on, l.due_on), coalesce(s.currency, l.currency), coalesce(s.amount, l.amount),
           coalesce(s.open_amount, l.open_amount), coalesce(s.disputed, l.disputed), coalesce(s.note, l.note)
    from crm.ledger_entries l
    join crm.invoices i on i.invoice_id = l.invoice_id
    left join crm.newest_snapshots_at(open_items_at.as_of) n on n.source = i.source
    left join lateral (
        select i.document_type, i.issued_on, i.due_on, i.currency, i.amount, i.open_amount, i.disputed, i.note,
               i.listed_until
        where i.listed_from <= open_items_at.as_of
        union all
        (select t.document_type, t.issued_on, t.due_on, t.currency, t.amount, t.open_amount, t.disputed, t.note,
                t.listed_until
         from crm.invoice_states t
         where i.listed_from > open_items_at.as_of and t.invoice_id = i.invoice_id
           and t.listed_from <= open_items_at.as_of
         order by t.listed_from desc limit 1)) s on s.listed_until is null or s.listed_until > open_items_at.as_of
    where (open_items_at.as_of <= l.as_of or n.snapshot_as_of is null or n.snapshot_as_of <= l.as_of)
      -- Open on the ledger's own day at the latest, even where it bears a later date of issue.
      and least(coalesce(l.issued_on, l.due_on), l.as_of) <= open_items_at.as_of
      and (l.settled_on is null or l.settled_on > open_items_at.as_of);
end;

-- What had been settled by that day but not by the earlier one, with the interval in which it happened: settled_after
-- is the last day on which the invoice is known to have been open, settled_by the first on which it is known not to
-- have been. A ledger gives the exact day in settled_on; a snapshot only the interval.
-- The bounds stand at each kind of evidence, so that a short period reads little. The lists' newest word on an invoice
-- of a ledger is asked per invoice (its row, or an earlier state where the row is newer than the day), as
-- crm.newest_states_at says it of all: joining all states to a million entries took seconds.
create or replace function crm.settlements_between(since date, as_of date)
returns table (
    invoice_id bigint, organization_id bigint, source text, invoice_number text,
    document_type text, issued_on date, due_on date, currency text, amount numeric, disputed boolean,
    settled_after date, settled_by date, settled_on date
)
language sql stable parallel safe
begin atomic
    -- The lists saw it last: no ledger knows the invoice, or a list after the ledger's day still had it.
    select s.invoice_id, s.organization_id, s.source, s.invoice_number,
           s.document_type, s.issued_on, s.due_on, s.currency, s.amount, s.disputed,
           p.previous_as_of, s.listed_until, null::date
    from crm.newest_states_at(settlements_between.as_of) s
    join crm.snapshot_pairs() p on p.source = s.source and p.snapshot_as_of = s.listed_until
    left join crm.ledger_entries l on l.invoice_id = s.invoice_id
    where s.listed_until > settlements_between.since and s.listed_until <= settlements_between.as_of
      and (l.invoice_id is null or p.previous_as_of > l.as_of)
    union all
    -- The ledger saw it last and names the day.
    select i.invoice_id, i.organization_id, i.source, i.invoice_number,
           l.document_type, l.issued_on, l.due_on, l.currency, l.amount, l.disputed or coalesce(s.disputed, false),
           l.settled_on - 1, l.settled_on, l.settled_on
    from crm.ledger_entries l
    join crm.invoices i on i.invoice_id = l.invoice_id
    left join crm.newest_snapshots_at(settlements_between.as_of) n on n.source = i.source
    left join lateral (
        select i.disputed, i.listed_until where i.listed_from <= settlements_between.as_of
        union all
        (select t.disputed, t.listed_until from crm.invoice_states t
         where i.listed_from > settlements_between.as_of and t.invoice_id = i.invoice_id
           and t.listed_from <= settlements_between.as_of
         order by t.listed_from desc limit 1)) s on true
    left join crm.snapshot_pairs() p
        on p.source = i.source and p.snapshot_as_of = s.listed_until and s.listed_until <= settlements_between.as_of
    where l.settled_on > settlements_between.since and l.settled_on <= settlements_between.as_of
      and (p.previous_as_of is null or p.previous_as_of <= l.as_of)
      and (s.disputed is null or s.listed_until <= settlements_between.as_of
           or n.snapshot_as_of is null or n.snapshot_as_of <= l.as_of)
    union all
    -- The ledger saw it last: it had it open on its own day, and the next list did not.
    select i.invoice_id, i.organization_id, i.source, i.invoice_number,
           l.document_type, l.issued_on, l.due_on, l.currency, l.amount, l.disputed or coalesce(s.disputed, false),
           l.as_of, x.snapshot_as_of, null::date
    from crm.ledger_entries l
    join crm.invoices i on i.invoice_id = l.invoice_id
    join crm.snapshot_pairs() x
        on x.source = i.source and x.snapshot_as_of > l.as_of
        and coalesce(x.previous_as_of, '-infinity'::date) <= l.as_of
    left join lateral (
        select i.disputed, i.listed_until where i.listed_from <= settlements_between.as_of
        union all
        (select t.disputed, t.listed_until from crm.invoice_states t
         where i.listed_from > settlements_between.as_of and t.invoice_id = i.invoice_id
           and t.listed_from <= settlements_between.as_of
         order by t.listed_from desc limit 1)) s on true
    left join crm.newest_snapshots_at(settlements_between.as_of) n on n.source = i.source
    left join crm.snapshot_pairs() p
        on p.source = i.source and p.snapshot_as_of = s.listed_until and s.listed_until <= settlements_between.as_of
    where l.settled_on is null
      and x.snapshot_as_of > settlements_between.since and x.snapshot_as_of <= settlements_between.as_of
      and (p.previous_as_of is null or p.previous_as_of <= l.as_of)
      and (s.disputed is null or s.listed_until <= settlements_between.as_of
           or n.snapshot_as_of is null or n.snapshot_as_of <= l.as_of);
end;

-- Everything that had been settled by that day.
create or replace function crm.settlements_at(as_of date)
returns table (
    invoice_id bigint, organization_id bigint, source text, invoice_number text,
    document_type text, issued_on date, due_on date, currency text, amount numeric, disputed boolean,
    settled_after date, settled_by date, settled_on date
)
language sql stable parallel safe
begin atomic
    select * from crm.settlements_between('-infinity'::date, settlements_at.as_of);
end;
