"""Tables that are kept by months: made ahead, dropped whole when every row may go, and history's are never dropped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from configs.settings import Settings
from tasks import database
from tasks.retention.holds_store import place_hold
from tasks.retention.months_store import prepare_months
from tests.histories import add_customer, seal, superuser, verify, writing
from tests.retentions import Office, without_engine

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)
PARTS = """
select i.inhrelid::regclass::text as part from pg_inherits i
where i.inhparent in ('history.change_log'::regclass, 'ops.egress_log'::regclass, 'outbox.deliveries'::regclass)
  and i.inhrelid::regclass::text ~ '_20(19|20)_[0-9]{2}$' order by 1
"""


@pytest.fixture
def office(kontor_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """An installation that has the months of December 2019 to February 2020; afterwards it has them no more."""
    without_engine(monkeypatch)
    made = Office(kontor_settings)
    made.begin()
    with writing(kontor_settings) as connection:
        assert prepare_months(connection, date(2019, 12, 31)) == 9
        assert prepare_months(connection, date(2019, 12, 1)) == 0
    yield made
    with superuser(kontor_settings).begin() as connection:
        for part in connection.scalars(text(PARTS)).all():
            connection.execute(text(f"drop table {part}"))


def _months(office: Office, table: str) -> list[str]:
    return [row["part"].rpartition(f"{table}_")[2] for row in office.read(PARTS) if row["part"].startswith(table)]


def _deliver(office: Office, customer: str, day: date, answers: int = 3) -> None:
    with database.engine_for(office.settings, database.OWNER).begin() as connection:
        connection.execute(
            text(
                "with o as (select organization_id from crm.organizations where customer_number = :customer),"
                " run as (select max(run_id) as run_id from ops.run_ledger), decision as ("
                "  insert into ops.reminder_decisions (run_id, as_of, organization_id, decision, reason, reason_code)"
                "  select run_id, :day, organization_id, 'nothing', 'x', 'x' from o, run"
                "  returning decision_id, run_id, organization_id), reminder as ("
                "  insert into outbox.reminders (run_id, decision_id, organization_id, as_of, stage, state,"
                "   recipient_email, recipient_reason, language, template, rule_id, rule_version) select run_id,"
                "   decision_id, organization_id, :day, 'first', 'sent', 'a@b.example', 'x', 'en', 'x', 'x', 1"
                "  from decision returning reminder_id)"
                " insert into outbox.deliveries (reminder_id, attempt, recipient_email, outcome, at, mode) select"
                " reminder_id, n, 'a@b.example', 'sent', cast(:day as date) + interval '12 hours', 'live'"
                " from reminder, generate_series(1, :answers) n"
            ),
            {"customer": customer, "day": day, "answers": answers},
        )


def test_a_month_that_may_go_is_dropped_and_one_with_somebody_held_is_not(office: Office) -> None:
    """A held customer's answers keep their month, whose other rows go all the same; so do rows of no month."""
    with writing(office.settings) as connection:
        for customer in ("FREE", "HELD"):
            add_customer(connection, customer)
    for customer, day in (
        ("FREE", date(2018, 5, 5)),
        ("FREE", date(2019, 12, 30)),
        ("FREE", date(2020, 1, 10)),
        ("HELD", date(2020, 1, 11)),
        ("FREE", date(2020, 2, 29)),
    ):
        _deliver(office, customer, day)
    with office.erasing() as connection:
        place_hold(
            connection,
            office.ledger,
            entity="crm.organizations",
            subject=connection.execute(
                text("select external_id from crm.organizations where customer_number = 'HELD'")
            ).scalar_one(),
            case_number="C 1/26",
            reason="claim",
            author="counsel",
            review_on=date(2027, 1, 1),
            now=NOW,
        )
    # On 20 February 2023 everything up to 19 February 2020 is due: February itself has to wait.
    planned = office.purge(as_of=date(2023, 2, 20))
    item = office.read(
        "select strategy, due, held from ops.retention_plan_items where plan_id = :p and entity = 'outbox.deliveries'",
        p=planned["plan"],
    )
    assert item == [{"strategy": "months", "due": 9, "held": 3}]
    office.purge(plan_id=planned["plan"], dry_run=False, approved_by="second")
    assert _months(office, "outbox.deliveries") == ["2020_01", "2020_02"]
    left = office.read(
        "select at::date as day, count(*) as n from outbox.deliveries group by 1 order by 1",
    )
    assert left == [{"day": date(2020, 1, 11), "n": 3}, {"day": date(2020, 2, 29), "n": 3}]
    done = office.read(
        "select done from ops.retention_plan_items where plan_id = :p and entity = 'outbox.deliveries'",
        p=planned["plan"],
    )
    assert done == [{"done": 9}]
    assert {line.entity for line in office.ledger.in_force()} >= {"outbox.deliveries"}
    assert office.purge(as_of=date(2023, 2, 20))["due"] == 0


def test_a_month_whose_rows_lie_elsewhere_is_not_made(office: Office) -> None:
    """Rows that came before their month was made stay where they are, and everybody finds them."""
    with database.engine_for(office.settings, database.OWNER).begin() as connection:
        for day in ("2020-03-05", "2020-02-05"):
            connection.execute(
                text(
                    "insert into ops.egress_log (at, actor, what, format, row_count, personal_columns)"
                    " values (:day, 'x', 'x', 'csv', 1, '{}')"
                ),
                {"day": day},
            )
    with writing(office.settings) as connection:
        assert prepare_months(connection, date(2020, 3, 1)) == 8  # three for two of the tables, two for this one
    placed = office.read("select tableoid::regclass::text as part from ops.egress_log order by at")
    assert [row["part"] for row in placed] == ["ops.egress_log_2020_02", "ops.egress_log_other"]


@pytest.mark.parametrize(
    "statement",
    [
        "delete from {part}",
        "update {part} set actor = 'nobody'",
        "truncate {part}",
        "insert into {part} overriding system value select * from {part}",
    ],
)
def test_a_month_of_history_is_guarded_like_the_whole(office: Office, statement: str) -> None:
    """Naming one month, its owner too meets the guard; the months' entries are sealed and verified as one chain."""
    with writing(office.settings) as connection:
        add_customer(connection, "A", contacts=2)
    part = office.read("select max(tableoid::regclass::text) as part from history.change_log")[0]["part"]
    assert part.startswith("history.change_log_20")
    with (
        pytest.raises(ProgrammingError, match="history is only ever added to"),
        database.engine_for(office.settings, database.OWNER).begin() as connection,
    ):
        connection.execute(text(statement.format(part=part)))
    seal(office.settings)
    assert verify(office.settings).breaks == ()


def test_no_month_of_history_can_be_dropped_by_who_erases(office: Office) -> None:
    """Nor the rest of a table, nor any other table; and flows can drop nothing."""
    for name in ("history.change_log_2020_01", "outbox.deliveries_other", "crm.contacts"):
        with pytest.raises(ProgrammingError, match="is no month that may be dropped"), office.erasing() as connection:
            connection.execute(text("select ops.drop_month(cast(:name as regclass))"), {"name": name})
    with pytest.raises(ProgrammingError, match="permission denied"), writing(office.settings) as connection:
        connection.execute(text("select ops.drop_month('outbox.deliveries_2020_01')"))
    with superuser(office.settings).begin() as connection:
        connection.execute(text("alter table history.change_log_2020_01 disable trigger refuse"))
    assert any("history.change_log_2020_01" in str(one) for one in verify(office.settings).breaks)
