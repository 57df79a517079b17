"""What a person should see of each report: its title, its order, the columns for reading, the sum worth knowing.

A view that is not listed here is shown as it is: every view of schema ``report`` is a report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """How one report is read: ``order`` is SQL, ``columns`` those shown on a terminal (empty: all), ``total`` a sum.

    ``newest_first`` says that the order begins with the newest day and that the report's function also takes an earlier
    day (since, as_of), so that its first rows are found in the last weeks without reading years.
    """

    title: str
    order: str = "1"
    columns: tuple[str, ...] = ()
    total: str | None = None
    newest_first: bool = False


_WORST_FIRST = "array_position(array['disloyal', 'hesitant', 'strict', 'unrated'], payer_class)"

READINGS: Mapping[str, Reading] = {
    "open_invoices": Reading(
        "Open invoices",
        "customer_number, due_on, invoice_number",
        (
            "customer_number", "customer_name", "invoice_number", "due_on", "days_overdue", "currency", "open_amount",
            "payer_class", "disputed",
        ),
        "open_amount",
    ),
    "overdue_invoices": Reading(
        "Overdue invoices",
        "days_overdue desc, customer_number, invoice_number",
        (
            "customer_number", "customer_name", "invoice_number", "due_on", "days_overdue", "currency", "open_amount",
            "payer_class", "disputed",
        ),
        "open_amount",
    ),
    "due_soon": Reading(
        "Due within seven days",
        "due_on, customer_number, invoice_number",
        ("customer_number", "customer_name", "invoice_number", "due_on", "currency", "open_amount", "payer_class"),
        "open_amount",
    ),
    "finance_totals": Reading(
        "Receivables per currency",
        "currency",
        (
            "currency", "open_invoices", "open_amount", "overdue_invoices", "overdue_amount", "newly_overdue_amount",
            "due_soon_amount", "oldest_days_overdue",
        ),
    ),
    "dso": Reading(
        "Days sales outstanding",
        "currency",
        ("currency", "receivables", "sales", "dso", "best_possible_dso", "average_days_delinquent"),
    ),
    "payer_class_changes": Reading(
        "Customers whose payer class changed",
        f"{_WORST_FIRST}, customer_number",
        ("customer_number", "customer_name", "class_before", "payer_class", "changed_on", "reason"),
    ),
    "quarantined_money": Reading("Money in rows that could not be read", "currency nulls last"),
    "reminder_outcomes": Reading(
        "Reminders and what became of them",
        "as_of desc, state, customer_number, currency, reminder_id",
        ("as_of", "customer_number", "stage", "state", "state_reason", "currency", "invoices", "open_amount"),
        "open_amount",
    ),
    "reminders_to_leave": Reading(
        "Reminders about to leave",
        "array_position(array['final', 'second', 'first', 'upcoming'], stage), customer_number, currency, reminder_id",
        (
            "reminder_id", "customer_number", "customer_name", "stage", "currency", "invoices", "open_amount",
            "oldest_days_overdue", "recipient_email", "state",
        ),
        "open_amount",
    ),
    "reminder_items_to_leave": Reading(
        "Invoices in reminders about to leave", "customer_number, due_on, invoice_number", (), "open_amount"
    ),
    "reminders_withheld": Reading(
        "Who is not reminded and why",
        "decision, reason_code, customer_number",
        ("customer_number", "customer_name", "decision", "reason"),
    ),
    "tasks_waiting": Reading(
        "What a person has to do before a reminder can go out",
        "opened_for, kind, customer_number",
        ("customer_number", "customer_name", "kind", "owner", "details", "opened_for"),
    ),
    "aging": Reading(
        "Aging per customer and currency",
        "currency, total desc, customer_number",
        (
            "customer_number", "customer_name", "currency", "not_due", "days_1_30", "days_31_60", "days_61_90",
            "days_over_90", "total",
        ),
        "total",
    ),
    "payer_classes": Reading(
        "Payer classes and why",
        f"{_WORST_FIRST}, customer_number",
        ("customer_number", "customer_name", "payer_class", "reason", "valid_from"),
    ),
    "settled_invoices": Reading(
        "Settled invoices",
        "settled_by desc, customer_number, invoice_number",
        (
            "customer_number", "customer_name", "invoice_number", "due_on", "settled_by", "days_late", "currency",
            "amount", "settled_after",
        ),
        "amount",
        newest_first=True,
    ),
    "reminders": Reading(
        "Reminders and what became of them",
        "reminder_id desc",
        (
            "reminder_id", "as_of", "customer_number", "stage", "state", "state_reason", "recipient_email",
            "invoice_numbers", "sent_at",
        ),
    ),
    "reminder_deliveries": Reading("What the mail server answered", "delivery_id desc"),
    "quarantine": Reading(
        "Rows that could not be used",
        "as_of desc, file_name, row_number, cell",
        ("file_name", "cell", "raw_value", "reason", "customer_number", "state"),
    ),
    "feed_files": Reading(
        "Files that came in",
        "received_at desc, file_name",
        (
            "file_name", "contract", "as_of", "state", "rows_read", "inserted", "updated", "unchanged", "quarantined",
            "superseded", "settled",
        ),
    ),
    "feed_freshness": Reading("How fresh each feed is", "feed, source"),
    "status_lines": Reading(
        "How Kontor is doing, worst first",
        "rank, area, headline",
        ("colour", "area", "headline", "reason", "next_command"),
    ),
    "organization_card": Reading("Everything about one customer", "customer_number"),
    "runs": Reading(
        "Runs",
        "run_id desc",
        ("run_id", "flow", "as_of", "state", "dry_run", "started_at", "duration_seconds", "error_code"),
    ),
    "catalog": Reading(
        "The product catalogue",
        "source, part_number, currency",
        (
            "part_number", "name", "unit", "status", "stock", "currency", "customer_price", "dealer_price",
            "promo_price", "promo_to",
        ),
    ),
    "prices": Reading(
        "Prices that hold",
        "source, part_number, kind, currency, unit, min_quantity",
        ("part_number", "name", "kind", "currency", "unit", "min_quantity", "amount", "valid_from", "valid_to"),
    ),
    "price_changes": Reading(
        "Prices that changed",
        "changed_on desc, source, part_number, kind, currency, unit, min_quantity",
        (
            "part_number", "name", "kind", "currency", "unit", "changed_on", "old_amount", "new_amount", "percent",
            "file_name",
        ),
    ),
    "price_ladder": Reading("Prices that are not in the order promotional, dealer, customer", "source, part_number"),
    "stock": Reading(
        "Stock per warehouse and the day up to which it is known",
        "source, part_number, warehouse",
        ("part_number", "name", "warehouse", "quantity", "unit", "true_on"),
    ),
    "quarantine_counts": Reading("Rows in quarantine by file and reason", "as_of desc, file_name, code"),
    "duplicates": Reading(
        "Records that may be one",
        "score desc, pair_id",
        ("pair_id", "entity", "score", "left_number", "left_name", "right_number", "right_name", "decision"),
    ),
    "quality_incidents": Reading(
        "Incidents of data quality",
        "array_position(array['fail', 'warn', 'info'], severity), due_on, incident_id",
        ("incident_id", "severity", "owner", "rule_id", "customer_number", "reason", "due_on", "state", "money"),
    ),
    "data_quality": Reading(
        "What every rule found",
        "array_position(array['error', 'fail', 'pass'], state),"
        " array_position(array['fail', 'warn', 'info'], severity), rule_id",
        ("rule_id", "severity", "state", "failing", "rows_checked", "open_incidents", "waived_incidents", "error"),
    ),
    "payer_class_counts": Reading("Customers per payer class", _WORST_FIRST),
}  # fmt: skip


def reading_of(name: str) -> Reading:
    """How this report is read; a view that nobody described is shown whole under its own name."""
    return READINGS.get(name) or Reading(name.replace("_", " ").capitalize())
