"""A draft of a feed's contract over archived files: which rows flip, by how much money, and nothing is kept."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from configs.settings import PROJECT_ROOT, Settings
from tasks import database
from tasks.feeds.contracts import FeedContract, load_contract
from tasks.quality.archive_store import ArchiveBacktest, backtest_archive
from tests.ledgers import Books, item, write_csv

DAY = date(2026, 3, 2)
SHIPPED = (PROJECT_ROOT / "data_contracts" / "feeds" / "open_items.yaml").read_text("utf-8")


@pytest.fixture
def archive(kontor_settings: Settings, tmp_path: Path) -> Path:
    """Two archived weeks: plain amounts, one that reads as thousands where the mark is a comma, one nonsense."""
    Books(kontor_settings).customers(tmp_path, ["1", "2"])
    folder = tmp_path / "archive"
    folder.mkdir()
    write_csv(folder / "2026-03-02_aaaaaaaaaaaa_items.csv", [item("1", "A", "100.00", DAY), item("2", "B", "x", DAY)])
    rows = [item("1", "A", "100.00", DAY), item("2", "C", "1.250", DAY), item("2", "D", "7,50", DAY)]
    write_csv(folder / "2026-03-09_bbbbbbbbbbbb_items.csv", rows)
    return folder


def _draft(folder: Path, *changes: tuple[str, str]) -> FeedContract:
    document = SHIPPED
    for old, new in changes:
        assert old in document
        document = document.replace(old, new)
    path = folder / "open_items.yaml"
    path.write_text(document, "utf-8")
    return load_contract(path)


def _backtest(settings: Settings, draft: FeedContract, folder: Path, newest: int = 12) -> ArchiveBacktest:
    with database.engine_for(settings).connect() as connection:
        return backtest_archive(connection, load_contract("open_items"), draft, folder, newest)


def test_the_contract_in_force_flips_nothing(kontor_settings: Settings, archive: Path, tmp_path: Path) -> None:
    """The same contract reads every archived row as before."""
    found = _backtest(kontor_settings, _draft(tmp_path), archive)
    assert (found.files, found.rows, found.records) == (2, 5, ())


def test_another_decimal_mark_flips_rows_and_money(kontor_settings: Settings, archive: Path, tmp_path: Path) -> None:
    """A row that is refused, one that is taken in for other money, and nothing of it stays in the database."""
    books = Books(kontor_settings)
    before = books.state(), books.read("select count(*) from landing.staged_items")
    found = _backtest(kontor_settings, _draft(tmp_path, ("decimal: auto", 'decimal: "."')), archive)
    told = [(r["as_of"], r["row_number"], r["becomes"], r["currency"], r["before"], r["after"]) for r in found.records]
    second = date(2026, 3, 9)
    assert told == [
        (second, 3, "accepted", "EUR", Decimal(0), Decimal("1.2500")),
        (second, 4, "quarantined", "EUR", Decimal("7.5000"), Decimal(0)),
    ]
    assert found.sums() == [
        {"becomes": "accepted", "currency": "EUR", "rows": 1, "money": Decimal("1.2500")},
        {"becomes": "quarantined", "currency": "EUR", "rows": 1, "money": Decimal("-7.5000")},
    ]
    assert found.records[1]["customer_number"] == "2"
    assert (books.state(), books.read("select count(*) from landing.staged_items")) == before


def test_a_row_that_is_read_otherwise_flips_too(kontor_settings: Settings, archive: Path, tmp_path: Path) -> None:
    """Taken in by both contracts, for 1.25 by one and 1,250 by the other: the columns and the difference are told."""
    point, comma = tmp_path / "point", tmp_path / "comma"
    for folder in (point, comma):
        folder.mkdir()
    standing = _draft(point, ("decimal: auto", 'decimal: "."'))
    draft = _draft(comma, ("decimal: auto", 'decimal: ","'))
    with database.engine_for(kontor_settings).connect() as connection:
        found = backtest_archive(connection, standing, draft, archive, 1)
    assert found.files == 1
    rows = {row["row_number"]: (row["becomes"], row["before"], row["after"], row["reason"]) for row in found.records}
    assert [kind for kind, *_ in rows.values()] == ["quarantined", "other", "accepted"]
    assert rows[3] == ("other", Decimal("1.2500"), Decimal("1250.0000"), "read otherwise: amount, open_amount")


def test_a_file_that_the_draft_refuses_flips_as_a_whole(
    kontor_settings: Settings, archive: Path, tmp_path: Path
) -> None:
    """A column that the draft wants and no file has: all money of each file, by currency, with the reason."""
    wanted = """      - name: nobody_has_it
        physicalName: Nobody has it
        logicalType: string
        required: true
        description: Wanted.
      - name: note
"""
    found = _backtest(kontor_settings, _draft(tmp_path, ("      - name: note\n", wanted)), archive)
    assert [(row["row_number"], row["becomes"]) for row in found.records] == [(None, "refused")] * 2
    assert [row["before"] for row in found.records] == [Decimal("100.0000"), Decimal("107.5000")]
    assert {row["after"] for row in found.records} == {Decimal(0)}
