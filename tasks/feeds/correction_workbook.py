"""The workbook in which a person corrects quarantined rows: written for them, and read back with the usual care.

One sheet holds a line per row. What may change is open, everything else is locked (without a password: it guards
against slips, not against people). Every cell is text with the mark that a spreadsheet program puts in front of typed
text, so a value that begins with ``=`` or ``+`` is neither a formula nor changed by being looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import xlsxwriter
from xlsxwriter.utility import xl_col_to_name

from tasks.errors import FileRefused
from tasks.feeds.cells import shown
from tasks.feeds.code_lists import codes_of
from tasks.feeds.contracts import AsOfRule, Column, Dialect, FeedContract
from tasks.feeds.corrections import (
    REJECT,
    HeldRow,
    ReturnedRow,
    file_columns,
    open_columns,
    reasons_by_column,
    shown_cells,
)
from tasks.feeds.folding import fold
from tasks.feeds.raw_table import RawTable

SHEET = "Corrections"
LISTS = "Lists"
ROW_ID = "Kontor row id"
DECISION = "Kontor decision"
DECISION_REASON = "Why it is rejected"
WHY = "Why not: "
_TITLE_ROW, _HEADER_ROW = 0, 1
_LONGEST_CELL = 32_767
_YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Words:
    """What the sheet says around the cells: its title (``{rows}`` of them), four headings in front, explanations."""

    title: str
    leading: tuple[str, str, str, str]
    explanations: tuple[str, ...]


OF_FILES = Words(
    title="{rows} rows to correct: change the yellow cells, or reject a row with a reason; then save.",
    leading=("File", "As of", "Row in file", "What is wrong with the row"),
    explanations=(
        "A yellow cell with a thick frame cannot be used as it is; the column beside it says why.",
        "A pale yellow cell may be changed too, because the failed rule compares it. Grey cells are locked.",
        f"To give a row up for good, choose '{REJECT}' as the decision and write the reason beside it.",
        "Columns may be moved and rows deleted: a row that is not in the workbook stays in quarantine as it is.",
        "Rows must not be added, and the hidden first column must stay: it says which row a line is.",
        "Save the workbook and give it back: kontor quarantine replay FILE.",
        "What still cannot be used comes back in a new workbook with its new reason.",
    ),
)
OF_RECORDS = Words(
    title="{rows} records to mend: change the yellow cells, or let a record stand with a reason; then save.",
    leading=("Incident", "Open since", "Record", "What is wrong with the record"),
    explanations=(
        "A yellow cell with a thick frame is missing or wrong; the column beside it says what. Grey cells are locked.",
        f"To let a record stand as it is for now, choose '{REJECT}' as the decision and write the reason beside it.",
        "Columns may be moved and rows deleted: a record that is not in the workbook stays as it is.",
        "Rows must not be added, and the hidden first column must stay: it says which record a line is.",
        "Save the workbook and give it back: kontor quality replay FILE.",
        "Mend it in the customer list too: the next list that says otherwise brings the old value back.",
        "What cannot be changed here, such as what accounting says of an invoice, stands in 'Mended elsewhere'.",
    ),
)


@dataclass(frozen=True)
class HandedOut:
    """A row with the contract it is read by."""

    row: HeldRow
    contract: FeedContract


def heading_of(column: str) -> str:
    """The heading of a canonical column: ``invoice_number`` is "Invoice number"."""
    return column.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Aside:
    """A sheet beside the corrections that is there to be read: its name, headings and lines."""

    name: str
    headings: tuple[str, ...]
    lines: Sequence[Sequence[str]]


def write_corrections(
    rows: Sequence[HandedOut], path: Path, words: Words = OF_FILES, aside: Aside | None = None
) -> None:
    """Write the workbook for these rows, with what is said around them; replaces an existing file in one move."""
    partial = path.with_name(f".{path.stem}.part.xlsx")
    with xlsxwriter.Workbook(str(partial), {"strings_to_formulas": False, "strings_to_urls": False}) as workbook:
        workbook.set_properties({"title": "Corrections of quarantined rows"})
        _Sheet(workbook, rows, words).write()
        if aside is not None and aside.lines:
            _put_aside(workbook, aside)
        _explain(workbook, words)
    partial.chmod(0o600)
    partial.replace(path)


class _Sheet:
    """The sheet to fill in: its formats, its columns and where each stands."""

    def __init__(self, workbook: Any, rows: Sequence[HandedOut], words: Words) -> None:
        self.rows, self.words = rows, words
        self.sheet = workbook.add_worksheet(SHEET)
        self.lists = _Lists(workbook)
        self.formats = _formats(workbook)
        self.columns = _columns(rows)
        blamed = {name for item in rows for name in reasons_by_column(item.row)}
        self.headings: list[str] = [ROW_ID, *words.leading]
        for name in self.columns:
            self.headings += [heading_of(name), WHY + heading_of(name)] if name in blamed else [heading_of(name)]
        self.headings += [DECISION, DECISION_REASON]
        self.place = {heading: at for at, heading in enumerate(self.headings)}

    def write(self) -> None:
        self._text(
            _TITLE_ROW,
            1,
            self.words.title.format(rows=len(self.rows)),
            "title",
        )
        for at, heading in enumerate(self.headings):
            self._text(_HEADER_ROW, at, heading, "heading")
            self.sheet.set_column(at, at, 34 if heading.startswith(("Why", "What")) else max(14, len(heading) + 2))
        self.sheet.set_column(0, 0, None, None, {"hidden": True})
        for number, item in enumerate(self.rows, start=_HEADER_ROW + 1):
            self._write_row(number, item)
        self.sheet.freeze_panes(_HEADER_ROW + 1, 0)
        self.sheet.protect("", {"format_columns": True, "format_rows": True, "autofilter": True})

    def _write_row(self, number: int, item: HandedOut) -> None:
        row, cells = item.row, shown_cells(item.row, item.contract)
        may, why = open_columns(row, item.contract), reasons_by_column(row)
        leading = (row.token, row.file_name, row.as_of.isoformat(), str(row.row_number), why.get(None, ""))
        for at, text in enumerate(leading):
            self._text(number, at, text, "why" if at == len(leading) - 1 and text else "locked")
        for name in self.columns:
            at = self.place[heading_of(name)]
            fits = len(cells.get(name, "")) <= _LONGEST_CELL
            kind = "locked" if name not in may or not fits else "wrong" if name in why or None in why else "open"
            self._text(number, at, cells.get(name, "")[:_LONGEST_CELL], kind)
            if name in why:
                self._text(number, at + 1, why[name], "why")
            if kind != "locked":
                self._offer(number, at, item.contract.column(name))
        self._text(number, self.place[DECISION], "", "open")
        self._text(number, self.place[DECISION_REASON], "", "open")
        self.sheet.data_validation(number, self.place[DECISION], number, self.place[DECISION], _list_rule([REJECT]))

    def _text(self, row: int, at: int, text: str, kind: str) -> None:
        if text:
            self.sheet.write_string(row, at, text, self.formats[kind])
        else:
            self.sheet.write_blank(row, at, None, self.formats[kind])

    def _offer(self, row: int, at: int, column: Column) -> None:
        source = self.lists.source_for(column)
        if source is not None:
            self.sheet.data_validation(row, at, row, at, _list_rule(source))


class _Lists:
    """The hidden sheet with the allowed values: a drop-down written out may hold 255 characters only."""

    def __init__(self, workbook: Any) -> None:
        self._workbook = workbook
        self._sheet: Any = None
        self._known: dict[tuple[str, ...], str] = {}

    def source_for(self, column: Column) -> str | None:
        """The range of the column's allowed values; None where anything may stand."""
        values = _choices(column)
        if not values:
            return None
        if values not in self._known:
            self._known[values] = self._write(values)
        return self._known[values]

    def _write(self, values: Sequence[str]) -> str:
        if self._sheet is None:
            self._sheet = self._workbook.add_worksheet(LISTS)
            self._sheet.hide()
        at = len(self._known)
        for row, value in enumerate(values):
            self._sheet.write_string(row, at, value)
        letter = xl_col_to_name(at)
        return f"={LISTS}!${letter}$1:${letter}${len(values)}"


def _choices(column: Column) -> tuple[str, ...]:
    if column.kind == "boolean":
        return _YES_NO
    if column.separators:  # several values in one cell: a drop-down could give one only
        return ()
    return column.allowed or tuple(sorted(codes_of(column.code_list)) if column.code_list else ())


def _list_rule(source: Sequence[str] | str) -> dict[str, Any]:
    return {
        "validate": "list",
        "source": source,
        # Other spellings of an allowed value are read too, so the program warns and does not forbid.
        "error_type": "warning",
        "error_title": "Not in the list",
        "error_message": "This value is not in the list; it may be refused when the workbook comes back.",
    }


def _columns(rows: Sequence[HandedOut]) -> list[str]:
    names: dict[str, None] = {}
    for item in rows:
        names |= dict.fromkeys(column.name for column in file_columns(item.row, item.contract))
    return list(names)


def _formats(workbook: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"num_format": "@", "quote_prefix": True, "valign": "top"}
    return {
        "title": workbook.add_format({"bold": True}),
        "heading": workbook.add_format({"bold": True, "bg_color": "#DDEBF7", "bottom": 1, "text_wrap": True}),
        "locked": workbook.add_format({**base, "font_color": "#595959", "bg_color": "#F2F2F2"}),
        "open": workbook.add_format({**base, "locked": False, "bg_color": "#FFFBE6", "border": 1}),
        "wrong": workbook.add_format({**base, "locked": False, "bg_color": "#FFE699", "border": 2, "bold": True}),
        "why": workbook.add_format({**base, "font_color": "#9C0006", "text_wrap": True}),
    }


def _put_aside(workbook: Any, aside: Aside) -> None:
    sheet, formats = workbook.add_worksheet(aside.name), _formats(workbook)
    for number, line in enumerate((aside.headings, *aside.lines)):
        for at, text in enumerate(line):
            sheet.write_string(number, at, text[:_LONGEST_CELL], formats["locked" if number else "heading"])
    sheet.set_column(0, len(aside.headings) - 1, 24)
    sheet.autofilter(0, 0, len(aside.lines), len(aside.headings) - 1)
    sheet.freeze_panes(1, 0)
    sheet.protect("", {"format_columns": True, "autofilter": True})


def _explain(workbook: Any, words: Words) -> None:
    sheet = workbook.add_worksheet("Explanations")
    sheet.set_column(0, 0, 110, workbook.add_format({"text_wrap": True, "valign": "top"}))
    for number, line in enumerate(words.explanations):
        sheet.write_string(number, 0, line)
    sheet.protect()


# --- coming back ------------------------------------------------------------------------------------------------------


def returned_contract() -> FeedContract:
    """What a returned workbook must look like for the reader: the three columns of ours; the others are looked up."""
    ours = (("row_id", ROW_ID), ("decision", DECISION), ("decision_reason", DECISION_REASON))
    return FeedContract(
        name="corrections",
        version="1.0.0",
        feed="corrections",
        source="corrections",
        mode="records",
        columns=tuple(Column(name, "text", heading, heading_required=name == "row_id") for name, heading in ours),
        key=("row_id",),
        dialect=Dialect(decimal="."),
        as_of=AsOfRule(),
        file_patterns=(),
        checks=(),
        missing_customer="quarantine",
        duplicate_rows="quarantine",
        negative_is_credit_note=False,
        sha256="",
        owner="",
        description="",
        path="",
    )


def returned_rows(raw: RawTable) -> list[ReturnedRow]:
    """The lines of a returned workbook, with their cells by canonical column; columns may stand in any order.

    Raises:
        FileRefused: two columns carry the same heading, so nobody knows which one counts.
    """
    places = _places(raw)
    ours = {name: _texts(raw.frame[name]) if name in raw.columns else None for name in _OURS}
    cells = {name: _texts(raw.other[place]) for name, place in places.items()}
    lines = raw.frame["row_number"].tolist()
    found = []
    for at, line in enumerate(lines):
        token, decision, reason = ((ours[name] or [""] * len(lines))[at] for name in _OURS)
        given = {name: texts[at] for name, texts in cells.items()}
        if shown(token).strip() or shown(decision).strip() or any(shown(text).strip() for text in given.values()):
            found.append(ReturnedRow(int(line), shown(token), decision, reason, given))
    return found


_OURS = ("row_id", "decision", "decision_reason")


def _places(raw: RawTable) -> dict[str, str]:
    """The position of each column that is not ours, by the name that its heading means."""
    found: dict[str, str] = {}
    apart = {fold(heading) for words in (OF_FILES, OF_RECORDS) for heading in words.leading}
    for place in raw.other.columns:
        heading = raw.headings[int(place)]
        if not heading or fold(heading) in apart or heading.startswith(WHY.strip()):
            continue
        name = heading.casefold().replace(" ", "_")
        if name in found:
            raise FileRefused(
                raw.file_name, [f"two columns are called {heading!r}"], hint="Delete the one that is not meant."
            )
        found[name] = str(place)
    return found


def _texts(series: Any) -> list[str]:
    return [text or "" for text in series.tolist()]


def remaining_path(workbook: Path, day: date) -> Path:
    """Where the rows that still cannot be used are put: beside the workbook they came in."""
    stem = workbook.stem.split("_remaining_")[0]
    return workbook.with_name(f"{stem}_remaining_{day.isoformat()}.xlsx")
