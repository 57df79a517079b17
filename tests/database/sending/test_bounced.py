"""Returned mail in the database: the mail, the address, the task for a person, and nothing twice."""

from __future__ import annotations

import mailbox
from pathlib import Path

import pytest
from pydantic import SecretStr

from configs.settings import Settings
from flows.commands.returning import look
from tasks.database import FLOWS, engine_for
from tasks.reminders.sending.bounce_store import take_in_bounces
from tests.outbox import Queue, clock, fill_queue
from tests.unit.sending.test_bounces import AWAY, REPORT


def sent_queue(settings: Settings, customers: int) -> Queue:
    """A queue whose mails have been taken by the server."""
    queue = fill_queue(settings, customers, items=1)
    queue.change(
        "update outbox.reminders set state = 'sent', sent_at = now(), attempts = 1,"
        " message_id = '<reminder.' || reminder_id || '@kontor.example>'"
    )
    return queue


def drop(folder: Path, text: str) -> None:
    """Deliver a message into the maildir."""
    mailbox.Maildir(folder, create=True).add(text.encode())


def report(mail: int, status: str, note: str = "") -> str:
    """A bounce of this mail."""
    ours = f"<reminder.{mail}@kontor.example>"
    return REPORT.format(action="failed", status=status, code=550, returned="message/rfc822", ours=ours) + note


def test_a_hard_bounce_ends_the_address_and_asks_for_a_person(kontor_settings: Settings, tmp_path: Path) -> None:
    """The mail is bounced, its address suppressed, a task open; its stage stays used up; read again it is known."""
    queue, folder = sent_queue(kontor_settings, 2), tmp_path / "bounces"
    engine = engine_for(kontor_settings, FLOWS)
    assert take_in_bounces(engine, folder, clock()) == {}
    drop(folder, report(1, "5.1.1"))
    drop(folder, report(9, "5.1.1"))
    drop(folder, AWAY.format(ours="<reminder.2@kontor.example>"))
    assert take_in_bounces(engine, folder, clock()) == {"hard": 1, "other": 2}
    assert take_in_bounces(engine, folder, clock()) == {}
    drop(folder, report(1, "5.1.1"))
    assert take_in_bounces(engine, folder, clock()) == {"known": 1}
    assert queue.states() == {"bounced": 1, "sent": 1}
    assert queue.rows("select email, kind, count from outbox.suppressions") == [
        {"email": "c-1@customer.example", "kind": "hard_bounce", "count": 1}
    ]
    assert queue.rows("select kind, organization_id from ops.reminder_tasks") == [
        {"kind": "address_bounced", "organization_id": 1}
    ]
    assert queue.rows("select count(*) as released from outbox.reminder_items where released_at is not null") == [
        {"released": 0}
    ]


def test_three_soft_bounces_are_one_hard(kontor_settings: Settings, tmp_path: Path) -> None:
    """A full mailbox is counted and changes nothing at first; the third time the address is given up."""
    queue, folder = sent_queue(kontor_settings, 1), tmp_path / "bounces"
    for time, kinds in enumerate((["soft_bounce"], ["soft_bounce"], ["hard_bounce", "soft_bounce"])):
        drop(folder, report(1, "4.2.2", f"\n{time}"))
        assert take_in_bounces(engine_for(kontor_settings, FLOWS), folder, clock()) == {"soft": 1}
        rows = queue.rows("select kind from outbox.suppressions order by 1")
        assert [row["kind"] for row in rows] == kinds
        assert queue.states() == {"sent": 1}


def test_the_standing_reader_takes_in_what_came_back_and_lasts(
    kontor_settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each look takes in what is new and prints counts alone; a mailbox that is away is told of and looked at again."""
    queue, folder = sent_queue(kontor_settings, 1), tmp_path / "bounces"
    engine = engine_for(kontor_settings, FLOWS)
    away = {"bounces_url": SecretStr("imaps://reader:a-password@localhost:1/INBOX")}
    settings = kontor_settings.model_copy(update={"bounces": folder})
    drop(folder, report(1, "5.1.1"))
    assert look(engine, settings, clock())
    assert look(engine, settings, clock())
    assert queue.states() == {"bounced": 1}
    assert not look(engine, settings.model_copy(update=away), clock())
    said = capsys.readouterr().out
    assert said.count("returned_mails hard=1") == 1
    assert "cannot be read by IMAP" in said
    assert "customer.example" not in said
    assert "a-password" not in said
