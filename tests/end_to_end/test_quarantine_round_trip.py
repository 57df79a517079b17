"""Export, correct, give back: the commands and the flow as people use them."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from tests.corrections import fill_in
from tests.ledgers import item, write_csv
from tests.stage import Stage

DAY = date(2026, 3, 2)
DUE = date(2026, 3, 16)


def listed(stage: Stage, *arguments: str) -> list[dict[str, Any]]:
    """The rows that a listing prints as JSON."""
    done = stage.processes.run(*arguments, "--format", "json")
    assert done.code == 0, done.said
    rows: list[dict[str, Any]] = json.loads(done.printed)
    return rows


@pytest.fixture(scope="module")
def taken_in(stage: Stage) -> Stage:
    """A home with the files of a small ledger of which two rows cannot be used; they are taken in."""
    stage.clear()
    home, kontor = stage.settings.home, stage.processes.run
    people = [
        {"customer_number": "C-1", "name": "Alpha", "owner": "hansen"},
        {"customer_number": "C-2", "name": "Beta", "owner": "ivanova"},
    ]
    rows: list[dict[str, object]] = [
        item("C-1", "A", "100", DUE),
        item("C-1", "B", "12x", DUE, currency="?"),
        item("C-2", "C", "7x", DUE),
        {"customer_number": "Total", "amount": "150", "open_amount": "150"},
    ]
    headings = [str(heading) for heading in item("", "", "", DUE)]
    files = [
        write_csv(home / "organizations.csv", people),
        write_csv(home / f"open_items_{DAY}.csv", rows, headings),
    ]
    done = kontor("import", str(files[0]), "--as-of", str(DAY))
    assert done.code == 0, done.told
    done = kontor("import", str(files[1]))
    assert done.code == 0, done.told
    return stage


def test_a_workbook_goes_out_and_comes_back_until_everything_is_settled(taken_in: Stage) -> None:
    """Their rows only; what is mended comes in, the rest comes back with its new reason, a second time does nothing."""
    home, kontor = taken_in.settings.home, taken_in.processes.run
    book = home / "hansen.xlsx"
    nothing = kontor("quarantine", "export", "--owner", "nobody", "--out", str(book))
    assert (nothing.code, book.exists()) == (0, False)
    assert kontor("quarantine", "export", "--owner", "hansen", "--out", str(book)).code == 0
    waiting = {
        row["quarantined_row_id"] for row in listed(taken_in, "quarantine", "list") if row["customer_number"] == "C-1"
    }
    [row_id] = waiting
    fill_in(book, {row_id: {"amount": "20", "open_amount": "20", "currency": "XXY"}})
    first = kontor("quarantine", "replay", str(book))
    [left] = home.glob("hansen_remaining_*.xlsx")
    assert (first.code, left.name in first.told) == (4, True), first.told
    fill_in(left, {row_id: {"currency": "EUR"}})
    done = kontor("quarantine", "replay", str(left))
    assert (done.code, "1 corrected" in done.printed) == (0, True), done.told
    again = kontor("quarantine", "replay", str(left))
    assert again.code == 0, again.told
    assert "1 resolved before" in again.printed
    [shown] = listed(taken_in, "quarantine", "show", str(row_id))
    assert shown["state"] == "corrected"
    assert {line["column_name"] for line in shown["corrections"]} == {"amount", "open_amount", "currency"}
    assert [row["invoice_number"] for row in listed(taken_in, "report", "open-invoices")] == ["A", "B"]


@pytest.mark.campaign
def test_a_row_is_given_up_with_a_reason_and_the_totals_say_so(taken_in: Stage) -> None:
    """Without a reason nothing happens; with one the row is rejected, and the run stands in the ledger as done."""
    kontor = taken_in.processes.run
    [row_id] = {
        row["quarantined_row_id"] for row in listed(taken_in, "quarantine", "list") if row["customer_number"] == "C-2"
    }
    bare = kontor("quarantine", "reject", str(row_id), "--reason", " ")
    assert bare.code == 2, bare.told
    tried = kontor("quarantine", "reject", str(row_id), "--reason", "a test row", "--dry-run")
    assert tried.code == 0, tried.told
    assert any(row["customer_number"] == "C-2" for row in listed(taken_in, "quarantine", "list"))
    done = kontor("quarantine", "reject", str(row_id), "--reason", "a test row")
    assert (done.code, "1 rejected" in done.printed) == (0, True), done.told
    assert listed(taken_in, "quarantine", "list") == []
    [total] = [row for row in listed(taken_in, "quarantine", "totals") if row["column"] == "open_amount"]
    assert (total["accepted"], total["stated"], total["unreadable_rows"]) == ("120.00", "150.00", 1)
    [run] = [row for row in listed(taken_in, "report", "runs") if row["flow"] == "quarantine_replay"][:1]
    assert run["state"] == "done"
