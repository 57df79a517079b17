"""What retention can let go of: for each table its clocks, whose holds count, and whose country's law applies.

Expressions are SQL of this code and speak of the row as ``r``; ``:zone`` is the business time zone. A clock that is
null has not started: the row is not due, however old it is. Tables that stand for a person are let go one by one,
each named in the erasure ledger (tasks/erasures/identities.py); all others by pages of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOBODY: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entity:
    """One table; ``clocks`` are dates by name, ``subjects`` external ids under which a hold keeps the row.

    ``key`` is what sample ids are taken from. ``country`` is ISO 3166-1 of the row's customer, null where it has none.
    """

    name: str
    key: str
    clocks: Mapping[str, str]
    subjects: tuple[str, ...] = NOBODY
    country: str = "null::text"

    @property
    def sample_id(self) -> str:
        """SQL for a row's number as a plan shows some; null where its key is no number."""
        return f"r.{self.key}" if self.key != "instruction_id" else "null::bigint"


def _day(column: str) -> str:
    return f"(r.{column} at time zone :zone)::date"


def _of_organization(column: str) -> str:
    return f"(select o.{column} from crm.organizations o where o.organization_id = r.organization_id)"


def _of_invoice(column: str) -> str:
    return (
        f"(select o.{column} from crm.invoices i join crm.organizations o on o.organization_id = i.organization_id"
        " where i.invoice_id = r.invoice_id)"
    )


def _of_reminder(column: str) -> str:
    return (
        f"(select o.{column} from outbox.reminders m join crm.organizations o on o.organization_id = m.organization_id"
        " where m.reminder_id = r.reminder_id)"
    )


def _of_customer_number(column: str) -> str:
    return f"(select o.{column} from crm.organizations o where o.customer_number = r.customer_number)"


# An invoice is settled when a newer list no longer has it, or on the day its ledger says; while it is open, never.
_SETTLED = """
(case when {0}.listed_from is not null and {0}.listed_until is null then null
      else greatest({0}.due_on, {0}.issued_on, coalesce({0}.listed_until,
           (select e.settled_on from crm.ledger_entries e where e.invoice_id = {0}.invoice_id))) end)
"""
_IS_OPEN = """
({0}.listed_until is null and ({0}.listed_from is not null or not exists
 (select from crm.ledger_entries e where e.invoice_id = {0}.invoice_id and e.settled_on is not null)))
"""
_SETTLED_OF_INVOICE = f"(select {_SETTLED.format('i')} from crm.invoices i where i.invoice_id = r.invoice_id)"

# Nobody is forgotten while their firm owes something; after that the last thing that anybody said or did counts.
_LAST_ACTIVITY = f"""
(case when exists (select from crm.invoices i where i.organization_id = r.organization_id and {_IS_OPEN.format("i")})
      then null
      else greatest(r.seen_as_of{{more}},
           (select max(greatest(i.due_on, i.issued_on, i.listed_until)) from crm.invoices i
            where i.organization_id = r.organization_id)) end)
"""
# Of a contact that others are merged into theirs count too: they are one person.
_LAST_ROLE = (
    ", (select max(upper(c.valid)) - 1 from crm.contact_roles c where c.contact_id = r.contact_id)"
    ", (select max(greatest(upper(c.valid) - 1, m.seen_as_of)) from crm.contacts m"
    " left join crm.contact_roles c on c.contact_id = m.contact_id where m.merged_into = r.contact_id)"
)

# The day on which the last of a firm's invoices was settled; null while one is open, and where there never was one.
_LAST_SETTLED = f"""
(case when exists (select from crm.invoices i where i.organization_id = r.organization_id and {_IS_OPEN.format("i")})
      then null
      else (select max({_SETTLED.format("i")}) from crm.invoices i where i.organization_id = r.organization_id) end)
"""

# The last day of a contact's last role; null while one has no end.
_ROLE_ENDED = """
(select case when bool_or(upper_inf(c.valid)) then null else max(upper(c.valid)) - 1 end
 from crm.contact_roles c where c.contact_id = r.contact_id)
"""

# Who asks to be written to no more takes back what they agreed to.
_CONSENT_WITHDRAWN = """
(select max((s.since at time zone :zone)::date) from outbox.suppressions s
 where s.email = lower(r.email) and s.kind = 'person_asked' and s.until is null)
"""

# Its invoices and contacts go first, each after its own period; then it is in the next plan.
_ALONE = """
(case when exists (select from crm.invoices i where i.organization_id = r.organization_id)
        or exists (select from crm.contacts c where c.organization_id = r.organization_id) then null
      else r.seen_as_of end)
"""

ENTITIES: Mapping[str, Entity] = {
    entity.name: entity
    for entity in (
        Entity(
            "crm.contacts",
            "contact_id",
            {
                "last_activity": _LAST_ACTIVITY.format(more=_LAST_ROLE),
                "last_invoice_settled": _LAST_SETTLED,
                "role_ended": _ROLE_ENDED,
                "consent_withdrawn": _CONSENT_WITHDRAWN,
            },
            ("r.external_id", _of_organization("external_id")),
            _of_organization("country"),
        ),
        Entity(
            "crm.organizations",
            "organization_id",
            {
                "left_alone": _ALONE,
                "last_activity": _LAST_ACTIVITY.format(more=""),
                "last_invoice_settled": _LAST_SETTLED,
            },
            ("r.external_id",),
            "r.country",
        ),
        Entity(
            "crm.invoices",
            "invoice_id",
            {"settled": _SETTLED.format("r")},
            (_of_organization("external_id"),),
            _of_organization("country"),
        ),
        Entity(
            "crm.invoice_states",
            "invoice_id",
            {"settled": _SETTLED_OF_INVOICE},
            (_of_invoice("external_id"),),
            _of_invoice("country"),
        ),
        Entity(
            "crm.ledger_entries",
            "invoice_id",
            {"settled": "(case when r.settled_on is not null then greatest(r.due_on, r.issued_on, r.settled_on) end)"},
            (_of_invoice("external_id"),),
            _of_invoice("country"),
        ),
        Entity(
            "crm.earlier_ledger_entries",
            "invoice_id",
            {"settled": "(case when r.settled_on is not null then greatest(r.due_on, r.issued_on, r.settled_on) end)"},
            (_of_invoice("external_id"),),
            _of_invoice("country"),
        ),
        Entity(
            "crm.payments",
            "payment_id",
            {"received": "r.received_on"},
            (_of_organization("external_id"),),
            _of_organization("country"),
        ),
        Entity(
            "landing.corrections",
            "correction_id",
            {"corrected": _day("corrected_at")},
            (
                """(select o.external_id from landing.quarantined_rows q join crm.organizations o
                on o.customer_number = q.customer_number where q.quarantined_row_id = r.quarantined_row_id)""",
            ),
        ),
        Entity(
            "landing.quarantined_rows",
            "quarantined_row_id",
            {"resolved": _day("resolved_at"), "quarantined": _day("quarantined_at")},
            (_of_customer_number("external_id"),),
            _of_customer_number("country"),
        ),
        Entity("landing.feed_files", "feed_file_id", {"received": _day("received_at")}),
        Entity(
            "outbox.deliveries",
            "delivery_id",
            {"at": _day("at")},
            (_of_reminder("external_id"),),
            _of_reminder("country"),
        ),
        Entity(
            "outbox.reminder_items",
            "reminder_id",
            {"settled": _SETTLED_OF_INVOICE},
            (_of_reminder("external_id"),),
            _of_reminder("country"),
        ),
        Entity(
            "outbox.reminders",
            "reminder_id",
            {
                "ended": "(case when r.state in ('sent', 'refused', 'cancelled', 'bounced') then "
                + _day("updated_at")
                + " end)"
            },
            (_of_organization("external_id"),),
            _of_organization("country"),
        ),
        Entity(
            "outbox.suppressions",
            "suppression_id",
            # Who asked not to be written to must stay known, or they would be written to again.
            {"since": "(case when r.kind in ('hard_bounce', 'soft_bounce') then " + _day("since") + " end)"},
        ),
        Entity(
            "ops.reminder_decisions",
            "decision_id",
            {"decided": _day("decided_at")},
            (_of_organization("external_id"),),
            _of_organization("country"),
        ),
        Entity(
            "ops.reminder_holds",
            "hold_id",
            {"ended": "coalesce(" + _day("released_at") + ", upper(r.valid) - 1)"},
            (_of_organization("external_id"),),
            _of_organization("country"),
        ),
        Entity(
            "ops.reminder_tasks",
            "task_id",
            {"closed": _day("closed_at")},
            (_of_organization("external_id"),),
            _of_organization("country"),
        ),
        Entity(
            "ops.duplicate_merges",
            "merge_id",
            {"merged": _day("merged_at")},
            (
                "(select o.external_id from crm.organizations o where o.organization_id = r.kept_id)",
                "(select o.external_id from crm.organizations o where o.organization_id = r.merged_id)",
            ),
        ),
        Entity("ops.instructions", "instruction_id", {"given": _day("given_at")}),
        Entity("ops.run_ledger", "run_id", {"ended": _day("ended_at")}),
        Entity("ops.egress_log", "egress_id", {"at": _day("at")}),
    )
}
