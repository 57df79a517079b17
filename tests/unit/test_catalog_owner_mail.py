"""The catalogue's owner reads what needs a look, and is left alone otherwise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

from tasks.catalog.owner_mail import CatalogNews, FileNews, Finding, owner_letter
from tasks.letters import Mailbox

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
QUIET = FileNews("catalog.csv", date(2026, 11, 22), "applied", {"rows_read": 3, "unchanged": 3})
NEWS = CatalogNews(date(2026, 11, 22), 7, [QUIET])
OWNER = (Mailbox("owner@company.example", "Owner"),)


def test_nothing_to_look_at_is_nothing_to_write_about() -> None:
    """Unchanged rows alone make no mail; a refusal, a discontinued product or a warning does."""
    assert not NEWS.needs_a_look
    for file in (
        replace(QUIET, state="refused"),
        replace(QUIET, counts={"settled": 1}),
        replace(QUIET, counts={"warned": 1}),
        replace(QUIET, overruled=("prices_jumped",)),
    ):
        assert replace(NEWS, files=[QUIET, file]).needs_a_look


def test_the_letter_names_files_reasons_and_rows_and_escapes_them() -> None:
    """The subject says how bad it is; what senders typed cannot become markup; one run is one Message-ID."""
    refused = replace(QUIET, file_name="<b>.csv", state="refused", reasons=("prices_scaled: 12 of 12",))
    found = Finding(
        "Rows that could not be used", ["catalog.csv C4: customer_price is blank"], 1, "kontor quarantine list"
    )
    many = Finding("Stock below zero", ["A: -7", "B: -1"], 1_002, "kontor report stock")
    news = replace(NEWS, files=[QUIET, refused], findings=[found, many])
    letter = owner_letter(news, OWNER, "Kontor <kontor@company.example>", now=NOW)
    assert letter.subject == "Catalogue 2026-11-22: 1 of 2 files refused"
    assert "prices_scaled: 12 of 12" in letter.text
    assert "catalog.csv C4: customer_price is blank" in letter.text
    assert "see kontor quarantine list" in letter.text
    assert "Stock below zero (1,002)\n  A: -7\n  B: -1\n  and 1,000 more: kontor report stock" in letter.text
    assert "refused, nothing of it was applied" in letter.text
    assert letter.html is not None
    assert "&lt;b&gt;.csv" in letter.html
    assert "<b>" not in letter.html
    assert letter == owner_letter(news, OWNER, "Kontor <kontor@company.example>", now=NOW)
    calm = owner_letter(replace(NEWS, files=[replace(QUIET, counts={"settled": 4})]), OWNER, None, now=NOW)
    assert calm.subject == "Catalogue 2026-11-22: 4 products discontinued"
