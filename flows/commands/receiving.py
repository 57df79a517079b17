"""`python -m flows.commands.receiving`: keeps the receiver of WAL standing, ships what it has received, writes beats.

One of the processes that `kontor up` keeps standing. When it is killed the slot keeps the WAL until the next one, which
ends a receiver that was left alone and goes on from where that was.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

from configs.settings import Settings, load_settings
from flows.commands.stopping import until_told
from tasks.backups import wal
from tasks.backups.core_engine import CoreEngine
from tasks.backups.keys import ensure_keys
from tasks.backups.programs import ENVIRONMENT
from tasks.backups.runs import open_engine
from tasks.backups.shipping import ship_home
from tasks.errors import KontorError
from tasks.local_stack import LocalPostgres, find_postgres, is_sealed

LOOK_SECONDS = 1.0
BEAT_SECONDS = 60.0
SHIP_SECONDS = 300.0


def main() -> int:
    """Receive and ship until told to stop; 0 at the end, 5 when the server is away, upon which it is started again."""
    stopped = until_told()
    settings = load_settings()
    server = find_postgres(settings.home)
    engine = open_engine(settings)
    if settings.database_url is not None or not isinstance(engine, CoreEngine):
        while not stopped.wait(SHIP_SECONDS):  # a database of one's own sends its WAL to its repository by itself
            _told(lambda: ship_home(engine, datetime.now(UTC)))
        return 0
    if server is None or is_sealed(settings.home):
        print("the database is not running, or waits for its release", flush=True)
        return 5
    return _receive(settings, engine, server, stopped)


def _receive(settings: Settings, engine: CoreEngine, server: LocalPostgres, stopped: threading.Event) -> int:
    ensure_keys(engine.ring)
    folder = wal.wal_folder(settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if wal.prepare_slot(server, settings.backup_wal_limit_mb):
        print("the slot began anew: instants before now are reached through backups only", flush=True)
    receiver = subprocess.Popen(wal.receiver_command(server, folder), env=ENVIRONMENT, stdin=subprocess.DEVNULL)
    try:
        beaten = shipped = time.monotonic() - max(BEAT_SECONDS, SHIP_SECONDS)
        while receiver.poll() is None and not stopped.wait(LOOK_SECONDS):
            now = time.monotonic()
            if now - beaten >= BEAT_SECONDS and _told(lambda: wal.beat(server)):
                beaten = now
            if now - shipped >= SHIP_SECONDS and _told(lambda: _ship(engine, server)):
                shipped = now
    finally:
        _end(receiver)
    return 0 if stopped.is_set() else 5


def _ship(engine: CoreEngine, server: LocalPostgres) -> None:
    wal.finish_segment(server)
    time.sleep(LOOK_SECONDS)
    ship_home(engine, datetime.now(UTC))
    count = wal.ship(engine, datetime.now(UTC))
    if count:
        print(f"shipped {count} segments", flush=True)


def _told(work: object) -> bool:
    """Whether the work was done; what stopped it is told, and it is tried again at the next look."""
    try:
        work()  # type: ignore[operator]
    except KontorError as error:
        print(error.message, flush=True)
        return False
    return True


def _end(receiver: subprocess.Popen[bytes]) -> None:
    if receiver.poll() is None:
        receiver.send_signal(signal.SIGINT)  # it writes out what it has
        try:
            receiver.wait(10)
        except subprocess.TimeoutExpired:
            receiver.kill()
            receiver.wait()


if __name__ == "__main__":
    sys.exit(main())
