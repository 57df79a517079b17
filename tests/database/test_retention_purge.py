"""The purge on real ledgers: what is due goes with its history, what is held or needed stays, all as planned."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from configs.settings import Settings
from tasks import database
from tasks.errors import Refused
from tasks.retention.holds_store import find_subject, place_hold, release_hold
from tests.histories import add_customer, register_file
from tests.retentions import Office, without_engine

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)


@pytest.fixture
def office(kontor_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Office:
    """An empty installation with a fresh ledger."""
    without_engine(monkeypatch)
    made = Office(kontor_settings)
    made.begin()
    return made


def _hold(office: Office, subject: str) -> int:
    with office.erasing() as connection:
        entity, external_id = find_subject(connection, subject)
        return place_hold(
            connection,
            office.ledger,
            entity=entity,
            subject=external_id,
            case_number="C 1/26",
            reason="claim before the court",
            author="counsel",
            review_on=date(2027, 1, 31),
            now=NOW,
        )


def test_a_year_of_ledgers_goes_step_by_step(office: Office, real_data: Path) -> None:
    """Contacts go three years after the last invoice, invoices after ten years, organisations when they are alone."""
    # History outlives the emptying of the other tables: what earlier tests left is not looked at.
    before = office.read("select coalesce(max(entry_id), 0) as n from history.change_log")[0]["n"]
    office.weekly_year(real_data, last=3)
    contacts, customers, invoices = (office.count(f"crm.{name}") for name in ("contacts", "organizations", "invoices"))
    assert (contacts, customers) == (206, 100)
    assert office.purge(as_of=date(2014, 12, 31))["due"] == 0

    open_firms = office.read("select count(distinct organization_id) as n from crm.invoices where listed_until is null")
    gone = office.plan_and_apply(date(2016, 1, 1))
    assert gone["gone"] > 0
    left = office.read(
        "select count(*) as n from crm.contacts c where exists (select from crm.invoices i"
        " where i.organization_id = c.organization_id and i.listed_until is null)"
        " or exists (select from crm.contact_roles r where r.contact_id = c.contact_id"
        " and upper(r.valid) - 1 > '2012-12-31')"
    )
    assert office.count("crm.contacts") == left[0]["n"]
    assert office.count("crm.invoices") == invoices
    assert open_firms[0]["n"] > 0

    office.age("crm.invoices", "listed_until", date(2012, 3, 1))
    office.plan_and_apply(date(2022, 12, 31))
    assert office.count("crm.contacts") == 0
    assert office.count("crm.invoices") == invoices
    office.plan_and_apply(date(2023, 1, 1))
    assert office.count("crm.invoices") == 0
    office.plan_and_apply(date(2023, 1, 1))  # firms whose last invoice went with the plan before
    assert (office.count("crm.contacts"), office.count("crm.invoices"), office.count("crm.organizations")) == (0, 0, 0)
    assert office.purge(as_of=date(2023, 1, 1))["due"] == 0
    named = office.read(
        "select count(*) as n from history.changes h join ops.run_ledger l using (run_id)"
        " where table_name = 'contacts' and not erased and (old_value like '%@%' or new_value like '%@%')"
        " and entry_id > :before",
        before=before,
    )
    assert named == [{"n": 0}]
    erased = {s.external_id for line in office.ledger.in_force() for s in line.subjects}
    assert len(erased) == contacts + customers
    told = {row["rule_id"]: row for row in office.read("select rule_id, due, overdue, done from report.retention")}
    assert told["contacts-inactive"] == {"rule_id": "contacts-inactive", "due": 0, "overdue": 0, "done": contacts}
    assert told["invoices-booked"]["done"] == invoices


def test_what_is_held_stays_and_goes_when_the_hold_ends(office: Office, real_data: Path) -> None:
    """Two holds on one customer: its contacts stay until the last hold is released, and are due again then."""
    office.weekly_year(real_data)
    office.age("crm.invoices", "listed_until", date(2012, 3, 1))
    number = office.read(
        "select customer_number from crm.organizations join crm.contacts using (organization_id) order by 1 limit 1"
    )[0]["customer_number"]
    first, second = _hold(office, number), _hold(office, number)
    planned = office.purge(as_of=date(2021, 1, 1))
    assert planned["held"] > 0
    office.plan_and_apply(date(2021, 1, 1))
    held = office.read(
        "select distinct customer_number from crm.contacts join crm.organizations using (organization_id)"
    )
    assert held == [{"customer_number": number}]
    for hold in (first, second):
        assert office.count("crm.contacts") > 0
        with office.erasing() as connection:
            release_hold(connection, office.ledger, hold, by="counsel", reason="settled", now=NOW)
        office.plan_and_apply(date(2021, 1, 1))
    assert office.count("crm.contacts") == 0
    with pytest.raises(Refused, match="released already"), office.erasing() as connection:
        release_hold(connection, office.ledger, first, by="counsel", reason="again", now=NOW)


def test_a_wide_plan_needs_a_second_person(office: Office, real_data: Path) -> None:
    """More than a rule's share goes: who made the plan cannot agree to it, and nothing goes before somebody does."""
    office.weekly_year(real_data)
    office.age("crm.invoices", "listed_until", date(2012, 3, 1))
    planned = office.purge(as_of=date(2021, 1, 1))
    with pytest.raises(Refused, match="second person"):
        office.purge(plan_id=planned["plan"], dry_run=False)
    maker = office.read("select made_by from ops.retention_plans")[0]["made_by"]
    with pytest.raises(Refused, match="same person"):
        office.purge(plan_id=planned["plan"], dry_run=False, approved_by=maker)
    assert office.count("crm.contacts") == 206
    office.purge(plan_id=planned["plan"], dry_run=False, approved_by="another")
    assert office.count("crm.contacts") == 0
    with pytest.raises(Refused, match="applied already"):
        office.purge(plan_id=planned["plan"], dry_run=False)


def test_a_plan_that_no_longer_fits_is_refused(office: Office, real_data: Path) -> None:
    """More became due than was planned; the day lies ahead: nothing goes."""
    office.weekly_year(real_data)
    office.age("crm.contacts", "seen_as_of", date(2020, 6, 30))
    planned = office.purge(as_of=date(2021, 1, 1))
    office.age("crm.invoices", "listed_until", date(2012, 3, 1))
    office.age("crm.contacts", "seen_as_of", date(2012, 1, 1))
    before = office.count("crm.contacts")
    with pytest.raises(Refused, match="More is due"):
        office.purge(plan_id=planned["plan"], dry_run=False, approved_by="another")
    ahead = office.purge(as_of=date(2199, 1, 1))
    with pytest.raises(Refused, match="lies ahead"):
        office.purge(plan_id=ahead["plan"], dry_run=False, approved_by="another")
    assert office.count("crm.contacts") == before
    assert list(office.ledger.read()) == []


def test_what_is_blanked_stays_on_its_page_and_out_of_every_index(office: Office) -> None:
    """Of a year's invoices one month's notes go: each row stays on its page and no index has what changed (HOT)."""
    with database.engine_for(office.settings, database.OWNER).begin() as connection:
        add_customer(connection, "A")
        file = register_file(connection)
        connection.execute(text(_INVOICES), {"file": file})
        indexed = connection.execute(text(_INDEXED)).all()
    assert indexed == []
    before = {row["invoice_id"]: row["page"] for row in office.read(_PLACES)}
    office.plan_and_apply(date(2026, 11, 22))
    blanked = [row for row in office.read(_PLACES) if row["note"] is None]
    assert len(blanked) == 100
    assert [row for row in blanked if row["page"] != before[row["invoice_id"]]] == []


_PLACES = "select invoice_id, note, (ctid::text::point)[0] as page from crm.invoices"

_INVOICES = """
insert into crm.invoices (organization_id, source, invoice_number, document_type, issued_on, due_on, currency, amount,
                          open_amount, disputed, note, listed_from, listed_until, feed_file_id)
select organization_id, 'ledger', 'I' || n, 'invoice', day, day, 'EUR', 100, 0, false, 'ring Mrs Nowak before', day,
       day + 7, :file
from (select n, date '2023-11-01' - 8 + 31 * (n % 12) as day from generate_series(1, 1200) n) i, crm.organizations
where customer_number = 'A'
"""

# Columns that a rule blanks and that an index holds.
_INDEXED = """
select p.entity, a.attname from rules.retention_policy p
join pg_index i on i.indrelid = to_regclass(p.entity)
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
where p.action = 'anonymise'
  and a.attname in (select split_part(btrim(c), '=', 1) from regexp_split_to_table(p.columns, ';') c)
"""
