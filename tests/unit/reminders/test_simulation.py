"""What another set of rules would have done: told customer by customer, and from the facts of that day alone."""

from __future__ import annotations

from datetime import date, timedelta

from tasks.reminders.simulation import Mail, Played, compare_mails, count_changes
from tests.reminding import CALENDAR, RULES, customer, owed, shipped_rules
from tests.unit.reminders.test_plan import MONDAY

DAY = date(2012, 4, 5)


def _mail(customer_id: int, days: int, stage: str = "first", email: str = "a@b.example") -> Mail:
    return Mail(DAY + timedelta(days=days), customer_id, stage, 1, email, "en", ((customer_id, stage, 1),))


def test_each_kind_of_difference_is_told_with_its_mails() -> None:
    """More, fewer, earlier, later, other; who would have had the same is not named."""
    before = [_mail(1, 0), _mail(2, 0), _mail(2, 7), _mail(3, 4), _mail(4, 4), _mail(5, 0), _mail(6, 0)]
    after = [_mail(1, 0), _mail(1, 9), _mail(2, 7), _mail(3, 1), _mail(4, 6), _mail(5, 0, "second"), _mail(6, 0)]
    found = compare_mails(before, after[::-1])
    assert [(one.organization_id, one.change) for one in found] == [
        (1, "more"), (2, "fewer"), (3, "earlier"), (4, "later"), (5, "other"),
    ]  # fmt: skip
    assert found[0].details == "first 2012-04-05 -> first 2012-04-05, first 2012-04-14"
    assert [kind.change for kind in compare_mails([_mail(1, 0)], [_mail(1, 0, email="c@d.example")])] == ["other"]
    assert list(count_changes(found)) == [(kind, 1) for kind in ("more", "fewer", "earlier", "later", "other")]


def test_two_sets_are_played_on_the_same_facts() -> None:
    """Mails of the days before count as sent, under each set its own; a later first reminder moves all that follows."""
    who = customer(owed(1, MONDAY), country="")
    later = shipped_rules(reminder_stage={"standard_first": {"offset_days": 6}})
    played = []
    for rules in (RULES, later):
        days = Played()
        for place in range(20):
            day = MONDAY + timedelta(days=place)
            days.play([who], rules, CALENDAR, day, {"ledger": day})
        played.append([(mail.stage, (mail.day - MONDAY).days) for mail in days.mails])
    assert played == [[("first", 3), ("second", 14)], [("first", 8), ("second", 15)]]
    assert who.mailed_on == ()
