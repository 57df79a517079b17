"""A good row of every table contract, and for every rule a row that breaks it and one exactly on its boundary.

The rows are literals, so that a rule is asked about what stands here and nothing else. ``BAD`` and ``BOUNDARY`` say
only what differs from the good row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from tasks.quality.contracts import TableContract

DAY = date(2026, 6, 15)
Row = Mapping[str, Any]

# Column: its type and a value that breaks no rule. ``{n}`` is the row's number, so that keys do not repeat.
GOOD: Mapping[str, Mapping[str, tuple[str, Any]]] = {
    "invoices": {
        "invoice_id": ("bigint", "{n}"),
        "organization_id": ("bigint", None),
        "source": ("text", "books"),
        "invoice_number": ("text", "F-{n}"),
        "document_type": ("text", "invoice"),
        "issued_on": ("date", date(2026, 5, 1)),
        "due_on": ("date", date(2026, 5, 31)),
        "currency": ("text", "EUR"),
        "amount": ("numeric(19,4)", 100),
        "open_amount": ("numeric(19,4)", 60),
        "disputed": ("boolean", False),
        "as_of": ("date", DAY),
        "customer_number": ("text", "C-{n}"),
        "customer_currency": ("text", "EUR"),
        "payment_terms_days": ("integer", 30),
    },
    "organizations": {
        "organization_id": ("bigint", "{n}"),
        "customer_number": ("text", "C-{n}"),
        "name": ("text", "Firma {n}"),
        "country": ("text", "BG"),
        "language": ("text", "bg"),
        "vat_number": ("text", "BG175074752"),
        "currency": ("text", "EUR"),
        "payment_terms_days": ("integer", 30),
        "owner": ("text", "petar"),
        "origin": ("text", "customers"),
        "seen_as_of": ("date", date(2026, 6, 1)),
        "as_of": ("date", DAY),
        "owing": ("boolean", True),
        "credit": ("boolean", False),
        "contactable": ("boolean", True),
        "vat_key": ("text", "KEY{n}"),
        "keyed": ("boolean", True),
        "contacts_told": ("boolean", True),
        "known_since": ("date", date(2020, 1, 1)),
        "contacted_on": ("date", date(2026, 6, 1)),
        "contacted_last": ("text", "2026-06-01"),
    },
    "contacts": {
        "contact_id": ("bigint", "{n}"),
        "external_id": ("text", "id-{n}"),
        "organization_id": ("bigint", None),
        "first_name": ("text", "Anna"),
        "last_name": ("text", "Berg"),
        "email": ("text", "anna{n}@firma.example"),
        "phone": ("text", "+359 2 123 4567"),
        "language": ("text", "bg"),
        "seen_as_of": ("date", date(2026, 6, 1)),
        "as_of": ("date", DAY),
        "customer_number": ("text", "C-1"),
        "phone_key": ("text", "+35921234567"),
        "keyed": ("boolean", True),
        "has_role": ("boolean", True),
        "mailed_on": ("date", None),
    },
    "contact_roles": {
        "contact_role_id": ("bigint", "{n}"),
        "contact_id": ("bigint", None),
        "role": ("text", "payments"),
        "valid_from": ("date", date(2026, 1, 1)),
        "valid_to": ("date", date(2026, 12, 31)),
        "empty": ("boolean", False),
        "as_of": ("date", DAY),
        "organization_id": ("bigint", None),
        "external_id": ("text", "id-{n}"),
        "customer_number": ("text", "C-1"),
    },
    "feeds": {
        "feed_key": ("text", "open_items / {n}"),
        "feed": ("text", "open_items"),
        "source": ("text", "books {n}"),
        "newest_as_of": ("date", date(2026, 6, 8)),
        "files": ("bigint", 3),
        "as_of": ("date", DAY),
        "age_days": ("integer", 7),
        "feed_file_id": ("bigint", "{n}"),
        "rows_read": ("integer", 100),
        "quarantined": ("integer", 1),
        "newer_refused": ("boolean", False),
    },
    "ledger_totals": {
        "feed_file_id": ("bigint", "{n}"),
        "source": ("text", "books {n}"),
        "stated_on": ("date", date(2026, 6, 8)),
        "money_column": ("text", "open_amount"),
        "currency": ("text", "EUR"),
        "stated": ("numeric", "1250.50"),
        "accounted": ("numeric", "1250.50"),
        "unreadable": ("bigint", 0),
        "copies": ("integer", 0),
    },
    "quarantine": {
        "quarantined_row_id": ("bigint", "{n}"),
        "feed_file_id": ("bigint", None),
        "row_number": ("integer", 7),
        "customer_number": ("text", "C-1"),
        "since": ("date", date(2026, 6, 10)),
        "as_of": ("date", DAY),
        "organization_id": ("bigint", None),
        "source": ("text", "books"),
        "feed": ("text", "open_items"),
    },
    "products": {
        "product_id": ("bigint", "{n}"),
        "source": ("text", "wholesale"),
        "part_key": ("text", "P{n}"),
        "part_number": ("text", "P-{n}"),
        "name": ("text", "Cable {n}"),
        "unit": ("text", "m"),
        "gtin": ("text", "590000000000{n}"),
        "status": ("text", "active"),
        "feed_file_id": ("bigint", 1),
    },
    "prices": {
        "product_id": ("bigint", "{n}"),
        "source": ("text", "wholesale"),
        "part_number": ("text", "P-{n}"),
        "currency": ("text", "PLN"),
        "price_unit": ("text", "m"),
        "min_quantity": ("numeric(19,4)", 1),
        "customer_price": ("numeric(19,4)", 10),
        "dealer_price": ("numeric(19,4)", 8),
        "promo_price": ("numeric(19,4)", 9),
        "known_product": ("bigint", "{n}"),
    },
}

BAD: Mapping[str, Row] = {
    "invoice_document_type_known": {"document_type": "receipt"},
    "invoice_issue_date_present": {"issued_on": None},
    "invoice_currency_code": {"currency": "eur", "customer_currency": "eur"},
    "invoice_customer_exists": {"organization_id": -1},
    "invoice_due_not_before_issue": {"issued_on": date(2026, 6, 1), "payment_terms_days": None},
    "invoice_open_within_amount": {"open_amount": "100.0001"},
    "invoice_not_overpaid": {"open_amount": "-0.0001"},
    "invoice_credit_is_negative": {"document_type": "credit_note"},
    "invoice_issued_by_today": {"issued_on": date(2026, 6, 17), "due_on": date(2026, 7, 17)},
    "invoice_term_plausible": {"issued_on": date(2025, 4, 25), "payment_terms_days": None},
    "invoice_term_as_agreed": {"payment_terms_days": 36},
    "invoice_in_customers_currency": {"customer_currency": "SEK"},
    "invoice_number_used_once": {"invoice_number": "F-1"},
    "invoice_still_pursued": {"issued_on": date(2025, 5, 14), "due_on": date(2025, 6, 14), "payment_terms_days": None},
    "organization_country_present": {"country": None},
    "organization_country_code": {"country": "Bulgaria"},
    "organization_language_present": {"language": None},
    "organization_vat_present": {"vat_number": None},
    "organization_terms_present": {"payment_terms_days": None},
    "organization_owner_present": {"owner": None},
    "organization_named": {"name": "  "},
    "organization_in_master_data": {"origin": "ledger"},
    "organization_vat_valid": {"vat_key": None},
    "organization_vat_unique": {"vat_key": "KEY1"},
    "organization_payments_contact": {"contactable": False},
    "organization_no_credit_balance": {"credit": True},
    "organization_confirmed": {"seen_as_of": date(2024, 12, 14)},
    "organization_contacted": {"contacted_on": date(2025, 12, 14)},
    "contact_name_present": {"last_name": None},
    "contact_email_present": {"email": None},
    "contact_email_form": {"email": "anna@firma"},
    "contact_customer_exists": {"organization_id": -1},
    "contact_phone_form": {"phone_key": None},
    "contact_email_of_one_customer": {"email": "anna1@firma.example"},
    "contact_has_role": {"has_role": False},
    "contact_confirmed": {"seen_as_of": date(2025, 6, 14)},
    "role_contact_exists": {"contact_id": -1},
    "role_not_ended_before_begun": {"valid_from": date(2026, 5, 2), "valid_to": date(2026, 5, 1)},
    "role_begins_plausibly": {"valid_from": date(2027, 6, 16), "valid_to": None},
    "feed_open_items_fresh": {"age_days": 16},
    "feed_master_data_fresh": {"feed": "contacts", "age_days": 367},
    "feed_newest_not_refused": {"newer_refused": True},
    "feed_mostly_usable": {"quarantined": 6},
    "ledger_total_agrees": {"stated": "1250.5101"},
    "quarantine_file_exists": {"feed_file_id": -1},
    "quarantine_answered": {"since": date(2026, 5, 31)},
    "product_name_present": {"name": None},
    "product_unit_present": {"unit": None},
    "product_gtin_form": {"gtin": "59000000000"},
    "product_gtin_used_once": {"gtin": "5900000000001"},
    "price_product_exists": {"product_id": None},
    "price_promo_below_customer": {"promo_price": "10.0001"},
    "price_dealer_below_customer": {"dealer_price": "10.0001"},
    "price_customer_present": {"customer_price": None},
    "price_not_zero": {"customer_price": 0, "dealer_price": 0, "promo_price": 0},
}

# Still good, but by nothing. A rule without a boundary of its own has a second good kind of row.
BOUNDARY: Mapping[str, Row] = {
    "invoice_document_type_known": {"document_type": "credit_note", "amount": -5, "open_amount": -5},
    "invoice_issue_date_present": {"issued_on": DAY, "due_on": DAY, "payment_terms_days": None},
    "invoice_currency_code": {"currency": "XXX", "customer_currency": "XXX"},
    "invoice_customer_exists": {"organization_id": None},
    "invoice_due_not_before_issue": {"issued_on": date(2026, 5, 31), "payment_terms_days": None},
    "invoice_open_within_amount": {"open_amount": 100},
    "invoice_not_overpaid": {"open_amount": 0},
    "invoice_credit_is_negative": {"document_type": "credit_note", "amount": 0, "open_amount": 0},
    "invoice_issued_by_today": {"issued_on": date(2026, 6, 16), "due_on": date(2026, 7, 16)},
    "invoice_term_plausible": {"issued_on": date(2025, 4, 26), "payment_terms_days": None},
    "invoice_term_as_agreed": {"payment_terms_days": 35},
    "invoice_in_customers_currency": {"customer_currency": None},
    "invoice_number_used_once": {"invoice_number": "F-1", "source": "other books"},
    "invoice_still_pursued": {"issued_on": date(2025, 5, 15), "due_on": date(2025, 6, 15), "payment_terms_days": None},
    "organization_country_present": {"country": "XX"},
    "organization_country_code": {"country": "NO"},
    "organization_language_present": {"language": ""},
    "organization_vat_present": {"vat_number": ""},
    "organization_terms_present": {"payment_terms_days": 0},
    "organization_owner_present": {"owner": ""},
    "organization_named": {"name": "C"},
    "organization_in_master_data": {"origin": "customers", "seen_as_of": DAY},
    "organization_vat_valid": {"vat_key": None, "vat_number": None},
    "organization_vat_unique": {"vat_key": None, "keyed": False},
    "organization_payments_contact": {"contactable": False, "owing": False},
    "organization_no_credit_balance": {"credit": False, "owing": False},
    "organization_confirmed": {"seen_as_of": date(2024, 12, 15)},
    "organization_contacted": {"contacted_on": date(2025, 12, 15)},
    "contact_name_present": {"last_name": ""},
    "contact_email_present": {"email": "a@b.c"},
    "contact_email_form": {"email": "a@b.c"},
    "contact_customer_exists": {"organization_id": None},
    "contact_phone_form": {"phone_key": None, "phone": None},
    "contact_email_of_one_customer": {"email": None},
    "contact_has_role": {"has_role": True, "phone": None, "phone_key": None},
    "contact_confirmed": {"seen_as_of": date(2025, 6, 15)},
    "role_contact_exists": {"contact_id": None},
    "role_not_ended_before_begun": {"valid_from": date(2026, 5, 1), "valid_to": date(2026, 5, 1)},
    "role_begins_plausibly": {"valid_from": date(2027, 6, 15), "valid_to": None},
    "feed_open_items_fresh": {"age_days": 15},
    "feed_master_data_fresh": {"feed": "contacts", "age_days": 366},
    "feed_newest_not_refused": {"newer_refused": False, "age_days": 0},
    "feed_mostly_usable": {"quarantined": 5},
    "ledger_total_agrees": {"stated": "1250.49"},
    "quarantine_file_exists": {"feed_file_id": None},
    "quarantine_answered": {"since": date(2026, 6, 1)},
    "product_name_present": {"name": ""},
    "product_unit_present": {"unit": ""},
    "product_gtin_form": {"gtin": "12345678"},
    "product_gtin_used_once": {"gtin": "5900000000001", "source": "retail"},
    "price_product_exists": {"product_id": 0},
    "price_promo_below_customer": {"promo_price": 10},
    "price_dealer_below_customer": {"dealer_price": 10},
    "price_customer_present": {"dealer_price": None, "promo_price": None},
    "price_not_zero": {"customer_price": "0.0001", "dealer_price": None, "promo_price": None},
}


def over_rows(contract: TableContract, rows: Sequence[Row]) -> TableContract:
    """The contract, asked about these rows instead of its table's; each says what differs from a good row."""
    columns = GOOD[contract.name]
    lines = [
        ", ".join(_literal(kind, row.get(name, value), number) for name, (kind, value) in columns.items())
        for number, row in enumerate(rows, start=1)
    ]
    names = ", ".join(columns)
    values = ", ".join(f"({line})" for line in lines)
    return replace(contract, rows=f"select * from (values {values}) v ({names})")


def _literal(kind: str, value: object, number: int) -> str:
    if value is None:
        return f"null::{kind}"
    text = str(value).replace("{n}", str(number)).replace("'", "''").replace(":", "\\:")
    return f"'{text}'::{kind}"
