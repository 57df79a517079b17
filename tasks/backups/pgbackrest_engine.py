"""The engine for a database of one's own: pgBackRest makes, keeps and lays out; Kontor signs, proves and prunes.

A backup is taken in this order, and stands only when the last step is done:

1. pgBackRest makes it, with Kontor's label as its annotation.
2. A few beats are written, then a restore point is made while nobody writes, and fingerprinted.
3. pgBackRest sees to it that the WAL up to there is in its repository.
4. The erasure ledger and senders' contracts go to Kontor's target, sealed.
5. ``manifest.json`` is signed and written there, with pgBackRest's own label in it.

A backup of pgBackRest's without a manifest is no backup of Kontor's: one with our annotation is what a kill left, and
goes at the next run after a day; one without is somebody else's, and is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from configs.settings import Settings
from tasks.backups import keys
from tasks.backups.catalogue import Catalogue, read_catalogue
from tasks.backups.engine import Wanted
from tasks.backups.fingerprints import mark_point
from tasks.backups.manifest import FULL, INCREMENTAL, Finding, Manifest, label_for, sign
from tasks.backups.pgbackrest import Driver, Kept
from tasks.backups.programs import check_versions
from tasks.backups.sealing import seal_home, unpack_home
from tasks.backups.source import describe, history_of, server_time, source_of, write_beats
from tasks.backups.targets import MANIFEST, Target
from tasks.errors import DependencyDown, Refused

LEFT_FOR = timedelta(days=1)


@dataclass(frozen=True)
class PgBackRestEngine:
    """Backups by pgBackRest of the database of ``settings``, with the signed manifests on ``target``."""

    settings: Settings
    target: Target
    ring: keys.Keyring
    driver: Driver
    name: str = "pgbackrest"

    @property
    def restore_command(self) -> str:
        """WAL comes from pgBackRest's repository."""
        return self.driver.restore_command

    @property
    def lists_files(self) -> bool:
        """pgBackRest compares every file with its own list as it writes it; there is none to look at afterwards."""
        return False

    def survey(self) -> Catalogue:
        """What the target holds; a backup that pgBackRest no longer has is named as damaged."""
        keys.ensure_keys(self.ring)
        found = read_catalogue(self.target, keys.read_signers(self.ring))
        there = {kept.label for kept in self.driver.info().backups}
        whole = tuple(manifest for manifest in found.backups if manifest.engine_label in there)
        lost = tuple(manifest.label for manifest in found.backups if manifest.engine_label not in there)
        verdicts = {label: verdict for label, verdict in found.verdicts.items() if label not in lost}
        return replace(found, backups=whole, verdicts=verdicts, damaged=(*found.damaged, *lost))

    def take(self, now: datetime, kind: str, base: Manifest | None) -> Manifest:
        """Take a backup and return its manifest; ``base`` is what an incremental one continues.

        Raises:
            DependencyDown: server, repository or target are away, or WAL does not reach the repository.
            Refused: writers left no moment for the restore point, or somebody else's backup came between.
        """
        keys.ensure_keys(self.ring)
        self.driver.version()
        server = source_of(self.settings)
        label = label_for(now, kind)
        if self.target.exists(f"{label}/{MANIFEST}"):
            raise Refused(f"Backup {label} exists already; nothing was changed.", hint="Run it again in a second.")
        self._expect(kind, base)
        about = describe(server)
        self.driver.backup("full" if kind == FULL else "incr", label)
        kept = self._made(label)
        beats = write_beats(server)
        point = mark_point(server, f"kontor {label}")
        self.driver.check()
        manifest = Manifest(
            label=label,
            kind=kind,
            base_label=base.label if base is not None and kind == INCREMENTAL else None,
            engine=self.name,
            started_at=now.isoformat(),
            ended_at=server_time(server),
            point=point.name,
            point_at=point.at,
            point_lsn=point.lsn,
            timeline=history_of(server)[1],
            start_lsn=kept.start_lsn,
            recipients=keys.public_lines(self.ring),
            artefacts=(seal_home(self.settings.home, self.target, self.ring, label),),
            tables=point.prints,
            beats=tuple(beats),
            schema=point.schema,
            engine_label=kept.label,
            engine_bytes=kept.repository_bytes,
            number=self.survey().next_number,
            **about,
        )
        self.target.put(f"{label}/{MANIFEST}", sign(manifest, keys.read_signing_key(self.ring)))
        return manifest

    def _expect(self, kind: str, base: Manifest | None) -> None:
        """Refuse where pgBackRest would build on another backup than the one that was chosen."""
        if not self.driver.info().made:
            raise DependencyDown("pgBackRest's stanza was not made yet.", hint="Run `kontor backup setup --live`.")
        if kind == INCREMENTAL and (base is None or not self.knows(base)):
            raise Refused(
                "pgBackRest's newest backup is not the one that an incremental one would continue.",
                hint="Take a full one: `kontor run backup --param kind=full`.",
            )

    def _made(self, label: str) -> Kept:
        made = [kept for kept in self.driver.info().backups if kept.ours == label]
        if not made:
            raise DependencyDown("pgBackRest made a backup and does not list it.", hint="See `pgbackrest info`.")
        if made[-1].error:
            raise DependencyDown(
                f"pgBackRest found damaged pages while it made {made[-1].label}.",
                hint="The source's disk may be dying: run `kontor run data_quality` and look at that disk today.",
            )
        return made[-1]

    def knows(self, manifest: Manifest) -> bool:
        """Whether it is pgBackRest's newest, which is what its next incremental one continues."""
        backups = self.driver.info().backups
        return bool(backups) and backups[-1].label == manifest.engine_label

    def continues(self, manifest: Manifest) -> bool:
        """Whether the server's history goes on from this backup's: not after a restore, nor for another server."""
        return (manifest.system_identifier, manifest.timeline) == history_of(source_of(self.settings))

    def lay_out(self, wanted: Wanted, folder: Path) -> None:
        """Let pgBackRest write the data folder; the WAL is fetched by the restored server.

        Raises:
            BadInput: a file is not what pgBackRest's list says; ``folder`` must not be used.
            Refused: the backup is of another major version than Kontor's programs.
        """
        check_versions(wanted.newest.server_version)
        self.driver.restore(wanted.newest.engine_label or "", folder)

    def unpack_home(self, manifest: Manifest, folder: Path) -> None:
        """Write what a backup holds of KONTOR_HOME into a folder."""
        unpack_home(self.target, self.ring, manifest, folder)

    def look_at_store(self) -> Finding | None:
        """What pgBackRest finds wrong with the files of its repository by their checksums."""
        wrong = self.driver.verify()
        return Finding("repository", not wrong, "; ".join(wrong)[:300] or "pgBackRest's checksums agree")

    def look_at_folder(self, folder: Path) -> Finding:
        """That the folder is there at all: pgBackRest refused to write any file whose checksum differed."""
        there = (folder / "PG_VERSION").is_file() and (folder / "backup_label").is_file()
        return Finding("files", there, "written and compared by pgBackRest" if there else "backup_label is missing")

    def forget(self, gone: Sequence[Manifest]) -> None:
        """Delete the backups from pgBackRest's repository; what builds on one goes with it, and was to go anyway."""
        for manifest in gone:
            if manifest.engine_label in {kept.label for kept in self.driver.info().backups}:
                self.driver.expire(manifest.engine_label or "")

    def housekeep(self, catalogue: Catalogue, now: datetime, /) -> int:
        """Delete what carries our annotation in the repository and has no manifest; a younger one may be under way."""
        known = {manifest.engine_label for manifest in catalogue.backups}
        left = [
            kept
            for kept in self.driver.info().backups
            if kept.ours is not None
            and kept.label not in known
            and datetime.fromtimestamp(kept.started, UTC) < now - LEFT_FOR
        ]
        needed = {kept.prior for kept in self.driver.info().backups if kept not in left}
        going = [kept for kept in reversed(left) if kept.label not in needed]
        for kept in going:
            self.driver.expire(kept.label)
        return len(going)
