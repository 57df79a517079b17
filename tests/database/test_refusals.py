"""A file of the wrong nature is refused whole, with every reason at once, and settles nothing."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from configs.settings import Settings
from tests.ledgers import Books, item, write_csv

DUE = date(2026, 3, 1)
FIRST, SECOND = date(2026, 3, 2), date(2026, 3, 9)


def _known_items(books: Books, folder: Path) -> None:
    books.customers(folder, ["C-1"])
    path = write_csv(folder / "open_items_first.csv", [item("C-1", "A", "10", DUE), item("C-1", "B", "20", DUE)])
    books.take_in(path, "open_items", FIRST)


def test_a_file_without_a_readable_row_is_refused_and_settles_nothing(
    kontor_settings: Settings, tmp_path: Path
) -> None:
    """Where no row gives a date and an amount, both columns are named with their first cell; the items stay open."""
    books = Books(kontor_settings)
    _known_items(books, tmp_path)
    before = books.state()
    rows = [item("C-1", number, "a lot", DUE, due_date="soon", open_amount="") for number in ("A", "B")]
    outcome = books.take_in(write_csv(tmp_path / "open_items_bad.csv", rows), "open_items", SECOND)

    assert outcome.state == "refused"
    assert outcome.reasons[0] == "none of its 2 rows can be read"
    assert {reason.split(":")[0] for reason in outcome.reasons[1:]} == {"due_date", "amount"}
    assert any("2 cells, the first in E2" in reason for reason in outcome.reasons)
    assert books.state() == before
    assert len(books.open_on(SECOND)) == 2
    refused = books.read("select file_name, state, refusal from landing.feed_files where state = 'refused'")
    assert refused == [{"file_name": "open_items_bad.csv", "state": "refused", "refusal": list(outcome.reasons)}]


def test_a_file_with_one_good_row_is_taken_in(kontor_settings: Settings, tmp_path: Path) -> None:
    """One row that can be read is enough: the others wait in quarantine and their items stay open."""
    books = Books(kontor_settings)
    _known_items(books, tmp_path)
    rows = [item("C-1", "A", "10", DUE), item("C-1", "B", "a lot", DUE, open_amount="")]
    outcome = books.take_in(write_csv(tmp_path / "open_items_bad.csv", rows), "open_items", SECOND)
    assert (outcome.state, outcome.unchanged, outcome.quarantined, outcome.settled) == ("applied", 1, 1, 0)
    assert [row["invoice_number"] for row in books.open_on(SECOND)] == ["A", "B"]
