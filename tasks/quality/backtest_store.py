"""What a draft of a table contract would change: asked of the live tables, nothing is kept.

The contract in force and the draft are both asked as of one day, in a transaction that ends in a rollback. A record
that fails with one of them and not with the other has flipped. The draft is asked as written: numbers of the rule
table are those of the contract in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from tasks.errors import UsageError
from tasks.quality.checks_store import Result, check_table, create_failing, in_force
from tasks.quality.contracts import TableContract, load_table_contract
from tasks.quality.incidents_store import gather_found
from tasks.quality.pages import at_stake


@dataclass(frozen=True)
class RuleFlip:
    """One rule with both contracts: its state and failing rows now and with the draft; None where one lacks it."""

    rule_id: str
    state: str | None
    failing: int | None
    draft_state: str | None
    draft_failing: int | None
    newly_failing: int
    no_longer: int
    money: Mapping[str, Decimal]


@dataclass(frozen=True)
class Backtest:
    """What would change: a line a rule, and every record that flips with its ``becomes`` (fail or pass)."""

    rules: tuple[RuleFlip, ...]
    records: tuple[Mapping[str, Any], ...]


def backtest(connection: Connection, draft: TableContract, as_of: date) -> Backtest:
    """Compare a draft with the contract in force of the same name; the caller's transaction is rolled back.

    A draft of a new name is compared with nothing: everything that it fails is new.
    """
    standing = _standing(connection, draft, as_of)
    create_failing(connection)
    before = check_table(connection, standing, as_of) if standing is not None else []
    connection.exec_driver_sql("create temporary table standing_record on commit drop as select * from failing_record")
    create_failing(connection)
    after = check_table(connection, draft, as_of)
    records = _flipped(connection, as_of, [*before, *after])
    connection.rollback()
    return Backtest(tuple(_lines(before, after, records)), tuple(records))


def _standing(connection: Connection, draft: TableContract, as_of: date) -> TableContract | None:
    try:
        return in_force(connection, [load_table_contract(draft.name)], as_of)[0]
    except UsageError:
        return None


def _flipped(connection: Connection, as_of: date, results: Sequence[Result]) -> list[dict[str, Any]]:
    """The records that fail with one contract alone, each with the open money it touches."""
    connection.exec_driver_sql(_FLIPS)
    create_failing(connection)
    connection.exec_driver_sql(
        "insert into failing_record (rule_id, record_key, record_id, organization_id, invoice_id, reason)"
        " select rule_id, record_key, record_id, organization_id, invoice_id, reason from flip"
    )
    # A rule may stand in both contracts; whose words it has does not matter to the money.
    gather_found(connection, as_of, list({result.rule.rule_id: result for result in results}.values()))
    rows = connection.execute(text(_RECORDS)).mappings()
    return [dict(row) for row in rows]


_FLIPS = """
create temporary table flip on commit drop as
select coalesce(n.rule_id, s.rule_id) as rule_id, coalesce(n.record_key, s.record_key) as record_key,
       coalesce(n.record_id, s.record_id) as record_id, coalesce(n.organization_id, s.organization_id)
       as organization_id, coalesce(n.invoice_id, s.invoice_id) as invoice_id, coalesce(n.reason, s.reason) as reason,
       case when s.rule_id is null then 'fail' else 'pass' end as becomes
from failing_record n
full join standing_record s on s.rule_id = n.rule_id and s.record_key = n.record_key
where n.rule_id is null or s.rule_id is null
"""

_RECORDS = """
select distinct on (f.rule_id, f.record_key) f.rule_id, f.becomes, o.customer_number, f.record_key, f.reason, i.money,
       i.table_name
from flip f
join incident_found i using (rule_id, record_key)
left join crm.organizations o on o.organization_id = f.organization_id
order by f.rule_id, f.record_key
"""


def _lines(before: Sequence[Result], after: Sequence[Result], records: Sequence[Mapping[str, Any]]) -> list[RuleFlip]:
    old = {result.rule.rule_id: result for result in before}
    new = {result.rule.rule_id: result for result in after}
    lines = []
    for rule_id in dict.fromkeys([*new, *old]):
        mine = [row for row in records if row["rule_id"] == rule_id]
        failing = [row for row in mine if row["becomes"] == "fail"]
        was, will = old.get(rule_id), new.get(rule_id)
        lines.append(
            RuleFlip(
                rule_id,
                was.state if was else None,
                was.failing if was else None,
                will.state if will else None,
                will.failing if will else None,
                len(failing),
                len(mine) - len(failing),
                at_stake(mine),
            )
        )
    return lines
