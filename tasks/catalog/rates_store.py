"""Applying currency rates: one row per pair and day, the newest file that names it wins."""

from __future__ import annotations

from sqlalchemy import Connection, text

from tasks.catalog.listing_store import PLACE
from tasks.feeds.outcomes import Applied, StagedFile


def apply_rates(connection: Connection, staged: StagedFile) -> Applied:
    """Insert the rates that are new and update those that a newer file corrects; returns the counts of rows."""
    counted = connection.execute(text(_MERGE), {"feed_file_id": staged.feed_file_id}).one()
    return Applied(counted.inserted, counted.updated, counted.unchanged, counted.superseded)


# A rate of a past day is corrected, hardly ever confirmed, so each row can keep the place of its file.
_MERGE = f"""
with spoken as (
    select s.base, s.quote, s.rated_on, s.rate, f.place, r.base is null as is_new,
           r.place > f.place as outdated, r.rate is distinct from s.rate as differs
    from landing.staged_rates s
    cross join (select ({PLACE}) collate "C" as place from landing.feed_files f where feed_file_id = :feed_file_id) f
    left join crm.currency_rates r on r.base = s.base and r.quote = s.quote and r.rated_on = s.rated_on
    where not exists (select from row_fate f where f.row_number = s.row_number)
), written as (
    insert into crm.currency_rates as r (base, quote, rated_on, rate, place, feed_file_id)
    select base, quote, rated_on, rate, place, :feed_file_id from spoken where is_new or not outdated
    on conflict (base, quote, rated_on) do update
    set rate = excluded.rate, place = excluded.place, feed_file_id = excluded.feed_file_id
    returning 1
)
select count(*) filter (where is_new) as inserted,
       count(*) filter (where not is_new and not outdated and differs) as updated,
       count(*) filter (where not is_new and not outdated and not differs) as unchanged,
       count(*) filter (where not is_new and outdated) as superseded,
       (select count(*) from written) as written
from spoken
"""
