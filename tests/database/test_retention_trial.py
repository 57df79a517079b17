"""Candidate rules are tried out before they hold, and none that no plan could be made by is accepted."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from configs.settings import PROJECT_ROOT, Settings
from flows.cli import app
from tests.retentions import Office

SEEDS = PROJECT_ROOT / "configs" / "rules" / "retention_policy.csv"


@pytest.fixture
def office(kontor_settings: Settings, real_data: Path) -> Office:
    """Real contacts whose firms owe nothing since March 2012."""
    made = Office(kontor_settings)
    made.begin()
    made.weekly_year(real_data)
    made.age("crm.invoices", "listed_until", date(2012, 3, 1))
    made.age("crm.contacts", "seen_as_of", date(2012, 3, 1))
    return made


def _candidates(path: Path, *changes: tuple[str, str]) -> Path:
    text = SEEDS.read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, "utf-8")
    return path


def test_a_shorter_period_says_what_would_be_due_more(office: Office, tmp_path: Path) -> None:
    """Contacts kept a year instead of three: on a day between, only the candidates let them go."""
    assert office.count("crm.contacts") == 206
    shorter = _candidates(tmp_path / "shorter.csv", ("last_activity,36,", "last_activity,12,"))
    given = ["retention", "simulate", str(shorter), "--as-of", "2014-06-01", "--format", "json"]
    said = CliRunner().invoke(app, given)
    assert said.exit_code == 0, said.output
    rows = {row["rule_id"]: row for row in json.loads(said.stdout)}
    assert set(rows) == {"contacts-inactive"}
    assert (rows["contacts-inactive"]["due"], rows["contacts-inactive"]["more"]) == (0, 196)
    assert rows["contacts-inactive"]["needs_approval"] is True
    assert office.count("ops.retention_plans") == 0


def test_unsound_candidates_are_neither_tried_nor_kept(office: Office, tmp_path: Path) -> None:
    """A rule on a clock that there is not is named, in a trial as in an import; nothing becomes a draft."""
    wrong = _candidates(tmp_path / "wrong.csv", ("last_activity,36,", "last_breath,36,"))
    for given in (
        ["retention", "simulate", str(wrong)],
        ["rules", "import", "retention_policy", str(wrong), "--reason", "x"],
    ):
        said = CliRunner().invoke(app, given)
        assert said.exit_code != 0
        assert "no clock last_breath" in said.output + str(said.exception)
    assert office.read("select count(*) as n from rules.drafts where table_name = 'retention_policy'") == [{"n": 0}]
