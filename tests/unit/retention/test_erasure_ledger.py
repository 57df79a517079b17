"""The erasure ledger as a file: durable lines, a chain that shows tampering, torn ends, copies; and its key."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.erasures.keys import ErasureKey, key_of, normalised
from tasks.erasures.ledger_file import Entry, ErasureLedger, Extent, Subject, ledger_of, longest_ledger
from tasks.errors import BadInput, Refused

NOW = datetime(2026, 3, 1, 4, tzinfo=UTC)


def _entry(*subjects: str, kind: str = "erasure", refers_to: tuple[int, ...] = ()) -> Entry:
    people = [Subject(name, "k" + name, None) for name in subjects]
    return Entry(NOW, kind, "crm.contacts", "contacts-inactive", 1, "", people, refers_to)


def test_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    """What was appended is read again in order, by another holder of the same file, and the file is its owner's."""
    ledger = ledger_of(tmp_path)
    assert ledger.verify() == Extent()
    first = ledger.append([_entry("a", "b"), _entry("c", kind="request")])
    second = ledger_of(tmp_path).append([_entry("d")])
    assert [line.sequence for line in [*first, *second]] == [1, 2, 3]
    assert list(ledger_of(tmp_path).read()) == [*first, *second]
    assert list(ledger.read(after=2)) == second
    assert ledger.verify() == Extent(3, 4, 3, second[-1].hash)
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


def test_voided_lines_are_no_longer_in_force(tmp_path: Path) -> None:
    """A line whose destruction came to nothing is left out of what a replay applies."""
    ledger = ledger_of(tmp_path)
    ledger.append([_entry("a"), _entry("b"), _entry(kind="void", refers_to=(1,))])
    assert [line.sequence for line in ledger.in_force()] == [2]


@pytest.mark.parametrize("torn", [b"{", b'{"sequence":3', "€".encode()[:2]])
def test_a_torn_end_is_passed_over_and_cut_off(tmp_path: Path, torn: bytes) -> None:
    """What a dying writer left of a line is no line, and the next one takes its place."""
    ledger = ledger_of(tmp_path)
    ledger.append([_entry("a"), _entry("b")])
    with ledger.path.open("ab") as stream:
        stream.write(torn)
    assert ledger.verify().lines == 2
    assert ledger_of(tmp_path).append([_entry("c")])[0].sequence == 3
    assert ledger.verify().lines == 3
    assert b"".join(ledger.path.read_bytes().splitlines(keepends=True)) == ledger.path.read_bytes()


def test_every_change_of_a_line_is_found(tmp_path: Path) -> None:
    """A value changed, a line removed, doubled or swapped: reading refuses and says where."""
    ledger = ledger_of(tmp_path)
    ledger.append([_entry("a"), _entry("b"), _entry("c")])
    good = ledger.path.read_text().splitlines()
    changed = json.dumps({**json.loads(good[1]), "rule_version": 2}, sort_keys=True, separators=(",", ":"))
    bad = {
        "changed": [good[0], changed, good[2]],
        "removed": [good[0], good[2]],
        "doubled": [good[0], good[1], good[1], good[2]],
        "swapped": [good[1], good[0], good[2]],
        "no JSON": [good[0], "{}", good[2]],
    }
    for what, lines in bad.items():
        ledger.path.write_text("".join(f"{line}\n" for line in lines))
        with pytest.raises(BadInput, match=r"broken at line [123]"):
            ErasureLedger(ledger.path).verify()
        assert what
    ledger.path.write_text("".join(f"{line}\n" for line in good))
    assert ledger.verify().lines == 3


def _append_many(folder: Path) -> None:
    ledger = ledger_of(folder)
    for _ in range(25):
        ledger.append([_entry("x")])


def test_writers_come_one_after_another(tmp_path: Path) -> None:
    """Several processes that append at once leave one unbroken chain with every line."""
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(_append_many, [tmp_path] * 3))
    assert ledger_of(tmp_path).verify().lines == 75


def test_of_several_copies_the_longest_is_taken_and_a_fork_refused(tmp_path: Path) -> None:
    """A copy beside a backup is older than the ledger; two that say different things are a person's matter."""
    ledger = ledger_of(tmp_path / "here")
    ledger.append([_entry("a")])
    copy = ErasureLedger(tmp_path / "copy.jsonl")
    copy.path.write_bytes(ledger.path.read_bytes())
    ledger.append([_entry("b")])
    assert longest_ledger([copy, ledger]).path == ledger.path
    copy.append([_entry("z")])
    with pytest.raises(Refused, match="differ"):
        longest_ledger([copy, ledger])


def test_the_key_is_made_once_kept_secret_and_never_replaced(tmp_path: Path) -> None:
    """The same key comes back; one that others may read, one that is damaged and one that is missing are refused."""
    key = key_of(tmp_path)
    path = tmp_path / "keys" / "erasure.key"
    assert key_of(tmp_path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.secret.hex() not in repr(key)
    path.chmod(0o640)
    with pytest.raises(Refused, match="read by others"):
        key_of(tmp_path)
    path.chmod(0o600)
    path.write_text("not a key")
    with pytest.raises(Refused, match="32 bytes"):
        key_of(tmp_path)
    path.unlink()
    ledger_of(tmp_path).append([_entry("a")])
    with pytest.raises(Refused, match="missing"):
        key_of(tmp_path)


def test_an_address_is_recognised_however_it_is_written() -> None:
    """Spaces around and A to Z do not matter; other keys give other hashes (RFC 4231, test case 2)."""
    assert normalised("  Anna@Example.COM ") == "anna@example.com"
    assert ErasureKey(b"Jefe").hash_of("what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    assert ErasureKey(b"a" * 32).hash_of("x", "y") != ErasureKey(b"a" * 32).hash_of("xy")
