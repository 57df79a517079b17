"""Payer classes: each boundary by a worked example with dates, and a history that is a function of the facts alone."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks import database
from tasks.errors import Refused, UsageError
from tasks.payments.classes import classify
from tasks.payments.overrides import clear_override, list_overrides, set_override
from tasks.payments.store import claim_classification
from tests.conftest import CAMPAIGN_FACTOR, empty_database, examples
from tests.ledgers import Books, item, write_csv

DAY = date(2026, 3, 31)
ONE_DAY = timedelta(days=1)


@dataclass
class Case:
    """A database to put facts into directly, inside a transaction that is rolled back."""

    connection: Connection
    file_id: int = 0
    customers: dict[str, int] = field(default_factory=dict)

    def ask(self, statement: str, **parameters: object) -> Any:
        """The first value of the first row."""
        return self.connection.scalar(text(statement), parameters)

    def file(self, as_of: date, mode: str = "ledger") -> int:
        """Register an applied file of that day, a ledger or a snapshot."""
        feed = {"ledger": "settled_items", "snapshot": "open_items"}[mode]
        run_id = self.ask(
            "insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id)"
            " values ('test', 'test', :as_of, false, 'test', 1) returning run_id",
            as_of=as_of,
        )
        self.file_id = self.ask(
            "insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode,"
            " file_name, sha256, byte_size, as_of, state, run_id) values ('test', '1', 'test', :feed, 'books', :mode,"
            " 'test', :sha256, 1, :as_of, 'applied', :run_id) returning feed_file_id",
            feed=feed,
            mode=mode,
            sha256=f"{mode} {as_of}",
            as_of=as_of,
            run_id=run_id,
        )
        return self.file_id

    def customer(self, number: str) -> int:
        """Make a customer known."""
        if number not in self.customers:
            self.customers[number] = self.ask(
                "insert into crm.organizations (customer_number, name, seen_as_of, feed_file_id)"
                " values (:number, 'A customer', :day, :file_id) returning organization_id",
                number=number,
                day=DAY,
                file_id=self.file_id,
            )
        return self.customers[number]

    def invoice(self, number: str, due: date, **more: object) -> int:
        """Insert an invoice of a customer; without ``listed_from`` only a ledger can say something of it."""
        values: dict[str, object] = {
            "customer": self.customer(number),
            "number": f"I-{self.ask('select count(*) from crm.invoices')}",
            "document_type": "invoice",
            "due": due,
            "currency": "EUR",
            "amount": Decimal(100),
            "disputed": False,
            "listed_from": None,
            "listed_until": None,
            "file_id": self.file_id,
        }
        return int(
            self.ask(
                "insert into crm.invoices (organization_id, source, invoice_number, document_type, issued_on, due_on,"
                " currency, amount, open_amount, disputed, listed_from, listed_until, feed_file_id)"
                " values (:customer, 'books', :number, :document_type, cast(:due as date) - 30, :due, :currency,"
                " :amount, :amount, :disputed, :listed_from, :listed_until, :file_id) returning invoice_id",
                **values | more,
            )
        )

    def entry(self, number: str, due: date, paid: date | None, **more: object) -> None:
        """Let the ledger of the newest file tell an invoice's life."""
        invoice_id = self.invoice(number, due, **more)
        self.connection.execute(
            text(
                "insert into crm.ledger_entries (invoice_id, as_of, document_type, issued_on, due_on, currency, amount,"
                " open_amount, disputed, settled_on, feed_file_id)"
                " select invoice_id, f.as_of, document_type, issued_on, due_on, currency, amount, open_amount,"
                " disputed, :paid, f.feed_file_id from crm.invoices i, landing.feed_files f"
                " where i.invoice_id = :invoice_id and f.feed_file_id = :file_id"
            ),
            {"paid": paid, "invoice_id": invoice_id, "file_id": self.file_id},
        )

    def paid_late(self, number: str, days: Sequence[int], due: date = DAY - timedelta(days=60), **more: object) -> None:
        """Let the customer have paid one invoice for each of these days of lateness."""
        for late in days:
            self.entry(number, due, due + timedelta(days=late), **more)

    def rules(self, *rows: dict[str, object]) -> None:
        """Put these rules in the place of the seeds."""
        self.connection.execute(text("delete from rules.payer_class"))
        for rank, row in enumerate(rows):
            self.connection.execute(text(_INSERT_RULE), _RULE | {"rank": rank, "rule_id": f"rule_{rank}"} | row)

    def history(self, number: str) -> list[tuple[date, str, str, int]]:
        """The customer's classes: since when, class, rule and version."""
        return [(r.valid_from, r.payer_class, r.rule_id, r.rule_version) for r in self.rows(number)]

    def rows(self, number: str) -> list[Any]:
        """The customer's history as it stands."""
        return list(
            self.connection.execute(
                text("select * from ops.payer_class_history where organization_id = :id order by valid_from"),
                {"id": self.customer(number)},
            )
        )

    def decide(self, *numbers: str, since: date = DAY) -> list[str]:
        """Classify and return the newest class of each of these customers."""
        classify(self.connection, since)
        return [rows[-1].payer_class if (rows := self.rows(number)) else "unrated" for number in numbers]


_RULE: dict[str, object] = {
    "version": 1,
    "payer_class": "disloyal",
    "metric": "mean_days_late",
    "operator": ">",
    "threshold": Decimal(15),
    "window_months": 12,
    "minimum_evidence": 1,
    "weighting": "count",
    "leave_out_disputed": False,
    "hysteresis": Decimal(0),
    "valid_from": None,
    "valid_to": None,
}
_INSERT_RULE = """
insert into rules.payer_class (rule_id, version, rank, payer_class, metric, operator, threshold, window_months,
    minimum_evidence, weighting, leave_out_disputed, hysteresis, valid, author, reason)
values (:rule_id, :version, :rank, :payer_class, :metric, :operator, :threshold, :window_months,
    :minimum_evidence, :weighting, :leave_out_disputed, :hysteresis, daterange(:valid_from, :valid_to), 'test', 'test')
"""
UNRATED: dict[str, object] = {"rule_id": "rest", "metric": "always", "payer_class": "unrated", "minimum_evidence": 0}


@pytest.fixture
def case(kontor_settings: Settings) -> Iterator[Case]:
    """An empty database with the seeded rules, as the owner; nothing stays."""
    with database.engine_for(kontor_settings, database.OWNER).connect() as connection:
        yield Case(connection)
        connection.rollback()


def test_the_seeds_sort_customers_at_their_boundaries(case: Case) -> None:
    """5 days on average is strict, more is not; 15 is hesitant, more is disloyal; two invoices are too few."""
    case.file(DAY)
    case.paid_late("five", [0, 5, 10])
    case.paid_late("above-five", [0, 5, 11])
    case.paid_late("fifteen", [15, 15, 15])
    case.paid_late("above-fifteen", [15, 15, 16])
    case.paid_late("too-few", [0, 0])
    assert case.decide("five", "above-five", "fifteen", "above-fifteen", "too-few") == [
        "strict", "hesitant", "hesitant", "disloyal", "unrated",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("days_overdue", "expected"), [(0, "strict"), (14, "strict"), (15, "hesitant"), (60, "hesitant"), (61, "disloyal")]
)
def test_what_is_open_today_weighs_more_than_good_payments(case: Case, days_overdue: int, expected: str) -> None:
    """Three punctual payments and one open invoice: 14 days overdue stays strict, 15 is hesitant, 61 is disloyal."""
    case.file(DAY)
    case.paid_late("C", [0, 0, 0])
    case.entry("C", DAY - timedelta(days=days_overdue), None)
    assert case.decide("C") == [expected]


def test_disputed_invoices_and_credit_notes_say_nothing(case: Case) -> None:
    """An invoice in dispute, paid late or open for a year, and a credit note leave a strict customer strict."""
    case.file(DAY)
    case.paid_late("C", [0, 0, 0])
    case.paid_late("C", [59], disputed=True)
    case.entry("C", DAY - timedelta(days=365), None, disputed=True)
    case.entry("C", DAY - timedelta(days=365), None, document_type="credit_note", amount=Decimal(-5))
    case.entry("C", DAY - timedelta(days=200), DAY, document_type="credit_note", amount=Decimal(-5))
    assert case.decide("C") == ["strict"]


def test_the_window_ends_on_the_day_and_begins_the_day_after_its_first(case: Case) -> None:
    """Twelve months before 31 March 2026: a payment of 1 April 2025 counts, one of 31 March 2025 does not."""
    case.rules({"minimum_evidence": 1}, UNRATED)
    case.file(DAY)
    case.entry("inside", date(2025, 1, 1), date(2025, 4, 1))
    case.entry("outside", date(2025, 1, 1), date(2025, 3, 31))
    assert case.decide("inside", "outside") == ["disloyal", "unrated"]


def test_from_snapshots_the_earliest_possible_day_of_payment_counts(case: Case) -> None:
    """Due 1 March, listed on 5 March, gone on 12 March: paid on 6 March at the earliest, 5 days late."""
    for as_of in (date(2026, 3, 5), date(2026, 3, 12)):
        case.file(as_of, "snapshot")
    case.rules({"threshold": Decimal(4)}, {"threshold": Decimal(-1), "payer_class": "hesitant"})
    case.invoice("C", date(2026, 3, 1), listed_from=date(2026, 3, 5), listed_until=date(2026, 3, 12))
    assert case.decide("C", since=date(2026, 3, 5)) == ["disloyal"]
    assert case.rows("C")[-1].figures["mean_days_late"] == "5.0000"
    assert case.rows("C")[-1].reason == "paid on average 5 days late over 1 invoice in 12 months (more than 4)"


def test_the_day_of_payment_is_the_one_that_the_reading_functions_prove(case: Case) -> None:
    """Snapshots with a missing week and a ledger: figures equal what crm.settlements_at says of each invoice."""
    for as_of in (date(2026, 1, 5), date(2026, 1, 19), date(2026, 2, 23)):
        case.file(as_of, "snapshot")
    for number, until in enumerate((date(2026, 1, 19), date(2026, 2, 23)) * 2):
        case.invoice(f"S{number}", date(2026, 1, 1 + number), listed_from=date(2026, 1, 5), listed_until=until)
    case.file(date(2026, 2, 23))
    case.entry("L", date(2026, 1, 3), date(2026, 1, 30))
    case.rules({"threshold": Decimal(-1)})
    classify(case.connection, date(2026, 1, 5))
    proven = case.connection.execute(
        text(
            "select o.customer_number, greatest(coalesce(s.settled_on, s.settled_after + 1) - s.due_on, 0)"
            " from crm.settlements_at(date '2026-02-23') s join crm.organizations o using (organization_id)"
        )
    ).all()
    assert len(proven) == 5
    for number, days in proven:
        assert Decimal(case.rows(number)[-1].figures["mean_days_late"]) == days


@pytest.mark.parametrize(("means", "expected"), [((16, 13, 12), "left"), ((16, 13, 13), "stays"), ((15, 13), "never")])
def test_a_class_is_left_later_than_it_was_entered(case: Case, means: tuple[int, ...], expected: str) -> None:
    """Entered above 15 with hysteresis 3: at 13 it stays, at 12 it is left; whoever never was above 15 is not in it."""
    case.rules({"hysteresis": Decimal(3), "window_months": 1}, UNRATED)
    days = [date(2026, month, 28) for month in range(3, 3 + len(means))]
    case.file(days[-1])
    for day, mean in zip(days, means, strict=True):
        case.entry("C", day - timedelta(days=mean), day)
    for day in days[:-1]:
        case.file(day, "snapshot")
    case.decide("C", since=days[0])
    classes = [row[1] for row in case.history("C")]
    assert classes == {"left": ["disloyal", "unrated"], "stays": ["disloyal"], "never": ["unrated"]}[expected]


def test_hysteresis_of_an_upper_bound_works_the_other_way(case: Case) -> None:
    """Strict up to 5 with hysteresis 1: at 6 it stays, at 6.5 it is left; someone new at 6 does not get in."""
    case.rules(
        {"payer_class": "strict", "operator": "<=", "threshold": 5, "hysteresis": 1, "window_months": 1}, UNRATED
    )
    days = [date(2026, month, 28) for month in (3, 4, 5)]
    case.file(days[-1])
    for day, late in ((days[0], (5, 5)), (days[1], (6, 6)), (days[2], (6, 7))):
        for days_late in late:
            case.entry("C", day - timedelta(days=days_late), day)
    case.paid_late("new", [6], due=days[1] - timedelta(days=6))
    for day in days[:-1]:
        case.file(day, "snapshot")
    assert case.decide("C", "new", since=days[0]) == ["unrated", "unrated"]
    assert [row[:2] for row in case.history("C")] == [(days[0], "strict"), (days[2], "unrated")]


def test_a_class_kept_by_hysteresis_says_so(case: Case) -> None:
    """A new version of the rule decides anew; where only hysteresis keeps the class, the reason says 'still'."""
    days = [date(2026, 3, 28), date(2026, 4, 28)]
    case.rules(
        {"rule_id": "mean", "hysteresis": Decimal(3), "window_months": 1, "valid_to": days[1]},
        {"rule_id": "mean", "version": 2, "hysteresis": Decimal(4), "window_months": 1, "valid_from": days[1]},
    )
    case.file(days[1])
    for day, late in zip(days, (16, 13), strict=True):
        case.entry("C", day - timedelta(days=late), day)
    case.file(days[0], "snapshot")
    case.decide("C", since=days[0])
    assert case.history("C") == [(days[0], "disloyal", "mean", 1), (days[1], "disloyal", "mean", 2)]
    assert case.rows("C")[1].reason == ("paid on average 13 days late over 1 invoice in 1 month (still more than 11)")


def test_figures_are_exact_and_close_calls_show_their_digits(case: Case) -> None:
    """106 days over 7 invoices are 15.142857…: kept to four places as text, never rounded onto the threshold."""
    case.rules({}, UNRATED)
    case.file(DAY)
    case.paid_late("near", [15, 15, 15, 15, 15, 15, 16], amount=Decimal("0.1"))
    case.paid_late("clear", [18, 18, 19, 18, 18, 19, 19])
    case.decide("near", "clear")
    near, clear = case.rows("near")[0], case.rows("clear")[0]
    assert near.figures["mean_days_late"] == "15.1429"
    assert near.figures["late_share"] == "1.0000"
    assert near.figures["settled_invoices"] == 7
    assert near.figures["decided_by"]["value"] == "15.1429"
    assert clear.reason == "paid on average 18.4 days late over 7 invoices in 12 months (more than 15)"
    case.paid_late("hair", [15] * 29 + [16])
    case.decide("hair")
    assert (
        case.rows("hair")[0].reason == "paid on average 15.0333 days late over 30 invoices in 12 months (more than 15)"
    )


def test_a_share_of_late_invoices_decides_where_a_rule_asks_for_it(case: Case) -> None:
    """Half of the invoices late is not more than half; two of three are, and the reason speaks in per cent."""
    case.rules({"metric": "late_share", "threshold": Decimal("0.5")}, UNRATED)
    case.file(DAY)
    case.paid_late("half", [0, 1])
    case.paid_late("most", [0, 1, 1])
    assert case.decide("half", "most") == ["unrated", "disloyal"]
    assert case.rows("most")[0].reason == "paid 66.7 % of 3 invoices late in 12 months (more than 50 %)"


def test_amounts_weigh_within_a_currency_and_never_across(case: Case) -> None:
    """1,000,000 JPY on time must not outweigh 100 EUR paid 40 days late: the worst currency speaks."""
    case.rules({"weighting": "amount"}, UNRATED)
    case.file(DAY)
    case.paid_late("C", [40], amount=Decimal(100), currency="EUR")
    case.paid_late("C", [0], amount=Decimal(1_000_000), currency="JPY")
    assert case.decide("C") == ["disloyal"]
    decided_by = case.rows("C")[0].figures["decided_by"]
    assert (decided_by["currency"], decided_by["value"], decided_by["evidence"]) == ("EUR", "40.0000", 1)


def test_within_a_currency_amounts_weigh(case: Case) -> None:
    """900 paid on time and 100 paid 59 days late are 5.9 days late by amount, 29.5 by count."""
    case.rules(
        {"weighting": "amount", "threshold": Decimal("5.9")},
        {"weighting": "amount", "threshold": Decimal("5.8"), "rule_id": "lower"},
    )
    case.file(DAY)
    for late, amount in ((0, 900), (59, 100)):
        case.paid_late("C", [late], amount=Decimal(amount))
    case.decide("C")
    decided = case.rows("C")[0]
    assert (decided.rule_id, decided.figures["decided_by"]["value"]) == ("lower", "5.9000")
    assert decided.figures["mean_days_late"] == "29.5000"
    assert decided.reason == (
        "paid on average 5.9 days late, weighted by amount in EUR, over 2 invoices in 12 months (more than 5.8)"
    )


def test_evidence_is_counted_in_the_currency_that_speaks(case: Case) -> None:
    """Three invoices are asked for: two in EUR and one in SEK are not enough, although they are three."""
    case.rules({"weighting": "amount", "minimum_evidence": 3}, UNRATED)
    case.file(DAY)
    case.paid_late("mixed", [40, 40])
    case.paid_late("mixed", [40], currency="SEK")
    case.paid_late("one", [40, 40, 40])
    assert case.decide("mixed", "one") == ["unrated", "disloyal"]


def test_a_customer_without_items_has_no_row(case: Case) -> None:
    """Whoever has no item known by a day has no class of that day; the row begins with the first item."""
    case.file(date(2026, 1, 31), "snapshot")
    case.file(DAY, "snapshot")
    case.customer("never")
    case.invoice("later", date(2026, 4, 30), listed_from=DAY)
    counts = classify(case.connection, date(2026, 1, 31))
    assert case.history("never") == []
    assert case.history("later") == [(DAY, "unrated", "unrated", 1)]
    assert counts == {"strict": 0, "hesitant": 0, "disloyal": 0, "unrated": 1, "changed": 0}


def test_a_rule_counts_from_its_day(case: Case) -> None:
    """A new version valid from 1 March decides the file of 2 March and leaves that of 28 February as it was."""
    days = [date(2026, 2, 28), date(2026, 3, 2)]
    case.rules(
        {"rule_id": "mean", "threshold": Decimal(15), "valid_to": date(2026, 3, 1)},
        {"rule_id": "mean", "version": 2, "threshold": Decimal(5), "valid_from": date(2026, 3, 1)},
        UNRATED,
    )
    case.file(days[1])
    case.paid_late("C", [10], due=date(2026, 1, 1))
    case.file(days[0], "snapshot")
    case.decide("C", since=days[0])
    assert case.history("C") == [(days[0], "unrated", "rest", 1), (days[1], "disloyal", "mean", 2)]


def test_without_any_rule_everyone_is_unrated(case: Case) -> None:
    """A table without rules gives 'unrated' by rule 'none', not an error."""
    case.rules()
    case.file(DAY)
    case.paid_late("C", [40])
    classify(case.connection, DAY)
    assert case.history("C") == [(DAY, "unrated", "none", 0)]


def test_a_second_run_changes_nothing(case: Case) -> None:
    """Deciding again from any day leaves every row as it is, also the instant at which it was decided."""
    days = [date(2026, month, 28) for month in (1, 2, 3)]
    for day in days:
        case.file(day, "snapshot")
    for number in range(6):
        due = date(2025, 12, 1 + number)
        case.invoice("C", due, listed_from=days[0], listed_until=days[1 + number % 2])
        case.invoice(f"C{number}", due, listed_from=days[0])
    first = classify(case.connection, days[0])
    long_ago = "update ops.payer_class_history set decided_at = timestamptz '2026-01-01 00:00+00'"
    case.connection.execute(text(long_ago))
    before = case.connection.execute(text("select * from ops.payer_class_history order by 1, 2")).all()
    assert len(before) > 7
    for since in (*days, days[1] + ONE_DAY, days[2] + ONE_DAY):
        again = classify(case.connection, since)
        assert case.connection.execute(text("select * from ops.payer_class_history order by 1, 2")).all() == before
        assert again == first | {"changed": 0}


def test_an_override_holds_through_its_last_day_and_ends_without_a_file(case: Case) -> None:
    """Set from 10 to 20 April: strict on both days; on 21 April rules decide again on the last file's figures."""
    case.file(DAY)
    case.paid_late("C", [20, 20, 20])
    classify(case.connection, DAY)
    held = set_override(
        case.connection,
        "C",
        "strict",
        until=date(2026, 4, 20),
        author="finance",
        reason="agreed",
        as_of=date(2026, 4, 10),
    )
    assert case.history("C") == [
        (DAY, "disloyal", "disloyal_mean", 1),
        (date(2026, 4, 10), "strict", "override", held.override_id),
        (date(2026, 4, 21), "disloyal", "disloyal_mean", 1),
    ]
    assert case.rows("C")[1].reason == f"set by hand until 2026-04-20 (override {held.override_id} says why)"
    assert list_overrides(case.connection, date(2026, 4, 20)) == [held]
    assert list_overrides(case.connection, date(2026, 4, 21)) == []


def test_a_cleared_override_leaves_what_it_decided_before(case: Case) -> None:
    """Cleared on 15 April it holds through the 14th; cleared on its first day it never was."""
    case.file(DAY)
    case.paid_late("C", [20, 20, 20])
    until = date(2026, 4, 20)
    first = date(2026, 4, 10)
    set_override(case.connection, "C", "strict", until, "finance", "agreed", first)
    left = clear_override(case.connection, "C", "finance", "agreement broken", date(2026, 4, 15))
    assert left is not None
    assert left.until == date(2026, 4, 14)
    assert [row[:2] for row in case.history("C")][-2:] == [(first, "strict"), (date(2026, 4, 15), "disloyal")]
    assert case.rows("C")[-2].reason.startswith("set by hand until 2026-04-14")
    assert (
        case.ask("select ended_by || ': ' || end_reason from rules.payer_class_override") == "finance: agreement broken"
    )
    assert clear_override(case.connection, "C", "finance", "never meant", first) is None
    classify(case.connection, DAY)
    assert case.history("C") == [(DAY, "disloyal", "disloyal_mean", 1)]


def test_overrides_refuse_in_words_what_cannot_be(case: Case) -> None:
    """Unknown customer or class, end before start, no reason, overlap: each says what is wrong and changes nothing."""
    case.file(DAY)
    case.paid_late("C", [20, 20, 20])
    until = DAY + timedelta(days=9)
    for number, payer_class, end, reason, words in (
        ("X", "strict", until, "why", "no customer X"),
        ("C", "gold", until, "why", "'gold' is not a payer class; allowed are strict, hesitant, disloyal, unrated"),
        ("C", "strict", DAY - ONE_DAY, "why", "would end on 2026-03-30, before its first day 2026-03-31"),
        ("C", "strict", until, " ", "reason is empty"),
    ):
        with pytest.raises(UsageError, match=words):
            set_override(case.connection, number, payer_class, end, "finance", reason, DAY)
    with pytest.raises(UsageError, match="no override on 2026-03-31"):
        clear_override(case.connection, "C", "finance", "why", DAY)
    set_override(case.connection, "C", "strict", until, "finance", "why", DAY)
    with pytest.raises(Refused, match="from 2026-03-31 through 2026-04-09") as refused:
        set_override(case.connection, "C", "strict", until + ONE_DAY, "finance", "why", until)
    assert "begin on 2026-04-10" in refused.value.hint
    assert case.ask("select count(*) from rules.payer_class_override") == 1


def test_flows_may_classify_but_not_touch_rules(kontor_settings: Settings, tmp_path: Path) -> None:
    """The role that flows work as decides classes; it cannot write a rule or an override."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["C-1"])
    books.take_in(
        write_csv(tmp_path / "open_items_2026-03-31.csv", [item("C-1", "A", "10", date(2026, 1, 1))]), "open_items"
    )
    books.classify()
    assert [row["payer_class"] for row in books.state()["classes"]] == ["disloyal"]
    with books.engine.connect() as connection:
        for table in ("payer_class", "payer_class_override"):
            allowed = text("select has_table_privilege(:table, 'insert, update, delete')")
            assert not connection.scalar(allowed, {"table": f"rules.{table}"})


def test_what_comes_while_classes_are_decided_is_decided_next(kontor_settings: Settings, tmp_path: Path) -> None:
    """A file committed after the facts were read keeps its word that classes are due, and is not forgotten."""
    books, day = Books(kontor_settings), date(2026, 3, 31)
    books.customers(tmp_path, ["C-1", "C-2"])

    def take_in(number: str, as_of: date) -> None:
        """A list with one item of the customer, long overdue."""
        name = f"open_items_{as_of}.csv"
        books.take_in(write_csv(tmp_path / name, [item(number, "A", "10", date(2026, 1, 1))]), "open_items", as_of)

    take_in("C-1", day)
    with books.engine.begin() as connection:
        since = claim_classification(connection)
        assert since == day
        classify(connection, since)
        take_in("C-2", day - timedelta(days=7))
    books.classify()
    found = [(row["customer_number"], row["valid_from"]) for row in books.state()["classes"]]
    assert ("C-2", day - timedelta(days=7)) in found


@dataclass(frozen=True)
class Delivery:
    """One file: a snapshot of what is open, or a ledger with days of payment."""

    kind: str
    as_of: date
    rows: tuple[tuple[str, int, bool], ...]

    def take_in(self, books: Books, folder: Path) -> None:
        """Take the file in and classify from the day it affects, as a run of its own."""
        path = folder / f"{self.kind}_{self.as_of}.csv"
        write_csv(path, [self._row(*row) for row in self.rows])
        books.take_in(path, self.kind, self.as_of)
        books.classify()

    def _row(self, number: str, late: int, disputed: bool) -> dict[str, object]:
        due = date(2026, 1, 1) + timedelta(days=3 * int(number))
        row = item(
            f"C-{int(number) % 2}", number, "100", due, disputed="yes" if disputed else "no", note=f"as of {self.as_of}"
        )
        paid = due + timedelta(days=late)
        return row | ({"settled_date": paid if paid <= self.as_of else ""} if self.kind == "settled_items" else {})


@st.composite
def _deliveries(draw: st.DrawFn) -> tuple[list[Delivery], list[int]]:
    weeks = draw(st.lists(st.integers(2, 12), min_size=2, max_size=4, unique=True))
    days = [date(2026, 1, 5) + timedelta(weeks=week) for week in weeks]
    numbers = st.sampled_from([str(number) for number in range(8)])
    row = st.tuples(numbers, st.sampled_from([0, 4, 20, 70]), st.booleans())
    rows = st.lists(row, min_size=3, max_size=8, unique_by=lambda r: r[0]).map(lambda found: tuple(sorted(found)))
    made = [Delivery("open_items", day, draw(rows)) for day in days]
    made.append(
        Delivery("settled_items", draw(st.sampled_from(days)) + timedelta(days=draw(st.integers(-3, 3))), draw(rows))
    )
    return made, draw(st.permutations(range(len(made))))


@settings(max_examples=examples(3, 5), derandomize=CAMPAIGN_FACTOR == 1)
@given(drawn=_deliveries())
def test_the_history_does_not_depend_on_the_order_of_arrival(
    drawn: tuple[list[Delivery], list[int]], prepared: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Snapshots and a ledger in any order, classes decided after each: the same history as in the order of days."""
    deliveries, order = drawn
    folder = tmp_path_factory.mktemp("deliveries")
    histories = []
    for arrival in (sorted(range(len(deliveries)), key=lambda place: deliveries[place].as_of), order):
        empty_database(prepared)
        books = Books(prepared)
        books.customers(folder, ["C-0", "C-1"])
        with database.engine_for(prepared, database.OWNER).begin() as connection:
            set_override(connection, "C-1", "strict", date(2026, 3, 3), "finance", "agreed", date(2026, 2, 18))
        for place in arrival:
            deliveries[place].take_in(books, folder)
        histories.append(books.state()["classes"])
    assert histories[0]
    assert histories[0] == histories[1]


def test_the_real_ledger_gives_the_figures_computed_elsewhere(case: Case, real_data: Path) -> None:
    """2,466 real invoices, all settled: 17 customers never late, 56 up to 5 days on average, 26 up to 15, 1 more."""
    bounds = {"never": Decimal(0), "five": Decimal(5), "fifteen": Decimal(15)}
    base = {"payer_class": "strict", "operator": "<=", "window_months": 48}
    case.rules(
        *({**base, "rule_id": name, "threshold": bound} for name, bound in bounds.items()),
        {**UNRATED, "window_months": 48},
    )
    case.file(date(2014, 3, 31))
    with (real_data / "receivables" / "ibm" / "ibm_ar_padded.csv").open(encoding="utf-8-sig", newline="") as handle:
        for row in csv.DictReader(handle):
            due, paid = (datetime.strptime(row[name], "%m/%d/%Y").date() for name in ("DueDate", "SettledDate"))  # noqa: DTZ007
            more = {
                "amount": Decimal(row["InvoiceAmount"]),
                "disputed": row["Disputed"] == "Yes",
            }
            case.entry(row["customerID"], due, paid, **more)
    classify(case.connection, date(2014, 3, 31))
    decided = Counter(case.connection.scalars(text("select rule_id from ops.payer_class_history")))
    assert decided == {"never": 17, "five": 56, "fifteen": 26, "rest": 1}
