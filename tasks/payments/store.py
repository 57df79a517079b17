"""Applying accounting's files to ``crm``: set-based SQL, the same result in any order of arrival.

A snapshot is an observation of every item on one day. Items keep their history as states with a beginning and an
end (see ``data_contracts/tables/crm.py``), so a snapshot that arrives late is spliced into the middle:

    listed in the snapshots of 5, 12 and 19 March with 100.00 open     [5 Mar, …)  100.00
    then the file of 12 March arrives in a corrected revision: 80.00   [5 Mar, 12 Mar) 100.00
                                                                       [12 Mar, 19 Mar) 80.00
                                                                       [19 Mar, …) 100.00

Neighbouring states with the same content are one state, so the stored history is the same whatever the order.
Mails that wait in the queue for what is settled now are cancelled in the same transaction (tasks/outbox_store.py).
An item whose row stands in quarantine was listed, but nobody knows with what: its last known state goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, text

from tasks.feeds.outcomes import Applied, StagedFile
from tasks.feeds.staging_store import ITEM_CONTENT, give_room
from tasks.outbox_store import cancel_settled
from tasks.payments.items_store import (
    AS_THE_LEDGER_SAYS,
    RETIRED,
    create_missing_customers,
    fields_of,
    good_rows,
    item_of,
    request_classification,
)


def apply_snapshot(connection: Connection, staged: StagedFile) -> Applied:
    """Apply the good rows of a complete snapshot: what is new, what changed, what is no longer listed."""
    create_missing_customers(connection, staged)
    return _apply_observations(connection, staged, complete=True)


def apply_replayed(connection: Connection, staged: StagedFile) -> Applied:
    """Apply rows that come back from quarantine as part of the snapshot they stood in; withdrawn ones leave it."""
    create_missing_customers(connection, staged)
    return _apply_observations(connection, staged, complete=False)


def claim_classification(connection: Connection) -> date | None:
    """Take back the word that classes must be decided; the earliest day to decide from, None when they are up to date.

    The word is taken back first and the facts are read afterwards: of what is committed in between either the facts
    are read, or a word of its own stands for the next to claim. If this transaction ends without a commit, the word
    stands as before. Until it ends nobody else decides classes: two flows at once would decide the same days twice.
    """
    connection.execute(text("select pg_advisory_xact_lock(hashtext('kontor classification'))"))
    since: date | None = connection.scalar(text(_CLAIM_CLASSIFICATION))
    return since


# A snapshot speaks from its own day on; a ledger speaks of the whole past.
_CLAIM_CLASSIFICATION = """
with claimed as (
    update landing.feed_files set classification_pending = false where classification_pending returning mode, as_of
)
select min(case when mode = 'snapshot' then as_of
           else (select min(e.as_of) from landing.feed_files e
                 where e.state = 'applied' and e.feed in ('open_items', 'settled_items')) end)
from claimed
"""


def _apply_observations(connection: Connection, staged: StagedFile, *, complete: bool) -> Applied:
    parameters = {
        "source": staged.source,
        "feed": staged.feed,
        "feed_file_id": staged.feed_file_id,
        "as_of": staged.as_of,
        "complete": complete,
        "replaces": staged.replaces,
        "next_as_of": _next_snapshot(connection, staged),
        "withdrawn_customers": [customer for customer, _ in staged.withdrawn],
        "withdrawn_numbers": [number for _, number in staged.withdrawn],
    }
    late = parameters["next_as_of"] is not None
    give_room(connection)
    good = _find_changes(connection, staged, parameters)
    connection.exec_driver_sql("analyze item_change (invoice_id)")
    inserted = connection.execute(text(_INSERT_INVOICES), parameters).rowcount
    moved = _Moved()
    if staged.compared:
        moved += _follow_on(connection, parameters)
    if connection.scalar(text("select exists (select from item_change where invoice_id is not null)")):
        moved += _rebuild_timelines(connection, parameters)
    if staged.replaces:
        # What both revisions say alike is the newer one's word now, as if the older one had never come.
        for table in ("crm.invoices", "crm.invoice_states"):
            connection.execute(text(_MOVE_TO_NEWER_REVISION.format(table=table)), parameters)
    connection.exec_driver_sql("drop table item_change")
    cancel_settled(connection, staged.feed_file_id)
    request_classification(connection, staged)
    rest = good - inserted - moved.updated
    return Applied(
        inserted=inserted,
        updated=moved.updated,
        unchanged=0 if late else rest,
        superseded=rest if late else 0,
        settled=moved.settled,
        reopened=moved.reopened,
    )


@dataclass(frozen=True)
class _Moved:
    """How many items read differently now, have left the list, and have come back to it."""

    updated: int = 0
    settled: int = 0
    reopened: int = 0

    def __add__(self, more: _Moved) -> _Moved:
        return _Moved(self.updated + more.updated, self.settled + more.settled, self.reopened + more.reopened)


def _follow_on(connection: Connection, parameters: Mapping[str, object]) -> _Moved:
    """Apply what the newest list says of items that the list before it named, and take them out of ``item_change``.

    Their earlier history stays as it is: the state that held until now ends on this day, and another one begins.
    """
    moved = connection.execute(text(_FOLLOW_ON), parameters).one()
    connection.execute(text(_FOLLOWED), parameters)
    return _Moved(int(moved.updated), int(moved.settled))


def _rebuild_timelines(connection: Connection, parameters: Mapping[str, object]) -> _Moved:
    """Build the history of every known item in ``item_change`` anew and write what differs."""
    connection.execute(text(_NEW_TIMELINE), parameters)
    connection.exec_driver_sql("analyze new_timeline (invoice_id, newest)")
    connection.execute(text(_DELETE_STATES))
    connection.execute(text(_UPSERT_STATES))
    moved = connection.execute(text(_UPDATE_INVOICES), parameters).one()
    connection.execute(text(_RETURN_TO_LEDGER))
    connection.exec_driver_sql("drop table new_timeline")
    return _Moved(int(moved.updated), int(moved.settled), int(moved.reopened))


def _find_changes(connection: Connection, staged: StagedFile, parameters: Mapping[str, object]) -> int:
    """Put every item that differs into ``item_change``; return how many rows of the file are good.

    Where the guards have compared the file with all that is held now, only what differed then is looked at.
    """
    statement, good = _ITEM_CHANGES, f"select count(*) from ({good_rows()}) listed"
    if staged.compared:
        connection.exec_driver_sql(_TOUCHED)
        connection.exec_driver_sql("analyze touched")
        # A good row has its customer, or it would wait: no need to ask for each.
        good = "select (select count(*) from landing.staged_items) - (select count(*) from row_fate)"
        statement = statement.replace("{listed}", good_rows(_ONLY_TOUCHED_ROWS))
        statement = statement.replace("{touched}", _ONLY_TOUCHED_ITEMS)
    statement = statement.replace("{listed}", good_rows()).replace("{touched}", "")
    connection.execute(text(statement), parameters)
    connection.exec_driver_sql("drop table if exists pg_temp.touched")
    return staged.left_out + int(connection.scalar(text(good)) or 0)


# Keys of rows and ids of items that may differ. All of merged customers may: what is said of one is booked on another.
_TOUCHED = """
create temporary table touched on commit drop as
with kin as (
    select o.organization_id, o.customer_number from crm.organizations o
    where o.merged_into is not null or o.organization_id in (select merged_into from crm.organizations)
)
select customer_number, invoice_number, invoice_id from guard_difference
union all
select s.customer_number, s.invoice_number, null from landing.staged_items s join kin using (customer_number)
union all
select null, null, i.invoice_id from crm.invoices i join kin using (organization_id)
"""
_ONLY_TOUCHED_ROWS = """
      and (s.customer_number, s.invoice_number) in (select customer_number, invoice_number from touched)
"""
_ONLY_TOUCHED_ITEMS = "and i.invoice_id = any(array(select invoice_id from touched where invoice_id is not null))"


def _next_snapshot(connection: Connection, staged: StagedFile) -> date | None:
    following: date | None = connection.scalar(
        text(
            "select min(as_of) from landing.feed_files where feed = :feed and source = :source and as_of > :as_of"
            " and mode = 'snapshot' and state = 'applied'"
        ),
        {"feed": staged.feed, "source": staged.source, "as_of": staged.as_of},
    )
    return following


# What this snapshot says against what held on its day, one row per item that differs.
#   item        what the file says of it (null: not listed any more)
#   held_from…  the state that held on that day, if one did
#   until_as_of the next snapshot that knew the item; snapshots in which its row is in quarantine do not count
_ITEM_CHANGES = f"""
create temporary table item_change on commit drop as
with listed as (
    {{listed}}
), held as (
    select i.invoice_id, i.organization_id, i.invoice_number, i.listed_from, i.listed_until, {fields_of("i")}
    from crm.invoices i
    where i.source = :source and i.listed_from is not null and i.listed_until is null and i.listed_from <= :as_of
    {{touched}}
    union all
    select i.invoice_id, i.organization_id, i.invoice_number, i.listed_from, i.listed_until, {fields_of("i")}
    from crm.invoices i
    where cast(:next_as_of as date) is not null
      and i.source = :source and i.listed_from <= :as_of and i.listed_until > :as_of
    union all
    select i.invoice_id, i.organization_id, i.invoice_number, s.listed_from, s.listed_until, {fields_of("s")}
    from crm.invoice_states s join crm.invoices i using (invoice_id)
    where cast(:next_as_of as date) is not null
      and i.source = :source and s.listed_from <= :as_of and s.listed_until > :as_of
), compared as (
    select coalesce(l.organization_id, h.organization_id) as organization_id,
           coalesce(l.invoice_number, h.invoice_number) as invoice_number,
           case when l.organization_id is not null then {item_of("l")} end as item,
           h.invoice_id, h.listed_from as held_from, h.listed_until as held_until,
           case when h.invoice_id is not null then {item_of("h")} end as held_item
    from listed l
    full join held h on h.organization_id = l.organization_id and h.invoice_number = l.invoice_number
    where ({fields_of("l")}) is distinct from ({fields_of("h")})
), named as (
    select c.*, o.customer_number,
           exists (select from landing.quarantined_rows q
                   where q.feed_file_id = :feed_file_id and q.state = 'open'
                     and q.customer_number = o.customer_number and q.item_key = c.invoice_number) as unread
    from compared c join crm.organizations o using (organization_id)
    where not (c.item is null) or :complete
       or (o.customer_number, c.invoice_number) in (
           select * from unnest(cast(:withdrawn_customers as text[]), cast(:withdrawn_numbers as text[])))
)
select n.organization_id, n.invoice_number, n.held_from, n.held_until, n.held_item,
       coalesce(n.invoice_id, known.invoice_id) as invoice_id,
       not (n.item is null) as listed,
       -- A corrected revision that cannot be read takes the older revision's word back: what held before goes on.
       case when n.unread then before.item else n.item end as item,
       case when cast(:next_as_of as date) is not null then (
           select min(f.as_of) from landing.feed_files f
           where f.feed = :feed and f.source = :source and f.as_of > :as_of
             and f.mode = 'snapshot' and f.state = 'applied'
             and not exists (
                 select from landing.quarantined_rows q
                 where q.feed_file_id = f.feed_file_id and q.state = 'open'
                   and q.customer_number = n.customer_number and q.item_key = n.invoice_number)
       ) end as until_as_of
from named n
left join lateral (
    select i.invoice_id from crm.invoices i
    where n.invoice_id is null and i.organization_id = n.organization_id
      and i.source = :source and i.invoice_number = n.invoice_number
) known on true
left join lateral (
    select {item_of("s")} as item from crm.invoice_states s
    where cast(:replaces as boolean) and n.unread and s.invoice_id = n.invoice_id and s.listed_until = :as_of
) before on true
where not n.unread or (:replaces and n.held_from = :as_of)
"""

_INSERT_INVOICES = f"""
insert into crm.invoices (organization_id, source, invoice_number, {ITEM_CONTENT}, listed_from, listed_until,
                          feed_file_id)
select organization_id, :source, invoice_number, (item).document_type, (item).issued_on, (item).due_on,
       (item).currency, (item).amount, (item).open_amount, (item).disputed, (item).note,
       :as_of, until_as_of, :feed_file_id
from item_change where invoice_id is null
"""

# The state that held ends on this day, under the file of its own first day; of what has left the list nothing else
# changes. As arrays the ids lead to the index: how many other items there are does not matter.
_SAID = ", ".join(
    f"{name} = case when n.listed then (n.item).{name} else i.{name} end" for name in ITEM_CONTENT.split(", ")
)
_FOLLOW_ON = f"""
with news as materialized (
    select c.invoice_id, c.listed, c.item, c.held_from, c.held_item,
           (select f.feed_file_id from landing.feed_files f
            where f.feed = :feed and f.source = :source and f.mode = 'snapshot' and f.state = 'applied'
              and f.as_of = c.held_from) as held_file
    from item_change c where c.invoice_id is not null and c.held_from < :as_of
), kept as (
    insert into crm.invoice_states (invoice_id, listed_from, listed_until, {ITEM_CONTENT}, feed_file_id)
    select invoice_id, held_from, :as_of, (held_item).document_type, (held_item).issued_on, (held_item).due_on,
           (held_item).currency, (held_item).amount, (held_item).open_amount, (held_item).disputed, (held_item).note,
           held_file
    from news where listed
), written as (
    update crm.invoices i
    set listed_from = case when n.listed then :as_of else i.listed_from end,
        listed_until = case when n.listed then null else cast(:as_of as date) end,
        {_SAID},
        feed_file_id = case when n.listed then :feed_file_id else i.feed_file_id end
    from news n
    where i.invoice_id = n.invoice_id and i.invoice_id = any(array(select invoice_id from news))
    returning n.listed
)
select count(*) filter (where listed) as updated, count(*) filter (where not listed) as settled from written
"""
_FOLLOWED = "delete from item_change where invoice_id is not null and held_from < :as_of"

# The whole history of every item that changes, rebuilt: what stays, what is cut off left and right of this
# snapshot, and what it says itself; then neighbours with equal content become one.
_NEW_TIMELINE = f"""
create temporary table new_timeline on commit drop as
with changed as (
    select * from item_change where invoice_id is not null
), stored as (
    select i.invoice_id, i.listed_from, i.listed_until, {item_of("i")} as item
    from crm.invoices i join changed using (invoice_id) where i.listed_from is not null
    union all
    select s.invoice_id, s.listed_from, s.listed_until, {item_of("s")}
    from crm.invoice_states s join changed using (invoice_id)
), parts as (
    select s.* from stored s join changed c using (invoice_id)
    where s.listed_from is distinct from c.held_from
    union all
    select invoice_id, held_from, cast(:as_of as date), held_item from changed where held_from < :as_of
    union all
    select invoice_id, cast(:as_of as date), until_as_of, item from changed where not (item is null)
    union all
    select invoice_id, until_as_of, held_until, held_item from changed
    where held_from is not null and until_as_of is not null and (held_until is null or until_as_of < held_until)
), marked as (
    select *, case when lag(listed_until) over w = listed_from and lag(item) over w is not distinct from item
                   then 0 else 1 end as begins
    from parts window w as (partition by invoice_id order by listed_from)
), numbered as (
    select *, sum(begins) over (partition by invoice_id order by listed_from) as island from marked
)
select invoice_id, min(listed_from) as listed_from,
       nullif(max(coalesce(listed_until, 'infinity'::date)), 'infinity'::date) as listed_until,
       (array_agg(item))[1] as item,
       row_number() over (partition by invoice_id order by min(listed_from) desc) = 1 as newest,
       (select f.feed_file_id from landing.feed_files f
        where f.feed = :feed and f.source = :source and f.mode = 'snapshot' and f.state = 'applied'
          and f.as_of = min(n.listed_from)) as feed_file_id
from numbered n
group by invoice_id, island
"""

_DELETE_STATES = """
delete from crm.invoice_states s
where s.invoice_id in (select invoice_id from item_change where invoice_id is not null)
  and not exists (select from new_timeline t
                  where t.invoice_id = s.invoice_id and t.listed_from = s.listed_from and not t.newest)
"""

_UPSERT_STATES = f"""
insert into crm.invoice_states as s (invoice_id, listed_from, listed_until, {ITEM_CONTENT}, feed_file_id)
select invoice_id, listed_from, listed_until, (item).document_type, (item).issued_on, (item).due_on,
       (item).currency, (item).amount, (item).open_amount, (item).disputed, (item).note, feed_file_id
from new_timeline where not newest
on conflict (invoice_id, listed_from) do update
set listed_until = excluded.listed_until, document_type = excluded.document_type, issued_on = excluded.issued_on,
    due_on = excluded.due_on, currency = excluded.currency, amount = excluded.amount,
    open_amount = excluded.open_amount, disputed = excluded.disputed, note = excluded.note,
    feed_file_id = excluded.feed_file_id
where (s.listed_until, {item_of("s")}) is distinct from (excluded.listed_until, {item_of("excluded")})
"""

# Only items whose newest state differs are written. An item that a corrected revision leaves without any state keeps
# its row with listed_from null: it was never really there, and no view shows it.
_UPDATE_INVOICES = f"""
with target as (
    select c.invoice_id, c.listed, t.listed_from, t.listed_until, t.item, t.feed_file_id
    from item_change c left join new_timeline t on t.invoice_id = c.invoice_id and t.newest
    where c.invoice_id is not null
), before as (
    select i.invoice_id, i.listed_until, {item_of("i")} as item from crm.invoices i join target using (invoice_id)
), written as (
    update crm.invoices i
    set listed_from = t.listed_from, listed_until = t.listed_until,
        document_type = coalesce((t.item).document_type, i.document_type),
        issued_on = case when t.item is null then i.issued_on else (t.item).issued_on end,
        due_on = coalesce((t.item).due_on, i.due_on), currency = coalesce((t.item).currency, i.currency),
        amount = coalesce((t.item).amount, i.amount), open_amount = coalesce((t.item).open_amount, i.open_amount),
        disputed = coalesce((t.item).disputed, i.disputed),
        note = case when t.item is null then i.note else (t.item).note end,
        feed_file_id = coalesce(t.feed_file_id, i.feed_file_id)
    from target t
    where t.invoice_id = i.invoice_id
      and (i.listed_from, i.listed_until, {item_of("i")}) is distinct from (t.listed_from, t.listed_until, t.item)
    returning i.invoice_id, t.listed, i.listed_until, t.item
)
select count(*) filter (where w.listed
                        and (b.listed_until, b.item) is distinct from (w.listed_until, w.item)) as updated,
       count(*) filter (where not w.listed and b.listed_until is null and w.listed_until is not null) as settled,
       count(*) filter (where w.listed and b.listed_until is not null and w.listed_until is null) as reopened
from written w join before b using (invoice_id)
"""

_MOVE_TO_NEWER_REVISION = f"update {{table}} set feed_file_id = :feed_file_id where feed_file_id in ({RETIRED})"

_RETURN_TO_LEDGER = f"""
{AS_THE_LEDGER_SAYS} and i.invoice_id in (select invoice_id from item_change)
"""
