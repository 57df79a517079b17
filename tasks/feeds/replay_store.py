"""Quarantined rows that come back by themselves: their customer has arrived since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from tasks.feeds.outcomes import Applied, Apply, StagedFile
from tasks.feeds.staging_store import clear_staging, create_fates, serialise, staging_table
from tasks.history.store import act_for_run


@dataclass(frozen=True)
class AwaitingFile:
    """A file with quarantined rows whose customer has arrived since."""

    feed_file_id: int
    feed: str


def forget_missing_customers(connection: Connection, feeds: Sequence[str]) -> int:
    """Take "its customer is not known" from the reasons of rows whose customer has arrived; returns how many rows.

    Only of rows that cannot be used for other reasons too: the others come in. So a row's reasons do not tell in which
    order files came.
    """
    return connection.execute(
        text(
            "update landing.quarantined_rows q set reasons = ("
            "  select coalesce(jsonb_agg(r.reason order by r.place), '[]')"
            "  from jsonb_array_elements(q.reasons) with ordinality r (reason, place)"
            "  where r.reason ->> 'code' <> 'unknown_customer')"
            " from landing.feed_files f, crm.organizations o"
            " where f.feed_file_id = q.feed_file_id and f.feed = any(:feeds) and f.state = 'applied'"
            " and o.customer_number = q.customer_number and q.state = 'open' and not q.awaits_customer"
            """ and q.reasons @> '[{"code": "unknown_customer"}]'"""
        ),
        {"feeds": list(feeds)},
    ).rowcount


def find_awaiting(connection: Connection, feeds: Sequence[str]) -> list[AwaitingFile]:
    """The files of these feeds with rows to replay now, oldest business date first."""
    rows = connection.execute(
        text(
            "select distinct f.feed_file_id, f.feed, f.as_of from landing.quarantined_rows q"
            " join landing.feed_files f using (feed_file_id)"
            " join crm.organizations o on o.customer_number = q.customer_number"
            " where q.state = 'open' and q.awaits_customer and f.feed = any(:feeds) and f.state = 'applied'"
            " order by f.as_of, f.feed_file_id"
        ),
        {"feeds": list(feeds)},
    ).all()
    return [AwaitingFile(row.feed_file_id, row.feed) for row in rows]


def replay_awaiting(connection: Connection, file: AwaitingFile, *, run_id: int, apply: Apply) -> Applied:
    """Take the rows of a file whose customer has arrived out of quarantine, as if the customer had been there.

    The file's counts move with them, so that they still add up.
    """
    staging = staging_table(file.feed)
    serialise(connection, file.feed)
    act_for_run(connection, run_id)
    clear_staging(connection, staging)
    create_fates(connection)
    replayed = connection.execute(
        text(
            "with back as ("
            " update landing.quarantined_rows q set state = 'replayed', resolved_at = now(),"
            " resolved_by_run_id = :run_id"
            " from crm.organizations o where o.customer_number = q.customer_number"
            " and q.feed_file_id = :feed_file_id and q.state = 'open' and q.awaits_customer returning q.staged)"
            f" insert into {staging} select r.* from back, jsonb_populate_record(null::{staging}, back.staged) r"
        ),
        {"run_id": run_id, "feed_file_id": file.feed_file_id},
    ).rowcount
    connection.exec_driver_sql(f"analyze {staging}")
    applied = apply(connection, _staged_again(connection, file.feed_file_id))
    connection.execute(
        text(
            "update landing.feed_files set quarantined = quarantined - :replayed, inserted = inserted + :inserted,"
            " updated = updated + :updated, unchanged = unchanged + :unchanged, superseded = superseded + :superseded"
            " where feed_file_id = :feed_file_id"
        ),
        {
            "replayed": replayed,
            "inserted": applied.inserted,
            "updated": applied.updated,
            "unchanged": applied.unchanged,
            "superseded": applied.superseded,
            "feed_file_id": file.feed_file_id,
        },
    )
    clear_staging(connection, staging)
    return applied


def _staged_again(connection: Connection, feed_file_id: int) -> StagedFile:
    row = connection.execute(
        text("select feed, source, as_of, revision, columns from landing.feed_files where feed_file_id = :id"),
        {"id": feed_file_id},
    ).one()
    return StagedFile(
        feed_file_id, row.feed, row.source, staging_table(row.feed), row.as_of, row.revision, frozenset(row.columns)
    )
