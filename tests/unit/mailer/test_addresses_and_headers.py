"""What people and companies are called never becomes a header, and only plain addresses are written to."""

from __future__ import annotations

import email
import json
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.settings import Settings
from tasks.errors import BadInput
from tasks.letters import Letter, Mailbox, checked_address, mailbox, message_id, one_line, shown_name
from tasks.mailer import Packer
from tests.conftest import CAMPAIGN_FACTOR

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)
SETTINGS = Settings(mail_from="Контор & Co. <office@kontor.example>")


def letter(**changed: object) -> Letter:
    """A letter to one person, changed as a test needs it."""
    given: dict[str, object] = {
        "to": (Mailbox("anna@customer.example", "Anna"),),
        "subject": "Reminder",
        "text": "Dear Anna",
        "html": "<p>Dear Anna</p>",
        "message_id": "<reminder.1@kontor.example>",
        "dated": NOON,
    }
    return Letter(**{**given, **changed})  # type: ignore[arg-type]


def parsed(chosen: Letter, settings: Settings = SETTINGS) -> EmailMessage:
    """The letter as a mail program reads it."""
    return email.message_from_bytes(Packer(settings).pack(chosen).content, policy=policy.default)


@pytest.mark.parametrize("name", ["Anna", "Иван Петров", "Müller & Söhne GmbH (Berlin)", 'O"Neil, Ltd. <x@y.example>'])
def test_a_name_is_shown_and_the_address_stays_the_only_one(name: str) -> None:
    """Whatever the name holds, the header names exactly the address that the letter is to."""
    message = parsed(letter(to=(Mailbox("anna@customer.example", name),)))
    addresses = message["To"].addresses
    assert [one.addr_spec for one in addresses] == ["anna@customer.example"]
    assert addresses[0].display_name == shown_name(name)
    assert [one.addr_spec for one in message["From"].addresses] == ["office@kontor.example"]


@settings(max_examples=40 * CAMPAIGN_FACTOR)
@given(st.text(max_size=120), st.text(max_size=300))
def test_no_text_adds_a_header_or_a_recipient(name: str, subject: str) -> None:
    """Line breaks, commas, quotes and control characters in a name or subject add no line to the head of a message."""
    plain = parsed(letter())
    odd = parsed(letter(to=(Mailbox("anna@customer.example", name),), subject=subject))
    assert odd.keys() == plain.keys()
    assert [one.addr_spec for one in odd["To"].addresses] == ["anna@customer.example"]
    assert odd["Message-ID"] == plain["Message-ID"]


def test_the_naughty_strings_arrive_as_text(real_data: Path) -> None:
    """Each of the 515 strings known to break programs is shown in the subject and body and does nothing else."""
    naughty = json.loads((real_data / "addresses" / "names" / "blns.json").read_text("utf-8"))
    assert len(naughty) == 515
    keys = parsed(letter()).keys()
    for text in naughty:
        message = parsed(letter(subject=text, text=f"begin {text} end", to=(Mailbox("a@customer.example", text),)))
        assert message.keys() == keys
        assert [one.addr_spec for one in message["To"].addresses] == ["a@customer.example"]
        body = message.get_body(("plain",))
        assert body is not None
        assert "".join(body.get_content().split()) == "".join(f"begin {text} end".split())


def test_addresses_known_to_trap_parsers_never_crash(real_data: Path) -> None:
    """Of the isemail cases every plainly valid one is taken as it is or refused in words; none lets a line break in."""
    tree = ElementTree.parse(real_data / "addresses" / "isemail_tests.xml")
    cases = [
        (
            "".join(
                chr(ord(sign) - 0x2400) if 0x2400 <= ord(sign) < 0x2421 else sign
                for sign in node.findtext("address") or ""
            ),
            node.findtext("category"),
        )
        for node in tree.iter("test")
    ]
    assert len(cases) == 164
    must_refuse = 0
    for address, category in cases:
        try:
            kept = checked_address(address)
        except BadInput:
            must_refuse += category == "ISEMAIL_ERR"
            continue
        assert category != "ISEMAIL_ERR", address
        assert kept.isascii()
        assert kept.isprintable()
    assert must_refuse == 66


def test_mailboxes_known_as_valid_and_invalid(real_data: Path) -> None:
    """Every mailbox that is taken is plain; of the invalid ones none gets through."""
    folder = real_data / "addresses"
    valid, invalid = (
        [
            line
            for line in (folder / f"flanker_mailbox_{kind}.txt").read_text("utf-8").splitlines()
            if line and not line.startswith("#")
        ]
        for kind in ("valid", "invalid")
    )
    assert (len(valid), len(invalid)) == (151, 89)
    taken = []
    for written in valid + invalid:
        try:
            taken.append((mailbox(written), written in invalid))
        except BadInput:
            continue
    assert len(taken) > 40
    assert all(box.email.isascii() and box.email.isprintable() and " " not in box.email for box, _ in taken)


def test_an_address_is_refused_in_words_that_do_not_quote_it() -> None:
    """The refusal names the reason; the address itself stays out of logs."""
    with pytest.raises(BadInput) as refusal:
        checked_address("no.one@@customer.example")
    assert "no.one" not in refusal.value.message


def test_international_domains_travel_in_ascii() -> None:
    """A Bulgarian or Swedish domain is written in its ASCII form; a mailbox name outside ASCII is refused."""
    assert checked_address("info@räksmörgås.se") == "info@xn--rksmrgs-5wao1o.se"
    with pytest.raises(BadInput):
        checked_address("иван@customer.example")


def test_the_message_id_depends_on_its_parts_alone() -> None:
    """The same reminder always has the same id, two different ones never."""
    sender = "Company <office@kontor.example>"
    assert message_id(sender, "reminder", 12, "first") == message_id(sender, "reminder", 12, "first")
    assert message_id(sender, "reminder", 1, 23) != message_id(sender, "reminder", 12, 3)
    assert message_id(sender, "a b\r\nBcc: x").endswith("@kontor.example>")
    assert "\n" not in message_id(sender, "a b\r\nBcc: x")


def test_the_same_letter_is_the_same_bytes() -> None:
    """Packing again gives the same message, another Message-ID another one; every content is in base64."""
    first, second = (Packer(SETTINGS).pack(letter(text="--_", html="<p>--_</p>")).content for _ in range(2))
    assert first == second
    assert first != Packer(SETTINGS).pack(letter(text="--_", message_id="<other@kontor.example>")).content
    message = parsed(letter())
    contents = [part for part in message.walk() if not part.is_multipart()]
    assert {part["Content-Transfer-Encoding"] for part in contents} == {"base64"}


def test_one_line_keeps_letters_of_every_script() -> None:
    """Only what cannot be seen is taken out."""
    assert one_line("Напомняне\r\nBcc: x\u202e  №5\x00") == "Напомняне Bcc: x №5"


def test_a_letter_says_that_no_person_typed_it_and_which_thread_it_belongs_to() -> None:
    """Vacation notices are not provoked, and mail programs show the reminder below the earlier one."""
    message = parsed(
        letter(references=("<1@x.example>", "<2@x.example>"), headers=(("List-Unsubscribe", "<mailto:a@b.example>"),))
    )
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["In-Reply-To"] == "<2@x.example>"
    assert message["References"] == "<1@x.example> <2@x.example>"
    assert message["List-Unsubscribe"] == "<mailto:a@b.example>"
    assert message["Date"].datetime == NOON
    assert [part.get_content_type() for part in message.walk() if not part.is_multipart()] == [
        "text/plain",
        "text/html",
    ]
