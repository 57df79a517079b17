"""Duplicates: noted after an import, blocked where a rule says so, decided once, merged by a person and taken apart."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from configs.settings import Settings
from tasks import database
from tasks.erasures.keys import key_of
from tasks.errors import Refused, UsageError
from tasks.matching.keys_store import refresh_keys
from tasks.matching.splink_batch import is_installed
from tasks.matching.store import fetch_rules, find_of
from tasks.quality.duplicates_store import decide, note_duplicates
from tasks.quality.merging_store import merge, propose, undo
from tasks.reminders.planning_store import decide_on
from tasks.retention.people_store import find_person
from tests.catalogues import full, product
from tests.ledgers import Books, item, write_csv

DAY = date(2026, 3, 2)
needs_splink = pytest.mark.skipif(
    not is_installed(), reason="Splink is not installed here: it is the extra `duplicates`"
)

FIRMS: list[dict[str, object]] = [
    {
        "customer_number": "1",
        "name": "Витоша Дистрибуция ЕООД",
        "country": "BG",
        "vat_number": "BG175074752",
        "owner": "",
    },
    {"customer_number": "2", "name": "VITOSHA DISTRIBUTSIYA", "country": "BG", "vat_number": "", "owner": "petar"},
    {"customer_number": "3", "name": "Nordlys AS", "country": "NO", "vat_number": "", "owner": "rosen"},
    {"customer_number": "4", "name": "Sydlys AS", "country": "NO", "vat_number": "", "owner": "rosen"},
]


@pytest.fixture
def books(kontor_settings: Settings, tmp_path: Path) -> Books:
    """Four customers of whom two are one firm."""
    made = Books(kontor_settings)
    made.take_in(write_csv(tmp_path / "organizations.csv", FIRMS), "organizations", DAY)
    return made


@pytest.fixture
def blocking(prepared: Settings) -> Iterator[None]:
    """The rule of names blocks for the length of a test."""
    with database.engine_for(prepared, database.OWNER).begin() as connection:
        connection.execute(
            text("update rules.duplicate_rule set action = 'block' where rule_id = 'organization_same_name'")
        )
    yield
    with database.engine_for(prepared, database.OWNER).begin() as connection:
        connection.execute(text("update rules.duplicate_rule set action = 'warn'"))


def _note(books: Books, *, everything: bool = False) -> dict[str, int]:
    with books.engine.begin() as connection:
        return note_duplicates(connection, None, DAY, everything=everything)


_PAIRS = (
    "select pair_id, left_number, right_number, decision, merged, matched_by, fields from report.duplicates order by 1"
)


def test_an_import_notes_new_pairs_once_and_explains_them(books: Books) -> None:
    """One firm in two scripts is one pair with its evidence; a second look, in part or in whole, changes nothing."""
    assert _note(books) == {"duplicate_organizations": 1, "duplicate_contacts": 0}
    [pair] = books.read(_PAIRS)
    assert (pair["left_number"], pair["right_number"], pair["decision"]) == ("1", "2", "open")
    assert pair["fields"]["name"] == {"alike": 1.0, "bits": 9.0}
    assert _note(books) == _note(books, everything=True) == {"duplicate_organizations": 0, "duplicate_contacts": 0}
    assert books.read(_PAIRS) == [pair]


def test_looking_up_a_few_finds_what_comparing_all_finds(books: Books) -> None:
    """The index and the comparison of all records agree."""
    with books.engine.begin() as connection:
        ids = refresh_keys(connection, "organization")
        refresh_keys(connection, "contact")
        rules = fetch_rules(connection, "organization", DAY)
        few = find_of(connection, "organization", ids, rules)
        many = find_of(connection, "organization", ids * 100, rules)
    assert [(p.left, p.right, p.scored) for p in few] == [(p.left, p.right, p.scored) for p in many]


@pytest.fixture
def misspelt(books: Books, tmp_path: Path) -> Books:
    """Beside them a firm whose rarer word is spelt in two ways: comparing all does not meet it, a look-up does."""
    rows = [{"customer_number": number, "name": f"{word} Vitosha AD", "country": "BG"}
            for number, word in (("5", "Kompania"), ("6", "Kompanica"))]  # fmt: skip
    books.take_in(write_csv(tmp_path / "misspelt.csv", [*FIRMS, *rows]), "organizations", DAY)
    return books


def _by(books: Books, way: str) -> list[dict[str, Any]]:
    return [pair for pair in books.read(_PAIRS) if pair["matched_by"] == [way] and pair["left_number"] == "5"]


@needs_splink
def test_what_splink_alone_finds_is_added_and_waits_for_a_person(misspelt: Books) -> None:
    """With Splink a pair stands beside ours that we do not meet; it outlives runs without Splink, not another name."""

    def compare(*, splink: bool) -> dict[str, int]:
        with misspelt.engine.begin() as connection:
            return note_duplicates(
                connection, None, DAY, everything=True, entities=("organization",), splink=splink
            )  # fmt: skip

    assert compare(splink=False) == {"duplicate_organizations": 1}
    assert compare(splink=True) == {"duplicate_organizations": 1}
    [pair] = _by(misspelt, "splink")
    assert (pair["right_number"], pair["fields"].keys()) == ("6", {"name", "country"})
    assert compare(splink=False) == compare(splink=True) == {"duplicate_organizations": 0}
    assert _by(misspelt, "splink") == [pair]
    with misspelt.engine.begin() as connection:
        connection.execute(text("update crm.organizations set name = 'Rila Transport' where customer_number = '6'"))
    assert compare(splink=False) == {"duplicate_organizations": 0}
    assert _by(misspelt, "splink") == []


def test_what_an_import_met_by_letters_outlives_comparing_all(misspelt: Books) -> None:
    """A look-up meets two spellings by their trigrams; the weekly run, which does not, leaves the pair to a person."""
    assert _note(misspelt)["duplicate_organizations"] == 2
    [pair] = _by(misspelt, "name")
    assert _note(misspelt, everything=True)["duplicate_organizations"] == 0
    assert _by(misspelt, "name") == [pair]
    with misspelt.engine.begin() as connection:
        connection.execute(text("update crm.organizations set name = 'Rila Transport' where customer_number = '6'"))
    _note(misspelt, everything=True)
    assert _by(misspelt, "name") == []


def test_without_splink_nothing_is_compared(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a package that is not there is refused before anything is written."""
    monkeypatch.setitem(sys.modules, "splink", None)
    with pytest.raises(UsageError, match="not installed"), books.engine.begin() as connection:
        note_duplicates(connection, None, DAY, everything=True, splink=True)
    assert books.read(_PAIRS) == []


def test_contacts_are_compared_within_their_customer(books: Books, tmp_path: Path) -> None:
    """One number and nearly one name within one customer is a pair; at two customers it is not."""
    rows = [
        {
            "customer_number": "3",
            "first_name": "Anna",
            "last_name": "Berg",
            "email": "a@x.example",
            "phone": "+4722123456",
        },
        {
            "customer_number": "3",
            "first_name": "Anna",
            "last_name": "Bergh",
            "email": "b@x.example",
            "phone": "22 12 34 56",
        },
        {
            "customer_number": "4",
            "first_name": "Anna",
            "last_name": "Berg",
            "email": "a@y.example",
            "phone": "+4722123456",
        },
    ]
    books.take_in(write_csv(tmp_path / "contacts.csv", rows), "contacts", DAY)
    assert _note(books)["duplicate_contacts"] == 1
    pair = next(pair for pair in books.read(_PAIRS) if pair["left_number"] == "3" == pair["right_number"])
    assert "phone" in pair["matched_by"]


def test_a_decision_is_remembered(books: Books) -> None:
    """What was called different stays so however often it is found; without a reason nothing is decided."""
    _note(books)
    [pair] = books.read(_PAIRS)
    with books.engine.begin() as connection:
        with pytest.raises(UsageError, match="reason"):
            decide(connection, pair["pair_id"], "different", "", "anna")
        with pytest.raises(UsageError, match="no decision"):
            decide(connection, pair["pair_id"], "merged", "why", "anna")
        decide(connection, pair["pair_id"], "related", "mother and daughter", "anna")
    _note(books, everything=True)
    assert [row["decision"] for row in books.read(_PAIRS)] == ["related"]


def test_an_open_pair_that_is_alike_no_more_is_dropped(books: Books, tmp_path: Path) -> None:
    """A corrected name takes its pair away with the next whole comparison."""
    _note(books)
    renamed = [{**FIRMS[1], "name": "Rila Logistics"}]
    books.take_in(write_csv(tmp_path / "o2.csv", renamed), "organizations", DAY + timedelta(days=1))
    _note(books, everything=True)
    assert books.read(_PAIRS) == []


# --- blocked at the door ----------------------------------------------------------------------------------------------


def test_a_blocking_rule_keeps_a_second_customer_out(blocking: None, books: Books, tmp_path: Path) -> None:
    """Of two alike in one file the first comes in; a later file's twin waits, with the words whom it looks like."""
    known = books.read("select customer_number from crm.organizations order by 1")
    assert [row["customer_number"] for row in known] == ["1", "3", "4"]
    late: list[dict[str, object]] = [{**FIRMS[2], "customer_number": "33", "name": "NORDLYS"}]
    outcome = books.take_in(write_csv(tmp_path / "late.csv", late), "organizations", DAY + timedelta(days=1))
    assert (outcome.inserted, outcome.quarantined) == (0, 1)
    reasons = [row["reason"] for row in books.read("select reason from report.quarantine order by quarantined_row_id")]
    assert "customer 1 in row 2" in reasons[0]
    assert reasons[1].startswith("looks like customer 3 (")
    same = books.take_in(write_csv(tmp_path / "same.csv", FIRMS[2:]), "organizations", DAY + timedelta(days=2))
    assert same.quarantined == 0


def test_many_at_once_are_kept_out_as_a_few_are(
    blocking: None, books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared in memory with all that is stored, the same rows wait for the same reasons."""
    rows: list[dict[str, object]] = [
        {**FIRMS[2], "customer_number": "33", "name": "NORDLYS"},
        {**FIRMS[2], "customer_number": "41", "name": "Rila Logistics EOOD"},
        {**FIRMS[2], "customer_number": "42", "name": "Logistics, Rila"},
    ]
    path = write_csv(tmp_path / "many.csv", rows)
    seen = []
    for few in (300, 0):
        monkeypatch.setattr("tasks.matching.import_store.FEW", few)
        outcome = books.take_in(path, "organizations", DAY + timedelta(days=1), dry_run=True)
        assert (outcome.inserted, outcome.quarantined) == (1, 2)
        assert outcome.preview is not None
        seen.append([dict(problem) for problem in outcome.preview.problems])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2


def test_two_imports_at_once_do_not_both_bring_the_same_firm(
    blocking: None, kontor_settings: Settings, tmp_path: Path
) -> None:
    """Each file alone would be taken in; together one of them waits, whoever is first."""
    books = Books(kontor_settings)
    outcomes: list[Any] = []

    def bring(number: str) -> None:
        path = write_csv(
            tmp_path / f"o{number}.csv", [{"customer_number": number, "name": "Nordlys AS", "country": "NO"}]
        )
        outcomes.append(_take_in_alone(books, path, number))

    threads = [threading.Thread(target=bring, args=(number,)) for number in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted((outcome.inserted, outcome.quarantined) for outcome in outcomes) == [(0, 1), (1, 0)]
    assert len(books.read("select 1 from crm.organizations")) == 1


def _take_in_alone(books: Books, path: Path, flow: str) -> Any:
    """As Books.take_in, under a flow's lock of its own, so that the two are not kept apart by the ledger."""
    from tasks import ledger
    from tasks.customers.steps import CUSTOMER_FEEDS
    from tasks.feeds.contracts import load_contract
    from tasks.feeds.intake import Given, InboxFile, take_in_file

    contract = load_contract("organizations")
    with ledger.open_run(
        books.engine, f"test {flow}", as_of=DAY, dry_run=False, prefect_run_id=None, actor="test"
    ) as run:
        return take_in_file(
            books.engine,
            InboxFile(path, contract),
            given=Given(DAY, DAY),
            run_id=run.run_id,
            apply=CUSTOMER_FEEDS["organizations"],
        )


# --- merging ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def owing(books: Books, tmp_path: Path) -> Books:
    """Both of the pair owe something and have a contact; the pair is noted."""
    items = [item("1", "A", "100.00", DAY), item("2", "B", "50.00", DAY), item("3", "C", "7.00", DAY)]
    books.take_in(write_csv(tmp_path / "i.csv", items), "open_items", DAY)
    contacts = [
        {
            "customer_number": number,
            "first_name": "P",
            "last_name": number,
            "email": f"p{number}@x.example",
            "roles": "payments",
        }
        for number in ("1", "2")
    ]
    books.take_in(write_csv(tmp_path / "contacts.csv", contacts), "contacts", DAY)
    books.classify()
    _note(books)
    return books


def _owner(books: Books) -> Connection:
    return database.engine_for(books.settings, database.OWNER).connect()


def _merge(books: Books, pair_id: int, keep: str | None = None) -> None:
    with _owner(books) as connection:
        merge(connection, propose(connection, pair_id, keep), "anna", "one firm")
        connection.commit()


def _owed(books: Books, day: date = DAY) -> list[tuple[str, str]]:
    return [(row["customer_number"], row["invoice_number"]) for row in books.open_on(day)]


def test_a_merge_is_proposed_field_by_field_and_changes_nothing(owing: Books) -> None:
    """What would stand is the kept value, or the other's where there is none; what would move is counted."""
    before = owing.state()
    [pair] = owing.read(_PAIRS)
    with _owner(owing) as connection:
        proposal = propose(connection, pair["pair_id"])
        turned = propose(connection, pair["pair_id"], "2")
        with pytest.raises(UsageError, match="is not of pair"):
            propose(connection, pair["pair_id"], "3")
    assert (proposal.kept_number, proposal.merged_number) == ("1", "2")
    assert proposal.moving == {"invoices": 1, "contacts": 1, "payments": 0, "holds": 0}
    assert proposal.staying["recorded_changes"] == 1
    results = {field["field"]: field["result"] for field in proposal.fields}
    assert (results["name"], results["owner"]) == ("Витоша Дистрибуция ЕООД", "petar")
    assert (turned.kept_number, turned.merged_number) == ("2", "1")
    assert owing.state() == before


def test_a_merge_moves_what_is_owed_and_files_go_on_naming_the_other(owing: Books, tmp_path: Path) -> None:
    """The next snapshot names the merged number: its items are booked on the kept customer, old and new alike."""
    [pair] = owing.read(_PAIRS)
    _merge(owing, pair["pair_id"])
    assert _owed(owing) == [("1", "A"), ("1", "B"), ("3", "C")]
    week = DAY + timedelta(days=7)
    items = [
        item("1", "A", "100.00", DAY),
        item("2", "B", "50.00", DAY),
        item("2", "B2", "5.00", DAY),
        item("3", "C", "7.00", DAY),
    ]
    outcome = owing.take_in(write_csv(tmp_path / "i2.csv", items), "open_items", week)
    assert (outcome.inserted, outcome.unchanged, outcome.settled) == (1, 3, 0)
    assert _owed(owing, week) == [("1", "A"), ("1", "B"), ("1", "B2"), ("3", "C")]
    assert owing.read("select owner from crm.organizations where customer_number = '1'") == [{"owner": "petar"}]
    assert [row["merged"] for row in owing.read(_PAIRS)] == [True]
    with _owner(owing) as connection, pytest.raises(Refused, match="merged into another"):
        propose(connection, pair["pair_id"])


def test_a_merge_taken_apart_leaves_nothing(owing: Books) -> None:
    """Everything that was moved or changed is what it was; a second undo is refused."""
    owing.classify()
    before = owing.state()
    [pair] = owing.read(_PAIRS)
    _merge(owing, pair["pair_id"])
    assert owing.state() != before
    with _owner(owing) as connection:
        assert undo(connection, pair["pair_id"], "anna") == {
            "invoices": 1, "contacts": 1, "payments": 0, "holds": 0, "fields": 1,
        }  # fmt: skip
        connection.commit()
        with pytest.raises(UsageError, match="not merged"):
            undo(connection, pair["pair_id"], "anna")
    owing.classify()
    assert owing.state() == before
    assert owing.read(_PAIRS) == [pair]


def test_a_merge_of_two_with_the_same_invoice_is_refused(owing: Books, tmp_path: Path) -> None:
    """One of the two invoices must be wrong, and nothing says which."""
    week = DAY + timedelta(days=7)
    items = [item("1", "A", "100.00", DAY), item("2", "A", "50.00", DAY), item("3", "C", "7.00", DAY)]
    owing.take_in(write_csv(tmp_path / "i2.csv", items), "open_items", week)
    [pair] = owing.read(_PAIRS)
    before = owing.state()
    with pytest.raises(Refused, match="both have A"):
        _merge(owing, pair["pair_id"])
    assert owing.state() == before


def test_what_is_on_hold_or_paid_ahead_stays_so_after_a_merge(owing: Books) -> None:
    """A hold and money without an invoice move with the customer they speak of, and go back with it."""
    [pair] = owing.read(_PAIRS)
    run = "insert into ops.reminder_holds (kind, organization_id, valid, author, reason) select 'dispute',"
    hold = f"{run} organization_id, '[2026-01-01,)', 'anna', 'x' from crm.organizations where customer_number = '2'"
    paid = (
        "insert into crm.payments (organization_id, source, payment_number, received_on, currency, amount)"
        " select organization_id, 'bank', 'P1', '2026-02-01', 'EUR', 50 from crm.organizations"
        " where customer_number = '2'"
    )
    with _owner(owing) as connection:
        connection.execute(text(hold))
        connection.execute(text(paid))
        connection.commit()
    of = "select o.customer_number as of from {0} join crm.organizations o using (organization_id)"
    for number in ("1", "2"):
        if number == "1":
            _merge(owing, pair["pair_id"])
        else:
            with _owner(owing) as connection:
                undo(connection, pair["pair_id"], "anna")
                connection.commit()
        assert owing.read(of.format("ops.reminder_holds")) == [{"of": number}]
        assert owing.read(of.format("crm.payments")) == [{"of": number}]


def test_a_customer_under_a_legal_hold_is_the_one_that_is_kept(owing: Books) -> None:
    """What would move would leave the hold, so the merge is refused that way round and done the other."""
    [pair] = owing.read(_PAIRS)
    with _owner(owing) as connection:
        connection.execute(
            text(
                "insert into ops.legal_holds (case_number, entity, subject, reason, author, review_on)"
                " select 'X 1', 'crm.organizations', external_id, 'court', 'anna', '2027-01-01'"
                " from crm.organizations where customer_number = '2'"
            )
        )
        connection.commit()
    with pytest.raises(Refused, match="legal hold"):
        _merge(owing, pair["pair_id"])
    _merge(owing, pair["pair_id"], "2")
    assert _owed(owing) == [("2", "A"), ("2", "B"), ("3", "C")]


# --- contacts that are one --------------------------------------------------------------------------------------------

_ANNA: dict[str, object] = {"customer_number": "3", "first_name": "Anna", "last_name": "Berg", "phone": "+4722123456"}
TWICE: list[dict[str, object]] = [
    {**_ANNA, "email": "a@x.example", "language": "", "roles": "primary"},
    {**_ANNA, "email": "anna@x.example", "language": "nb", "roles": "payments"},
]


def _roles(books: Books) -> list[dict[str, Any]]:
    [row] = books.read("select card from report.organization_card where customer_number = '3'")
    return [
        {"email": person["email"], "language": person["language"], "roles": [role["role"] for role in person["roles"]]}
        for person in row["card"]["contacts"]
    ]


def test_a_merged_contact_is_one_person_with_both_roles_whatever_a_file_names(books: Books, tmp_path: Path) -> None:
    """Roles of both count for the kept one, whichever of the two a later file names; undoing leaves nothing."""
    books.take_in(write_csv(tmp_path / "contacts.csv", TWICE), "contacts", DAY)
    owed = item("3", "C", "70.00", DAY - timedelta(days=20))
    books.take_in(write_csv(tmp_path / "i.csv", [owed]), "open_items", DAY)
    _note(books)
    [pair] = [pair for pair in books.read(_PAIRS) if pair["left_number"] == pair["right_number"]]
    before = _roles(books)
    with _owner(books) as connection:
        proposal = propose(connection, pair["pair_id"])
        with pytest.raises(UsageError, match="is not of pair"):
            propose(connection, pair["pair_id"], "a@x.example")
        assert {item["field"]: item["result"] for item in proposal.fields}["language"] == "nb"
        assert proposal.moving == {"roles": 1}
        merge(connection, proposal, "anna", "one person")
        connection.commit()
    one = [{"email": "a@x.example", "language": "nb", "roles": ["payments", "primary"]}]
    assert _roles(books) == one
    assert reminded(books) == ["a@x.example"]
    with _owner(books) as connection:
        asking = find_person(connection, "anna@x.example", key_of(tmp_path))
    assert len(asking.records["crm.contacts"]) == 2
    books.take_in(write_csv(tmp_path / "contacts_2.csv", [TWICE[0]]), "contacts", DAY + timedelta(days=1))
    assert [person["roles"] for person in _roles(books)] == [["payments", "primary"]]
    with _owner(books) as connection:
        undo(connection, pair["pair_id"], "anna")
        connection.commit()
    assert _roles(books) == before
    assert reminded(books) == ["anna@x.example"]


def reminded(books: Books) -> list[str | None]:
    """The addresses that customer 3 would be reminded at on the day; nothing is kept."""
    with books.engine.connect() as connection:
        decisions, _ = decide_on(connection, DAY, customer_number="3")
    return [decision.recipient_email for decision in decisions]


# --- products ---------------------------------------------------------------------------------------------------------


def test_products_of_one_name_or_trade_item_number_are_reviewed(books: Books, tmp_path: Path) -> None:
    """Spelling, order and marks do not matter, figures and units do; of two catalogues nothing is compared."""
    rows = [
        product("K1", name="Kabel YMMJ 3 x 1,5 mm²", unit="m"),
        product("K2", name="YMMJ-kabel 3x1.50mm2", unit="m"),
        product("K3", name="Kabel YMMJ 3 x 2,5 mm²", unit="m"),
        product("K4", name="Kabel YMMJ 3 x 1,5 mm²", unit="box"),
        product("G1", name="Lamp", gtin="4006381333931"),
        product("G2", name="Light fitting", gtin="04006381333931"),
        product("G3", name="Other", gtin="4006381333930"),
    ]
    full(books, tmp_path, rows)
    with books.engine.begin() as connection:
        assert note_duplicates(connection, None, DAY, everything=False, entities=("product",)) == {
            "duplicate_products": 2
        }
    numbers = {pair["left_number"][-2:]: pair for pair in books.read(_PAIRS)}
    assert {left: pair["right_number"][-2:] for left, pair in numbers.items()} == {"K1": "K2", "G1": "G2"}
    assert numbers["K1"]["fields"]["figures"]["alike"] == 1.0
    with books.engine.begin() as connection:
        decide(connection, numbers["K1"]["pair_id"], "different", "two reels", "anna")
        again = note_duplicates(connection, None, DAY, everything=True, entities=("product",))
        assert again == {"duplicate_products": 0}
        with pytest.raises(UsageError, match="not merged here"):
            propose(connection, numbers["G1"]["pair_id"])
    assert {pair["decision"] for pair in books.read(_PAIRS)} == {"different", "open"}
    other = {**rows[4], "gtin": "4006381333948"}
    full(books, tmp_path, [*rows[:4], other, *rows[5:]], date(2026, 11, 9))
    with books.engine.begin() as connection:
        note_duplicates(connection, None, DAY, everything=True, entities=("product",))
    assert [pair["decision"] for pair in books.read(_PAIRS)] == ["different"]
