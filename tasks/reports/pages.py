"""Self-contained HTML pages: no script, no font, no link, no picture from elsewhere. Pure: text in memory.

On a phone a table's rows become cards with the headings beside the values; a dark screen gets dark pages; printed, the
page is black on white.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from decimal import Decimal

from tasks.artifacts import PAYER_COLOURS, money
from tasks.reports.catalogue import reading_of
from tasks.reports.formats import is_numeric, shown
from tasks.reports.rows import Column, Report, currency_of, totals_by_currency

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#566070;--page:#fff;--head:#f1f3f6;--line:#e1e5ea;--band:#fafbfc;
--green:#116329;--yellow:#7a4d00;--red:#a40e26;--grey:#57606a;--lit-green:#e6f4ea;--lit-yellow:#fdf3d6;
--lit-red:#fde8ea;--lit-grey:#eef0f3}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--page:#14181f;--head:#222832;--line:#2c3440;
--band:#191e26;--green:#6fd18b;--yellow:#e9c46a;--red:#ff8f9c;--grey:#a3adba;--lit-green:#15301d;--lit-yellow:#352a0c;
--lit-red:#3b161b;--lit-grey:#222832}}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif;margin:2rem auto;padding:0 1.5rem;max-width:1500px;
color:var(--ink);background:var(--page)}
h1{font-size:1.45rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.2rem 0 1rem;color:var(--soft)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{padding:.4rem .6rem;text-align:left;vertical-align:top}
th{background:var(--head);border-bottom:2px solid var(--line);font-weight:600;white-space:nowrap}
td{border-bottom:1px solid var(--line);overflow-wrap:break-word}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.d{white-space:nowrap}
tbody tr:nth-child(even) td{background:var(--band)}
tfoot td{font-weight:600;border-top:2px solid var(--line);border-bottom:0}
code{font:13px/1.4 ui-monospace,Menlo,Consolas,monospace;background:var(--lit-grey);padding:.1rem .35rem;
border-radius:4px;white-space:pre-wrap;overflow-wrap:anywhere}
.green,.strict{color:var(--green)}.yellow,.hesitant{color:var(--yellow)}.red,.disloyal{color:var(--red)}
.grey,.unrated{color:var(--grey)}span.green,span.yellow,span.red,span.grey{white-space:nowrap}
.banner{padding:.8rem 1rem;border-radius:8px;margin:0 0 1rem;font-weight:600}
.banner.green{background:var(--lit-green)}.banner.yellow{background:var(--lit-yellow)}
.banner.red{background:var(--lit-red)}.banner.grey{background:var(--lit-grey)}
@media(max-width:700px){body{margin:1rem auto;padding:0 .8rem}thead{display:none}
table,tbody,tfoot,tr,td{display:block;width:100%}
tbody tr,tfoot tr{border:1px solid var(--line);border-radius:8px;margin:0 0 .7rem;padding:.3rem .2rem}
td{display:flex;justify-content:space-between;gap:1rem;border:0;padding:.2rem .6rem;text-align:right;white-space:normal}
tbody tr:nth-child(even) td{background:none}td.none{display:none}
td::before{content:attr(data-label);color:var(--soft);text-align:left;white-space:nowrap;font-weight:400}}
@media print{:root{color-scheme:light}body{margin:0;max-width:none;font-size:11px}.wide{overflow:visible}
tr{break-inside:avoid}thead{display:table-header-group}}
""".replace("\n", "")


def page(title: str, subtitle: str, body: str, *, language: str = "en") -> str:
    """A whole page around ``body``, which is HTML already; ``title`` and ``subtitle`` are text and are escaped."""
    heading = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="{html.escape(language)}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{heading}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{heading}</h1>\n<p>{html.escape(subtitle)}</p>\n"
        f"{body}\n</body>\n</html>\n"
    )


def as_html(report: Report) -> str:
    """A report as one page, in reading order, with the sums per currency below its amounts."""
    day = f"as of {report.as_of}" if report.as_of else "as things stand now"
    size = f"{len(report.rows):,} row{'' if len(report.rows) == 1 else 's'}"
    size += " (more were left out)" if report.more else ""
    column = reading_of(report.name).total
    totals = totals_by_currency(report, column) if column and not report.more else {}
    said = [day, size, *(money(amount, currency) for currency, amount in totals.items())]
    first = reading_of(report.name).columns
    ordered = report.only([*first, *(name for name in report.names if name not in first)])
    return page(reading_of(report.name).title, " · ".join(said), table_of(ordered, totals))


def table_of(report: Report, totals: Mapping[str, Decimal] | None = None) -> str:
    """The rows of a report as an HTML table; ``totals`` per currency stand below the column that they sum."""
    head = "".join(f'<th scope="col"{_class(c)}>{html.escape(heading(c.name))}</th>' for c in report.columns)
    body = "\n".join(_row(report, record) for record in report.records())
    column = reading_of(report.name).total
    foot = _foot(report, column, totals) if column and totals else ""
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n{foot}</table></div>'
        if report.rows
        else "<p>Nothing to show: no row matches.</p>"
    )


def heading(name: str) -> str:
    """A column's name as a person reads it."""
    return name.replace("_", " ")


def _row(report: Report, record: Mapping[str, object]) -> str:
    currency = currency_of(record)
    return f"<tr>{''.join(_cell(column, record[column.name], currency) for column in report.columns)}</tr>"


def _cell(column: Column, value: object, currency: str | None) -> str:
    label = f' data-label="{html.escape(heading(column.name))}"'
    if value is None:
        return f'<td class="none"{label}>–</td>'
    if column.name == "payer_class" and isinstance(value, str) and value in PAYER_COLOURS:
        return f'<td class="{value}"{label}>● {value} ({PAYER_COLOURS[value][1]})</td>'
    if column.name == "colour" and value in ("green", "yellow", "red", "grey"):
        return f'<td class="{value}"{label}>● {value}</td>'
    return f"<td{_class(column)}{label}>{html.escape(shown(column, value, currency))}</td>"


def _class(column: Column) -> str:
    if is_numeric(column):
        return ' class="n"'
    return ' class="d"' if column.kind in ("date", "instant") else ""


def _foot(report: Report, column: str, totals: Mapping[str, Decimal]) -> str:
    """One line per currency: its code under the column of currencies, the sum under the column it sums."""
    lines = []
    for currency, amount in totals.items():
        record = {"currency": currency, column: amount}
        cells = [_foot_cell(item, record.get(item.name), currency) for item in report.columns]
        lines.append(f'<tr class="sum">{"".join(cells)}</tr>')
    return f"<tfoot>\n{chr(10).join(lines)}\n</tfoot>\n"


def _foot_cell(column: Column, value: object, currency: str) -> str:
    return '<td class="none"></td>' if value is None else _cell(column, value, currency)


def definition_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already, under headings that are text."""
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in headings)
    labels = [f' data-label="{html.escape(text)}"' for text in headings]
    lines = ["".join(_marked(cell, label) for cell, label in zip(row, labels, strict=True)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _marked(cell: str, label: str) -> str:
    return f"<td{label}>{cell}</td>" if cell else f'<td class="none"{label}></td>'
