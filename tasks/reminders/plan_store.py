"""Keeps what was planned: decisions, mails and the reservations of their items, in one transaction.

A second run of the same day writes nothing where it decides the same. An invoice's stage that is reserved already makes
the database refuse the whole transaction: no run can talk itself past it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from psycopg.copy import QueuedLibpqWriter
from sqlalchemy import Connection, text

from tasks.errors import Refused
from tasks.reminders.brake import check_brake
from tasks.reminders.drafts import DraftPlan
from tasks.reminders.rulebook import RuleBook
from tasks.reminders.tasks_store import close_tasks, open_tasks

COUNTS = ("decided", "recorded", "planned", "reserved", "tasks_opened", "tasks_closed")


def save_plan(
    connection: Connection, run_id: int, as_of: date, draft: DraftPlan, *, brake: str | None = None
) -> dict[str, int]:
    """Keep the decisions of a day and reserve what they remind of; return the counts of rows written by kind.

    With ``brake`` every mail waits for a person, who reads that text as the reason. Works in the caller's transaction.
    The counts: ``decided`` (all given), ``recorded`` (decisions that were not known), ``planned`` mails, ``reserved``
    items, ``tasks_opened`` and ``tasks_closed``.
    """
    # Tables that were empty a moment ago look small to the planner; row by row would be slow beyond thousands.
    connection.exec_driver_sql("set local enable_nestloop = off")
    connection.exec_driver_sql("set local work_mem = '128MB'")
    connection.execute(text(_WORK_TABLES))
    _copy(connection, f"planned_decision ({_DECISION_COLUMNS})", draft.decisions)
    _copy(connection, "planned_item", draft.items)
    # Of what is joined and chosen by alone: looking at reasons and figures took longer than a join by a bad guess.
    connection.execute(text("analyze planned_decision (organization_id, decision, reason_code)"))
    given = {"run_id": run_id, "as_of": as_of, "brake": brake}
    recorded = connection.execute(text(_RECORD), given).rowcount
    planned = connection.execute(text(_PLAN), given).rowcount
    reserved = connection.execute(text(_RESERVE), given).rowcount
    opened = open_tasks(connection, run_id, as_of, brake)
    closed = close_tasks(connection, as_of)
    connection.execute(text("drop table planned_decision, planned_item"))
    connection.exec_driver_sql("set local enable_nestloop = on")
    counts = draft.reasons.total(), recorded, planned, reserved, opened, closed
    return dict(zip(COUNTS, counts, strict=True))


def why_braked(connection: Connection, rules: RuleBook, planned: int, as_of: date) -> str | None:
    """Why this many mails must not leave by themselves: after a restore, or too many; None where they may."""
    if not planned:
        return None
    return _restored(connection) or check_brake(rules, planned, fetch_earlier_runs(connection, rules, as_of))


def _restored(connection: Connection) -> str | None:
    """That the database is a backup which no person has looked at since, so that it may not know of mails that left."""
    restored: datetime | None = connection.scalar(
        text(
            "select max(l.ended_at) from ops.run_ledger l where l.flow = 'restore'"
            " and not exists (select from outbox.reminders r where r.approved_at > l.ended_at)"
        )
    )
    if restored is None:
        return None
    return f"the database was restored at {restored:%Y-%m-%d %H:%M} UTC and may not know of mails sent after its backup"


def fetch_earlier_runs(connection: Connection, rules: RuleBook, as_of: date) -> list[int]:
    """How many mails each earlier day in the brake's window planned, days without a mail left out."""
    limit = rules.limit("blast_radius")
    days = limit.window_days if limit is not None and limit.window_days is not None else 90
    rows = connection.scalars(
        text("select count(*) from outbox.reminders where as_of >= :since and as_of < :as_of group by as_of"),
        {"since": as_of - timedelta(days=days), "as_of": as_of},
    )
    return [int(count) for count in rows]


def _copy(connection: Connection, table: str, blocks: Iterable[bytes]) -> None:
    driver = connection.connection.driver_connection
    if driver is None:
        raise Refused("The connection was closed while a plan was being kept.", hint="Run the command again.")
    with driver.cursor() as cursor, cursor.copy(f"copy {table} from stdin", writer=QueuedLibpqWriter(cursor)) as copy:
        for block in blocks:
            copy.write(block)


# --- statements -------------------------------------------------------------------------------------------------------

_DECISION_COLUMNS = (
    "organization_id, decision, stage, sequence, reason, reason_code, contact_id, recipient_email, recipient_reason,"
    " language, invoice_ids, rule_id, rule_version, figures, template, cc, attachment, needs_approval, owner"
)
_WORK_TABLES = """
create temporary table planned_decision (
    place integer generated always as identity, organization_id bigint, decision text, stage text, sequence integer,
    reason text, reason_code text, contact_id bigint, recipient_email text, recipient_reason text, language text,
    invoice_ids bigint[], rule_id text, rule_version integer, figures jsonb, template text, cc text, attachment text,
    needs_approval boolean, owner text
) on commit drop;
create temporary table planned_item (
    organization_id bigint, invoice_id bigint, stage text, sequence integer, currency text, open_amount numeric,
    due_on date
) on commit drop
"""

_SAID = (
    "decision, stage, sequence, reason, reason_code, contact_id, recipient_email, recipient_reason, language,"
    " invoice_ids, rule_id, rule_version, figures"
)
_SAID_NOW, _SAID_BEFORE = (
    ", ".join(f"{alias}.{name}" for name in _SAID.replace(" ", "").split(",")) for alias in ("p", "b")
)

_RECORD = f"""
insert into ops.reminder_decisions (run_id, as_of, organization_id, {_SAID})
select :run_id, :as_of, p.organization_id, {_SAID_NOW}
from planned_decision p
left join (
    select distinct on (organization_id) * from ops.reminder_decisions
    where as_of = :as_of order by organization_id, decision_id desc
) b on b.organization_id = p.organization_id
where b.organization_id is null or ({_SAID_NOW}) is distinct from ({_SAID_BEFORE})
order by p.place
"""

# The newest decision of the day is the one just made, or the same one made before and cancelled since.
_PLAN = """
insert into outbox.reminders (run_id, decision_id, organization_id, as_of, stage, sequence, state, state_reason,
    contact_id, recipient_email, recipient_reason, cc, language, template, attachment, thread_message_id, rule_id,
    rule_version, needs_approval)
select :run_id, d.decision_id, p.organization_id, :as_of, p.stage, p.sequence, 'planned', cast(:brake as text),
    p.contact_id, p.recipient_email, p.recipient_reason, p.cc, p.language, p.template, p.attachment,
    thread.message_id,
    p.rule_id, p.rule_version, p.needs_approval or cast(:brake as text) is not null
from planned_decision p
join (
    select distinct on (organization_id) organization_id, decision_id from ops.reminder_decisions
    where as_of = :as_of order by organization_id, decision_id desc
) d on d.organization_id = p.organization_id
left join (
    select distinct on (organization_id) organization_id, message_id from outbox.reminders
    where state = 'sent' and message_id is not null
    order by organization_id, sent_at desc nulls last, reminder_id desc
) thread on thread.organization_id = p.organization_id
where p.decision = 'remind'
order by p.place
"""

_RESERVE = """
insert into outbox.reminder_items (reminder_id, invoice_id, stage, sequence, currency, open_amount, due_on)
select m.reminder_id, i.invoice_id, i.stage, i.sequence, i.currency, i.open_amount, i.due_on
from planned_item i
join outbox.reminders m
    on m.organization_id = i.organization_id and m.as_of = :as_of and m.run_id = :run_id and m.state = 'planned'
order by m.reminder_id, i.due_on, i.invoice_id
"""
