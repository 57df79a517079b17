"""Keyed hashes: how a person is recognised again without being named.

The key lies in ``KONTOR_HOME/keys/erasure.key``, readable by its owner alone, outside the database: whoever has the
ledger or the database alone cannot try addresses against a hash. Without the key a replay still finds records by their
external id, but no longer people whom a file brings back under a new one, so the key belongs into the encrypted part
of a backup. Hash: HMAC-SHA-256 (RFC 2104) of the normalised text in UTF-8, in hexadecimal.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from tasks.erasures.ledger_file import ledger_of
from tasks.errors import Refused

_BLOCK = 64  # bytes of a block of SHA-256
_LENGTH = 32
_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")

# Between the parts of a key that has several; no such character survives in a stored value's first part.
SEPARATOR = "\x1f"


@dataclass(frozen=True)
class ErasureKey:
    """The secret; its text is never shown."""

    secret: bytes = field(repr=False)

    def hash_of(self, *parts: str) -> str:
        """The keyed hash of a key made of these parts, each normalised."""
        message = SEPARATOR.join(normalised(part) for part in parts).encode()
        return hmac.digest(self.secret, message, "sha256").hex()

    def bound(self) -> dict[str, bytes]:
        """The parameters ``inner_key`` and ``outer_key`` that :func:`hash_sql` speaks of."""
        padded = self.secret.ljust(_BLOCK, b"\0")
        return {
            "inner_key": bytes(byte ^ 0x36 for byte in padded),
            "outer_key": bytes(byte ^ 0x5C for byte in padded),
        }


def normalised(value: str) -> str:
    """The value as it is hashed: without spaces around it, A to Z in small letters; the same in SQL on every server."""
    return value.strip(" ").translate(_ASCII_LOWER)


def hash_sql(*parts: str) -> str:
    """SQL for :meth:`ErasureKey.hash_of` of these SQL expressions; null where one of them is null."""
    joined = " || chr(31) || ".join(f'lower(btrim({part}) collate "C")' for part in parts)
    return (
        "encode(sha256(cast(:outer_key as bytea) || sha256(cast(:inner_key as bytea) ||"
        f" convert_to({joined}, 'UTF8'))), 'hex')"
    )


def key_of(home: Path) -> ErasureKey:
    """The installation's key, made on first use.

    Raises:
        Refused: others may read the file, it is not a key, or it is missing although hashes were made with it.
    """
    path = home / "keys" / "erasure.key"
    if not path.exists():
        if any(subject.key or subject.address for line in ledger_of(home).read() for subject in line.subjects):
            raise Refused(
                f"{path} is missing, but the erasure ledger has hashes made with it. Nothing was changed.",
                hint="Restore the key from the encrypted part of a backup; a new one would recognise nobody.",
            )
        _create(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Refused(f"{path} can be read by others than its owner.", hint=f"chmod 600 {path}")
    try:
        secret = bytes.fromhex(path.read_text("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != _LENGTH:
        raise Refused(f"{path} does not hold a key of {_LENGTH} bytes.", hint="Restore the key from a backup.")
    return ErasureKey(secret)


def _create(path: Path) -> None:
    """Write a new key under another name and link it: of two processes at once one wins, and both read the same."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.write(handle, secrets.token_hex(_LENGTH).encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(made, path)
    except FileExistsError:
        pass
    finally:
        made.unlink()
