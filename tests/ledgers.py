"""Helpers of tests that take files in: write a small file, take it in, read the database back. They never assert."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Engine, text

from configs.settings import Settings
from tasks import database, ledger
from tasks.catalog.steps import CATALOG_FEEDS
from tasks.customers.steps import CUSTOMER_FEEDS
from tasks.feeds.contracts import FeedContract, load_contract
from tasks.feeds.intake import Given, InboxFile, take_in_file
from tasks.feeds.outcomes import FileOutcome
from tasks.feeds.replay_store import find_awaiting, forget_missing_customers, replay_awaiting
from tasks.payments.classes import classify
from tasks.payments.steps import PAYMENT_FEEDS, PAYMENT_REPLAYS
from tasks.payments.store import claim_classification

TODAY = date(2026, 11, 20)
OPEN_ITEM_HEADINGS = (
    "customer_number",
    "invoice_number",
    "document_type",
    "issue_date",
    "due_date",
    "currency",
    "amount",
    "open_amount",
    "disputed",
    "note",
)


@dataclass
class Books:
    """A database to take files into; what flows do around it is left out."""

    settings: Settings
    contracts: ClassVar[dict[str, FeedContract]] = {}  # loaded once: validating a contract takes a moment

    @property
    def engine(self) -> Engine:
        """The engine that flows use."""
        return database.engine_for(self.settings)

    def take_in(self, path: Path, contract: str | Path, as_of: date | None = None, **given: Any) -> FileOutcome:
        """Take a file in as the flows do and return its outcome."""
        if str(contract) not in self.contracts:
            self.contracts[str(contract)] = load_contract(contract)
        feed = self.contracts[str(contract)]
        apply = {**CUSTOMER_FEEDS, **PAYMENT_FEEDS, **CATALOG_FEEDS}[feed.feed]
        with ledger.open_run(self.engine, "test", as_of=TODAY, dry_run=False, prefect_run_id=None, actor="test") as run:
            return take_in_file(
                self.engine,
                InboxFile(path, feed),
                given=Given(TODAY, as_of, **given),
                run_id=run.run_id,
                apply=apply,
            )

    def replay(self) -> int:
        """Replay the rows whose customer has arrived; returns how many."""
        replayed = 0
        with ledger.open_run(self.engine, "test", as_of=TODAY, dry_run=False, prefect_run_id=None, actor="test") as run:
            with self.engine.begin() as connection:
                forget_missing_customers(connection, ["contacts", *PAYMENT_REPLAYS])
                awaiting = find_awaiting(connection, ["contacts", *PAYMENT_REPLAYS])
            for file in awaiting:
                apply = {**CUSTOMER_FEEDS, **PAYMENT_REPLAYS}[file.feed]
                with self.engine.begin() as connection:
                    replayed += replay_awaiting(connection, file, run_id=run.run_id, apply=apply).rows
        return replayed

    def classify(self) -> None:
        """Decide the classes that are due."""
        with self.engine.begin() as connection:
            since = claim_classification(connection)
            if since is not None:
                classify(connection, since)

    def customers(self, folder: Path, numbers: Iterable[str], as_of: date = date(2020, 1, 1)) -> FileOutcome:
        """Make customers of these numbers known."""
        path = folder / f"customers-{as_of}-{abs(hash(tuple(numbers)))}.csv"
        write_csv(path, [{"customer_number": number, "name": f"Customer {number}"} for number in numbers])
        return self.take_in(path, "organizations", as_of)

    def read(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a query as the owner."""
        with database.engine_for(self.settings, database.OWNER).connect() as connection:
            return [dict(row) for row in connection.execute(text(statement), parameters).mappings()]

    def open_on(self, day: date) -> list[dict[str, Any]]:
        """What finance reads as open on that day, ordered."""
        return self.read(
            "select * from report.open_invoices(:day) order by customer_number, source, invoice_number", day=day
        )

    def state(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that must not depend on the order of arrival: no surrogate ids, no instants."""
        return {name: self.read(statement) for name, statement in _STATE.items()}


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], headings: Sequence[str] = ()) -> Path:
    """Write rows as UTF-8 CSV; the headings default to the first row's keys."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(headings) or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def item(customer: str, number: str, amount: object, due: date, **more: object) -> dict[str, object]:
    """A row of an open-items file."""
    row: dict[str, object] = dict.fromkeys(OPEN_ITEM_HEADINGS, "")
    return row | {
        "customer_number": customer,
        "invoice_number": number,
        "due_date": due,
        "issue_date": due - timedelta(days=30),
        "currency": "EUR",
        "amount": amount,
        "open_amount": amount,
        **more,
    }


_STATE = {
    "organizations": (
        "select customer_number, name, country, language, vat_number, currency, payment_terms_days, segment, owner,"
        " origin, seen_as_of, seen_revision from crm.organizations order by customer_number"
    ),
    "contacts": (
        "select o.customer_number, c.contact_key, c.first_name, c.last_name, c.email, c.phone, c.language,"
        " c.seen_as_of, r.role, r.valid from crm.contacts c join crm.organizations o using (organization_id)"
        " left join crm.contact_roles r using (contact_id) order by 1, 2, r.role, r.valid"
    ),
    "invoices": (
        "select o.customer_number, i.source, i.invoice_number, i.document_type, i.issued_on, i.due_on, i.currency,"
        " i.amount, i.open_amount, i.disputed, i.note, i.listed_from, i.listed_until, f.sha256"
        " from crm.invoices i join crm.organizations o using (organization_id)"
        " join landing.feed_files f on f.feed_file_id = i.feed_file_id"
        " where i.listed_from is not null"
        " or exists (select from crm.ledger_entries e where e.invoice_id = i.invoice_id)"
        " order by 1, 2, 3"
    ),
    "states": (
        "select o.customer_number, i.source, i.invoice_number, s.document_type, s.issued_on, s.due_on, s.currency,"
        " s.amount, s.open_amount, s.disputed, s.note, s.listed_from, s.listed_until, f.sha256"
        " from crm.invoice_states s join crm.invoices i using (invoice_id)"
        " join crm.organizations o using (organization_id)"
        " join landing.feed_files f on f.feed_file_id = s.feed_file_id order by 1, 2, 3, s.listed_from"
    ),
    "ledger": (
        "select o.customer_number, i.source, i.invoice_number, e.as_of, e.amount, e.open_amount, e.due_on,"
        " e.settled_on, e.disputed, f.sha256 from crm.ledger_entries e join crm.invoices i using (invoice_id)"
        " join landing.feed_files f on f.feed_file_id = e.feed_file_id"
        " join crm.organizations o using (organization_id) order by 1, 2, 3"
    ),
    "earlier_ledgers": (
        "select o.customer_number, i.source, i.invoice_number, e.as_of, e.amount, e.settled_on, f.sha256"
        " from crm.earlier_ledger_entries e join crm.invoices i using (invoice_id)"
        " join landing.feed_files f on f.feed_file_id = e.feed_file_id"
        " join crm.organizations o using (organization_id) order by 1, 2, 3, 4"
    ),
    "quarantine": (
        "select f.sha256, q.row_number, q.cells, q.reasons, q.state from landing.quarantined_rows q"
        " join landing.feed_files f using (feed_file_id) where q.state = 'open' order by 1, 2"
    ),
    "classes": (
        "select o.customer_number, h.valid_from, h.valid_until, h.payer_class, h.rule_id, h.rule_version, h.figures,"
        " h.reason from ops.payer_class_history h join crm.organizations o using (organization_id) order by 1, 2"
    ),
    "files": (
        "select contract, sha256, as_of, revision, state, rows_read from landing.feed_files"
        " where state <> 'refused' order by 1, 2, 3"
    ),
}
