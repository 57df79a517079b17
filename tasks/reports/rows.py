"""A report as typed rows, and its values as text: money exact, dates ISO 8601, nothing that a terminal would obey."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from babel.numbers import get_currency_precision

Kind = Literal["money", "date", "instant", "integer", "boolean", "json", "text"]

_USUAL_DIGITS = 2
_CARD_MONEY = frozenset({"amount", "open_amount", "open", "overdue"})
_AMOUNT = re.compile(r"-?\d+\.\d+")


@dataclass(frozen=True)
class Column:
    """A column of a report: its name in the view and what its values are."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Report:
    """The rows of one report: ``name`` of the view, the day it speaks of, its columns and their values in order.

    ``more`` is true where a limit left rows out.
    """

    name: str
    as_of: date | None
    columns: tuple[Column, ...]
    rows: tuple[tuple[object, ...], ...]
    more: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns in the order of the view."""
        return tuple(column.name for column in self.columns)

    def records(self) -> list[dict[str, object]]:
        """The rows as dictionaries of raw values."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]

    def only(self, names: Sequence[str]) -> Report:
        """The same rows with these columns alone, in this order; names that the view does not have are passed over."""
        places = [self.names.index(name) for name in names if name in self.names]
        columns = tuple(self.columns[place] for place in places)
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        return Report(self.name, self.as_of, columns, rows, self.more)


def money_text(amount: Decimal, currency: str | None = None) -> str:
    """The amount as digits, exact: ``100.0000`` EUR is ``100.00``, ``100.0000`` JPY is ``100``, ``1.2345`` stays."""
    digits = get_currency_precision(currency) if currency else _USUAL_DIGITS
    shortest = amount.quantize(Decimal(1).scaleb(-digits)) if amount.is_finite() else amount
    return f"{shortest:f}" if shortest == amount else f"{amount.normalize():f}"


def json_value(value: object, currency: str | None = None) -> object:
    """The value as JSON carries it: money and dates as text, numbers, truth values and nested data as they are."""
    match value:
        case Decimal():
            return money_text(value, currency)
        case datetime() | date():
            return value.isoformat()
        case None | bool() | int() | str():
            return value
        case Mapping():
            return {str(key): _card_value(str(key), item) for key, item in value.items()}
        case Sequence():
            return [json_value(item) for item in value]
        case _:
            return str(value)


def _card_value(key: str, value: object) -> object:
    """Money inside a card is text with the database's four digits; a person wants two."""
    if key in _CARD_MONEY and isinstance(value, str) and _AMOUNT.fullmatch(value):
        return money_text(Decimal(value))
    return json_value(value)


def json_rows(report: Report) -> list[dict[str, object]]:
    """One object per row whose keys are the view's columns."""
    return [
        {name: json_value(value, currency_of(record)) for name, value in record.items()} for record in report.records()
    ]


def currency_of(record: Mapping[str, object]) -> str | None:
    """The row's currency, where it has one."""
    found = record.get("currency")
    return found if isinstance(found, str) else None


def printable(text: str) -> str:
    """The text with control characters replaced, so that a cell can neither move the cursor nor break a line."""
    return "".join(letter if letter.isprintable() else " " if letter in "\t\r\n" else "\ufffd" for letter in text)


def totals_by_currency(report: Report, column: str) -> dict[str, Decimal]:
    """The sums of a money column per currency; empty where the report has no such column or no currency."""
    totals: dict[str, Decimal] = {}
    if not {column, "currency"} <= set(report.names):
        return totals
    for record in report.records():
        amount, currency = record[column], currency_of(record)
        if isinstance(amount, Decimal) and currency:
            totals[currency] = totals.get(currency, Decimal(0)) + amount
    return dict(sorted(totals.items()))
