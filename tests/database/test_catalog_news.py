"""What a run of the catalogue brought is told to its owner in words, the worst first, with where to read the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from configs.settings import Settings
from tasks.catalog.news_store import read_news
from tasks.catalog.owner_mail import owner_letter
from tasks.letters import Mailbox
from tests.catalogues import DAY, full, product
from tests.ledgers import Books

WEEK = timedelta(weeks=1)
OWNER = (Mailbox("owner@company.example"),)


def test_the_owner_reads_what_waits_is_gone_changed_or_does_not_fit(kontor_settings: Settings, tmp_path: Path) -> None:
    """Each with part number and name, figures before and after, and the command that shows all of it."""
    books = Books(kontor_settings)
    quiet = [product(f"P{n:02}", customer_price=10, dealer_price=8, stock=1, gtin="") for n in range(30)]
    full(books, tmp_path, quiet)
    rows = [row | {"customer_price": 10.5} for row in quiet[1:]]
    rows[0] |= {"customer_price": "dear"}
    rows[1] |= {"customer_price": 14}
    rows[2] |= {"dealer_price": 11}
    rows[3] |= {"stock": -2}
    rows[4] |= {"gtin": "4006381333932"}
    assert full(books, tmp_path, rows, DAY + WEEK).state == "applied"
    run_id = books.read("select max(run_id) as run_id from landing.feed_files")[0]["run_id"]
    with books.engine.connect() as connection:
        news = read_news(connection, run_id, DAY + WEEK)
    assert news.needs_a_look
    letter = owner_letter(news, OWNER, None, now=datetime(2026, 11, 22, tzinfo=UTC))
    assert letter.subject == "Catalogue 2026-11-09: 1 rows in quarantine, 1 products discontinued, 3 rows to look at"
    blocks = [block.splitlines() for block in letter.text.split("\n\n")]
    assert blocks[0][0] == "catalog_2026-11-09.csv (2026-11-09): taken in"
    assert [block[0] for block in blocks[1:]] == [
        "Rows that could not be used (1)",
        "Products discontinued (1)",
        "Greatest changes of prices (29)",
        "Prices not in the order promotional, dealer, customer (1)",
        "Stock below zero (1)",
        "GTIN with a wrong check digit (1)",
    ]
    assert "P00 Product P00, since 2026-11-09" in blocks[2][1]
    assert blocks[3][1] == "  P02 Product P02, customer price EUR: 10 -> 14 (+40 %)"
    assert blocks[3][-1] == "  and 19 more: kontor report price-changes"
    assert blocks[4][1] == "  P03 Product P03, EUR: dealer 11, customer 10.5"
    assert blocks[5][1] == "  P04 Product P04: -2"
    assert blocks[6][1] == "  P05 Product P05: 4006381333932"
