"""Decisions as a person reads them, with the columns of report.reminder_decisions: made now, or as they were kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, text

from tasks.errors import UsageError
from tasks.reminders.plan import Decision
from tasks.reminders.planning_store import decide_on

_ORDER = {"remind": 0, "task": 1, "hold": 2, "nothing": 3}


def preview(
    connection: Connection, as_of: date, today: date, *, customer_number: str | None = None
) -> list[dict[str, Any]]:
    """What a run would decide for that day, reminders first, one row per customer; nothing is kept.

    A day before ``today`` is judged by the reminders that had been planned before it, as if none had come since.
    """
    decisions, _ = decide_on(connection, as_of, as_it_stands=as_of >= today, customer_number=customer_number)
    return _as_rows(connection, as_of, decisions)


def explain(connection: Connection, customer_number: str, as_of: date, today: date) -> list[dict[str, Any]]:
    """The decision about one customer on that day: the one that was kept, else the one that a run would make.

    ``kept`` in the row says which. Empty where the customer has nothing overdue and nothing that is noticed beforehand.

    Raises:
        UsageError: there is no such customer.
    """
    known = connection.scalar(
        text("select 1 from crm.organizations where customer_number = :number"), {"number": customer_number}
    )
    if known is None:
        raise UsageError(f"There is no customer {customer_number}.", hint="Give the number with its leading zeros.")
    kept = connection.execute(
        text("select * from report.reminder_decisions(:as_of) where customer_number = :number"),
        {"as_of": as_of, "number": customer_number},
    ).mappings()
    rows = [{**row, "kept": True} for row in kept]
    if rows:
        return rows
    return [{**row, "kept": False} for row in preview(connection, as_of, today, customer_number=customer_number)]


def customer_numbers(connection: Connection, ids: Iterable[int]) -> Mapping[int, str]:
    """The customers' numbers by their ids."""
    return _names(connection, _CUSTOMERS, ids)


def _as_rows(connection: Connection, as_of: date, decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    customers = customer_numbers(connection, (d.organization_id for d in decisions))
    invoices = _names(connection, _INVOICES, (i for d in decisions for i in d.invoice_ids))
    rows = [
        {
            "as_of": as_of,
            "customer_number": customers[d.organization_id],
            "decision": d.decision,
            "stage": d.stage,
            "reason": d.reason,
            "recipient_email": d.recipient_email,
            "recipient_reason": d.recipient_reason,
            "language": d.language,
            "invoice_numbers": sorted(invoices[i] for i in d.invoice_ids),
            "rule_id": d.rule_id,
            "rule_version": d.rule_version,
            "reason_code": d.reason_code,
            "sequence": d.sequence,
            "figures": dict(d.figures),
        }
        for d in decisions
    ]
    return sorted(rows, key=lambda row: (_ORDER[str(row["decision"])], str(row["customer_number"])))


def _names(connection: Connection, statement: str, ids: Iterable[int]) -> Mapping[int, str]:
    return {int(row[0]): str(row[1]) for row in connection.execute(text(statement), {"ids": sorted(set(ids))})}


_CUSTOMERS = "select organization_id, customer_number from crm.organizations where organization_id = any(:ids)"
_INVOICES = "select invoice_id, invoice_number from crm.invoices where invoice_id = any(:ids)"
