"""The pages of data quality opened in a real browser that has no network: nothing is fetched, nothing complains."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tasks.quality.pages import RulePage, engineers_page, owners_page
from tests.browser import Browser, browser, find_chromium

DAY = date(2026, 6, 15)
EVIL = "<img src=https://example.invalid/x onerror=alert(1)> & \"'>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all pages; skipped where this machine has none."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on the PATH")
    with browser(program) as opened:
        yield opened


def _rule(state: str) -> RulePage:
    error = "SQLSTATE 42703" if state == "error" else None
    failing = None if error else 1234
    trend = (1, None, 3)
    return RulePage(f"rule_{state}", "crm.invoices", "fail", EVIL, state, failing, 1_000_000, EVIL, error, EVIL, trend)


def _incident(number: int) -> dict[str, Any]:
    return {
        "incident_id": number, "customer_number": "1", "record_key": f"1 / books / {number}", "reason": EVIL * 3,
        "severity": "warn", "rule_id": "organization_payments_contact", "due_on": DAY, "first_seen": DAY,
        "regressions": 0, "occurrences": 1, "money": {"EUR": "1234567.5000"}, "table_name": "crm.invoices",
    }  # fmt: skip


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["engineers", "owners"])
def test_a_page_needs_no_network_and_fits_a_telephone(chromium: Browser, tmp_path: Path, name: str, width: int) -> None:
    """No request leaves, none fails, the console is empty, and nothing stands out to the right of the screen."""
    rows = [_incident(number) for number in range(1, 30)]
    made = {
        "engineers": lambda: engineers_page(DAY, [_rule(state) for state in ("pass", "fail", "error")]),
        "owners": lambda: owners_page("Petar Iliev", DAY, rows, rows[:2]),
    }
    path = tmp_path / f"{name}.html"
    path.write_text(made[name](), "utf-8")
    seen = chromium.open(path, width=width)
    assert (seen.asked, seen.failed, seen.said, seen.overflows) == ([], [], [], False)
    assert len(seen.picture) > 5_000


def test_a_page_that_asks_for_something_is_found_out(chromium: Browser, tmp_path: Path) -> None:
    """The look itself works: an outside picture, an error in a script and a line too wide are all told."""
    path = tmp_path / "bad.html"
    body = '<img src="http://example.invalid/x.png"><div style="width:5000px">x</div><script>console.error(1)</script>'
    path.write_text(f"<!doctype html><title>x</title>{body}", "utf-8")
    seen = chromium.open(path, width=360)
    assert seen.asked == ["http://example.invalid/x.png"]
    assert seen.failed
    assert seen.said
    assert seen.overflows
