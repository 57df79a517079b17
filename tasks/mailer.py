"""Sending mail: what a letter is, how it becomes bytes, and what a server answered, person by person.

This module and its connection (tasks/mail_connection.py) are the only ones that know the library ``emails``. What they
add to it, each of it proven in tests/unit/mailer against a server that misbehaves:

- **A message is handed over once.** The library connects again and repeats a message when the connection drops, also
  after the server has taken it. Here a message whose content began to travel is never repeated: without an answer to
  it the outcome is ``unknown``. A connection that turns out to be dead *before* the content is simply made again.
- **The server is who it says it is.** STARTTLS and smtps verify certificate and name; a server that offers no STARTTLS
  is refused unless the setting says ``?tls=none``.
- **The server has time.** RFC 5321 section 4.5.3.2 gives a server ten minutes to answer after the content; whoever
  hangs up earlier does not know what became of the message.
- **Nothing in a name becomes a header.** Control characters, line breaks and the marks of address syntax are taken
  out of every value of a header, and addresses that are not plain are refused.

The mail mode decides what sending means: ``hold`` writes each message as a file and sends none, ``redirect:<address>``
sends all of them to one address and names the true recipient in a header, ``live`` sends.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import format_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dkim import DKIMException
from emails.message import Message
from emails.signers import DKIMSigner

from configs.settings import Settings
from tasks.errors import BadInput, DependencyDown, UsageError
from tasks.letters import (
    Answer,
    Delivery,
    Enclosure,
    Letter,
    Mailbox,
    Mode,
    Outcome,
    Packed,
    checked_address,
    mailbox,
    message_id,
    one_line,
    shown_name,
)
from tasks.mail_connection import Connection, connect

__all__ = [
    "Answer",
    "Delivery",
    "Enclosure",
    "Letter",
    "Mailbox",
    "Mailer",
    "Packed",
    "Packer",
    "deliver",
    "inline_css",
    "message_id",
    "open_mailer",
    "own_people",
    "send_report",
]

Audience = Literal["finance", "engineers", "data_protection"]

# Every letter says that no person typed it, so that no vacation notice answers (RFC 3834; the second for Exchange).
_AUTOMATIC = (("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "OOF, AutoReply"))


def own_people(settings: Settings, audience: Audience) -> tuple[Mailbox, ...]:
    """The mailboxes of one audience as the settings name them; empty where they name none."""
    written = {
        "finance": settings.finance_emails,
        "engineers": settings.engineer_emails,
        "data_protection": settings.data_protection_emails,
    }[audience]
    return tuple(mailbox(part) for part in written.split(",") if part.strip())


# --- from letter to bytes ---------------------------------------------------------------------------------------------


class Packer:
    """Turns letters into bytes for one installation: its sender, its mail mode, its DKIM key. Needs no server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.mode: Mode = "redirect" if settings.mail_mode.startswith("redirect:") else _plain_mode(settings.mail_mode)
        self.sender = _sender(settings)
        self._signer = _signer(settings)

    @cached_property
    def _redirected_to(self) -> Mailbox:
        return mailbox(self.settings.mail_mode.removeprefix("redirect:"))

    def pack(self, letter: Letter) -> Packed:
        """The letter as it will travel in this mail mode.

        Raises:
            BadInput: an address of it cannot be used, or nobody is named.
        """
        to, cc = (tuple(_clean(box) for box in boxes) for boxes in (letter.to, letter.cc))
        if not to:
            raise BadInput("A letter names nobody it is to.", hint="Name at least one recipient.")
        headers = [*_AUTOMATIC, *letter.headers]
        if self.mode == "redirect":
            headers.append(("X-Kontor-Recipient", ", ".join(box.email for box in to)))
            if cc:
                headers.append(("X-Kontor-Cc", ", ".join(box.email for box in cc)))
            to, cc = (self._redirected_to,), ()
        content = self._message(letter, to, cc, headers).as_bytes()
        if self._signer is not None:
            content = self._signer.sign_message_bytes(content)
        return Packed(letter.message_id, tuple(box.email for box in to), tuple(box.email for box in cc), content)

    def _message(
        self, letter: Letter, to: Sequence[Mailbox], cc: Sequence[Mailbox], headers: Sequence[tuple[str, str]]
    ) -> Any:
        threaded = [("In-Reply-To", one) for one in letter.references[-1:]]
        if letter.references:
            threaded.append(("References", " ".join(letter.references)))
        message = Message(
            subject=one_line(letter.subject),
            html=letter.html,
            text=letter.text,
            mail_from=_pair(self.sender),
            mail_to=[_pair(box) for box in to],
            cc=[_pair(box) for box in cc],
            reply_to=[_pair(_clean(letter.reply_to))] if letter.reply_to else None,
            message_id=one_line(letter.message_id),
            date=format_datetime(letter.dated),
            headers={name: one_line(value, 2000) for name, value in [*headers, *threaded]},
        )
        message.after_build = _with_fixed_boundaries
        for file in (*letter.pictures, *letter.attachments):
            message.attach(
                filename=one_line(file.file_name).replace("/", "_"),
                data=file.content,
                mime_type=file.media_type,
                content_id=file.content_id or None,
                content_disposition="inline" if file.content_id else "attachment",
            )
        return message


def _with_fixed_boundaries(message: Any, built: Any) -> None:
    """Give every part of several a boundary that follows from the Message-ID: the same letter is the same bytes.

    Left alone, the standard library draws one and searches the whole text for it, a third of the cost of a message.
    All contents are in base64, in which neither ``_`` nor ``-`` occurs, so no content can hold a boundary.
    """
    name = hashlib.sha256(str(message.message_id).encode()).hexdigest()[:24]
    for place, part in enumerate(part for part in built.walk() if part.is_multipart()):
        part.set_boundary(f"_{name}_{place}_")


def _plain_mode(mode: str) -> Mode:
    return "live" if mode == "live" else "hold"


def _clean(box: Mailbox) -> Mailbox:
    return Mailbox(checked_address(box.email), shown_name(box.name))


def _pair(box: Mailbox) -> tuple[str | None, str]:
    return box.name or None, box.email


def _sender(settings: Settings) -> Mailbox:
    if settings.mail_from is None:
        if settings.mail_mode == "hold":
            return Mailbox("kontor@localhost.localdomain", "Kontor")
        raise UsageError(
            "Mail cannot be sent: nobody is named whom it comes from.",
            hint="Set KONTOR_MAIL_FROM, as in KONTOR_MAIL_FROM='Company <receivables@company.example>'.",
        )
    try:
        return mailbox(settings.mail_from)
    except BadInput as error:
        raise UsageError(f"KONTOR_MAIL_FROM is not a sender: {error.message}", hint="Write Name <address>.") from None


def _signer(settings: Settings) -> Any | None:
    """What signs every message (RFC 6376); None where no key is configured."""
    path = settings.dkim_key_file
    if path is None:
        return None
    if not settings.dkim_selector or not settings.dkim_domain:
        raise UsageError(
            "A DKIM key is set, but not what it is published under.",
            hint="Set KONTOR_DKIM_SELECTOR and KONTOR_DKIM_DOMAIN, or unset KONTOR_DKIM_KEY_FILE.",
        )
    relaxed = (b"relaxed", b"relaxed")
    try:
        return DKIMSigner(settings.dkim_selector, settings.dkim_domain, _private_key(path), canonicalize=relaxed)
    except (DKIMException, ValueError, TypeError) as error:
        raise UsageError(
            f"The DKIM key {path.name} is not a key ({type(error).__name__}).", hint="It must be a private key in PEM."
        ) from None


def _private_key(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(f"Others than its owner may read the DKIM key {path.name}.", hint=f"Run: chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"The DKIM key {path.name} cannot be read: {error.strerror}.", hint="Correct KONTOR_DKIM_KEY_FILE."
        ) from None


# --- sending ----------------------------------------------------------------------------------------------------------


class Mailer(Packer):
    """Hands letters over, one connection for many; made by :func:`open_mailer`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._connection: Connection | None = None

    def connect(self) -> None:
        """Make sure that the server is there, is who it says and lets us in; in mode ``hold`` nothing is asked.

        Raises:
            DependencyDown, Refused, UsageError: as :func:`tasks.mail_connection.connect`; nothing was sent.
        """
        if self.mode != "hold" and self._connection is None:
            self._connection = connect(self.settings)

    def deliver(self, letter: Letter | Packed) -> Delivery:
        """Hand a letter over, or write it as a file in mode ``hold``; what the server says is never an error.

        Raises:
            BadInput: an address of it cannot be used.
            DependencyDown, Refused, UsageError: as :meth:`connect`; then certainly nothing of it was sent.
        """
        packed = letter if isinstance(letter, Packed) else self.pack(letter)
        if self.mode == "hold":
            return self._hold(packed)
        seasoned = self._connection is not None and self._connection.used
        delivery = self._hand_over(packed)
        # A used connection may have died of boredom: as no content travelled, another one is safe.
        if delivery.connection_lost and seasoned and delivery.outcome == "deferred":
            delivery = self._hand_over(packed)
        return delivery

    def _hand_over(self, packed: Packed) -> Delivery:
        self._connection = self._connection or connect(self.settings)
        answers, usable = self._connection.hand_over(self.sender.email, packed)
        if not usable:
            self._connection.drop()
            self._connection = None
        outcome = _outcome_for(answers[: len(packed.to)])
        return Delivery(packed.message_id, self.mode, outcome, answers, connection_lost=not usable)

    def _hold(self, packed: Packed) -> Delivery:
        name = re.sub(r"[^A-Za-z0-9.@-]+", "_", packed.message_id.strip("<>"))
        path = _write_privately(self.settings.home / "outbox" / "held", f"{name}.eml", packed.content)
        answers = tuple(Answer(one, None, "written as a file, not sent", "held") for one in (*packed.to, *packed.cc))
        return Delivery(packed.message_id, "hold", "held", answers, path)

    def close(self) -> None:
        """Say goodbye to the server."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def open_mailer(settings: Settings) -> Iterator[Mailer]:
    """A mailer for a ``with`` block; UsageError where the settings do not allow to send."""
    mailer = Mailer(settings)
    try:
        yield mailer
    finally:
        mailer.close()


def deliver(settings: Settings, letter: Letter) -> Delivery:
    """Hand one letter over and return what became of it; see :meth:`Mailer.deliver`."""
    with open_mailer(settings) as mailer:
        return mailer.deliver(letter)


def send_report(settings: Settings, letter: Letter) -> Delivery:
    """Send a letter to our own people in the mail mode in force, and return what became of it.

    Raises:
        BadInput, DependencyDown, Refused, UsageError: as :meth:`Mailer.deliver`.
    """
    return deliver(settings, letter)


def _outcome_for(answers: Sequence[Answer]) -> Outcome:
    """One word for several people: what is not known weighs most, then that somebody has it."""
    outcomes = {answer.outcome for answer in answers}
    order: tuple[Outcome, ...] = ("unknown", "sent", "deferred", "refused")
    return next(outcome for outcome in order if outcome in outcomes)


def _write_privately(folder: Path, name: str, content: bytes) -> Path:
    """Write a file that only its owner may read, whole or not at all; one of the same name is replaced."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = folder / f".{name}.{os.getpid()}.part"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        return partial.replace(folder / name)
    except OSError as error:
        raise DependencyDown(
            f"A mail cannot be written under {folder}: {error.strerror}.",
            hint="Free space or correct the rights there.",
        ) from error


def inline_css(html: str) -> str:
    """The HTML with its ``<style>`` rules written into the elements they speak of, as mail programs want it.

    Rules that depend on the screen stay where they are. Nothing is fetched.
    """
    message = Message(html=html)
    message.create_transformer(method="html")
    message.transform(
        load_images=False,
        remove_unsafe_tags=False,
        set_content_type_meta=False,
        disable_validation=True,
        strip_important=False,
    )
    return f"<!DOCTYPE html>\n{message.html}"
