"""A browser without a window and without a network, asked over its own protocol: what a page did when it was opened.

Chromium is looked for on the PATH; a test that needs it is skipped where there is none. The browser gets a profile of
its own that is removed with it, and no name resolves for it but the loopback address it is asked through.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]
from websockets.sync.client import connect
from websockets.sync.connection import Connection

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_STARTS_WITHIN = 60.0
_ANSWERS_WITHIN = 60.0


@dataclass
class Opened:
    """What a page did: addresses it asked for, what failed, what stood on its console, its width and its picture."""

    asked: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    overflows: bool = False
    picture: bytes = b""


def find_chromium() -> str | None:
    """The program's path, or None."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    """A browser for a ``with`` block; it is ended with all its processes and its profile is removed."""
    profile = Path(tempfile.mkdtemp(prefix="kontor-browser-"))
    process = subprocess.Popen(
        [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-sync", "--disable-component-update", "--hide-scrollbars",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-port=0", "--remote-debugging-address=127.0.0.1",
         f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with connect(_address(profile, process), max_size=None, proxy=None) as connection:
            yield Browser(connection)
    finally:
        _end(process)
        shutil.rmtree(profile, ignore_errors=True)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the browser listens; it writes that into its profile when it is up."""
    deadline, port = time.monotonic() + _STARTS_WITHIN, profile / "DevToolsActivePort"
    while time.monotonic() < deadline and process.poll() is None:
        lines = port.read_text("ascii").splitlines() if port.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise AssertionError("the browser did not start")


def _end(process: subprocess.Popen[bytes]) -> None:
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in family:
        with suppress(psutil.NoSuchProcess):  # one went with the one before it
            one.kill()
    psutil.wait_procs(family[1:], timeout=10)
    process.wait(timeout=10)


class Browser:
    """Opens pages from files, one after another."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._number = connection, 0
        self._events: list[Mapping[str, Any]] = []

    def open(self, page: Path, *, width: int, height: int = 900) -> Opened:
        """Open a page offline at that width and return what it did, when it has loaded and drawn itself."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Runtime", "Log", "Page"):
            self._ask(f"{domain}.enable", session)
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self._ask("Network.emulateNetworkConditions", session, offline=True, **speed)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", session, **size)
        self._events.clear()
        self._ask("Page.navigate", session, url=page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")
        seen = self._told()
        wide = self._ask("Runtime.evaluate", session, expression="document.documentElement.scrollWidth > innerWidth")
        seen.overflows = bool(wide["result"]["value"])
        picture = self._ask("Page.captureScreenshot", session, format="png", captureBeyondViewport=False)
        seen.picture = base64.b64decode(picture["data"])
        self._ask("Target.closeTarget", targetId=target)
        return seen

    def _told(self) -> Opened:
        """The page's events in words; its own file is no request to anybody."""
        seen = Opened()
        for event in self._events:
            given = event.get("params", {})
            match event.get("method"):
                case "Network.requestWillBeSent" if urlsplit(given["request"]["url"]).scheme not in ("file", "data"):
                    seen.asked.append(given["request"]["url"])
                case "Network.loadingFailed":
                    seen.failed.append(given["errorText"])
                case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                    seen.said.append(json.dumps(given)[:400])
        return seen

    def _wait_for(self, method: str) -> None:
        deadline = time.monotonic() + _ANSWERS_WITHIN
        while not any(event.get("method") == method for event in self._events):
            self._events.append(self._receive(deadline))

    def _ask(self, method: str, session: str | None = None, /, **parameters: object) -> Any:
        self._number += 1
        asked: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(asked | ({"sessionId": session} if session else {})))
        deadline = time.monotonic() + _ANSWERS_WITHIN
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._events.append(answer)

    def _receive(self, deadline: float) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self._connection.recv(timeout=max(deadline - time.monotonic(), 0.01)))
        return found
