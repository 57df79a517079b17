"""What pgBackRest says of its backups and of its repository, in the words of its documentation and of a real 2.45."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.backups.pgbackrest import Kept, Stanza, faults_of, read_info
from tasks.errors import BadInput, DependencyDown


def _backup(label: str, start: int, prior: str | None = None, **more: object) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000003"},
        "backrest": {"format": 5, "version": "2.45"},
        "database": {"id": 1, "repo-key": 1},
        "error": False,
        "info": {"delta": 22992602, "repository": {"delta": 2811739, "size": 2811739}, "size": 22992602},
        "label": label,
        "lsn": {"start": "0/2000028", "stop": "0/3000050"},
        "prior": prior,
        "reference": [prior] if prior else None,
        "timestamp": {"start": start, "stop": start + 9},
        "type": "incr" if prior else "full",
    }
    return entry | more


def _info(*backups: dict[str, Any], code: int = 0, message: str = "ok", name: str = "kontor") -> bytes:
    stanza = {
        "archive": [{"database": {"id": 1, "repo-key": 1}, "id": "15-1", "max": "…05", "min": "…01"}],
        "backup": list(backups),
        "cipher": "aes-256-cbc",
        "db": [{"id": 1, "repo-key": 1, "system-id": 7710871009512708955, "version": "15"}],
        "name": name,
        "repo": [{"cipher": "aes-256-cbc", "key": 1, "status": {"code": code, "message": message}}],
        "status": {"code": code, "lock": {"backup": {"held": True}}, "message": message},
    }
    return json.dumps([stanza]).encode()


def test_backups_are_read_oldest_first_with_whose_they_are() -> None:
    """Ours carry the annotation; somebody else's are listed too, and a backup with damaged pages says so."""
    full = _backup("20261122-055746F", 1795327066, annotation={"kontor": "20261122T055746Z-full"})
    later = _backup("20261122-055746F_20261122-055756I", 1795327076, "20261122-055746F", error=True)
    found = read_info(_info(later, full), "kontor")
    assert (found.made, found.locked) == (True, True)
    assert found.backups == (
        Kept("20261122-055746F", "full", None, "20261122T055746Z-full", 1795327066, "0/2000028", 2811739, error=False),
        Kept(
            "20261122-055746F_20261122-055756I",
            "incr",
            "20261122-055746F",
            None,
            1795327076,
            "0/2000028",
            2811739,
            error=True,
        ),
    )


@pytest.mark.parametrize(
    ("content", "made"),
    [
        (b"[]", False),
        (_info(code=1, message="missing stanza path"), False),
        (_info(code=2, message="none"), True),
    ],
    ids=["nothing", "no stanza", "no backup"],
)
def test_an_empty_repository_is_nothing_wrong(content: bytes, made: bool) -> None:
    """Nothing was made yet: that is an answer, not an error."""
    found = read_info(content, "kontor")
    assert (found.made, found.backups) == (made, ())


def test_another_stanza_is_not_ours() -> None:
    """A repository may hold other servers too."""
    assert read_info(_info(_backup("20261122-055746F", 1), name="theirs"), "kontor") == Stanza(False, (), False)


def test_what_is_wrong_or_unknown_is_told() -> None:
    """A stanza's error in pgBackRest's own words; another format is refused, not half understood."""
    with pytest.raises(DependencyDown, match="kontor: missing stanza data"):
        read_info(_info(code=3, message="missing stanza data"), "kontor")
    for content in (b"", b"{}", b'[{"name": "kontor"}]', _info({"label": "x"})):
        with pytest.raises(BadInput, match="cannot be read"):
            read_info(content, "kontor")


VERIFIED = """\
stanza: kontor
status: ok
  archiveId: 15-1, total WAL checked: 5, total valid WAL: 5
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261122-055746F, status: valid, total files checked: 964, total valid files: 964
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""


def test_a_repository_with_a_damaged_file_is_not_taken_for_well() -> None:
    """The program ends with 0 either way; what it found stands in its text alone."""
    assert faults_of(VERIFIED) == []
    head, tail = VERIFIED.rsplit("checksum invalid: 0", 1)
    assert faults_of(f"{head}checksum invalid: 12{tail}") == ["backup: 20261122-055746F: 12 checksum invalid"]
    assert faults_of(VERIFIED.replace("status: ok", "status: error")) == ["status: error"]
