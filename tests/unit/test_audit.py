"""The audit of dependencies finds what is not locked and what is known to be weak, from files alone."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.audit import LOCK, differences, installed_versions, locked_versions, main, read_advisories, weaknesses

INSTALLED = {"prefect": "3.8.8", "lxml": "5.3.0", "pandas": "3.1.1"}


def _advisory(number: str, package: str, events: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": events}]
    return {"id": number, "affected": [{"package": {"ecosystem": "PyPI", "name": package}, "ranges": ranges}], **more}


def _archive(folder: Path, *advisories: dict[str, Any]) -> Path:
    with zipfile.ZipFile(folder / "all.zip", "w") as files:
        for advisory in advisories:
            files.writestr(f"{advisory['id']}.json", json.dumps(advisory))
    return folder / "all.zip"


def test_an_advisory_concerns_the_versions_between_its_events(tmp_path: Path) -> None:
    """Introduced and not yet fixed; fixed, withdrawn, not installed and reintroduced later do not count."""
    path = _archive(
        tmp_path,
        _advisory("OPEN", "lxml", [{"introduced": "0"}, {"fixed": "5.3.1"}]),
        _advisory("FIXED", "lxml", [{"introduced": "0"}, {"fixed": "5.3.0"}]),
        _advisory("LATER", "Pandas", [{"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "3.2"}]),
        _advisory("AGAIN", "Pandas", [{"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "3.0"}]),
        _advisory("LAST", "prefect", [{"introduced": "3.0"}, {"last_affected": "3.8.7"}]),
        _advisory("GONE", "prefect", [{"introduced": "0"}], withdrawn="2026-01-01T00:00:00Z"),
        _advisory("OTHER", "flask", [{"introduced": "0"}]),
    )
    found = {weak.advisory: weak.mended_in for weak in weaknesses(read_advisories(path), INSTALLED)}
    assert found == {"OPEN": "5.3.1", "AGAIN": "1.0"}


def test_what_is_installed_is_what_is_locked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """This very installation; and a package of another version, or one that nobody locked, is told."""
    locked = locked_versions(LOCK.read_text("utf-8"))
    assert len(locked) > 100
    assert differences(locked, {"prefect": locked["prefect"]}) == []
    told = differences({"prefect": "3.8.8"}, {"prefect": "3.8.9", "stranger": "1.0"})
    assert told == ["prefect 3.8.9 is installed; locked is 3.8.8", "stranger 1.0 is installed; locked is none"]
    name, version = next(iter(installed_versions().items()))
    assert main([str(_archive(tmp_path, _advisory("HERE", name, [{"introduced": "0"}])))]) == 1
    assert f"{name} {version}: HERE" in capsys.readouterr().out
