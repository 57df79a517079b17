"""A request to be erased on real files: found everywhere, gone everywhere, and nobody else is touched."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest
from sqlalchemy import text

from configs.settings import Settings
from flows.customer_import import customer_import
from tasks import database, ledger
from tasks.erasures.blind import blind_everywhere
from tasks.erasures.files import _texts_of, addresses_in_files
from tasks.erasures.keys import key_of
from tasks.erasures.replay_store import replay
from tasks.erasures.traces_store import blind_scan
from tasks.errors import Refused
from tasks.feeds.corrections import CorrectedRow
from tasks.feeds.parameters import FeedParameters
from tasks.retention.certificate import certificate_page, data_page
from tasks.retention.holds_store import place_hold
from tasks.retention.people_store import find_person, read_everything
from tasks.retention.plan_store import read_policies
from tasks.retention.policies import purposes_of
from tasks.retention.requests_store import Erasure, check_holds, erase_person, find_everywhere
from tasks.retention.requests_store import Office as Desk
from tests.corrections import held, settle
from tests.ledgers import write_csv
from tests.retentions import Office, without_engine

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)


@pytest.fixture
def office(kontor_settings: Settings, real_data: Path) -> Office:
    """The real customers and contacts, one weekly list, and the files they came from in the archive."""
    made = Office(kontor_settings)
    made.begin()
    for folder in ("outbox", "reports", "archive", "certificates"):
        shutil.rmtree(kontor_settings.home / folder, ignore_errors=True)
    made.weekly_year(real_data)
    archive = kontor_settings.home / "archive" / "contacts"
    archive.mkdir(parents=True)
    shutil.copy(real_data / "receivables" / "contacts.xlsx", archive / "2012-01-01_contacts.xlsx")
    return made


def _desk(office: Office) -> Desk:
    engine = database.engine_for(office.settings, database.RETENTION)
    return Desk(office.settings, engine, office.ledger, key_of(office.settings.home))


def _somebody(office: Office) -> dict[str, str]:
    return office.read(
        "select c.email, c.first_name, c.last_name, c.phone, o.customer_number, o.organization_id, c.external_id"
        " from crm.contacts c join crm.organizations o using (organization_id) join crm.invoices i using"
        " (organization_id) where email is not null and first_name is not null and last_name is not null"
        " order by contact_id limit 1"
    )[0]


def _plant(office: Office, who: dict[str, str]) -> None:
    """Put the person where people end up: notes, quarantine, mail, reports, logs."""
    with database.engine_for(office.settings, database.OWNER).begin() as connection:
        connection.execute(
            text("update crm.invoices set note = 'call ' || :first || ' ' || :last where organization_id = :id"),
            {"first": who["first_name"], "last": who["last_name"], "id": who["organization_id"]},
        )
        connection.execute(
            text(
                "insert into landing.quarantined_rows (feed_file_id, row_number, customer_number, cells, staged,"
                " reasons) select feed_file_id, 7001, :number,"
                " jsonb_build_object('First', cast(:first as text), 'Last', cast(:last as text), 'No',"
                " cast(:number as text)), jsonb_build_object('first_name', cast(:first as text), 'email',"
                " upper(:email)), '[]' from landing.feed_files where feed = 'contacts' limit 1"
            ),
            {
                "number": who["customer_number"],
                "first": who["first_name"],
                "last": who["last_name"],
                "email": who["email"],
            },
        )
    message = EmailMessage()
    message["To"], message["Subject"] = f"{who['first_name']} <{who['email']}>", "Reminder"
    message.set_content("Dear customer")
    held = office.settings.home / "outbox" / "held"
    held.mkdir(parents=True)
    (held / "1.eml").write_bytes(message.as_bytes())
    other = EmailMessage()
    other["To"] = "somebody.else@example.com"
    other.set_content("Dear customer")
    (held / "2.eml").write_bytes(other.as_bytes())
    reports = office.settings.home / "reports"
    reports.mkdir()
    (reports / "week.html").write_text(f"<p>sent to {who['email']}</p>")
    (reports / "week.csv").write_text(f"no;name;mail\n{who['customer_number']};X;{who['email']}\n9;Y;y@example.com\n")


def _erase(office: Office, subject: str) -> Erasure:
    desk = _desk(office)
    with ledger.open_run(
        office.books.engine, "erase", as_of=date(2026, 11, 20), dry_run=False, prefect_run_id=None, actor="tester"
    ) as run:
        person, found = find_everywhere(desk, subject)
        return erase_person(desk, person, found, reason="letter", author="tester", run_id=run.run_id, now=NOW)


def test_a_person_is_found_and_erased_everywhere(office: Office) -> None:
    """Record, role, history, note, quarantine, mail, report and archive: nothing is left, the others are untouched."""
    who = _somebody(office)
    _plant(office, who)
    before = addresses_in_files(office.settings.home)
    contacts = office.read("select email from crm.contacts order by contact_id")
    found = find_everywhere(_desk(office), who["email"])[1].counts()
    assert {"crm.contacts", "crm.invoices", "landing.quarantined_rows", "files removed", "files redacted"} <= set(found)
    assert (found["files removed"], found["files redacted"]) == (1, 3)

    done = _erase(office, who["email"].upper())
    assert done.left == {}
    assert done.erased["crm.contacts"] == 1
    with office.erasing() as connection:
        assert blind_everywhere(connection, office.settings, key_of(office.settings.home)) == {}
        late = office.settings.home / "reports" / "late.txt"
        late.write_text(f"to: {who['email'].upper()}")
        assert blind_everywhere(connection, office.settings, key_of(office.settings.home)) == {"files": 1}
        late.unlink()
    assert addresses_in_files(office.settings.home) == before - {who["email"]}
    assert office.read("select email from crm.contacts order by contact_id") == [
        row for row in contacts if row["email"] != who["email"]
    ]
    row = office.read("select cells, staged, state from landing.quarantined_rows where row_number = 7001")[0]
    assert row == {
        "cells": {"First": "[erased]", "Last": "[erased]", "No": who["customer_number"]},
        "staged": {"first_name": "[erased]", "email": "[erased]"},
        "state": "rejected",
    }
    notes = office.read("select distinct note from crm.invoices where note is not null")
    assert notes == [{"note": "call [erased]"}]
    assert office.read("select state, left_standing from ops.erasure_requests") == [
        {"state": "erased", "left_standing": {}}
    ]
    again = _erase(office, who["email"])
    assert (again.left, again.erased) == ({}, {})


def test_the_certificate_names_nobody(office: Office) -> None:
    """It says what, where and when, why something stays, and when the last backup expires."""
    who = _somebody(office)
    done = _erase(office, who["customer_number"])
    assert set(done.exceptions) == {"backups", "crm.invoices"}
    page = certificate_page(
        reference=str(done.reference),
        received_at=done.at,
        erased=done.erased,
        left=done.left,
        exceptions=done.exceptions,
        backups_expire_on=done.backups_expire_on,
        ledger_lines=done.ledger_lines,
    )
    assert str(done.reference) in page
    assert "bookkeeping law" in page
    assert str(done.backups_expire_on) in page
    assert not any(value in page for value in (who["email"], who["last_name"]))
    assert "Record as a customer<small>crm.organizations</small>" in page
    names = office.read(
        "select name, vat_number from crm.organizations where customer_number = :n", n=who["customer_number"]
    )
    assert names == [{"name": "[erased]", "vat_number": None}]


def test_a_hold_keeps_a_person_from_being_erased(office: Office) -> None:
    """The firm is held for a case: the request is refused with the hold's number, and nothing changes."""
    who = _somebody(office)
    with office.erasing() as connection:
        firm = connection.scalar(
            text("select external_id from crm.organizations where customer_number = :n"), {"n": who["customer_number"]}
        )
        assert firm is not None
        number = place_hold(
            connection,
            office.ledger,
            entity="crm.organizations",
            subject=firm,
            case_number="C 1/26",
            reason="claim",
            author="counsel",
            review_on=date(2027, 1, 1),
            now=NOW,
        )
        person = find_person(connection, who["email"], key_of(office.settings.home))
    with pytest.raises(Refused, match=f"hold {number} stands"):
        check_holds(person)
    with pytest.raises(Refused):
        _erase(office, who["email"])
    assert office.read("select count(*) as n from crm.contacts where email = :e", e=who["email"]) == [{"n": 1}]


def test_a_person_gets_everything_that_is_kept(office: Office) -> None:
    """Record, roles, history and notes, for machines and to read; nobody else's address is among them."""
    who = _somebody(office)
    _plant(office, who)
    with office.erasing() as connection:
        person = find_person(connection, who["email"], key_of(office.settings.home))
        tables = read_everything(connection, person, office.settings.home)
        tables["purposes"] = purposes_of(read_policies(connection, date(2026, 11, 20)), tables)
    assert {"crm.contacts", "crm.contact_roles", "history of crm.contacts", "crm.invoices"} <= set(tables)
    assert {"outbox/held/1.eml", "reports/week.html"} <= {row["file"] for row in tables["files"]}
    assert {
        "table": "crm.contacts",
        "purpose": "writing to the right person about invoices",
        "legal_basis": "GDPR Art. 6(1)(f), legitimate interest in claims until they lapse",
        "kept": "36 months from last activity",
        "then": "deleted",
    } in tables["purposes"]
    assert [row["email"] for row in tables["crm.contacts"]] == [who["email"]]
    page = data_page(tables, at=NOW)
    assert who["email"] in page
    assert "somebody.else" not in page


def test_a_file_does_not_bring_the_erased_back(
    office: Office, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender delivers the old lists again under other names: erased rows wait without content, the rest comes in.

    Nobody is left in the database nor in the archive, by name or by hash; an erased firm's number and terms are.
    """
    without_engine(monkeypatch)
    who = _somebody(office)
    firm = office.read(
        "select customer_number, name from crm.organizations where customer_number <> :n order by 1 desc limit 1",
        n=who["customer_number"],
    )[0]
    _erase(office, who["email"])
    _erase(office, firm["customer_number"])
    inbox = office.settings.inbox_path
    inbox.mkdir(parents=True, exist_ok=True)
    for name, feed in (("contacts", "contacts"), ("customers", "organizations")):
        shutil.copy(real_data / "receivables" / f"{name}.xlsx", inbox / f"{feed}_2012-06-30.xlsx")
    customer_import.fn(FeedParameters())
    rows = office.read("select cells, staged, reasons -> 0 ->> 'code' as code from landing.quarantined_rows")
    assert sorted(rows, key=str) == sorted(
        (
            {"cells": {}, "staged": {"customer_number": number}, "code": "erased"}
            for number in (who["customer_number"], firm["customer_number"])
        ),
        key=str,
    )
    kept = [cell for path in sorted(office.settings.home.glob("archive/organizations/*")) for cell in _texts_of(path)]
    assert firm["customer_number"] in kept
    assert firm["name"] not in kept
    assert len([cell for cell in kept if cell]) > 300
    desk = _desk(office)
    with office.erasing() as connection:
        assert blind_scan(connection, desk.key) == {}
    assert find_everywhere(desk, who["email"])[1].counts() == {}
    assert len(list((office.settings.home / "archive" / "contacts").iterdir())) == 2
    assert who["email"] not in addresses_in_files(office.settings.home)
    assert office.count("crm.contacts") == 205


def test_a_weekly_file_does_not_bring_an_erased_firms_name_back(office: Office, tmp_path: Path) -> None:
    """The firm's items come in, one of them waits in quarantine: its name is kept in neither."""
    firm, second = office.read("select customer_number, name from crm.organizations order by 1 limit 2")
    _erase(office, firm["customer_number"])
    item = {
        "customer_number": firm["customer_number"], "customer_name": firm["name"], "invoice_number": "N-1",
        "issue_date": "2012-06-01", "due_date": "2012-07-01", "currency": "EUR", "amount": "10.00",
        "settled_date": "2012-07-15",
    }  # fmt: skip
    lines = [item, {**item, "invoice_number": "N-2", "amount": "ten"}]
    other = {**item, "customer_number": second["customer_number"], "customer_name": second["name"]}
    lines += [{**other, "invoice_number": f"O-{n}"} for n in range(30)]
    path = write_csv(tmp_path / "settled.csv", lines)
    key = key_of(office.settings.home)
    taken = office.books.take_in(path, "settled_items", date(2012, 8, 1), erasure_key=key)
    waiting = office.read("select cells::text || staged::text as kept from landing.quarantined_rows")
    assert len(waiting) == 1, taken
    assert not any(firm["name"] in row["kept"] for row in waiting)
    assert office.read("select invoice_number from crm.invoices where invoice_number = 'N-1'") == [
        {"invoice_number": "N-1"}
    ]


def test_a_correction_does_not_bring_the_erased_back(office: Office, tmp_path: Path) -> None:
    """A row is corrected into the erased: it waits on, without content, and what was typed is kept nowhere.

    The other corrected row of the same file comes in.
    """
    who = _somebody(office)
    _erase(office, who["email"])
    wrong = {
        "customer_number": who["customer_number"],
        "first_name": "New",
        "email": "old@example.com",
        "roles": "payments",
        "valid_from": "soon",
    }
    lines = [{**wrong, "last_name": name} for name in ("Person", "Other")]
    good = {**wrong, "valid_from": ""}
    lines += [{**good, "last_name": "Good", "email": f"good{n}@example.com"} for n in range(20)]
    office.books.take_in(write_csv(tmp_path / "more.csv", lines), "contacts", date(2012, 7, 1))
    rows = held(office.books)
    assert len(rows) == 2
    wanted = [
        CorrectedRow(rows[0].row_id, 0, {"email": who["email"].upper(), "valid_from": "2012-07-01"}),
        CorrectedRow(rows[1].row_id, 0, {"email": "other@example.com", "valid_from": "2012-07-01"}),
    ]
    done = settle(office.books, rows, wanted)
    assert (done.taken_in, done.still_wrong) == (1, (rows[0].row_id,))
    kept = office.read(
        "select cells, staged, reasons -> 0 ->> 'code' as code from landing.quarantined_rows"
        " where quarantined_row_id = :row",
        row=rows[0].row_id,
    )
    assert kept == [{"cells": {}, "staged": {"customer_number": who["customer_number"]}, "code": "erased"}]
    said = office.read(
        "select distinct old_value, new_value from landing.corrections where quarantined_row_id = :row",
        row=rows[0].row_id,
    )
    assert said == [{"old_value": "[erased]", "new_value": "[erased]"}]
    assert office.read("select count(*) as n from crm.contacts where lower(email) = 'other@example.com'") == [{"n": 1}]
    with office.erasing() as connection:
        assert blind_scan(connection, key_of(office.settings.home)) == {}


def test_a_restore_does_not_bring_the_erased_back(office: Office) -> None:
    """The rows of before come back as a restore would bring them: the replay finds the person in all of them again."""
    who = _somebody(office)
    _plant(office, who)
    saved = {table: office.read(f"select * from {table}") for table in ("crm.contacts", "landing.quarantined_rows")}
    _erase(office, who["email"])
    with database.engine_for(office.settings, database.OWNER).begin() as connection:
        connection.execute(
            text("truncate crm.contact_roles, crm.contacts, ops.erased_subjects, ops.erasure_ledger cascade")
        )
        connection.execute(
            text(
                "insert into crm.contacts (organization_id, contact_key, first_name, last_name, email, phone,"
                " seen_as_of, feed_file_id) values (:organization_id, :contact_key, :first_name, :last_name, :email,"
                " :phone, :seen_as_of, :feed_file_id)"
            ),
            saved["crm.contacts"],
        )
        connection.execute(
            text("update landing.quarantined_rows set staged = jsonb_build_object('email', cast(:e as text))"),
            {"e": who["email"]},
        )
    key = key_of(office.settings.home)
    for _ in range(2):
        replay(database.engine_for(office.settings, database.RETENTION), office.ledger, key)
        with office.erasing() as connection:
            assert blind_scan(connection, key) == {}
    assert office.count("crm.contacts") == len(saved["crm.contacts"]) - 1
