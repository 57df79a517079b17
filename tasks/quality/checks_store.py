"""One pass over a table for all its rules: every failing row with every reason, and three states for each rule.

A rule passes, fails, or could not be asked (``error``). The pass runs in a savepoint; where the server refuses it, each
rule is asked alone in a savepoint of its own, so that one missing column costs one rule and not the table's others.
What failed stands in the temporary table ``failing_record`` until the transaction ends.

A value that is not there breaks no rule but ``present``: what is missing is reported once, as missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError

from tasks.artifacts import without_personal_data
from tasks.quality.contracts import Rule, TableContract
from tasks.quality.shortcuts_store import bound, gather, quicker

_PLACE = re.compile(r"\{(\w+)\}")
ROW_KINDS = ("present", "allowed", "pattern", "unique", "at_most", "references", "holds")


@dataclass(frozen=True)
class Result:
    """What one rule found: ``state`` is pass, fail or error; counts are None where it could not be asked."""

    contract: str
    table: str
    rule: Rule
    state: str
    rows_checked: int | None = None
    failing: int | None = None
    error: str | None = None


def in_force(connection: Connection, contracts: Sequence[TableContract], as_of: date) -> list[TableContract]:
    """The contracts with what the rule table says of their rules on that day; rules it does not know stay as written.

    A rule whose newest version has ended is left out: somebody took it out of force.
    """
    rows = connection.execute(text(_RULES), {"as_of": as_of}).mappings()
    decided = {str(row["rule_id"]): dict(row) for row in rows}
    return [replace(contract, rules=tuple(_decided(contract.rules, decided))) for contract in contracts]


_RULES = """
select distinct on (rule_id) rule_id, version, severity, dimension, owner, account_owner_first, tolerance_percent,
       threshold, due_days, meaning, valid @> cast(:as_of as date) as holds
from rules.quality_rule
order by rule_id, valid @> cast(:as_of as date) desc, version desc
"""


def _decided(rules: Sequence[Rule], decided: Mapping[str, dict[str, object]]) -> list[Rule]:
    found = []
    for rule in rules:
        row = dict(decided.get(rule.rule_id, {}))
        if row.pop("holds", True):
            row.pop("rule_id", None)
            if row and row["threshold"] is None:
                row.pop("threshold")
            found.append(replace(rule, **row))  # type: ignore[arg-type]
    return found


def create_failing(connection: Connection) -> None:
    """Make ``failing_record``, empty, for the length of the transaction."""
    connection.exec_driver_sql("drop table if exists pg_temp.failing_record")
    connection.exec_driver_sql(
        "create temporary table failing_record (rule_id text not null, record_key text not null, record_id bigint,"
        " organization_id bigint, invoice_id bigint, reason text not null) on commit drop"
    )


def check_table(connection: Connection, contract: TableContract, as_of: date) -> list[Result]:
    """Ask all rules of a contract about its table as of a day and return one result a rule, in the contract's order.

    The failing rows are added to ``failing_record``. Needs :func:`create_failing` before.
    """
    asked = [rule for rule in contract.rules if rule.kind in ROW_KINDS]
    errors: dict[str, str] = {}
    gathered = gather(connection, contract.table, rows_of(contract), asked, as_of)
    refused = _pass(connection, contract, asked, as_of, gathered) if asked else None
    if refused is not None:
        for rule in asked:
            said = _pass(connection, contract, [rule], as_of, gathered)
            if said is not None:
                errors[rule.rule_id] = said
    rows, said = _count(connection, contract, as_of)
    for rule in contract.rules:
        statement = _other_statement(contract, rule)
        if statement is not None and (told := _try(connection, [statement], as_of)) is not None:
            errors[rule.rule_id] = told
    if said is not None:
        errors |= {rule.rule_id: said for rule in asked if rule.rule_id not in errors}
    found = failing_counts(connection)
    return [_result(contract, rule, rows, found, errors) for rule in contract.rules if rule.kind != "usual"]


def _pass(
    connection: Connection,
    contract: TableContract,
    rules: Sequence[Rule],
    as_of: date,
    gathered: Mapping[str, list[str]],
) -> str | None:
    """Find what fails; returns None or what the server objected to.

    Few rows fail, which the planner cannot know: it would not let several processes search, for the price of handing
    on what they find.
    """
    connection.exec_driver_sql("set local parallel_tuple_cost = 0")
    statements = _pass_statements(contract, rules, frozenset(gathered))
    said = _try(connection, statements, as_of, {bound(rule_id): values for rule_id, values in gathered.items()})
    connection.exec_driver_sql("set local parallel_tuple_cost to default")
    return said


def failing_counts(connection: Connection) -> dict[str, int]:
    """How many records fail, per rule."""
    return {
        row.rule_id: int(row.failing)
        for row in connection.execute(text("select rule_id, count(*) as failing from failing_record group by rule_id"))
    }


def _result(
    contract: TableContract, rule: Rule, rows: int | None, found: Mapping[str, int], errors: Mapping[str, str]
) -> Result:
    if rule.rule_id in errors:
        return Result(contract.name, contract.table, rule, "error", error=errors[rule.rule_id])
    failing = found.get(rule.rule_id, 0)
    checked = rows if rule.kind in ROW_KINDS else max(len(contract.columns), 1)
    return Result(contract.name, contract.table, rule, state_of(rule, failing, checked or 0), checked, failing)


def state_of(rule: Rule, failing: int, checked: int) -> str:
    """Pass or fail: so many of so many rows against what the rule tolerates.

    With 5 % tolerated, 5 of 100 rows pass and 6 fail.
    """
    return "pass" if Decimal(100 * failing) <= rule.tolerance_percent * checked else "fail"


def _try(
    connection: Connection, statements: Sequence[str], as_of: date, values: Mapping[str, list[str]] | None = None
) -> str | None:
    """Run statements in a savepoint; returns None, or what the server objected to, without any value.

    A connection that is lost is no answer and goes on as an error of its own.
    """
    savepoint = connection.begin_nested()
    try:
        for statement in statements:
            given = {"as_of": as_of, **(values or {})}
            connection.execute(text(statement), {name: given[name] for name in given if f":{name}" in statement})
    except DBAPIError as error:
        if error.connection_invalidated or (isinstance(error, OperationalError) and not _sqlstate(error)):
            raise
        savepoint.rollback()
        return _objection(error)
    savepoint.commit()
    return None


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _objection(error: DBAPIError) -> str:
    """SQLSTATE and, where it speaks of the statement's own names (class 42), the server's words."""
    state = _sqlstate(error)
    diagnostic = getattr(error.orig, "diag", None)
    words = without_personal_data(str(diagnostic.message_primary or "")) if diagnostic and state[:2] == "42" else ""
    return f"SQLSTATE {state}{': ' if words else ''}{words}"


# --- statements -------------------------------------------------------------------------------------------------------


def rows_of(contract: TableContract) -> str:
    """The query whose rows are judged."""
    return contract.rows or f"select * from {contract.table}"


def failing_condition(contract: TableContract, rule: Rule) -> str:
    """SQL that is true of a row of ``r`` that breaks the rule, and false or null of every other."""
    column = f"r.{rule.columns[0]}" if rule.columns else ""
    match rule.kind:
        case "present":
            return f"{column} is null"
        case "allowed":
            return f"{column} not in ({', '.join(map(literal, rule.allowed))})"
        case "pattern":
            return f"{column} !~ {literal(rule.pattern)}"
        case "at_most":
            return f"r.{rule.columns[0]} > r.{rule.columns[1]}"
        case "references":
            name = rule.columns[0]
            return f"({column} is not null and not exists (select from {rule.references} p where p.{name} = {column}))"
        case "unique":
            return _repeated(contract, rule)
    return f"not ({with_threshold(rule)})"


def _repeated(contract: TableContract, rule: Rule) -> str:
    """Few keys repeat, so they are gathered first and looked up; a window would sort the whole table."""
    names = ", ".join(rule.columns)
    here = ", ".join(f"r.{name}" for name in rule.columns)
    present = " and ".join(f"r.{name} is not null" for name in rule.columns)
    within = " and ".join(f"{name} is not null" for name in rule.columns)
    return (
        f"({present} and ({here}) in (select {names} from ({rows_of(contract)}) u where {within}"
        f" group by {names} having count(*) > 1))"
    )


def with_threshold(rule: Rule) -> str:
    """The rule's condition with its number in place."""
    if rule.threshold is None:
        return rule.condition
    return rule.condition.replace("{threshold}", f"{rule.threshold.normalize():f}")


def literal(value: str) -> str:
    """The text as a literal of SQL; a colon stays a colon, whoever binds parameters."""
    quoted = "'" + value.replace("'", "''") + "'"
    return quoted.replace(":", "\\:")


def _reason(contract: TableContract, rule: Rule) -> str:
    """SQL that says what is wrong with a row of ``r``; personal values are withheld."""
    arguments: list[str] = []

    def place(match: re.Match[str]) -> str:
        name = match[1]
        if name in contract.personal:
            return "(withheld)"
        arguments.append(f"coalesce(r.{name}::text, 'nothing')")
        return "%s"

    template = _PLACE.sub(place, rule.reason.replace("%", "%%"))
    return f"format({', '.join([literal(template), *arguments])})"


def _pass_statements(
    contract: TableContract, rules: Sequence[Rule], gathered: frozenset[str] = frozenset()
) -> list[str]:
    """Statements that add every failing row with every reason to ``failing_record``.

    First the rows that break any rule, by as many processes as there are, then of those few which rule and why;
    ``offset 0`` keeps the two apart. A table is made of them because making one may use several processes and inserting
    may not.
    A rule that is ``gathered`` is asked by its texts, which are bound.
    """
    asked = ((rule, failing_condition(contract, rule)) for rule in rules)
    conditions = [quicker(rule, said) if rule.rule_id in gathered else said for rule, said in asked]
    either = " or ".join(f"({condition})" for condition in conditions)
    flags = ", ".join(f"{condition} as f{place}" for place, condition in enumerate(conditions))
    listed = ", ".join(
        f"({literal(rule.rule_id)}, f{place}, case when f{place} then {_reason(contract, rule)} end)"
        for place, rule in enumerate(rules)
    )
    return [
        "drop table if exists pg_temp.pass_found",
        (
            f"create temporary table pass_found on commit drop as"
            f" select f.rule_id, coalesce({contract.record_key}, '?')::text as record_key,"
            f" {contract.record or 'null'}::bigint as record_id,"
            f" {contract.organization or 'null'}::bigint as organization_id,"
            f" {contract.invoice or 'null'}::bigint as invoice_id, f.reason"
            f" from (select r.*, {flags} from ({rows_of(contract)}) r where {either} offset 0) r"
            f" cross join lateral (values {listed}) f (rule_id, failed, reason) where f.failed"
        ),
        (
            "insert into failing_record (rule_id, record_key, record_id, organization_id, invoice_id, reason)"
            " select rule_id, record_key, record_id, organization_id, invoice_id, reason from pass_found"
        ),
    ]


def _count(connection: Connection, contract: TableContract, as_of: date) -> tuple[int | None, str | None]:
    statement = f"select count(*) from ({rows_of(contract)}) r"
    savepoint = connection.begin_nested()
    try:
        rows = connection.scalar(text(statement), {"as_of": as_of} if ":as_of" in statement else {})
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        savepoint.rollback()
        return None, _objection(error)
    savepoint.commit()
    return int(rows or 0), None


def _other_statement(contract: TableContract, rule: Rule) -> str | None:
    """The statement of a rule that speaks of the table as a whole; None for a rule of rows."""
    insert = "insert into failing_record (rule_id, record_key, reason)"
    table = literal(contract.table)
    if rule.kind == "rows":
        return (
            f"{insert} select {literal(rule.rule_id)}, {table}, {literal(rule.reason)}"
            f" from (select count(*) as n from ({rows_of(contract)}) r) c where n <= {rule.threshold:f}"
        )
    if rule.kind != "columns":
        return None
    wanted = ", ".join(f"({literal(c.name)}, {literal(c.physical_type)})" for c in contract.columns)
    # A cast of a name that is no table any more is refused by the server, and so is an error, not a failure.
    return (
        f"{insert} select {literal(rule.rule_id)}, {table} || '.' || w.name, case when a.attname is null"
        " then 'the column is missing' else format('the column is %s, not %s', format_type(a.atttypid, a.atttypmod),"
        f" w.kind) end from (values {wanted}) w (name, kind)"
        f" left join pg_attribute a on a.attrelid = cast({table} as regclass) and a.attname = w.name"
        " and a.attnum > 0 and not a.attisdropped"
        " where a.attname is null or (w.kind <> '' and format_type(a.atttypid, a.atttypmod) <> w.kind)"
    )
