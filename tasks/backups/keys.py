"""The keys of backups: who can read them (age) and who made them (Ed25519). Files in ``KONTOR_HOME/keys/backup``.

    recipients.txt   public age keys, one a line: every backup can be read by each of them
    identity.txt     private age keys in age's own format, newest last (0600); absent where only backups are made
    signing.key      the private Ed25519 key of this machine (0600)
    signers.txt      public Ed25519 keys whose backups this machine believes

A backup needs ``recipients.txt`` and ``signing.key`` only: a machine whose private age key was taken away after its
escrow copy was made can write backups that it cannot read. ``identity.txt`` is what ``age -d -i`` takes.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pyrage import IdentityError, RecipientError, x25519

from tasks.errors import Refused, UsageError

RECIPIENTS, IDENTITY, SIGNING, SIGNERS = "recipients.txt", "identity.txt", "signing.key", "signers.txt"


@dataclass(frozen=True)
class Keyring:
    """Where one installation's keys are; ``identity`` may lie elsewhere, on a medium that is mounted for a check."""

    folder: Path
    identity: Path


def keyring(home: Path, identity: Path | None = None) -> Keyring:
    """The keys of the installation in ``home``."""
    folder = home / "keys" / "backup"
    return Keyring(folder, identity or folder / IDENTITY)


def ensure_keys(ring: Keyring) -> bool:
    """Make the keys where there are none; True when the private age key was made now and has no copy yet."""
    _private_folder(ring.folder)
    if not (ring.folder / SIGNING).exists():
        _new_signing_key(ring)
    if (ring.folder / RECIPIENTS).exists():
        return False
    new_identity(ring)
    return True


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def _new_signing_key(ring: Keyring) -> None:
    key = Ed25519PrivateKey.generate()
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode("ascii")
    _append(ring.folder / SIGNERS, public)  # first: a signer without a key does no harm, the reverse would
    write_private(ring.folder / SIGNING, base64.b64encode(key.private_bytes_raw()) + b"\n")


def new_identity(ring: Keyring) -> str:
    """Make a new private age key, let new backups be for it alone, and return its public key.

    The former private keys stay in the identity file, because the backups of their time need them. The private key is
    on disk before any backup can be made for it.
    """
    _private_folder(ring.folder)
    made = x25519.Identity.generate()
    public = str(made.to_public())
    before = ring.identity.read_bytes() if ring.identity.exists() else b""
    write_private(ring.identity, before + f"# public key: {public}\n{made}\n".encode("ascii"))
    write_private(ring.folder / RECIPIENTS, f"{public}\n".encode("ascii"))
    return public


def write_private(path: Path, content: bytes) -> None:
    """Replace a file that only its owner may read; on disk when this returns, never half there."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _append(path: Path, line: str) -> None:
    before = path.read_bytes() if path.exists() else b""
    write_private(path, before + f"{line}\n".encode("ascii"))


def read_recipients(ring: Keyring) -> list[x25519.Recipient]:
    """The public keys for which backups are made.

    Raises:
        UsageError: there is none, or a line is no age key.
    """
    path = ring.folder / RECIPIENTS
    try:
        found = [x25519.Recipient.from_str(line) for line in _lines(path)]
    except RecipientError:
        raise UsageError(f"{path.name} holds a line that is no public age key.", hint="Correct it.") from None
    if not found:
        raise UsageError(f"There is no public key in {path}.", hint="Run `kontor backup keys init`.")
    return found


def read_identities(ring: Keyring) -> list[x25519.Identity]:
    """The private keys with which backups are read.

    Raises:
        Refused: the file is not here, or others may read it.
    """
    if not ring.identity.exists():
        raise Refused(
            f"The private key of the backups is not on this machine ({ring.identity}).",
            hint="Run this where it is, or name its file in KONTOR_BACKUP_IDENTITY.",
        )
    if ring.identity.stat().st_mode & 0o077:
        raise Refused(
            f"{ring.identity} can be read by others (mode {ring.identity.stat().st_mode & 0o777:03o}; allowed 600).",
            hint=f"chmod 600 {ring.identity}, and think about who may have read it: `kontor backup keys rotate`.",
        )
    try:
        found = [x25519.Identity.from_str(line) for line in _lines(ring.identity)]
    except IdentityError:
        raise UsageError(f"{ring.identity.name} holds a line that is no private age key.", hint="Correct it.") from None
    if not found:
        raise UsageError(f"{ring.identity} holds no private key.", hint="Put the escrow copy there.")
    return found


def must_open(ring: Keyring, recipients: Sequence[Sequence[str]]) -> None:
    """Nothing where the private keys open everything that was made for these; ``recipients`` are public keys by backup.

    Raises:
        Refused: they do not, so that a look would call a sound backup broken; or as :func:`read_identities`.
    """
    ours = {str(identity.to_public()) for identity in read_identities(ring)}
    if any(ours.isdisjoint(lines) for lines in recipients):
        raise Refused(
            f"The private keys in {ring.identity.name} do not open this backup: it was made for another key.",
            hint="The copy is from before the last rotation: make a new one with `kontor backup keys escrow`.",
        )


def read_signing_key(ring: Keyring) -> Ed25519PrivateKey:
    """The key with which this machine signs; UsageError when there is none."""
    try:
        raw = base64.b64decode((ring.folder / SIGNING).read_bytes(), validate=False)
        return Ed25519PrivateKey.from_private_bytes(raw)
    except (OSError, ValueError, binascii.Error, UnsupportedAlgorithm):
        raise UsageError(
            f"{ring.folder / SIGNING} is not there or holds no key.", hint="Run `kontor backup keys init`."
        ) from None


def read_signers(ring: Keyring) -> list[Ed25519PublicKey]:
    """The public keys of the machines whose backups are believed; UsageError for a line that is none."""
    path = ring.folder / SIGNERS
    try:
        return [Ed25519PublicKey.from_public_bytes(base64.b64decode(line, validate=True)) for line in _lines(path)]
    except (ValueError, binascii.Error):
        raise UsageError(f"{path.name} holds a line that is no public key.", hint="Correct it.") from None


def public_lines(ring: Keyring) -> tuple[str, ...]:
    """The public age keys as text, as a manifest names them."""
    return tuple(_lines(ring.folder / RECIPIENTS))


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def copy_for_escrow(ring: Keyring, to: Path) -> int:
    """Write the private keys to a file elsewhere, read them back, and return how many they are.

    Raises:
        Refused: the file exists; a former escrow copy is not written over.
    """
    found = read_identities(ring)
    if to.exists():
        raise Refused(f"{to} exists; an escrow copy is not written over.", hint="Name another file.")
    write_private(to, ring.identity.read_bytes())
    back = read_identities(Keyring(ring.folder, to))
    if [str(key) for key in back] != [str(key) for key in found]:
        raise Refused(f"{to} does not read back as it was written.", hint="Use another medium.")
    return len(back)
