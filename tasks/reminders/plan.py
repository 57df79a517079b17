"""What to do about each customer on a day: remind, nothing, hold, or a task for a person, each with its reason.

A pure function of facts, rules, calendar and day. The order of the customers plays no part, nothing is counted up, and
currencies are never added together. The first question that is answered "no" is the reason:

    1  is there a rule, and does it remind such customers?         no_policy, policy_silent
    2  does a person or a law hold the customer back?              legal_hold, do_not_remind, promise_to_pay, …
    3  is the ledger fresh enough to be believed?                  stale_data
    4  is a mail to this customer still in the queue?              queued
    5  is any item due for a step that it has not had?             nothing_due, or the hold that its items are under
    6  is anything left of it, per currency, after credits,        covered_by_credits, unmatched_money,
       unmatched money and the least sum worth a mail?             below_minimum
    7  is the customer past the policy's own grace?                within_grace
    8  do people work there today?                                 not_working_day
    9  has enough time passed since the last mail?                 resting, capped
    10 is there somebody to write to?                              no_contact, no_valid_address: a task, no mail

Example: due Monday 2 April 2012, Poland, first reminder after 3 working days: it is planned on Thursday 5 April. A run
that is missed until Friday 13 April sends the same first reminder then; on the 14th, a Saturday, none leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from tasks.reminders import wording
from tasks.reminders.calendar import Calendar
from tasks.reminders.facts import Contact, Customer, Item
from tasks.reminders.fees import find_claims
from tasks.reminders.routing import NoRecipient, find_recipient
from tasks.reminders.rulebook import Policy, RuleBook, Stage
from tasks.reminders.sorting import (
    GRAVITY,
    ZERO,
    Sorted,
    as_texts,
    broken_promise,
    customer_hold,
    sort_items,
)
from tasks.reminders.stages import Step, next_step_day
from tasks.reminders.terms import AllTerms, Terms


class Reserved(NamedTuple):
    """An item that a mail takes a step further; this stage and sequence is used up by it, for ever."""

    invoice_id: int
    stage: str
    sequence: int
    currency: str
    open_amount: Decimal
    due_on: date


class Decision(NamedTuple):
    """What was decided about one customer. ``reserved`` is empty unless the decision is ``remind``.

    ``figures`` are sums as text per currency, ids, days: what the reason is made of, ready for JSON.
    """

    organization_id: int
    decision: str
    reason_code: str
    reason: str
    invoice_ids: tuple[int, ...]
    figures: Mapping[str, Any]
    rule_id: str | None = None
    rule_version: int | None = None
    stage: str | None = None
    sequence: int | None = None
    contact_id: int | None = None
    recipient_email: str | None = None
    recipient_reason: str | None = None
    language: str | None = None
    reserved: tuple[Reserved, ...] = ()
    template: str | None = None
    cc: str | None = None
    attachment: str = "none"
    needs_approval: bool = False
    owner: str = ""


class _No(NamedTuple):
    """Why there is no mail."""

    decision: str
    code: str
    reason: str
    more: Mapping[str, Any] = {}


def plan_reminders(
    customers: Iterable[Customer], rules: RuleBook, calendar: Calendar, as_of: date, fresh: Mapping[str, date]
) -> Iterator[Decision]:
    """Exactly one decision for every customer with an overdue item, or with one due for a notice beforehand.

    ``fresh`` names the newest day that each source of items has spoken about. Customers come and go one by one, so a
    million items need no memory.
    """
    day = Planner(rules, calendar, as_of, fresh)
    for customer in customers:
        decision = day.decide(customer)
        if decision is not None:
            yield decision


class Planner:
    """Decides for one customer after the other under the same rules, calendar and day."""

    def __init__(self, rules: RuleBook, calendar: Calendar, as_of: date, fresh: Mapping[str, date]) -> None:
        self._rules, self._calendar, self._as_of = rules, calendar, as_of
        self._terms = AllTerms(rules, calendar, as_of, fresh)

    def decide(self, customer: Customer) -> Decision | None:
        """The decision about this customer; None where nothing is overdue and nothing falls due for a notice."""
        terms = self._terms.of(customer)
        policy = terms.policy
        found = sort_items(customer, terms.steps, self._as_of, terms.soon)
        if not found.overdue and not found.steps:
            return None
        if policy is None:
            no_policy = _No("nothing", "no_policy", "No policy speaks of this customer.")
            return self._nothing(customer, found, None, no_policy)
        no = self._hindrance(customer, terms, policy, found)
        if no is not None:
            return self._nothing(customer, found, policy, no)
        steps, no = self._worth_a_mail(customer, terms, found)
        if no is None:
            no = self._untimely(customer, terms, policy, steps)
        if no is not None:
            return self._nothing(customer, found, policy, no)
        return self._remind(customer, terms, policy, found, steps)

    # --- what may stand in the way ------------------------------------------------------------------------------------

    def _hindrance(self, customer: Customer, terms: Terms, policy: Policy, found: Sorted) -> _No | None:
        if not policy.remind:
            return _No("nothing", "policy_silent", f"Rule {policy.rule_id} does not remind such customers.")
        if customer.holds:
            hold = customer_hold(customer.holds, self._as_of)
            if hold is not None:
                return _No("hold", hold.kind, f"{wording.held(hold.kind, hold.until)}.", {"hold_id": hold.hold_id})
        for item in customer.items:
            stale = terms.stale[item.source]
            if stale is not None:
                return _No("hold", "stale_data", stale, {"source": item.source, "age_days": self._age_of(item)})
        if customer.waiting is not None:
            return _No("nothing", "queued", f"A mail planned on {customer.waiting} has not left the queue yet.")
        if not found.steps:
            return self._no_step(customer, terms, found)
        return None

    def _age_of(self, item: Item) -> int | None:
        return self._terms.age_of(item.source)

    def _no_step(self, customer: Customer, terms: Terms, found: Sorted) -> _No:
        if found.held and not found.waiting:
            _, kind, until = min(found.held, key=lambda held: (GRAVITY.index(held[1]), held[0].invoice_id))
            return _No("hold", kind, f"{wording.held(kind, until, len(found.held))}; nothing else is overdue.")
        coming = [
            step
            for item in found.waiting
            if (step := next_step_day(self._calendar, customer.country, terms.ladder, item, self._as_of)) is not None
        ]
        if not coming:
            return _No(
                "nothing", "ladder_ended", "Every step of the ladder has been taken; a person goes on from here."
            )
        day, stage = min(coming)
        reason = f"No step is due today; the next is {stage} on {day}."
        return _No("nothing", "nothing_due", reason, {"next_step_on": str(day), "next_stage": stage})

    def _worth_a_mail(
        self, customer: Customer, terms: Terms, found: Sorted
    ) -> tuple[list[tuple[Item, Step]], _No | None]:
        """The steps in currencies in which something worth a mail is left, and why there are none, if so."""
        owed = found.owed
        refused: dict[str, _No] = {}
        for currency in owed if len(owed) == 1 else sorted(owed):
            no = self._too_little(customer, terms, currency, owed[currency], found.credits.get(currency, ZERO))
            if no is not None:
                refused[currency] = no
        if not refused:
            return found.steps, None
        steps = [pair for pair in found.steps if pair[0].currency not in refused]
        if steps:
            return steps, None
        gravest = min(refused.values(), key=lambda no: (no.decision != "hold", no.code))
        return [], gravest._replace(reason=" ".join(no.reason for no in refused.values()))

    def _too_little(self, customer: Customer, terms: Terms, currency: str, due: Decimal, credit: Decimal) -> _No | None:
        left = due - credit
        if left <= ZERO:
            words = f"Open credits of {wording.money(currency, credit)} cover the {wording.money(currency, due)} due."
            return _No("nothing", "covered_by_credits", words)
        unmatched = customer.unmatched.get(currency, ZERO)
        if unmatched >= left:
            came = wording.money(currency, unmatched)
            words = f"{came} came in and has not been matched yet; it may pay the {wording.money(currency, left)} due."
            return _No("hold", "unmatched_money", words)
        least = terms.least[currency]
        if left < least:
            words = f"{wording.money(currency, left)} is less than the {wording.money(currency, least)} worth a mail."
            return _No("nothing", "below_minimum", words)
        return None

    def _untimely(self, customer: Customer, terms: Terms, policy: Policy, steps: list[tuple[Item, Step]]) -> _No | None:
        as_of = self._as_of
        if policy.grace_days:  # what is due for a reminder is a day late at least, so that no grace lets all pass
            oldest = min([item.due_on for item, step in steps if step.rule.stage != "upcoming"], default=None)
            if oldest is not None and (late := (as_of - oldest).days) <= policy.grace_days:
                reason = f"{late} days overdue at most; rule {policy.rule_id} grants {policy.grace_days}."
                return _No("nothing", "within_grace", reason)
        if not terms.works_today:
            day = self._calendar.next_working_day(customer.country, as_of)
            where = customer.country or "a country not known"
            return _No("nothing", "not_working_day", f"{as_of} is no working day in {where}; the next is {day}.")
        return self._too_soon(customer, policy) if customer.mailed_on else None

    def _too_soon(self, customer: Customer, policy: Policy) -> _No | None:
        last = max(customer.mailed_on)
        rested = (self._as_of - last).days
        if rested < policy.minimum_days_between:
            day = last + timedelta(days=policy.minimum_days_between)
            reason = (
                f"The last mail is of {last}; the next may leave {policy.minimum_days_between} days later, on {day}."
            )
            return _No("nothing", "resting", reason)
        cap = self._rules.limit("customer_cap", customer.country)
        if cap is not None and cap.window_days is not None:
            count = sum((self._as_of - day).days < cap.window_days for day in customer.mailed_on)
            if count >= cap.threshold:
                reason = f"{count} mails in {cap.window_days} days (allowed {wording.number(cap.threshold)})."
                return _No("nothing", "capped", reason)
        return None

    # --- decisions ----------------------------------------------------------------------------------------------------

    def _remind(
        self, customer: Customer, terms: Terms, policy: Policy, found: Sorted, steps: list[tuple[Item, Step]]
    ) -> Decision:
        if len(steps) > 1:
            steps = sorted(steps, key=_by_due_date)
        rule, sequence = _highest(steps)
        recipient = find_recipient(customer.contacts, terms.routes[rule.stage])
        if isinstance(recipient, NoRecipient):
            return self._nothing(customer, found, policy, _No("task", recipient.code, recipient.reason))
        contact, because = recipient
        figures = self._figures(customer, found, steps, policy)
        if terms.claims[rule.stage]:
            figures |= self._claims(customer, found, steps, rule)
        reserved, needs_approval = _reserve(steps)
        # In the order of the fields: a name before each of twenty values costs more than all else in this function.
        return Decision(
            customer.organization_id,
            "remind",
            rule.stage,
            self._why(customer, found, steps, rule, sequence),
            tuple([item.invoice_id for item, _ in steps]),
            figures,
            rule.rule_id,
            rule.version,
            rule.stage,
            sequence,
            contact.contact_id,
            contact.email,
            because,
            _language(contact, customer, policy),
            reserved,
            rule.template,
            _carbon_copy(rule.cc, customer.owner),
            rule.attachment,
            needs_approval,
            customer.owner,
        )

    def _claims(self, customer: Customer, found: Sorted, steps: list[tuple[Item, Step]], rule: Stage) -> dict[str, Any]:
        """What the law lets us claim beside the sums; empty where it comes to nothing."""
        overdue = [item for item, _ in steps] + found.waiting
        claims = find_claims(self._rules, customer.country, rule.stage, overdue, self._as_of)
        return {"claims": [claim._asdict() | {"amount": f"{claim.amount:f}"} for claim in claims]} if claims else {}

    def _nothing(self, customer: Customer, found: Sorted, policy: Policy | None, no: _No) -> Decision:
        ids = sorted([item.invoice_id for item in found.overdue])
        return Decision(
            organization_id=customer.organization_id,
            decision=no.decision,
            reason_code=no.code,
            reason=no.reason,
            invoice_ids=tuple(ids),
            figures={**self._figures(customer, found, (), policy), **no.more},
            rule_id=policy.rule_id if policy is not None else None,
            rule_version=policy.version if policy is not None else None,
            owner=customer.owner,
        )

    def _why(
        self, customer: Customer, found: Sorted, steps: list[tuple[Item, Step]], rule: Stage, sequence: int
    ) -> str:
        due = found.owed if len(steps) == len(found.steps) and not found.waiting else _sum_of(steps)
        days = (self._as_of - steps[0][0].due_on).days  # steps come by due date
        when = f", overdue by up to {days} days" if days > 0 else ""
        words = [f"{wording.tone(rule.stage, sequence)} for {wording.items(len(steps))}, {wording.sums(due)}{when}."]
        if found.waiting:
            words.append(f"Also overdue: {wording.items(len(found.waiting))}.")
        if found.credits:
            words.append(f"Open credits of {wording.sums(found.credits)} are shown and taken off.")
        if found.held:
            words.append(f"Left out: {wording.items(len(found.held))} held back.")
        if customer.holds and (broken := broken_promise(customer, self._as_of)) is not None:
            words.append(f"A promise to pay by {broken} was not kept.")
        return " ".join(words)

    def _figures(
        self, customer: Customer, found: Sorted, steps: Sequence[tuple[Item, Step]], policy: Policy | None
    ) -> dict[str, Any]:
        figures: dict[str, Any] = {"overdue": as_texts(found.overdue_sums)}
        if found.overdue:
            figures["days_overdue"] = (self._as_of - min([item.due_on for item in found.overdue])).days
        if found.credits:
            figures["credits"], figures["credit_ids"] = as_texts(found.credits), sorted(found.credit_ids)
        if customer.unmatched:
            figures["unmatched"] = as_texts(customer.unmatched)
        if found.held:
            figures["held_ids"] = sorted(item.invoice_id for item, _, _ in found.held)
        if steps:
            also = [item.invoice_id for item in found.waiting]
            if len(steps) < len(found.steps):
                taken = {item.invoice_id for item, _ in steps}
                also += [item.invoice_id for item, _ in found.steps if item.invoice_id not in taken]
            figures["also_open"] = sorted(also)
            figures["due_soon"] = sorted([item.invoice_id for item in found.due_soon])
            figures["policy"] = policy.rule_id if policy is not None else None
        if customer.holds and (broken := broken_promise(customer, self._as_of)) is not None:
            figures["broken_promise"] = str(broken)
        return figures


def _by_due_date(step: tuple[Item, Step]) -> tuple[date, int]:
    return step[0].due_on, step[0].invoice_id


def _sum_of(steps: Sequence[tuple[Item, Step]]) -> dict[str, Decimal]:
    due: dict[str, Decimal] = {}
    for item, _ in steps:
        due[item.currency] = due.get(item.currency, ZERO) + item.open_amount
    return due


def _highest(steps: Sequence[tuple[Item, Step]]) -> Step:
    """The step that sets the tone: of the highest stage, of that the latest repeat."""
    best = steps[0][1]
    for _, step in steps:
        if step.rule is not best.rule or step.sequence != best.sequence:
            best = max(best, step, key=lambda one: (one.rule.level, one.sequence))
    return best


def _reserve(steps: Sequence[tuple[Item, Step]]) -> tuple[tuple[Reserved, ...], bool]:
    """What the mail uses up, and whether any of it waits for a person."""
    reserved, needs_approval = [], False
    for item, (rule, sequence) in steps:
        invoice_id, _, _, due_on, currency, amount, *_ = item
        reserved.append(Reserved(invoice_id, rule.stage, sequence, currency, amount, due_on))
        needs_approval = needs_approval or rule.needs_approval
    return tuple(reserved), needs_approval


def _language(contact: Contact, customer: Customer, policy: Policy) -> str:
    """The contact's language, else the customer's, else the policy's; Norwegian is written as nb."""
    found = contact.language or customer.language or policy.default_language
    return "nb" if found in ("no", "nn") else found


def _carbon_copy(rule: str | None, owner: str) -> str | None:
    """Who gets a copy: the rule's address, or the customer's owner where it says ``owner`` and that is an address."""
    if rule != "owner":
        return rule
    return owner if "@" in owner else None
