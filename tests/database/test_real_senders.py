"""Real files of other people's ledgers, each through a small contract, read back as finance reads them.

The figures were computed from the files without this project; they are written down here, not derived.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from configs.settings import PROJECT_ROOT, Settings
from tasks import database
from tests.conftest import empty_database
from tests.ledgers import Books

EXAMPLES = PROJECT_ROOT / "data_contracts" / "feeds" / "examples"
APRIL_FOOLS = date(2020, 4, 1)
IBM_DAY = date(2014, 1, 31)


@pytest.fixture
def books(kontor_settings: Settings) -> Books:
    """An empty database to take files into."""
    return Books(kontor_settings)


@pytest.fixture
def receivables(real_data: Path) -> Path:
    """The folder with accounting's real files."""
    return real_data / "receivables"


def contract(name: str) -> Path:
    """A sender's contract, given by its path as anybody's would be."""
    return EXAMPLES / f"{name}.yaml"


def finance(books: Books, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Rows of a query over schema ``report``, asked in finance's own role."""
    with database.engine_for(books.settings, database.FINANCE).connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement), parameters)]


def by_currency(books: Books, view: str, day: date) -> dict[str, tuple[int, Decimal]]:
    """Per currency, how many items a report function lists for a day and what is open on them."""
    rows = finance(books, f"select currency, count(*), sum(open_amount) from report.{view}(:day) group by 1", day=day)
    return {currency: (count, total) for currency, count, total in rows}


def owed(books: Books, day: date) -> tuple[int, Decimal]:
    """Items and sum open on a day of a ledger in one currency."""
    ((count, total),) = by_currency(books, "open_invoices", day).values()
    return count, total


def test_open_items_out_of_sap_give_the_known_figures(books: Books, receivables: Path) -> None:
    """9,681 items whose ids are floats and whose currency is a company code: invoices, customers and sums come out."""
    outcome = books.take_in(
        receivables / "highradius" / "A_iso_leading_zeros_floats.csv", contract("highradius"), APRIL_FOOLS
    )

    assert (outcome.rows_read, outcome.inserted, outcome.quarantined) == (9681, 9681, 0)
    assert by_currency(books, "open_invoices", APRIL_FOOLS) == {
        "CAD": (704, Decimal("42218190.72")),
        "USD": (8977, Decimal("280875125.47")),
    }
    overdue = by_currency(books, "overdue_invoices", APRIL_FOOLS)
    assert {currency: total for currency, (_, total) in overdue.items()} == {
        "CAD": Decimal("13191112.99"),
        "USD": Decimal("65421323.22"),
    }
    assert sum(count for count, _ in overdue.values()) == 2368
    assert finance(
        books,
        "select count(distinct customer_number), (select count(distinct customer_number)"
        " from report.overdue_invoices(:day)), count(*) filter (where due_on between :day and cast(:day as date) + 7)"
        " from report.open_invoices(:day)",
        day=APRIL_FOOLS,
    ) == [(694, 316, 1248)]


def test_ids_written_as_floats_keep_every_digit(books: Books, receivables: Path) -> None:
    """0140105686 keeps its zero and 2960623488.0 is the number 2960623488."""
    books.take_in(receivables / "highradius" / "A_iso_leading_zeros_floats.csv", contract("highradius"), APRIL_FOOLS)
    assert finance(
        books,
        "select invoice_number, issued_on, due_on, open_amount from report.open_invoices(:day)"
        " where customer_number = '0140105686' and invoice_number = '2960623488'",
        day=APRIL_FOOLS,
    ) == [("2960623488", date(2020, 3, 30), date(2020, 4, 10), Decimal("3299.7"))]
    assert finance(
        books, "select count(*) from report.open_invoices(:day) where invoice_number ~ '[^0-9]'", day=APRIL_FOOLS
    ) == [(0,)]


def test_a_converted_copy_of_a_ledger_is_noticed(books: Books, receivables: Path) -> None:
    """The same day's ledger with 704 amounts multiplied is refused as a second truth; as a correction it is counted."""
    folder = receivables / "highradius"
    first = books.take_in(folder / "A_iso_leading_zeros_floats.csv", contract("highradius"), APRIL_FOOLS)
    before = {
        row["invoice_number"]: row["open_amount"] for row in books.open_on(APRIL_FOOLS) if row["currency"] == "CAD"
    }

    refused = books.take_in(folder / "D_iso_dates.csv", contract("highradius"), APRIL_FOOLS)
    assert refused.state == "refused"
    assert "A_iso_leading_zeros_floats.csv already is revision 1 of the snapshot as of 2020-04-01" in refused.reasons[0]
    assert by_currency(books, "open_invoices", APRIL_FOOLS)["CAD"] == (704, Decimal("42218190.72"))

    second = books.take_in(folder / "D_iso_dates.csv", contract("highradius"), APRIL_FOOLS, revision=2)
    assert (second.inserted, second.updated, second.unchanged, second.quarantined) == (0, 704, 8977, 0)
    assert second.warned > first.warned, "amounts with fractions of a cent are warned about"
    after = {
        row["invoice_number"]: row["open_amount"] for row in books.open_on(APRIL_FOOLS) if row["currency"] == "CAD"
    }
    assert after == {number: amount * Decimal("0.7") for number, amount in before.items()}
    assert by_currency(books, "open_invoices", APRIL_FOOLS)["USD"] == (8977, Decimal("280875125.47"))


def test_one_customer_under_many_names_is_one_customer(books: Books, receivables: Path) -> None:
    """The customer list in the same export names 694 customers in 9,681 rows; every row is accounted for."""
    path = receivables / "highradius" / "A_iso_leading_zeros_floats.csv"
    outcome = books.take_in(path, contract("highradius_customers"), APRIL_FOOLS)
    assert (outcome.rows_read, outcome.inserted, outcome.superseded) == (9681, 694, 9681 - 694)
    with path.open(encoding="utf-8", newline="") as stream:
        last_name = {row["cust_number"]: row["name_customer"].strip() for row in csv.DictReader(stream)}
    cards = dict(finance(books, "select customer_number, card ->> 'name' from report.organization_card"))
    assert cards == last_name


@pytest.fixture
def ibm(books: Books, receivables: Path) -> Books:
    """The books with the whole late-payment ledger in them."""
    books.take_in(receivables / "ibm" / "ibm_ar_padded.csv", contract("ibm_ledger"), IBM_DAY)
    return books


def test_a_ledger_of_settled_invoices_gives_the_known_figures(ibm: Books) -> None:
    """2,466 settled invoices of 100 customers, their sum, how many disputed, how many late."""
    assert finance(
        ibm,
        "select count(*), count(distinct customer_number), sum(amount), count(*) filter (where disputed),"
        " count(*) filter (where days_late > 0) from report.settled_invoices(:day)",
        day=IBM_DAY,
    ) == [(2466, 100, Decimal("147703.18"), 561, 877)]
    assert finance(ibm, "select count(*) from report.open_invoices(:day)", day=IBM_DAY) == [(0,)]


@pytest.mark.parametrize(
    ("day", "open_items", "overdue", "customers", "oldest"),
    [
        (date(2012, 12, 31), (99, Decimal("5725.06")), (13, Decimal("788.74")), 11, None),
        (date(2013, 6, 30), (84, Decimal("5119.85")), (12, Decimal("835.56")), None, 14),
    ],
)
def test_a_ledger_answers_for_any_past_day(
    ibm: Books,
    day: date,
    open_items: tuple[int, Decimal],
    overdue: tuple[int, Decimal],
    customers: int | None,
    oldest: int | None,
) -> None:
    """A ledger that came in long after says what was open and overdue on a day in the middle of it."""
    assert owed(ibm, day) == open_items
    assert by_currency(ibm, "overdue_invoices", day) == {"USD": overdue}
    ((found_customers, found_oldest),) = finance(
        ibm, "select count(distinct customer_number), max(days_overdue) from report.overdue_invoices(:day)", day=day
    )
    assert found_customers == (customers or found_customers)
    assert found_oldest == (oldest or found_oldest)


def test_what_falls_due_within_a_week(ibm: Books) -> None:
    """Eleven invoices fall due from the last day of 2012 through seven days later."""
    assert finance(
        ibm,
        "select count(*), sum(open_amount) from report.open_invoices('2012-12-31')"
        " where due_on between '2012-12-31' and '2013-01-07'",
    ) == [(11, Decimal("695.15"))]


def test_customers_by_their_mean_days_late(ibm: Books) -> None:
    """17 customers were never late, 56 by up to five days on average, 26 by up to fifteen, one by more."""
    assert finance(
        ibm,
        "select count(*) filter (where late = 0), count(*) filter (where late > 0 and late <= 5),"
        " count(*) filter (where late > 5 and late <= 15), count(*) filter (where late > 15)"
        " from (select avg(days_late) as late from report.settled_invoices(:day) group by customer_number) c",
        day=IBM_DAY,
    ) == [(17, 56, 26, 1)]


def _american(value: str) -> date:
    month, day, year = (int(part) for part in value.split("/"))
    return date(year, month, day)


def _expected_class(late: list[int]) -> str:
    """The seeded rules in plain words, for a ledger with nothing open and no class before."""
    if len(late) < 3:
        return "unrated"
    mean = Fraction(sum(late), len(late))
    return "disloyal" if mean > 15 else "strict" if mean <= 5 else "hesitant"


def test_payer_classes_follow_from_the_ledger(ibm: Books, receivables: Path) -> None:
    """Each customer's class equals the seeded rules applied to the raw file by hand: twelve months, no disputes."""
    ibm.classify()
    late: dict[str, list[int]] = defaultdict(list)
    with (receivables / "ibm" / "ibm_ar_padded.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            settled, kept = _american(row["SettledDate"]), late[row["customerID"]]
            if row["Disputed"] == "No" and settled > date(2013, 1, 31):
                kept.append(max((settled - _american(row["DueDate"])).days, 0))
    classes = dict(finance(ibm, "select customer_number, payer_class from report.payer_classes(:day)", day=IBM_DAY))
    assert classes == {customer: _expected_class(days) for customer, days in late.items()}
    assert {"strict", "hesitant", "unrated"} <= set(classes.values())


def test_blanks_in_columns_that_nobody_needs_lose_no_row(books: Books, receivables: Path) -> None:
    """The variant with blanks has 2,586 rows, and every one of them has a fate."""
    outcome = books.take_in(receivables / "ibm" / "ibm_ar_with_missing.csv", contract("ibm_ledger"), IBM_DAY)
    assert outcome.rows_read == 2586
    assert outcome.inserted + outcome.quarantined == 2586
    ((settled,),) = finance(books, "select count(*) from report.settled_invoices(:day)", day=IBM_DAY)
    ((waiting,),) = finance(books, "select count(distinct row_number) from report.quarantine where state = 'open'")
    assert settled + waiting == 2586


XERO_DAY = date(2026, 3, 31)
LATER = date(2026, 12, 31)


def test_a_messy_ledger_is_taken_in_and_its_dirt_is_shown(books: Books, receivables: Path) -> None:
    """Four date formats, dollar signs, copies, an orphan: gross and paid add up, whatever cannot be right is named.

    Day and month are both readable in many of the dates, and the contract says: the day first. Where that gives a
    settlement after the day of the file, the row waits for a person.
    """
    folder = receivables / "xero-like-messy"
    customers = books.take_in(folder / "DimCustomer_raw.csv", contract("xero_customers"), XERO_DAY)
    assert (customers.rows_read, customers.inserted, customers.superseded) == (453, 445, 8)

    outcome = books.take_in(folder / "FactInvoice_raw.csv", contract("xero_invoices"), XERO_DAY)
    assert (outcome.rows_read, outcome.superseded) == (2571, 50)
    assert outcome.inserted + outcome.quarantined == 2521
    assert outcome.warned >= 100, "net and tax do not make gross"

    reasons = dict(finance(books, "select code, count(*) from report.quarantine where state = 'open' group by 1"))
    assert reasons == {"settled_by_the_file_date": outcome.quarantined - 1, "unknown_customer": 1}
    assert finance(
        books, "select customer_number, cell, raw_value from report.quarantine where code = 'unknown_customer'"
    ) == [("CUST999", "B1607", "CUST999")]

    ((paid,),) = finance(books, "select sum(amount) from report.settled_invoices(:day)", day=LATER)
    _, unpaid = owed(books, LATER)
    waiting = books.read(
        "select staged ->> 'amount' as amount, staged ->> 'settled_date' as settled from landing.quarantined_rows"
    )
    assert paid + unpaid + sum(Decimal(row["amount"]) for row in waiting) == Decimal("5250359.50")
    assert paid + sum(Decimal(row["amount"]) for row in waiting if row["settled"]) == Decimal("3225576.78")


def test_rows_whose_net_and_tax_are_not_gross_are_warned_about(books: Books, receivables: Path, tmp_path: Path) -> None:
    """Exactly the 100 rows whose net and tax do not make gross are warned about, read by columns that are not kept."""
    folder = receivables / "xero-like-messy"
    with (folder / "FactInvoice_raw.csv").open(encoding="utf-8", newline="") as stream:
        rows = [
            row | {"issue_date": "2026-01-01", "due_date": "2026-01-15", "payment_date": ""}
            for row in csv.DictReader(stream)
        ]
    same_dates = tmp_path / "FactInvoice_same_dates.csv"
    with same_dates.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert books.take_in(same_dates, contract("xero_invoices"), XERO_DAY).warned == 100


def test_invoices_wait_for_their_customers_and_copies_do_not_wait_twice(books: Books, receivables: Path) -> None:
    """Invoices before customers end like customers before invoices: only the orphan and the impossible dates wait."""
    folder = receivables / "xero-like-messy"
    early = books.take_in(folder / "FactInvoice_raw.csv", contract("xero_invoices"), XERO_DAY)
    assert (early.quarantined, early.superseded) == (2521, 50)
    books.take_in(folder / "DimCustomer_raw.csv", contract("xero_customers"), XERO_DAY)
    replayed = books.replay()
    invoices_first = books.state()
    assert [(row["quarantined"], row["inserted"]) for row in _file_counts(books, "xero_invoices")] == [
        (2521 - replayed, replayed)
    ]
    ((orphan,),) = finance(
        books,
        "select count(*) from report.quarantine q where state = 'open' and code = 'unknown_customer'"
        " and not exists (select from report.organization_card c where c.customer_number = q.customer_number)",
    )
    assert orphan == 1

    database_again = Books(books.settings)
    empty_database(books.settings)
    database_again.take_in(folder / "DimCustomer_raw.csv", contract("xero_customers"), XERO_DAY)
    database_again.take_in(folder / "FactInvoice_raw.csv", contract("xero_invoices"), XERO_DAY)
    customers_first = database_again.state()
    for part in ("organizations", "invoices", "ledger", "classes", "files"):
        assert invoices_first[part] == customers_first[part]


def _file_counts(books: Books, name: str) -> list[dict[str, Any]]:
    return books.read("select quarantined, inserted from report.feed_files where contract = :name", name=name)


def test_norwegian_open_items_are_read_by_their_remainder(books: Books, receivables: Path) -> None:
    """Beløp beside Restbeløp: three items, and what is owed is the remainder, NOK 15,500.00."""
    folder = receivables / "norway"
    day = date(2026, 2, 1)
    books.take_in(folder / "kunder_tripletex_style.csv", contract("tripletex_customers"), day)
    outcome = books.take_in(folder / "apne_poster_belop_og_restbelop.csv", contract("tripletex_open_items"), day)
    assert (outcome.inserted, outcome.quarantined) == (3, 0)
    assert by_currency(books, "open_invoices", day) == {"NOK": (3, Decimal("15500.00"))}
    assert finance(
        books,
        "select customer_number, customer_name, invoice_number, amount, open_amount, days_overdue"
        " from report.open_invoices(:day) order by 1",
        day=day,
    ) == [
        ("10001", "Hansen; Berg AS", "F-100", Decimal("12500"), Decimal("12500"), 3),
        ("10002", "Lille Bakeri", "F-101", Decimal("5000"), Decimal("2000"), 0),
        ("10003", "Nykommer AS", "F-102", Decimal("1000"), Decimal("1000"), 0),
    ]


def test_a_list_without_amounts_is_refused_with_its_columns(books: Books, receivables: Path) -> None:
    """A file with no amount column is refused whole: what is missing, what was seen, and nothing taken in."""
    outcome = books.take_in(
        receivables / "norway" / "uten_belop.csv", contract("tripletex_open_items"), date(2026, 2, 8)
    )
    assert outcome.state == "refused"
    told = "\n".join(outcome.reasons)
    for part in ("amount not found", "due_date not found", "'Kundenr', 'Navn', 'Fakturanr'"):
        assert part in told
    assert outcome.hint
    assert finance(books, "select state, rows_read, refusal from report.feed_files") == [
        ("refused", 0, list(outcome.reasons))
    ]
    assert finance(books, "select count(*) from report.open_invoices(:day)", day=LATER) == [(0,)]


def test_polish_invoices_are_unpaid_where_the_payment_date_is_blank(books: Books, receivables: Path) -> None:
    """A literal \\ufeff before the header, customers known by tax number: three unpaid in two currencies, two paid."""
    day = date(2025, 12, 31)
    outcome = books.take_in(receivables / "poland" / "wzorzec_faktur.csv", contract("polish_invoices"), day)
    assert (outcome.inserted, outcome.quarantined) == (5, 0)
    assert by_currency(books, "open_invoices", day) == {"PLN": (2, Decimal("21250.75")), "EUR": (1, Decimal("3200.00"))}
    assert finance(
        books,
        "select invoice_number, customer_number, settled_on from report.settled_invoices(:day) order by 1",
        day=day,
    ) == [
        ("FV/2025/001", "5261040828", date(2025, 2, 10)),
        ("FV/2025/005", "5261040828", date(2025, 2, 4)),
    ]


def test_a_workbook_of_invoices_without_settlements(books: Books, receivables: Path) -> None:
    """180 invoices of six customers whose payments are kept elsewhere: all are open, and the sum is right."""
    folder = receivables / "receivables-xlsx"
    day = date(2025, 9, 30)
    books.take_in(folder / "customers.xlsx", contract("receivables_customers"), day)
    outcome = books.take_in(folder / "invoices.xlsx", contract("receivables_invoices"), day)
    assert (outcome.rows_read, outcome.inserted, outcome.quarantined) == (180, 180, 0)
    assert by_currency(books, "open_invoices", day) == {"INR": (180, Decimal("46083095"))}
    assert finance(books, "select count(*) from report.organization_card") == [(6,)]


AGENCY = """
apiVersion: v3.1.0
kind: DataContract
id: agency
version: 1.0.0
status: active
description:
  purpose: A city agency's aging report; an invoice is due when its approval was created.
customProperties:
  - {property: extends, value: open_items}
  - {property: source, value: agency}
  - {property: missingCustomer, value: create}
  - {property: dialect, value: {dateFormats: [mm/dd/yyyy], excelSerialDates: true}}
schema:
  - name: open_items
    properties:
      - name: customer_number
        customProperties:
          - {property: aliases, value: [Vendor ID]}
      - name: customer_name
        customProperties:
          - {property: aliases, value: [Vendor Name]}
      - name: due_date
        customProperties:
          - {property: aliases, value: [Creation Date]}
      - name: document_type
        customProperties:
          - {property: constant, value: invoice}
      - name: currency
        customProperties:
          - {property: constant, value: USD}
    quality:
      - {name: due_not_before_issue, severity: warning}
"""


def test_one_report_in_two_layouts_reads_alike(books: Books, receivables: Path, tmp_path: Path) -> None:
    """Dates as dates, as American text or as bare day numbers, columns in another order: the same items come out."""
    sender = tmp_path / "agency.yaml"
    sender.write_text(AGENCY, encoding="utf-8")
    old = _documents(books, receivables / "baltimore-dgs-aging" / "old_report_input.xlsx", sender, date(2021, 1, 1))
    new = _documents(books, receivables / "baltimore-dgs-aging" / "new_report_input.xlsx", sender, date(2021, 11, 1))
    shared = {("00048571", "1929"), ("00001928", "9213290241"), ("00002656", "2019-4-32819"), ("1012092", "107082")}
    assert old.keys() & new.keys() == shared
    assert len(old) == len(new) == 6
    assert old["00048571", "1929"] == (Decimal("20.22"), date(2020, 2, 19), date(2020, 7, 22))
    assert new["00048571", "1929"] == (Decimal("20.22"), date(2019, 6, 24), date(2019, 3, 28))


def _documents(books: Books, path: Path, sender: Path, day: date) -> dict[tuple[str, str], tuple[Decimal, date, date]]:
    """What one report lists, by vendor and number: amount, issued on, due on."""
    books.take_in(path, sender, day)
    rows = finance(
        books,
        "select customer_number, invoice_number, open_amount, issued_on, due_on from report.open_invoices(:day)",
        day=day,
    )
    return {(customer, number): (amount, issued, due) for customer, number, amount, issued, due in rows}
