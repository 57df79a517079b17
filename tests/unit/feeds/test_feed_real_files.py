"""Files that nobody of this project wrote, against figures worked out without its code."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from tasks.errors import FileRefused
from tasks.feeds.business_date import find_as_of
from tasks.feeds.casting import CastTable, cast_table, control_totals
from tasks.feeds.contracts import load_contract
from tasks.feeds.raw_table import RawTable, raw_rows
from tasks.feeds.reading import read_table
from tests.unit.feeds.conftest import Extend


@pytest.fixture(scope="module")
def ledgers(real_data: Path) -> Path:
    """The folder of accounting's ledgers."""
    return real_data / "receivables"


def taken(path: Path, name: str) -> tuple[RawTable, CastTable]:
    """The file read and cast by the named contract."""
    contract = load_contract(name)
    raw = read_table(path, contract)
    return raw, cast_table(raw, contract)


def sums(frame: pd.DataFrame, column: str) -> dict[str, Decimal]:
    """The column's sum per currency."""
    return {str(currency): Decimal(group[column].sum()) for currency, group in frame.groupby("currency")}


def test_all_weekly_workbooks(ledgers: Path) -> None:
    """Rows, sums per currency, disputes, date and control total of all 53 weeks, the empty first one among them."""
    contract = load_contract("open_items")
    expected = json.loads((ledgers / "weekly-2012/expected.json").read_text())
    assert len(expected) == 53
    for day, week in expected.items():
        raw, cast = taken(ledgers / f"weekly-2012/open_items_{day}.xlsx", "open_items")
        amounts = {currency: Decimal(text) for currency, text in week["open"].items()}
        assert len(cast.frame) == week["rows"], day
        assert sums(cast.frame, "open_amount") == amounts, day
        assert cast.frame["disputed"].sum() == week["disputed"], day
        assert len(cast.problems) == 0
        (total,) = control_totals(raw, contract)
        assert (total.currency, total.amounts) == (None, {"open_amount": sum(amounts.values(), Decimal(0))})
        assert find_as_of(contract, file_name=raw.file_name, titles=raw.titles, given=None).isoformat() == day


def test_customers_and_contacts(ledgers: Path) -> None:
    """The customers and contacts of the weekly workbooks come in whole."""
    _, customers = taken(ledgers / "customers.xlsx", "organizations")
    assert (len(customers.frame), len(customers.problems)) == (100, 0)
    _, contacts = taken(ledgers / "contacts.xlsx", "contacts")
    assert (len(contacts.frame), len(contacts.problems)) == (206, 0)
    assert set(contacts.frame["roles"]) >= {"payments", "manager;promotions"}


def test_the_settled_ledger(ledgers: Path) -> None:
    """2,466 invoices with American dates, padded numbers, no currency of their own."""
    raw, cast = taken(ledgers / "ibm/ibm_ar_padded.csv", "ibm_ledger")
    assert (len(cast.frame), len(cast.problems)) == (2466, 0)
    assert sums(cast.frame, "amount") == {"USD": Decimal("147703.18")}
    assert cast.frame["disputed"].sum() == 561
    assert (cast.frame["settled_date"] > cast.frame["due_date"]).sum() == 877
    assert raw_rows(raw, [2])[0]["cells"]["invoiceNumber"] == "0000611365"  # type: ignore[index]


def test_the_ledger_with_blanks_loses_nothing(ledgers: Path) -> None:
    """Blanks in columns that the contract does not need cost no row."""
    _, cast = taken(ledgers / "ibm/ibm_ar_with_missing.csv", "ibm_ledger")
    assert (len(cast.frame), len(cast.problems)) == (2586, 0)


def test_one_ledger_as_two_people_exported_it(ledgers: Path) -> None:
    """Both exports give the same items; only the amounts of one company differ, and that can be seen."""
    _, one = taken(ledgers / "highradius/A_iso_leading_zeros_floats.csv", "highradius")
    _, other = taken(ledgers / "highradius/D_iso_dates.csv", "highradius")
    assert sums(one.frame, "amount") == {"CAD": Decimal("42218190.72"), "USD": Decimal("280875125.47")}
    assert (len(one.problems), len(other.problems)) == (0, 0)
    assert one.frame["customer_number"].nunique() == 694
    names = one.frame.groupby("customer_number")["customer_name"].nunique()
    assert (names > 1).sum() == 384
    key = ["customer_number", "invoice_number"]
    both = one.frame.merge(other.frame, on=[*key, "customer_name", "issue_date", "due_date", "currency"])
    assert len(both) == 9681
    differs = both["amount_x"] != both["amount_y"]
    assert (differs.sum(), set(both["currency"][differs])) == (704, {"CAD"})
    as_of = pd.Timestamp("2020-04-01").date()
    overdue = one.frame[one.frame["due_date"] < as_of]
    assert len(overdue) == 2368
    assert sums(overdue, "open_amount") == {"CAD": Decimal("13191112.99"), "USD": Decimal("65421323.22")}


def test_the_customers_in_that_ledger(ledgers: Path) -> None:
    """The same file read as a list of customers: every row names one."""
    _, cast = taken(ledgers / "highradius/A_iso_leading_zeros_floats.csv", "highradius_customers")
    assert (len(cast.frame), cast.frame["customer_number"].nunique(), len(cast.problems)) == (9681, 694, 0)


def test_four_date_formats_and_dollar_signs(ledgers: Path) -> None:
    """After 50 exact duplicates 2,521 invoices remain with the published sums; 100 of them do not add up."""
    _, cast = taken(ledgers / "xero-like-messy/FactInvoice_raw.csv", "xero_invoices")
    assert (len(cast.frame), len(cast.problems)) == (2571, 0)
    once = cast.frame.drop(columns="row_number").drop_duplicates()
    assert len(once) == 2521
    assert once["amount"].sum() == Decimal("5250359.50")
    assert once["paid_amount"].sum() == Decimal("3225576.78")
    assert (once["net_amount"] + once["tax_amount"] != once["amount"]).sum() == 100
    _, customers = taken(ledgers / "xero-like-messy/DimCustomer_raw.csv", "xero_customers")
    assert (len(customers.problems), customers.frame["customer_number"].duplicated().sum()) == (0, 8)
    assert set(once["customer_number"]) - set(customers.frame["customer_number"]) == {"CUST999"}


def test_invoices_without_payments(ledgers: Path) -> None:
    """Text dates and whole amounts of a workbook."""
    _, cast = taken(ledgers / "receivables-xlsx/invoices.xlsx", "receivables_invoices")
    assert (len(cast.frame), len(cast.problems)) == (180, 0)
    assert sums(cast.frame, "amount") == {"INR": Decimal(46083095)}
    _, customers = taken(ledgers / "receivables-xlsx/customers.xlsx", "receivables_customers")
    assert (len(customers.frame), len(customers.problems)) == (6, 0)


def test_norwegian_remainders(ledgers: Path) -> None:
    """Three items over NOK 15,500.00: the remainder, not the amount; a file without an amount is refused."""
    _, cast = taken(ledgers / "norway/apne_poster_belop_og_restbelop.csv", "tripletex_open_items")
    assert (len(cast.frame), len(cast.problems)) == (3, 0)
    assert sums(cast.frame, "open_amount") == {"NOK": Decimal(15500)}
    with pytest.raises(FileRefused, match="required column amount not found"):
        taken(ledgers / "norway/uten_belop.csv", "tripletex_open_items")
    _, customers = taken(ledgers / "norway/kunder_tripletex_style.csv", "tripletex_customers")
    assert list(customers.frame["name"]) == ["Hansen; Berg AS", "Lille Bakeri"]


def test_polish_invoices(ledgers: Path) -> None:
    """Three unpaid: PLN 21,250.75 and EUR 3,200.00; two names share a tax number."""
    _, cast = taken(ledgers / "poland/wzorzec_faktur.csv", "polish_invoices")
    assert (len(cast.frame), len(cast.problems)) == (5, 0)
    unpaid = cast.frame[cast.frame["settled_date"].isna()]
    assert sums(unpaid, "open_amount") == {"PLN": Decimal("21250.75"), "EUR": Decimal(3200)}
    assert cast.frame["customer_number"].duplicated().sum() == 1


def test_one_report_in_two_layouts(ledgers: Path, extend: Extend) -> None:
    """Typed dates or American text, ids as numbers or as text: both layouts are read by one small contract."""
    contract = extend(
        "open_items",
        columns={
            "customer_number": {"aliases": ["Vendor ID"]},
            "customer_name": {"aliases": ["Vendor Name"]},
            "issue_date": {"aliases": ["Document Date"]},
            "due_date": {"defaultFrom": "issue_date"},
            "currency": {"constant": "USD"},
            "document_type": {"constant": "invoice"},
        },
        dialect={"dateFormats": ["m/d/yyyy"], "excelSerialDates": True},
    )
    found = {}
    for layout in ("old", "new"):
        raw = read_table(ledgers / f"baltimore-dgs-aging/{layout}_report_input.xlsx", contract)
        cast = cast_table(raw, contract)
        assert len(cast.problems) == 0
        found[layout] = cast.frame
    assert sums(found["new"], "amount") == {"USD": Decimal("210.66")}
    assert sums(found["old"], "amount") == {"USD": Decimal("270.55")}
    assert set(found["old"]["invoice_number"]) >= {"1929", "9213290241", "37010778", "BCB4-33"}
    assert found["new"]["issue_date"].iloc[0].isoformat() == "2016-03-29"
    assert list(found["new"]["customer_number"]) == [
        "00048571",
        "00048571",
        "00001928",
        "00002656",
        "1012092",
        "00048571",
    ]
