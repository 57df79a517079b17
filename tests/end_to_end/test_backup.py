"""The flows backup and restore_check as an operator starts them: made, proven, listed; damaged on purpose, told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stage import Stage


def test_a_backup_is_made_proven_listed_and_told_when_it_is_damaged(stage: Stage, tmp_path: Path) -> None:
    """Ends with 0 and counts as good; with one bit less on the target the check ends with 4 and it is good no more."""
    target = {"KONTOR_BACKUP_TARGET": str(tmp_path / "target")}
    made = stage.processes.run("run", "backup", "--param", "kind=full", **target)
    assert made.code == 0, made.said
    assert "1 checks passed" in made.said
    [written] = (tmp_path / "target").glob("*/manifest.json")
    tables = json.loads(written.read_text())["signed"]["tables"]
    assert {"kontor ops.run_ledger", "prefect public.flow_run"} <= {f"{t['database']} {t['table']}" for t in tables}
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


@pytest.mark.campaign
def test_a_rotated_key_leaves_the_older_backup_readable_and_asks_for_a_new_copy(stage: Stage, tmp_path: Path) -> None:
    """The copy in the safe is drilled; after a rotation it is told to be out of date, and a new one reads all."""
    run, target = stage.processes.run, {"KONTOR_BACKUP_TARGET": str(tmp_path / "target")}
    assert run("run", "backup", "--param", "kind=full", **target).code == 0
    [old] = json.loads(run("backup", "list", "--format", "json", **target).said)
    first, second = str(tmp_path / "first.txt"), str(tmp_path / "second.txt")
    assert run("backup", "keys", "escrow", "--out", first).code == 0
    drilled = run("backup", "drill", "--identity", first, **target)
    assert (drilled.code, f"reads {old['label']}" in drilled.said) == (0, True), drilled.said
    assert run("backup", "keys", "rotate").code == 0
    assert run("run", "backup", "--param", "kind=full", **target).code == 0
    outdated = run("backup", "drill", "--identity", first, **target)
    assert (outdated.code, "was made for another key" in outdated.said) == (3, True), outdated.said
    assert run("backup", "keys", "escrow", "--out", second).code == 0
    assert run("backup", "drill", "--identity", second, **target).code == 0
    assert run("backup", "verify", old["label"], **target).code == 0
    listed = json.loads(run("backup", "list", "--format", "json", **target).said)
    assert [line["good"] for line in listed] == [True, True]


@pytest.mark.campaign
def test_of_two_backups_at_once_one_is_made_and_the_other_is_told(stage: Stage, tmp_path: Path) -> None:
    """The second ends with 3 and leaves nothing; what the first made is proven."""
    target = {"KONTOR_BACKUP_TARGET": str(tmp_path / "target")}
    children = [stage.processes.start("run", "backup", "--param", "kind=full", **target) for _ in range(2)]
    ended = sorted((child.wait() for child in children), key=lambda one: one.code)
    assert [one.code for one in ended] == [0, 3], [one.said for one in ended]
    assert "Nothing was changed" in ended[1].said
    [line] = json.loads(stage.processes.run("backup", "list", "--format", "json", **target).said)
    assert line["good"] is True
