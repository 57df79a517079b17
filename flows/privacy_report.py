"""Tell who answers for data protection what went, what is held and overdue, and who took personal data out.

Does:            reports the month before, once, and raises an alarm about days with unusual exports, once each.
Reads:           report.retention, report.egress, legal holds, requests, the erasure ledger.
Writes:          the month's page below KONTOR_HOME/reports/privacy; which letters were sent; one ledger entry.
Outside effects: mails to KONTOR_DATA_PROTECTION_EMAILS, else to the engineers, only with --live.
A second run:    writes the same page again and sends nothing a second time.
Runbook:         docs/runbooks/privacy_report.md
"""

from __future__ import annotations

from tasks.privacy.parameters import PrivacyParameters
from tasks.privacy.steps import find_unusual, open_privacy, raise_alarm, report_privacy, tell_month, write_month
from tasks.steps import business_flow

WITHOUT_MAIL = PrivacyParameters()


@business_flow()
def privacy_report(parameters: PrivacyParameters = WITHOUT_MAIL) -> dict[str, int]:
    """Write the month's page, send what has not been sent, and return the counts."""
    with open_privacy(parameters) as run:
        # Alarm: days on which far more personal data was exported than usual; these cannot wait for the month's end.
        unusual = find_unusual(run)
        mails = sum(raise_alarm(run, day) for day in unusual)

        # Write and send: the month before, as a page that stays whatever becomes of the mail.
        month = write_month(run)
        mails += tell_month(run, month)

        # Report: counts that name nobody.
        return report_privacy(run, month, len(unusual), mails)
