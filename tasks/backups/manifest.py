"""What a backup says of itself: its artefacts with size and digest, what it must restore to, and who signed it. Pure.

A manifest is one JSON file of two parts, ``signed`` and ``signature`` (Ed25519 over the bytes of the first). It is
written last, so a backup without one does not exist, and read only where its bytes are exactly what writing it again
gives: a flipped bit anywhere in the file is found, also where JSON would not mind.

It is not encrypted: it holds names of tables, counts and digests, and no value of any row.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tasks.errors import BadInput

FORMAT = 1
FULL, INCREMENTAL = "full", "incremental"
_ASK = "Do not use it; take another backup, and find out what happened to this one."
T = TypeVar("T")


@dataclass(frozen=True)
class Artefact:
    """One file of a backup: ``size`` and ``sha256`` as it lies on the target, ``plain_bytes`` before compression."""

    name: str
    size: int
    sha256: str
    plain_bytes: int


@dataclass(frozen=True)
class TablePrint:
    """The fingerprint of one table: its rows and a digest of them that their order does not change."""

    database: str
    table: str
    rows: int
    digest: str


@dataclass(frozen=True)
class Beat:
    """A row of ops.heartbeats: written after ``begun_at``, committed before ``done_at``, both by the server's clock."""

    heartbeat_id: int
    begun_at: str
    done_at: str


@dataclass(frozen=True)
class Manifest:
    """One backup. Instants are ISO 8601 in UTC, positions in the WAL as PostgreSQL writes them.

    ``point`` names the restore point at which the fingerprints were taken, ``point_at`` is its time. ``base_label`` is
    the backup that an incremental one continues. ``beats`` were written after the copy was complete and before the
    point. ``recipients`` are the public keys that can read it, ``holds`` the number of legal holds in force,
    ``schema`` has digests of rights, roles and definitions per database. ``engine_label`` is what an engine with a
    repository of its own calls the backup there, ``engine_bytes`` what it added to it. ``number`` counts on from the
    newest backup on the target: by it, and not by a clock that may be moved, backups are in order.
    """

    label: str
    kind: str
    base_label: str | None
    engine: str
    server_version: int
    system_identifier: str
    timeline: int
    started_at: str
    ended_at: str
    point: str
    point_at: str
    point_lsn: str
    start_lsn: str
    source_bytes: int
    migration: str | None
    holds: int
    recipients: tuple[str, ...]
    artefacts: tuple[Artefact, ...]
    tables: tuple[TablePrint, ...]
    beats: tuple[Beat, ...]
    schema: dict[str, str]
    format: int = FORMAT
    engine_label: str | None = None
    engine_bytes: int = 0
    number: int = 0

    @property
    def stored_bytes(self) -> int:
        """What it takes on the target and in the engine's own repository."""
        return sum(artefact.size for artefact in self.artefacts) + self.engine_bytes

    @property
    def started(self) -> datetime:
        """When it began."""
        return datetime.fromisoformat(self.started_at)

    @property
    def point_time(self) -> datetime:
        """The instant up to which it can be restored without any further WAL."""
        return datetime.fromisoformat(self.point_at)

    def artefact(self, name: str) -> Artefact:
        """The artefact of that name; BadInput when the backup has none."""
        for artefact in self.artefacts:
            if artefact.name == name:
                return artefact
        raise BadInput(f"Backup {self.label} has no artefact {name}.", hint=_ASK)


@dataclass(frozen=True)
class Segment:
    """One file of the server's write-ahead log on the target, as it is signed beside it; ``completed_at`` when it was
    received whole, so that everything committed before a still earlier segment's is in one of those.
    """

    name: str
    shipped_at: str
    completed_at: str
    artefact: Artefact
    format: int = FORMAT


@dataclass(frozen=True)
class Finding:
    """One thing that a check looked at: whether it was right, and what was measured, without any row's content."""

    name: str
    passed: bool
    said: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a check of a backup found, as it is signed beside the manifest whose digest it carries."""

    label: str
    manifest_sha256: str
    checked_at: str
    findings: tuple[Finding, ...]
    instant: str | None
    planted: str
    planted_caught: bool
    restore_seconds: float
    total_seconds: float
    format: int = field(default=FORMAT)

    @property
    def passed(self) -> bool:
        """Whether everything was right and the planted fault was found."""
        return bool(self.findings) and all(finding.passed for finding in self.findings) and self.planted_caught


def label_for(now: datetime, kind: str) -> str:
    """The name of a backup begun at ``now``, such as ``20261122T023400Z-full``; names sort by time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{kind}"


def sha256(content: bytes) -> str:
    """The digest of a small content as hexadecimal text."""
    return hashlib.sha256(content).hexdigest()


def sign(record: Manifest | Segment | Verdict, key: Ed25519PrivateKey) -> bytes:
    """The record as the bytes of a signed file."""
    signed = _plain(asdict(record))
    return _file(signed, base64.b64encode(key.sign(_canonical(signed))).decode("ascii"))


def read_manifest(content: bytes, signers: Sequence[Ed25519PublicKey], name: str) -> Manifest:
    """The manifest in a signed file; ``name`` says in errors which.

    Raises:
        BadInput: it is not, byte for byte, what one of the signers wrote.
    """
    return _made(Manifest, _signed(content, signers, name), name)


def read_segment(content: bytes, signers: Sequence[Ed25519PublicKey], name: str) -> Segment:
    """The record of a WAL segment in a signed file; raises as :func:`read_manifest`."""
    return _made(Segment, _signed(content, signers, name), name)


def read_verdict(content: bytes, signers: Sequence[Ed25519PublicKey], name: str) -> Verdict:
    """The verdict of a check in a signed file; raises as :func:`read_manifest`."""
    return _made(Verdict, _signed(content, signers, name), name)


def _signed(content: bytes, signers: Sequence[Ed25519PublicKey], name: str) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
        signed, signature = document["signed"], document["signature"]
        proof = base64.b64decode(signature, validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise BadInput(f"{name} is not a signed record of Kontor's.", hint=_ASK) from None
    if not isinstance(signed, dict) or content != _file(signed, signature):
        raise BadInput(f"{name} was changed after it was written.", hint=_ASK)
    if base64.b64encode(proof).decode("ascii") != signature or not any(
        _verifies(key, proof, signed) for key in signers
    ):
        raise BadInput(
            f"{name} is not signed by any of the {len(signers)} known signers.",
            hint="If another machine made it, add its line of signers.txt to this one's; else do not use it.",
        )
    return signed


def _verifies(key: Ed25519PublicKey, proof: bytes, signed: Mapping[str, Any]) -> bool:
    try:
        key.verify(proof, _canonical(signed))
    except InvalidSignature:
        return False
    return True


def _made(kind: type[T], signed: Mapping[str, Any], name: str) -> T:
    """The record of this kind; what a newer version of Kontor wrote is refused rather than half understood."""
    if signed.get("format") != FORMAT:
        raise BadInput(
            f"{name} has format {signed.get('format')!r}; this version of Kontor reads {FORMAT}.",
            hint="Use the version of Kontor that made it, or follow docs/runbooks/backup.md by hand.",
        )
    parts: Mapping[str, Any] = {"artefacts": Artefact, "tables": TablePrint, "beats": Beat, "findings": Finding}
    try:
        values = dict(signed)
        for key, part in parts.items():
            if key in values:
                values[key] = tuple(part(**item) for item in values[key])
        if "artefact" in values:
            values["artefact"] = Artefact(**values["artefact"])
        if "recipients" in values:
            values["recipients"] = tuple(values["recipients"])
        known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
        return kind(**{key: value for key, value in values.items() if key in known})
    except (TypeError, KeyError):
        raise BadInput(f"{name} is a signed record of another kind.", hint=_ASK) from None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _canonical(signed: Mapping[str, Any]) -> bytes:
    return json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _file(signed: Mapping[str, Any], signature: str) -> bytes:
    """The bytes of the file: readable, and the same every time."""
    document = {"signature": signature, "signed": signed}
    return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode("ascii")
