"""The demo's reminders: planned and written for reading, one cancelled by a payment, the rest sent to a server here."""

from __future__ import annotations

import csv
import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands.screen import out, today_in

if TYPE_CHECKING:
    from configs.settings import Settings

_SENDER = "KONTOR_MAIL_FROM", "Kontor Demo <receivables@kontor.example>"


def remind(settings: Settings, last: date) -> Path:
    """Play it and return the folder in which the mails can be read."""
    from flows.commands.running import flows_ready

    folder = settings.home / "demo" / "mails"
    with flows_ready(settings):
        from tasks.steps import without_heartbeat

        with without_heartbeat():
            _plan(settings, last)
            _book_a_payment(settings, last)
            _send(settings, last, folder)
    return folder


def _plan(settings: Settings, last: date) -> None:
    """Plan the day's reminders; in mail mode hold every mail is a file, and none is sent."""
    with _environment(_SENDER, ("KONTOR_MAIL_MODE", "hold")):
        _run_reminders(settings, last)
    held = [row for row in _mails(settings) if row["state"] == "held"]
    out().print(f"\nWhom to remind on {last}: {len(held)} customers, one mail each, nothing sent yet", style="bold")
    for (stage, language), count in sorted(Counter((row["stage"], row["language"]) for row in held).items()):
        out().print(f"  {count:>3} {stage} in {language}")
    if held:
        one = held[0]
        out().print(f"  one of them: {one['customer_number']}, {one['subject']}", highlight=False)
        out().print(f"  why this person: {one['recipient_reason']}", highlight=False)


def _book_a_payment(settings: Settings, last: date) -> None:
    """Take in accounting's word that one of the reminded invoices is paid; its mail goes in the same transaction."""
    from flows.commands.running import given_instruction, run_flow
    from tasks.feeds.parameters import FeedInstruction, FeedParameters

    chosen = next(
        (row for row in _mails(settings) if row["state"] == "held" and len(row["invoice_numbers"]) == 1), None
    )
    if chosen is None:
        return
    day = min(last + timedelta(days=1), today_in(settings))
    path = _payment_file(settings, chosen["customer_number"], chosen["invoice_numbers"][0], day)
    said = FeedInstruction(files=(str(path),), contract="settled_items")
    given = FeedParameters(file_as_of=day, instruction=given_instruction(settings, "payment_sync", said))
    finished = run_flow(settings, "payment_sync", given, [path])
    if finished.error is not None:
        raise finished.error
    now = next(row for row in _mails(settings) if row["reminder_id"] == chosen["reminder_id"])
    out().print(
        f"\nA payment arrives: invoice {chosen['invoice_numbers'][0]} of {chosen['customer_number']}", style="bold"
    )
    out().print(f"  its mail is {now['state']}, because {now['state_reason']}", highlight=False)


def _payment_file(settings: Settings, customer: str, number: str, day: date) -> Path:
    """Accounting's file of one settled item."""
    from sqlalchemy import text

    from tasks.stack import connected

    with connected(settings) as connection:
        row = connection.execute(
            text(_ONE_INVOICE),
            {"day": day, "customer": customer, "number": number},
        ).one()
    path = settings.home / "demo" / f"settled_items_{day}.csv"
    values = {
        "customer_number": customer,
        "customer_name": row.customer_name,
        "invoice_number": number,
        "document_type": row.document_type,
        "issue_date": row.issued_on,
        "due_date": row.due_on,
        "currency": row.currency,
        "amount": row.amount,
        "open_amount": 0,
        "settled_date": day,
    }
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(values))
        writer.writeheader()
        writer.writerow(values)
    return path


_ONE_INVOICE = """
select * from report.open_invoices(:day) where customer_number = :customer and invoice_number = :number
"""


def _send(settings: Settings, last: date, folder: Path) -> None:
    """Approve what is held and send it to a mail server of the demo's own, which writes every mail to a file."""
    from tasks.reminders.sending.outbox_store import approve
    from tasks.stack import connected

    held = [row["reminder_id"] for row in _mails(settings) if row["state"] == "held"]
    with connected(settings, write=True) as connection:
        approve(connection, held, author="demo", now=datetime.now(UTC))
    with _mail_server(folder) as port:
        server = "KONTOR_SMTP_URL", f"smtp://127.0.0.1:{port}?tls=none"
        with _environment(_SENDER, ("KONTOR_MAIL_MODE", "live"), server):
            _run_reminders(settings, last)
    states = Counter(row["state"] for row in _mails(settings))
    delivered = len(list(folder.glob("*.eml")))
    out().print("\nThe rest is approved and sent, to a mail server on this machine", style="bold")
    out().print(f"  {states['sent']} sent, {delivered} delivered, {states['unknown']} unknown")
    out().print(f"  read them: {folder}", soft_wrap=True, highlight=False)


def _run_reminders(settings: Settings, last: date) -> None:
    from flows.commands.running import run_flow
    from tasks.reminders.parameters import ReminderParameters

    given = ReminderParameters(as_of=last, dry_run=False, allow_past=True, any_hour=True)
    finished = run_flow(settings, "overdue_reminders", given)
    if finished.error is not None:
        raise finished.error


def _mails(settings: Settings) -> list[dict[str, Any]]:
    """Every mail there is, oldest first, as finance sees it."""
    from sqlalchemy import text

    from tasks.stack import connected

    with connected(settings) as connection:
        return [dict(row) for row in connection.execute(text("select * from report.reminders order by 1")).mappings()]


@contextmanager
def _environment(*settings: tuple[str, str]) -> Iterator[None]:
    """These settings for a ``with`` block; flows read theirs from the environment."""
    before = {name: os.environ.get(name) for name, _ in settings}
    os.environ.update(dict(settings))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


class _Letterbox:
    """Writes every mail that the server takes to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802  aiosmtpd's name
        """Keep a mail and answer as servers do."""
        self._count += 1
        (self._folder / f"{self._count:03}_{_plain(envelope.rcpt_tos)}.eml").write_bytes(envelope.original_content)
        return "250 taken"


def _plain(recipients: Sequence[str]) -> str:
    return "".join(sign if sign.isalnum() or sign in "@.-" else "_" for sign in ",".join(recipients))[:120]


@contextmanager
def _mail_server(folder: Path) -> Iterator[int]:
    """A real mail server on a free port of this machine for a ``with`` block; what it takes lies in ``folder``."""
    from aiosmtpd.controller import Controller

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    controller = Controller(_Letterbox(folder), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()
