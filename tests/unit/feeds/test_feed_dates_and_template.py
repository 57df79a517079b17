"""The business date of a file, its revision, its turn among those of a day, and the template that a sender fills in."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import openpyxl
import pytest

from tasks.errors import FileRefused
from tasks.feeds.business_date import find_as_of, find_revision, find_sequence
from tasks.feeds.casting import cast_table
from tasks.feeds.contracts import load_contract
from tasks.feeds.reading import read_table
from tasks.feeds.template import write_template
from tests.unit.feeds.conftest import Extend

DAY = dt.date(2012, 3, 5)


@pytest.mark.parametrize(
    "name", ["open_items_2012-03-05.xlsx", "open items 20120305.csv", "2012_03_05-r2.xlsx", "x-2012.03.05-v1.ods"]
)
def test_the_date_in_the_file_name(name: str) -> None:
    """A date in the file's name is found however it is separated."""
    assert find_as_of(load_contract("open_items"), file_name=name, titles=(), given=None) == DAY


@pytest.mark.parametrize(
    "title",
    ["Open items as of 2012-03-05", "Отворени позиции към 05.03.2012 г.", "Należności, stan na dzień 05.03.2012",
     "Åpne poster per 05.03.2012", "Öppna poster per den 5 mars 2012", "Open AS AT: 05-Mar-2012, printed 2012-03-09"],
)  # fmt: skip
def test_the_date_in_a_title(title: str) -> None:
    """A title says the day after a word for "as of" in five languages; a print date beside it means nothing."""
    assert find_as_of(load_contract("open_items"), file_name="x.xlsx", titles=("Acme", title), given=None) == DAY


def test_places_that_agree_are_one_answer() -> None:
    """Command, name and title may all say the same day."""
    found = find_as_of(
        load_contract("open_items"), file_name="open_items_2012-03-05.xlsx", titles=("as of 05.03.2012",), given=DAY
    )
    assert found == DAY


def test_places_that_disagree_are_refused_by_name() -> None:
    """Two different days refuse the file, and both places are named."""
    with pytest.raises(FileRefused) as error:
        find_as_of(
            load_contract("open_items"),
            file_name="open_items_2012-03-05.xlsx",
            titles=("as of 2012-03-12",),
            given=None,
        )
    assert error.value.reasons == (
        (
            "its business date is not clear: the file name (2012-03-05) says 2012-03-05 but "
            "the title row (2012-03-12) says 2012-03-12"
        ),
    )


def test_no_date_is_refused() -> None:
    """Without a date anywhere the file is refused with the places that were asked."""
    with pytest.raises(FileRefused, match="expected one in the command, the file name, a title row"):
        find_as_of(load_contract("open_items"), file_name="x_1234567890.xlsx", titles=("Open items",), given=None)


def test_the_contract_says_where_to_look(extend: Extend) -> None:
    """A contract may leave titles out, or say with a pattern where the date stands in the name."""
    contract = extend("open_items", asOf={"sources": ["file_name"], "fileNamePattern": r"KW_(\d{2}\.\d{2}\.\d{4})"})
    found = find_as_of(contract, file_name="2011-01-01 KW_05.03.2012.csv", titles=("as of 2012-03-12",), given=None)
    assert found == DAY


@pytest.mark.parametrize(
    ("name", "revision"),
    [
        ("open_items_2012-03-05.xlsx", 1),
        ("open_items_2012-03-05_r2.xlsx", 2),
        ("a-v3.csv", 3),
        ("a (rev4).xlsx", 4),
        ("server2.csv", 1),
    ],
)
def test_the_revision_in_the_file_name(name: str, revision: int) -> None:
    """A correction is known by the end of its name; without one it is the first."""
    assert find_revision(load_contract("open_items"), file_name=name, given=None) == revision


def test_files_of_one_day_sort_by_their_numbers_then_by_when_they_were_written() -> None:
    """No number before numbers, 9 before 10, times of day in order, the revision and the day themselves left out."""
    contract = load_contract("catalog_delta")
    for names in (
        ("{}.csv", "{}_r3.csv", "{}_9.csv", "{}_10.csv"),
        ("{}.csv", "{} 08-59-59.csv", "{}T09-30_r1.csv", "{}_09.31.csv"),
    ):
        found = [
            find_sequence(contract, file_name=name.format("changes_7_2026-11-22"), written_ns=written * 1_000_000)
            for written, name in enumerate(names)
        ]
        assert found == sorted(found)
        assert found[0] == "!1970-01-01T00:00:00.000000"
    assert find_as_of(contract, file_name="stock_20261122093015.csv", titles=(), given=None) == dt.date(2026, 11, 22)
    at = find_sequence(contract, file_name="stock_20261122093015.csv", written_ns=0)
    assert at.startswith("000000093015!")


def test_a_revision_that_disagrees_is_refused() -> None:
    """The command may add a revision but not contradict the name."""
    contract = load_contract("open_items")
    assert find_revision(contract, file_name="a.csv", given=5) == 5
    with pytest.raises(FileRefused, match="the command says 5 but the file name says 2"):
        find_revision(contract, file_name="a_r2.csv", given=5)


@pytest.mark.parametrize("name", ["open_items", "settled_items", "organizations", "contacts", "xero_invoices"])
def test_a_filled_in_template_is_read_by_its_contract(tmp_path: Path, name: str) -> None:
    """The template has the headings of the contract, and a row filled in as explained gives no problem."""
    contract = load_contract(name)
    path = tmp_path / "template.xlsx"
    write_template(contract, path)
    book = openpyxl.load_workbook(path)
    sheet, explained = book.worksheets
    headings = [cell.value for cell in sheet[1]]
    assert [row[0].value for row in explained.iter_rows(min_row=2)] == headings
    by_heading = {column.heading: column for column in contract.columns}
    for position, heading in enumerate(headings, start=1):
        column = by_heading[str(heading)]
        filled = {"money": 10.5, "date": dt.date(2026, 1, 31), "boolean": "yes", "integer": 30}.get(column.kind)
        lists = {"iso4217": "EUR", "iso3166": "BG", "iso639": "bg"}
        text = (column.allowed or ("a@example.com",))[0] if not column.code_list else lists[column.code_list]
        sheet.cell(2, position, filled or text)
    book.save(path)
    raw = read_table(path, contract)
    assert raw.unknown_columns == ()
    assert len(cast_table(raw, contract).problems) == 0


def test_a_template_offers_the_allowed_values(tmp_path: Path) -> None:
    """Columns with a closed list have a drop-down, and the same contract always gives the same bytes."""
    contract = load_contract("open_items")
    write_template(contract, tmp_path / "a.xlsx")
    write_template(contract, tmp_path / "b.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "a.xlsx").worksheets[0]
    lists = {rule.formula1 for rule in sheet.data_validations.dataValidation}
    assert lists == {'"invoice,credit_note"', '"yes,no"'}
    assert (tmp_path / "a.xlsx").read_bytes() == (tmp_path / "b.xlsx").read_bytes()
