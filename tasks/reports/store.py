"""Reads the views of schema ``report``, and for a past day the functions of the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta

from sqlalchemy import Connection, text

from tasks.errors import UsageError
from tasks.reports.catalogue import reading_of
from tasks.reports.rows import Column, Kind, Report

# PostgreSQL's own numbers of types, as the driver reports them.
_KINDS: Mapping[int, Kind] = {
    16: "boolean", 20: "integer", 21: "integer", 23: "integer", 114: "json", 1082: "date", 1184: "instant",
    1700: "money", 3802: "json",
}  # fmt: skip


# Customer and period come with a third parameter: two dates in quotation marks must stay two dates.
_LEAST_FIRST = ("customer_number,as_of", "customer_number,since,as_of", "first_rows,as_of", "since,as_of", "as_of")


@dataclass(frozen=True)
class _Source:
    """A view of schema ``report`` and the parameters that the functions of its name take."""

    name: str
    columns: tuple[str, ...]
    signatures: frozenset[str]

    def narrows(self, chosen: Mapping[str, object]) -> bool:
        """Whether there is a function that reads no more than one customer, or no more than the first rows."""
        return any(name in self._signature(chosen).split(",") for name in ("customer_number", "first_rows"))

    def relation(self, chosen: Mapping[str, object]) -> str:
        """The view, or the function that reads least: that of one customer, of the first rows, of some days, of a day.

        ``chosen`` holds what is known by the names of parameters.
        """
        signature = self._signature(chosen)
        values = f"({', '.join(f':{name}' for name in signature.split(','))})" if signature else ""
        return f"report.{self.name}{values}"

    def _signature(self, chosen: Mapping[str, object]) -> str:
        """The parameters of that function; empty where it is the view."""
        for signature in _LEAST_FIRST:
            if signature in self.signatures and all(chosen.get(name) is not None for name in signature.split(",")):
                return signature
        return ""


def list_reports(connection: Connection) -> list[str]:
    """The names of the reports there are: the views of schema ``report``, by name; parts of the status are left out."""
    return list(connection.scalars(text(_VIEWS)))


def read_report(
    connection: Connection,
    name: str,
    *,
    as_of: date | None = None,
    customer: str | None = None,
    equal: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> Report:
    """The rows of the view ``name`` (hyphens and underscores alike), of today or as of a past day, in reading order.

    ``customer`` and ``equal`` keep the rows whose columns have these values; ``limit`` keeps the first rows.

    Raises:
        UsageError: no such report, it cannot answer for a past day, it has no such column, or no such customer.
    """
    source = _find_source(connection, name, as_of)
    wanted = {**({"customer_number": customer} if customer is not None else {}), **(equal or {})}
    _check_columns(source, wanted)
    if customer is not None:
        _check_customer(connection, customer)
    found = _first_rows(connection, source, as_of, wanted, limit)
    more = limit is not None and len(found.rows) > limit
    return replace(found, rows=found.rows[:limit], more=True) if more else found


# How far back the first rows of a long history are looked for before all of it is read.
_PERIODS = (31, 366)


def _first_rows(
    connection: Connection, source: _Source, as_of: date | None, wanted: Mapping[str, str], limit: int | None
) -> Report:
    """The rows, one more than ``limit``; those of the newest days alone where they are enough."""
    more = None if limit is None else limit + 1
    day: date = as_of or connection.execute(text("select ops.business_today()")).scalar_one()
    # A function that finds the first rows by itself knows nothing of what else is wanted of them.
    chosen: dict[str, object] = {**wanted, "as_of": day, "first_rows": None if wanted else more}
    if "customer_number" in wanted:
        chosen["since"] = date.min
    if not source.narrows(chosen):
        for days in _PERIODS if limit is not None and reading_of(source.name).newest_first else ():
            recent = {**chosen, "since": day - timedelta(days)}
            found = _fetch(connection, source.name, *_statement(source, recent, wanted, more), as_of)
            if len(found.rows) == more:
                return found
        # The view answers for today, and for some reports it does so sooner.
        chosen |= {"as_of": as_of, "since": None}
    return _fetch(connection, source.name, *_statement(source, chosen, wanted, more), as_of)


def report_of(
    connection: Connection, name: str, relation: str, values: Mapping[str, object], *, as_of: date | None = None
) -> Report:
    """The rows of ``relation``, a view or a call of a function written in this package, as the report ``name``.

    For functions that take more than a day; ``values`` are bound to the names in the call.
    """
    statement = f"select * from {relation} order by {reading_of(name).order}"
    return _fetch(connection, name, statement, values, as_of)


def _fetch(
    connection: Connection, name: str, statement: str, values: Mapping[str, object], as_of: date | None
) -> Report:
    result = connection.execute(text(statement), values)
    # Asked for before the rows are fetched: the driver forgets its description when it is done.
    described = result.cursor.description if result.cursor is not None else ()
    columns = tuple(Column(str(item[0]), _KINDS.get(int(str(item[1])), "text")) for item in described or ())
    return Report(name, as_of, columns, tuple(tuple(row) for row in result))


def _find_source(connection: Connection, name: str, as_of: date | None) -> _Source:
    view = name.strip().lower().replace("-", "_")
    columns = tuple(connection.scalars(text(_COLUMNS), {"view": view}))
    if not columns:
        known = ", ".join(item.replace("_", "-") for item in list_reports(connection))
        raise UsageError(f"There is no report {name!r}.", hint=f"Choose one of: {known}.")
    signatures = frozenset(connection.scalars(text(_SIGNATURES), {"view": view}))
    source = _Source(view, columns, signatures)
    if as_of is not None and "as_of" not in signatures:
        dated = sorted(item.replace("_", "-") for item in connection.scalars(text(_DATED)))
        raise UsageError(
            f"Report {view} shows how things stand now; it cannot answer for {as_of}.",
            hint=f"Leave --as-of out, or take one that answers for a past day: {', '.join(dated)}.",
        )
    return source


def _check_columns(source: _Source, wanted: Mapping[str, str]) -> None:
    missing = [name for name in wanted if name not in source.columns]
    if missing:
        raise UsageError(
            f"Report {source.name} has no column {', '.join(missing)}; it has {', '.join(source.columns)}.",
            hint="Leave that choice out, or take another report.",
        )


def _check_customer(connection: Connection, customer: str) -> None:
    if not connection.scalar(
        text("select exists (select from crm.organizations where customer_number = :number)"), {"number": customer}
    ):
        raise UsageError(
            f"There is no customer {customer}.",
            hint="Check the number, with its leading zeros; `kontor report aging` lists customers with open items.",
        )


def _statement(
    source: _Source, chosen: Mapping[str, object], wanted: Mapping[str, str], more: int | None
) -> tuple[str, dict[str, object]]:
    """The statement and its values. Names come from the catalogue of the database and from this package."""
    where = " and ".join(f"{name} = :wanted_{name}" for name in wanted)
    statement = (
        f"select * from {source.relation(chosen)}{' where ' + where if where else ''}"
        f" order by {reading_of(source.name).order}{'' if more is None else ' limit :limit'}"
    )
    return statement, {**chosen, **{f"wanted_{name}": value for name, value in wanted.items()}, "limit": more}


_VIEWS = """
select viewname from pg_views
where schemaname = 'report' and (viewname not like 'status\\_%' or viewname = 'status_lines') order by viewname
"""

_COLUMNS = """
select column_name from information_schema.columns
where table_schema = 'report' and table_name = :view order by ordinal_position
"""

_SIGNATURES = """
select array_to_string(p.proargnames[1:p.pronargs], ',') from pg_proc p
where p.pronamespace = 'report'::regnamespace and p.proname = :view
"""

_DATED = """
select p.proname from pg_proc p
where p.pronamespace = 'report'::regnamespace and p.pronargs = 1 and p.proargnames[1] = 'as_of'
"""
