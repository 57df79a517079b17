"""Measures a staged file against what the database holds of its neighbours, judges it, and keeps the verdicts.

Runs between the judgement of the rows and their application, in the same transaction: a refusal leaves nothing.
All staged rows are measured, also those in quarantine: a whole file may stand there for the very defect that a guard
names. One pass adds the file up; one pass per neighbour joins it with that snapshot's items and keeps what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

import pandas as pd
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from data_contracts.tables import metadata
from tasks.feeds.contracts import FeedContract
from tasks.feeds.file_sums_store import added_up
from tasks.feeds.guards import Measures, Threshold, Verdict, in_force, judge, refusal
from tasks.feeds.neighbours_store import (
    compare_all,
    find_others,
    measured_neighbour,
    strange_invoices,
    with_reappearing,
)
from tasks.feeds.outcomes import Fingerprint, StagedFile
from tasks.feeds.price_guards import CatalogMeasures
from tasks.feeds.raw_table import RawTable

_ITEMS = "landing.staged_items"
_NO_JUMP = Decimal("Infinity")  # without a rule that says how much is a jump nothing is
MeasurePrices = Callable[[Connection, StagedFile, Decimal], CatalogMeasures]


@dataclass(frozen=True)
class Overruling:
    """The guards that a person overrules for this file, and why."""

    guards: tuple[str, ...] = ()
    reason: str = ""


NOTHING_OVERRULED = Overruling()


def guard_file(
    connection: Connection,
    staged: StagedFile,
    contract: FeedContract,
    raw: RawTable,
    frame: pd.DataFrame,
    fingerprint: Fingerprint,
    overruling: Overruling,
    measure_prices: MeasurePrices | None = None,
) -> tuple[list[Verdict], bool]:
    """Judge the file, of which ``frame`` has all rows, and keep what its guards measured in ``landing.feed_files``.

    Returns the verdicts, and whether ``guard_difference`` holds all that differs from what is held now.

    Raises:
        FileRefused: naming every guard that refuses, what was measured, what is allowed, and the command to accept it.
    """
    thresholds = _thresholds(connection, staged)
    measures, compared = _measure(connection, staged, contract, raw, frame, fingerprint)
    if measure_prices is not None:
        jump = thresholds["price_jump_size"].threshold if "price_jump_size" in thresholds else _NO_JUMP
        measures = replace(measures, catalog=measure_prices(connection, staged, jump))
    verdicts = judge(measures, thresholds, overruling.guards)
    refused = refusal(
        verdicts,
        file_name=fingerprint.file_name,
        contract=contract.name,
        as_of=staged.as_of,
        revision=staged.revision,
        others=_compared_with(measures),
    )
    if refused is not None:
        raise refused
    _keep(connection, staged, measures, verdicts, overruling)
    return verdicts, compared


def _compared_with(measures: Measures) -> list[str]:
    names = [neighbour.file_name for neighbour in measures.neighbours]
    return [*names, measures.copy_of[0]] if measures.copy_of else names


def _thresholds(connection: Connection, staged: StagedFile) -> dict[str, Threshold]:
    rows = connection.execute(
        text(
            "select guard, feed, source, rule_id, version, threshold, minimum_evidence, window_days"
            " from rules.quality_threshold where valid @> cast(:as_of as date)"
            " and feed in ('*', :feed) and source in ('*', :source) order by quality_threshold_id"
        ),
        {"as_of": staged.as_of, "feed": staged.feed, "source": staged.source},
    ).mappings()
    return in_force([dict(row) for row in rows])


def _measure(
    connection: Connection,
    staged: StagedFile,
    contract: FeedContract,
    raw: RawTable,
    frame: pd.DataFrame,
    fingerprint: Fingerprint,
) -> tuple[Measures, bool]:
    measures = Measures(as_of=staged.as_of, rows=len(frame), complete=contract.mode == "snapshot")
    if "customer_number" not in metadata.tables[staged.staging].columns:
        return measures, False
    strange = _strange_customers(connection, staged)
    if staged.staging != _ITEMS:
        return _with_zeros(measures, strange, raw), False
    measures = added_up(connection, measures, contract, raw, frame)
    measures = replace(measures, copy_of=_copy_of(connection, staged, contract, fingerprint))
    others = find_others(connection, staged, contract)
    if not staged.compared:
        compare_all(connection, staged, others, complete=measures.complete)
    neighbours = [measured_neighbour(connection, other, measures, raw) for other in others]
    measures = replace(measures, neighbours=tuple(neighbours))
    measures = _with_zeros(measures, [*strange, *strange_invoices(connection)], raw)
    compared = measures.complete and [other.newest for other in others] == [True]
    return with_reappearing(connection, staged, measures, others), compared


def _strange_customers(connection: Connection, staged: StagedFile) -> list[Any]:
    """Rows whose customer nobody knows, but for zeros in front; one who became known since is known."""
    if not connection.scalar(text("select exists (select from unknown_customer)")):
        return []
    return list(
        connection.execute(
            text(
                "with strange as ("
                "  select u.customer_number as number from unknown_customer u where ltrim(u.customer_number, '0') <> ''"
                "  and not exists (select from crm.organizations o where o.customer_number = u.customer_number)"
                "), matched as ("
                "  select strange.number, min(o.customer_number) as known from strange join crm.organizations o"
                "  on ltrim(o.customer_number, '0') = ltrim(strange.number, '0') group by strange.number"
                ") select s.row_number, 'customer_number' as column_name, m.number, m.known"
                f" from matched m join {staged.staging} s on s.customer_number = m.number order by s.row_number"
            )
        )
    )


def _with_zeros(measures: Measures, strange: Sequence[Any], raw: RawTable) -> Measures:
    if not strange:
        return measures
    first = strange[0]
    cell = raw.cell(first.column_name, first.row_number)
    example = f", such as {first.number} in {cell} where {first.known} is known"
    return replace(measures, zeros=len({row.row_number for row in strange}), zero_example=example)


def _copy_of(
    connection: Connection, staged: StagedFile, contract: FeedContract, fingerprint: Fingerprint
) -> tuple[str, date] | None:
    if contract.mode != "snapshot":
        return None
    row = connection.execute(
        text(
            "select file_name, as_of from landing.feed_files where feed = :feed and source = :source"
            " and sha256 = :sha256 and as_of <> :as_of and mode = 'snapshot' and state <> 'refused'"
            " order by as_of limit 1"
        ),
        {"feed": staged.feed, "source": staged.source, "sha256": fingerprint.sha256, "as_of": staged.as_of},
    ).one_or_none()
    return None if row is None else (row.file_name, row.as_of)


def _keep(
    connection: Connection, staged: StagedFile, measures: Measures, verdicts: Sequence[Verdict], overruling: Overruling
) -> None:
    """Keep the file's sums, those it states, and each verdict; an overruled one with who and why."""
    sums = {currency: {"rows": s.rows, "open": str(s.open_amount)} for currency, s in (measures.sums or {}).items()}
    connection.execute(
        text(
            "update landing.feed_files f set sums = :sums, stated = :stated, guards = (select coalesce(jsonb_agg(case"
            "   when v.verdict ->> 'state' = 'overruled' then v.verdict || jsonb_build_object("
            "     'overruled_by', (select actor from ops.run_ledger r where r.run_id = f.run_id),"
            "     'overruled_because', cast(:reason as text))"
            "   else v.verdict end order by v.place), '[]')"
            " from jsonb_array_elements(:verdicts) with ordinality v(verdict, place))"
            " where feed_file_id = :feed_file_id"
        ).bindparams(
            *(bindparam(name, type_=JSONB) for name in ("sums", "stated")), bindparam("verdicts", type_=JSONB)
        ),
        {
            "sums": sums,
            "stated": [
                {"column": total.column, "currency": total.currency, "amount": str(total.said)}
                for total in measures.totals
            ],
            "verdicts": [verdict.record() for verdict in verdicts],
            "reason": overruling.reason,
            "feed_file_id": staged.feed_file_id,
        },
    )
