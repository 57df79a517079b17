"""One file into the database: registered, staged, judged row by row, applied by its domain, and counted.

All of it happens in one transaction. A process that dies at any instruction leaves nothing of the file behind,
and the next run takes the same file in again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from data_contracts.tables import metadata
from tasks.errors import FileRefused, Refused
from tasks.feeds.casting import CastTable
from tasks.feeds.contracts import FeedContract, RowCheck
from tasks.feeds.reading import RawTable, raw_rows

ITEM_KEY_COLUMN = {"staged_items": "invoice_number"}
SQL_TYPES = {
    "text": "text",
    "code": "text",
    "date": "date",
    "money": "numeric(19,4)",
    "integer": "integer",
    "boolean": "boolean",
}


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
class FileOutcome:
    """What became of a file: ``state`` is applied, superseded, known (taken in before) or refused.

    The counts add up to ``rows_read``. ``reasons`` and ``hint`` are a refused file's.
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

    def counts(self) -> dict[str, int]:
        """The counts by name."""
        return {name: getattr(self, name) for name in self.count_names()}

    @classmethod
    def count_names(cls) -> list[str]:
        """The names of the counts, in order."""
        return [f.name for f in fields(cls) if f.type == "int"]


Apply = Callable[[Connection, StagedFile], Applied]


def take_in(
    connection: Connection,
    *,
    contract: FeedContract,
    fingerprint: Fingerprint,
    raw: RawTable,
    cast: CastTable,
    as_of: date,
    revision: int,
    run_id: int,
    apply: Apply,
    accepted_guards: Sequence[str] = (),
) -> FileOutcome:
    """Take one file in, inside the caller's transaction, and return what became of it.

    Raises:
        FileRefused: the same content came under another date, or two different files claim the same one.
    """
    _serialise(connection, contract.feed)
    known = _known_outcome(connection, contract, fingerprint, as_of)
    if known is not None:
        return known
    _refuse_conflicts(connection, contract, fingerprint, as_of, revision, accepted_guards)
    if _is_outdated_revision(connection, contract, as_of, revision):
        return _register_superseded(connection, contract, fingerprint, as_of, revision, run_id, len(cast.frame))
    replaces = _retire_older_revision(connection, contract, as_of)
    feed_file_id = _register(connection, contract, fingerprint, as_of, revision, run_id, raw)
    staged = StagedFile(
        feed_file_id=feed_file_id,
        feed=contract.feed,
        source=contract.source,
        staging=staging_table(contract.feed),
        as_of=as_of,
        revision=revision,
        columns=spoken_columns(contract, raw),
        creates_customers=contract.missing_customer == "create",
        replaces=replaces,
    )
    _stage(connection, staged, cast.frame)
    warned = _judge(connection, staged, contract, raw, cast)
    fates = _count_fates(connection)
    applied = apply(connection, staged)
    outcome = _outcome(fingerprint, contract, as_of, len(cast.frame), fates, applied, warned)
    _write_counts(connection, feed_file_id, outcome)
    _clear_staging(connection, staged.staging)
    return outcome


def spoken_columns(contract: FeedContract, raw: RawTable) -> frozenset[str]:
    """The columns a file says something about: those it has, and those its contract fills in."""
    filled = {
        column.name
        for column in contract.columns
        if column.constant is not None or column.default is not None or column.default_from is not None
    }
    return frozenset(raw.columns) | filled


def staging_table(feed: str) -> str:
    """The unlogged table in which a feed's rows are judged."""
    return {
        "open_items": "landing.staged_items",
        "settled_items": "landing.staged_items",
        "organizations": "landing.staged_organizations",
        "contacts": "landing.staged_contacts",
    }[feed]


@dataclass(frozen=True)
class AwaitingFile:
    """A file with quarantined rows whose customer has arrived since."""

    feed_file_id: int
    feed: str


def find_awaiting(connection: Connection, feeds: Sequence[str]) -> list[AwaitingFile]:
    """The files of these feeds with rows to replay now, oldest business date first."""
    rows = connection.execute(
        text(
            "select distinct f.feed_file_id, f.feed, f.as_of from landing.quarantined_rows q"
            " join landing.feed_files f using (feed_file_id)"
            " join crm.organizations o on o.customer_number = q.customer_number"
            " where q.state = 'open' and q.awaits_customer and f.feed = any(:feeds) and f.state = 'applied'"
            " order by f.as_of, f.feed_file_id"
        ),
        {"feeds": list(feeds)},
    ).all()
    return [AwaitingFile(row.feed_file_id, row.feed) for row in rows]


def replay_awaiting(connection: Connection, file: AwaitingFile, *, run_id: int, apply: Apply) -> Applied:
    """Take the rows of a file whose customer has arrived out of quarantine, as if the customer had been there.

    The file's counts move with them, so that they still add up.
    """
    staging = staging_table(file.feed)
    _serialise(connection, file.feed)
    _clear_staging(connection, staging)
    _create_fates(connection)
    replayed = connection.execute(
        text(
            "with back as ("
            " update landing.quarantined_rows q set state = 'replayed', resolved_at = now(),"
            " resolved_by_run_id = :run_id"
            " from crm.organizations o where o.customer_number = q.customer_number"
            " and q.feed_file_id = :feed_file_id and q.state = 'open' and q.awaits_customer returning q.staged)"
            f" insert into {staging} select r.* from back, jsonb_populate_record(null::{staging}, back.staged) r"
        ),
        {"run_id": run_id, "feed_file_id": file.feed_file_id},
    ).rowcount
    connection.exec_driver_sql(f"analyze {staging}")
    applied = apply(connection, _staged_again(connection, file.feed_file_id))
    connection.execute(
        text(
            "update landing.feed_files set quarantined = quarantined - :replayed, inserted = inserted + :inserted,"
            " updated = updated + :updated, unchanged = unchanged + :unchanged, superseded = superseded + :superseded"
            " where feed_file_id = :feed_file_id"
        ),
        {
            "replayed": replayed,
            "inserted": applied.inserted,
            "updated": applied.updated,
            "unchanged": applied.unchanged,
            "superseded": applied.superseded,
            "feed_file_id": file.feed_file_id,
        },
    )
    _clear_staging(connection, staging)
    return applied


def _staged_again(connection: Connection, feed_file_id: int) -> StagedFile:
    row = connection.execute(
        text("select feed, source, as_of, revision, columns from landing.feed_files where feed_file_id = :id"),
        {"id": feed_file_id},
    ).one()
    return StagedFile(
        feed_file_id, row.feed, row.source, staging_table(row.feed), row.as_of, row.revision, frozenset(row.columns)
    )


def _clear_staging(connection: Connection, staging: str) -> None:
    connection.exec_driver_sql(f"truncate {staging}")
    connection.exec_driver_sql("drop table if exists pg_temp.row_fate")


def record_refusal(
    connection: Connection,
    *,
    contract: FeedContract,
    fingerprint: Fingerprint,
    as_of: date | None,
    reasons: Sequence[str],
    run_id: int,
) -> None:
    """Keep that a file was refused, and why; a later refusal of the same content takes its place."""
    connection.execute(
        text(
            "insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode,"
            " file_name, sha256, byte_size, as_of, state, refusal, run_id)"
            " values (:contract, :contract_version, :contract_sha256, :feed, :source, :mode,"
            " :file_name, :sha256, :byte_size, :as_of, 'refused', :refusal, :run_id)"
            " on conflict (contract, sha256) where state = 'refused' do update"
            " set refusal = excluded.refusal, as_of = excluded.as_of, file_name = excluded.file_name,"
            " contract_version = excluded.contract_version, contract_sha256 = excluded.contract_sha256,"
            " run_id = excluded.run_id, received_at = now()"
        ).bindparams(bindparam("refusal", type_=JSONB)),
        {**_identity(contract, fingerprint), "as_of": as_of, "refusal": list(reasons), "run_id": run_id},
    )


def _serialise(connection: Connection, feed: str) -> None:
    """Let one file of a feed in at a time, whichever flow or command brings it."""
    table = staging_table(feed)
    connection.execute(text("select pg_advisory_xact_lock(hashtext(:key))"), {"key": f"kontor staging {table}"})


def _known_outcome(
    connection: Connection, contract: FeedContract, fingerprint: Fingerprint, as_of: date
) -> FileOutcome | None:
    known = connection.execute(
        text(
            "select as_of from landing.feed_files"
            " where contract = :contract and sha256 = :sha256 and as_of = :as_of and state <> 'refused'"
        ),
        {"contract": contract.name, "sha256": fingerprint.sha256, "as_of": as_of},
    ).one_or_none()
    if known is None:
        return None
    return FileOutcome(fingerprint.file_name, contract.name, as_of, "known")


def _refuse_conflicts(
    connection: Connection,
    contract: FeedContract,
    fingerprint: Fingerprint,
    as_of: date,
    revision: int,
    accepted_guards: Sequence[str],
) -> None:
    """Refuse what cannot be decided without a person: only snapshots say something by what they leave out."""
    if contract.mode != "snapshot":
        return
    others = connection.execute(
        text(
            "select file_name, as_of, revision, sha256 = :sha256 as same from landing.feed_files"
            " where feed = :feed and source = :source and state <> 'refused' and mode = 'snapshot'"
            " and (sha256 = :sha256 or (as_of = :as_of and revision = :revision)) order by as_of limit 1"
        ),
        {**_identity(contract, fingerprint), "as_of": as_of, "revision": revision},
    ).one_or_none()
    if others is None or (others.same and "same_content" in accepted_guards):
        return
    raise _conflict(fingerprint, as_of, revision, others.file_name, others.as_of, others.same)


def _conflict(
    fingerprint: Fingerprint, as_of: date, revision: int, other_name: str, other_as_of: date, same: bool
) -> FileRefused:
    if same:
        return FileRefused(
            fingerprint.file_name,
            [f"it is dated {as_of}, but its content is byte for byte that of {other_name}, dated {other_as_of}"],
            hint="Ask for the right week's export. If truly nothing changed, import it again with"
            " --accept-guard same_content --reason '…'.",
        )
    return FileRefused(
        fingerprint.file_name,
        [f"{other_name} already is revision {revision} of the snapshot as of {as_of}, with other content"],
        hint=f"If this one corrects it, import it with --revision {revision + 1}.",
    )


def _is_outdated_revision(connection: Connection, contract: FeedContract, as_of: date, revision: int) -> bool:
    if contract.mode != "snapshot":
        return False
    return bool(
        connection.scalar(
            text(
                "select exists (select from landing.feed_files where feed = :feed and source = :source"
                " and as_of = :as_of and revision > :revision and mode = 'snapshot' and state = 'applied')"
            ),
            {"feed": contract.feed, "source": contract.source, "as_of": as_of, "revision": revision},
        )
    )


def _register_superseded(
    connection: Connection,
    contract: FeedContract,
    fingerprint: Fingerprint,
    as_of: date,
    revision: int,
    run_id: int,
    rows: int,
) -> FileOutcome:
    connection.execute(
        text(
            "insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode,"
            " file_name, sha256, byte_size, as_of, revision, state, rows_read, superseded, run_id)"
            " values (:contract, :contract_version, :contract_sha256, :feed, :source, :mode,"
            " :file_name, :sha256, :byte_size, :as_of, :revision, 'superseded', :rows, :rows, :run_id)"
        ),
        {
            **_identity(contract, fingerprint),
            "as_of": as_of,
            "revision": revision,
            "rows": rows,
            "run_id": run_id,
        },
    )
    return FileOutcome(fingerprint.file_name, contract.name, as_of, "superseded", rows_read=rows, superseded=rows)


def _retire_older_revision(connection: Connection, contract: FeedContract, as_of: date) -> bool:
    """Mark the revision in force as superseded; its open quarantine goes with it."""
    if contract.mode != "snapshot":
        return False
    retired = connection.scalars(
        text(
            "update landing.feed_files set state = 'superseded' where feed = :feed and source = :source"
            " and as_of = :as_of and mode = 'snapshot' and state = 'applied' returning feed_file_id"
        ),
        {"feed": contract.feed, "source": contract.source, "as_of": as_of},
    ).all()
    connection.execute(
        text(
            "update landing.quarantined_rows set state = 'superseded', resolved_at = now()"
            " where feed_file_id = any(:retired) and state = 'open'"
        ),
        {"retired": list(retired)},
    )
    return bool(retired)


def _identity(contract: FeedContract, fingerprint: Fingerprint) -> dict[str, object]:
    return {
        "contract": contract.name,
        "contract_version": contract.version,
        "contract_sha256": contract.sha256,
        "feed": contract.feed,
        "source": contract.source,
        "mode": contract.mode,
        "file_name": fingerprint.file_name,
        "sha256": fingerprint.sha256,
        "byte_size": fingerprint.byte_size,
    }


def _register(
    connection: Connection,
    contract: FeedContract,
    fingerprint: Fingerprint,
    as_of: date,
    revision: int,
    run_id: int,
    raw: RawTable,
) -> int:
    return int(
        connection.execute(
            text(
                "insert into landing.feed_files (contract, contract_version, contract_sha256, feed, source, mode,"
                " file_name, sha256, byte_size, as_of, revision, columns, state, totals, run_id)"
                " values (:contract, :contract_version, :contract_sha256, :feed, :source, :mode,"
                " :file_name, :sha256, :byte_size, :as_of, :revision, :columns, 'applied', :totals, :run_id)"
                " returning feed_file_id"
            ).bindparams(bindparam("totals", type_=JSONB)),
            {
                **_identity(contract, fingerprint),
                "as_of": as_of,
                "revision": revision,
                "columns": sorted(spoken_columns(contract, raw)),
                "totals": [asdict(row) for row in raw.totals],
                "run_id": run_id,
            },
        ).scalar_one()
    )


def _stage(connection: Connection, staged: StagedFile, frame: pd.DataFrame) -> None:
    """Empty the staging table and COPY the typed rows into it, good and bad alike."""
    columns = [column.name for column in metadata.tables[staged.staging].columns if column.name in frame.columns]
    _clear_staging(connection, staged.staging)
    copy_frame(connection, staged.staging, frame[columns])
    connection.exec_driver_sql(f"analyze {staged.staging}")
    _create_fates(connection)


def _create_fates(connection: Connection) -> None:
    connection.exec_driver_sql(
        "create temporary table row_fate (row_number integer primary key, fate text not null,"
        " reasons jsonb not null default '[]', awaits_customer boolean not null default false) on commit drop"
    )


def copy_frame(connection: Connection, table: str, frame: pd.DataFrame) -> None:
    """COPY a frame whose columns are named as the table's into ``table``; nulls stay nulls."""
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(arrow, buffer, pyarrow.csv.WriteOptions(include_header=False))
    driver = connection.connection.driver_connection
    if driver is None:
        raise Refused("The connection was closed while a file was being loaded.", hint="Run the command again.")
    with (
        driver.cursor() as cursor,
        cursor.copy(f"copy {table} ({', '.join(frame.columns)}) from stdin (format csv)") as copy,
    ):
        copy.write(buffer.getbuffer())


def _judge(connection: Connection, staged: StagedFile, contract: FeedContract, raw: RawTable, cast: CastTable) -> int:
    """Decide every row's fate and quarantine the bad ones with all their reasons; return the rows warned about."""
    reasons = [_reason_of_problem(row) for row in cast.problems.to_dict("records")]
    rows = _with_check_columns(connection, staged, contract, cast.frame)
    failures = _failed_checks(connection, rows, staged.as_of, contract.checks)
    reasons += [_reason_of_check(failure, raw) for failure in failures if failure.check.severity == "error"]
    reasons += _key_collisions(connection, staged, contract, raw)
    awaiting = [] if _creates_customers(contract) else _unknown_customers(connection, staged, raw)
    reasons += awaiting
    _write_fates(connection, reasons, {int(reason["row_number"]) for reason in awaiting})
    _quarantine(connection, staged, raw)
    return len({failure.row_number for failure in failures if failure.check.severity == "warn"})


Reason = dict[str, Any]


def _reason_of_problem(problem: Mapping[Any, Any]) -> Reason:
    return {
        "row_number": int(problem["row_number"]),
        "column_name": str(problem["column_name"]),
        "cell": str(problem["cell"]),
        "raw_value": None if problem["raw_value"] is None else str(problem["raw_value"]),
        "code": str(problem["code"]),
        "reason": str(problem["reason"]),
    }


@dataclass(frozen=True)
class FailedCheck:
    """A row that does not hold to a check, with the values of the check's columns."""

    row_number: int
    check: RowCheck
    values: Mapping[str, str | None]


def _with_check_columns(connection: Connection, staged: StagedFile, contract: FeedContract, frame: pd.DataFrame) -> str:
    """The rows to check as a FROM clause: the staged columns, and beside them those that only a check reads."""
    kinds = {column.name: column.kind for column in contract.columns if not _is_staged(staged, column.name)}
    if not kinds:
        return staged.staging
    columns = ", ".join(f"{name} {SQL_TYPES[kind]}" for name, kind in kinds.items())
    connection.exec_driver_sql("drop table if exists pg_temp.check_only")
    connection.exec_driver_sql(f"create temporary table check_only (row_number integer, {columns}) on commit drop")
    copy_frame(connection, "check_only", frame[["row_number", *kinds]])
    return f"{staged.staging} join check_only using (row_number)"


def _failed_checks(connection: Connection, rows: str, as_of: date, checks: Sequence[RowCheck]) -> list[FailedCheck]:
    """Run all checks of the contract in one pass; a check whose value is unknown holds."""
    if not checks:
        return []
    flags = ", ".join(f"coalesce(not ({check.sql}), false) as check_{place}" for place, check in enumerate(checks))
    columns = sorted({column for check in checks for column in check.columns})
    values = ", ".join(f"{column}::text as {column}" for column in columns)
    found = connection.execute(
        text(
            f"select * from (select row_number, {flags}, {values}"
            f" from (select *, cast(:as_of as date) as as_of from {rows}) s) judged"
            f" where {' or '.join(f'check_{place}' for place in range(len(checks)))} order by row_number"
        ),
        {"as_of": as_of},
    ).mappings()
    return [
        FailedCheck(row["row_number"], check, {column: row[column] for column in check.columns})
        for row in found
        for place, check in enumerate(checks)
        if row[f"check_{place}"]
    ]


def _reason_of_check(failure: FailedCheck, raw: RawTable) -> Reason:
    column = failure.check.columns[-1]
    return {
        "row_number": failure.row_number,
        "column_name": column,
        "cell": raw.cell(column, failure.row_number),
        "raw_value": failure.values[column],
        "code": failure.check.name,
        "reason": failure.check.reason.format_map({name: value or "nothing" for name, value in failure.values.items()}),
    }


def _key_collisions(connection: Connection, staged: StagedFile, contract: FeedContract, raw: RawTable) -> list[Reason]:
    """Rows of this file that claim the same key, each with the other's address; harmless copies are set aside."""
    key = ", ".join(contract.key)
    present = " and ".join(f"{column} is not null" for column in contract.key)
    content = (
        f"md5(row({', '.join(column.name for column in contract.columns if _is_staged(staged, column.name))})::text)"
    )
    groups = connection.execute(
        text(
            f"select array_agg(row_number order by row_number) as rows, count(distinct {content}) as contents"
            f" from {staged.staging} where {present} group by {key} having count(*) > 1 order by 1"
        )
    ).all()
    reasons: list[Reason] = []
    spare: list[int] = []
    for group in groups:
        keep = _kept_of_group(contract, list(group.rows), int(group.contents))
        if keep is None:
            reasons += [_collision(raw, contract, row, group.rows) for row in group.rows]
        else:
            spare += [row for row in group.rows if row != keep]
    _set_aside(connection, spare)
    return reasons


def _is_staged(staged: StagedFile, column: str) -> bool:
    return column in metadata.tables[staged.staging].columns


def _kept_of_group(contract: FeedContract, rows: Sequence[int], contents: int) -> int | None:
    """The one row of a colliding group that stands, or None where a person must decide."""
    if contract.duplicate_rows == "keep_last":
        return rows[-1]
    if contract.duplicate_rows == "identical" and contents == 1:
        return rows[0]
    return None


def _collision(raw: RawTable, contract: FeedContract, row: int, rows: Sequence[int]) -> Reason:
    column = contract.key[-1]
    others = ", ".join(raw.cell(column, other) for other in rows if other != row)
    return {
        "row_number": row,
        "column_name": column,
        "cell": raw.cell(column, row),
        "raw_value": None,
        "code": "duplicate_key",
        "reason": f"the same {' and '.join(contract.key)} also stands in {others}; only one of them can be right",
    }


def _set_aside(connection: Connection, rows: Sequence[int]) -> None:
    connection.execute(
        text(
            "insert into row_fate (row_number, fate) select r, 'superseded' from unnest(cast(:rows as integer[])) r"
            " on conflict do nothing"
        ),
        {"rows": list(rows)},
    )


def _creates_customers(contract: FeedContract) -> bool:
    return contract.feed == "organizations" or contract.missing_customer == "create"


def _unknown_customers(connection: Connection, staged: StagedFile, raw: RawTable) -> list[Reason]:
    """Rows whose customer is not there yet; they wait in quarantine. A copy that was set aside does not wait too."""
    rows = connection.execute(
        text(
            f"select s.row_number, s.customer_number from {staged.staging} s"
            " where s.customer_number is not null and not exists"
            " (select from crm.organizations o where o.customer_number = s.customer_number)"
            " and not exists (select from row_fate f where f.row_number = s.row_number) order by 1"
        )
    ).all()
    return [
        {
            "row_number": row.row_number,
            "column_name": "customer_number",
            "cell": raw.cell("customer_number", row.row_number),
            "raw_value": row.customer_number,
            "code": "unknown_customer",
            "reason": "no customer has this number yet; the row is taken in by itself when the customer arrives",
        }
        for row in rows
    ]


def _write_fates(connection: Connection, reasons: Sequence[Reason], awaiting: set[int]) -> None:
    by_row: dict[int, list[Reason]] = {}
    for reason in reasons:
        by_row.setdefault(int(reason["row_number"]), []).append(reason)
    if not by_row:
        return
    connection.execute(
        text(
            "insert into row_fate (row_number, fate, reasons, awaits_customer)"
            " select r.row_number, 'quarantined', r.reasons, r.awaits_customer"
            " from jsonb_to_recordset(:rows) as r(row_number integer, reasons jsonb, awaits_customer boolean)"
            " on conflict (row_number) do update set fate = 'quarantined', reasons = excluded.reasons,"
            " awaits_customer = excluded.awaits_customer"
        ).bindparams(bindparam("rows", type_=JSONB)),
        {
            "rows": [
                {
                    "row_number": row,
                    "reasons": [{k: v for k, v in reason.items() if k != "row_number"} for reason in found],
                    # A row that is wrong in another way too must be corrected; its customer alone does not mend it.
                    "awaits_customer": row in awaiting and len(found) == 1,
                }
                for row, found in by_row.items()
            ]
        },
    )


def _quarantine(connection: Connection, staged: StagedFile, raw: RawTable) -> None:
    rows = connection.scalars(text("select row_number from row_fate where fate = 'quarantined' order by 1")).all()
    if not rows:
        return
    key = ITEM_KEY_COLUMN.get(staged.staging.removeprefix("landing."), "null::text")
    connection.execute(
        text(
            "insert into landing.quarantined_rows (feed_file_id, row_number, customer_number, item_key, cells,"
            " staged, reasons, awaits_customer)"
            f" select :feed_file_id, f.row_number, s.customer_number, {key}, r.cells, to_jsonb(s), f.reasons,"
            f" f.awaits_customer from row_fate f join {staged.staging} s using (row_number)"
            " join jsonb_to_recordset(:rows) as r(row_number integer, cells jsonb) using (row_number)"
            " where f.fate = 'quarantined'"
        ).bindparams(bindparam("rows", type_=JSONB)),
        {"feed_file_id": staged.feed_file_id, "rows": raw_rows(raw, rows)},
    )


def _count_fates(connection: Connection) -> dict[str, int]:
    rows = connection.execute(text("select fate, count(*) from row_fate group by fate")).all()
    return {fate: int(count) for fate, count in rows}


def _outcome(
    fingerprint: Fingerprint,
    contract: FeedContract,
    as_of: date,
    rows_read: int,
    fates: Mapping[str, int],
    applied: Applied,
    warned: int,
) -> FileOutcome:
    return FileOutcome(
        file_name=fingerprint.file_name,
        contract=contract.name,
        as_of=as_of,
        state="applied",
        rows_read=rows_read,
        inserted=applied.inserted,
        updated=applied.updated,
        unchanged=applied.unchanged,
        quarantined=fates.get("quarantined", 0),
        superseded=applied.superseded + fates.get("superseded", 0),
        settled=applied.settled,
        reopened=applied.reopened,
        warned=warned,
    )


def _write_counts(connection: Connection, feed_file_id: int, outcome: FileOutcome) -> None:
    connection.execute(
        text(
            "update landing.feed_files set rows_read = :rows_read, inserted = :inserted, updated = :updated,"
            " unchanged = :unchanged, quarantined = :quarantined, superseded = :superseded, settled = :settled,"
            " reopened = :reopened, warned = :warned where feed_file_id = :feed_file_id"
        ),
        {**outcome.counts(), "feed_file_id": feed_file_id},
    )
