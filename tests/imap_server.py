"""A mailbox on real sockets: as much of IMAP4rev1 as a reader needs, with TLS, writing down every command it heard."""

from __future__ import annotations

import base64
import re
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

USER, PASSWORD = "bounces@kontor.example", "gehéim word"


@dataclass
class Mailbox:
    """The server's side of the story: its messages by UID, what it heard, and what it is told to get wrong."""

    port: int
    messages: dict[int, bytes] = field(default_factory=dict)
    validity: int = 7
    heard: list[tuple[str, bool]] = field(default_factory=list)
    hang_up_at: str = ""
    offers_starttls: bool = True

    def deliver(self, text: str) -> int:
        """A message arrives; returns its UID."""
        uid = max(self.messages, default=0) + 3
        self.messages[uid] = text.replace("\n", "\r\n").encode()
        return uid

    def commands(self) -> list[str]:
        """What was heard, without tags."""
        return [line for line, _ in self.heard]


class _HungUp(Exception):
    """The server ends the conversation."""


class _Conversation(socketserver.StreamRequestHandler):
    server: _Listener

    def handle(self) -> None:
        self.secure, self.known = False, False
        with suppress(_HungUp, OSError, ssl.SSLError):
            if self.server.implicit:
                self._encrypt()
            self._say(b"* OK ready")
            while True:
                self._obey(self._read())

    def _encrypt(self) -> None:
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
        self.secure = True

    def _read(self) -> str:
        line = self.rfile.readline()
        if not line:
            raise _HungUp
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def _say(self, line: bytes) -> None:
        self.wfile.write(line + b"\r\n")

    def _obey(self, line: str) -> None:
        box = self.server.box
        tag, _, command = line.partition(" ")
        box.heard.append((command, self.secure))
        if box.hang_up_at and command.startswith(box.hang_up_at):
            raise _HungUp
        name = " ".join(command.split()[: 2 if command.startswith("UID") else 1])
        known: dict[str, Callable[[str], str]] = {
            "CAPABILITY": self._capability,
            "STARTTLS": self._starttls,
            "AUTHENTICATE": self._authenticate,
            "EXAMINE": self._examine,
            "UID SEARCH": self._search,
            "UID FETCH": self._fetch,
            "LOGOUT": lambda _: "OK bye",
        }
        answer = known[name](command) if name in known else "BAD not here"
        self._say(f"{tag} {answer} done".encode())
        if name == "STARTTLS":
            self._encrypt()

    def _capability(self, _: str) -> str:
        offers = " STARTTLS LOGINDISABLED" if self.server.box.offers_starttls and not self.secure else " AUTH=PLAIN"
        self._say(f"* CAPABILITY IMAP4rev1{offers}".encode())
        return "OK"

    def _starttls(self, _: str) -> str:
        return "OK go ahead"

    def _authenticate(self, _: str) -> str:
        self._say(b"+ ")
        given = base64.b64decode(self._read()).decode().split("\0")
        self.known = given == ["", USER, PASSWORD]
        return "OK" if self.known else f"NO {given[2]} is wrong"

    def _examine(self, command: str) -> str:
        if not self.known or command != 'EXAMINE "Returned Mail"':
            return "NO"
        self._say(f"* {len(self.server.box.messages)} EXISTS".encode())
        self._say(f"* OK [UIDVALIDITY {self.server.box.validity}] as ever".encode())
        return "OK [READ-ONLY]"

    def _search(self, command: str) -> str:
        uids = sorted(self.server.box.messages)
        found = re.search(r"UID (\d+):\*", command)
        if found:
            uids = [uid for uid in uids if uid >= int(found.group(1))] or uids[-1:]
        self._say(b" ".join([b"* SEARCH", *(str(uid).encode() for uid in uids)]))
        return "OK"

    def _fetch(self, command: str) -> str:
        found = re.fullmatch(r"UID FETCH (\d+) \(BODY\.PEEK\[\]<0\.(\d+)>\)", command)
        if found is None:
            return "BAD"
        content = self.server.box.messages.get(int(found.group(1)))
        if content is not None:
            cut = content[: int(found.group(2))]
            self._say(f"* 1 FETCH (UID {found.group(1)} BODY[]<0> {{{len(cut)}}}".encode())
            self.wfile.write(cut)
            self._say(b")")
        return "OK"


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    box: Mailbox
    tls: ssl.SSLContext
    implicit = True


@contextmanager
def imap_server(certificate: Path, key: Path, *, implicit: bool = True) -> Iterator[Mailbox]:
    """A mailbox for a ``with`` block on a free port of the loopback; encrypted at once or by STARTTLS."""
    with _Listener(("127.0.0.1", 0), _Conversation) as listener:
        listener.box = Mailbox(listener.server_address[1])
        listener.implicit = implicit
        listener.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        listener.tls.load_cert_chain(certificate, key)
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield listener.box
        finally:
            listener.shutdown()
            thread.join()
