"""Rows that say what is held already: recognised whatever they hold, judged as the others, and never written again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from configs.settings import Settings
from tasks.database import OWNER, engine_for
from tests.ledgers import Books, item, write_csv

Row = dict[str, object]
MARCH_5, MARCH_12, MARCH_19 = date(2026, 3, 5), date(2026, 3, 12), date(2026, 3, 19)
DUE = date(2026, 4, 1)
STRICTER = """
apiVersion: v3.1.0
kind: DataContract
id: stricter_open_items
version: 1.0.0
status: active
customProperties:
  - {property: extends, value: open_items}
  - {property: source, value: accounting}
schema:
  - name: open_items
    quality:
      - name: no_more_than_a_thousand
        type: custom
        engine: kontor
        severity: error
        dimension: conformity
        implementation:
          sql: amount <= 1000
          columns: [amount]
          reason: "{amount} is more than anybody may owe"
"""


@dataclass(frozen=True)
class Ledger:
    """The books of C-1, and the folder in which accounting's lists are written."""

    books: Books
    folder: Path

    def sends(self, day: date, rows: Sequence[Row], contract: str | Path = "open_items") -> Any:
        """Take in a list of that day."""
        return self.books.take_in(write_csv(self.folder / f"open_items {day}.csv", rows), contract, day)

    def held(self) -> list[tuple[Any, ...]]:
        """Every item as it stands, with the version of its row in the database."""
        rows = self.books.read("select invoice_number, note, xmin::text from crm.invoices order by invoice_number")
        return [tuple(row.values()) for row in rows]


@pytest.fixture
def ledger(kontor_settings: Settings, tmp_path: Path) -> Ledger:
    """An empty ledger that knows C-1."""
    books = Books(kontor_settings)
    books.take_in(
        write_csv(tmp_path / "organizations.csv", [{"customer_number": "C-1", "name": "One"}]), "organizations"
    )
    return Ledger(books, tmp_path)


@pytest.mark.parametrize("mark", ["", "\x1e"], ids=["usual", "with_the_mark_between_texts"])
def test_rows_are_recognised_whatever_they_hold(ledger: Ledger, mark: str) -> None:
    """Quotation marks, line breaks, control signs, blanks and great amounts: the same list again writes no row."""
    notes = ['said "soon"', "two\r\nlines", "tab\there", "a,b;c|d", "'", "\\N", "Ж\u00a0ø", f"x{mark}y", "", "-"]
    rows = [item("C-1", f"N-{at}", 100, DUE, note=note) for at, note in enumerate(notes)]
    rows += [item("C-1", "great", "999999999999999.9999", DUE), item("C-1", "undated", "0.0001", DUE, issue_date="")]
    ledger.sends(MARCH_5, rows)
    before = ledger.held()

    outcome = ledger.sends(MARCH_12, [*rows[:-1], {**rows[-1], "amount": "0.0002", "open_amount": "0.0002"}])

    assert (outcome.unchanged, outcome.updated, outcome.settled, outcome.inserted) == (len(rows) - 1, 1, 0, 0)
    after = ledger.held()
    assert [one for one, other in zip(before, after, strict=True) if one != other] == [before[-1]]
    assert len(after) == len(rows)


def test_the_planner_knows_that_what_is_held_comes_in_few_blocks(ledger: Ledger) -> None:
    """Of 300 items it expects the 32 blocks there can be, not 300: only then do several processes put them together."""
    asked: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if "int8send" in statement:
            asked.append((statement, parameters))

    rows = [item("C-1", f"N-{at}", 100, DUE) for at in range(300)]
    ledger.sends(MARCH_5, rows)
    event.listen(Engine, "before_cursor_execute", keep)
    try:
        ledger.sends(MARCH_12, [*rows[1:], item("C-1", "new", 100, DUE)])
    finally:
        event.remove(Engine, "before_cursor_execute", keep)
    ((statement, parameters),) = asked
    with engine_for(ledger.books.settings, OWNER).begin() as connection:
        connection.exec_driver_sql("analyze crm.invoices")
        plan = connection.exec_driver_sql(f"explain {statement}", parameters).scalars().first()
    assert [int(rows) for rows in re.findall(r"rows=(\d+)", str(plan))] == [32]


def test_a_row_that_changes_nothing_is_judged_by_the_contract_of_its_own_file(ledger: Ledger) -> None:
    """A stricter contract refuses a row that was good last week; its item stays listed, and the rest is unchanged."""
    contract = ledger.folder / "stricter.yaml"
    contract.write_text(STRICTER, encoding="utf-8")
    rows = [item("C-1", "A", 100, DUE), item("C-1", "B", 5000, DUE)]
    ledger.sends(MARCH_5, rows)

    outcome = ledger.sends(MARCH_12, [*rows, item("C-1", "C", 10, DUE)], contract)

    assert (outcome.unchanged, outcome.quarantined, outcome.inserted, outcome.settled) == (1, 1, 1, 0)
    assert [row["reason"] for row in ledger.books.read("select * from report.quarantine")] == [
        "5000.0000 is more than anybody may owe"
    ]


def test_an_item_that_waited_in_quarantine_is_listed_by_the_next_list(ledger: Ledger) -> None:
    """A could not be read on 12 March; on 19 March it reads as on the 5th: nothing was settled, nothing came back."""
    rows = [item("C-1", "A", 100, DUE), item("C-1", "B", 50, DUE)]
    ledger.sends(MARCH_5, rows)
    assert ledger.sends(MARCH_12, [{**rows[0], "amount": "n/a"}, rows[1]]).quarantined == 1

    outcome = ledger.sends(MARCH_19, [*rows, item("C-1", "C", 10, DUE)])

    assert (outcome.unchanged, outcome.updated, outcome.inserted, outcome.settled, outcome.reopened) == (2, 0, 1, 0, 0)
