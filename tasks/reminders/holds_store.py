"""Holds that people put on reminders: of a customer or one invoice, from a day on, until one or until released."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from data_contracts.tables.reminders import HOLD_KINDS
from tasks.errors import UsageError


@dataclass(frozen=True)
class NewHold:
    """What a person wants held back; ``until`` is the last day, None means until released."""

    kind: str
    customer_number: str
    starts_on: date
    author: str
    reason: str
    until: date | None = None
    invoice_number: str | None = None
    amount: Decimal | None = None
    currency: str | None = None


def insert_hold(connection: Connection, hold: NewHold) -> int:
    """Put a hold in place and return its id; works in the caller's transaction.

    Raises:
        UsageError: no such kind, customer or invoice, an end before the start, a promise without an end, half a sum, or
            no reason.
    """
    _check_words(hold)
    organization_id = _find_customer(connection, hold.customer_number)
    invoice_id = _find_invoice(connection, organization_id, hold)
    return int(
        connection.execute(
            text(_INSERT),
            {
                "kind": hold.kind,
                "organization_id": organization_id,
                "invoice_id": invoice_id,
                "starts_on": hold.starts_on,
                "until": hold.until,
                "amount": hold.amount,
                "currency": hold.currency,
                "author": hold.author,
                "reason": hold.reason.strip(),
            },
        ).scalar_one()
    )


def release_hold(connection: Connection, hold_id: int, *, author: str, reason: str, now: datetime) -> str:
    """Release a hold and return its kind; what was held is decided about again by the next run.

    Raises:
        UsageError: no such hold, it was released before, or no reason is given.
    """
    if not reason.strip():
        raise UsageError("A release needs a reason.", hint="Add --reason 'why it no longer holds'.")
    kind: str | None = connection.scalar(
        text(
            "update ops.reminder_holds set released_at = :now, released_by = :author, release_reason = :reason"
            " where hold_id = :hold_id and released_at is null returning kind"
        ),
        {"now": now, "author": author, "reason": reason.strip(), "hold_id": hold_id},
    )
    if kind is None:
        raise UsageError(
            f"There is no hold {hold_id} that could be released.",
            hint="`kontor report reminder-holds` lists holds with their numbers and states.",
        )
    return kind


def _check_words(hold: NewHold) -> None:
    wrong = ""
    if hold.kind not in HOLD_KINDS:
        wrong = f"There is no kind of hold {hold.kind!r}; there are {', '.join(HOLD_KINDS)}."
    elif not hold.reason.strip():
        wrong = "A hold needs a reason."
    elif hold.until is not None and hold.until < hold.starts_on:
        wrong = f"The hold would end on {hold.until}, before it begins on {hold.starts_on}."
    elif hold.kind == "promise_to_pay" and hold.until is None:
        wrong = "A promise to pay needs the day by which it is to be kept."
    elif (hold.amount is None) != (hold.currency is None):
        wrong = "A promised sum needs both its amount and its currency."
    elif hold.amount is not None and hold.amount <= 0:
        wrong = f"The promised amount is {hold.amount}; it must be more than nothing."
    if wrong:
        raise UsageError(wrong, hint="`kontor reminders hold --help` shows what it takes.")


def _find_customer(connection: Connection, number: str) -> int:
    found: Any = connection.scalar(
        text("select organization_id from crm.organizations where customer_number = :number"), {"number": number}
    )
    if found is None:
        raise UsageError(f"There is no customer {number}.", hint="Give the number with its leading zeros.")
    return int(found)


def _find_invoice(connection: Connection, organization_id: int, hold: NewHold) -> int | None:
    if hold.invoice_number is None:
        return None
    found = connection.scalars(
        text("select invoice_id from crm.invoices where organization_id = :id and invoice_number = :number"),
        {"id": organization_id, "number": hold.invoice_number},
    ).all()
    if len(found) != 1:
        raise UsageError(
            f"Customer {hold.customer_number} has {len(found) or 'no'} invoices {hold.invoice_number}.",
            hint=f"`kontor report open-invoices --customer {hold.customer_number}` lists them.",
        )
    return int(found[0])


_INSERT = """
insert into ops.reminder_holds (kind, organization_id, invoice_id, valid, promised_amount, promised_currency, author,
                                reason)
values (:kind, :organization_id, :invoice_id,
        daterange(:starts_on, cast(:until as date) + 1), :amount, :currency, :author, :reason)
returning hold_id
"""
