"""Backups of a real server, restored to real servers: what they hold, what the check finds, who gets in."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import NullPool

from configs.settings import PROJECT_ROOT, Settings
from tasks.backups import pieces
from tasks.backups.catalogue import Catalogue
from tasks.backups.checking import check_backup
from tasks.backups.engine import Wanted
from tasks.backups.fingerprints import print_tables
from tasks.backups.operating import carry_out, foresee
from tasks.backups.programs import Session, ask, connect
from tasks.backups.runs import Choice, choose, take, tidy
from tasks.backups.scratch import clear
from tasks.backups.store import open_backup, read_policy, reconcile
from tasks.database import FLOWS, OWNER, database_url, engine_for
from tasks.errors import DependencyDown, Refused
from tasks.letters import Mailbox
from tasks.local_stack import LocalPostgres, find_postgres
from tasks.watch.letters import alert_letter
from tasks.watch.store import keep_alarms, reserve_untold, reserve_untold_ends, unproven_backups
from tests.backup_site import Site, count_customers, fill, site_at


@pytest.fixture
def site(kontor_settings: Settings, tmp_path: Path) -> Site:
    """A database of 200 customers and an empty target."""
    fill(kontor_settings)
    return site_at(kontor_settings, tmp_path / "target", tmp_path / "keys")


@pytest.fixture
def new_home(kontor_settings: Settings) -> Iterator[Path]:
    """A KONTOR_HOME that does not exist yet; its server is removed at the end."""
    home = kontor_settings.home / "restored"
    yield home
    clear(home)


def test_a_full_and_an_incremental_backup_restore_to_what_the_source_was(site: Site, new_home: Path) -> None:
    """Each passes every look of its check; the incremental one, restored to a new home, has the rows of both."""
    full = site.take()
    first = check_backup(site.engine, site.catalogue, full.label, now=site.now, planted="artefact_flipped")
    assert [finding.said for finding in first.findings if not finding.passed] == []
    fill(site.settings, 50, first=200)
    later = site.take("incremental", full)
    assert later.base_label == full.label
    assert later.stored_bytes < full.stored_bytes
    second = check_backup(site.engine, site.catalogue, later.label, now=site.now, planted="row_changed")
    assert [finding.said for finding in second.findings if not finding.passed] == []
    assert first.passed
    assert second.passed
    assert site.catalogue.good() == {full.label, later.label}

    prospect = foresee(site.settings, site.catalogue, None, None, new_home)
    assert (prospect.wanted, prospect.replaces) == (Wanted((full, later), point=later.point), False)
    restored, released = carry_out(site.settings, site.engine, site.catalogue, prospect, lambda _: None)
    assert restored.former is None
    assert released.sequences > 30
    server = find_postgres(new_home)
    assert server is not None
    assert count_customers(server) == 250


def test_the_watch_is_silent_about_nothing_and_red_after_the_rules_hours(kontor_settings: Settings) -> None:
    """A new installation has its first 36 hours; after them the missing proof is told of, in status and as an alarm."""
    engine = engine_for(kontor_settings, OWNER)
    with engine.begin() as connection:
        assert connection.scalar(text("select silent from report.backup_watch")) is False
        assert connection.scalar(text("select colour from report.status_backups")) == "grey"
        assert unproven_backups(connection) == []
        connection.execute(
            text(
                "insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id, started_at, state,"
                " ended_at)"
                " select 'test', 'test', current_date, false, 'here', 1, now() - interval '37 hours', 'done', now()"
            )
        )
        assert connection.scalar(text("select colour from report.status_backups")) == "red"
        [alarm] = unproven_backups(connection)
    assert (alarm.kind, alarm.flow) == ("silent", "backup")
    assert alarm.cause == "No backup was proven to restore ever; the rule allows 36 hours."


def test_a_silence_of_days_is_one_letter_and_its_end_another(kontor_settings: Settings) -> None:
    """Told at the first look and not at the second; told as over once a backup was proven."""
    now = datetime.now(UTC)
    people = (Mailbox("ops@example.org"),)
    proof = (
        "insert into ops.restore_checks (backup_id, state, checked_at)"
        " select backup_id, 'passed', now() - cast(:ago as interval) from ops.backups"
    )
    with engine_for(kontor_settings, OWNER).begin() as connection:
        connection.execute(
            text(
                "insert into ops.backups (label, kind, engine, state, started_at, ended_at, point_at)"
                " values ('one', 'full', 'core', 'done', now() - interval '3 days', now(), now() - interval '3 days')"
            )
        )
        connection.execute(text(proof), {"ago": "3 days"})
        for _ in range(2):
            keep_alarms(connection, unproven_backups(connection), now)
        [alert] = reserve_untold(connection, now)
        assert reserve_untold(connection, now) == []
        connection.execute(text(proof), {"ago": "0 days"})
        assert keep_alarms(connection, unproven_backups(connection), now)["alerts_cleared"] == 1
        [over] = reserve_untold_ends(connection, now)
    first = alert_letter(alert, sender="kontor@example.org", to=people, now=now)
    last = alert_letter(over, sender="kontor@example.org", to=people, now=now, over=True)
    assert (first.subject, last.subject) == ("[Kontor] backup is silent", "[Kontor] Over: backup is silent")
    assert "No backup was proven to restore since" in first.text
    assert last.references == (first.message_id,)


def test_the_watch_tells_the_trend_of_a_restore_and_what_would_be_lost(kontor_settings: Settings) -> None:
    """Three proven backups, a day apart, each restored in two seconds more; one that failed counts for nothing."""
    with engine_for(kontor_settings, OWNER).begin() as connection:
        connection.execute(
            text(
                "insert into ops.backups (label, kind, engine, state, started_at, ended_at, point_at, stored_bytes)"
                " select 'b' || n, 'full', 'core', 'done', at, at, at, 1000 + n * 10"
                " from generate_series(1, 4) n, lateral (select now() - make_interval(days => 5 - n) as at) t"
            )
        )
        connection.execute(
            text(
                "insert into ops.restore_checks (backup_id, state, checked_at, restore_seconds)"
                " select backup_id, case label when 'b4' then 'failed' else 'passed' end, started_at,"
                " 8 + 2 * substr(label, 2)::integer from ops.backups"
            )
        )
        watch = connection.execute(text("select * from report.backup_watch")).mappings().one()
        grown = connection.scalars(text("select grown_bytes from report.backups order by label")).all()
    assert (watch["rto_seconds"], watch["rto_seconds_per_day"]) == (14, 2)
    assert (watch["good_backups"], watch["days_since_verified"]) == (3, 2)
    assert watch["rpo_seconds"] == 2 * 86_400
    assert watch["window_to"] - watch["window_from"] == timedelta(days=2)
    assert grown == [None, 10, 10, 10]


def test_what_the_target_holds_is_mirrored_and_what_is_gone_is_told(site: Site) -> None:
    """A killed run's backup becomes abandoned, a good one is shown as good, and one that vanished as missing."""
    manifest = site.take()
    engine = engine_for(site.settings, FLOWS)
    with engine.begin() as connection:
        run_id = int(connection.scalar(text("select min(run_id) from ops.run_ledger")) or 0)
        open_backup(connection, "20260101T000000Z-full", "full", None, "core", run_id)
        first = reconcile(connection, site.catalogue, run_id, site.now)
        again = reconcile(connection, site.catalogue, run_id, site.now)
    assert first == {"backups_seen": 1, "backups_new": 1, "checks_new": 0, "lost": 1}
    assert again == {"backups_seen": 1, "backups_new": 0, "checks_new": 0, "lost": 0}
    assert _mirrored(site) == {"20260101T000000Z-full": ("abandoned", False), manifest.label: ("done", False)}
    site.engine.target.remove_folder(manifest.label)
    with engine.begin() as connection:
        assert reconcile(connection, site.catalogue, run_id, site.now)["lost"] == 1
    assert _mirrored(site)[manifest.label] == ("missing", False)


def test_what_went_wrong_is_told_where_the_database_is_away_too(site: Site) -> None:
    """The target is away and then the database as well: the first error is raised, and the next run tidies."""
    Path(site.engine.target.root).rmdir()
    Path(site.engine.target.root).write_text("in the way")
    database = create_engine(database_url(site.settings, FLOWS), poolclass=NullPool)
    with database.begin() as connection:
        run_id = int(connection.scalar(text("select min(run_id) from ops.run_ledger")) or 0)
    connections = iter(["the one that opens the entry"])

    @event.listens_for(database, "do_connect")
    def _only_once(*_: object) -> None:
        if next(connections, None) is None:
            raise psycopg.OperationalError("the server is away")

    with pytest.raises(DependencyDown, match="cannot be written"):
        take(database, site.engine, Choice("full", None, "asked for"), run_id, site.now)
    assert set(_mirrored(site).values()) == {("running", False)}
    Path(site.engine.target.root).unlink()
    tidy(engine_for(site.settings, FLOWS), site.engine, site.catalogue, run_id, site.now)
    assert set(_mirrored(site).values()) == {("abandoned", False)}


def test_a_fingerprint_sees_every_change_and_no_order(kontor_settings: Settings) -> None:
    """Also of a table whose rows cannot be hashed as such; the same rows in another order are the same table."""

    def prints(connection: Session) -> list[str]:
        return [line.digest for line in print_tables(connection, "kontor") if line.table.startswith("ops.seen_")]

    server = find_postgres(kontor_settings.home)
    assert server is not None
    with connect(server) as connection, connection.transaction(force_rollback=True):
        ask(connection, "create table ops.seen_hashed (place bigint, name text, amount numeric)")
        ask(connection, "create table ops.seen_text (place bigint, name json)")
        for place in (1, 2):
            ask(connection, "insert into ops.seen_hashed values (%s, 'one', 1.5)", place)
            ask(connection, "insert into ops.seen_text values (%s, '{}')", place)
        first = prints(connection)
        assert [digest[:2] for digest in first] == ["h:", "t:"]
        for table in ("ops.seen_hashed", "ops.seen_text"):
            ask(connection, sql.SQL("update {} set place = 3 - place").format(sql.Identifier(*table.split("."))))
        assert prints(connection)[1] == first[1]
        assert prints(connection)[0] == first[0]
        ask(connection, "update ops.seen_hashed set amount = 1.6 where place = 1")
        ask(connection, "update ops.seen_text set name = '{ }' where place = 1")
        changed = prints(connection)
    assert [one != other for one, other in zip(first, changed, strict=True)] == [True, True]


_CHANGES = (
    "update ops.seen_pieces set name = 'changed' where place = 77",
    # The file becomes shorter by two pieces and a half: with its last pages goes the proof that rows were on them.
    "delete from ops.seen_pieces where ctid >= '(34,0)'; vacuum ops.seen_pieces",
    "insert into ops.seen_pieces select n, repeat('n', 90) from generate_series(5000, 5200) n",
    "update ops.seen_pieces set name = 'x' where place % 50 = 0",
    "vacuum full ops.seen_pieces",
    "truncate ops.seen_pieces",
    "insert into ops.seen_pieces select n, repeat('m', 90) from generate_series(1, 1000) n",
)


class _Looks:
    """A table looked at again and again: what it holds by its pieces, and how many of them were read each time."""

    def __init__(self, server: LocalPostgres, readers: list[Session]) -> None:
        self.server, self.readers, self.lsn = server, readers, "0/0"
        self.held: pieces.Pieces | None = None
        self.read: list[int | None] = []

    def look(self) -> None:
        """Read what may have changed; the sum must be that of all rows."""
        found = [table for table in pieces.large_tables(self.readers[0]) if table.name == "seen_pieces"]
        for table in found:
            with pieces.page_reader(self.server, "kontor") as session:
                stale = pieces.stale_pieces(session, table, self.held, self.lsn)
            self.read.append(len(stale) if stale is not None else None)
            self.held = pieces.print_pieces(self.readers, table, self.held, stale)
            assert self.held is not None
            whole = "select count(*), coalesce(sum(hash_record_extended(t, 0)), 0) from ops.seen_pieces t"
            rows, total = sum(n for n, _ in self.held.sums), sum(one for _, one in self.held.sums)
            assert ask(self.readers[0], whole) == [(rows, total)]
        self.lsn = str(ask(self.readers[0], "select pg_current_wal_insert_lsn()")[0][0])


def test_what_was_not_written_to_is_not_read_again_and_the_sum_is_that_of_all_rows(
    kontor_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each kind of change the sum of the pieces is the whole table's; only what was written to is read."""
    monkeypatch.setattr(pieces, "LARGE_BLOCKS", 4)
    monkeypatch.setattr(pieces, "PIECE_BLOCKS", 4)
    server = find_postgres(kontor_settings.home)
    assert server is not None
    with connect(server) as one, connect(server) as other:
        looks = _Looks(server, [one, other])
        try:
            ask(one, "create table ops.seen_pieces (place integer, name text)")
            ask(one, "insert into ops.seen_pieces select n, repeat('n', 90) from generate_series(1, 3000) n")
            ask(one, "vacuum ops.seen_pieces")
            looks.look()
            looks.look()
            for change in _CHANGES:
                for statement in change.split("; "):
                    ask(one, statement)
                looks.look()
        finally:
            ask(one, "drop table if exists ops.seen_pieces")
    first, untouched, one_row = looks.read[:3]
    assert (first, untouched) == (None, 0)
    assert one_row in (1, 2)  # where the row was, and where it is
    assert looks.read.count(None) == 3  # the first, and two other files
    assert looks.held is not None
    known = pieces.Known(looks.lsn, {"kontor ops.seen_pieces": looks.held})
    assert pieces.read_known(pieces.write_known(known)) == known
    assert pieces.read_known(b"{") == pieces.Known()


def test_full_or_incremental_follows_from_the_rule_and_from_what_there_is(site: Site) -> None:
    """Nothing to build on, another timeline, another server, a full one due: full; else on the newest."""
    with engine_for(site.settings, FLOWS).connect() as connection:
        policy = read_policy(connection, site.now.date())

    def chosen(catalogue: Catalogue, wanted: str = "auto", after: timedelta = timedelta()) -> tuple[str, str | None]:
        choice = choose(site.engine, catalogue, policy, wanted, site.now + after)
        return choice.kind, choice.base.label if choice.base is not None else None

    assert chosen(site.catalogue) == ("full", None)
    with pytest.raises(Refused, match="nothing that an incremental"):
        chosen(site.catalogue, "incremental")
    manifest = site.take()
    found = site.catalogue
    assert chosen(found) == ("incremental", manifest.label)
    assert chosen(found, "full") == ("full", None)
    assert chosen(found, after=timedelta(days=policy.full_every_days)) == ("full", None)
    for other in (replace(manifest, timeline=2), replace(manifest, system_identifier="1")):
        assert chosen(replace(found, backups=(other,))) == ("full", None)


def _mirrored(site: Site) -> dict[str, tuple[str, bool]]:
    with engine_for(site.settings, FLOWS).connect() as connection:
        rows = connection.execute(text("select label, state, good from report.backups"))
        return {row.label: (row.state, row.good) for row in rows}


def test_the_runbooks_commands_restore_without_kontor(site: Site, tmp_path: Path) -> None:
    """The lines of the runbook, run by a shell with the stock programs, start a server that has every customer."""
    if shutil.which("age") is None or shutil.which("zstd") is None:
        pytest.skip("the programs age and zstd are not installed here")
    manifest = site.take()
    folder = Path(tempfile.mkdtemp(prefix="kb-", dir="/tmp"))
    for path in Path(site.engine.target.root, manifest.label).iterdir():
        shutil.copy(path, folder)
    shutil.copy(site.engine.ring.identity, folder / "identity.txt")
    runbook = (PROJECT_ROOT / "docs" / "runbooks" / "backup.md").read_text("utf-8")
    [lines] = re.findall(r"```sh\n(.*?)```", runbook, re.DOTALL)
    assert len(lines.splitlines()) == 5
    owner = site.server.data_dir.stat().st_uid
    for path in [folder, *folder.iterdir()]:
        os.chown(path, owner, -1)
    programs = f"{site.server.programs_dir}:{os.environ['PATH']}"
    user = owner if os.geteuid() == 0 else None
    server = subprocess.Popen(
        ["sh", "-ec", lines.replace("\npostgres", "\nexec postgres")],
        cwd=folder,
        env={"PATH": programs},
        user=user,
        extra_groups=[] if user is not None else None,
        stderr=subprocess.DEVNULL,
    )
    try:
        found = LocalPostgres(folder / "data", folder, 5432, site.server.programs_dir, "kontor_admin")
        deadline = time.monotonic() + 60
        while True:
            try:
                assert count_customers(found) == 200
                break
            except DependencyDown:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(20)
        shutil.rmtree(folder)
