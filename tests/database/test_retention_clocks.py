"""What starts a clock, in the business time zone: worked examples at the boundaries, and any instant in any zone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from configs.settings import Settings
from tasks import database
from tasks.retention.entities import ENTITIES
from tests.conftest import CAMPAIGN_FACTOR
from tests.histories import add_customer, writing

ZONES = ("Europe/Sofia", "Europe/Oslo", "Europe/Warsaw", "Europe/Stockholm", "Europe/Berlin", "UTC", "America/New_York")
SECONDS = st.integers(*(int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1995, 2036)))
INSTANTS = SECONDS.map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
EXPORTED = ENTITIES["ops.egress_log"].clocks["at"]


def _days(prepared: Settings, instants: list[datetime], zone: str) -> list[date]:
    instants_as_rows = "unnest(cast(:instants as timestamptz[])) with ordinality as r (at, place)"
    statement = f"select {EXPORTED} from {instants_as_rows} order by place"
    with database.engine_for(prepared).connect() as connection:
        return list(connection.scalars(text(statement), {"instants": instants, "zone": zone}))


def test_an_instant_belongs_to_the_day_it_has_in_the_office(prepared: Settings) -> None:
    """Sofia is two hours ahead of UTC in winter and three in summer; the night of the change belongs to its own day."""
    instants = [
        datetime(2023, 12, 31, 21, 59, 59, tzinfo=UTC),
        datetime(2023, 12, 31, 22, 0, tzinfo=UTC),
        datetime(2024, 2, 28, 22, 30, tzinfo=UTC),
        datetime(2024, 3, 30, 21, 59, tzinfo=UTC),
        datetime(2024, 3, 31, 20, 59, tzinfo=UTC),
        datetime(2024, 3, 31, 21, 0, tzinfo=UTC),
        datetime(2024, 10, 26, 21, 0, tzinfo=UTC),
        datetime(2024, 10, 27, 21, 59, tzinfo=UTC),
    ]
    assert [str(day) for day in _days(prepared, instants, "Europe/Sofia")] == [
        "2023-12-31", "2024-01-01", "2024-02-29", "2024-03-30", "2024-03-31", "2024-04-01", "2024-10-27", "2024-10-27",
    ]  # fmt: skip


@settings(max_examples=15 * CAMPAIGN_FACTOR, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instants=st.lists(INSTANTS, min_size=1, max_size=40), zone=st.sampled_from(ZONES))
def test_the_database_and_the_calendar_agree_on_the_day(
    prepared: Settings, instants: list[datetime], zone: str
) -> None:
    """Every instant has the day that the zone's own rules give it, over leap days and changes of the clock."""
    assert _days(prepared, instants, zone) == [one.astimezone(ZoneInfo(zone)).date() for one in instants]


def test_what_starts_the_clock_of_a_contact(kontor_settings: Settings) -> None:
    """The last role's end, the last invoice, the day on which they asked for no more mail; null before it has come."""
    with writing(kontor_settings) as connection:
        add_customer(connection, "A", contacts=2)
        connection.execute(
            text(
                "insert into outbox.suppressions (email, kind, since, reason) values"
                " ('a-1@example.com', 'person_asked', '2026-03-31 21:30+00', 'x'),"
                " ('a-2@example.com', 'hard_bounce', '2026-03-31 21:30+00', 'x')"
            )
        )
    with database.engine_for(kontor_settings, database.OWNER).begin() as connection:
        connection.execute(
            text(
                "insert into crm.contact_roles (contact_id, role, valid, feed_file_id) select contact_id, 'manager',"
                " daterange('2026-01-01', null), feed_file_id from crm.contacts where email = 'A-2@example.com'"
            )
        )
        connection.execute(
            text(
                "insert into crm.invoices (organization_id, source, invoice_number, document_type, issued_on, due_on,"
                " currency, amount, open_amount, listed_from, listed_until, feed_file_id) select organization_id, 'x',"
                " 'I', 'invoice', '2024-01-31', '2024-02-29', 'EUR', 10, 10, '2024-02-01', '2024-03-05', feed_file_id"
                " from crm.organizations"
            )
        )
    assert _clocks(kontor_settings) == [
        {
            "last_activity": date(2026, 12, 31),
            "last_invoice_settled": date(2024, 3, 5),
            "role_ended": date(2026, 12, 31),
            "consent_withdrawn": date(2026, 4, 1),
        },
        {
            "last_activity": date(2026, 12, 31),
            "last_invoice_settled": date(2024, 3, 5),
            "role_ended": None,
            "consent_withdrawn": None,
        },
    ]
    with database.engine_for(kontor_settings, database.OWNER).begin() as connection:
        connection.execute(text("update crm.invoices set listed_until = null"))
    owed = _clocks(kontor_settings)
    assert [(row["last_activity"], row["last_invoice_settled"]) for row in owed] == [(None, None)] * 2


def _clocks(settings: Settings) -> list[dict[str, date | None]]:
    named = ", ".join(f"{sql} as {name}" for name, sql in ENTITIES["crm.contacts"].clocks.items())
    statement = text(f"select {named} from crm.contacts r order by r.contact_id")
    with database.engine_for(settings, database.RETENTION).connect() as connection:
        return [dict(row) for row in connection.execute(statement, {"zone": "Europe/Sofia"}).mappings()]
