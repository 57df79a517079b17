"""The flows backup and restore_check as an operator starts them: made, proven, listed; damaged on purpose, told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stage import Stage

pytestmark = pytest.mark.xdist_group("faults")


def test_a_backup_is_made_proven_listed_and_told_when_it_is_damaged(stage: Stage, tmp_path: Path) -> None:
    """Ends with 0 and counts as good; with one bit less on the target the check ends with 4 and it is good no more."""
    target = {"KONTOR_BACKUP_TARGET": str(tmp_path / "target")}
    made = stage.processes.run("run", "backup", "--param", "kind=full", **target)
    assert made.code == 0, made.said
    assert "1 checks passed" in made.said
    [line] = json.loads(stage.processes.run("backup", "list", "--format", "json", **target).said)
    assert (line["kind"], line["good"], line["failed_checks"]) == ("full", True, [])
    shown = stage.processes.run("backup", "restore", "--into", str(tmp_path / "elsewhere"), **target)
    assert (shown.code, "This was a dry run" in shown.said) == (0, True), shown.said
    assert not (tmp_path / "elsewhere").exists()

    [base] = (tmp_path / "target").glob("*/base.tar.zst.age")
    content = base.read_bytes()
    base.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    looked = stage.processes.run("backup", "verify", "--digests", **target)
    assert (looked.code, "is damaged" in looked.said) == (4, True), looked.said
    checked = stage.processes.run("run", "restore_check", **target)
    assert (checked.code, "did not pass its check" in checked.said) == (4, True), checked.said
    [line] = json.loads(stage.processes.run("backup", "list", "--format", "json", **target).said)
    assert (line["good"], line["failed_checks"]) == (False, ["digests"])

    elsewhere = {**target, "KONTOR_BACKUP_IDENTITY": str(tmp_path / "on-a-stick.txt")}
    blind = stage.processes.run("run", "restore_check", **elsewhere)
    assert (blind.code, "private key is not on this machine" in blind.said) == (3, True), blind.said
