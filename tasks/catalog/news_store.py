"""Reads what a run brought, for the mail to the catalogue's owner."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, text

from tasks.catalog.owner_mail import CatalogNews, FileNews

_COUNTS = ("rows_read", "inserted", "updated", "unchanged", "quarantined", "superseded", "settled", "warned")


def read_news(connection: Connection, run_id: int, as_of: date) -> CatalogNews:
    """Return the files that the run took in or refused, with what of them waits in quarantine."""
    files = [
        FileNews(
            row.file_name,
            row.as_of,
            row.state,
            {name: int(getattr(row, name)) for name in _COUNTS},
            tuple(row.refusal),
            tuple(verdict["guard"] for verdict in row.guards if verdict["state"] == "overruled"),
        )
        for row in connection.execute(
            text("select * from landing.feed_files where run_id = :run_id order by feed_file_id"), {"run_id": run_id}
        )
    ]
    waiting = connection.scalars(
        text(
            "select q.file_name || ' ' || coalesce(q.cell, '') || ': ' || q.reason from report.quarantine q"
            " join landing.quarantined_rows r using (quarantined_row_id) join landing.feed_files f using (feed_file_id)"
            " where f.run_id = :run_id and q.state = 'open' order by q.file_name, q.row_number limit 20"
        ),
        {"run_id": run_id},
    ).all()
    ladder = connection.scalar(text("select count(*) from report.price_ladder")) or 0
    return CatalogNews(as_of, run_id, files, list(waiting), int(ladder))
