"""Mails a second: gate, build, send and record, beside a bare loop of `emails` without any database.

Run with ``.venv/bin/python -m tests.benchmarks.bench_sending [MAILS] [side_by_side]``. Both send to the same sink, a
process that takes everything at once. The bare loop renders the same letters from the same compiled templates, builds
them with `emails` and sends them over one connection; it is what one would write without Kontor. Both are run in turn,
three times; rates are the best of three, the ratio is of these. CPU is this process's own time per mail, which a busy
machine disturbs less than the clock on the wall. With ``side_by_side`` one and two processes share one queue, beside
as many bare loops at once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import Any

from emails.backend.smtp.backend import SMTPBackend
from emails.message import Message
from pydantic import SecretStr

from configs.settings import Settings
from tasks.database import FLOWS, engine_for
from tasks.letters import Mailbox
from tasks.reminders.sending.delivery import installed_templates, send_queue
from tasks.reminders.sending.digest import Office, compose
from tasks.reminders.sending.gate import OpenItem, Person
from tasks.reminders.sending.queue_store import Cleared
from tasks.reminders.sending.shared_queue import send_shared
from tests.benchmarks.working import machine, own_server, show
from tests.conftest import empty_database
from tests.outbox import clock, fill_queue

ITEMS, ROUNDS = 3, 3
SENDER = "Kontor Ltd <office@kontor.example>"


class _Sink(asyncio.Protocol):
    """Takes every mail and looks at none: the processors are for those who send."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._rest, self._in_content = transport, b"", False
        transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while True:
            line, end, rest = self._rest.partition(b"\r\n.\r\n" if self._in_content else b"\r\n")
            if not end:
                return
            self._rest, self._in_content = rest, not self._in_content and line[:4].upper() == b"DATA"
            self._transport.write(b"354 go\r\n" if self._in_content else b"250 sink\r\n")


async def _serve(port: Any) -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
    port.value = server.sockets[0].getsockname()[1]
    await server.serve_forever()


def _sink(port: Any) -> None:
    asyncio.run(_serve(port))


@contextmanager
def sink() -> Iterator[int]:
    """A process that takes every mail at once, for a ``with`` block; its port."""
    port = multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=_sink, args=(port,), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.01)
    try:
        yield int(port.value)
    finally:
        process.terminate()
        process.join()


def _made_up(number: int, day: date) -> Cleared:
    """The mail that the queue of the benchmark holds under this number, without a database."""
    kept = tuple(
        OpenItem(n, f"C-{number}/{n}", "accounting", False, day, day.replace(day=1), "EUR", Decimal(100 * n),
                 Decimal(100 * n), False)
        for n in range(1, ITEMS + 1)
    )  # fmt: skip
    return Cleared(
        number, 1, f"<reminder.{number}@kontor.example>", None, "first", 1, "first", "en", "none", None,
        Person(number, f"c-{number}@customer.example", "Anna", f"C-{number}", frozenset()), f"C-{number}", "Customer",
        "BG", "owner@kontor.example", kept, (), (), (), {}, {},
    )  # fmt: skip


def bare(settings: Settings, port: int, mails: int, day: date) -> tuple[float, float]:
    """Render, build and send with the library alone; wall seconds and CPU seconds."""
    templates, office = (
        installed_templates(settings),
        Office("Kontor Ltd", Mailbox("o@k.example"), Mailbox("o@k.example")),
    )
    begun, used = time.perf_counter(), time.process_time()
    with SMTPBackend(host="127.0.0.1", port=port, timeout=10) as backend:
        for number in range(mails):
            letter = compose(_made_up(number, day), templates, office, day, clock())
            message = Message(
                subject=letter.subject, html=letter.html, text=letter.text, mail_from=SENDER,
                mail_to=(letter.to[0].name, letter.to[0].email), message_id=letter.message_id,
                headers={"Auto-Submitted": "auto-generated"},
            )  # fmt: skip
            if not message.send(smtp=backend).success:
                raise RuntimeError("the sink refused a mail")
    return time.perf_counter() - begun, time.process_time() - used


def ours(settings: Settings, port: int, mails: int) -> tuple[float, float, float]:
    """Send a queue of so many mails; wall seconds, CPU seconds, seconds spent waiting for the database."""
    empty_database(settings)
    queue = fill_queue(settings, mails, items=ITEMS)
    live = settings.model_copy(
        update={"mail_mode": "live", "mail_from": SENDER, "smtp_url": SecretStr(f"smtp://127.0.0.1:{port}?tls=none")}
    )
    begun, used = time.perf_counter(), time.process_time()
    sent = send_queue(engine_for(settings, FLOWS), live, queue.claim, day=queue.day, clock=clock, any_hour=True)
    if sent.outcomes["sent"] != mails:
        raise RuntimeError(f"{mails} mails were planned and {sent.counts()} became of them")
    return time.perf_counter() - begun, time.process_time() - used, sent.database_seconds


def shared(settings: Settings, port: int, mails: int, processes: int) -> float:
    """Mails a second of a queue that so many processes send, their start included."""
    empty_database(settings)
    queue = fill_queue(settings, mails, items=ITEMS)
    url = SecretStr(f"smtp://127.0.0.1:{port}?tls=none")
    more = {"mail_mode": "live", "mail_from": SENDER, "smtp_url": url, "processes": processes}
    live, begun = settings.model_copy(update=more), time.perf_counter()
    sent = send_shared(engine_for(settings, FLOWS), live, queue.claim, day=queue.day, any_hour=True)
    if sent.outcomes["sent"] != mails:
        raise RuntimeError(f"{mails} mails were planned and {sent.counts()} became of them")
    return mails / (time.perf_counter() - begun)


def bare_loops(settings: Settings, port: int, mails: int, processes: int) -> float:
    """Mails a second of so many bare loops at once, each with its part of the mails, their start not included.

    What processors, of which two may be one core's, allow any two processes that build mails.
    """
    day, part = date(2026, 11, 20), mails // processes
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        pool.starmap(bare, [(settings, port, 50, day)] * processes, chunksize=1)
        begun = time.perf_counter()
        pool.starmap(bare, [(settings, port, part, day)] * processes, chunksize=1)
        return part * processes / (time.perf_counter() - begun)


def side_by_side(mails: int) -> None:
    """Print the rate of one and of two processes on one queue, in turn, the best of three, and of bare loops."""
    with own_server() as settings, sink() as port:
        shared(settings, port, 600, 1)  # the first batch compiles templates and plans statements
        ways = {"gate, build, send, record": shared, "bare loops of emails": bare_loops}
        rates = {
            (name, count): max(rate(settings, port, mails, count) for _ in range(ROUNDS))
            for name, rate in ways.items()
            for count in (1, 2)
        }
    rows = [(name, count, f"{rate:.0f}", f"{rate / rates[name, 1]:.2f}") for (name, count), rate in rates.items()]
    show(f"{mails:,} mails of {ITEMS} items; {machine()}", ("what", "processes", "mails/s", "beside one"), rows)


def main() -> None:
    """Print rates of both, their ratio, and what the database takes per mail."""
    mails = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000
    if "side_by_side" in sys.argv:
        side_by_side(mails)
        return
    with own_server() as settings, sink() as port:
        bare(settings, port, 50, date(2026, 11, 20))  # templates are compiled once in a process, for both
        loops, queues = [], []
        for _ in range(ROUNDS):
            loops.append(bare(settings, port, mails, date(2026, 11, 20)))
            queues.append(ours(settings, port, mails))
    loop, queue = min(loops), min(queues)
    rows = [
        ("bare loop of emails", f"{mails / loop[0]:.0f}", f"{1000 * loop[1] / mails:.2f}", "-"),
        (
            "gate, build, send, record",
            f"{mails / queue[0]:.0f}",
            f"{1000 * queue[1] / mails:.2f}",
            f"{1000 * queue[2] / mails:.2f}",
        ),
        ("ratio", f"{loop[0] / queue[0]:.2f}", f"{loop[1] / queue[1]:.2f}", "-"),
    ]
    show(
        f"{mails:,} mails of {ITEMS} items, one process; {machine()}",
        ("what", "mails/s", "CPU ms", "database ms"),
        rows,
    )


if __name__ == "__main__":
    main()
