"""A request to be erased, from the search to the proof that nobody is left.

The order, and what survives an abort: the request and the line in the ledger first, then files and Prefect's database,
the person's records and traces last, in one transaction. Until then the database still knows what the person is called,
so that the same command, run again after a kill at any point, finds and erases the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from configs.settings import Settings
from tasks.erasures.blind import blind_everywhere
from tasks.erasures.files import FileTrace, erase_in_files, find_in_files
from tasks.erasures.identities import IDENTITIES
from tasks.erasures.keys import ErasureKey
from tasks.erasures.ledger_file import Entry, ErasureLedger, Line
from tasks.erasures.prefect_store import erase_in_prefect
from tasks.erasures.store import hold_off_holds, let_go, mirror
from tasks.erasures.traces_store import erase_traces, find_traces
from tasks.errors import Refused, UsageError
from tasks.history.store import name_session
from tasks.retention.people_store import Person, find_person

RULE = "asked-to-be-erased"


@dataclass(frozen=True)
class Findings:
    """Where somebody stands: rows by table (own records, traces, Prefect's database) and files by what is done."""

    rows: Mapping[str, int] = field(default_factory=dict)
    files: tuple[FileTrace, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return not self.rows and not self.files

    def counts(self) -> dict[str, int]:
        """Rows by table and files by folder and action, without their names, which may be somebody's."""
        counts = dict(self.rows)
        for trace in self.files:
            place = f"files {trace.action}"
            counts[place] = counts.get(place, 0) + 1
        return counts


@dataclass(frozen=True)
class Office:
    """Where a request is dealt with: settings, the engine of the role that erases, the ledger and its key."""

    settings: Settings
    engine: Engine
    ledger: ErasureLedger
    key: ErasureKey


@dataclass(frozen=True)
class Erasure:
    """What became of a request: ``left`` is what is still found, empty when it is done."""

    reference: UUID
    at: datetime
    erased: Mapping[str, int]
    left: Mapping[str, int]
    exceptions: Mapping[str, str]
    backups_expire_on: date
    ledger_lines: tuple[int, ...]


def find_everywhere(office: Office, subject: str) -> tuple[Person, Findings]:
    """The person and everything that is found of them; nothing is changed.

    Raises:
        UsageError: nobody is known under what was given and nothing is found.
    """
    with office.engine.connect() as connection:
        person = find_person(connection, subject, office.key)
        if not person.is_known:
            raise UsageError(
                "Nobody is known under what was given.",
                hint="Give an e-mail address, a contact's external id, or a customer's number.",
            )
    return person, find_again(office, person)


def find_again(office: Office, person: Person) -> Findings:
    """What is found of a person by everything that was known of them, also when their record is gone."""
    with office.engine.connect() as connection:
        rows = {table: len(ids) for table, ids in person.records.items() if ids and _is_left(connection, table, ids)}
        rows |= find_traces(connection, person.terms)
    rows |= erase_in_prefect(office.settings, person.terms, live=False)
    return Findings(rows, tuple(find_in_files(office.settings.home, person.terms)))


def _is_left(connection: Connection, table: str, ids: tuple[int, ...]) -> bool:
    identity = IDENTITIES[table]
    statement = f"select exists (select from {table} r where r.{identity.key} = any(:ids) and {identity.differs})"
    return bool(connection.scalar(text(statement), {"ids": list(ids)}))


def check_holds(person: Person) -> None:
    """Refuse while a legal hold stands: what a claim needs is not erased (GDPR Art. 17(3)(e)).

    Raises:
        Refused: naming the holds.
    """
    if person.holds:
        numbers = ", ".join(map(str, person.holds))
        raise Refused(
            f"Legal hold {numbers} stands on this person or their firm. Nothing was erased.",
            hint="Tell the person why (GDPR Art. 17(3)(e)); when the case is closed, `kontor retention release`.",
        )


def erase_person(
    office: Office,
    person: Person,
    found: Findings,
    *,
    reason: str,
    author: str,
    run_id: int,
    now: datetime,
) -> Erasure:
    """Erase somebody everywhere and look again; the answer says what was erased, what is left, and what must stay.

    Raises:
        Refused: a legal hold stands.
    """
    check_holds(person)
    reference = _open_request(office, found, author=author, reason=reason, now=now)
    lines = office.ledger.append(_entries(person, reference, now))
    files = erase_in_files(office.settings.home, person.terms)
    erased = {f"files {trace.action}": sum(t.action == trace.action for t in files) for trace in files}
    erased |= erase_in_prefect(office.settings, person.terms, live=True)
    with office.engine.begin() as connection:
        name_session(connection, run_id, author)
        hold_off_holds(connection)
        erased |= _erase_in_database(connection, person, lines)
    left = find_again(office, person).counts() | _blindly_left(office)
    with office.engine.begin() as connection:
        expiry = backups_expire_on(connection, now.date())
        exceptions = _exceptions(connection, person, expiry)
        _close_request(connection, reference, erased, left, now)
    return Erasure(reference, now, erased, left, exceptions, expiry, tuple(line.sequence for line in lines))


def _open_request(office: Office, found: Findings, *, author: str, reason: str, now: datetime) -> UUID:
    with office.engine.begin() as connection:
        made: UUID = connection.execute(
            text(
                "insert into ops.erasure_requests (author, reason, received_at, found)"
                " values (:author, :reason, :now, cast(:found as jsonb)) returning reference"
            ),
            {"author": author, "reason": reason, "now": now, "found": json.dumps(found.counts())},
        ).scalar_one()
    return made


def _entries(person: Person, reference: UUID, now: datetime) -> list[Entry]:
    return [
        Entry(now, "request", entity, RULE, 1, str(reference), subjects)
        for entity, subjects in person.subjects.items()
        if subjects
    ]


def _erase_in_database(connection: Connection, person: Person, lines: list[Line]) -> dict[str, int]:
    """Their records, then whatever speaks of them; the ledger's copy makes them known to every later import."""
    mirror(connection, lines)
    erased: dict[str, int] = {}
    for table, ids in person.records.items():
        gone = let_go(connection, IDENTITIES[table], ids, delete=table == "crm.contacts")
        erased |= {table: gone["deleted"] + gone["anonymised"], "history.change_log": gone["history"]} if ids else {}
    for table, count in erase_traces(connection, person.terms).items():
        erased[table] = erased.get(table, 0) + count
    return {table: count for table, count in erased.items() if count}


def _blindly_left(office: Office) -> dict[str, int]:
    with office.engine.connect() as connection:
        found = blind_everywhere(connection, office.settings, office.key)
    return {f"{place} (by hash)": count for place, count in found.items()}


def backups_expire_on(connection: Connection, today: date) -> date:
    """The day on which the last backup that may still hold the person has expired, by the rule in force."""
    row = connection.execute(
        text(
            "select full_every_days, recovery_window_days, keep_daily, keep_weekly, keep_monthly"
            " from rules.backup_policy where valid @> cast(:today as date) limit 1"
        ),
        {"today": today},
    ).one_or_none()
    if row is None:
        return today
    window = row.full_every_days + row.recovery_window_days
    return today + timedelta(days=max(window, row.keep_daily, 7 * (row.keep_weekly + 1), 31 * (row.keep_monthly + 1)))


def _exceptions(connection: Connection, person: Person, expiry: date) -> dict[str, str]:
    """What stays although it was asked for, and why."""
    stays = {"backups": f"expire by {expiry}; a restore replays the erasure ledger before anybody uses the data"}
    if person.records.get("crm.organizations"):
        invoices = connection.scalar(
            text("select count(*) from crm.invoices where organization_id = any(:ids)"),
            {"ids": list(person.records["crm.organizations"])},
        )
        if invoices:
            stays["crm.invoices"] = (
                f"{invoices} invoices under the customer's number: bookkeeping law (GDPR Art. 17(3)(b)); name and tax"
                " number are gone"
            )
    return stays


def _close_request(
    connection: Connection, reference: UUID, erased: Mapping[str, int], left: Mapping[str, int], now: datetime
) -> None:
    connection.execute(
        text(
            "update ops.erasure_requests set state = :state, erased = cast(:erased as jsonb),"
            " left_standing = cast(:left as jsonb), certificate = :certificate, ended_at = :now"
            " where reference = :reference"
        ),
        {
            "state": "incomplete" if left else "erased",
            "erased": json.dumps(dict(erased)),
            "left": json.dumps(dict(left)),
            "certificate": f"erasure-{reference}.html",
            "now": now,
            "reference": reference,
        },
    )
