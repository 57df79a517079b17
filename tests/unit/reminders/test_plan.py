"""What is decided about one customer: steps and their days, what stands in the way, and what never happens."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.reminders.facts import Contact, Customer, Hold
from tasks.reminders.plan import Decision
from tasks.reminders.rulebook import LEVEL
from tests.reminding import (
    CALENDAR,
    PAYER,
    as_if_sent,
    customer,
    decide,
    decided,
    mails_of,
    owed,
    shipped_rules,
)

MONDAY = date(2012, 4, 2)  # due; Poland keeps Easter Monday on the 9th, no Good Friday
LATER = date(2012, 6, 1)


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def test_the_ladder_is_climbed_on_its_days() -> None:
    """An unpaid item is noticed before its due date, then reminded three times, each on the first possible day."""
    assert mails_of(customer(owed(1, MONDAY)), _days(date(2012, 3, 20), date(2012, 7, 1))) == [
        (date(2012, 3, 28), "upcoming", 1),
        (date(2012, 4, 5), "first", 1),
        (date(2012, 4, 16), "second", 1),
        (date(2012, 5, 2), "final", 1),
    ]


@pytest.mark.parametrize(
    ("back_on", "expected"),
    [
        # One day missed: the first reminder goes out the day after.
        (date(2012, 4, 6), [(date(2012, 4, 6), "first"), (date(2012, 4, 16), "second"), (date(2012, 5, 2), "final")]),
        # A week missed: the same; the second follows on its own day, since seven days lie between.
        (date(2012, 4, 12), [(date(2012, 4, 12), "first"), (date(2012, 4, 19), "second"), (date(2012, 5, 2), "final")]),
        # A month missed: one step at a time, a week between two mails.
        (date(2012, 5, 8), [(date(2012, 5, 8), "first"), (date(2012, 5, 15), "second"), (date(2012, 5, 22), "final")]),
    ],
)
def test_a_missed_day_week_or_month_is_caught_up_one_step_at_a_time(
    back_on: date, expected: list[tuple[date, str]]
) -> None:
    """With spread no step is left out and none comes sooner after another than the policy says."""
    sent = mails_of(customer(owed(1, MONDAY)), _days(back_on, date(2012, 7, 1)))
    assert [(day, stage) for day, stage, _ in sent] == expected


def test_latest_steps_over_what_was_missed() -> None:
    """With latest a run after a month sends the newest step that is due, and never goes back to an older one."""
    changed = {name: {"missed": "latest"} for name in ("standard_first", "standard_second", "standard_final")}
    rules = shipped_rules(reminder_stage=changed)
    sent = mails_of(customer(owed(1, MONDAY)), _days(date(2012, 5, 8), date(2012, 7, 1)), rules)
    assert sent == [(date(2012, 5, 8), "final", 1)]


def test_skip_lets_old_steps_go() -> None:
    """With skip a step whose day is longer past than the rule allows is not made up for."""
    rules = shipped_rules(reminder_stage={"standard_first": {"missed": "skip", "missed_after_days": 7}})
    sent = mails_of(customer(owed(1, MONDAY)), _days(date(2012, 4, 13), date(2012, 7, 1)), rules)
    assert [stage for _, stage, _ in sent] == ["second", "final"]


def test_a_stage_repeats_as_often_as_its_rule_says() -> None:
    """The final notice of the firm ladder comes three times, two weeks apart, each under its own number."""
    sent = mails_of(customer(owed(1, MONDAY), payer_class="disloyal"), _days(date(2012, 4, 25), date(2012, 8, 1)))
    finals = [(day, sequence) for day, stage, sequence in sent if stage == "final"]
    assert [sequence for _, sequence in finals] == [1, 2, 3]
    assert all(later - earlier >= timedelta(days=14) for (earlier, _), (later, _) in pairwise(finals))


def test_a_due_date_on_a_day_off_counts_as_the_next_working_day() -> None:
    """Due on Easter Sunday: Tuesday is the due day, and nothing is overdue for the ladder on that Tuesday."""
    found = decided(customer(owed(1, date(2012, 4, 8), level=0, sequence=1, reminded_on=MONDAY)), date(2012, 4, 10))
    assert (found.decision, found.reason_code) == ("nothing", "nothing_due")
    assert found.figures["next_step_on"] == "2012-04-13"


def test_one_mail_for_all_items_and_the_highest_stage_sets_its_tone() -> None:
    """Items at different steps go into one mail; each reserves its own stage; the others are shown."""
    who = customer(
        owed(1, MONDAY - timedelta(days=40), level=2, sequence=1, reminded_on=MONDAY),
        owed(2, MONDAY),
        owed(3, LATER - timedelta(days=1)),
        owed(4, LATER + timedelta(days=5), level=0, sequence=1, reminded_on=LATER),
    )
    found = decided(who, LATER)
    assert (found.decision, found.stage, found.sequence) == ("remind", "final", 1)
    assert [(item.invoice_id, item.stage) for item in found.reserved] == [(1, "final"), (2, "first")]
    assert (found.figures["also_open"], found.figures["due_soon"]) == ([3], [4])
    assert found.needs_approval


def test_credits_are_taken_off_per_currency() -> None:
    """A credit lowers what is due in its own currency only; where it covers all, nobody is reminded of it."""
    assert decided(customer(owed(1, MONDAY), owed(2, MONDAY, "-100.00")), LATER).reason_code == "covered_by_credits"
    assert decided(customer(owed(1, MONDAY), owed(2, MONDAY, "-95.01")), LATER).reason_code == "below_minimum"
    assert decided(customer(owed(1, MONDAY), owed(2, MONDAY, "-95.00")), LATER).decision == "remind"
    mixed = decided(customer(owed(1, MONDAY), owed(2, MONDAY, "90", "PLN"), owed(3, MONDAY, "-100")), LATER)
    assert mixed.decision == "remind"
    assert [item.currency for item in mixed.reserved] == ["PLN"]


def test_unmatched_money_holds_back_what_it_may_pay() -> None:
    """Money that came in and may pay all that is due holds; less than that is shown and the mail goes out."""
    who = customer(owed(1, MONDAY))
    held = decided(who._replace(unmatched={"EUR": Decimal("100")}), LATER)
    assert (held.decision, held.reason_code) == ("hold", "unmatched_money")
    shown = decided(who._replace(unmatched={"EUR": Decimal("99.99"), "PLN": Decimal(500)}), LATER)
    assert (shown.decision, shown.figures["unmatched"]) == ("remind", {"EUR": "99.99", "PLN": "500.00"})


@pytest.mark.parametrize(
    ("hold", "code"),
    [
        (Hold(1, "do_not_remind", None, None, ""), "do_not_remind"),
        (Hold(1, "legal_hold", None, None, ""), "legal_hold"),
        (Hold(1, "promise_to_pay", None, LATER, ""), "promise_to_pay"),
        (Hold(1, "promise_to_pay", 1, LATER, ""), "promise_to_pay"),
        (Hold(1, "dispute", 1, None, ""), "dispute"),
    ],
)
def test_a_hold_holds(hold: Hold, code: str) -> None:
    """A hold on the customer or on the only overdue item means no mail, and is named."""
    found = decided(customer(owed(1, MONDAY), holds=(hold,)), LATER)
    assert (found.decision, found.reason_code, found.reserved) == ("hold", code, ())


def test_a_promise_ends_by_itself_and_is_noted_when_broken() -> None:
    """On its last day a promise holds; the day after the reminder goes out and says that it was not kept."""
    who = customer(owed(1, MONDAY), holds=(Hold(1, "promise_to_pay", None, LATER - timedelta(days=1), ""),))
    assert decided(who, LATER - timedelta(days=1)).decision == "hold"
    found = decided(who, LATER)
    assert (found.decision, found.figures["broken_promise"]) == ("remind", "2012-05-31")
    assert "was not kept" in found.reason


def test_a_promise_is_not_called_broken_for_what_it_never_spoke_of() -> None:
    """Paid in time it is kept, though other items fall due later; a newer promise takes the place of an older one."""
    ended = Hold(1, "promise_to_pay", None, LATER - timedelta(days=60), "")
    later_item = customer(owed(2, LATER - timedelta(days=30)), owed(3, MONDAY, "-5.00"), holds=(ended,))
    assert "broken_promise" not in decided(later_item, LATER).figures
    still_open = later_item._replace(items=(*later_item.items, owed(1, LATER - timedelta(days=60))))
    assert decided(still_open, LATER).figures["broken_promise"] == "2012-04-02"
    anew = still_open._replace(holds=(ended, Hold(2, "promise_to_pay", 1, LATER, "")))
    assert "broken_promise" not in decided(anew, LATER).figures
    anew = still_open._replace(holds=(ended, Hold(2, "promise_to_pay", None, LATER, "")))
    assert (found := decided(anew, LATER)).reason_code == "promise_to_pay"
    assert "broken_promise" not in found.figures


def test_disputed_and_unknown_items_are_left_out_and_the_rest_is_reminded() -> None:
    """A dispute, and a mail of which nobody knows whether it arrived, block their own items and no other."""
    who = customer(owed(1, MONDAY, disputed=True), owed(2, MONDAY, unknown=True, level=1, sequence=1), owed(3, MONDAY))
    found = decided(who, LATER)
    assert ([item.invoice_id for item in found.reserved], found.figures["held_ids"]) == ([3], [1, 2])


def test_a_stale_ledger_reminds_nobody() -> None:
    """Ten days are allowed, eleven are not, and a source that never spoke is older than any."""
    who = customer(owed(1, MONDAY))
    assert decided(who, LATER, fresh={"ledger": LATER - timedelta(days=10)}).decision == "remind"
    assert decided(who, LATER, fresh={"ledger": LATER - timedelta(days=11)}).reason_code == "stale_data"
    assert decided(who, LATER, fresh={}).reason_code == "stale_data"


def test_timing_between_mails_and_days_off() -> None:
    """No mail within the policy's days of the last one, none over the cap, none on a day off, none while one waits."""
    who = customer(owed(1, MONDAY))
    assert decided(who._replace(mailed_on=(LATER - timedelta(days=6),)), LATER).reason_code == "resting"
    assert decided(who._replace(mailed_on=(LATER - timedelta(days=7),)), LATER).decision == "remind"
    assert decided(who, date(2012, 6, 2)).reason_code == "not_working_day"
    assert decided(who._replace(waiting=MONDAY), LATER).reason_code == "queued"
    often = shipped_rules(reminder_policy={"standard": {"minimum_days_between": 1}})
    capped = who._replace(mailed_on=(LATER - timedelta(days=2), LATER - timedelta(days=6)))
    assert decided(capped, LATER, often).reason_code == "capped"


def test_the_person_is_found_by_rank_and_named_with_the_reason() -> None:
    """The first usable address of the best role is written to; without one there is a task and no mail."""
    who = customer(owed(1, MONDAY, level=2, sequence=1, reminded_on=MONDAY))
    manager = Contact(9, "manager@customer.example.com", "sv", "manager")
    broken = Contact(3, "payments@customer", "", "payments")
    bounced = PAYER._replace(contact_id=5, suppressed="hard_bounce since 2012-05-01")
    chosen = decided(who._replace(contacts=(broken, bounced, PAYER, manager)), LATER)
    assert (chosen.contact_id, chosen.language) == (7, "pl")
    assert chosen.recipient_reason is not None
    assert "contact 3" in chosen.recipient_reason
    assert "contact 5" in chosen.recipient_reason
    assert decided(who._replace(contacts=(broken, manager)), LATER).contact_id == 9
    first = who._replace(items=(owed(1, MONDAY),))
    assert decided(first._replace(contacts=(broken, manager)), LATER).reason_code == "no_valid_address"
    nobody = decided(first._replace(contacts=(manager,)), LATER)
    assert (nobody.decision, nobody.reason_code, nobody.reserved) == ("task", "no_contact", ())


def test_norwegian_is_written_as_bokmaal() -> None:
    """Language codes no and nn mean the templates of nb; the contact's own language comes before the customer's."""
    who = customer(owed(1, MONDAY), language="no")
    assert decided(who, LATER).language == "nb"
    assert decided(who._replace(contacts=(PAYER._replace(language="en"),)), LATER).language == "en"
    assert decided(who._replace(language=""), LATER).language == "en"


# --- what holds for every customer --------------------------------------------------------------------------------

FIRST_DAY = date(2012, 1, 2)
_items = st.lists(
    st.tuples(
        st.integers(-20, 60),
        st.decimals(min_value="-300", max_value="900", places=2).filter(lambda amount: amount != 0),
        st.sampled_from(["EUR", "PLN", "BGN"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)
_who = st.builds(
    lambda items, country, payer_class, segment: customer(
        *(
            owed(number, FIRST_DAY + timedelta(days=days), amount, currency, disputed=disputed and amount > 0)
            for number, (days, amount, currency, disputed) in enumerate(items, start=1)
        ),
        country=country,
        payer_class=payer_class,
        segment=segment,
    ),
    _items,
    st.sampled_from(["BG", "PL", "NO", "SE", "DE", ""]),
    st.sampled_from(["strict", "hesitant", "disloyal", "unrated"]),
    st.sampled_from(["", "public", "retail"]),
)
_runs = st.lists(st.integers(0, 150), min_size=1, max_size=60, unique=True).map(sorted)


def _play(who: Customer, runs: list[int]) -> list[tuple[date, Customer, Decision | None]]:
    played = []
    for day in (FIRST_DAY + timedelta(days=n) for n in runs):
        decision = decide(who, day)
        played.append((day, who, decision))
        if decision is not None and decision.decision == "remind":
            who = as_if_sent(who, decision, day)
    return played


@given(who=_who, runs=_runs)
def test_levels_only_rise_and_nothing_is_said_twice(who: Customer, runs: list[int]) -> None:
    """Whatever days are missed: no invoice gets a step twice, levels only rise, disputes and credits get none."""
    said: set[tuple[int, str, int]] = set()
    level: dict[int, tuple[int, int]] = {}
    mails: list[date] = []
    for day, before, decision in _play(who, runs):
        overdue = {i.invoice_id for i in before.items if i.open_amount > 0 and i.due_on < day}
        assert (decision is not None) >= bool(overdue)
        if decision is None:
            continue
        for item in decision.reserved:
            step = (item.invoice_id, item.stage, item.sequence)
            assert step not in said
            said.add(step)
            assert (LEVEL[item.stage], item.sequence) > level.get(item.invoice_id, (-1, 0))
            level[item.invoice_id] = (LEVEL[item.stage], item.sequence)
            known = next(i for i in before.items if i.invoice_id == item.invoice_id)
            assert known.open_amount == item.open_amount > 0
            assert not known.disputed
        if decision.decision == "remind":
            mails.append(day)
            assert CALENDAR.is_working_day(who.country, day)
    assert all((later - earlier).days >= 7 for earlier, later in pairwise(mails))


@given(who=_who, run=st.integers(0, 150), data=st.data())
def test_the_order_of_facts_plays_no_part(who: Customer, run: int, data: st.DataObject) -> None:
    """Items and contacts in any order give the same decision."""
    day = FIRST_DAY + timedelta(days=run)
    shuffled = who._replace(items=tuple(data.draw(st.permutations(who.items))))
    assert decide(shuffled, day) == decide(who, day)


@given(who=_who, run=st.integers(0, 150))
def test_money_is_exact_and_currencies_never_meet(who: Customer, run: int) -> None:
    """Sums in figures are those of the items, currency by currency, to the last digit."""
    day = FIRST_DAY + timedelta(days=run)
    decision = decide(who, day)
    if decision is None:
        return
    sums: dict[str, Decimal] = {}
    for item in who.items:
        if item.open_amount > 0 and item.due_on < day:
            sums[item.currency] = sums.get(item.currency, Decimal(0)) + item.open_amount
    assert {currency: Decimal(text) for currency, text in decision.figures["overdue"].items()} == sums
    assert set(decision.figures.get("credits", {})) <= {item.currency for item in who.items if item.open_amount < 0}
