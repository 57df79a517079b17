"""Uploads that are hostile, damaged or merely odd: each ends in a table or in words, and the one who asked lives."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import random
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from configs.settings import PROJECT_ROOT
from tasks.errors import FileRefused
from tasks.feeds.answers import GarbledAnswer, read_answer, write_table
from tasks.feeds.confined import Cost, read_confined
from tasks.feeds.confinement import MIB, Limits
from tasks.feeds.contracts import Column, Dialect, FeedContract, load_contract
from tasks.feeds.delimited import decodings
from tasks.feeds.raw_table import RawTable
from tasks.feeds.reading import read_table
from tests.conftest import CAMPAIGN_FACTOR
from tests.workbooks import HEADER, ROWS, shown_rows, write_workbook

SLOWEST, LARGEST = 10.0, 500 * MIB
ODD_FILES = Path(os.environ.get("KONTOR_REAL_DATA", PROJECT_ROOT.parent / "shared" / "data")) / "spreadsheets"


@pytest.fixture(scope="module")
def open_items() -> FeedContract:
    """The contract of the weekly list."""
    return load_contract("open_items")


def rewrite(path: Path, change: dict[str, bytes | None]) -> Path:
    """Put other content in place of parts of a package; None takes a part away."""
    with zipfile.ZipFile(path) as package:
        parts = {name: package.read(name) for name in package.namelist()} | change
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in parts.items():
            if content is not None:
                package.writestr(name, content)
    return path


def part_of(path: Path, name: str) -> bytes:
    """A part of a package."""
    with zipfile.ZipFile(path) as package:
        return package.read(name)


def refusal(path: Path, contract: FeedContract, limits: Limits | None = None) -> str:
    """The text and hint with which the file is refused, within the time and memory that every file has."""
    costs: list[Cost] = []
    started = time.monotonic()
    with pytest.raises(FileRefused) as caught:
        read_confined(path, contract, limits=limits, on_cost=costs.append)
    assert time.monotonic() - started < SLOWEST
    assert all(cost.peak_bytes < LARGEST for cost in costs)
    assert caught.value.hint
    return f"{caught.value} {caught.value.hint}"


# Every odd file ------------------------------------------------------------------------------------------------------


def odd_files() -> list[str]:
    """Every file of the collection, by its path in it."""
    return sorted(str(path.relative_to(ODD_FILES)) for path in ODD_FILES.rglob("*") if path.is_file())


def headings_in(path: Path) -> list[str]:
    """The texts of the row that looks most like a header; for workbooks it may take the process with it."""
    rows: list[list[object]]
    if path.read_bytes()[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        workbook = CalamineWorkbook.from_path(path)
        rows = workbook.get_sheet_by_index(0).to_python(skip_empty_area=False, nrows=30)  # type: ignore[assignment]
    else:
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()[:30]
        rows = [list(row) for mark in ",;\t|" for row in csv.reader(lines, delimiter=mark)]
    texts: list[list[str]] = [
        [cell for cell in row if isinstance(cell, str) and re.search(r"\w", cell)] for row in rows
    ]
    longest = max(texts, key=len) if texts else []
    return list(dict.fromkeys(longest))


def tell_headings(paths: Sequence[str]) -> None:
    """Print path and headings of each file as JSON, each from a child of its own."""
    for path in paths:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(Exception):
                print(json.dumps([path, headings_in(ODD_FILES / path)]), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


@pytest.fixture(scope="module")
def headings() -> dict[str, list[str]]:
    """Path → its likely headings, for the files that say any."""
    program = (
        "import sys; from tests.fault.test_confined_reading import *; tell_headings(sys.stdin.read().split('\\n'))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(odd_files()),
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT_ROOT,
    )
    return dict(json.loads(line) for line in told.stdout.splitlines() if line.startswith("["))


def permissive(contract: FeedContract, headings: Sequence[str], **dialect: Any) -> FeedContract:
    """A contract for which any table with one of these headings counts."""
    columns = tuple(Column(f"c{number}", "text", heading) for number, heading in enumerate(headings))
    return dataclasses.replace(
        contract,
        columns=columns,
        key=("c0",),
        mode="records",
        dialect=dataclasses.replace(contract.dialect, totals=(), **dialect),
    )


def outcome_of(path: Path, contract: FeedContract, costs: list[Cost]) -> tuple[int, FileRefused | None]:
    """How many rows the file gave, or the refusal."""
    try:
        return len(read_confined(path, contract, on_cost=costs.append).frame), None
    except FileRefused as refused:
        return 0, refused


# A plain run reads every fifth file, other ones in each folder, and a campaign (`make campaign`) all of them.
@pytest.mark.parametrize("name", odd_files() if CAMPAIGN_FACTOR > 1 else odd_files()[::5])
def test_every_odd_file_ends_in_a_table_or_in_words(
    name: str, open_items: FeedContract, headings: dict[str, list[str]]
) -> None:
    """Within 10 s and 500 MB the file gives rows, or a refusal with a reason and a next step."""
    contract = permissive(open_items, headings.get(name) or ["Name"])
    costs: list[Cost] = []
    started = time.monotonic()
    rows, refused = outcome_of(ODD_FILES / name, contract, costs)
    assert time.monotonic() - started < SLOWEST
    assert all(cost.peak_bytes < LARGEST for cost in costs)
    assert refused is None or "reader broke down" not in str(refused)
    if refused is None:
        assert rows > 0
    else:
        assert refused.hint
        assert refused.reasons
        assert all(reason.strip() and "Traceback" not in reason for reason in refused.reasons)


def test_most_odd_files_are_tables(open_items: FeedContract, headings: dict[str, list[str]]) -> None:
    """The collection proves something only if many are read to the end: more than a third of its workbooks."""
    if not ODD_FILES.is_dir():
        pytest.skip(f"the real files are not here ({ODD_FILES}); set KONTOR_REAL_DATA to their folder")
    suffixes = (".xlsx", ".xls", ".xlsb", ".ods", ".xlsm")
    some = [name for name in odd_files() if Path(name).suffix in suffixes][::4]
    found = [outcome_of(ODD_FILES / name, permissive(open_items, headings.get(name) or ["x"]), []) for name in some]
    assert sum(rows > 0 for rows, _ in found) > len(some) / 3


# Dialects and encodings ----------------------------------------------------------------------------------------------

SAME_AS_CLEAN = (
    "double_trailing_newline",
    "field_delimiter_0x3B",
    "field_delimiter_0x9",
    "no_trailing_newline",
    "one_data_row",
    "preamble",
    "record_delimiter_0xA",
    "record_delimiter_0xD",
)


@pytest.mark.parametrize("name", SAME_AS_CLEAN)
def test_a_dialect_gives_what_its_clean_counterpart_gives(name: str, open_items: FeedContract, real_data: Path) -> None:
    """Delimiters, line ends, title rows and missing or doubled last lines change nothing about the rows."""
    folder = real_data / "spreadsheets" / "csv" / "pollock"
    said = json.loads((folder / "parameters" / f"file_{name}.csv_parameters.json").read_text())
    contract = permissive(open_items, said["column_names"])
    dirty, clean = (read_confined(folder / kind / f"file_{name}.csv", contract) for kind in ("csv", "clean"))
    assert shown_rows(dirty, contract.column_names) == shown_rows(clean, contract.column_names)
    assert not dirty.ragged


@pytest.mark.parametrize("name", ["escape_char_0x5C", "escape_char_0x00", "field_delimiter_0x2C_0x20"])
def test_what_a_dialect_makes_unclear_is_set_aside_by_row(name: str, open_items: FeedContract, real_data: Path) -> None:
    """Where a foreign habit of quoting cuts a row wrongly, that row is marked as ragged and no row is lost."""
    folder = real_data / "spreadsheets" / "csv" / "pollock"
    said = json.loads((folder / "parameters" / f"file_{name}.csv_parameters.json").read_text())
    contract = permissive(open_items, [heading.strip('" ') for heading in said["column_names"]])
    dirty, clean = (read_confined(folder / kind / f"file_{name}.csv", contract) for kind in ("csv", "clean"))
    assert len(dirty.frame) == len(clean.frame)
    assert dirty.ragged
    assert set(dirty.ragged) <= set(dirty.frame["row_number"])


def test_the_csv_spectrum_is_read_as_it_says(open_items: FeedContract, real_data: Path) -> None:
    """Quotes, commas, line breaks and JSON inside cells arrive as the collection's own answers have them."""
    folder = real_data / "spreadsheets" / "csv" / "csv-spectrum"
    files = sorted(folder.glob("csvs_*.csv"))
    assert len(files) > 8
    for path in files:
        wanted = json.loads((folder / f"json_{path.stem.removeprefix('csvs_')}.json").read_text())
        contract = permissive(open_items, list(wanted[0]))
        found = shown_rows(read_confined(path, contract), contract.column_names)
        # The collection's files have lost carriage returns that its answers still have.
        answers = [[cell.replace("\r\n", "\n") for cell in row.values()] for row in wanted]
        assert [[cell.replace("\r\n", "\n") for cell in row] for row in found] == answers, path


CODECS = {"MacCyrillic": "mac-cyrillic", "IBM855": "cp855", "IBM866": "cp866", "UTF-16": "utf-16"}


def test_every_encoding_that_a_contract_names_is_read_exactly(real_data: Path) -> None:
    """Text in the encoding that the folder's name says comes out as that encoding has it, whatever else it could be."""
    files = sorted(path for path in (real_data / "spreadsheets" / "encodings").rglob("*") if path.is_file())
    assert len(files) > 60
    for path in files:
        folder = path.parent.name
        codec = CODECS.get(folder, re.sub(r"-(polish|czech|bulgarian)$", "", folder))
        content = path.read_bytes()
        with contextlib.suppress(UnicodeDecodeError):  # two web pages break the rules of their own encoding
            text = content.decode(codec).removeprefix("\ufeff")
            first = next(decodings(content, Dialect(encodings=(codec,))), ("", ""))[1]
            assert first.removeprefix("\ufeff") == text, path


# Planted hostility ---------------------------------------------------------------------------------------------------


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, open_items: FeedContract) -> None:
    """80 MB of one cell packed into a few KB are told as what they are, with measured and allowed."""
    path = write_workbook(tmp_path / "bomb.xlsx")
    sheet = part_of(path, "xl/worksheets/sheet1.xml").replace(b"</sheetData>", b"<row/>" * 14_000_000 + b"</sheetData>")
    rewrite(path, {"xl/worksheets/sheet1.xml": sheet})
    text = refusal(path, open_items)
    assert "ZIP bomb" in text
    assert "allowed are 150 times its size" in text


def test_a_directory_that_lies_about_sizes_gains_nothing(tmp_path: Path, open_items: FeedContract) -> None:
    """A bomb whose directory says that it is small is stopped by the limits, or read as far as it is harmless."""
    path = write_workbook(tmp_path / "bomb.xlsx")
    sheet = part_of(path, "xl/worksheets/sheet1.xml").replace(b"</sheetData>", b"<row/>" * 14_000_000 + b"</sheetData>")
    rewrite(path, {"xl/worksheets/sheet1.xml": sheet})
    content = path.read_bytes()
    size = len(sheet).to_bytes(4, "little")
    assert content.count(size) >= 2
    path.write_bytes(content.replace(size, (2000).to_bytes(4, "little")))
    costs: list[Cost] = []
    with contextlib.suppress(FileRefused):
        read_confined(path, open_items, on_cost=costs.append)
    assert all(cost.peak_bytes < LARGEST for cost in costs)


def test_parts_that_overlap_or_repeat_are_refused(tmp_path: Path, open_items: FeedContract) -> None:
    """A package in which a part stands twice would be read differently by two programs, so by none of ours."""
    path = write_workbook(tmp_path / "twice.xlsx")
    with zipfile.ZipFile(path, "a") as package, pytest.warns(UserWarning, match="Duplicate"):
        package.writestr("xl/workbook.xml", "<workbook/>")
    assert "there twice" in refusal(path, open_items)


def test_a_stray_cell_at_the_far_end_costs_no_memory(tmp_path: Path, open_items: FeedContract) -> None:
    """A table that spans 17 thousand million cells, two of them filled, is refused with the likely cause."""
    path = write_workbook(tmp_path / "stray.xlsx", [HEADER, *ROWS])
    with xlsxwriter.Workbook(str(path)) as workbook:
        sheet = workbook.add_worksheet()
        sheet.write_row(0, 0, HEADER)
        sheet.write_row(1, 0, ROWS[0])
        sheet.write(1_048_575, 16_383, "x")
    assert "stray cell" in refusal(path, open_items)


def test_an_ods_that_repeats_its_rows_a_billion_times_is_stopped(tmp_path: Path, open_items: FeedContract) -> None:
    """Repetition that is declared and not there ends in a table or in words, never in a machine without memory."""
    office, table = (
        "urn:oasis:names:tc:opendocument:xmlns:office:1.0",
        "urn:oasis:names:tc:opendocument:xmlns:table:1.0",
    )
    cell = '<table:table-cell table:number-columns-repeated="100000" office:value-type="float" office:value="1"/>'
    content = (
        f'<office:document-content xmlns:office="{office}" xmlns:table="{table}"><office:body><office:spreadsheet>'
        f'<table:table table:name="1"><table:table-row table:number-rows-repeated="1000000000">{cell}'
        "</table:table-row></table:table></office:spreadsheet></office:body></office:document-content>"
    )
    path = tmp_path / "rows.ods"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        package.writestr("content.xml", content)
        package.writestr("META-INF/manifest.xml", "<manifest/>")
    assert refusal(path, open_items)


@pytest.mark.parametrize(
    "prologue",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">',
    ],
)
@pytest.mark.parametrize("part", ["xl/workbook.xml", "xl/sharedStrings.xml", "xl/worksheets/sheet1.xml"])
def test_xml_with_entities_is_refused(tmp_path: Path, open_items: FeedContract, part: str, prologue: str) -> None:
    """Entities that grow, and entities that point at files or at the network, are never looked at."""
    path = write_workbook(tmp_path / "entities.xlsx")
    head, rest = part_of(path, part).split(b"\n", 1)
    rewrite(path, {part: head + prologue.encode() + rest})
    assert "declares entities" in refusal(path, open_items)


def test_a_password_is_named(tmp_path: Path, open_items: FeedContract) -> None:
    """An encrypted .xlsx, which is an OLE file inside, is told from a damaged one and asked for without password."""
    path = tmp_path / "secret.xlsx"
    path.write_bytes(
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1016) + "EncryptedPackage".encode("utf-16-le") + bytes(992)
    )
    text = refusal(path, open_items)
    assert "protected by a password" in text
    assert "without one" in text


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_truncated_workbook_is_named(tmp_path: Path, open_items: FeedContract, share: float) -> None:
    """What was cut off in transfer is told as that, wherever it was cut."""
    path = write_workbook(tmp_path / "cut.xlsx")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "cut off in transfer" in refusal(path, open_items)


def test_any_single_damage_ends_in_a_table_or_in_words(tmp_path: Path, open_items: FeedContract) -> None:
    """Forty workbooks with a few bytes changed at random neither hang nor take the process with them."""
    good = write_workbook(tmp_path / "good.xlsx").read_bytes()
    chance = random.Random(20261122)
    hints = []
    for number in range(40):
        content = bytearray(good)
        for _ in range(chance.choice((1, 4, 32))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path = tmp_path / f"damaged{number}.xlsx"
        path.write_bytes(content)
        try:
            raw = read_confined(path, open_items)
        except FileRefused as refused:
            hints.append(refused.hint)
        else:
            assert list(raw.frame.columns) == [*raw.columns, "row_number"]
    assert 0 < len(hints) < 40
    assert all(hints)


def test_what_stands_beside_the_cells_is_told(tmp_path: Path, open_items: FeedContract) -> None:
    """Macros are not run, hidden sheets not read, hidden rows read, other workbooks not opened; each is said."""
    path = tmp_path / "beside.xlsm"
    with xlsxwriter.Workbook(str(path)) as workbook:
        sheet = workbook.add_worksheet("Open")
        for number, row in enumerate((HEADER, *ROWS)):
            sheet.write_row(number, 0, row)
        sheet.set_row(2, None, None, {"hidden": True})
        secret = workbook.add_worksheet("Secret")
        secret.write_row(0, 0, HEADER)
        secret.hide()
    with zipfile.ZipFile(path, "a") as package:
        package.writestr("xl/vbaProject.bin", b"macro")
        package.writestr("xl/externalLinks/externalLink1.xml", "<externalLink/>")
    raw = read_confined(path, open_items)
    assert len(raw.frame) == 2
    assert raw.remarks == (
        "1 of its sheets are hidden and were not read",
        "it contains macros; they were not run",
        "it refers to other workbooks; their values were taken as stored at its last save",
        "1 of its rows are hidden; they were read like the others",
    )


def test_strict_ooxml_is_never_an_empty_list(tmp_path: Path, open_items: FeedContract) -> None:
    """A workbook in the strict variant of the format gives its rows, or is refused; it is never read as nothing."""
    path = write_workbook(tmp_path / "strict.xlsx")
    with zipfile.ZipFile(path) as package:
        parts: dict[str, bytes | None] = {
            name: package.read(name)
            .replace(
                b"http://schemas.openxmlformats.org/spreadsheetml/2006/main",
                b"http://purl.oclc.org/ooxml/spreadsheetml/main",
            )
            .replace(
                b"http://schemas.openxmlformats.org/officeDocument/2006/relationships",
                b"http://purl.oclc.org/ooxml/officeDocument/relationships",
            )
            for name in package.namelist()
        }
    rewrite(path, parts)
    rows, refused = outcome_of(path, open_items, [])
    assert rows == 2 or refused is not None


# The cell itself -----------------------------------------------------------------------------------------------------

cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


def either(
    read: Callable[[Path, FeedContract], RawTable], path: Path, contract: FeedContract
) -> RawTable | tuple[Any, ...]:
    """The table, or what the refusal says."""
    try:
        return read(path, contract)
    except FileRefused as refused:
        return refused.reasons, refused.hint


@settings(max_examples=25)
@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5), st.sampled_from(",;\t|"))
def test_the_cell_changes_nothing(
    tmp_path: Path, open_items: FeedContract, rows: list[tuple[str, ...]], mark: str
) -> None:
    """What comes out of the cell is what reading gives in this process, field by field, refusals included."""
    text = io.StringIO()
    csv.writer(text, delimiter=mark, quoting=csv.QUOTE_ALL).writerows([("a", "b", "Extra"), *rows])
    path = tmp_path / "list.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    contract = permissive(open_items, ["a", "b"])
    found, wanted = (either(read, path, contract) for read in (read_confined, read_table))
    if isinstance(found, tuple) or isinstance(wanted, tuple):
        assert found == wanted
        return
    for field in dataclasses.fields(RawTable):
        one, other = getattr(found, field.name), getattr(wanted, field.name)
        assert one.equals(other) if field.name in ("frame", "other") else one == other, field.name


def test_a_slow_file_is_ended_by_the_clock(tmp_path: Path, open_items: FeedContract) -> None:
    """A reading that takes longer than allowed is ended, and the refusal names both figures."""
    path = tmp_path / "long.csv"
    path.write_text(",".join(HEADER) + "\n" + "C1,1,2026-01-31,EUR,1\n" * 1_000_000)
    assert "not finished within the 0 s" in refusal(path, open_items, Limits(seconds=0.02))


def test_a_greedy_file_is_ended_by_the_memory_limit(tmp_path: Path, open_items: FeedContract) -> None:
    """A text that needs more memory than allowed is refused with the limit named."""
    path = tmp_path / "wide.csv"
    path.write_text(",".join(HEADER) + "\n" + "C1,1,2026-01-31,EUR,1\n" * 4_000_000)
    assert "more memory than the 200 MB" in refusal(path, open_items, Limits(seconds=60, memory_bytes=200 * MIB))


ATTEMPTS = """
import json, os, signal, socket, sys
from pathlib import Path
from tasks.feeds.confinement import Limits, confine
path, elsewhere, secret, parent = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
def forked():
    if os.fork() == 0: os._exit(0)
def limits_raised():
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))
attempts = {
    "tcp": lambda: socket.socket(socket.AF_INET),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "write": lambda: open(elsewhere, "w"),
    "remove": lambda: os.unlink(secret),
    "read": lambda: open(secret).read(),
    "environment": lambda: open(f"/proc/{parent}/environ").read(),
    "fork": forked,
    "run": lambda: os.execv("/bin/sh", ["sh", "-c", "exit 0"]),
    "kill": lambda: os.kill(parent, 0),
    "limits": limits_raised,
}
in_force = confine(path, Limits())
done = []
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, ValueError):
        continue
    done.append(name)
print(json.dumps([in_force, done, len(path.read_bytes())]))
"""


def test_a_reader_that_was_taken_over_can_do_nothing(tmp_path: Path) -> None:
    """Confined code opens no socket, writes, removes or reads no other file, starts and signals no process."""
    path, secret = tmp_path / "upload.csv", tmp_path / "secret"
    path.write_text("a,b\n")
    secret.write_text("password")
    ended = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(path), str(tmp_path / "new"), str(secret), str(os.getpid())],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT_ROOT,
    )
    in_force, done, readable = json.loads(ended.stdout)
    if set(in_force) != {"limits", "landlock", "seccomp"}:
        pytest.skip(f"this kernel has only {in_force}")
    assert done == []
    assert readable == 4
    assert secret.exists()


@contextlib.contextmanager
def answer_file(content: bytes) -> Iterator[int]:
    """The content as the file that a child would have written."""
    descriptor = os.memfd_create("answer")
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_an_answer_of_any_bytes_is_garbled(content: bytes) -> None:
    """What no honest reader writes is refused as an answer, never believed and never run."""
    with answer_file(content) as descriptor, pytest.raises(GarbledAnswer):
        read_answer(descriptor, "x")


def test_an_answer_with_flipped_bits_is_garbled_or_a_table(tmp_path: Path, open_items: FeedContract) -> None:
    """Two thousand altered answers are each refused or, where only a cell's text changed, read; no more."""
    good = io.BytesIO()
    write_table(good, read_table(write_workbook(tmp_path / "a.xlsx"), open_items), ())
    chance = random.Random(7)
    garbled = 0
    for _ in range(2000):
        content = bytearray(good.getvalue())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        with answer_file(bytes(content)) as descriptor:
            try:
                _, raw = read_answer(descriptor, "x")
            except GarbledAnswer:
                garbled += 1
            else:
                assert raw is None or list(raw.frame.columns) == [*raw.columns, "row_number"]
    assert garbled > 500
