"""A mail server on real sockets that misbehaves on command, and counts what it has taken.

What it has *taken* is what a server could pass on: the content came whole, with its final dot. Whether the sender
ever heard of it is another matter, and the point of the tests.
"""

from __future__ import annotations

import email
import re
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import policy
from email.message import EmailMessage
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Behaviour(StrEnum):
    """What the server does with one message; everything but TAKE is a fault."""

    TAKE = "take"
    BUSY = "421 at MAIL"
    DROP_AT_MAIL = "hangs up at MAIL"
    REFUSE_SENDER = "550 at MAIL"
    REFUSE = "550 at RCPT"
    DEFER = "450 at RCPT"
    GARBAGE_AT_RCPT = "garbage at RCPT"
    DROP_AT_DATA = "hangs up at DATA"
    DEFER_AT_DATA = "451 at DATA"
    DROP_IN_CONTENT = "hangs up in the middle of the content"
    REFUSE_CONTENT = "554 after the content"
    DEFER_CONTENT = "452 after the content"
    DROP_AFTER_CONTENT = "takes the content and hangs up"
    STALL_AFTER_CONTENT = "takes the content and says nothing"
    LATE = "takes the content and answers later"
    GARBAGE_AFTER_CONTENT = "takes the content and answers garbage"


# After these the server has the message, whatever the sender knows of it.
TAKING = {
    Behaviour.TAKE,
    Behaviour.DROP_AFTER_CONTENT,
    Behaviour.STALL_AFTER_CONTENT,
    Behaviour.LATE,
    Behaviour.GARBAGE_AFTER_CONTENT,
}


@dataclass(frozen=True)
class Taken:
    """One message that the server has: its envelope and its content as it came."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes

    @property
    def message(self) -> EmailMessage:
        """The message, parsed."""
        return email.message_from_bytes(self.content, policy=policy.default)

    @property
    def message_id(self) -> str:
        """Its Message-ID."""
        return str(self.message["Message-ID"])


@dataclass
class FaultyServer:
    """The server's side of the story: where it listens, what it was told to do, what it has taken."""

    port: int
    ca_file: Path | None
    taken: list[Taken] = field(default_factory=list)
    conversations: int = 0
    behave: Callable[[str], Behaviour] = lambda _recipient: Behaviour.TAKE
    refused_addresses: set[str] = field(default_factory=set)
    delay_seconds: float = 0.4
    greeting: str = "220 test.example ESMTP"
    encrypted: list[bool] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def plain_url(self) -> str:
        """The setting of a sender that does not encrypt."""
        return f"smtp://127.0.0.1:{self.port}?tls=none"

    def play(self, *behaviours: Behaviour) -> None:
        """Do these in turn, one a message, then take everything."""
        remaining = list(behaviours)
        self.behave = lambda _recipient: remaining.pop(0) if remaining else Behaviour.TAKE

    def ids(self) -> list[str]:
        """The Message-IDs of what was taken, in order."""
        return [taken.message_id for taken in self.taken]


class _HungUp(Exception):
    """The server ends the conversation."""


class _Conversation(socketserver.StreamRequestHandler):
    """One connection; commands in any order that the client chooses."""

    server: _Listener

    def handle(self) -> None:
        self.state = self.server.state
        self.secure = self.server.implicit
        with self.state.lock:
            self.state.conversations += 1
        with suppress(_HungUp, OSError, ssl.SSLError):
            if self.server.implicit and self.server.tls:
                self._encrypt()
            self._say(self.state.greeting)
            self._forget()
            while True:
                self._obey(self._read())

    def _encrypt(self) -> None:
        if self.server.tls is None:
            raise _HungUp
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
        self.secure = True

    def _forget(self) -> None:
        self.sender = ""
        self.recipients: list[str] = []

    def _read(self) -> str:
        line = self.rfile.readline()
        if not line:
            raise _HungUp
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _obey(self, line: str) -> None:
        command = line.split(" ")[0].upper()
        if command == "EHLO":
            offers = ["250-test.example", "250-8BITMIME"]
            offers += ["250-STARTTLS"] if self.server.tls and not self.secure else []
            self._say("\r\n".join([*offers, "250 SIZE 50000000"]))
        elif command == "STARTTLS" and self.server.tls:
            self._say("220 go ahead")
            self._encrypt()
        elif command == "MAIL":
            self._mail(line)
        elif command == "RCPT":
            self._recipient(line)
        elif command == "DATA":
            self._data()
        elif command == "RSET":
            self._forget()
            self._say("250 forgotten")
        elif command == "QUIT":
            self._say("221 bye")
            raise _HungUp
        else:
            self._say("502 not here")

    def _mail(self, line: str) -> None:
        with self.state.lock:
            self.behaviour = self.state.behave(line)
        self.sender = _address(line)
        if self.behaviour is Behaviour.BUSY:
            self._say("421 too busy, closing")
            raise _HungUp
        if self.behaviour is Behaviour.DROP_AT_MAIL:
            raise _HungUp
        self._say("550 not you" if self.behaviour is Behaviour.REFUSE_SENDER else "250 sender ok")

    def _recipient(self, line: str) -> None:
        recipient = _address(line)
        if recipient in self.state.refused_addresses or self.behaviour is Behaviour.REFUSE:
            self._say("550 5.1.1 no such mailbox")
        elif self.behaviour is Behaviour.DEFER:
            self._say("450 4.2.1 try later")
        elif self.behaviour is Behaviour.GARBAGE_AT_RCPT:
            self._say("%%% \x01 what?")
        else:
            self.recipients.append(recipient)
            self._say("250 recipient ok")

    def _data(self) -> None:
        if self.behaviour is Behaviour.DROP_AT_DATA:
            raise _HungUp
        if self.behaviour is Behaviour.DEFER_AT_DATA:
            self._say("451 not now")
            return
        self._say("354 go on")
        content = self._content()
        if self.behaviour in TAKING:
            with self.state.lock:
                self.state.taken.append(Taken(self.sender, tuple(self.recipients), content))
                self.state.encrypted.append(self.secure)
        self._answer_content()
        self._forget()

    def _content(self) -> bytes:
        lines: list[bytes] = []
        while True:
            line = self.rfile.readline()
            if not line or (self.behaviour is Behaviour.DROP_IN_CONTENT and len(lines) > 3):
                raise _HungUp
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)

    def _answer_content(self) -> None:
        if self.behaviour is Behaviour.DROP_AFTER_CONTENT:
            raise _HungUp
        if self.behaviour is Behaviour.STALL_AFTER_CONTENT:
            self.state.stopping.wait(20)
            raise _HungUp
        if self.behaviour is Behaviour.LATE:
            time.sleep(self.state.delay_seconds)
        answers = {
            Behaviour.REFUSE_CONTENT: "554 5.7.1 no, thank you",
            Behaviour.DEFER_CONTENT: "452 4.3.1 disk full",
            Behaviour.GARBAGE_AFTER_CONTENT: "<html>oops</html>",
        }
        self._say(answers.get(self.behaviour, "250 2.0.0 taken"))


def _address(line: str) -> str:
    found = re.search(r"<([^>]*)>", line)
    return found.group(1) if found else ""


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64
    state: FaultyServer
    tls: ssl.SSLContext | None = None
    implicit = False


@contextmanager
def faulty_server(
    *, certificate: Path | None = None, key: Path | None = None, implicit: bool = False
) -> Iterator[FaultyServer]:
    """A server for a ``with`` block on a free port of the loopback; with a certificate it encrypts."""
    with _Listener(("127.0.0.1", 0), _Conversation) as listener:
        listener.state = FaultyServer(listener.server_address[1], certificate)
        listener.implicit = implicit
        if certificate is not None and key is not None:
            listener.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            listener.tls.load_cert_chain(certificate, key)
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield listener.state
        finally:
            listener.state.stopping.set()
            listener.shutdown()
            thread.join()


def self_signed(folder: Path, *, name: str = "localhost", days: int = 30) -> tuple[Path, Path]:
    """A certificate for ``name``, valid up to ``days`` from now (negative: ended), and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file
