"""`kontor reminders approve|hold-mail|release-mail|resolve|bounces`: what people decide about mails in the queue."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from flows.commands.reminders import Reason, change, reminders
from flows.commands.screen import out, say, settings_in_force

__all__ = ["reminders"]

Mails = Annotated[
    list[int], typer.Argument(metavar="MAIL...", help="Their numbers; `kontor report reminders` has them.")
]


class Arrived(StrEnum):
    """What a person found out about a mail."""

    sent = "sent"
    not_sent = "not-sent"


@reminders.command("approve")
def approve(
    mails: Annotated[
        list[int] | None, typer.Argument(metavar="[MAIL...]", help="Their numbers; default: show which wait.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every mail that waits for approval.")] = False,
) -> None:
    """Let mails go that wait for a person: final notices, mails of a run that the brake stopped, and held ones.

    They still pass the gate: what was paid meanwhile does not leave. The next run of overdue_reminders sends them.
    """
    from tasks.reminders.sending import outbox_store

    waiting = change(outbox_store.awaiting_approval)
    if not mails and not everything:
        _print_waiting(waiting)
        return
    now, author = datetime.now(UTC), getpass.getuser()
    wanted = waiting if everything else list(mails or ())
    _tell("approved", wanted, change(lambda c: outbox_store.approve(c, wanted, author=author, now=now)))


def _print_waiting(waiting: Sequence[int]) -> None:
    if not waiting:
        out().print("No mail waits for approval.")
        return
    out().print(f"Waiting for approval: {', '.join(map(str, waiting))}.")
    out().print("`kontor report reminders` shows them; `kontor reminders approve ID...` or --all lets them go.")


@reminders.command("hold-mail")
def hold_mail(mails: Mails, reason: Reason) -> None:
    """Keep mails of the queue back until they are released; what is sent already cannot be held."""
    from tasks.reminders.sending import outbox_store

    now, author = datetime.now(UTC), getpass.getuser()
    _tell(
        "held",
        mails,
        change(lambda c: outbox_store.hold_mails(c, mails, author=author, reason=reason.strip(), now=now)),
    )


@reminders.command("release-mail")
def release_mail(mails: Mails) -> None:
    """Put held mails back in the queue; the gate looks at them again before they leave."""
    from tasks.reminders.sending import outbox_store

    now = datetime.now(UTC)
    _tell("released", mails, change(lambda c: outbox_store.release_mails(c, mails, now=now)))


@reminders.command("resolve")
def resolve(
    mail: Annotated[int, typer.Argument(metavar="MAIL", help="Its number; `kontor status` tells of them.")],
    arrived: Annotated[Arrived, typer.Option("--as", help="sent: it arrived; not-sent: it did not.")],
    reason: Reason,
) -> None:
    """Settle a mail of which nobody knew whether it arrived; it is never sent again as it is.

    As not-sent its items are free again, and the next run decides anew.
    """
    from tasks.reminders.sending import outbox_store

    now, author = datetime.now(UTC), getpass.getuser()
    state = change(
        lambda c: outbox_store.resolve(
            c, mail, arrived=arrived is Arrived.sent, author=author, reason=reason.strip(), now=now
        )
    )
    out().print(f"Mail {mail} is {state}.")


@reminders.command("bounces")
def bounces() -> None:
    """Take in returned messages from the maildir and the mailbox of the settings, and say what they were.

    Every run of overdue_reminders does this first; `kontor report suppressions` shows the addresses given up.
    """
    from tasks.database import engine_for
    from tasks.reminders.sending.bounce_store import take_in_returned
    from tasks.stack import ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    counts = take_in_returned(engine_for(settings), settings, datetime.now(UTC))
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    places = f"{settings.bounces_path}{' and the mailbox' if settings.bounces_url else ''}"
    out().print(f"Bounces in {places}: {told or 'none'}.")


def _tell(verb: str, wanted: Sequence[int], changed: Sequence[int]) -> None:
    """Say which mails changed, and which stand in a state in which they could not.

    Raises:
        Refused: none could be changed.
    """
    from tasks.errors import Refused

    left = sorted(set(wanted) - set(changed))
    if changed:
        out().print(f"{verb.capitalize()}: {', '.join(map(str, sorted(changed)))}.")
    if left and not changed:
        raise Refused(
            f"None of the mails {', '.join(map(str, left))} could be {verb}: they stand in another state.",
            hint="`kontor report reminders` shows the mails and their states.",
        )
    if left:
        say(f"Left as they are, because they are in another state: {', '.join(map(str, left))}.")
