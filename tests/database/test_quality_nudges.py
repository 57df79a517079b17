"""The weekly letter to owners: once a week each, with what is theirs and no personal data, and only when asked."""

from __future__ import annotations

from datetime import date, timedelta
from email import message_from_string, policy
from pathlib import Path

import pytest

from configs.settings import Settings
from tasks import database
from tasks.errors import PartlyDone
from tasks.ledger import open_run
from tasks.letters import Mailbox
from tasks.quality import nudge_steps
from tasks.quality.nudge_steps import NudgeParameters, NudgeRun
from tasks.quality.nudges import mailboxes_of, week_of
from tests.database.test_quality import check
from tests.ledgers import Books, write_csv

TODAY = date(2026, 3, 4)


@pytest.fixture
def books(kontor_settings: Settings, tmp_path: Path) -> Books:
    """Two incomplete customers of two owners, of whom one is an address."""
    made = Books(kontor_settings)
    rows: list[dict[str, object]] = [
        {"customer_number": "1", "name": "Alfa Secret", "country": "", "language": "", "owner": "anna@firma.example",
         "contacted_on": "2025-08-03"},
        {"customer_number": "2", "name": "Beta Secret", "country": "", "language": "", "owner": "petar",
         "contacted_on": "2025-09-04"},
    ]  # fmt: skip
    made.take_in(write_csv(tmp_path / "organizations.csv", rows), "organizations", TODAY)
    check(kontor_settings, TODAY)
    return made


def _run(books: Books, tmp_path: Path, day: date, *, live: bool) -> dict[str, int]:
    settings = books.settings.model_copy(
        update={"mail_from": "Kontor <office@kontor.example>", "finance_emails": "f@kontor.example", "home": tmp_path}
    )
    engine = database.engine_for(books.settings)
    with open_run(engine, "quality_nudge", as_of=day, dry_run=not live, prefect_run_id=None, actor="test") as run:
        nudged = NudgeRun(run, settings, engine, NudgeParameters(as_of=day, dry_run=not live))
        return nudge_steps.write_to_owners.fn(nudged, nudge_steps.read_owners.fn(nudged))


def test_owners_are_written_to_once_a_week_and_only_when_asked(books: Books, tmp_path: Path) -> None:
    """A dry run writes nothing; live writes once, again the same week to nobody, the next week anew."""
    assert _run(books, tmp_path, TODAY, live=False)["letters_would_write"] == 1
    assert books.read("select * from ops.quality_nudges") == []
    first = _run(books, tmp_path, TODAY, live=True)
    assert (first["letters_held"], first["letters_without_address"] >= 1) == (1, True)
    held = list(tmp_path.rglob("*.eml"))
    assert len(held) == 1
    letter = held[0].read_text("utf-8")
    assert "anna@firma.example" in letter
    assert "Secret" not in letter
    said = message_from_string(letter, policy=policy.default).get_body(("plain",))
    assert said is not None
    assert "1: nobody has been in touch; last contacted: 2025-08-03" in said.get_content()
    told = books.read("select record_key from ops.quality_incidents where rule_id = 'organization_contacted'")
    assert told == [{"record_key": "1"}]  # exactly six months is not too long
    assert "letters_held" not in _run(books, tmp_path, TODAY + timedelta(days=3), live=True)
    assert _run(books, tmp_path, TODAY + timedelta(days=7), live=True)["letters_held"] == 1
    rows = books.read("select owner, week, outcome from ops.quality_nudges order by week")
    assert [(row["owner"], row["week"], row["outcome"]) for row in rows] == [
        ("anna@firma.example", date(2026, 3, 2), "held"),
        ("anna@firma.example", date(2026, 3, 9), "held"),
    ]


def test_a_letter_that_did_not_leave_ends_the_run_partly_done() -> None:
    """Held and sent letters are well; refused and deferred ones are told."""
    nudge_steps.conclude({"letters_held": 3, "letters_without_address": 1})
    with pytest.raises(PartlyDone, match="2 refused"):
        nudge_steps.conclude({"letters_held": 3, "letters_refused": 2})


def test_a_week_begins_on_monday_and_an_owner_is_a_team_or_an_address() -> None:
    """Sunday belongs to the week before it; a name without an address is nobody."""
    assert week_of(date(2026, 3, 8)) == date(2026, 3, 2)
    assert week_of(date(2026, 3, 9)) == date(2026, 3, 9)
    teams = {"finance": (Mailbox("f@kontor.example"),)}
    assert mailboxes_of("finance", teams) == teams["finance"]
    assert mailboxes_of("anna@firma.example", teams) == (Mailbox("anna@firma.example"),)
    assert mailboxes_of("petar", teams) == ()
