"""What artifacts say: escaped, exact, with words beside colours and nobody's address."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.artifacts import (
    PAYER_COLOURS,
    artifact_key,
    cell_text,
    counts_rows,
    escape,
    json_cell,
    markdown_table,
    money,
    money_rows,
    number,
    payer_badge,
    payer_class_rows,
    summary,
    without_personal_data,
)
from tasks.errors import UsageError


class _State(StrEnum):
    DONE = "done"


def test_key_from_flow_name() -> None:
    """A key is made of a flow's name and what is shown, in the letters that Prefect takes."""
    assert artifact_key("payment_sync", "counts") == "payment-sync-counts"


@pytest.mark.parametrize("bad", ["", "плащания", "a--b", "-a", "a/b", "a.b"])
def test_key_refused(bad: str) -> None:
    """A key that Prefect would refuse is refused here, with a hint."""
    with pytest.raises(UsageError) as caught:
        artifact_key(bad)
    assert caught.value.hint


@pytest.mark.parametrize("name", list(PAYER_COLOURS))
def test_badge_has_mark_and_words(name: str) -> None:
    """A payer class shows its mark, its name and its colour in words."""
    mark, colour = PAYER_COLOURS[name]
    assert payer_badge(name) == f"{mark} {name} ({colour})"


def test_unknown_class_is_refused() -> None:
    """A payer class without a colour is an error, not a grey one."""
    with pytest.raises(UsageError, match="unknown"):
        payer_badge("generous")


def test_class_rows_are_complete() -> None:
    """The table of payer classes names all four, best first, also those without a customer."""
    rows = payer_class_rows({"disloyal": 2})
    assert [row["customers"] for row in rows] == [0, 0, 2, 0]
    assert rows[0]["payer class"] == "🟢 strict (green)"


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("1234.5", "BGN", "BGN 1,234.50"),
        ("-500", "NOK", "NOK -500.00"),
        ("1.23456", "USD", "USD 1.23456"),
        ("42218190.72", "CAD", "CAD 42,218,190.72"),
        ("100", "JPY", "JPY 100"),
        ("0", "EUR", "EUR 0.00"),
    ],
)
def test_money_is_exact_and_named(amount: str, currency: str, shown: str) -> None:
    """Money stands behind its code, with its currency's digits, and more where there are more."""
    assert money(Decimal(amount), currency) == shown


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12))
def test_no_digit_of_money_is_lost(amount: Decimal) -> None:
    """Read back, a shown amount is the amount."""
    assert Decimal(money(amount, "EUR").removeprefix("EUR ").replace(",", "")) == amount


def test_money_never_crosses_currencies() -> None:
    """Totals are one row per currency, by code."""
    rows = money_rows({"USD": Decimal("2"), "CAD": Decimal("1")}, "overdue")
    assert rows == [{"currency": "CAD", "overdue": "CAD 1.00"}, {"currency": "USD", "overdue": "USD 2.00"}]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (1234, "1,234"),
        (Decimal("10.50"), "10.50"),
        (date(2026, 11, 2), "2026-11-02"),
        (datetime(2026, 11, 2, 8, 30, tzinfo=UTC), "2026-11-02 08:30:00+00:00"),
        (_State.DONE, "done"),
    ],
)
def test_cells_read_like_words(value: object, shown: str) -> None:
    """A cell shows a value as a person writes it."""
    assert cell_text(value) == shown


def test_table_aligns_numbers_and_keeps_order() -> None:
    """Columns come in the order asked for, numbers to the right, names without underscores."""
    rows: list[dict[str, object]] = [
        {"file_name": "week 1.xlsx", "rows_read": 1200},
        {"file_name": "a|b.xlsx", "rows_read": None},
    ]
    assert markdown_table(rows, ["rows_read", "file_name"]) == (
        "| rows read | file name |\n| ---: | --- |\n| 1,200 | week 1.xlsx |\n| – | a\\|b.xlsx |"
    )


def test_table_of_nothing_is_nothing() -> None:
    """No rows make no table, so that a summary leaves the section out."""
    assert markdown_table([]) == ""
    assert "##" not in summary("Run", {"rows": 0}, {"Quarantine": ""})


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_no_text_breaks_a_table(texts: list[str]) -> None:
    """Whatever the data says, a table keeps its lines and columns and gains no tag."""
    table = markdown_table([{f"c{n}": text for n, text in enumerate(texts)}])
    lines = table.split("\n")
    assert len(lines) == 3
    assert lines[2].replace("\\\\", "").replace("\\|", "").count("|") == len(texts) + 1
    assert "<" not in lines[2]


def test_escape_disarms_markup() -> None:
    """Tags, links and emphasis in a name stay letters."""
    assert escape("<b>*x*</b> [a](b)\nc") == "&lt;b&gt;\\*x\\*&lt;/b&gt; \\[a\\](b) c"


def test_summary_reads_top_down() -> None:
    """A summary has its heading, its facts and its sections in order."""
    text = summary("payment_sync", {"as_of": date(2012, 1, 2), "dry_run": False}, {"Counts": "| a |"})
    assert text == "# payment\\_sync\n\n- **as of**: 2012-01-02\n- **dry run**: no\n\n## Counts\n\n| a |\n"


@pytest.mark.parametrize("value", [1, "x", None, True, Decimal("1.10"), date(2026, 1, 1), _State.DONE])
def test_table_cells_can_be_stored(value: object) -> None:
    """Every cell of a table artifact can be written as JSON, money keeping its digits."""
    assert json.loads(json.dumps(json_cell(value))) == json_cell(value)
    assert json_cell(Decimal("1.10")) == "1.10"


def test_table_cells_name_nobody() -> None:
    """An address in a file's name does not reach Prefect's table; other names stay as they are."""
    assert json_cell("items of anna.petrova@mail.example.xlsx") == "items of [address withheld]"
    assert json_cell("open_items 2026-11-16 (1).xlsx") == "open_items 2026-11-16 (1).xlsx"


def test_counts_and_numbers() -> None:
    """Counts become rows in the order given; big numbers get separators and keep every digit."""
    assert counts_rows({"rows_read": 3}) == [{"what": "rows read", "count": 3}]
    assert number(Decimal("1234567.8901")) == "1,234,567.8901"


def test_database_texts_lose_their_values() -> None:
    """What PostgreSQL and SQLAlchemy quote in an error is withheld; the constraint's name stays."""
    text = (
        '(psycopg.errors.UniqueViolation) violates unique constraint "contacts_email_key"\n'
        "DETAIL:  Key (email, last_name)=(anna@example.com, Petrova) already exists.\n"
        "[parameters: {'email': 'anna@example.com', 'last_name': 'Petrova'}]"
    )
    clean = without_personal_data(text)
    assert "contacts_email_key" in clean
    assert "anna" not in clean
    assert "Petrova" not in clean


@given(st.emails(), st.text(max_size=20))
def test_addresses_are_withheld(address: str, around: str) -> None:
    """An e-mail address is withheld wherever it stands."""
    assert address not in without_personal_data(f"{around} {address} {around}")


def test_long_lines_are_quick() -> None:
    """A long line with a hundred thousand near misses is cleaned in well under a second."""
    assert len(without_personal_data("a@ " * 100_000)) == 300_000
