"""An admin in Prefect's pages: the form of a backfill is filled in and sent, its run watched, its report read.

Needs a Chromium and the whole stack, so a campaign runs it. ``KONTOR_PICTURES`` names a folder for pictures of the
pages; those in the documentation were taken so.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.admin_browser import Page, browser
from tests.browser import find_chromium
from tests.end_to_end.test_up import _ask, _day, _run, home
from tests.ledgers import item, write_csv

__all__ = ["home"]

_FIELD = """
(name => [...document.querySelectorAll('.schema-form-property')].filter(
    e => e.querySelector('.schema-form-property__label')?.innerText.startsWith(name)).at(-1))
"""
_CHOOSE = """
((field, value) => {
    field.value = value;
    for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, {bubbles: true}));
    return field.value; })
"""


def _choose(page: Page, name: str, value: str, kind: str = "select") -> None:
    """Choose a value in the field of that name, as its own control would."""
    page.until(f"the field {name}", f"{_FIELD}({json.dumps(name)})?.querySelector('{kind}') != null")
    field = f"{_FIELD}({json.dumps(name)}).querySelector('{kind}')"
    assert page.ask(f"{_CHOOSE}({field}, {json.dumps(value)})") == value


def _pick_day(page: Page, name: str, day: str) -> None:
    """Turn the field from None to a date and pick it."""
    page.press(f"[...{_FIELD}({json.dumps(name)}).querySelectorAll('button')].find(b => b.innerText.trim() === 'date')")
    _choose(page, name, day, "input[type=date]")


def fill_in_and_watch(home: Path, page: Page, pictures: Path) -> None:
    """Ask for two weeks anew in the form, see the run end well, and read its report."""
    server = json.loads((home / "prefect" / "server.json").read_text())
    base = f"http://127.0.0.1:{server['port']}"
    [deployment] = [d for d in _ask(home, "deployments/filter") if d["name"] == "backfill"]
    page.visit(f"{base}/deployments/deployment/{deployment['id']}/run")
    page.until_said("Because (Optional)")
    _choose(page, "Flow", "payment_sync")
    _pick_day(page, "From Day", "2026-11-02")
    _pick_day(page, "To Day", "2026-11-15")
    _choose(page, "Reprocess", "all")
    _choose(page, "Because", "an audit")
    page.press(f"{_FIELD}('Live').querySelector('[role=switch]')")
    page.until("the switch", f"{_FIELD}('Live').querySelector('[role=switch]').getAttribute('aria-checked') === 'true'")
    page.picture(pictures / "backfill-form.png", height=2050)
    page.press("[...document.querySelectorAll('button')].find(b => b.innerText.trim() === 'Submit')")

    wanted = {"flow_runs": {"tags": {"any_": ["tier:2"]}}, "flows": {"name": {"any_": ["backfill"]}}}
    page.until("the run's notice", "!location.pathname.endsWith('/run')")
    run = _ask(home, "flow_runs/filter", sort="EXPECTED_START_TIME_DESC", **wanted)[0]
    page.visit(f"{base}/runs/flow-run/{run['id']}")
    page.until_said("Completed", 240)
    page.until_said("window_ended")
    page.picture(pictures / "backfill-run.png", height=1300)
    reports = _ask(home, "artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    [report] = [found["id"] for found in reports if found["key"] == "backfill-summary"]
    page.visit(f"{base}/artifacts/artifact/{report}")
    page.until_said("Figures before and after")
    page.picture(pictures / "backfill-report.png", height=1300)


@pytest.mark.campaign
def test_a_backfill_is_asked_for_in_the_form_and_watched(home: Path, tmp_path: Path) -> None:
    """The form's choices, dates and switch reach the run; the run's page and its report say that it was done."""
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    assert _run(home, "up", "--detach").returncode == 0
    for day, amount in (("2026-11-02", "10.00"), ("2026-11-09", "9.00")):
        path = write_csv(tmp_path / f"open_items_{day}.csv", [item("1001", "A-1", amount, _day("2026-12-01"))])
        assert _run(home, "import", str(path), "--contract", "open_items").returncode == 0
    pictures = Path(os.environ.get("KONTOR_PICTURES", tmp_path))
    with browser(program, tmp_path / "profile") as page:
        fill_in_and_watch(home, page, pictures)
    asked = json.loads(_run(home, "backfill", "status", "--format", "json").stdout)
    assert [(row["flow"], row["state"]) for row in asked] == [("payment_sync", "done")]
