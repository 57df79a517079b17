"""Decisions as lines of COPY: whatever stands in a name comes out of the database as it went in."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

from tasks.reminders import wording
from tasks.reminders.drafts import draft_plan
from tests.reminding import PAYER, customer, decided, owed
from tests.unit.reminders.test_plan import LATER, MONDAY

_MEANT = {"\\N": None, "\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


def _cells(line: str) -> list[str | None]:
    """What COPY reads out of one line of its text format."""
    cells: list[str | None] = []
    for cell in line.split("\t"):
        text, rest = "", cell
        while rest and rest != "\\N":
            piece = rest[:2] if rest[0] == "\\" else rest[0]
            text, rest = text + str(_MEANT.get(piece, piece)), rest[len(piece) :]
        cells.append(None if cell == "\\N" else text)
    return cells


def test_a_line_brings_odd_texts_over_unchanged() -> None:
    """Tabs, line breaks, backslashes and the sign for nothing do not end a cell, and an empty text is nothing."""
    for owner in ("Ann\tB\nC\r\\D", "\\N", "\u2028Ann", "", "Øyvind"):
        for who in (customer(owed(1, MONDAY), owner=owner), customer(owed(1, MONDAY), owner=owner, contacts=())):
            decision = decided(who, LATER)
            draft = draft_plan([decision])
            [line] = [line for block in draft.decisions for line in block.decode().split("\n") if line]
            cells = _cells(line)
            assert len(cells) == 19
            assert cells[-1] == (owner or None)
            assert cells[4] == decision.reason
            assert json.loads(str(cells[13])) == decision.figures
            assert draft.reasons == {(decision.decision, decision.reason_code): 1}


def test_items_go_with_exact_sums() -> None:
    """A sum keeps its digits, few or many, and a line goes with every item that the mail takes a step further."""
    sums = ("0.01", "999.99", "1000.00", "12345678901234.5678")
    who = customer(*(owed(n, MONDAY - timedelta(days=n), amount) for n, amount in enumerate(sums)), contacts=(PAYER,))
    lines = b"".join(draft_plan([decided(who, LATER)]).items).decode().splitlines()
    assert sorted(line.split("\t")[5] for line in lines) == sorted(sums)
    assert [wording.money("EUR", Decimal(amount)) for amount in (*sums, "0.00000001", "1E+3", "-5")] == [
        "EUR 0.01",
        "EUR 999.99",
        "EUR 1,000.00",
        "EUR 12,345,678,901,234.5678",
        "EUR 0.00000001",
        "EUR 1,000.00",
        "EUR -5.00",
    ]
