"""The same backup on a folder, on S3-compatible storage and over SFTP: written whole, read back, deleted."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from configs.settings import Settings
from tasks.backups import keys, wal
from tasks.backups.checking import check_backup, check_digests
from tasks.backups.engine import Wanted
from tasks.backups.programs import files
from tasks.backups.pruning import delete_backups
from tasks.backups.scratch import clear
from tasks.backups.targets import Target, target_at
from tasks.errors import DependencyDown, UsageError
from tasks.local_stack import make_restore_folder, programs_folder
from tests.backup_site import fill, site_at


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, str]]:
    """Address and options of a bucket on a server of this test."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "test",
        "secret": "test",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-north-1"},
    }
    s3fs.S3FileSystem(**options).mkdir("backups")
    yield "s3://backups/kontor", json.dumps(options)
    server.stop()


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and options of a folder served over SFTP by a server of this test."""
    folder = tmp_path_factory.mktemp("sftp")
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), {}

    async def serve() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        client = asyncssh.generate_private_key("ssh-ed25519")
        client.write_private_key(str(folder / "client_key"))
        (folder / "client_key").chmod(0o600)
        client.write_public_key(str(folder / "client_key.pub"))
        found["server"] = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[key],
            authorized_client_keys=str(folder / "client_key.pub"),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(folder / "root")),
        )
        ready.set()

    (folder / "root").mkdir()
    thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.run_forever()), daemon=True)
    thread.start()
    assert ready.wait(20)
    options = {"username": "kontor", "client_keys": [str(folder / "client_key")], "known_hosts": None}
    yield f"sftp://127.0.0.1:{found['server'].get_port()}/backups", json.dumps(options)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture(params=["folder", "s3", "sftp"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """One target after the other, each with nothing in it."""
    if request.param == "folder":
        return target_at(str(tmp_path / "backups"))
    url, options = request.getfixturevalue(request.param)
    made = target_at(url, options)
    for name in made.names():
        made.remove_folder(name)
    return made


def _give_up_half_way(target: Target, content: bytes) -> None:
    with target.writing("label/other") as file:
        file.write(content)
        raise ZeroDivisionError


def test_a_file_is_there_whole_or_not_at_all(target: Target) -> None:
    """Written, listed, read back; one that failed half-way leaves nothing; deleting twice is deleting once."""
    content = os.urandom(6_000_000)
    with target.writing("label/base") as file:
        for start in range(0, len(content), 1_000_000):
            file.write(content[start : start + 1_000_000])
    target.put("label/manifest.json", b"{}")
    assert target.names() == ["label"]
    assert target.names("label") == ["base", "manifest.json"]
    assert target.get("label/base") == content
    with pytest.raises(ZeroDivisionError):
        _give_up_half_way(target, content)
    assert target.names("label") == ["base", "manifest.json"]
    target.put("label/manifest.json", b"{1}")
    assert target.get("label/manifest.json") == b"{1}"
    target.remove("label/manifest.json")
    target.remove("label/manifest.json")
    assert not target.exists("label/manifest.json")
    target.remove_folder("label")
    target.remove_folder("label")
    assert target.names() == []
    with pytest.raises(DependencyDown, match="not there"):
        target.get("label/base")


def test_a_target_that_is_not_there_is_told_without_its_address(tmp_path: Path) -> None:
    """An address may hold a password."""
    with pytest.raises(UsageError) as wrong:
        target_at("nosuchprotocol://user:hunter2@host/path")
    assert "hunter2" not in wrong.value.message + wrong.value.hint
    with pytest.raises(UsageError):
        target_at("s3://bucket", "[not json")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DependencyDown):
        target_at(str(tmp_path / "file" / "below"))


def test_a_backup_on_object_storage_is_laid_out_again(
    s3: tuple[str, str], kontor_settings: Settings, tmp_path: Path
) -> None:
    """Taken there, listed from there, and laid out as PostgreSQL's own list says; deleted, nothing is left."""
    site = site_at(kontor_settings, s3[0], tmp_path / "keys", s3[1])
    manifest = site.take()
    assert site.catalogue.backups == (manifest,)
    assert check_digests(site.engine, [manifest]).passed
    folder = make_restore_folder(kontor_settings.home / "laid")
    try:
        site.engine.lay_out(Wanted((manifest,), point=manifest.point), folder)
        assert files(programs_folder(), folder).passed
    finally:
        clear(kontor_settings.home / "laid")
    delete_backups(site.engine.target, site.catalogue, [manifest.label])
    assert [label for label in site.engine.target.names() if site.engine.target.names(label)] == []


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ["s3", "sftp"])
def test_whole_backups_on_another_machine(
    kind: str, request: pytest.FixtureRequest, kontor_settings: Settings, tmp_path: Path
) -> None:
    """Full and incremental go there, the chain comes back and passes every look, WAL follows, and both are deleted."""
    url, options = request.getfixturevalue(kind)
    fill(kontor_settings)
    site = site_at(kontor_settings, url, tmp_path / "keys", options)
    full = site.take()
    fill(kontor_settings, 50, first=200)
    later = site.take("incremental", full)
    assert site.catalogue.backups == (full, later)
    verdict = check_backup(site.engine, site.catalogue, later.label, now=site.now, planted="manifest_changed")
    assert [finding.said for finding in verdict.findings if not finding.passed] == []
    assert site.catalogue.good() == {later.label}

    received = wal.wal_folder(kontor_settings)
    received.mkdir(exist_ok=True)
    name = next(wal.following(wal.segment_of(later.point_lsn, later.timeline)))
    content = os.urandom(100_000)
    (received / name).write_bytes(content)
    assert wal.ship(site.engine, site.now) == 1
    shutil.rmtree(received)
    ring = site.engine.ring
    supply = wal.Supply(site.engine.target, keys.read_signers(ring), keys.read_identities(ring), Path("/nowhere"))
    assert wal.lay_out_wal(supply, later, tmp_path, None) > later.point_time
    assert (tmp_path / name).read_bytes() == content
    assert wal.forget_wal(site.engine.target, "F" * 24) == 1

    delete_backups(site.engine.target, replace(site.catalogue, verdicts={}), [later.label, full.label])
    assert [label for label in site.engine.target.names() if site.engine.target.names(label)] == []
