"""A browser without a window, driven over its own debugging protocol: enough to click, look and take a picture."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection


class Page:
    """One tab. Where something does not appear in time an AssertionError says what the page showed instead."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._count = connection, 0
        for domain in ("Page", "Runtime"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **parameters: object) -> Any:
        """Send a command of the protocol and return its result; events that come meanwhile are passed over."""
        self._count += 1
        self._connection.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def ask(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        result = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise AssertionError(json.dumps(result["exceptionDetails"])[:1000])
        return result["result"].get("value")

    def visit(self, address: str) -> None:
        """Go to an address."""
        self.tell("Page.navigate", url=address)

    def until(self, what: str, script: str, seconds: float = 90.0) -> Any:
        """Wait until an expression is true in the page and return its value."""
        deadline = time.monotonic() + seconds
        while True:
            value = self.ask(script)
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not appear in {seconds:.0f} s; the page says: {self.words()[:1500]}")
            time.sleep(0.3)

    def words(self) -> str:
        """What the page says, without its marks."""
        return str(self.ask("document.body ? document.body.innerText : ''"))

    def until_said(self, words: str, seconds: float = 90.0) -> None:
        """Wait until the page says these words, whatever their case."""
        wanted = json.dumps(words.lower())
        self.until(repr(words), f"document.body && document.body.innerText.toLowerCase().includes({wanted})", seconds)

    def press(self, at: str) -> None:
        """Click what an expression finds, as a person's mouse would."""
        place = self.ask(
            f"(() => {{ const e = {at}; e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.tell("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def picture(self, path: Path, *, width: int = 1280, height: int = 1100) -> None:
        """Save a picture of the page as PNG."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        time.sleep(1.0)  # transitions
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(program: str, folder: Path) -> Iterator[Page]:
    """A page of a browser of its own for a ``with`` block; ``folder`` holds its profile."""
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"]
    place = [f"--user-data-dir={folder}", "--remote-debugging-port=0", "--window-size=1280,1100", "about:blank"]
    process = subprocess.Popen([*command, *quiet, *place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port_of(folder)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as answer:
            [address] = [tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page"]
        with connect(address, max_size=None, open_timeout=30) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _port_of(folder: Path, seconds: float = 60.0) -> int:
    deadline, told = time.monotonic() + seconds, folder / "DevToolsActivePort"
    while not (told.is_file() and told.read_text().strip()):
        if time.monotonic() > deadline:
            raise AssertionError("the browser did not come up")
        time.sleep(0.1)
    return int(told.read_text().splitlines()[0])
