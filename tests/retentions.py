"""Helpers of tests about retention: plan and apply as the flow does, without Prefect's engine. They never assert."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from prefect import Task
from sqlalchemy import Connection, text

from configs.settings import Settings
from flows.retention_purge import retention_purge
from tasks import database
from tasks.erasures.ledger_file import ErasureLedger, ledger_of
from tasks.retention.parameters import PurgeParameters
from tests.ledgers import Books


def without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have steps called as the functions that they are."""

    def call(step: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
        return step.fn(*args, **kwargs)

    monkeypatch.setattr(Task, "__call__", call)


@dataclass
class Office:
    """An installation whose data grows old."""

    settings: Settings

    @property
    def ledger(self) -> ErasureLedger:
        """Its erasure ledger."""
        return ledger_of(self.settings.home)

    @property
    def books(self) -> Books:
        """What takes files in."""
        return Books(self.settings)

    def begin(self) -> None:
        """Forget the ledger and the key of earlier tests."""
        for folder in ("erasures", "keys"):
            shutil.rmtree(self.settings.home / folder, ignore_errors=True)

    def purge(self, **parameters: Any) -> dict[str, int]:
        """Run the flow."""
        return dict(retention_purge.fn(PurgeParameters(**parameters)))

    def plan_and_apply(self, as_of: date, by: str = "second") -> dict[str, int]:
        """Plan, have somebody else agree, and carry it out."""
        planned = self.purge(as_of=as_of)
        return self.purge(plan_id=planned["plan"], dry_run=False, approved_by=by)

    @contextmanager
    def erasing(self) -> Iterator[Connection]:
        """A transaction of the role that erases."""
        with database.engine_for(self.settings, database.RETENTION).begin() as connection:
            yield connection

    def read(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a query as the owner."""
        return self.books.read(statement, **parameters)

    def count(self, table: str) -> int:
        """How many rows a table has."""
        return int(self.read(f"select count(*) as n from {table}")[0]["n"])

    def weekly_year(self, real_data: Path, first: int = 2, last: int = 2) -> None:
        """Take in the customers, contacts and some weeks of 2012; the first two weeks list nothing or next to it."""
        folder = real_data / "receivables"
        self.books.take_in(folder / "customers.xlsx", "organizations", date(2012, 1, 1))
        self.books.take_in(folder / "contacts.xlsx", "contacts", date(2012, 1, 1))
        for path in sorted((folder / "weekly-2012").glob("*.xlsx"))[first : last + 1]:
            self.books.take_in(path, "open_items")

    def age(self, table: str, column: str, day: date) -> None:
        """Have every row of a table be from that day."""
        with database.engine_for(self.settings, database.OWNER).begin() as connection:
            connection.execute(text(f"update {table} set {column} = :day"), {"day": day})
