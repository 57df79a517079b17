"""The letter that a cleared mail becomes: one digest of everything the customer is to know, in the customer's language.

Sums never cross currencies, and each currency has its own total. Names, numbers and notes come from outside: they are
shown on one line, escaped in HTML, and never decide who is written to.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from babel import Locale
from babel.dates import format_date
from babel.numbers import format_currency

from tasks.errors import BadInput
from tasks.letters import Enclosure, Letter, Mailbox, checked_address, one_line
from tasks.reminders.facts import Item
from tasks.reminders.fees import find_claims
from tasks.reminders.rulebook import RuleBook
from tasks.reminders.sending.gate import OpenItem
from tasks.reminders.sending.printed_statement import printed_statement
from tasks.reminders.sending.queue_store import Cleared
from tasks.reminders.sending.statement import statement
from tasks.reminders.sending.templates import Templates, Words

# What fits on a page; whoever owes more gets the whole list as a file.
MOST_ROWS = 40
_DEADLINE_DAYS = (
    14  # fourteen days to pay, as the Norwegian inkassoloven § 9 asks of a final notice; the others ask less
)
_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@dataclass(frozen=True)
class Office:
    """Who writes: the sender's name, and where answers go when the customer's owner has no address."""

    company: str
    sender: Mailbox
    reply_to: Mailbox


@dataclass(frozen=True)
class _Section:
    title: str
    late: bool
    rows: Sequence[Mapping[str, str]]
    totals: Sequence[str]
    more: str


def compose(
    mail: Cleared, templates: Templates, office: Office, day: date, now: datetime, rules: RuleBook | None = None
) -> Letter:
    """The letter for a cleared mail; ``day`` is the business day it speaks of, ``now`` the instant it bears.

    With ``rules`` it names what the law lets us claim for late payment, where the rule of the country says so.

    Raises:
        UsageError: there is no such template, or it has a mistake.
        BadInput: the address cannot be written to.
    """
    language = templates.language_for(mail.language, mail.template)
    words = templates.words(language)
    enclosed = mail.attachment != "none" or _rows(mail) > MOST_ROWS
    written = templates.write(language, mail.template, _context(mail, words, office, day, rules))
    reply_to = _reply_to(mail, office)
    return Letter(
        to=(Mailbox(mail.recipient.email, f"{mail.recipient.first_name} {mail.recipient.last_name}".strip()),),
        cc=(Mailbox(mail.cc),) if mail.cc else (),
        reply_to=reply_to,
        subject=written.subject,
        html=written.html,
        text=written.text,
        message_id=mail.message_id,
        dated=now,
        references=(mail.thread,) if mail.thread else (),
        headers=_headers(mail, reply_to),
        attachments=(_enclosure(mail, words, office, day),) if enclosed else (),
    )


def _context(mail: Cleared, words: Words, office: Office, day: date, rules: RuleBook | None) -> dict[str, Any]:
    locale = words.locale
    name = one_line(f"{mail.recipient.first_name} {mail.recipient.last_name}".strip(), 120)
    count = len(mail.kept)
    return {
        "greeting": words.greeting_named.format(name=name) if name else words.greeting,
        "company": office.company,
        "customer_number": one_line(mail.customer_number, 80),
        "items": words.count("items", count),
        "items_of": words.count("items_of", count),
        "sums": ", ".join(_money(amount, currency, locale) for currency, amount in _sums(mail.kept).items()),
        "deadline": _day(day + timedelta(days=_DEADLINE_DAYS), locale),
        "repeat": words.repeat.format(n=mail.sequence) if mail.sequence > 1 else "",
        "sections": _sections(mail, words, day),
        "lines": [*_lines(mail, words), *_claims(mail, words, day, rules)],
        "stage": mail.stage,
    }


def _sections(mail: Cleared, words: Words, day: date) -> list[_Section]:
    """What is asked for first, then what belongs to the picture, each with a total per currency."""
    upcoming = tuple(item for item in mail.kept if item.due_on >= day)
    overdue = tuple(item for item in mail.kept if item.due_on < day)
    parts = (
        ("overdue_title", overdue, True),
        ("upcoming_title", upcoming, False),
        ("also_open_title", mail.also_open, True),
        ("due_soon_title", mail.due_soon, False),
        ("credits_title", mail.credits, False),
    )
    return [_section(words, str(words.texts[title]), items, late, day) for title, items, late in parts if items]


def _section(words: Words, title: str, items: Sequence[OpenItem], late: bool, day: date) -> _Section:
    locale, hidden = words.locale, max(len(items) - MOST_ROWS, 0)
    rows = [
        {
            "number": one_line(item.invoice_number, 60),
            "issued": _day(item.issued_on, locale) if item.issued_on else "",
            "due": _day(item.due_on, locale),
            "days": words.count("days", (day - item.due_on).days) if late else "",
            "open": _money(item.open_amount, item.currency, locale),
        }
        for item in items[:MOST_ROWS]
    ]
    totals = [_money(amount, currency, locale) for currency, amount in _sums(items).items()]
    return _Section(title, late, rows, totals, words.more.format(n=hidden) if hidden else "")


def _lines(mail: Cleared, words: Words) -> list[str]:
    """What is left after credits, and what came in and has not found its invoice, per currency."""
    lines = []
    if mail.credits:
        due, credit = _sums([*mail.kept, *mail.also_open]), _sums(mail.credits)
        for currency in sorted(due.keys() & credit.keys()):
            left = _money(due[currency] + credit[currency], currency, words.locale)
            lines.append(words.balance.format(sum=left))
    for currency in sorted(mail.unmatched):
        lines.append(words.unmatched.format(sum=_money(mail.unmatched[currency], currency, words.locale)))
    return lines


def _claims(mail: Cleared, words: Words, day: date, rules: RuleBook | None) -> list[str]:
    """What the law lets us claim on this day for what is asked for, with its source; shown, never booked."""
    if rules is None or mail.stage == "upcoming":
        return []
    overdue = [
        Item(one.invoice_id, one.source, False, one.due_on, one.currency, one.open_amount, False)
        for one in (*mail.kept, *mail.also_open)
        if one.due_on < day
    ]
    claims = find_claims(rules, mail.country, mail.stage, overdue, day)
    return [
        str(words.texts[f"claim_{claim.kind}"]).format(
            sum=_money(claim.amount, claim.currency, words.locale), source=one_line(claim.legal_source)
        )
        for claim in claims
    ]


def _rows(mail: Cleared) -> int:
    return max(map(len, (mail.kept, mail.also_open, mail.due_soon, mail.credits)))


def _sums(items: Iterable[OpenItem]) -> dict[str, Decimal]:
    """Open amounts per currency, by currency; sums of different currencies are never added."""
    sums: dict[str, Decimal] = {}
    for item in items:
        sums[item.currency] = sums.get(item.currency, Decimal(0)) + item.open_amount
    return dict(sorted(sums.items()))


@functools.lru_cache(maxsize=65_536)
def _money(amount: Decimal, currency: str, locale: Locale) -> str:
    return str(format_currency(amount, currency, locale=locale))


@functools.lru_cache(maxsize=8_192)
def _day(day: date, locale: Locale) -> str:
    return str(format_date(day, "medium", locale=locale))


def _reply_to(mail: Cleared, office: Office) -> Mailbox:
    """The customer's owner where it is an address, else the office."""
    if "@" in mail.owner:
        try:
            return Mailbox(checked_address(mail.owner.strip()))
        except BadInput:
            return office.reply_to
    return office.reply_to


def _headers(mail: Cleared, reply_to: Mailbox) -> tuple[tuple[str, str], ...]:
    """A notice before the due date is a courtesy that may be declined; a reminder of what is overdue is not."""
    if mail.stage != "upcoming":
        return ()
    return (("List-Unsubscribe", f"<mailto:{reply_to.email}?subject=unsubscribe%20{mail.reminder_id}>"),)


def _enclosure(mail: Cleared, words: Words, office: Office, day: date) -> Enclosure:
    """The statement in the form that the rule asks for; a list too long for the letter comes as a workbook."""
    items = (*mail.kept, *mail.also_open, *mail.due_soon, *mail.credits)
    if mail.attachment == "pdf":
        number = f"{words.customer_number}: {one_line(mail.customer_number, 80)}"
        content = printed_statement(items, words, day, (one_line(office.company, 80), number))
        return Enclosure(f"{words.statement}_{day}.pdf", content, "application/pdf")
    return Enclosure(f"{words.statement}_{day}.xlsx", statement(items, words, day), _XLSX)
