"""The chain of seals: what a seal's root is made of, where a chain breaks, and the file that keeps it elsewhere.

Pure. A root is the SHA-256 of seven lines of text, so that it can be recomputed with ``sha256sum`` alone::

    kontor history seal
    <seal_number>
    <root of the seal before, hexadecimal; 64 zeros for the first>
    <through_entry_id> <number of entries>
    <sealed_at, as in 2026-11-20T06:00:00.000000+00:00>
    <digest of the entries' ids and hashes, hexadecimal>
    <sealed_by>
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.errors import BadInput

_FORMAT = "kontor history seals 1"


@dataclass(frozen=True)
class Seal:
    """One link: it speaks of all entries after the seal before, up to and including ``through_entry_id``."""

    seal_number: int
    previous_root: str
    through_entry_id: int
    entries: int
    sealed_at: datetime
    sealed_by: str
    digest: str
    root: str = ""


NO_SEAL = Seal(0, "", 0, 0, datetime(1970, 1, 1, tzinfo=UTC), "", "", "0" * 64)  # what the first seal continues


@dataclass(frozen=True)
class Break:
    """A place where history is not what was sealed: an entry or a seal, and what is wrong with it, in words."""

    what: str
    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.what} {self.number}: {self.reason}" if self.number else f"{self.what}: {self.reason}"


def instant_text(instant: datetime) -> str:
    """The instant as a root holds it: in UTC, to the microsecond."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def seal_root(seal: Seal) -> str:
    """The root that a seal of these contents must have, hexadecimal."""
    lines = (
        "kontor history seal",
        str(seal.seal_number),
        seal.previous_root,
        f"{seal.through_entry_id} {seal.entries}",
        instant_text(seal.sealed_at),
        seal.digest,
        seal.sealed_by,
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_broken_seal(seals: Iterable[Seal]) -> Break | None:
    """The first seal that does not follow from the one before, or whose root is not that of its contents."""
    before = NO_SEAL
    for seal in seals:
        if seal.seal_number != before.seal_number + 1:
            return Break("seal", before.seal_number + 1, f"is missing; the next one there is seal {seal.seal_number}")
        if seal.previous_root != before.root:
            return Break("seal", seal.seal_number, f"does not continue seal {before.seal_number}")
        if seal.through_entry_id < before.through_entry_id:
            return Break("seal", seal.seal_number, f"ends before seal {before.seal_number} does")
        if seal.root != seal_root(seal):
            return Break("seal", seal.seal_number, "was changed: its root is not that of its contents")
        before = seal
    return None


def find_departure(seals: Sequence[Seal], kept: Sequence[Seal]) -> Break | None:
    """The first seal of a chain kept elsewhere that the database does not have, or has otherwise."""
    there = {seal.seal_number: seal for seal in seals}
    for seal in kept:
        found = there.get(seal.seal_number)
        if found is None:
            return Break("seal", seal.seal_number, "was removed; the file kept elsewhere has it")
        if found.root != seal.root:
            return Break("seal", seal.seal_number, "is another one than the file kept elsewhere has")
    return None


def export_seals(seals: Sequence[Seal]) -> str:
    """The chain as a JSON file that holds no personal data: numbers, instants, accounts and hashes."""
    listed = [asdict(seal) | {"sealed_at": seal.sealed_at.astimezone(UTC).isoformat()} for seal in seals]
    return json.dumps({"format": _FORMAT, "seals": listed}, indent=1, ensure_ascii=False) + "\n"


def import_seals(content: str) -> list[Seal]:
    """The chain that :func:`export_seals` wrote.

    Raises:
        BadInput: the file is none of these, holds no seal, or its own chain is broken.
    """
    try:
        document = json.loads(content)
        seals = [_seal(fields) for fields in document["seals"] if document["format"] == _FORMAT]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"The file is not a chain of seals ({type(error).__name__}).",
            hint="Name a file that `kontor history export --out FILE` wrote.",
        ) from None
    if not seals:
        raise BadInput("The file holds no seal.", hint="Name a file that `kontor history export --out FILE` wrote.")
    broken = find_broken_seal(seals)
    if broken is not None:
        raise BadInput(
            f"The file was changed since it was exported: {broken}.", hint="Use another copy of it; keep several."
        )
    return seals


def _seal(fields: dict[str, Any]) -> Seal:
    return Seal(**{**fields, "sealed_at": datetime.fromisoformat(fields["sealed_at"])})
