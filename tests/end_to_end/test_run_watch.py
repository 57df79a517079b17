"""run_watch with a real database, a real Prefect server and mails as files: told once, and once when it is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text

from tasks import database
from tasks.local_stack import find_postgres
from tasks.watch.dead_man import sound_if_silent
from tasks.watch.judging import Alarm
from tasks.watch.store import keep_alarms, reserve_untold, reserve_untold_ends
from tests.ledgers import Books
from tests.stage import Stage

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def _mails(stage: Stage) -> list[str]:
    folder = stage.settings.home / "outbox"
    paths = sorted(folder.rglob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
    return [_plain(message_from_bytes(path.read_bytes(), policy=default)) for path in paths]


def _plain(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    return f"Subject: {message['Subject']}\n{body.get_content() if body is not None else ''}"


def _watch(stage: Stage, **environment: str) -> str:
    ended = stage.processes.run(
        "run",
        "run_watch",
        KONTOR_ENGINEER_EMAILS="ops@example.org",
        KONTOR_MAIL_FROM="kontor@example.org",
        **environment,
    )
    assert ended.code == 0, ended.said
    return ended.said


def _plant(books: Books, state: str, started: datetime) -> int:
    with database.engine_for(books.settings, database.OWNER).begin() as connection:
        return int(
            connection.execute(
                text(
                    "insert into ops.run_ledger (flow, actor, as_of, dry_run, state, host, process_id, started_at,"
                    " ended_at, error_code)"
                    " values ('payment_sync', 'test', current_date, false, :state, 'test', 1, :started,"
                    " case when :state <> 'running' then cast(:started as timestamptz) end,"
                    " case when :state = 'failed' then 'BadInput' end) returning run_id"
                ),
                {"state": state, "started": started},
            ).scalar_one()
        )


def _alerts(books: Books) -> list[dict[str, Any]]:
    return books.read("select kind, flow, state, told_at is not null as told from report.alerts order by alert_id")


def test_a_dead_run_is_told_of_once_closed_and_told_of_when_it_is_over(empty_stage: Stage, tmp_path: Path) -> None:
    """A run whose process is gone: one mail, the ledger row closed; a good run later, one mail that it is over."""
    stage, books = empty_stage, Books(empty_stage.settings)
    for path in (stage.settings.home / "outbox").rglob("*.eml"):
        path.unlink()
    dead = _plant(books, "running", datetime.now(UTC) - timedelta(minutes=3))

    _watch(stage)
    assert _alerts(books) == [{"kind": "crashed", "flow": "payment_sync", "state": "open", "told": True}]
    assert books.read("select state from ops.run_ledger where run_id = :run", run=dead) == [{"state": "abandoned"}]
    assert len(_mails(stage)) == 1
    assert f"Run {dead} of payment_sync ended without a word" in _mails(stage)[0]
    assert "docs/runbooks/payment_sync.md" in _mails(stage)[0]

    _watch(stage)
    assert len(_mails(stage)) == 1
    assert len(_alerts(books)) == 1

    _plant(books, "done", datetime.now(UTC))
    _watch(stage)
    assert _alerts(books) == [{"kind": "crashed", "flow": "payment_sync", "state": "cleared", "told": True}]
    assert len(_mails(stage)) == 2
    assert "Subject: [Kontor] Over: payment_sync died without a word" in _mails(stage)[1]
    red = books.read("select colour from report.status_alerts")
    assert red == [{"colour": "green"}]


def test_alarms_open_last_and_clear(empty_stage: Stage) -> None:
    """The same alarm twice is one alert; gone, it is cleared; back again, it is another one."""
    books = Books(empty_stage.settings)
    late = Alarm("late", "payment_sync", "It is late.", "overdue payment-sync-hourly x")
    missing = Alarm("missing", "payment_sync", "It is missing.", late.fingerprint)
    looks = [[late], [missing], [], [late]]
    counts = []
    for number, alarms in enumerate(looks):
        with books.engine.begin() as connection:
            counts.append(keep_alarms(connection, alarms, NOW + timedelta(minutes=15 * number)))
    assert [tuple(count.values()) for count in counts] == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)]
    found = books.read("select kind, cause, cleared_at is null as open from ops.alerts order by alert_id")
    assert found == [
        {"kind": "missing", "cause": "It is missing.", "open": False},
        {"kind": "late", "cause": "It is late.", "open": True},
    ]
    with books.engine.begin() as connection:
        # The first was over before anybody was told of it: nobody is told of either its beginning or its end.
        assert [alert.kind for alert in reserve_untold(connection, NOW)] == ["late"]
        assert reserve_untold(connection, NOW) == []
        assert reserve_untold_ends(connection, NOW) == []


def test_a_dry_look_keeps_and_tells_nothing(empty_stage: Stage) -> None:
    """Looking dry finds the same and leaves the database and the outbox as they were."""
    books = Books(empty_stage.settings)
    _plant(books, "failed", datetime.now(UTC) - timedelta(minutes=3))
    before = len(_mails(empty_stage))
    ended = empty_stage.processes.run("run", "run_watch", "--dry-run", KONTOR_ENGINEER_EMAILS="ops@example.org")
    assert ended.code == 0, ended.said
    assert _alerts(books) == []
    assert len(_mails(empty_stage)) == before


def test_a_silent_watcher_is_told_of_by_somebody_else(empty_stage: Stage) -> None:
    """An hour without a look: one mail, however often it is asked; the next look ends the alert and says so."""
    people = {"engineer_emails": "ops@example.org", "mail_from": "kontor@example.org"}
    settings, books = empty_stage.settings.model_copy(update=people), Books(empty_stage.settings)
    now = datetime.now(UTC)
    before = len(_mails(empty_stage))
    assert not sound_if_silent(settings, now - timedelta(minutes=50), now)
    assert sound_if_silent(settings, now - timedelta(minutes=70), now)
    assert not sound_if_silent(settings, now - timedelta(minutes=71), now + timedelta(minutes=1))
    assert len(_mails(empty_stage)) == before + 1
    assert _alerts(books) == [{"kind": "silent", "flow": "run_watch", "state": "open", "told": True}]
    _watch(empty_stage)
    assert [alert["state"] for alert in _alerts(books)] == ["cleared"]
    assert "Over: run_watch is silent" in _mails(empty_stage)[-1]


@pytest.mark.campaign
def test_backups_that_were_not_proven_for_days_are_told_of_once_and_when_one_is(empty_stage: Stage) -> None:
    """Three days without a proof: one mail, however often it is looked; a proof, and one mail that it is over."""
    books = Books(empty_stage.settings)
    before = len(_mails(empty_stage))
    _plant(books, "done", datetime.now(UTC) - timedelta(days=9))
    proof = (
        "insert into ops.restore_checks (backup_id, state, checked_at)"
        " select backup_id, 'passed', now() - cast(:ago as interval) from ops.backups"
    )
    with books.engine.begin() as connection:
        connection.execute(
            text(
                "insert into ops.backups (label, kind, engine, state, started_at, ended_at, point_at)"
                " values ('one', 'full', 'core', 'done', now() - interval '3 days', now(), now() - interval '3 days')"
            )
        )
        connection.execute(text(proof), {"ago": "3 days"})
    _watch(empty_stage)
    _watch(empty_stage)
    told = _mails(empty_stage)[before:]
    assert len(told) == 1
    assert "Subject: [Kontor] backup is silent" in told[0]
    assert "No backup was proven to restore since" in told[0]
    assert "docs/runbooks/backup.md" in told[0]
    with books.engine.begin() as connection:
        connection.execute(text(proof), {"ago": "0 days"})
    _watch(empty_stage)
    told = _mails(empty_stage)[before:]
    assert len(told) == 2
    assert "Subject: [Kontor] Over: backup is silent" in told[1]


def _prefect(stage: Stage) -> psycopg.Connection[Any]:
    server = find_postgres(stage.settings.home)
    if server is None:
        pytest.fail("the test server is not running")
    where = f"host={server.socket_dir} port={server.port} user={server.superuser} dbname=prefect"
    return psycopg.connect(where, autocommit=True)


def test_runs_that_stand_for_a_process_that_is_gone_are_closed(empty_stage: Stage) -> None:
    """Running though the ledger knows the end, or pending for long: Crashed. What has just begun is left alone.

    Two hours are payment_sync's limit: Prefect is asked to end a run of three, and one of one hour goes on.
    """
    stage, books = empty_stage, Books(empty_stage.settings)
    first = _plant(books, "failed", datetime.now(UTC) - timedelta(minutes=9))
    flow, (dead, young, stuck, fresh, long, short) = uuid4(), (uuid4() for _ in range(6))
    with database.engine_for(stage.settings, database.OWNER).begin() as connection:
        statement = "update ops.run_ledger set prefect_run_id = :prefect where run_id = :run"
        connection.execute(text(statement), {"prefect": dead, "run": first})
    begun = {dead: ("RUNNING", 9), young: ("RUNNING", 9), stuck: ("PENDING", 16), fresh: ("PENDING", 14)}
    lasting = {long: 180, short: 60}
    named = "insert into flow (id, name, tags, labels) values (%s, %s, '[]', '{}') on conflict do nothing"
    with _prefect(stage) as prefect:
        for number, name in ((flow, "zombies"), (uuid4(), "payment_sync")):
            prefect.execute(named, (number, name))
        [limited] = prefect.execute("select id from flow where name = 'payment_sync'").fetchone() or [None]
        for run, (state, minutes) in begun.items():
            _plant_in_prefect(prefect, flow, run, state, minutes)
        for run, minutes in lasting.items():
            _plant_in_prefect(prefect, limited, run, "RUNNING", minutes)
        _watch(stage)
        planted = ([*begun, *lasting],)
        rows = prefect.execute("select id, state_type::text from flow_run where id = any(%s)", planted).fetchall()
        prefect.execute("delete from flow_run where id = any(%s)", planted)
        prefect.execute("delete from flow where id = %s", (flow,))
    assert [dict(rows).pop(run) for run in lasting] == ["CANCELLING", "RUNNING"]
    rows = [row for row in rows if row[0] in begun]
    assert dict(rows) == {dead: "CRASHED", young: "RUNNING", stuck: "CRASHED", fresh: "PENDING"}


def _plant_in_prefect(prefect: psycopg.Connection[Any], flow: UUID, run: UUID, state: str, minutes: int) -> None:
    """A run of Prefect's that entered its state some minutes ago, with what the server looks at when it is changed."""
    since, state_id = datetime.now(UTC) - timedelta(minutes=minutes), uuid4()
    prefect.execute(
        "insert into flow_run (id, flow_id, name, state_type, state_name, start_time, expected_start_time,"
        " state_timestamp) values (%s, %s, 'zombie', %s, %s, %s, %s, %s)",
        (run, flow, state, state.title(), since, since, since),
    )
    prefect.execute(
        "insert into flow_run_state (id, flow_run_id, type, name, timestamp, state_details)"
        " values (%s, %s, %s, %s, %s, '{}')",
        (state_id, run, state, state.title(), since),
    )
    prefect.execute("update flow_run set state_id = %s where id = %s", (state_id, run))
