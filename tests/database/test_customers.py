"""Customers, their contacts and roles: upserts in any order, roles with validity, names that nobody expects."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from configs.settings import Settings
from tasks import database
from tasks.feeds.outcomes import FileOutcome
from tests.conftest import empty_database
from tests.ledgers import Books, item, write_csv

JANUARY, FEBRUARY, MARCH = (date(2026, month, 1) for month in (1, 2, 3))
Row = Mapping[str, object]


class Registry:
    """The sales department's side: files of customers and contacts, and the books they go into."""

    def __init__(self, books: Books, folder: Path) -> None:
        self.books, self.folder = books, folder

    def customers(self, day: date, *rows: Row, headings: Sequence[str] = ()) -> FileOutcome:
        """Take in a file of customers of this day."""
        return self._take_in("organizations", day, rows, headings)

    def contacts(self, day: date, *rows: Row, headings: Sequence[str] = ()) -> FileOutcome:
        """Take in a file of contacts of this day."""
        return self._take_in("contacts", day, rows, headings)

    def _take_in(self, contract: str, day: date, rows: Sequence[Row], headings: Sequence[str]) -> FileOutcome:
        return self.books.take_in(write_csv(self.folder / f"{contract}_{day}.csv", rows, headings), contract)

    def card(self, number: str, day: date = date(2026, 11, 20)) -> dict[str, Any]:
        """What finance reads about a customer."""
        statement = "select card from report.organization_card(:number, :day)"
        (row,) = self.books.read(statement, number=number, day=day)
        card: dict[str, Any] = row["card"]
        return card

    def roles(self, number: str, email: str = "anna@example.com") -> list[tuple[str, str | None, str | None]]:
        """A contact's roles: name, first and last day."""
        found = [person for person in self.card(number)["contacts"] if person["email"] == email]
        return [(role["role"], role["valid_from"], role["valid_to"]) for person in found for role in person["roles"]]


@pytest.fixture
def registry(kontor_settings: Settings, tmp_path: Path) -> Registry:
    """The sales department, with empty books."""
    return Registry(Books(kontor_settings), tmp_path)


def customer(number: str, name: str = "Customer", **more: object) -> Row:
    """A row of a customer file."""
    return {"customer_number": number, "name": name, **more}


def anna(roles: str, valid_from: object = "", valid_to: object = "", **more: object) -> Row:
    """A row of a contact file about one person at C-1."""
    return {
        "customer_number": "C-1",
        "first_name": "Anna",
        "last_name": "Berg",
        "email": "anna@example.com",
        "roles": roles,
        "valid_from": valid_from,
        "valid_to": valid_to,
        **more,
    }


def test_customers_are_inserted_updated_and_left_alone(registry: Registry) -> None:
    """The February file has one new customer, one renamed and one as before; the one it leaves out stays."""
    registry.customers(JANUARY, customer("C-1"), customer("C-2", "Old name"), customer("C-3"))
    outcome = registry.customers(FEBRUARY, customer("C-1"), customer("C-2", "New name"), customer("C-4"))

    assert (outcome.inserted, outcome.updated, outcome.unchanged, outcome.superseded) == (1, 1, 1, 0)
    names = registry.books.read(
        "select customer_number, card ->> 'name' as name from report.organization_card order by 1"
    )
    assert [(row["customer_number"], row["name"]) for row in names] == [
        ("C-1", "Customer"),
        ("C-2", "New name"),
        ("C-3", "Customer"),
        ("C-4", "Customer"),
    ]


def test_a_blank_clears_and_a_missing_column_keeps(registry: Registry) -> None:
    """In January C-1 has country, owner and terms; in February the country is blank and the owner has no column."""
    registry.customers(JANUARY, customer("C-1", country="BG", owner="Ivan", payment_terms_days=30))
    outcome = registry.customers(FEBRUARY, customer("C-1", country="", payment_terms_days=14))
    card = registry.card("C-1")
    assert outcome.updated == 1
    assert (card["country"], card["owner"], card["payment_terms_days"]) == (None, "Ivan", 14)


def test_an_older_file_never_overrides_a_newer_one(registry: Registry) -> None:
    """The January file arrives after the February file: what February said of C-1 stays, C-2 is still news."""
    registry.customers(FEBRUARY, customer("C-1", "Since February"))
    outcome = registry.customers(JANUARY, customer("C-1", "Until January"), customer("C-2"))
    assert (outcome.inserted, outcome.superseded) == (1, 1)
    assert registry.card("C-1")["name"] == "Since February"


def test_a_confirmation_is_news_too(registry: Registry) -> None:
    """March says of C-1 what January said; February, arriving last, does not override it."""
    registry.customers(JANUARY, customer("C-1", "Right"))
    registry.customers(MARCH, customer("C-1", "Right", owner=""), headings=["customer_number", "name", "owner"])
    assert registry.customers(FEBRUARY, customer("C-1", "Wrong")).superseded == 1
    assert registry.card("C-1")["name"] == "Right"


File = dict[str, tuple[str, str]]
_FILES = st.lists(
    st.dictionaries(
        st.sampled_from(["C-1", "C-2"]),
        st.tuples(st.sampled_from(["A", "B"]), st.sampled_from(["", "BG", "NO"])),
        min_size=1,
    ),
    min_size=2,
    max_size=4,
)


@settings(max_examples=10)
@given(files=_FILES, data=st.data())
def test_the_newest_word_wins_in_any_order(
    files: list[File], data: st.DataObject, prepared: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Files of one shape in any order leave, for each customer, what the newest file that names it says."""
    empty_database(prepared)
    registry = Registry(Books(prepared), tmp_path_factory.mktemp("customers"))
    for place in data.draw(st.permutations(range(len(files)))):
        rows = [customer(number, name, country=country) for number, (name, country) in files[place].items()]
        outcome = registry.customers(date(2026, 1 + place, 1), *rows)
        assert outcome.rows_read == outcome.inserted + outcome.updated + outcome.unchanged + outcome.superseded
    expected: File = {}
    for file in files:
        expected |= file
    found = registry.books.read("select customer_number, name, coalesce(country, '') as country from crm.organizations")
    assert {row["customer_number"]: (row["name"], row["country"]) for row in found} == expected


_SHAPES = st.lists(
    st.tuples(
        st.dictionaries(
            st.sampled_from(["C-1", "C-2"]),
            st.tuples(st.sampled_from("AB"), st.sampled_from(["", "BG", "NO"])),
            min_size=1,
        ),
        st.sets(st.sampled_from(["country", "segment"])),
    ),
    min_size=2,
    max_size=4,
)


@settings(max_examples=8)
@given(files=_SHAPES, data=st.data())
def test_files_with_different_columns_may_arrive_in_any_order(
    files: list[tuple[File, set[str]]],
    data: st.DataObject,
    prepared: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """January names the segment, February has no such column: the segment is January's, whichever comes first."""
    empty_database(prepared)
    registry = Registry(Books(prepared), tmp_path_factory.mktemp("shapes"))
    for place in data.draw(st.permutations(range(len(files)))):
        listed, columns = files[place]
        rows = [
            customer(number, name, **dict.fromkeys(sorted(columns), value)) for number, (name, value) in listed.items()
        ]
        registry.customers(date(2026, 1 + place, 1), *rows)
    expected: dict[str, dict[str, str]] = {}
    for listed, columns in files:
        for number, (name, value) in listed.items():
            blank = {"country": "", "segment": ""}
            expected[number] = expected.get(number, blank) | {"name": name} | dict.fromkeys(columns, value)
    found = registry.books.read(
        "select customer_number, name, coalesce(country, '') as country, coalesce(segment, '') as segment"
        " from crm.organizations"
    )
    assert {row.pop("customer_number"): row for row in found} == expected


def test_rows_that_cannot_be_customers_wait_with_their_reasons(registry: Registry) -> None:
    """No name, an unknown country, a number twice: each waits with the cell and the reason; the good one is in."""
    outcome = registry.customers(
        JANUARY,
        customer("C-1", country="BG"),
        customer("C-2", "", country="BG"),
        customer("C-3", country="Atlantis"),
        customer("C-4", "One", country=""),
        customer("C-4", "Another", country=""),
    )
    assert (outcome.inserted, outcome.quarantined) == (1, 4)
    told = registry.books.read("select row_number, column_name, cell from report.quarantine order by 1")
    assert [(row["row_number"], row["column_name"], row["cell"]) for row in told] == [
        (3, "name", "B3"),
        (4, "country", "C4"),
        (5, "customer_number", "A5"),
        (6, "customer_number", "A6"),
    ]


LEDGER = """
apiVersion: v3.1.0
kind: DataContract
id: ledger_first
version: 1.0.0
status: active
customProperties:
  - {property: extends, value: open_items}
  - {property: missingCustomer, value: create}
schema:
  - {name: open_items}
"""


def _owes(registry: Registry, day: date, name: str) -> FileOutcome:
    contract = registry.folder / "ledger_first.yaml"
    contract.write_text(LEDGER, encoding="utf-8")
    row = item("C-1", "A", 100, date(2026, 3, 1)) | {"customer_name": name, "printed": day}
    return registry.books.take_in(write_csv(registry.folder / f"open {day}.csv", [row]), contract)


def test_a_customer_known_to_accounting_alone_is_taken_over(registry: Registry) -> None:
    """Accounting's list creates C-1 under its own name; a customer file, even an older one, makes it a real one."""
    _owes(registry, FEBRUARY, "BERG ANNA 1234")
    assert (registry.card("C-1")["name"], registry.card("C-1")["origin"]) == ("BERG ANNA 1234", "ledger")

    outcome = registry.customers(JANUARY, customer("C-1", "Berg AS", country="NO"))
    assert (outcome.updated, outcome.superseded) == (1, 0)
    _owes(registry, MARCH, "BERG ANNA 5678")
    card = registry.card("C-1")
    assert (card["name"], card["country"], card["origin"]) == ("Berg AS", "NO", "customers")
    assert [row["invoice_number"] for row in card["open_items"]] == ["A"]


def test_accountings_name_follows_its_newest_list(registry: Registry) -> None:
    """The list of March calls C-1 something else than the one of January, which arrives later."""
    _owes(registry, MARCH, "March name")
    _owes(registry, JANUARY, "January name")
    assert registry.card("C-1")["name"] == "March name"


def test_one_person_with_several_roles_and_periods(registry: Registry) -> None:
    """Roles in one cell and on several rows; touching periods of one role become one, a gap stays a gap."""
    registry.customers(JANUARY, customer("C-1"))
    outcome = registry.contacts(
        JANUARY,
        anna("payments; manager", "2025-01-01", "2025-06-30"),
        anna("payments", "2025-07-01", "2025-12-31"),
        anna("manager", "2025-09-01"),
    )
    assert (outcome.rows_read, outcome.inserted) == (3, 3)
    assert registry.roles("C-1") == [
        ("manager", "2025-01-01", "2025-06-30"),
        ("manager", "2025-09-01", None),
        ("payments", "2025-01-01", "2025-12-31"),
    ]
    assert len(registry.card("C-1")["contacts"]) == 1


def test_a_role_ends_on_its_last_day(registry: Registry) -> None:
    """Valid through 10 March: held on the 10th, not on the 11th; a role without dates is held always."""
    registry.customers(JANUARY, customer("C-1"))
    registry.contacts(JANUARY, anna("payments", "2026-01-01", "2026-03-10"), anna("manager"))
    held = {
        day: {role["role"] for role in registry.card("C-1", day)["contacts"][0]["roles"] if role["held"]}
        for day in (date(2025, 12, 31), date(2026, 3, 10), date(2026, 3, 11))
    }
    assert list(held.values()) == [{"manager"}, {"manager", "payments"}, {"manager"}]


def test_the_newest_file_takes_roles_away(registry: Registry) -> None:
    """In February Anna has no payments role any more; the January file, sent again changed, does not bring it back."""
    registry.customers(JANUARY, customer("C-1"))
    registry.contacts(JANUARY, anna("payments;manager"))
    outcome = registry.contacts(FEBRUARY, anna("manager"))
    assert (outcome.updated, outcome.unchanged) == (1, 0)
    assert registry.roles("C-1") == [("manager", None, None)]

    late = registry.contacts(date(2026, 1, 15), anna("payments"))
    assert late.superseded == 1
    assert registry.roles("C-1") == [("manager", None, None)]


def test_a_file_without_roles_leaves_them_alone(registry: Registry) -> None:
    """A list of telephone numbers changes the number and nothing else; a blank in its column would clear it."""
    registry.customers(JANUARY, customer("C-1"))
    registry.contacts(JANUARY, anna("payments", phone="+359 2 1"))
    numbers = {"customer_number": "C-1", "email": "anna@example.com"}
    registry.contacts(FEBRUARY, {**numbers, "phone": "+359 2 2"})
    (person,) = registry.card("C-1")["contacts"]
    assert (person["phone"], person["last_name"]) == ("+359 2 2", "Berg")
    assert registry.roles("C-1") == [("payments", None, None)]

    registry.contacts(MARCH, {**numbers, "phone": "", "last_name": "Berg"})
    assert registry.card("C-1")["contacts"][0]["phone"] is None


def test_one_address_in_two_spellings_is_one_person(registry: Registry) -> None:
    """Anna@Example.com and anna@example.com are one contact; at another customer the address is another contact."""
    registry.customers(JANUARY, customer("C-1"), customer("C-2"))
    registry.contacts(JANUARY, anna("payments"))
    outcome = registry.contacts(
        FEBRUARY, anna("payments", email="Anna@Example.com"), anna("payments", customer_number="C-2")
    )
    assert (outcome.inserted, outcome.updated) == (1, 1)
    assert [len(registry.card(number)["contacts"]) for number in ("C-1", "C-2")] == [1, 1]


def test_contacts_wait_for_their_customer(registry: Registry) -> None:
    """Contacts before customers: the rows wait; when C-1 arrives both come in with their roles; C-9's still waits."""
    outcome = registry.contacts(
        JANUARY, anna("payments"), anna("manager", "2026-02-01"), anna("payments", customer_number="C-9")
    )
    assert (outcome.inserted, outcome.quarantined) == (0, 3)

    registry.customers(FEBRUARY, customer("C-1"))
    assert registry.books.replay() == 2
    assert registry.roles("C-1") == [("manager", "2026-02-01", None), ("payments", None, None)]
    counts = registry.books.read("select inserted, quarantined from report.feed_files where contract = 'contacts'")
    assert counts == [{"inserted": 2, "quarantined": 1}]


def test_a_waiting_contact_does_not_override_a_newer_file(registry: Registry) -> None:
    """Rows of January that waited are replayed after those of February: February's word stays."""
    registry.contacts(JANUARY, anna("manager"))
    registry.contacts(FEBRUARY, anna("payments"))
    registry.customers(MARCH, customer("C-1"))
    registry.books.replay()
    assert registry.roles("C-1") == [("payments", None, None)]


def test_a_period_that_runs_backwards_waits_with_its_contact(registry: Registry) -> None:
    """Anna's payments role ends before it begins: both her rows wait, so the role she had is not taken for ended."""
    registry.customers(JANUARY, customer("C-1"))
    registry.contacts(JANUARY, anna("payments", "2026-01-01"), anna("manager"))
    before = registry.roles("C-1")
    outcome = registry.contacts(
        FEBRUARY,
        anna("payments", "2026-03-01", "2026-02-01"),
        anna("manager"),
        anna("manager", email="bo@example.com"),
    )
    assert (outcome.inserted, outcome.quarantined) == (1, 2)
    told = registry.books.read("select cell, reason from report.quarantine order by row_number")
    assert told == [
        {"cell": "G2", "reason": "the roles end on 2026-02-01, before they begin on 2026-03-01"},
        {
            "cell": "E3",
            "reason": "row 2 of the same contact cannot be used; a contact's rows are taken in together",
        },
    ]
    assert registry.roles("C-1") == before != []


def test_the_database_itself_refuses_overlapping_roles(registry: Registry) -> None:
    """Two overlapping periods of one role cannot be stored, whoever tries."""
    registry.customers(JANUARY, customer("C-1"))
    registry.contacts(JANUARY, anna("payments", "2026-01-01", "2026-12-31"))
    with (
        database.engine_for(registry.books.settings).begin() as connection,
        pytest.raises(IntegrityError, match="contact_roles_no_overlap"),
    ):
        connection.exec_driver_sql(
            "insert into crm.contact_roles (contact_id, role, valid, feed_file_id)"
            " select contact_id, role, '[2026-06-01,)', feed_file_id from crm.contact_roles"
        )


@pytest.fixture
def naughty_strings(real_data: Path) -> list[str]:
    """The big list of naughty strings."""
    strings: list[str] = json.loads((real_data / "addresses" / "names" / "blns.json").read_text("utf-8"))
    assert len(strings) == 515
    return strings


def test_naughty_names_arrive_as_they_were_written(registry: Registry, naughty_strings: list[str]) -> None:
    """Markup, commands, emoji, right-to-left text, broken Unicode: each name reads in the report as in the file."""
    rows = [customer(f"N-{place:03}", f"«{name}»") for place, name in enumerate(naughty_strings)]
    outcome = registry.customers(JANUARY, *rows)
    assert (outcome.inserted, outcome.quarantined) == (515, 0)
    items = [item(str(row["customer_number"]), "1", 1, date(2026, 3, 1)) for row in rows]
    registry.books.take_in(write_csv(registry.folder / "open_items_2026-03-05.csv", items), "open_items")

    expected = {row["customer_number"]: row["name"] for row in rows}
    for statement in (
        "select customer_number, customer_name as name from report.open_invoices('2026-03-05')",
        "select customer_number, card ->> 'name' as name from report.organization_card",
    ):
        assert {row["customer_number"]: row["name"] for row in registry.books.read(statement)} == expected


def test_a_name_is_never_taken_for_something_else(registry: Registry, naughty_strings: list[str]) -> None:
    """NULL, true, 1E2 and 0.00 are names; only white space and invisible marks around a name are cut off."""
    rows = [customer(f"N-{place:03}", name) for place, name in enumerate(naughty_strings)]
    outcome = registry.customers(JANUARY, *rows)
    assert outcome.inserted + outcome.quarantined == 515
    names = {row["customer_number"]: row["name"] for row in registry.books.read("select * from crm.organizations")}
    changed = {number: name for number, name in names.items() if name != naughty_strings[int(number[2:])]}
    for number, name in changed.items():
        before, _, after = naughty_strings[int(number[2:])].partition(name)
        assert _invisible(before + after), (number, name)
    missing = [row["name"] for row in rows if row["customer_number"] not in names]
    assert all(_invisible(str(name)) for name in missing), missing
    assert len(missing) < 10


def _invisible(text: str) -> bool:
    return all(unicodedata.category(character) in {"Zs", "Zl", "Zp", "Cc", "Cf"} for character in text)


def test_a_nul_byte_is_refused_in_words(registry: Registry) -> None:
    """PostgreSQL cannot hold a NUL, and no honest text file has one: the file is refused, and says so."""
    path = registry.folder / "organizations_2026-01-01.csv"
    path.write_bytes(b"customer_number,name\nC-1,Be\x00rg\n")
    outcome = registry.books.take_in(path, "organizations")
    assert outcome.state == "refused"
    assert "NUL bytes" in outcome.reasons[0]
    assert outcome.hint
