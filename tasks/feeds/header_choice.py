"""The sheet or dialect of a file and the row in it that is the contract's header; a refusal in words where none is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from tasks.errors import FileRefused
from tasks.feeds.cells import BLANKS, letter, shown, storable
from tasks.feeds.contracts import FeedContract
from tasks.feeds.folding import fold
from tasks.feeds.grids import Grid
from tasks.feeds.headings import HeaderMatch, alias_ranks, match_header
from tasks.feeds.sifting import sift

_LETTERS_SHOWN = 20


@dataclass(frozen=True)
class Choice:
    """A grid, its header's last row (1-based; 0 = none found), what its headings match, and its first rows.

    ``headings`` are those of the header, which may begin at ``first_row`` above its last one.
    """

    grid: Grid
    header_row: int
    match: HeaderMatch
    head: Sequence[Sequence[str]]
    headings: Sequence[str] = ()
    first_row: int = 0


def best_row(grid: Grid, contract: FeedContract, ranks: Mapping[str, tuple[str, int]]) -> Choice:
    """Return the grid's row whose headings match the contract best; of equals the first."""
    head = grid.head(contract.dialect.header_depth)
    best = Choice(grid, 0, HeaderMatch({}, (), contract.column_names), head)
    for number in range(1, len(head) + 1):
        for first in range(number, max(0, number - contract.dialect.header_rows), -1):
            cells = head[first - 1] if first == number else _joined_headings(head[first - 1 : number], ranks)
            match = match_header(cells, contract, ranks)
            if match.score > best.match.score:
                best = Choice(grid, number, match, head, cells, first)
    return best


def _joined_headings(rows: Sequence[Sequence[str]], ranks: Mapping[str, tuple[str, int]]) -> list[str]:
    """Return one heading per column from several rows, the upper of which may be merged over several columns.

    A merged cell holds its text on the left, so that blanks in an upper row go on with what stands before them. Of
    ``Price`` above ``Dealer`` the contract may know ``Price Dealer``, ``Dealer Price`` or ``Dealer``, in this order.
    """
    width = max(len(row) for row in rows)
    above = [""] * width
    headings = []
    for at in range(width):
        own = [shown(row[at]).strip(BLANKS) if at < len(row) else "" for row in rows]
        if any(own[:-1]):
            above[at] = " ".join(text for text in own[:-1] if text)
        elif at:
            above[at] = above[at - 1]
        parts = [text for text in (above[at], own[-1]) if text] if own[-1] else [" ".join(text for text in own if text)]
        tried = (" ".join(parts), " ".join(reversed(parts)), parts[-1])
        headings.append(next((text for text in tried if fold(text) in ranks), tried[0]))
    return headings


def choose(path: Path, grids: Sequence[Grid], contract: FeedContract) -> Choice:
    """Return the sheet or dialect, and the row in it, that matches the contract best; of equals the first.

    Raises:
        FileRefused: no row has the required headings, headings contradict each other, or two sheets hold rows and
            the contract names none: what stands in the other one would count as settled.
    """
    ranks = alias_ranks(contract)
    choices = [best_row(grid, contract, ranks) for grid in grids]
    best = max(choices, key=lambda choice: choice.match.score)
    if best.match.missing or not best.match.positions:
        raise FileRefused(path.name, header_reasons(best, contract), hint=_header_hint(contract))
    best = _only_sheet_with_rows(path, choices, contract) or best
    if best.match.conflicts:
        raise FileRefused(path.name, best.match.conflicts, hint="Rename one of the headings and send the file again.")
    return best


def _only_sheet_with_rows(path: Path, choices: Sequence[Choice], contract: FeedContract) -> Choice | None:
    """Return the sheet that alone has a complete header and a row of data; None where there is no choice to make."""
    # One word that is also a heading, as on a sheet of explanations, makes no rival of a header of several.
    least = min(2, max(len(choice.match.positions) for choice in choices))
    headed = [choice for choice in choices if choice.match.score[0] and len(choice.match.positions) >= least]
    complete = [choice for choice in headed if choice.grid.sheet is not None]
    if len(complete) < 2 or contract.dialect.sheet is not None or contract.dialect.sheet_pattern is not None:
        return None
    filled = [choice for choice in complete if _has_rows(choice, contract)]
    if len(filled) > 1:
        names = ", ".join(repr(choice.grid.sheet) for choice in filled)
        raise FileRefused(
            path.name,
            [f"{len(filled)} visible sheets hold rows of {contract.name}, 1 is allowed: {names}"],
            hint=f"Name the sheet with `sheet` or `sheetPattern` in a contract that extends {contract.name}, "
            "or send a file with that sheet alone.",
        )
    return filled[0] if filled else None


def _has_rows(choice: Choice, contract: FeedContract) -> bool:
    body = choice.grid.body(choice.header_row, len(choice.headings))
    headings = [""] * len(body.columns)
    keep, _, _ = sift(body, choice.match.positions, headings, contract)
    return bool(len(body.row_numbers)) if keep is None else bool(pc.any(keep).as_py())


def _header_hint(contract: FeedContract) -> str:
    return (
        f"If the sender uses other headings, add them as aliases in a contract that extends {contract.name}; "
        f"`kontor contracts template {contract.name}` writes a file with the expected headings."
    )


def header_reasons(best: Choice, contract: FeedContract) -> list[str]:
    """Return in words why the best row is no header of the contract: what is missing, and what was seen."""
    depth = contract.dialect.header_depth
    if not any(shown(cell).strip(BLANKS) for row in best.head for cell in row):
        return ["it holds no text at all in its first rows; an empty file is never taken for an empty list"]
    if not best.match.positions:
        return [f"no row among the first {min(depth, len(best.head))} holds a heading that {contract.name} knows"]
    reasons = []
    for name in best.match.missing:
        column = contract.column(name)
        known = ", ".join(dict.fromkeys((column.heading, *column.aliases[:4])))
        reasons.append(f"required column {name} not found (known as {known}, …)")
    sheet = f" of sheet {best.grid.sheet!r}" if best.grid.sheet else ""
    return [*reasons, f"headings seen in row {best.header_row}{sheet}: {_headings_seen(best, contract)}"]


def _headings_seen(best: Choice, contract: FeedContract) -> str:
    """Return the headings that the contract knows, and of the others only where they stand.

    In a file without a header the row is one of data, and what people are called must not come into a message.
    """
    ranks = alias_ranks(contract)
    cells = {at: clean_heading(cell) for at, cell in enumerate(best.headings, start=1) if clean_heading(cell)}
    known = [repr(text) for text in cells.values() if fold(text) in ranks]
    others = [letter(at) for at, text in cells.items() if fold(text) not in ranks]
    more = [f"{len(others)} unknown in column {', '.join(others[:_LETTERS_SHOWN])}"] if others else []
    return ", ".join(known + more) + (", …" if len(others) > _LETTERS_SHOWN else "")


def clean_heading(cell: str) -> str:
    """Return a heading as a person reads it: one line, single blanks, no byte order mark."""
    return " ".join(storable(shown(cell)).replace("\\ufeff", "").replace("\ufeff", "").split())
