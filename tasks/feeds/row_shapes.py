"""Rows that are not records: headings that stand above a group of rows, and rows that lack what makes a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from tasks.feeds.cells import BLANKS, shown
from tasks.feeds.contracts import ABOVE, FeedContract
from tasks.feeds.grids import Body


@dataclass(frozen=True)
class Shaped:
    """A body without the rows that are no records; ``group`` is the position of the groups' names, if they have one."""

    body: Body
    group: int | None
    remarks: tuple[str, ...]


def is_shaped(contract: FeedContract) -> bool:
    """Whether the contract's rows have a shape to be undone before they are records."""
    return (
        contract.group_headings is not None
        or bool(contract.rows_need)
        or any(column.fill_down == ABOVE for column in contract.columns)
    )


def shape_rows(body: Body, positions: Mapping[str, int], contract: FeedContract, spare: Sequence[int]) -> Shaped:
    """Return the body with each group's heading beside its rows instead of above them, and without incomplete rows.

    Blanks that go on with what stands above are filled first, so that a parent row may be incomplete itself.
    A heading is a row of one filled cell and holds until the next one; ``spare`` rows, such as totals, are left for
    others to judge. Rows in which all columns of ``rowsNeed`` are blank are dropped; both are counted in remarks.
    """
    filled = [_is_filled(column) for column in body.columns]
    drop = pa.repeat(pa.scalar(False), len(body.row_numbers))
    remarks = []
    group = None
    if contract.group_headings is not None and contract.group_headings not in positions and filled:
        headings = _headings(filled, spare)
        group = len(body.columns)
        body = replace(body, columns=[*body.columns, _beside(body, headings)])
        drop = pc.or_(drop, headings)
        remarks.append(
            f"{pc.sum(headings).as_py() or 0} rows are headings of groups; they name {contract.group_headings}"
        )
    body = _from_above(body, positions, contract, filled, drop, spare)
    needed = [positions[name] for name in contract.rows_need if name in positions]
    if needed and filled:
        blank = pc.invert(_any([filled[at] for at in needed]))
        incomplete = pc.and_(pc.and_(blank, _any(filled)), pc.invert(drop))
        drop = pc.or_(drop, incomplete)
        count = pc.sum(incomplete).as_py() or 0
        if count:
            remarks.append(f"{count} rows have nothing in {', '.join(contract.rows_need)}; they are no records")
    return Shaped(_without(body, drop), group, tuple(remarks))


def _is_filled(column: pa.Array) -> pa.Array:
    return pc.not_equal(pc.utf8_trim(column, BLANKS), "")


def _from_above(
    body: Body,
    positions: Mapping[str, int],
    contract: FeedContract,
    filled: Sequence[pa.Array],
    drop: pa.Array,
    spare: Sequence[int],
) -> Body:
    """The body with blanks of the contract's columns filled from the nearest row above; blank rows stay blank."""
    wanted = [positions[c.name] for c in contract.columns if c.fill_down == ABOVE and c.name in positions]
    if not wanted or not len(drop):
        return body
    left = pc.is_in(pa.array(range(len(drop)), pa.int64()), value_set=pa.array(list(spare), pa.int64()))
    records = pc.and_(_any(filled), pc.invert(pc.or_(drop, left)))
    columns = list(body.columns)
    for at in wanted:
        known = pc.if_else(pc.and_(filled[at], records), columns[at], pa.scalar(None, pa.string()))
        columns[at] = pc.if_else(records, pc.fill_null(pc.fill_null_forward(known), ""), columns[at])
    return replace(body, columns=columns)


def _any(flags: Sequence[pa.Array]) -> pa.Array:
    found = flags[0]
    for flag in flags[1:]:
        found = pc.or_(found, flag)
    return found


def _headings(filled: Sequence[pa.Array], spare: Sequence[int]) -> pa.Array:
    count = filled[0].cast(pa.int32())
    for flag in filled[1:]:
        count = pc.add(count, flag.cast(pa.int32()))
    alone = pc.equal(count, 1)
    if not spare:
        return alone
    left = pc.is_in(pa.array(range(len(alone)), pa.int64()), value_set=pa.array(list(spare), pa.int64()))
    return pc.and_(alone, pc.invert(left))


def _beside(body: Body, headings: pa.Array) -> pa.Array:
    """The text of the nearest heading above each row; blank above the first one."""
    texts: list[str] = []
    current = ""
    places = pc.indices_nonzero(headings).to_pylist()
    begin = 0
    for place in places:
        texts.extend([current] * (place - begin))
        current = next(cell for column in body.columns if (cell := shown(column[place].as_py()).strip(BLANKS)))
        begin = place
    texts.extend([current] * (len(body.row_numbers) - begin))
    return pa.array(texts, pa.string())


def _without(body: Body, drop: pa.Array) -> Body:
    if not pc.any(drop).as_py():
        return body
    keep = pc.invert(drop)
    return replace(
        body, columns=[column.filter(keep) for column in body.columns], row_numbers=body.row_numbers.filter(keep)
    )
