"""Sending the queue: gate, build, hand over, record, batch by batch, until nothing is left that may go now.

A batch is about a second's worth of mail. Its mails are cleared and marked as being sent in one transaction, built,
handed over outside of any transaction, and their answers recorded in another. What a kill leaves behind is therefore
at most a second's worth of mails of which nobody knows. What was certainly not begun goes back to the queue.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from configs.settings import PROJECT_ROOT, Settings
from tasks.errors import KontorError, PartlyDone
from tasks.letters import Mailbox, Packed, mailbox, message_id
from tasks.mailer import Mailer, inline_css, open_mailer
from tasks.reminders.rulebook import RuleBook
from tasks.reminders.rules_store import fetch_rulebook
from tasks.reminders.sending.digest import Office, compose
from tasks.reminders.sending.outbox_store import Outcome, outcome_of, record
from tasks.reminders.sending.queue_store import Batch, Claim, Cleared, take_batch
from tasks.reminders.sending.templates import Templates, templates_of

_FIRST_BATCH, _LARGEST_BATCH = 8, 100
_BATCH_SECONDS = 1.0
_MOST_FAILURES_IN_A_ROW = 10
_MOST_UNKNOWN_IN_A_ROW = 3
_RECORD_PAUSES = (0.2, 0.5, 1, 2, 4, 8, 15)
_BUSY_ROUNDS, _BUSY_PAUSE = 3, 0.5
_TRY_AGAIN_AFTER = timedelta(minutes=15)

Clock = Callable[[], datetime]


@dataclass
class Sent:
    """What became of the queue: mails by outcome, others by the code of their reason; letters that failed; time."""

    outcomes: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)
    unwritten: int = 0
    database_seconds: float = 0.0

    def __add__(self, other: Sent) -> Sent:
        """What became of the queue in two hands; a mail that waits was looked at by each and counts once."""
        waiting = Counter({code: max(self.waiting[code], other.waiting[code]) for code in self.waiting | other.waiting})
        return Sent(
            self.outcomes + other.outcomes,
            self.cancelled + other.cancelled,
            waiting,
            self.unwritten + other.unwritten,
            self.database_seconds + other.database_seconds,
        )

    def counts(self) -> dict[str, int]:
        """The sums as the run ledger keeps them; outcomes of which there are none are left out."""
        told = {f"mails_{name}": count for name, count in self.outcomes.items()}
        told |= {"mails_cancelled": self.cancelled.total()} if self.cancelled else {}
        told |= {"mails_waiting": self.waiting.total()} if self.waiting else {}
        return told


@dataclass(frozen=True)
class _Ready:
    """A mail that is built and waits for its turn."""

    mail: Cleared
    subject: str
    packed: Packed


class Sender:
    """Sends for one run; made by :func:`send_queue`."""

    def __init__(
        self, engine: Engine, mailer: Mailer, templates: Templates, office: Office, claim: Claim, clock: Clock
    ) -> None:
        self._engine, self._mailer, self._templates, self._office = engine, mailer, templates, office
        self._claim, self._clock = claim, clock
        self._rules: RuleBook | None = None
        self.sent = Sent()
        self._failures = self._unknown = 0
        self._skipped: set[int] = set()  # mails whose invoices somebody else was holding

    def send_all(self, day: date, *, any_hour: bool, past_run: int | None, data_day: date | None = None) -> Sent:
        """Go through the queue until nothing is left that may leave now; returns what became of it."""
        with self._engine.connect() as connection:
            self._rules = fetch_rulebook(connection, day)
        passed: set[int] = set()
        size, rounds = _FIRST_BATCH, 0
        while True:
            begun = time.monotonic()
            batch = self._take(day, size, sorted(passed), any_hour=any_hour, past_run=past_run, data_day=data_day)
            if not batch.looked_at:
                if not self._skipped or rounds >= _BUSY_ROUNDS:
                    return self.sent
                rounds += 1
                passed -= self._skipped
                self._skipped.clear()
                time.sleep(_BUSY_PAUSE)
                continue
            passed |= {*batch.waiting, *batch.busy}
            self._skipped |= set(batch.busy)
            self._send(batch.cleared, day)
            took = max(time.monotonic() - begun, 1e-3)
            size = max(1, min(_LARGEST_BATCH, 2 * size, int(batch.looked_at * _BATCH_SECONDS / took)))

    def _take(self, day: date, size: int, passed: Sequence[int], **how: Any) -> Batch:
        begun = time.monotonic()
        sender = self._mailer.sender.email
        with self._engine.begin() as connection:
            batch = take_batch(
                connection,
                self._claim,
                day=day,
                now=self._clock(),
                size=size,
                passed=passed,
                message_id_of=lambda number, planned: message_id(sender, "reminder", number, planned.isoformat()),
                **how,
            )
        self.sent.database_seconds += time.monotonic() - begun
        self.sent.cancelled.update(_code(reason) for reason in batch.cancelled.values())
        self.sent.waiting.update(_code(reason) for reason in batch.waiting.values())
        return batch

    def _send(self, cleared: Sequence[Cleared], day: date) -> None:
        """Build and hand over a batch; whatever happens, what is known of it is written down."""
        outcomes: list[Outcome] = []
        left: list[Cleared] = list(cleared)
        begun: Cleared | None = None
        try:
            ready = self._build(left, outcomes, day)
            for one in ready:
                begun = one.mail
                outcomes.append(self._hand_over(one))
                left.remove(begun)
                begun = None
        except KontorError:
            begun = None  # the server cannot be reached: nothing of the mail at hand left either
            raise
        finally:
            now = self._clock()
            outcomes += [_untouched(mail, now) for mail in left if mail is not begun]
            self._record(outcomes, now)

    def _build(self, left: list[Cleared], outcomes: list[Outcome], day: date) -> list[_Ready]:
        """The letters as bytes; one that cannot be written is held with the reason, the others go on."""
        ready = []
        for mail in list(left):
            try:
                letter = compose(mail, self._templates, self._office, day, self._clock(), self._rules)
                ready.append(_Ready(mail, letter.subject, self._mailer.pack(letter)))
            except KontorError as error:
                left.remove(mail)
                self.sent.unwritten += 1
                outcomes.append(Outcome(mail.reminder_id, mail.attempt, "held", f"letter: {error.message}", None, None))
        return ready

    def _hand_over(self, one: _Ready) -> Outcome:
        if self._failures >= _MOST_FAILURES_IN_A_ROW or self._unknown >= _MOST_UNKNOWN_IN_A_ROW:
            raise PartlyDone(
                f"The mail server took none of the last {max(self._failures, self._unknown)} mails; the run stopped.",
                hint="See `kontor report reminders` for its answers; what was not sent stays in the queue.",
            )
        delivery = self._mailer.deliver(one.packed)
        taken = delivery.outcome in ("sent", "held")
        self._failures = 0 if taken else self._failures + 1
        self._unknown = self._unknown + 1 if delivery.outcome == "unknown" else 0
        return outcome_of(one.mail.reminder_id, one.mail.attempt, one.subject, delivery, self._clock())

    def _record(self, outcomes: Sequence[Outcome], now: datetime) -> None:
        """Write answers down, patiently: a server that restarts must not cost the knowledge of what was sent."""
        begun = time.monotonic()
        for pause in (*_RECORD_PAUSES, None):
            try:
                with self._engine.begin() as connection:
                    record(connection, self._claim.name, outcomes, now)
                break
            except DBAPIError as error:
                if pause is None or not error.connection_invalidated:
                    raise
                time.sleep(pause)
        self.sent.database_seconds += time.monotonic() - begun
        self.sent.outcomes.update(one.state for one in outcomes)


def send_queue(
    engine: Engine,
    settings: Settings,
    claim: Claim,
    *,
    day: date,
    clock: Clock,
    any_hour: bool = False,
    past_run: int | None = None,
    data_day: date | None = None,
) -> Sent:
    """Send every mail that may leave now; returns what became of the queue.

    Raises:
        DependencyDown, Refused, UsageError: the mail server cannot be used; what was not sent stays in the queue.
        PartlyDone: the server took nothing for a while; the rest stays in the queue.
    """
    with open_mailer(settings) as mailer:
        mailer.connect()
        office = office_of(settings, mailer.sender)
        sender = Sender(engine, mailer, installed_templates(settings), office, claim, clock)
        return sender.send_all(day, any_hour=any_hour, past_run=past_run, data_day=data_day)


def office_of(settings: Settings, sender: Mailbox) -> Office:
    """Who writes, by the settings."""
    reply_to = mailbox(settings.mail_reply_to) if settings.mail_reply_to else sender
    return Office(sender.name or sender.email.rpartition("@")[2], sender, reply_to)


def installed_templates(settings: Settings) -> Templates:
    """The templates in force: the installation's own first, then the ones that come with Kontor."""
    folders: tuple[Path, ...] = (settings.home / "templates", PROJECT_ROOT / "configs" / "templates")
    return templates_of(folders, inline_css)


def _untouched(mail: Cleared, now: datetime) -> Outcome:
    """A mail that was cleared and certainly not begun goes back to the queue."""
    reason = "server: it was not handed over, because the run stopped before"
    return Outcome(
        mail.reminder_id, mail.attempt, "deferred", reason, None, None, next_attempt_at=now + _TRY_AGAIN_AFTER
    )


def _code(reason: str) -> str:
    return reason.partition(":")[0]
