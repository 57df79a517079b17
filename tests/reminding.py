"""Helpers of tests about reminders: rules as shipped, customers and items made up in a line. They never assert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from data_contracts.tables import metadata
from tasks.reminders.calendar import Calendar
from tasks.reminders.facts import Contact, Customer, Item
from tasks.reminders.plan import Decision, Planner
from tasks.reminders.rulebook import RULE_TABLES, RuleBook, make_rulebook
from tasks.rules import SEEDS, read_seeds

CALENDAR = Calendar()
PAYER = Contact(7, "payments@customer.example.com", "", "payments")


def shipped_rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of the reminder rules that a new installation starts with, by table."""
    return {name: read_seeds(SEEDS / f"{name}.csv", metadata.tables[f"rules.{name}"]) for name in RULE_TABLES}


def shipped_rules(**changes: Mapping[str, Mapping[str, Any]]) -> RuleBook:
    """The shipped rule book; ``reminder_stage={"firm_first": {"missed": "latest"}}`` changes cells of single rules."""
    rows = shipped_rows()
    for table, rules in changes.items():
        for row in rows[table]:
            row.update(rules.get(row["rule_id"], {}))
    return make_rulebook(rows)


RULES = shipped_rules()


def owed(
    number: int, due_on: date, amount: object = "100.00", currency: str = "EUR", *, source: str = "ledger", **more: Any
) -> Item:
    """An open item; negative amounts are credits."""
    left = Decimal(str(amount))
    return Item(number, source, left < 0, due_on, currency, left, **({"disputed": False} | more))


def customer(*items: Item, number: str = "C1", **more: Any) -> Customer:
    """A customer in Poland of no particular kind, with one person for payments."""
    given: dict[str, Any] = {
        "country": "PL",
        "segment": "",
        "payer_class": "unrated",
        "language": "pl",
        "owner": "",
        "contacts": (PAYER,),
    }
    return Customer(1, number, items=tuple(items), **(given | more))


def decide(
    who: Customer, as_of: date, rules: RuleBook = RULES, fresh: Mapping[str, date] | None = None
) -> Decision | None:
    """The decision about one customer on a day; its ledgers are of that day unless told otherwise."""
    known = fresh if fresh is not None else {item.source: as_of for item in who.items}
    return Planner(rules, CALENDAR, as_of, known).decide(who)


def decided(who: Customer, as_of: date, rules: RuleBook = RULES, fresh: Mapping[str, date] | None = None) -> Decision:
    """The same, where there must be one."""
    found = decide(who, as_of, rules, fresh)
    if found is None:
        raise LookupError(f"no decision about {who.customer_number} on {as_of}")
    return found


def as_if_sent(who: Customer, decision: Decision, as_of: date) -> Customer:
    """The customer after the decision's mail has left on that day."""
    levels = {item.invoice_id: item for item in decision.reserved}
    order = ("upcoming", "first", "second", "final")
    items = tuple(
        item._replace(
            level=order.index(levels[item.invoice_id].stage),
            sequence=levels[item.invoice_id].sequence,
            reminded_on=as_of,
        )
        if item.invoice_id in levels
        else item
        for item in who.items
    )
    mailed = (as_of, *who.mailed_on) if decision.decision == "remind" else who.mailed_on
    return who._replace(items=items, mailed_on=mailed)


def mails_of(who: Customer, days: Sequence[date], rules: RuleBook = RULES) -> list[tuple[date, str, int]]:
    """The mails that runs on these days send, each as day, stage and sequence; every one as if sent."""
    sent = []
    for day in days:
        decision = decide(who, day, rules)
        if decision is not None and decision.decision == "remind":
            sent.append((day, str(decision.stage), int(decision.sequence or 0)))
            who = as_if_sent(who, decision, day)
    return sent
