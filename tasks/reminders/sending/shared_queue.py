"""The queue of mails sent by several processes at once, each with a connection to the mail server of its own.

They share the queue as two runs would: mails and their invoices are taken under lock, and what one holds the other
passes over. All of them send for the one run, so that a run that was written off stops all.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from configs.settings import Settings
from tasks.database import FLOWS, engine_for
from tasks.errors import KontorError
from tasks.reminders.sending.delivery import Sent, send_queue
from tasks.reminders.sending.outbox_store import count_queued
from tasks.reminders.sending.queue_store import Claim
from tasks.side_by_side import sharing_out

WORTH_A_PROCESS = 300  # mails; a process needs as long to begin as to send so many


def send_shared(
    engine: Engine,
    settings: Settings,
    claim: Claim,
    *,
    day: date,
    any_hour: bool = False,
    past_run: int | None = None,
    data_day: date | None = None,
) -> Sent:
    """Send as :func:`send_queue` does, by as many processes as the settings allow and the queue is worth.

    Raises:
        The first error of any of them, after all have ended; what each did is written down.
    """
    options: dict[str, Any] = {"day": day, "any_hour": any_hour, "past_run": past_run, "data_day": data_day}
    count = _helpers(engine, settings)
    if not count:
        return send_queue(engine, settings, claim, clock=_now, **options)
    errors: list[KontorError | DBAPIError] = []
    total = Sent()
    with sharing_out(settings) as helpers:
        others = [helpers.start(send_share, settings, claim, **options) for _ in range(count)]
        for send in (lambda: send_queue(engine, settings, claim, clock=_now, **options), *(o.result for o in others)):
            try:
                total = total + send()
            except (KontorError, DBAPIError) as error:
                errors.append(error)
    if errors:
        raise errors[0]
    return total


def _helpers(engine: Engine, settings: Settings) -> int:
    """How many beside this process."""
    if settings.shares == 1:
        return 0
    with engine.connect() as connection:
        mails = count_queued(connection)
    return max(0, min(settings.shares, mails // WORTH_A_PROCESS) - 1)


def send_share(
    settings: Settings, claim: Claim, *, day: date, any_hour: bool, past_run: int | None, data_day: date | None
) -> Sent:
    """What a helper does: the same, with a connection of its own to database and mail server."""
    engine = engine_for(settings, FLOWS, purpose="kontor sending share")
    options: dict[str, Any] = {"any_hour": any_hour, "past_run": past_run, "data_day": data_day}
    return send_queue(engine, settings, claim, day=day, clock=_now, **options)


def _now() -> datetime:
    return datetime.now(UTC)
