"""Find every record that breaks a rule, keep it as an incident with an owner until it is mended.

Does:            checks every table against its contract in one pass, opens, repeats and closes incidents.
Reads:           data_contracts/quality, rules of quality, customers, contacts, open items, feeds, quarantine.
Writes:          results, figures and incidents of schema ops, keys for comparing records; nothing that it judges.
Outside effects: pages for engineers and owners under KONTOR_HOME/reports/data_quality. Nobody is written to.
A second run:    of the same day changes nothing; a run killed at any point leaves nothing behind.
Runbook:         docs/runbooks/data_quality.md
"""

from __future__ import annotations

from tasks.quality.duplicate_steps import compare_records
from tasks.quality.parameters import QualityParameters
from tasks.quality.steps import (
    ask_again,
    check_tables,
    conclude,
    open_quality_run,
    read_rules,
    report_quality,
    write_reports,
)
from tasks.steps import business_flow

EVERYTHING_TODAY = QualityParameters()


@business_flow()
def data_quality(parameters: QualityParameters = EVERYTHING_TODAY) -> dict[str, int]:
    """Check the data and return the counts of rules by state and of incidents."""
    with open_quality_run(parameters) as run:
        # Read: what is asked, of which table, with which numbers.
        contracts = read_rules(run)

        # Derive: keys for comparing records, and pairs that may be one.
        compare_records(run)

        # Check and write: every failing record with its reason; incidents follow in the same transaction.
        checked = check_tables(run, contracts)
        opinion = ask_again(run, contracts)

        # Report: what failed, and apart from it what could not be asked; the latter ends the run partly done.
        write_reports(run, contracts, checked)
        counts = report_quality(run, checked)
        conclude(checked, opinion)
        return counts
