"""What is held of the newest list, fetched while the next one is still being typed, so that only news is staged.

The rows come in columns and in blocks: a million rows one by one would cost the client more than the server. Where
anything about a file is out of the ordinary there is nothing to fetch, and all of its rows are staged and compared by
the server (:mod:`tasks.feeds.neighbours_store`); both ways find the same differences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, text

from tasks.feeds.casting import MONEY_TYPE, CastTable
from tasks.feeds.contracts import FeedContract
from tasks.feeds.neighbours_store import Other, create_differences, find_others, listed_by
from tasks.feeds.outcomes import StagedFile
from tasks.feeds.staging_store import copy_table
from tasks.feeds.unchanged import COMPARED, KEY, set_beside

_MARK = "\x1e"
_EPOCH = 10_957  # days from 1970, where Arrow counts from, to 2000, where the server does
_LATEST = 2**31 - 1
_HELD_AS = {"issue_date": "issued_on", "due_date": "due_on"}
_TEXTS = ("customer_number", "invoice_number", "document_type", "currency", "amount", "open_amount", "note")
# What has one size, item after item, as the server's own functions send it: in network order.
_SIZED = np.dtype([("invoice_id", ">i8"), ("issued_on", ">i4"), ("due_on", ">i4"), ("flags", ">i2")])
_FLAGS = {"disputed": 1, "watched": 2, "no_note": 4}

Fetched = Callable[[], pa.Table | None]


@contextmanager
def held_ahead(connection: Connection, staged: StagedFile, contract: FeedContract) -> Iterator[Fetched]:
    """Fetch what is held of the newest list beside the work of a ``with`` block; ask for it after the block.

    The answer is None where this file is not simply the next list. The connection is the fetch's until the block ends.
    """
    other = _one_before(connection, staged, contract)
    suspect = _suspect(contract)
    if other is None or suspect is None:
        yield lambda: None
        return
    with ThreadPoolExecutor(1) as beside:
        found = beside.submit(_fetch, connection, staged, other, suspect)
        yield found.result


def sift(
    connection: Connection, staged: StagedFile, cast: CastTable, held: pa.Table | None
) -> tuple[StagedFile, CastTable]:
    """Return the file and its rows without those that say what is held already, all differences being written down.

    Where nothing was fetched, or rows claim one key, everything is returned as it was.
    """
    if held is None:
        return staged, cast
    rows = pa.Table.from_pandas(cast.frame[[*KEY, *COMPARED, "row_number"]], preserve_index=False)
    found = set_beside(rows, held, pa.array(cast.problems["row_number"].unique(), pa.int32()))
    if found is None:
        return staged, cast
    create_differences(connection)
    sides = pa.array(["before"] * found.differences.num_rows, pa.string())
    copy_table(connection, "guard_difference", found.differences.append_column("side", sides))
    connection.exec_driver_sql("analyze guard_difference")
    news: pd.DataFrame = cast.frame[found.news]
    return replace(staged, compared=True, left_out=found.left_out), replace(cast, frame=news)


def _one_before(connection: Connection, staged: StagedFile, contract: FeedContract) -> Other | None:
    """The list before this one, if this one is simply the next."""
    usual = contract.mode == "snapshot" and set(contract.key) == set(contract.needed_key) == set(KEY)
    # Customers that a file creates are named by all of its rows.
    if staged.staging != "landing.staged_items" or not usual or staged.creates_customers:
        return None
    others = find_others(connection, staged, contract)
    return others[0] if [other.newest for other in others] == [True] else None


def _suspect(contract: FeedContract) -> str | None:
    """The condition that an item as it is held breaks a check; None where a check asks for what is not held."""
    words = {word for check in contract.checks for word in re.findall(r"\w+", check.sql)}
    told = {*KEY, *COMPARED} - {"disputed"}  # a dispute that a file is silent about is held as none
    if words & ({column.name for column in contract.columns} | {"row_number", "settled_date"}) - told:
        return None
    checks = [check.sql.replace(":", "\\:") for check in contract.checks if check.severity in ("error", "warn")]
    return " or ".join(f"coalesce(not ({sql}), false)" for sql in checks) or "false"


def _fetch(connection: Connection, staged: StagedFile, other: Other, suspect: str) -> pa.Table | None:
    blocks = connection.execute(
        text(_HELD.replace("{listed}", listed_by(connection, other)).replace("{suspect}", suspect)),
        {"source": staged.source, "day": other.as_of, "other": other.feed_file_id, "as_of": staged.as_of},
    ).mappings()
    return _in_columns(blocks.all())


# The bits of an item's number that say which block it comes in: 32 blocks, of 262,144 items each up to eight millions.
# As truth values, because the planner knows that a truth value has two: it expects few blocks, and lets several
# processes of the server put them together. Of a number shifted it would expect as many blocks as items.
_BLOCK_BITS = range(18, 23)

_HELD = f"""
with kin as (
    select organization_id from crm.organizations where merged_into is not null
    union select merged_into from crm.organizations where merged_into is not null
), held as (
    select invoice_id, customer_number, invoice_number, document_type, issued_on, due_on, currency, amount, open_amount,
           coalesce(disputed, false) as disputed, note, note is null as no_note, issued_on as issue_date,
           due_on as due_date, cast(:as_of as date) as as_of,
           coalesce(organization_id in (select organization_id from kin), false) as of_kin
    from ({{listed}}) listed
)
select string_agg(int8send(coalesce(invoice_id, 0)) || date_send(coalesce(issued_on, '-infinity'))
                  || date_send(coalesce(due_on, '-infinity'))
                  || int2send((disputed::integer * {_FLAGS["disputed"]} + no_note::integer * {_FLAGS["no_note"]}
                               + (of_kin or {{suspect}})::integer * {_FLAGS["watched"]})::smallint), '') as sized,
       {", ".join(f"string_agg(coalesce({name}::text, ''), chr({ord(_MARK)})) as {name}" for name in _TEXTS)}
from held group by {", ".join(f"(coalesce(invoice_id, 0) >> {bit}) & 1 = 1" for bit in _BLOCK_BITS)}
"""


def _in_columns(blocks: Sequence[Mapping[Any, Any]]) -> pa.Table | None:
    """The blocks put together, under the names of a file's columns; None where a text holds the mark between texts."""
    sized = np.frombuffer(b"".join(block["sized"] for block in blocks), _SIZED)
    texts = {name: _apart([block[name] for block in blocks]) for name in _TEXTS}
    if any(len(column) != len(sized) for column in texts.values()):
        return None
    flags = {name: pa.array(sized["flags"] & bit != 0) for name, bit in _FLAGS.items()}
    nothing = pa.scalar(None, pa.string())
    filled = {name: pc.if_else(pc.equal(column, ""), nothing, column) for name, column in texts.items()}
    return pa.table(
        {
            "invoice_id": pa.array(sized["invoice_id"].astype(np.int64)),
            **{name: filled[name] for name in (*KEY, "document_type", "currency")},
            **{name: _days(sized[_HELD_AS[name]]) for name in _HELD_AS},
            **{name: filled[name].cast(MONEY_TYPE) for name in ("amount", "open_amount")},
            **{name: flags[name] for name in ("disputed", "watched")},
            "note": pc.if_else(flags["no_note"], nothing, texts["note"]),
        }
    )


def _apart(blocks: Sequence[str]) -> pa.Array:
    """One column of texts, of texts that the server has strung together."""
    return pc.split_pattern(pa.array(blocks, pa.string()), _MARK).flatten()


def _days(days: npt.NDArray[Any]) -> pa.Array:
    """The server's days as Arrow's; its earliest stands for none, and what lies beyond Arrow's last is that day."""
    counted = np.minimum(days.astype(np.int64) + _EPOCH, _LATEST).astype(np.int32)
    return pa.array(counted, mask=days == np.iinfo(np.int32).min).cast(pa.date32())
