"""Files that are odd in ways nobody thinks of: names, doubles of a day, late news about a customer."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text

from configs.settings import Settings
from tasks import database
from tasks.feeds.contracts import load_contract
from tasks.feeds.inbox import unclaimed_files
from tasks.feeds.intake import InboxFile, archive
from tests.ledgers import Books, item, write_csv

DUE = date(2026, 3, 1)
MONDAYS = (date(2026, 3, 2), date(2026, 3, 9), date(2026, 3, 16))


def test_names_that_no_database_or_disk_holds_are_taken_in(kontor_settings: Settings, tmp_path: Path) -> None:
    """A name of bytes that are no UTF-8 and one of 250 bytes come in, are archived, and leave the inbox."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["C-1"])
    inbox = kontor_settings.home / "inbox"
    inbox.mkdir()
    odd = Path(os.fsdecode(os.fsencode(inbox) + b"/open_items_\xcf\xee\xe7_2026-03-02.csv"))
    long = inbox / f"open_items_{'ж' * 110}_2026-03-09.csv"
    for place, path in enumerate((odd, long)):
        write_csv(path, [item("C-1", "A", 10 + place, DUE)])
        outcome = books.take_in(path, "open_items")
        assert (outcome.state, outcome.rows_read) == ("applied", 1)
        kept = archive(InboxFile(path, load_contract("open_items")), outcome, home=kontor_settings.home, inbox=inbox)
        assert kept is not None
        assert kept.suffix == ".csv"
        assert kept.is_file()
    assert list(inbox.iterdir()) == []
    names = [
        row["file_name"] for row in books.read("select file_name from report.feed_files where contract = 'open_items'")
    ]
    assert "open_items_\\xcf\\xee\\xe7_2026-03-02.csv" in names


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1)])
def test_a_customer_that_only_accounting_knows_bears_the_newest_name(
    order: tuple[int, ...], kontor_settings: Settings, tmp_path: Path
) -> None:
    """Old, Mid, Old in three weeks: the name is Old, whichever file comes last."""
    books = Books(kontor_settings)
    contract = tmp_path / "own.yaml"
    contract.write_text(
        "apiVersion: v3.1.0\nkind: DataContract\nid: own_items\nversion: 1.0.0\nstatus: active\n"
        "customProperties:\n  - property: extends\n    value: open_items\n"
        "  - property: missingCustomer\n    value: create\nschema:\n  - name: open_items\n"
    )
    names = ("Old", "Mid", "Old")
    for place in order:
        rows = [{**item("C-1", "A", 10 + place, DUE), "customer_name": names[place]}]
        books.take_in(write_csv(tmp_path / f"own_{MONDAYS[place]}.csv", rows), contract)
    assert books.read("select name from crm.organizations") == [{"name": "Old"}]


@pytest.mark.parametrize("customer_first", [True, False])
def test_a_contacts_rows_wait_together_whenever_its_customer_comes(
    customer_first: bool, kontor_settings: Settings, tmp_path: Path
) -> None:
    """One row of a contact cannot be read: neither is taken in, whether the customer was there before or came later."""
    books = Books(kontor_settings)
    anna = {"customer_number": "C-1", "first_name": "Anna", "last_name": "Berg", "email": "anna@example.com"}
    rows = [
        anna | {"roles": "payments", "valid_from": ""},
        anna | {"roles": "manager", "valid_from": "someday"},
        anna | {"email": "bo@example.com", "roles": "payments", "valid_from": ""},
    ]
    contacts = write_csv(tmp_path / "contacts_2026-03-02.csv", rows)
    if customer_first:
        books.customers(tmp_path, ["C-1"])
    books.take_in(contacts, "contacts")
    if not customer_first:
        books.customers(tmp_path, ["C-1"])
        books.replay()
    held = books.read("select email, role from crm.contacts join crm.contact_roles using (contact_id)")
    assert held == [{"email": "bo@example.com", "role": "payments"}]


def test_two_ledgers_of_one_day_are_a_question_for_a_person(kontor_settings: Settings, tmp_path: Path) -> None:
    """A second, different ledger of the same day is refused; as a revision it takes the first one's place."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["C-1"])
    settled = {"settled_date": ""}
    first = write_csv(tmp_path / "settled_items_2026-03-02.csv", [item("C-1", "A", 10, DUE) | settled])
    books.take_in(first, "settled_items")
    second = write_csv(tmp_path / "settled_items_b_2026-03-02.csv", [item("C-1", "A", 99, DUE) | settled])
    refused = books.take_in(second, "settled_items")
    assert refused.state == "refused"
    assert "already is revision 1 of the ledger as of 2026-03-02" in refused.reasons[0]
    assert books.take_in(second, "settled_items", revision=2).state == "applied"
    assert [str(row["open_amount"]) for row in books.open_on(MONDAYS[0])] == ["99.0000"]


def test_flows_cannot_change_who_somebody_is_or_who_ran_what(kontor_settings: Settings) -> None:
    """The identity that erasure relies on and the actor of a run are beyond the role that flows work as."""
    with database.engine_for(kontor_settings).connect() as connection:
        for table, column in (
            ("crm.organizations", "external_id"),
            ("crm.organizations", "customer_number"),
            ("crm.contacts", "external_id"),
            ("ops.run_ledger", "actor"),
        ):
            allowed = text("select has_column_privilege(:table, :column, 'update')")
            assert connection.scalar(allowed, {"table": table, "column": column}) is False, (table, column)


def _own_contract(folder: Path, **custom: object) -> Path:
    """A contract that extends open_items by these custom properties."""
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "open_items_of_mine",
        "version": "1.0.0",
        "status": "active",
        "customProperties": [{"property": name, "value": value} for name, value in custom.items()],
        "schema": [
            {
                "name": "open_items",
                "quality": [
                    {
                        "type": "custom",
                        "engine": "kontor",
                        "name": "no_hour",
                        "implementation": {
                            "sql": "note is null or (note <> 'at 10:30' and due_date >= '2000-01-01'::date)",
                            "columns": ["note"],
                            "reason": "it is timed",
                        },
                    }
                ],
            }
        ],
    }
    path = folder / "open_items_of_mine.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_a_colon_in_a_check_is_a_colon(kontor_settings: Settings, tmp_path: Path) -> None:
    """A check that holds a time of day or a cast is asked as it is written."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["C-1"])
    contract = _own_contract(tmp_path, extends="open_items")
    rows = [item("C-1", "A", 10, date(2026, 3, 1)), item("C-1", "B", 10, date(2026, 3, 1), note="at 10:30")]
    outcome = books.take_in(write_csv(tmp_path / "open_items_2026-02-01.csv", rows), contract)
    assert (outcome.inserted, outcome.quarantined) == (1, 1)
    assert [row["code"] for row in books.read("select code from report.quarantine")] == ["no_hour"]


def test_the_last_row_stands_where_an_earlier_one_cannot_be_read(kontor_settings: Settings, tmp_path: Path) -> None:
    """With keep_last a broken earlier row of an item is set aside like any other, and the last one is what is owed."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["C-1"])
    contract = _own_contract(tmp_path, extends="open_items", duplicateRows="keep_last")
    due = date(2026, 3, 1)
    first = [item("C-1", "A", 10, due), item("C-1", "Z", 1, due)]
    books.take_in(write_csv(tmp_path / "open_items_2026-02-01.csv", first), contract)
    second = [item("C-1", "A", "n/a", due), item("C-1", "A", 7, due), item("C-1", "Z", 1, due)]
    outcome = books.take_in(write_csv(tmp_path / "open_items_2026-02-08.csv", second), contract)
    assert (outcome.quarantined, outcome.updated, outcome.superseded) == (0, 1, 1)
    assert {row["invoice_number"]: row["open_amount"] for row in books.open_on(date(2026, 2, 8))} == {"A": 7, "Z": 1}
    third = [item("C-1", "A", 9, due), item("C-1", "A", 7, due), item("C-1", "Z", 1, due)]
    outcome = books.take_in(write_csv(tmp_path / "open_items_2026-02-15.csv", third), contract)
    assert (outcome.updated, outcome.unchanged, outcome.superseded, outcome.settled) == (0, 2, 1, 0)
    assert {row["invoice_number"]: row["open_amount"] for row in books.open_on(date(2026, 2, 15))} == {"A": 7, "Z": 1}


def test_a_dry_run_says_what_would_happen_and_keeps_nothing(kontor_settings: Settings, tmp_path: Path) -> None:
    """The rows that would wait with their reasons, what guards measured and what would read as settled are told."""
    books = Books(kontor_settings)
    books.customers(tmp_path, ["C-1"])
    due = date(2026, 3, 1)
    first = [item("C-1", f"A{n}", 10, due) for n in range(30)]
    books.take_in(write_csv(tmp_path / "open_items_2026-02-01.csv", first), "open_items")
    before = books.state()
    second = [*first[2:], item("C-1", "B", "n/a", due)]
    outcome = books.take_in(write_csv(tmp_path / "open_items_2026-02-08.csv", second), "open_items", dry_run=True)
    assert outcome.preview is not None
    assert [row["invoice"] for row in outcome.preview.settled] == ["A0", "A1"]
    assert {row["cell"] for row in outcome.preview.problems} == {"G30", "H30"}
    assert {row["guard"]: row["state"] for row in outcome.preview.guards}["vanished_share"] == "passed"
    assert (outcome.settled, outcome.quarantined) == (2, 1)
    assert books.state() == before


def test_files_that_no_contract_claims_are_named(tmp_path: Path) -> None:
    """A finished file whose name no contract knows is told of; one that is still being written is not."""
    inbox, home = tmp_path / "inbox", tmp_path
    inbox.mkdir()
    for name in ("open_items_2026-03-02.csv", "whatever.csv", "Customers.xlsx", "upload.part", ".hidden"):
        (inbox / name).write_text("x")
    assert [path.name for path in unclaimed_files(inbox, home)] == ["whatever.csv"]
    own = home / "contracts"
    own.mkdir()
    _own_contract(own, extends="open_items", filePatterns=["what*"])
    assert unclaimed_files(inbox, home) == []
