"""What data quality looks like to those who mend it: self-contained HTML pages. Pure: text in memory.

A page needs nothing from outside: no script, no font, no picture, no link. Reasons and keys carry no personal values
(they are withheld where a reason is made), so a page may be passed on like a list of numbers.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from tasks.artifacts import money, number

Row = Mapping[str, object]

_STYLE = """
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:72rem;
color:#1c2430;background:#fff}h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
p{margin:.3rem 0;color:#44505f}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0}.tile{border:1px solid #c9ced6;border-radius:.4rem;
padding:.5rem .9rem;min-width:7rem}.tile b{display:block;font-size:1.4rem}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{padding:.35rem .6rem;text-align:left;vertical-align:top;
border-bottom:1px solid #e6e9ee}th{background:#f1f3f6;white-space:nowrap}.n{text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums}.pass{color:#116329}.fail{color:#a40e26}.error{color:#6b3fa0}.warn{color:#7a4d00}
.info{color:#44505f}code{font-size:.85em;word-break:break-word}details summary{cursor:pointer}
svg{display:block}@media(max-width:40rem){table,thead,tbody,tr,td{display:block}thead{display:none}
tr{border:1px solid #c9ced6;border-radius:.4rem;margin:.5rem 0;padding:.3rem}td{border:0;padding:.15rem .4rem}
td::before{content:attr(data-name) ": ";color:#566;font-size:.85em}.n{text-align:left}}
@media print{.scroll{overflow:visible}}
""".replace("\n", "")

_WORDS = {"pass": "● pass", "fail": "▲ fail", "error": "◆ could not be asked"}


@dataclass(frozen=True)
class RulePage:
    """One rule on the engineers' page; ``trend`` are its failing counts, oldest first, None where it was an error."""

    rule_id: str
    table: str
    severity: str
    owner: str
    state: str
    failing: int | None
    rows: int | None
    meaning: str
    error: str | None
    sql: str
    trend: Sequence[int | None] = field(default=())


def engineers_page(as_of: date, rules: Sequence[RulePage]) -> str:
    """Every rule with its counts, its trend and its SQL; what could not be asked stands apart from what failed."""
    states = {state: [rule for rule in rules if rule.state == state] for state in ("error", "fail", "pass")}
    parts = [
        _tiles({_WORDS[state]: number(len(found)) for state, found in states.items()}),
        _rules("Could not be asked", states["error"], "An error is neither green nor red: nobody knows."),
        _rules("Failed", states["fail"], "Each failing record is an incident with an owner."),
        _rules("Passed", states["pass"], ""),
    ]
    return _page("Data quality: rules", f"as of {as_of} · {number(len(rules))} rules", parts)


def owners_page(owner: str, as_of: date, open_rows: Sequence[Row], solved: Sequence[Row]) -> str:
    """What one owner has to mend: new, overdue and solved since the last week, with the money at stake per currency."""
    new = [row for row in open_rows if row["first_seen"] == as_of]
    overdue = [row for row in open_rows if _day(row["due_on"]) < as_of]
    tiles = {
        "open": number(len(open_rows)),
        "new": number(len(new)),
        "overdue": number(len(overdue)),
        "solved this week": number(len(solved)),
    }
    tiles |= {f"{currency} at stake": money(amount, currency)[4:] for currency, amount in at_stake(open_rows).items()}
    others = [row for row in open_rows if row not in overdue]
    parts = [
        _tiles(tiles),
        _incidents("Overdue", overdue),
        _incidents("Open", others),
        _incidents("Solved this week", solved),
    ]
    return _page(f"Data quality: {owner}", f"as of {as_of}", parts)


def at_stake(rows: Sequence[Row]) -> dict[str, Decimal]:
    """The open money that incidents touch, per currency; what several incidents touch is counted once.

    An invoice's money stands under its own key; a customer's balance counts once however many of its rules fail, and
    its single invoices are then not added to it.
    """
    whole: dict[object, Mapping[str, str]] = {}
    single: dict[object, tuple[object, Mapping[str, str]]] = {}
    for row in rows:
        found = row["money"]
        if not isinstance(found, Mapping):
            continue
        if row["table_name"] == "crm.invoices":
            single[row["record_key"]] = (row["customer_number"], found)
        elif row["customer_number"] is not None:
            whole[row["customer_number"]] = found
    kept = [*whole.values(), *(found for customer, found in single.values() if customer not in whole)]
    sums: dict[str, Decimal] = {}
    for found in kept:
        for currency, amount in found.items():
            sums[str(currency)] = sums.get(str(currency), Decimal(0)) + Decimal(str(amount))
    return dict(sorted(sums.items()))


def _day(value: object) -> date:
    return value if isinstance(value, date) else date.max


def _page(title: str, under: str, parts: Sequence[str]) -> str:
    told = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{told}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{told}</h1>\n<p>{html.escape(under)}</p>\n{''.join(parts)}</body>\n</html>\n"
    )


def _tiles(figures: Mapping[str, str]) -> str:
    tiles = (f'<div class="tile"><b>{html.escape(v)}</b>{html.escape(k)}</div>' for k, v in figures.items())
    return f'<div class="tiles">{"".join(tiles)}</div>\n'


def _table(headings: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """A table of cells, each a class and its HTML."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}" data-name="{heading}">{cell}</td>'
            for heading, (kind, cell) in zip(headings, row, strict=True)
        )
        + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'


def _rules(title: str, rules: Sequence[RulePage], under: str) -> str:
    if not rules:
        return ""
    headings = ("rule", "table", "severity", "state", "failing", "of rows", "trend", "owner")
    rows = [
        [
            ("", _explained(rule)),
            ("", html.escape(rule.table)),
            (rule.severity, rule.severity),
            (rule.state, html.escape(rule.error or _WORDS[rule.state])),
            ("n", "–" if rule.failing is None else number(rule.failing)),
            ("n", "–" if rule.rows is None else number(rule.rows)),
            ("", sparkline(rule.trend)),
            ("", html.escape(rule.owner)),
        ]
        for rule in rules
    ]
    told = f"<p>{html.escape(under)}</p>\n" if under else ""
    return f"<h2>{title} ({number(len(rules))})</h2>\n{told}{_table(headings, rows)}"


def _explained(rule: RulePage) -> str:
    return (
        f"<details><summary>{html.escape(rule.rule_id)}</summary>{html.escape(rule.meaning)}"
        f"<br><code>{html.escape(rule.sql)}</code></details>"
    )


def sparkline(values: Sequence[int | None]) -> str:
    """Counts as a small picture of bars that says its figures to whoever cannot see it; a gap is an error."""
    if not values:
        return ""
    highest = max([value for value in values if value is not None], default=0) or 1
    heights = [None if value is None else max(round(18 * value / highest), 1) for value in values]
    bars = "".join(
        f'<rect x="{place * 5}" y="{18 - height}" width="4" height="{height}"/>'
        for place, height in enumerate(heights)
        if height is not None
    )
    said = ", ".join("error" if value is None else str(value) for value in values)
    return (
        f'<svg width="{5 * len(values)}" height="18" role="img" aria-label="{said}" fill="#566">'
        f"<title>{said}</title>{bars}</svg>"
    )


def _incidents(title: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    headings = ("number", "customer", "what is wrong", "due", "since", "times", "money")
    lines = [
        [
            ("n", str(row["incident_id"])),
            ("", html.escape(str(row["customer_number"] or row["record_key"]))),
            (str(row["severity"]), _what(row)),
            ("", str(row["due_on"])),
            ("", f"{row['first_seen']}{' (again)' if row['regressions'] else ''}"),
            ("n", str(row["occurrences"])),
            ("n", html.escape(_money(row["money"]))),
        ]
        for row in rows
    ]  # fmt: skip
    return f"<h2>{title} ({number(len(rows))})</h2>\n{_table(headings, lines)}"


def _what(row: Row) -> str:
    return f"{html.escape(str(row['reason']))}<br><small>{html.escape(str(row['rule_id']))}</small>"


def _money(found: object) -> str:
    if not isinstance(found, Mapping) or not found:
        return "–"
    return ", ".join(money(Decimal(str(amount)), str(currency)) for currency, amount in found.items())
