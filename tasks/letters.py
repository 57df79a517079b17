"""What a letter is, what a server answered to it, and which texts may stand in its headers. Sends nothing.

Values only: :mod:`tasks.mailer` makes bytes of letters and hands them over.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from email.utils import parseaddr
from pathlib import Path
from typing import Literal

from email_validator import EmailNotValidError, validate_email

from tasks.errors import BadInput

Outcome = Literal["held", "sent", "refused", "deferred", "unknown"]
Mode = Literal["hold", "redirect", "live"]

_LONGEST_NAME = 60
_LONGEST_SUBJECT = 200


@dataclass(frozen=True)
class Mailbox:
    """Whom a letter is to or from: an address, and a name to show beside it."""

    email: str
    name: str = ""


@dataclass(frozen=True)
class Enclosure:
    """A file that travels with a letter; with ``content_id`` it is a picture that the HTML shows as ``cid:…``."""

    file_name: str
    content: bytes
    media_type: str
    content_id: str = ""


@dataclass(frozen=True)
class Letter:
    """One message, complete: rendering it again gives the same message.

    ``dated`` is the day and time it bears, with a zone. ``headers`` are further ones, such as List-Unsubscribe.
    ``references`` are the Message-IDs of the thread, oldest first; the last is what it replies to.
    """

    to: tuple[Mailbox, ...]
    subject: str
    text: str
    message_id: str
    dated: datetime
    html: str | None = None
    cc: tuple[Mailbox, ...] = ()
    reply_to: Mailbox | None = None
    references: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    pictures: tuple[Enclosure, ...] = ()
    attachments: tuple[Enclosure, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the server said for one recipient; ``code`` is None where it said nothing that could be read."""

    email: str
    code: int | None
    text: str
    outcome: Outcome


@dataclass(frozen=True)
class Delivery:
    """What became of a letter: the outcome for the person it is to, and the answer for every recipient."""

    message_id: str
    mode: Mode
    outcome: Outcome
    answers: tuple[Answer, ...]
    eml_path: Path | None = None
    connection_lost: bool = False


@dataclass(frozen=True)
class Packed:
    """A letter as the bytes that travel, with its envelope: made in advance, handed over later."""

    message_id: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    content: bytes

    def as_bytes(self) -> bytes:
        """The message as it travels; the library asks for it by this name."""
        return self.content


def message_id(domain_of: str, *parts: object) -> str:
    """The Message-ID of the thing that ``parts`` name: always the same for the same parts and sender.

    ``domain_of`` is the sender, as in ``Company <office@company.example>``. It is short, because a header that must
    be folded puts a space before the id, and some mail servers keep it.
    """
    name = ".".join(str(part) for part in parts)
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:16].strip(".-")
    return f"<{readable}.{digest}@{checked_address(parseaddr(domain_of)[1]).rpartition('@')[2]}>"


def one_line(value: str, longest: int = _LONGEST_SUBJECT) -> str:
    """The text on one line without control characters or marks that turn the direction of reading."""
    kept = "".join(" " if unicodedata.category(sign) in _UNSEEN else sign for sign in value)
    return " ".join(kept.split())[:longest].rstrip()


_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def shown_name(name: str) -> str:
    """A person's or company's name as it may stand beside an address: no quotes, brackets or other address syntax."""
    return one_line(re.sub(r'[\\"<>@,;:()\[\]]+', " ", name), _LONGEST_NAME)


def checked_address(address: str) -> str:
    """The address as it travels: plain, with the domain in ASCII letters. No name service is asked.

    Raises:
        BadInput: it is not an address that mail can be sent to; the text says why and does not quote it.
    """
    try:
        found = validate_email(
            address, check_deliverability=False, allow_smtputf8=False, allow_quoted_local=False, test_environment=True
        )
    except (EmailNotValidError, UnicodeError) as error:
        reason = one_line(str(error).replace(address, "it")) if len(address) > 3 else "it is too short"
        raise BadInput(f"An address cannot be used: {reason}", hint="Correct it where it is kept.") from None
    return found.ascii_email or found.normalized


def mailbox(written: str) -> Mailbox:
    """A mailbox from ``Name <address>`` or a bare address; BadInput where there is no usable address."""
    name, address = parseaddr(written)
    return Mailbox(checked_address(address), shown_name(name))
