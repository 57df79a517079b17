"""The default engine: pg_basebackup, pg_receivewal and pg_combinebackup, streamed through zstd and age to the target.

A backup is taken in this order, and stands only when the last step is done:

1. A replication slot of its own keeps the WAL from before the copy begins.
2. The data folder goes as a tar to ``base.tar.zst.age``; the list of its files is picked out of the stream.
3. A few beats are written, then a restore point is made while nobody writes, and fingerprinted.
4. The WAL from the copy's beginning to that point goes to ``wal.tar.zst.age``.
5. ``manifest.json`` is signed and written.

Whoever runs next removes what a killed backup left: its slot, its folder, its files without a manifest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from configs.settings import Settings
from tasks.backups import keys, programs, streams
from tasks.backups.catalogue import Catalogue, read_catalogue
from tasks.backups.engine import Wanted
from tasks.backups.fingerprints import mark_point
from tasks.backups.manifest import (
    FULL,
    INCREMENTAL,
    Artefact,
    Finding,
    Manifest,
    label_for,
    sign,
)
from tasks.backups.pieces import Known, read_known, write_known
from tasks.backups.programs import ask, connect, files, scalar
from tasks.backups.sealing import seal, seal_home, unpack, unpack_home
from tasks.backups.source import describe, embedded_server, history_of, server_time, write_beats
from tasks.backups.targets import MANIFEST, Target
from tasks.backups.wal import Supply, lay_out_wal, wal_folder
from tasks.errors import BadInput, DependencyDown, Refused
from tasks.local_stack import LocalPostgres, programs_folder

BASE, WAL_OF_BACKUP, FILE_LIST = "base.tar.zst.age", "wal.tar.zst.age", "backup_manifest.zst.age"
SLOT = "kontor_backup"
_PIECES = ".pieces"


@dataclass(frozen=True)
class CoreEngine:
    """Backups of the embedded database of ``settings`` on ``target``, with the keys of ``ring``."""

    settings: Settings
    target: Target
    ring: keys.Keyring
    name: str = "core"

    @property
    def restore_command(self) -> str:
        """None is needed: :meth:`lay_out` puts all the WAL that there is in place."""
        return "false"

    @property
    def lists_files(self) -> bool:
        """PostgreSQL's own list of files comes with every copy."""
        return True

    def survey(self) -> Catalogue:
        """What the target holds now; see :func:`read_catalogue`."""
        keys.ensure_keys(self.ring)
        return read_catalogue(self.target, keys.read_signers(self.ring))

    def take(self, now: datetime, kind: str, base: Manifest | None) -> Manifest:
        """Take a backup and return its manifest; ``base`` is what an incremental one continues.

        Raises:
            DependencyDown: server or target are away, or the disk is full.
            Refused: versions differ, summaries of the WAL are off, or writers left no moment for the restore point.
        """
        keys.ensure_keys(self.ring)
        server = _running(self.settings)
        label = label_for(now, kind)
        if self.target.exists(f"{label}/{MANIFEST}"):
            raise Refused(f"Backup {label} exists already; nothing was changed.", hint="Run it again in a second.")
        scratch = self.scratch / label
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700, parents=True)
        try:
            with _slot(server):
                return self._take(server, now, label, kind, base, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def knows(self, manifest: Manifest) -> bool:
        """Whether the backup's list of files is here, with which an incremental one is compared."""
        return (self.lists / manifest.label).is_file()

    def continues(self, manifest: Manifest) -> bool:
        """Whether the server's history goes on from this backup's: not after a restore, nor for another server."""
        return (manifest.system_identifier, manifest.timeline) == history_of(_running(self.settings))

    @property
    def scratch(self) -> Path:
        """Where WAL is gathered while a backup runs."""
        return self.settings.home / "scratch" / "backup"

    @property
    def lists(self) -> Path:
        """Where the lists of files and the pieces' fingerprints stay that the next incremental backup compares with."""
        return self.settings.home / "backup_lists"

    def _take(
        self, server: LocalPostgres, now: datetime, label: str, kind: str, base: Manifest | None, scratch: Path
    ) -> Manifest:
        about = describe(server)
        programs.check_versions(about["server_version"], server.programs_dir)
        artefact, listed = self._copy_data(server, label, self._base_options(kind, base))
        first = _wal_range(listed)
        beats = write_beats(server)
        point = mark_point(server, f"kontor {label}", known=self._known(base if kind == INCREMENTAL else None))
        wal = self._copy_wal(server, label, point.lsn, scratch)
        file_list = seal(self.target, self.ring, label, FILE_LIST, BytesIO(listed))
        own = seal_home(self.settings.home, self.target, self.ring, label)
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
            timeline=int(first["Timeline"]),
            start_lsn=str(first["Start-LSN"]),
            recipients=keys.public_lines(self.ring),
            artefacts=(artefact, wal, file_list, own),
            tables=point.prints,
            beats=tuple(beats),
            schema=point.schema,
            number=self.survey().next_number,
            **about,
        )
        self._keep_list(label, listed, point.known)
        self.target.put(f"{label}/{MANIFEST}", sign(manifest, keys.read_signing_key(self.ring)))
        return manifest

    def _base_options(self, kind: str, base: Manifest | None) -> list[str]:
        if kind == FULL:
            return []
        if base is None or not (self.lists / base.label).is_file():
            raise Refused(
                "There is no backup here that an incremental one could continue.", hint="Take a full one: --kind full."
            )
        return [f"--incremental={self.lists / base.label}"]

    def _copy_data(self, server: LocalPostgres, label: str, options: Sequence[str]) -> tuple[Artefact, bytes]:
        command = [str(server.programs_dir / "pg_basebackup"), *programs.where(server), "--pgdata=-", "--format=tar"]
        command += ["--wal-method=none", "--checkpoint=fast", "--no-sync", f"--label={label}", *options]
        watcher = streams.LastMember("backup_manifest")
        with programs.output_of(command, "pg_basebackup did not finish") as output:
            artefact = seal(self.target, self.ring, label, BASE, output, watcher)
        if not watcher.content:
            raise DependencyDown("pg_basebackup sent no list of files.", hint="Run the backup again.")
        return artefact, watcher.content

    def _copy_wal(self, server: LocalPostgres, label: str, through: str, scratch: Path) -> Artefact:
        """The WAL from the slot's beginning to the end of the segment that holds ``through``."""
        with connect(server, "postgres") as connection:
            ask(connection, "select pg_switch_wal()")
            size = int(scalar(connection, "select setting from pg_settings where name = 'wal_segment_size'"))
            beyond = (_position(through) // size + 1) * size - 1  # the last byte of that segment
        command = ["--no-loop", f"--slot={SLOT}", f"--directory={scratch}", f"--endpos={_written(beyond)}"]
        ended = programs.run_program(server.programs_dir, "pg_receivewal", *programs.where(server), *command)
        programs.must(ended, "pg_receivewal did not finish")
        if list(scratch.glob("*.partial")) or not list(scratch.iterdir()):
            raise DependencyDown("The WAL of the backup is not whole.", hint="Run the backup again.")
        tar = ["tar", "--create", "--file=-", f"--directory={scratch}", "."]
        with programs.output_of(tar, "tar did not finish") as output:
            return seal(self.target, self.ring, label, WAL_OF_BACKUP, output)

    def _known(self, base: Manifest | None) -> Known:
        """What need not be read again after ``base``; a full backup reads everything, whatever was found before."""
        kept = self.lists / f"{base.label}{_PIECES}" if base is not None else None
        return read_known(kept.read_bytes()) if kept is not None and kept.is_file() else Known()

    def _keep_list(self, label: str, listed: bytes, known: Known) -> None:
        self.lists.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys.write_private(self.lists / f"{label}{_PIECES}", write_known(known))
        keys.write_private(self.lists / label, listed)

    def unpack_home(self, manifest: Manifest, folder: Path) -> None:
        """Write what a backup holds of KONTOR_HOME into a folder; raises as :meth:`lay_out`."""
        unpack_home(self.target, self.ring, manifest, folder)

    def look_at_store(self) -> Finding | None:
        """None: everything is an artefact of a manifest, and its digest is compared."""
        return None

    def look_at_folder(self, folder: Path) -> Finding:
        """Whether every file is the one that PostgreSQL listed, and the WAL can be read through."""
        return files(programs_folder(), folder)

    def forget(self, gone: Sequence[Manifest]) -> None:
        """Nothing is kept elsewhere."""

    def housekeep(self, catalogue: Catalogue, _now: datetime, /) -> int:
        """Delete the lists of files of backups that are gone."""
        kept = {manifest.label for manifest in catalogue.backups}
        there = self.lists.glob("*") if self.lists.is_dir() else ()
        old = [path for path in there if path.name.removesuffix(_PIECES) not in kept]
        for path in old:
            path.unlink()
        return len(old)

    # --- back again ---------------------------------------------------------------------------------------------

    def lay_out(self, wanted: Wanted, folder: Path) -> None:
        """Write the restored data folder into ``folder``; the order is that of the stock programs.

        Raises:
            BadInput: an artefact is not what was signed; ``folder`` must not be used.
            Refused: the private key is not here, or the versions differ.
        """
        programs.check_versions(wanted.newest.server_version)
        identities = keys.read_identities(self.ring)
        if len(wanted.chain) == 1:
            unpack(self.target, wanted.newest, BASE, folder, identities)
        else:
            self._combine(wanted.chain, folder, identities)
        segments = folder / "pg_wal"
        segments.mkdir(mode=0o700, exist_ok=True)
        unpack(self.target, wanted.newest, WAL_OF_BACKUP, segments, identities)
        if wanted.needs_more_wal:
            supply = Supply(self.target, keys.read_signers(self.ring), identities, wal_folder(self.settings))
            lay_out_wal(supply, wanted.newest, segments, wanted.instant)

    def _combine(self, chain: Sequence[Manifest], folder: Path, identities: Sequence[Any]) -> None:
        parts = [folder.with_name(f"{folder.name}.{number}") for number in range(len(chain))]
        try:
            for manifest, part in zip(chain, parts, strict=True):
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(mode=0o700)
                unpack(self.target, manifest, BASE, part, identities)
            command = [*map(str, parts), f"--output={folder}", "--no-sync", "--link"]
            ended = programs.run_program(programs_folder(), "pg_combinebackup", *command)
            if ended.code != 0:
                raise BadInput(f"The backups do not fit together: {ended.said}", hint="Restore an earlier one.")
        finally:
            for part in parts:
                shutil.rmtree(part, ignore_errors=True)


def _running(settings: Settings) -> LocalPostgres:
    if settings.database_url is not None:
        raise Refused(
            "The core engine backs up the embedded database; KONTOR_DATABASE_URL names one of your own.",
            hint="Set KONTOR_BACKUP_ENGINE=pgbackrest; see docs/reference/backups.md.",
        )
    return embedded_server(settings)


class _slot:  # noqa: N801  reads as what it is in a `with` line
    """A replication slot for a ``with`` block: the server keeps the WAL that the backup still needs."""

    def __init__(self, server: LocalPostgres) -> None:
        self._server = server

    def __enter__(self) -> None:
        self._drop()  # what a killed backup left
        with connect(self._server, "postgres") as connection:
            ask(connection, "select pg_create_physical_replication_slot(%s, true)", SLOT)

    def __exit__(self, *_error: object) -> None:
        self._drop()

    def _drop(self) -> None:
        with connect(self._server, "postgres") as connection:
            ask(
                connection,
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
                " where slot_name = %s and active",
                SLOT,
            )
            ask(
                connection,
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
                SLOT,
            )


def _wal_range(listed: bytes) -> dict[str, Any]:
    try:
        ranges: list[dict[str, Any]] = json.loads(listed)["WAL-Ranges"]
        return ranges[-1]
    except (ValueError, KeyError, IndexError):
        raise DependencyDown("pg_basebackup's list of files cannot be read.", hint="Run the backup again.") from None


def _position(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _written(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
