"""What must be so before pgBackRest can back a server up: its configuration, the server's archiving, its stanza."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from configs.settings import Settings
from tasks.backups.keys import write_private
from tasks.backups.pgbackrest import Driver, configuration, driver_for
from tasks.backups.programs import Server, ask, connect
from tasks.backups.source import source_of
from tasks.errors import Refused, UsageError

Progress = Callable[[str], None]


def set_up(settings: Settings, repository: Path | None, progress: Progress, *, live: bool) -> Driver:
    """Write the configuration where there is none, make the stanza, try the whole way; harmless to repeat.

    Without ``live`` only say what would be done.

    Raises:
        UsageError: the settings name another engine, or pgBackRest is too old.
        Refused: the server does not archive its WAL yet; the text has the lines that it needs.
        DependencyDown: server or pgBackRest are away, or WAL does not reach the repository.
    """
    if settings.backup_engine != "pgbackrest":
        raise UsageError("KONTOR_BACKUP_ENGINE is core, which needs no set-up.", hint="Set it to pgbackrest first.")
    driver, server = driver_for(settings), source_of(settings)
    progress(f"pgBackRest {'.'.join(map(str, driver.version()))}")
    if not driver.config.exists():
        where = repository or driver.config.parent / "repository"
        progress(f"{'Writing' if live else 'Would write'} {driver.config}; repository {where}, encrypted")
        if live:
            _write_configuration(driver, server, where)
    if live:
        _must_archive(server, driver)
        driver.create_stanza()
        driver.check()
        progress("The stanza is there, and a segment of WAL went all the way to the repository.")
    return driver


def _write_configuration(driver: Driver, server: Server, repository: Path) -> None:
    with connect(server) as connection:
        data = Path(str(ask(connection, "show data_directory")[0][0]))
    folder = driver.config.parent
    for made in (folder, repository, *(folder / name for name in ("log", "lock", "spool"))):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = configuration(server, data, repository, secrets.token_urlsafe(48), driver.stanza, folder)
    write_private(driver.config, content.encode())


def _must_archive(server: Server, driver: Driver) -> None:
    """Refuse where the server sends no WAL, or sends it by another command."""
    with connect(server) as connection:
        found = [str(ask(connection, f"show {name}")[0][0]) for name in ("archive_mode", "archive_command")]
    if found == ["off", "(disabled)"] or "archive-push" not in found[1]:
        command = driver.archive_command.replace("'", "''")
        raise Refused(
            "The server does not send its WAL to pgBackRest; the configuration is written, nothing else was done.",
            hint="Put these lines into postgresql.conf, restart the server, and run it again:\n"
            f"archive_mode = on\narchive_command = '{command}'",
        )
