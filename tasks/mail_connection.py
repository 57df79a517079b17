"""One connection to a mail server: verified, patient, and knowing afterwards how far a message came.

It stands on the client of the library ``emails`` and changes what must not be left to chance there: the certificate
is checked, a message is never repeated, and the answer to every command is kept, person by person.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from emails.backend.smtp.backend import SMTPBackend
from emails.backend.smtp.client import SMTPClientWithResponse

from configs.settings import Settings
from tasks.errors import DependencyDown, KontorError, Refused, UsageError
from tasks.letters import Answer, Packed, one_line


@dataclass(frozen=True)
class _Server:
    host: str
    port: int
    tls: Literal["starttls", "smtps", "none"]
    user: str | None
    password: str | None


def _server(settings: Settings) -> _Server:
    if settings.smtp_url is None:
        raise UsageError(
            f"Mail mode {settings.mail_mode.partition(':')[0]} needs a mail server.",
            hint="Set KONTOR_SMTP_URL, as in smtp://user:password@mail.company.example:587, or KONTOR_MAIL_MODE=hold.",
        )
    url = urlsplit(settings.smtp_url.get_secret_value())
    plain = parse_qs(url.query).get("tls") == ["none"]
    try:
        port = url.port or (465 if url.scheme == "smtps" else 587)
    except ValueError:
        port = 0
    if url.scheme not in ("smtp", "smtps") or not url.hostname or not port or (url.query and not plain):
        raise UsageError(
            "KONTOR_SMTP_URL is not the address of a mail server.",
            hint="Write smtp://user:password@host:587 (STARTTLS) or smtps://user:password@host:465;"
            " smtp://host:25?tls=none for a relay in your own house without encryption.",
        )
    if plain and (url.username or url.scheme == "smtps"):
        raise UsageError(
            "KONTOR_SMTP_URL would send a password without encryption, or says both smtps and tls=none.",
            hint="Leave ?tls=none away, or the user and password.",
        )
    tls: Literal["starttls", "smtps", "none"] = "none" if plain else "smtps" if url.scheme == "smtps" else "starttls"
    user, password = (unquote(part) if part else None for part in (url.username, url.password))
    return _Server(url.hostname, port, tls, user, password)


def verifying_context(bundle: Path | None, setting: str) -> ssl.SSLContext:
    """A context that verifies certificate and name, by the certificates in ``bundle`` or else the system's.

    Raises:
        UsageError: the bundle, which ``setting`` named, cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=str(bundle) if bundle else None)
    except OSError as error:
        raise UsageError(
            f"The certificates in {setting} cannot be read: {error.strerror or 'not a PEM file'}.",
            hint="Name a file of certificates in PEM, or unset it to trust the system's.",
        ) from None


class _Client(SMTPClientWithResponse):
    """The library's client, told to verify, to wait long enough, and to remember how far a message came."""

    def __init__(self, parent: Any, *, context: ssl.SSLContext, mode: str, answer_timeout: float, **rest: Any) -> None:
        self._context, self._mode, self._answer_timeout = context, mode, answer_timeout
        self.begin(())
        super().__init__(parent, **rest)  # type: ignore[no-untyped-call]

    def begin(self, to: Sequence[str]) -> None:
        """Forget the last message; ``to`` are the recipients without whom the content is not handed over."""
        self._to = set(to)
        self.sender_answer: tuple[int, bytes] | None = None
        self.recipients: dict[str, tuple[int, bytes]] = {}
        self.travelled = False  # content has left: from here on only the server knows
        self.answer: tuple[int, bytes] | None = None

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        plain = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        return self._context.wrap_socket(plain, server_hostname=host) if self._mode == "smtps" else plain

    def initialize(self) -> None:
        """Encrypt, verified, before anything is said; then log in as the library does."""
        if self._mode == "starttls":
            self.starttls(context=self._context)
        super().initialize()  # type: ignore[no-untyped-call]

    def mail(self, sender: str, options: Sequence[str] = ()) -> Any:
        """MAIL FROM; the answer is kept."""
        self.sender_answer = super().mail(sender, options)
        return self.sender_answer

    def rcpt(self, recip: str, options: Sequence[str] = ()) -> Any:
        """RCPT TO; the answer is kept per recipient."""
        self.recipients[recip] = super().rcpt(recip, options or ())
        return self.recipients[recip]

    def data(self, msg: Any) -> Any:
        """DATA and the content, unless everybody it is to was refused: a copy alone is of no use to anybody."""
        refused = [self.recipients[one] for one in self._to if not _taken(self.recipients.get(one))]
        if len(refused) == len(self._to):
            return refused[0]
        code, said = self.docmd("DATA")
        if code != 354:
            self.sender_answer = (code, said)
            return code, said
        self.travelled = True
        self._wait_at_most(self._answer_timeout)
        self.send(re.sub(rb"(?m)^\.", b"..", msg.removesuffix(b"\r\n")) + b"\r\n.\r\n")
        self.answer = self.getreply()
        self._wait_at_most(self.timeout)
        return self.answer

    def _wait_at_most(self, seconds: float) -> None:
        if self.sock is not None:
            self.sock.settimeout(seconds)


class _Backend(SMTPBackend):
    """The library's backend without its habit of sending a message again when the connection drops."""

    connection_cls: Any = _Client

    def retry_on_disconnect(self, func: Any) -> Any:
        """The function as it is."""
        return func


def _taken(answer: tuple[int, bytes] | None) -> bool:
    return answer is not None and answer[0] in (250, 251)


class Connection:
    """A connection that is up; :func:`connect` makes one."""

    def __init__(self, backend: _Backend) -> None:
        self._backend = backend
        self._client: Any = backend.get_client()
        self.used = False

    def hand_over(self, sender: str, packed: Packed) -> tuple[tuple[Answer, ...], bool]:
        """Hand a message over; return the answers, To before Cc, and whether the connection can still be used."""
        self._client.begin(packed.to)
        recipients = [*packed.to, *packed.cc]
        lost = ""
        try:
            self._backend.sendmail(sender, recipients, packed)
        except OSError as error:  # the library's errors of SMTP are of this kind too
            lost = type(error).__name__
        answers = tuple(_answer(self._client, recipient, lost) for recipient in recipients)
        usable = not lost and all(answer.code not in (None, 421) for answer in answers)
        self.used = True
        return answers, usable

    def drop(self) -> None:
        """Close without a word: a server that does not answer would not answer QUIT either."""
        with suppress(OSError):
            self._client.close()

    def close(self) -> None:
        """Say goodbye; a server that has hung up already is none the worse for it."""
        with suppress(OSError):
            self._backend.close()


def connect(settings: Settings) -> Connection:
    """A connection to the server that the settings name.

    Raises:
        DependencyDown: it cannot be reached or is busy; nothing was sent.
        Refused: its certificate cannot be trusted, or it offers no encryption.
        UsageError: it does not know user and password, or a setting is wrong.
    """
    server = _server(settings)
    backend = _Backend(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        timeout=settings.smtp_timeout_seconds,
        context=verifying_context(settings.smtp_ca_file, "KONTOR_SMTP_CA_FILE"),
        mode=server.tls,
        answer_timeout=settings.smtp_answer_timeout_seconds,
        fail_silently=True,  # what the server said is read per recipient, not from the library's exception
    )
    try:
        return Connection(backend)
    except OSError as error:
        raise _no_connection(error) from None


def _answer(client: _Client, recipient: str, lost: str) -> Answer:
    """What is known for one recipient, from how far the message came.

    Raises nothing. A code that is none (garbage) counts as no answer.
    """
    own = client.recipients.get(recipient)
    if own is not None and not _taken(own):
        return _refusal(recipient, own)
    if client.travelled:
        code, said = client.answer or (None, b"")
        if code == 250:
            return Answer(recipient, 250, _words(said), "sent")
        if code is not None and 400 <= code <= 599:
            return _refusal(recipient, (code, said))
        return Answer(recipient, None, _words(said) or f"no answer to the content ({lost or 'unreadable'})", "unknown")
    before = next((one for one in (client.sender_answer, *client.recipients.values()) if one and not _fine(one)), None)
    return _refusal(recipient, before) if before else Answer(recipient, None, f"no answer ({lost})", "deferred")


def _refusal(recipient: str, answer: tuple[int, bytes]) -> Answer:
    code, said = answer
    if 500 <= code <= 599:
        return Answer(recipient, code, _words(said), "refused")
    return Answer(recipient, code if code > 0 else None, _words(said), "deferred")


def _fine(answer: tuple[int, bytes]) -> bool:
    return 200 <= answer[0] <= 299


def _words(said: bytes) -> str:
    return one_line(said.decode("utf-8", "replace"), 500)


def _no_connection(error: OSError) -> KontorError:
    """The error of ours for a connection that could not be made; texts of the server are not quoted."""
    code = getattr(error, "smtp_code", None)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refused(
            f"The mail server's certificate cannot be trusted: {error.verify_message}. Nothing was sent.",
            hint="Name the server as its certificate does; for an authority of your own, set KONTOR_SMTP_CA_FILE.",
        )
    if isinstance(error, ssl.SSLError) or type(error).__name__ == "SMTPNotSupportedError":
        return Refused(
            f"The mail server offers no encryption that can be used ({type(error).__name__}). Nothing was sent.",
            hint="Ask for smtps:// or STARTTLS at the server; in your own house, ?tls=none in KONTOR_SMTP_URL.",
        )
    if type(error).__name__ == "SMTPAuthenticationError" and code is not None and code >= 500:
        return UsageError(
            f"The mail server does not accept user and password ({code}). Nothing was sent.",
            hint="Correct them in KONTOR_SMTP_URL; special characters are written as %40 and the like.",
        )
    told = f"it answered {code}" if code else error.strerror or type(error).__name__
    return DependencyDown(
        f"The mail server cannot be reached: {told}. Nothing was sent.",
        hint="Check KONTOR_SMTP_URL and that the server runs; then run the same command again.",
    )
