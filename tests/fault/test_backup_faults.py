"""What can go wrong with a backup, done on purpose: flipped bits, planted faults, kills, full disks, two at once."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from configs.settings import Settings
from tasks.backups import core_engine, faults, keys, runs, wal
from tasks.backups.catalogue import read_catalogue
from tasks.backups.checking import EVERY_FAULT, check_backup, check_digests
from tasks.backups.engine import Wanted
from tasks.backups.inspection import LOOKS, Scratch
from tasks.backups.manifest import Artefact, Finding, Manifest, Verdict, label_for, sha256, sign
from tasks.backups.operating import foresee
from tasks.backups.programs import ask, connect, files
from tasks.backups.pruning import clear_leftovers, delete_backups
from tasks.backups.restoring import restore, start_recovered
from tasks.backups.scratch import clear, own_scratch
from tasks.backups.store import read_policy, reconcile
from tasks.backups.targets import CHECK, MANIFEST
from tasks.database import OWNER, engine_for
from tasks.errors import BadInput, DependencyDown, Locked, Refused
from tasks.local_stack import find_postgres, make_restore_folder, programs_folder
from tests.backup_site import Site, count_customers, fill, site_at
from tests.conftest import CAMPAIGN_FACTOR


@pytest.fixture
def site(kontor_settings: Settings, tmp_path: Path) -> Site:
    """A database of 200 customers and an empty target."""
    fill(kontor_settings)
    return site_at(kontor_settings, tmp_path / "target", tmp_path / "keys")


@pytest.fixture
def scratch_home(kontor_settings: Settings) -> Iterator[Path]:
    """A home for restored copies; its server is removed at the end."""
    home = kontor_settings.home / "copy"
    yield home
    clear(home)


# --- flipped bits -----------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_caught(site: Site) -> None:
    """120 single bits, spread over every kind of file on the target: each is found before anything is restored."""
    full = site.take()
    later = site.take("incremental", full)
    received = wal.wal_folder(site.settings)
    received.mkdir(exist_ok=True)
    name = next(wal.following(wal.segment_of(later.point_lsn, later.timeline)))
    (received / name).write_bytes(random.Random(1).randbytes(100_000))
    assert wal.ship(site.engine, site.now) == 1
    shutil.rmtree(received)
    _sign_verdict(site, full)
    root, chance = Path(site.engine.target.root), random.Random("flips")
    stored = sorted(path for path in root.rglob("*") if path.is_file())
    assert {path.name.split(".")[0] for path in stored} == {
        *("base", "wal", "backup_manifest", "home", "manifest", "check"),
        name,
    }
    caught = 0
    for number in range(120 * CAMPAIGN_FACTOR):
        path = stored[number % len(stored)]
        content = path.read_bytes()
        path.write_bytes(faults.flip(content, chance))
        caught += _is_noticed(site, path, full, later, name)
        path.write_bytes(content)
    assert caught == 120 * CAMPAIGN_FACTOR
    assert check_digests(site.engine, [full, later]).passed


def _is_noticed(site: Site, path: Path, full: Manifest, later: Manifest, segment: str) -> bool:
    catalogue, label = site.catalogue, path.parent.name
    if path.name == MANIFEST:
        return label in catalogue.damaged
    if path.name == CHECK:
        return label not in catalogue.verdicts
    if path.parent.name == "wal":
        supply = wal.Supply(
            site.engine.target,
            keys.read_signers(site.engine.ring),
            keys.read_identities(site.engine.ring),
            Path("/nowhere"),
        )
        with pytest.raises(BadInput, match="There is WAL up to"):
            wal.lay_out_wal(supply, later, path.parent.parent.parent, site.now + timedelta(days=9999))
        return not (path.parent.parent.parent / segment).exists()
    return not check_digests(site.engine, [full if label == full.label else later]).passed


def _sign_verdict(site: Site, manifest: Manifest) -> None:
    """A verdict that passed, without the restore."""
    content = site.engine.target.get(f"{manifest.label}/{MANIFEST}")
    verdict = Verdict(
        manifest.label, sha256(content), site.now.isoformat(), (Finding("all", True),), None, "none", True, 1.0, 1.0
    )
    signed = sign(verdict, keys.read_signing_key(site.engine.ring))
    site.engine.target.put(f"{manifest.label}/{CHECK}", signed)


# --- planted faults ---------------------------------------------------------------------------------------------------


def test_every_fault_in_a_running_copy_is_caught_by_its_look(site: Site, scratch_home: Path) -> None:
    """One after the other in one copy: before it the look does not say what it says after it."""
    manifest = site.take()
    chain = site.catalogue.chain(manifest.label)
    restored = restore(site.engine, Wanted(chain, point=manifest.point), scratch_home, sealed=False)
    settings = site.settings.model_copy(update={"home": scratch_home})
    copy = Scratch(settings, restored.server, manifest)
    assert [look(copy).said for look in LOOKS.values() if not look(copy).passed] == []
    assert len(faults.RUNNING) >= 12
    assert {fault.look for fault in faults.RUNNING} == set(LOOKS)
    for fault in faults.RUNNING:
        before = LOOKS[fault.look](copy)
        fault.plant(copy)
        after = LOOKS[fault.look](copy)
        assert not after.passed, fault.name
        assert fault.look == "schema" or after.said != before.said, fault.name


def _tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


@pytest.fixture
def laid_out(site: Site) -> Iterator[Path]:
    """The folder of a backup, laid out and not started."""
    manifest = site.take()
    folder = make_restore_folder(site.settings.home / "laid")
    site.engine.lay_out(Wanted((manifest,), point=manifest.point), folder)
    yield folder
    clear(site.settings.home / "laid")


def test_every_fault_in_files_is_caught_before_a_server_touches_them(laid_out: Path) -> None:
    """Lost, torn, flipped, put in, and a write-ahead log with a gap: PostgreSQL's own list of files finds each."""
    programs, chance = programs_folder(), random.Random("files")
    assert files(programs, laid_out).passed
    table = faults.largest_table(laid_out)
    [first, *_] = sorted(path for path in (laid_out / "pg_wal").iterdir() if len(path.name) == 24)
    wanted = [path for path in (laid_out / "pg_wal").iterdir() if len(path.name) == 24]
    damages: dict[str, tuple[list[Path], Callable[[Path], None]]] = {
        "the label is lost": ([laid_out / "backup_label"], Path.unlink),
        "a table is lost": ([table], Path.unlink),
        "a table is torn": ([table], _tear),
        "a bit of a table": ([table], lambda path: faults.flip_in_file(path, chance)),
        "the control file": ([laid_out / "global" / "pg_control"], lambda path: faults.flip_in_file(path, chance)),
        "WAL is lost": (wanted, Path.unlink),
    }
    assert first.exists()
    for name, (paths, damage) in damages.items():
        kept = [(path, path.read_bytes()) for path in paths]
        for path in paths:
            damage(path)
        assert not files(programs, laid_out).passed, name
        for path, content in kept:
            path.write_bytes(content)
    (laid_out / "base" / "16384x").write_bytes(b"put in")
    assert not files(programs, laid_out).passed


def test_a_check_whose_planted_fault_is_not_caught_does_not_pass(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup is good only by a check that is known to see: here its eye for rows is shut."""
    manifest = site.take()
    monkeypatch.setitem(LOOKS, "tables", lambda _: Finding("tables", True, "looked away"))
    verdict = check_backup(site.engine, site.catalogue, manifest.label, now=site.now, planted="row_changed")
    assert [finding.name for finding in verdict.findings if not finding.passed] == []
    assert (verdict.planted_caught, verdict.passed) == (False, False)
    assert site.catalogue.good() == frozenset()
    assert "row_changed" in EVERY_FAULT


@pytest.mark.campaign
def test_every_fault_is_caught_when_the_check_plants_it(site: Site) -> None:
    """All of the list, each planted by a whole check of the same backup: every one passes because it caught it."""
    manifest = site.take()
    for planted in EVERY_FAULT:
        verdict = check_backup(site.engine, site.catalogue, manifest.label, now=site.now, planted=planted)
        assert (planted, verdict.planted_caught, verdict.passed) == (planted, True, True)


# --- kills ------------------------------------------------------------------------------------------------------------


def _killed(work: Callable[[], object], after: float) -> bool:
    """Run ``work`` in a process of its own and kill it after so many seconds; False when it had ended by then."""
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_killed_backup_is_never_listed_and_the_next_one_heals(site: Site) -> None:
    """Killed anywhere: what is listed is whole; the next backup finds neither slot nor folder in its way."""
    chance, first = random.Random("kill backup"), site.take()
    begun = time.monotonic()
    site.take()
    usual = time.monotonic() - begun
    for _ in range(2 * CAMPAIGN_FACTOR):
        now = site.now
        _killed(lambda now=now: site.engine.take(now, "full", None), chance.uniform(0.02, usual))  # type: ignore[misc]
        catalogue = site.catalogue
        assert first.label in {manifest.label for manifest in catalogue.backups}
        assert catalogue.damaged == ()
        assert check_digests(site.engine, catalogue.backups).passed
        assert set(catalogue.leftovers) <= {label_for(now, "full")}
        clear_leftovers(site.engine.target, catalogue, [label_for(now, "full")], site.now)
        assert site.catalogue.leftovers == ()
    healed = site.take("incremental", first)
    assert check_digests(site.engine, [healed]).passed
    with connect(site.server, "postgres") as connection:
        assert ask(connection, "select slot_name from pg_replication_slots where slot_name = 'kontor_backup'") == []


def _small_backup(site: Site, now: datetime, base: str | None = None, number: int = 0) -> Manifest:
    """A backup on the target whose artefacts are a few bytes: for what never restores one."""
    kind = "incremental" if base else "full"
    manifest = Manifest(
        label=label_for(now, kind),
        kind=kind,
        base_label=base,
        engine="core",
        server_version=180000,
        system_identifier="1",
        timeline=1,
        started_at=now.isoformat(),
        ended_at=now.isoformat(),
        point="p",
        point_at=now.isoformat(),
        point_lsn="0/3000000",
        start_lsn="0/2000000",
        source_bytes=1,
        migration=None,
        holds=0,
        recipients=(),
        artefacts=tuple(Artefact(f"a{n}", 4, sha256(b"data"), 4) for n in range(3)),
        tables=(),
        beats=(),
        schema={},
        number=number,
    )
    for artefact in manifest.artefacts:
        site.engine.target.put(f"{manifest.label}/{artefact.name}", b"data")
    site.engine.target.put(f"{manifest.label}/{MANIFEST}", sign(manifest, keys.read_signing_key(site.engine.ring)))
    return manifest


def test_a_killed_prune_leaves_whole_backups_and_the_next_one_ends_it(site: Site) -> None:
    """Manifest first: what is still listed after a kill has all its files, and the rest is taken away."""
    chance = random.Random("kill prune")
    for _ in range(2 * CAMPAIGN_FACTOR):
        made = [_small_backup(site, site.now) for _ in range(25)]
        _sign_verdict(site, made[-1])
        goes = [manifest.label for manifest in made[:-1]]
        catalogue = site.catalogue
        _killed(
            lambda catalogue=catalogue, goes=goes: delete_backups(site.engine.target, catalogue, goes),  # type: ignore[misc]
            chance.uniform(0, 0.03),
        )
        after = site.catalogue
        assert made[-1].label in after.good()
        assert check_digests(site.engine, after.backups).passed
        delete_backups(site.engine.target, after, [m.label for m in after.backups if m.label in goes])
        clear_leftovers(site.engine.target, site.catalogue, goes, site.now)
        assert [m.label for m in site.catalogue.backups if m.label in goes] == []
        assert site.catalogue.leftovers == ()


def test_a_killed_restore_leaves_the_former_database_or_is_finished(site: Site, scratch_home: Path) -> None:
    """Over a database that is there: after each kill it holds what it held or what was restored, nothing else."""
    manifest = site.take()
    wanted = Wanted(site.catalogue.chain(manifest.label), point=manifest.point)
    begun = time.monotonic()
    restore(site.engine, wanted, scratch_home, sealed=False)
    usual = time.monotonic() - begun
    fill(site.settings.model_copy(update={"home": scratch_home}), 7, first=900)
    chance = random.Random("kill restore")
    for _ in range(CAMPAIGN_FACTOR):
        _killed(lambda: restore(site.engine, wanted, scratch_home, sealed=False), chance.uniform(0.05, usual))
        server = find_postgres(scratch_home) or start_recovered(scratch_home, paused=False)
        assert count_customers(server) in (200, 207)
    restored = restore(site.engine, wanted, scratch_home, sealed=False)
    assert count_customers(restored.server) == 200


def test_what_shows_data_under_legal_hold_goes_when_the_hold_is_released(site: Site) -> None:
    """Too old for every other rule, it stays while the hold stands; the next prune after its release deletes it."""
    database, old, placed = engine_for(site.settings, OWNER), site.now, site.now
    made = [_small_backup(site, old - timedelta(days=days)) for days in (800, 799, 30, 1)]
    for manifest in made:
        _sign_verdict(site, manifest)
    with database.begin() as connection:
        rule = read_policy(connection, placed.date())
        policy = replace(rule, keep_daily=1, keep_weekly=0, keep_monthly=0, minimum_good=1)
        connection.execute(
            text(
                "insert into ops.legal_holds (case_number, entity, subject, reason, author, placed_at, review_on)"
                " values ('case', 'crm.organizations', gen_random_uuid(), 'asked', 'test', :placed, '2027-01-01')"
            ),
            {"placed": old - timedelta(days=799)},
        )
    assert runs.prune(database, site.engine, policy, placed, live=True) == [made[0].label]
    assert runs.prune_plan(database, site.engine, policy, placed).stays[made[1].label] == ("hold",)
    with database.begin() as connection:
        connection.execute(
            text("update ops.legal_holds set released_at = now(), released_by = 'test', release_reason = 'over'")
        )
    assert runs.prune(database, site.engine, policy, placed, live=True) == [made[1].label]
    assert [manifest.label for manifest in site.catalogue.backups] == [made[2].label, made[3].label]


# --- no room, no peace ------------------------------------------------------------------------------------------------


def test_a_target_without_room_ends_in_words_and_lists_nothing(site: Site) -> None:
    """The file may not grow past 64 KB, as on a full disk: nothing is listed, and with room again all is well."""
    now = site.now

    def without_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
        try:
            site.engine.take(now, "full", None)
        except DependencyDown as error:
            os._exit(7 if "cannot be written" in error.message else 8)

    child = os.fork()
    if child == 0:
        try:
            without_room()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert site.catalogue.backups == ()
    assert list(Path(site.engine.target.root).rglob("*.part")) == []
    assert check_digests(site.engine, [site.take()]).passed


def test_two_at_once_are_one_after_the_other(site: Site) -> None:
    """Backup, check and prune share slots and scratch: the second is told, and nothing of it is done."""
    database = engine_for(site.settings)
    with runs.one_at_a_time(database), pytest.raises(Locked, match="under way"), runs.one_at_a_time(database):
        pass
    with runs.one_at_a_time(database):
        pass


def test_a_clock_that_went_back_never_replaces_a_backup(site: Site) -> None:
    """The same instant again is refused; what is there stays as it was."""
    manifest = site.take()
    with pytest.raises(Refused, match="exists already"):
        site.engine.take(manifest.started, "full", None)
    assert check_digests(site.engine, [manifest]).passed


def test_a_clock_that_was_ahead_for_one_backup_hides_none_of_those_after_it(site: Site) -> None:
    """Ten years ahead, then right again: the one made last is the newest, to restore, to build on and to keep."""
    database, start = engine_for(site.settings, OWNER), datetime.now(UTC).replace(microsecond=0)
    with database.begin() as connection:
        policy = read_policy(connection, start.date())
    ahead = site.engine.take(start + timedelta(days=3652), "full", None)
    assert runs.choose(site.engine, site.catalogue, policy, "auto", start).reason.endswith("a clock was moved")
    ahead = _at_its_own_clock(site, ahead)
    after = [_small_backup(site, start + timedelta(days=day), number=ahead.number + 1 + day) for day in range(3)]
    for manifest in (ahead, *after):
        _sign_verdict(site, manifest)
    assert [m.label for m in site.catalogue.backups] == [m.label for m in (ahead, *after)]
    assert site.catalogue.next_number == ahead.number + 4
    elsewhere = Path("/tmp/nowhere")
    assert foresee(site.settings, site.catalogue, None, None, elsewhere).wanted.newest == after[-1]
    between = foresee(site.settings, site.catalogue, None, after[1].point_time + timedelta(hours=1), elsewhere)
    assert between.wanted.newest == after[1]

    later = start + timedelta(days=policy.recovery_window_days + 1, hours=12)
    only_the_window = replace(policy, keep_daily=0, keep_weekly=0, keep_monthly=0, minimum_good=1)
    assert runs.prune(database, site.engine, only_the_window, later, live=True) == [after[0].label, ahead.label]
    with database.begin() as connection:
        run_id = int(connection.scalar(text("select min(run_id) from ops.run_ledger")) or 0)
        reconcile(connection, site.catalogue, run_id, later)
        assert connection.scalar(text("select count(*) from report.backups where good")) == 2


def _at_its_own_clock(site: Site, manifest: Manifest) -> Manifest:
    """The backup as the server's clock would have told it, had it been ahead with the other one."""
    told = replace(manifest, point_at=manifest.started_at, beats=())
    site.engine.target.put(f"{told.label}/{MANIFEST}", sign(told, keys.read_signing_key(site.engine.ring)))
    return told


def test_a_proof_of_a_time_that_has_not_come_is_no_proof(kontor_settings: Settings) -> None:
    """Checked while the clock was a year ahead: the watch is silent all the same; the failure noted after it counts."""
    with engine_for(kontor_settings, OWNER).begin() as connection:
        connection.execute(
            text(
                "insert into ops.backups (label, kind, engine, state, started_at, ended_at, point_at)"
                " select 'b' || n, 'full', 'core', 'done', at, at, at"
                " from unnest(array[now() - interval '5 days', now() + interval '1 year']) with ordinality t (at, n)"
            )
        )
        connection.execute(
            text(
                "insert into ops.restore_checks (backup_id, state, checked_at)"
                " select backup_id, 'passed', started_at from ops.backups order by backup_id"
            )
        )
        watch = "select days_since_verified, silent, good_backups from report.backup_watch"
        assert connection.execute(text(watch)).one() == (5, True, 1)
        connection.execute(
            text(
                "insert into ops.restore_checks (backup_id, state, checked_at)"
                " select backup_id, 'failed', now() from ops.backups where label = 'b2'"
            )
        )
        assert connection.scalar(text("select good from report.backups where label = 'b2'")) is False


def test_an_unknown_signer_is_not_believed(site: Site, tmp_path: Path) -> None:
    """A whole, valid backup by another machine is damaged goods here until its line is among the signers."""
    manifest = site.take()
    other = keys.Keyring(tmp_path / "other", tmp_path / "other" / keys.IDENTITY)
    keys.ensure_keys(other)
    catalogue = read_catalogue(site.engine.target, keys.read_signers(other))
    assert (catalogue.backups, catalogue.damaged) == ((), (manifest.label,))


def test_the_last_good_one_and_a_base_cannot_be_deleted(site: Site) -> None:
    """Whoever asks, and whatever the rule said a moment ago."""
    base = _small_backup(site, site.now)
    later = _small_backup(site, site.now, base.label)
    _sign_verdict(site, base)
    _sign_verdict(site, later)
    with pytest.raises(Refused, match="builds on"):
        delete_backups(site.engine.target, site.catalogue, [base.label])
    with pytest.raises(Refused, match="all the backups"):
        delete_backups(site.engine.target, site.catalogue, [later.label, base.label])
    assert len(site.catalogue.backups) == 2


def test_a_server_of_another_version_than_the_programs_is_not_backed_up(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs of PostgreSQL 17 beside a server of another version: refused before anything is copied."""
    program = tmp_path / "pg_basebackup"
    program.write_text("#!/bin/sh\necho 'pg_basebackup (PostgreSQL) 17.6'\n")
    program.chmod(0o755)
    older = replace(site.server, programs_dir=tmp_path)
    monkeypatch.setattr(core_engine, "embedded_server", lambda _settings: older)
    with pytest.raises(Refused, match="the programs of 17; nothing was changed"):
        site.take()
    assert site.engine.target.names() == []


def test_a_key_that_does_not_open_a_backup_does_not_call_it_broken(site: Site) -> None:
    """The escrow copy from before a rotation is refused as such; the verdict that there is stays."""
    manifest = _small_backup(site, site.now)
    _sign_verdict(site, manifest)
    with pytest.raises(Refused, match="was made for another key") as refused:
        check_backup(site.engine, site.catalogue, manifest.label, now=site.now)
    assert "escrow" in refused.value.hint
    assert site.catalogue.good() == {manifest.label}


def test_one_scratch_home_is_used_by_one_process_at_a_time(site: Site) -> None:
    """A drill needs no database, and so no lock of one: it and a check still do not clear each other's copy away."""
    with own_scratch(site.settings, "check") as home:
        home.mkdir()
        with pytest.raises(Locked, match="Another process is restoring"), own_scratch(site.settings, "check"):
            pass
        assert home.exists()
    assert not home.exists()
    with own_scratch(site.settings, "check"):
        pass


def test_another_major_version_is_refused(site: Site, tmp_path: Path) -> None:
    """A backup of PostgreSQL 17 is not laid out by the programs of another version, and nothing is written."""
    manifest = replace(site.take(), server_version=170_004)
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(Refused, match="PostgreSQL 17, the programs of"):
        site.engine.lay_out(Wanted((manifest,), point=manifest.point), folder)
    assert list(folder.iterdir()) == []
    assert manifest.started.tzinfo == UTC
