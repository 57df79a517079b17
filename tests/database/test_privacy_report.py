"""Who answers for data protection is told once a month, and at once of exports that are out of the ordinary."""

from __future__ import annotations

import email
import shutil
from datetime import UTC, date, datetime
from email import policy
from pathlib import Path

import pytest
from sqlalchemy import text

from configs.settings import Settings
from flows.privacy_report import privacy_report
from tasks.erasures.egress_store import log_egress
from tasks.privacy.month import month_before
from tasks.privacy.parameters import PrivacyParameters
from tests.histories import writing
from tests.retentions import Office, without_engine

AS_OF = date(2026, 3, 4)


@pytest.fixture
def office(kontor_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Office:
    """February had a hundred rows exported a day; on 3 March somebody took five thousand."""
    without_engine(monkeypatch)
    monkeypatch.setenv("KONTOR_DATA_PROTECTION_EMAILS", "privacy@example.com")
    made = Office(kontor_settings)
    made.begin()
    for folder in ("outbox", "reports"):
        shutil.rmtree(kontor_settings.home / folder, ignore_errors=True)
    with writing(kontor_settings) as connection:
        for day, rows, actor in ((date(2026, 2, 10), 100, "anna"), (date(2026, 2, 11), 90, "anna"), (AS_OF, 0, "anna")):
            _export(made, connection, day, rows, actor)
        _export(made, connection, date(2026, 3, 3), 5_000, "boris")
    with made.erasing() as connection:
        connection.execute(
            text(
                "insert into ops.erasure_requests (author, reason, received_at) values ('anna', 'letter', '2026-01-31')"
            )
        )
    return made


def _export(_: Office, connection: object, day: date, rows: int, actor: str) -> None:
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    columns = ["email"] if rows else []
    log_egress(connection, what="report customers", form="csv", rows=rows, columns=columns, actor=actor, now=at)  # type: ignore[arg-type]


def _mails(home: Path) -> dict[str, str]:
    """The held mails' HTML by subject."""
    found = {}
    for path in (home / "outbox" / "held").glob("*.eml"):
        message = email.message_from_bytes(path.read_bytes(), policy=policy.default)
        assert message["To"] == "privacy@example.com"
        body = message.get_body(("html",))
        found[str(message["Subject"])] = str(body.get_content()) if body else ""
    return found


def test_the_month_is_told_once_and_unusual_exports_at_once(office: Office) -> None:
    """One report about February and one alarm about 3 March; a second run sends neither again."""
    told = privacy_report.fn(PrivacyParameters(as_of=AS_OF, dry_run=False))
    assert told == {"rules_overdue": 0, "to_look_at": 1, "unusual_days": 1, "mails": 2}
    mails = _mails(office.settings.home)
    assert set(mails) == {
        "Data protection 2026-02: 0 gone, 1 to be looked at",
        "Unusual exports of personal data on 2026-03-03: 5000 rows",
    }
    month, alarm = (mails[name] for name in sorted(mails))
    assert "1 requests wait for more than a month" in month
    assert "anna" in month
    assert "190" in month
    assert "boris" not in month
    assert "boris" in alarm
    page = office.settings.home / "reports" / "privacy" / "2026-02.html"
    assert page.stat().st_mode & 0o777 == 0o600
    again = privacy_report.fn(PrivacyParameters(as_of=AS_OF, dry_run=False))
    assert again["mails"] == 0
    assert len(_mails(office.settings.home)) == 2


def test_without_live_nothing_is_sent(office: Office) -> None:
    """The page is written, no mail is, and the next live run sends both."""
    assert privacy_report.fn(PrivacyParameters(as_of=AS_OF))["mails"] == 0
    assert _mails(office.settings.home) == {}
    assert privacy_report.fn(PrivacyParameters(as_of=AS_OF, dry_run=False))["mails"] == 2


@pytest.mark.parametrize(
    ("day", "first", "last"),
    [
        (date(2024, 3, 1), date(2024, 2, 1), date(2024, 2, 29)),
        (date(2026, 1, 31), date(2025, 12, 1), date(2025, 12, 31)),
        (date(2026, 3, 31), date(2026, 2, 1), date(2026, 2, 28)),
    ],
)
def test_the_month_before(day: date, first: date, last: date) -> None:
    """Leap years, turns of the year, and days that the month before does not have."""
    assert month_before(day) == (first, last)
