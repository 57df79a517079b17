"""Finance's report over a real spring: figures as computed elsewhere, changes that are changes, one mail a day."""

from __future__ import annotations

import email
import email.policy
import json
import os
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from configs.settings import PROJECT_ROOT, Settings
from tasks.database import OWNER, engine_for
from tasks.errors import DependencyDown, UsageError
from tasks.reports.finance import BUCKETS, FinanceReport
from tasks.reports.finance_files import make_files
from tasks.reports.finance_page import cid_sources, render
from tasks.reports.finance_store import read_finance, read_prerun
from tasks.reports.finance_words import Words
from tasks.reports.parameters import FinanceParameters
from tasks.reports.prerun import stages_of
from tasks.reports.steps import (
    open_finance_run,
    publish_report,
    send_to_finance,
    tell_finance_first,
    write_report,
)
from tasks.reports.store import read_report
from tests.conftest import empty_database
from tests.ledgers import Books, item, write_csv

MONDAY = date(2012, 4, 30)
GOLDEN = PROJECT_ROOT / "tests" / "golden" / f"finance-{MONDAY}.txt"
WEEK = timedelta(days=7)
TO_LEAVE = "reminders_to_leave"


@pytest.fixture(scope="module")
def spring(prepared: Settings, real_data: Path) -> Iterator[Books]:
    """The books of the first four months of 2012, taken in once for the tests that only read them."""
    empty_database(prepared)
    books, folder = Books(prepared), real_data / "receivables"
    books.take_in(folder / "customers.xlsx", "organizations", date(2011, 12, 1))
    weeks = sorted((folder / "weekly-2012").glob("*.xlsx"))
    for path in weeks:
        if path.stem.removeprefix("open_items_") <= str(MONDAY):
            books.take_in(path, "open_items")
    books.classify()
    yield books
    empty_database(prepared)


@pytest.fixture
def held(kontor_settings: Settings) -> Path:
    """The folder in which mails are held; empty."""
    shutil.rmtree(kontor_settings.home / "outbox", ignore_errors=True)
    return kontor_settings.home / "outbox" / "held"


def _report(settings: Settings, day: date) -> FinanceReport:
    with engine_for(settings).connect() as connection:
        return read_finance(connection, day)


# --- a real spring ----------------------------------------------------------------------------------------------------


def test_every_mondays_totals_are_those_computed_elsewhere(spring: Books, real_data: Path) -> None:
    """Open and overdue per currency, overdue invoices, disputes and the oldest item agree with the expected figures."""
    expected = json.loads((real_data / "receivables" / "weekly-2012" / "expected.json").read_text("utf-8"))
    days = [date.fromisoformat(day) for day in expected if day <= str(MONDAY)]
    assert len(days) == 18
    for day in days:
        rows = spring.read("select * from report.finance_totals(:day)", day=day)
        want = expected[str(day)]
        assert {row["currency"]: f"{row['open_amount']:.2f}" for row in rows} == want["open"]
        overdue = {row["currency"]: f"{row['overdue_amount']:.2f}" for row in rows if row["overdue_invoices"]}
        assert overdue == want["overdue"]
        assert sum(row["overdue_invoices"] for row in rows) == want["overdue_invoices"]
        assert sum(row["overdue_customers"] for row in rows) == want["overdue_customers"]
        assert sum(row["disputed_invoices"] for row in rows) == want["disputed"]
        assert max((row["oldest_days_overdue"] for row in rows), default=0) == want["max_days_overdue"]


def test_the_buckets_sum_to_what_is_open_and_to_the_aging_report(spring: Books) -> None:
    """Per currency the five buckets are those of report.aging and together what is open."""
    report = _report(spring.settings, MONDAY)
    aging: dict[str, dict[str, Decimal]] = {}
    for row in report.tables["aging"].records():
        sums = aging.setdefault(str(row["currency"]), dict.fromkeys(BUCKETS, Decimal(0)))
        for name in BUCKETS:
            sums[name] += row[name]  # type: ignore[operator]
    assert {code: {name: now.bucket(name) for name in BUCKETS} for code, now in report.now.totals.items()} == aging
    assert all(sum(map(now.bucket, BUCKETS)) == now.open_amount for now in report.now.totals.values())


def test_the_trend_ends_with_what_is_overdue_now(spring: Books) -> None:
    """The last point of each currency is the day's overdue sum, the one before it last week's."""
    report = _report(spring.settings, MONDAY)
    points = {(point.day, point.currency): point.overdue_amount for point in report.trend}
    assert len(points) == 8 * len(report.currencies)
    for code in report.currencies:
        assert points[MONDAY, code] == report.now.totals[code].overdue_amount
        assert points[MONDAY - WEEK, code] == report.before.totals[code].overdue_amount


def test_changes_of_class_are_the_difference_of_two_days(spring: Books) -> None:
    """Who changed is who has another class than on the earlier day; nobody is left out; the reason is the new one."""
    total = 0
    for back in (1, 2, 4):
        since = MONDAY - WEEK * back
        before, now = (_classes(spring, day) for day in (since, MONDAY))
        expected = {
            number: (before.get(number, ("unrated", ""))[0], *found)
            for number, found in now.items()
            if found[0] != before.get(number, ("unrated", ""))[0]
        }
        rows = spring.read("select * from report.payer_class_changes(:since, :day)", since=since, day=MONDAY)
        changed = {row["customer_number"]: (row["class_before"], row["payer_class"], row["reason"]) for row in rows}
        assert changed == expected
        assert all(since < row["changed_on"] <= MONDAY for row in rows)
        total += len(rows)
    assert total > 10


def _classes(books: Books, day: date) -> dict[str, tuple[str, str]]:
    rows = books.read("select customer_number, payer_class, reason from report.payer_classes(:day)", day=day)
    return {row["customer_number"]: (row["payer_class"], row["reason"]) for row in rows}


def test_what_was_settled_in_a_period_is_the_difference_of_two_days(spring: Books) -> None:
    """A period has the settlements of its last day that are newer than its first; short readings begin alike."""
    for back in (1, 5, 30):
        since = MONDAY - WEEK * back
        every = spring.read("select * from report.settled_invoices(:day)", day=MONDAY)
        newer = [row for row in every if row["settled_by"] > since]
        found = spring.read("select * from report.settled_invoices(:since, :day)", since=since, day=MONDAY)
        assert sorted(found, key=str) == sorted(newer, key=str)
        assert found
    with engine_for(spring.settings).connect() as connection:
        whole = read_report(connection, "settled_invoices", as_of=MONDAY)
        for limit in (1, 20, 150, len(whole.rows)):
            some = read_report(connection, "settled_invoices", as_of=MONDAY, limit=limit)
            assert (some.rows, some.more) == (whole.rows[:limit], limit < len(whole.rows))


def test_the_report_of_a_monday_reads_as_written_down(spring: Books) -> None:
    """The text is the golden file's, to the letter; KONTOR_UPDATE_GOLDEN=1 writes it anew, for a person to compare."""
    made = render(_report(spring.settings, MONDAY), Words("en"), cid_sources()).text
    if os.environ.get("KONTOR_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(made, "utf-8")
    assert made == GOLDEN.read_text("utf-8")


def test_every_form_of_the_report_is_made_of_real_figures(spring: Books) -> None:
    """Page, mail and workbook are made of a real Monday; the page carries its pictures, the mail names them."""
    report = _report(spring.settings, MONDAY)
    with engine_for(spring.settings).connect() as connection:
        now = connection.execute(text("select now()")).scalar_one()
    files = make_files(report, "bg", now=now)
    assert set(files.pictures) == {"aging", "trend"}
    assert files.page_html.count("data:image/png;base64,") == 2
    assert files.mail_html.count("cid:") == 2
    assert "Вземания към" in files.subject
    assert len(files.workbook) > 20_000


# --- definitions ------------------------------------------------------------------------------------------------------


def test_dso_is_receivables_over_sales_times_days(kontor_settings: Settings, tmp_path: Path) -> None:
    """By hand: 300 open of 900 sold in 90 days are 30 days; of them 100 not due are 10; lateness costs 20.

    An invoice of more than 90 days ago is owed but not among the sales.
    """
    books, day = Books(kontor_settings), date(2026, 6, 1)
    books.customers(tmp_path, ["C-1"])
    paid = item("C-1", "P", 600, day - timedelta(40), issue_date=day - timedelta(89))
    old = item("C-1", "O", 50, day - timedelta(80), issue_date=day - timedelta(90))
    late = item("C-1", "L", 150, day - timedelta(10), issue_date=day - timedelta(40))
    fine = item("C-1", "F", 100, day, issue_date=day - timedelta(30))
    credit = item("C-1", "K", -50, day, issue_date=day, document_type="credit_note")
    more = item("C-1", "M", 100, day - timedelta(3), issue_date=day - timedelta(20))
    first = write_csv(tmp_path / "first.csv", [paid, old, late])
    second = write_csv(tmp_path / "second.csv", [old, late, fine, credit, more])
    books.take_in(first, "open_items", day - timedelta(30))
    books.take_in(second, "open_items", day)
    rows = books.read("select * from report.dso(:day)", day=day)
    sales = Decimal(600 + 150 + 100 - 50 + 100)
    assert [(row["receivables"], row["sales"], row["documents"]) for row in rows] == [(Decimal(350), sales, 5)]
    assert (rows[0]["dso"], rows[0]["best_possible_dso"], rows[0]["average_days_delinquent"]) == (
        round(90 * Decimal(350) / sales, 1),
        round(90 * Decimal(50) / sales, 1),
        round(90 * Decimal(300) / sales, 1),
    )


def test_what_is_due_soon_and_newly_overdue_has_edges(kontor_settings: Settings, tmp_path: Path) -> None:
    """On Monday 1 June: due that day and up to 8 June is due soon; due 25 to 31 May is newly overdue, 24 May is not."""
    books, day = Books(kontor_settings), date(2026, 6, 1)
    books.customers(tmp_path, ["C-1"])
    dues = {"A": 0, "B": 7, "C": 8, "D": -1, "E": -7, "F": -8}
    rows = [item("C-1", number, 10, day + timedelta(days)) for number, days in dues.items()]
    books.take_in(write_csv(tmp_path / "items.csv", rows), "open_items", day)
    found = books.read("select * from report.finance_totals(:day)", day=day)[0]
    assert (found["due_soon_invoices"], found["newly_overdue_invoices"], found["overdue_invoices"]) == (2, 2, 3)
    soon = books.read("select invoice_number from report.due_soon(:day) order by 1", day=day)
    assert [row["invoice_number"] for row in soon] == ["A", "B"]


def test_money_in_quarantine_is_told_per_currency(kontor_settings: Settings, tmp_path: Path) -> None:
    """A row with a readable amount counts its money; one without is counted alone; currencies are never summed."""
    books, day = Books(kontor_settings), date(2026, 6, 1)
    books.customers(tmp_path, ["C-1"])
    rows = [
        item("C-1", "A", 10, day),
        item("C-1", "B", 70, day, due_date="31.31.2026"),
        item("C-1", "C", "n/a", day),
        item("C-1", "D", 5, day, currency="SEK", due_date="never"),
    ]
    books.take_in(write_csv(tmp_path / "items.csv", rows), "open_items", day)
    found = books.read("select * from report.quarantined_money(:day) order by currency", day=day)
    assert [(row["currency"], row["rows"], row["amount"], row["without_amount"]) for row in found] == [
        ("EUR", 2, Decimal(70), 1),
        ("SEK", 1, Decimal(5), 0),
    ]
    assert books.read("select * from report.quarantined_money(:day)", day=day - WEEK) == []


def test_reminders_tasks_and_holds_are_told(kontor_settings: Settings, tmp_path: Path) -> None:
    """Mails of the week with state and reason, the newest plan's holds, and open tasks stand in the report."""
    books, day = Books(kontor_settings), date(2026, 6, 1)
    books.customers(tmp_path, ["C-1", "C-2"])
    rows = [item("C-1", "A", 10, day - timedelta(9)), item("C-2", "B", 20, day - timedelta(9))]
    books.take_in(write_csv(tmp_path / "items.csv", rows), "open_items", day)
    with engine_for(kontor_settings, OWNER).begin() as connection:
        for statement in _REMINDED:
            connection.execute(text(statement), {"day": day})
    report = _report(kontor_settings, day)
    outcomes = report.tables["reminder_outcomes"].records()
    assert [(row["customer_number"], row["state"], row["reason_code"]) for row in outcomes] == [
        ("C-1", "cancelled", "paid")
    ]
    withheld = report.tables["reminders_withheld"].records()
    assert [(row["customer_number"], row["decision"], row["reason"]) for row in withheld] == [
        ("C-2", "hold", "nobody holds the role")
    ]
    assert [row["kind"] for row in report.tables["tasks_waiting"].records()] == ["no_contact"]
    assert _report(kontor_settings, day - WEEK).tables["tasks_waiting"].rows == ()


def test_debtors_are_summed_by_the_database_whatever_the_lists_show(kontor_settings: Settings, tmp_path: Path) -> None:
    """Per currency, greatest first, over all invoices; a list that ends early says so and no figure follows it."""
    books, day = Books(kontor_settings), date(2026, 6, 1)
    books.customers(tmp_path, ["C-1", "C-2"])
    rows = [
        item("C-1", "A", 10, day - timedelta(9)),
        item("C-1", "B", 20, day - timedelta(40)),
        item("C-1", "C", 90, day - timedelta(2), currency="SEK"),
        item("C-2", "D", 25, day - timedelta(1)),
        item("C-2", "E", 99, day + timedelta(1)),
    ]
    books.take_in(write_csv(tmp_path / "items.csv", rows), "open_items", day)
    with engine_for(kontor_settings).connect() as connection:
        whole, part = (read_finance(connection, day, listed=most) for most in (100, 1))
    assert {
        code: [(one.customer_number, one.overdue_amount, one.invoices, one.oldest_days) for one in found]
        for code, found in part.debtors.items()
    } == {"EUR": [("C-1", Decimal(30), 2, 40), ("C-2", Decimal(25), 1, 1)], "SEK": [("C-1", Decimal(90), 1, 2)]}
    assert (part.debtors, part.now) == (whole.debtors, whole.now)
    lists = {name: (len(table.rows), table.more) for name, table in part.tables.items()}
    assert lists["overdue_invoices"] == lists["aging"] == (1, True)
    assert len(whole.tables["overdue_invoices"].rows) == 4
    assert not whole.tables["overdue_invoices"].more


def test_finance_is_told_what_is_about_to_leave(
    kontor_settings: Settings, tmp_path: Path, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before mails leave, finance gets who is written to, at which stage and about how much, with a workbook."""
    books, day = Books(kontor_settings), date(2026, 6, 1)
    monkeypatch.setenv("KONTOR_FINANCE_EMAILS", "finance@company.example")
    engine = engine_for(kontor_settings)
    assert tell_finance_first.fn(engine, 1, day) == "nothing about to leave"
    books.customers(tmp_path, ["C-1", "C-2"])
    rows = [item("C-1", "A", 10, day - timedelta(9)), item("C-2", "B", 20, day - timedelta(9))]
    books.take_in(write_csv(tmp_path / "items.csv", rows), "open_items", day)
    with engine_for(kontor_settings, OWNER).begin() as connection:
        for statement in _REMINDED:
            connection.execute(text(statement), {"day": day})
        connection.execute(text("update outbox.reminders set state = 'planned', state_reason = null"))
    with engine.connect() as connection:
        prerun = read_prerun(connection, day)
    assert (prerun.mails, [(item.stage, item.mails, item.amounts) for item in stages_of(prerun.tables[TO_LEAVE])]) == (
        1,
        [("first", 1, {"EUR": Decimal(10)})],
    )
    assert tell_finance_first.fn(engine, 1, day) == "held"
    (path,) = held.iterdir()
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert str(message["Subject"]) == "Reminders about to leave on 1 Jun 2026: 1"
    shown = next(part for part in message.walk() if part.get_content_type() == "text/plain").get_content()
    assert "C-1 Customer C-1" in shown
    assert "nobody holds the role" in shown


_REMINDED = (
    """
    insert into ops.reminder_decisions (run_id, as_of, organization_id, decision, stage, sequence, reason, reason_code,
        recipient_email, language, rule_id, rule_version)
    select (select max(run_id) from ops.run_ledger), :day, organization_id,
           case customer_number when 'C-1' then 'remind' else 'hold' end, 'first', 1,
           case customer_number when 'C-1' then 'overdue' else 'nobody holds the role' end, 'r', 'a@b.example', 'en',
           'rule', 1
    from crm.organizations
    """,
    """
    insert into outbox.reminders (run_id, decision_id, organization_id, as_of, stage, state, state_reason,
        recipient_email, recipient_reason, language, template, rule_id, rule_version)
    select run_id, decision_id, organization_id, :day, 'first', 'cancelled', 'paid: gone', 'a@b.example', 'role', 'en',
           'first', 'rule', 1
    from ops.reminder_decisions where decision = 'remind'
    """,
    """
    insert into outbox.reminder_items (reminder_id, invoice_id, stage, sequence, currency, open_amount, due_on)
    select r.reminder_id, i.invoice_id, 'first', 1, i.currency, i.open_amount, i.due_on
    from outbox.reminders r join crm.invoices i using (organization_id)
    """,
    """
    insert into ops.reminder_tasks (organization_id, kind, as_of, details)
    select organization_id, 'no_contact', :day, 'nobody holds the payments role'
    from crm.organizations where customer_number = 'C-2'
    """,
)


# --- the flow's steps -------------------------------------------------------------------------------------------------


def _run(**given: Any) -> tuple[str, dict[str, int]]:
    """The flow's body without Prefect: what became of the mail, and the run's counts."""
    parameters = FinanceParameters(as_of=date(2026, 6, 1), **given)
    with open_finance_run(parameters) as run:
        made = write_report.fn(run)
        outcome = send_to_finance.fn(run, made)
        return outcome, publish_report.fn(run, made, outcome)


def test_a_dry_run_writes_files_and_sends_nothing(kontor_settings: Settings, held: Path) -> None:
    """Without --live the page, the text and the workbook are written for their owner alone, and no mail is made."""
    outcome, counts = _run()
    folder = kontor_settings.home / "reports" / "finance" / "2026-06-01"
    assert sorted(path.suffix for path in folder.iterdir()) == [".html", ".txt", ".xlsx"]
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}
    assert (outcome, counts["files"], "mails" in counts) == ("not asked for", 3, False)
    assert not held.exists()


def test_a_folder_that_cannot_be_written_is_told_in_words(kontor_settings: Settings) -> None:
    """Where a file stands in the folder's place the run fails with the place and what to do, and the ledger knows."""
    shutil.rmtree(kontor_settings.home / "reports", ignore_errors=True)
    (kontor_settings.home / "reports").write_text("in the way", "utf-8")
    with pytest.raises(DependencyDown, match="cannot be written below"):
        _run()
    (kontor_settings.home / "reports").unlink()
    states = Books(kontor_settings).read("select state from ops.run_ledger where flow = 'finance_report'")
    assert [row["state"] for row in states] == ["failed"]


def test_a_live_run_writes_the_mail_to_a_file_in_mode_hold(
    kontor_settings: Settings, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The held mail has HTML with both pictures within it, a text, and the workbook; the same day has the same id."""
    monkeypatch.setenv("KONTOR_FINANCE_EMAILS", "Finance <finance@company.example>, boss@company.example")
    assert _run(dry_run=False)[0] == "held"
    (path,) = held.iterdir()
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    kinds = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
    assert kinds.count("text/plain") == kinds.count("text/html") == 1
    assert "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" in kinds
    html = next(part for part in message.walk() if part.get_content_type() == "text/html").get_content()
    wanted = {source.removeprefix("cid:") for source in cid_sources().values() if source in html}
    carried = {str(part["Content-ID"]).strip("<>") for part in message.walk() if part["Content-ID"]}
    assert wanted <= carried
    assert "finance@company.example" in str(message["To"])
    assert _run(dry_run=False)[0] == "held"
    assert list(held.iterdir()) == [path]


def test_a_report_that_went_out_is_not_sent_again(kontor_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ledger knows as sent is sent again only when a person says so."""
    monkeypatch.setenv("KONTOR_FINANCE_EMAILS", "finance@company.example")
    with engine_for(kontor_settings, OWNER).begin() as connection:
        connection.execute(
            text(
                "insert into ops.run_ledger (flow, actor, as_of, dry_run, state, counts, ended_at, host, process_id)"
                " values ('finance_report', 'test', '2026-06-01', false, 'done', '{\"mails\": 1}', now(), 'test', 1)"
            )
        )
    assert _run(dry_run=False)[0] == "sent before"
    assert _run(dry_run=False, again=True)[0] == "held"


def test_changes_are_told_since_the_last_report(kontor_settings: Settings) -> None:
    """A report that was skipped leaves no gap: the next one tells what changed since the last that was done."""
    day = date(2026, 6, 1)
    with engine_for(kontor_settings, OWNER).begin() as connection:
        connection.execute(
            text(
                "insert into ops.run_ledger (flow, actor, as_of, dry_run, state, ended_at, host, process_id)"
                " values ('finance_report', 'test', '2026-05-11', false, 'done', now(), 'test', 1)"
            )
        )
    report = _report(kontor_settings, day)
    assert (report.before.day, report.changes_since) == (day - WEEK, date(2026, 5, 11))


def test_a_mail_without_anybody_to_get_it_is_refused_before_anything_is_done(kontor_settings: Settings) -> None:
    """--live without KONTOR_FINANCE_EMAILS is an error of use, and no run is written down."""
    with pytest.raises(UsageError, match="nobody is named"):
        _run(dry_run=False)
    assert Books(kontor_settings).read("select * from ops.run_ledger where flow = 'finance_report'") == []
