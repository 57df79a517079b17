"""One cell to one value, or the reason in words why not. Pure Python, for what the vectorised rules leave over.

Numbers, dates and truth values that a workbook stores as such never pass through the rules for text: the stored number
1.234 is 1.234 whatever the contract's decimal mark is.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from tasks.feeds.cells import BLANKS, BOOLEAN, DATE, ERROR, ERROR_TEXTS, LOST_DIGITS, NUL, NUMBER, shown
from tasks.feeds.code_lists import codes_of, spellings_of
from tasks.feeds.contracts import Column, Dialect
from tasks.feeds.dates import excel_serial, parse_date, within_years
from tasks.feeds.folding import fold

MONEY_DIGITS = 19
MONEY_SCALE = 4
RATE_DIGITS = 28
RATE_SCALE = 10
_LARGEST = Decimal(10) ** (MONEY_DIGITS - MONEY_SCALE)
_NOISE = Decimal("0.000001")
_SPACES = re.compile(r"[\s\u00a0\u2007\u2009\u202f]+")
# Only codes of ISO 4217 and words that mean money: "5 tys" and "5 mln" are thousands and millions, not currencies.
_CURRENCY = rf"(?:{'|'.join(sorted(codes_of('iso4217')))}|€|\$|£|¥|zł|zl|kr\.?|лв\.?|лева|:-|,-)"
_CURRENCY_AROUND = re.compile(
    rf"^(?P<sign>[+-]?)\s*{_CURRENCY}?\s*(?P<number>[^A-Za-zА-я€$£¥]*?)\s*{_CURRENCY}?$", re.IGNORECASE
)
_APOSTROPHES = str.maketrans({"’": "'", "ʼ": "'", "`": "'", "−": "-", "–": "-", "‒": "-", "‐": "-", "‑": "-"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}(?:[.,]0+)?")
_CURRENCY_SIGNS = "€$£¥"
_DOUBT = re.compile(r"[?*!~]")

Value = str | bool | int | Decimal | dt.date | None


class Failure(NamedTuple):
    """Why a cell gives no value: a short code for counting and the reason in words."""

    code: str
    reason: str


Parser = Callable[[str], Value | Failure]


def parser_for(column: Column, dialect: Dialect) -> Parser:
    """Return the function that turns one marked text into a value, None for a blank, or a Failure."""
    by_kind: dict[str, Callable[[str, Column, Dialect], Value | Failure]] = {
        "text": _word,
        "code": _word,
        "date": _date,
        "money": _money,
        "quantity": _quantity,
        "rate": _rate,
        "integer": _integer,
        "boolean": _boolean,
    }
    parse = by_kind[column.kind]

    def parse_cell(cell: str) -> Value | Failure:
        text = trimmed(cell)
        if cell[:1] == ERROR or text in ERROR_TEXTS:
            return _error(text, column)
        if NUL in text:
            return Failure("not_text", "holds a NUL, which is no character of a text")
        return None if text == "" else parse(cell, column, dialect)

    return parse_cell


def trimmed(cell: str) -> str:
    """Return the shown text without white space and invisible marks around it."""
    return shown(cell).strip(BLANKS).strip()


def _error(text: str, column: Column) -> Failure | None:
    # A broken formula in a remark costs the remark; anywhere else a blank in its place could change what is owed.
    if column.kind == "text" and not column.required:
        return None
    return Failure("cell_error", f"holds an error of the spreadsheet ({text}) instead of a value")


def _word(cell: str, column: Column, dialect: Dialect) -> Value | Failure:  # noqa: ARG001 - one signature for all kinds
    text = trimmed(cell)
    if cell[0] == DATE and column.kind == "code":
        return Failure("code_became_date", "was turned into a date by the spreadsheet, so the code itself is lost")
    if column.kind == "code" and re.match(LOST_DIGITS, cell):
        return Failure(
            "code_lost_digits", "is a number of more digits than a spreadsheet keeps, so the code itself is lost"
        )
    if column.integral_float == "strip" and re.fullmatch(r"-?\d+\.0+", text):
        text = text.split(".")[0]
    if column.separators:
        parts = [part.strip() for part in re.split(f"[{re.escape(column.separators)}]", text) if part.strip()]
        words = [_canonical(part, column) for part in parts]
        failure = next((word for word in words if isinstance(word, Failure)), None)
        return failure or ";".join(dict.fromkeys(str(word) for word in words)) or None
    return _canonical(text, column)


def _canonical(text: str, column: Column) -> str | Failure:
    key = text if _DOUBT.search(text) else fold(text) or text  # "EURO?" says that somebody was not sure
    if key in column.values:
        return column.values[key]
    if column.code_list is not None:
        known = spellings_of(column.code_list).get(key)
        if known is None:
            return Failure("not_in_list", f"is not in the list {column.code_list}")
        return known
    if column.case is not None:
        text = text.upper() if column.case == "upper" else text.lower()
    if column.allowed and text not in column.allowed:
        folded = {fold(value): value for value in column.allowed}
        if key not in folded:
            return Failure("not_allowed", f"is none of {', '.join(column.allowed)}")
        text = folded[key]
    if column.pattern and re.search(column.pattern, text) is None:
        return Failure("pattern", f"does not look like {column.pattern}")
    if column.max_length and len(text) > column.max_length:
        return Failure("too_long", f"has {len(text)} characters, at most {column.max_length} are allowed")
    return text


def _date(cell: str, column: Column, dialect: Dialect) -> Value | Failure:
    text = trimmed(cell)
    if cell[0] == NUMBER or (dialect.excel_serial_dates and re.fullmatch(r"\d{5}(?:\.\d+)?", text)):
        if not dialect.excel_serial_dates:
            return Failure("not_a_date", "is a number, not a date; the contract does not allow day numbers")
        return _or_failure(excel_serial(text, dialect.excel_epoch))
    if cell[0] == DATE:
        return _typed_date(text)
    if cell[0] == BOOLEAN:
        return Failure("not_a_date", "is a truth value, not a date")
    return _or_failure(parse_date(text, column.date_formats))


def _typed_date(text: str) -> Value | Failure:
    try:
        return _or_failure(within_years(dt.date.fromisoformat(text[:10])))
    except ValueError:
        return Failure("not_a_date", "is a time of day without a date")


def _or_failure(found: dt.date | str) -> Value | Failure:
    return Failure("not_a_date", found) if isinstance(found, str) else found


def _money(cell: str, column: Column, dialect: Dialect) -> Value | Failure:
    if cell[0] == NUMBER:
        found: Decimal | Failure = Decimal(trimmed(cell))
    elif cell[0] in (DATE, BOOLEAN):
        return Failure("not_a_number", "is a date or a truth value, not an amount")
    else:
        found = parse_money(trimmed(cell), dialect.decimal, dialect.thousands)
    return found if isinstance(found, Failure) else _exact(found, column.scale)


def _quantity(cell: str, column: Column, dialect: Dialect) -> Value | Failure:
    text = trimmed(cell)
    if cell[0] != NUMBER and any(character.isalpha() or character in _CURRENCY_SIGNS for character in text):
        return Failure("not_a_number", "is not a plain number")
    return _money(cell, column, dialect)


def _rate(cell: str, column: Column, dialect: Dialect) -> Value | Failure:  # noqa: ARG001
    if cell[0] in (DATE, BOOLEAN):
        return Failure("not_a_number", "is a date or a truth value, not a rate")
    text = trimmed(cell)
    mark = "," if dialect.decimal == "," and cell[0] != NUMBER else "."
    if not re.fullmatch(rf"(?=.*[0-9])[0-9]{{0,12}}(?:[{mark}][0-9]*)?", text):
        return Failure("not_a_number", f"is not a rate with {mark!r} as its decimal mark")
    value = Decimal(text.replace(",", "."))
    if value != value.quantize(Decimal(1).scaleb(-RATE_SCALE), ROUND_HALF_EVEN):
        return Failure("too_precise", f"has more than {RATE_SCALE} decimals")
    return value


_SIGNS: Mapping[str, tuple[str, ...]] = {
    "€": ("EUR",),
    "£": ("GBP",),
    "$": ("USD", "CAD", "AUD", "NZD", "SGD", "HKD"),
    "¥": ("JPY", "CNY"),
    "zł": ("PLN",),
    "zl": ("PLN",),
    "kr": ("SEK", "NOK", "DKK", "ISK"),
    "лв": ("BGN",),
}


def currencies_named(text: str) -> tuple[str, ...]:
    """The currencies that an amount's text may mean: by a code of ISO 4217 or by a sign; none where it names none."""
    codes = [word for word in re.findall(r"[A-Za-z]{3}", text) if word.upper() in codes_of("iso4217")]
    if codes:
        return (codes[0].upper(),)
    return next((found for sign, found in _SIGNS.items() if sign in text.lower()), ())


def parse_money(text: str, decimal: str, thousands: Sequence[str] = ()) -> Decimal | Failure:
    """Return the amount that a text says: "1 518,44 kr", "(500,00)", "615-", "$1,234.50".

    ``decimal`` is the contract's mark, or ``auto``: then a mark followed by exactly three digits, which could be
    either, is refused, and everything else can be read in one way only. ``thousands`` adds marks to the usual ones.
    """
    plain = text.translate(_APOSTROPHES).strip()
    negative = plain.startswith("(") and plain.endswith(")")
    plain = plain[1:-1].strip() if negative else plain
    found = _CURRENCY_AROUND.match(plain)
    if found is None:
        return Failure("not_a_number", "is not an amount")
    number = _SPACES.sub(" ", f"{found['sign']}{found['number']}").strip()
    if negative + number.count("-") + number.count("+") > 1:
        return Failure("not_a_number", "has more than one sign; brackets are a sign too")
    if number.startswith("-") or number.endswith("-"):
        negative, number = True, number.strip("-").strip()
    return _unsigned(number.removeprefix("+").strip(), decimal, thousands, negative=negative)


def _unsigned(number: str, decimal: str, thousands: Sequence[str], *, negative: bool) -> Decimal | Failure:
    marks = [decimal] if decimal != "auto" else _decimal_mark(number)
    if marks is None:
        return Failure(
            "ambiguous_number",
            "could be thousands or decimals; the contract must say which (customProperties, dialect.decimal)",
        )
    mark = marks[0] if marks else "."
    groups = "".join({" ", "'", *thousands, "," if mark == "." else "."} - {mark})
    whole = rf"[0-9]+|[0-9]{{1,3}}(?:([{re.escape(groups)}])[0-9]{{3}})(?:\1[0-9]{{3}})*"
    if not re.fullmatch(rf"(?:{whole})?(?:{re.escape(mark)}[0-9]*)?", number):
        return Failure("not_a_number", f"is not an amount with {mark!r} as its decimal mark")
    plain = "".join(character for character in number if character.isdigit() or character == mark).replace(mark, ".")
    if not any(character.isdigit() for character in plain):
        return Failure("not_a_number", "is not an amount")
    return -Decimal(plain) if negative else Decimal(plain)


def _decimal_mark(number: str) -> list[str] | None:
    """Return the decimal mark if it can be one only, [] if there is none, None if a mark could be either."""
    points, commas = number.count("."), number.count(",")
    if points and commas:
        return ["." if number.rfind(".") > number.rfind(",") else ","]
    if not points and not commas:
        return []
    mark = "." if points else ","
    if points + commas > 1:
        return ["," if mark == "." else "."]  # a mark that repeats separates thousands
    before, after = number.split(mark)
    grouped = len(after) == 3 and 1 <= len(before) <= 3 and before.isdigit() and not before.startswith("0")
    return None if grouped else [mark]


def _exact(value: Decimal, scale: int | None) -> Decimal | Failure:
    if abs(value) >= _LARGEST:
        return Failure("too_large", f"has more than {MONEY_DIGITS - MONEY_SCALE} digits before the decimal mark")
    if value == value.quantize(Decimal(1).scaleb(-MONEY_SCALE), ROUND_HALF_EVEN):
        return value
    if scale is not None:
        rounded = value.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_EVEN)
        if abs(value - rounded) < _NOISE:
            return rounded
    return Failure("too_precise", f"has more than {MONEY_SCALE} decimals")


def _integer(cell: str, column: Column, dialect: Dialect) -> Value | Failure:  # noqa: ARG001
    text = trimmed(cell)
    text = _SPACES.sub("", column.values.get(fold(text) or text, text))
    if cell[0] in (DATE, BOOLEAN) or not _INTEGER.fullmatch(text):
        return Failure("not_a_whole_number", "is not a whole number")
    value = int(re.split("[.,]", text)[0])
    if column.minimum is not None and value < column.minimum:
        return Failure("too_small", f"is below {column.minimum}, the least that is allowed")
    if column.maximum is not None and value > column.maximum:
        return Failure("too_large", f"is above {column.maximum}, the most that is allowed")
    return value


def _boolean(cell: str, column: Column, dialect: Dialect) -> Value | Failure:  # noqa: ARG001
    text = trimmed(cell)
    key = text if _DOUBT.search(text) else fold(text) or text
    word = column.values.get(key, key)
    if word in ("true", "yes", "1"):
        return True
    if word in ("false", "no", "0"):
        return False
    return Failure("not_yes_or_no", "is neither yes nor no in any language of the contract")


def constant_value(text: str, column: Column, dialect: Dialect) -> Value | Failure:
    """Return the value of a contract's constant or default, which is written by the rules for text with a point."""
    return parser_for(column, Dialect(decimal=".", excel_serial_dates=dialect.excel_serial_dates))(text)
