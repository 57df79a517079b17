"""Where backups lie: a folder, S3-compatible storage, SFTP, or any other file system that fsspec knows.

    <target>/<label>/base.tar.zst.age         the data folder
    <target>/<label>/wal.tar.zst.age          the WAL from its start to its restore point
    <target>/<label>/backup_manifest.zst.age  PostgreSQL's own list of files
    <target>/<label>/manifest.json            what the rest must be, signed; written last, deleted first
    <target>/<label>/check.json               the verdict of the newest restore check, signed
    <target>/wal/<segment>.zst.age, .json     shipped WAL, the signed record last
    <target>/wal/home-<size>.tar.zst.age      the erasure ledger between two backups, with such a record too

An artefact is written under another name, brought to disk and renamed; object storage has neither, but shows an object
only when all of it is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from configs.settings import Settings
from tasks.errors import DependencyDown, UsageError

MANIFEST, CHECK, WAL = "manifest.json", "check.json", "wal"
_PART = ".part"
_AGAIN = "Check that the target is there and has space, then run it again; what is half written is not listed."


@dataclass(frozen=True)
class Target:
    """An open target: ``files`` is fsspec's file system, ``root`` the path in it, ``renames`` false for objects."""

    files: Any
    root: str
    protocol: str
    renames: bool

    @contextmanager
    def writing(self, path: str) -> Iterator[Any]:
        """A file for a ``with`` block that appears under ``path`` whole, synced and last, or not at all.

        Raises:
            DependencyDown: the target cannot be written to; ``path`` is not there.
        """
        final = f"{self.root}/{path}"
        name = f"{final}{_PART}" if self.renames else final
        with _in_words(f"{path} cannot be written"):
            self.files.makedirs(final.rsplit("/", 1)[0], exist_ok=True)
            # Parts of an upload: 10,000 of 16 MB are 160 GB. Elsewhere the file system knows its own best size.
            file = self.files.open(name, "wb", **({} if self.renames else {"block_size": 1 << 24}))
        try:
            with _in_words(f"{path} cannot be written"):
                yield file
                file.close()
                if self.renames:
                    self._settle(name, final)
        except BaseException:
            self._give_up(file, name)
            raise

    def _settle(self, name: str, final: str) -> None:
        local = isinstance(self.files, LocalFileSystem)
        if local:
            _sync(name)
            Path(name).replace(final)
            _sync(str(Path(final).parent))
            _sync(str(Path(final).parent.parent))
        else:
            if self.files.exists(final):
                self.files.rm_file(final)
            self.files.mv(name, final)

    def _give_up(self, file: Any, name: str) -> None:
        """Leave nothing behind; the next run's housekeeping takes what this cannot."""
        with contextlib.suppress(*_remote_errors(), ValueError):
            if self.renames:
                file.close()
                self.files.rm_file(name)
            else:
                file.discard()  # an upload that is not completed never becomes an object
                file.closed = True  # or it would try to complete it when it is collected

    def put(self, path: str, content: bytes) -> None:
        """Write a small file whole; raises as :meth:`writing`."""
        with self.writing(path) as file:
            file.write(content)

    @contextmanager
    def reading(self, path: str) -> Iterator[Any]:
        """A stored file for a ``with`` block; DependencyDown when it is not there or cannot be read."""
        with _in_words(f"{path} cannot be read"), self.files.open(f"{self.root}/{path}", "rb") as file:
            yield file

    def get(self, path: str) -> bytes:
        """The content of a small file; raises as :meth:`reading`."""
        with self.reading(path) as file:
            content: bytes = file.read()
            return content

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        with _in_words("The target cannot be listed"):
            return bool(self.files.exists(f"{self.root}/{path}"))

    def names(self, folder: str = "") -> list[str]:
        """The names of what lies in a folder, sorted; none when there is no such folder."""
        where = f"{self.root}/{folder}".rstrip("/")
        with _in_words("The target cannot be listed"):
            self.files.invalidate_cache()
            if not self.files.exists(where):
                return []
            return sorted({str(name).rstrip("/").rsplit("/", 1)[-1] for name in self.files.ls(where, detail=False)})

    def remove(self, path: str) -> None:
        """Delete a file; nothing happens when it is not there."""
        with _in_words(f"{path} cannot be deleted"):
            if self.files.exists(f"{self.root}/{path}"):
                self.files.rm_file(f"{self.root}/{path}")
        if isinstance(self.files, LocalFileSystem):
            _sync(str(Path(f"{self.root}/{path}").parent))

    def remove_folder(self, folder: str) -> None:
        """Delete a folder with what is left in it."""
        with _in_words(f"{folder} cannot be deleted"):
            if self.files.exists(f"{self.root}/{folder}"):
                self.files.rm(f"{self.root}/{folder}", recursive=True)


def open_target(settings: Settings) -> Target:
    """The target that the settings name; the default is the folder ``KONTOR_HOME/backups``.

    Raises:
        UsageError: the address or its options cannot be understood, or its package is not installed.
    """
    chosen = settings.backup_target
    url = chosen.get_secret_value() if chosen is not None else str(settings.home / "backups")
    return target_at(url, settings.backup_target_options.get_secret_value())


def target_at(url: str, options: str = "{}") -> Target:
    """The target at an address; raises as :func:`open_target`."""
    try:
        files, root = fsspec.core.url_to_fs(url, **json.loads(options))
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(
            f"KONTOR_BACKUP_TARGET cannot be used ({type(error).__name__}).",
            hint="Give a folder, s3://bucket/path or sftp://user@host/path, and options as a JSON object.",
        ) from None
    except OSError as error:
        raise DependencyDown(
            f"The backup target cannot be reached: {error.strerror or type(error).__name__}."
        ) from None
    protocol = files.protocol if isinstance(files.protocol, str) else files.protocol[0]
    target = Target(files, root.rstrip("/"), protocol, protocol not in ("s3", "s3a", "gcs", "gs", "abfs", "az"))
    if isinstance(files, LocalFileSystem):
        _private(Path(target.root))
    return target


def _private(folder: Path) -> None:
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise DependencyDown(f"{folder} cannot be made: {error.strerror}.", hint=_AGAIN) from None


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Turn what a file system says into our words; the address, which may hold a password, is left out."""
    try:
        yield
    except FileNotFoundError:
        raise DependencyDown(f"{what}: it is not there.", hint=_AGAIN) from None
    except _remote_errors() as error:
        said = error.strerror if isinstance(error, OSError) else None
        raise DependencyDown(f"{what}: {said or type(error).__name__}.", hint=_AGAIN) from None


def _remote_errors() -> tuple[type[BaseException], ...]:
    """What file systems raise for the state of the world: OSError, and what the loaded ones raise beside it."""
    beside = (("asyncssh", "Error"), ("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"))
    loaded = [getattr(sys.modules[module], name) for module, name in beside if module in sys.modules]
    return (OSError, *loaded)
