"""Spellings folded together: what two ways of writing one heading or one marker have in common."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_LETTERS_WITHOUT_DECOMPOSITION = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe"})
_NOT_LETTERS_OR_DIGITS = re.compile(r"[\W_]+")


@lru_cache(maxsize=8192)
def fold_words(text: str) -> str:
    """Return the words of a text, lower case, without accents and punctuation: "ОБЩО:  лв." is "общо лв"."""
    plain = unicodedata.normalize("NFKC", text.replace("\\ufeff", "").replace("\ufeff", "")).casefold()
    plain = unicodedata.normalize("NFKD", plain.translate(_LETTERS_WITHOUT_DECOMPOSITION))
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return _NOT_LETTERS_OR_DIGITS.sub(" ", plain).strip()


def fold(text: str) -> str:
    """Return the letters and digits of a text: ``Due date``, ``DUE_DATE`` and ``DueDate:`` are one."""
    return fold_words(text).replace(" ", "")
