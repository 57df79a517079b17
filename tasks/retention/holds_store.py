"""Legal holds as cases: placed and released, in the ledger outside the database and in the database.

Several may stand on one subject; it is free when the last is released, and what was due meanwhile is in the next plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from tasks.erasures.ledger_file import Entry, ErasureLedger, Subject
from tasks.erasures.store import HOLD_LOCK, mirror
from tasks.errors import Refused, UsageError

_HINT = "Give the customer's number, or a contact's external id or e-mail address."


def find_subject(connection: Connection, subject: str) -> tuple[str, UUID]:
    """The table and external id that a customer number, an external id or a contact's address stands for.

    Raises:
        UsageError: nobody, or more than one, is meant.
    """
    rows = connection.execute(text(_FIND_SUBJECT), {"subject": subject.strip()}).all()
    if not rows:
        raise UsageError("Nobody is known under what was given.", hint=_HINT)
    if len(rows) > 1:
        raise UsageError(
            f"{len(rows)} records are meant: {', '.join(f'{row.entity} {row.external_id}' for row in rows)}.",
            hint="Give the external id of one of them.",
        )
    return rows[0].entity, rows[0].external_id


_FIND_SUBJECT = """
select 'crm.organizations' as entity, external_id from crm.organizations
where customer_number = :subject or external_id::text = lower(:subject)
union all
select 'crm.contacts', external_id from crm.contacts
where lower(email) = lower(:subject) or external_id::text = lower(:subject)
order by 1, 2
"""


def place_hold(
    connection: Connection,
    ledger: ErasureLedger,
    *,
    entity: str,
    subject: UUID,
    case_number: str,
    reason: str,
    author: str,
    review_on: date,
    now: datetime,
) -> int:
    """Keep everything of a subject until the hold is released; returns the hold's number.

    It waits for the batch that is destroying something at this moment, a few milliseconds, and holds off the next. The
    ledger comes first: a hold that only the ledger knows is placed again by a replay, which is the safe side.
    """
    connection.execute(text(f"select pg_advisory_xact_lock({HOLD_LOCK})"))
    reference = uuid4()
    line = Entry(now, "hold", entity, reference=str(reference), subjects=[Subject(str(subject))])
    mirror(connection, ledger.append([line]))
    return int(
        connection.execute(
            text(
                "insert into ops.legal_holds (reference, case_number, entity, subject, reason, author, placed_at,"
                " review_on) values (:reference, :case_number, :entity, :subject, :reason, :author, :now, :review_on)"
                " returning hold_id"
            ),
            {
                "reference": reference,
                "case_number": case_number,
                "entity": entity,
                "subject": subject,
                "reason": reason,
                "author": author,
                "now": now,
                "review_on": review_on,
            },
        ).scalar_one()
    )


def release_hold(
    connection: Connection, ledger: ErasureLedger, hold_id: int, *, by: str, reason: str, now: datetime
) -> Mapping[str, object]:
    """End a hold; what was due is in the next plan. Returns its row.

    Raises:
        UsageError: there is no such hold.
        Refused: it was released before.
    """
    row = connection.execute(
        text("select reference, released_at from ops.legal_holds where hold_id = :hold_id for update"),
        {"hold_id": hold_id},
    ).one_or_none()
    if row is None:
        raise UsageError(f"There is no hold {hold_id}.", hint="`kontor retention holds` lists them.")
    if row.released_at is not None:
        raise Refused(f"Hold {hold_id} was released already.", hint="`kontor retention holds --all` shows by whom.")
    released = (
        connection.execute(
            text(
                "update ops.legal_holds set released_at = :now, released_by = :by, release_reason = :reason"
                " where hold_id = :hold_id returning hold_id, entity, subject, placed_at, released_at"
            ),
            {"hold_id": hold_id, "by": by, "reason": reason, "now": now},
        )
        .mappings()
        .one()
    )
    mirror(connection, ledger.append([Entry(now, "release", reference=str(row.reference))]))
    return dict(released)
