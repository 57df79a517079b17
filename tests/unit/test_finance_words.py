"""Finance's report speaks five languages alike, and writes figures as each of them does."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

import pytest

from tasks.reports.finance_words import FOLDER, LANGUAGES, Words, phrases

_VALUES = re.compile(r"\{(\w+)\}")


def test_every_phrase_has_every_language_with_the_same_values() -> None:
    """No language lacks a phrase, none is empty, and each puts in the same values."""
    assert len(phrases()) > 80
    for key, by_language in phrases().items():
        assert tuple(by_language) == LANGUAGES, key
        assert all(by_language.values()), key
        assert len({frozenset(_VALUES.findall(text)) for text in by_language.values()}) == 1, key


def test_every_phrase_is_used_and_every_used_one_exists() -> None:
    """A key that code or template asks for stands among the phrases, and no phrase is left over."""
    modules = sorted((FOLDER.parents[2] / "tasks" / "reports").glob("*.py"))
    code = "".join(path.read_text("utf-8") for path in modules)
    literals = set(re.findall(r"""["']([a-z0-9_]+)["']""", code))
    made = {key for key in phrases() if key.startswith(("state_", "stage_"))}
    assert made
    assert [key for key in phrases() if key not in literals | made] == []
    asked = set(re.findall(r"""words\(["']([a-z0-9_]+)["']""", code))
    assert len(asked) > 30
    assert asked - set(phrases()) == set()


@pytest.mark.parametrize(
    ("language", "money", "day", "share"),
    [
        ("en", "EUR -1,234.50", "3 Dec 2012", "12 %"),
        ("bg", "EUR -1 234,50", "3.12.2012\u202fг.", "12 %"),
        ("pl", "EUR -1 234,50", "3 gru 2012", "12 %"),
        ("nb", "EUR -1 234,50", "3. des. 2012", "12 %"),
        ("sv", "EUR -1 234,50", "3 dec. 2012", "12 %"),
    ],
)
def test_figures_are_written_as_the_language_writes_them(language: str, money: str, day: str, share: str) -> None:
    """Money has its code in front and the language's marks; a day cannot be read as another one."""
    words = Words(language)
    assert words.money(Decimal("-1234.50"), "EUR") == money
    assert words.day(date(2012, 12, 3)) == day
    assert words.percent(Decimal("0.12")) == share
    assert words.percent(None) == "–"


def test_a_change_has_its_sign_and_its_currencys_digits() -> None:
    """Growth has a plus, a fall a minus, nothing neither; yen have no digits."""
    words = Words("en")
    signed = [words.signed(Decimal(amount), code) for amount, code in (("120", "EUR"), ("-5", "JPY"), ("0", "EUR"))]
    assert signed == ["+120.00", "−5", "0.00"]
