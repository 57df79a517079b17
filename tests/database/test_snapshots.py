"""Worked examples of the weekly file: what finance reads on a day, told with dates. Today is 20 November 2026."""

from __future__ import annotations

import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from configs.settings import Settings
from tasks import database
from tasks.feeds.outcomes import FileOutcome
from tests.ledgers import Books, item, write_csv

MARCH_5, MARCH_12, MARCH_19, MARCH_26 = (date(2026, 3, day) for day in (5, 12, 19, 26))
DUE = date(2026, 3, 1)
Row = dict[str, object]


class Accounting:
    """Accounting's side of the examples: a folder in which files are written, and the books they go into."""

    def __init__(self, books: Books, folder: Path) -> None:
        self.books, self.folder = books, folder
        self._letters = 0

    def write(self, day: date, *rows: Row, revision: int = 1, name: str | None = None) -> Path:
        """Write a week's file under the name that its day and revision give it.

        Like every real export it says when it was printed, so that equal lists of two weeks are not equal bytes.
        """
        suffix = "" if revision == 1 else f"_r{revision}"
        printed = [{**row, "Printed": f"{day} r{revision}"} for row in rows]
        return write_csv(self.folder / (name or f"open_items_{day}{suffix}.csv"), printed)

    def sends(self, day: date, *rows: Row, revision: int = 1, **given: Any) -> FileOutcome:
        """Write a week's file and take it in."""
        return self.books.take_in(self.write(day, *rows, revision=revision), "open_items", **given)

    def knows(self, *numbers: str) -> FileOutcome:
        """Make customers known."""
        self._letters += 1
        return self.books.customers(self.folder, numbers, date(2026, 1, self._letters))

    def open_on(self, day: date) -> dict[str, Decimal]:
        """Invoice number and open amount of what finance reads as open on that day."""
        return {row["invoice_number"]: row["open_amount"] for row in self.books.open_on(day)}

    def settled_by(self, day: date) -> dict[str, tuple[date, date]]:
        """Invoice number and the interval in which it was settled, as finance reads it on that day."""
        rows = self.books.read("select * from report.settled_invoices(:day)", day=day)
        return {row["invoice_number"]: (row["settled_after"], row["settled_by"]) for row in rows}


@pytest.fixture
def accounting(kontor_settings: Settings, tmp_path: Path) -> Accounting:
    """Accounting, with customers C-1 and C-2 known to the books."""
    desk = Accounting(Books(kontor_settings), tmp_path)
    desk.knows("C-1", "C-2")
    return desk


def owes(number: str, amount: object = 100, customer: str = "C-1", **more: object) -> Row:
    """A row of the weekly file, due on 1 March."""
    return item(customer, number, amount, DUE, **more)


def money(**amounts: object) -> dict[str, Decimal]:
    """Amounts by invoice number, as Decimal."""
    return {number: Decimal(str(amount)) for number, amount in amounts.items()}


def test_an_older_file_after_a_newer_one_fills_the_past(accounting: Accounting) -> None:
    """The file of 12 March comes first, the one of 5 March after it: the older one says what was, not what is.

    A stands in both; B was 80 and is 50; C stood in the older one only, so it was paid between the two.
    """
    accounting.sends(MARCH_12, owes("A"), owes("B", 50))
    late = accounting.sends(MARCH_5, owes("A"), owes("B", 80), owes("C", 30))

    assert accounting.open_on(date(2026, 3, 8)) == money(A=100, B=80, C=30)
    assert accounting.open_on(MARCH_12) == money(A=100, B=50)
    assert accounting.settled_by(MARCH_12) == {"C": (MARCH_5, MARCH_12)}
    assert (late.rows_read, late.inserted, late.updated + late.superseded) == (3, 1, 2)


def test_the_same_file_under_another_name_is_known(accounting: Accounting) -> None:
    """The file of 5 March is sent again as "copy of": it is recognised by its bytes, and nothing is written."""
    path = accounting.write(MARCH_5, owes("A"))
    accounting.books.take_in(path, "open_items")
    before = accounting.books.state()
    copy = Path(shutil.copy(path, accounting.folder / "copy of open_items 2026-03-05.csv"))

    assert accounting.books.take_in(copy, "open_items").state == "known"
    assert accounting.books.state() == before
    assert accounting.books.read("select count(*) as files from report.feed_files where contract = 'open_items'") == [
        {"files": 1}
    ]


def test_last_weeks_bytes_under_a_new_date_are_refused_until_a_person_says_so(accounting: Accounting) -> None:
    """On 12 March last week's export arrives under the new date: what was paid would read as open, so it waits."""
    path = accounting.write(MARCH_5, owes("A"))
    accounting.books.take_in(path, "open_items")
    again = Path(shutil.copy(path, accounting.folder / "open_items_2026-03-12.csv"))

    refused = accounting.books.take_in(again, "open_items")
    assert refused.state == "refused"
    assert "byte for byte that of open_items_2026-03-05.csv, dated 2026-03-05" in refused.reasons[0]
    assert "same_content" in refused.hint

    accepted = accounting.books.take_in(again, "open_items", accepted_guards=("same_content",))
    assert (accepted.state, accepted.unchanged) == ("applied", 1)
    assert accounting.open_on(MARCH_12) == money(A=100)


def test_the_guard_that_was_accepted_is_the_only_one(accounting: Accounting) -> None:
    """Accepting equal content under another date does not let a second truth for the same date in."""
    first = accounting.write(MARCH_5, owes("A"))
    accounting.books.take_in(first, "open_items")
    accounting.sends(MARCH_12, owes("A", 70))
    again = Path(shutil.copy(first, accounting.folder / "again open_items_2026-03-12.csv"))

    outcome = accounting.books.take_in(again, "open_items", accepted_guards=("same_content",))
    assert outcome.state == "refused"
    assert accounting.open_on(MARCH_12) == money(A=70)


def test_two_files_claim_one_day(accounting: Accounting) -> None:
    """Two different files call themselves 5 March: the second is refused; as revision 2 it replaces the first.

    In the first file A is 100 and B stands by mistake; in the second A is 90 and there is no B: it never was.
    """
    accounting.sends(MARCH_5, owes("A"), owes("B"))
    second = accounting.write(MARCH_5, owes("A", 90), name="open_items 2026-03-05 new.csv")

    refused = accounting.books.take_in(second, "open_items")
    assert refused.state == "refused"
    assert "open_items_2026-03-05.csv already is revision 1" in refused.reasons[0]
    assert "--revision 2" in refused.hint

    accepted = accounting.books.take_in(second, "open_items", revision=2)
    assert (accepted.state, accepted.updated) == ("applied", 1)
    assert accounting.open_on(MARCH_5) == money(A=90)
    assert accounting.settled_by(MARCH_5) == {}
    states = accounting.books.read(
        "select revision, state from report.feed_files where contract = 'open_items' and state <> 'refused' order by 1"
    )
    assert states == [{"revision": 1, "state": "superseded"}, {"revision": 2, "state": "applied"}]


def test_a_first_revision_that_comes_second_changes_nothing(accounting: Accounting) -> None:
    """Revision 2 of 5 March is in when revision 1 arrives: it is kept as superseded, with every row accounted for."""
    accounting.sends(MARCH_5, owes("A", 90), revision=2)
    outcome = accounting.sends(MARCH_5, owes("A"), owes("B"))

    assert (outcome.state, outcome.rows_read, outcome.superseded) == ("superseded", 2, 2)
    assert accounting.open_on(MARCH_5) == money(A=90)


def test_a_credit_note_nets_but_is_never_overdue(accounting: Accounting) -> None:
    """Invoice A of 100 and credit note K of 30, written without a sign: 70 are owed in all, 100 are overdue."""
    accounting.sends(MARCH_12, owes("A"), owes("K", 30, document_type="credit note"), owes("N", -5))

    assert accounting.open_on(MARCH_12) == money(A=100, K=-30, N=-5)
    overdue = accounting.books.read("select invoice_number, days_overdue from report.overdue_invoices(:d)", d=MARCH_12)
    assert overdue == [{"invoice_number": "A", "days_overdue": 11}]
    ((aging),) = accounting.books.read("select not_due, days_1_30, total from report.aging(:d)", d=MARCH_12)
    assert aging == {"not_due": Decimal(-35), "days_1_30": Decimal(100), "total": Decimal(65)}


def test_after_a_partial_payment_the_remainder_counts(accounting: Accounting) -> None:
    """A is billed at 100; from 12 March 40 remain, on 19 March it is gone: each day answers with what remained."""
    accounting.sends(MARCH_5, owes("A"), owes("Z"))
    paid_in_part = accounting.sends(MARCH_12, owes("A", open_amount=40), owes("Z"))
    gone = accounting.sends(MARCH_19, owes("Z"))

    assert (paid_in_part.updated, paid_in_part.unchanged, paid_in_part.settled) == (1, 1, 0)
    assert (gone.unchanged, gone.settled) == (1, 1)
    assert [accounting.open_on(day).get("A") for day in (MARCH_5, MARCH_12, MARCH_19)] == [100, 40, None]
    assert {row["amount"] for row in accounting.books.open_on(MARCH_12)} == {Decimal(100)}


def test_an_item_that_comes_back_is_reopened(accounting: Accounting) -> None:
    """A stands in the list of 5 March, not on 12 March, and on 19 March again: a payment that bounced."""
    accounting.sends(MARCH_5, owes("A"), owes("Z"))
    accounting.sends(MARCH_12, owes("Z"))
    back = accounting.sends(MARCH_19, owes("A"), owes("Z"))

    assert (back.reopened, back.updated, back.inserted) == (1, 1, 0)
    assert [("A" in accounting.open_on(day)) for day in (MARCH_5, MARCH_12, MARCH_19)] == [True, False, True]
    assert accounting.settled_by(date(2026, 3, 18)) == {"A": (MARCH_5, MARCH_12)}
    assert accounting.settled_by(MARCH_19) == {}


def test_a_late_file_in_the_middle_splits_history(accounting: Accounting) -> None:
    """5 and 19 March say 100; the file of 12 March arrives last and says 60: three periods, none of them lost."""
    accounting.sends(MARCH_5, owes("A"))
    accounting.sends(MARCH_19, owes("A"))
    late = accounting.sends(MARCH_12, owes("A", open_amount=60))

    days = (MARCH_5, date(2026, 3, 11), MARCH_12, date(2026, 3, 18), MARCH_19)
    assert [accounting.open_on(day)["A"] for day in days] == [100, 100, 60, 60, 100]
    assert (late.rows_read, late.superseded + late.updated) == (1, 1)
    assert accounting.books.read(
        "select listed_from, listed_until, open_amount from crm.invoice_states order by listed_from"
    ) == [
        {"listed_from": MARCH_5, "listed_until": MARCH_12, "open_amount": Decimal(100)},
        {"listed_from": MARCH_12, "listed_until": MARCH_19, "open_amount": Decimal(60)},
    ]


def test_half_a_list_is_corrected_by_the_whole_one(accounting: Accounting) -> None:
    """The list of 12 March lacks B; its second revision has it: B was never settled, not even for a day."""
    accounting.sends(MARCH_5, owes("A"), owes("B"))
    half = accounting.sends(MARCH_12, owes("A"))
    assert half.settled == 1
    whole = accounting.sends(MARCH_12, owes("A"), owes("B"), revision=2)

    assert whole.state == "applied"
    assert accounting.open_on(MARCH_12) == money(A=100, B=100)
    assert accounting.settled_by(MARCH_12) == {}
    assert accounting.books.read("select count(*) as n from crm.invoice_states") == [{"n": 0}]


def test_a_dispute_begins_and_ends(accounting: Accounting) -> None:
    """A is disputed in the list of 12 March only; its amount never changes."""
    for day, disputed in ((MARCH_5, "no"), (MARCH_12, "yes"), (MARCH_19, "no")):
        accounting.sends(day, owes("A", disputed=disputed, note=f"as told on {day}"))
    told = {day: accounting.books.open_on(day)[0]["disputed"] for day in (MARCH_5, MARCH_12, MARCH_19)}
    assert told == {MARCH_5: False, MARCH_12: True, MARCH_19: False}


def test_currencies_are_never_summed(accounting: Accounting) -> None:
    """C-1 owes EUR 100 and SEK 50: two lines in the aging list, two balances on the card."""
    accounting.sends(MARCH_12, owes("A"), owes("B", 50, currency="SEK"))
    aging = accounting.books.read("select currency, total from report.aging(:d) order by 1", d=MARCH_12)
    assert aging == [{"currency": "EUR", "total": Decimal(100)}, {"currency": "SEK", "total": Decimal(50)}]
    (card,) = accounting.books.read(
        "select card -> 'balance' as b from report.organization_card('C-1', :d)", d=MARCH_12
    )
    assert {currency: Decimal(sums["open"]) for currency, sums in card["b"].items()} == {"EUR": 100, "SEK": 50}


BRANCH = """
apiVersion: v3.1.0
kind: DataContract
id: branch_open_items
version: 1.0.0
status: active
customProperties:
  - {property: extends, value: open_items}
  - {property: source, value: branch}
schema:
  - {name: open_items}
"""


def test_one_number_at_two_customers_and_two_sources(accounting: Accounting) -> None:
    """Invoice 1 exists at C-1 and C-2 and again in the branch's books: three invoices, each with its own fate.

    The branch's list of 12 March is complete for the branch; it settles nothing of head office.
    """
    branch = accounting.folder / "branch.yaml"
    branch.write_text(BRANCH, encoding="utf-8")
    accounting.sends(MARCH_5, owes("1", 10), owes("1", 20, customer="C-2"))
    first = write_csv(accounting.folder / "branch 2026-03-05.csv", [owes("1", 30), owes("2", 40)])
    second = write_csv(accounting.folder / "branch 2026-03-12.csv", [owes("2", 40)])
    accounting.books.take_in(first, branch)
    assert accounting.books.take_in(second, branch).settled == 1

    found = {
        (row["customer_number"], row["source"], row["invoice_number"]): row["open_amount"]
        for row in accounting.books.open_on(MARCH_12)
    }
    assert found == {("C-1", "accounting", "1"): 10, ("C-2", "accounting", "1"): 20, ("C-1", "branch", "2"): 40}


def settled(number: str, issued: date, due: date, paid: date | str) -> Row:
    """A row of a ledger: from issue to settlement."""
    return {
        "customer_number": "C-1",
        "invoice_number": number,
        "issue_date": issued,
        "due_date": due,
        "currency": "EUR",
        "amount": 100,
        "open_amount": 0 if paid else 100,
        "settled_date": paid,
    }


def test_a_ledger_fills_the_past_and_a_later_list_reopens(accounting: Accounting) -> None:
    """The ledger of 1 March says: A was issued on 2 January, due on 1 February, paid on 20 February.

    So A was nine days overdue on 10 February and settled on 24 February. The list of 5 March has it open again.
    """
    rows = [settled("A", date(2026, 1, 2), date(2026, 2, 1), date(2026, 2, 20))]
    path = write_csv(accounting.folder / "settled_items_2026-03-01.csv", rows)
    accounting.books.take_in(path, "settled_items")
    accounting.sends(MARCH_5, owes("A", 25))

    (february,) = accounting.books.open_on(date(2026, 2, 10))
    assert (february["invoice_number"], february["days_overdue"]) == ("A", 9)
    assert accounting.open_on(date(2026, 1, 1)) == {}
    assert accounting.open_on(date(2026, 2, 24)) == {}
    assert accounting.settled_by(date(2026, 3, 4)) == {"A": (date(2026, 2, 19), date(2026, 2, 20))}
    assert accounting.open_on(MARCH_5) == money(A=25)
    assert accounting.settled_by(MARCH_5) == {}


def test_the_ledger_knows_more_than_the_list_of_its_time(accounting: Accounting) -> None:
    """The list of 26 February still has A; the ledger of 1 March says it was paid on the 20th, and it is believed."""
    accounting.sends(date(2026, 2, 26), owes("A"), owes("Z"))
    assert accounting.open_on(date(2026, 2, 26)) == money(A=100, Z=100)
    path = write_csv(
        accounting.folder / "settled_items_2026-03-01.csv",
        [settled("A", date(2026, 1, 2), date(2026, 2, 1), date(2026, 2, 20))],
    )
    accounting.books.take_in(path, "settled_items")
    assert accounting.open_on(date(2026, 2, 26)) == money(Z=100)
    assert accounting.open_on(date(2026, 2, 19))["A"] == 100


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_newest_ledger_wins_item_by_item(accounting: Accounting, newest_first: bool) -> None:
    """February's ledger has A and B open; March's has A paid and is silent on B: so B is still open, in any order."""
    issued, due = date(2026, 1, 2), date(2026, 2, 1)
    files = [
        (date(2026, 2, 10), [settled("A", issued, due, ""), settled("B", issued, due, "")]),
        (date(2026, 3, 10), [settled("A", issued, due, date(2026, 2, 20))]),
    ]
    for day, rows in reversed(files) if newest_first else files:
        path = write_csv(accounting.folder / f"settled_items_{day}.csv", rows)
        outcome = accounting.books.take_in(path, "settled_items")
        assert outcome.rows_read == outcome.inserted + outcome.updated + outcome.unchanged + outcome.superseded
    assert accounting.open_on(date(2026, 2, 12)) == money(A=100, B=100)
    assert accounting.open_on(MARCH_12) == money(B=100)
    assert accounting.settled_by(MARCH_12) == {"A": (date(2026, 2, 19), date(2026, 2, 20))}


def test_a_ledger_row_waits_for_its_customer_too(accounting: Accounting) -> None:
    """A paid invoice of unknown C-9 waits; when C-9 arrives its past is there, day by day."""
    row = settled("A", date(2026, 1, 2), date(2026, 2, 1), date(2026, 2, 20)) | {"customer_number": "C-9"}
    path = write_csv(accounting.folder / "settled_items_2026-03-01.csv", [row])
    assert accounting.books.take_in(path, "settled_items").quarantined == 1
    accounting.knows("C-9")
    assert accounting.books.replay() == 1
    assert accounting.open_on(date(2026, 2, 19)) == money(A=100)
    assert accounting.settled_by(MARCH_12) == {"A": (date(2026, 2, 19), date(2026, 2, 20))}


@pytest.mark.parametrize(
    "order", [("first", "ledger", "second"), ("second", "first", "ledger"), ("ledger", "first", "second")]
)
def test_what_a_corrected_list_takes_back_leaves_the_ledgers_word(
    accounting: Accounting, order: tuple[str, ...]
) -> None:
    """The list of 5 March has A as disputed by mistake, its second revision lacks A; the ledger knows no dispute.

    Whatever arrives first, A reads as the ledger has it: the dispute never was.
    """
    ledger = [settled("A", date(2026, 1, 2), date(2026, 2, 1), date(2026, 2, 20)) | {"disputed": "no"}]
    for step in order:
        if step == "ledger":
            path = write_csv(accounting.folder / "settled_items_2026-03-10.csv", ledger)
            accounting.books.take_in(path, "settled_items")
        elif step == "first":
            accounting.sends(MARCH_5, owes("A", disputed="yes"), owes("Z"))
        else:
            accounting.sends(MARCH_5, owes("Z"), revision=2)
    found = accounting.books.read(
        "select invoice_number, disputed, amount from report.settled_invoices(:d)", d=MARCH_12
    )
    assert found == [{"invoice_number": "A", "disputed": False, "amount": Decimal(100)}]
    (entry,) = [row for row in accounting.books.state()["invoices"] if row["invoice_number"] == "A"]
    assert (entry["listed_from"], entry["due_on"], entry["disputed"]) == (None, date(2026, 2, 1), False)


def test_a_row_that_cannot_be_read_keeps_its_item_open(accounting: Accounting) -> None:
    """On 12 March A's amount is "n/a": A stays open at 100, nobody is told that it was paid; 19 March says 70."""
    accounting.sends(MARCH_5, owes("A"), owes("B"))
    bad = accounting.sends(MARCH_12, owes("A", "n/a"), owes("B"))

    assert (bad.quarantined, bad.unchanged, bad.settled) == (1, 1, 0)
    (row,) = accounting.books.read("select distinct row_number, customer_number, state from report.quarantine")
    assert row == {"row_number": 2, "customer_number": "C-1", "state": "open"}
    assert accounting.open_on(MARCH_12) == money(A=100, B=100)

    accounting.sends(MARCH_19, owes("A", 70), owes("B"))
    assert accounting.open_on(date(2026, 3, 18)) == money(A=100, B=100)
    assert accounting.open_on(MARCH_19) == money(A=70, B=100)
    assert accounting.settled_by(MARCH_19) == {}


def test_a_corrected_file_takes_its_rows_out_of_quarantine(accounting: Accounting) -> None:
    """Revision 2 of 12 March has A's amount right: the quarantined row is superseded and A reads 80 from 12 March."""
    accounting.sends(MARCH_5, owes("A"))
    accounting.sends(MARCH_12, owes("A", "n/a"), owes("B"))
    accounting.sends(MARCH_12, owes("A", 80), owes("B"), revision=2)

    assert {row["state"] for row in accounting.books.read("select state from report.quarantine")} == {"superseded"}
    assert accounting.open_on(MARCH_12) == money(A=80, B=100)


def test_a_row_without_its_customer_waits_for_it(accounting: Accounting) -> None:
    """C-9 is unknown on 5 March; when customer_import brings it, the row is taken in as if it had been there."""
    outcome = accounting.sends(MARCH_5, owes("A"), owes("X", 55, customer="C-9"))
    assert (outcome.inserted, outcome.quarantined) == (1, 1)
    assert accounting.open_on(MARCH_5) == money(A=100)

    accounting.knows("C-9")
    assert accounting.books.replay() == 1
    assert accounting.open_on(MARCH_5) == money(A=100, X=55)
    counts = accounting.books.read(
        "select rows_read, inserted, quarantined from report.feed_files where contract = 'open_items'"
    )
    assert counts == [{"rows_read": 2, "inserted": 2, "quarantined": 0}]
    assert accounting.books.replay() == 0


def test_a_waiting_row_does_not_come_back_over_a_newer_list(accounting: Accounting) -> None:
    """X of C-9 waited since 5 March; the list of 12 March no longer has it: after the replay it reads as settled."""
    accounting.sends(MARCH_5, owes("A"), owes("X", 55, customer="C-9"))
    accounting.sends(MARCH_12, owes("A"))
    accounting.knows("C-9")
    accounting.books.replay()

    assert accounting.open_on(MARCH_5) == money(A=100, X=55)
    assert accounting.open_on(MARCH_12) == money(A=100)
    assert accounting.settled_by(MARCH_12) == {"X": (MARCH_5, MARCH_12)}


def test_a_waiting_row_with_a_second_fault_is_not_replayed(accounting: Accounting) -> None:
    """A customer who arrives does not mend an amount that cannot be read."""
    accounting.sends(MARCH_5, owes("A"), owes("X", "n/a", customer="C-9"))
    accounting.knows("C-9")
    assert accounting.books.replay() == 0
    # What is left to correct is the amount alone, as if the customer had been there first.
    assert {row["code"] for row in accounting.books.read("select code from report.quarantine")} == {"not_a_number"}


def test_the_counts_of_a_file_must_add_up(accounting: Accounting) -> None:
    """Nobody, not even the flows' own role, can write counts that lose or invent a row."""
    accounting.sends(MARCH_5, owes("A"), owes("B", "n/a"))
    for change in ("inserted = inserted + 1", "quarantined = 0", "rows_read = 3", "inserted = -1, quarantined = 3"):
        with pytest.raises(IntegrityError, match=r"every_row_accounted_for|counts"):
            as_role(accounting, database.FLOWS, f"update landing.feed_files set {change} where contract = 'open_items'")


def as_role(accounting: Accounting, role: str, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement in a role and keep what it did; returns the rows, if it gives any."""
    with database.engine_for(accounting.books.settings, role).begin() as connection:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def test_every_day_answers_with_the_last_list_before_it(accounting: Accounting) -> None:
    """Nothing is known before 5 March; between two lists the older one holds, and days overdue count on."""
    accounting.sends(MARCH_5, owes("A"), owes("B"))
    accounting.sends(MARCH_19, owes("B"))
    assert accounting.open_on(date(2026, 3, 4)) == {}
    assert accounting.open_on(MARCH_12) == money(A=100, B=100)
    assert [accounting.books.open_on(date(2026, 3, day))[0]["days_overdue"] for day in (5, 12, 18)] == [4, 11, 17]
    assert accounting.open_on(MARCH_26) == money(B=100)
    today = accounting.books.read("select invoice_number from report.open_invoices")
    assert today == [{"invoice_number": "B"}]


def test_due_today_is_not_overdue(accounting: Accounting) -> None:
    """Due on 5 March: not overdue on 5 March, one day overdue on 6 March."""
    accounting.sends(MARCH_5, item("C-1", "A", 100, MARCH_5))
    days = {day: accounting.books.open_on(date(2026, 3, day))[0]["days_overdue"] for day in (5, 6)}
    assert days == {5: 0, 6: 1}


def test_a_dry_run_leaves_nothing(accounting: Accounting) -> None:
    """A dry run says what would happen, also for a file that would be refused, and writes neither row nor line."""
    accounting.sends(MARCH_5, owes("A"), owes("B"))
    before = accounting.books.state(), accounting.books.read("select file_name, state from landing.feed_files")

    tried = accounting.sends(MARCH_12, owes("A", 70), owes("C", "n/a"), dry_run=True)
    assert tried.dry_run
    assert (tried.updated, tried.quarantined, tried.settled) == (1, 1, 1)
    refused = accounting.books.take_in(
        accounting.write(MARCH_5, owes("Z"), name="other 2026-03-05.csv"), "open_items", dry_run=True
    )
    assert refused.state == "refused"
    after = accounting.books.state(), accounting.books.read("select file_name, state from landing.feed_files")
    assert after == before


def test_an_empty_list_that_says_zero_settles_everything(accounting: Accounting) -> None:
    """On 12 March the list has no rows and a total of 0: all is paid. Without that total it would be refused."""
    accounting.sends(MARCH_5, owes("A"), owes("B"))
    nothing = accounting.folder / "open_items_2026-03-12.csv"
    heading = "customer_number,invoice_number,due_date,currency,amount,open_amount\n"

    nothing.write_text(heading, encoding="utf-8")
    assert accounting.books.take_in(nothing, "open_items").state == "refused"
    assert accounting.open_on(MARCH_12) == money(A=100, B=100)

    nothing.write_text(heading + "Total,,,,0.00,0.00\n", encoding="utf-8")
    outcome = accounting.books.take_in(nothing, "open_items")
    assert (outcome.state, outcome.rows_read, outcome.settled) == ("applied", 0, 2)
    assert accounting.open_on(MARCH_12) == {}
    assert accounting.settled_by(MARCH_12) == {"A": (MARCH_5, MARCH_12), "B": (MARCH_5, MARCH_12)}


def test_a_list_from_the_future_is_refused(accounting: Accounting) -> None:
    """Today is 20 November 2026; a list dated 3 December would settle what is open today."""
    outcome = accounting.sends(date(2026, 12, 3), owes("A"))
    assert outcome.state == "refused"
    assert "its business date 2026-12-03 lies after today, 2026-11-20" in outcome.reasons[0]
    assert accounting.sends(date(2026, 11, 20), owes("A")).state == "applied"


def test_a_name_and_a_command_that_disagree_are_refused(accounting: Accounting) -> None:
    """The file says 5 March and the command 12 March: neither is believed."""
    outcome = accounting.sends(MARCH_5, owes("A"), as_of=MARCH_12)
    assert outcome.state == "refused"
    assert "2026-03-05" in outcome.reasons[0]
    assert "2026-03-12" in outcome.reasons[0]


def test_the_card_tells_everything_about_a_customer(accounting: Accounting) -> None:
    """One row of JSON: who it is, whom to write to, what is open, class and why, which feeds, what was not readable."""
    contact = {"customer_number": "C-1", "first_name": "Anna", "last_name": "Berg", "email": "anna@example.com"}
    roles = {"roles": "payments", "valid_from": "2026-01-01", "valid_to": "2026-03-10"}
    accounting.books.take_in(write_csv(accounting.folder / "contacts 2026-01-05.csv", [contact | roles]), "contacts")
    accounting.sends(
        MARCH_12, owes("A", open_amount="40.50"), owes("K", -10), owes("Q", "n/a"), owes("B", customer="C-2")
    )
    accounting.books.classify()

    ((card,),) = as_role(accounting, database.FINANCE, "select card from report.organization_card('C-1', '2026-03-12')")
    assert (card["customer_number"], card["name"], card["origin"], card["as_of"]) == (
        "C-1",
        "Customer C-1",
        "customers",
        "2026-03-12",
    )
    (person,) = card["contacts"]
    assert (person["first_name"], person["email"]) == ("Anna", "anna@example.com")
    assert person["roles"] == [
        {"role": "payments", "valid_from": "2026-01-01", "valid_to": "2026-03-10", "held": False}
    ]
    assert [(i["invoice_number"], Decimal(i["open_amount"]), i["days_overdue"]) for i in card["open_items"]] == [
        ("A", Decimal("40.5"), 11),
        ("K", Decimal(-10), 0),
    ]
    assert {name: Decimal(sums) for name, sums in card["balance"]["EUR"].items()} == {
        "open": Decimal("30.5"),
        "overdue": Decimal("40.5"),
    }
    assert card["payer_class"]["payer_class"] == "unrated"
    assert card["payer_class"]["reason"]
    assert {(feed["feed"], feed["newest_as_of"]) for feed in card["feeds"]} >= {("open_items", "2026-03-12")}
    (waiting,) = card["quarantine"]
    assert (waiting["file_name"], waiting["row_number"]) == ("open_items_2026-03-12.csv", 4)
    assert isinstance(card["open_items"][0]["open_amount"], str), "money is text in JSON, never a float"


def test_finance_reads_the_reports_and_nothing_else(accounting: Accounting) -> None:
    """Every view of schema report answers to finance; no table behind them does, and nothing can be written."""
    accounting.sends(MARCH_5, owes("A"))
    views = as_role(accounting, database.OWNER, "select viewname from pg_views where schemaname = 'report'")
    assert len(views) > 5
    for (view,) in views:
        as_role(accounting, database.FINANCE, f"select * from report.{view}")
    for function in ("open_invoices", "overdue_invoices", "aging", "settled_invoices", "payer_classes"):
        as_role(accounting, database.FINANCE, f"select * from report.{function}('2026-03-05')")
    for statement in (
        "select * from crm.invoices",
        "select * from crm.contacts",
        "select * from landing.quarantined_rows",
        "select * from rules.payer_class",
        "select * from ops.run_ledger",
        "select * from crm.open_items_at('2026-03-05')",
        "delete from report.feed_files",
        "create table report.mine (a integer)",
        "create temporary table mine (a integer)",
        "select lo_create(0)",
        "select lo_from_bytea(0, 'mine')",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"):
            as_role(accounting, database.FINANCE, statement)


def test_flows_cannot_delete_what_was_owed_nor_touch_the_rules(accounting: Accounting) -> None:
    """The role that flows work as adds and changes; it removes no invoice, customer or file and edits no rule."""
    accounting.sends(MARCH_5, owes("A"))
    for statement in (
        "delete from crm.invoices",
        "delete from crm.organizations",
        "delete from crm.ledger_entries",
        "delete from landing.feed_files",
        "delete from landing.quarantined_rows",
        "delete from ops.run_ledger",
        "truncate crm.invoices cascade",
        "update rules.payer_class set threshold = 99",
        "insert into rules.payer_class (rule_id) values ('mine')",
        "delete from rules.payer_class",
        "create table crm.mine (a integer)",
        "drop table landing.staged_items",
        "set role kontor_owner",
    ):
        with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
            as_role(accounting, database.FLOWS, statement)
    assert accounting.open_on(MARCH_5) == money(A=100)


def test_an_invoice_that_only_the_ledger_knew_as_open_is_settled_by_the_next_list(accounting: Accounting) -> None:
    """The ledger of 1 March has A open; the list of 5 March has no A: settled in between, never simply gone."""
    row = settled("A", date(2026, 1, 2), date(2026, 2, 1), "")
    accounting.books.take_in(write_csv(accounting.folder / "settled_items_2026-03-01.csv", [row]), "settled_items")
    accounting.sends(MARCH_5, owes("Z"))
    assert accounting.open_on(date(2026, 3, 4)) == money(A=100)
    assert accounting.open_on(MARCH_5) == money(Z=100)
    assert accounting.settled_by(MARCH_5) == {"A": (date(2026, 3, 1), MARCH_5)}


def test_the_ledger_had_it_open_after_a_list_had_dropped_it(accounting: Accounting) -> None:
    """19 February lists A, 26 February does not, the ledger of 1 March has it open: settled between 1 and 5 March."""
    accounting.sends(date(2026, 2, 19), owes("A"), owes("Z"))
    accounting.sends(date(2026, 2, 26), owes("Z"))
    row = settled("A", date(2026, 1, 2), date(2026, 2, 1), "")
    accounting.books.take_in(write_csv(accounting.folder / "settled_items_2026-03-01.csv", [row]), "settled_items")
    accounting.sends(MARCH_5, owes("Z"))
    assert accounting.open_on(date(2026, 2, 27)) == money(A=100, Z=100)
    assert accounting.settled_by(MARCH_5) == {"A": (date(2026, 3, 1), MARCH_5)}


def test_a_reopened_invoice_is_settled_when_it_leaves_the_list_again(accounting: Accounting) -> None:
    """Paid on 20 February by the ledger of 1 March, listed on 5 March, gone on 12 March: settled after 5 March."""
    row = settled("A", date(2026, 1, 2), date(2026, 2, 1), date(2026, 2, 20))
    accounting.books.take_in(write_csv(accounting.folder / "settled_items_2026-03-01.csv", [row]), "settled_items")
    accounting.sends(MARCH_5, owes("A"), owes("Z"))
    accounting.sends(MARCH_12, owes("Z"))
    assert accounting.settled_by(date(2026, 3, 4)) == {"A": (date(2026, 2, 19), date(2026, 2, 20))}
    assert accounting.settled_by(MARCH_5) == {}
    assert accounting.settled_by(MARCH_12) == {"A": (MARCH_5, MARCH_12)}


def test_a_ledgers_correction_withdraws_what_only_the_first_revision_had(accounting: Accounting) -> None:
    """January's ledger has A paid on 10 January; February's says 20 January and has B; its correction has neither.

    Then A reads as January's ledger said, and B was never there.
    """
    issued, due = date(2026, 1, 2), date(2026, 1, 5)
    january = [settled("A", issued, due, date(2026, 1, 10))]
    february = [settled("A", issued, due, date(2026, 1, 20)), settled("B", issued, due, date(2026, 2, 3))]
    corrected = [settled("C", issued, due, date(2026, 2, 4))]

    def take_in(day: str, rows: list[Row], revision: int) -> FileOutcome:
        path = write_csv(accounting.folder / f"settled_items_{day}_r{revision}.csv", rows)
        return accounting.books.take_in(path, "settled_items")

    def words() -> dict[str, date]:
        rows = accounting.books.read("select invoice_number, settled_on from report.settled_invoices")
        return {row["invoice_number"]: row["settled_on"] for row in rows}

    take_in("2026-01-31", january, 1)
    take_in("2026-02-28", february, 1)
    assert words() == {"A": date(2026, 1, 20), "B": date(2026, 2, 3)}
    take_in("2026-02-28", corrected, 2)
    assert words() == {"A": date(2026, 1, 10), "C": date(2026, 2, 4)}


def test_flows_cannot_withdraw_a_ledger_that_nothing_has_corrected(accounting: Accounting) -> None:
    """The one function with which flows take a ledger's words back does nothing while its file is in force."""
    row = settled("A", date(2026, 1, 2), date(2026, 2, 1), date(2026, 2, 20))
    accounting.books.take_in(write_csv(accounting.folder / "settled_items_2026-03-01.csv", [row]), "settled_items")
    before = accounting.books.state()
    as_role(accounting, database.FLOWS, "select crm.withdraw_ledger(feed_file_id) from landing.feed_files")
    assert accounting.books.state() == before
