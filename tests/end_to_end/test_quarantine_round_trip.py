"""Export, correct, give back: the commands and the flow as people use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.corrections import fill_in
from tests.ledgers import item, write_csv
from tests.stage import Stage

DAY = date(2026, 3, 2)
DUE = date(2026, 3, 16)

pytestmark = pytest.mark.xdist_group("command-line")


@pytest.fixture(scope="module")
def home(stage: Stage) -> Path:
    """A KONTOR_HOME with nothing in it whose servers run."""
    stage.clear()
    return stage.settings.home


def kontor(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own and return what it printed and how it ended."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "KONTOR_"))}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        env={**mine, "KONTOR_HOME": str(home), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def listed(home: Path, *arguments: str) -> list[dict[str, Any]]:
    """The rows that a listing prints as JSON."""
    done = kontor(home, *arguments, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.fixture(scope="module")
def taken_in(home: Path) -> Path:
    """A folder with the files of a small ledger of which two rows cannot be used; they are taken in."""
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
    done = kontor(home, "import", str(files[0]), "--as-of", str(DAY))
    assert done.returncode == 0, done.stderr
    done = kontor(home, "import", str(files[1]))
    assert done.returncode == 0, done.stderr
    return home


def test_a_workbook_goes_out_and_comes_back_until_everything_is_settled(taken_in: Path) -> None:
    """Their rows only; what is mended comes in, the rest comes back with its new reason, a second time does nothing."""
    home, book = taken_in, taken_in / "hansen.xlsx"
    nothing = kontor(home, "quarantine", "export", "--owner", "nobody", "--out", str(book))
    assert (nothing.returncode, book.exists()) == (0, False)
    assert kontor(home, "quarantine", "export", "--owner", "hansen", "--out", str(book)).returncode == 0
    waiting = {
        row["quarantined_row_id"] for row in listed(home, "quarantine", "list") if row["customer_number"] == "C-1"
    }
    [row_id] = waiting
    fill_in(book, {row_id: {"amount": "20", "open_amount": "20", "currency": "XXY"}})
    first = kontor(home, "quarantine", "replay", str(book))
    [left] = home.glob("hansen_remaining_*.xlsx")
    assert (first.returncode, left.name in first.stderr) == (4, True), first.stderr
    fill_in(left, {row_id: {"currency": "EUR"}})
    done = kontor(home, "quarantine", "replay", str(left))
    assert (done.returncode, "1 corrected" in done.stdout) == (0, True), done.stderr
    again = kontor(home, "quarantine", "replay", str(left))
    assert again.returncode == 0, again.stderr
    assert "1 resolved before" in again.stdout
    [shown] = listed(home, "quarantine", "show", str(row_id))
    assert shown["state"] == "corrected"
    assert {line["column_name"] for line in shown["corrections"]} == {"amount", "open_amount", "currency"}
    assert [row["invoice_number"] for row in listed(home, "report", "open-invoices")] == ["A", "B"]


@pytest.mark.campaign
def test_a_row_is_given_up_with_a_reason_and_the_totals_say_so(taken_in: Path) -> None:
    """Without a reason nothing happens; with one the row is rejected, and the run stands in the ledger as done."""
    home = taken_in
    [row_id] = {
        row["quarantined_row_id"] for row in listed(home, "quarantine", "list") if row["customer_number"] == "C-2"
    }
    bare = kontor(home, "quarantine", "reject", str(row_id), "--reason", " ")
    assert bare.returncode == 2, bare.stderr
    tried = kontor(home, "quarantine", "reject", str(row_id), "--reason", "a test row", "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert any(row["customer_number"] == "C-2" for row in listed(home, "quarantine", "list"))
    done = kontor(home, "quarantine", "reject", str(row_id), "--reason", "a test row")
    assert (done.returncode, "1 rejected" in done.stdout) == (0, True), done.stderr
    assert listed(home, "quarantine", "list") == []
    [total] = [row for row in listed(home, "quarantine", "totals") if row["column"] == "open_amount"]
    assert (total["accepted"], total["stated"], total["unreadable_rows"]) == ("120.00", "150.00", 1)
    [run] = [row for row in listed(home, "report", "runs") if row["flow"] == "quarantine_replay"][:1]
    assert run["state"] == "done"
