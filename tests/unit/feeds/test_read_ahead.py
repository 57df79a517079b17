"""What is read ahead is what would have been read in its turn, or it is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import FileRefused
from tasks.feeds import read_ahead
from tasks.feeds.contracts import load_contract
from tasks.feeds.intake import InboxFile, read_file, reader
from tasks.feeds.read_ahead import reading_ahead

HEADINGS = "customer_number,invoice_number,issue_date,due_date,currency,amount"


def _file(path: Path, amounts: list[str]) -> InboxFile:
    rows = [f"C-1,A{place},2026-02-01,2026-03-01,EUR,{amount}" for place, amount in enumerate(amounts)]
    path.write_text("\n".join([HEADINGS, *rows, ""]))
    return InboxFile(path, load_contract("open_items"))


def _amounts(file: InboxFile) -> list[str]:
    return [f"{amount:.2f}" for amount in reader.get()(file)[1].frame["amount"]]


def test_what_was_read_ahead_is_taken_unless_the_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is read once; one that looks different since, or was never begun, is read in its turn."""
    first, second, third = (_file(tmp_path / f"open_items_2026-03-0{day}.csv", [f"{day}.00"]) for day in (1, 2, 3))
    read: list[str] = []

    def counted(file: InboxFile) -> object:
        read.append(file.path.name[-5])
        return read_file(file)

    monkeypatch.setattr(read_ahead, "read_file", counted)
    with reading_ahead(2) as ahead:
        ahead.begin([first, second])
        ahead.begin([first])
        assert _amounts(first) == ["1.00"]
        _file(second.path, ["7.00", "8.00"])
        assert _amounts(second) == ["7.00", "8.00"]
        assert _amounts(third) == ["3.00"]
    assert sorted(read) == ["1", "2", "2", "3"]
    assert reader.get() is read_file


def test_a_file_that_cannot_be_read_is_refused_in_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginning says nothing; a file too large for the room, or gone, is left to its turn."""
    broken = _file(tmp_path / "open_items_2026-03-01.csv", ["never"])
    gone = _file(tmp_path / "open_items_2026-03-02.csv", ["1.00"])
    gone.path.unlink()
    with reading_ahead(1) as ahead:
        ahead.begin([broken, gone])
        for file in (broken, gone):
            with pytest.raises((FileRefused, FileNotFoundError)):
                reader.get()(file)
        monkeypatch.setattr(read_ahead, "MOST_BYTES", 10)
        large = _file(tmp_path / "open_items_2026-03-03.csv", ["1.00"])
        ahead.begin([large])
        assert ahead._begun == {}
