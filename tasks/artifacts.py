"""Text for Prefect's artifacts and for terminals: Markdown, counts, money, payer colours. Pure.

Everything that comes from data is escaped, so that a name with a pipe or a tag in it stays a name. Artifacts are
stored in clear by Prefect and seen by whoever opens its pages: they carry ids, counts, dates and sums, never a
person; ``without_personal_data`` is the last line of defence, not a licence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum

from babel.numbers import format_currency, format_decimal, get_currency_precision

from tasks.errors import UsageError

NOTHING = "–"

# Colour is never alone: the word stands beside it, for those who cannot tell red from green.
PAYER_COLOURS: Mapping[str, tuple[str, str]] = {
    "strict": ("🟢", "green"),
    "hesitant": ("🟡", "yellow"),
    "disloyal": ("🔴", "red"),
    "unrated": ("⚪", "grey"),
}

_KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MARKDOWN = re.compile(r"([\\`*_\[\]|~])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# The local part is bounded as RFC 5321 bounds it, which also keeps the search linear on long lines without an "@".
_ADDRESS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]+(?:\.[\w-]+)*")
# PostgreSQL names the offending values after these words; what follows on the line is data.
_DATABASE_DETAIL = re.compile(r"(DETAIL:|CONTEXT:|Failing row contains|Key \([^)\n]*\)=)[^\n]*")
_STATEMENT_VALUES = re.compile(r"\[parameters: [^\n]*")


def artifact_key(*parts: str) -> str:
    """Return the parts as one artifact key: lowercase words joined by dashes.

    ``artifact_key("payment_sync", "counts")`` is ``payment-sync-counts``. Raises UsageError when a key cannot be
    made of them.
    """
    key = "-".join(parts).lower().replace("_", "-").replace(" ", "-")
    if not _KEY.fullmatch(key):
        raise UsageError(
            f"artifact key {key!r} has other characters than a-z, 0-9 and single dashes",
            hint="name the artifact after its flow and what it shows, such as payment-sync-counts",
        )
    return key


def payer_badge(payer_class: str) -> str:
    """Return a payer class with its colour, as in ``🟢 strict (green)``; UsageError for an unknown class."""
    try:
        mark, colour = PAYER_COLOURS[payer_class]
    except KeyError:
        known = ", ".join(PAYER_COLOURS)
        raise UsageError(f"payer class {payer_class!r} is unknown", hint=f"use one of {known}") from None
    return f"{mark} {payer_class} ({colour})"


def money(amount: Decimal, currency: str, *, locale: str = "en") -> str:
    """Return an amount behind its ISO 4217 code, exact: ``BGN 1,234.50``.

    The code, not a sign, because CAD and USD are both ``$``. Digits beyond the currency's own are kept.
    """
    pattern = "¤¤ #,##0.00;¤¤ -#,##0.00"
    usual = get_currency_precision(currency)
    exact = amount == round(amount, usual)
    return format_currency(amount, currency, pattern, locale=locale, decimal_quantization=exact).replace("\xa0", " ")


def number(value: int | Decimal, *, locale: str = "en") -> str:
    """Return a number with thousands separators, every digit kept."""
    return format_decimal(value, locale=locale, decimal_quantization=False)


def cell_text(value: object) -> str:
    """Return a value as a person reads it, not yet escaped: ISO dates, yes/no, a dash for nothing."""
    match value:
        case None:
            return NOTHING
        case Enum():
            return cell_text(value.value)
        case bool():
            return "yes" if value else "no"
        case int():
            return number(value)
        case datetime():
            return value.isoformat(sep=" ", timespec="seconds")
        case date():
            return value.isoformat()
        case _:
            return str(value)


def escape(text: str) -> str:
    """Return text that Markdown and HTML show as it is, on one line."""
    one_line = " ".join(text.split())
    harmless = "".join(_HTML.get(letter, letter) for letter in one_line)
    return _MARKDOWN.sub(r"\\\1", harmless)


def markdown_table(rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """Return rows as a Markdown table; an empty text when there are none.

    ``columns`` gives the order and the choice; by default the first row's keys. Columns in which every value is a
    number are aligned right.
    """
    listed = list(rows)
    if not listed:
        return ""
    names = list(columns) if columns is not None else list(listed[0])
    rules = ["---:" if _is_numeric(row.get(name) for row in listed) else "---" for name in names]
    lines = [[escape(_heading(name)) for name in names], rules]
    lines += [[escape(cell_text(row.get(name))) for name in names] for row in listed]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def counts_rows(counts: Mapping[str, object]) -> list[dict[str, object]]:
    """Return one row per count, with columns ``what`` and ``count``, in the order given."""
    return [{"what": _heading(name), "count": value} for name, value in counts.items()]


def payer_class_rows(counts: Mapping[str, int]) -> list[dict[str, object]]:
    """Return one row per payer class, best first, with its colour; classes without customers show 0."""
    return [{"payer class": payer_badge(name), "customers": counts.get(name, 0)} for name in PAYER_COLOURS]


def money_rows(totals: Mapping[str, Decimal], label: str = "amount") -> list[dict[str, object]]:
    """Return one row per currency, by code; sums never cross currencies."""
    return [{"currency": code, label: money(totals[code], code)} for code in sorted(totals)]


def summary(title: str, facts: Mapping[str, object], sections: Mapping[str, str] | None = None) -> str:
    """Return a Markdown page: a heading, the facts as a list, then each section that has a text.

    ``title``, facts and section names are escaped; the sections' texts are Markdown already.
    """
    lines = [
        f"# {escape(title)}",
        "",
        *(f"- **{escape(_heading(k))}**: {escape(cell_text(v))}" for k, v in facts.items()),
    ]
    for name, text in (sections or {}).items():
        if text:
            lines += ["", f"## {escape(name)}", "", text]
    return "\n".join(lines) + "\n"


def json_cell(value: object) -> object:
    """Return a value as a table artifact stores it: numbers and texts; money and dates as text, addresses withheld."""
    if value is None or (isinstance(value, bool | int) and not isinstance(value, Enum)):
        return value
    # A file's name is the sender's choice and may be somebody's address.
    return str(value) if isinstance(value, Decimal) else without_personal_data(cell_text(value))


def without_personal_data(text: str) -> str:
    """Return text without e-mail addresses and without the values that PostgreSQL and SQLAlchemy quote in errors."""
    shorter = _STATEMENT_VALUES.sub("[parameters withheld]", _DATABASE_DETAIL.sub(r"\1 withheld", text))
    return _ADDRESS.sub("[address withheld]", shorter) if "@" in shorter else shorter


def _heading(name: str) -> str:
    return name.replace("_", " ")


def _is_numeric(values: Iterable[object]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(v, int | Decimal) and not isinstance(v, bool) for v in present)
