"""Finance's report as an Excel workbook: a summary with native charts, and a sheet with a real table for every list.

Sums on the summary are formulas over the tables, so that whoever doubts one can follow it; the value that Kontor
computed is stored with each, for programs that do not calculate. Text never becomes a formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.reports.finance import BUCKETS, PAYER_ORDER, FinanceReport, Totals, notices, trend_by_currency
from tasks.reports.finance_words import Words
from tasks.reports.formats import is_numeric
from tasks.reports.pages import heading
from tasks.reports.rows import Column, Report
from tasks.reports.workbook import Formats, new_workbook, widen, write_rows

_A4 = 9
_TWO_LINES = 30  # points
_HEAD = {"bold": True, "bg_color": "#E8ECF2", "bottom": 1, "valign": "vcenter", "text_wrap": True}
_FILLS = {
    "strict": {"bg_color": "#D7F0DF", "font_color": "#0B4A1D"},
    "hesitant": {"bg_color": "#FBEFC4", "font_color": "#5E3C00"},
    "disloyal": {"bg_color": "#FBD5D9", "font_color": "#7D0B1D"},
    "unrated": {"bg_color": "#E6E8EB", "font_color": "#434A54"},
}
_STATE_FILLS = {
    "sent": _FILLS["strict"],
    "cancelled": _FILLS["unrated"],
    "held": _FILLS["hesitant"],
    "deferred": _FILLS["hesitant"],
    "unknown": _FILLS["disloyal"],
    "refused": _FILLS["disloyal"],
    "bounced": _FILLS["disloyal"],
}
_BUCKET_COLOURS = ("#009E73", "#F0E442", "#E69F00", "#D55E00", "#7A1F1F")


@dataclass(frozen=True)
class Sheet:
    """A sheet with one table: the report it shows, its title's key among the words, the table's name, the columns."""

    report: str
    title: str
    table: str
    columns: tuple[str, ...] = ()


_ITEMS = (
    "customer_number", "customer_name", "invoice_number", "issued_on", "due_on", "days_overdue", "currency", "amount",
    "open_amount", "payer_class", "disputed", "last_stage", "last_reminded_at", "note",
)  # fmt: skip

SHEETS = (
    Sheet("overdue_invoices", "overdue", "Overdue", _ITEMS),
    Sheet("due_soon", "due_soon", "DueSoon", tuple(name for name in _ITEMS if name != "days_overdue")),
    Sheet("aging", "aging", "Aging", ("customer_number", "customer_name", "currency", *BUCKETS, "total")),
    Sheet("payer_classes", "classes", "PayerClasses", (
        "customer_number", "customer_name", "payer_class", "reason", "valid_from", "rule_id", "rule_version",
    )),
    Sheet("payer_class_changes", "sheet_changes", "ClassChanges", (
        "customer_number", "customer_name", "class_before", "payer_class", "changed_on", "reason", "rule_id",
    )),
    Sheet("reminder_outcomes", "sheet_reminders", "Reminders"),
    Sheet("reminders_withheld", "withheld", "NotReminded"),
    Sheet("tasks_waiting", "tasks", "Tasks"),
    Sheet("quarantine", "sheet_quarantine", "Quarantine", (
        "file_name", "as_of", "row_number", "cell", "raw_value", "reason", "customer_number",
    )),
)  # fmt: skip


def finance_workbook(report: FinanceReport, words: Words, *, now: datetime) -> bytes:
    """The bytes of the workbook; ``now`` is written as the time of making."""
    with new_workbook(words("title", day=report.as_of), now=now) as (out, book):
        formats = Formats(book)
        summary = book.add_worksheet(words("key_figures")[:31])
        for sheet in SHEETS:
            table = report.tables[sheet.report]
            add_table_sheet(book, formats, sheet, table, words)
        _Summary(book, summary, formats, report, words).write()
    return out.getvalue()


# --- a sheet with a table ---------------------------------------------------------------------------------------------


def add_table_sheet(book: Any, formats: Formats, sheet: Sheet, report: Report, words: Words) -> Any:
    """A sheet with the report's rows as a real table: filters, bands, frozen header, colours, ready to print."""
    shown = report.only(sheet.columns) if sheet.columns else report
    page = book.add_worksheet(sheet_name(words(sheet.title)))
    _print_setup(page, words(sheet.title))
    if not shown.rows:
        page.write_string(0, 0, words("no_rows"))
        return page
    last_line, last_place = len(shown.rows), len(shown.columns) - 1
    columns = [{"header": heading(column.name), "header_format": _head(formats, column)} for column in shown.columns]
    page.add_table(
        0, 0, last_line, last_place, {"name": sheet.table, "style": "Table Style Light 1", "columns": columns}
    )
    write_rows(formats, page, shown)
    widen(page, shown, room=5)  # the filter's arrow stands beside the heading
    page.freeze_panes(1, min(2, len(shown.columns)))
    page.repeat_rows(0)
    _colour(page, formats, shown)
    if report.more:
        told = words("more_rows", rows=last_line, report=report.name.replace("_", "-"))
        page.write_string(last_line + 2, 0, told, formats.styled(font_color="#566070"))
    return page


def _head(formats: Formats, column: Column) -> Any:
    """A heading stands where the cells below it stand."""
    return formats.styled(**dict(_HEAD, align="right") if is_numeric(column) else _HEAD)


def sheet_name(title: str) -> str:
    """A title as a sheet may be called: without the signs that Excel refuses, at most 31 long."""
    return "".join(" " if sign in "[]:*?/\\" else sign for sign in title).strip("' ")[:31]


def _colour(page: Any, formats: Formats, report: Report) -> None:
    """Colours that follow the cells: payer classes and states by their word, days overdue by their length."""
    for place, column in enumerate(report.columns):
        area = (1, place, len(report.rows), place)
        if column.name in ("payer_class", "class_before"):
            _fill_words(page, formats, area, _FILLS)
        elif column.name == "state":
            _fill_words(page, formats, area, _STATE_FILLS)
        elif column.name == "days_overdue":
            page.conditional_format(*area, {"type": "data_bar", "bar_color": "#F6D9A0", "bar_solid": True})
        elif column.name in ("days_61_90", "days_over_90"):
            rule = {"type": "cell", "criteria": ">", "value": 0, "format": formats.styled(**_FILLS["disloyal"])}
            page.conditional_format(*area, rule)


def _fill_words(
    page: Any, formats: Formats, area: tuple[int, int, int, int], fills: Mapping[str, Mapping[str, object]]
) -> None:
    for word, fill in fills.items():
        rule = {"type": "cell", "criteria": "==", "value": f'"{word}"', "format": formats.styled(**fill)}
        page.conditional_format(*area, rule)


def _print_setup(page: Any, title: str) -> None:
    page.set_landscape()
    page.set_paper(_A4)
    page.set_margins(left=0.5, right=0.5, top=0.8, bottom=0.7)
    page.fit_to_pages(1, 0)
    page.set_header(f"&L&B{title.replace('&', '&&')}")
    page.set_footer("&L&D&R&P / &N")


# --- the summary ------------------------------------------------------------------------------------------------------


class _Summary:
    """Writes the first sheet from top to bottom; ``line`` is where the next thing goes."""

    def __init__(self, book: Any, page: Any, formats: Formats, report: FinanceReport, words: Words) -> None:
        self.book, self.page, self.formats, self.report, self.words = book, page, formats, report, words
        self.name = sheet_name(words("key_figures"))
        self.line = 0

    def write(self) -> None:
        """Title, what must not be overlooked, the figures, and the charts beside them."""
        self.page.set_column(0, 0, 26)
        self.page.set_column(1, 8, 15)
        self.page.hide_gridlines(2)
        _print_setup(self.page, self.words("title", day=self.report.as_of))
        self._text(self.words("title", day=self.report.as_of), bold=True, font_size=16)
        self._text(self.words("compared", day=self.report.before.day), font_color="#566070")
        for item in notices(self.report):
            self._text(self.words(item.key, **item.values), font_color="#A40E26" if item.colour == "red" else "#7A4D00")
        self.line += 1
        self._figures()
        self._aging()
        self._dso()
        self._trend()
        self._classes()
        self._note(self.words("footer"))

    def _text(self, text: str, **style: object) -> None:
        self.page.write_string(self.line, 0, text, self.formats.styled(**style))
        self.line += 1

    def _note(self, text: str) -> None:
        style = self.formats.styled(font_color="#566070", font_size=8, text_wrap=True, valign="top")
        self.page.set_row(self.line, _TWO_LINES)
        self.page.merge_range(self.line, 0, self.line, 7, text, style)
        self.line += 1

    def _header(self, title: str, keys: Sequence[str]) -> int:
        """Write a part's title and headings; returns the line of the first row."""
        self._text(title, bold=True, font_size=12)
        self.page.set_row(self.line, _TWO_LINES)
        for place, text in enumerate(keys):
            style = dict(_HEAD, align="right") if place else _HEAD
            self.page.write_string(self.line, place, text, self.formats.styled(**style))
        self.line += 1
        return self.line

    def _said(self, *keys: str) -> list[str]:
        return [self.words(key) for key in keys]

    def _figures(self) -> None:
        headings = ("currency", "open", "overdue", "before", "newly_overdue", "due_soon", "disputed", "credit")
        first = self._header(self.words("key_figures"), self._said(*headings))
        for code in self.report.currencies:
            now, before = (day.totals.get(code, Totals(code)) for day in (self.report.now, self.report.before))
            self.page.write_string(self.line, 0, code)
            self._sum(1, "Aging", "total", code, now.open_amount)
            self._sum(2, "Overdue", "open amount", code, now.overdue_amount)
            self._money(3, before.overdue_amount, code)
            self._money(4, now.newly_overdue_amount, code)
            self._sum(5, "DueSoon", "open amount", code, now.due_soon_amount)
            self._money(6, now.disputed_amount, code)
            self._money(7, now.credit_amount, code)
            self.line += 1
        if self.line > first:
            self.page.conditional_format(first, 2, self.line - 1, 2, _grew(self.formats, first))
        self.line += 1

    def _money(self, place: int, amount: Any, code: str) -> None:
        self.page.write_number(self.line, place, amount, self.formats.money(code))

    def _sum(self, place: int, table: str, column: str, code: str, amount: Any) -> None:
        """A sum over a table's rows of one currency; the number alone where no table has all of them."""
        sheet = next(item for item in SHEETS if item.table == table)
        if not self.report.tables[sheet.report].rows or self.report.tables[sheet.report].more:
            self._money(place, amount, code)
            return
        formula = f'=SUMIFS({table}[{column}],{table}[currency],"{code}")'
        self.page.write_formula(self.line, place, formula, self.formats.money(code), float(amount))

    def _aging(self) -> None:
        first = self._header(self.words("aging"), self._said("currency", *BUCKETS, "total"))
        for code, now in sorted(self.report.now.totals.items()):
            self.page.write_string(self.line, 0, code)
            for place, bucket in enumerate(BUCKETS, start=1):
                self._sum(place, "Aging", heading(bucket), code, now.bucket(bucket))
            self._sum(6, "Aging", "total", code, now.open_amount)
            self.line += 1
        if self.line > first:
            self._aging_chart(first, self.line - 1)
        self.line += 1

    def _aging_chart(self, first: int, last: int) -> None:
        chart = self.book.add_chart({"type": "bar", "subtype": "percent_stacked"})
        for at, bucket in enumerate(BUCKETS, start=1):
            chart.add_series(
                {
                    "name": self.words(bucket),
                    "categories": [self.name, first, 0, last, 0],
                    "values": [self.name, first, at, last, at],
                    "fill": {"color": _BUCKET_COLOURS[at - 1]},
                    "gap": 60,
                }
            )
        chart.set_title({"name": self.words("aging_picture"), "name_font": {"size": 10, "bold": False}})
        chart.set_y_axis({"reverse": True})
        chart.set_x_axis({"num_format": "0%", "major_gridlines": {"visible": True, "line": {"color": "#E1E5EA"}}})
        chart.set_legend({"position": "bottom"})
        chart.set_size({"width": 560, "height": 300})
        self.page.insert_chart(3, 9, chart, {"object_position": 1})

    def _dso(self) -> None:
        period = max((item.period_days for item in self.report.now.dso.values()), default=90)
        keys = self._said("currency", "dso_short", "before", "dso_best", "dso_late")
        self._header(self.words("dso"), [*keys, self.words("sales_90", days=period)])
        days = self.formats.number("#,##0.0")
        for code, now in sorted(self.report.now.dso.items()):
            before = self.report.before.dso.get(code)
            self.page.write_string(self.line, 0, code)
            figures = (now.dso, before.dso if before else None, now.best_possible_dso, now.average_days_delinquent)
            for place, figure in enumerate(figures, start=1):
                if figure is not None:
                    self.page.write_number(self.line, place, figure, days)
            self._money(5, now.sales, code)
            self.line += 1
        self._note(self.words("dso_meaning", days=period))
        self.line += 1

    def _trend(self) -> None:
        lines = trend_by_currency(self.report.trend)
        if not lines:
            return
        days = [point.day for point in next(iter(lines.values()))]
        headings = [self.words("currency"), *(f"{day:%d.%m.%y}" for day in days)]
        first = self._header(self.words("trend_picture", weeks=len(days)), headings)
        for code, points in lines.items():
            self.page.write_string(self.line, 0, code)
            for place, point in enumerate(points, start=1):
                self._money(place, point.overdue_amount, code)
            self.line += 1
        self._trend_charts(list(lines), first, len(days))
        self.line += 1

    def _trend_charts(self, currencies: Sequence[str], first: int, days: int) -> None:
        """A line chart per currency: two currencies on one axis would compare what cannot be compared."""
        for at, code in enumerate(currencies):
            chart = self.book.add_chart({"type": "line"})
            chart.add_series(
                {
                    "name": code,
                    "categories": [self.name, first - 1, 1, first - 1, days],
                    "values": [self.name, first + at, 1, first + at, days],
                    "line": {"color": "#0072B2", "width": 2},
                    "marker": {"type": "circle", "size": 4, "fill": {"color": "#0072B2"}},
                }
            )
            chart.set_title({"name": f"{self.words('overdue')}, {code}", "name_font": {"size": 10, "bold": False}})
            chart.set_legend({"none": True})
            chart.set_y_axis({"min": 0, "num_format": "#,##0", "major_gridlines": {"visible": False}})
            chart.set_size({"width": 280, "height": 170})
            row, place = divmod(at, 2)
            options = {"object_position": 1, "x_offset": place * 285, "y_offset": 310 + row * 175}
            self.page.insert_chart(3, 9, chart, options)

    def _classes(self) -> None:
        first = self._header(self.words("classes"), self._said("payer_class", "customers", "before"))
        for name in PAYER_ORDER:
            self.page.write_string(self.line, 0, self.words(name), self.formats.styled(**_FILLS[name]))
            self.page.write_number(self.line, 1, self.report.now.classes.get(name, 0))
            self.page.write_number(self.line, 2, self.report.before.classes.get(name, 0))
            self.line += 1
        bars = {"type": "data_bar", "bar_color": "#B9D6EA", "bar_solid": True}
        self.page.conditional_format(first, 1, self.line - 1, 1, bars)
        self.line += 1


def _grew(formats: Formats, first: int) -> dict[str, object]:
    """Overdue in red where it is more than it was; the column beside it has what it was."""
    return {
        "type": "formula",
        "criteria": f"=$C{first + 1}>$D{first + 1}",
        "format": formats.styled(font_color="#A40E26", bold=True),
    }
