"""Returned mail in a mailbox, read by IMAP (RFC 3501 and 9051); the mailbox is only ever looked at.

It is opened with EXAMINE and read with BODY.PEEK, so that nothing in it changes: no flag, no order, nothing deleted,
and whoever else reads it does not hide a message from us. Which messages are new follows from their UIDs, which only
rise as long as the mailbox keeps its UIDVALIDITY (RFC 9051 section 2.3.1.1); how far we read stands in our database.

The server is verified, by certificate and name, before it hears a password; without encryption nothing is said.
"""

from __future__ import annotations

import hashlib
import imaplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from configs.settings import Settings
from tasks.errors import DependencyDown, KontorError, Refused, UsageError
from tasks.mail_connection import verifying_context

LONGEST_READ = 1_000_000  # bytes of a message; a bounce is small
_ANSWER_SECONDS = 60.0
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class _Place:
    host: str
    port: int
    tls: Literal["starttls", "imaps"]
    user: str
    password: str = field(repr=False)
    folder: str


class ReturnedMail:
    """An open mailbox; ``name`` tells it from others without naming anybody, ``validity`` is its UIDVALIDITY."""

    def __init__(self, client: imaplib.IMAP4, name: str, validity: int) -> None:
        self._client, self.name, self.validity = client, name, validity

    def newer_than(self, uid: int, since: date) -> list[int]:
        """UIDs of the messages after ``uid``, lowest first; with 0 those that arrived on or after ``since``.

        Raises:
            DependencyDown: the server went away or does not answer as servers do.
        """
        asked = ("UID", f"{uid + 1}:*") if uid else ("SINCE", f"{since.day}-{_MONTHS[since.month - 1]}-{since.year}")
        with _in_our_words():
            kind, found = self._client.uid("SEARCH", *asked)
            _expect(kind)
            numbers = [int(number) for line in found if line for number in line.split()]
        # "5:*" names the newest message also where its UID is below 5.
        return sorted(number for number in set(numbers) if number > uid)

    def content(self, uid: int) -> bytes | None:
        """The message's first million bytes; None where somebody has deleted it meanwhile.

        Raises:
            DependencyDown: as :meth:`newer_than`.
        """
        with _in_our_words():
            kind, found = self._client.uid("FETCH", str(uid), f"(BODY.PEEK[]<0.{LONGEST_READ}>)")
            _expect(kind)
        return next((part[1] for part in found if isinstance(part, tuple)), None)


@contextmanager
def open_mailbox(settings: Settings) -> Iterator[ReturnedMail]:
    """The mailbox that ``KONTOR_BOUNCES_URL`` names, for a ``with`` block.

    Raises:
        DependencyDown: the server cannot be reached.
        Refused: its certificate cannot be trusted, or it offers no encryption; it has not heard the password.
        UsageError: it does not know user and password, there is no such folder, or a setting is wrong.
    """
    place = _place(settings)
    with _in_our_words():
        client = _connect(place, verifying_context(settings.bounces_ca_file, "KONTOR_BOUNCES_CA_FILE"))
    try:
        with _in_our_words():
            validity = _look_into(client, place)
        told = f"{place.host}:{place.port}/{place.user}/{place.folder}"
        yield ReturnedMail(client, hashlib.sha256(told.encode()).hexdigest(), validity)
    finally:
        with suppress(OSError, imaplib.IMAP4.error):
            client.logout()


def _place(settings: Settings) -> _Place:
    url = urlsplit(settings.bounces_url.get_secret_value() if settings.bounces_url else "")
    try:
        port = url.port or (993 if url.scheme == "imaps" else 143)
    except ValueError:
        port = 0
    password = unquote(url.password) if url.password else _password_in(settings.bounces_password_file)
    folder = unquote(url.path.strip("/")) or "INBOX"
    usable = url.scheme in ("imap", "imaps") and url.hostname and url.username and password and port and not url.query
    if not usable or not folder.isascii() or not folder.isprintable():
        raise UsageError(
            "KONTOR_BOUNCES_URL is not the address of a mailbox.",
            hint="Write imaps://user:password@host:993/FOLDER, or imap://… for STARTTLS; the password may stand in"
            " KONTOR_BOUNCES_PASSWORD_FILE. Without encryption nothing is read.",
        )
    tls: Literal["starttls", "imaps"] = "imaps" if url.scheme == "imaps" else "starttls"
    return _Place(str(url.hostname), port, tls, unquote(str(url.username)), password, folder)


def _password_in(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(
                "Others than its owner may read KONTOR_BOUNCES_PASSWORD_FILE.", hint="Run chmod 600 on it."
            )
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"KONTOR_BOUNCES_PASSWORD_FILE cannot be read ({type(error).__name__}).", hint="Correct path and rights."
        ) from None


def _connect(place: _Place, context: ssl.SSLContext) -> imaplib.IMAP4:
    if place.tls == "imaps":
        return imaplib.IMAP4_SSL(place.host, place.port, ssl_context=context, timeout=_ANSWER_SECONDS)
    client = imaplib.IMAP4(place.host, place.port, timeout=_ANSWER_SECONDS)
    try:
        if "STARTTLS" not in client.capabilities:
            raise Refused(
                "The mailbox's server offers no encryption. It has not heard the password.",
                hint="Ask for imaps:// or STARTTLS at the server.",
            )
        client.starttls(ssl_context=context)
    except (OSError, imaplib.IMAP4.error, KontorError):
        with suppress(OSError):  # the handshake may have closed it
            client.shutdown()
        raise
    return client


def _look_into(client: imaplib.IMAP4, place: _Place) -> int:
    """Log in, open the folder for reading alone, and return its UIDVALIDITY."""
    try:
        if "AUTH=PLAIN" in client.capabilities:
            client.authenticate("PLAIN", lambda _: f"\0{place.user}\0{place.password}".encode())
        else:
            client.login(place.user, place.password)
    except (imaplib.IMAP4.error, UnicodeEncodeError) as error:
        if isinstance(error, imaplib.IMAP4.abort):
            raise
        raise UsageError(
            "The mailbox's server does not accept user and password.",
            hint="Correct them in KONTOR_BOUNCES_URL or KONTOR_BOUNCES_PASSWORD_FILE.",
        ) from None
    escaped = place.folder.replace("\\", "\\\\").replace('"', '\\"')
    kind, _ = client.select(f'"{escaped}"', readonly=True)
    if kind != "OK":
        raise UsageError("The mailbox has no such folder.", hint="Correct the path in KONTOR_BOUNCES_URL.")
    told: tuple[Any, Any] = client.response("UIDVALIDITY")
    return int(told[1][0]) if told[1] and told[1][0] else 0


def _expect(kind: str) -> None:
    if kind != "OK":
        raise imaplib.IMAP4.abort("not OK")


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Errors of connection and protocol as ours; what the server said is not quoted."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            f"The certificate of the mailbox's server cannot be trusted: {error.verify_message}."
            " It has not heard the password.",
            hint="Name the server as its certificate does; for an authority of your own, set KONTOR_BOUNCES_CA_FILE.",
        ) from None
    except (OSError, imaplib.IMAP4.error, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise DependencyDown(
            f"Returned mail cannot be read by IMAP: {told}. What was read before is kept.",
            hint="Check KONTOR_BOUNCES_URL and that the server runs; then run the same command again.",
        ) from None
