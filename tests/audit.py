"""Are the installed packages the locked ones, and is any of them known to be weak? Without a network.

``make audit`` compares every installed package with ``requirements.lock``. ``make audit ADVISORIES=all.zip`` also asks
the advisories of a downloaded OSV database (https://osv.dev: the ecosystem PyPI as one zip of JSON files, fetched once
on a machine that has a network and carried over). Ends with 1 where something differs or is known to be weak.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
_PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;\\]+)(?: ; (?P<marker>[^\\\n]+))?", re.MULTILINE
)
_OURS = "kontor"


@dataclass(frozen=True)
class Weakness:
    """An advisory that concerns an installed version."""

    package: str
    version: str
    advisory: str
    mended_in: str


def locked_versions(lock: str) -> dict[str, str]:
    """The version of each package in a lock file's text that is meant for this interpreter and system."""
    return {
        canonicalize_name(found["name"]): found["version"]
        for found in _PINNED.finditer(lock)
        if found["marker"] is None or Marker(found["marker"].strip()).evaluate()
    }


def installed_versions() -> dict[str, str]:
    """The version of each installed package, ours apart."""
    found = {canonicalize_name(one.metadata["Name"]): one.version for one in distributions()}
    return {name: version for name, version in found.items() if name != _OURS}


def differences(locked: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """What is installed otherwise than locked, or without being locked; a lock may name more, for other systems."""
    return [
        f"{name} {version} is installed; locked is {locked.get(name, 'none')}"
        for name, version in sorted(installed.items())
        if locked.get(name) != version and name not in ("pip", "setuptools")
    ]


def weaknesses(advisories: Iterator[Mapping[str, Any]], installed: Mapping[str, str]) -> Iterator[Weakness]:
    """Every advisory, not withdrawn, whose ranges or list of versions hold an installed version."""
    for advisory in advisories:
        for affected in [] if advisory.get("withdrawn") else advisory.get("affected", []):
            package = affected.get("package", {})
            name = canonicalize_name(package.get("name", ""))
            if package.get("ecosystem") == "PyPI" and name in installed and _concerns(affected, installed[name]):
                fixed = [e["fixed"] for r in affected.get("ranges", []) for e in r.get("events", []) if "fixed" in e]
                yield Weakness(name, installed[name], str(advisory["id"]), ", ".join(fixed) or "none")


def _concerns(affected: Mapping[str, Any], version: str) -> bool:
    return version in affected.get("versions", []) or any(
        _within(found["events"], Version(version))
        for found in affected.get("ranges", [])
        if found.get("type") == "ECOSYSTEM"
    )


def _within(events: list[Mapping[str, str]], version: Version) -> bool:
    """OSV's rule: the events in order of their versions, each opening or closing what is affected."""
    inside = False
    for kind, at in sorted(((k, v) for event in events for k, v in event.items()), key=lambda pair: _order(pair[1])):
        if kind == "introduced" and version >= _order(at):
            inside = True
        if (kind == "fixed" and version >= _order(at)) or (kind == "last_affected" and version > _order(at)):
            inside = False
    return inside


def _order(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def read_advisories(archive: Path) -> Iterator[Mapping[str, Any]]:
    """The advisories of an OSV database, one JSON file each."""
    with zipfile.ZipFile(archive) as files:
        for name in files.namelist():
            if name.endswith(".json"):
                yield json.loads(files.read(name))


def main(arguments: list[str]) -> int:
    """Print what differs and what is known to be weak; returns the exit code."""
    installed = installed_versions()
    wrong = differences(locked_versions(LOCK.read_text("utf-8")), installed)
    print(f"{len(installed)} packages are installed; {len(wrong)} differ from requirements.lock.")
    for archive in arguments:
        found = list(weaknesses(read_advisories(Path(archive)), installed))
        print(f"{archive}: {len(found)} advisories concern them.")
        wrong += [f"{w.package} {w.version}: {w.advisory}, mended in {w.mended_in}" for w in found]
    print("".join(f"  - {line}\n" for line in wrong), end="")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
