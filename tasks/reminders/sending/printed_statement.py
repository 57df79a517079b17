"""A statement as PDF: every open item of the digest on A4, with a total per currency.

Drawn by matplotlib, which is here for the charts of reports anyway; its own font has Latin and Cyrillic letters, and is
embedded so that the text can be searched and copied. Nothing in a number or name is read as a formula.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from babel.dates import format_date
from babel.numbers import format_currency

from tasks.letters import one_line
from tasks.reminders.sending.gate import OpenItem
from tasks.reminders.sending.statement import totals
from tasks.reminders.sending.templates import Words

ROWS_A_PAGE = 48
_A4 = (8.27, 11.69)  # inches
_TOP, _LINE = 0.86, 0.0162  # shares of the page's height
# Where each column stands, as a share of the width, and to which side it is aligned.
_COLUMNS = ((0.07, "left"), (0.36, "left"), (0.48, "left"), (0.685, "right"), (0.81, "right"), (0.94, "right"))
_SMALL, _LARGE = 7.5, 13.0


def printed_statement(items: Sequence[OpenItem], words: Words, day: date, heading: Sequence[str]) -> bytes:
    """The PDF as bytes; ``heading`` are lines at its top. The same items on the same day give the same bytes.

    Columns: number, issued, due, days overdue, amount, open; dates and sums as the language writes them.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it tells of every font that it cuts down
    lines = [_line(item, words, day) for item in items]
    pages = [lines[place : place + ROWS_A_PAGE] for place in range(0, len(lines), ROWS_A_PAGE)] or [[]]
    stream = io.BytesIO()
    created = datetime(day.year, day.month, day.day)  # noqa: DTZ001  a day, not an instant
    # 42: letters stay letters and can be searched; the form that is drawn by default cannot.
    with rc_context({"pdf.fonttype": 42, "font.family": "DejaVu Sans"}):
        told = {"CreationDate": created, "Title": words.sheet, "Producer": "Kontor", "Creator": "Kontor"}
        with PdfPages(stream, metadata=told) as book:
            for number, rows in enumerate(pages, start=1):
                figure = _page(rows, words, day, heading, f"{number}/{len(pages)}")
                if number == len(pages):
                    _draw_totals(figure, items, words, len(rows))
                book.savefig(figure)
    return stream.getvalue()


def _page(rows: Sequence[Sequence[str]], words: Words, day: date, heading: Sequence[str], number: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_A4)
    _write(figure, 0.07, 0.945, f"{words.sheet} · {_day(day, words)}", size=_LARGE, weight="bold")
    _write(figure, 0.07, 0.92, "\n".join(heading), top=True)
    _write(figure, 0.94, 0.03, number, side="right")
    names = (words.document, words.issued, words.due, words.overdue_by, words.amount, words.open)
    for (at, side), name, cells in zip(_COLUMNS, names, zip(*rows, strict=True) if rows else [()] * 6, strict=True):
        _write(figure, at, _TOP + 0.008, name, side=side, weight="bold")
        for place, cell in enumerate(cells):
            _write(figure, at, _TOP - _LINE * (place + 1), cell, side=side)
    return figure


def _draw_totals(figure: Any, items: Sequence[OpenItem], words: Words, rows: int) -> None:
    """A total per currency, under one another, below the last row."""
    for place, (currency, amount) in enumerate(totals(items), start=rows + 2):
        height = _TOP - _LINE * place
        _write(figure, _COLUMNS[0][0], height, words.total, weight="bold")
        shown = str(format_currency(amount, currency, locale=words.locale))
        _write(figure, _COLUMNS[-1][0], height, shown, side="right", weight="bold")


def _write(
    figure: Any,
    x: float,
    y: float,
    shown: str,
    *,
    side: str = "left",
    top: bool = False,
    size: float = _SMALL,
    **more: Any,
) -> None:
    """Text as it is: a dollar sign or a backslash opens no formula."""
    figure.text(x, y, shown, ha=side, va="top" if top else "baseline", size=size, parse_math=False, **more)


def _line(item: OpenItem, words: Words, day: date) -> tuple[str, ...]:
    late = item.due_on < day and item.open_amount > 0
    return (
        one_line(item.invoice_number, 34),
        _day(item.issued_on, words) if item.issued_on else "",
        _day(item.due_on, words),
        words.count("days", (day - item.due_on).days) if late else "",
        str(format_currency(item.amount, item.currency, locale=words.locale)),
        str(format_currency(item.open_amount, item.currency, locale=words.locale)),
    )


def _day(day: date, words: Words) -> str:
    return str(format_date(day, "medium", locale=words.locale))
