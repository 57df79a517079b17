"""Incidents: what fails becomes an incident of its rule and record, and stays one until a run no longer finds it.

    found, not known           opened     first_seen = last_seen = the day, due after the rule's days
    found, open                seen again occurrences rises once a day, not once a run
    found, closed before       reopened   regressions rises: somebody had mended it and it is back
    found, waived              stays waived through waived_until, then it is open again
    not found, open or waived  closed     only where its rule could be asked: an error closes nothing

The order of a run's statements does not matter to a reader: all of them are one transaction with the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.errors import Refused, UsageError
from tasks.quality.checks_store import Result


@dataclass(frozen=True)
class Kept:
    """How many incidents a run opened, reopened, closed, and found standing when it ended."""

    opened: int = 0
    reopened: int = 0
    closed: int = 0
    standing: int = 0


def refuse_past(connection: Connection, as_of: date) -> None:
    """Incidents go forward only.

    Raises:
        Refused: a later day has been kept already.
    """
    newest = connection.scalar(text("select max(as_of) from ops.quality_results"))
    if newest is not None and as_of < newest:
        raise Refused(
            f"Quality was checked as of {newest} already; an earlier day, {as_of}, would close what is open now."
            " Nothing was changed.",
            hint="Add --dry-run to look at that day without keeping anything.",
        )


def keep_results(connection: Connection, run_id: int, as_of: date, results: Sequence[Result], engine: str) -> None:
    """Keep what each rule found; the history of every rule stands in these rows."""
    rows = [
        {
            "run_id": run_id,
            "rule_id": result.rule.rule_id,
            "rule_version": result.rule.version,
            "contract": result.contract,
            "table_name": result.table,
            "dimension": result.rule.dimension,
            "severity": result.rule.severity,
            "engine": engine,
            "state": result.state,
            "rows_checked": result.rows_checked,
            "failing": result.failing,
            "tolerance_percent": result.rule.tolerance_percent,
            "error": result.error,
            "as_of": as_of,
        }
        for result in results
    ]
    if rows:
        names = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        connection.execute(text(f"insert into ops.quality_results ({names}) values ({values})"), rows)


def keep_incidents(connection: Connection, run_id: int, as_of: date, results: Sequence[Result], actor: str) -> Kept:
    """Bring the incidents up to what ``failing_record`` says; returns what changed.

    A second run of the same day changes nothing.
    """
    given = {"as_of": as_of, "run_id": run_id, "actor": actor}
    gather_found(connection, as_of, results)
    connection.execute(text(_NOTE_FOUND), given)
    reopened = int(
        connection.scalar(
            text(
                "select count(*) from incident_found f join ops.quality_incidents i using (fingerprint)"
                " where i.state = 'closed'"
            )
        )
        or 0
    )
    connection.execute(text(_UPSERT), given)
    asked = [result.rule.rule_id for result in results if result.state != "error"]
    contracts = sorted({result.contract for result in results})
    known = [result.rule.rule_id for result in results]
    closed = connection.execute(
        text(_CLOSE), {**given, "asked": asked, "contracts": contracts, "known": known}
    ).rowcount
    connection.execute(text(_NOTE_OPENED), given)
    standing = connection.scalar(text("select count(*) from ops.quality_incidents where state <> 'closed'"))
    connection.exec_driver_sql("drop table incident_found, open_money")
    fresh = int(connection.scalar(text(_COUNT_OPENED), given) or 0)
    return Kept(fresh, reopened, closed, int(standing or 0))


def gather_found(connection: Connection, as_of: date, results: Sequence[Result]) -> None:
    """Make ``incident_found``: one row per rule and record, with its owner, due date and the money it touches."""
    rules = [
        {
            "rule_id": result.rule.rule_id,
            "contract": result.contract,
            "table_name": result.table,
            "severity": result.rule.severity,
            "owner": result.rule.owner,
            "account_owner_first": result.rule.account_owner_first,
            "due_days": result.rule.due_days,
        }
        for result in results
    ]
    connection.exec_driver_sql("drop table if exists pg_temp.incident_found, pg_temp.open_money")
    connection.execute(text(_OPEN_MONEY), {"as_of": as_of})
    connection.execute(text(_FOUND).bindparams(bindparam("rules", type_=JSONB)), {"as_of": as_of, "rules": rules})
    connection.exec_driver_sql("analyze incident_found (fingerprint)")


_OPEN_MONEY = """
create temporary table open_money on commit drop as
select i.invoice_id, i.organization_id, i.currency, sum(i.open_amount) as amount
from crm.open_items_at(cast(:as_of as date)) i
where i.invoice_id in (select invoice_id from failing_record)
   or i.organization_id in (select organization_id from failing_record where invoice_id is null)
group by i.invoice_id, i.organization_id, i.currency
"""

_FOUND = """
create temporary table incident_found on commit drop as
with of_invoice as (
    select invoice_id, jsonb_object_agg(currency, amount::text) as money from open_money group by invoice_id
), of_organization as (
    select organization_id, jsonb_object_agg(currency, amount::text) as money
    from (select organization_id, currency, sum(amount) as amount from open_money group by 1, 2) s
    group by organization_id
)
select distinct on (f.rule_id, f.record_key)
       md5(f.rule_id || chr(31) || f.record_key) as fingerprint, f.rule_id, r.contract, r.table_name, f.record_key,
       f.record_id, o.organization_id, f.reason, r.severity,
       coalesce(case when r.account_owner_first then nullif(btrim(o.owner), '') end, r.owner) as owner,
       cast(:as_of as date) + r.due_days as due_on,
       coalesce(case when f.invoice_id is not null then m.money else g.money end, '{}') as money
from failing_record f
join jsonb_to_recordset(:rules) as r(rule_id text, contract text, table_name text, severity text, owner text,
                                     account_owner_first boolean, due_days integer) using (rule_id)
left join crm.organizations o on o.organization_id = f.organization_id
left join of_invoice m on m.invoice_id = f.invoice_id
left join of_organization g on g.organization_id = f.organization_id
order by f.rule_id, f.record_key, f.record_id
"""

# Before anything is changed: what was closed and is back, and waivers that have run out.
_NOTE_FOUND = """
insert into ops.quality_incident_events (incident_id, run_id, event, happened_on, actor)
select i.incident_id, :run_id, case i.state when 'closed' then 'reopened' else 'waiver_ended' end, :as_of, :actor
from incident_found f join ops.quality_incidents i using (fingerprint)
where i.state = 'closed' or (i.state = 'waived' and i.waived_until < :as_of)
"""

_UPSERT = """
insert into ops.quality_incidents as i (fingerprint, rule_id, contract, table_name, record_key, record_id,
    organization_id, reason, severity, owner, first_seen, last_seen, due_on, money, run_id)
select fingerprint, rule_id, contract, table_name, record_key, record_id, organization_id, reason, severity, owner,
       :as_of, :as_of, due_on, money, :run_id
from incident_found
on conflict (fingerprint) do update set
    record_id = excluded.record_id, organization_id = excluded.organization_id, reason = excluded.reason,
    severity = excluded.severity, owner = excluded.owner, money = excluded.money, last_seen = excluded.last_seen,
    table_name = excluded.table_name, contract = excluded.contract,
    occurrences = i.occurrences + (i.last_seen < excluded.last_seen)::integer,
    regressions = i.regressions + (i.state = 'closed')::integer,
    due_on = case when i.state = 'closed' then excluded.due_on else i.due_on end,
    state = case when i.state = 'waived' and i.waived_until >= excluded.last_seen then 'waived' else 'open' end,
    waived_until = case when i.state = 'waived' and i.waived_until >= excluded.last_seen then i.waived_until end,
    closed_on = null, run_id = excluded.run_id
where i.state = 'closed' or i.last_seen < excluded.last_seen
   or (i.state = 'waived' and i.waived_until < excluded.last_seen)
   or (i.record_id, i.organization_id, i.reason, i.severity, i.owner, i.money)
      is distinct from (excluded.record_id, excluded.organization_id, excluded.reason, excluded.severity,
                        excluded.owner, excluded.money)
"""

# A rule that its contract no longer has, or that is out of force, has no incidents either.
_CLOSE = """
with gone as (
    update ops.quality_incidents i set state = 'closed', closed_on = :as_of, waived_until = null, run_id = :run_id
    where i.state <> 'closed' and i.contract = any(:contracts)
      and ((i.rule_id = any(:asked) and not exists (select from incident_found f where f.fingerprint = i.fingerprint))
           or i.rule_id <> all(:known))
    returning i.incident_id, i.rule_id <> all(:known) as unasked
)
insert into ops.quality_incident_events (incident_id, run_id, event, happened_on, actor, reason)
select incident_id, :run_id, 'closed', :as_of, :actor,
       case when unasked then 'its rule is no longer in force' else 'a run no longer found it' end
from gone
"""

_NOTE_OPENED = """
insert into ops.quality_incident_events (incident_id, run_id, event, happened_on, actor)
select i.incident_id, :run_id, 'opened', :as_of, :actor
from ops.quality_incidents i
where i.run_id = :run_id and i.state <> 'closed'
  and not exists (select from ops.quality_incident_events e where e.incident_id = i.incident_id)
"""

_COUNT_OPENED = "select count(*) from ops.quality_incident_events where run_id = :run_id and event = 'opened'"


# --- what people do ---------------------------------------------------------------------------------------------------


def waive(connection: Connection, incident_id: int, until: date, reason: str, actor: str, today: date) -> None:
    """Let an incident rest through a day, for a reason; it is then open again if it is still found.

    Raises:
        UsageError: there is no such open incident, no reason, or the day has passed.
    """
    if not reason.strip():
        raise UsageError("An incident is waived without a reason.", hint="Add --reason 'why it may stand'.")
    if until < today:
        raise UsageError(f"A waiver through {until} has ended already.", hint=f"Choose a day from {today} on.")
    done = connection.execute(
        text(
            "update ops.quality_incidents set state = 'waived', waived_until = :until"
            " where incident_id = :incident_id and state <> 'closed'"
        ),
        {"incident_id": incident_id, "until": until},
    ).rowcount
    if not done:
        raise UsageError(
            f"No open incident has the number {incident_id}.", hint="`kontor quality list` shows the open ones."
        )
    connection.execute(
        text(
            "insert into ops.quality_incident_events (incident_id, event, happened_on, actor, reason)"
            " values (:incident_id, 'waived', :today, :actor, :reason)"
        ),
        {"incident_id": incident_id, "today": today, "actor": actor, "reason": reason.strip()},
    )


def fetch_incident(connection: Connection, incident_id: int) -> dict[str, Any]:
    """One incident as report.quality_incidents has it, what its rule means, and its ``events`` in order.

    Raises:
        UsageError: there is none of that number.
    """
    row = (
        connection.execute(
            text("select * from report.quality_incidents where incident_id = :incident_id"),
            {"incident_id": incident_id},
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise UsageError(
            f"No incident has the number {incident_id}.", hint="`kontor quality list --state all` shows them."
        )
    events = connection.execute(
        text(
            "select event, happened_on, actor, reason, run_id from report.quality_incident_events"
            " where incident_id = :incident_id order by recorded_at, happened_on"
        ),
        {"incident_id": incident_id},
    ).mappings()
    return {**row, "events": [dict(event) for event in events]}
