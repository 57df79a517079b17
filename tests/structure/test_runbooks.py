"""Every runbook ends with a drill that a test performs, and every alert leads to a runbook."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from configs.settings import PROJECT_ROOT
from tasks.watch.letters import KINDS

RUNBOOKS = sorted((PROJECT_ROOT / "docs" / "runbooks").glob("*.md"))
ALERTS = PROJECT_ROOT / "configs" / "monitoring" / "alerts.yml"


def _drills(text: str) -> list[tuple[str, str]]:
    """The tests that the section Drill of a runbook names, as file and function."""
    _, _, drill = text.partition("\n## Drill\n")
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", drill)


def _missing(drills: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(file, name) for file, name in drills if f"def {name}(" not in _text(PROJECT_ROOT / file)]


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_is_drilled_by_a_test(runbook: Path) -> None:
    """Its last section says what is practised and names a test that exists."""
    drills = _drills(runbook.read_text("utf-8"))
    assert drills
    assert _missing(drills) == []


def test_a_drill_that_no_test_performs_is_found() -> None:
    """A name without a test, or a file that is gone, is told."""
    assert len(RUNBOOKS) >= 16
    assert _drills("# x\n`tests/a.py::test_b`\n") == []
    wrong = _drills(
        "# x\n\n## Drill\n\nIt: `tests/structure/test_runbooks.py::test_nothing` and `tests/gone.py::test_b`.\n"
    )
    assert _missing(wrong) == wrong
    assert len(wrong) == 2


def test_every_alert_leads_to_a_runbook() -> None:
    """Prometheus' alerts name a runbook that is there; what the watcher says of runs is explained in its own."""
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert rules
    for rule in rules:
        assert (PROJECT_ROOT / rule["annotations"]["runbook"]) in RUNBOOKS, rule["alert"]
    explained = (PROJECT_ROOT / "docs" / "runbooks" / "run_watch.md").read_text("utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in explained] == []
