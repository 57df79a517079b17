"""What a restored database goes through before anybody may use it, and what an operator is told before."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from configs.settings import Settings
from tasks import database
from tasks.backups.engine import Wanted
from tasks.backups.faults import flip
from tasks.backups.handing_over import address_of, hand_over, look_at, scratch_of
from tasks.backups.operating import carry_out, foresee, open_restored
from tasks.backups.programs import OwnServer, ask, connect, scalar
from tasks.backups.restoring import HELD_REASON, SEQUENCE_MARGIN, restore
from tasks.backups.scratch import clear
from tasks.backups.shipping import ship_home, unpack_shipped_home
from tasks.erasures.ledger_file import Entry, Subject, ledger_of
from tasks.errors import DependencyDown, Refused, UsageError
from tasks.ledger import open_run
from tasks.local_stack import LocalPostgres, find_postgres, is_sealed
from tests.backup_site import Site, count_customers, fill, site_at

_REMINDERS = """
insert into outbox.reminders (run_id, decision_id, organization_id, as_of, stage, state, recipient_email,
                              recipient_reason, language, template, rule_id, rule_version, state_reason)
select 1, 1, place, '2026-01-01', 'first', state, 'somebody@firm.example', 'x', 'en', 'first', 'r', 1, 'test'
from unnest(array['planned', 'approved', 'deferred', 'sending', 'sent', 'cancelled', 'held'])
     with ordinality as t (state, place)
"""


@pytest.fixture
def site(kontor_settings: Settings, tmp_path: Path) -> Site:
    """A database of 20 customers with mails in every state, and an empty target."""
    fill(kontor_settings, 20)
    made = site_at(kontor_settings, tmp_path / "target", tmp_path / "keys")
    with connect(made.server) as connection:
        ask(connection, "set session_replication_role = replica")  # mails without their decisions
        ask(connection, _REMINDERS)
    return made


@pytest.fixture
def new_home(kontor_settings: Settings) -> Iterator[Path]:
    """A KONTOR_HOME that does not exist yet; its server is removed at the end."""
    home = kontor_settings.home / "again"
    yield home
    clear(home)


def _erase(site: Site, customer: str) -> UUID:
    """Let a customer go as somebody who asked for it: the ledger first, then the row."""
    with connect(site.server) as connection:
        found = scalar(connection, "select external_id from crm.organizations where customer_number = %s", customer)
        entry = Entry(
            at=datetime.now(UTC),
            kind="request",
            entity="crm.organizations",
            rule_id="asked",
            rule_version=1,
            subjects=(Subject(str(found)),),
        )
        ledger_of(site.settings.home).append([entry])
        ask(connection, "update crm.organizations set name = 'erased' where external_id = %s", found)
    return UUID(str(found))


def _may_enter(server: LocalPostgres, role: str) -> bool:
    try:
        with connect(server, role=role):
            return True
    except DependencyDown:
        return False


def test_a_restored_database_is_sealed_until_nobody_comes_back(site: Site, new_home: Path, tmp_path: Path) -> None:
    """Nobody but the restore gets in; then the erased stay erased, numbers go on behind, and no mail leaves."""
    manifest = site.take()
    _erase(site, "000007")
    wanted = Wanted(site.catalogue.chain(manifest.label), point=manifest.point)
    restored = restore(site.engine, wanted, new_home)
    settings = site.settings.model_copy(update={"home": new_home})
    assert is_sealed(new_home)
    roles = (database.FLOWS, database.FINANCE, database.OWNER, database.RETENTION)
    assert [role for role in roles if _may_enter(restored.server, role)] == []
    with pytest.raises(Refused, match="has not been erased in it again"):
        database.prepare(settings)
    with connect(restored.server) as connection:  # the backup is from before the erasure
        name = "select name from crm.organizations where customer_number = '000007'"
        assert scalar(connection, name) == "Firm 7"

    # The ledger of the home that made the backup is found beside the next backup; what came after that, with the WAL.
    held = Entry(
        datetime.now(UTC), "hold", "crm.organizations", reference=str(uuid4()), subjects=[Subject(str(uuid4()))]
    )
    later = site.take()
    ledger_of(new_home).path.parent.mkdir()
    shutil.copy(ledger_of(site.settings.home).path, ledger_of(new_home).path)  # a home that fell behind
    ledger_of(site.settings.home).append([held])
    assert [ship_home(site.engine, site.now) for _ in range(2)] == [True, False]
    assert not ship_home(replace(site.engine, settings=settings), site.now), "a longer one is never replaced"
    released = open_restored(settings, site.engine, site.catalogue, origin=new_home)
    assert later.label == site.catalogue.backups[-1].label
    assert (released.erased["subjects"], released.held_mails) == (1, 4)
    server = find_postgres(new_home)
    assert server is not None
    assert [role for role in roles if not _may_enter(server, role)] == []
    with connect(server) as connection:
        assert scalar(connection, name) != "Firm 7"
        states = dict(ask(connection, "select state, count(*)::integer from outbox.reminders group by state"))
        assert states == {"held": 4, "unknown": 1, "sent": 1, "cancelled": 1}
        waiting = "select count(*) from outbox.reminders where state_reason = %s"
        assert scalar(connection, waiting, HELD_REASON) == 4
        number = int(scalar(connection, "select nextval('crm.organizations_organization_id_seq')"))
        assert number > 20 + SEQUENCE_MARGIN - 1
        standing = "select reference::text from ops.legal_holds where released_at is null"
        assert scalar(connection, standing) == held.reference
        assert scalar(connection, "select state from ops.run_ledger where flow = 'restore'") == "done"
    assert list(Path(tempfile.gettempdir()).glob("kontor-home-*")) == []  # it held the key of the ledger's hashes
    assert ledger_of(new_home).verify() == ledger_of(site.settings.home).verify()
    [copy] = Path(site.engine.target.root).glob("wal/home-*.age")
    copy.write_bytes(flip(copy.read_bytes(), Random(1)))
    assert not unpack_shipped_home(site.engine, tmp_path)
    with pytest.raises(Refused, match="open already"):
        open_restored(settings, site.engine, site.catalogue, origin=new_home)


def test_a_restore_over_the_present_database_keeps_the_former_one(site: Site, new_home: Path) -> None:
    """Told first what would be lost; afterwards the former folder lies beside the new one."""
    manifest = site.take()
    settings = site.settings.model_copy(update={"home": new_home})
    wanted = Wanted(site.catalogue.chain(manifest.label), point=manifest.point)
    restore(site.engine, wanted, new_home, sealed=False)
    fill(settings, 5, first=100)
    engine = site_at(settings, site.engine.target.root, site.engine.ring.folder).engine
    prospect = foresee(settings, site.catalogue, manifest.label, None, None)
    assert (prospect.replaces, prospect.good, prospect.to) == (True, False, manifest.point_time)
    assert prospect.lost["files"] == 1
    server = find_postgres(new_home)
    assert server is not None
    earlier = server.data_dir.with_name(f"data.before-{manifest.label}")  # an earlier restore of the same backup
    earlier.mkdir()
    (earlier / "kept").touch()
    restored, _ = carry_out(settings, engine, site.catalogue, prospect, lambda _: None)
    assert restored.former is not None
    assert (restored.former / "PG_VERSION").is_file()
    assert [path.name for path in earlier.iterdir()] == ["kept"]
    server = find_postgres(new_home)
    assert server is not None
    assert count_customers(server) == 20


def test_a_running_flow_is_never_restored_over(site: Site, new_home: Path) -> None:
    """One that runs, and one that begins while the copy is laid out: refused, and the database goes on as it was."""
    manifest = site.take()
    settings = site.settings.model_copy(update={"home": new_home})
    wanted = Wanted(site.catalogue.chain(manifest.label), point=manifest.point)
    restore(site.engine, wanted, new_home, sealed=False)
    fill(settings, 5, first=100)
    engine = site_at(settings, site.engine.target.root, site.engine.ring.folder).engine
    prospect = foresee(settings, site.catalogue, manifest.label, None, None)
    flows = database.engine_for(settings)
    with ExitStack() as stack:

        def begin(said: str) -> None:
            if said.startswith("Laying out"):
                day = date(2026, 1, 1)
                stack.enter_context(
                    open_run(flows, "payment_sync", as_of=day, dry_run=False, prefect_run_id=None, actor="test")
                )

        for _ in range(2):  # it begins meanwhile; then it runs already
            with pytest.raises(Refused, match=r"Flows are under way .* payment_sync"):
                carry_out(settings, engine, site.catalogue, prospect, begin)
            server = find_postgres(new_home)
            assert server is not None
            assert count_customers(server) == 25
            assert [path.name for path in server.data_dir.parent.glob("data*")] == ["data"]
    flows.dispose()


def test_a_backup_is_handed_to_an_empty_database_of_another_server(site: Site) -> None:
    """Every table equal, who was erased since is erased there; a second time it is not empty and is left alone."""
    with connect(site.server) as connection:
        ask(connection, "set session_replication_role = replica")
        ask(connection, "delete from outbox.reminders")  # those of the fixture have no decisions
    manifest = site.take()
    _erase(site, "000007")
    address = f"postgresql://{site.server.superuser}@/handed?host={site.server.socket_dir}&port={site.server.port}"
    url = address_of(address)
    assert url is not None
    assert address_of("/srv/elsewhere") is None
    with pytest.raises(UsageError, match="is none"):
        address_of("postgresql://host")
    prospect = foresee(site.settings, site.catalogue, manifest.label, None, scratch_of(site.settings))
    with connect(site.server, "postgres") as connection:
        ask(connection, "create database handed")
        try:
            done = hand_over(site.settings, site.engine, site.catalogue, prospect, url, lambda _: None)
            assert done.tables > 30
            with connect(OwnServer(url)) as there:
                assert scalar(there, "select count(*) from crm.organizations") == 20
                name = "select name from crm.organizations where customer_number = '000007'"
                assert scalar(there, name) != "Firm 7"
            assert not scratch_of(site.settings).exists()
            with pytest.raises(Refused, match="is not empty: it has crm"):
                look_at(url, manifest.server_version)
        finally:
            ask(connection, "drop database handed with (force)")


def test_only_a_proven_backup_is_chosen_by_itself(site: Site) -> None:
    """One that was never checked has to be named, and an instant before all backups is refused in words."""
    manifest = site.take()
    with pytest.raises(UsageError, match="No backup has passed its check"):
        foresee(site.settings, site.catalogue, None, None, Path("/tmp/nowhere"))
    assert foresee(site.settings, site.catalogue, manifest.label, None, Path("/tmp/nowhere")).good is False
    with pytest.raises(UsageError, match="reaches back to 2020"):
        foresee(site.settings, site.catalogue, None, datetime(2020, 1, 1, tzinfo=UTC), Path("/tmp/nowhere"))
    with pytest.raises(UsageError, match="There is no backup 20200101T000000Z-full; the newest are: "):
        foresee(site.settings, site.catalogue, "20200101T000000Z-full", None, None)


def test_writers_who_never_end_are_named_as_the_reason(site: Site) -> None:
    """The restore point needs a moment without a writer; an open transaction that wrote is not waited for for ever."""
    from tasks.backups.fingerprints import mark_point

    server = site.server
    target = make_conninfo(host=str(server.socket_dir), port=server.port, user=server.superuser, dbname="kontor")
    with psycopg.connect(target) as writer:
        writer.execute("insert into ops.heartbeats default values")
        with pytest.raises(Refused, match="writing all the time"):
            mark_point(server, "never", patience_seconds=0.1)
        writer.rollback()
    assert mark_point(server, "soon", patience_seconds=5).name == "soon"
