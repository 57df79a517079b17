"""One letter, one server that misbehaves: what is known afterwards is what happened, and nothing is sent twice."""

from __future__ import annotations

import stat
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from configs.settings import Settings
from tasks.errors import DependencyDown, KontorError, Refused, UsageError
from tasks.letters import Enclosure, Mailbox
from tasks.mailer import Packer, deliver, open_mailer
from tests.smtp_server import TAKING, Behaviour, faulty_server, self_signed
from tests.unit.mailer.test_addresses_and_headers import letter, parsed

OUTCOMES = {
    Behaviour.TAKE: "sent",
    Behaviour.LATE: "sent",
    Behaviour.BUSY: "deferred",
    Behaviour.DROP_AT_MAIL: "deferred",
    Behaviour.REFUSE_SENDER: "refused",
    Behaviour.REFUSE: "refused",
    Behaviour.DEFER: "deferred",
    Behaviour.GARBAGE_AT_RCPT: "deferred",
    Behaviour.DROP_AT_DATA: "deferred",
    Behaviour.DEFER_AT_DATA: "deferred",
    Behaviour.DROP_IN_CONTENT: "unknown",
    Behaviour.REFUSE_CONTENT: "refused",
    Behaviour.DEFER_CONTENT: "deferred",
    Behaviour.DROP_AFTER_CONTENT: "unknown",
    Behaviour.STALL_AFTER_CONTENT: "unknown",
    Behaviour.GARBAGE_AFTER_CONTENT: "unknown",
}


def live(url: str, **more: object) -> Settings:
    """Settings that send to this server; time-outs are short because the loopback is quick."""
    given: dict[str, object] = {
        "mail_mode": "live",
        "mail_from": "Company <office@kontor.example>",
        "smtp_url": SecretStr(url),
        "smtp_timeout_seconds": 2,
        "smtp_answer_timeout_seconds": 1,
    }
    return Settings(**{**given, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("behaviour", list(Behaviour))
def test_each_fault_has_its_outcome_and_none_delivers_twice(behaviour: Behaviour) -> None:
    """Refused is refused, busy is deferred, silence after the content is unknown; the server has it once at most."""
    with faulty_server() as server:
        server.play(behaviour)
        delivery = deliver(live(server.plain_url), letter())
        assert delivery.outcome == OUTCOMES[behaviour]
        assert len(server.taken) == (behaviour in TAKING)
        assert [answer.outcome for answer in delivery.answers] == [delivery.outcome]
        if delivery.outcome == "sent":
            assert delivery.answers[0].code == 250


@pytest.mark.parametrize("behaviour", list(Behaviour))
def test_the_letters_after_a_fault_are_sent(behaviour: Behaviour) -> None:
    """Whatever a server does to the second of three letters on one connection, first and third arrive, each once."""
    with faulty_server() as server:
        server.play(Behaviour.TAKE, behaviour)
        with open_mailer(live(server.plain_url)) as mailer:
            outcomes = [mailer.deliver(letter(message_id=f"<{n}@kontor.example>")).outcome for n in (1, 2, 3)]
        # A connection that died before any content of the second is made again, which is no second delivery.
        again = behaviour in (Behaviour.BUSY, Behaviour.DROP_AT_MAIL, Behaviour.DROP_AT_DATA, Behaviour.GARBAGE_AT_RCPT)
        assert outcomes == ["sent", "sent" if again else OUTCOMES[behaviour], "sent"]
        ids = server.ids()
        assert len(ids) == len(set(ids))
        assert {"<1@kontor.example>", "<3@kontor.example>"} <= set(ids)


def test_many_letters_share_one_connection() -> None:
    """A run does not call the server anew for every letter."""
    with faulty_server() as server, open_mailer(live(server.plain_url)) as mailer:
        for number in range(20):
            assert mailer.deliver(letter(message_id=f"<{number}@kontor.example>")).outcome == "sent"
        assert server.conversations == 1
        assert len(server.taken) == 20


def test_every_recipient_has_an_answer_of_their_own() -> None:
    """A copy that is refused does not hide that the letter arrived; a refused recipient leaves no copy alone."""
    boxes = (Mailbox("owner@kontor.example"),)
    with faulty_server() as server:
        server.refused_addresses = {"owner@kontor.example"}
        delivery = deliver(live(server.plain_url), letter(cc=boxes))
        assert [(a.email, a.code, a.outcome) for a in delivery.answers] == [
            ("anna@customer.example", 250, "sent"),
            ("owner@kontor.example", 550, "refused"),
        ]
        assert server.taken[0].recipients == ("anna@customer.example",)
        server.refused_addresses = {"anna@customer.example"}
        delivery = deliver(live(server.plain_url), letter(cc=boxes))
        assert delivery.outcome == "refused"
        assert [answer.outcome for answer in delivery.answers] == ["refused", "refused"]
        assert len(server.taken) == 1


def test_held_mail_is_a_private_file_that_can_be_read(tmp_path: Path) -> None:
    """In mode hold nothing is sent: the message lies in a file that only its owner reads, also after a second try."""
    settings = Settings(home=tmp_path)
    first, second = deliver(settings, letter()), deliver(settings, letter())
    assert first.outcome == "held"
    assert first.eml_path is not None
    assert first.eml_path == second.eml_path
    assert [path.name for path in (tmp_path / "outbox" / "held").iterdir()] == ["reminder.1@kontor.example.eml"]
    assert stat.S_IMODE(first.eml_path.stat().st_mode) == 0o600
    assert b"To: Anna <anna@customer.example>" in first.eml_path.read_bytes()


def test_redirected_mail_goes_to_one_address_and_names_the_true_one() -> None:
    """In mode redirect neither the envelope nor To or Cc holds a customer's address; a header does."""
    with faulty_server() as server:
        settings = live(server.plain_url, mail_mode="redirect:tester@kontor.example")
        delivery = deliver(settings, letter(cc=(Mailbox("owner@kontor.example"),)))
        assert (delivery.mode, delivery.outcome) == ("redirect", "sent")
        [taken] = server.taken
        assert taken.recipients == ("tester@kontor.example",)
        assert taken.message["To"] == "tester@kontor.example"
        assert taken.message["Cc"] is None
        assert taken.message["X-Kontor-Recipient"] == "anna@customer.example"
        assert taken.message["X-Kontor-Cc"] == "owner@kontor.example"


@pytest.mark.parametrize("implicit", [False, True])
def test_a_server_proves_who_it_is(tmp_path: Path, implicit: bool) -> None:
    """A certificate of an unknown authority, of another name or out of date stops all; the right one encrypts."""
    good, good_key = self_signed(tmp_path)
    other, other_key = self_signed(tmp_path, name="elsewhere.example")
    (tmp_path / "old").mkdir()
    old, old_key = self_signed(tmp_path / "old", days=-1)
    scheme = "smtps" if implicit else "smtp"
    for certificate, key, trusted in ((good, good_key, None), (other, other_key, other), (old, old_key, old)):
        with faulty_server(certificate=certificate, key=key, implicit=implicit) as server:
            with pytest.raises(Refused, match="certificate cannot be trusted"):
                deliver(live(f"{scheme}://localhost:{server.port}", smtp_ca_file=trusted), letter())
            assert server.taken == []
    with faulty_server(certificate=good, key=good_key, implicit=implicit) as server:
        delivery = deliver(live(f"{scheme}://localhost:{server.port}", smtp_ca_file=good), letter())
        assert delivery.outcome == "sent"
        assert server.encrypted == [True]


def test_a_server_without_encryption_is_refused_unless_the_setting_says_so() -> None:
    """STARTTLS that is not offered is not done without."""
    with faulty_server() as server:
        with pytest.raises(Refused, match="no encryption"):
            deliver(live(f"smtp://127.0.0.1:{server.port}"), letter())
        assert server.taken == []


def test_no_server_and_no_greeting_are_errors_before_anything_is_sent() -> None:
    """An absent server and one that greets with garbage are dependencies that are down, worth another try."""
    with faulty_server() as server:
        url = server.plain_url
        for greeting in ("554 no service", "hello there"):
            server.greeting = greeting
            with pytest.raises(DependencyDown, match="cannot be reached"):
                deliver(live(url), letter())
    with pytest.raises(DependencyDown, match="cannot be reached"):
        deliver(live(url), letter())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://mail.example", "not the address of a mail server"),
        ("smtp://mail.example:99999", "not the address of a mail server"),
        ("smtp://user:secret@mail.example?tls=none", "password without encryption"),
        ("smtps://mail.example?verify=no", "not the address of a mail server"),
    ],
)
def test_settings_that_cannot_work_are_refused_without_their_password(url: str, said: str) -> None:
    """The refusal says what to write and never shows the password."""
    with pytest.raises(UsageError, match=said) as refusal:
        deliver(live(url), letter())
    assert "secret" not in f"{refusal.value.message}{refusal.value.hint}"
    with pytest.raises(UsageError, match="needs a mail server"):
        deliver(Settings(mail_mode="live", mail_from="a@kontor.example"), letter())
    with pytest.raises(UsageError, match="nobody is named"):
        Packer(Settings(mail_mode="live"))


def test_messages_are_signed_with_the_configured_key(tmp_path: Path) -> None:
    """With a DKIM key every message carries a signature that holds; a key that others may read is refused."""
    private = rsa.generate_private_key(65537, 1024)
    key = tmp_path / "dkim.pem"
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; k=rsa; p=" + b"".join(public.splitlines()[1:-1])
    settings = Settings(
        mail_from="Фирма <office@kontor.example>", dkim_key_file=key, dkim_selector="k1", dkim_domain="kontor.example"
    )
    key.chmod(0o640)
    with pytest.raises(UsageError, match="may read the DKIM key"):
        Packer(settings)
    key.chmod(0o600)
    content = Packer(settings).pack(letter(subject="Напомняне №5", text="Уважаеми")).content
    assert dkim.verify(content, dnsfunc=lambda *_args, **_more: record)
    assert not dkim.verify(content.replace(b"anna@", b"hans@"), dnsfunc=lambda *_args, **_more: record)
    key.write_text("no key")
    with pytest.raises(UsageError, match="is not a key"):
        Packer(settings)


def test_pictures_are_shown_inside_and_files_are_attached() -> None:
    """A picture is found by its content id, an attachment by its name, also one with letters beyond ASCII."""
    message = parsed(
        letter(
            html='<img src="cid:chart">',
            pictures=(Enclosure("chart.png", b"\x89PNG", "image/png", "chart"),),
            attachments=(Enclosure("извлечение.xlsx", b"PK", "application/vnd.ms-excel"),),
        )
    )
    files = [
        (part["Content-ID"], part.get_content_disposition(), part.get_filename())
        for part in message.walk()
        if part.get_filename()
    ]
    assert files == [("<chart>", "inline", "chart.png"), (None, "attachment", "извлечение.xlsx")]


def test_a_content_that_ends_oddly_arrives_as_it_was_packed() -> None:
    """Lines that begin with a dot, and a text without a last line break, come through the protocol unharmed."""
    with faulty_server() as server:
        settings = live(server.plain_url)
        packed = Packer(settings).pack(letter(text=".\r\n..\r\nend", html=None))
        with open_mailer(settings) as mailer:
            assert mailer.deliver(packed).outcome == "sent"
        assert server.taken[0].content == packed.content.removesuffix(b"\r\n") + b"\r\n"


def test_errors_of_the_mailer_are_ours() -> None:
    """Whatever goes wrong with a server ends as an error with a hint."""
    with pytest.raises(KontorError) as error:
        deliver(live("smtps://127.0.0.1:1"), letter())
    assert error.value.hint
