"""What data_quality does: read the rules, check every table, keep incidents, tell what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from configs.settings import Settings, load_settings
from tasks.artifacts import markdown_table, summary
from tasks.database import FLOWS, database_url, engine_for
from tasks.errors import PartlyDone
from tasks.ledger import Run
from tasks.quality.checks_store import Result, check_table, create_failing, in_force
from tasks.quality.contracts import TableContract, list_table_contracts
from tasks.quality.incidents_store import Kept, keep_incidents, keep_results, refuse_past
from tasks.quality.measures_store import judge_measures, keep_measures, measure_table
from tasks.quality.pages_store import write_pages
from tasks.quality.parameters import QualityParameters
from tasks.steps import (
    READ_STEP,
    WRITE_STEP,
    current_actor,
    log_event,
    open_run,
    publish_counts,
    publish_summary,
    step,
)


@dataclass(frozen=True)
class QualityRun:
    """One run of data_quality: its ledger entry, where it works, and what the person said."""

    run: Run
    settings: Settings
    engine: Engine
    parameters: QualityParameters

    @property
    def as_of(self) -> date:
        """The day the run speaks of."""
        return self.run.as_of


@dataclass(frozen=True)
class Checked:
    """What a run found: one result a rule, and what became of the incidents."""

    results: tuple[Result, ...]
    kept: Kept

    def in_state(self, state: str) -> list[Result]:
        """The results of one state."""
        return [result for result in self.results if result.state == state]


@contextmanager
def open_quality_run(parameters: QualityParameters) -> Iterator[QualityRun]:
    """Hold the flow's lock and ledger entry for a ``with`` block.

    Raises:
        Locked: the flow is running already.
    """
    settings = load_settings()
    as_of = parameters.as_of or datetime.now(ZoneInfo(settings.business_timezone)).date()
    engine = engine_for(settings, purpose="kontor data_quality")
    with open_run(engine, "data_quality", as_of=as_of, dry_run=parameters.dry_run, actor=current_actor()) as run:
        log_event("run_opened", flow="data_quality", run_id=run.run_id, as_of=as_of, dry_run=str(parameters.dry_run))
        yield QualityRun(run, settings, engine, parameters)


@step(READ_STEP)
def read_rules(run: QualityRun) -> list[TableContract]:
    """The table contracts to check, with what the rule table says of their rules on the day of the run."""
    contracts = list_table_contracts(run.parameters.contracts)
    with run.engine.connect() as connection:
        found = in_force(connection, contracts, run.as_of)
    rules = sum(len(contract.rules) for contract in found)
    log_event("rules_read", run_id=run.run.run_id, contracts=len(found), rules=rules)
    return found


@step(WRITE_STEP)
def check_tables(run: QualityRun, contracts: Sequence[TableContract]) -> Checked:
    """Check every table and bring the incidents up to date, all in one transaction; a dry run keeps nothing of it."""
    with run.engine.connect() as connection, connection.begin() as transaction:
        if not run.parameters.dry_run:
            refuse_past(connection, run.as_of)
        connection.exec_driver_sql("set local work_mem = '192MB'")
        create_failing(connection)
        results = [result for contract in contracts for result in _check(run, connection, contract)]
        keep_results(connection, run.run.run_id, run.as_of, results, "sql")
        kept = keep_incidents(connection, run.run.run_id, run.as_of, results, current_actor())
        if run.parameters.dry_run:
            transaction.rollback()
    checked = Checked(tuple(results), kept)
    run.run.note(_counts(checked))
    log_event("tables_checked", run_id=run.run.run_id, **_counts(checked))
    return checked


def _check(run: QualityRun, connection: Connection, contract: TableContract) -> list[Result]:
    results = check_table(connection, contract, run.as_of)
    figures = measure_table(connection, contract, run.as_of)
    if figures is None:
        return results
    usual = judge_measures(connection, contract, run.as_of, figures)
    keep_measures(connection, run.run.run_id, contract, run.as_of, figures)
    return [*results, usual] if usual is not None else results


def _counts(checked: Checked) -> dict[str, int]:
    states = {f"rules_{state}": len(checked.in_state(state)) for state in ("pass", "fail", "error")}
    kept = checked.kept
    return states | {
        "failing_records": sum(result.failing or 0 for result in checked.results),
        "incidents_opened": kept.opened,
        "incidents_reopened": kept.reopened,
        "incidents_closed": kept.closed,
        "incidents_standing": kept.standing,
    }


@step(WRITE_STEP)
def ask_again(run: QualityRun, contracts: Sequence[TableContract]) -> list[Result]:
    """Great Expectations' answers to the same rules, kept beside ours; none where nobody asked for them."""
    if not run.parameters.second_opinion:
        return []
    from tasks.quality.second_opinion import ENGINE, ask  # seconds that no other run should wait for

    url = database_url(run.settings, FLOWS).render_as_string(hide_password=False)
    results = [result for contract in contracts for result in ask(url, FLOWS, contract, run.as_of)]
    if not run.parameters.dry_run:
        with run.engine.begin() as connection:
            keep_results(connection, run.run.run_id, run.as_of, results, ENGINE)
    log_event("second_opinion", run_id=run.run.run_id, rules=len(results))
    return results


@step(READ_STEP)
def write_reports(run: QualityRun, contracts: Sequence[TableContract], checked: Checked) -> int:
    """Write a page for engineers and one for each owner under KONTOR_HOME/reports; returns how many."""
    if run.parameters.dry_run:
        return 0
    with run.engine.connect() as connection:
        written = write_pages(connection, run.settings.home, run.as_of, contracts, checked.results)
    log_event("pages_written", run_id=run.run.run_id, pages=len(written))
    return len(written)


@step(READ_STEP)
def report_quality(run: QualityRun, checked: Checked) -> dict[str, int]:
    """Publish every rule's answer, errors apart from failures; returns the counts."""
    rows = [
        {
            "rule": result.rule.rule_id,
            "table": result.table,
            "state": result.state,
            "severity": result.rule.severity,
            "failing": result.failing,
            "rows": result.rows_checked,
            "error": result.error,
        }
        for result in checked.results
    ]
    publish_counts("data-quality-rules", "What every rule found; an error is neither pass nor fail", rows)
    counts = _counts(checked)
    named = ("rule", "table", "severity", "failing", "rows")
    sections = {
        "Could not be asked": markdown_table(
            [row for row in rows if row["state"] == "error"], ("rule", "table", "error")
        ),
        "Failed": markdown_table([row for row in rows if row["state"] == "fail"], named),
    }
    facts = {name.replace("_", " "): count for name, count in counts.items()}
    publish_summary("data-quality-summary", summary(f"data_quality as of {run.as_of}", facts, sections))
    return counts


def conclude(checked: Checked, opinion: Sequence[Result] = ()) -> None:
    """End the flow failed, not green, where a rule could not be asked; that data are bad is what it exists to find.

    Raises:
        PartlyDone: naming the rules that could not be asked, and why, or those on which the two engines differ.
    """
    _conclude_opinion(checked, opinion)
    errors = checked.in_state("error")
    if not errors:
        return
    told = "".join(f"\n  - {item.rule.rule_id} on {item.table}: {item.error}" for item in errors)
    raise PartlyDone(
        f"{len(checked.results) - len(errors)} of {len(checked.results)} rules were checked; these could not be:{told}",
        hint="The table is not what its contract in data_contracts/quality says; mend one of the two and run again.",
    )


def _conclude_opinion(checked: Checked, opinion: Sequence[Result]) -> None:
    if not opinion:
        return
    from tasks.quality.second_opinion import differences

    differing = differences(checked.results, opinion)
    if differing:
        raise PartlyDone(
            "The data were checked; on these rules the second engine counts otherwise:"
            + "".join(f"\n  - {told}" for told in differing),
            hint="Where data changed between the two, run it again; else the contract means two things: report it.",
        )
