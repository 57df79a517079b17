"""What the tables of backfills hold: the request as it was asked for, and its end where Prefect was asked to end it."""

from __future__ import annotations

from datetime import date
from uuid import uuid4

from sqlalchemy import text

from configs.settings import Settings
from tasks.backfills.store import (
    Request,
    begin_window,
    cancel_backfill_of,
    change_state,
    create_backfill,
    fetch_backfill,
    waiting_windows,
)
from tasks.backfills.windows import Every, PlannedWindow, Reprocess, Window
from tests.ledgers import Books

REQUEST = Request(
    "payment_sync",
    date(2012, 1, 2),
    date(2012, 1, 15),
    Every.week,
    Reprocess.all,
    "an audit",
    "test",
    (date(2012, 1, 3),),
    newest_first=True,
    source_folder="/srv/ledgers",
    concurrency=4,
    runs_apart=True,
)
WINDOWS = [Window(1, date(2012, 1, 2), date(2012, 1, 8)), Window(2, date(2012, 1, 9), date(2012, 1, 15))]


def test_a_request_is_kept_as_it_was_asked_for(kontor_settings: Settings) -> None:
    """Flow, period, days left out, order, concurrency, reason and who asked come back as they went in."""
    with Books(kontor_settings).engine.connect() as connection:
        number = create_backfill(connection, REQUEST, [PlannedWindow(w, (), None, True, "") for w in WINDOWS], {})
        kept = fetch_backfill(connection, number)
        connection.rollback()
    assert (kept.request, kept.state) == (REQUEST, "waiting")


def test_a_driver_that_was_cancelled_in_prefect_cancels_its_backfill(kontor_settings: Settings) -> None:
    """The backfill of that run and no other; its window waits, so that nothing stands as running that is not."""
    driver, other = uuid4(), uuid4()
    with Books(kontor_settings).engine.connect() as connection:
        number = create_backfill(connection, REQUEST, [PlannedWindow(w, (), None, True, "") for w in WINDOWS], {})
        run_id = connection.scalar(
            text(
                "insert into ops.run_ledger (flow, actor, as_of, dry_run, state, host, process_id, prefect_run_id)"
                " values ('backfill', 'test', current_date, false, 'running', 'test', 1, :driver) returning run_id"
            ),
            {"driver": driver},
        )
        change_state(connection, number, "running", ("waiting",))
        begin_window(connection, number, 2, run_id)
        assert cancel_backfill_of(connection, other) is None
        assert cancel_backfill_of(connection, driver) == number
        assert cancel_backfill_of(connection, driver) is None
        kept = fetch_backfill(connection, number)
        assert kept.state == "cancelled"
        assert len(waiting_windows(connection, kept)) == 2
        connection.rollback()
