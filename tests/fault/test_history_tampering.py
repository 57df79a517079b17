"""Somebody with every right over the database edits history: each edit is found, and the entry is named.

Each act of tampering is done, found and rolled back in one transaction of a superuser with the guards switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from configs.settings import Settings
from tasks import database
from tasks.errors import BadInput
from tasks.history.chain import NO_SEAL, Seal, export_seals, find_broken_seal, import_seals, seal_root
from tasks.history.store import Verification, erase_values, read_seals, seal_history, verify_history
from tests.histories import NOW, add_customer, seal, superuser, writing

# Every column of an entry, with a value that it did not have; %s is one.
COLUMN_EDITS = {
    "changed_at": "changed_at + interval '1 microsecond'",
    "operation": "case operation when 'insert' then 'update' else 'insert' end",
    "table_name": "table_name || ' '",
    "record_id": "record_id + 1",
    "external_id": "case when external_id is null then gen_random_uuid() end",
    "parent_id": "coalesce(parent_id, 0) + 1",
    "role": "'kontor_owner'",
    "actor": "actor || 'x'",
    "run_id": "case when run_id is null then 1 end",
    "column_names": "column_names || 'note'::text",
    "old_values": """old_values || '{"email": "x@example.com"}'""",
    "new_values": """new_values || jsonb_build_object(column_names[1], 'x')""",
    "salt": "gen_random_uuid()",
}


@dataclass(frozen=True)
class Past:
    """A sealed history: entries of one customer, one of them with one value erased, another with all."""

    settings: Settings
    whole: tuple[int, ...]
    parted: int
    emptied: int


@pytest.fixture
def past(kontor_settings: Settings) -> Past:
    """A customer with three contacts and their roles, changed, partly deleted, partly erased, and sealed."""
    with writing(kontor_settings) as connection:
        first = connection.scalar(text("select coalesce(max(entry_id), 0) from history.change_log")) or 0
        add_customer(connection, f"T{uuid4().hex[:10]}", contacts=3)
        connection.execute(text("update crm.organizations set name = 'Ново име', country = null"))
    with writing(kontor_settings, database.RETENTION) as connection:
        people = list(connection.scalars(text("select contact_id from crm.contacts order by 1")))
        connection.execute(text("delete from crm.contact_roles where contact_id = :id"), {"id": people[2]})
        erase_values(connection, "contacts", people[:1], ["email"])
        erase_values(connection, "contacts", people[1:2])
    seal(kontor_settings)
    with database.engine_for(kontor_settings).connect() as connection:
        rows = connection.execute(
            text("select entry_id, salt, salts from history.change_log where entry_id > :first order by 1"),
            {"first": first},
        ).all()
    return Past(
        kontor_settings,
        tuple(row.entry_id for row in rows if row.salt is not None),
        next(row.entry_id for row in rows if row.salts),
        next(row.entry_id for row in rows if row.salts == {}),
    )


@contextmanager
def _tampering(settings: Settings) -> Iterator[Connection]:
    """A superuser for whom the guards and checks are away; everything is undone at the end."""
    with superuser(settings).connect() as connection:
        for table in ("change_log", "seals"):
            connection.execute(text(f"alter table history.{table} disable trigger refuse"))
        for name in ("operation", "salt", "objects"):
            connection.execute(text(f"alter table history.change_log drop constraint change_log_{name}_check"))
        connection.execute(text("alter table history.seals drop constraint seals_entries_check"))
        yield connection
        connection.rollback()


def _verify(connection: Connection, kept: tuple[Seal, ...] = ()) -> Verification:
    """Verify with the guards back, so that their absence is not what is found."""
    for table in ("change_log", "seals"):
        connection.execute(text(f"alter table history.{table} enable always trigger refuse"))
    return verify_history(connection, kept)


def _found(settings: Settings, statement: str, **parameters: object) -> Verification:
    with _tampering(settings) as connection:
        changed = connection.execute(text(statement), parameters).rowcount
        assert changed == 1, "the test itself must tamper"
        return _verify(connection)


def test_an_untouched_history_is_whole(past: Past) -> None:
    """The guard of this module: with nothing done, nothing is found."""
    with _tampering(past.settings) as connection:
        found = _verify(connection)
    assert (found.breaks, found.broken_entries, found.unsealed) == ((), 0, 0)
    assert len(past.whole) >= 9


@pytest.mark.parametrize("column", COLUMN_EDITS)
def test_an_edit_of_any_column_names_the_entry(past: Past, column: str) -> None:
    """Whatever is changed in an entry, the entry is named, and no other, unless its values went under that entry."""
    statement = f"update history.change_log set {column} = {COLUMN_EDITS[column]} where entry_id = :id"
    for entry_id in (past.whole[0], past.whole[-1]):
        found = _found(past.settings, statement, id=entry_id)
        named = [b.number for b in found.breaks if b.what == "entry" and "was changed after seal" in b.reason]
        assert (named, found.breaks[0].number) == ([entry_id], entry_id)
        assert {b.number for b in found.breaks} <= {entry_id, past.emptied}


PARTED_EDITS = {
    "a kept value": "new_values = new_values || jsonb_build_object('first_name', 'Иван')",
    "a kept value removed": "new_values = new_values - 'first_name'",
    "an erased value invented": """new_values = new_values || '{"email": "invented@example.com"}'""",
    "a hash of an erased value": "commitments = jsonb_build_object('email', repeat('0', 64))",
    "a hash in other letters": "commitments = jsonb_build_object('email', upper(commitments ->> 'email'))",
    "a hash that is none": """commitments = '{"email": "not hexadecimal"}'""",
    "a salt": "salts = salts || jsonb_build_object('first_name', repeat('0', 64))",
    "a salt that is none": """salts = salts || '{"first_name": 7}'""",
    "a salt too many": "salts = salts || jsonb_build_object('email', repeat('0', 64))",
    "a name that stands nowhere": """salts = salts || '{"x": "y"}'""",
    "an object that is none": "old_values = '[]'",
    "hashes gone": "commitments = null",
    "all hidden again": "salt = gen_random_uuid()",
}


@pytest.mark.parametrize("edit", PARTED_EDITS)
def test_an_edit_of_what_erasure_left_names_the_entry(past: Past, edit: str) -> None:
    """An entry from which a value was let go is as well protected as any other."""
    found = _found(
        past.settings, f"update history.change_log set {PARTED_EDITS[edit]} where entry_id = :id", id=past.parted
    )
    assert [(b.what, b.number) for b in found.breaks] == [("entry", past.parted)]


def test_a_malformed_entry_is_broken_even_if_it_was_sealed_so(past: Past) -> None:
    """An entry that was given what no hash covers before it was sealed does not pass for whole afterwards."""
    with _tampering(past.settings) as connection:
        connection.execute(text("delete from history.seals"))
        connection.execute(
            text("""update history.change_log set old_values = '{"x": "y"}' where entry_id = :id"""),
            {"id": past.whole[0]},
        )
        connection.execute(text("update history.change_log set salts = '{}' where entry_id = :id"), {"id": past.parted})
        seal_history(connection, now=NOW, actor="tester", seal_size=3)
        found = _verify(connection)
    assert [b.number for b in found.breaks] == [past.whole[0], past.parted]


def test_values_cannot_be_erased_on_the_sly(past: Past) -> None:
    """Who takes a value away as the erasing function would, but without its entry, leaves a hole that is named."""
    statement = (
        "update history.change_log e set salt = null, old_values = '{}', new_values = '{}', salts = '{}', commitments ="
        " (select jsonb_object_agg(n, encode(history.commitment(sha256(uuid_send(e.salt) || convert_to(n, 'UTF8')), n,"
        " e.old_values -> n, e.new_values -> n), 'hex')) from unnest(e.column_names) n) where entry_id = :id"
    )
    found = _found(past.settings, statement, id=past.whole[0])
    assert [str(b) for b in found.breaks] == [f"entry {past.whole[0]}: lost values without an entry that says so"]


def test_a_removed_entry_is_named(past: Past) -> None:
    """An entry that a seal lists and that is gone is named, with its seal."""
    victim = past.whole[3]
    found = _found(past.settings, "delete from history.change_log where entry_id = :id", id=victim)
    assert [(b.what, b.number) for b in found.breaks] == [("entry", victim)]
    assert "was removed; seal" in found.breaks[0].reason


def test_an_added_entry_is_named(past: Past) -> None:
    """An entry slipped in among sealed ones is in no seal, and named."""
    with superuser(past.settings).begin() as connection:
        gap = connection.scalar(text("select nextval(pg_get_serial_sequence('history.change_log', 'entry_id'))"))
    with writing(past.settings) as connection:
        connection.execute(text("update crm.organizations set segment = 'x'"))
    seal(past.settings)
    with _tampering(past.settings) as connection:
        copied = ", ".join(["changed_at", "operation", "table_name", "record_id", "role", "actor", "column_names"])
        connection.execute(
            text(
                f"insert into history.change_log (entry_id, {copied}, new_values, salt) overriding system value"
                f" select :gap, {copied}, new_values, salt from history.change_log where entry_id = :id"
            ),
            {"gap": gap, "id": past.whole[0]},
        )
        found = _verify(connection)
    assert [(b.what, b.number) for b in found.breaks] == [("entry", gap)]
    assert "was added" in found.breaks[0].reason


def test_two_entries_that_change_places_are_found(past: Past) -> None:
    """Order is part of what is sealed: swapping the ids of two entries breaks both."""
    one, two = past.whole[0], past.whole[1]
    with _tampering(past.settings) as connection:
        for old, new in ((one, 0), (two, one), (0, two)):
            connection.execute(
                text(
                    "with gone as (delete from history.change_log where entry_id = :old returning *)"
                    " insert into history.change_log overriding system value"
                    " select :new, changed_at, operation, table_name, record_id, external_id, parent_id, role, actor,"
                    " run_id, column_names, old_values, new_values, salt, salts, commitments from gone"
                ),
                {"old": old, "new": new},
            )
        found = _verify(connection)
    assert [(b.what, b.number) for b in found.breaks] == [("entry", one), ("entry", two)]


SEAL_EDITS = {
    "entry_hashes": "entry_hashes[1] = sha256('x')",
    "entry_ids": "entry_ids[1] = entry_ids[1] - 1000000",
    "through_entry_id": "through_entry_id = through_entry_id + 1",
    "sealed_at": "sealed_at = sealed_at + interval '1 microsecond'",
    "sealed_by": "sealed_by = 'somebody else'",
    "previous_root": "previous_root = sha256('x')",
    "root": "root = sha256('x')",
    "entries": "entry_ids = entry_ids[2:], entry_hashes = entry_hashes[2:]",
}


@pytest.mark.parametrize("column", SEAL_EDITS)
def test_an_edit_of_a_seal_names_the_seal(past: Past, column: str) -> None:
    """A seal whose contents or root were changed is named; so is the one after it when that one no longer follows."""
    found = _found(past.settings, f"update history.seals set {SEAL_EDITS[column]} where seal_number = 2")
    assert ("seal", 2) in [(b.what, b.number) for b in found.breaks]


def test_a_removed_seal_is_named(past: Past) -> None:
    """A gap in the chain is named; the newest ones can be removed unseen only by who also reaches the kept file."""
    found = _found(past.settings, "delete from history.seals where seal_number = 2")
    assert ("seal", 2) in [(b.what, b.number) for b in found.breaks]


def test_removing_the_newest_seals_shows_against_a_kept_chain(past: Past) -> None:
    """Without the file the entries merely look unsealed; with it the first missing seal is named."""
    with _tampering(past.settings) as connection:
        kept = tuple(read_seals(connection))
        connection.execute(text("delete from history.seals where seal_number >= :n"), {"n": kept[-2].seal_number})
        unaware, aware = _verify(connection), _verify(connection, kept)
    assert (unaware.breaks, unaware.unsealed > 0) == ((), True)
    assert [(b.what, b.number) for b in aware.breaks] == [("seal", kept[-2].seal_number)]


def test_history_rewritten_and_sealed_anew_shows_against_a_kept_chain(past: Past) -> None:
    """Who changes an entry and remakes every seal after it is found by the chain that was kept elsewhere."""
    with _tampering(past.settings) as connection:
        kept = tuple(read_seals(connection))
        connection.execute(
            text("update history.change_log set actor = 'x' where entry_id = :id"), {"id": past.whole[-1]}
        )
        connection.execute(text("delete from history.seals"))
        seal_history(connection, now=NOW, actor="tester", seal_size=3)
        unaware, aware = _verify(connection), _verify(connection, kept)
    assert unaware.breaks == ()
    assert aware.breaks[0].reason == "is another one than the file kept elsewhere has"


@pytest.mark.parametrize("statement", ["alter table history.change_log disable trigger refuse",
                                       "alter table crm.contacts enable trigger record_insert",
                                       "drop trigger record_truncate on crm.organizations"])  # fmt: skip
def test_a_trigger_that_is_off_is_named(past: Past, statement: str) -> None:
    """While a trigger is away, off, or not ALWAYS, history may have holes: that is a break of its own."""
    with superuser(past.settings).connect() as connection:
        connection.execute(text(statement))
        found = verify_history(connection)
        connection.rollback()
    assert [b.what for b in found.breaks] == ["trigger"]


# The owner of crm can have a trigger of its own call for an entry: the guard sees a trigger, as it should.
FORGED = """
create temporary table forger (entry bigint);
create function pg_temp.forge() returns trigger language plpgsql as $$ begin
    insert into history.change_log (changed_at, operation, table_name, record_id, role, actor, column_names, old_values,
                                    new_values, salt)
    select now(), 'update', 'contacts', {record}, 'kontor_flows', 'a.clerk', '{{email}}',
           jsonb_build_object('email', {old}::text), jsonb_build_object('email', {new}::text), gen_random_uuid();
    return null;
end $$;
create trigger forge after insert on forger for each statement execute function pg_temp.forge();
insert into forger values (1)
"""


@pytest.mark.parametrize(("old", "new", "reason"),
                         [("email", "'mallory@example.com'", "is not what the record says now"),
                          ("'mallory@example.com'", "email", "does not follow from the entry before it")])  # fmt: skip
def test_an_entry_forged_by_the_owner_is_named(past: Past, old: str, new: str, reason: str) -> None:
    """An unsealed entry that tells of a change nobody made contradicts the record or the entry before it."""
    with database.engine_for(past.settings, database.OWNER).connect() as connection:
        add_customer(connection, f"T{uuid4().hex[:10]}")
        record = connection.execute(text("select * from crm.contacts order by contact_id desc limit 1")).one()
        before = verify_history(connection)
        values = {"record": record.contact_id, "old": old, "new": new}
        forged = FORGED.format(**{k: f"'{record.email}'" if v == "email" else v for k, v in values.items()})
        connection.exec_driver_sql(forged)
        newest = connection.scalar(text("select max(entry_id) from history.change_log"))
        found = verify_history(connection)
        connection.rollback()
    assert before.breaks == ()
    assert [(b.what, b.number) for b in found.breaks] == [("entry", newest)]
    assert reason in found.breaks[0].reason


@pytest.mark.parametrize("role", [database.FLOWS, database.RETENTION, database.OWNER])
def test_a_recording_trigger_records_no_table_but_crm_s(past: Past, role: str) -> None:
    """Hung on a table of one's own that is called like one of ours, the recording trigger enters nothing."""
    with database.engine_for(past.settings, role).connect() as connection:
        connection.execute(text("create temporary table contacts (contact_id bigint, email text)"))
        with pytest.raises(DBAPIError, match=r"permission denied for function|is not entered in history"):
            connection.exec_driver_sql(
                "create trigger forge after insert on contacts referencing new table as new_rows for each statement"
                " execute function history.record_changes('contact_id', '', '');"
                " insert into contacts values (1, 'mallory@example.com')"
            )


def _chain(length: int) -> list[Seal]:
    seals = [NO_SEAL]
    for number in range(1, length + 1):
        seal = Seal(number, seals[-1].root, number * 10, 10, NOW, "tester", f"{number:064x}")
        seals.append(replace(seal, root=seal_root(seal)))
    return seals[1:]


@settings(max_examples=200)
@given(length=st.integers(1, 5), place=st.integers(0, 100_000), bit=st.integers(0, 7))
def test_an_exported_chain_with_one_bit_changed_is_refused_or_says_the_same(length: int, place: int, bit: int) -> None:
    """No flipped bit of a kept file passes for another chain."""
    seals = _chain(length)
    assert find_broken_seal(seals) is None
    content = bytearray(export_seals(seals).encode())
    content[place % len(content)] ^= 1 << bit
    try:
        read = import_seals(content.decode())
    except (BadInput, UnicodeDecodeError):
        return
    assert read == seals
