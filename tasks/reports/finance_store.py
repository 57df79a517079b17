"""Reads what finance's report shows, all of it as of one moment of the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from tasks.reports.finance import (
    LISTED,
    MOST_DEBTORS,
    TREND_WEEKS,
    Day,
    Debtor,
    Dso,
    FinanceReport,
    Quarantined,
    Totals,
    TrendPoint,
)
from tasks.reports.prerun import SHEETS as PRERUN_SHEETS
from tasks.reports.prerun import Prerun
from tasks.reports.rows import Report
from tasks.reports.store import read_report, report_of

WEEK = timedelta(days=7)

# Rows shown as they are, by the name of the report that has them: long lists, and those whose rows are counted.
_LISTS = ("overdue_invoices", "due_soon", "aging", "payer_classes")
_COUNTED = ("reminders_withheld", "tasks_waiting")
_FLOW = "finance_report"


def read_finance(
    connection: Connection, as_of: date, *, compared_with: date | None = None, listed: int = LISTED
) -> FinanceReport:
    """The report of a day beside an earlier one, by default a week before; its long lists end after ``listed`` rows.

    Figures are sums over everything, worked out by the database, whatever the lists show. Changes of class and
    reminders are told since the last report that was sent, if that lies further back.
    """
    before = compared_with or as_of - WEEK
    since = min(before, _last_reported(connection, as_of) or before)
    tables = {name: read_report(connection, name, as_of=as_of, limit=listed) for name in _LISTS}
    tables |= {name: read_report(connection, name, as_of=as_of) for name in _COUNTED}
    for name in ("payer_class_changes", "reminder_outcomes"):
        tables[name] = _since(connection, name, since, as_of)
    tables["quarantine"] = read_report(connection, "quarantine", equal={"state": "open"})
    now, earlier = _day(connection, as_of), _day(connection, before)
    return FinanceReport(
        now=now,
        before=earlier,
        changes_since=since,
        trend=_trend(connection, (now, earlier)),
        tables=tables,
        newest_lists=_newest_lists(connection, as_of),
        debtors=_debtors(connection, as_of),
    )


def read_prerun(connection: Connection, as_of: date) -> Prerun:
    """What is about to leave on a day, with who is not reminded and what waits for a person."""
    return Prerun(as_of, {sheet.report: read_report(connection, sheet.report, as_of=as_of) for sheet in PRERUN_SHEETS})


def already_sent(connection: Connection, as_of: date) -> bool:
    """Whether a report of this day has gone out to finance."""
    return bool(connection.scalar(text(_SENT), {"flow": _FLOW, "as_of": as_of}))


def _last_reported(connection: Connection, as_of: date) -> date | None:
    found: date | None = connection.scalar(text(_LAST_REPORTED), {"flow": _FLOW, "as_of": as_of})
    return found


def _since(connection: Connection, name: str, since: date, as_of: date) -> Report:
    values = {"since": since, "as_of": as_of}
    return report_of(connection, name, f"report.{name}(:since, :as_of)", values, as_of=as_of)


def _day(connection: Connection, day: date) -> Day:
    def rows(statement: str) -> list[Mapping[str, Any]]:
        return [dict(row) for row in connection.execute(text(statement), {"day": day}).mappings()]

    totals = [Totals(**row) for row in rows(f"select {_names(Totals)} from report.finance_totals(:day)")]
    dso = [Dso(**row) for row in rows(f"select {_names(Dso)} from report.dso(:day)")]
    classes = rows("select payer_class, count(*)::integer as customers from report.payer_classes(:day) group by 1")
    quarantined = rows(f"select {_names(Quarantined)} from report.quarantined_money(:day) order by currency")
    return Day(
        day,
        {item.currency: item for item in totals},
        {item.currency: item for item in dso},
        {row["payer_class"]: row["customers"] for row in classes},
        tuple(Quarantined(**row) for row in quarantined),
    )


def _names(model: type) -> str:
    return ", ".join(field.name for field in fields(model))


def _trend(connection: Connection, known: tuple[Day, ...]) -> tuple[TrendPoint, ...]:
    """What was overdue on the first of ``known`` and the weeks before it; known days are not read again."""
    days = [known[0].day - WEEK * back for back in range(TREND_WEEKS)]
    found = {(day.day, code): item.overdue_amount for day in known for code, item in day.totals.items()}
    unknown = sorted(set(days) - {day.day for day in known})
    found |= {
        (row.day, row.currency): row.overdue_amount for row in connection.execute(text(_TREND), {"days": unknown})
    }
    currencies = sorted({currency for _, currency in found})
    pairs = [(day, code) for day in sorted(days) for code in currencies]
    return tuple(TrendPoint(day, code, found.get((day, code), Decimal(0))) for day, code in pairs)


def _debtors(connection: Connection, as_of: date) -> dict[str, list[Debtor]]:
    """Per currency the customers with the most overdue, greatest first; sums of different currencies never meet."""
    found: dict[str, list[Debtor]] = {}
    for row in connection.execute(text(_DEBTORS), {"day": as_of, "most": MOST_DEBTORS}).mappings():
        found.setdefault(row["currency"], []).append(Debtor(**row))
    return found


def _newest_lists(connection: Connection, as_of: date) -> dict[str, date]:
    found = connection.execute(text("select source, snapshot_as_of from crm.newest_snapshots_at(:day)"), {"day": as_of})
    return {row.source: row.snapshot_as_of for row in found}


_LAST_REPORTED = """
select max(as_of) from ops.run_ledger where flow = :flow and state = 'done' and not dry_run and as_of < :as_of
"""

_SENT = """
select exists (
    select from ops.run_ledger
    where flow = :flow and as_of = :as_of and not dry_run and state = 'done' and (counts ->> 'mails')::integer > 0)
"""

_DEBTORS = """
select currency, customer_number, customer_name, overdue_amount, invoices, oldest_days, payer_class
from (select i.currency, i.customer_number, min(i.customer_name) as customer_name, sum(i.open_amount) as overdue_amount,
             count(*)::integer as invoices, max(i.days_overdue) as oldest_days, min(i.payer_class) as payer_class,
             row_number() over (partition by i.currency order by sum(i.open_amount) desc, i.customer_number) as place
      from report.overdue_invoices(:day) i group by i.currency, i.customer_number) d
where place <= :most order by currency, place
"""

_TREND = """
select d.day, t.currency, t.overdue_amount
from unnest(cast(:days as date[])) as d (day)
cross join lateral report.finance_totals(d.day) t
order by d.day, t.currency
"""
