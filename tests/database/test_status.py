"""The status: which colour each area has, why, and what is to be run next."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from configs.settings import Settings
from tasks import ledger
from tasks.database import OWNER, engine_for
from tasks.reports.status import lines_of, verdict, worst_colour
from tasks.reports.store import list_reports, read_report
from tests.ledgers import Books, item, write_csv


def _today(settings: Settings) -> date:
    return datetime.now(ZoneInfo(settings.business_timezone)).date()


def _lines(settings: Settings, area: str) -> list[dict[str, Any]]:
    with engine_for(settings).connect() as connection:
        return [row for row in read_report(connection, "status_lines").records() if row["area"] == area]


def _ledger_of(books: Books, folder: Path, day: date) -> None:
    """Take in a list of one open item as of a day."""
    path = write_csv(folder / f"open_items_{day}.csv", [item("C-1", "A1", 100, day - timedelta(days=3))])
    books.take_in(path, "open_items", day)


def test_a_new_installation_has_nothing_to_judge(kontor_settings: Settings) -> None:
    """Where nothing has come in, nothing is red, and the demo is what to try next."""
    with engine_for(kontor_settings).connect() as connection:
        lines = lines_of(read_report(connection, "status_lines"))
    feeds = [line for line in lines if line.area == "feeds"]
    assert [(line.colour, line.next_command) for line in feeds] == [("grey", "kontor demo")]
    assert worst_colour(lines) in ("green", "grey")
    assert "act on now" not in verdict(lines)


@pytest.mark.parametrize(
    ("age", "word", "colour"),
    [(8, "fresh", "green"), (9, "late", "yellow"), (15, "late", "yellow"), (16, "stale", "red")],
)
def test_a_weekly_feed_is_judged_by_its_age(
    kontor_settings: Settings, tmp_path: Path, age: int, word: str, colour: str
) -> None:
    """A weekly ledger is fresh through a week and a day, late for another week, then stale."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["C-1"])
    _ledger_of(books, tmp_path, _today(kontor_settings) - timedelta(days=age))
    ours = [line for line in _lines(kontor_settings, "feeds") if line["headline"].startswith("open_items")]
    assert [(line["colour"], line["headline"]) for line in ours] == [(colour, f"open_items of accounting is {word}")]
    assert (ours[0]["next_command"] is None) == (colour == "green")
    with engine_for(kontor_settings).connect() as connection:
        feeds = read_report(connection, "feed_freshness", equal={"feed": "open_items"}).records()
    assert [(row["freshness"], row["colour"], row["age_days"]) for row in feeds] == [(word, colour, age)]


def test_runs_are_judged_by_the_newest_of_each_flow(kontor_settings: Settings) -> None:
    """A run that died is red until the flow ends well again; a trial changes nothing."""
    engine = engine_for(kontor_settings)
    insert = (
        "insert into ops.run_ledger (flow, actor, as_of, dry_run, state, ended_at, error_code, host, process_id)"
        " values ('payment_sync', 'test', '2026-03-02', :dry, :state, now(), :code, 'test', 1)"
    )
    seen = []
    for dry, state, code in ((False, "abandoned", "killed"), (True, "done", None), (False, "done", None)):
        with engine.begin() as connection:
            connection.execute(text(insert), {"dry": dry, "state": state, "code": code})
        seen.append([(line["colour"], line["headline"]) for line in _lines(kontor_settings, "runs")])
    died = [("red", "payment_sync died without a word")]
    assert seen == [died, died, [("green", "payment_sync ended well")]]


def test_a_running_flow_is_no_alarm(kontor_settings: Settings) -> None:
    """While a run holds its lock its line is green."""
    engine = engine_for(kontor_settings)
    with ledger.open_run(
        engine, "payment_sync", as_of=date(2026, 3, 2), dry_run=False, prefect_run_id=None, actor="test"
    ):
        lines = _lines(kontor_settings, "runs")
    assert [(line["colour"], line["headline"]) for line in lines] == [("green", "payment_sync is running")]


def test_rows_in_quarantine_are_counted_and_refusals_stand_out(kontor_settings: Settings, tmp_path: Path) -> None:
    """One row set aside is yellow; a refused file is red until a newer file of its sender was taken in."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["C-1"])
    day = date(2026, 11, 20)
    broken = write_csv(tmp_path / "broken.csv", [{"customer_number": "C-1", "nothing": "of use"}])
    books.take_in(broken, "open_items", day - timedelta(days=1))
    assert [line["colour"] for line in _lines(kontor_settings, "files")] == ["red"]
    rows = [item("C-1", "A1", 100, day), item("C-1", "A2", "n/a", day)]
    books.take_in(write_csv(tmp_path / "good.csv", rows), "open_items", day)
    files, waiting = _lines(kontor_settings, "files"), _lines(kontor_settings, "quarantine")
    assert [(line["colour"], line["headline"]) for line in files] == [("yellow", "1 file of accounting refused")]
    assert [(line["colour"], line["headline"]) for line in waiting] == [("yellow", "1 row waits in quarantine")]
    assert waiting[0]["next_command"] == "kontor quarantine list"


def test_incidents_backups_backfills_and_erasures_are_judged(kontor_settings: Settings, tmp_path: Path) -> None:
    """A grave incident, a failed backfill and an old erasure are red; a database with data and no backup is yellow."""
    Books(kontor_settings).customers(tmp_path, ["C-1"])
    with engine_for(kontor_settings, OWNER).begin() as connection:
        for statement in _TROUBLE:
            connection.execute(text(statement))
    found = {area: _lines(kontor_settings, area) for area in ("quality", "backups", "backfills", "retention")}
    assert {area: [(line["colour"], line["headline"]) for line in lines] for area, lines in found.items()} == {
        "quality": [("red", "1 incident is open")],
        "backups": [("yellow", "no backup was made yet")],
        "backfills": [("red", "backfill 1 of payment_sync failed")],
        "retention": [("red", "an erasure is not done yet")],
    }
    assert all(line["next_command"] for lines in found.values() for line in lines)


_TROUBLE = (
    """
    insert into ops.quality_incidents (fingerprint, rule_id, contract, table_name, record_key, reason, severity, owner,
        first_seen, last_seen, due_on, run_id)
    select 'f', 'r', 'c', 'crm.invoices', '1', 'x', 'fail', 'finance', '2026-06-01', '2026-06-01', '2026-06-02',
           max(run_id) from ops.run_ledger
    """,
    """
    insert into ops.backfills (flow, period, every, reprocess, reason, requested_by, state, ended_at)
    values ('payment_sync', '[2026-01-01,2026-02-01)', 'week', 'missing', 'test', 'test', 'failed', now())
    """,
    """
    insert into ops.erasure_requests (author, reason, received_at) values ('test', 'asked', now() - interval '22 days')
    """,
)


def test_a_view_of_its_own_is_all_that_a_new_area_needs(kontor_settings: Settings) -> None:
    """Every view report.status_<area> is part of the status, and none of them is offered as a report of its own."""
    with engine_for(kontor_settings, OWNER).connect() as connection:
        views = set(connection.scalars(text("select viewname from pg_views where viewname like 'status\\_%'")))
        definition = connection.scalar(text("select pg_get_viewdef('report.status_lines'::regclass)"))
        offered = [name for name in list_reports(connection) if name.startswith("status_")]
    areas = views - {"status_lines"}
    assert {"status_feeds", "status_runs", "status_quarantine", "status_refused_files", "status_outbox"} <= areas
    assert {"status_quality", "status_backups", "status_backfills", "status_retention"} <= areas
    assert [view for view in areas if f"report.{view}" not in str(definition)] == []
    assert offered == ["status_lines"]
