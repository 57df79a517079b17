"""To whom a reminder goes: the contact who holds the right role on that day, by ranked rules, and why this person.

Among several people in a role the one who was entered first is written to. An address counts where its form is one
that mail servers take (`email-validator`, without asking DNS) and nothing speaks against writing to it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from email_validator import EmailNotValidError, validate_email

from tasks.reminders.facts import Contact
from tasks.reminders.rulebook import Route

# Addresses of this plain form pass email-validator; asking it costs 70 µs each, which a hundred thousand would feel.
_PLAIN = re.compile(
    r"[a-z0-9]{1,30}(?:[._+-][a-z0-9]{1,15}){0,2}@(?:[a-z0-9]{1,30}[.]){0,1}[a-z0-9]{1,30}[.](?:com|net|bg|pl|no|se|de|eu)"
)


class Recipient(NamedTuple):
    """The person found; ``reason`` says why this one."""

    contact: Contact
    reason: str


class NoRecipient(NamedTuple):
    """Nobody to write to: ``no_contact`` (nobody holds a role) or ``no_valid_address``, and what was found instead."""

    code: str
    reason: str


def is_valid_address(email: str) -> bool:
    """Whether mail can be addressed to this: one mailbox in a form that servers take, with no DNS asked."""
    return _PLAIN.fullmatch(email) is not None or _passes(email)


@functools.lru_cache(maxsize=65_536)
def _passes(email: str) -> bool:
    if not email.isprintable():
        return False
    try:
        validate_email(email, check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


def find_recipient(contacts: Sequence[Contact], routes: Sequence[Route]) -> Recipient | NoRecipient:
    """The first contact, by rank of the role and then by age, whose address can be used; else why there is none."""
    passed: list[str] = []
    for route in routes:
        role = route.role
        held = [contact for contact in contacts if contact.role == role]
        if len(held) > 1:
            held.sort(key=lambda contact: contact.contact_id)
        for place, contact in enumerate(held, start=1):
            wrong = _what_is_wrong(contact)
            if not wrong:
                return Recipient(contact, _because(route, place, len(held), passed))
            passed.append(f"contact {contact.contact_id} ({contact.role}) {wrong}")
    if passed:
        return NoRecipient("no_valid_address", f"No usable address: {'; '.join(passed)}.")
    wanted = ", ".join(dict.fromkeys(route.role for route in routes)) or "any role of the routing rules"
    return NoRecipient("no_contact", f"Nobody holds the role {wanted} on this day.")


def _what_is_wrong(contact: Contact) -> str:
    if not contact.email:
        return "has no address"
    if contact.suppressed:
        return f"is not written to: {contact.suppressed}"
    return "" if is_valid_address(contact.email) else "has an address that is no address"


@functools.lru_cache(maxsize=256)
def _role_words(role: str, rule_id: str, version: int) -> str:
    return f"holds the role {role} on this day (routing rule {rule_id}, version {version})"


def _because(route: Route, place: int, count: int, passed: Sequence[str]) -> str:
    reason = _role_words(route.role, route.rule_id, route.version)
    if count == 1 and not passed:
        return reason
    if count > 1:
        reason += f", number {place} of {count} in it"
    return reason + (f"; passed over: {'; '.join(passed)}" if passed else "")
