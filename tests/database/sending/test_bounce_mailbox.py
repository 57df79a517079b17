"""Returned mail by IMAP: read once, verified, and nothing in the mailbox touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from configs.settings import Settings
from tasks.database import FLOWS, engine_for
from tasks.errors import DependencyDown, KontorError, Refused, UsageError
from tasks.reminders.sending.bounce_store import take_in_returned
from tests.database.sending.test_bounced import report, sent_queue
from tests.imap_server import PASSWORD, USER, Mailbox, imap_server
from tests.outbox import clock
from tests.smtp_server import self_signed
from tests.unit.sending.test_bounces import AWAY


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    return self_signed(tmp_path_factory.mktemp("imap"))


@pytest.fixture
def box(pem: tuple[Path, Path]) -> Iterator[Mailbox]:
    """An empty mailbox."""
    with imap_server(*pem) as opened:
        yield opened


def read_from(settings: Settings, box: Mailbox, pem: tuple[Path, Path], tmp_path: Path, **more: object) -> Settings:
    """Settings that read this mailbox, with the password in a file."""
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text(f"{PASSWORD}\n", "utf-8")
    changes = {
        "bounces": tmp_path / "none",
        "bounces_url": SecretStr(f"imaps://{quote(USER)}@localhost:{box.port}/Returned%20Mail"),
        "bounces_password_file": secret,
        "bounces_ca_file": pem[0],
    }
    return settings.model_copy(update={**changes, **more})


def engine_of(settings: Settings) -> Engine:
    """The engine that flows use."""
    return engine_for(settings, FLOWS)


def test_a_mailbox_is_read_once_and_left_as_it_is(
    kontor_settings: Settings, box: Mailbox, pem: tuple[Path, Path], tmp_path: Path
) -> None:
    """Each message counts once; only what came since is asked for; no command could change the mailbox."""
    queue, chosen = sent_queue(kontor_settings, 3), read_from(kontor_settings, box, pem, tmp_path)
    engine = engine_of(chosen)
    assert take_in_returned(engine, chosen, clock()) == {}
    box.deliver(report(1, "5.1.1"))
    box.deliver(AWAY.format(ours="<reminder.2@kontor.example>"))
    assert take_in_returned(engine, chosen, clock()) == {"hard": 1, "other": 1}
    assert take_in_returned(engine, chosen, clock()) == {}
    last = box.deliver(report(3, "4.2.2"))
    assert take_in_returned(engine, chosen, clock()) == {"soft": 1}
    assert queue.states() == {"bounced": 1, "sent": 2}
    assert queue.rows("select uid_validity, last_uid from outbox.bounce_mailboxes") == [
        {"uid_validity": 7, "last_uid": last}
    ]
    fetched = [line for line in box.commands() if "FETCH" in line]
    assert len(fetched) == 3
    assert {line.split()[0] for line in box.commands()} == {"CAPABILITY", "AUTHENTICATE", "EXAMINE", "UID", "LOGOUT"}


def test_a_mailbox_made_anew_is_read_again_and_counts_nothing_twice(
    kontor_settings: Settings, box: Mailbox, pem: tuple[Path, Path], tmp_path: Path
) -> None:
    """Under another UIDVALIDITY numbers mean other messages: all are read, and the known ones are known."""
    queue, chosen = sent_queue(kontor_settings, 1), read_from(kontor_settings, box, pem, tmp_path)
    box.deliver(report(1, "4.2.2"))
    assert take_in_returned(engine_of(chosen), chosen, clock()) == {"soft": 1}
    box.validity, box.messages = 8, {1: next(iter(box.messages.values()))}
    assert take_in_returned(engine_of(chosen), chosen, clock()) == {"known": 1}
    assert queue.rows("select count from outbox.suppressions") == [{"count": 1}]


def test_a_connection_that_breaks_loses_nothing(
    kontor_settings: Settings, box: Mailbox, pem: tuple[Path, Path], tmp_path: Path
) -> None:
    """What was not taken in when the server hung up is taken in next time."""
    queue, chosen = sent_queue(kontor_settings, 1), read_from(kontor_settings, box, pem, tmp_path)
    box.hang_up_at = f"UID FETCH {box.deliver(report(1, '5.1.1'))}"
    with pytest.raises(DependencyDown):
        take_in_returned(engine_of(chosen), chosen, clock())
    assert queue.states() == {"sent": 1}
    box.hang_up_at = ""
    assert take_in_returned(engine_of(chosen), chosen, clock()) == {"hard": 1}


@pytest.mark.parametrize("ends_in", [1, -1])
def test_starttls_comes_before_the_password_and_is_verified(prepared: Settings, tmp_path: Path, ends_in: int) -> None:
    """By STARTTLS nothing but the greeting is in clear; a certificate that has ended stops it before the password."""
    made = self_signed(tmp_path, days=ends_in)
    with imap_server(*made, implicit=False) as box:
        url = SecretStr(f"imap://{quote(USER)}@localhost:{box.port}/Returned%20Mail")
        chosen = read_from(prepared, box, made, tmp_path, bounces_url=url)
        if ends_in < 0:
            with pytest.raises(Refused, match="expired"):
                take_in_returned(engine_of(chosen), chosen, clock())
            assert box.commands() == ["CAPABILITY", "STARTTLS"]
        else:
            assert take_in_returned(engine_of(chosen), chosen, clock()) == {}
            assert [line for line, secure in box.heard if not secure] == ["CAPABILITY", "STARTTLS"]


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"url": "imaps://other:wr0ng@localhost:{port}/Returned%20Mail"}, UsageError, "user and password"),
        ({"url": "imaps://{user}@localhost:{port}/Nowhere"}, UsageError, "no such folder"),
        ({"url": "imaps://{user}@127.0.0.1:{port}/Returned%20Mail"}, Refused, "cannot be trusted"),
        ({"url": "imaps://{user}@localhost:{port}/INBOX?tls=none"}, UsageError, "not the address"),
        ({"bounces_ca_file": None}, Refused, "cannot be trusted"),
        ({"mode": 0o644}, UsageError, "Others than its owner"),
        ({"url": "imaps://{user}@localhost:1/INBOX"}, DependencyDown, "cannot be read by IMAP"),
    ],
)
def test_what_is_wrong_is_said_without_a_secret(
    prepared: Settings,
    box: Mailbox,
    pem: tuple[Path, Path],
    tmp_path: Path,
    changes: dict[str, object],
    error: type[KontorError],
    told: str,
) -> None:
    """A wrong password, folder, name or certificate ends in words that hold neither password nor user."""
    url, mode = changes.pop("url", None), changes.pop("mode", None)
    chosen = read_from(prepared, box, pem, tmp_path, **changes)
    if url:
        written = SecretStr(str(url).format(port=box.port, user=quote(USER)))
        chosen = chosen.model_copy(update={"bounces_url": written})
    if mode and chosen.bounces_password_file:
        chosen.bounces_password_file.chmod(int(str(mode)))
    with pytest.raises(error, match=told) as raised:
        take_in_returned(engine_of(chosen), chosen, clock())
    said = f"{raised.value.message} {raised.value.hint} {chosen!r}"
    assert not [secret for secret in (PASSWORD, "wr0ng", USER.partition("@")[0] + "@") if secret in said]


def test_without_encryption_nothing_is_said(prepared: Settings, pem: tuple[Path, Path], tmp_path: Path) -> None:
    """A server that offers no STARTTLS hears no password."""
    with imap_server(*pem, implicit=False) as box:
        box.offers_starttls = False
        url = SecretStr(f"imap://{quote(USER)}@localhost:{box.port}/Returned%20Mail")
        chosen = read_from(prepared, box, pem, tmp_path, bounces_url=url)
        with pytest.raises(Refused, match="no encryption"):
            take_in_returned(engine_of(chosen), chosen, clock())
        assert box.commands() == ["CAPABILITY"]
