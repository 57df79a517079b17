"""How a question goes into a cell and a table comes out: Arrow IPC and JSON, checked as if a stranger had written them.

The process that reads an upload may have been taken over by it, so nothing of its answer is ever unpickled. The
layout: the rows as an Arrow stream, the columns that the contract does not know as another, a JSON object with the
rest, and a trailer that says where each ends. Arrow's buffers are used where they lie, without a copy.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pandas as pd
import pyarrow as pa
from pyarrow import ipc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import FileRefused
from tasks.feeds.confinement import Limits
from tasks.feeds.contracts import FeedContract
from tasks.feeds.grids import RaggedRow
from tasks.feeds.raw_table import RawTable, Section, TotalsRow

_TRAILER = struct.Struct("<8sQQQ")
_MAGIC = b"KONTOR\x00\x01"
_ALIGNED = 64
_LONGEST_TEXT = 4000
_MOST_REASONS = 200


@dataclass(frozen=True)
class Question:
    """What is to be read, by which contract, at what cost. Pickled: it goes from the one who is trusted inwards."""

    path: Path
    contract: FeedContract
    limits: Limits


class GarbledAnswer(Exception):
    """The answer is not one that an honest reader gives; the message says what is wrong with it."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Totals(_Strict):
    row_number: int
    cells: dict[str, str]


class _Ragged(_Strict):
    row_number: int
    expected: int
    cells: list[str]


class _Section(_Strict):
    base: int
    sheet: str
    letters: dict[str, str]


class _Table(_Strict):
    sheet: str | None
    header_row: int
    columns: dict[str, str]
    letters: dict[str, str]
    titles: list[str]
    totals: list[_Totals]
    unknown_columns: list[str]
    blank_rows: int
    encoding: str | None
    delimiter: str | None
    tells_errors: bool
    marked: bool
    ragged: list[_Ragged]
    headings: list[str]
    remarks: list[str]
    sections: list[_Section]


class Answer(_Strict):
    """One answer: a table, or the reasons of a refusal, or what ended the reader (``memory``, or an error's name)."""

    table: _Table | None = None
    reasons: list[str] = Field(default_factory=list)
    hint: str = ""
    memory: bool = False
    broke: str = ""
    in_force: list[str] = Field(default_factory=list)


def write_table(file: IO[bytes], raw: RawTable, in_force: Sequence[str]) -> None:
    """Write the table to an empty file."""
    frame_end = _write_frame(file, raw.frame)
    other_end = _write_frame(file, raw.other)
    _write_rest(file, Answer(table=_described(raw), in_force=list(in_force)), frame_end, other_end)


def write_refusal(file: IO[bytes], error: BaseException, in_force: Sequence[str]) -> None:
    """Write why there is no table. Of an unforeseen error only its type and place: its text may quote the file."""
    answer = Answer(in_force=list(in_force))
    if isinstance(error, FileRefused):
        answer = answer.model_copy(update={"reasons": list(error.reasons), "hint": error.hint})
    elif isinstance(error, MemoryError):
        answer = answer.model_copy(update={"memory": True})
    else:
        answer = answer.model_copy(update={"broke": f"{type(error).__name__} at {_place(error)}"})
    file.seek(0)
    file.truncate()
    _write_rest(file, answer, 0, 0)


def read_answer(descriptor: int, file_name: str) -> tuple[Answer, RawTable | None]:
    """Return the answer and, if it is one, the table; the file may be closed afterwards.

    Raises:
        GarbledAnswer: it is not what :func:`write_table` or :func:`write_refusal` writes.
    """
    size = os.fstat(descriptor).st_size
    if size < _TRAILER.size:
        raise GarbledAnswer(f"{size} bytes instead of an answer")
    content = pa.py_buffer(memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ)))
    magic, frame_end, other_end, rest_end = _TRAILER.unpack(content[size - _TRAILER.size :].to_pybytes())
    if magic != _MAGIC or not 0 <= frame_end <= other_end <= rest_end == size - _TRAILER.size:
        raise GarbledAnswer("its parts do not fit together")
    try:
        answer = Answer.model_validate_json(content[other_end:rest_end].to_pybytes())
        if answer.table is None:
            return _bounded(answer), None
        frame = _read_frame(content[:frame_end], [*answer.table.columns, "row_number"])
        other = _read_frame(content[frame_end:other_end], None)
    except ValidationError as error:
        raise GarbledAnswer(f"{error.error_count()} of its fields are not what they must be") from error
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:  # all of them are Arrow's ways to say no
        raise GarbledAnswer("its columns are not valid Arrow data") from error
    return answer, _table(answer.table, file_name, frame, other)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    place = "an unknown place"
    while trace is not None:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119 - a text
        trace = trace.tb_next
    return place


def _described(raw: RawTable) -> _Table:
    return _Table(
        sheet=raw.sheet,
        header_row=raw.header_row,
        columns=dict(raw.columns),
        letters=dict(raw.letters),
        titles=list(raw.titles),
        totals=[_Totals(row_number=row.row_number, cells=dict(row.cells)) for row in raw.totals],
        unknown_columns=list(raw.unknown_columns),
        blank_rows=raw.blank_rows,
        encoding=raw.encoding,
        delimiter=raw.delimiter,
        tells_errors=raw.tells_errors,
        marked=raw.marked,
        ragged=[
            _Ragged(row_number=number, expected=row.expected, cells=list(row.cells))
            for number, row in raw.ragged.items()
        ],
        headings=list(raw.headings),
        remarks=list(raw.remarks),
        sections=[_Section(base=s.base, sheet=s.sheet, letters=dict(s.letters)) for s in raw.sections],
    )


def _table(found: _Table, file_name: str, frame: pd.DataFrame, other: pd.DataFrame) -> RawTable:
    if set(found.letters) != set(found.columns) or not all(name.isdecimal() for name in other.columns):
        raise GarbledAnswer("its columns and their places do not fit together")
    return RawTable(
        file_name=file_name,
        sheet=found.sheet,
        header_row=found.header_row,
        columns=found.columns,
        letters=found.letters,
        frame=frame,
        titles=tuple(found.titles),
        totals=tuple(TotalsRow(row.row_number, row.cells) for row in found.totals),
        unknown_columns=tuple(found.unknown_columns),
        blank_rows=found.blank_rows,
        encoding=found.encoding,
        delimiter=found.delimiter,
        tells_errors=found.tells_errors,
        marked=found.marked,
        ragged=_ragged(found.ragged),
        headings=tuple(found.headings),
        other=other,
        remarks=tuple(found.remarks),
        sections=tuple(Section(section.base, section.sheet, section.letters) for section in found.sections),
    )


def _ragged(rows: Sequence[_Ragged]) -> Mapping[int, RaggedRow]:
    return {row.row_number: RaggedRow(row.expected, tuple(row.cells)) for row in rows}


def _bounded(answer: Answer) -> Answer:
    """Return the refusal with texts no longer than a person reads; they go into the database and into mails."""
    reasons = [reason[:_LONGEST_TEXT] for reason in answer.reasons[:_MOST_REASONS]]
    return answer.model_copy(
        update={"reasons": reasons, "hint": answer.hint[:_LONGEST_TEXT], "broke": answer.broke[:200]}
    )


def _write_frame(file: IO[bytes], frame: pd.DataFrame) -> int:
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    with ipc.new_stream(pa.PythonFile(file, "w"), table.schema) as stream:
        stream.write_table(table)
    file.write(b"\0" * (-file.tell() % _ALIGNED))
    return file.tell()


def _write_rest(file: IO[bytes], answer: Answer, frame_end: int, other_end: int) -> None:
    rest = answer.model_dump_json().encode()
    file.write(rest)
    file.write(_TRAILER.pack(_MAGIC, frame_end, other_end, other_end + len(rest)))
    file.flush()


def _read_frame(content: pa.Buffer, names: Sequence[str] | None) -> pd.DataFrame:
    """Return the columns as they lie in the buffer, after Arrow has checked every offset and every text in them."""
    with ipc.open_stream(content) as stream:
        table = stream.read_all()
    if names is not None and table.column_names != list(names):
        raise GarbledAnswer("its columns are not the ones it names")
    for field in table.schema:
        wanted = pa.int32() if names is not None and field.name == "row_number" else pa.string()
        if field.type != wanted:
            raise GarbledAnswer(f"column {field.name!r} is {field.type} instead of {wanted}")
    table.validate(full=True)
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame
