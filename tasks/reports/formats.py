"""A report as CSV, JSON or one self-contained HTML page. Pure: text in memory, nothing read, nothing written."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal

from tasks.artifacts import PAYER_COLOURS, cell_text, money
from tasks.reports.catalogue import reading_of
from tasks.reports.rows import Column, Report, currency_of, json_rows, json_value, printable, totals_by_currency

# A spreadsheet takes a cell that begins so for a formula, also when it opens a CSV file.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def harmless(text: str) -> str:
    """The text with an apostrophe in front where a spreadsheet would otherwise run it as a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def as_json(report: Report) -> str:
    """One array of objects whose keys are the view's columns; money as text, dates ISO 8601."""
    return json.dumps(json_rows(report), ensure_ascii=False, indent=2) + "\n"


def as_csv(report: Report) -> str:
    """Comma-separated text with a header; text cells that a spreadsheet would run are neutralised, numbers are not."""
    lines = [_csv_line(report.names)]
    for record in report.records():
        currency = currency_of(record)
        lines.append(_csv_line([_csv_cell(value, currency) for value in record.values()]))
    return "".join(lines)


def _csv_line(cells: Sequence[object]) -> str:
    """One record; a carriage return inside a cell is quoted only while the line's end holds one too."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return f"{out.getvalue()[:-2]}\n"


def _csv_cell(value: object, currency: str | None) -> object:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return harmless(value)
        case dict() | list():
            return harmless(json.dumps(json_value(value), ensure_ascii=False))
        case _:
            return json_value(value, currency)


def shown(column: Column, value: object, currency: str | None) -> str:
    """A cell as a person reads it, on one line: money with separators, dates ISO, a dash for nothing."""
    if isinstance(value, Decimal):
        return money(value, currency or "XXX")[4:]
    if isinstance(value, dict | list):
        return printable(json.dumps(json_value(value), ensure_ascii=False))
    if column.kind == "instant" and value is not None:
        return f"{cell_text(value)[:16]}Z"  # to the minute, in UTC
    if isinstance(value, int) and not isinstance(value, bool) and column.name.endswith("_id"):
        return str(value)
    return printable(cell_text(value))


def is_numeric(column: Column) -> bool:
    """Whether the column's cells stand at the right."""
    return column.kind in ("money", "integer")


_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#1c2430;background:#fff}
h1{font-size:1.4rem;margin:0 0 .2rem}p{margin:.2rem 0 1rem;color:#566}
table{border-collapse:collapse;width:100%}th,td{padding:.35rem .6rem;text-align:left;vertical-align:top}
th{position:sticky;top:0;background:#f1f3f6;border-bottom:2px solid #c9ced6}td{border-bottom:1px solid #e6e9ee}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr:nth-child(even) td{background:#fafbfc}tfoot td{font-weight:600;border-top:2px solid #c9ced6;background:#fff}
.strict{color:#116329}.hesitant{color:#7a4d00}.disloyal{color:#a40e26}.unrated{color:#57606a}
@media print{body{margin:0}th{position:static}}
""".replace("\n", "")


def as_html(report: Report) -> str:
    """One page that needs nothing from outside: no script, no font, no picture, no link."""
    title = html.escape(reading_of(report.name).title)
    day = f"as of {report.as_of}" if report.as_of else "as things stand now"
    size = f"{len(report.rows):,} row{'' if len(report.rows) == 1 else 's'}"
    size += " (more were left out)" if report.more else ""
    head = "".join(f'<th scope="col"{_class(c)}>{html.escape(_heading(c))}</th>' for c in report.columns)
    body = "\n".join(_html_row(report, record) for record in report.records())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n<style>{_STYLE}</style>\n'
        f"</head>\n<body>\n<h1>{title}</h1>\n<p>{day} · {size}{_html_totals(report)}</p>\n"
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</body>\n</html>\n"
    )


def _html_row(report: Report, record: Mapping[str, object]) -> str:
    currency = currency_of(record)
    cells = [_html_cell(column, record[column.name], currency) for column in report.columns]
    return f"<tr>{''.join(cells)}</tr>"


def _html_cell(column: Column, value: object, currency: str | None) -> str:
    if column.name == "payer_class" and isinstance(value, str) and value in PAYER_COLOURS:
        return f'<td class="{value}">● {value} ({PAYER_COLOURS[value][1]})</td>'
    return f"<td{_class(column)}>{html.escape(shown(column, value, currency))}</td>"


def _class(column: Column) -> str:
    return ' class="n"' if is_numeric(column) else ""


def _heading(column: Column) -> str:
    return column.name.replace("_", " ")


def _html_totals(report: Report) -> str:
    column = reading_of(report.name).total
    totals = totals_by_currency(report, column) if column else {}
    return "".join(f" · {html.escape(money(amount, currency))}" for currency, amount in totals.items())
