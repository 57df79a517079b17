"""Manifests, keys and streams: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pyrage import x25519

from tasks.backups import keys
from tasks.backups.faults import flip
from tasks.backups.manifest import (
    Artefact,
    Beat,
    Finding,
    Manifest,
    TablePrint,
    Verdict,
    read_manifest,
    read_verdict,
    sign,
)
from tasks.backups.streams import LastMember, check_digest, open_stream, seal_stream
from tasks.errors import BadInput, Refused, UsageError

IDENTITY = x25519.Identity.generate()
SIGNER = Ed25519PrivateKey.generate()
MANIFEST = Manifest(
    label="20260301T020000Z-full",
    kind="full",
    base_label=None,
    engine="core",
    server_version=180006,
    system_identifier="7",
    timeline=1,
    started_at="2026-03-01T02:00:00+00:00",
    ended_at="2026-03-01T02:00:09+00:00",
    point="kontor 20260301T020000Z-full",
    point_at="2026-03-01T02:00:08+00:00",
    point_lsn="0/3000060",
    start_lsn="0/2000028",
    source_bytes=9,
    migration="0010",
    holds=0,
    recipients=("age1…",),
    artefacts=(Artefact("base.tar.zst.age", 9, "00", 20),),
    tables=(TablePrint("kontor", "crm.contacts", 2, "-17"),),
    beats=(Beat(1, "2026-03-01T02:00:07+00:00", "2026-03-01T02:00:07.1+00:00"),),
    schema={"kontor rights": "ab"},
)


def test_a_manifest_is_read_back_whole_and_only_from_a_known_signer() -> None:
    """Another machine's signature is refused until its line stands among the signers."""
    content = sign(MANIFEST, SIGNER)
    assert read_manifest(content, [SIGNER.public_key()], "it") == MANIFEST
    with pytest.raises(BadInput, match="not signed by any of the 1 known"):
        read_manifest(content, [Ed25519PrivateKey.generate().public_key()], "it")


def test_every_bit_of_a_manifest_counts() -> None:
    """Each single bit flipped anywhere in the file, white space and signature included, is found."""
    content = sign(MANIFEST, SIGNER)
    for place in range(0, len(content) * 8, 5):
        broken = bytearray(content)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(BadInput):
            read_manifest(bytes(broken), [SIGNER.public_key()], "it")


def test_a_signed_record_of_another_kind_or_format_is_no_manifest() -> None:
    """What a newer version wrote, and a verdict under a manifest's name, are refused in words."""
    verdict = Verdict("l", "00", "2026-03-01T02:00:00+00:00", (Finding("tables", True),), None, "x", True, 1.0, 2.0)
    with pytest.raises(BadInput, match="another kind"):
        read_manifest(sign(verdict, SIGNER), [SIGNER.public_key()], "it")
    with pytest.raises(BadInput, match="format 2"):
        read_manifest(sign(replace(MANIFEST, format=2), SIGNER), [SIGNER.public_key()], "it")


@pytest.mark.parametrize(
    ("findings", "caught", "passed"),
    [((True, True), True, True), ((True, False), True, False), ((True, True), False, False), ((), True, False)],
)
def test_a_verdict_passes_only_when_all_is_right_and_the_planted_fault_was_caught(
    findings: tuple[bool, ...], caught: bool, passed: bool
) -> None:
    """A check that looked at nothing proves nothing."""
    made = tuple(Finding(str(number), right) for number, right in enumerate(findings))
    verdict = Verdict("l", "00", "2026-03-01T02:00:00+00:00", made, None, "x", caught, 1.0, 2.0)
    assert read_verdict(sign(verdict, SIGNER), [SIGNER.public_key()], "it").passed is passed


@given(st.binary(max_size=3_000_000))
def test_a_stream_comes_back_as_it_was(content: bytes) -> None:
    """Sealed and opened, with the digest of what lies on the target."""
    sealed, opened = io.BytesIO(), io.BytesIO()
    artefact = seal_stream("a", io.BytesIO(content), sealed, [IDENTITY.to_public()])
    assert (artefact.size, artefact.plain_bytes) == (len(sealed.getvalue()), len(content))
    check_digest(artefact, io.BytesIO(sealed.getvalue()))
    open_stream(artefact, io.BytesIO(sealed.getvalue()), opened, [IDENTITY])
    assert opened.getvalue() == content


def test_a_flipped_bit_a_lost_end_and_another_key_are_refused() -> None:
    """In front of the digest, the encryption notices by itself; both are in words."""
    sealed = io.BytesIO()
    artefact = seal_stream("a", io.BytesIO(b"x" * 200_000), sealed, [IDENTITY.to_public()])
    chance = random.Random(7)
    broken = [flip(sealed.getvalue(), chance) for _ in range(20)] + [sealed.getvalue()[:-1], b""]
    for content in broken:
        with pytest.raises(BadInput):
            check_digest(artefact, io.BytesIO(content))
        with pytest.raises(BadInput):
            open_stream(artefact, io.BytesIO(content), io.BytesIO(), [IDENTITY])
    with pytest.raises(BadInput, match="cannot be read"):
        open_stream(artefact, io.BytesIO(sealed.getvalue()), io.BytesIO(), [x25519.Identity.generate()])


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b/c", "backup_manifest"]), st.binary(max_size=2000)), max_size=6),
    st.integers(1, 700),
)
def test_a_member_is_picked_out_of_a_tar_however_it_is_cut(members: list[tuple[str, bytes]], piece: int) -> None:
    """The contents of every member of that name, in whatever pieces the stream comes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    watcher, whole = LastMember("backup_manifest"), archive.getvalue()
    for start in range(0, len(whole), piece):
        watcher.write(whole[start : start + piece])
    assert watcher.content == b"".join(content for name, content in members if name == "backup_manifest")


def test_stock_programs_read_what_is_written(tmp_path: Path) -> None:
    """`age -d | zstd -d` opens an artefact without Kontor, given the identity file that Kontor keeps."""
    if shutil.which("age") is None or shutil.which("zstd") is None:
        pytest.skip("the programs age and zstd are not installed here")
    ring = keys.keyring(tmp_path)
    keys.ensure_keys(ring)
    path = tmp_path / "artefact"
    with path.open("wb") as sink:
        seal_stream("a", io.BytesIO(b"every byte" * 9999), sink, keys.read_recipients(ring))
    script = f"age -d -i '{ring.identity}' '{path}' | zstd -d"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert done.stdout == b"every byte" * 9999


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_are_made_once_private_and_read_back(tmp_path: Path) -> None:
    """Only the owner may read them; a second call changes nothing."""
    ring = keys.keyring(tmp_path)
    assert keys.ensure_keys(ring) is True
    before = {path.name: path.read_bytes() for path in ring.folder.iterdir()}
    assert set(before) == {keys.RECIPIENTS, keys.IDENTITY, keys.SIGNING, keys.SIGNERS}
    assert all(path.stat().st_mode & 0o077 == 0 for path in [ring.folder, *ring.folder.iterdir()])
    assert keys.ensure_keys(ring) is False
    assert {path.name: path.read_bytes() for path in ring.folder.iterdir()} == before
    [identity], [recipient] = keys.read_identities(ring), keys.read_recipients(ring)
    assert str(identity.to_public()) == str(recipient) == keys.public_lines(ring)[0]


def test_a_machine_without_the_private_key_can_write_and_not_read(tmp_path: Path) -> None:
    """Taking the identity away leaves what a backup needs; reading says where the key belongs."""
    ring = keys.keyring(tmp_path)
    keys.ensure_keys(ring)
    ring.identity.unlink()
    assert keys.read_recipients(ring)
    assert keys.read_signing_key(ring)
    assert keys.ensure_keys(ring) is False
    with pytest.raises(Refused, match="not on this machine") as refused:
        keys.read_identities(ring)
    assert "KONTOR_BACKUP_IDENTITY" in refused.value.hint


def test_rotation_keeps_what_reads_older_backups(tmp_path: Path) -> None:
    """New backups are for the new key alone; the identity file opens both."""
    ring = keys.keyring(tmp_path)
    keys.ensure_keys(ring)
    old = seal_stream("a", io.BytesIO(b"old"), (old_bytes := io.BytesIO()), keys.read_recipients(ring))
    keys.new_identity(ring)
    assert len(keys.read_recipients(ring)) == 1
    assert len(keys.read_identities(ring)) == 2
    new = seal_stream("b", io.BytesIO(b"new"), (new_bytes := io.BytesIO()), keys.read_recipients(ring))
    for artefact, content, plain in ((old, old_bytes, b"old"), (new, new_bytes, b"new")):
        opened = io.BytesIO()
        open_stream(artefact, io.BytesIO(content.getvalue()), opened, keys.read_identities(ring))
        assert opened.getvalue() == plain


def test_an_escrow_copy_is_the_same_keys_and_is_never_written_over(tmp_path: Path) -> None:
    """And one that others may read is refused."""
    ring = keys.keyring(tmp_path)
    keys.ensure_keys(ring)
    copy = tmp_path / "escrow.txt"
    assert keys.copy_for_escrow(ring, copy) == 1
    assert copy.read_bytes() == ring.identity.read_bytes()
    with pytest.raises(Refused, match="not written over"):
        keys.copy_for_escrow(ring, copy)
    copy.chmod(0o644)
    with pytest.raises(Refused, match="read by others"):
        keys.read_identities(keys.Keyring(ring.folder, copy))


def test_a_key_file_with_another_thing_in_it_is_named(tmp_path: Path) -> None:
    """Never the content of it."""
    ring = keys.keyring(tmp_path)
    keys.ensure_keys(ring)
    (ring.folder / keys.RECIPIENTS).write_text("hunter2\n")
    with pytest.raises(UsageError) as wrong:
        keys.read_recipients(ring)
    assert "hunter2" not in wrong.value.message
