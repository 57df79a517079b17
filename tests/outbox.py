"""Mails in the queue, made without the plan: customers, contacts, open items and what was reserved for them.

Everything is as the plan would have left it, so that the gate can be tested by itself. Builders never assert.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks.database import OWNER, engine_for
from tasks.reminders.sending.queue_store import Claim


@dataclass(frozen=True)
class Queue:
    """Where the mails stand: settings, the business day, the run that planned them and the one that sends."""

    settings: Settings
    day: date
    claim: Claim

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """The rows of a query, as the owner."""
        with engine_for(self.settings, OWNER).connect() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    def change(self, statement: str, **values: Any) -> None:
        """Change something behind the queue's back, as the owner."""
        with engine_for(self.settings, OWNER).begin() as connection:
            connection.execute(text(statement), values)

    def states(self) -> dict[str, int]:
        """How many mails stand in which state."""
        rows = self.rows("select state, count(*) as mails from outbox.reminders group by state")
        return {row["state"]: row["mails"] for row in rows}


def clock() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


def begin_run(settings: Settings, day: date) -> Claim:
    """A run that stands as running in the ledger."""
    with engine_for(settings, OWNER).begin() as connection:
        run_id = connection.scalar(text(_RUN), {"day": day})
    return Claim(int(run_id or 0), f"run {run_id} of the test")


def make_customers(settings: Settings, customers: int, *, items: int = 2, country: str = "BG") -> Queue:
    """Customers with overdue items about whom nothing is planned yet; the queue has no run of its own."""
    with engine_for(settings, OWNER).begin() as connection:
        day = connection.scalar(text("select ops.business_today()")) or date.min
        run_id = int(connection.scalar(text(_RUN), {"day": day}) or 0)
        connection.execute(text("update ops.run_ledger set state = 'done', ended_at = now()"))
        values = {"run_id": run_id, "day": day, "first": 1, "last": customers, "items": items, "stage": "first",
                  "language": "en", "country": country}  # fmt: skip
        for statement in _FILL:
            connection.execute(text(statement), values)
    return Queue(settings, day, Claim(0, ""))


def add_customers(queue: Queue, first: int, count: int, *, items: int = 2, country: str = "BG") -> None:
    """More of the same beside them, numbered from ``first`` on."""
    values = {"day": queue.day, "first": first, "last": first + count - 1, "items": items, "stage": "first",
              "language": "en", "country": country}  # fmt: skip
    with engine_for(queue.settings, OWNER).begin() as connection:
        for statement in _FILL[1:]:
            connection.execute(text(statement), values)


def fill_queue(
    settings: Settings,
    customers: int,
    *,
    items: int = 3,
    stage: str = "first",
    language: str = "en",
    country: str = "BG",
) -> Queue:
    """Plan one mail for each of so many customers, each with so many items, the first overdue by a month."""
    with engine_for(settings, OWNER).begin() as connection:
        day: date = connection.scalar(text("select ops.business_today()"))
        run_id = int(connection.scalar(text(_RUN), {"day": day}) or 0)
        values = {
            "run_id": run_id,
            "day": day,
            "first": 1,
            "last": customers,
            "items": items,
            "stage": stage,
            "language": language,
            "country": country,
        }
        for statement in _FILL:
            connection.execute(text(statement), values)
        plan(connection, run_id, stage=stage)
    return Queue(settings, day, begin_run(settings, day))


def plan(connection: Connection, run_id: int, *, stage: str = "first", sequence: int = 1) -> None:
    """Decide and reserve for every customer who has nothing waiting, as the plan does."""
    for statement in _PLAN:
        connection.execute(text(statement), {"run_id": run_id, "stage": stage, "sequence": sequence})


_RUN = """
insert into ops.run_ledger (flow, actor, as_of, dry_run, host, process_id)
values ('overdue_reminders', 'test', :day, false, 'here', 1) returning run_id
"""

_FILL = (
    """
insert into landing.feed_files (file_name, sha256, byte_size, contract, contract_version, contract_sha256, feed, source,
                                mode, as_of, state, run_id)
values ('open_items.csv', md5(random()::text), 1, 'open_items', '1', '', 'open_items', 'accounting', 'snapshot',
        cast(:day as date) - 5, 'applied', :run_id)
""",
    """
insert into crm.organizations (customer_number, name, country, language, segment, owner, seen_as_of, feed_file_id)
select 'C-' || n, 'Customer ' || n || ' Ltd', :country, :language, null, 'owner@kontor.example', :day,
       (select max(feed_file_id) from landing.feed_files)
from generate_series(cast(:first as integer), cast(:last as integer)) n
""",
    """
insert into crm.contacts (organization_id, contact_key, first_name, last_name, email, seen_as_of, feed_file_id)
select organization_id, 'k', 'Anna', customer_number, lower(customer_number) || '@customer.example', :day, feed_file_id
from crm.organizations where organization_id not in (select organization_id from crm.contacts)
""",
    """
insert into crm.contact_roles (contact_id, role, valid, feed_file_id)
select contact_id, 'payments', daterange(date '2020-01-01', null), feed_file_id from crm.contacts
where contact_id not in (select contact_id from crm.contact_roles)
""",
    """
insert into crm.invoices (organization_id, source, invoice_number, document_type, issued_on, due_on, currency, amount,
                          open_amount, listed_from, feed_file_id)
select organization_id, 'accounting', customer_number || '/' || n, 'invoice', cast(:day as date) - 60,
       cast(:day as date) + case when cast(:stage as text) = 'upcoming' then 2 else -30 + n end, 'EUR',
       100 * n, 100 * n,
       cast(:day as date) - 5, feed_file_id
from crm.organizations, generate_series(1, :items) n
where organization_id not in (select organization_id from crm.invoices)
""",
)

_PLAN = (
    """
insert into ops.reminder_decisions (run_id, as_of, organization_id, decision, stage, sequence, reason, reason_code,
    contact_id, recipient_email, recipient_reason, language, invoice_ids, rule_id, rule_version, figures)
select :run_id, ops.business_today(), o.organization_id, 'remind', :stage, :sequence, 'overdue', 'remind',
       c.contact_id, c.email, 'holds the role payments', coalesce(o.language, 'en'),
       array(select invoice_id from crm.invoices i where i.organization_id = o.organization_id), 'standard_first', 1,
       jsonb_build_object('policy', 'standard')
from crm.organizations o join crm.contacts c using (organization_id)
where not exists (select from outbox.reminders r
                  where r.organization_id = o.organization_id and r.state not in ('sent', 'cancelled'))
""",
    """
insert into outbox.reminders (run_id, decision_id, organization_id, as_of, stage, sequence, contact_id, recipient_email,
    recipient_reason, language, template, rule_id, rule_version)
select run_id, decision_id, organization_id, as_of, stage, sequence, contact_id, recipient_email, recipient_reason,
       language, stage, rule_id, rule_version
from ops.reminder_decisions where run_id = :run_id
""",
    """
insert into outbox.reminder_items (reminder_id, invoice_id, stage, sequence, currency, open_amount, due_on)
select r.reminder_id, i.invoice_id, r.stage, r.sequence, i.currency, i.open_amount, i.due_on
from outbox.reminders r join crm.invoices i using (organization_id)
where r.run_id = :run_id and i.open_amount > 0 and i.listed_until is null
  and not exists (select from outbox.reminder_items x where x.invoice_id = i.invoice_id and x.stage = r.stage
                    and x.sequence = r.sequence and x.released_at is null)
""",
)
