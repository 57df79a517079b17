"""The words of finance's report in the reader's language, and figures as that language writes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import yaml
from babel.dates import format_date
from babel.numbers import format_decimal, format_percent, get_currency_precision

from tasks.artifacts import NOTHING, money

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "templates" / "finance"
LANGUAGES = ("en", "bg", "pl", "nb", "sv")


@lru_cache(maxsize=1)
def phrases() -> Mapping[str, Mapping[str, str]]:
    """Every phrase by its key and language, read once."""
    found: dict[str, dict[str, str]] = yaml.safe_load((FOLDER / "words.yaml").read_text("utf-8"))
    return found


class Words:
    """One language's phrases and its ways to write figures, days and money."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, key: str, **values: object) -> str:
        """The phrase of this key with its values put in; days are written out."""
        written = {name: self.day(value) if isinstance(value, date) else value for name, value in values.items()}
        return phrases()[key][self.language].format(**written)

    def day(self, day: date) -> str:
        """A day without doubt about month and day: ``3 Dec 2012``."""
        return format_date(day, "d MMM y" if self.language == "en" else "medium", locale=self.language)

    def money(self, amount: Decimal, currency: str) -> str:
        """An amount behind its currency's code."""
        return money(amount, currency, locale=self.language)

    def amount(self, amount: Decimal, currency: str) -> str:
        """An amount with the digits of its currency, without the code, which stands beside it."""
        digits = get_currency_precision(currency)
        pattern = "#,##0" + ("." + "0" * digits if digits else "")
        exact = amount == round(amount, digits)
        return format_decimal(amount, pattern, locale=self.language, decimal_quantization=exact).replace("\xa0", " ")

    def number(self, value: int | Decimal) -> str:
        """A count or a number of days."""
        return format_decimal(value, locale=self.language).replace("\xa0", " ")

    def percent(self, share: Decimal | None) -> str:
        """A share as whole percent; a dash for none."""
        return NOTHING if share is None else format_percent(share, "#,##0 %", locale=self.language)

    def days(self, days: Decimal | None) -> str:
        """Days with one digit; a dash for none."""
        return NOTHING if days is None else format_decimal(days, "#,##0.0", locale=self.language)

    def signed(self, difference: Decimal, currency: str) -> str:
        """A change of money with its sign: ``+120.00``, ``−5.00``, ``0.00``."""
        text = self.amount(abs(difference), currency)
        return f"{'+' if difference > 0 else '−' if difference < 0 else ''}{text}"
