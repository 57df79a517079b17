"""Quarantined rows that a person has corrected: matched with what was handed out, compared, and read again.

Nothing here knows a database. A row is handed out under a token: its id and a short checksum of what it held then. A
row that was taken in, rejected or quarantined anew since has another state or another checksum, so a workbook that
comes back late, or twice, is recognised and nothing of it is applied a second time.

What a person did not touch is read as it was read the first time; only what changed is cast anew.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from tasks.errors import BadInput, UsageError
from tasks.feeds.casting import PROBLEM_SCHEMA, CastTable, cast_table, currency_of_totals
from tasks.feeds.cells import BOOLEAN, DATE, NUMBER, TEXT, shown
from tasks.feeds.contracts import Column, FeedContract, list_contracts, load_contract
from tasks.feeds.headings import alias_ranks, match_header
from tasks.feeds.raw_table import RawTable, Section
from tasks.feeds.values import Failure, parser_for

CHECKSUM_LENGTH = 12
REJECT = "reject"
# Reasons that follow from other rows, from customers or from the contract's checks are found anew each time.
_FOUND_ANEW = frozenset({"duplicate_key", "unknown_customer", "companion"})
_TOKEN = re.compile(r"^\s*([0-9]{1,18})-([0-9a-f]{12})\s*$")
_ADDRESS = re.compile(r"^(?:'(?P<sheet>.+)'(?:!| ))?(?:(?P<letters>[A-Z]{1,3})|row )(?P<row>[0-9]+)$")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_TEXT_FILES = (".csv", ".tsv", ".txt")

Reason = Mapping[str, Any]


@dataclass(frozen=True)
class HeldRow:
    """A row of ``landing.quarantined_rows`` with its file: ``cells`` by heading, ``staged`` by canonical column.

    ``content`` is what the checksum is made of; ``state`` is the row's, ``file_state`` its file's.
    """

    row_id: int
    feed_file_id: int
    row_number: int
    cells: Mapping[str, str]
    staged: Mapping[str, Any]
    reasons: tuple[Reason, ...]
    content: str
    state: str
    file_name: str
    file_state: str
    contract: str
    feed: str
    as_of: date
    columns: frozenset[str]

    @property
    def token(self) -> str:
        """What the row is handed out under: its id and the checksum of what it holds."""
        digest = hashlib.sha256(f"{self.row_id}\x1f{self.content}".encode()).hexdigest()
        return f"{self.row_id}-{digest[:CHECKSUM_LENGTH]}"


@dataclass(frozen=True)
class ReturnedRow:
    """A line of a workbook that came back; ``cells`` by canonical column, as marked text."""

    line: int
    token: str
    decision: str
    reason: str
    cells: Mapping[str, str]


@dataclass(frozen=True)
class CorrectedRow:
    """What a person wants of a row: new marked text by canonical column, or the reason why it is rejected for good."""

    row_id: int
    line: int
    changes: Mapping[str, str] = field(default_factory=dict)
    rejected_because: str | None = None


@dataclass(frozen=True)
class Matched:
    """A returned workbook against what is held now.

    ``wanted`` is to be done; ``problems`` say in words what cannot be; ``resolved`` counts lines whose row was
    taken in or rejected since; ``untouched`` those that nobody changed.
    """

    wanted: tuple[CorrectedRow, ...]
    problems: tuple[str, ...]
    resolved: int
    untouched: int


def row_id_of(token: str) -> int | None:
    """The row id that a token begins with; None for a text that is no token."""
    found = _TOKEN.match(token)
    return int(found[1]) if found else None


def contracts_named(names: Iterable[str], *, home: Path, given: Sequence[str] = ()) -> dict[str, FeedContract]:
    """The contracts of these names: those given by path or name, then the senders' own, then those that Kontor ships.

    Raises:
        BadInput: one is not here any more; every missing name at once.
    """
    own = home / "contracts"
    known = {contract.name: contract for contract in (list_contracts(own) if own.is_dir() else [])}
    known |= {contract.name: contract for contract in map(load_contract, given)}
    found, missing = {}, []
    for name in sorted(set(names)):
        try:
            found[name] = load_contract(known[name].path if name in known else name)
        except UsageError:
            missing.append(name)
    if missing:
        raise BadInput(
            f"The contract of these files is not here: {', '.join(missing)}. Nothing was changed.",
            hint=f"Put it into {own.name}/ of KONTOR_HOME, or name its file with --contract-file PATH.",
        )
    return found


# --- what may be changed ----------------------------------------------------------------------------------------------


def file_columns(row: HeldRow, contract: FeedContract) -> list[Column]:
    """The columns of a row that its file speaks about and its contract does not fix, in the contract's order."""
    return [column for column in contract.columns if column.constant is None and column.name in row.columns]


def shown_cells(row: HeldRow, contract: FeedContract) -> dict[str, str]:
    """What stands in the row by canonical column, as text; a column that the file does not have is blank."""
    headings = headings_of(row.cells, contract)
    return {
        column.name: str(row.cells.get(headings.get(column.name, ""), "")) for column in file_columns(row, contract)
    }


def headings_of(cells: Iterable[str], contract: FeedContract) -> dict[str, str]:
    """The heading under which each canonical column stands."""
    headings = sorted(cells)
    found = match_header(headings, contract, alias_ranks(contract))
    return {name: headings[position] for name, position in found.positions.items()}


def open_columns(row: HeldRow, contract: FeedContract) -> frozenset[str]:
    """The columns that may change to mend the row: those at fault, and those that a failed rule compares."""
    names = {column.name for column in file_columns(row, contract)}
    checks = {check.name: check.columns for check in contract.checks}
    found: set[str] = set()
    for reason in row.reasons:
        column = _column_name(reason)
        if column is None:  # a row whose cells cannot be told apart
            return frozenset(names)
        found |= {column, *checks.get(str(reason["code"]), ())}
        if reason["code"] == "duplicate_key":
            found |= set(contract.key)
    return frozenset(found & names)


def _column_name(reason: Reason) -> str | None:
    name = reason.get("column_name")
    return None if name in (None, "None", "<NA>", "nan") else str(name)


def reasons_by_column(row: HeldRow) -> dict[str | None, str]:
    """Why the row cannot be used, by canonical column; None holds what is wrong with the row as a whole."""
    found: dict[str | None, list[str]] = {}
    for reason in row.reasons:
        found.setdefault(_column_name(reason), []).append(str(reason["reason"]))
    return {name: "; ".join(dict.fromkeys(texts)) for name, texts in found.items()}


# --- matching ---------------------------------------------------------------------------------------------------------


def match_returned(
    returned: Sequence[ReturnedRow], held: Mapping[int, HeldRow], contracts: Mapping[str, FeedContract]
) -> Matched:
    """Compare what came back with what is held now, by row id; say in words what cannot be done."""
    tokens = [row.token.strip() for row in returned]
    wanted, problems = [], []
    resolved = untouched = 0
    for row in returned:
        found = _matched_row(row, held, contracts, twice=bool(row.token) and tokens.count(row.token.strip()) > 1)
        if isinstance(found, CorrectedRow):
            wanted.append(found)
        elif found == "":
            untouched += 1
        elif found is None:
            resolved += 1
        else:
            problems.append(f"line {row.line}: {found}")
    return Matched(tuple(wanted), tuple(problems), resolved, untouched)


def _matched_row(
    row: ReturnedRow, held: Mapping[int, HeldRow], contracts: Mapping[str, FeedContract], *, twice: bool
) -> CorrectedRow | str | None:
    """What is wanted of the row; words for what cannot be; "" when nothing changed; None when it is settled since."""
    row_id = row_id_of(row.token)
    if row_id is None:
        return "it has no row id of an export; a new row belongs into a file of its sender, not into this workbook"
    if twice:
        return f"row id {row_id} stands on several lines, so none of them was taken"
    now = held.get(row_id)
    if now is None:
        return f"row {row_id} is not in quarantine here; was it exported from another database?"
    if now.state in ("corrected", "replayed", "rejected"):
        return None
    if now.state == "superseded" or now.file_state == "superseded":
        return f"a later revision has taken the place of {now.file_name!r}, so row {row_id} counts no more"
    if now.token != row.token.strip():
        return f"row {row_id} was changed since this workbook was exported; export it again and correct that one"
    return _wanted(row, now, contracts[now.contract])


def _wanted(row: ReturnedRow, now: HeldRow, contract: FeedContract) -> CorrectedRow | str:
    decision = shown(row.decision).strip().casefold()
    if decision == REJECT:
        because = " ".join(shown(row.reason).split())
        return CorrectedRow(now.row_id, row.line, {}, because) if because else "a row is rejected with a reason only"
    if decision:
        return f"the decision {decision[:20]!r} is not known; write {REJECT} or leave it blank"
    before = shown_cells(now, contract)
    changes = {
        name: row.cells[name] for name in before if name in row.cells and _differs(row.cells[name], before[name])
    }
    locked = sorted(set(changes) - open_columns(now, contract))
    if locked:
        return f"{', '.join(locked)} changed although nothing was wrong there; was the sheet sorted in part?"
    return CorrectedRow(now.row_id, row.line, changes) if changes else ""


def _differs(returned: str, before: str) -> bool:
    return _as_a_sheet_keeps_it(shown(returned)) != _as_a_sheet_keeps_it(before)


def _as_a_sheet_keeps_it(text: str) -> str:
    """The text without what spreadsheet programs change by themselves: line ends, escapes, white space around."""
    plain = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    return plain.replace("\r\n", "\n").replace("\r", "\n").strip()


# --- reading again ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadAgain:
    """The rows of one file ready to be judged: raw and cast, and each row's cells by heading as they stand now."""

    raw: RawTable
    cast: CastTable
    cells: Mapping[int, Mapping[str, str]]


def read_again(rows: Sequence[HeldRow], changes: Mapping[int, Mapping[str, str]], contract: FeedContract) -> ReadAgain:
    """Type all these rows of one file anew; ``changes`` is new marked text by row id and canonical column.

    A cell that could not be read and was not changed keeps its reason.
    """
    headings = headings_of({name for row in rows for name in row.cells}, contract)
    columns = {column.name: column for column in file_columns(rows[0], contract)}
    present = [name for name in columns if name in headings or any(name in changed for changed in changes.values())]
    texts = {
        name: [_text(row, columns[name], headings.get(name), changes.get(row.row_id, {}), contract) for row in rows]
        for name in present
    }
    raw = _raw_table(rows, texts, headings, contract)
    kept = [reason for row in rows for reason in _kept_reasons(row, changes.get(row.row_id, {}), contract)]
    cast = cast_table(raw, contract)
    cells = {row.row_number: _cells_now(row, changes.get(row.row_id, {}), headings, contract) for row in rows}
    return ReadAgain(raw, _with_kept(cast, kept), cells)


def _text(row: HeldRow, column: Column, heading: str | None, changed: Mapping[str, str], contract: FeedContract) -> str:
    if column.name in changed:
        return changed[column.name]
    text = str(row.cells.get(heading or "", ""))
    if column.name not in row.staged:
        return _as_a_workbook_said(text, column, row, contract)
    value = row.staged[column.name]
    return text if value is None or not text.strip() else _as_it_was(text, value, column, contract)


def _as_it_was(text: str, value: object, column: Column, contract: FeedContract) -> str:
    """The marked text that reads as the value did: a number that a workbook stored is not read by the rules for text.

    An amount may have had its sign turned since, and what is open may follow from other columns; then the first way
    in which the text can be read at all counts.
    """
    parse = parser_for(column, contract.dialect)
    readings = {mark: parse(mark + text) for mark in ("", NUMBER, DATE, BOOLEAN, TEXT) if _can_be(mark, text)}
    for mark, reading in readings.items():
        if _same(reading, value):
            return mark + text
    return next((mark + text for mark, reading in readings.items() if not isinstance(reading, Failure)), text)


def _can_be(mark: str, text: str) -> bool:
    return mark != NUMBER or re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text.strip()) is not None


def _same(reading: object, value: object) -> bool:
    if isinstance(reading, Failure) or reading is None:
        return False
    if isinstance(reading, Decimal):
        return abs(reading) == abs(Decimal(str(value)))
    return reading.isoformat() == value if isinstance(reading, date) else reading == value


def _as_a_workbook_said(text: str, column: Column, row: HeldRow, contract: FeedContract) -> str:
    """A column that only serves sums is not kept typed: a plain number is one if a workbook held it."""
    held_numbers = not row.file_name.lower().endswith(_TEXT_FILES)
    if column.kind == "money" and held_numbers and _can_be(NUMBER, text):
        return NUMBER + text if not isinstance(parser_for(column, contract.dialect)(NUMBER + text), Failure) else text
    return text


def _raw_table(
    rows: Sequence[HeldRow], texts: Mapping[str, list[str]], headings: Mapping[str, str], contract: FeedContract
) -> RawTable:
    numbers = pa.array([row.row_number for row in rows], pa.int32())
    table = pa.table({**{name: pa.array(cells, pa.string()) for name, cells in texts.items()}, "row_number": numbers})
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return RawTable(
        file_name=rows[0].file_name,
        sheet=None,
        header_row=0,
        columns={name: headings.get(name, contract.column(name).heading) for name in texts},
        letters=_letters(rows),
        sections=_sections(rows),
        frame=frame,
        titles=(),
        totals=(),
        unknown_columns=(),
        blank_rows=0,
    )


def _letters(rows: Iterable[HeldRow]) -> dict[str, str]:
    """The letters of the columns, as far as a reason names them; other cells are named by their row."""
    found = {}
    for row in rows:
        for reason in row.reasons:
            address, name = _ADDRESS.match(str(reason.get("cell"))), _column_name(reason)
            if address and address["letters"] and name:
                found[name] = address["letters"]
    return found


def _sections(rows: Iterable[HeldRow]) -> tuple[Section, ...]:
    """The sheets that the rows stood on, where the file had several, as far as the addresses in reasons tell."""
    found: dict[int, Section] = {}
    for row in rows:
        for reason in row.reasons:
            address = _ADDRESS.match(str(reason.get("cell")))
            if address and address["sheet"]:
                base = row.row_number - int(address["row"])
                section = found.setdefault(base, Section(base, address["sheet"], {}))
                name, letters = _column_name(reason), dict(section.letters)
                if name and address["letters"]:
                    letters[name] = address["letters"]
                found[base] = Section(base, section.sheet, letters)
    return tuple(found[base] for base in sorted(found))


def _kept_reasons(row: HeldRow, changed: Mapping[str, str], contract: FeedContract) -> list[dict[str, object]]:
    anew = _FOUND_ANEW | {check.name for check in contract.checks}
    return [
        {**reason, "row_number": row.row_number, "column_name": _column_name(reason)}
        for reason in row.reasons
        if reason["code"] not in anew and (_column_name(reason) not in changed if _column_name(reason) else not changed)
    ]


def _with_kept(cast: CastTable, kept: Sequence[Mapping[str, object]]) -> CastTable:
    """The same with the reasons that still hold, in the place of what casting says of the same cells."""
    if not kept:
        return cast
    places = {(reason["row_number"], reason["column_name"]) for reason in kept}
    fresh = [
        problem
        for problem in pa.Table.from_pandas(cast.problems, schema=PROBLEM_SCHEMA, preserve_index=False).to_pylist()
        if (problem["row_number"], problem["column_name"]) not in places
    ]
    table = pa.Table.from_pylist([*fresh, *kept], schema=PROBLEM_SCHEMA)
    return replace(cast, problems=table.to_pandas(types_mapper=pd.ArrowDtype))


def _cells_now(
    row: HeldRow, changed: Mapping[str, str], headings: Mapping[str, str], contract: FeedContract
) -> dict[str, str]:
    new = {headings.get(name, contract.column(name).heading): shown(text) for name, text in changed.items()}
    return {**row.cells, **new}


# --- totals -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CurrencyTotal:
    """One currency of one file, in Decimal; ``stated`` is what the file's own totals row says, if it says it.

    ``unreadable`` counts rows in quarantine whose amount or currency cannot be read; they may explain a difference.
    """

    column: str
    currency: str
    accepted: Decimal
    quarantined: Decimal
    rejected: Decimal
    stated: Decimal | None
    unreadable: int

    @property
    def accounted(self) -> Decimal:
        """Accepted, quarantined and rejected together."""
        return self.accepted + self.quarantined + self.rejected

    @property
    def difference(self) -> Decimal | None:
        """What the file's totals row says beyond that; zero when every row is accounted for and readable."""
        return None if self.stated is None else self.stated - self.accounted


def stated_totals(
    totals: Sequence[Mapping[str, Any]], contract: FeedContract, column: str, currencies: Sequence[str]
) -> dict[str, Decimal]:
    """What the file's totals rows say of a money column, by currency; {} where they cannot be told apart.

    A totals row that names a currency speaks of it; the last row that names none speaks of the only currency there is.
    """
    by_currency: dict[str, Decimal] = {}
    nameless: Decimal | None = None
    for row in totals:
        amount = _parsed(row["cells"].get(column), contract, column)
        named = currency_of_totals(row["cells"], contract)
        if isinstance(amount, Decimal) and named is not None:
            by_currency[named] = amount
        elif isinstance(amount, Decimal):
            nameless = amount
    if not by_currency and nameless is not None and len(currencies) == 1:
        return {currencies[0]: nameless}
    return by_currency


def _parsed(text: str | None, contract: FeedContract, column: str) -> object:
    return None if text is None else parser_for(contract.column(column), contract.dialect)(text)
