"""What finance reads once a week, as values: a day beside an earlier one, and what stands out. Pure.

Every figure has one source, a function of schema ``report`` that answers for any day; the mail, the page, the workbook
and the text show the same :class:`FinanceReport`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from tasks.reports.rows import Report

BUCKETS = ("not_due", "days_1_30", "days_31_60", "days_61_90", "days_over_90")
PAYER_ORDER = ("disloyal", "hesitant", "strict", "unrated")
TREND_WEEKS = 8
LISTED = 20_000  # rows of a list; whoever has more to read finds all of them by `kontor report`
MOST_DEBTORS = 5
FRESH_DAYS = 8  # accounting's list comes every Monday; a Monday's list is late from the second Tuesday on


@dataclass(frozen=True)
class Totals:
    """The receivables of one currency on one day; money in that currency."""

    currency: str
    open_invoices: int = 0
    open_amount: Decimal = Decimal(0)
    overdue_invoices: int = 0
    overdue_customers: int = 0
    overdue_amount: Decimal = Decimal(0)
    newly_overdue_invoices: int = 0
    newly_overdue_amount: Decimal = Decimal(0)
    due_soon_invoices: int = 0
    due_soon_amount: Decimal = Decimal(0)
    disputed_invoices: int = 0
    disputed_amount: Decimal = Decimal(0)
    credit_amount: Decimal = Decimal(0)
    oldest_days_overdue: int = 0
    not_due: Decimal = Decimal(0)
    days_1_30: Decimal = Decimal(0)
    days_31_60: Decimal = Decimal(0)
    days_61_90: Decimal = Decimal(0)
    days_over_90: Decimal = Decimal(0)

    def bucket(self, name: str) -> Decimal:
        """The sum of one of :data:`BUCKETS`."""
        found: Decimal = getattr(self, name)
        return found


@dataclass(frozen=True)
class Dso:
    """Days sales outstanding of one currency; the days are None where nothing was sold in the period."""

    currency: str
    period_days: int
    sales: Decimal
    dso: Decimal | None
    best_possible_dso: Decimal | None
    average_days_delinquent: Decimal | None


@dataclass(frozen=True)
class TrendPoint:
    """What was overdue in one currency on one day."""

    day: date
    currency: str
    overdue_amount: Decimal


@dataclass(frozen=True)
class Quarantined:
    """Rows that could not be read: how many, the money in them, and how many have no amount that can be read."""

    currency: str | None
    rows: int
    amount: Decimal
    without_amount: int


@dataclass(frozen=True)
class Day:
    """The figures of one day."""

    day: date
    totals: Mapping[str, Totals]
    dso: Mapping[str, Dso]
    classes: Mapping[str, int]
    quarantined: tuple[Quarantined, ...]


@dataclass(frozen=True)
class Debtor:
    """What one customer owes overdue in one currency."""

    customer_number: str
    customer_name: str
    currency: str
    overdue_amount: Decimal
    invoices: int
    oldest_days: int
    payer_class: str


@dataclass(frozen=True)
class FinanceReport:
    """Everything the report shows: a day, the day it is compared with, and the rows behind the figures.

    ``changes_since`` is the day after which a customer's change of class is told: the last report's, so that no change
    falls between two of them. ``tables`` holds the rows by the name of their report; long ones end at :data:`LISTED`
    rows and say so. ``debtors`` are per currency those of all customers with the most overdue.
    """

    now: Day
    before: Day
    changes_since: date
    trend: tuple[TrendPoint, ...]
    tables: Mapping[str, Report]
    newest_lists: Mapping[str, date]
    debtors: Mapping[str, list[Debtor]] = field(default_factory=dict)

    @property
    def as_of(self) -> date:
        """The day that the report speaks of."""
        return self.now.day

    @property
    def currencies(self) -> tuple[str, ...]:
        """Every currency of the day or of the day it is compared with, by code."""
        return tuple(sorted({*self.now.totals, *self.before.totals}))


@dataclass(frozen=True)
class Change:
    """A figure beside what it was; ``share`` is the change as a part of what it was, None where that was nothing."""

    now: Decimal
    before: Decimal

    @property
    def difference(self) -> Decimal:
        """By how much it grew; negative where it fell."""
        return self.now - self.before

    @property
    def share(self) -> Decimal | None:
        """``1000 → 1120`` is 0.12."""
        return self.difference / abs(self.before) if self.before else None


def change_of(report: FinanceReport, currency: str, name: str) -> Change:
    """One field of :class:`Totals` on the day and on the day it is compared with; a currency not yet there counts 0."""
    now = report.now.totals.get(currency, Totals(currency))
    before = report.before.totals.get(currency, Totals(currency))
    return Change(Decimal(getattr(now, name)), Decimal(getattr(before, name)))


def overdue_share(totals: Totals) -> Decimal | None:
    """Which part of the claims (what is open without credit notes) is overdue; None where there are none."""
    claims = totals.open_amount - totals.credit_amount
    return totals.overdue_amount / claims if claims > 0 else None


@dataclass(frozen=True)
class Outcome:
    """Reminders in one state for one reason: how many mails, and their money per currency."""

    state: str
    reason: str
    mails: int
    amounts: Mapping[str, Decimal] = field(default_factory=dict)


# What needs a person first; the states are those of the outbox.
STATE_ORDER = (
    "unknown", "refused", "bounced", "deferred", "held", "planned", "approved", "sending", "cancelled", "sent",
)  # fmt: skip


def outcomes_of(report: Report) -> list[Outcome]:
    """Reminders counted by state and the code of the reason, what needs a person first; rows of ``reminder_outcomes``.

    A mail about two currencies is one mail and two amounts.
    """
    mails: dict[tuple[str, str], set[object]] = {}
    amounts: dict[tuple[str, str], dict[str, Decimal]] = {}
    for row in report.records():
        key = (str(row["state"]), str(row["reason_code"] or "").replace("_", " "))
        mails.setdefault(key, set()).add(row["reminder_id"])
        sums = amounts.setdefault(key, {})
        currency = str(row["currency"])
        sums[currency] = sums.get(currency, Decimal(0)) + _decimal(row["open_amount"])
    keys = sorted(mails, key=lambda key: (STATE_ORDER.index(key[0]), -len(mails[key]), key[1]))
    return [Outcome(*key, mails=len(mails[key]), amounts=dict(sorted(amounts[key].items()))) for key in keys]


def counted(report: Report, *names: str) -> list[tuple[tuple[str, ...], int]]:
    """How many rows share these columns' values, most frequent first."""
    counts: dict[tuple[str, ...], int] = {}
    for row in report.records():
        key = tuple(str(row[name] or "") for name in names)
        counts[key] = counts.get(key, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True)
class Notice:
    """Something that must not be overlooked: a word's key, its values, and a colour."""

    colour: str
    key: str
    values: Mapping[str, object]


def notices(report: FinanceReport) -> list[Notice]:
    """What a reader must know before the figures, the gravest first: old data, mails of unknown fate, tasks, doubt."""
    found = [
        Notice("red", "notice_old", {"source": source, "day": day, "days": (report.as_of - day).days})
        for source, day in sorted(report.newest_lists.items())
        if (report.as_of - day).days > FRESH_DAYS
    ]
    if not report.newest_lists:
        found.append(Notice("red", "notice_no_list", {}))
    states = {outcome.state: 0 for outcome in outcomes_of(report.tables["reminder_outcomes"])}
    for outcome in outcomes_of(report.tables["reminder_outcomes"]):
        states[outcome.state] += outcome.mails
    found += _counted_notice("red", "notice_unknown", states.get("unknown", 0))
    undeliverable = states.get("refused", 0) + states.get("bounced", 0)
    found += _counted_notice("yellow", "notice_undeliverable", undeliverable)
    found += _counted_notice("yellow", "notice_tasks", len(report.tables["tasks_waiting"].rows))
    found += _counted_notice("yellow", "notice_quarantine", sum(item.rows for item in report.now.quarantined))
    return found


def _counted_notice(colour: str, key: str, count: int) -> list[Notice]:
    return [Notice(colour, key, {"count": count})] if count else []


def aging_shares(totals: Totals) -> list[Decimal]:
    """The part of each bucket in what is owed, 0 to 1; what credit notes push below zero counts as nothing."""
    amounts = [max(totals.bucket(name), Decimal(0)) for name in BUCKETS]
    whole = sum(amounts, Decimal(0))
    return [amount / whole if whole else Decimal(0) for amount in amounts]


def trend_by_currency(points: Iterable[TrendPoint]) -> dict[str, list[TrendPoint]]:
    """The points of each currency in the order of their days; currencies without anything overdue are left out."""
    found: dict[str, list[TrendPoint]] = {}
    for point in sorted(points, key=lambda item: item.day):
        found.setdefault(point.currency, []).append(point)
    return {currency: line for currency, line in sorted(found.items()) if any(point.overdue_amount for point in line)}


def _decimal(value: object) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))
