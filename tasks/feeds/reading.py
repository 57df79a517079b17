"""A file read by its contract: the header found, headings translated, rows numbered, nothing cast yet.

The result is plain data that can be pickled, and nothing is kept between two calls, so that reading can happen in a
child process. The extension of a file is a hint only; its first bytes decide how it is read.
"""

from __future__ import annotations

import codecs
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from babel.dates import get_month_names

from tasks.errors import FileRefused
from tasks.feeds.bmecat import BmecatGrid
from tasks.feeds.cells import BLANKS, DATE, letter, shown, storable
from tasks.feeds.code_lists import spellings_of
from tasks.feeds.contracts import FeedContract
from tasks.feeds.dates import LANGUAGES
from tasks.feeds.delimited import DelimitedText, NotText, Quoting, decodings, delimiters
from tasks.feeds.folding import fold, fold_words
from tasks.feeds.grids import Body, Grid, RaggedRow
from tasks.feeds.headings import HeaderMatch, alias_ranks, match_header
from tasks.feeds.packages import HostilePackage, check_package, is_encrypted_package
from tasks.feeds.row_shapes import shape_rows
from tasks.feeds.workbooks import NotAWorkbook, PanicIsRefusal, read_sheets

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MARKUP = (b"<html", b"<!doctype", b"<table", b"<?xml", b"<meta", b"<head", b"mime-version")
_OTHERS = {
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
}
_SAVE_AS = "Open it in a spreadsheet program and save it as .xlsx, then send that file."
_WITHOUT_PASSWORD = "Open it with its password, save it as .xlsx without one and send that file."
_MONEY_WORDS = frozenset({"kr", "zl", "лв", "лева"})  # as they look once folded
_LETTERS_SHOWN = 20
_OLD_EXCEL = (b"\x09\x00", b"\x09\x02", b"\x09\x04", b"\x09\x08")


@dataclass(frozen=True)
class TotalsRow:
    """A totals row: its number and its filled cells as marked text, by canonical column (unknown ones by heading)."""

    row_number: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class RawTable:
    """What a file holds, by the canonical columns of its contract, as marked text (see :mod:`tasks.feeds.cells`).

    ``frame`` has one text column per canonical column found and ``row_number`` (int32, the 1-based row or record in the
    file); ``other`` has the columns the contract does not know, by position, for the rows that go into quarantine.
    ``columns`` maps canonical name → heading, ``letters`` canonical name → column letter. ``ragged`` holds the rows of
    a text file with too few or too many cells. ``remarks`` says in words what else the file brought (hidden sheets and
    rows, macros, links to other workbooks) and what was done about it.
    """

    file_name: str
    sheet: str | None
    header_row: int
    columns: Mapping[str, str]
    letters: Mapping[str, str]
    frame: pd.DataFrame
    titles: tuple[str, ...]
    totals: tuple[TotalsRow, ...]
    unknown_columns: tuple[str, ...]
    blank_rows: int
    encoding: str | None = None
    delimiter: str | None = None
    tells_errors: bool = True
    marked: bool = True
    ragged: Mapping[int, RaggedRow] = field(default_factory=dict)
    headings: tuple[str, ...] = ()
    other: pd.DataFrame = field(default_factory=pd.DataFrame)
    remarks: tuple[str, ...] = ()

    def cell(self, column: str, row_number: int) -> str:
        """Return the address a person finds the cell by, such as C17; "row 17" if the column is not in the file."""
        return f"{self.letters.get(column, 'row ')}{row_number}"


def read_table(path: Path, contract: FeedContract) -> RawTable:
    """Return the rows of the file as text by canonical column.

    Raises:
        FileRefused: its nature is wrong (not readable, no header, no row); every reason at once.
    """
    try:
        with PanicIsRefusal():
            return _table(path, contract, _choose(path, list(_grids(path, contract)), contract))
    except (NotText, NotAWorkbook) as reason:
        hint = getattr(reason, "hint", "") or (_WITHOUT_PASSWORD if "password" in str(reason) else _SAVE_AS)
        raise FileRefused(path.name, [str(reason)], hint=hint) from reason


def raw_rows(raw: RawTable, row_numbers: Iterable[int]) -> list[dict[str, object]]:
    """Return each named row as {"row_number", "cells": {heading: text as a person sees it}}, in the order asked for.

    A heading that stands twice, or none, is named by its column letter; so are cells beyond the last heading.
    """
    wanted = list(row_numbers)
    place = pd.Index(raw.frame["row_number"].to_numpy()).get_indexer(pd.Index(wanted))
    found = [(number, int(at)) for number, at in zip(wanted, place, strict=True) if at >= 0]
    by_position = {_ordinal(raw.letters[name]): raw.frame[name] for name in raw.columns}
    by_position |= {int(position): raw.other[position] for position in raw.other.columns}
    names = _distinct(raw.headings)
    columns = {
        names[position]: by_position[position].iloc[[at for _, at in found]].tolist()
        for position in sorted(by_position)
    }
    rows: list[dict[str, object]] = []
    for index, (number, _) in enumerate(found):
        cells = {name: storable(shown(values[index])) for name, values in columns.items() if name or values[index]}
        beyond = raw.ragged[number].cells[len(raw.headings) :] if number in raw.ragged else ()
        cells |= {letter(len(raw.headings) + extra): storable(text) for extra, text in enumerate(beyond, start=1)}
        rows.append({"row_number": number, "cells": cells})
    return rows


@dataclass(frozen=True)
class _Choice:
    grid: Grid
    header_row: int
    match: HeaderMatch
    head: Sequence[Sequence[str]]


def _grids(path: Path, contract: FeedContract) -> Iterator[Grid]:
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise NotText(f"it cannot be opened: {error.strerror}") from error
    if not start:
        raise NotText("it is empty (0 bytes)")
    if contract.dialect.file_format == "bmecat":
        yield BmecatGrid(path, complete=contract.mode == "snapshot")
    elif start.startswith(b"PK\x03\x04"):
        yield from read_sheets(path, contract.dialect, is_xlsx=_is_xlsx(path))
    elif start.startswith(_OLE):
        if is_encrypted_package(path):
            raise NotAWorkbook("it is protected by a password")
        yield from read_sheets(path, contract.dialect, is_xlsx=False)
    else:
        _refuse_what_only_looks_like_a_table(path, start)
        yield from _texts(path, contract)


def _is_xlsx(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as package:
            check_package(package, path.stat().st_size)
            names = set(package.namelist())
    except HostilePackage as reason:
        raise NotAWorkbook(str(reason)) from reason
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise NotAWorkbook(
            "it is a damaged ZIP package, so not a readable workbook (was it cut off in transfer?)"
        ) from error
    if not names & {"xl/workbook.xml", "xl/workbook.bin", "content.xml"}:
        raise NotAWorkbook("it is a ZIP package but not a workbook")
    return "xl/workbook.xml" in names


def _refuse_what_only_looks_like_a_table(path: Path, start: bytes) -> None:
    begin = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if begin.startswith(_MARKUP):
        raise NotText(f"it is a web page or XML text, although it is called {path.suffix or 'a table'}")
    for mark, name in _OTHERS.items():
        if start.startswith(mark):
            raise NotText(f"it is {name}, not a table")
    if start.startswith(_OLD_EXCEL):
        raise NotAWorkbook("it is a bare workbook stream of a program older than Excel 97")


def _texts(path: Path, contract: FeedContract) -> Iterator[Grid]:
    """Yield the ways to read a text file; the first encoding under which a header is recognised ends the search."""
    found = False
    ranks = alias_ranks(contract)
    content, quoting = path.read_bytes(), Quoting.of(contract.dialect)
    for encoding, text in decodings(content, contract.dialect):
        utf8 = content.removeprefix(codecs.BOM_UTF8) if encoding == "utf-8-sig" else None
        grids = [DelimitedText(text, mark, encoding, utf8, quoting) for mark in delimiters(contract.dialect)]
        yield from grids
        found = True
        if any(_best_row(grid, contract, ranks).match.score[0] for grid in grids):
            return
    if not found:
        tried = ", ".join(dict.fromkeys(("utf-8", *contract.dialect.encodings)))
        raise NotText(
            f"its bytes are not text in any encoding of the contract ({tried})", _code_page_hint(content, contract)
        )


# The code pages of the languages whose headings the contracts know; Windows programs write CSV in them.
_CODE_PAGES = {
    "windows-1250": "Polish and others",
    "windows-1251": "Bulgarian and others",
    "windows-1252": "Norwegian, Swedish and others",
}


def _code_page_hint(content: bytes, contract: FeedContract) -> str:
    """What would make the file readable: the code pages under which most of its headings are known, and how to say so.

    A code page cannot prove itself, so the sender or the contract must name it; where headings tell nothing, all are
    named.
    """
    ranks, quoting = alias_ranks(contract), Quoting.of(contract.dialect)
    found: dict[str, int] = {}
    for name in _CODE_PAGES:
        for encoding, text in decodings(content, replace(contract.dialect, encodings=(name,))):
            grids = [DelimitedText(text, mark, encoding, None, quoting) for mark in delimiters(contract.dialect)]
            found[name] = max(_best_row(grid, contract, ranks).match.score[1] for grid in grids)
    best = [name for name, score in found.items() if score == max(found.values())]
    if not best:
        return ""
    pages = " or ".join(f"{name} ({_CODE_PAGES[name]})" for name in best)
    return (
        f"It reads as {pages}. Save it as UTF-8 (in Excel: CSV UTF-8), or import it with a contract that extends "
        f"{contract.name} and says `dialect: {{encodings: [{best[0]}]}}` among its customProperties."
    )


def _best_row(grid: Grid, contract: FeedContract, ranks: Mapping[str, tuple[str, int]]) -> _Choice:
    head = grid.head(contract.dialect.header_depth)
    best = _Choice(grid, 0, HeaderMatch({}, (), contract.column_names), head)
    for number, cells in enumerate(head, start=1):
        match = match_header(cells, contract, ranks)
        if match.score > best.match.score:
            best = _Choice(grid, number, match, head)
    return best


def _choose(path: Path, grids: Sequence[Grid], contract: FeedContract) -> _Choice:
    """Return the sheet or dialect, and the row in it, that matches the contract best; of equals the first.

    Two sheets with rows are refused unless the contract names one: what stands in the other would count as settled.
    """
    ranks = alias_ranks(contract)
    choices = [_best_row(grid, contract, ranks) for grid in grids]
    best = max(choices, key=lambda choice: choice.match.score)
    if best.match.missing or not best.match.positions:
        raise FileRefused(path.name, _header_reasons(best, contract), hint=_header_hint(contract))
    best = _only_sheet_with_rows(path, choices, contract) or best
    if best.match.conflicts:
        raise FileRefused(path.name, best.match.conflicts, hint="Rename one of the headings and send the file again.")
    return best


def _only_sheet_with_rows(path: Path, choices: Sequence[_Choice], contract: FeedContract) -> _Choice | None:
    """Return the sheet that alone has a complete header and a row of data; None where there is no choice to make."""
    # One word that is also a heading, as on a sheet of explanations, makes no rival of a header of several.
    least = min(2, max(len(choice.match.positions) for choice in choices))
    headed = [choice for choice in choices if choice.match.score[0] and len(choice.match.positions) >= least]
    complete = [choice for choice in headed if choice.grid.sheet is not None]
    if len(complete) < 2 or contract.dialect.sheet is not None or contract.dialect.sheet_pattern is not None:
        return None
    filled = [choice for choice in complete if _has_rows(choice, contract)]
    if len(filled) > 1:
        names = ", ".join(repr(choice.grid.sheet) for choice in filled)
        raise FileRefused(
            path.name,
            [f"{len(filled)} visible sheets hold rows of {contract.name}, 1 is allowed: {names}"],
            hint=f"Name the sheet with `sheet` or `sheetPattern` in a contract that extends {contract.name}, "
            "or send a file with that sheet alone.",
        )
    return filled[0] if filled else None


def _has_rows(choice: _Choice, contract: FeedContract) -> bool:
    body = choice.grid.body(choice.header_row, len(choice.head[choice.header_row - 1]))
    headings = [""] * len(body.columns)
    keep, _, _ = _sift(body, choice.match.positions, headings, contract)
    return bool(len(body.row_numbers)) if keep is None else bool(pc.any(keep).as_py())


def _header_hint(contract: FeedContract) -> str:
    return (
        f"If the sender uses other headings, add them as aliases in a contract that extends {contract.name}; "
        f"`kontor contracts template {contract.name}` writes a file with the expected headings."
    )


def _header_reasons(best: _Choice, contract: FeedContract) -> list[str]:
    depth = contract.dialect.header_depth
    if not any(shown(cell).strip(BLANKS) for row in best.head for cell in row):
        return ["it holds no text at all in its first rows; an empty file is never taken for an empty list"]
    if not best.match.positions:
        return [f"no row among the first {min(depth, len(best.head))} holds a heading that {contract.name} knows"]
    reasons = []
    for name in best.match.missing:
        column = contract.column(name)
        known = ", ".join(dict.fromkeys((column.heading, *column.aliases[:4])))
        reasons.append(f"required column {name} not found (known as {known}, …)")
    sheet = f" of sheet {best.grid.sheet!r}" if best.grid.sheet else ""
    return [*reasons, f"headings seen in row {best.header_row}{sheet}: {_headings_seen(best, contract)}"]


def _headings_seen(best: _Choice, contract: FeedContract) -> str:
    """Return the headings that the contract knows, and of the others only where they stand.

    In a file without a header the row is one of data, and what people are called must not come into a message.
    """
    ranks = alias_ranks(contract)
    cells = {at: _clean(cell) for at, cell in enumerate(best.head[best.header_row - 1], start=1) if _clean(cell)}
    known = [repr(text) for text in cells.values() if fold(text) in ranks]
    others = [letter(at) for at, text in cells.items() if fold(text) not in ranks]
    more = [f"{len(others)} unknown in column {', '.join(others[:_LETTERS_SHOWN])}"] if others else []
    return ", ".join(known + more) + (", …" if len(others) > _LETTERS_SHOWN else "")


def _clean(cell: str) -> str:
    return " ".join(storable(shown(cell)).replace("\\ufeff", "").replace("\ufeff", "").split())


def _table(path: Path, contract: FeedContract, choice: _Choice) -> RawTable:
    header = choice.head[choice.header_row - 1]
    headings = tuple(_clean(cell) for cell in header)
    body = choice.grid.body(choice.header_row, len(headings))
    headings += ("",) * (len(body.columns) - len(headings))
    positions = dict(choice.match.positions)
    remarks = tuple(getattr(choice.grid, "remarks", ()))
    if contract.group_headings is not None or contract.rows_need:
        shaped = shape_rows(body, positions, contract, _totals_rows(body, positions, headings, contract))
        body, remarks = shaped.body, (*remarks, *shaped.remarks)
        if shaped.group is not None and contract.group_headings is not None:
            positions[contract.group_headings] = shaped.group
            headings += (f"{contract.group_headings} (headings of groups)",)
    keep, totals, blank_rows = _sift(body, positions, headings, contract)
    frame = _frame({name: body.columns[at] for name, at in positions.items()}, body.row_numbers, keep)
    known = set(positions.values())
    other = {str(at): column for at, column in enumerate(body.columns) if at not in known}
    raw = RawTable(
        file_name=path.name,
        sheet=choice.grid.sheet,
        header_row=choice.header_row,
        columns={name: headings[at] for name, at in positions.items()},
        letters={name: letter(at + 1) for name, at in positions.items()},
        frame=frame,
        titles=tuple(_titles(choice)),
        totals=totals,
        unknown_columns=tuple(headings[at] for at in choice.match.unknown),
        blank_rows=blank_rows,
        encoding=getattr(choice.grid, "encoding", None),
        delimiter=getattr(choice.grid, "delimiter", None),
        tells_errors=choice.grid.tells_errors,
        marked=body.marked,
        ragged={number: row for number, row in body.ragged.items() if not _is_total_number(totals, number)},
        headings=headings,
        other=_frame(other, None, keep),
        remarks=remarks,
    )
    _refuse_no_rows(raw, contract)
    return raw


def _totals_rows(
    body: Body, positions: Mapping[str, int], headings: Sequence[str], contract: FeedContract
) -> list[int]:
    """Return the indexes of the rows that are totals."""
    _, totals, _ = _sift(body, positions, headings, contract)
    numbers = {row.row_number for row in totals}
    return [at for at, number in enumerate(body.row_numbers.to_pylist()) if number in numbers] if numbers else []


def _is_total_number(totals: Sequence[TotalsRow], number: int) -> bool:
    return any(row.row_number == number for row in totals)


def _frame(columns: Mapping[str, pa.Array], numbers: pa.Array | None, keep: pa.Array | None) -> pd.DataFrame:
    named = dict(columns) | ({"row_number": numbers} if numbers is not None else {})
    table = pa.table(named)
    if keep is not None and named:
        table = table.filter(keep)
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def _titles(choice: _Choice) -> Iterator[str]:
    """Yield the text of each row above the header that says something; typed dates as ISO text."""
    for cells in choice.head[: choice.header_row - 1]:
        text = " ".join(storable(shown(cell)).strip() for cell in cells if shown(cell).strip() or cell.startswith(DATE))
        if text:
            yield text


def _sift(
    body: Body, positions: Mapping[str, int], headings: Sequence[str], contract: FeedContract
) -> tuple[pa.Array | None, tuple[TotalsRow, ...], int]:
    """Return which rows are rows of data (None = all), the totals rows, and how many rows are blank.

    Only rows in which nearly all identifying cells are blank can be either, so only those are looked at one by one.
    """
    identifying = [positions[name] for name in _identifying(contract) if name in positions] or list(positions.values())
    money = [
        positions[column.name] for column in contract.columns if column.kind == "money" and column.name in positions
    ]
    drop: list[int] = []
    totals: list[TotalsRow] = []
    for index in _suspects(body, identifying):
        cells = [column[index].as_py() for column in body.columns]
        filled = [at for at, cell in enumerate(cells) if shown(cell).strip(BLANKS)]
        number = body.row_numbers[index].as_py()
        if not filled and number not in body.ragged:
            drop.append(index)
        elif filled and _is_totals(cells, filled, identifying, money, contract.dialect.totals):
            drop.append(index)
            names = {at: name for name, at in positions.items()}
            totals.append(TotalsRow(number, {names.get(at, headings[at]): storable(cells[at]) for at in filled}))
    if not drop:
        return None, (), 0
    size = len(body.row_numbers)
    dropped = pc.is_in(pa.array(range(size), pa.int64()), value_set=pa.array(drop, pa.int64()))
    return pc.invert(dropped), tuple(totals), len(drop) - len(totals)


def _identifying(contract: FeedContract) -> list[str]:
    """Return the columns without which a row means nothing: the key and what else is required.

    Money and its currency are left out: a totals row has them too.
    """
    needed = [
        column.name
        for column in contract.columns
        if column.required and column.kind != "money" and column.code_list != "iso4217"
    ]
    return list(dict.fromkeys((*contract.key, *needed)))


def _suspects(body: Body, identifying: Sequence[int]) -> list[int]:
    """Return the indexes of rows in which at most one identifying cell is filled."""
    if not len(body.row_numbers):
        return []
    first = [_is_blank(body.columns[at]) for at in identifying[:2]]
    either = first[0] if len(first) == 1 else pc.or_(first[0], first[1])
    indexes = pc.indices_nonzero(either)
    filled = pa.array([0] * len(indexes), pa.int64())
    for at in identifying:
        blank = _is_blank(body.columns[at].take(indexes))
        filled = pc.add(filled, pc.invert(blank).cast(pa.int64()))
    chosen: list[int] = indexes.filter(pc.less_equal(filled, 1)).to_pylist()
    return chosen


def _is_blank(cells: pa.Array) -> pa.Array:
    return pc.equal(pc.utf8_trim(cells, BLANKS), "")


def _is_totals(
    cells: Sequence[str],
    filled: Sequence[int],
    identifying: Sequence[int],
    money: Sequence[int],
    markers: Sequence[str],
) -> bool:
    """Return whether the first filled cell is a totals marker, no other identifying one is filled, but money is.

    A marker that stands alone in its row counts too: it has no content that could be lost. Where the contract has no
    money there are no totals, and a customer called Total is a customer.
    """
    if not money or any(at in identifying for at in filled[1:]):
        return False
    if len(filled) > 1 and not any(at in money for at in filled[1:]):
        return False
    words = fold_words(shown(cells[filled[0]]))
    known = [marker for marker in map(fold_words, markers) if words == marker or words.startswith(f"{marker} ")]
    return any(_says_no_name(words.removeprefix(marker).split(), alone=len(filled) == 1) for marker in known)


def _says_no_name(words: Sequence[str], *, alone: bool) -> bool:
    """Return whether the words behind a marker are numbers, dates or currencies: Total EUR, not Total Energies.

    In a row that has nothing else, no word may stand behind it.
    """
    return not words or (not alone and all(word.isdigit() or word in _words_of_sums() for word in words))


@lru_cache(maxsize=1)
def _words_of_sums() -> frozenset[str]:
    """Return the currencies and months, folded, that may stand behind a totals marker."""
    months = {
        fold(name)
        for language in LANGUAGES
        for width in ("wide", "abbreviated")
        for context in ("format", "stand-alone")
        for name in get_month_names(width, context, language).values()
    }
    return frozenset(spellings_of("iso4217")) | months | _MONEY_WORDS


def _refuse_no_rows(raw: RawTable, contract: FeedContract) -> None:
    """Refuse a file without rows. Only a snapshot may be empty, and only if its totals row says zero."""
    if len(raw.frame):
        return
    money = [column.name for column in contract.columns if column.kind == "money"]
    said = [row.cells[name] for row in raw.totals for name in money if name in row.cells]
    if contract.mode == "snapshot" and said and all(_is_zero(text) for text in said):
        return
    raise FileRefused(
        raw.file_name,
        [f"no row below the header in row {raw.header_row}; an empty list is taken only with a totals row of 0"],
        hint="If nothing is open, the sender adds a totals row that says 0; otherwise ask for the complete file.",
    )


def _is_zero(text: str) -> bool:
    digits = [character for character in shown(text) if character.isdigit()]
    return bool(digits) and set(digits) == {"0"}


def _ordinal(letters: str) -> int:
    number = 0
    for character in letters:
        number = number * 26 + ord(character) - 64
    return number - 1


def _distinct(headings: Sequence[str]) -> list[str]:
    """Return a name for each position: its heading, with the letter where that alone would be ambiguous."""
    return [
        heading if heading and headings.count(heading) == 1 else f"{heading} [{letter(at + 1)}]".lstrip()
        for at, heading in enumerate(headings)
    ]
