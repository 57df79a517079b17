"""In whatever order catalogues and changes arrive: the database equals a plain model of them, read in order of days."""

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
from tests.catalogues import state
from tests.conftest import CAMPAIGN_FACTOR, empty_database, examples
from tests.ledgers import Books, write_csv

FIRST = date(2026, 1, 5)
PARTS = ("A-1", "B", "C")
COLUMNS = ("name", "description", "unit", "customer_price", "dealer_price", "stock", "promo_price")
WORDS = {"name": ["x", "y", ""], "description": ["x", "y", ""], "unit": ["st", "box", ""]}
UNREADABLE = "not a number"
ALWAYS = "always"


@dataclass(frozen=True)
class File:
    """One file: complete or with changes only, its columns, and what it says of which product."""

    week: int
    revision: int
    full: bool
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    number: int = 0

    @property
    def as_of(self) -> date:
        """The day the file speaks about."""
        return FIRST + timedelta(weeks=self.week)

    @property
    def place(self) -> tuple[date, int, bool, int]:
        """Where it lies among the others."""
        return self.as_of, self.revision, not self.full, self.number

    @property
    def contract(self) -> str:
        """The contract it is read by."""
        return "catalog" if self.full else "catalog_delta"

    def write(self, folder: Path) -> Path:
        """Write the file and return where; one product stands in every file, so that none is empty."""
        rows = [
            {"part_number": part, "currency": "EUR", **dict(zip(self.columns, values, strict=True))}
            for part, values in (*self.rows, (ALWAYS, tuple("st" if c == "unit" else "1" for c in self.columns)))
        ]
        if "promo_price" in self.columns:
            for row in rows:
                row |= {"promo_from": str(self.as_of - timedelta(days=3)), "promo_to": str(FIRST + timedelta(days=30))}
        number = f"_{self.number}" if self.number else ""
        return write_csv(folder / f"{self.contract}_{self.as_of}{number}_r{self.revision}.csv", rows)

    def says(self, part: str) -> dict[str, str] | None:
        """What it says of a product by column; None if it does not name it or its row cannot be read."""
        for name, values in self.rows:
            if name == part and UNREADABLE not in values:
                return dict(zip(self.columns, values, strict=True))
        return None

    def names(self, part: str) -> bool:
        """Whether it names the product, readable or not."""
        return any(name == part for name, _ in self.rows)


def _files(full: bool) -> st.SearchStrategy[File]:
    @st.composite
    def build(draw: st.DrawFn) -> File:
        columns = tuple(draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4, unique=True)))
        amounts = ["10", "10", "12", "", UNREADABLE]
        value = {name: st.sampled_from(WORDS.get(name, amounts)) for name in columns}
        parts = draw(st.lists(st.sampled_from(PARTS), max_size=3, unique=True))
        rows = tuple((part, tuple(draw(value[name]) for name in columns)) for part in sorted(parts))
        number = 0 if full else draw(st.sampled_from([0, 9, 10]))
        return File(draw(st.integers(0, 4)), 1, full, columns, rows, number)

    return build()


@st.composite
def _histories(draw: st.DrawFn) -> tuple[list[File], list[int]]:
    """Files of different places, one day perhaps in two revisions or several numbers, and an order of arrival."""
    files = draw(st.lists(st.booleans().flatmap(_files), min_size=2, max_size=6, unique_by=lambda file: file.place))
    if draw(st.booleans()):
        again = draw(_files(files[0].full))
        files.append(File(files[0].week, 2, again.full, again.columns, again.rows, again.number))
    return files, draw(st.permutations(range(len(files))))


def _model(files: list[File]) -> dict[str, dict[str, Any]]:
    """Every product that a readable row names: its name and description, stock and last complete file without it."""
    ordered = sorted(files, key=lambda file: file.place)
    found: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        held: dict[str, Any] = {"name": None, "description": None, "stock": None, "gone": None}
        known = False
        for place, file in enumerate(ordered):
            said = file.says(part)
            # A row that cannot be read names its product as long as no revision of the same day takes its file's place.
            retired = file.full and any(o.full and o.as_of == file.as_of for o in ordered[place + 1 :])
            if said is not None or (file.names(part) and not retired):
                held["gone"] = None
            elif file.full and held["gone"] is None:
                held["gone"] = file.as_of
            if said is not None:
                known = True
                held |= {name: said[name] or None for name in ("name", "description") if name in said}
                if said.get("stock"):
                    held["stock"] = Decimal(said["stock"])
        if known:
            found[part] = held
    return found


def _price_on(files: list[File], part: str, kind: str, day: date) -> Decimal | None:
    """The price of a kind on a day: what the newest file says that speaks of it from that day or earlier on."""
    for file in sorted(files, key=lambda file: file.place, reverse=True):
        said = file.says(part)
        if said is None or f"{kind}_price" not in said:
            continue
        promo = kind == "promo"
        begins = file.as_of - timedelta(days=3) if promo and said["promo_price"] else file.as_of
        if begins <= day:
            over = promo and day > FIRST + timedelta(days=30)
            return Decimal(said[f"{kind}_price"]) if said[f"{kind}_price"] and not over else None
    return None


@settings(max_examples=examples(3, 4), derandomize=CAMPAIGN_FACTOR == 1)
@given(history=_histories())
def test_any_order_of_arrival_reads_like_the_order_of_places(
    history: tuple[list[File], list[int]], prepared: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Complete files, changes, revisions and unreadable rows in any order, twice, leave what a model computes."""
    files, order = history
    folder = tmp_path_factory.mktemp("history")
    ordered = sorted(range(len(files)), key=lambda place: files[place].place)
    states = []
    for arrival in (ordered, order):
        empty_database(prepared)
        books = Books(prepared)
        for place in (*arrival, arrival[0]):
            outcome = books.take_in(files[place].write(folder), files[place].contract)
            assert outcome.state in ("applied", "known"), (outcome, files[place])
        _compare_with_model(books, files)
        states.append(state(books))
    assert states[0] == states[1]


def _compare_with_model(books: Books, files: list[File]) -> None:
    shown = books.read(
        "select p.part_number, p.name, p.description, s.quantity as stock, p.discontinued_on as gone"
        " from crm.products p left join crm.product_stock s using (product_id) where p.part_number <> :always",
        always=ALWAYS,
    )
    assert {row.pop("part_number"): row for row in shown} == _model(files)
    for week in range(-1, 6):
        day = FIRST + timedelta(weeks=week, days=1)
        held = books.read("select part_number, kind, amount from report.prices(:day)", day=day)
        found = {(row["part_number"], row["kind"]): row["amount"] for row in held if row["part_number"] != ALWAYS}
        expected = {
            (part, kind): amount
            for part in PARTS
            for kind in ("customer", "dealer", "promo")
            if (amount := _price_on(files, part, kind, day)) is not None
        }
        assert found == expected, day
