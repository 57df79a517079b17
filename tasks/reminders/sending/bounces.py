"""What a returned message says: which mail it was, whether it will ever arrive, and in whose words. Pure.

Servers report in the form of RFC 3464 (``multipart/report``); old ones write prose, of which the status (RFC 3463) and
our Message-ID are looked for. Status 5 is for good, 4 is for now. Notices that somebody is away are no bounces.
"""

from __future__ import annotations

import email
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import policy
from email.errors import MessageError
from email.message import Message
from typing import Literal

from tasks.letters import one_line

_STATUS = re.compile(r"\b([245])\.\d{1,3}\.\d{1,3}\b")
_CODE = re.compile(r"\b([45])\d\d\b")
_MESSAGE_ID = re.compile(r"<[^<>\s@]{1,200}@[^<>\s@]{1,200}>")
_LONGEST_READ = 1_000_000  # a bounce is small; whoever sends more is not heard to the end


@dataclass(frozen=True)
class Bounce:
    """A returned message: ``hard`` will never arrive, ``soft`` may yet; ``message_ids`` are the ones it speaks of.

    ``fingerprint`` tells one bounce from another, also when the same one is read twice.
    """

    kind: Literal["hard", "soft"]
    message_ids: tuple[str, ...]
    status: str
    said: str
    fingerprint: str


def parse_bounce(content: bytes) -> Bounce | None:
    """The bounce that these bytes are; None for anything else, readable or not."""
    try:
        message = email.message_from_bytes(content[:_LONGEST_READ], policy=policy.compat32)
        report = _delivery_status(message)
        if report is None and not _looks_like_one(message):
            return None
        text = report if report is not None else _plain_text(message)
        ids = tuple(dict.fromkeys(_message_ids(message)))
    except (MessageError, ValueError, LookupError, TypeError, AttributeError):
        return None  # the library stumbles over some malformed messages; they are nobody's bounce
    status = _status(text)
    if status[:1] not in ("4", "5") or not ids:
        return None
    fingerprint = hashlib.sha256(content).hexdigest()[:16]
    return Bounce("hard" if status[0] == "5" else "soft", ids, status, one_line(_diagnostic(text), 200), fingerprint)


def _delivery_status(message: Message) -> str | None:
    """The machine-readable part, as text."""
    for part in message.walk():
        if part.get_content_type() == "message/delivery-status":
            payload = part.get_payload()
            blocks = payload if isinstance(payload, list) else [payload]
            return "\n".join(str(block) for block in blocks)
    return None


def _looks_like_one(message: Message) -> bool:
    """From the mail system itself: an empty return path or its usual names, and no automatic answer of a person."""
    if str(message.get("Auto-Submitted", "")).lower().startswith("auto-replied"):
        return False
    sender = str(message.get("From", "")).lower()
    return str(message.get("Return-Path", "")).strip() == "<>" or "mailer-daemon" in sender or "postmaster" in sender


def _plain_text(message: Message) -> str:
    return "\n".join(_text_of(part) for part in message.walk() if part.get_content_type() == "text/plain")


def _text_of(part: Message) -> str:
    raw = part.get_payload(decode=True)
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else ""


def _message_ids(message: Message) -> Iterator[str]:
    """The ids of the mail that came back: of the returned message or its headers, else anything that looks like one."""
    for part in message.walk():
        kind = part.get_content_type()
        if kind == "text/rfc822-headers":
            yield from _MESSAGE_ID.findall(" ".join(re.findall(r"(?im)^message-id:\s*(\S+)", _text_of(part))))
        elif part is not message and part.get("Message-ID"):
            yield from _MESSAGE_ID.findall(str(part["Message-ID"]))
    for name in ("In-Reply-To", "References"):
        yield from _MESSAGE_ID.findall(str(message.get(name, "")))
    yield from _MESSAGE_ID.findall(_plain_text(message))


def _status(text: str) -> str:
    """``5.1.1`` of a Status line before one in prose, else the reply code as ``5.0.0``; empty where nothing is said."""
    lines = re.findall(r"(?im)^status:\s*([245]\.\d{1,3}\.\d{1,3})", text)
    if lines:
        return str(max(lines, key=lambda line: str(line).startswith("5")))
    found = _STATUS.search(text)
    if found:
        return found.group()
    code = _CODE.search(text)
    return f"{code.group(1)}.0.0" if code else ""


def _diagnostic(text: str) -> str:
    found = re.search(r"(?im)^diagnostic-code:\s*(?:smtp;)?\s*(.+(?:\n[ \t].+)*)", text)
    return str(found.group(1)) if found else text
