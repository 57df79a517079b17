"""What Kontor wrote beside its database goes when its rule says so, and nothing else does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from configs.settings import Settings
from tasks.retention.holds_store import place_hold
from tests.histories import add_customer, writing
from tests.retentions import Office, without_engine

LONG_AGO = datetime(2020, 5, 1, 12, tzinfo=UTC)
AS_OF = date(2024, 1, 15)
OLD = (
    "outbox/held/1.eml",
    "reports/finance/2020-05-01/finance.html",
    "reports/data_quality/2020-05-01/rules.html",
    "archive/contacts/2020-05-01_free.csv",
    "archive/contacts/2020-05-01_held.csv",
    "archive/contacts/2020-05-01_damaged.xlsx",
)


def _write(home: Path, name: str, written: datetime, content: bytes = b"nobody") -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (written.timestamp(), written.timestamp()))
    return path


@pytest.fixture
def office(kontor_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """Customer A is held, and old and young files lie where Kontor writes them."""
    without_engine(monkeypatch)
    made = Office(kontor_settings)
    made.begin()
    with writing(kontor_settings) as connection:
        add_customer(connection, "A", contacts=1)
    with made.erasing() as connection:
        place_hold(
            connection,
            made.ledger,
            entity="crm.organizations",
            subject=connection.execute(text("select external_id from crm.organizations")).scalar_one(),
            case_number="C 1/26",
            reason="claim",
            author="counsel",
            review_on=date(2027, 1, 1),
            now=LONG_AGO,
        )
    written = [_write(kontor_settings.home, name, LONG_AGO) for name in OLD]
    _write(kontor_settings.home, OLD[3], LONG_AGO, b"customer_number;note\nBA;x\n")
    _write(kontor_settings.home, OLD[4], LONG_AGO, b"customer_number;note\nA;x\n")
    _write(kontor_settings.home, OLD[5], LONG_AGO, b"PK\x03\x04\xff\0torn")
    written.append(_write(kontor_settings.home, "outbox/held/young.eml", datetime(2023, 12, 31, tzinfo=UTC)))
    yield made
    for path in written:
        path.unlink(missing_ok=True)


def test_outputs_go_when_their_rule_says_so(office: Office, tmp_path: Path) -> None:
    """Old files go by the plan's count; the young, what speaks of the held, and what a link leads out to stay."""
    home = office.settings.home
    outside = _write(tmp_path, "outside.eml", LONG_AGO)
    link = home / "outbox" / "held" / "link.eml"
    link.symlink_to(outside)
    try:
        planned = office.purge(as_of=AS_OF)
        counts = {
            row["entity"]: (row["due"], row["held"])
            for row in office.read(
                "select entity, due, held from ops.retention_plan_items where plan_id = :p and strategy = 'files'",
                p=planned["plan"],
            )
        }
        assert counts["files.held_mail"] == (1, 0)
        assert counts["files.reports"] == (1, 0)
        assert counts["files.data_docs"] == (1, 0)
        assert counts["files.archive"] == (1, 2)
        assert all((home / name).exists() for name in OLD)
        office.purge(plan_id=planned["plan"], dry_run=False, approved_by="second")
        assert [name for name in OLD if (home / name).exists()] == [*OLD[4:]]
        assert (home / "outbox" / "held" / "young.eml").exists()
        assert outside.exists()
        assert not (home / "reports" / "finance" / "2020-05-01").exists()
        assert office.purge(as_of=AS_OF)["due"] == 0
    finally:
        link.unlink()


def test_what_people_typed_goes_after_a_year(office: Office) -> None:
    """What was said when a run was started by hand is deleted by rule, to the day."""
    with writing(office.settings) as connection:
        connection.execute(
            text(
                "insert into ops.instructions (instruction_id, flow, actor, said, given_at) select gen_random_uuid(),"
                " 'payment_sync', 'somebody', '{\"reason\": \"x\"}', cast(day as timestamptz)"
                " from unnest(array['2023-01-14 12:00+00', '2023-01-15 12:00+00']) day"
            )
        )
    office.plan_and_apply(AS_OF)
    left = office.read("select given_at::date as day from ops.instructions where actor = 'somebody'")
    assert left == [{"day": date(2023, 1, 15)}]
