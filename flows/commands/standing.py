"""`kontor up`: everything on one machine with one command, kept standing until it is told to stop."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.screen import out, say, settings_in_force
from flows.commands.stopping import until_told

if TYPE_CHECKING:
    from rich.console import RenderableType

    from configs.settings import Settings
    from tasks.prefect_server import PrefectServer
    from tasks.standing import Supervisor

ROOT = Path(__file__).resolve().parents[2]
_LOOK_SECONDS = 1.0
_SERVERS_EVERY = 5  # looks
_DEAD_MAN_EVERY = 60
_READY_SECONDS = 120.0
_NEXT_RUNS = 6
_LEAST_RUNS_AT_ONCE = 4


def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Go on in the background and return when all stands.")
    ] = False,
) -> None:
    """Start everything on this machine and keep it standing: database, Prefect's server, deployments with their
    schedules, a worker, the inbox's watcher, the reader of returned mails, the receiver of WAL. Ctrl-C, or
    `kontor down` from elsewhere, stops it; data stay.
    """
    settings = settings_in_force()
    if detach:
        _detach(settings)
        return
    from tasks.standing import only_supervisor

    with only_supervisor(settings.home):
        _stand(settings, until_told())


def _detach(settings: Settings) -> None:
    """Start `kontor up` in a session of its own and wait until it says that all stands."""
    from tasks.errors import DependencyDown
    from tasks.standing import find_supervisor

    started: subprocess.Popen[bytes] | None = None
    if find_supervisor(settings.home) is None:
        logs = settings.home / "logs"
        logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        _ready_file(settings).unlink(missing_ok=True)
        with (logs / "up.log").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "up"],
                env={**os.environ, "PYTHONPATH": _python_path()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    deadline = time.monotonic() + _READY_SECONDS + settings.start_timeout_seconds
    while not _ready_file(settings).exists():
        ended = started is not None and started.poll() is not None
        if ended or time.monotonic() > deadline:
            raise DependencyDown(
                "Kontor ended while it was coming up." if ended else "Kontor did not come up in time.",
                hint=f"Read the end of {settings.home / 'logs' / 'up.log'}; then try again.",
            )
        time.sleep(0.2)
    _print_places(settings)


def _python_path() -> str:
    given = os.environ.get("PYTHONPATH")
    return f"{ROOT}{os.pathsep}{given}" if given else str(ROOT)


def _ready_file(settings: Settings) -> Path:
    return settings.home / "up" / "ready"


# --- standing ---------------------------------------------------------------------------------------------------------


def _stand(settings: Settings, stopped: threading.Event) -> None:
    from tasks.stack import ensure_stack
    from tasks.standing import Supervisor

    ready = _ready_file(settings)
    ready.unlink(missing_ok=True)
    deploying = _Deploying(settings)
    supervisor: Supervisor | None = None
    try:
        ensure_stack(settings, say, deploying.load)
        supervisor = Supervisor(settings.home / "logs", companions(), _environment(settings))
        # The worker needs its seconds to load Prefect: meanwhile the deployments are put into force.
        supervisor.keep_up(time.monotonic())
        deploying.put_into_force()
        ready.touch()
        _print_places(settings)
        _watch(settings, supervisor, stopped)
    finally:
        ready.unlink(missing_ok=True)
        deploying.end()
        if supervisor is not None:
            say("Stopping …")
            supervisor.stop()
    say("The worker and the watcher have ended; `kontor down` stops the servers too.")


class _Deploying:
    """The process that puts the deployments into force and makes up for missed runs.

    Every flow is loaded for that, with all that it needs: hundreds of megabytes that nobody wants afterwards, and
    seconds, so it loads them while the servers come up and waits for the word to go on.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    def load(self) -> None:
        """Begin to load the flows; Prefect's address must be known, because it is read with them."""
        environment = _environment(self._settings)
        self._address = environment.get("PREFECT_API_URL", "")
        command = [sys.executable, "-m", "flows.commands.bringing_up"]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)

    def put_into_force(self) -> None:
        """Let it go on, now that the servers answer, and wait for its end.

        Raises:
            BadInput: an entry or a flow is wrong; which one is said above.
            DependencyDown: it failed otherwise; what it said stands above.
        """
        from tasks.errors import BadInput, DependencyDown

        if self._process is None or self._address != _environment(self._settings).get("PREFECT_API_URL", ""):
            self.end()  # the server came up elsewhere than it was going to
            self.load()
        if self._process is None:
            raise RuntimeError("nothing was loaded")
        self._process.communicate(b"go\n")
        code = self._process.returncode
        if code != 0:
            kind = BadInput if code == BadInput.exit_code else DependencyDown
            raise kind(
                "The deployments could not be put into force.",
                hint="Read what is said above; then try `kontor up` again.",
            )

    def end(self) -> None:
        """End it where it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def companions() -> tuple[Any, ...]:
    """Who stands beside the servers: a worker for every queue, the inbox's watcher, who reads returned mails, and the
    receiver of WAL.
    """
    from flows.commands.pools import POOL
    from tasks.standing import Companion

    python = sys.executable
    worker = (python, "-m", "prefect", "--no-prompt", "worker", "start", "--pool", POOL, "--type", "process")
    at_once = str(max(_LEAST_RUNS_AT_ONCE, 2 * (os.cpu_count() or 1)))
    return (
        # More at once than processors can serve would only make each of them late, as after a night of missed runs.
        Companion("worker", (*worker, "--install-policy", "never", "--limit", at_once)),
        Companion("inbox", (python, "-m", "flows.commands.watching")),
        Companion("returns", (python, "-m", "flows.commands.returning")),
        Companion("wal", (python, "-m", "flows.commands.receiving")),
    )


def _environment(settings: Settings) -> dict[str, str]:
    from tasks.prefect_server import expected_prefect, prefect_environment
    from tasks.stack import prefect_listening

    server, login = expected_prefect(settings.home), prefect_listening(settings).login
    reports_to = prefect_environment(server, settings.home, login) if server is not None else {}
    return {
        **os.environ,
        **reports_to,
        "KONTOR_HOME": str(settings.home),
        "PYTHONPATH": _python_path(),
        "PYTHONUNBUFFERED": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_WORKER_PREFETCH_SECONDS": "5",
    }


def _watch(settings: Settings, supervisor: Supervisor, stopped: threading.Event) -> None:
    """Keep everybody standing and show it, until told to stop; servers that died are started again."""
    with _live_view(settings, supervisor) as refresh:
        looks, up_since = 0, datetime.now(UTC)
        while not stopped.wait(_LOOK_SECONDS):
            looks += 1
            if looks % _SERVERS_EVERY == 0:
                _mend_servers(settings, supervisor)
            if looks % _DEAD_MAN_EVERY == 0:
                _ask_dead_man(settings, up_since)
            supervisor.keep_up(time.monotonic())
            if looks % _SERVERS_EVERY == 1:
                refresh()


def _ask_dead_man(settings: Settings, up_since: datetime) -> None:
    """Sound the alarm where nobody watches the runs any more; a database that is away is mended elsewhere."""
    from sqlalchemy.exc import DBAPIError

    from tasks.errors import DependencyDown
    from tasks.watch.dead_man import sound_if_silent

    with suppress(DBAPIError, DependencyDown):
        sound_if_silent(settings, up_since, datetime.now(UTC))


def _mend_servers(settings: Settings, supervisor: Supervisor) -> None:
    """Start a server that has died; companions begin again where Prefect's address has changed."""
    from tasks.errors import KontorError
    from tasks.local_stack import find_postgres
    from tasks.prefect_server import find_prefect
    from tasks.stack import ensure_database, ensure_prefect

    before: PrefectServer | None = find_prefect(settings.home)
    database_stands = settings.database_url is not None or find_postgres(settings.home) is not None
    if before is not None and database_stands:
        return
    given = os.environ.pop("PREFECT_API_URL", None)
    try:
        ensure_database(settings, say)
        ensure_prefect(settings, say)
    except KontorError as error:
        say(f"{error.message} It is tried again.")
        if given:
            os.environ["PREFECT_API_URL"] = given
        return
    if os.environ.get("PREFECT_API_URL") != given:
        supervisor.replace_all(_environment(settings))


# --- what one sees ----------------------------------------------------------------------------------------------------


def _print_places(settings: Settings) -> None:
    from tasks.prefect_server import find_prefect

    server = find_prefect(settings.home)
    console = out()
    console.print(f"Home            {settings.home}")
    console.print(f"Prefect         {server.ui_url if server else os.environ.get('PREFECT_API_URL', '')}")
    console.print(f"Inbox           {settings.inbox_path}")
    console.print(f"Logs            {settings.home / 'logs'}")
    console.print("Stop with       kontor down")


@contextmanager
def _live_view(settings: Settings, supervisor: Supervisor) -> Iterator[Callable[[], None]]:
    """A live picture on a terminal for a ``with`` block, as the function that draws it anew; elsewhere nothing."""
    if not out().is_terminal:
        yield lambda: None
        return
    from rich.live import Live

    with Live(console=out(), auto_refresh=False) as live:
        yield lambda: live.update(picture(settings, supervisor), refresh=True)


def picture(settings: Settings, supervisor: Supervisor) -> RenderableType:
    """What stands, how every area does, and which runs come next, as one thing to print."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from tasks.reports.terminal import COLOURS

    stands = Table(box=None, pad_edge=False)
    for heading in ("process", "pid", "started again"):
        stands.add_column(heading)
    for one in supervisor.standing:
        stands.add_row(one.companion.name, str(one.pid or "–"), str(one.restarts))
    areas = Table(box=None, pad_edge=False, show_header=False)
    for line in _status_lines(settings):
        dot = Text.assemble(("● ", COLOURS.get(str(line["colour"]), "")), str(line["area"]))
        areas.add_row(dot, str(line["headline"]), str(line["next_command"] or ""))
    due = Table(box=None, pad_edge=False)
    for heading in ("next run", "flow"):
        due.add_column(heading)
    for moment, flow in _next_runs(settings, datetime.now(UTC)):
        due.add_row(moment, flow)
    return Group(Text(""), stands, Text(""), areas, Text(""), due)


def _next_runs(settings: Settings, now: datetime) -> list[tuple[str, str]]:
    """The next runs by the deployments' schedules, as weekday and time in the business time zone."""
    from zoneinfo import ZoneInfo

    from flows.commands.deploying import DEPLOYMENTS
    from tasks.watch.schedules import next_runs, read_schedules

    zone = ZoneInfo(settings.business_timezone)
    found = next_runs(read_schedules(DEPLOYMENTS.read_text("utf-8")), zone, now, _NEXT_RUNS)
    return [(f"{due.astimezone(zone):%a %H:%M}", flow) for due, flow in found]


def _status_lines(settings: Settings) -> list[Mapping[str, object]]:
    from tasks.errors import KontorError
    from tasks.reports.store import read_report
    from tasks.stack import connected

    try:
        with connected(settings) as connection:
            return list(read_report(connection, "status_lines").records())
    except KontorError as error:
        return [{"colour": "red", "area": "database", "headline": error.message, "next_command": ""}]
