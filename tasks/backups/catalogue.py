"""The truth about backups: what the target holds, read anew each time and believed only where its signature holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tasks.backups.manifest import Manifest, Verdict, read_manifest, read_verdict, sha256
from tasks.backups.targets import CHECK, MANIFEST, WAL, Target
from tasks.errors import BadInput, UsageError


@dataclass(frozen=True)
class Catalogue:
    """``backups`` in the order in which they were made, whatever the clock said; the verdict of each that was checked.

    What lies there and is no backup: ``damaged`` names folders whose manifest cannot be believed, ``leftovers`` folders
    without one.
    """

    backups: tuple[Manifest, ...]
    verdicts: Mapping[str, Verdict]
    damaged: tuple[str, ...]
    leftovers: tuple[str, ...]

    @property
    def next_number(self) -> int:
        """The number of the next backup that is made."""
        return 1 + max((manifest.number for manifest in self.backups), default=0)

    def good(self) -> frozenset[str]:
        """Labels of the backups whose newest check passed, and whose bases can be found."""
        present = {manifest.label for manifest in self.backups}
        passed = {label for label, verdict in self.verdicts.items() if verdict.passed}
        return frozenset(
            manifest.label
            for manifest in self.backups
            if manifest.label in passed and all(base in present for base in self.bases(manifest.label))
        )

    def bases(self, label: str) -> list[str]:
        """Labels that this backup builds on, nearest first; one that is missing is the last."""
        by_label = {manifest.label: manifest for manifest in self.backups}
        found: list[str] = []
        base = by_label[label].base_label if label in by_label else None
        while base is not None and base not in found:
            found.append(base)
            base = by_label[base].base_label if base in by_label else None
        return found

    def chain(self, label: str) -> tuple[Manifest, ...]:
        """The backup and all it builds on, oldest first.

        Raises:
            UsageError: there is no such backup.
            BadInput: something that it builds on is not there.
        """
        by_label = {manifest.label: manifest for manifest in self.backups}
        if label not in by_label:
            known = ", ".join(list(by_label)[-5:]) or "none"
            raise UsageError(f"There is no backup {label}; the newest are: {known}.", hint="See `kontor backup list`.")
        labels = [label, *self.bases(label)]
        missing = [name for name in labels if name not in by_label]
        if missing:
            raise BadInput(f"Backup {label} needs {missing[0]}, which is not there.", hint="Restore another one.")
        return tuple(by_label[name] for name in reversed(labels))


def read_catalogue(target: Target, signers: Sequence[Ed25519PublicKey]) -> Catalogue:
    """What the target holds now. A folder without a believable manifest is named, never listed as a backup."""
    backups, damaged, leftovers = [], [], []
    verdicts = {}
    for label in target.names():
        if label == WAL or label.endswith(".part"):
            continue
        files = set(target.names(label))
        if MANIFEST not in files:
            leftovers.append(label)
            continue
        try:
            content = target.get(f"{label}/{MANIFEST}")
            manifest = read_manifest(content, signers, f"{label}/{MANIFEST}")
        except BadInput:
            damaged.append(label)
            continue
        if manifest.label != label:
            damaged.append(label)  # somebody's copy under another name
            continue
        backups.append(manifest)
        verdict = _verdict(target, label, files, signers)
        if verdict is not None and verdict.manifest_sha256 == sha256(content):
            verdicts[label] = verdict
    backups.sort(key=lambda manifest: (manifest.number, manifest.label))
    return Catalogue(tuple(backups), verdicts, tuple(damaged), tuple(leftovers))


def _verdict(target: Target, label: str, files: set[str], signers: Sequence[Ed25519PublicKey]) -> Verdict | None:
    """The newest check of a backup; one that cannot be believed counts as none."""
    if CHECK not in files:
        return None
    try:
        return read_verdict(target.get(f"{label}/{CHECK}"), signers, f"{label}/{CHECK}")
    except BadInput:
        return None
