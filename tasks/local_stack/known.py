"""What the modules of the embedded server tell each other: roles, places, accounts, limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROLES = ("kontor_admin", "kontor_owner", "kontor_flows", "kontor_retention", "kontor_finance", "kontor_prefect")
SUPERUSER = ROLES[0]
PORT = 5432  # names the socket file, nothing listens on it
ROOT_FOLDER = Path("/var/lib/kontor")
SERVICE_ACCOUNTS = ("postgres", "kontor-postgres")
SOCKET_PATH_LIMIT = 103  # bytes: macOS has 104 with the closing zero, Linux 108
RAISE_LIMIT = "Run it again to go on waiting, or raise KONTOR_START_TIMEOUT_SECONDS."


@dataclass(frozen=True)
class LocalPostgres:
    """A running embedded server: ``host=socket_dir port=port user=superuser`` connects, ``programs_dir`` has psql."""

    data_dir: Path
    socket_dir: Path
    port: int
    programs_dir: Path
    superuser: str


@dataclass(frozen=True)
class Account:
    """Whom the server runs as; ``switch`` is true when this process is root and has to become that user."""

    name: str
    uid: int
    gid: int
    switch: bool


@dataclass(frozen=True)
class Site:
    """Where one server's things are: ``folder`` is KONTOR_HOME/postgres, ``place`` holds data, log and run.

    ``lock`` is the descriptor of the lock under which this was found out.
    """

    home: Path
    folder: Path
    place: Path
    account: Account
    programs: Path
    lock: int

    @property
    def data(self) -> Path:
        """The database's folder itself, whatever links lead there."""
        return (self.folder / "data").resolve()


@dataclass(frozen=True)
class Postmaster:
    """What ``postmaster.pid`` says of a live server: ``serves`` is the folder that it believes to be its own.

    ``socket_dir`` is None until it has opened its socket, ``ready`` is false while it starts, recovers or stops.
    """

    pid: int
    serves: Path
    port: int
    socket_dir: Path | None
    ready: bool


@dataclass(frozen=True)
class Limit:
    """How long an operation may take, and whom to tell meanwhile."""

    started: float
    seconds: float
    progress: Callable[[str], None]

    @property
    def spent(self) -> float:
        """Seconds since the operation began."""
        return time.monotonic() - self.started

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.spent >= self.seconds

    def waits(self, what: str) -> Iterator[None]:
        """Yield once and then until the limit is over, slower each time; after two seconds say what is waited for."""
        pause, told = 0.01, 2.0
        while True:
            yield
            if self.over:
                return
            time.sleep(min(pause, 0.2))
            pause *= 1.3
            if self.spent >= told:
                self.progress(f"{what}… {self.spent:.0f} s of {self.seconds:g} s")
                told = self.spent + 3.0


def silent(_line: str) -> None:
    """Say nothing: the default for ``progress``."""
