"""Rules over stored data: each fails when its defect is planted, and what fails is an incident until it is mended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks import database
from tasks.errors import PartlyDone, Refused, UsageError
from tasks.ledger import open_run
from tasks.quality import steps
from tasks.quality.backtest_store import backtest
from tasks.quality.checks_store import ROW_KINDS, Result, check_table, create_failing, in_force
from tasks.quality.contracts import CONTRACTS_FOLDER, TableContract, list_table_contracts, load_table_contract
from tasks.quality.incidents_store import fetch_incident, waive
from tasks.quality.pages_store import write_pages
from tasks.quality.parameters import QualityParameters
from tasks.quality.steps import Checked, QualityRun
from tasks.quality_gate import require_quality
from tests.ledgers import Books, item, write_csv
from tests.quality_samples import BAD, BOUNDARY, DAY, over_rows

RULES = [
    pytest.param(contract.name, rule.rule_id, id=rule.rule_id)
    for contract in list_table_contracts()
    for rule in contract.rules
    if rule.kind in ROW_KINDS
]
TODAY = date(2026, 3, 2)


@pytest.fixture
def connection(prepared: Settings) -> Iterator[Connection]:
    """A connection as the owner whose transaction is rolled back."""
    with database.engine_for(prepared, database.OWNER).connect() as opened:
        create_failing(opened)
        yield opened
        opened.rollback()


def _failing(connection: Connection, contract: TableContract) -> dict[str, set[int]]:
    results = check_table(connection, contract, DAY)
    assert [result.rule.rule_id for result in results if result.state == "error"] == []
    found: dict[str, set[int]] = {}
    for row in connection.execute(text("select rule_id, record_id from failing_record")):
        found.setdefault(row.rule_id, set()).add(row.record_id)
    return found


@pytest.mark.parametrize(("name", "rule_id"), RULES)
def test_each_rule_finds_its_defect_and_nothing_else(connection: Connection, name: str, rule_id: str) -> None:
    """Of a good row, one on the boundary, one that breaks the rule and another good one, the third alone fails it."""
    contract = load_table_contract(name)
    rows = [{}, BOUNDARY[rule_id], BAD[rule_id], {}]
    found = _failing(connection, over_rows(contract, rows))
    # Of a repeated key both rows fail: nobody knows which of them is right.
    repeated = next(rule.kind == "unique" for rule in contract.rules if rule.rule_id == rule_id)
    assert found.pop(rule_id) == ({1, 3} if repeated else {3})
    assert all(4 not in others for others in found.values())


def test_good_rows_fail_nothing(connection: Connection) -> None:
    """No rule of any contract complains of good rows."""
    for contract in list_table_contracts():
        assert _failing(connection, over_rows(contract, [{}, {}, {}])) == {}


def test_a_missing_column_costs_the_rules_that_read_it_and_no_other(connection: Connection) -> None:
    """What cannot be asked is an error with the server's words; the others are asked, and drift names the column."""
    connection.execute(text("alter table crm.contacts rename column email to mail"))
    contract = load_table_contract("contacts")
    plain = over_rows(contract, [{}, BAD["contact_name_present"]])
    plain = plain.__class__(**{**plain.__dict__, "rows": plain.rows.replace("email", "mail")})
    results = {result.rule.rule_id: result for result in check_table(connection, plain, DAY)}
    errors = {rule_id: result for rule_id, result in results.items() if result.state == "error"}
    assert set(errors) == {"contact_email_present", "contact_email_form", "contact_email_of_one_customer"}
    assert all(str(item.error).startswith("SQLSTATE 42703") and item.failing is None for item in errors.values())
    assert results["contact_name_present"].failing == 1
    assert results["contacts_columns"].state == "fail"
    assert "crm.contacts.email" in connection.scalars(text("select record_key from failing_record")).all()


def test_a_dropped_table_is_an_error_of_every_rule(connection: Connection) -> None:
    """Without the table nothing passes and nothing fails."""
    connection.execute(text("alter table landing.quarantined_rows rename to elsewhere"))
    results = check_table(connection, load_table_contract("quarantine"), DAY)
    assert len(results) == 3
    assert {result.state for result in results} == {"error"}


def test_a_column_of_another_type_is_told_and_errors_where_it_matters(connection: Connection) -> None:
    """A date kept as text drifts, and the rules that calculate with it are errors, not failures."""
    contract = load_table_contract("invoices")
    as_text = over_rows(contract, [{}, BAD["invoice_currency_code"]])
    rows = f"select r.*, due_on::text as due from ({as_text.rows}) r"
    drifted = as_text.__class__(**{**as_text.__dict__, "rows": rows.replace("select r.*", _but("due_on"))})
    results = {result.rule.rule_id: result.state for result in check_table(connection, drifted, DAY)}
    assert results["invoice_currency_code"] == "fail"
    assert results["invoice_term_plausible"] == results["invoice_due_not_before_issue"] == "error"


def _but(column: str) -> str:
    from tests.quality_samples import GOOD

    kept = ", ".join(f"r.{name}" for name in GOOD["invoices"] if name != column)
    return f"select {kept}, r.{column}::text as {column}"


# --- incidents --------------------------------------------------------------------------------------------------------


def check(settings: Settings, day: date, *, dry_run: bool = False, contracts: tuple[str, ...] = ()) -> Checked:
    """What the flow does, without Prefect: read the rules, check, keep."""
    parameters = QualityParameters(as_of=day, dry_run=dry_run, contracts=contracts)
    engine = database.engine_for(settings)
    with open_run(engine, "data_quality", as_of=day, dry_run=dry_run, prefect_run_id=None, actor="test") as run:
        quality = QualityRun(run, settings, engine, parameters)
        return steps.check_tables.fn(quality, steps.read_rules.fn(quality))


@pytest.fixture
def books(kontor_settings: Settings, tmp_path: Path) -> Books:
    """Three customers, of whom one has an owner, and what they owe."""
    made = Books(kontor_settings)
    rows: list[dict[str, object]] = [
        {"customer_number": "1", "name": "Alfa", "country": "BG", "language": "bg", "vat_number": "BG175074752",
         "currency": "EUR", "payment_terms_days": 30, "owner": "petar"},
        {"customer_number": "2", "name": "Beta", "country": "BG", "language": "bg", "vat_number": "", "currency": "EUR",
         "payment_terms_days": 30, "owner": ""},
        {"customer_number": "3", "name": "Gamma", "country": "", "language": "", "vat_number": "", "currency": "EUR",
         "payment_terms_days": 30, "owner": "rosen"},
    ]  # fmt: skip
    made.take_in(write_csv(tmp_path / "organizations.csv", rows), "organizations", TODAY)
    items = [item("1", "A", "100.00", TODAY + timedelta(days=9)), item("3", "G", "70.50", TODAY - timedelta(days=9))]
    made.take_in(write_csv(tmp_path / "items.csv", items), "open_items", TODAY)
    return made


_STATE = (
    "select rule_id, record_key, state, owner, severity, first_seen, last_seen, occurrences, regressions, due_on,"
    " money, waived_until, closed_on, customer_number, reason from report.quality_incidents"
    " order by rule_id, record_key"
)


def _standing(books: Books, rule_id: str) -> list[tuple[str, str, int]]:
    rows = books.read(_STATE)
    return [
        (row["record_key"], row["state"], row["occurrences"])
        for row in rows
        if row["rule_id"] == rule_id and row["state"] != "closed"
    ]


def test_an_incident_has_its_owner_its_date_and_the_money_at_stake(books: Books) -> None:
    """The account's owner comes first where the rule says so, the money is what that customer owes."""
    kept = check(books.settings, TODAY).kept
    rows = {(row["rule_id"], row["record_key"]): row for row in books.read(_STATE)}
    assert kept.opened == len(rows) == kept.standing
    country = rows["organization_country_present", "3"]
    assert (country["owner"], country["money"], country["due_on"]) == ("rosen", {"EUR": "70.5000"}, date(2026, 3, 16))
    contact = rows["organization_payments_contact", "1"]
    assert (contact["owner"], contact["money"]) == ("petar", {"EUR": "100.0000"})
    assert rows["organization_vat_present", "2"]["owner"] == "sales operations"
    assert rows["organization_owner_present", "2"]["reason"] == "owner is missing"
    assert ("organization_vat_present", "1") not in rows


def test_a_second_run_of_the_day_changes_nothing_and_the_next_day_counts(books: Books) -> None:
    """Occurrences are days, not runs; a run of an earlier day is refused and a dry one keeps nothing."""
    check(books.settings, TODAY)
    before, figures = books.read(_STATE), books.read("select * from report.quality_measures order by 1, 2, 3")
    again = check(books.settings, TODAY).kept
    assert (again.opened, again.closed, again.reopened) == (0, 0, 0)
    assert books.read(_STATE) == before
    assert books.read("select * from report.quality_measures order by 1, 2, 3") == figures
    check(books.settings, TODAY + timedelta(days=1), dry_run=True)
    assert books.read(_STATE) == before
    check(books.settings, TODAY + timedelta(days=1))
    assert {row["occurrences"] for row in books.read(_STATE)} == {2}
    with pytest.raises(Refused, match="2026-03-03"):
        check(books.settings, TODAY)


def test_an_incident_closes_by_itself_and_comes_back_as_a_regression(books: Books, tmp_path: Path) -> None:
    """Mended data close it on the next run; broken again it is the same incident, reopened, with a new due date."""
    check(books.settings, TODAY)
    rule = "organization_country_present"
    assert _standing(books, rule) == [("3", "open", 1)]
    for days, country in ((1, "NO"), (2, "")):
        day = TODAY + timedelta(days=days)
        path = write_csv(tmp_path / f"o{days}.csv", [{"customer_number": "3", "name": "Gamma", "country": country}])
        books.take_in(path, "organizations", day)
        check(books.settings, day)
        assert _standing(books, rule) == ([] if country else [("3", "open", 2)])
    row = next(row for row in books.read(_STATE) if row["rule_id"] == rule)
    assert (row["regressions"], row["first_seen"], row["due_on"]) == (1, TODAY, date(2026, 3, 18))
    events = books.read(
        "select e.event from report.quality_incident_events e join report.quality_incidents i using (incident_id)"
        " where i.rule_id = :rule order by e.recorded_at, e.happened_on", rule=rule,
    )  # fmt: skip
    assert [event["event"] for event in events] == ["opened", "closed", "reopened"]


def test_a_waiver_rests_until_its_day_and_then_the_incident_is_open_again(books: Books) -> None:
    """Through the last day it is waived, on the next one open; without a reason there is no waiver."""
    check(books.settings, TODAY)
    rule = "organization_country_present"
    number = books.read("select incident_id from ops.quality_incidents where rule_id = :rule", rule=rule)[0][
        "incident_id"
    ]
    until = TODAY + timedelta(days=1)
    with database.engine_for(books.settings).begin() as connection:
        waive(connection, number, until, "the registry is being asked", "anna", TODAY)
    assert _standing(books, rule) == [("3", "waived", 1)]
    check(books.settings, until)
    assert _standing(books, rule) == [("3", "waived", 2)]
    check(books.settings, until + timedelta(days=1))
    assert _standing(books, rule) == [("3", "open", 3)]
    with database.engine_for(books.settings).begin() as connection:
        events = [event["event"] for event in fetch_incident(connection, number)["events"]]
        with pytest.raises(UsageError, match="reason"):
            waive(connection, number, until, " ", "anna", TODAY)
        with pytest.raises(UsageError, match="No open incident"):
            waive(connection, 0, until, "why", "anna", TODAY)
    assert events == ["opened", "waived", "waiver_ended"]


def test_an_error_closes_nothing(books: Books) -> None:
    """While a rule cannot be asked its incidents stay as they are, and the run ends partly done, naming it."""
    check(books.settings, TODAY)
    before = books.read(_STATE)
    with database.engine_for(books.settings, database.OWNER).begin() as connection:
        connection.execute(text("revoke select on crm.contact_roles from kontor_flows"))
    try:
        checked = check(books.settings, TODAY, contracts=("organizations",))
    finally:
        with database.engine_for(books.settings, database.OWNER).begin() as connection:
            connection.execute(text("grant select on crm.contact_roles to kontor_flows"))
    assert [result.rule.rule_id for result in checked.in_state("error")] == ["organization_payments_contact"]
    assert books.read(_STATE) == before
    with pytest.raises(PartlyDone, match=r"organization_payments_contact on .*: SQLSTATE 42501"):
        steps.conclude(checked)


def test_the_rule_table_overrules_the_contract(books: Books) -> None:
    """A new version changes severity and number from its day on; a rule that was ended is asked no more and closes."""
    check(books.settings, TODAY)
    tomorrow = TODAY + timedelta(days=1)
    with database.engine_for(books.settings, database.OWNER).begin() as connection:
        _new_version(connection, "organization_country_present", tomorrow, severity="fail", owner="legal")
        _end(connection, "organization_vat_present", tomorrow)
        known = {rule.rule_id: rule for contract in in_force(connection, list_table_contracts(), tomorrow)
                 for rule in contract.rules}  # fmt: skip
    try:
        assert (known["organization_country_present"].severity, known["organization_country_present"].version) == (
            "fail",
            2,
        )
        assert "organization_vat_present" not in known
        check(books.settings, tomorrow)
        rows = {(row["rule_id"], row["record_key"]): row for row in books.read(_STATE)}
        assert rows["organization_country_present", "3"]["severity"] == "fail"
        assert rows["organization_vat_present", "2"]["state"] == "closed"
    finally:
        with database.engine_for(books.settings, database.OWNER).begin() as connection:
            connection.execute(text("delete from rules.quality_rule where version > 1"))
            connection.execute(text("update rules.quality_rule set valid = daterange(null, null)"))


def _end(connection: Connection, rule_id: str, day: date) -> None:
    connection.execute(
        text("update rules.quality_rule set valid = daterange(null, :day) where rule_id = :rule_id"),
        {"day": day, "rule_id": rule_id},
    )


def _new_version(connection: Connection, rule_id: str, day: date, **changed: Any) -> None:
    _end(connection, rule_id, day)
    connection.execute(
        text(
            "insert into rules.quality_rule (rule_id, version, contract, dimension, severity, owner,"
            " account_owner_first, tolerance_percent, threshold, due_days, meaning, valid, author, reason)"
            " select rule_id, 2, contract, dimension, :severity, :owner, account_owner_first, tolerance_percent,"
            " threshold, due_days, meaning, daterange(:day, null), 'test', 'test' from rules.quality_rule"
            " where rule_id = :rule_id"
        ),
        {"rule_id": rule_id, "day": day, **changed},
    )


def test_figures_that_jump_are_told_once_there_is_history(books: Books) -> None:
    """Eight days of the same figures, then a tenfold sum: the table's own rule opens an incident that names it."""
    for days in range(9):
        day = TODAY + timedelta(days=days)
        checked = check(books.settings, day, contracts=("invoices",))
        assert _usual(checked).state == "pass"
    with database.engine_for(books.settings, database.OWNER).begin() as connection:
        connection.execute(text("update crm.invoices set amount = amount * 10, open_amount = open_amount * 10"))
    checked = check(books.settings, TODAY + timedelta(days=9), contracts=("invoices",))
    assert (_usual(checked).state, _usual(checked).failing) == ("fail", 1)
    assert _standing(books, "invoices_as_usual") == [("crm.invoices sum.open_amount.EUR", "open", 1)]


def _usual(checked: Checked) -> Result:
    return next(result for result in checked.results if result.rule.kind == "usual")


# --- what other flows require -----------------------------------------------------------------------------------------


def test_a_flow_is_stopped_by_an_incident_that_it_requires_not_to_be(books: Books) -> None:
    """With a list 16 days old reminders stop, with the incident's number; waived, or for payment_sync, they do not."""
    day = TODAY + timedelta(days=16)
    with database.engine_for(books.settings).begin() as connection:
        require_quality(connection, "overdue_reminders", day)
    check(books.settings, day)
    [incident] = books.read("select incident_id from ops.quality_incidents where rule_id = 'feed_open_items_fresh'")
    with database.engine_for(books.settings).begin() as connection:
        with pytest.raises(Refused, match=rf"incident {incident['incident_id']}, feed_open_items_fresh") as caught:
            require_quality(connection, "overdue_reminders", day)
        assert f"kontor quality waive {incident['incident_id']}" in caught.value.hint
        require_quality(connection, "payment_sync", day)
        waive(connection, incident["incident_id"], day, "accounting is on holiday", "anna", day)
        require_quality(connection, "overdue_reminders", day)


def test_a_required_rule_that_could_not_be_asked_stops_too(books: Books) -> None:
    """Nobody knows whether it holds, so it does not."""
    check(books.settings, TODAY)
    with database.engine_for(books.settings, database.OWNER).begin() as connection:
        connection.execute(
            text(
                "update ops.quality_results set state = 'error', failing = null, error = 'SQLSTATE 42P01'"
                " where rule_id = 'invoices_columns'"
            )
        )
        with pytest.raises(Refused, match="invoices_columns: SQLSTATE 42P01"):
            require_quality(connection, "payment_sync", TODAY)


# --- pages ------------------------------------------------------------------------------------------------------------


def test_every_owner_has_a_page_with_nobodys_personal_data(books: Books, tmp_path: Path) -> None:
    """One page for engineers and one an owner, with their rows only and without names, addresses and tax numbers."""
    checked = check(books.settings, TODAY)
    with database.engine_for(books.settings).connect() as connection:
        written = write_pages(connection, tmp_path, TODAY, list_table_contracts(), checked.results)
    pages = {path.name: path.read_text("utf-8") for path in written}
    owners = {row["owner"] for row in books.read("select owner from ops.quality_incidents where state = 'open'")}
    assert {"petar", "rosen", "sales operations"} <= owners
    assert len(pages) == 1 + len(owners)
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)
    assert not any(word in page for page in pages.values() for word in ("Alfa", "Beta", "Gamma", "175074752"))
    rosen = next(page for name, page in pages.items() if name.endswith("rosen.html"))
    assert "customer 3 owes money" in rosen
    assert "customer 1 owes money" not in rosen
    assert "organization_country_present" in pages["rules.html"]


# --- drafts -----------------------------------------------------------------------------------------------------------


def test_a_draft_is_compared_with_what_is_in_force_and_keeps_nothing(books: Books, tmp_path: Path) -> None:
    """A stricter rule, a looser one and a new one: which records flip, and the money they touch."""
    check(books.settings, TODAY)
    before = books.read(_STATE)
    document = (CONTRACTS_FOLDER / "organizations.yaml").read_text("utf-8")
    draft = document.replace("name: organization_country_code", "name: organization_country_draft").replace(
        'pattern: "^[A-Z]{2}$"', 'pattern: "^NO$"'
    )
    draft = draft.replace("sql: contactable or not owing", "sql: contactable or not owing or customer_number = '3'")
    path = tmp_path / "organizations.yaml"
    path.write_text(draft, "utf-8")
    with database.engine_for(books.settings).connect() as connection:
        found = backtest(connection, load_table_contract(path), TODAY)
        same = backtest(connection, load_table_contract("organizations"), TODAY)
    assert same.records == ()
    flipped = {(row["rule_id"], row["record_key"]): (row["becomes"], row["money"]) for row in found.records}
    assert flipped == {
        ("organization_country_draft", "1"): ("fail", {"EUR": "100.0000"}),
        ("organization_country_draft", "2"): ("fail", {}),
        ("organization_payments_contact", "3"): ("pass", {"EUR": "70.5000"}),
    }
    line = next(line for line in found.rules if line.rule_id == "organization_country_draft")
    assert (line.state, line.draft_state, line.newly_failing) == (None, "fail", 2)
    assert dict(line.money) == {"EUR": Decimal(100)}
    assert books.read(_STATE) == before
