"""Artefacts on their way between a target and a folder: sealed as they are read, opened and unpacked as they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyrage import x25519

from tasks.backups import keys, programs, streams
from tasks.backups.manifest import Artefact, Manifest
from tasks.backups.targets import Target

OWN_FILES = "home.tar.zst.age"
HOME_PARTS = ("erasures/ledger.jsonl", "keys/erasure.key", "contracts")


def seal(
    target: Target,
    ring: keys.Keyring,
    label: str,
    name: str,
    source: streams.Source,
    watcher: streams.Sink | None = None,
) -> Artefact:
    """Compress, encrypt and store all of ``source`` as an artefact of backup ``label``.

    ``watcher`` sees the plain bytes as they pass.

    Raises:
        DependencyDown: the target cannot be written to; nothing is there under that name.
    """
    with target.writing(f"{label}/{name}") as file:
        return streams.seal_stream(name, source, file, keys.read_recipients(ring), watcher)


def seal_home(home: Path, target: Target, ring: keys.Keyring, label: str, name: str = OWN_FILES) -> Artefact:
    """Store what a restored database needs beside it: the erasure ledger with its key, and senders' contracts.

    Raises as :func:`seal`.
    """
    there = [part for part in HOME_PARTS if (home / part).exists()]
    tar = ["tar", "--create", "--file=-", f"--directory={home}", "--files-from=/dev/null", *there]
    with programs.output_of(tar, "tar did not finish") as output:
        return seal(target, ring, label, name, output)


def unpack(target: Target, manifest: Manifest, name: str, folder: Path, identities: Sequence[x25519.Identity]) -> None:
    """Write the files of a stored archive into a folder.

    Raises:
        BadInput: it is not what was signed; the folder must not be used.
        DependencyDown: the target cannot be read.
    """
    unpack_file(target, f"{manifest.label}/{name}", manifest.artefact(name), folder, identities)


def unpack_file(
    target: Target, path: str, artefact: Artefact, folder: Path, identities: Sequence[x25519.Identity]
) -> None:
    """Write the files of the archive at ``path`` into a folder; raises as :func:`unpack`."""
    tar = ["tar", "--extract", "--file=-", f"--directory={folder}", "--no-same-owner"]
    with target.reading(path) as source, programs.input_of(tar, f"{path} is no archive") as sink:
        streams.open_stream(artefact, source, sink, identities)


def unpack_home(target: Target, ring: keys.Keyring, manifest: Manifest, folder: Path) -> None:
    """Write what a backup holds of KONTOR_HOME into a folder, made if need be; raises as :func:`unpack`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    unpack(target, manifest, OWN_FILES, folder, keys.read_identities(ring))
