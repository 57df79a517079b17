"""The same contract as a Great Expectations suite: a second opinion by an engine that we did not write.

Great Expectations takes seconds to import, so it is imported inside of the functions that use it. Its own expectations
are used wherever it has one; conditions go to it as queries for unexpected rows. A check that raises comes back from it
as one that failed; here the three states are kept apart. Its contexts live in memory and leave nothing behind.

Its templates collide with SQL: braces are doubled, ``{batch}`` brings an alias of its own and is wrapped, and the day
stands as a literal, because nothing can be bound.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from tasks.quality.checks_store import ROW_KINDS, Result, failing_condition, rows_of, state_of
from tasks.quality.contracts import Rule, TableContract

ENGINE = "great_expectations"
_SEVERITIES: Mapping[str, str] = {"info": "info", "warn": "warning", "fail": "critical"}
_SQLSTATE_NAMES = re.compile(r"psycopg\.errors\.(\w+)")


def suite_of(contract: TableContract) -> Any:
    """The contract's rules of rows as an ``ExpectationSuite``; rule, severity and owner stand in each ``meta``."""
    gx: Any = importlib.import_module("great_expectations")

    suite = gx.ExpectationSuite(name=contract.name)
    for rule in _asked(contract):
        suite.add_expectation(_expectation(contract, rule))
    return suite


def ask(url: str, role: str, contract: TableContract, as_of: date, *, key: str | None = None) -> list[Result]:
    """Ask Great Expectations about a table as of a day; one result a rule of rows, in the contract's order.

    ``url`` carries a password where the server wants one and is given to nobody else. With ``key`` it is asked for the
    failing rows' keys too, which is not needed for the counts and takes longer.
    """
    context = _context()
    options = f"-c role={role} -c timezone=UTC -c default_transaction_read_only=on -c application_name=kontor_quality"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would have its own class for PostgreSQL, which knows no socket's path
        source = context.data_sources.add_sql(
            "kontor",
            connection_string=url.replace("$", r"\$"),
            create_temp_table=False,
            kwargs={"connect_args": {"options": options}},
        )
    rows = rows_of(contract).replace(":as_of", f"date '{as_of.isoformat()}'")
    batch = source.add_query_asset(contract.name, query=rows).add_batch_definition_whole_table("all").get_batch()
    wanted: dict[str, Any] = {"result_format": "SUMMARY"}
    if key is not None:
        wanted = {"result_format": "COMPLETE", "unexpected_index_column_names": [key]}
    said = batch.validate(suite_of(contract), result_format=wanted)
    answers = {result.expectation_config.meta["rule_id"]: result for result in said.results}
    return [_result(contract, rule, answers[rule.rule_id], answers.values()) for rule in _asked(contract)]


def _context() -> Any:
    """A context in memory, without progress bars and without folders for pages that nobody makes."""
    gx: Any = importlib.import_module("great_expectations")
    base: Any = importlib.import_module("great_expectations.data_context.types.base")
    stores = base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    bars = base.ProgressBarsConfig(globally=False)
    return gx.get_context(
        mode="ephemeral", project_config=base.DataContextConfig(store_backend_defaults=stores, progress_bars=bars)
    )


def differences(ours: Sequence[Result], theirs: Sequence[Result]) -> list[str]:
    """Where the two engines say different things of one rule, in words."""
    known = {result.rule.rule_id: result for result in ours}
    found = []
    for other in theirs:
        mine = known.get(other.rule.rule_id)
        if mine is not None and (mine.state, mine.failing) != (other.state, other.failing):
            found.append(
                f"{other.rule.rule_id}: {mine.state} with {mine.failing} failing here,"
                f" {other.state} with {other.failing} by Great Expectations"
            )
    return found


def _asked(contract: TableContract) -> list[Rule]:
    return [rule for rule in contract.rules if rule.kind in ROW_KINDS]


def _expectation(contract: TableContract, rule: Rule) -> Any:
    gxe: Any = importlib.import_module("great_expectations.expectations")

    shared: dict[str, Any] = {
        "meta": {"rule_id": rule.rule_id, "severity": rule.severity, "owner": rule.owner, "meaning": rule.meaning},
        "severity": _SEVERITIES[rule.severity],
    }
    first = rule.columns[0]
    match rule.kind:
        case "present":
            return gxe.ExpectColumnValuesToNotBeNull(column=first, **shared)
        case "allowed":
            return gxe.ExpectColumnValuesToBeInSet(column=first, value_set=list(rule.allowed), **shared)
        case "pattern":
            return gxe.ExpectColumnValuesToMatchRegex(column=first, regex=rule.pattern, **shared)
        case "unique" if len(rule.columns) == 1:
            return gxe.ExpectColumnValuesToBeUnique(column=first, **shared)
        case "unique":
            return gxe.ExpectCompoundColumnsToBeUnique(
                column_list=list(rule.columns), ignore_row_if="any_value_is_missing", **shared
            )
        case "at_most":
            return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A=rule.columns[1],
                column_B=first,
                or_equal=True,
                ignore_row_if="either_value_is_missing",
                **shared,
            )
    condition = failing_condition(contract, rule).replace("{", "{{").replace("}", "}}")
    query = f"select 1 as failing from (select * from {{batch}}) r where {condition}"  # noqa: S608  names of the contract
    return gxe.UnexpectedRowsExpectation(unexpected_rows_query=query, **shared)


def _result(contract: TableContract, rule: Rule, answer: Any, answers: Any) -> Result:
    objection = _objection(answer)
    if objection is not None:
        return Result(contract.name, contract.table, rule, "error", error=objection)
    found = answer.result
    rows = next((int(a.result["element_count"]) for a in answers if a.result.get("element_count") is not None), 0)
    counted = found["unexpected_count"] if "unexpected_count" in found else found["observed_value"]
    failing = int(counted or 0)  # of an empty table it says nothing, not 0
    return Result(contract.name, contract.table, rule, state_of(rule, failing, rows), rows, failing)


def _objection(answer: Any) -> str | None:
    """What raised inside Great Expectations, by name alone; it keeps that in two shapes."""
    info: Mapping[str, Any] = answer.exception_info or {}
    shapes = [info] if "raised_exception" in info else list(info.values())
    raised = [shape for shape in shapes if shape.get("raised_exception")]
    if not raised and answer.result:
        return None
    text = " ".join(str(shape.get("exception_traceback")) for shape in raised)
    named = _SQLSTATE_NAMES.search(text)
    return f"Great Expectations could not ask it: {named[1] if named else 'an exception'}"
