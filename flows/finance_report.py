"""Tell finance who owes what, what changed, and what Kontor did about it.

Does:            puts the day's receivables beside those of a week before, with reminders, payers and open questions.
Reads:           the views of schema report: open items, aging, payer classes, reminders, tasks, quarantine.
Writes:          a page, a text and a workbook below KONTOR_HOME/reports/finance; one ledger entry.
Outside effects: one mail to KONTOR_FINANCE_EMAILS, only with --live, once a day of report.
A second run:    writes the same files again; sends nothing a second time unless asked with again=true.
Runbook:         docs/runbooks/finance_report.md
"""

from __future__ import annotations

from tasks.reports.parameters import FinanceParameters
from tasks.reports.steps import open_finance_run, publish_report, publish_status, send_to_finance, write_report
from tasks.steps import business_flow

TODAY_WITHOUT_MAIL = FinanceParameters()


@business_flow()
def finance_report(parameters: FinanceParameters = TODAY_WITHOUT_MAIL) -> dict[str, int]:
    """Write finance's report, send it if asked to, and return the counts of files and mails."""
    with open_finance_run(parameters) as run:
        # Read and write: the figures of one moment, as files that stay whatever becomes of the mail.
        made = write_report(run)

        # Send: to our own people, once; what the server may have taken is never sent again by itself.
        outcome = send_to_finance(run, made)

        # Report: figures that name nobody, and how everything stands.
        counts = publish_report(run, made, outcome)
        publish_status(run.engine)
        return counts
