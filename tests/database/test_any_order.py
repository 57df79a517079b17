"""In whatever order files arrive: the database equals a plain model of them, read in the order of their days."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.settings import Settings
from tasks.feeds.guards import GUARDS
from tests.conftest import CAMPAIGN_FACTOR, empty_database, examples
from tests.ledgers import Books, item, write_csv

FIRST = date(2026, 1, 5)
DUE = date(2026, 2, 1)
CUSTOMERS = ("C-1", "C-2")
LATE_CUSTOMER = "C-3"
NUMBERS = ("A", "B")
ALL_GUARDS = tuple(GUARDS)
UNREADABLE = "not a number"


@dataclass(frozen=True)
class Snapshot:
    """One file: which items it lists, each with an open amount or one that cannot be read."""

    week: int
    revision: int
    rows: tuple[tuple[str, str, str], ...]

    @property
    def as_of(self) -> date:
        """The day the file speaks about."""
        return FIRST + timedelta(weeks=self.week)

    def write(self, folder: Path) -> Path:
        """Write the file and return where; the same snapshot always has the same name."""
        name = f"open_items_{self.as_of}_r{self.revision}.csv"
        rows = [item(customer, number, "100", DUE, open_amount=amount) for customer, number, amount in self.rows]
        # A row that every file has, so that none is empty.
        rows.append(item(CUSTOMERS[0], "always", self.week + 1000 * self.revision, DUE))
        return write_csv(folder / name, rows)


def _rows() -> st.SearchStrategy[tuple[tuple[str, str, str], ...]]:
    keys = [(customer, number) for customer in (*CUSTOMERS, LATE_CUSTOMER) for number in NUMBERS]
    amount = st.sampled_from(["100", "100", "60", UNREADABLE])
    listed = st.dictionaries(st.sampled_from(keys), amount, max_size=len(keys))
    return listed.map(
        lambda found: tuple((customer, number, value) for (customer, number), value in sorted(found.items()))
    )


@st.composite
def _histories(draw: st.DrawFn) -> tuple[list[Snapshot], list[int]]:
    """Snapshots of different weeks, one week in two revisions, and an order in which their files arrive."""
    weeks = draw(st.lists(st.integers(0, 6), min_size=2, max_size=5, unique=True))
    snapshots = [Snapshot(week, 1, draw(_rows())) for week in weeks]
    if draw(st.booleans()):
        snapshots.append(Snapshot(weeks[0], 2, draw(_rows())))
    return snapshots, draw(st.permutations(range(len(snapshots))))


def _model(snapshots: list[Snapshot], day: date) -> dict[tuple[str, str], Decimal]:
    """What is open on a day: replay the revisions in force in the order of their days; what cannot be read goes on."""
    in_force = {snapshot.as_of: snapshot for snapshot in sorted(snapshots, key=lambda s: s.revision)}
    held: dict[tuple[str, str], Decimal] = {}
    for as_of in sorted(in_force):
        if as_of > day:
            break
        listed = {(customer, number): amount for customer, number, amount in in_force[as_of].rows}
        held = {
            key: held[key] if amount == UNREADABLE else Decimal(amount)
            for key, amount in listed.items()
            if amount != UNREADABLE or key in held
        }
    return held


def _read(books: Books, day: date) -> dict[tuple[str, str], Decimal]:
    return {
        (row["customer_number"], row["invoice_number"]): row["open_amount"]
        for row in books.open_on(day)
        if row["invoice_number"] != "always"
    }


@settings(max_examples=examples(5, 8), derandomize=CAMPAIGN_FACTOR == 1)
@given(history=_histories(), late=st.booleans())
def test_any_order_of_arrival_reads_like_the_order_of_days(
    history: tuple[list[Snapshot], list[int]], late: bool, prepared: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Late files, corrected revisions, unreadable rows and a customer who arrives last leave what a model computes."""
    snapshots, order = history
    folder = tmp_path_factory.mktemp("history")
    states: list[dict[str, list[dict[str, Any]]]] = []
    for arrival in (list(range(len(snapshots))), order):
        books = _emptied(prepared)
        books.customers(folder, CUSTOMERS if late else (*CUSTOMERS, LATE_CUSTOMER))
        for place in arrival:
            books.take_in(snapshots[place].write(folder), "open_items")
        if late:
            books.customers(folder, (LATE_CUSTOMER,))
            books.replay()
        for week in range(8):
            day = FIRST + timedelta(weeks=week, days=3)
            assert _read(books, day) == _model(snapshots, day), (day, arrival)
        states.append(_comparable(books.state()))
    assert states[0] == states[1]


@dataclass(frozen=True)
class Ledger:
    """One ledger: which items it knows and the day on which each was paid, "" for one that is open."""

    month: int
    revision: int
    rows: tuple[tuple[str, str], ...]

    @property
    def as_of(self) -> date:
        """The day the ledger speaks about."""
        return date(2026, self.month, 28)

    def write(self, folder: Path) -> Path:
        """Write the file and return where."""
        rows = [item(CUSTOMERS[0], number, 100, DUE, settled_date=paid) for number, paid in self.rows]
        rows.append(item(CUSTOMERS[1], "always", self.month + 100 * self.revision, DUE, settled_date=""))
        return write_csv(folder / f"settled_items_{self.as_of}_r{self.revision}.csv", rows)


@st.composite
def _ledgers(draw: st.DrawFn) -> tuple[list[Ledger], list[int]]:
    """Ledgers of different months, each in one or two revisions, and an order in which they arrive."""
    paid = st.sampled_from(["", "2026-01-15", "2026-02-20"])
    rows = st.dictionaries(st.sampled_from("ABC"), paid, max_size=3).map(lambda found: tuple(sorted(found.items())))
    months = draw(st.lists(st.sampled_from([3, 4, 5]), min_size=1, max_size=3, unique=True))
    revisions = {month: draw(st.sampled_from([(1,), (1, 2)])) for month in months}
    ledgers = [Ledger(month, revision, draw(rows)) for month in months for revision in revisions[month]]
    return ledgers, draw(st.permutations(range(len(ledgers))))


def _last_words(ledgers: list[Ledger]) -> dict[str, tuple[date, str]]:
    """What holds of each item: the word of the newest ledger that speaks of it, in its last revision."""
    in_force = {ledger.as_of: ledger for ledger in sorted(ledgers, key=lambda one: one.revision)}
    return {number: (day, paid) for day in sorted(in_force) for number, paid in in_force[day].rows}


@settings(max_examples=examples(5, 8), derandomize=CAMPAIGN_FACTOR == 1)
@given(history=_ledgers())
def test_ledgers_and_their_corrections_read_alike_in_any_order(
    history: tuple[list[Ledger], list[int]], prepared: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A correction takes back what only the first revision said; then an earlier ledger's word holds again, or none."""
    ledgers, order = history
    folder = tmp_path_factory.mktemp("ledgers")
    states = []
    for arrival in (list(range(len(ledgers))), order):
        books = _emptied(prepared)
        books.customers(folder, CUSTOMERS)
        for place in arrival:
            books.take_in(ledgers[place].write(folder), "settled_items", accepted_guards=ALL_GUARDS, reason="a test")
        books.classify()
        state = books.state()
        found = {
            row["invoice_number"]: (row["as_of"], str(row["settled_on"] or ""))
            for row in state["ledger"]
            if row["invoice_number"] != "always"
        }
        assert found == _last_words(ledgers), arrival
        states.append(state)
    assert states[0] == states[1]


def _comparable(state: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    # A retired revision's rows are not kept when it arrives after the one that corrects it: nobody needs to mend them.
    return {name: rows for name, rows in state.items() if name != "organizations"}


def _emptied(prepared: Settings) -> Books:
    empty_database(prepared)
    return Books(prepared)
