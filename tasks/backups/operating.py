"""What an operator does by hand: say what a restore would do, do it, open what was restored, plan where to begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from configs.settings import Settings
from tasks.backups.catalogue import Catalogue
from tasks.backups.engine import Engine, Wanted
from tasks.backups.manifest import Manifest
from tasks.backups.programs import ask, check_versions, connect
from tasks.backups.restoring import Released, Restored, ledgers_for, lost_since, release, restore
from tasks.backups.wal import set_aside
from tasks.errors import Refused, UsageError
from tasks.local_stack import find_postgres, is_sealed

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Prospect:
    """What a restore would do: which backups, to where, what is replaced, how long the last one took, what is lost."""

    wanted: Wanted
    home: Path
    replaces: bool
    good: bool
    to: datetime
    seconds: float | None
    plain_bytes: int
    lost: dict[str, int]


def foresee(
    settings: Settings,
    catalogue: Catalogue,
    label: str | None,
    to: datetime | None,
    into: Path | None,
    *,
    latest: bool = False,
) -> Prospect:
    """What restoring would do; changes nothing.

    ``label`` defaults to the newest backup that passed its check and lies before ``to``; ``latest`` goes as far as
    there is WAL.

    Raises:
        UsageError: there is no such backup, or none from which that instant can be reached.
        Refused: the backup is of another major version than the programs.
    """
    manifest = _chosen(catalogue, label, to)
    check_versions(manifest.server_version)
    chain = catalogue.chain(manifest.label)
    wanted = Wanted(chain, instant=to, point=None if latest or to is not None else manifest.point)
    home = into or settings.home
    verdict = catalogue.verdicts.get(manifest.label)
    server = find_postgres(settings.home) if into is None and not is_sealed(settings.home) else None
    instant = to or manifest.point_time
    return Prospect(
        wanted,
        home,
        (home / "postgres" / "data").exists(),
        manifest.label in catalogue.good(),
        instant,
        verdict.restore_seconds if verdict is not None and verdict.restore_seconds else None,
        sum(a.plain_bytes for m in chain for a in m.artefacts),
        lost_since(server, instant),
    )


def _chosen(catalogue: Catalogue, label: str | None, to: datetime | None) -> Manifest:
    if label is not None:
        return catalogue.chain(label)[-1]
    good = catalogue.good()
    able = [m for m in catalogue.backups if m.label in good and (to is None or consistent_from(m) <= to)]
    if not able:
        raise UsageError(
            f"No backup that passed its check reaches back to {to.isoformat()}."
            if to is not None
            else "No backup has passed its check.",
            hint="See `kontor backup list`; name one that did not pass only if there is no other.",
        )
    # A clock that was wrong for a while leaves backups whose times are not in their order: an instant is asked of time.
    return able[-1] if to is None else max(able, key=consistent_from)


def consistent_from(manifest: Manifest) -> datetime:
    """The first instant to which a backup can be recovered: its copy was complete when the first beat was written."""
    return datetime.fromisoformat(manifest.beats[0].begun_at) if manifest.beats else manifest.point_time


def carry_out(
    settings: Settings, engine: Engine, catalogue: Catalogue, prospect: Prospect, progress: Progress
) -> tuple[Restored, Released]:
    """Restore and open: the former database is kept beside the new one; returns what was done.

    Killed at any point: before the new one is complete the former goes on; after that the new one is sealed until
    :func:`open_restored` has done its part.

    Raises:
        Refused: a flow is under way in the database that would be replaced.
    """
    _no_flow_running(prospect.home)

    def look_again() -> None:
        """Laying out takes its time, and nothing keeps a flow from beginning meanwhile."""
        _no_flow_running(prospect.home)

    restored = restore(engine, prospect.wanted, prospect.home, before_replacing=look_again, progress=progress)
    there = settings.model_copy(update={"home": prospect.home})
    set_aside(there, prospect.wanted.newest.label)
    progress("Applying erasures, numbering on, holding mails back…")
    return restored, open_restored(there, engine, catalogue, origin=settings.home)


def open_restored(settings: Settings, engine: Engine, catalogue: Catalogue, *, origin: Path) -> Released:
    """Finish a restore: erasures, sequences, mails; then let everybody in. Harmless to repeat until it is open.

    The erasure ledger is the one of the restored home, the one of ``origin``, which is the home that the command works
    for, or the copy beside the newest backup, whichever goes furthest.
    """
    newest: Sequence[Manifest] = catalogue.backups[-1:]
    settings = settings.model_copy(update={"database_url": None})  # the restored one is embedded, whatever the source
    with ledgers_for(settings, engine, newest[0] if newest else None, origin) as ledgers:
        return release(settings, ledgers)


def _no_flow_running(home: Path) -> None:
    server = find_postgres(home)
    if server is None or is_sealed(home):
        return
    with connect(server) as connection:
        running = [
            str(row[0]) for row in ask(connection, "select distinct flow from report.runs where state = 'running'")
        ]
    if running:
        raise Refused(
            f"Flows are under way in the database that would be replaced: {', '.join(running)}. Nothing was changed.",
            hint="Wait for them to end, or stop them; `kontor status` shows them.",
        )
