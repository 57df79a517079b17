"""Reads what the pages of data quality show, and writes them beside the other reports of this installation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from tasks.quality.checks_store import ROW_KINDS, Result, failing_condition
from tasks.quality.contracts import TableContract
from tasks.quality.pages import RulePage, engineers_page, owners_page

_TREND = 30


def fetch_rule_pages(
    connection: Connection, contracts: Sequence[TableContract], results: Sequence[Result]
) -> list[RulePage]:
    """Every result with its rule's SQL and the last failing counts."""
    sql = {
        rule.rule_id: failing_condition(contract, rule).replace("\\:", ":")
        for contract in contracts
        for rule in contract.rules
        if rule.kind in ROW_KINDS
    }
    trends: dict[str, list[int | None]] = {}
    for row in connection.execute(text(_TRENDS), {"days": _TREND}):
        trends.setdefault(row.rule_id, []).append(row.failing)
    return [
        RulePage(
            rule_id=result.rule.rule_id,
            table=result.table,
            severity=result.rule.severity,
            owner=result.rule.owner,
            state=result.state,
            failing=result.failing,
            rows=result.rows_checked,
            meaning=result.rule.meaning,
            error=result.error,
            sql=sql.get(result.rule.rule_id, "of the table as a whole"),
            trend=tuple(trends.get(result.rule.rule_id, ())),
        )
        for result in results
    ]


_TRENDS = """
select rule_id, failing from (
    select distinct on (rule_id, as_of) rule_id, as_of, failing,
           dense_rank() over (partition by rule_id order by as_of desc) as back
    from ops.quality_results where engine = 'sql' order by rule_id, as_of, quality_result_id desc
) r
where back <= :days order by rule_id, as_of
"""


def fetch_owners(connection: Connection, as_of: date) -> list[str]:
    """Everybody who has an open incident or has had one solved in the week before."""
    return list(
        connection.scalars(
            text(
                "select distinct owner from ops.quality_incidents"
                " where state = 'open' or closed_on > cast(:as_of as date) - 7 order by owner"
            ),
            {"as_of": as_of},
        )
    )


def fetch_owner_rows(
    connection: Connection, owner: str, as_of: date
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One owner's open incidents, worst and oldest first, and those closed in the week before."""
    given = {"owner": owner, "as_of": as_of}
    standing = connection.execute(
        text(
            "select * from report.quality_incidents where owner = :owner and state = 'open'"
            " order by array_position(array['fail', 'warn', 'info'], severity), due_on, incident_id"
        ),
        given,
    ).mappings()
    solved = connection.execute(
        text(
            "select * from report.quality_incidents where owner = :owner and state = 'closed'"
            " and closed_on > cast(:as_of as date) - 7 order by closed_on desc, incident_id"
        ),
        given,
    ).mappings()
    return [dict(row) for row in standing], [dict(row) for row in solved]


def write_pages(
    connection: Connection, home: Path, as_of: date, contracts: Sequence[TableContract], results: Sequence[Result]
) -> list[Path]:
    """Write the engineers' page and one page an owner under ``home``/reports; returns their paths.

    A page takes its older version's place in one move, readable by this account alone.
    """
    folder = home / "reports" / "data_quality" / as_of.isoformat()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pages = {"rules.html": engineers_page(as_of, fetch_rule_pages(connection, contracts, results))}
    for place, owner in enumerate(fetch_owners(connection, as_of), start=1):
        page = owners_page(owner, as_of, *fetch_owner_rows(connection, owner, as_of))
        pages[f"owner-{place:02d}-{_plain(owner)}.html"] = page
    return [_write(folder / name, page) for name, page in pages.items()]


def _plain(owner: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", owner.casefold()).strip("-")[:40] or "unnamed"


def _write(path: Path, page: str) -> Path:
    partial = path.with_name(f".{path.name}.part")
    partial.touch(mode=0o600)
    partial.write_text(page, "utf-8")
    partial.replace(path)
    return path
