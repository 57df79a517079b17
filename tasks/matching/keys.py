"""Keys for comparing records: what is left of a name, a tax number, an address when spelling is taken away. Pure.

    "Витоша Дистрибуция ЕООД" and "VITOSHA DISTRIBUTSIYA EOOD"    vitosha distributsiya
    "BG 175 074 752" and "175074752" of a customer in BG           BG175074752
    "02/ 987 65 43" of a customer in BG                            +35929876543
    "Kabel YMMJ 3 x 1,5 mm²" and "YMMJ-kabel 3x1.5mm2"            kabel mm ymmj, with the figures 3 1.5 2

A key is never shown and never written back. One that cannot be made is None and agrees with nothing.
"""

from __future__ import annotations

import functools
import re

import phonenumbers
from anyascii import anyascii
from cleanco.clean import custom_basename, normalized, prepare_default_terms, strip_punct, strip_tail
from stdnum import ean, get_cc_module
from stdnum.exceptions import ValidationError

# Legal forms that cleanco does not know, or not in their own script, as they read after transliteration.
_LEGAL_FORMS = frozenset(
    (
        "ead", "eood", "ood", "ad", "et", "kd", "kda", "sd", "dzzd", "ooo", "oao", "zao", "pao", "ao", "ip", "tov",
        "as", "asa", "ans", "da", "enk", "nuf", "ab", "hb", "kb", "spzoo", "zoo", "sp", "spk", "spj", "sa", "sk",
        "gmbh", "ag", "kg", "ohg", "ug", "ltd", "limited", "llc", "llp", "plc", "inc", "incorporated", "corp",
        "corporation", "co", "company", "srl", "spa", "sarl", "sas", "bv", "nv", "oy", "oyj", "aps", "kft", "zrt",
        "doo", "dd", "sro", "as.", "kk", "pte", "pty",
    )
)  # fmt: skip
# In scripts without spaces the form stands against the name.
_UNSPACED_FORMS = re.compile("株式会社|有限会社|合同会社|股份有限公司|有限责任公司|有限公司|주식회사|유한회사")
_SLASHED = re.compile(r"\b([a-z])/([a-z])\b")
_DOTTED = re.compile(r"\b(?:[a-z]\.){1,}[a-z]?\b\.?")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_SPACES = re.compile(r"\s+")


@functools.lru_cache(maxsize=65_536)
def name_key(name: str | None) -> str | None:
    """A firm's name in Latin letters without case, marks and legal form; None where nothing is left.

    A name that is a legal form and nothing else keeps it.
    """
    if not name or not name.strip():
        return None
    spaced = _UNSPACED_FORMS.sub(" ", name)
    plain = anyascii(name).casefold()
    bare = anyascii(without_legal_form(spaced)).casefold() or plain
    words = _words(bare)
    kept = [word for word in words if word not in _LEGAL_FORMS]
    return " ".join(kept or words or _words(plain)) or None


def without_legal_form(name: str) -> str:
    """The name without the legal forms that cleanco knows, at its end.

    cleanco asks each of its hundreds of terms in turn; only those that end with one of the name's words can be there.
    """
    terms, stripped = _legal_terms(), strip_tail(name)
    words = {strip_punct(word) for word in normalized(stripped).split()}
    asked = sorted(place for word in words for place in terms.get(word, ()))
    return str(custom_basename(stripped, [_default_terms()[place] for place in asked]) if asked else stripped)


@functools.cache
def _default_terms() -> list[tuple[int, list[str]]]:
    return list(prepare_default_terms())


@functools.cache
def _legal_terms() -> dict[str, list[int]]:
    """The places of cleanco's terms, by the word that each ends with."""
    found: dict[str, list[int]] = {}
    for place, (_, words) in enumerate(_default_terms()):
        if words:
            found.setdefault(words[-1], []).append(place)
    return found


def _words(text: str) -> list[str]:
    spelled = _SLASHED.sub(r"\1\2", text.replace("&", " and ").replace("'", ""))
    joined = _DOTTED.sub(lambda match: match[0].replace(".", ""), spelled)
    return [word for word in _NOT_WORD.split(joined) if word]


@functools.lru_cache(maxsize=65_536)
def person_key(first: str | None, last: str | None) -> str | None:
    """A person's name in Latin letters, its words in order of the alphabet, because forms swap them."""
    words = sorted(_words(anyascii(f"{first or ''} {last or ''}").casefold()))
    return " ".join(words) or None


def vat_key(number: str | None, country: str | None) -> str | None:
    """The tax number as its country writes it, behind the country's code; None where its form or check digit is wrong.

    Sources: python-stdnum's modules of each country. A country that it does not know keeps letters and digits.
    """
    if not number or not number.strip():
        return None
    compact = re.sub(r"[^0-9A-Za-z]", "", anyascii(number)).upper()
    code = compact[:2] if compact[:2].isalpha() and _has_vat(compact[:2]) else (country or "").upper()
    code = {"EL": "GR"}.get(code, code)
    module = get_cc_module(code, "vat") if code else None
    if module is None:
        return f"{code}{compact}" if len(compact) > 3 else None
    try:
        valid = str(module.validate(compact))
    except ValidationError:
        return None
    return valid if valid.startswith(code) else f"{code}{valid}"


@functools.lru_cache(maxsize=512)
def _has_vat(code: str) -> bool:
    return get_cc_module({"EL": "GR"}.get(code, code), "vat") is not None


def email_key(address: str | None) -> str | None:
    """The address without case and spaces around it; None where it is none."""
    plain = (address or "").strip().casefold()
    return plain if plain.count("@") == 1 and not plain.startswith("@") and not plain.endswith("@") else None


@functools.lru_cache(maxsize=65_536)
def phone_key(number: str | None, country: str | None) -> str | None:
    """The number as E.164, dialled from ``country`` where it has no code of its own; None where it cannot be one."""
    if not number or not number.strip():
        return None
    try:
        parsed = phonenumbers.parse(number, country or None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed):
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


# --- products ---------------------------------------------------------------------------------------------------------

_DECIMAL_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9])")
_TOKEN = re.compile(r"[a-z]+|[0-9]+(?:\.[0-9]+)?")
_TIMES = re.compile(r"(?<=[0-9]) x (?=[0-9])")
_VOWELS = re.compile(r"(?<=.)[aeiouy]+")
_DOUBLED = re.compile(r"(.)\1+")
_LONGEST = 400  # of a key; an index entry has its limit, and no name says more in more letters


@functools.lru_cache(maxsize=65_536)
def product_keys(name: str | None) -> tuple[str | None, str | None, str | None]:
    """What is left of a product's name: its words in order of the alphabet, its figures in their own order, and the
    block in which it meets others: the words without vowels and doubled letters, and the figures.

    A single letter tells products apart as a figure does: key ring D is none of key ring H, and 3 G 1.5 no 3 x 1.5. The
    x alone says nothing where it stands between figures.
    """
    tokens = _TOKEN.findall(_DECIMAL_COMMA.sub(".", anyascii(name or "").casefold()))
    words = sorted(token for token in tokens if token.isalpha() and len(token) > 1)
    marks = _TIMES.sub(" ", f" {' '.join(token for token in tokens if not (token.isalpha() and len(token) > 1))} ")
    figures = " ".join(_plain_figure(token) for token in marks.split())
    if not words:
        return None, figures or None, None
    skeletons = sorted({_DOUBLED.sub(r"\1", _VOWELS.sub("", word)) for word in words})
    return " ".join(words)[:_LONGEST], figures[:_LONGEST] or None, f"{' '.join(skeletons)}|{figures}"[:_LONGEST]


def _plain_figure(figure: str) -> str:
    """07 and 7 are one figure, and so are 1.50 and 1.5; a letter stays."""
    if figure.isalpha():
        return figure
    whole, _, parts = figure.partition(".")
    kept = parts.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{kept}" if kept else "")


def gtin_key(number: str | None) -> str | None:
    """The trade item number with 14 digits, as GS1 compares them; None where its check digit is wrong.

    Zeros in front that a spreadsheet has dropped are put back: they do not change the check digit.
    """
    compact = re.sub(r"[^0-9]", "", number or "").lstrip("0").zfill(14)
    return compact if len(compact) == 14 and compact.strip("0") and ean.is_valid(compact) else None
