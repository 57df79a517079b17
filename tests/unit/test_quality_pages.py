"""The pages of data quality: whole in themselves, safe with whatever stands in them, and right in their sums."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

from tasks.quality.pages import RulePage, at_stake, engineers_page, owners_page, sparkline

DAY = date(2026, 6, 15)
EVIL = "<script>alert(1)</script> & \"'>"


def _rule(state: str, **more: Any) -> RulePage:
    given: dict[str, Any] = {
        "rule_id": f"rule_{state}", "table": "crm.invoices", "severity": "fail", "owner": EVIL, "state": state,
        "failing": None if state == "error" else 3, "rows": 10, "meaning": EVIL,
        "error": "SQLSTATE 42703" if state == "error" else None, "sql": "r.a > r.b and r.c <> '<'",
        "trend": (1, None, 3),
    }  # fmt: skip
    return RulePage(**{**given, **more})


def _incident(number: int, **more: Any) -> dict[str, Any]:
    return {
        "incident_id": number, "customer_number": "1", "record_key": f"1 / books / {number}", "reason": EVIL,
        "severity": "warn", "rule_id": "rule", "due_on": date(2026, 6, 20), "first_seen": DAY, "regressions": 0,
        "occurrences": 1, "money": {"EUR": "10.0000"}, "table_name": "crm.invoices", **more,
    }  # fmt: skip


class _Whole(HTMLParser):
    """Collects what would be fetched or run, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "a", "object"):
            self.outside.append(tag)
        self.outside += [name for name, _ in attrs if name in ("src", "href") or name.startswith("on")]
        if tag not in ("meta", "br", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "rect"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _whole(page: str) -> str:
    parser = _Whole()
    parser.feed(page)
    assert parser.open == []
    assert parser.outside == []
    assert "url(" not in page
    assert "http" not in page.replace("http-equiv", "")
    return page


def test_the_engineers_page_needs_nothing_and_runs_nothing() -> None:
    """Whatever a rule says stays text, and the page fetches nothing."""
    page = _whole(engineers_page(DAY, [_rule("pass"), _rule("fail"), _rule("error")]))
    assert "&lt;script&gt;" in page
    assert page.index("Could not be asked (1)") < page.index("Failed (1)") < page.index("Passed (1)")
    assert "SQLSTATE 42703" in page
    assert "r.c &lt;&gt;" in page


def test_the_owners_page_tells_new_overdue_and_solved() -> None:
    """An incident that is due today is open, not overdue; yesterday's is overdue."""
    rows = [
        _incident(1),
        _incident(2, due_on=DAY, first_seen=date(2026, 6, 1)),
        _incident(3, due_on=date(2026, 6, 14), first_seen=date(2026, 6, 1), regressions=1),
    ]
    page = _whole(owners_page(EVIL, DAY, rows, [_incident(4)]))
    tiles = {name: figure for figure, name in re.findall(r'<div class="tile"><b>([^<]*)</b>([^<]*)</div>', page)}
    assert tiles == {"open": "3", "new": "1", "overdue": "1", "solved this week": "1", "EUR at stake": "30.00"}
    assert page.index("Overdue (1)") < page.index("Open (2)") < page.index("Solved this week (1)")
    assert "2026-06-01 (again)" in page


def test_money_at_stake_is_counted_once() -> None:
    """Two rules on one invoice touch its money once; a customer's balance holds its invoices already."""
    one = _incident(1)
    rows = [one, {**one, "incident_id": 2, "rule_id": "other"}, _incident(3, customer_number="2", money={"SEK": "5"})]
    assert at_stake(rows) == {"EUR": Decimal("10.0000"), "SEK": Decimal(5)}
    customer = _incident(4, table_name="crm.organizations", record_key="1", money={"EUR": "70"})
    assert at_stake([*rows, customer, {**customer, "rule_id": "x"}]) == {"EUR": Decimal(70), "SEK": Decimal(5)}
    assert at_stake([_incident(5, money={}, customer_number=None)]) == {}


def test_a_trend_says_its_figures_and_leaves_gaps_for_errors() -> None:
    """A day on which the rule could not be asked has no bar and says so."""
    picture = sparkline((0, None, 18))
    assert picture.count("<rect") == 2
    assert "<title>0, error, 18</title>" in picture
    assert sparkline(()) == ""
