"""Payer classes set by hand: for a customer, from a day through a day, with author and reason.

Each change decides the classes anew from its first day on, in the caller's transaction. An override interrupts
hysteresis: the first decision after it has no class to hold on to.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection, Row, text

from data_contracts.tables.rules import PAYER_CLASSES
from tasks.errors import Refused, UsageError
from tasks.payments.classes import classify


@dataclass(frozen=True)
class Override:
    """A class set by hand; it holds from ``valid_from`` through ``until``, both included."""

    override_id: int
    customer_number: str
    payer_class: str
    valid_from: date
    until: date
    author: str
    reason: str


def set_override(
    connection: Connection,
    customer_number: str,
    payer_class: str,
    until: date,
    author: str,
    reason: str,
    as_of: date,
) -> Override:
    """Set a customer's class by hand from ``as_of`` through ``until``, decide anew from there, and return the override.

    Needs the owner's rights on schema ``rules``. Nothing is left of it when it raises.

    Raises:
        UsageError: no such customer or class, an end before the start, or no author or reason.
        Refused: another override of this customer holds on one of these days.
    """
    _check_override(payer_class, until, author, reason, as_of)
    organization_id = _find_customer(connection, customer_number)
    _refuse_overlap(connection, organization_id, customer_number, as_of, until)
    override_id = connection.scalar(
        text(
            "insert into rules.payer_class_override (organization_id, payer_class, valid, author, reason)"
            " values (:organization_id, :payer_class, daterange(:as_of, :until, '[]'), :author, :reason)"
            " returning payer_class_override_id"
        ),
        {
            "organization_id": organization_id,
            "payer_class": payer_class,
            "as_of": as_of,
            "until": until,
            "author": author,
            "reason": reason,
        },
    )
    classify(connection, as_of)
    return Override(int(override_id or 0), customer_number, payer_class, as_of, until, author, reason)


def clear_override(
    connection: Connection, customer_number: str, author: str, reason: str, as_of: date
) -> Override | None:
    """End the override that holds on ``as_of``, decide anew, and return what is left of it.

    It then holds through the day before; one that began on ``as_of`` is taken back as if never set: None.

    Raises:
        UsageError: no such customer, no author or reason, or no override on that day.
    """
    _check_words(author, reason)
    organization_id = _find_customer(connection, customer_number)
    held = next((o for o in _fetch_overrides(connection, as_of, organization_id) if o.valid_from <= as_of), None)
    if held is None:
        raise UsageError(
            f"Customer {customer_number} has no override on {as_of}; its class is decided by rules.",
            hint="List the overrides that hold or are to come, and name a day on which one holds.",
        )
    connection.execute(
        text(_END_OVERRIDE if held.valid_from < as_of else _DELETE_OVERRIDE),
        {"override_id": held.override_id, "as_of": as_of, "author": author, "reason": reason},
    )
    classify(connection, held.valid_from)  # from its beginning: its reason names the last day
    return next((o for o in _fetch_overrides(connection, held.valid_from, organization_id) if o.until < as_of), None)


def list_overrides(connection: Connection, as_of: date) -> list[Override]:
    """The overrides that hold on ``as_of`` or are to come, by customer and beginning."""
    return _fetch_overrides(connection, as_of, None)


def _check_override(payer_class: str, until: date, author: str, reason: str, as_of: date) -> None:
    if payer_class not in PAYER_CLASSES:
        raise UsageError(
            f"{payer_class!r} is not a payer class; allowed are {', '.join(PAYER_CLASSES)}.",
            hint="Choose one of these classes.",
        )
    if until < as_of:
        raise UsageError(
            f"The override would end on {until}, before its first day {as_of}.",
            hint=f"Give an end on or after {as_of}; the last day is included.",
        )
    _check_words(author, reason)


def _check_words(author: str, reason: str) -> None:
    missing = [name for name, value in (("author", author), ("reason", reason)) if not value.strip()]
    if missing:
        raise UsageError(
            f"An override needs an author and a reason; {' and '.join(missing)} is empty.",
            hint="Say who decides and why: it is kept with the decision.",
        )


def _find_customer(connection: Connection, customer_number: str) -> int:
    found = connection.scalar(
        text("select organization_id from crm.organizations where customer_number = :number"),
        {"number": customer_number},
    )
    if found is None:
        raise UsageError(
            f"There is no customer {customer_number}.",
            hint="Check the number, with its leading zeros, or import the customer first.",
        )
    return int(found)


def _refuse_overlap(
    connection: Connection, organization_id: int, customer_number: str, as_of: date, until: date
) -> None:
    for held in _fetch_overrides(connection, as_of, organization_id):
        if held.valid_from <= until:
            raise Refused(
                f"Customer {customer_number} is already set to {held.payer_class} from {held.valid_from} through"
                f" {held.until} (override {held.override_id}); {as_of} through {until} overlaps. Nothing was changed.",
                hint=f"Clear override {held.override_id} first, or begin on {held.until + timedelta(days=1)}.",
            )


def _fetch_overrides(connection: Connection, as_of: date, organization_id: int | None) -> list[Override]:
    rows = connection.execute(text(_OVERRIDES), {"as_of": as_of, "organization_id": organization_id}).all()
    return [_override(row) for row in rows]


def _override(row: Row[tuple[object, ...]]) -> Override:
    return Override(**row._mapping)


_OVERRIDES = """
select v.payer_class_override_id as override_id, o.customer_number, v.payer_class,
       lower(v.valid) as valid_from, upper(v.valid) - 1 as until, v.author, v.reason
from rules.payer_class_override v join crm.organizations o using (organization_id)
where upper(v.valid) > :as_of
  and (cast(:organization_id as bigint) is null or v.organization_id = :organization_id)
order by o.customer_number, lower(v.valid)
"""

_END_OVERRIDE = """
update rules.payer_class_override
set valid = daterange(lower(valid), :as_of), ended_by = :author, end_reason = :reason
where payer_class_override_id = :override_id
"""
_DELETE_OVERRIDE = "delete from rules.payer_class_override where payer_class_override_id = :override_id"
