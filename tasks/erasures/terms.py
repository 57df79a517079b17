"""What a person is found by in text: addresses and telephone numbers anywhere, names only beside their own customers.

A name alone is no proof: somebody else of the same name may stand in another customer's note, or beside an address of
their own. An address or a telephone
number is. Patterns are regular expressions that Python and PostgreSQL read alike; letters match in either case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

ERASED = "[erased]"
_SHORTEST_PHONE = 7  # digits; shorter ones are extensions that many share

# How an address looks in running text; what hashes are made of.
ADDRESS = r"[\w.+'%-]+@[\w-]+(?:\.[\w-]+)+"


@dataclass(frozen=True)
class Terms:
    """``strong`` are found anywhere; ``names`` and ``parts`` only in rows of ``customers``, by their numbers.

    ``parts`` are first and last names, which count as whole cells beside each other.
    """

    strong: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    customers: tuple[str, ...] = ()

    def __or__(self, other: Terms) -> Terms:
        return Terms(
            _distinct((*self.strong, *other.strong)),
            _distinct((*self.names, *other.names)),
            _distinct((*self.parts, *other.parts)),
            _distinct((*self.customers, *other.customers)),
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be looked for."""
        return not (self.strong or self.names)

    @property
    def is_firm(self) -> bool:
        """Whether a firm is looked for, and no person: it has a name, but no first and no last one."""
        return bool(self.names) and not self.parts

    @cached_property
    def strong_pattern(self) -> str:
        """A pattern of addresses and telephone numbers, as they stand by themselves; one that never matches if none."""
        return _alternatives(self.strong, before=r"[\w.+-]", after=r"[\w-]|\.\w")

    @cached_property
    def name_pattern(self) -> str:
        """A pattern of whole names."""
        return _alternatives(self.names, before=r"\w", after=r"\w")

    @cached_property
    def cell_patterns(self) -> tuple[str, ...]:
        """A pattern for each of first and last name as a whole value of JSON."""
        return tuple(re.escape(json.dumps(part, ensure_ascii=False)) for part in self.parts)

    @cached_property
    def likes(self) -> tuple[str, ...]:
        """What a text must hold one of, as LIKE has it, to be worth an exact look: this costs a fraction of that."""
        words = (*self.strong, *self.names, *self.parts)
        quoted = (json.dumps(word, ensure_ascii=False)[1:-1] for word in words)
        return tuple(f"%{_LIKE.sub(_ESCAPED, word)}%" for word in _distinct((*words, *quoted)))

    def bound(self) -> dict[str, object]:
        """The parameters of a search in the database (tasks/erasures/traces_store.py)."""
        # First and last name as cells count only together; either alone would be somebody else's too.
        both = "".join(f"(?=.*{cell})" for cell in self.cell_patterns) if len(self.parts) > 1 else _NEVER
        return {
            "likes": list(self.likes),
            "strong": self.strong_pattern,
            "named": self.name_pattern,
            "cells": f"^{both}",
            "everything": f"{self.strong_pattern}|{self.name_pattern}",
            "quoted": "|".join(self.cell_patterns) or _NEVER,
            "never": _NEVER,
            "customers": list(self.customers),
        }

    def is_strong_in(self, text: str) -> bool:
        """Whether an address or telephone number stands in this text."""
        return re.search(self.strong_pattern, text, re.IGNORECASE) is not None

    def is_row_of(self, cells: Iterable[str]) -> bool:
        """Whether a row of cells is about this person: an address, a number, or the name beside the customer."""
        found = [cell.strip() for cell in cells]
        if any(self.is_strong_in(cell) for cell in found):
            return True
        if any(addresses_in(cell) for cell in found):
            return False  # another's address: somebody else of the same name
        folded = {cell.casefold() for cell in found}
        theirs = any(number.casefold() in folded for number in self.customers)
        named = any(re.search(self.name_pattern, cell, re.IGNORECASE) for cell in found)
        parts = len(self.parts) > 1 and all(part.casefold() in folded for part in self.parts)
        return theirs and (named or parts)


# What LIKE reads as more than itself.
_LIKE, _ESCAPED = re.compile(r"[\\%_]"), r"\\\g<0>"

# Never matches, in Python and in PostgreSQL.
_NEVER = "(?!a)a"


def terms_of_contact(
    first: str | None, last: str | None, address: str | None, phone: str | None, customer: str | None
) -> Terms:
    """What one contact is found by."""
    parts = tuple(part for part in (first, last) if part)
    names = (" ".join(parts), " ".join(reversed(parts))) if len(parts) == 2 else ()
    strong = [address] if address else []
    if phone and sum(character.isdigit() for character in phone) >= _SHORTEST_PHONE:
        strong.append(phone)
    return Terms(tuple(strong), names, parts, (customer,) if customer else ())


def terms_of_organization(name: str | None, vat_number: str | None, customer: str) -> Terms:
    """What an organisation, such as a sole trader's firm, is found by; its number stays, invoices hang on it."""
    return Terms((vat_number,) if vat_number else (), (name,) if name and name != ERASED else (), (), (customer,))


def addresses_in(text: str) -> set[str]:
    """The e-mail addresses in a text, as they are written."""
    return set(re.findall(ADDRESS, text))


def _alternatives(terms: Iterable[str], *, before: str, after: str) -> str:
    escaped = "|".join(re.escape(term) for term in terms)
    return f"(?<!{before})(?:{escaped})(?!{after})" if escaped else _NEVER


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))
