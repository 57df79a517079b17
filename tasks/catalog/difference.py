"""What a file of the catalogue would change: new, changed field by field, discontinued, quarantined; as a workbook."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import xlsxwriter

MOST_ROWS = 100_000  # of a sheet; a person reads no more, and a spreadsheet opens them
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_CELL_LIMIT = 32_767  # characters in a cell, set by Excel

Row = Mapping[str, Any]


@dataclass
class FileDifference:
    """What one file would change. Every list is ordered by part number or row; ``totals`` counts all of each.

    ``added``: part_number, name and the row's prices. ``changed``: part_number, name, field, old, new, from_day and, of
    prices, percent.
    ``discontinued``: part_number, name. ``quarantined``: row_number, cell, column_name, raw_value, reason.
    """

    sha256: str
    added: Sequence[Row] = ()
    changed: Sequence[Row] = ()
    discontinued: Sequence[Row] = ()
    quarantined: Sequence[Row] = ()
    totals: dict[str, int] = field(default_factory=dict)

    def sheets(self) -> dict[str, Sequence[Row]]:
        """The lists by the names of their sheets."""
        return {
            "New": self.added,
            "Changed": self.changed,
            "Discontinued": self.discontinued,
            "Quarantined": self.quarantined,
        }


def workbook_name(sha256: str) -> str:
    """The name of the workbook that tells what the file of this content would change."""
    return f"catalog_difference_{sha256[:12]}.xlsx"


def as_workbook(difference: FileDifference, *, now: datetime) -> bytes:
    """Return the bytes of an .xlsx: a sheet of totals, and one for each kind of change; ``now`` is its time of making.

    Text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    out = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    book = xlsxwriter.Workbook(out, options)
    book.set_properties({"title": "What the file would change", "created": now.replace(tzinfo=None)})
    told: list[Row] = [{"what": _TOLD[name], "count": count} for name, count in difference.totals.items()]
    shown: list[Row] = [{"what": f"of these, shown on their sheet: {MOST_ROWS:,} at most", "count": None}]
    _write_sheet(book, "Totals", told + (shown if max(difference.totals.values(), default=0) > MOST_ROWS else []))
    for name, rows in difference.sheets().items():
        _write_sheet(book, name, rows[:MOST_ROWS])
    book.close()
    return out.getvalue()


_TOLD = {
    "added": "products that are new",
    "changed": "fields, prices, stocks and packages that change",
    "discontinued": "products that are no longer listed, to be discontinued",
    "quarantined": "reasons for which rows cannot be used",
}
_WIDE = {"name": 40, "reason": 60, "what": 60, "field": 28}


def _write_sheet(book: Any, name: str, rows: Sequence[Row]) -> None:
    sheet = book.add_worksheet(name)
    bold = book.add_format({"bold": True, "bg_color": "#E8ECF2", "bottom": 1})
    day = book.add_format({"num_format": "yyyy-mm-dd"})
    names = list(rows[0]) if rows else []
    for place, heading in enumerate(names):
        sheet.write_string(0, place, heading.replace("_", " "), bold)
        sheet.set_column(place, place, _WIDE.get(heading, 18))
    for line, row in enumerate(rows, start=1):
        for place, heading in enumerate(names):
            _write_cell(sheet, line, place, _number_or_text(row, heading), day)
    sheet.freeze_panes(1, 0)
    if names:
        sheet.autofilter(0, 0, len(rows), len(names) - 1)


def _number_or_text(row: Row, heading: str) -> object:
    """The cell's value; amounts among the old and new values as numbers, so that they can be sorted and added up."""
    value, field_name = row[heading], str(row.get("field", ""))
    is_amount = heading in ("old", "new") and (" price " in field_name or field_name.startswith(("stock", "one ")))
    return Decimal(value) if is_amount and value is not None else value


def _write_cell(sheet: Any, line: int, place: int, value: object, day: Any) -> None:
    if value is None:
        return
    if isinstance(value, int | Decimal):
        sheet.write_number(line, place, value)
    elif isinstance(value, date):
        sheet.write_datetime(line, place, datetime(value.year, value.month, value.day), day)  # noqa: DTZ001 - a day
    else:
        text = str(value)
        sheet.write_string(line, place, (f"'{text}" if text.startswith(_FORMULA_STARTS) else text)[:_CELL_LIMIT])


def shown_rows(difference: FileDifference, most: int = 100) -> list[dict[str, object]]:
    """Return the first changes as rows of a table: what, part_number, field, old, new; rows in quarantine by cell."""
    rows: list[dict[str, object]] = []
    for what, found in difference.sheets().items():
        for row in found[:most]:
            rows.append(
                {
                    "what": what.lower(),
                    "part_number": row.get("part_number") or row.get("cell"),
                    "field": row.get("field") or row.get("column_name"),
                    "old": row.get("old"),
                    "new": row.get("new") or row.get("name"),
                }
            )
    return rows
