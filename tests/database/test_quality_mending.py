"""Roles mended in a workbook come back as the whole of what a contact's file says; what others must mend is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from configs.settings import Settings
from flows.commands.quality_sheet import _elsewhere, _held
from tasks.feeds.contracts import load_contract
from tasks.feeds.correction_workbook import OF_RECORDS, HandedOut, write_corrections
from tasks.feeds.corrections import CorrectedRow
from tasks.quality.mending import ELSEWHERE, NAMED_BY, Broken, mended_files
from tasks.quality.mending_store import fetch_broken, fetch_elsewhere
from tests.database.test_quality import check
from tests.ledgers import TODAY, Books, item, write_csv

CONTRACTS = {name: load_contract(name) for name in NAMED_BY}


@pytest.fixture
def books(kontor_settings: Settings, tmp_path: Path) -> Books:
    """One customer whose contacts are: one with a role in a wrong year beside a right one, one without any today."""
    made = Books(kontor_settings)
    made.customers(tmp_path, ["1"])
    far = (TODAY + timedelta(days=4000)).isoformat()
    people: list[dict[str, object]] = [
        {"customer_number": "1", "email": "a@x.example", "roles": "payments", "valid_from": far, "valid_to": ""},
        {"customer_number": "1", "email": "a@x.example", "roles": "manager", "valid_from": "", "valid_to": ""},
        {
            "customer_number": "1",
            "email": "b@x.example",
            "roles": "manager",
            "valid_from": "",
            "valid_to": "2020-01-01",
        },
    ]
    made.take_in(write_csv(tmp_path / "people.csv", people), "contacts", TODAY - timedelta(days=9))
    items = [item("1", "A", "5.00", TODAY - timedelta(days=500)), item("1", "B", "6.00", TODAY + timedelta(days=5))]
    made.take_in(write_csv(tmp_path / "items.csv", items), "open_items", TODAY)
    check(kontor_settings, TODAY)
    return made


def _roles(books: Books) -> list[dict[str, Any]]:
    return books.read(
        "select c.email, r.role, lower(r.valid) as since, upper(r.valid) as until from crm.contact_roles r"
        " join crm.contacts c using (contact_id) order by 1, 2"
    )


def _records(books: Books) -> dict[int, Broken]:
    with books.engine.connect() as connection:
        return {int(record.incidents[0]["incident_id"]): record for record in fetch_broken(connection)}


def test_a_mended_role_leaves_the_contacts_other_roles_as_they_are(books: Books, tmp_path: Path) -> None:
    """A wrong year is corrected and a missing role given; what was not touched stays, and the incidents close."""
    records, before = _records(books), _roles(books)
    held = {row.row_id: row for row in _held(list(records.values()), CONTRACTS) if row is not None}
    may = {(records[number].table, reason["column_name"]) for number, row in held.items() for reason in row.reasons}
    assert {("crm.contact_roles", "valid_from"), ("crm.contacts", "roles")} <= may
    changes = {"crm.contact_roles": {"valid_from": TODAY.isoformat()}, "crm.contacts": {"roles": "promotions"}}
    wanted = [
        CorrectedRow(number, place, changes[record.table])
        for place, (number, record) in enumerate(records.items())
        if any(incident["rule_id"] in ("role_begins_plausibly", "contact_has_role") for incident in record.incidents)
    ]
    assert len(wanted) == 2
    [file] = mended_files(wanted, records, CONTRACTS, TODAY)
    assert sum(1 for ids in file.incidents if ids) == 2
    path = write_csv(
        tmp_path / "corrected_contacts_roles.csv", [dict(zip(file.headings, row, strict=True)) for row in file.rows]
    )
    outcome = books.take_in(path, file.contract, TODAY)
    assert (outcome.state, outcome.quarantined) == ("applied", 0), (outcome.reasons, outcome.hint)
    after = _roles(books)
    assert {"email": "a@x.example", "role": "payments", "since": TODAY, "until": None} in after
    assert {"email": "b@x.example", "role": "promotions", "since": TODAY, "until": None} in after
    assert [row for row in before if row["role"] == "manager"] == [row for row in after if row["role"] == "manager"]
    check(books.settings, TODAY + timedelta(days=1))
    open_ones = "select rule_id from ops.quality_incidents where state = 'open'"
    assert not {"role_begins_plausibly", "contact_has_role"} & {row["rule_id"] for row in books.read(open_ones)}


def test_what_accounting_says_is_told_beside_with_who_can_mend_it(books: Books, tmp_path: Path) -> None:
    """An invoice that is overdue for a year stands in a sheet of its own; no line of it can be filled in."""
    records = list(_records(books).values())
    rows = [HandedOut(row, CONTRACTS[row.contract]) for row in _held(records, CONTRACTS) if row is not None]
    with books.engine.connect() as connection:
        others = fetch_elsewhere(connection, records)
    write_corrections(rows, tmp_path / "sheet.xlsx", OF_RECORDS, _elsewhere(others))
    workbook = openpyxl.load_workbook(tmp_path / "sheet.xlsx")
    told = {row[3]: row[-1] for row in workbook["Mended elsewhere"].iter_rows(min_row=2, values_only=True)}
    assert told.get("invoice_still_pursued", told) == ELSEWHERE["crm.invoices"]
    assert workbook["Mended elsewhere"].protection.sheet
    assert not {item.row.contract for item in rows} - {"corrected_contacts", "corrected_organizations"}
    mended_here = {int(incident["incident_id"]) for record in records for incident in record.incidents}
    assert not mended_here & {int(row["incident_id"]) for row in others}
