"""Corrected rows read as if the file had come corrected, whenever that happens; rejected ones as if never listed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from configs.settings import Settings
from tasks import database
from tasks.feeds.contracts import load_contract
from tasks.feeds.corrections import CorrectedRow
from tasks.feeds.totals_store import fetch_totals
from tests.conftest import CAMPAIGN_FACTOR, empty_database, examples
from tests.corrections import correct, export, fill_in, give_back, held, reject, settle
from tests.ledgers import Books, item, write_csv

DAY = date(2026, 3, 2)
DUE = date(2026, 3, 16)
WEEK = timedelta(weeks=1)


@pytest.fixture
def books(kontor_settings: Settings, tmp_path: Path) -> Books:
    """An empty database with two customers."""
    made = Books(kontor_settings)
    made.customers(tmp_path, ("C-1", "C-2"))
    return made


def snapshot(books: Books, folder: Path, day: date, *rows: dict[str, object], total: str | None = None) -> None:
    """Take in an open-items file of that day."""
    lines = list(rows)
    if total is not None:
        lines.append({**dict.fromkeys(lines[0], ""), "customer_number": "Total", "amount": total, "open_amount": total})
    books.take_in(write_csv(folder / f"open_items_{day}.csv", lines), "open_items")


def opened(books: Books, day: date) -> dict[str, Decimal]:
    """What finance reads as open on a day, by invoice number."""
    return {row["invoice_number"]: row["open_amount"] for row in books.open_on(day)}


def counts(books: Books) -> dict[str, int]:
    """The counts of the open-items file."""
    names = "rows_read, inserted, updated, unchanged, quarantined, superseded"
    return dict(books.read(f"select {names} from landing.feed_files where feed = 'open_items'")[0])


def test_a_corrected_amount_is_taken_in_and_the_file_still_adds_up(books: Books, tmp_path: Path) -> None:
    """The item opens with the amount given, on the day its snapshot spoke of, and moves from one count to another."""
    snapshot(books, tmp_path, DAY, item("C-1", "A", "12x", DUE, open_amount=""), item("C-1", "B", "5", DUE))
    [row] = held(books)
    outcome = correct(books, row, amount="120.50")
    assert (outcome.taken_in, outcome.still_wrong, outcome.applied.inserted) == (1, (), 1)
    assert opened(books, DAY) == {"A": Decimal("120.5"), "B": Decimal(5)}
    assert counts(books) == {
        "rows_read": 2, "inserted": 2, "updated": 0, "unchanged": 0, "quarantined": 0, "superseded": 0,
    }  # fmt: skip
    assert books.read("select actor, outcome, column_name, old_value, new_value from report.corrections") == [
        {
            "actor": "a.clerk",
            "outcome": "taken_in",
            "column_name": "amount",
            "old_value": "12x",
            "new_value": "120.50",
        }
    ]


def test_what_still_fails_keeps_the_correction_and_gets_its_new_reason(books: Books, tmp_path: Path) -> None:
    """A row with two faults of which one is mended stays in quarantine for the other one only."""
    snapshot(books, tmp_path, DAY, item("C-1", "A", "12x", DUE, currency="???"), item("C-1", "B", "5", DUE))
    [row] = held(books)
    assert len(row.reasons) > 1
    outcome = correct(books, row, amount="120", open_amount="120")
    assert outcome.still_wrong == (row.row_id,)
    [left] = held(books)
    assert [reason["column_name"] for reason in left.reasons] == ["currency"]
    assert left.cells["amount"] == "120"
    assert correct(books, left, currency="EUR").taken_in == 1
    assert opened(books, DAY)["A"] == 120


def test_a_missing_invoice_number_can_be_given(books: Books, tmp_path: Path) -> None:
    """A row without its key is taken in once the key is known; a number that the file says already is refused."""
    snapshot(books, tmp_path, DAY, item("C-1", "", "7", DUE), item("C-1", "B", "5", DUE))
    [row] = held(books)
    assert correct(books, row, invoice_number="B").still_wrong == (row.row_id,)
    [row] = held(books)
    assert "which was taken in" in row.reasons[0]["reason"]
    assert correct(books, row, invoice_number="A").taken_in == 1
    assert opened(books, DAY) == {"A": 7, "B": 5}


def test_a_rejected_row_reads_as_if_never_listed(books: Books, tmp_path: Path) -> None:
    """While its row waits an item stays open as last known; when the row is given up it is settled on that day."""
    snapshot(books, tmp_path, DAY, item("C-1", "A", "100", DUE), item("C-1", "B", "5", DUE))
    snapshot(books, tmp_path, DAY + WEEK, item("C-1", "A", "12x", DUE), item("C-1", "B", "5", DUE))
    assert opened(books, DAY + WEEK) == {"A": 100, "B": 5}
    [row] = held(books)
    assert reject(books, row).rejected == 1
    assert opened(books, DAY + WEEK) == {"B": 5}
    assert opened(books, DAY) == {"A": 100, "B": 5}
    states = books.read("select state from landing.quarantined_rows")
    assert states == [{"state": "rejected"}]
    assert books.read("select reason, actor from report.corrections")[0]["reason"] == "a test row of accounting"


def test_of_two_rows_with_one_number_the_other_is_taken_in_when_one_goes(books: Books, tmp_path: Path) -> None:
    """Rows that claim one invoice wait together; rejecting one lets the other in by itself."""
    snapshot(books, tmp_path, DAY, item("C-1", "A", "100", DUE), item("C-1", "A", "60", DUE))
    first, _second = held(books)
    outcome = reject(books, first)
    assert (outcome.rejected, outcome.freed) == (1, 1)
    assert opened(books, DAY) == {"A": 60}
    assert held(books) == []


def test_a_corrected_number_releases_the_item_that_the_row_stood_for(books: Books, tmp_path: Path) -> None:
    """A row that named A by mistake protects A no more: A left the list on that day, B was on it."""
    snapshot(books, tmp_path, DAY, item("C-1", "A", "100", DUE))
    snapshot(
        books, tmp_path, DAY + WEEK, item("C-1", "A", "x", DUE), item("C-1", "A", "y", DUE), item("C-2", "C", 1, DUE)
    )
    first, second = held(books)
    wanted = [
        CorrectedRow(first.row_id, 0, {"invoice_number": "B", "amount": "8", "open_amount": "8"}),
        CorrectedRow(second.row_id, 0, {"invoice_number": "D", "amount": "9", "open_amount": "9"}),
    ]
    assert settle(books, [first, second], wanted).taken_in == 2
    assert opened(books, DAY + WEEK) == {"B": 8, "C": 1, "D": 9}


def test_a_customer_number_that_nobody_has_yet_waits_for_its_customer(books: Books, tmp_path: Path) -> None:
    """A row corrected to a customer who is not there yet comes in by itself when the customer does."""
    snapshot(books, tmp_path, DAY, item("", "A", "7", DUE), item("C-1", "B", "5", DUE))
    [row] = held(books)
    assert correct(books, row, customer_number="C-9").still_wrong == (row.row_id,)
    books.customers(tmp_path, ("C-9",))
    assert books.replay() == 1
    assert opened(books, DAY) == {"A": 7, "B": 5}


def test_an_export_that_is_late_is_recognised(books: Books, tmp_path: Path) -> None:
    """A workbook of a row that changed or was settled since is told of and changes nothing."""
    snapshot(books, tmp_path, DAY, item("C-1", "A", "12x", DUE, currency="???"), item("C-1", "B", "5", DUE))
    [row] = held(books)
    book = export([row], tmp_path / "out.xlsx")
    fill_in(book, {row.row_id: {"amount": "1", "open_amount": "1", "currency": "EUR"}})
    correct(books, row, amount="120", open_amount="120")
    matched = give_back(books, book)
    assert (matched.wanted, len(matched.problems)) == ((), 1)
    assert "changed since this workbook was exported" in matched.problems[0]
    stale = settle(books, [row], [CorrectedRow(row.row_id, 0, {"currency": "EUR"})])
    assert (stale.taken_in, stale.stale) == (0, (row.row_id,))
    [now] = held(books)
    correct(books, now, currency="EUR")
    assert (give_back(books, book).wanted, give_back(books, book).resolved) == ((), 1)


def test_a_row_of_a_replaced_revision_cannot_be_corrected(books: Books, tmp_path: Path) -> None:
    """When a later revision has taken the file's place its rows count no more, and the comparison says so."""
    snapshot(books, tmp_path, DAY, item("C-1", "A", "12x", DUE), item("C-1", "B", "5", DUE))
    [row] = held(books)
    book = export([row], tmp_path / "out.xlsx")
    fill_in(book, {row.row_id: {"amount": "1", "open_amount": "1"}})
    again = write_csv(tmp_path / f"open_items_{DAY}_r2.csv", [item("C-1", "B", "6", DUE)])
    books.take_in(again, "open_items", revision=2)
    assert "later revision" in give_back(books, book).problems[0]
    assert correct(books, row, amount="1", open_amount="1").stale == (row.row_id,)


def test_the_workbook_opens_what_is_wrong_and_locks_the_rest(books: Books, tmp_path: Path) -> None:
    """Protected, row id hidden, the cell at fault filled and open, its reason beside it, allowed values to choose."""
    snapshot(
        books, tmp_path, DAY, item("C-1", "A", "9", DUE, currency="EURO?", note="=1+1"), item("C-1", "B", "5", DUE)
    )
    book = openpyxl.load_workbook(export(held(books), tmp_path / "out.xlsx"))
    sheet = book["Corrections"]
    places = {str(cell.value): cell for cell in sheet[2] if cell.value}
    currency = sheet.cell(3, places["Currency"].column)
    assert sheet.protection.sheet is True
    assert sheet.column_dimensions["A"].hidden is True
    assert (currency.value, currency.protection.locked) == ("EURO?", False)
    assert currency.fill.fgColor.rgb == "FFFFE699"
    assert "iso4217" in str(sheet.cell(3, currency.column + 1).value)
    assert sheet.cell(3, places["Amount"].column).protection.locked is True
    note = sheet.cell(3, places["Note"].column)
    assert (note.value, note.data_type, note.quotePrefix) == ("=1+1", "s", True)
    rules = {str(rule.sqref): rule.formula1 for rule in sheet.data_validations.dataValidation}
    assert rules[currency.coordinate].startswith("Lists!$A$1:")
    assert book["Lists"].sheet_state == "hidden"


@pytest.mark.parametrize(
    "value", ["=1+1", "+359 2", "-5", "@sum", "\tx", "a\rb", "a\r\nb", "_x0041_", "0012", "1E5", "й"]
)
def test_a_cell_comes_back_as_it_went(books: Books, tmp_path: Path, value: str) -> None:
    """Text that a spreadsheet program could take for something else is not a change when the workbook comes back."""
    snapshot(books, tmp_path, DAY, item("C-1", value, "1x", DUE, note=value), item("C-1", "B", "5", DUE))
    rows = held(books)
    matched = give_back(books, export(rows, tmp_path / "out.xlsx"))
    assert (matched.untouched, matched.wanted, matched.problems) == (len(rows), (), ())
    assert len(rows) == 1


def test_a_returned_workbook_may_be_rearranged_but_not_added_to(books: Books, tmp_path: Path) -> None:
    """Columns moved and rows deleted are nothing; a new row, a locked cell, a bare reject are told by their lines."""
    rows = [item("C-1", number, "1x", DUE, note="n") for number in "ABCDE"]
    snapshot(books, tmp_path, DAY, *rows, item("C-1", "Z", "5", DUE))
    waiting = held(books)
    path = export(waiting, tmp_path / "out.xlsx")
    ids = [row.row_id for row in waiting]
    fill_in(
        path,
        {
            ids[0]: {"amount": 11, "open_amount": "11,00"},
            ids[1]: {"note": "mine"},
            ids[2]: {"Kontor decision": "reject"},
            ids[3]: {"Kontor decision": "Reject", "Why it is rejected": "a test"},
        },
    )
    book = openpyxl.load_workbook(path)
    sheet = book["Corrections"]
    sheet.delete_rows(7)
    sheet.append(["", "new", "", "", "", "C-1", "", "NEW"])
    sheet.move_range(f"A1:A{sheet.max_row}", cols=sheet.max_column + 2)
    book.save(path)
    matched = give_back(books, path)
    assert [(row.row_id, row.rejected_because) for row in matched.wanted] == [(ids[0], None), (ids[3], "a test")]
    assert [problem.split(":")[0] for problem in matched.problems] == ["line 4", "line 5", "line 7"]
    assert "note changed" in matched.problems[0]
    assert "no row id" in matched.problems[2]
    outcome = settle(books, waiting, matched.wanted)
    assert (outcome.taken_in, outcome.rejected) == (1, 1)
    assert opened(books, DAY)["A"] == 11


def test_accepted_waiting_and_rejected_make_the_files_own_total(books: Books, tmp_path: Path) -> None:
    """Per currency, in Decimal, at any time: what is in, what waits and what was given up make what was stated."""
    rows = [item("C-1", "A", "100.10", DUE), item("C-1", "", "20.20", DUE), item("C-2", "D", "3x", DUE)]
    snapshot(books, tmp_path, DAY, *rows, total="125.30")
    [file] = books.read("select feed_file_id from landing.feed_files where feed = 'open_items'")

    def total() -> tuple[object, ...]:
        with books.engine.connect() as connection:
            found = fetch_totals(connection, file["feed_file_id"], load_contract("open_items"))
        [one] = [item for item in found if item.column == "open_amount"]
        return one.accepted, one.quarantined, one.rejected, one.difference, one.unreadable

    assert total() == (Decimal("100.1"), Decimal("20.2"), 0, 5, 1)
    nameless, unread = held(books)
    reject(books, nameless)
    assert total() == (Decimal("100.1"), 0, Decimal("20.2"), 5, 1)
    correct(books, unread, amount="5", open_amount="5")
    assert total() == (Decimal("105.1"), 0, Decimal("20.2"), 0, 0)


def test_a_corrected_contact_keeps_the_roles_of_its_other_rows(books: Books, tmp_path: Path) -> None:
    """A contact with a role on each of two rows has both when the second row is mended."""
    rows = [
        {"customer_number": "C-1", "email": "a@example.com", "first_name": "A", "roles": "payments", "valid_from": ""},
        {
            "customer_number": "C-1",
            "email": "a@example.com",
            "first_name": "A",
            "roles": "manager",
            "valid_from": "soon",
        },
    ]
    books.take_in(write_csv(tmp_path / "contacts.csv", rows), "contacts", DAY)
    [row] = [row for row in held(books) if row.reasons[0]["column_name"] == "valid_from"]
    outcome = correct(books, row, valid_from="2026-01-01")
    assert (outcome.taken_in, held(books)) == (1, [])
    assert outcome.applied.rows == outcome.taken_in + outcome.freed
    roles = books.read("select role from crm.contact_roles order by 1")
    assert [found["role"] for found in roles] == ["manager", "payments"]


def test_flows_cannot_change_what_was_corrected(books: Books, tmp_path: Path) -> None:
    """What people changed is kept append-only: the flows' role may neither update nor delete it."""
    snapshot(books, tmp_path, DAY, item("C-1", "A", "12x", DUE), item("C-1", "B", "5", DUE))
    correct(books, held(books)[0], amount="1", open_amount="1")
    for statement in ("update landing.corrections set actor = 'x'", "delete from landing.corrections"):
        with (
            database.engine_for(books.settings).connect() as connection,
            pytest.raises(ProgrammingError, match="permission denied"),
        ):
            connection.execute(text(statement))


# --- any order --------------------------------------------------------------------------------------------------------

KEYS = tuple((customer, number) for customer in ("C-1", "C-2") for number in ("A", "B"))
UNREADABLE = "1x"


@dataclass(frozen=True)
class Listed:
    """A row of a snapshot: what it says, and what a person makes of it when it cannot be read."""

    key: tuple[str, str]
    amount: str
    mended: str | None  # None: rejected; "": left waiting

    @property
    def effective(self) -> str | None:
        """The amount in the end; None when the row is given up, UNREADABLE while it waits."""
        return self.amount if self.amount != UNREADABLE or self.mended == "" else self.mended


_LISTED = st.builds(
    Listed,
    key=st.sampled_from(KEYS),
    amount=st.sampled_from(["100", "60", UNREADABLE, UNREADABLE]),
    mended=st.sampled_from([None, "", "100", "45"]),
)


@st.composite
def _histories(draw: st.DrawFn) -> tuple[list[list[Listed]], list[tuple[str, int]]]:
    """Snapshots by week, and an order of arrivals and corrections in which a file's corrections follow its arrival."""
    weeks = draw(st.lists(st.lists(_LISTED, max_size=4, unique_by=lambda row: row.key), min_size=2, max_size=4))
    order = draw(st.permutations(range(len(weeks))))
    events = [("arrive", week) for week in order]
    for week in range(len(weeks)):
        place = draw(st.integers(events.index(("arrive", week)) + 1, len(events)))
        events.insert(place, ("correct", week))
    return weeks, events


def _model(weeks: list[list[Listed]], last: int) -> dict[tuple[str, str], Decimal]:
    held_now: dict[tuple[str, str], Decimal] = {}
    for rows in weeks[: last + 1]:
        said = {row.key: row.effective for row in rows if row.effective is not None}
        held_now = {
            key: held_now[key] if amount == UNREADABLE else Decimal(amount)
            for key, amount in said.items()
            if amount != UNREADABLE or key in held_now
        }
    return held_now


def _write(folder: Path, week: int, rows: list[Listed]) -> Path:
    lines = [item(*row.key, "100", DUE, open_amount=row.amount) for row in rows]
    lines.append(item("C-1", "always", week + 1, DUE))
    return write_csv(folder / f"open_items_{DAY + week * WEEK}.csv", lines)


def _correct_week(books: Books, week: int, rows: list[Listed]) -> None:
    wishes = {row.key: row.mended for row in rows}
    waiting = [row for row in held(books) if row.as_of == DAY + week * WEEK]
    wanted = []
    for row in waiting:
        wish = wishes[(str(row.staged["customer_number"]), str(row.staged["invoice_number"]))]
        if wish is None:
            wanted.append(CorrectedRow(row.row_id, 0, {}, "given up"))
        elif wish:
            wanted.append(CorrectedRow(row.row_id, 0, {"open_amount": wish}))
    if wanted:
        settle(books, waiting, wanted)


@settings(max_examples=examples(5, 8), derandomize=CAMPAIGN_FACTOR == 1)
@given(history=_histories())
def test_a_correction_at_any_time_reads_as_if_the_file_had_come_corrected(
    history: tuple[list[list[Listed]], list[tuple[str, int]]],
    prepared: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Files in any order, each corrected at any time after it arrived: what a model of the corrected files says."""
    weeks, events = history
    folder = tmp_path_factory.mktemp("corrected")
    states: list[dict[str, list[dict[str, Any]]]] = []
    in_order = [(kind, week) for week in range(len(weeks)) for kind in ("arrive", "correct")]
    for chosen in (in_order, events):
        empty_database(prepared)
        books = Books(prepared)
        books.customers(folder, ("C-1", "C-2"))
        for kind, week in chosen:
            if kind == "arrive":
                books.take_in(_write(folder, week, weeks[week]), "open_items")
            else:
                _correct_week(books, week, weeks[week])
        for week in range(len(weeks)):
            day = DAY + week * WEEK + timedelta(days=3)
            found = {(r["customer_number"], r["invoice_number"]): r["open_amount"] for r in books.open_on(day)}
            assert {key: amount for key, amount in found.items() if key[1] != "always"} == _model(weeks, week), day
        states.append({name: rows for name, rows in books.state().items() if name != "organizations"})
    assert states[0] == states[1]


def test_a_row_keeps_its_checksum_until_it_changes(books: Books, tmp_path: Path) -> None:
    """The token of a row depends on its id and on all it holds."""
    snapshot(books, tmp_path, DAY, item("C-1", "A", "12x", DUE), item("C-1", "B", "5", DUE))
    [row] = held(books)
    [again] = held(books)
    assert row.token == again.token
    assert replace(row, row_id=row.row_id + 1).token.split("-")[1] != row.token.split("-")[1]
    assert replace(row, content=row.content + " ").token != row.token
