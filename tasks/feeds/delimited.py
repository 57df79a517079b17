"""Text files with delimiters: decoded strictly, read by Arrow in one go as text columns.

A row's number is the ordinal of its record: a line break inside quotation marks does not count, a blank line does.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from tasks.feeds.cells import TAGS, protect
from tasks.feeds.contracts import Dialect
from tasks.feeds.grids import Body, RaggedRow

DELIMITERS = (",", ";", "\t", "|")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_BLOCK = 1 << 24
_LARGEST_BLOCK = (1 << 31) - 1
_END = "\x1eend of file\x1e"  # a last record of our own: where it is not found again, a quotation mark was never closed


class NotText(Exception):
    """The bytes are not a text file that the contract can read; the message says why, ``hint`` what would help."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Quoting:
    """How cells that hold the delimiter are written: in quotation marks that double inside, or as a contract says."""

    quote: str | None = '"'
    escape: str | None = None
    skip_initial_space: bool = False

    @classmethod
    def of(cls, dialect: Dialect) -> Quoting:
        """The quoting that a contract's dialect names."""
        return cls(dialect.quote, dialect.escape, dialect.skip_initial_space)

    def reader(self, lines: Iterable[str], delimiter: str, *, strict: bool = False) -> Iterator[list[str]]:
        """The records of these lines."""
        return csv.reader(
            lines,
            delimiter=delimiter,
            quotechar=self.quote,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            # With an escape, a quotation mark inside a cell is escaped and never doubled.
            doublequote=self.escape is None,
            escapechar=self.escape,
            skipinitialspace=self.skip_initial_space,
            strict=strict,
        )


USUAL = Quoting()


@dataclass(frozen=True)
class DelimitedText:
    """One text with one delimiter: a candidate for how the file is meant."""

    text: str
    delimiter: str
    encoding: str
    utf8: bytes | None = None
    quoting: Quoting = USUAL

    @property
    def sheet(self) -> str | None:
        """None: a text file has no sheets."""
        return None

    @property
    def tells_errors(self) -> bool:
        """True: an error in a text file is its text, such as #N/A."""
        return True

    def head(self, depth: int) -> list[list[str]]:
        """Return the first records; fewer where the text cannot be cut into records."""
        rows: list[list[str]] = []
        try:
            for record, _ in _records(self.text, self.delimiter, self.quoting):
                rows.append(record)
                if len(rows) >= depth:
                    break
        except csv.Error:
            return rows
        return rows

    def body(self, header_row: int, width: int) -> Body:
        """Return the records below the header as text columns.

        Raises:
            NotText: a quotation mark is opened and never closed, or the records cannot be parsed at all.
        """
        offset = _offset_after(self.text, self.delimiter, header_row, self.quoting)
        if self.quoting != USUAL:
            return _parse_record_by_record(self.text[offset:], self.delimiter, header_row, width, self.quoting)
        if self.utf8 is None:
            below = memoryview(self.text[offset:].encode())
        else:  # the bytes of the file are what Arrow wants, so they are not written a second time
            below = memoryview(self.utf8)[len(self.text[:offset].encode()) :]
        return _parse(below, self.delimiter, header_row, width)


def decodings(content: bytes, dialect: Dialect) -> Iterator[tuple[str, str]]:
    """Yield (encoding, text) for every way of reading the bytes that the contract allows, best first.

    UTF-8 proves itself, and UTF-16 by its mark, so then there is no second way. Code pages cannot prove themselves; the
    caller takes the first whose header is recognised.
    """
    if content.startswith(_UTF16_MARKS):
        yield from _strictly(content, "utf-16")
        return
    if b"\0" in content and not any(name.casefold().startswith("utf-16") for name in dialect.encodings):
        raise NotText("it holds NUL bytes, so it is not a text file (or it was cut off while being written)")
    as_utf8 = list(_strictly(content, "utf-8-sig"))
    if as_utf8:
        yield from as_utf8
        return
    for encoding in dialect.encodings:
        if encoding.casefold().replace("_", "-") not in ("utf-8", "utf8", "utf-8-sig"):
            yield from _strictly(content, encoding)


def _strictly(content: bytes, encoding: str) -> Iterator[tuple[str, str]]:
    try:
        text = content.decode(encoding)
    except UnicodeError:
        return
    if "\0" not in text:
        yield encoding, text


def delimiters(dialect: Dialect) -> Sequence[str]:
    """Return the delimiters to try: the contract's, or the usual four."""
    return DELIMITERS if dialect.delimiter == "auto" else (dialect.delimiter,)


def _records(text: str, delimiter: str, quoting: Quoting) -> Iterator[tuple[list[str], int]]:
    """Yield each record with the number of characters consumed up to its end."""
    consumed = 0

    def lines() -> Iterator[str]:
        nonlocal consumed
        for line in _LINE.finditer(text):  # lazily: only the records that are asked for are looked at
            consumed = line.end()
            yield line[0]

    for record in quoting.reader(lines(), delimiter):
        yield record, consumed


def _offset_after(text: str, delimiter: str, record_count: int, quoting: Quoting) -> int:
    for number, (_, consumed) in enumerate(_records(text, delimiter, quoting), start=1):
        if number == record_count:
            return consumed
    return len(text)


def _parse_record_by_record(text: str, delimiter: str, header_row: int, width: int, quoting: Quoting) -> Body:
    """The records of an unusual dialect, which Arrow cannot read: five times slower, and just as exact."""
    straight: list[list[str]] = []
    ragged: dict[int, RaggedRow] = {}
    lines = (line[0] for line in _LINE.finditer(text))
    try:
        for number, record in enumerate(quoting.reader(lines, delimiter, strict=True), start=header_row + 1):
            if len(record) == width:
                straight.append(record)
            elif not record:  # a blank line: a row without content, as everywhere else
                straight.append([""] * width)
            else:
                ragged[number] = RaggedRow(width, tuple(record))
    except csv.Error as error:
        raise NotText(f"its records cannot be told apart by the contract's quote and escape ({error})") from error
    columns = [pa.array([row[position] for row in straight], pa.string()) for position in range(width)]
    marked = any(mark in text for mark in TAGS)
    return _with_ragged(columns, header_row, ragged, width, marked=marked)


def _parse(below: memoryview, delimiter: str, header_row: int, width: int) -> Body:
    ragged: dict[int, RaggedRow] = {}

    def set_aside(row: arrow_csv.InvalidRow) -> str:
        cells = next(csv.reader([row.text], delimiter=delimiter), [])
        ragged[header_row + row.number] = RaggedRow(width, tuple(cells))
        return "skip"

    ends = bytes(below[-1:]) in (b"", b"\n", b"\r")
    data = b"".join((below, b"" if ends else b"\n", _END.encode(), delimiter.encode() * (width - 1), b"\n"))
    try:
        table = _read(data, delimiter, width, _BLOCK, set_aside)
    except pa.ArrowInvalid:  # most likely a record longer than a block
        ragged.clear()
        table = _read(data, delimiter, width, _LARGEST_BLOCK, set_aside)
    columns = [_one_chunk(column) for column in table.columns]
    if not len(columns[0]) or columns[0][-1].as_py() != _END:
        raise NotText("a quotation mark is opened and never closed, so where its records end cannot be known")
    columns = [column.slice(0, len(column) - 1) for column in columns]
    marked = any(mark.encode() in data for mark in TAGS)
    return _with_ragged(columns, header_row, ragged, width, marked=marked)


def _read(
    data: bytes, delimiter: str, width: int, block_size: int, set_aside: Callable[[arrow_csv.InvalidRow], str]
) -> pa.Table:
    names = [str(position) for position in range(width)]
    return arrow_csv.read_csv(
        pa.BufferReader(data),
        read_options=arrow_csv.ReadOptions(
            use_threads=False, column_names=names, block_size=min(len(data) + 1, block_size)
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=delimiter,
            newlines_in_values=True,
            ignore_empty_lines=False,
            invalid_row_handler=set_aside,
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, check_utf8=False
        ),
    )


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _with_ragged(
    columns: list[pa.Array], header_row: int, ragged: dict[int, RaggedRow], width: int, *, marked: bool
) -> Body:
    """Return the well-formed rows and the ragged ones in the order of the file."""
    total = len(columns[0]) + len(ragged)
    numbers = pa.array(np.arange(header_row + 1, header_row + 1 + total, dtype=np.int32))
    if marked:
        columns = [protect(column) for column in columns]
    if ragged:
        apart = pa.array(sorted(ragged), pa.int32())
        straight = numbers.filter(pc.invert(pc.is_in(numbers, value_set=apart)))
        order = pc.sort_indices(pa.concat_arrays([straight, apart]))
        columns = [
            pa.concat_arrays([column, protect(_cells_at(ragged, apart, position))]).take(order)
            for position, column in enumerate(columns)
        ]
    # Cells beyond the last heading that are all empty are a habit of some programs, not a fault.
    faulty = {
        number: row
        for number, row in ragged.items()
        if len(row.cells) < width or any(cell.strip() for cell in row.cells[width:])
    }
    return Body(columns, numbers, faulty, marked)


def _cells_at(ragged: dict[int, RaggedRow], numbers: pa.Array, position: int) -> pa.Array:
    rows = [ragged[number].cells for number in numbers.to_pylist()]
    return pa.array([row[position] if position < len(row) else "" for row in rows], pa.string())
