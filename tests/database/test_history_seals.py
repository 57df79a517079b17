"""History sealed: the chain holds, goes on and can be recomputed; letting values go does not break it."""

from __future__ import annotations

import hashlib
import json
import struct
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from configs.settings import Settings
from flows.commands.history import history
from tasks import database
from tasks.errors import Locked, Refused
from tasks.history.chain import export_seals, import_seals
from tasks.history.store import Verification, deleting_to_erase, erase_values, read_seals, seal_history
from tests.histories import (
    NOW,
    add_customer,
    changes_of,
    new_number,
    said,
    seal,
    superuser,
    verify,
    writing,
)


def test_entries_are_sealed_once_and_the_chain_verifies(kontor_settings: Settings) -> None:
    """Sealing takes every entry in, a second time finds nothing, and history is whole."""
    with writing(kontor_settings) as connection:
        add_customer(connection, new_number(), contacts=5)
    before = verify(kontor_settings)
    assert before.unsealed >= 11
    sealed = seal(kontor_settings)
    assert (sealed.entries, sealed.seals) == (before.unsealed, -(-before.unsealed // 3))
    assert seal(kontor_settings).seals == 0
    after = verify(kontor_settings)
    assert (after.breaks, after.unsealed, after.seals) == ((), 0, before.seals + sealed.seals)


def test_connections_side_by_side_find_what_one_finds(kontor_settings: Settings) -> None:
    """With shares of the entries on three connections a changed, a removed and an added entry are named as with one.

    The last share reaches up to the newest seal and the first from the first entry on: the ends are among them.
    """
    with writing(kontor_settings) as connection:
        for _ in range(3):
            add_customer(connection, new_number(), contacts=3)
    sealed = seal(kontor_settings)
    assert sealed.seals == 7
    assert _verify_beside(kontor_settings, 2) == verify(kontor_settings)
    assert _verify_beside(kontor_settings, 12).breaks == ()
    with superuser(kontor_settings).begin() as connection:
        connection.execute(text("alter table history.change_log disable trigger refuse"))
        ids = list(connection.scalars(text("select entry_id from history.change_log order by 1")))
        connection.execute(text("update history.change_log set actor = 'x' where entry_id = :id"), {"id": ids[0]})
        connection.execute(text("delete from history.change_log where entry_id = :id"), {"id": ids[9]})
        connection.execute(text("update history.change_log set run_id = 99 where entry_id = :id"), {"id": ids[-1]})
        connection.execute(text("alter table history.change_log enable always trigger refuse"))
    alone = verify(kontor_settings)
    assert [broken.number for broken in alone.breaks] == [ids[0], ids[9], ids[-1]]
    assert _verify_beside(kontor_settings, 1) == _verify_beside(kontor_settings, 2) == alone


def _verify_beside(settings: Settings, others: int) -> Verification:
    engine = database.engine_for(settings)
    with ExitStack() as stack:
        beside = [stack.enter_context(engine.connect()) for _ in range(others)]
        return verify(settings, beside=beside)


def test_a_seal_waits_for_entries_that_are_not_committed_yet(kontor_settings: Settings) -> None:
    """Order of id is not order of commit: while an earlier id is under way nothing is sealed, and then all of it."""
    early, late = new_number(), new_number()
    seal(kontor_settings)
    with database.engine_for(kontor_settings).connect() as slow:
        add_customer(slow, early)
        with writing(kontor_settings) as connection:
            add_customer(connection, late)
        with pytest.raises(Locked, match="nothing was sealed"):
            seal(kontor_settings)
        slow.commit()
    assert seal(kontor_settings).entries == 6
    assert verify(kontor_settings).breaks == ()


def test_writers_do_not_wait_for_sealing(kontor_settings: Settings) -> None:
    """While a seal is being made, and not yet committed, customers can be written and are left to the next seal."""
    with writing(kontor_settings) as connection:
        add_customer(connection, new_number())
    with database.engine_for(kontor_settings).connect() as sealing:
        seal_history(sealing, now=NOW, actor="tester")
        with writing(kontor_settings) as connection:
            connection.execute(text("set local lock_timeout = '1s'"))
            add_customer(connection, new_number())
        sealing.commit()
    assert seal(kontor_settings).entries == 3
    assert verify(kontor_settings).breaks == ()


def _of(settings: Settings, number: str, table: str) -> list[int]:
    return sorted({c.record_id for c in changes_of(settings, number) if c.table_name == table})


def _erased(settings: Settings, table: str, records: list[int], columns: list[str] | None = None) -> int:
    with writing(settings, database.RETENTION) as connection:
        return erase_values(connection, table, records, columns)


def test_erasure_removes_the_values_and_the_chain_still_verifies(kontor_settings: Settings) -> None:
    """First one column goes, then the rest; each time history stays whole and says who let what go."""
    number = new_number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number)
        connection.execute(text("update crm.contacts set email = 'new-' || email"))
    seal(kontor_settings)
    contacts = _of(kontor_settings, number, "contacts")
    assert _erased(kontor_settings, "contacts", contacts, ["email"]) == 2
    assert (verify(kontor_settings).breaks, verify(kontor_settings).erased_entries >= 2) == ((), True)
    left = [c for c in changes_of(kontor_settings, number) if c.table_name == "contacts" and not c.erased]
    assert ("contacts", "insert", "first_name", None, 'Ясен "1"') in said(left)
    assert ("contacts", "erase", "email", None, None) in said(left)

    assert _erased(kontor_settings, "contacts", contacts) == 3
    assert _erased(kontor_settings, "contacts", contacts) == 0
    seal(kontor_settings)
    assert verify(kontor_settings).breaks == ()
    with superuser(kontor_settings).connect() as connection:
        rows = connection.execute(
            text("select e::text from history.change_log e where table_name = 'contacts'"),
        ).scalars()
        assert [row for row in rows if f"{number}-1@example.com" in row] == []


def test_erasing_keeps_neither_salt_nor_anything_to_guess_the_value_with(kontor_settings: Settings) -> None:
    """What is left of an erased value is a hash with a salt that is gone; the neighbours' salts do not lead to it."""
    number = new_number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number)
    _erased(kontor_settings, "contacts", _of(kontor_settings, number, "contacts"), ["email"])
    with database.engine_for(kontor_settings).connect() as connection:
        row = connection.execute(
            text(
                "select * from history.change_log where table_name = 'contacts' and operation = 'insert'"
                " order by entry_id desc limit 1"
            )
        ).one()
    assert row.salt is None
    assert set(row.salts) == {"organization_id", "contact_key", "first_name"} == set(row.new_values)
    assert set(row.commitments) == {"email"}


def test_a_deletion_that_erases_is_entered_without_the_values(kontor_settings: Settings) -> None:
    """It says that a contact was deleted and by whom; for any other role the same word does nothing."""
    number = new_number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number, contacts=2)
    first, second = _of(kontor_settings, number, "contacts")
    for role, contact in ((database.OWNER, first), (database.RETENTION, second)):
        with writing(kontor_settings, role) as connection, deleting_to_erase(connection, "contacts"):
            connection.execute(text("delete from crm.contacts where contact_id = :id"), {"id": contact})
            if role == database.RETENTION:
                assert erase_values(connection, "contacts", [contact]) == 4
    deleted = [c for c in changes_of(kontor_settings, number) if c.operation == "delete" and c.table_name == "contacts"]
    assert {(c.record_id, c.role) for c in deleted} == {(first, database.OWNER), (second, database.RETENTION)}
    assert {c.old_value for c in deleted if c.record_id == first} >= {f"{number}-1@example.com"}
    assert [(c.column_name, c.old_value, c.erased) for c in deleted if c.record_id == second] == [("", None, True)]
    assert verify(kontor_settings).breaks == ()
    seal(kontor_settings)
    assert verify(kontor_settings).breaks == ()


def test_a_deletion_without_values_that_nothing_was_erased_for_is_found(kontor_settings: Settings) -> None:
    """The values that stand in history no longer fit: they say that somebody is there who is not."""
    number = new_number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number)
    with writing(kontor_settings, database.RETENTION) as connection, deleting_to_erase(connection, "contacts"):
        connection.execute(
            text("delete from crm.contacts where contact_id = :id"), {"id": _of(kontor_settings, number, "contacts")[0]}
        )
    assert any("is not what the record says now" in found.reason for found in verify(kontor_settings).breaks)


@pytest.mark.parametrize("role", [database.FLOWS, database.OWNER, database.FINANCE])
def test_only_retention_erases(kontor_settings: Settings, role: str) -> None:
    """The erasing function is closed to every other role."""
    with (
        database.engine_for(kontor_settings, role).connect() as connection,
        pytest.raises(DBAPIError, match=r"permission denied|is for kontor_retention"),
    ):
        erase_values(connection, "contacts", [1])


def test_a_superuser_who_calls_the_erasing_function_is_turned_away(kontor_settings: Settings) -> None:
    """Privileges are not asked of superusers, but the function asks who calls."""
    with (
        superuser(kontor_settings).connect() as connection,
        pytest.raises(DBAPIError, match="is for kontor_retention"),
    ):
        erase_values(connection, "contacts", [1])


def _record_send(*fields: tuple[int, bytes | None]) -> bytes:
    """PostgreSQL's binary form of a row: count, then type, length and bytes of each field."""
    out = struct.pack("!i", len(fields))
    for kind, content in fields:
        out += struct.pack("!Ii", kind, -1 if content is None else len(content)) + (content or b"")
    return out


def _int8(value: int | None) -> tuple[int, bytes | None]:
    return (20, None if value is None else struct.pack("!q", value))


def _value_hash(salt: bytes, name: str, old: str | None, new: str | None) -> bytes:
    sides = [json.dumps(side, ensure_ascii=False) if side is not None else "" for side in (old, new)]
    return hashlib.sha256(salt + "\x1f".join([name, *sides]).encode()).digest()


def _entry_hash(row: Any) -> bytes:
    """The hash of an entry in which nothing was erased, computed from docs/reference/history.md alone."""
    epoch = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
    micros = round((row.changed_at - epoch).total_seconds() * 1_000_000)
    external = row.external_id.bytes if isinstance(row.external_id, UUID) else None
    head = _record_send(
        _int8(row.entry_id),
        (1184, struct.pack("!q", micros)),
        (25, row.operation.encode()),
        (25, row.table_name.encode()),
        _int8(row.record_id),
        (2950, external),
        _int8(row.parent_id),
        (25, row.role.encode()),
        (25, row.actor.encode()),
        _int8(row.run_id),
        (23, struct.pack("!i", len(row.column_names))),
    )
    values = b"".join(
        _value_hash(
            hashlib.sha256(row.salt.bytes + name.encode()).digest(),
            name,
            row.old_values.get(name),
            row.new_values.get(name),
        )
        for name in row.column_names
    )
    return hashlib.sha256(head + values).digest()


def test_hashes_can_be_recomputed_without_the_database(kontor_settings: Settings) -> None:
    """Python, from the documented format, comes to the hash that the seal lists for each entry."""
    seal(kontor_settings)
    with writing(kontor_settings) as connection:
        add_customer(connection, new_number(), contacts=3)
        connection.execute(text("update crm.contacts set first_name = null, phone = E'line\\nbreak\\t\"'"))
    seal(kontor_settings)
    with database.engine_for(kontor_settings).connect() as connection:
        rows = connection.execute(
            text(
                "select e.*, l.entry_hash from history.seals s"
                " cross join lateral unnest(s.entry_ids, s.entry_hashes) as l (entry_id, entry_hash)"
                " join history.change_log e using (entry_id) where e.salt is not null"
                " order by e.entry_id desc limit 10"
            )
        ).all()
    assert len(rows) == 10
    assert [_entry_hash(row) for row in rows] == [bytes(row.entry_hash) for row in rows]


def test_a_chain_kept_elsewhere_goes_on(kontor_settings: Settings) -> None:
    """What was exported earlier is a part of what stands there later, and survives its file."""
    with writing(kontor_settings) as connection:
        add_customer(connection, new_number())
    seal(kontor_settings)
    with database.engine_for(kontor_settings).connect() as connection:
        kept = import_seals(export_seals(read_seals(connection)))
    with writing(kontor_settings) as connection:
        add_customer(connection, new_number())
    seal(kontor_settings)
    assert verify(kontor_settings, kept=kept).breaks == ()


def test_the_commands_show_seal_export_and_verify(kontor_settings: Settings, tmp_path: Path) -> None:
    """A person sees who changed what, seals it, keeps the chain in a file, and has it confirmed."""
    number = new_number()
    with writing(kontor_settings) as connection:
        add_customer(connection, number)
    run = CliRunner().invoke
    shown = run(history, ["show", number, "--format", "json"], catch_exceptions=False)
    names = [row["column_name"] for row in json.loads(shown.stdout) if row["table_name"] == "organizations"]
    assert names[-5:] == ["customer_number", "name", "country", "payment_terms_days", "origin"]
    table = run(history, ["show", number], catch_exceptions=False).stdout
    assert "tester as kontor_flows" in table
    assert "Sealed" in run(history, ["seal"], catch_exceptions=False).stdout
    kept = tmp_path / "seals.json"
    run(history, ["export", "--out", str(kept)], catch_exceptions=False)
    assert number not in kept.read_text("utf-8")
    verified = run(history, ["verify", "--against", str(kept)], catch_exceptions=False)
    assert "History is whole and continues what seals.json keeps." in verified.stdout
    kept.write_text(kept.read_text("utf-8").replace('"entries": ', '"entries": 1'), "utf-8")
    assert "was changed since it was exported" in str(run(history, ["verify", "--against", str(kept)]).exception)


def test_the_command_names_the_break_and_fails(kontor_settings: Settings) -> None:
    """A customer's recording trigger that is off is a break by itself: exit code 3 with the trigger's name."""
    with superuser(kontor_settings).begin() as connection:
        connection.execute(text("alter table crm.contacts disable trigger record_update"))
    try:
        found = CliRunner().invoke(history, ["verify"])
    finally:
        with superuser(kontor_settings).begin() as connection:
            connection.execute(text("alter table crm.contacts enable always trigger record_update"))
    assert isinstance(found.exception, Refused)
    assert "record_update on crm.contacts is switched off" in found.exception.message
