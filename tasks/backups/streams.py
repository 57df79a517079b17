"""Bytes on their way: tar → zstd → age → target, and back in the same order, with a digest taken where they lie.

Nothing is held whole and nothing is staged: each side reads what the other writes. The order is that of the stock
programs, so that ``age -d -i identity.txt FILE | zstd -d | tar -x`` reads what is written here.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from typing import Any, BinaryIO, Protocol

import pyrage
import zstandard
from pyrage import x25519

from tasks.backups.manifest import Artefact
from tasks.errors import BadInput

LEVEL = 1  # the quickest; level 3 takes half as long again for a tenth less
THREADS = 2
_PIECE = 1 << 20


class Sink(Protocol):
    """What can be written to."""

    def write(self, content: bytes, /) -> object:
        """Take the bytes."""


class Source(Protocol):
    """What can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""


class Watched:
    """A source that counts and hashes what is read from it, and shows it to ``watcher``."""

    def __init__(self, source: Source, watcher: Sink | None = None) -> None:
        self._source, self._watcher, self._digest = source, watcher, hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes."""
        content = self._source.read(size)
        self.size += len(content)
        self._digest.update(content)
        if self._watcher is not None:
            self._watcher.write(content)
        return content

    @property
    def sha256(self) -> str:
        """The digest of what was read so far."""
        return self._digest.hexdigest()


class _Counted:
    """A sink that counts and hashes what goes through it, in larger pieces."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._digest, self._held = sink, hashlib.sha256(), bytearray()
        self.failed: OSError | None = None  # the library that writes here gives an error of its own instead
        self.size = 0

    def write(self, content: bytes) -> int:
        """Take the bytes and return how many; they go on once there are enough."""
        self._held += content
        if len(self._held) >= _PIECE:
            self.flush()
        return len(content)

    def flush(self) -> None:
        """Let what is held go on; an error of the disk is kept in ``failed`` too."""
        if self._held:
            piece = bytes(self._held)
            self._held.clear()
            self._digest.update(piece)
            self.size += len(piece)
            try:
                self._sink.write(piece)
            except OSError as error:
                self.failed = error
                raise

    @property
    def sha256(self) -> str:
        """The digest of what has gone on so far."""
        return self._digest.hexdigest()


class _Counter:
    """A source that counts without hashing."""

    def __init__(self, source: Source, watcher: Sink | None) -> None:
        self._source, self._watcher = source, watcher
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes."""
        content = self._source.read(size)
        self.size += len(content)
        if self._watcher is not None:
            self._watcher.write(content)
        return content


def seal_stream(
    name: str, source: Source, sink: Sink, recipients: Sequence[x25519.Recipient], watcher: Sink | None = None
) -> Artefact:
    """Compress and encrypt all of ``source`` into ``sink`` and return what the artefact ``name`` then is.

    ``watcher`` sees the plain bytes as they pass.
    """
    plain, written = _Counter(source, watcher), _Counted(sink)
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=THREADS, write_checksum=True)
    with compressor.stream_reader(plain, read_size=_PIECE, closefd=False) as compressed:  # type: ignore[arg-type]
        try:
            pyrage.encrypt_io(compressed, written, list(recipients))
        except pyrage.EncryptError:
            if written.failed is not None:
                raise written.failed from None
            raise
    written.flush()
    return Artefact(name, written.size, written.sha256, plain.size)


def open_stream(artefact: Artefact, source: Source, sink: Sink, identities: Sequence[x25519.Identity]) -> None:
    """Decrypt and decompress ``source`` into ``sink``, and compare size and digest with what was signed.

    What was written to ``sink`` must not be used when this raises.

    Raises:
        BadInput: it is not the artefact that was signed, or none of the private keys opens it.
    """
    stored = Watched(source)
    decompressor = zstandard.ZstdDecompressor().stream_writer(sink, closefd=False)  # type: ignore[arg-type]
    opened = _Flat(decompressor)
    try:
        pyrage.decrypt_io(stored, opened, list(identities))
        opened.flush()
    except (pyrage.DecryptError, zstandard.ZstdError, OSError) as error:
        if opened.failed is not None and opened.failed.errno != errno.EPIPE:
            raise opened.failed from None  # the disk's fault, not the artefact's; a program that gave up is EPIPE
        raise BadInput(
            f"{artefact.name} cannot be read: {type(error).__name__} after {stored.size:,} of {artefact.size:,} bytes.",
            hint="Its bytes have changed or the private key is another; try another backup.",
        ) from None
    compare(artefact, stored.size, stored.sha256)


class _Flat:
    """A sink in larger pieces, since decryption writes 8 KB at a time."""

    def __init__(self, sink: Any) -> None:
        self._sink, self._held = sink, bytearray()
        self.failed: OSError | None = None

    def write(self, content: bytes) -> int:
        """Take the bytes and return how many; they go on once there are enough."""
        self._held += content
        if len(self._held) >= _PIECE:
            self.flush()
        return len(content)

    def flush(self) -> None:
        """Let what is held go on; an error of the disk is kept in ``failed`` too."""
        try:
            if self._held:
                self._sink.write(bytes(self._held))
                self._held.clear()
            self._sink.flush()
        except OSError as error:
            self.failed = error
            raise


def compare(artefact: Artefact, size: int, digest: str) -> None:
    """Raise BadInput unless size and digest are the artefact's."""
    if (size, digest) != (artefact.size, artefact.sha256):
        raise BadInput(
            f"{artefact.name} is not what was signed: {size:,} bytes, expected {artefact.size:,};"
            f" digest {digest[:12]}…, expected {artefact.sha256[:12]}….",
            hint="It was damaged or replaced on the target; use another backup and look at that disk.",
        )


def check_digest(artefact: Artefact, source: BinaryIO | Source) -> None:
    """Read all of a stored artefact and raise BadInput unless it is, byte for byte, what was signed."""
    stored = Watched(source)
    while stored.read(_PIECE):
        pass
    compare(artefact, stored.size, stored.sha256)


class LastMember:
    """A watcher of a tar stream that keeps the content of one member, such as ``backup_manifest``.

    PostgreSQL writes plain ustar archives: a header of 512 bytes, the content, padding to 512.
    """

    def __init__(self, wanted: str, most: int = 1 << 30) -> None:
        self._wanted, self._most = wanted.encode("ascii"), most
        self._header, self._skip, self._take, self._found = bytearray(), 0, 0, bytearray()

    @property
    def content(self) -> bytes:
        """What was found; empty when the archive has no such member."""
        return bytes(self._found)

    def write(self, content: bytes) -> None:
        """Follow the next bytes of the archive."""
        view = memoryview(content)
        while len(view):
            if self._take:
                step = min(self._take, len(view))
                self._found += view[:step]
                self._take -= step
            elif self._skip:
                step = min(self._skip, len(view))
                self._skip -= step
            else:
                step = min(512 - len(self._header), len(view))
                self._header += view[:step]
                if len(self._header) == 512:
                    self._read_header()
            view = view[step:]

    def _read_header(self) -> None:
        header = bytes(self._header)
        self._header.clear()
        size = _tar_size(header[124:136])
        padding = -size % 512
        if header[:100].rstrip(b"\0") == self._wanted and size <= self._most:
            self._take, self._skip = size, padding
        else:
            self._skip = size + padding


def _tar_size(cell: bytes) -> int:
    if cell[0] & 0x80:  # sizes of 8 GB and more
        return int.from_bytes(cell[1:], "big")
    digits = cell.strip(b" \0")
    return int(digits, 8) if digits else 0
