"""Published code lists: currencies (ISO 4217), countries (ISO 3166-1), languages (ISO 639-1), with their names.

Names are understood in the five languages that contracts speak, as the Unicode CLDR writes them. Units of UN/ECE stand
in :mod:`tasks.feeds.unit_codes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from babel import Locale

from tasks.feeds.dates import LANGUAGES
from tasks.feeds.folding import fold
from tasks.feeds.unit_codes import unit_codes, unit_spellings

CODE_LISTS = ("iso4217", "iso3166", "iso639", "unece")

# What people write for a currency and means one currency only; "kr" and "$" mean several and are left to the contract.
_CURRENCY_WORDS = {
    "€": "EUR",
    "eur": "EUR",
    "euro": "EUR",
    "euros": "EUR",
    "лв": "BGN",
    "лева": "BGN",
    "zl": "PLN",
    "£": "GBP",
}
_COUNTRY_WORDS = {"uk": "GB", "el": "GR"}
_LANGUAGE_WORDS = {"no": "nb", "norsk": "nb", "norwegian": "nb", "norweski": "nb", "норвежки": "nb", "norska": "nb"}


@lru_cache(maxsize=8)
def codes_of(code_list: str) -> frozenset[str]:
    """Return the codes of a list: three capitals, two capitals, two small letters, or those of units."""
    if code_list == "unece":
        return unit_codes()
    english = Locale("en")
    if code_list == "iso4217":
        return frozenset(code for code in map(str, english.currencies) if len(code) == 3 and code.isalpha())
    if code_list == "iso3166":
        return frozenset(code for code in map(str, english.territories) if len(code) == 2 and code.isalpha()) - {
            "ZZ",
            "EU",
            "UN",
        }
    return frozenset(code for code in map(str, english.languages) if len(code) == 2)


@lru_cache(maxsize=8)
def spellings_of(code_list: str) -> Mapping[str, str]:
    """Return folded spelling → code: the code itself and, for countries and languages, names in five languages."""
    if code_list == "unece":
        return unit_spellings()
    codes = codes_of(code_list)
    words = {fold(code): code for code in codes}
    if code_list == "iso4217":
        return words | {fold(word) or word: code for word, code in _CURRENCY_WORDS.items()}
    for language in LANGUAGES:
        locale = Locale(language)
        names = locale.territories if code_list == "iso3166" else locale.languages
        for code in codes:
            if code in names:
                words.setdefault(fold(names[code]), code)
    more = _COUNTRY_WORDS if code_list == "iso3166" else _LANGUAGE_WORDS
    return words | {fold(word): code for word, code in more.items()}
