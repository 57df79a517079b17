"""Returned messages: which mail, for good or for now, and nothing else taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.reminders.sending.bounces import parse_bounce
from tests.conftest import CAMPAIGN_FACTOR

OURS = "<reminder.7.0123456789abcdef@kontor.example>"

REPORT = """Return-Path: <>
From: MAILER-DAEMON@mx.example (Mail Delivery System)
To: office@kontor.example
Subject: Undelivered Mail Returned to Sender
Message-ID: <bounce.1@mx.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

Final-Recipient: rfc822; anna@customer.example
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {code} {status} <anna@customer.example>: no such
    mailbox here

--b
Content-Type: {returned}

From: office@kontor.example
Message-ID: {ours}
Subject: Payment reminder

--b--
"""

PROSE = """Return-Path: <>
From: postmaster@old.example
To: office@kontor.example
Subject: failure notice

Hi. This is the mail program at old.example. This is a permanent error.
<anna@customer.example>: 550 Requested action not taken: mailbox unavailable

--- Below this line is a copy of the message.

Message-ID: {ours}
"""

AWAY = """From: anna@customer.example
To: office@kontor.example
Subject: Out of office
Auto-Submitted: auto-replied
In-Reply-To: {ours}

I am away until 5.3.2026. Call 550 123.
"""


@pytest.mark.parametrize("returned", ["message/rfc822", "text/rfc822-headers"])
@pytest.mark.parametrize(("action", "status", "kind"), [("failed", "5.1.1", "hard"), ("delayed", "4.4.1", "soft")])
def test_a_report_says_which_mail_and_for_how_long(returned: str, action: str, status: str, kind: str) -> None:
    """Status 5 is for good, 4 is for now; the id is that of the returned mail, not of the report."""
    code = "550" if kind == "hard" else "421"
    text = REPORT.format(action=action, status=status, code=code, returned=returned, ours=OURS)
    bounce = parse_bounce(text.replace("\n", "\r\n").encode())
    assert bounce is not None
    assert (bounce.kind, bounce.status, bounce.message_ids) == (kind, status, (OURS,))
    assert "no such mailbox here" in bounce.said


def test_prose_of_an_old_server_is_understood() -> None:
    """Without a report, the reply code and our Message-ID in the text are enough."""
    bounce = parse_bounce(PROSE.format(ours=OURS).encode())
    assert bounce is not None
    assert (bounce.kind, bounce.status) == ("hard", "5.0.0")
    assert OURS in bounce.message_ids


@pytest.mark.parametrize(
    "text",
    [
        AWAY.format(ours=OURS),
        PROSE.format(ours=OURS).replace("550 Requested action not taken: ", ""),
        "Subject: hello\n\nno bounce at all, status 5.1.1",
        "",
    ],
)
def test_what_is_no_bounce_is_taken_for_none(text: str) -> None:
    """Notices of absence, letters, bounces of somebody else's mail."""
    assert parse_bounce(text.encode()) is None


@settings(max_examples=60 * CAMPAIGN_FACTOR)
@given(st.binary(max_size=300), st.integers(0, 1200))
def test_nothing_that_arrives_makes_it_stumble(noise: bytes, place: int) -> None:
    """Whatever stands in a message, it is a bounce or it is none."""
    whole = REPORT.format(action="failed", status="5.1.1", code=550, returned="message/rfc822", ours=OURS).encode()
    for content in (noise, whole[:place] + noise + whole[place:], whole[:place]):
        found = parse_bounce(content)
        assert found is None or found.kind in ("hard", "soft")


def test_files_of_hostile_mail_never_crash_it(real_data: Path) -> None:
    """Any bytes at all may lie in the maildir, workbooks and broken encodings among them."""
    files = [path for path in sorted((real_data / "spreadsheets").rglob("*")) if path.is_file()][:40]
    assert files
    assert [parse_bounce(path.read_bytes()[:200_000]) for path in files] == [None] * len(files)
