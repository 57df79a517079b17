"""Reading: the header found anywhere, rows numbered as a person counts them, and files of the wrong nature refused."""

from __future__ import annotations

import csv
import datetime as dt
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import openpyxl
import pytest
import xlwt
from hypothesis import given
from hypothesis import strategies as st
from odf.opendocument import OpenDocumentSpreadsheet
from odf.table import Table, TableCell, TableRow
from odf.text import P

from tasks.errors import FileRefused
from tasks.feeds.cells import shown
from tasks.feeds.contracts import FeedContract, load_contract
from tasks.feeds.headings import alias_ranks, match_header
from tasks.feeds.raw_table import RawTable, raw_rows
from tasks.feeds.reading import read_table
from tasks.feeds.workbooks import NotAWorkbook, PanicIsRefusal
from tests.unit.feeds.conftest import HEADER, Extend, WriteText, WriteWorkbook

ROW = ("C1", "F1", "2026-01-31", "EUR", "10.00")
COMMA = ",".join
OPEN_ITEMS = load_contract("open_items")  # once: the same contract for every example of a property


@pytest.fixture(scope="module")
def open_items() -> FeedContract:
    """The contract of the weekly list."""
    return load_contract("open_items")


def column(raw: RawTable, name: str) -> list[str]:
    """The column's cells as a person sees them."""
    return [shown(cell) for cell in raw.frame[name]]


def test_titles_blank_rows_and_totals_are_not_rows(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """Title rows above, blank rows between and below, and totals rows are kept apart; rows keep their sheet numbers."""
    path = write_workbook(
        [
            ["Open items as of 2026-02-02"],
            [],
            HEADER,
            ROW,
            [],
            ["C2", "F2", "2026-01-31", "EUR", 5],
            [],
            ["Total:", "", "", "", 15],
        ]
        + [[" "]] * 3
    )
    raw = read_table(path, open_items)
    assert raw.header_row == 3
    assert list(raw.frame["row_number"]) == [4, 6]
    assert column(raw, "invoice_number") == ["F1", "F2"]
    assert raw.titles == ("Open items as of 2026-02-02",)
    assert [(row.row_number, shown(row.cells["amount"])) for row in raw.totals] == [(8, "15")]
    assert raw.cell("amount", 6) == "E6"


@pytest.mark.parametrize(
    "marker",
    [
        "Total",
        "ОБЩО:",
        "Razem PLN",
        "Sum",
        "Summa",
        "Grand total",
        "Totalt NOK",
        "Ogółem",
        "Total 31.01.2026",
        "Suma (zł)",
        "Sum januar 2026",
    ],
)
def test_totals_markers_in_five_languages(write_text: WriteText, open_items: FeedContract, marker: str) -> None:
    """A totals row is recognised in every language, also with a currency behind the word."""
    raw = read_table(write_text(COMMA(HEADER), COMMA(ROW), f"{marker},,,,10.00"), open_items)
    assert (len(raw.frame), len(raw.totals)) == (1, 1)


def test_a_customer_called_total_is_a_row(write_text: WriteText, open_items: FeedContract) -> None:
    """A word for total in the first cell is no totals row while the key is filled."""
    raw = read_table(
        write_text(COMMA(HEADER), "Total Energies,F1,2026-01-31,EUR,1", "Total,F2,2026-01-31,EUR,1"), open_items
    )
    assert (len(raw.frame), raw.totals) == (2, ())


def test_thousands_of_blank_rows_count_nothing(write_text: WriteText, open_items: FeedContract) -> None:
    """Blank rows at the end, with or without delimiters, are neither rows nor problems."""
    raw = read_table(write_text(COMMA(HEADER), COMMA(ROW), *[",,,,", "", " , ,,,"] * 2000), open_items)
    assert (len(raw.frame), raw.ragged) == (1, {})


def test_the_empty_snapshot_must_say_zero(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """No row is a legitimate snapshot only with a totals row of 0; otherwise the file is refused."""
    assert len(read_table(write_workbook([HEADER, ["Total", "", "", "", 0]]), open_items).frame) == 0
    for rows in ([HEADER], [HEADER, ["Total", "", "", "", 12]], [HEADER, ["Total"]]):
        with pytest.raises(FileRefused, match="no row below the header"):
            read_table(write_workbook(rows), open_items)


def test_an_empty_list_of_records_is_refused(write_workbook: WriteWorkbook) -> None:
    """Only a snapshot can say that there is nothing."""
    with pytest.raises(FileRefused, match="no row"):
        read_table(write_workbook([["Customer number", "Name", "Owner"]]), load_contract("organizations"))


@pytest.mark.parametrize(
    ("contract", "header", "rows"),
    [
        ("organizations", "Name,Customer number,Country", ["Total Energies Bulgaria EAD,,BG", "Sum Trading,,SE"]),
        ("organizations", "Name,Customer number,Country", ["Total,,", "Sum EUR,,"]),
        ("contacts", "Customer number,First name,Last name,Email", [",Total,Petersen,", ",Sum,,"]),
        ("open_items", "Customer name," + COMMA(HEADER), ["Total Energies,,,,,10.00", "Sum Trading,,,,EUR,10.00"]),
        ("open_items", "Customer name," + COMMA(HEADER), ["Total Energies,,,,,", "Sum EUR,,,2026-01-31,EUR,"]),
    ],
)
def test_a_name_that_begins_like_a_total_is_a_row(
    write_text: WriteText, contract: str, header: str, rows: list[str]
) -> None:
    """Without money in the row, or with more than a currency or a date behind the word, it is data and is counted."""
    raw = read_table(write_text(header, *rows), load_contract(contract))
    assert (len(raw.frame), raw.totals) == (len(rows), ())


def test_headings_are_compared_by_letters_and_digits(write_text: WriteText, open_items: FeedContract) -> None:
    """Case, white space, underscores, line breaks, a BOM and a literal \\ufeff make no difference."""
    path = write_text(
        '\ufeff\\ufeffCUSTOMER_NUMBER;"Invoice\nnumber:";DueDate;currency. ;  Amount', "C1;F1;31.01.2026;EUR;1,5"
    )
    raw = read_table(path, open_items)
    assert raw.columns["customer_number"] == "CUSTOMER_NUMBER"
    assert raw.columns["invoice_number"] == "Invoice number:"
    assert raw.delimiter == ";"


def test_the_remainder_is_its_own_column(write_text: WriteText, open_items: FeedContract) -> None:
    """Restbeløp beside Beløp are open amount and amount."""
    raw = read_table(
        write_text("Kundenr;Fakturanr;Forfallsdato;Valuta;Beløp;Restbeløp", "1;2;01.02.2026;NOK;10;5"), open_items
    )
    assert (raw.columns["amount"], raw.columns["open_amount"]) == ("Beløp", "Restbeløp")


def test_two_headings_for_one_column(write_text: WriteText, open_items: FeedContract) -> None:
    """The heading that the contract names earlier wins, the other is reported; two of one rank are refused."""
    both = ("Customer number", "Invoice number", "Due date", "Currency", "Gross", "Amount")
    raw = read_table(write_text(COMMA(both), "C1,F1,2026-01-31,EUR,1,2"), open_items)
    assert (raw.columns["amount"], raw.unknown_columns) == ("Amount", ("Gross",))
    with pytest.raises(FileRefused, match=r"two headings mean amount: 'Amount' \(column E\) and 'amount' \(column F\)"):
        read_table(write_text(COMMA((*HEADER, "amount")), "C1,F1,2026-01-31,EUR,1,2"), open_items)


def test_missing_columns_are_named_all_at_once(write_text: WriteText, open_items: FeedContract) -> None:
    """A file without required columns is refused with each of them and with the headings that were seen."""
    with pytest.raises(FileRefused) as error:
        read_table(write_text("Kundenr;Navn;Fakturanr", "1;A;2"), open_items)
    text = "\n".join(error.value.reasons)
    for part in ("due_date", "currency", "amount", "'Kundenr', 'Navn', 'Fakturanr'"):
        assert part in text
    assert error.value.hint


def test_hidden_sheets_are_skipped_and_of_several_visible_ones_the_contract_names_one(
    write_workbook: WriteWorkbook, open_items: FeedContract, extend: Extend
) -> None:
    """Of two sheets with rows neither is guessed; the contract names, counts or describes the one to read."""
    old = [HEADER, ("OLD", *ROW[1:])]
    sheets = {"Secret": old, "Read me": [["Hello"]], "March": [HEADER, ROW], "April": [HEADER, ("C9", *ROW[1:])]}
    path = write_workbook(sheets, hidden=["Secret"])
    with pytest.raises(
        FileRefused, match="2 visible sheets hold rows of open_items, 1 is allowed: 'March', 'April'"
    ) as refused:
        read_table(path, open_items)
    assert "`sheet` or `sheetPattern`" in str(refused.value.hint)
    assert read_table(path, extend("open_items", dialect={"sheet": "april"})).sheet == "April"
    assert read_table(path, extend("open_items", dialect={"sheet": 3})).sheet == "April"
    assert read_table(path, extend("open_items", dialect={"sheetPattern": "^Ap"})).sheet == "April"
    with pytest.raises(FileRefused, match=r"no visible sheet 'Secret'; visible sheets: 'Read me', 'March', 'April'"):
        read_table(path, extend("open_items", dialect={"sheet": "Secret"}))


def test_the_one_sheet_with_rows_is_read(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """Sheets with the header alone, or with totals and blanks alone, and hidden ones leave no choice to make."""
    more = (*HEADER, "Customer name")
    sheets = {
        "Empty": [more],
        "Summed": [HEADER, [], ["Total", "", "", "", 0]],
        "Rows": [HEADER, ROW],
        "Old": [HEADER, ("OLD", *ROW[1:])],
    }
    raw = read_table(write_workbook(sheets, hidden=["Old"]), open_items)
    assert (raw.sheet, column(raw, "customer_number")) == ("Rows", ["C1"])


def test_a_file_without_a_header_shows_none_of_its_content(write_text: WriteText) -> None:
    """Where the row taken for a header is one of data, known headings are named and of the rest the column letters."""
    path = write_text("Email;Anna Nowak;+48 600 700 800;anna@example.com")
    with pytest.raises(FileRefused) as error:
        read_table(path, load_contract("contacts"))
    text = "\n".join(error.value.reasons)
    assert "headings seen in row 1: 'Email', 3 unknown in column B, C, D" in text
    assert not any(part in text for part in ("Anna", "600", "example.com"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "windows-1251"])
def test_encodings(write_text: WriteText, open_items: FeedContract, encoding: str) -> None:
    """UTF-8 with and without a mark, UTF-16 with a mark, and the contract's code page are read to the same text."""
    head = "Клиентски номер;Клиент;Фактура №;Падеж;Валута;Сума" if encoding != "windows-1251" else (
        "Клиентски номер;Клиент;Фактура номер;Падеж;Валута;Сума"
    )  # fmt: skip
    raw = read_table(write_text(head, "К1;Витоша ЕООД;1;31.01.2026;лв.;1,50", encoding=encoding), open_items)
    assert column(raw, "customer_name") == ["Витоша ЕООД"]


def test_the_code_page_is_the_one_whose_header_is_recognised(write_text: WriteText, extend: Extend) -> None:
    """Of several code pages the first whose header is known is taken, not the first that decodes."""
    contract = extend("open_items", dialect={"encodings": ["windows-1252", "windows-1250"]})
    lines = ("Kod klienta;Klient;Numer faktury;Termin płatności;Waluta;Kwota do zapłaty", "1;Łódź;2;31.01.2026;PLN;1")
    raw = read_table(write_text(*lines, encoding="windows-1250"), contract)
    assert raw.encoding == "windows-1250"
    assert column(raw, "customer_name") == ["Łódź"]


def test_bytes_of_no_allowed_encoding_are_refused(tmp_path: Path, extend: Extend) -> None:
    """Bytes that are text in none of the contract's encodings are refused with the list."""
    path = tmp_path / "x.csv"
    path.write_bytes(b"a;b\n\x81\x8d;1\n")
    with pytest.raises(FileRefused, match=r"utf-8, windows-1252"):
        read_table(path, extend("open_items", dialect={"encodings": ["windows-1252"]}))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found_by_the_header(write_text: WriteText, open_items: FeedContract, delimiter: str) -> None:
    """Each usual delimiter is recognised, and one inside quotation marks is text."""
    cells = ("C1", f'"F{delimiter}1"', *ROW[2:])
    raw = read_table(write_text(delimiter.join(HEADER), delimiter.join(cells), name="x.txt"), open_items)
    assert column(raw, "invoice_number") == [f"F{delimiter}1"]


def test_ragged_rows_are_kept_and_named(write_text: WriteText, open_items: FeedContract) -> None:
    """Too few or too many cells are a fault of that row; empty cells beyond the last heading are not."""
    raw = read_table(
        write_text(COMMA(HEADER), COMMA(ROW), "C2,F2", COMMA(ROW) + ",,", COMMA(ROW) + ",more", COMMA(ROW)), open_items
    )
    assert list(raw.frame["row_number"]) == [2, 3, 4, 5, 6]
    assert sorted(raw.ragged) == [3, 5]
    assert raw_rows(raw, [5])[0]["cells"] == {**dict(zip(HEADER, ROW, strict=True)), "F": "more"}


def test_a_line_break_in_quotes_does_not_count_as_a_row(write_text: WriteText, open_items: FeedContract) -> None:
    """Row numbers are ordinals of records."""
    raw = read_table(write_text(COMMA(HEADER), '"C\n1",F1,2026-01-31,EUR,1', "", COMMA(ROW)), open_items)
    assert list(raw.frame["row_number"]) == [2, 4]


def test_an_open_quotation_mark_is_refused(write_text: WriteText, open_items: FeedContract) -> None:
    """A mark that is never closed would swallow the rest of the file in one cell."""
    with pytest.raises(FileRefused, match="never closed"):
        read_table(write_text(COMMA(HEADER), COMMA(ROW), 'C2,"F2,2026-01-31,EUR,1', COMMA(ROW)), open_items)


def test_cells_that_look_like_our_marks_stay_text(write_text: WriteText, open_items: FeedContract) -> None:
    """A control character in a text file is never taken for the mark of a typed cell."""
    raw = read_table(write_text(COMMA(HEADER), "\x01C1,F1,2026-01-31,EUR,\x0110"), open_items)
    assert column(raw, "customer_number") == ["\x01C1"]


def test_errors_and_unstored_formulas_of_a_workbook_are_not_blanks(tmp_path: Path, open_items: FeedContract) -> None:
    """#N/A and a formula without a stored result are kept as errors."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append([*HEADER, "Open amount"])
    sheet.append([*ROW[:4], 10, "=E2-3"])
    sheet.append([*ROW[:4], 10, "#N/A"])
    book.save(tmp_path / "x.xlsx")
    raw = read_table(tmp_path / "x.xlsx", open_items)
    assert column(raw, "open_amount") == ["formula without a stored result", "#N/A"]


def test_an_old_workbook_says_that_it_cannot_tell_errors(tmp_path: Path, open_items: FeedContract) -> None:
    """An .xls is read, and marked as one in which errors look like blanks."""
    book = xlwt.Workbook()
    sheet = book.add_sheet("Open")
    for row, cells in enumerate([HEADER, ("C1", "0012", "2026-01-31", "EUR", 12.5)]):
        for position, cell in enumerate(cells):
            sheet.write(row, position, cell)
    book.save(str(tmp_path / "x.xls"))
    raw = read_table(tmp_path / "x.xls", open_items)
    assert (column(raw, "invoice_number"), column(raw, "amount"), raw.tells_errors) == (["0012"], ["12.5"], False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<html><table><tr><td>Amount</td></tr></table>", "web page or XML text, although it is called .xls"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04 cut off", "damaged ZIP package"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 cut off", "cannot be read as a workbook"),
        (b"Customer number,Amount\n\0\0\0\0,1\n", "NUL bytes"),
        (b"\x09\x08\x10\x00", "older than Excel 97"),
    ],
)
def test_what_is_not_a_table_is_told_in_words(
    tmp_path: Path, open_items: FeedContract, content: bytes, reason: str
) -> None:
    """A file that is something else is refused with what it is, whatever its extension says."""
    path = tmp_path / "ledger.xls"
    path.write_bytes(content)
    with pytest.raises(FileRefused, match=reason):
        read_table(path, open_items)


def test_a_zip_that_is_no_workbook(tmp_path: Path, open_items: FeedContract) -> None:
    """A ZIP archive with something else in it is refused by name."""
    with zipfile.ZipFile(tmp_path / "x.xlsx", "w") as package:
        package.writestr("a.txt", "hello")
    with pytest.raises(FileRefused, match="a ZIP package but not a workbook"):
        read_table(tmp_path / "x.xlsx", open_items)


def test_text_called_xls_is_read(write_text: WriteText, open_items: FeedContract) -> None:
    """The extension is a hint only: delimited text under the name .xls is a table."""
    assert len(read_table(write_text(COMMA(HEADER), COMMA(ROW), name="open.xls"), open_items).frame) == 1


def test_the_first_columns_may_be_blank(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """A table that begins in column C is read, and its cells have their true addresses."""
    raw = read_table(write_workbook([[], ["", "", *HEADER], ["", "", *ROW]]), open_items)
    assert (raw.cell("customer_number", 3), column(raw, "customer_number")) == ("C3", ["C1"])


def test_a_quarantined_row_keeps_everything(write_workbook: WriteWorkbook, open_items: FeedContract) -> None:
    """Raw rows hold every cell by its heading, also of columns that the contract does not know, as a person sees it."""
    path = write_workbook([[*HEADER, "KID", "KID", ""], ["0012", 815, dt.date(2026, 1, 31), "EUR", 1.5, "a", 7, "x"]])
    assert raw_rows(read_table(path, open_items), [2, 99]) == [
        {
            "row_number": 2,
            "cells": {
                "Customer number": "0012",
                "Invoice number": "815",
                "Due date": "2026-01-31",
                "Currency": "EUR",
                "Amount": "1.5",
                "KID [F]": "a",
                "KID [G]": "7",
                "[H]": "x",
            },
        }
    ]


def test_the_result_crosses_a_process_boundary(write_text: WriteText, open_items: FeedContract) -> None:
    """A read table can be pickled, so that reading can happen in a child process."""
    raw = read_table(write_text(COMMA(HEADER), COMMA(ROW)), open_items)
    again = pickle.loads(pickle.dumps(raw))
    assert again.frame.equals(raw.frame)
    assert again.columns == raw.columns


RECEIVABLES = {
    "GenCloud": "invoice_number issue_date due_date customer_name open_amount",
    "Ajur": "invoice_number issue_date customer_name amount currency",
    "open items (Tripletex": "customer_number customer_name invoice_number issue_date due_date amount open_amount",
    "receivables CSV": "customer_name invoice_number issue_date due_date amount",
    "Fortnox": "customer_number issue_date due_date",
    "customer portal list": "invoice_number issue_date amount due_date open_amount note",
    "wFirma": "invoice_number issue_date customer_name amount",
    "Symfonia": "document_type invoice_number issue_date customer_name amount currency",
    "Dynamics AX": "customer_number customer_name invoice_number issue_date due_date amount currency open_amount",
}


@pytest.mark.parametrize("program", sorted(RECEIVABLES))
def test_headings_seen_in_real_exports(real_data: Path, open_items: FeedContract, program: str) -> None:
    """The headings that accounting programs write are recognised without a contract of their own."""
    path = real_data / "receivables/header-vocabulary/headers_seen_in_public_code.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter=";") if len(row) > 2 and row[1].startswith(program)]
    assert len(rows) == 1
    match = match_header(rows[0][2].split("|"), open_items, alias_ranks(open_items))
    assert set(RECEIVABLES[program].split()) <= set(match.positions)
    assert match.conflicts == ()


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), min_size=4, max_size=4))
def test_any_text_comes_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Whatever stands in a quoted cell is read back character by character, and the row is there."""
    path = tmp_path_factory.mktemp("any") / "x.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([[*HEADER, "Note", "Other"], ["K", texts[0], texts[1], "EUR", "1", texts[2], texts[3]]])
    raw = read_table(path, OPEN_ITEMS)
    cells = raw_rows(raw, [2])[0]["cells"]
    assert isinstance(cells, dict)
    assert [cells[name] for name in ("Invoice number", "Due date", "Note", "Other")] == texts


def test_an_ods_is_read(tmp_path: Path, open_items: FeedContract) -> None:
    """An OpenDocument sheet is read like any other: text stays text, numbers are numbers."""
    document = OpenDocumentSpreadsheet()
    sheet = Table(name="Open")
    for row, cells in enumerate([HEADER, ("C1", "0012", "2026-01-31", "EUR", "12.5")]):
        line = TableRow()
        for position, text in enumerate(cells):
            number = {"valuetype": "float", "value": text} if row and position == 4 else {"valuetype": "string"}
            cell = TableCell(**number)
            cell.addElement(P(text=text))
            line.addElement(cell)
        sheet.addElement(line)
    document.spreadsheet.addElement(sheet)
    document.save(str(tmp_path / "x.ods"))
    raw = read_table(tmp_path / "x.ods", open_items)
    assert (column(raw, "invoice_number"), column(raw, "amount"), raw.tells_errors) == (["0012"], ["12.5"], False)


def test_a_panic_inside_the_reader_is_a_refusal() -> None:
    """A panic derives from BaseException; it becomes a reason, and a person's Ctrl-C does not."""
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(NotAWorkbook, match="broke down"), PanicIsRefusal():
        raise panic("index out of bounds")
    with pytest.raises(KeyboardInterrupt), PanicIsRefusal():
        raise KeyboardInterrupt


def test_files_of_other_readers_test_sets(real_data: Path, open_items: FeedContract) -> None:
    """A sample of odd and hostile files: each gives a table or a refusal with reasons, nothing else."""
    files = sorted(
        path for path in (real_data / "spreadsheets").rglob("*") if path.is_file() and path.stat().st_size < 50_000
    )
    assert len(files) > 100
    for path in files[::5]:
        with suppress(FileRefused):
            assert isinstance(read_table(path, open_items), RawTable)
