"""What a feed's file is on its way through, and what became of it: plain values that steps hand on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from tasks.feeds.price_guards import CatalogMeasures


@dataclass(frozen=True)
class Fingerprint:
    """What a file is by its content, whatever it is called."""

    file_name: str
    sha256: str
    byte_size: int


@dataclass(frozen=True)
class StagedFile:
    """A file that is registered and whose good rows stand in ``staging``, ready to be applied.

    Rows to leave out stand in the temporary table ``row_fate``. ``columns`` are the ones the file speaks about: what
    it has no column for is left as it is. ``replaces``: an earlier revision of this snapshot was in force until now.
    ``withdrawn``: customer number and item key of rows that no longer stand in quarantine: they are as if never listed.
    ``compared``: all that differs between the file and what is held now stands in the temporary table
    ``guard_difference``, so that nothing else of a million rows need be looked at again. ``left_out``: how many good
    rows were not even staged, because they say what is held already.
    """

    feed_file_id: int
    feed: str
    source: str
    staging: str
    as_of: date
    revision: int
    columns: frozenset[str]
    creates_customers: bool = False
    replaces: bool = False
    withdrawn: tuple[tuple[str, str], ...] = ()
    compared: bool = False
    left_out: int = 0


@dataclass(frozen=True)
class Applied:
    """What applying the good rows did; the first four add up to the good rows."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    settled: int = 0
    reopened: int = 0

    @property
    def rows(self) -> int:
        """How many rows were applied."""
        return self.inserted + self.updated + self.unchanged + self.superseded


@dataclass(frozen=True)
class Preview:
    """What a dry run saw before it took everything back: the first rows of each kind, by column.

    ``guards``: guard, state, measured, allowed. ``problems``: cell, column, value, reason. ``settled``: customer,
    invoice, currency, open_amount.
    """

    guards: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[Mapping[str, Any], ...] = ()
    settled: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class FileOutcome:
    """What became of a file: ``state`` is applied, superseded, known (taken in before) or refused.

    The counts add up to ``rows_read``. ``reasons`` and ``hint`` are a refused file's, ``mentions`` the names of
    other files in them; ``overruled`` names the guards that would have refused, had nobody accepted them;
    ``remarks`` what stood beside the cells.
    """

    file_name: str
    contract: str
    as_of: date | None
    state: str
    rows_read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    quarantined: int = 0
    superseded: int = 0
    settled: int = 0
    reopened: int = 0
    warned: int = 0
    reasons: tuple[str, ...] = ()
    hint: str = ""
    dry_run: bool = False
    overruled: tuple[str, ...] = ()
    sha256: str = ""
    mentions: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    preview: Preview | None = None

    @property
    def short_sha256(self) -> str:
        """Enough of the content's SHA-256 to find the file by; what stands for its name where that is not shown."""
        return self.sha256[:12]

    def counts(self) -> dict[str, int]:
        """The counts by name."""
        return {name: getattr(self, name) for name in self.count_names()}

    @classmethod
    def count_names(cls) -> list[str]:
        """The names of the counts, in order."""
        return [f.name for f in fields(cls) if f.type == "int"]


# Who is told of the files' outcomes, names and reasons included, beside Prefect and the ledger: the command line.
outcome_listener: ContextVar[Callable[[Sequence[FileOutcome]], None] | None] = ContextVar(
    "outcome_listener", default=None
)

Apply = Callable[[Connection, StagedFile], Applied]


@dataclass(frozen=True)
class Braked:
    """How a feed is applied whose domain measures its files itself, for guards that ask how prices moved.

    ``measure`` gets the staged file and how great a change of a price is called a jump; it changes nothing.
    """

    apply: Apply
    measure: Callable[[Connection, StagedFile, Decimal], CatalogMeasures]

    def __call__(self, connection: Connection, staged: StagedFile) -> Applied:
        """Apply the file."""
        return self.apply(connection, staged)
